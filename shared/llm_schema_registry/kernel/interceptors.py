"""What happens around every RPC, in this order: telemetry, errors, identity, admission (state, deadline, size).

Every method is wrapped once, when the server is built, so that a call costs one dictionary lookup and no chain of
interceptor coroutines. Messages are decoded and encoded in here: what is malformed becomes an error of ours, sizes are
known, and a handler may answer with bytes that are encoded already.

While draining, streams are ended between two messages by cancelling the wait for the handler, which unwinds it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from llm_schema_registry import errors
from llm_schema_registry.kernel import identity, lifecycle, malformed, status
from llm_schema_registry.kernel.calls import Call
from llm_schema_registry.kernel.deadlines import Deadline, Deadlines
from llm_schema_registry.kernel.identity import Authenticator
from llm_schema_registry.kernel.lifecycle import Lifecycle, State, Stream
from llm_schema_registry.kernel.metrics_calls import OTHER, MethodCalls
from llm_schema_registry.kernel.policy import Method
from llm_schema_registry.kernel.telemetry import Telemetry

ANSWER_SECONDS = 0.020
"""Part of the caller's deadline that is kept back, so that the answer still arrives. Source: letsencrypt/boulder."""
WRITE_SECONDS_MAX = 30.0
"""How long the caller of a stream may leave a message untaken before the stream is ended."""
TELL_SECONDS_MAX = 1.0
"""How long the end of a stream waits for its status to be taken. A status that is not stays with the engine, behind the
messages before it, and the caller gets it when it reads on."""
COMPRESS_BYTES_MIN = 16_384
"""Answers below this size are cheaper to send than to compress (measured: gzip of 1 KB costs more than the call)."""

Context = grpc.aio.ServicerContext[Any, Any]
Behavior = Callable[[Any, Context], Awaitable[bytes | None]]


@dataclass(frozen=True, slots=True)
class Rules:
    """What admission and identity need to know."""

    lifecycle: Lifecycle
    authenticator: Authenticator
    control: Authenticator
    request_seconds_max: float
    request_bytes_max: int


