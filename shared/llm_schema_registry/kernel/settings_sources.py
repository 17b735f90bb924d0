"""Where options come from, and what is wrong with them, all at once.

Sources, later ones win: the model's defaults, one TOML or YAML file, a directory of secret files, the environment.
An option is one leaf, `section.option`, and the whole of it comes from one source.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import BaseModel, SecretStr, ValidationError

from llm_schema_registry.kernel.settings import Problem, Section, Settings

PREFIX = "SCHEMA_REGISTRY__"
"""What every option's environment variable begins with. Two underscores: with one, Kubernetes itself would set
variables like SCHEMA_REGISTRY_PORT for a Service of this name."""
DELIMITER = "__"
CONFIG_FILE = "SCHEMA_REGISTRY_CONFIG_FILE"
"""Environment variable that names the TOML (.toml) or YAML (.yaml, .yml) file. No option: it has one underscore."""
SECRETS_DIRECTORY = "SCHEMA_REGISTRY_SECRETS_DIR"
"""Environment variable that names the directory of secret files: `section__option`, or `section/option`."""
FILE_BYTES_MAX = 1_048_576
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
"""A quotation in a parser's message, as `repr` writes it."""
_SYNTAX = re.compile(r"['\"](?:\W{1,3}|\\?.|<[a-z ]+>)['\"]")
"""One that can only be of the syntax: a sign, or the name of a token."""
UNSET = "-"
"""How an option without a value is shown."""

S = TypeVar("S", bound=Settings)


class SettingsInvalid(Exception):
    """The settings cannot be used; `problems` names everything that is wrong with them."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class _Unreadable(Exception):
    """The settings file cannot be used. The message shows nothing of its content."""


@dataclass(frozen=True, slots=True)
class Loaded(Generic[S]):
    """Settings, and the source of each option that is not at its default."""

    settings: S
    sources: Mapping[str, str]


@dataclass(slots=True)
class _Draft:
    """Values collected so far, by option, with their sources and what went wrong."""

    model: type[Settings]
    values: dict[str, object] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def put(self, option: str, value: object, source: str) -> None:
        if option in options(self.model):
            self.values[option] = value
            self.sources[option] = source
        elif option.partition(".")[0] not in self.model.others_sections:
            self.problems.append(Problem(option, _unknown(option, options(self.model)), source=source))


def options(model: type[Settings]) -> dict[str, Any]:
    """Every option of a model as `section.option`, with its pydantic field, in the order of the model."""
    found: dict[str, Any] = {}
    for section, outer in model.model_fields.items():
        section_model = outer.annotation
        assert isinstance(section_model, type)
        assert issubclass(section_model, Section), f"{section} is not a section"
        for name, inner in section_model.model_fields.items():
            found[f"{section}.{name}"] = inner
    return found


def is_secret(model: type[Settings], option: str) -> bool:
    """Whether the option's value must never be shown. Unknown options count as secrets."""
    known = options(model).get(option)
    return known is None or "SecretStr" in str(known.annotation)


def variable(option: str) -> str:
    """The environment variable of an option."""
    return PREFIX + option.replace(".", DELIMITER).upper()


def load(model: type[S], environment: Mapping[str, str]) -> Loaded[S]:
    """The settings from all sources. Raises SettingsInvalid with every problem found.

    An empty environment variable or secret file counts as not set, because templates produce them.
    """
    draft = _Draft(model)
    _read_file(draft, environment.get(CONFIG_FILE))
    _read_secrets(draft, environment.get(SECRETS_DIRECTORY))
    _read_environment(draft, environment)
    sections = _sections(draft)
    draft.problems.extend(_broken_rules(draft, sections))
    if draft.problems:
        raise SettingsInvalid(draft.problems)
    return Loaded(model(**sections), draft.sources)


def _read_file(draft: _Draft, name: str | None) -> None:
    if not name:
        return
    path = Path(name)
    try:
        tree = _parse(path)
    except _Unreadable as error:
        draft.problems.append(Problem(CONFIG_FILE, f"cannot be read: {error}", name))
        return
    for section, members in tree.items():
        if not isinstance(members, dict):
            allowed = "a section holds options; write them as a table below its name"
            draft.problems.append(Problem(str(section), allowed, source=f"file {name}"))
            continue
        for option, value in members.items():
            draft.put(f"{section}.{option}", value, f"file {name}")


def _parse(path: Path) -> dict[str, object]:
    """The sections of a file, by its suffix. Raises _Unreadable with what is wrong, and nothing of what is in it."""
    if path.suffix not in {".toml", ".yaml", ".yml"}:
        raise _Unreadable("the name must end in .toml, .yaml or .yml")
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise _Unreadable(f"the file is larger than {FILE_BYTES_MAX} bytes")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise _Unreadable(error.strerror or type(error).__name__) from None
    except UnicodeDecodeError as error:
        raise _Unreadable(f"not UTF-8 (at byte {error.start})") from None
    tree = _toml(text) if path.suffix == ".toml" else _yaml(text)
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise _Unreadable("the file must hold sections, each a table of options")
    return tree


def _toml(text: str) -> object:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _Unreadable(_without_content(str(error))) from None
    except (ValueError, RecursionError):
        raise _Unreadable("malformed TOML") from None


