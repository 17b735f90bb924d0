"""Static limits: what a schema may cost before any library looks at it.

Validation of one instance can take exponentially many steps: sixty definitions that each say `allOf: [next, next]`
never end. So the paths that lead from a schema to subschemas for the same instance are counted beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import unquote, urldefrag, urljoin

from services.registry.domain.formats.json_text import Json
from services.registry.domain.formats.jsonschema.keywords import SAME_INSTANCE, Path, children, pointer

SUBSCHEMAS_MAX = 20_000
DYNAMIC = ("$dynamicRef", "$recursiveRef")
REFERENCES = ("$ref", *DYNAMIC)
SAME_INSTANCE_PATHS_MAX = 100_000


class TooCostly(Exception):
    """The schema is beyond a static limit. `str()` says which."""


class Documents:
    """The schema and its sources, as targets of `$ref`.

    Schemas are known by the object that holds them, so two places of one text are two schemas however equal they are.
    """

    def __init__(self, root: Json, sources: Mapping[str, Json]) -> None:
        self._targets: dict[str, dict[str, Json]] = {}
        self._resources: dict[str, dict[str, Json]] = {}
        self._places: dict[int, Place] = {}
        self._schemas: list[dict[str, Json]] = []
        own = root.get("$id", root.get("id")) if isinstance(root, dict) else None
        base = own if isinstance(own, str) else ""
        self._names = {urljoin(base, name): name for name in sources}  # A name is relative to the root's address too.
        for name, document in (*sources.items(), ("", root)):
            if isinstance(document, dict):
                self._index(document, Place(name, (), name, 0))

    def targets(self, schema: dict[str, Json]) -> list[dict[str, Json]]:
        """What a schema's references lead to, as far as it is known here. Dynamic ones count as where they point."""
        found = []
        for keyword in REFERENCES:
            target = self.target(schema, keyword)
            if isinstance(target, dict):
                found.append(target)
        return found

    def target(self, schema: dict[str, Json], keyword: str) -> Json:
        """What the reference under `keyword` leads to; None when that is not known here or no schema."""
        reference = schema.get(keyword)
        if not isinstance(reference, str):
            return None
        place = self._places.get(id(schema))
        address, fragment = urldefrag(urljoin(place.base if place else "", reference))
        fragment = unquote(fragment)
        if address not in self._resources:
            address = self._names.get(address, address)
        known = self._targets.get(f"{address}#{fragment}")
        return self._elsewhere(address, fragment) if known is None else known

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

    def _elsewhere(self, address: str, fragment: str) -> Json:
        """What a pointer leads to where no keyword holds a schema: a boolean, or any part of the text, such as
        `#/components/schemas/User`, which is a schema from then on."""
        value: Json = self._resources.get(address)
        parts = [part.replace("~1", "/").replace("~0", "~") for part in fragment.split("/")[1:]]
        if value is None or not fragment.startswith("/"):
            return None
        for part in parts:
            if isinstance(value, dict):
                value = value.get(part)
            elif isinstance(value, list) and part.isdecimal() and int(part[:9]) < len(value):
                value = value[int(part[:9])]
            else:
                return None
        if isinstance(value, dict):
            resource = self._places[id(self._resources[address])]
            self._index(value, replace(resource, path=resource.path + tuple(parts)))
            return value
        return value if isinstance(value, bool) else None

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
            base, path = place.base, place.path
            own = schema.get("$id", schema.get("id"))
            if isinstance(own, str):
                base, fragment = urldefrag(urljoin(base, own))
                place = replace(place, base=base, start=place.start if fragment else len(path))
                self._targets.setdefault(f"{base}#{fragment}", schema)
            self._places[id(schema)] = place
            if not path:
                self._resources.setdefault(place.document, schema)
            if place.start == len(path):
                self._resources.setdefault(base, schema)
            self._targets.setdefault(f"{place.document}#{pointer(path)}", schema)
            self._targets.setdefault(f"{base}#{pointer(path[place.start :])}", schema)
            for anchor in (schema.get("$anchor"), schema.get("$dynamicAnchor")):
                if isinstance(anchor, str):
                    self._targets.setdefault(f"{base}#{anchor}", schema)
            waiting.extend((child.schema, replace(place, path=path + child.path)) for child in children(schema))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a schema stands: document (empty for the root one), path in it, address of the resource that it belongs to,
    and how many parts of the path lead to that resource."""

    document: str
    path: Path
    base: str
    start: int


def may_refer(text: str, sources: Mapping[str, str]) -> bool:
    """Whether a schema may be beyond a limit, or lead back to itself.

    A small text without any reference is a tree of few subschemas; a name can be hidden only by an escape.
    """
    return bool(sources) or len(text) > SUBSCHEMAS_MAX or "Ref" in text or "$ref" in text or "\\u" in text


def measure(root: Json, sources: Mapping[str, Json]) -> bool:
    """Whether checking data may take exponentially many steps in the depth of the data.

    So it is when a schema leads back to itself in two ways, or in one that is only known while data is checked.
    Raises TooCostly when a schema with its sources is beyond SUBSCHEMAS_MAX or SAME_INSTANCE_PATHS_MAX, and when
    subschemas for the same instance lead back to themselves: such a schema decides nothing.
    """
    documents = Documents(root, sources)
    paths: dict[int, int] = {}
    for schema in documents.schemas():
        _count_paths(schema, documents, paths)
    return _is_explosive(root, documents)


def _is_explosive(root: Json, documents: Documents) -> bool:
    if not isinstance(root, dict):
        return False
    reached: dict[int, list[int]] = {}
    waiting = [root]
    while waiting:
        schema = waiting.pop()
        if id(schema) in reached:
            continue
        if any(keyword in schema for keyword in DYNAMIC):
            return True
        following = [*(child.schema for child in children(schema)), *documents.targets(schema)]
        reached[id(schema)] = [id(item) for item in following]
        waiting.extend(following)
    component = _components(reached)
    return any(sum(component[item] == component[key] for item in following) > 1 for key, following in reached.items())


def _components(edges: Mapping[int, Sequence[int]]) -> dict[int, int]:
    """The strongly connected component of every node. Source: Kosaraju's algorithm, without recursion."""
    order: list[int] = []
    seen: set[int] = set()
    for start in edges:
        stack = [(start, False)]
        while stack:
            node, done = stack.pop()
            if done:
                order.append(node)
            elif node not in seen:
                seen.add(node)
                stack.append((node, True))
                stack.extend((item, False) for item in edges[node])
    backwards: dict[int, list[int]] = {node: [] for node in edges}
    for node, following in edges.items():
        for item in following:
            backwards[item].append(node)
    component: dict[int, int] = {}
    for root in reversed(order):
        waiting = [root]
        while waiting:
            node = waiting.pop()
            if node not in component:
                component[node] = root
                waiting.extend(backwards[node])
    return component


def _count_paths(start: dict[str, Json], documents: Documents, paths: dict[int, int]) -> None:
    """Fills `paths` for `start` and all it leads to, depth first, without recursion."""
    open_schemas: dict[int, None] = {}
    stack = [(start, False)]
    while stack:
        schema, done = stack.pop()
        key = id(schema)
        following = _same_instance(schema, documents)
        if done:
            paths[key] = 1 + sum(paths[id(item)] for item in following)
            del open_schemas[key]
            if paths[key] > SAME_INSTANCE_PATHS_MAX:
                raise TooCostly(f"more than {SAME_INSTANCE_PATHS_MAX} ways to apply subschemas to one instance")
        elif key in open_schemas:
            raise TooCostly("references lead back to where they started without going into the data")
        elif key not in paths:
            open_schemas[key] = None
            stack.append((schema, True))
            stack.extend((item, False) for item in following)


def _same_instance(schema: dict[str, Json], documents: Documents) -> list[dict[str, Json]]:
    """Subschemas that apply to the instance itself."""
    found = [child.schema for child in children(schema) if child.keyword in SAME_INSTANCE]
    return [*found, *documents.targets(schema)]
