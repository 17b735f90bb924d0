"""Static limits: what a schema may cost before any library looks at it.

Validation of one instance can take exponentially many steps: sixty definitions that each say `allOf: [next, next]`
never end. So the paths that lead from a schema to subschemas for the same instance are counted beforehand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, NamedTuple
from urllib.parse import unquote, urldefrag, urljoin, uses_relative

from services.registry.domain.formats.json_text import Json
from services.registry.domain.formats.jsonschema.drafts import (
    DRAFT_4,
    DRAFT_2019,
    DRAFT_2020,
    EVALUATED,
    LONE_REFERENCES,
)
from services.registry.domain.formats.jsonschema.keywords import SAME_INSTANCE, Path, children, held

SUBSCHEMAS_MAX: Final = 20_000
DYNAMIC: Final = ("$dynamicRef", "$recursiveRef")
REFERENCES: Final = ("$ref", *DYNAMIC)
SAME_INSTANCE_PATHS_MAX: Final = 100_000
WAYS_MAX: Final = 2_000
"""Ways from a schema into its subschemas along one way into the data, beyond which data is checked elsewhere."""
LOOPS_MAX: Final = 2
"""Loops that may follow each other: k of them take the k-th power of the depth of the data."""

_ANCHORS: Final[Mapping[str, tuple[str, ...]]] = {
    DRAFT_2019: ("$anchor",),
    DRAFT_2020: ("$anchor", "$dynamicAnchor"),
}
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_INDEX: Final = re.compile(r"\+?[0-9]{1,9}")
"""An index in a pointer as the validating library reads it, signs and leading zeros included."""


class TooCostly(Exception):
    """The schema is beyond a static limit. `str()` says which."""


class Documents:
    """The schema and its sources, as targets of `$ref`.

    Schemas are known by the object that holds them, so two places of one text are two schemas however equal they are.
    doubtful: the library may take a reference for another place than is taken here: an address stands twice, or twice
    but for case, dots and percent signs; a part is of another draft; or a reference leads nowhere here.
    """

    def __init__(self, root: Json, sources: Mapping[str, Json], draft: str) -> None:
        """draft: address of the root's, and of every source's that names none."""
        self.doubtful = False
        self._resources: dict[str, dict[str, Json]] = {}
        self._named: dict[tuple[str, str], dict[str, Json]] = {}
        self._places: dict[int, Place] = {}
        self._schemas: list[dict[str, Json]] = []
        self._addresses: dict[str, str] = {}
        self._leads: dict[int, list[dict[str, Json]]] = {}
        base = own_address(root, draft)
        self._names = {resolved(base, name): name for name in sources}  # Names are relative to the root's address too.
        for name, document in (*sources.items(), ("", root)):
            if isinstance(document, dict):
                self._index(document, Place(name, (), name, 0, draft))

    def targets(self, schema: dict[str, Json]) -> list[dict[str, Json]]:
        """What a schema's references lead to, as far as it is known here. Dynamic ones count as where they point."""
        if "$ref" not in schema and "$dynamicRef" not in schema and "$recursiveRef" not in schema:
            return []
        found = self._leads.get(id(schema))
        if found is None:
            several = [self.target(schema, keyword) for keyword in REFERENCES if keyword in schema]
            found = self._leads[id(schema)] = [target for target in several if isinstance(target, dict)]
        return found

    def target(self, schema: dict[str, Json], keyword: str) -> Json:
        """What the reference under `keyword` leads to; None when that is not known here or no schema."""
        reference = schema.get(keyword)
        if not isinstance(reference, str):
            return None
        place = self._places.get(id(schema))
        address, fragment = urldefrag(resolved(place.base if place else "", reference))
        fragment = unquote(fragment)
        if address not in self._resources:
            address = self._names.get(address) or self._addresses.get(_folded(address), address)
        found: Json
        if not fragment:
            found = self._resources.get(address)
        elif fragment.startswith("/"):
            found = self._at(address, pointer_path(fragment))
        else:
            found = self._named.get((address, fragment))
        if found is None:
            self.doubtful = True
        return found

    def place(self, schema: dict[str, Json]) -> Place | None:
        """Where a schema stands; None for one that no reference and no keyword leads to."""
        return self._places.get(id(schema))

    def schemas(self) -> Iterator[dict[str, Json]]:
        """Every schema that keywords or references lead to, those of the sources too."""
        found = 0
        while found < len(self._schemas):  # Following references finds more.
            self.targets(self._schemas[found])
            yield self._schemas[found]
            found += 1

    def _at(self, address: str, path: tuple[str, ...]) -> Json:
        """What a pointer leads to in a resource. Where no keyword holds a schema, as in `#/components/schemas/User`, it
        is one from then on."""
        resource = self._resources.get(address)
        if resource is None:
            return None
        place = self._places[id(resource)]
        value: Json = resource
        crossed = False
        for part in path:
            crossed = crossed or (value is not resource and own_address(value, place.draft) != "")
            value = below(value, part)
        if not isinstance(value, dict):
            return value if isinstance(value, bool) else None
        if id(value) not in self._places:
            self.doubtful |= crossed  # It may count as a part of the resource that the pointer went through, or not.
            self._index(value, place._replace(path=place.path + path))
        return value

    def _index(self, document: dict[str, Json], place: Place) -> None:
        """Remembers a schema and all below it by their addresses.

        Those are: the pointer from the document's root and from the embedded resource that it belongs to, and anchors.
        """
        waiting = [(document, place)]
        while waiting:
            schema, place = waiting.pop()
            if id(schema) in self._places:
                continue
            self._schemas.append(schema)
            if len(self._schemas) > SUBSCHEMAS_MAX:
                raise TooCostly(f"more than {SUBSCHEMAS_MAX} subschemas, those of the references included")
            if "$schema" in schema or "$id" in schema or "id" in schema:
                place = self._addressed(schema, place)
            self._places[id(schema)] = place
            name, path, base, start, draft = place
            if not path:
                self._resources.setdefault(name, schema)
            if start == len(path) and self._resources.setdefault(base, schema) is not schema:
                self.doubtful = True
            for keyword in _ANCHORS.get(draft, ()):
                anchor = schema.get(keyword)
                if isinstance(anchor, str) and self._named.setdefault((base, anchor), schema) is not schema:
                    self.doubtful = True
            waiting.extend(
                (child.schema, Place(name, path + child.path, base, start, draft)) for child in children(schema)
            )

    def _addressed(self, schema: dict[str, Json], place: Place) -> Place:
        """The place of a schema that may name its draft and its own address."""
        declared = schema.get("$schema")
        if isinstance(declared, str) and declared.removesuffix("#") in EVALUATED:
            self.doubtful |= bool(place.path) and declared.removesuffix("#") != place.draft
            place = place._replace(draft=declared.removesuffix("#"))
        own = own_address(schema, place.draft)
        if not own:
            return place
        base, fragment = urldefrag(resolved(place.base, own))
        if self._addresses.setdefault(_folded(base), base) != base or fragment.startswith("/"):
            self.doubtful = True
        if not fragment:
            return place._replace(base=base, start=len(place.path))
        if self._named.setdefault((base, fragment), schema) is not schema:
            self.doubtful = True
        return place._replace(base=base)


