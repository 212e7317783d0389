"""What type checkers know of registrations. Each ignored error must be one: an unneeded ignore fails the check."""

from __future__ import annotations

from typing import Any, assert_type

from eventflow import (
    Dispatcher,
    Event,
    Pipeline,
    Plugin,
    Response,
    Run,
    TextDelta,
    TextDone,
    collect,
    configured,
    iter_events,
    on,
    rewrite,
    state,
    transform,
)
from eventflow.background import Lane

flow = Dispatcher()


# a decorator over a class knows the event, and leaves the function as it is
@flow.on(TextDelta)
def show(event: TextDelta) -> int:
    return len(event.delta)


assert_type(show(TextDelta("x")), int)


@flow.on(TextDelta)
def with_run(event: TextDelta, run: Run) -> None:
    assert_type(run.text, str)
    assert_type(run[WordCount].words, int)


@flow.on(TextDelta)
async def later(event: TextDelta) -> None: ...


@flow.on(TextDelta)
def wider(event: Event) -> None: ...


@flow.on(TextDelta, TextDone)
def several(event: TextDelta | TextDone) -> None: ...


@flow.on("tool")
@flow.on("response.*.delta", order=1, errors="isolate")
def by_name(event: Event) -> None: ...


# one in the background is typed as any other; a misspelt option is an error
@flow.on(TextDelta, background=True, queue=4, overflow="coalesce", patience=None)
def slow(event: TextDelta) -> int:
    return len(event.delta)


assert_type(slow(TextDelta("x")), int)
flow.on(TextDelta, lambda event: event.delta.upper(), background=True, errors="isolate")
flow.on(TextDelta, print, background=True, overflow="drop")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]


# a handler that does not fit is an error
@flow.on(TextDelta)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
def misfit(event: TextDone) -> None: ...


# the call form infers the argument of a lambda
undo = flow.on(TextDelta, lambda event: event.delta.upper())
undo()
with flow.on(TextDelta, lambda event: event.delta):
    pass
flow.on(TextDelta, lambda event: event.text)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownLambdaType]


class WordCount(Plugin):
    """Fields are configuration or state; the class is made by attrs, and checkers know."""

    minimum: int = 1
    words: int = state(default=0)
    seen: list[str] = state(factory=list[str])

    @on(TextDelta)
    def count(self, event: TextDelta) -> None:
        self.words += len(event.delta.split())

    @on(TextDelta)
    def misfit(self, event: TextDelta) -> None:
        assert_type(event.delta, str)

    @on(TextDone)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
    def unfit(self, event: TextDelta) -> None: ...

    @transform("tool")
    def quiet(self, event: Event) -> None:
        return None

    @rewrite("text")
    def shout(self, text: str) -> str:
        return text.upper()

    def start(self, run: Run) -> None:
        lane = run.background(show, queue=4, overflow="coalesce")
        assert_type(lane(TextDelta("x")), Lane | None)
        run.background(show, overflow="drop")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class Chosen(Plugin):
    """Fields may say what methods are for."""

    events: str = "*"

    @on(TextDelta, configured("events"), errors=configured("errors"))
    def hear(self, event: Event) -> None: ...

    @transform(configured("events", negate=True))
    def drop(self, event: Event, run: Run) -> None: ...


assert_type(Chosen("text").hear(TextDelta("x")), None)
WordCount(minimum=3)
WordCount(3)
WordCount(words=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
WordCount(minimum="3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

assert_type(WordCount() | WordCount(), Pipeline)
run = flow.run(b"")
assert_type(run.response, Response)
assert_type(run[WordCount], WordCount)
assert_type(collect(b""), Response)

for event in iter_events(b""):
    assert_type(event, Event)
    match event:
        case TextDelta(delta=text):
            assert_type(text, str)
        case _:
            pass


async def consume(source: Any) -> None:
    assert_type(await flow.arun(source), Run)
    async for event in flow.astream(source):
        assert_type(event, Event)
    with flow.open() as push:
        push.feed(b"")
    async with flow.aopen() as apush:
        await apush.afeed(b"")


class Tick(Event, tag="myapp.tick"):
    """An event of a user."""

    n: int


assert_type(Tick(1).n, int)
assert_type(Tick(1).type, str)
Tick("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Tick(1).n = 2  # pyright: ignore[reportAttributeAccessIssue]