def _yaml(text: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        # Not str(error): it shows the line.
        mark = error.problem_mark
        place = f" (at line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise _Unreadable(_without_content(error.problem or "malformed YAML") + place) from None
    except yaml.reader.ReaderError as error:
        raise _Unreadable(f"{error.reason} (at character {error.position + 1})") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError):
        # What the library raises for values that do not fit their tag, as in `!!int x`. The message repeats the value.
        raise _Unreadable("malformed YAML, or a value that does not fit its tag") from None


def _without_content(message: str) -> str:
    """A parser's message without what it quotes from the file; characters of the syntax stay."""
    return _QUOTED.sub(lambda found: found[0] if _SYNTAX.fullmatch(found[0]) else "…", message)


def _read_secrets(draft: _Draft, name: str | None) -> None:
    if not name:
        return
    try:
        for option, path in _secret_files(Path(name)):
            value = path.read_text(encoding="utf-8").rstrip("\r\n")
            if value:
                draft.put(option, value, f"secret file {path}")
    except (OSError, UnicodeDecodeError) as error:
        allowed = f"cannot be read: {type(error).__name__}"
        draft.problems.append(Problem(SECRETS_DIRECTORY, allowed, name))


def _secret_files(directory: Path) -> Iterator[tuple[str, Path]]:
    """Options and files of a secrets directory. Names with a leading dot are the mount's own (`..data`)."""
    for path in sorted(directory.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            for inner in sorted(path.iterdir()):
                if not inner.name.startswith(".") and inner.is_file():
                    yield f"{path.name}.{inner.name}", inner
        else:
            yield path.name.replace(DELIMITER, ".", 1), path


def _read_environment(draft: _Draft, environment: Mapping[str, str]) -> None:
    for name in sorted(environment):
        if name.upper().startswith(PREFIX):
            option = name[len(PREFIX) :].lower().replace(DELIMITER, ".", 1)
            if environment[name] or option not in options(draft.model):
                draft.put(option, environment[name], f"environment {name}")


def _sections(draft: _Draft) -> dict[str, Section]:
    """The sections that can be built from the draft's values. Adds what is wrong to the draft."""
    values = _tree(draft.values)
    found = {name: _section(draft, name, values.get(name)) for name in draft.model.model_fields}
    return {name: section for name, section in found.items() if section is not None}


def _section(draft: _Draft, name: str, values: dict[str, object] | None) -> Section | None:
    """A section from its values; None when a required option is missing or wrong.

    When a value is at fault the section is built with its default instead, so that its rules are judged in the same
    run.
    """
    field_info = draft.model.model_fields[name]
    if values is None and not field_info.is_required():
        section: Section = field_info.get_default(call_default_factory=True)
        return section
    model = field_info.annotation
    assert isinstance(model, type)
    assert issubclass(model, Section)
    right = dict(values or {})
    try:
        return model.model_validate(right)
    except ValidationError as error:
        for entry in error.errors(include_url=False, include_context=False):
            wrong = str(entry["loc"][0])
            right.pop(wrong, None)
            draft.problems.append(_at_fault(draft, f"{name}.{wrong}", entry["msg"], entry["type"]))
    try:
        return model.model_validate(right)
    except ValidationError:
        return None


def _at_fault(draft: _Draft, option: str, message: str, kind: str) -> Problem:
    if kind == "missing":
        description = options(draft.model)[option].description
        return Problem(option, f"required: {description} Set {variable(option)}.")
    value = None if is_secret(draft.model, option) else repr(draft.values.get(option))
    return Problem(option, message, value, draft.sources.get(option))


def _broken_rules(draft: _Draft, sections: Mapping[str, Section]) -> Iterator[Problem]:
    """What the rules of the sections, and those between them, find."""
    problems = [problem for section in sections.values() for problem in section.rules()]
    for problem in (*problems, *_rules_between(draft.model, sections)):
        source = problem.source or draft.sources.get(problem.option, "default")
        yield Problem(problem.option, problem.allowed, problem.value, source)


def _rules_between(model: type[Settings], sections: Mapping[str, Section]) -> Iterator[Problem]:
    settings = model.model_construct(None, **sections)
    try:
        yield from settings.rules()
    except AttributeError:
        if len(sections) == len(model.model_fields):
            raise  # A defect: else the rule, and those after it, need a section that cannot be built.


def _tree(values: Mapping[str, object]) -> dict[str, dict[str, object]]:
    tree: dict[str, dict[str, object]] = {}
    for option, value in values.items():
        section, _, name = option.partition(".")
        tree.setdefault(section, {})[name] = value
    return tree


def _unknown(option: str, known: Mapping[str, object]) -> str:
    """What to say about a name that is no option, with the nearest one that is."""
    near = difflib.get_close_matches(option, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]} ({variable(near[0])})?" if near else ""
    return f"no such option{hint}"


def plain(value: object) -> str:
    """A value as an operator reads it: secrets as stars, nothing as a dash."""
    match value:
        case None | ():
            return UNSET
        case SecretStr():
            return "********"
        case bool():
            return str(value).lower()
        case tuple() | list():
            return ", ".join(str(part) for part in value)
        case BaseModel():
            return value.model_dump_json()
        case _:
            return str(value)