class Place(NamedTuple):
    """Where a schema stands: document (empty for the root one), path in it, address of the resource that it belongs to,
    how many parts of the path lead to that resource, and the address of its draft."""

    document: str
    path: Path
    base: str
    start: int
    draft: str


def own_address(schema: Json, draft: str) -> str:
    """The address that a schema gives itself, as it stands there; empty for none.

    Up to draft 7 there is none beside a `$ref`. Source: the drafts' sections on `id` and `$id`.
    """
    if not isinstance(schema, dict) or (draft in LONE_REFERENCES and "$ref" in schema):
        return ""
    own = schema.get("id" if draft == DRAFT_4 else "$id")
    return own if isinstance(own, str) else ""


def resolved(base: str, reference: str) -> str:
    """The address that a reference stands for. Source: RFC 3986, section 5.2, for a base of any scheme.

    base: without a fragment. Raises ValueError for one that is no address.
    """
    if not reference or reference.startswith("#"):
        return base + reference
    scheme, colon, rest = base.partition(":")
    if not colon or scheme in uses_relative or _SCHEME.match(reference):
        return urljoin(base, reference)
    if rest.startswith("//"):  # For schemes that it does not know urljoin forgets the base.
        return scheme + urljoin(f"http:{rest}", reference).removeprefix("http")
    return f"{scheme}:{rest[: rest.rfind('/') + 1]}{reference}"


def pointer_path(fragment: str) -> tuple[str, ...]:
    """The parts of a decoded JSON pointer, as texts. Source: RFC 6901, section 4."""
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in fragment.split("/")[1:])


def below(value: Json, part: str) -> Json:
    """What one part of a pointer leads to; None when to nothing."""
    if isinstance(value, dict):
        return value.get(part)
    if isinstance(value, list) and _INDEX.fullmatch(part) and int(part) < len(value):
        return value[int(part)]
    return None


def at(value: Json, path: tuple[str, ...]) -> Json:
    """What a pointer leads to; None when to nothing."""
    for part in path:
        value = below(value, part)
    return value


def _folded(address: str) -> str:
    """One text for addresses that some take for the same. Source: RFC 3986, section 6.2."""
    parts: list[str] = []
    for part in unquote(address).casefold().replace(":80/", "/").replace(":443/", "/").split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def may_refer(text: str, sources: Mapping[str, str]) -> bool:
    """Whether a schema may be beyond a limit, or lead back to itself.

    A small text without any reference is a tree of few subschemas; a name can be hidden only by an escape.
    """
    return bool(sources) or len(text) > SUBSCHEMAS_MAX or "Ref" in text or "$ref" in text or "\\u" in text


