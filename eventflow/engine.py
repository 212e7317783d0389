"""The core: what comes from a source in, events through the plugins and handlers. Sans-IO, one for sync and async.

`Engine.steps` is a generator that a loop drives: it asks for more with `PULL`, hands over what must be awaited (in an
async run), and gives out the events that came through (for ``stream()``). Frames in the canonical form, which is
nearly all of them, take a fused path: framing, decoding, folding and calling in one loop over the bytes. Everything
else takes the layers (`Decoder`, `Wire`, `Snapshot`, routes); that both give the same is what a property test proves.
"""

from __future__ import annotations

import enum
import inspect
import logging
import sys
import types
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, Literal, TypeAlias

import attrs

from eventflow import signals
from eventflow.errors import (
    APIStreamError,
    DecodeError,
    EventflowError,
    LimitExceeded,
    SequenceError,
    StreamInterrupted,
    StreamTruncated,
    UsageError,
    excerpt,
)
from eventflow.events import (
    CustomToolCall,
    ErrorEvent,
    Event,
    FunctionCall,
    HandlerFailed,
    ItemEvent,
    LifecycleEvent,
    McpCall,
    OutputItemAdded,
    OutputItemDone,
    ResponseCompleted,
    ResponseFailed,
    StreamError,
    ToolCall,
    UnknownEvent,
    encode_json,
    resolve,
)
from eventflow.events._base import class_of_tag
from eventflow.events._decode import STRICT_ERRORS
from eventflow.limits import Limits
from eventflow.plan import Plan, Step
from eventflow.plugin import Plugin, instantiate
from eventflow.rewriting import Rewriter
from eventflow.snapshot import TERMINAL, Snapshot
from eventflow.sse import Decoder, Frame
from eventflow.wires import Wire, detect, wire_named

__all__ = ["END", "PULL", "Engine", "Status"]

Status = Literal["running", "completed", "incomplete", "failed", "truncated", "timeout", "cancelled"]

_log = logging.getLogger("eventflow")


class Signal(enum.Enum):
    """What the engine and its loop say to each other."""

    PULL = "more, please"
    END = "there is no more"


PULL = Signal.PULL
END = Signal.END

Steps: TypeAlias = Generator[Any, Any, None]

LINGER = 0.2  # seconds: the live API sends response.failed right after an error event; longer nobody need wait
_BATCH = 256  # events folded at once: few calls, and little memory under way
_CARRY = 16 * 1024  # bytes of an unfinished event that are joined to the next chunk; more goes to the linear decoder
_STRUCTURE = (ItemEvent, LifecycleEvent, ErrorEvent)  # the classes that say how a run goes


@attrs.frozen
class _Route:
    """The steps of one kind of event, bound to a run."""

    places: tuple[int, ...]
    calls: tuple[Callable[[Any], Any], ...]
    straight: bool  # handlers alone: nothing can change the event on its way


