"""Calls over one channel, with errors as the server raised them: what the clients of all services share."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Self, TypeVar

import grpc
import grpc.aio

from llm_schema_registry.client.channel import Tls, open_channel
from llm_schema_registry.client.decode import from_rpc_error

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class Calls:
    """A channel to a service, closed with `async with`. Subclasses add the stubs."""

    def __init__(
        self,
        target: str | Sequence[str],
        *,
        tls: Tls | None = None,
        metadata: Sequence[tuple[str, str]] = (),
        timeout_seconds: float | None = None,
    ) -> None:
        """timeout_seconds: of unary calls that have none of their own; None for each method's default deadline."""
        self.timeout_seconds = timeout_seconds
        self.channel = open_channel(target, tls=tls, metadata=metadata)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the calls that are open and closes the channel."""
        await self.channel.close()

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Answer],
        request: Request,
        *,
        timeout_seconds: float | None = None,
    ) -> Answer:
        """The answer to a unary call. Raises the subclass of errors.Error that the server raised.

        timeout_seconds: None for the client's, and without one for the method's default deadline.
        """
        seconds = self.timeout_seconds if timeout_seconds is None else timeout_seconds
        try:
            return await method(request, timeout=seconds)
        except grpc.aio.AioRpcError as failed:
            raise from_rpc_error(failed) from None

    async def stream(
        self, method: grpc.aio.UnaryStreamMultiCallable[Request, Answer], request: Request
    ) -> AsyncGenerator[Answer, None]:
        """The answers to a streaming call, as they come. Raises like `call`; leaving the loop ends the call.

        A process that leaves the rotation ends its streams: open one that ended with code UNAVAILABLE or CANCELLED
        again, a watch of changes from its last token.
        """
        async with aclosing(_answers(method(request))) as answers:
            async for answer in answers:
                yield answer

    async def converse(
        self, method: grpc.aio.StreamStreamMultiCallable[Request, Answer], requests: AsyncIterable[Request]
    ) -> AsyncGenerator[Answer, None]:
        """The answers to a stream of requests, as they come. Raises like `call`; leaving the loop ends the call.

        The next request is asked for when there is room to send it. A stream that ended with code UNAVAILABLE or
        CANCELLED may be opened again with the requests that were not answered.
        """
        async with aclosing(_answers(method(aiter(requests)))) as answers:
            async for answer in answers:
                yield answer


async def _answers(
    call: grpc.aio.UnaryStreamCall[Request, Answer] | grpc.aio.StreamStreamCall[Request, Answer],
) -> AsyncGenerator[Answer, None]:
    """The answers of a call, which ends with the loop over them. Raises the server's errors."""
    try:
        async for answer in call:
            yield answer
    except grpc.aio.AioRpcError as failed:
        raise from_rpc_error(failed) from None
    finally:
        call.cancel()
