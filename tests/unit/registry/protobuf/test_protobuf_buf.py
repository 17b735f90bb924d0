"""buf as a second opinion: its WIRE rules beside LENIENT, its WIRE_JSON rules beside EXACT, on the table of edits.

Where they differ, buf's rule or ours is listed here with the reason, and nothing else differs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from services.registry.adapters.protoc import compile_files
from services.registry.domain.formats.protobuf import Protobuf, descriptors

FORMAT = Protobuf(compile_files)
BUF = Path(sys.executable).parent / "buf"
ROWS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[3] / "corpora" / "compatibility" / "protobuf.json").read_text()
)

BUF_IS_STRICTER = {
    "FILE_SAME_PACKAGE": "data carries no package but in an Any, which EXACT looks for",
    "FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED": "reader and writer do not tell a removal from an addition",
    "FIELD_NO_DELETE_UNLESS_NAME_RESERVED": "reader and writer do not tell a removal from an addition",
    "ENUM_VALUE_NO_DELETE_UNLESS_NUMBER_RESERVED": "enums are ignored by LENIENT; EXACT asks for a field that has it",
    "ENUM_VALUE_NO_DELETE_UNLESS_NAME_RESERVED": "EXACT asks for a field that has the enum",
    "ENUM_VALUE_SAME_NAME": "an alias that the reader lacks is never written",
    "RESERVED_MESSAGE_NO_DELETE": "a reservation is a promise about later versions",
    "FIELD_SAME_DEFAULT": "defaults are not on the wire; EXACT minds them",
    "FIELD_SAME_ONEOF": "only fields that merge, or lose their case or their presence, do harm",
    "MESSAGE_SAME_REQUIRED_FIELDS": "only the reader's required fields matter",
    "MESSAGE_SAME_JSON_FORMAT": "proto2 may be written in JSON too",
    "FIELD_SAME_JSON_NAME": "a reader takes the name in the text for the JSON name too",
    "FIELD_SAME_NAME": "JSON has the JSON name, which was kept",
}
BUF_IS_STRICTER_ON = {
    ("FIELD_WIRE_COMPATIBLE_TYPE", "types of another name are compared inside; string, bytes, and enums are a group"): {
        "held message renamed",
        "int32 and an open enum",
        "int32 and a closed enum",
        "map and its entries",
        "map value of another message",
        "named type changed",
        "timestamp and duration",
        "null value and another enum",
        "bytes and string",
    },
    ("FIELD_WIRE_COMPATIBLE_CARDINALITY", "a list from one value is read; text and messages by the rule book"): {
        "number and list of numbers",
        "string and list of strings",
        "message and list of messages",
        "required string and optional",
        "required number and optional",
    },
    ("FIELD_WIRE_JSON_COMPATIBLE_TYPE", "widening loses nothing, and names of types are not in data"): {
        "int64 and int32",
        "uint64 and uint32",
        "int64 and uint32",
        "sint64 and sint32",
        "int32 and an open enum",
        "map value widened",
        "map value of another message",
        "named type changed",
    },
    ("FIELD_WIRE_JSON_COMPATIBLE_CARDINALITY", "the reader no longer requires what is always there"): {
        "required number and optional",
        "required string and optional",
    },
}
WE_ARE_STRICTER = {
    "MESSAGE_REMOVED": "a message that is sent on its own must be known",
    "FIELD_SCALAR_KIND_CHANGED": "numbers out of the other type's range turn into others",
    "EXTENSION_RANGE_REMOVED": "JSON readers refuse extensions of what takes none",
    "FIELD_PRESENCE_CHANGED": "a zero that was set looks unset",
    "FIELD_NAME_REUSED": "JSON readers refuse an extension's name that another message's extension has",
    "MESSAGE_FORM_CHANGED": "JSON writes what is called like a well-known type in a form of its own",
}


def write_image(side: str, path: Path) -> None:
    """One image of all texts of a side, each in a package and a file of its own."""
    image = descriptors.FileDescriptorSet()
    seen = set()
    for index, row in enumerate(ROWS):
        text = row[side].replace("package p;", f"package p{index};").replace("package q;", f"package q{index};")
        text = text.replace("package google.protobuf;", f"package q{index};")  # buf takes each name once.
        for file in descriptors.FileDescriptorSet.FromString(FORMAT.parse(text, {}).descriptor_set).file:
            if file.name.startswith("google/"):
                if file.name in seen:
                    continue
                seen.add(file.name)
            else:
                file.name = f"{index}.proto"
            image.file.append(file)
    path.write_bytes(image.SerializeToString())


def objections(folder: Path, reader: str, writer: str, category: str) -> dict[int, set[str]]:
    """buf's rules that each row breaks."""
    config = json.dumps({"version": "v2", "breaking": {"use": [category]}})
    images = str(folder / f"{reader}.binpb"), "--against", str(folder / f"{writer}.binpb")
    answer = subprocess.run(
        [str(BUF), "breaking", *images, "--error-format", "json", "--config", config],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "HOME": str(folder)},
        timeout=60,
    )
    assert answer.stderr == ""
    found: dict[int, set[str]] = {}
    for line in answer.stdout.splitlines():
        objection = json.loads(line)
        found.setdefault(int(objection["path"].removesuffix(".proto")), set()).add(objection["type"])
    return found


def excused(rules: set[str], name: str) -> bool:
    """Whether all of buf's objections to a row are among those that we do not share."""
    return all(
        rule in BUF_IS_STRICTER or any(rule == one and name in names for (one, _), names in BUF_IS_STRICTER_ON.items())
        for rule in rules
    )


@pytest.mark.parametrize(("policy", "category"), [("LENIENT", "WIRE"), ("EXACT", "WIRE_JSON")])
def test_buf_agrees_but_for_reasons(tmp_path: Path, policy: str, category: str) -> None:
    """Each disagreement has a reason in the tables above, and most rows are agreed on."""
    for side in ("reader", "writer"):
        write_image(side, tmp_path / f"{side}.binpb")
    unexplained = []
    agreed = 0
    for side, reader, writer in (("as_written", "reader", "writer"), ("swapped", "writer", "reader")):
        found = objections(tmp_path, reader, writer, category)
        for index, row in enumerate(ROWS):
            ours, theirs = set(row[side][policy]["harmful"]), found.get(index, set())
            if bool(ours) == bool(theirs):
                agreed += 1
            elif ours and not ours <= set(WE_ARE_STRICTER):
                unexplained.append((row["name"], side, "ours", ours))
            elif theirs and not excused(theirs, row["name"]):
                unexplained.append((row["name"], side, "buf's", theirs))

    assert unexplained == []
    assert agreed > len(ROWS)