class Engine:
    """One stream through one plan.

    Belongs to one run and is driven from one thread at a time; only `emit` and `cancel` may be called from others.

    Attributes:
        status: How the run stands, or ended.
        error: What the stream ended with, or None.
        over: Whether the source is done with.
        linger: After an error event, the seconds that the source may still take; else None.
        plugins: The run's own copies of the plugins.
        snapshot: The received fold.
    """

    def __init__(
        self,
        run: Any,
        plan: Plan,
        *,
        wire: str | None,
        limits: Limits,
        keep: bool,
        strict: bool,
        is_async: bool,
        deliver: bool,
    ) -> None:
        self.run = run
        self.plan = plan
        self.plugins: tuple[Plugin, ...] = tuple(map(instantiate, plan.templates))
        self.status: Status = "running"
        self.error: EventflowError | None = None
        self.over = False
        self.linger: float | None = None
        self.snapshot = Snapshot()
        self.request_id: str | None = None
        self._wire: Wire | None = wire_named(wire, limits) if wire is not None else None
        self._limits = limits
        self._keep = keep
        self._strict = strict
        self._is_async = is_async
        self._deliver = deliver
        self._cancelled = False
        # bytes
        self._decoder = Decoder(max_event_bytes=limits.event_bytes)
        self._tail = b""  # an unfinished event that the decoder has not seen
        self._head = b""  # the start of the body, for the message when it is no event stream
        self._size = 0  # bytes received
        self._fused: dict[bytes, tuple[Callable[[bytes], Any] | None, tuple[Callable[[Any], Any], ...]]] = {}
        self._exact = False  # whether limits on text may be near
        exact_from = [limit for limit in (limits.text, limits.arguments) if limit is not None]
        self._exact_from = min(exact_from) if exact_from and keep else None
        # events
        self._count = 0
        self._pending: list[Any] = []  # received, not folded; the last `_folded` first ones are
        self._folded = 0
        self._expected: int | None = None  # the next sequence number
        self._missing: set[int] = set()
        self._numbered = keep
        self._calls = 0
        self._emitted_calls: list[ToolCall] = []
        self._raw_name = b""
        self._raw: bytes | Frame | None = None
        # steps
        self._routes: dict[tuple[type[Event], str], _Route] = {}
        self._rewriters: dict[int, Rewriter] = {}
        self._queue: deque[Event] = deque()
        self._attention = False  # something was emitted, or the run is to end

    # --- what a run shows --------------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """Events received so far, the one under way included."""
        return self._count + len(self._pending)

    def fold(self) -> Snapshot:
        """The received fold, brought up to date."""
        if self._folded < len(self._pending):
            self.snapshot.add(self._pending[self._folded :] if self._folded else self._pending)
            self._folded = len(self._pending)
        return self.snapshot

    @property
    def frame(self) -> Frame | None:
        """The frame under way as it stood on the wire, or None where the source gave none."""
        if isinstance(self._raw, bytes):
            name, data = self._raw_name[7:].decode("utf-8", "replace"), self._raw[6:].decode("utf-8", "replace")
            self._raw = Frame(event=name, data=data, id=self._decoder.last_event_id)
        return self._raw

    def emit(self, event: Event) -> None:
        """Queue *event* to be dispatched after the current one. From any thread."""
        self._queue.append(event)
        self._attention = True

    def cancel(self) -> None:
        """End the run at the next chance. From any thread."""
        self._cancelled = True
        self._attention = True

    # --- the whole way -----------------------------------------------------------------------------------------------

    def steps(self) -> Steps:
        """The run from start to stop; raises what a handler or hook raised, and the cancellation it was thrown."""
        left: BaseException | None = None
        try:
            yield from self._start()
            yield from self._read()
            if not self._cancelled:
                yield from self._finish()
        except BaseException as error:
            left = error
            self.over = True
            if isinstance(error, GeneratorExit):
                raise
            self.status = "failed" if isinstance(error, Exception) else "cancelled"
        else:
            if self._cancelled and not self._terminal():
                self.status, self.error = "cancelled", None
        self.over = True
        yield from self._stop(left)

    def _terminal(self) -> bool:
        return self.status in ("completed", "incomplete", "failed")

    def _roll(self) -> None:
        if self._keep:
            self.fold()
        self._count += len(self._pending)
        self._pending, self._folded = [], 0

    def fail(self, error: EventflowError, status: Status = "failed") -> None:
        """End the stream with an error of its own; what an error event said before stays."""
        if self.error is None:
            self.error, self.status = error, status
        self.over = True

    # --- hooks -------------------------------------------------------------------------------------------------------

    def _start(self) -> Steps:
        for plugin in self.plugins:
            yield from self._hook(plugin, "start")
        if self._attention:
            yield from self._drain()

    def _finish(self) -> Steps:
        for index, plugin in enumerate(self.plugins):
            for place, step in enumerate(self.plan.steps):
                if step.plugin == index and place in self._rewriters:
                    for event in self._guarded(step, None, self._rewriters[place].close):
                        yield from self._dispatch(event, place)
            held = yield from self._hook(plugin, "finish")
            if held is not None:
                for event in self._events_of(held, f"{type(plugin).__qualname__}.finish"):
                    yield from self._dispatch(event, self.plan.ends[index])
        if self._attention:
            yield from self._drain()

    def _stop(self, left: BaseException | None) -> Steps:
        for plugin in reversed(self.plugins):
            try:
                yield from self._hook(plugin, "stop")
            except Exception as error:
                self.status = "failed"
                if left is None:
                    left = error
                else:
                    _log.exception("%s.stop raised while its run ended with %r", type(plugin).__qualname__, left)
        if left is not None:
            raise left

    def _hook(self, plugin: Plugin, name: str) -> Generator[Any, Any, Any]:
        if getattr(type(plugin), name) is getattr(Plugin, name):
            return None
        hook = f"{type(plugin).__qualname__}.{name}"
        try:
            result = getattr(plugin, name)(self.run)
            if inspect.isawaitable(result):
                result = yield from self._awaited(result, hook)
            if isinstance(result, types.GeneratorType):
                result = list(result)
        except Exception as error:
            error.add_note(f"raised by {hook} in {self._where()}")
            raise
        return result

    # --- the source --------------------------------------------------------------------------------------------------

    def _source_failed(self, error: Exception) -> None:
        if self._cancelled:
            self.over = True
        elif isinstance(error, EventflowError):
            if isinstance(error, StreamTruncated):
                self.fail(error, "truncated")
            elif isinstance(error, TimeoutError) or type(error).__name__ == "StreamTimeout":
                self.fail(error, "timeout")
            else:
                self.fail(error)
        else:
            interrupted = StreamInterrupted(
                f"the source failed before the response was complete: {type(error).__name__}: {error}; "
                f"{self._received()}"
            )
            interrupted.__cause__ = error
            self.fail(interrupted, "truncated")

    def _received(self) -> str:
        return f"{self.count} events received, all in .partial"

    def _end(self) -> Steps:
        """The body has ended."""
        self._feed_tail()
        self._decoder.close()
        rest = self._decoder.unfinished
        if self._decoder.error is not None:
            self._too_large(self._decoder.error)
            return
        if rest is not None and rest.data and self._whole(rest):
            self.snapshot.note("unfinished", "the last event had no blank line after it; it was whole and is kept")
            yield from self._frame(rest)
        if self._wire is not None and not self.over:
            for event in self._wire.close():
                yield from self._receive(event)
        if self.over:
            return
        if self.error is not None:  # an error event came, and nothing after it
            self.over = True
        elif self._size and not self.count:
            self.fail(
                DecodeError(
                    f"no server-sent event in {self._size:,} bytes: this is no event stream. It begins with "
                    f"{excerpt(self._head)!r}"
                )
            )
        else:
            cut = f" in the middle of an event ({excerpt(rest.data)})" if rest is not None and rest.data else ""
            self.fail(
                StreamTruncated(f"the stream ended before a terminal event{cut}; {self._received()}"),
                "truncated",
            )

    def _whole(self, frame: Frame) -> bool:
        """Whether an event that only lacks the blank line after it is complete JSON."""
        try:
            wire = self._wire if self._wire is not None else detect(frame, self._limits)
            return bool(wire.feed(frame)) and frame.data.rstrip().endswith("}")
        except EventflowError:
            return False

    # --- from bytes to events ----------------------------------------------------------------------------------------

    def _read(self) -> Steps:
        """Take what the source gives until the run is over.

        Canonical frames (an ``event:`` line, a ``data:`` line, a blank line, LF) are taken straight from the chunk;
        whatever is not canonical goes to the layers.
        """
        decoder, fused = self._decoder, self._fused
        keep, deliver, exact_from = self._keep, self._deliver, self._exact_from
        largest = self._limits.event_bytes or sys.maxsize
        while not self.over:
            pending = self._pending
            try:
                chunk = yield PULL
            except Exception as error:
                self._source_failed(error)
                return
            if self._cancelled:
                return
            if type(chunk) is not bytes:
                yield from self._end() if chunk is END else self._item(chunk)
                continue
            if not self._size:
                self._head = chunk[:256]
            self._size += len(chunk)
            if exact_from is not None and self._size > exact_from:
                self._exact = True
            if self._tail:
                chunk, self._tail = self._tail + chunk, b""
            if self._exact or b"\r" in chunk or not decoder.idle or len(chunk) > largest or chunk[:1] == b"\xef":
                yield from self._frames(chunk)
                continue
            cut = chunk.rfind(b"\n\n") + 1
            if cut + 1 < len(chunk):
                self._tail = chunk[cut + 1 :] if cut else chunk
                if len(self._tail) > _CARRY:
                    self._tail = b""
                    yield from self._frames(chunk)
                    continue
                if not cut:
                    continue
            lines = chunk[:cut].split(b"\n")
            if len(lines) % 3:
                yield from self._layers(lines)
                continue
            rest = iter(lines)
            for name, data, blank in zip(rest, rest, rest, strict=True):
                if blank or not data.startswith(b"data: "):
                    yield from self._layers([name, data, blank, *rest])
                    break
                entry = fused.get(name) or self._fuse(name)
                if entry is None:
                    yield from self._layers([name, data, blank])
                    if self.over:
                        return
                    pending = self._pending
                    continue
                decode, calls = entry
                if decode is None:  # nobody listens
                    self._count += 1
                    continue
                try:
                    event = decode(data[6:])
                except STRICT_ERRORS:
                    yield from self._layers([name, data, blank])
                    if self.over:
                        return
                    pending = self._pending
                    continue
                if keep:
                    number = event.sequence_number
                    if number == self._expected:
                        if number is not None:
                            self._expected = number + 1
                    elif number is not None and self._numbered and not self._in_order(event, number):
                        if self.over:
                            return
                        continue
                    pending.append(event)
                else:
                    self._count += 1
                self._raw_name, self._raw = name, data
                for call in calls:
                    try:
                        result = call(event)
                    except Exception as error:
                        self._raised(error, self._step_of(event, call), event)
                    else:
                        if result is not None:
                            yield from self._result(result, self._step_of(event, call), event)
                if deliver:
                    yield event
                if self._attention:
                    yield from self._drain()
                    if self.over:
                        return
            if len(pending) >= _BATCH:
                self._roll()

    def _layers(self, lines: list[bytes]) -> Steps:
        """Lines that are not canonical, or not for the fused path."""
        yield from self._frames(b"\n".join(lines) + b"\n")
        if not self._decoder.idle:  # the event goes on behind them
            self._feed_tail()

    def _fuse(self, line: bytes) -> tuple[Callable[[bytes], Any] | None, tuple[Callable[[Any], Any], ...]] | None:
        """How events under this ``event:`` line go through, or None when the layers must see to them."""
        if self._wire is None or not line.startswith(b"event: "):
            return None
        name = line[7:].decode("latin-1")
        cls = class_of_tag(name)
        decode = self._wire.direct(name)
        if cls is None or decode is None or issubclass(cls, _STRUCTURE):
            return None
        route = self._route(cls, name)
        if not route.straight:
            return None
        wanted = self._keep or self._deliver or route.calls
        self._fused[line] = entry = (decode if wanted else None, route.calls)
        return entry

    def _feed_tail(self) -> None:
        """Hand an unfinished event to the decoder, which takes the rest of it in linear time."""
        tail, self._tail = self._tail, b""
        if tail:
            self._decoder.feed(tail)

    def _frames(self, chunk: bytes) -> Steps:
        """The layers: bytes to frames."""
        for frame in self._decoder.feed(chunk):
            yield from self._frame(frame)
            if self.over:
                return
        if self._decoder.error is not None:
            self._too_large(self._decoder.error)

    def _too_large(self, error: LimitExceeded) -> None:
        self.fail(error)

    def _frame(self, frame: Frame) -> Steps:
        """The layers: a frame to events."""
        self._raw = frame
        try:
            if self._wire is None:
                if frame.data.strip() == "[DONE]":
                    return
                self._wire = detect(frame, self._limits)
            events = self._wire.feed(frame)
        except (DecodeError, LimitExceeded) as error:
            if isinstance(error, DecodeError) and error.frame is None:
                error.frame = frame
            self.fail(error)
            return
        for event in events:
            if frame.event not in ("message", event.type) and resolve(frame.event) not in (None, type(event)):
                self.snapshot.note("name", f"a frame named {frame.event!r} carries {event.type!r}; the data is believed")
            yield from self._receive(event)
            if self.over:
                return

    def _item(self, item: object) -> Steps:
        """What a source may yield besides bytes."""
        if isinstance(item, Event):
            self._raw = None
            self._exact = self._keep
            if isinstance(item, ToolCall) and item in self._emitted_calls:
                return  # a recorded stream of events brings the calls that its items mean anyway
            yield from self._receive(item)
        elif isinstance(item, bytearray | memoryview):
            data = bytes(item)
            self._size += len(data)
            yield from self._frames(self._tail + data)
        elif isinstance(item, Frame):
            self._size += len(item.data)
            yield from self._sized(item)
        elif isinstance(item, Mapping):
            try:
                data = encode_json(item).decode()
            except (TypeError, ValueError, RecursionError) as error:
                failure = DecodeError(f"the source yielded a mapping that is no JSON object ({error})")
                failure.__cause__ = error
                self.fail(failure)
                return
            self._size += len(data)
            yield from self._sized(Frame(data=data))
        else:
            hint = "; encode text first: text.encode()" if isinstance(item, str) else ""
            raise UsageError(
                f"a source yields bytes, frames, mappings or events, not {type(item).__name__}{hint}"
            )

    def _sized(self, frame: Frame) -> Steps:
        limit = self._limits.event_bytes
        if limit is not None and len(frame.data) > limit:
            self.fail(LimitExceeded(limit="event_bytes", maximum=limit, seen=len(frame.data)))
            return
        self._exact = self._exact or (self._exact_from is not None and self._size > self._exact_from)
        yield from self._frame(frame)

    # --- from events to steps ----------------------------------------------------------------------------------------

    def _receive(self, event: Any) -> Steps:
        """An event has come from the source: check, fold, dispatch, and see what it means for the run."""
        if self._numbered:
            number = getattr(event, "sequence_number", None)
            if number is not None:
                if number == self._expected:
                    self._expected = number + 1
                elif not self._in_order(event, number):
                    return
        if self._keep:
            self._pending.append(event)
            if self._exact and self._over_limits():
                return
            if len(self._pending) >= _BATCH:
                self._roll()
        else:
            self._count += 1
            if isinstance(event, LifecycleEvent | StreamError):
                self.snapshot.add((event,))
        if isinstance(event, OutputItemAdded) and self._too_many_calls(event):
            return
        terminal = isinstance(event, TERMINAL)
        if terminal:
            self._conclude(event)
        elif isinstance(event, StreamError):
            self._reported(event)
        yield from self._dispatch(event)
        if self._attention:
            yield from self._drain()
        if isinstance(event, OutputItemDone):
            yield from self._tool_call(event)
        if terminal:
            self.over = True

    def _conclude(self, event: Any) -> None:
        """A terminal event has come."""
        self.linger = None
        if isinstance(event, ResponseFailed):
            fault = event.response.error
            if self.error is None or (fault is not None and (fault.code or fault.message)):
                self.error = self._api_error(
                    (fault.message if fault else None) or "",
                    fault.code if fault else None,
                    fault.type if fault else None,
                    fault.param if fault else None,
                )
            self.status = "failed"
        elif self.error is None:
            self.status = "completed" if isinstance(event, ResponseCompleted) else "incomplete"

    def _reported(self, event: StreamError) -> None:
        """An error event has come; a terminal one may follow."""
        if self.error is None:
            self.error = self._api_error(event.message, event.code, event.error_type, event.param, event.status)
            self.status = "failed"
        self.linger = LINGER

    def _api_error(
        self, message: str, code: str | None, kind: str | None, param: str | None, status: int | None = None
    ) -> APIStreamError:
        named = " ".join(word for word in (code, f"({kind})" if kind and kind != code else None) if word)
        error = APIStreamError(
            f"the API reported an error in the stream: {': '.join(part for part in (named, message) if part) or 'no reason given'}",
            code=code,
            type=kind,
            param=param,
            request_id=self.request_id,
        )
        words = {code, kind}
        error.retryable = bool(words & _RETRYABLE) or (status is not None and (status in (408, 409, 429) or status >= 500))
        return error

    def _tool_call(self, event: OutputItemDone) -> Steps:
        item = event.item
        if not isinstance(item, FunctionCall | CustomToolCall | McpCall) or item.status in ("incomplete", "in_progress"):
            return
        whole = item
        if self._keep and not item.arguments:  # a closed item may come without what its deltas brought
            arguments = self.fold().arguments(item.call_id or item.id or "") or ""
        else:
            arguments = whole.arguments
        kind = item.type.removesuffix("_call").removesuffix("_tool")
        call = ToolCall(kind, item.name, arguments, item.call_id, item.id, event.output_index)
        self._emitted_calls.append(call)
        yield from self._dispatch(call)
        if self._attention:
            yield from self._drain()

    def _too_many_calls(self, event: OutputItemAdded) -> bool:
        if event.item.type.endswith("_call"):
            self._calls += 1
            limit = self._limits.calls
            if limit is not None and self._calls > limit:
                self.fail(LimitExceeded(limit="calls", maximum=limit, seen=self._calls))
                return True
        return False

    def _over_limits(self) -> bool:
        snapshot = self.fold()
        for name, seen in (("text", snapshot.text_size), ("arguments", snapshot.arguments_size)):
            limit: int | None = getattr(self._limits, name)
            if limit is not None and seen > limit:
                self.fail(LimitExceeded(limit=name, maximum=limit, seen=seen))
                return True
        return False

    # --- sequence numbers --------------------------------------------------------------------------------------------

    def _in_order(self, event: Any, number: int) -> bool:
        """Judge a number that is not the expected one; False drops the event (and may end the run)."""
        expected = self._expected
        if expected is None:  # the first number of a stream; a resumed one starts in its middle
            self._expected = number + 1
            return True
        note = self.snapshot.note
        if number > expected:
            if self._strict:
                self._out_of_sequence(f"events {expected} to {number - 1} are missing before {event.type}", expected, number)
                return False
            note("gap", f"events {expected} to {number - 1} are missing before {event.type}")
            self._missing.update(range(max(expected, number - 1000), number))
            self._expected = number + 1
            return True
        if number in self._missing:
            self._missing.discard(number)
            if self._strict:
                self._out_of_sequence(f"event {number} ({event.type}) comes late", expected, number)
                return False
            note("order", f"event {number} ({event.type}) comes late")
            return True
        twin = next((seen for seen in reversed(self._pending) if getattr(seen, "sequence_number", None) == number), None)
        if twin == event:
            if self._strict:
                self._out_of_sequence(f"event {number} ({event.type}) comes twice", expected, number)
                return False
            note("duplicate", f"event {number} ({event.type}) came twice; the second is dropped")
            return False
        # the same number for another event: the server does not count, and nothing received may be lost
        note("numbering", f"event {number} ({event.type}) comes after {expected - 1}; the numbers are not looked at any more")
        self._numbered = False
        return True

    def _out_of_sequence(self, message: str, expected: int, got: int) -> None:
        self.fail(SequenceError(f"{message}; {self._received()}", expected=expected, got=got))

    # --- dispatch ----------------------------------------------------------------------------------------------------

    def _route(self, cls: type[Event], name: str) -> _Route:
        route = self._routes.get((cls, name))
        if route is None:
            places = self.plan.route(cls, name)
            calls = tuple(self._bind(place) for place in places)
            straight = all(self.plan.steps[place].kind == "handler" for place in places)
            route = _Route(places, calls, straight)
            if cls is not UnknownEvent:
                self._routes[cls, name] = route
        return route

    def _bind(self, place: int) -> Callable[[Any], Any]:
        step = self.plan.steps[place]
        target: Any = step.target if step.plugin is None else getattr(self.plugins[step.plugin], str(step.target))
        if step.kind == "rewrite":
            rewriter = self._rewriters.get(place)
            if rewriter is None:
                function = target if step.wants_run else lambda text, part, method=target: "" if part.final else method(text)
                rewriter = self._rewriters[place] = Rewriter(function, step.families)
            return rewriter.feed
        if step.wants_run:
            run = self.run
            return lambda event: target(event, run)
        return target  # type: ignore[no-any-return]

    def _step_of(self, event: Event, call: Callable[[Any], Any]) -> Step:
        route = self._route(type(event), event.type)
        return self.plan.steps[route.places[route.calls.index(call)]]

    def _dispatch(self, event: Event, after: int = -1) -> Steps:
        """Take *event* through the steps behind the place *after*."""
        route = self._route(type(event), event.type)
        for place, call in zip(route.places, route.calls, strict=True):
            if place <= after:
                continue
            step = self.plan.steps[place]
            try:
                result = call(event)
            except Exception as error:
                self._raised(error, step, event)
                continue
            if step.kind == "handler":
                if result is not None:
                    yield from self._result(result, step, event)
                continue
            if inspect.isawaitable(result):
                result = yield from self._guarded_await(result, step, event)
            if result is event:
                continue
            if result is not None:
                for replacement in self._guarded(step, event, lambda given=result: self._events_of(given, step.name)):
                    if replacement is event:  # among others: it goes on behind this step like them
                        pass
                    yield from self._dispatch(replacement, place)
            return
        if self._deliver:
            yield event

    def _drain(self) -> Steps:
        """Dispatch what was emitted; what is emitted on the way comes right after its cause."""
        emitted = 0
        limit = self._limits.emitted
        while self._queue and not self._cancelled:
            event = self._queue.popleft()
            later, self._queue = self._queue, deque()
            emitted += 1
            if limit is not None and emitted > limit:
                self.fail(LimitExceeded(limit="emitted", maximum=limit, seen=emitted))
                return
            yield from self._dispatch(event)
            self._queue.extend(later)
        self._attention = self._cancelled
        if self._cancelled:
            self.over = True

    def _events_of(self, given: object, name: str) -> list[Event]:
        """What a transform or hook gave, as events; raises `UsageError` for anything else."""
        if isinstance(given, Event):
            return [given]
        if isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping):
            events = list(given)
            if all(isinstance(event, Event) for event in events):
                return events
        raise UsageError(f"{name} must give an event, None, or an iterable of events, not {excerpt(repr(given))}")

    def _result(self, result: object, step: Step, event: Event) -> Steps:
        """A handler gave something: a generator's events are emitted, an awaitable is awaited, the rest is ignored."""
        try:
            if inspect.isawaitable(result):
                result = yield from self._awaited(result, step.name)
            if isinstance(result, types.GeneratorType):
                for emitted in result:
                    self._emit_from(emitted, step)
            elif isinstance(result, types.AsyncGeneratorType):
                yield from self._drain_async(result, step)
        except Exception as error:
            self._raised(error, step, event)

    def _drain_async(self, events: types.AsyncGeneratorType[Any, None], step: Step) -> Steps:
        if not self._is_async:
            raise UsageError(f"{step.name} is an async generator; run it with arun() or astream()")
        while True:
            try:
                emitted = yield events.__anext__()
            except StopAsyncIteration:
                return
            self._emit_from(emitted, step)

    def _emit_from(self, emitted: object, step: Step) -> None:
        if not isinstance(emitted, Event):
            raise UsageError(f"{step.name} yielded {excerpt(repr(emitted))}; a handler that is a generator yields events")
        limit = self._limits.emitted
        if limit is not None and len(self._queue) >= limit:
            raise LimitExceeded(limit="emitted", maximum=limit, seen=len(self._queue) + 1)
        self.emit(emitted)

    def _awaited(self, awaitable: Any, name: str) -> Generator[Any, Any, Any]:
        if not self._is_async:
            close = getattr(awaitable, "close", None)
            if close is not None:
                close()
            raise UsageError(f"{name} gave an awaitable; run it with arun() or astream()")
        return (yield awaitable)

    def _guarded_await(self, awaitable: Any, step: Step, event: Event) -> Generator[Any, Any, Any]:
        try:
            return (yield from self._awaited(awaitable, step.name))
        except Exception as error:
            self._raised(error, step, event)

    def _guarded(self, step: Step, event: Event | None, call: Callable[[], list[Event]]) -> list[Event]:
        try:
            return call()
        except Exception as error:
            self._raised(error, step, event)
            return []

    def _raised(self, error: Exception, step: Step, event: Event | None) -> None:
        """A step raised: report it where it is isolated, else end the run with it."""
        what = f"{step.name} on {event.type}" if event is not None else step.name
        if not step.isolate:
            error.add_note(f"raised by {what} in {self._where()}")
            raise error
        _log.error("%s failed in %s", what, self._where(), exc_info=error)
        if isinstance(event, HandlerFailed):
            return  # a handler of failures that fails is only logged: it would answer itself for ever
        failure = HandlerFailed(error, step.name, event)
        signals.send(signals.handler_failed, self.run.dispatcher, run=self.run, failure=failure)
        self.emit(failure)

    def _where(self) -> str:
        return f"run {self.run.id}, event {self.count}"


_RETRYABLE = {
    "rate_limit_exceeded",
    "rate_limit_error",
    "server_error",
    "api_error",
    "overloaded_error",
    "overloaded",
    "timeout",
    "service_unavailable",
    "internal_server_error",
    "429",
    "500",
    "502",
    "503",
    "504",
    "529",
}
