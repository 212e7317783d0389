"""`Agent`: send, run, send back what the run's plugins left in its outbox, until that is empty.

::

    agent = Agent(Client(), model="...", plugins=[Tools([get_weather])], max_turns=8)
    result = agent.run("What is the weather in Paris?")
    print(result.text, result.usage)

It knows no plugin: whatever puts items into ``run.outbox`` has them sent, and whatever has ``definitions`` has the
model told of them. A conversation's state is `eventflow.conversation.Conversation`; here are the faces that drive it.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, cast

from eventflow.conversation import AgentResult, Conversation, Ledger, Outcome, Terms, tool_name
from eventflow.dispatcher import Dispatcher
from eventflow.errors import UsageError
from eventflow.events import Event
from eventflow.plugin import Plugin
from eventflow.run import Run, aloop, loop
from eventflow.sources import refusals
from eventflow.streams import left
from eventflow.waiting import discard

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Agent", "AgentResult", "AgentStream", "AsyncAgentStream", "Outcome"]


class Agent:
    """Asks a model, runs the answer through plugins, and sends back what they have for it, until they have nothing.

    May be used by any number of conversations at once, in any threads and tasks; a conversation's state is its own.
    ``with`` closes what the plugins opened, not the client.

    Args:
        client: `Client` or `AsyncClient`; or whatever has ``responses.create(stream=True, ...)`` as they have, such as
            OpenAI's SDK.
        model: The model.
        plugins: Plugins and pipelines, in order: each turn is a run of theirs. The ``definitions`` of those that have
            any are sent as ``tools``, behind those among the parameters; of two with one name, the first.
        max_turns: Requests of one conversation. 10.
        max_tokens: Tokens of all turns together, as the servers count them; None for no bound.
        max_calls: Tool calls of all turns together; None for no bound. Like the bound on tokens it is looked at between
            turns: the calls of the turn that goes beyond have run.
        max_failures: In how many turns one call with the same arguments may fail, unless it succeeds in between. 3;
            None for no bound.
        history: ``items`` sends the whole conversation with each request; ``previous_response_id`` only what is new,
            for servers that keep responses.
        prepare: Called before each request with its parameters and the number of the turn; gives the parameters to
            send. From the second turn on, a ``tool_choice`` that forces a call is ``auto`` already.
        flow: Options of the `Dispatcher`: ``limits``, ``timeouts``, ``strict``, ``clock``.
        parameters: More of every request: ``instructions``, ``temperature``, ``tools``, ``extra_body``, ...

    Attributes:
        flow: The dispatcher, to register handlers with: ``@agent.flow.on(TextDelta)``.

    Raises:
        UsageError: A bound or the history is none, or something else cannot be.
    """

    def __init__(
        self,
        client: Any,
        *,
        model: str,
        plugins: Iterable[Plugin] = (),
        max_turns: int = 10,
        max_tokens: int | None = None,
        max_calls: int | None = None,
        max_failures: int | None = 3,
        history: Literal["items", "previous_response_id"] = "items",
        prepare: Callable[[dict[str, Any], int], Mapping[str, Any]] | None = None,
        flow: Mapping[str, Any] | None = None,
        **parameters: Any,
    ) -> None:
        self._asks = {"model": model, **parameters}
        parameters.clear()  # a traceback would show them
        if not callable(getattr(getattr(client, "responses", None), "create", None)):
            raise UsageError(f"an agent asks by client.responses.create(...), which {type(client).__name__} has not")
        if isinstance(plugins, Plugin | str) or not isinstance(plugins, Iterable):
            raise UsageError("Agent(plugins=...) takes a list: plugins=[...]")
        if flow is not None and not flow.get("snapshot", True):
            raise UsageError("an agent sends back what was received, so it cannot do without: leave out snapshot=False")
        for name in sorted(self._asks.keys() & {"input", "stream"}):
            raise UsageError(
                f"Agent({name}=...): the agent itself gives that; leave it out, run(input) takes the input"
            )
        self._tools = tuple(cast("Iterable[object]", self._asks.pop("tools", None) or ()))
        self._terms = Terms(
            parameters=self._asks.copy,
            tools=self._offered,
            max_turns=max_turns,
            max_tokens=max_tokens,
            max_calls=max_calls,
            max_failures=max_failures,
            history=history,
            prepare=prepare,
        )
        self.flow = Dispatcher(Ledger(), *plugins, **(flow or {}))
        self._create = client.responses.create

    def _offered(self) -> list[object]:
        """The tools that the model is told of: of two with one name, the first."""
        offered = (each for use in self.flow._uses for plugin in use for each in getattr(plugin, "definitions", ()))
        tools = list(self._tools)
        names = {tool_name(tool) for tool in tools}
        for tool in offered:
            name = tool_name(tool)
            if name is None or name not in names:
                tools.append(tool)
                names.add(name)
        return tools

    def __enter__(self) -> Self:
        self.flow.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.flow.close()

    # --- the four faces ----------------------------------------------------------------------------------------------

    def run(
        self, input: str | Sequence[object], *, after: AgentResult | None = None, check: bool = True
    ) -> AgentResult:
        """Hold a conversation to its end.

        Args:
            input: Text, or items of the Responses API's input.
            after: The result of the conversation that this one goes on with.
            check: False never raises for what servers and streams do: see the result's ``outcome`` and ``error``.

        Raises:
            UsageError: The client is async, or the input is none.
            EventflowError: A turn did not end well; its ``result`` has what was done until then.
            Exception: What a handler or plugin raised; it too is given that ``result``.
        """
        talk = Conversation(self._terms, input, after, check)
        del input  # which a traceback would show
        list(self._turns(talk, deliver=False))  # which delivers nothing: it goes to the end
        return talk.result()

    async def arun(
        self, input: str | Sequence[object], *, after: AgentResult | None = None, check: bool = True
    ) -> AgentResult:
        """`run`, async."""
        talk = Conversation(self._terms, input, after, check)
        del input
        [event async for event in self._aturns(talk, deliver=False)]
        return talk.result()

    def stream(
        self, input: str | Sequence[object], *, after: AgentResult | None = None, check: bool = True
    ) -> AgentStream:
        """The events of all turns, one after the other, as they come through the plugins; arguments as for `run`."""
        talk = Conversation(self._terms, input, after, check)
        return AgentStream(talk, functools.partial(self._turns, talk, deliver=True))

    def astream(
        self, input: str | Sequence[object], *, after: AgentResult | None = None, check: bool = True
    ) -> AsyncAgentStream:
        """`stream`, async."""
        talk = Conversation(self._terms, input, after, check)
        return AsyncAgentStream(talk, functools.partial(self._aturns, talk, deliver=True))

    # --- the two drivers ---------------------------------------------------------------------------------------------

    def _turns(self, talk: Conversation, *, deliver: bool) -> Generator[Event, None, None]:
        self.flow._plan_for(is_async=False)  # what cannot run asks nobody
        try:
            while talk.goes_on():
                with talk.turn_under_way():
                    with refusals():
                        source = self._create(**talk.request())
                    if inspect.isawaitable(source):
                        discard(source)
                        raise UsageError("the agent's client is async; use arun() or astream(), or a Client")
                    opened, run = self.flow._begin(source, None, False, talk.turn, is_async=False, deliver=deliver)
                    talk.begin(run)
                    yield from loop(run, opened)
                    talk.take(run)
        finally:
            talk.leave()

    async def _aturns(self, talk: Conversation, *, deliver: bool) -> AsyncGenerator[Event, None]:
        self.flow._plan_for(is_async=True)
        try:
            while talk.goes_on():
                with talk.turn_under_way():
                    with refusals():
                        source = self._create(**talk.request())
                        if not inspect.isawaitable(source):
                            discard(source)
                            raise UsageError("the agent's client is sync; use run() or stream(), or an AsyncClient")
                        source = await source
                    opened, run = await self.flow._abegin(source, None, False, talk.turn, deliver=deliver)
                    talk.begin(run)
                    async with contextlib.aclosing(aloop(run, opened)) as events:
                        async for event in events:
                            yield event
                    talk.take(run)
        finally:
            talk.leave()


# --- streams ---------------------------------------------------------------------------------------------------------


class _Stream:
    """What both streams show of their conversation."""

    def __init__(self, talk: Conversation) -> None:
        self._talk = talk
        self._begun = False

    def _begin(self) -> None:
        if self._begun:
            raise UsageError("this stream was iterated or closed before; call stream() again for another conversation")
        self._begun = True

    def _leave_unbegun(self) -> None:
        """Nothing of it is asked for any more."""
        if not self._begun:
            self._begun = True
            self._talk.leave()

    @property
    def turn(self) -> int:
        """The number of the turn under way, from 1; 0 before the first."""
        return self._talk.turn

    @property
    def run(self) -> Run | None:
        """The run of the turn under way, or of the last one."""
        return self._talk.run

    @property
    def result(self) -> AgentResult:
        """What came of the conversation so far; its outcome is ``cancelled`` where it was left, or is under way."""
        return self._talk.result()

    def cancel(self) -> None:
        """End the conversation: the run under way, and no more turns. From any thread.

        A request whose answer has not begun ends when it does, or with its timeout.
        """
        self._talk.cancel()


class AgentStream(_Stream):
    """The events of all turns of a conversation; each turn begins with a `TurnStarted`.

    Iterate it; a bare ``break`` ends the conversation and closes the connection. ``with`` guarantees it.
    """

    def __init__(self, talk: Conversation, turns: Callable[[], Generator[Event, None, None]]) -> None:
        super().__init__(talk)
        self._turns = turns
        self._cursor: weakref.ref[Generator[Event, None, None]] | None = None

    def __iter__(self) -> Iterator[Event]:
        self._begin()
        cursor = self._turns()
        self._cursor = weakref.ref(cursor)  # weakly: leaving the for loop drops the cursor, and that ends it all
        return cursor

    def close(self) -> None:
        """Leave the conversation and close its connection; in a handler, or another thread, by `cancel`.

        Twice is once.
        """
        cursor = None if self._cursor is None else self._cursor()
        if cursor is not None:
            if not left(cursor):
                self.cancel()
                return
            self._talk.leave()  # nothing of it was ever pulled
        self._leave_unbegun()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncAgentStream(_Stream):
    """`AgentStream`, async: ``async for`` in an ``async with``."""

    def __init__(self, talk: Conversation, turns: Callable[[], AsyncGenerator[Event, None]]) -> None:
        super().__init__(talk)
        self._turns = turns
        self._cursor: weakref.ref[AsyncGenerator[Event, None]] | None = None
        self._entered = False
        self._held: AsyncGenerator[Event, None] | None = None

    def __aiter__(self) -> AsyncIterator[Event]:
        self._begin()
        cursor = self._turns()
        self._cursor = weakref.ref(cursor)
        if self._entered:
            self._held = cursor  # a break must not drop it: the end of the block closes it, and waits for that
        return cursor

    async def aclose(self) -> None:
        """Leave the conversation and close its connection. Twice is once."""
        cursor = None if self._cursor is None else self._cursor()
        if cursor is not None:
            try:
                await cursor.aclose()
            except RuntimeError:  # another task waits in it
                self.cancel()
                return
            self._talk.leave()
        self._leave_unbegun()

    async def __aenter__(self) -> Self:
        self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
