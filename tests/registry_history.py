"""Random histories: the same steps for any store."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import replace

from llm_schema_registry import errors
from services.registry.domain.events import SettingsChanged, SubjectRolledBack, VersionsDeleted, VersionsPurged
from services.registry.domain.model import Reference, Settings, State
from services.registry.ports import Stale, Store, VersionFilter
from tests.registry_author import Author, fingerprint

SUBJECTS = ("a", "b", "c", "dé")
TEXTS = tuple(f"text {number}" for number in range(6))
LEVELS = ("NONE", "FULL", None)

Step = Callable[[Author], Awaitable[object]]


def step(rng: random.Random) -> Step:
    """One step, legal or not; what it does depends on the source alone."""
    subject, text, number = rng.choice(SUBJECTS), rng.choice(TEXTS), rng.randint(1, 6)
    other, target = rng.choice(SUBJECTS), rng.randint(1, 4)
    references = (Reference("x", other, target),) if other != subject and rng.random() < 0.3 else ()
    identity = text if not references else f"{text} {other} {target}"
    state, level = rng.choice(list(State)), rng.choice(LEVELS)
    numbers = tuple(sorted(rng.sample(range(1, 7), rng.randint(1, 3))))
    steps: list[tuple[int, Step]] = [
        (8, lambda author: author.register(subject, identity, references=references, words=(text[-1],))),
        (3, lambda author: author.propose(VersionsDeleted(subject, (number,)))),
        (1, lambda author: author.propose(VersionsDeleted(subject, numbers))),
        (3, lambda author: _purge(author, subject, (number,), exact=True)),
        (1, lambda author: _purge(author, subject, numbers, exact=rng.random() < 0.7)),
        (2, lambda author: _if_there(author, subject, number, lambda: author.transition(subject, number, state))),
        (2, lambda author: _if_there(author, subject, number, lambda: author.update(subject, number, text, ("u",)))),
        (1, lambda author: author.propose(SubjectRolledBack(subject, number, (number + 1,)))),
        (1, lambda author: author.propose(SettingsChanged(subject, Settings(level)))),
        (1, lambda author: author.propose(SettingsChanged("", Settings(level)))),
    ]
    weights, choices = zip(*steps, strict=True)
    chosen: Step = rng.choices(choices, weights)[0]
    return chosen


async def outcome(taken: Awaitable[object]) -> object:
    """What a step returned, or the kind of refusal it met."""
    try:
        return await taken
    except (Stale, errors.Error) as refusal:
        return type(refusal)


async def picture(store: Store) -> dict[str, object]:
    """Everything that can be read of a store, in a comparable form."""
    versions = list(await store.versions(VersionFilter(include_deleted=True), after=None, limit=1000))
    keys = [(version.subject, version.number) for version in versions]
    head = await store.head()
    ids = range(1, 200)
    # Every store is a registry of its own.
    seen: dict[str, object] = {
        "head": replace(head, cluster_id=""),
        "versions": versions,
        "contents": await store.schemas(ids),
    }
    seen["changes"] = list(await store.changes(after=0, limit=1000, text_bytes_max=1 << 40))
    seen["subjects"] = list(await store.subjects(prefix="", include_deleted=True, after=None, limit=100))
    for name in SUBJECTS:
        seen[f"subject {name}"] = await store.subject(name)
        seen[f"latest {name}"] = await store.latest(name)
        seen[f"orphans {name}"] = list(await store.orphans(name, range(1, 4)))
        for text in TEXTS:
            seen[f"basis {name} {text}"] = await store.basis(name, fingerprint(text))
    for schema_id in ids:
        seen[f"targets {schema_id}"] = await store.targets(schema_id)
    seen["dependencies"] = set(await store.dependencies(keys))
    seen["dependents"] = set(await store.dependents(keys, include_deleted=False, limit=1000))
    found = await store.versions(VersionFilter(words=("u",)), after=None, limit=1000)
    seen["updated"] = [(version.subject, version.number) for version in found]
    return seen


async def _purge(author: Author, subject: str, numbers: tuple[int, ...], *, exact: bool) -> object:
    contents = tuple(await author.store.orphans(subject, numbers)) if exact else ()
    return await author.propose(VersionsPurged(subject, numbers, contents, settings_removed=len(numbers) > 1))


async def _if_there(author: Author, subject: str, number: int, work: Callable[[], Awaitable[object]]) -> object:
    return None if await author.store.version(subject, number) is None else await work()
