"""The core: what comes from a source in, events folded and dispatched. Sans-IO, one for sync and async.

`Engine.steps` is a generator that a loop drives: it asks for more with `PULL`, says when it needs no more with `CLOSE`,
asks for a `Pause`, hands over what must be awaited (in an async run), and gives out the events that came through (for
``stream()``). Frames in the canonical form, which is
nearly all of them, take a fused path: framing, decoding, counting and calling in one loop over the lines. Everything
else takes the layers (`Decoder`, `Wire`, `Chain`); that both give the same is what a property test proves.
"""

from __future__ import annotations

import enum
import json
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from eventflow.chain import INERT, Call, Chain, Steps
from eventflow.errors import (
    DecodeError,
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
    FunctionCallArgumentsDelta,
    ItemEvent,
    LifecycleEvent,
    McpCall,
    OutputItem,
    OutputItemAdded,
    OutputItemDone,
    ReasoningEvent,
    RefusalEvent,
    ResponseCompleted,
    ResponseCreated,
    StreamError,
    TextEvent,
    ToolCall,
    UnknownEvent,
    encode_json,
    resolve,
)
from eventflow.events._base import class_of_tag
from eventflow.events._decode import STRICT_ERRORS
from eventflow.json_array import ElementDecoder, begins_array
from eventflow.limits import Limits
from eventflow.outcome import Outcome, Position
from eventflow.plan import Plan
from eventflow.sdks import error_event_in, wire_object
from eventflow.sequence import Sequence
from eventflow.snapshot import TERMINAL, Snapshot
from eventflow.sse import Decoder, Frame, plausible
from eventflow.wires import PINGS, Wire, detect, tells_nothing, wire_named

if TYPE_CHECKING:
    from eventflow.run import Run

__all__ = ["ANEW", "CLOSE", "END", "PULL", "Engine"]


class _Signal(enum.Enum):
    PULL = "more, please"
    END = "there is no more"
    ANEW = "another body takes this one's place"
    CLOSE = "let go of the source"


PULL = _Signal.PULL
"""The engine asks for the source's next item."""
END = _Signal.END
"""The loop says that there is none."""
CLOSE = _Signal.CLOSE
"""The engine is done with the source: what plugins do when they finish must not keep a connection open."""
ANEW = _Signal.ANEW
"""The loop says that the source was opened again: the event that was under way is lost with the body that was cut."""

Fused: TypeAlias = tuple[Callable[[bytes], Any] | None, tuple[Call, ...] | None]

_HEAD = 256  # bytes of a body kept for the message that it is no event stream
_CR = 13  # as a number: searching for it takes a tenth of the time
_BATCH = 256  # events folded at once: few calls, and little memory under way
_ROLL = 256 * 1024  # bytes of events kept under way: a few previews of images could fill memory
# Canonical blocks, and then, as one piece, everything from the first byte on that is of none.
_SCAN = re.compile(rb"event: (.++)\ndata: (.*+)\n\n|((?s:.++))").findall
_SCAN_ANY = re.compile(rb"(?:event: (.++)\n|)data: (.*+)\n\n|((?s:.++))").findall  # also without a name
_CARRY = 16 * 1024  # bytes of an unfinished event that are joined to the next chunk; more goes to the linear decoder
_REPEATED = (TextEvent, RefusalEvent, ReasoningEvent, FunctionCallArgumentsDelta)  # what shows if it comes twice
_STRUCTURE = (ItemEvent, LifecycleEvent, ErrorEvent)  # events that say how a run goes: never fused
_KINDS = {FunctionCall.type: "function", CustomToolCall.type: "custom", McpCall.type: "mcp"}


