"""The call in work: who called which method, under which trace and request id, and how much time is left.

Set by the server for every RPC; handlers and use cases read it through `current_call`, `current_caller` and
`remaining_seconds`.
"""

from __future__ import annotations

import random
import re
import time
from contextvars import ContextVar
from typing import Any

from llm_schema_registry.kernel.identity import Caller

_CURRENT: ContextVar[Call | None] = ContextVar("llm_schema_registry_call", default=None)

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
"""Version 00 of the traceparent header. Source: W3C Trace Context, section 3.2."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:@/+-]{1,128}")
_NO_TRACE = "0" * 32
_NO_SPAN = "0" * 16


class Call:
    """One RPC in work.

    parent_span_id: the caller's span, empty when the caller sent no trace. sampled: whether spans are recorded.
    deadline: on the event loop's clock (time.monotonic); None when nothing bounds the call.
    """

    __slots__ = (
        "_request_id",
        "_trace_id",
        "caller",
        "deadline",
        "metadata",
        "method",
        "parent_span_id",
        "received_bytes",
        "sampled",
        "sent_bytes",
        "span",
        "started",
    )

    def __init__(self, method: str, metadata: dict[str, str | bytes], started: float) -> None:
        self.method = method
        self.metadata = metadata
        self.started = started
        self.caller: Caller | None = None
        self.deadline: float | None = None
        self.received_bytes = 0
        self.sent_bytes = 0
        self.parent_span_id = ""
        self.sampled = False
        self.span: Any = None
        self._trace_id = ""
        self._request_id = ""

    @property
    def trace_id(self) -> str:
        """The caller's trace id, or a new one: 32 hex digits. The same at every look."""
        if not self._trace_id:
            self._trace_id = f"{random.getrandbits(128) or 1:032x}"
        return self._trace_id

    @property
    def request_id(self) -> str:
        """The caller's `x-request-id` when it is well formed, or a new one."""
        if not self._request_id:
            sent = self.metadata.get("x-request-id", "")
            well_formed = isinstance(sent, str) and _REQUEST_ID.fullmatch(sent)
            self._request_id = str(sent) if well_formed else f"{random.getrandbits(64):016x}"
        return self._request_id

    def join_trace(self, traceparent: str | bytes) -> bool | None:
        """Takes over the caller's trace; returns whether the caller samples it, or None when the header is invalid."""
        match = _TRACEPARENT.fullmatch(traceparent) if isinstance(traceparent, str) else None
        if match is None or match[1] == _NO_TRACE or match[2] == _NO_SPAN:
            return None
        self._trace_id, self.parent_span_id = match[1], match[2]
        return int(match[3], 16) & 1 == 1

    def use_trace(self, trace_id: str) -> None:
        """Sets the trace id: the one of the span that was started for the call."""
        self._trace_id = trace_id


def set_current_call(call: Call) -> None:
    """Makes the call the current one of this task. For the server only."""
    _CURRENT.set(call)


def current_call() -> Call | None:
    """The call in work, or None outside of one."""
    return _CURRENT.get()


def current_caller() -> Caller:
    """Who called. Raises LookupError outside of a call, and in calls that need no identity."""
    call = _CURRENT.get()
    if call is None or call.caller is None:
        raise LookupError("no identified call is in work")
    return call.caller


def remaining_seconds(limit: float) -> float:
    """Time left for the work of the current call, at most `limit`; never below zero. Outside of a call: `limit`."""
    call = _CURRENT.get()
    if call is None or call.deadline is None:
        return limit
    return max(0.0, min(limit, call.deadline - time.monotonic()))
