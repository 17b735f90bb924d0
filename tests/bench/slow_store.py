"""A backup into a store that takes a megabyte a second: what does not go out must not gather in memory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg

from deploy.local.ports import free_port
from deploy.local.postgres import Postgres
from llm_schema_registry.objects.s3_options import S3Options
from services.backup.adapters.recipients import generate_key_file, generate_signing_key
from tests.bench import large_registry
from tests.fix_backup import backup_environment
from tests.fix_service import Service
from tests.object_proxy import FaultProxy
from tests.object_servers import ministack

BYTES_PER_SECOND = 1_000_000
NOISE_BYTES = 1024 * 1024
NOISE_ROWS = 64
"""More than all buffers of an upload hold, none of which can be compressed away: about a minute's worth."""
VERSIONS = 100


def fill(url: str) -> None:
    """A small registry with a table of noise beside it."""
    large_registry.fill(url, VERSIONS)
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE registry.noise (id integer PRIMARY KEY, noise bytea NOT NULL)")
        for number in range(NOISE_ROWS):
            connection.execute("INSERT INTO registry.noise VALUES (%s, %s)", [number, os.urandom(NOISE_BYTES)])


@asynccontextmanager
async def service(server: Postgres, folder: Path) -> AsyncIterator[Service]:
    """A backup service whose store is behind a slow line. Its parts go out side by side and share the line."""
    url = server.create_database("slow")
    await asyncio.to_thread(fill, url)
    generate_signing_key(folder / "slow.pem", folder / "slow.pub")
    generate_key_file(folder / "slow.key")
    at_once = S3Options(bucket="bucket").concurrency
    (folder / "slow").mkdir()
    (folder / "slow-log").mkdir()
    with ministack(folder / "slow", free_port()) as store:
        async with FaultProxy(store.endpoint, bytes_per_second=BYTES_PER_SECOND // at_once) as proxy:
            options: dict[str, object] = {
                "s3__bucket": store.bucket(),
                "s3__endpoint": proxy.endpoint,
                "s3__path_style": True,
                "s3__access_key_id": store.access_key_id,
                "s3__secret_access_key": store.secret_access_key,
                "backup__signing_key_path": folder / "slow.pem",
                "backup__key_paths": folder / "slow.key",
            }
            made = Service(folder / "slow-log", backup_environment(url, options), "backup")
            await made.start_async()
            try:
                yield made
            finally:
                await made.stop_async()