class Engine:
    """One stream through one chain.

    Attributes:
        chain: What is done with events.
        outcome: How the run stands.
        handled: Seconds that handlers and hooks took between two items of the source, the consumer of the events too;
            of those for an event that is progress, only where the run `measures`: nobody else asks for them.
        measures: Whether the time of every handler is measured; to be set before the first item.
    """

    def __init__(
        self,
        run: Run,
        plan: Plan,
        *,
        wire: str | None,
        limits: Limits,
        keep: bool,
        strict: bool,
        is_async: bool,
        deliver: bool,
        clock: Callable[[], float],
        lock: AbstractContextManager[object],
    ) -> None:
        self.handled = 0.0
        self.measures = False
        self._clock = clock
        self.chain = Chain(run, plan, is_async=is_async, deliver=deliver, max_emitted=limits.emitted, lock=lock)
        self.outcome = Outcome()
        self._limits = limits
        self._keep = keep
        self._deliver = deliver
        self._named = wire
        self._wire: Wire | None = None
        # bytes
        self._decoder = Decoder(max_event_bytes=limits.event_bytes, error_field=True)
        self._tail = b""  # an unfinished event that the decoder has not seen
        self._head = b""  # the start of the body, for the message when it is no event stream
        self._size = 0  # bytes received
        self._began = 0  # of those, how many came before the body at hand
        self._array: ElementDecoder | None = None  # of a body that is one array of JSON
        self._fused: dict[bytes, Fused] = {}
        self._short: Callable[[str, bytes], Event | None] | None = None  # the short way of a wire that translates
        self._straight: dict[type[Event], tuple[Call, ...] | None] = {}  # the calls for its events
        self._name = b""  # with _raw: the frame under way
        self._raw: bytes | Frame | None = None
        # events
        self._snapshot = Snapshot()
        self._pending: list[Any] = []  # received last; the first `_folded` of them are folded
        self._folded = 0
        self._roll_at = _ROLL  # bytes received at which they are let go of, few as they may be
        self._count = 0  # events before those
        self._pings = 0  # events that only keep the line warm
        self._recent: list[Any] = []  # of those, the last ones that would show if they came twice
        self._sequence = Sequence(self._snapshot.note, strict=strict)
        self._calls: dict[type[Event], int] = {OutputItemAdded: 0, OutputItemDone: 0}
        self._tool_calls: list[ToolCall] = []
        bounds = [bound for bound in (limits.text, limits.arguments, limits.other) if bound is not None]
        self._near = min(bounds) if bounds and keep else sys.maxsize  # a bound may be reached behind so many bytes
        self._exact = False  # whether it is measured now, after every event
        if wire is not None:
            self._take_wire(wire_named(wire, limits))
        self._resumed = False  # whether the source goes on behind events that it gave before

    def _take_wire(self, wire: Wire) -> None:
        """From here on the frames are of this wire."""
        self._wire = wire
        self._short = getattr(wire, "delta", None)

    # --- what a run shows --------------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """Events received so far, the one under way included."""
        return self._count + len(self._pending)

    @property
    def finished(self) -> bool:
        """Whether the end of the body would be the end of the answer, as far as the wire knows."""
        return bool(getattr(self._wire, "finished", False))

    @property
    def progress(self) -> int:
        """Events that mean that the source is at work: all but pings."""
        return self._count + len(self._pending) - self._pings

    def fold(self) -> Snapshot:
        """The received fold, brought up to date."""
        if self._folded < len(self._pending):
            self._snapshot.add(self._pending[self._folded :] if self._folded else self._pending)
            self._folded = len(self._pending)
        return self._snapshot

    @property
    def wire(self) -> str | None:
        """The name of the wire, or None as long as nothing has told it."""
        return self._named or getattr(self._wire, "name", None)

    @property
    def frame(self) -> Frame | None:
        """The frame under way as it stood on the wire, or None where the source gives none."""
        if isinstance(self._raw, bytes):
            self._raw = self._frame_of(self._name, self._raw)
        return self._raw

    @property
    def position(self) -> Position:
        """How far the run has come."""
        expected, retry = self._sequence.expected, self._decoder.retry
        return Position(
            events=self.count,
            progress=self.progress,
            size=self._size - self._began,
            sequence_number=None if expected is None else expected - 1,
            response_id=self.fold().response.id,
            last_event_id=self._decoder.last_event_id,
            retry=None if retry is None else retry / 1000,
        )

    # --- the whole way -----------------------------------------------------------------------------------------------

    def steps(self) -> Steps:
        """The run from start to stop; raises what a handler or hook raised, and the cancellation it was thrown."""
        left: BaseException | None = None
        try:
            yield from self.chain.start()
            yield from self._read()
            self.fold().close()
            if not self.chain.cancelled:
                yield CLOSE
                yield from self.chain.finish()
        except GeneratorExit as error:  # a run that is pushed was dropped, or a handler raised it
            left = error
            self.outcome.left(error)
        except BaseException as error:
            if isinstance(error, LimitExceeded) and error is self.chain.exceeded:
                self.outcome.fail(error)
            else:
                left = error
                self.outcome.left(error)
            self.fold().close()
        if self.chain.cancelled and left is None:
            self.outcome.cancelled()
        self.outcome.over = True
        self._roll()  # the last events repeat the text: what the run keeps is the fold
        self._recent = []
        ended = yield from self.chain.stop(left)
        self._raw = None  # and so does the last frame
        if ended is not None:
            if ended is not left:
                self.outcome.left(ended)
            self.chain.claim(ended)
            raise ended

    def _read(self) -> Steps:
        """Take what the source gives until the run is over.

        Canonical blocks (an ``event:`` line, a ``data:`` line, a blank line, LF) are taken straight from the chunk;
        whatever is not canonical goes to the layers.
        """
        chain, outcome, decoder, sequence = self.chain, self.outcome, self._decoder, self._sequence
        keep, deliver, fused, receivers = self._keep, self._deliver, self._fused, chain.receivers
        largest = self._limits.event_bytes or sys.maxsize
        idle = decoder.idle  # read once a chunk at most, for it takes as long as a short chunk does
        while not (outcome.over or chain.cancelled):
            try:
                chunk = yield PULL
            except UsageError:
                raise  # the caller's mistake, which shows only while reading
            except Exception as error:
                if chain.cancelled:  # which may be why reading failed
                    return
                outcome.source_error = error
                reported = error_event_in(error)
                if reported is None:
                    outcome.source_failed(error, self.count)
                else:
                    yield from self._receive(reported)
                return
            if chain.attention:  # something was emitted from elsewhere
                yield from self._handling(chain.drain())
                if chain.cancelled:
                    return
            if type(chunk) is not bytes:
                if isinstance(chunk, bytes | bytearray | memoryview):
                    chunk = bytes(cast("bytes", chunk))
                else:
                    if receivers and chunk is not END:
                        self._show(chunk)
                    if chunk is ANEW:
                        self._restart()
                    else:
                        yield from self._end() if chunk is END else self._item(chunk)
                    idle = decoder.idle
                    continue
            if receivers:
                self._show(chunk)
            self._size += len(chunk)
            if len(self._head) < _HEAD and chunk:
                before = self._head  # all of the body so far
                if not before and chunk[:1] != b"\xef":
                    decoder.feed(b"\n")  # the body does not start with a byte order mark
                self._head += chunk[: _HEAD - len(before)]
                if self._array is None and begins_array(self._head):
                    self._array = ElementDecoder(max_event_bytes=self._limits.event_bytes)
                    self._exact = self._near != sys.maxsize  # its elements are not counted as they come
                    chunk, self._tail = before + chunk, b""
            if self._array is not None:
                yield from self._elements(chunk)
                continue
            if self._size > self._near:
                self._approach(len(chunk))
            if self._tail:
                chunk, self._tail = self._tail + chunk, b""
            end = 0 if idle else chunk.find(b"\n\n") + 2  # the decoder reads the event that it has begun to its end
            if end == 1 or self._exact or _CR in chunk or len(chunk) > largest:
                end = len(chunk)
            if end:
                yield from self._frames(chunk[:end])
                if outcome.over or chain.cancelled:
                    return
                idle, chunk = decoder.idle, chunk[end:]
            if self._short is not None:
                yield from self._translate(chunk)
                if outcome.over or chain.cancelled:
                    return
                idle = decoder.idle
                if len(self._pending) >= _BATCH or self._size >= self._roll_at:
                    self._roll()
                continue
            pending = self._pending
            for name, data, rest in _SCAN(chunk):
                entry = fused.get(name) or self._fuse(name)
                if entry is None:
                    yield from self._rest(rest) if rest else self._frame(self._frame_of(name, data))
                    if outcome.over or chain.cancelled:
                        return
                    idle, pending = decoder.idle, self._pending
                    continue
                decode, calls = entry
                if decode is None:  # nobody listens
                    self._count += 1
                    continue
                try:
                    event = decode(data)
                except STRICT_ERRORS:
                    yield from self._frame(self._frame_of(name, data))
                    if outcome.over or chain.cancelled:
                        return
                    pending = self._pending
                    continue
                if keep:
                    number = event.sequence_number
                    if number is not None:
                        if number == sequence.expected:
                            sequence.expected = number + 1
                        elif not self._admit(event, number):
                            if outcome.over:
                                return
                            continue
                    pending.append(event)
                else:
                    self._count += 1
                self._name, self._raw = name, data
                if calls is None:  # something may change it on its way, or it is measured
                    yield from self._dispatch(event)
                else:
                    for call in calls:
                        try:
                            result = call(event)
                        except Exception as error:
                            chain.failed(error, call, event)
                        else:
                            if result is not None and type(result) not in INERT:
                                yield from chain.follow(result, chain.step_of(call, event), event)
                    if deliver:
                        yield event
                if chain.attention:
                    yield from self._handling(chain.drain())
                    if chain.cancelled:
                        return
            if len(pending) >= _BATCH or self._size >= self._roll_at:
                self._roll()

    def _translate(self, chunk: bytes) -> Steps:
        """Canonical blocks of a wire that translates: the next pieces of what is open take the short way."""
        chain, outcome, sequence = self.chain, self.outcome, self._sequence
        short, straight = self._short, self._straight
        assert short is not None
        for name, data, rest in _SCAN_ANY(chunk):
            if rest:
                yield from self._rest(rest)
                return
            event: Any = short(name.decode("latin-1") if name else "message", data)
            if event is None:
                yield from self._frame(self._frame_of(name or b"message", data))
                if outcome.over or chain.cancelled:
                    return
                continue
            if self._keep:
                sequence.expected = event.sequence_number + 1
                self._pending.append(event)
            else:
                self._count += 1
            self._name, self._raw = name or b"message", data
            cls = cast("type[Event]", type(event))
            if cls not in straight:
                straight[cls] = self._calls_for(cls, cls.type)
            calls = straight[cls]
            if calls is None:
                yield from self._dispatch(event)
            else:
                for call in calls:
                    try:
                        result = call(event)
                    except Exception as error:
                        chain.failed(error, call, event)
                    else:
                        if result is not None and type(result) not in INERT:
                            yield from chain.follow(result, chain.step_of(call, event), event)
                if self._deliver:
                    yield event
            if chain.attention:
                yield from self._handling(chain.drain())
                if chain.cancelled:
                    return

    def _elements(self, chunk: bytes) -> Steps:
        """A body that is one array of JSON: each element is a frame."""
        assert self._array is not None
        for element in self._array.feed(chunk):
            yield from self._frame(Frame(data=element))
            if self.outcome.over or self.chain.cancelled:
                return
        if self._array.error is not None:
            self.outcome.fail(self._array.error)

    def _restart(self) -> None:
        """Another body has taken the place of one that was cut."""
        self._decoder.restart()
        self._tail = self._head = b""
        self._began = self._size
        self._array = None
        self._sequence.restart()
        self._resumed = self.count > 0

    def _fuse(self, line: bytes) -> Fused | None:
        """How events with this name go through, or None when the layers must see to them."""
        if self._wire is None:
            return None
        name = line.decode("latin-1")
        direct = getattr(self._wire, "direct", None)
        cls, decode = class_of_tag(name), None if direct is None else direct(name)
        if cls is None or decode is None or issubclass(cls, _STRUCTURE):
            return None
        calls = self._calls_for(cls, name)
        unheard = calls == () and not (self._keep or self._deliver)
        entry = self._fused[line] = (None if unheard else decode, calls)
        return entry

    def _unheard(self, frame: Frame) -> bool:
        """Whether nobody listens to what a frame's name says it carries: then it is not parsed."""
        entry = self._fuse(frame.event.encode("latin-1", "replace"))
        return entry is not None and entry[0] is None

    def _roll(self) -> None:
        """Fold what is pending, and let go of it."""
        if self._keep:
            self.fold()
        pending = self._pending
        if pending and self._recent and not isinstance(self._recent[-1], _REPEATED):
            self._recent[-1] = None  # it was the last one
        if self._size >= self._roll_at:  # large ones are let go of, but for the last
            pending = [event if isinstance(event, _REPEATED) else None for event in pending[:-1]] + pending[-1:]
        self._recent = (self._recent + pending)[-_BATCH:]
        self._count += len(self._pending)
        self._pending, self._folded = [], 0
        self._roll_at = self._size + _ROLL

    # --- the layers --------------------------------------------------------------------------------------------------

    def _rest(self, chunk: bytes) -> Steps:
        """What begins with no canonical block: an event without its end, or one that the decoder must read."""
        end = chunk.rfind(b"\n\n") + 2
        if len(chunk) - end > _CARRY:  # a long event has begun: no more joining
            end = len(chunk)
        elif end == 1:
            end = 0
        self._tail = chunk[end:]
        if end:
            yield from self._frames(chunk[:end])

    def _frame_of(self, name: bytes, data: bytes) -> Frame:
        return Frame(name.decode("utf-8", "replace"), data.decode("utf-8", "replace"), self._decoder.last_event_id)

    def _frames(self, chunk: bytes) -> Steps:
        """Bytes to frames."""
        try:
            frames = self._decoder.feed(chunk)
        except LimitExceeded as error:
            self.outcome.fail(error.with_traceback(None))
            return
        for frame in frames:
            yield from self._frame(frame)
            if self.outcome.over or self.chain.cancelled:
                return
        if self._decoder.error is not None:
            self.outcome.fail(self._decoder.error)

    def _frame(self, frame: Frame) -> Steps:
        """A frame to events."""
        self._raw = frame
        if not self._keep and self._unheard(frame):
            self._count += 1
            return
        if not frame.data or frame.data.isspace():
            if frame.event != "error":  # a ping
                return
            frame = Frame(frame.event, "{}", frame.id)  # its name says it all
        try:
            if self._wire is None:
                if tells_nothing(frame):
                    return
                self._take_wire(detect(frame, self._limits))
            assert self._wire is not None
            events = self._wire.feed(frame)
        except (DecodeError, LimitExceeded) as error:
            if isinstance(error, DecodeError) and error.frame is None:
                error.frame = frame
            self.outcome.fail(error)
            return
        except UsageError:
            raise  # an event class of the caller's that cannot be decoded
        except Exception as error:  # a wire's bug, perhaps a stranger's: the run ends as for any frame that is no event
            failure = DecodeError(f"the frame cannot be read: {type(error).__name__}: {error}", frame=frame)
            failure.__cause__ = error
            self.outcome.fail(failure)
            return
        for event in events:
            if (
                self._short is None
                and frame.event not in ("message", event.type)
                and resolve(frame.event) not in (None, type(event))
            ):
                self._snapshot.note(
                    "name", f"a frame named {frame.event!r} carries {event.type!r}; the data is believed"
                )
            yield from self._receive(event)
            if self.outcome.over or self.chain.cancelled:
                return

    def _item(self, item: object) -> Steps:
        """What a source may yield besides bytes."""
        if isinstance(item, Event):
            self._raw = None
            delta = getattr(item, "delta", None)
            try:
                size = len(delta if isinstance(delta, str) else item.to_json())
            except Exception as error:  # an event class of somebody's, with anything in its fields
                self._unreadable("an event that is no JSON", error)
                return
            self._measure(size)
            if isinstance(item, ToolCall) and item in self._tool_calls:
                return  # a source of recorded events brings the calls that its items mean anyway
            yield from self._receive(item)
        elif isinstance(item, Frame):
            yield from self._bounded(item)
        elif isinstance(item, Mapping):
            try:
                text = encode_json(dict(cast("Mapping[str, Any]", item))).decode()
            except Exception as error:  # a mapping of somebody's own may raise anything
                self._unreadable("a mapping that is no JSON object", error)
            else:
                yield from self._bounded(Frame(data=text))
        elif callable(getattr(item, "model_dump", None)):  # a pydantic object of an SDK
            try:
                sent = wire_object(item)
            except Exception as error:
                self._unreadable(f"{type(item).__name__}, whose model_dump() failed", error)
                return
            if sent is not None:
                yield from self._item(sent)
        else:
            hint = "; give the bytes as they come: the response itself, not its lines" if isinstance(item, str) else ""
            raise UsageError(f"a source yields bytes, frames, mappings or events, not {type(item).__name__}{hint}")

    def _unreadable(self, what: str, error: Exception) -> None:
        failure = DecodeError(f"the source yielded {what} ({type(error).__name__}: {error})")
        failure.__cause__ = error
        self.outcome.fail(failure)

    def _bounded(self, frame: Frame) -> Steps:
        """A frame that the decoder has not measured."""
        maximum = self._limits.event_bytes
        if maximum is not None and len(frame.data) > maximum:
            self.outcome.fail(LimitExceeded(limit="event_bytes", maximum=maximum, seen=len(frame.data)))
            return
        self._measure(len(frame.data))
        yield from self._frame(frame)

    def _measure(self, size: int) -> None:
        self._size += size
        if self._size > self._near:
            self._approach(size)

    def _approach(self, unread: int) -> None:
        """See how near the bounds on text are. A character takes a byte at least, and *unread* bytes have just come."""
        snapshot, limits = self.fold(), self._limits
        self._exact = True
        if self._decoder.idle:  # else it holds bytes back that nobody has counted
            room = min(
                sys.maxsize if limits.text is None else limits.text - snapshot.text_size,
                sys.maxsize if limits.arguments is None else limits.arguments - snapshot.arguments_size,
                sys.maxsize if limits.other is None else limits.other - self._other_size(),
            )
            self._near = self._size - unread - len(self._tail) + room
            self._exact = self._size > self._near

    def _end(self) -> Steps:
        """The body has ended."""
        if self._tail:
            tail, self._tail = self._tail, b""
            yield from self._frames(tail)
        rest = None if self.outcome.over or self._array is not None else self._decoder.unfinished
        if rest is not None and _is_object(rest.data):
            self._snapshot.note("unfinished", "the last event had no blank line after it; it was whole and is kept")
            yield from self._frame(rest)
            rest = None
        if self._wire is not None and not self.outcome.over:
            for event in self._wire.close():
                yield from self._receive(event)
        if self.outcome.over or self.chain.cancelled:
            return
        if not plausible(self._head) and self._array is None and not self.count:
            error: DecodeError | StreamTruncated = DecodeError(
                f"no server-sent event in {self._size:,} bytes: this is no event stream. It begins with "
                f"{excerpt(self._head)!r}"
            )
        else:
            cut = f" in the middle of an event ({excerpt(rest.data)})" if rest is not None else ""
            error = StreamTruncated(
                f"the stream ended before a terminal event{cut}; {self.count} events were received, the response so "
                "far is in .partial"
            )
        self.outcome.fail(error)

    # --- events ------------------------------------------------------------------------------------------------------

    def _receive(self, event: Any) -> Steps:
        """An event has come from the source: check it, fold it, dispatch it, and see what it means for the run."""
        if self._resumed and isinstance(event, ResponseCreated) and event.sequence_number is None:
            self.outcome.fail(StreamInterrupted("the stream was cut, and the server began the response anew"))
            return
        if self._keep:
            number = getattr(event, "sequence_number", None)
            if number is not None:
                if number == self._sequence.expected:
                    self._sequence.expected = number + 1
                elif not self._admit(event, number):
                    return
            if len(self._pending) >= _BATCH or self._size >= self._roll_at:
                self._roll()
            self._pending.append(event)
            if self._exact:
                self._check_text()
        else:
            self._count += 1
            if isinstance(event, LifecycleEvent | StreamError):
                self._snapshot.add((event,))
        if isinstance(event, OutputItemAdded | OutputItemDone):
            self._check_calls(event)
        if self.outcome.over:  # a limit: the event has come, so it is heard, and means nothing more
            yield from self._pass(event)
            return
        if not issubclass(type(event), _STRUCTURE):
            if isinstance(event, UnknownEvent) and (event.type in PINGS or not event.data):
                self._pings += 1
            yield from self._pass(event)
            return
        terminal = isinstance(event, TERMINAL)
        if terminal:
            self.outcome.terminal(event)
        elif isinstance(event, StreamError):
            self.outcome.reported(event)
        yield from self._pass(event)
        if isinstance(event, OutputItemDone):
            call = self._tool_call(event.item, event.output_index)
            if call is not None and not self.chain.cancelled:
                self._tool_calls.append(call)
                yield from self._pass(call)
        if terminal:
            if isinstance(event, ResponseCompleted):
                yield from self._tell_calls(event)
            self.outcome.over = True

    def _tell_calls(self, event: ResponseCompleted) -> Steps:
        """Some servers close no item: the calls that only the terminal event tells of."""
        told = {name for call in self._tool_calls for name in (call.call_id, call.item_id)}
        for item in event.response.output:
            call = self._tool_call(item, None)
            names: set[str | None] = set() if call is None else {call.call_id, call.item_id} - {None}
            if call is None or not names or names & told:  # one without a name could be any of those told
                continue
            if self._too_many_calls(len(self._tool_calls) + 1) or self.chain.cancelled:
                return
            told |= names
            self._tool_calls.append(call)
            yield from self._pass(call)

    def _pass(self, event: Event) -> Steps:
        began = self._clock()
        try:
            yield from self.chain.dispatch(event)
            if self.chain.attention:
                yield from self.chain.drain()
        finally:
            self.handled += self._clock() - began

    # --- the time of handlers ----------------------------------------------------------------------------------------

    def _calls_for(self, cls: type[Event], name: str) -> tuple[Call, ...] | None:
        """`Chain.straight`, but for what is to be measured: two looks at the clock take a tenth of a text delta."""
        calls = self.chain.straight(cls, name)
        return None if self.measures and (calls or self._deliver) else calls

    def _dispatch(self, event: Event) -> Steps:
        steps = self.chain.dispatch(event)
        return self._handling(steps) if self.measures else steps

    def _handling(self, steps: Steps) -> Steps:
        """Go through *steps*, and count their time."""
        began = self._clock()
        try:
            yield from steps
        finally:
            self.handled += self._clock() - began

    def _show(self, item: object) -> None:
        began = self._clock()
        self.chain.receive(item)
        self.handled += self._clock() - began

    def _at_hand(self) -> list[Any]:
        """Of the last events, the pieces of text, and the very last one: the same however the stream was cut."""
        events = (self._recent + self._pending)[-_BATCH:]
        return [event for event in events if isinstance(event, _REPEATED) or event is events[-1]]

    def _admit(self, event: Any, number: int) -> bool:
        """Judge a sequence number that is not the expected one; False drops the event."""
        try:
            return self._sequence.admit(event, number, self._at_hand())
        except SequenceError as error:
            self.outcome.fail(error)
            return False

    def _tool_call(self, item: OutputItem, index: int | None) -> ToolCall | None:
        """The complete call that a closed item is, or None."""
        if not isinstance(item, FunctionCall | CustomToolCall | McpCall) or item.status in (
            "incomplete",
            "in_progress",
        ):
            return None
        arguments = item.arguments
        if not arguments:  # some servers close an item without what its deltas brought
            if self._keep:
                arguments = self.fold().arguments(item.call_id or item.id or "") or ""
            elif isinstance(item, CustomToolCall):  # nobody knows it, and any text would pass for one
                return None
        return ToolCall(_KINDS[item.type], item.name, arguments, item.call_id, item.id, index)

    def _check_calls(self, event: OutputItemAdded | OutputItemDone) -> None:
        if event.item.type.endswith("_call"):
            seen = self._calls[type(event)] = self._calls[type(event)] + 1  # some servers open no item, some close none
            self._too_many_calls(seen)

    def _too_many_calls(self, seen: int) -> bool:
        maximum = self._limits.calls
        if maximum is None or seen <= maximum:
            return False
        self.outcome.fail(LimitExceeded(limit="calls", maximum=maximum, seen=seen))
        return True

    def _other_size(self) -> int:
        """What is kept besides texts and arguments; a wire that translates counts that itself, as it came."""
        return self.fold().other_size if self._short is None else 0

    def _check_text(self) -> None:
        snapshot, limits = self.fold(), self._limits
        for limit, maximum, seen in (
            ("text", limits.text, snapshot.text_size),
            ("arguments", limits.arguments, snapshot.arguments_size),
            ("other", limits.other, self._other_size()),
        ):
            if maximum is not None and seen > maximum:
                self.outcome.fail(LimitExceeded(limit=limit, maximum=maximum, seen=seen))


def _is_object(data: str) -> bool:
    """Whether an event that only lacks the blank line after it is whole."""
    try:
        return isinstance(json.loads(data), dict)
    except (ValueError, RecursionError):
        return False
