"""GetSchema by id, warm, against a bare grpc.aio server that returns the same bytes.

Target: at most 1.25 times the bare server's CPU for a request, and no database query on a warm read.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

import grpc.aio
import psycopg

from llm_schema_registry.registry.v1 import schema_pb2, schema_service_pb2, schema_service_pb2_grpc
from tests.bench import measuring

REQUESTS = 1500
ROUNDS = 21
"""Short rounds in quick turns: what else the machine does falls on both sides."""
CLIENTS = 16
SETTLE_SECONDS = 2.0
"""PostgreSQL sessions report what they counted at most once a second."""
SCHEMA = {"type": "object", "properties": {f"property_{n}": {"type": "string", "maxLength": n} for n in range(20)}}


async def run(
    target: str, pid: int, bare_target: str, bare_pid: int, schema_id: int
) -> tuple[list[measuring.Round], list[measuring.Round]]:
    ours: list[measuring.Round] = []
    bare: list[measuring.Round] = []
    request = schema_service_pb2.GetSchemaRequest(id=schema_id)
    async with grpc.aio.insecure_channel(target) as one, grpc.aio.insecure_channel(bare_target) as other:
        stub, bare_stub = (schema_service_pb2_grpc.SchemaServiceStub(channel) for channel in (one, other))
        await measuring.load(lambda: stub.GetSchema(request), requests=1000, clients=CLIENTS)
        await measuring.load(lambda: bare_stub.GetSchema(request), requests=1000, clients=CLIENTS)
        for _ in range(ROUNDS):
            bare.append(
                await measuring.load(
                    lambda: bare_stub.GetSchema(request), requests=REQUESTS, clients=CLIENTS, pid=bare_pid
                )
            )
            ours.append(
                await measuring.load(lambda: stub.GetSchema(request), requests=REQUESTS, clients=CLIENTS, pid=pid)
            )
    return ours, bare


def queries(database_url: str) -> int:
    """Reads of any table that PostgreSQL has counted, once its counters have settled. Left out is `head`, at which the
    registry looks by itself to hear of changes."""
    statement = """
        SELECT coalesce(sum(seq_scan + coalesce(idx_scan, 0)), 0) FROM pg_stat_user_tables WHERE relname <> 'head'
    """
    counted, before = 0, -1
    with psycopg.connect(database_url, autocommit=True) as database:
        while counted != before:
            time.sleep(SETTLE_SECONDS)
            row = database.execute(statement).fetchone()
            assert row is not None
            counted, before = int(row[0]), counted
    return counted


def main() -> int:
    with measuring.postgres() as server, tempfile.TemporaryDirectory() as folder:
        url = server.create_database("bench")
        with measuring.registry(url, observability__log_level="warning") as service:
            with grpc.insecure_channel(service.target) as channel:
                stub = schema_service_pb2_grpc.SchemaServiceStub(channel)
                made = stub.RegisterSchema(
                    schema_service_pb2.RegisterSchemaRequest(
                        subject="bench", format=schema_pb2.SCHEMA_FORMAT_JSON, text=json.dumps(SCHEMA)
                    )
                )
                answer = stub.GetSchema(schema_service_pb2.GetSchemaRequest(id=made.schema.id))
            path = Path(folder) / "answer"
            path.write_bytes(answer.SerializeToString())
            counted = queries(url)
            with measuring.program("tests/bench/bare_server.py", str(path)) as (bare_process, port):
                ours, bare = asyncio.run(
                    run(service.target, service.pid, f"127.0.0.1:{port}", bare_process.pid, made.schema.id)
                )
            read = queries(url) - counted
    print(measuring.table("registry GetSchema, warm", ours))
    print(measuring.table("bare grpc.aio", bare))
    cost = measuring.ratio(ours, bare, lambda each: each.cpu_us)
    print(measuring.verdict("CPU per request, ours / bare", cost, at_most=1.25))
    print(f"reads of the tables during {REQUESTS * ROUNDS} warm calls: {read} (target: 0)")
    return 0 if cost <= 1.25 and read == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
