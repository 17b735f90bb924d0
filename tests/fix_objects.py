"""Object stores: real servers for the run, an empty bucket or folder for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from llm_schema_registry.objects.directory import DirectoryStore
from llm_schema_registry.objects.s3 import open_s3
from llm_schema_registry.objects.store import ObjectStore
from tests.object_servers import S3Server, ministack, rclone

PAGE = 7
"""Objects of a page of a listing, so that short listings have several."""


@dataclass(frozen=True, slots=True)
class ObjectPlace:
    """An empty place for objects. open: a store on it; each call gives another, as another process would have."""

    name: str
    open: Callable[[], AbstractAsyncContextManager[ObjectStore]]


@pytest.fixture(scope="session")
def rclone_server(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[S3Server]:
    """The run's rclone. Buckets are folders of `rclone_server.folder`."""
    with rclone(tmp_path_factory.mktemp("rclone"), free_port()) as server:
        yield server


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[S3Server]:
    """The run's full S3 (ministack): conditional writes, checksums, object lock."""
    with ministack(tmp_path_factory.mktemp("ministack"), free_port()) as server:
        yield server


@pytest.fixture
def directory_store(tmp_path: Path) -> DirectoryStore:
    """An empty directory store."""
    return DirectoryStore(tmp_path / "objects")


@pytest.fixture(params=["directory", "s3-rclone", "s3-ministack"])
def object_place(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectPlace:
    """An empty place in every kind of store."""
    if request.param == "directory":
        return directory_place(tmp_path / "objects")
    fixture = "rclone_server" if request.param == "s3-rclone" else "s3_server"
    return s3_place(request.param, request.getfixturevalue(fixture))


@pytest.fixture
async def object_store(object_place: ObjectPlace) -> AsyncIterator[ObjectStore]:
    """An empty store of every kind."""
    async with object_place.open() as store:
        yield store


def directory_place(folder: Path) -> ObjectPlace:
    """A folder as a place."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[ObjectStore]:
        yield DirectoryStore(folder)

    return ObjectPlace("directory", opened)


def s3_place(name: str, server: S3Server) -> ObjectPlace:
    """A new bucket as a place, below a prefix."""
    options = server.options(server.bucket(), prefix="below/this", list_page=PAGE)
    return ObjectPlace(name, lambda: open_s3(options))
