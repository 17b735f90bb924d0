"""Where options come from, and what is wrong with them, all at once.

Sources, later ones win: the model's defaults, one TOML or YAML file, a directory of secret files, the environment.
An option is one leaf, `section.option`, and the whole of it comes from one source.
"""

from __future__ import annotations

import difflib
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
UNSET = "-"
"""How an option without a value is shown."""

S = TypeVar("S", bound=Settings)


class SettingsInvalid(Exception):
    """The settings cannot be used; `problems` names everything that is wrong with them."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


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
        else:
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
    settings = _validated(draft)
    if settings is not None:
        draft.problems.extend(_broken_rules(settings, draft.sources))
    if draft.problems or settings is None:
        raise SettingsInvalid(draft.problems)
    assert isinstance(settings, model)
    return Loaded(settings, draft.sources)


def _read_file(draft: _Draft, name: str | None) -> None:
    if not name:
        return
    path = Path(name)
    try:
        tree = _parse(path)
    except (OSError, ValueError, yaml.YAMLError) as error:
        detail = str(error).replace("\n", " ")
        draft.problems.append(Problem(CONFIG_FILE, f"cannot be read: {detail}", name))
        return
    for section, members in tree.items():
        if not isinstance(members, dict):
            allowed = "a section holds options; write them as a table below its name"
            draft.problems.append(Problem(str(section), allowed, source=f"file {name}"))
            continue
        for option, value in members.items():
            draft.put(f"{section}.{option}", value, f"file {name}")


def _parse(path: Path) -> dict[str, object]:
    """The sections of a file, by its suffix. Raises OSError, ValueError or YAMLError with what is wrong."""
    if path.suffix not in {".toml", ".yaml", ".yml"}:
        raise ValueError("the name must end in .toml, .yaml or .yml")
    if path.stat().st_size > FILE_BYTES_MAX:
        raise ValueError(f"the file is larger than {FILE_BYTES_MAX} bytes")
    text = path.read_text(encoding="utf-8")
    tree = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ValueError("the file must hold sections, each a table of options")  # noqa: TRY004 - the file is at fault
    return tree


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


def _validated(draft: _Draft) -> Settings | None:
    """The model from the draft's values, or None. Adds what is wrong to the draft.

    When a value is at fault the model is built once more with its default instead, so that the rules between options
    are judged in the same run.
    """
    values = dict(draft.values)
    try:
        return draft.model.model_validate(_tree(values))
    except ValidationError as error:
        for entry in error.errors(include_url=False, include_context=False):
            option = ".".join(str(part) for part in entry["loc"][:2])
            values.pop(option, None)
            draft.problems.append(_at_fault(draft, option, entry["msg"], entry["type"]))
    try:
        return draft.model.model_validate(_tree(values))
    except ValidationError:
        return None  # A required option is missing: said above.


def _at_fault(draft: _Draft, option: str, message: str, kind: str) -> Problem:
    if kind == "missing":
        option = option if "." in option else _first_required(draft.model, option)
        description = options(draft.model)[option].description
        return Problem(option, f"required: {description} Set {variable(option)}.")
    value = None if is_secret(draft.model, option) else repr(draft.values.get(option))
    return Problem(option, message, value, draft.sources.get(option))


def _first_required(model: type[Settings], section: str) -> str:
    """The option that keeps a whole section from being made of defaults."""
    required = (
        option for option, known in options(model).items() if option.startswith(f"{section}.") and known.is_required()
    )
    return next(required)


def _broken_rules(settings: Settings, sources: Mapping[str, str]) -> Iterator[Problem]:
    problems = [problem for _, section in settings.sections() for problem in section.rules()]
    for problem in (*problems, *settings.rules()):
        source = problem.source or sources.get(problem.option, "default")
        yield Problem(problem.option, problem.allowed, problem.value, source)


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