def measure(root: Json, sources: Mapping[str, Json], draft: str) -> bool:
    """Whether checking data may take exponentially many steps in the depth of the data.

    So it is when a schema leads back to itself in two ways, or in one that is only known while data is checked; when
    loops follow each other; when many ways lead along one way into the data; and when that cannot be told.
    Raises TooCostly when a schema with its sources is beyond SUBSCHEMAS_MAX or SAME_INSTANCE_PATHS_MAX, and when
    subschemas for the same instance lead back to themselves: such a schema decides nothing.
    """
    documents = Documents(root, sources, draft)
    links = {id(schema): _linked(schema, documents) for schema in documents.schemas()}
    _count_paths(links)
    return documents.doubtful or (isinstance(root, dict) and _is_explosive(id(root), links))


@dataclass(frozen=True, slots=True)
class _Links:
    """What a schema leads to: subschemas for the same instance, for members of it, and for members of which only one
    of each list is at one place in the data. dynamic: and what is only known while data is checked."""

    same: list[int] = field(default_factory=list)
    members: list[int] = field(default_factory=list)
    choices: list[list[int]] = field(default_factory=list)
    dynamic: bool = False

    def all(self) -> Iterator[int]:
        """All of them."""
        return chain(self.same, self.members, *self.choices)


def _linked(schema: dict[str, Json], documents: Documents) -> _Links:
    links = _Links([id(target) for target in documents.targets(schema)], dynamic=not schema.keys().isdisjoint(DYNAMIC))
    for keyword, value in schema.items():
        if not isinstance(value, dict | list) or keyword in ("$defs", "definitions"):
            continue
        found = [id(item) for item in held(keyword, value)]
        if keyword in SAME_INSTANCE:
            links.same.extend(found)
        elif keyword == "properties" or isinstance(value, list):
            links.choices.append(found)
        else:
            links.members.extend(found)
    return links


def _is_explosive(root: int, links: Mapping[int, _Links]) -> bool:
    ways: dict[int, int] = {}
    loops: dict[int, int] = {}
    for component in _components(root, links):
        inner = [sum(item in component for item in links[key].all()) for key in component]
        if max(inner) > 1 or any(links[key].dynamic for key in component):
            return True
        ahead = (loops.get(item, 0) for key in component for item in links[key].all())  # None yet of its own.
        loop = max(ahead, default=0) + max(inner)
        count = sum(_ways(links[key], ways) for key in component)
        if loop > LOOPS_MAX or count > WAYS_MAX:
            return True
        loops.update(dict.fromkeys(component, loop))
        ways.update(dict.fromkeys(component, count))
    return False


def _ways(link: _Links, ways: Mapping[int, int]) -> int:
    """Ways through a schema along the worst way into the data. ways: of schemas below that are in no loop with it."""
    count = 1 + sum(ways.get(item, 0) for item in chain(link.same, link.members))
    return count + sum(max((ways.get(item, 0) for item in choice), default=0) for choice in link.choices)


def _components(root: int, links: Mapping[int, _Links]) -> Iterator[set[int]]:
    """The strongly connected components of all that a schema leads to, each after those that it leads to.

    Source: Tarjan, "Depth-first search and linear graph algorithms", 1972; without recursion.
    """
    numbers = {root: 0}
    lowest = {root: 0}
    path = [root]
    gone: set[int] = set()
    stack = [(root, links[root].all())]
    while stack:
        node, following = stack[-1]
        for item in following:
            if item not in numbers:
                numbers[item] = lowest[item] = len(numbers)
                path.append(item)
                stack.append((item, links[item].all()))
                break
            if item not in gone:
                lowest[node] = min(lowest[node], numbers[item])
        else:
            stack.pop()
            if stack:
                above = stack[-1][0]
                lowest[above] = min(lowest[above], lowest[node])
            if lowest[node] == numbers[node]:
                component = set[int]()
                while node not in component:
                    component.add(path.pop())
                gone |= component
                yield component


def _count_paths(links: Mapping[int, _Links]) -> None:
    """Raises TooCostly for too many paths to subschemas for one instance, or endless ones. Depth first."""
    paths: dict[int, int] = {}
    open_schemas: set[int] = set()
    for start in links:
        stack = [(start, False)]
        while stack:
            key, done = stack.pop()
            if done:
                paths[key] = 1 + sum(map(paths.__getitem__, links[key].same))
                open_schemas.discard(key)
                if paths[key] > SAME_INSTANCE_PATHS_MAX:
                    raise TooCostly(f"more than {SAME_INSTANCE_PATHS_MAX} ways to apply subschemas to one instance")
            elif key in open_schemas:
                raise TooCostly("references lead back to where they started without going into the data")
            elif key not in paths:
                if not links[key].same:
                    paths[key] = 1
                    continue
                open_schemas.add(key)
                stack.append((key, True))
                stack.extend((item, False) for item in links[key].same)
