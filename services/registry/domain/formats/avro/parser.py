"""One Avro text, read strictly: the schema it holds, or every place at which it is none.

Source: Apache Avro 1.12 Specification, "Schema Declaration", "Complex Types", "Names", "Aliases".
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Final

from services.registry.domain.formats import Problem
from services.registry.domain.formats.avro import logical
from services.registry.domain.formats.avro.defaults import Default, Defaults
from services.registry.domain.formats.avro.model import (
    PRIMITIVES,
    Array,
    Definition,
    Enum,
    Field,
    Fixed,
    Map,
    Named,
    Primitive,
    Record,
    Schema,
    Type,
    Union,
    is_full_name,
    is_name,
    qualified,
    unqualified,
)
from services.registry.domain.formats.json_text import Json, pointer
from services.registry.domain.limits import REFERENCE_NAME_CHARACTERS_MAX, VALIDATION_ERRORS_MAX

NAMED_TYPES_MAX: Final = 5000
FIXED_SIZE_MAX: Final = (1 << 31) - 1
"""What the implementations hold a size in."""

ORDERS: Final = ("ascending", "descending", "ignore")

_LOGICAL: Final = frozenset({"logicalType", "precision", "scale"})
_NAMED: Final = frozenset({"type", "name", "namespace", "aliases", "doc"})
_ATTRIBUTES: Final[Mapping[str, frozenset[str]]] = {
    "primitive": _LOGICAL | {"type"},
    "record": _NAMED | {"fields"},
    "error": _NAMED | {"fields"},
    "enum": _NAMED | {"symbols", "default"},
    "fixed": _NAMED | _LOGICAL | {"size"},
    "array": frozenset({"type", "items", "default"}),  # The specification's own examples have `default` here.
    "map": frozenset({"type", "values", "default"}),
    "field": frozenset({"name", "doc", "type", "order", "aliases", "default"}),
}
_EVERYWHERE_FREE: Final = frozenset({"name", "namespace", "doc", "aliases"})
"""Attributes that tools leave on any type as metadata, so that they say nothing about a mistake."""

_MISPLACED: Final = frozenset[str]().union(*_ATTRIBUTES.values()) - _EVERYWHERE_FREE
_MISSPELT_CHARACTERS_MAX: Final = 24
_LOOKS_MAX: Final = 10_000


class Parser:
    """Reads one text. Goes on after a mistake, so that one answer names all of them.

    known: definitions of other texts in scope, by full name. foreign: the text is itself a referenced one, so that
    its places mean nothing to who reads the referring text.
    """

    def __init__(self, known: Mapping[str, Definition], *, foreign: bool = False) -> None:
        self.errors: list[Problem] = []
        self.unknown: list[tuple[str, str, str]] = []
        """Uses of names that nothing before them defines: the place, the name as written, the full name."""

        self._known = known
        self._foreign = foreign
        self._types: dict[str, Definition] = {}
        self._declared: dict[str, str] = {}
        self._aliases: list[tuple[str, str, str]] = []
        self._defaults: list[Default] = []
        self._docs: list[str] = []
        self._remarks: list[Problem] = []
        self._looks = 0
        self._read_complex: Mapping[str, Callable[[dict[str, Json], str, str], Type]] = {
            "record": self._record,
            "error": self._record,
            "enum": self._enum,
            "fixed": self._fixed,
            "array": self._array,
            "map": self._map,
        }

    @property
    def definitions(self) -> Mapping[str, Definition]:
        """What the text itself defines."""
        return self._types

    def parse(self, value: Json, *, steps: int) -> Schema:
        """The schema that the text's value holds; to be used only when `errors` is empty afterwards.

        steps: how much work the checks of default values may take.
        """
        root = self._type(value, "", "")
        types = {**self._known, **self._types}
        for path, name, full in self.unknown:
            self._fault(path, "type", self._unknown(name, full))
        self._require_unique_aliases()
        for problem in Defaults(types, steps).faults(self._defaults):
            self._add(problem)
        return Schema(root, types, tuple(self._docs), tuple(self._remarks))

    def _type(self, value: Json, path: str, space: str) -> Type:
        """The type written at `path`, where `space` is the enclosing namespace."""
        match value:
            case str():
                return self._use(value, path, space)
            case list():
                return self._union(value, path, space)
            case dict():
                return self._object(value, path, space)
        return self._no_type(path, "a schema is a string naming a type, an object, or an array of a union's branches")

    def _object(self, value: dict[str, Json], path: str, space: str) -> Type:
        kind = value.get("type")
        if "type" not in value:
            return self._no_type(path, "the attribute `type` is missing")
        if not isinstance(kind, str):
            message = "must be a string naming a type; write the schema in it without the object around it"
            return self._no_type(f"{path}/type", message)
        if kind in self._read_complex:
            self._remark_attributes(value, path, kind)
            return self._read_complex[kind](value, path, space)
        if kind not in PRIMITIVES:
            self._remark_attributes(value, path, "primitive")
            if "logicalType" in value:
                self._remark(f"{path}/logicalType", "logicalType", "is ignored: it belongs to the type's definition")
            return self._use(kind, f"{path}/type", space)
        self._remark_attributes(value, path, "primitive")
        return Primitive(kind, self._place(path), self._logical(value, path, kind))

    def _use(self, name: str, path: str, space: str) -> Type:
        """A type by its name: a primitive one, or one that was defined before."""
        if name in PRIMITIVES:
            return Primitive(name, self._place(path))
        full = qualified(name, space)
        if not self._in_scope(full):
            if not self._in_scope(name):
                self.unknown.append((path, name, full))
            else:  # The specification knows no way back to the null namespace; Java's parser takes this one.
                message = "is found only in the null namespace, where not every implementation looks"
                self._remark(path, "type", message)
                full = name
        return Named(full, self._place(path))

    def _union(self, branches: list[Json], path: str, space: str) -> Type:
        if not branches:
            self._remark(path, "union", "is empty: no data can ever follow it")
        seen: set[str] = set()
        read: list[Type] = []
        for index, branch in enumerate(branches):
            place = f"{path}/{index}"
            if isinstance(branch, list):
                self._fault(place, "union", "a union cannot immediately contain another union")
                continue
            item = self._type(branch, place, space)
            key = item.name if isinstance(item, Named) else item.kind
            if key in seen:
                message = "stands twice in the union; only record, enum and fixed may, under different names"
                self._fault(place, "union", message)
            elif isinstance(item, Named) and item.name in self._read_complex:
                message = "has the name of a kind of type: in JSON data the branch may be mistaken for another"
                self._remark(place, "union", message)
            if key:
                seen.add(key)
            read.append(item)
        return Union(tuple(read), self._place(path))

    def _array(self, value: dict[str, Json], path: str, space: str) -> Type:
        self._remark_logical(value, path, "array")
        return Array(self._inner(value, "items", path, space), self._place(path))

    def _map(self, value: dict[str, Json], path: str, space: str) -> Type:
        self._remark_logical(value, path, "map")
        return Map(self._inner(value, "values", path, space), self._place(path))

    def _inner(self, value: dict[str, Json], attribute: str, path: str, space: str) -> Type:
        if attribute not in value:
            return self._no_type(path, f"the attribute `{attribute}` is missing")
        return self._type(value[attribute], f"{path}/{attribute}", space)

    def _record(self, value: dict[str, Json], path: str, space: str) -> Type:
        self._remark_logical(value, path, "record")
        full, aliases = self._definition(value, path, space)
        fields = value.get("fields")
        if not isinstance(fields, list):
            self._fault(path if fields is None else f"{path}/fields", "fields", "`fields` must be an array of fields")
            fields = []
        inner = full.rpartition(".")[0]
        place = f"{path}/fields"
        read = tuple(self._field(item, f"{place}/{index}", inner, full) for index, item in enumerate(fields))
        self._require_unique(place, "field", [item.name for item in read])
        self._require_unique_field_aliases(place, read)
        return self._defined(Record(full, self._place(path), read, aliases, doc=_doc_of(value)), path)

    def _field(self, value: Json, path: str, space: str, record: str) -> Field:
        if not isinstance(value, dict):
            return Field("", self._no_type(path, "a field is an object with `name` and `type`"), None)
        self._remark_attributes(value, path, "field")
        name = value.get("name")
        if not isinstance(name, str) or not is_name(name):
            self._fault_name(value, path)
            name = ""
        order = value.get("order", "ascending")
        if not isinstance(order, str) or order not in ORDERS:
            self._fault(f"{path}/order", "order", f"must be one of {', '.join(ORDERS)}")
            order = "ascending"
        self._doc(value, path)
        item = self._inner(value, "type", path, space)
        if "default" in value:
            self._defaults.append(Default(record, name, item, value["default"], f"{path}/default"))
        return Field(
            name=name,
            type=item,
            path=self._place(path),
            aliases=self._strings(value, "aliases", path, required=False),
            order=order,
            has_default="default" in value,
            default=value.get("default"),
            doc=_doc_of(value),
        )

    def _enum(self, value: dict[str, Json], path: str, space: str) -> Type:
        self._remark_logical(value, path, "enum")
        full, aliases = self._definition(value, path, space)
        symbols = self._strings(value, "symbols", path, required=True)
        for index, symbol in enumerate(symbols):
            if not is_name(symbol):
                self._fault(f"{path}/symbols/{index}", "symbols", "must match [A-Za-z_][A-Za-z0-9_]*")
        self._require_unique(f"{path}/symbols", "symbol", symbols)
        if "symbols" in value and not symbols:
            self._remark(f"{path}/symbols", "symbols", "is empty: no data can ever follow it")
        default = value.get("default")
        if "default" in value and default not in symbols:
            self._fault(f"{path}/default", "default", "must be one of the enum's symbols")
        chosen = default if isinstance(default, str) else None
        known = frozenset(symbols)
        return self._defined(Enum(full, self._place(path), symbols, known, chosen, aliases, doc=_doc_of(value)), path)

    def _fixed(self, value: dict[str, Json], path: str, space: str) -> Type:
        full, aliases = self._definition(value, path, space)
        size = value.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= FIXED_SIZE_MAX:
            place = f"{path}/size" if "size" in value else path
            self._fault(place, "size", f"`size` must be an integer from 0 to {FIXED_SIZE_MAX}")
            size = 0
        annotation = self._logical(value, path, "fixed", size)
        return self._defined(Fixed(full, self._place(path), size, annotation, aliases, doc=_doc_of(value)), path)

    def _definition(self, value: dict[str, Json], path: str, space: str) -> tuple[str, tuple[str, ...]]:
        """Full name and full aliases of a definition, in scope from here on; no name when it is at fault."""
        self._doc(value, path)
        full = self._full_name(value, path, space)
        if full and self._in_scope(full):
            place = self._declared.get(full)
            where = "by a reference" if place is None else f"at {place or 'the root'}"
            self._fault(f"{path}/name", "name", f"`{full[:200]}` is already defined {where}")
        elif full:
            self._declared[full] = path
            if len(self._declared) + len(self._known) == NAMED_TYPES_MAX + 1:
                self._fault(path, "name", f"more than {NAMED_TYPES_MAX} types are defined, references included")
        namespace = full.rpartition(".")[0]
        aliases = []
        for index, alias in enumerate(self._strings(value, "aliases", path, required=False)):
            place = f"{path}/aliases/{index}"
            if not is_full_name(alias):
                self._remark(place, "aliases", "is no valid name: it helps only to read data of a schema that was none")
            aliases.append(qualified(alias, namespace))
            self._aliases.append((aliases[-1], full, place))
        return full, tuple(aliases)

    def _full_name(self, value: dict[str, Json], path: str, space: str) -> str:
        """Full name of a definition; empty when it has none."""
        name, namespace = value.get("name"), value.get("namespace", space)
        if not isinstance(name, str) or not is_full_name(name):
            self._fault_name(value, path)
            return ""
        if not isinstance(namespace, str):
            self._fault(f"{path}/namespace", "namespace", "must be a string")
            return ""
        if unqualified(name) in PRIMITIVES:
            self._fault(f"{path}/name", "name", "is the name of a primitive type, which no definition may have")
            return ""
        if "." in name:
            if "namespace" in value and namespace != name.rpartition(".")[0]:
                self._remark(f"{path}/namespace", "namespace", "is ignored, because the name has a dot")
            return self._short(name, path)
        if namespace and not is_full_name(namespace):
            message = "must be empty or names separated by dots, each matching [A-Za-z_][A-Za-z0-9_]*"
            self._fault(f"{path}/namespace", "namespace", message)
            return ""
        return self._short(qualified(name, namespace), path)

    def _short(self, full: str, path: str) -> str:
        """The full name, when it is no longer than the name of a reference may be: others could never refer to it."""
        if len(full) <= REFERENCE_NAME_CHARACTERS_MAX:
            return full
        message = f"the full name has more than {REFERENCE_NAME_CHARACTERS_MAX} characters"
        self._fault(f"{path}/name", "name", message)
        return ""

    def _defined(self, definition: Definition, path: str) -> Type:
        if definition.name and self._declared.get(definition.name) == path:
            self._types[definition.name] = definition
        return Named(definition.name, self._place(path))

    def _logical(self, value: dict[str, Json], path: str, kind: str, size: int = 0) -> logical.Logical | None:
        """The valid logical type; an invalid one is ignored, as the specification demands, and remarked."""
        try:
            return logical.declared(value, kind, size)
        except logical.Ignored as reason:
            self._remark(f"{path}/logicalType", "logicalType", f"is ignored: {reason}")
            return None

    def _remark_logical(self, value: dict[str, Json], path: str, kind: str) -> None:
        """No logical type of the specification annotates this kind."""
        self._logical({name: value[name] for name in ("logicalType",) if name in value}, path, kind)

    def _strings(self, value: dict[str, Json], attribute: str, path: str, *, required: bool) -> tuple[str, ...]:
        """An attribute that is an array of strings."""
        items = value.get(attribute)
        if attribute not in value and not required:
            return ()
        if not isinstance(items, list):
            place = f"{path}/{attribute}" if attribute in value else path
            self._fault(place, attribute, f"`{attribute}` must be an array of strings")
            return ()
        for index, item in enumerate(items):
            if not isinstance(item, str):
                self._fault(f"{path}/{attribute}/{index}", attribute, "must be a string")
        return tuple(item if isinstance(item, str) else "" for item in items)

    def _doc(self, value: dict[str, Json], path: str) -> None:
        doc = value.get("doc", "")
        if not isinstance(doc, str):
            self._fault(f"{path}/doc", "doc", "must be a string")
        elif doc:
            self._docs.append(doc)

    def _require_unique(self, path: str, what: str, names: list[str] | tuple[str, ...]) -> None:
        """Names of fields or symbols: each once; some that differ only by case are remarked."""
        folded: dict[str, str] = {}
        for index, name in enumerate(names):
            other = folded.setdefault(name.lower(), name)
            if not name:
                continue
            if other != name:
                self._remark(f"{path}/{index}", what, f"differs only by case from another {what}")
        seen: set[str] = set()
        for index, name in enumerate(names):
            if name in seen and name:
                self._fault(f"{path}/{index}", what, f"the {what} stands twice")
            seen.add(name)

    def _require_unique_field_aliases(self, path: str, fields: tuple[Field, ...]) -> None:
        owners = {field.name: index for index, field in enumerate(fields)}
        for index, field in enumerate(fields):
            for number, alias in enumerate(field.aliases):
                unique = owners.setdefault(alias, index) == index
                self._alias(f"{path}/{index}/aliases/{number}", alias, field, unique=unique)

    def _require_unique_aliases(self) -> None:
        """An alias is an alternative name, so it cannot be the name or alias of another type."""
        owners = {name: name for name in self._declared}
        for name, definition in self._known.items():
            owners[name] = name
            owners.update((alias, owners.get(alias, name)) for alias in definition.aliases)
        for alias, owner, place in self._aliases:
            unique = owners.setdefault(alias, owner) == owner
            self._alias(place, alias, self._types.get(owner), unique=unique)

    def _alias(self, place: str, alias: str, owner: Field | Definition | None, *, unique: bool) -> None:
        if not unique:
            self._fault(place, "aliases", "is the name or an alias of another: names and aliases are unique")
        elif owner is not None and owner.name == alias:
            self._remark(place, "aliases", "is its own name and has no effect")

    def _unknown(self, name: str, full: str) -> str:
        for candidate in (full, name):
            if candidate in self._declared:
                return f"`{name[:200]}` is used before its definition at {self._declared[candidate]}"
        hint = self._near(name, PRIMITIVES | self._read_complex.keys())
        return f"`{name[:200]}` is no primitive type, nor defined before this place or by a reference{hint}"

    def _remark_attributes(self, value: dict[str, Json], path: str, kind: str) -> None:
        """Attributes that have no effect but look as if they were meant to. Others are metadata, which is allowed."""
        if value.keys() <= _ATTRIBUTES[kind]:
            return
        for attribute in value.keys() - _ATTRIBUTES[kind]:
            where = path + pointer((attribute,))
            if attribute == "logicalType" and kind != "field":  # Remarked with what it says.
                continue
            if attribute in _MISPLACED:
                self._remark(where, attribute, f"has no effect on a {kind}{_hint_of_place(attribute, kind)}")
            elif attribute not in _EVERYWHERE_FREE:
                hint = self._near(attribute, _ATTRIBUTES[kind])
                if hint:
                    self._remark(where, attribute[:100], f"is no attribute of a {kind} and has no effect{hint}")

    def _near(self, word: str, known: frozenset[str] | set[str]) -> str:
        """What a word was probably meant to be; nothing for long words and after many, as looking costs much."""
        self._looks += 1
        if len(word) > _MISSPELT_CHARACTERS_MAX or self._looks > _LOOKS_MAX:
            return ""
        near = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.8)
        return f"; did you mean `{near[0]}`?" if near else ""

    def _in_scope(self, full: str) -> bool:
        return full in self._declared or full in self._known

    def _place(self, path: str) -> str | None:
        return None if self._foreign else path

    def _no_type(self, path: str, message: str) -> Type:
        """Stands for a type that is at fault."""
        self._fault(path, "type", message)
        return Primitive("", None)

    def _fault_name(self, value: dict[str, Json], path: str) -> None:
        if "name" not in value:
            self._fault(path, "name", "the attribute `name` is missing")
        else:
            self._fault(f"{path}/name", "name", "must match [A-Za-z_][A-Za-z0-9_]*; a type's may have dots in between")

    def _fault(self, path: str, keyword: str, message: str) -> None:
        self._add(Problem(path, "", keyword, message))

    def _add(self, problem: Problem) -> None:
        if len(self.errors) < VALIDATION_ERRORS_MAX:
            self.errors.append(problem)

    def _remark(self, path: str, keyword: str, message: str) -> None:
        if len(self._remarks) < VALIDATION_ERRORS_MAX:
            self._remarks.append(Problem(path, "", keyword, message))


def _doc_of(value: Mapping[str, Json]) -> str:
    doc = value.get("doc")
    return doc if isinstance(doc, str) else ""


def _hint_of_place(attribute: str, kind: str) -> str:
    if kind == "field" and attribute in _LOGICAL:
        return ': it belongs inside the field\'s type, as in {"type": {"type": "int", "logicalType": "date"}}'
    return ""
