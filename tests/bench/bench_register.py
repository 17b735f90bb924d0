"""RegisterSchema by 16 clients under distinct subjects, against a bare transaction that takes the same counter row.

The bare side: the same kind of pool, BEGIN, UPDATE of the head, INSERT of one row, COMMIT, from 16 tasks, without gRPC,
without a schema. Both on one PostgreSQL with its default durability. Target: at least half its rate.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import sys

import grpc.aio

from llm_schema_registry.kernel.postgres import Postgres, PostgresOptions
from llm_schema_registry.registry.v1 import schema_pb2, schema_service_pb2, schema_service_pb2_grpc
from tests.bench import measuring

REQUESTS = 600
CLIENTS = 16
POOL = 16
TABLE = "CREATE TABLE bare (id bigserial PRIMARY KEY, payload text NOT NULL)"
PAYLOAD = "x" * 600


async def bare_transaction(database: Postgres) -> None:
    """What no commit can do without."""
    async with database.connection() as connection, connection.transaction():
        await connection.execute("UPDATE registry.head SET global_revision = global_revision + 1 RETURNING position")
        await connection.execute("INSERT INTO bare (payload) VALUES (%s)", [PAYLOAD])


async def run(target: str, url: str, pid: int) -> tuple[list[measuring.Round], list[measuring.Round]]:
    ours: list[measuring.Round] = []
    bare: list[measuring.Round] = []
    numbers = itertools.count(1)
    run_name = f"{random.getrandbits(32):x}"
    options = PostgresOptions(url, pool_min=POOL, pool_max=POOL, ssl_enabled=False)
    async with grpc.aio.insecure_channel(target) as channel, Postgres(options) as database:
        stub = schema_service_pb2_grpc.SchemaServiceStub(channel)
        async with database.connection() as connection:
            await connection.execute(TABLE)

        async def register() -> None:
            number = next(numbers)
            schema = {
                "title": f"{run_name} {number}",
                "type": "object",
                "properties": {f"p{index}": {"type": "string", "maxLength": index} for index in range(10)},
            }
            request = schema_service_pb2.RegisterSchemaRequest(
                subject=f"{run_name}/{number}", format=schema_pb2.SCHEMA_FORMAT_JSON, text=json.dumps(schema)
            )
            await stub.RegisterSchema(request)

        for _ in range(2):  # Prepared statements and pools are warm after this.
            await measuring.load(register, requests=200, clients=CLIENTS)
            await measuring.load(lambda: bare_transaction(database), requests=200, clients=CLIENTS)
        for _ in range(measuring.ROUNDS):
            bare.append(
                await measuring.load(
                    lambda: bare_transaction(database), requests=REQUESTS, clients=CLIENTS, pid=os.getpid()
                )
            )
            ours.append(await measuring.load(register, requests=REQUESTS, clients=CLIENTS, pid=pid))
    return ours, bare


def main() -> int:
    with measuring.postgres() as server:
        url = server.create_database("bench")
        options = {"database__pool_min": POOL, "database__pool_max": POOL, "observability__log_level": "warning"}
        with measuring.registry(url, **options) as service:
            ours, bare = asyncio.run(run(service.target, url, service.pid))
    print(measuring.table("registry RegisterSchema", ours))
    print(measuring.table("bare transaction", bare))
    rate = measuring.ratio(ours, bare, lambda each: each.rate)
    print(measuring.verdict("rate, ours / bare", rate, at_least=0.5))
    return 0 if rate >= 0.5 else 1


if __name__ == "__main__":
    sys.exit(main())
