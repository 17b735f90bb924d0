"""Conditional writes between processes."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
from pathlib import Path

from llm_schema_registry.objects.directory import DirectoryStore
from llm_schema_registry.objects.s3 import open_s3
from llm_schema_registry.objects.store import ObjectStore
from tests.object_servers import S3Server

ROOT = Path(__file__).resolve().parents[3]
PROCESSES = 3
ROUNDS = 10


async def winners(place: str) -> list[list[str]]:
    """What each process won."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'shared'}"}
    program = str(Path(__file__).with_name("race_process.py"))
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, program, place, str(number), str(ROUNDS)), env=environment, stdout=asyncio.subprocess.PIPE
        )
        for number in range(PROCESSES)
    ]
    outputs = [(await process.communicate())[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * PROCESSES
    return [json.loads(output) for output in outputs]


async def check_race(store: ObjectStore, place: str) -> None:
    await store.put("counter", b"0")

    won = await winners(place)

    assert sorted(key for keys in won for key in keys) == sorted(f"round-{number}" for number in range(ROUNDS))
    for number, keys in enumerate(won):
        for key in keys:
            assert (await store.get(key))[0] == b"%d" % number
    assert int((await store.get("counter"))[0].split()[0]) == PROCESSES * ROUNDS


async def test_directory(tmp_path: Path) -> None:
    """Of several processes one writes a key first, and no increment of a counter is lost."""
    await check_race(DirectoryStore(tmp_path), str(tmp_path))


async def test_s3(s3_server: S3Server) -> None:
    """The same with a bucket that knows conditions."""
    options = s3_server.options(s3_server.bucket())
    async with open_s3(options) as store:
        await check_race(store, json.dumps(dataclasses.asdict(options)))