class Interceptors:
    """Wraps the handlers of a server."""

    def __init__(self, rules: Rules, telemetry: Telemetry) -> None:
        self._rules = rules
        self._telemetry = telemetry
        self._deadlines = Deadlines()
        self._exempt_streams: set[Stream] = set()
        self._closed = False

    def wrap(self, method: Method, handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[bytes, bytes]:
        """The handler with everything around it. It takes and gives bytes."""
        work = _Work(self._rules, self._telemetry, self._deadlines, method, handler)
        if not handler.request_streaming and not handler.response_streaming:
            return grpc.unary_unary_rpc_method_handler(work.unary)
        if not handler.response_streaming:
            return grpc.stream_unary_rpc_method_handler(self._streaming(work))
        if not handler.request_streaming:
            return grpc.unary_stream_rpc_method_handler(self._streaming(work))
        return grpc.stream_stream_rpc_method_handler(self._streaming(work))

    def unknown(self, name: str) -> grpc.RpcMethodHandler[bytes, bytes]:
        """A handler that refuses a method that the server does not have."""

        async def refuse(_: object, context: Context) -> bytes | None:
            counts = self._telemetry.calls.method(OTHER)
            call = self._telemetry.begin(counts, context)
            shown = name.lstrip("/")[:200]
            error = errors.MethodUnknown(f"The server has no method {shown}.", metadata={"method": shown})
            return await _abort(self._telemetry, counts, call, context, error)

        # Streaming on both sides: such a handler runs before, and without, any message.
        return grpc.stream_stream_rpc_method_handler(refuse)

    def end_exempt_streams(self) -> None:
        """Ends health watches and reflection streams, and refuses new ones: they would hold up the stop."""
        self._closed = True
        for stream in tuple(self._exempt_streams):
            stream.end()

    async def wait_abandoned(self, seconds: float) -> bool:
        """Waits until no call is in work. True when the engine still holds ends of streams that nobody takes."""
        return await self._rules.lifecycle.wait_idle(seconds) and self._rules.lifecycle.abandoned > 0

    def _streaming(self, work: _Work) -> Behavior:
        if not work.method.exempt:
            return work.stream

        async def exempt(request: Any, context: Context) -> bytes | None:
            task = asyncio.current_task()
            assert task is not None
            stream = Stream(task)
            self._exempt_streams.add(stream)
            if self._closed:
                stream.end()
            try:
                return await work.stream(request, context, stream)
            finally:
                self._exempt_streams.discard(stream)

        return exempt


class _Work:
    """The work around one method."""

    def __init__(
        self,
        rules: Rules,
        telemetry: Telemetry,
        deadlines: Deadlines,
        method: Method,
        handler: grpc.RpcMethodHandler[Any, Any],
    ) -> None:
        self.method = method
        self._rules = rules
        self._lifecycle = rules.lifecycle
        self._deadlines = deadlines
        self._telemetry = telemetry
        self._counts: MethodCalls = telemetry.calls.method(method.name)
        self._counted = not method.exempt and not method.is_control
        self._decode = handler.request_deserializer or bytes
        self._encode = handler.response_serializer or bytes
        self._request_streaming = bool(handler.request_streaming)
        self._handler: Any = (
            handler.unary_unary or handler.stream_unary or handler.unary_stream or handler.stream_stream
        )
        self._answers_stream = bool(handler.response_streaming)
        self._counts.stream = self._request_streaming or self._answers_stream
        longest = rules.request_seconds_max
        self._seconds_max = max(longest, method.seconds) if method.is_control else longest

    async def unary(self, raw: bytes, context: Context) -> bytes | None:
        """A unary call from its bytes to its bytes."""
        call = self._telemetry.begin(self._counts, context)
        deadline: Deadline | None = None
        if self._counted:
            self._lifecycle.call_begins()
        try:
            self._admit(call, context)
            request = self._decoded(raw, call)
            if call.deadline is not None:
                deadline = self._deadlines.begin(call.deadline)
            answer = await self._handler(request, context)
            payload: bytes = answer if type(answer) is bytes else self._encode(answer)
            if len(payload) < COMPRESS_BYTES_MIN:
                context.disable_next_message_compression()
            if deadline is not None:
                self._deadlines.end(deadline)
        except BaseException as error:  # noqa: BLE001 - the edge: every failure is translated or raised again
            return await self._failed(call, context, self._cause(error, deadline))
        finally:
            if self._counted:
                self._lifecycle.call_ends()
        call.sent_bytes = len(payload)
        self._telemetry.end(self._counts, call, context)
        return payload

    async def stream(self, incoming: Any, context: Context, stream: Stream | None = None) -> bytes | None:
        """A call that streams on either side. Sends its own answers; returns bytes only for a unary answer."""
        call = self._telemetry.begin(self._counts, context)
        payload: bytes | None = None
        deadline: Deadline | None = None
        if self._counted:
            self._lifecycle.call_begins()
        try:
            self._admit(call, context)
            stream = stream or self._lifecycle.stream_begins()
            request = self._requests(incoming, call) if self._request_streaming else self._decoded(incoming, call)
            if call.deadline is not None:
                deadline = self._deadlines.begin(call.deadline)
            payload = await self._run(request, context, call, stream)
            if deadline is not None:
                self._deadlines.end(deadline)
        except BaseException as error:  # noqa: BLE001 - the edge: every failure is translated or raised again
            return await self._tell(call, context, _ended(self._cause(error, deadline), stream))
        finally:
            if self._counted:
                self._lifecycle.call_ends()
            if stream is not None:
                self._lifecycle.stream_ends(stream)
        self._telemetry.end(self._counts, call, context)
        return payload

    async def _run(self, request: Any, context: Context, call: Call, stream: Stream) -> bytes | None:
        """Runs the handler; waits for it in such a way that a drain can end the wait."""
        if not self._answers_stream:
            stream.wait_begins()
            answer = await self._handler(request, context)
            stream.wait_ends()
            payload: bytes = answer if type(answer) is bytes else self._encode(answer)
            call.sent_bytes = len(payload)
            if len(payload) < COMPRESS_BYTES_MIN:
                context.disable_next_message_compression()
            return payload
        async with aclosing(self._handler(request, context)) as answers:
            while True:
                stream.wait_begins()
                try:
                    answer = await anext(answers)
                except StopAsyncIteration:
                    return None
                finally:
                    stream.wait_ends()
                payload = answer if type(answer) is bytes else self._encode(answer)
                call.sent_bytes += len(payload)
                if len(payload) < COMPRESS_BYTES_MIN:
                    context.disable_next_message_compression()
                await _write(context, payload)

    def _admit(self, call: Call, context: Context) -> None:
        """Identifies the caller, looks at the state, and sets the deadline of the work; None for none."""
        method = self.method
        if method.exempt:
            return
        checks = self._rules.control if method.is_control else self._rules.authenticator
        caller = checks.authenticate(context, call.metadata)
        if caller.role < method.role:
            identity.require(caller, method.role)
        call.caller = caller
        if self._lifecycle.accepting not in method.states:
            raise _refused(self._lifecycle)
        limit = self._limit(context)
        if limit is not None:
            call.deadline = time.monotonic() + limit

    def _limit(self, context: Context) -> float | None:
        """Seconds for the work: the caller's deadline less what the answer needs, or the policy's; both capped."""
        remaining: float | None = context.time_remaining()
        if remaining is not None:
            remaining -= ANSWER_SECONDS
            if remaining <= 0:
                raise errors.Deadline(
                    "The deadline leaves no time for the work: allow more.",
                    metadata={"needed_seconds": str(ANSWER_SECONDS)},
                )
        if self.method.seconds == 0:
            return remaining
        if remaining is None:
            remaining = self.method.seconds
        return min(remaining, self._seconds_max)

    def _decoded(self, raw: bytes, call: Call) -> Any:
        """The request message. Raises MessageTooLarge or InvalidField."""
        size = len(raw)
        call.received_bytes += size
        if size > self._rules.request_bytes_max:
            raise errors.MessageTooLarge(
                f"The request has {size} bytes; the server takes at most {self._rules.request_bytes_max}"
                " (option performance.max_request_body_bytes).",
                metadata={"size_bytes": size, "limit_bytes": self._rules.request_bytes_max},
            )
        try:
            return self._decode(raw)
        except DecodeError:
            raise malformed.error(self.method.name, raw) from None

    async def _requests(self, incoming: AsyncIterator[bytes], call: Call) -> AsyncIterator[Any]:
        async for raw in incoming:
            yield self._decoded(raw, call)

    def _cause(self, error: BaseException, deadline: Deadline | None) -> BaseException:
        """What really happened: a cancelled call may have been out of time. Ends the deadline."""
        if deadline is not None and self._deadlines.end(deadline) and isinstance(error, asyncio.CancelledError):
            return errors.Deadline("The work did not fit into the deadline.")
        return error

    async def _tell(self, call: Call, context: Context, error: BaseException) -> NoReturn:
        """Ends a stream like `_failed`, without waiting for a caller that does not read what it was sent before."""
        try:
            async with asyncio.timeout(TELL_SECONDS_MAX):
                await self._failed(call, context, error)
        except TimeoutError:
            self._lifecycle.abandoned += 1
            raise asyncio.CancelledError from None

    async def _failed(self, call: Call, context: Context, error: BaseException) -> NoReturn:
        """Ends the call with the error's status. Raises what is not a failure of the call."""
        await _abort(self._telemetry, self._counts, call, context, error)


class Registrar:
    """Stands in for a server in the generated `add_…_to_server` functions, and collects what they add."""

    def __init__(self) -> None:
        self.handlers: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}

    def add_generic_rpc_handlers(self, generic_rpc_handlers: object) -> None:
        """Ignored: the same handlers come by name through the other method."""

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Remembers the handlers of a service."""
        self.handlers[service_name] = dict(method_handlers)


class Router(grpc.GenericRpcHandler):
    """All methods of a server, wrapped, by their path."""

    def __init__(
        self,
        interceptors: Interceptors,
        handlers: Mapping[str, grpc.RpcMethodHandler[bytes, bytes]],
    ) -> None:
        self._handlers = dict(handlers)
        self._interceptors = interceptors

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        """The handler of a path; for an unknown one, a handler that refuses."""
        found = self._handlers.get(handler_call_details.method)
        return found or self._interceptors.unknown(handler_call_details.method)


async def _abort(
    telemetry: Telemetry, counts: MethodCalls, call: Call, context: Context, error: BaseException
) -> NoReturn:
    """Ends the call with the error's status. Cancellation and a handler's own abort pass through, counted."""
    if isinstance(error, grpc.aio.AbortError):
        telemetry.end(counts, call, context, code=_code(context))
        raise error
    if isinstance(error, asyncio.CancelledError):
        remaining = context.time_remaining()
        late = remaining is not None and remaining <= 0
        code = errors.Code.DEADLINE_EXCEEDED if late else errors.Code.CANCELLED
        telemetry.end(counts, call, context, code=code)
        raise error
    if not isinstance(error, Exception):
        raise error
    known = error if isinstance(error, errors.Error) else telemetry.defect(call, error)
    telemetry.end(counts, call, context, code=known.code, error=known)
    details = status.encode(known)
    await context.abort(
        status.CODES[int(known.code)],
        status.line(known.message),
        ((status.DETAILS_KEY, details.SerializeToString()),),
    )


async def _write(context: Context, payload: bytes) -> None:
    """Sends one message of a stream. Raises WatcherTooSlow when the caller does not take it."""
    try:
        async with asyncio.timeout(WRITE_SECONDS_MAX):
            await context.write(payload)
    except TimeoutError:
        raise errors.WatcherTooSlow(
            f"The caller took nothing for {WRITE_SECONDS_MAX:g} s."
            " Open the stream again and resume from what was read last.",
            metadata={"limit_seconds": f"{WRITE_SECONDS_MAX:g}"},
        ) from None


def _code(context: Context) -> errors.Code:
    """The code that a handler aborted with."""
    code: Any = context.code()
    number = code.value[0] if isinstance(code, grpc.StatusCode) else int(code or 0)
    return errors.Code(number) if number else errors.Code.UNKNOWN


def _ended(error: BaseException, stream: Stream | None) -> BaseException:
    """What really happened when a stream's wait was cancelled: a drain, or the caller."""
    if isinstance(error, asyncio.CancelledError) and stream is not None and stream.ended:
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()
        return lifecycle.drained()
    return error


def _refused(life: Lifecycle) -> errors.Error:
    """Why a call is not served in the present state."""
    state = life.accepting
    if state is State.READ_ONLY:
        return errors.ReadOnly("The server is read-only: reads are served, writes are not.")
    return errors.NotServing(
        f"The process is {state.name} and does not serve this call now.",
        metadata={"state": state.name},
        retry_seconds=lifecycle.RESUME_SECONDS,
    )
