"""Static limits: what a schema may cost before any library looks at it.

Validation of one instance can take exponentially many steps: sixty definitions that each say `allOf: [next, next]`
never end. So the paths that lead from a schema to subschemas for the same instance are counted beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import unquote, urldefrag, urljoin

from services.registry.domain.formats.json_text import Json, pointer
from services.registry.domain.formats.jsonschema.keywords import SAME_INSTANCE, Path, children, walk

SUBSCHEMAS_MAX = 20_000
DYNAMIC = ("$dynamicRef", "$recursiveRef")
REFERENCES = ("$ref", *DYNAMIC)
SAME_INSTANCE_PATHS_MAX = 100_000


class TooCostly(Exception):
    """The schema is beyond a static limit. `str()` says which."""


class Documents:
    """The schema and its sources, as targets of `$ref`."""

    def __init__(self, root: Json, sources: Mapping[str, Json]) -> None:
        self._targets: dict[str, dict[str, Json]] = {}
        self._bases: dict[int, str] = {}
        self._count = 0
        for name, document in (*sources.items(), ("", root)):
            self._index(name, document)

    def targets(self, schema: dict[str, Json]) -> list[dict[str, Json]]:
        """What a schema's references lead to, as far as it is known here. Dynamic ones count as where they point."""
        found = []
        for keyword in REFERENCES:
            reference = schema.get(keyword)
            if isinstance(reference, str):
                address, fragment = urldefrag(urljoin(self._bases.get(id(schema), ""), reference))
                target = self._targets.get(f"{address}#{unquote(fragment)}")
                if target is not None:
                    found.append(target)
        return found

    def _index(self, name: str, document: Json) -> None:
        """Remembers every schema of a document by its addresses.

        Those are: the pointer from the document's root and from the embedded resource that it belongs to, and anchors.
        """
        if not isinstance(document, dict):
            return
        waiting: list[tuple[dict[str, Json], Path, str, int]] = [(document, (), name, 0)]
        while waiting:
            schema, path, base, start = waiting.pop()
            self._count += 1
            if self._count > SUBSCHEMAS_MAX:
                raise TooCostly(f"more than {SUBSCHEMAS_MAX} subschemas, those of the references included")
            own = schema.get("$id", schema.get("id"))
            if isinstance(own, str):
                base, fragment = urldefrag(urljoin(base, own))
                start = start if fragment else len(path)
                self._targets.setdefault(f"{base}#{fragment}", schema)
            self._bases[id(schema)] = base
            self._targets.setdefault(f"{name}#{pointer(path)}", schema)
            self._targets.setdefault(f"{base}#{pointer(path[start:])}", schema)
            for anchor in (schema.get("$anchor"), schema.get("$dynamicAnchor")):
                if isinstance(anchor, str):
                    self._targets.setdefault(f"{base}#{anchor}", schema)
            waiting.extend((child.schema, path + child.path, base, start) for child in children(schema))


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
    for _, schema in walk(root):
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
