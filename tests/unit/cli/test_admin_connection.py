"""How the program reaches the admin service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from llm_schema_registry import errors
from llm_schema_registry.cli.exit_codes import UsageFault
from llm_schema_registry.cli.session import GlobalOptions, Session
from llm_schema_registry.operation.v1 import operation_service_pb2 as pb


class Listener(grpc.aio.ServerInterceptor):
    """Hears who calls; nothing is served behind it."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Notes the caller's authorization."""
        self.heard += [str(value) for key, value in details.invocation_metadata if key == "authorization"]
        return await continuation(details)


@pytest.fixture
async def listener() -> AsyncIterator[tuple[str, Listener]]:
    """An address, and who listens there."""
    listener = Listener()
    server = grpc.aio.server(interceptors=[listener])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}", listener
    await server.stop(None)


async def call(options: GlobalOptions) -> None:
    """Calls the admin service that the options name."""
    async with Session.of(options).connection.admin() as admin:
        with suppress(errors.MethodUnknown, errors.Internal):
            await admin.call(admin.operations.ListOperations, pb.ListOperationsRequest())


async def test_the_token_of_a_file_goes_before_the_environment(
    listener: tuple[str, Listener], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call carries the token of the file, else that of the environment, else none."""
    target, heard = listener[0], listener[1].heard
    (tmp_path / "token").write_text("of-the-file\n")

    await call(GlobalOptions(admin_target=target))
    monkeypatch.setenv("LLMSR_ADMIN_TOKEN", "of-the-environment")
    await call(GlobalOptions(admin_target=target))
    await call(GlobalOptions(admin_target=target, admin_token_file=tmp_path / "token"))

    assert heard == ["Bearer of-the-environment", "Bearer of-the-file"]


def test_what_is_no_token_is_refused_and_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token with spaces is a fault of usage; the words do not repeat it, and the options do not show a good one."""
    monkeypatch.setenv("LLMSR_ADMIN_TOKEN", "two words")
    with pytest.raises(UsageFault, match="LLMSR_ADMIN_TOKEN holds no token") as refused:
        Session.of(GlobalOptions())

    monkeypatch.setenv("LLMSR_ADMIN_TOKEN", "a-good-one")
    assert "two words" not in str(refused.value)
    assert "a-good-one" not in repr(Session.of(GlobalOptions()))


async def test_nobody_there_is_told_with_the_address() -> None:
    """An admin service that does not answer is named with its address."""
    with pytest.raises(errors.Error, match=r"The admin service at 127\.0\.0\.1:1 "):
        await call(GlobalOptions(admin_target="127.0.0.1:1", timeout=1))
