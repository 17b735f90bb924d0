"""The least that grpc.aio can do: answers GetSchema with the bytes of a file. Prints its port."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc
import grpc.aio


async def main(answer: bytes) -> None:
    """Serves until the process is ended."""

    async def get_schema(_: bytes, __: Any) -> bytes:
        return answer

    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(get_schema)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("llm_schema_registry.registry.v1.SchemaService", {"GetSchema": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]).read_bytes()))
