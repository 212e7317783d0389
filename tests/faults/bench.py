"""The bench: plays a fault to every face of the library, and says whether what came of it is what must."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal
from unittest import mock

import attrs
import httpx
from answers import Api, Way, is_brief
from catalogue import FAULTS, Expected, Fault

from eventflow import AsyncClient, Client, Dispatcher, Event, EventflowError, Run, TextDelta
from eventflow.testing import Peer, Request, Script, Server
from eventflow_plugins import Tools

__all__ = ["Bench", "Case", "Seen", "cases_of", "mistakes", "serving"]

Face = Literal["client", "plain"]

GRACE = 1.0  # seconds later than it should be that anything may come
PATIENCE = 5.0  # seconds after which the server gives up
QUESTION: dict[str, Any] = {"model": "made-up", "input": "How is the weather in Paris?"}


@attrs.frozen
class Case:
    """One fault of one API, by one face: our client, or a plain response of httpx; sync or async."""

    fault: Fault
    api: Api
    face: Face
    way: Way

    def __str__(self) -> str:
        return f"{self.fault.name} of {self.api}, {self.face}, {self.way}"


@attrs.define
class Visit:
    """What the server has seen of one case.

    Attributes:
        tries: How often it was asked.
        left: Set once the client has closed the connection, in the middle of an answer or after it.
    """

    tries: int = 0
    left: threading.Event = attrs.field(factory=threading.Event)


@attrs.define(kw_only=True)
class Seen:
    """What came of a case."""

    run: Run | None = None
    error: BaseException | None = None
    heard: list[Event] = attrs.field(factory=list[Event])
    executed: int = 0
    took: float = 0.0
    left: bool = False
    visit: Visit

    @property
    def said(self) -> str:
        """The text that handlers were told."""
        return "".join(event.delta for event in self.heard if isinstance(event, TextDelta))


def cases_of(fault: Fault, *, brief: bool = False) -> list[Case]:
    """Every API through our client, sync and async; the Responses API, or the only one, as a plain response too.

    In brief, what `is_brief` says.
    """
    apis = fault.apis
    faces: list[tuple[Api, Face]] = [(api, "client") for api in apis]
    if fault.plain:
        faces.append((apis[0], "plain"))
    ways: tuple[Way, ...] = ("sync", "async")
    cases = [Case(fault, api, face, way) for api, face in faces for way in ways]
    number = list(FAULTS).index(fault.name)
    return [case for case in cases if not brief or is_brief(number, case.api, case.way)]


# --- the server ------------------------------------------------------------------------------------------------------


class Bench:
    """A server that misbehaves as the address says that it is asked at, and those who ask it."""

    def __init__(self) -> None:
        self.server = Server(self._answer, repeat=True, patience=PATIENCE)
        self._visits: list[tuple[Case, Visit]] = []
        self._lock = threading.Lock()

    def _answer(self, request: Request) -> Script:
        case, visit = self._visits[int(request.path.split("/")[2])]
        visit.tries += 1
        answer = case.fault.answer(case.api)
        assert answer is not None

        def play(peer: Peer) -> None:
            try:
                answer.play(peer)
                if answer.ending in ("cut", "hang"):
                    begun = time.monotonic()
                    peer.wait()
                    if time.monotonic() - begun < PATIENCE:
                        visit.left.set()
            except ConnectionError:
                visit.left.set()
                raise

        return Script(play)

    def _visit(self, case: Case) -> tuple[str, Visit]:
        visit = Visit()
        with self._lock:
            number = len(self._visits)
            self._visits.append((case, visit))
        return f"{self.server.url}/{number}", visit

    # --- those who ask -----------------------------------------------------------------------------------------------

    def mistakes(self, fault: Fault, *, brief: bool = False) -> list[str]:
        """Play a fault to all who can meet it, at once, and say what is not as it must be."""
        return [each for case, seen in self._pairs(cases_of(fault, brief=brief)) for each in mistakes(case, seen)]

    def _pairs(self, cases: list[Case]) -> list[tuple[Case, Seen]]:
        """Play them; once more, and by itself, what came too late, for the machine may have been busy."""
        pairs = list(zip(cases, self.play(cases), strict=True))
        return [
            (case, self.play([case])[0] if seen.took > case.fault.seconds + GRACE else seen) for case, seen in pairs
        ]

    def play(self, cases: list[Case]) -> list[Seen]:
        """Play them, all at once."""
        with ThreadPoolExecutor(len(cases)) as threads:
            pending = {case: threads.submit(self._play, case) if case.way == "sync" else None for case in cases}
            later = asyncio.run(self._gather([case for case, future in pending.items() if future is None]))
            return [later.pop(0) if future is None else future.result() for future in pending.values()]

    async def _gather(self, cases: list[Case]) -> list[Seen]:
        return list(await asyncio.gather(*map(self._aplay, cases)))

    def _play(self, case: Case) -> Seen:
        url, visit = self._visit(case)
        seen = Seen(visit=visit)
        flow = _flow(case, seen)
        begun = time.monotonic()
        with contextlib.ExitStack() as stack:
            try:
                if case.face == "client":
                    client = stack.enter_context(Client(**_options(case, url)))
                    source: Any = client.responses.create(**QUESTION, stream=True)
                else:
                    http = stack.enter_context(httpx.Client(timeout=None, verify=False, trust_env=False))
                    source = http.send(http.build_request("POST", url, json=QUESTION), stream=True)
                seen.run = flow.run(source)
            except EventflowError as error:
                seen.error, seen.run = error, error.run
            seen.took = time.monotonic() - begun
            seen.left = visit.left.wait(GRACE) if _must_leave(case) else True
        flow.close()
        return seen

    async def _aplay(self, case: Case) -> Seen:
        url, visit = self._visit(case)
        seen = Seen(visit=visit)
        flow = _flow(case, seen)
        begun = time.monotonic()
        async with contextlib.AsyncExitStack() as stack:
            try:
                if case.face == "client":
                    client = await stack.enter_async_context(AsyncClient(**_options(case, url)))
                    source: Any = await client.responses.create(**QUESTION, stream=True)
                else:
                    http = await stack.enter_async_context(
                        httpx.AsyncClient(timeout=None, verify=False, trust_env=False)
                    )
                    source = await http.send(http.build_request("POST", url, json=QUESTION), stream=True)
                seen.run = await flow.arun(source)
            except EventflowError as error:
                seen.error, seen.run = error, error.run
            seen.took = time.monotonic() - begun
            seen.left = await asyncio.to_thread(visit.left.wait, GRACE) if _must_leave(case) else True
        flow.close()
        return seen


def _options(case: Case, url: str) -> dict[str, Any]:
    return {
        "base_url": url,
        "api_key": "sk-made-up",
        "wire": case.api,
        "timeout": case.fault.timeouts,
        "limits": case.fault.limits,
        "max_retries": 1,
    }


def _flow(case: Case, seen: Seen) -> Dispatcher:
    def get_weather(city: str) -> str:
        """The weather of a city, now."""
        seen.executed += 1
        return "18 °C"

    own = {} if case.face == "client" else {"timeout": case.fault.timeouts}
    flow = Dispatcher(Tools([get_weather]), strict=case.fault.strict, limits=case.fault.limits, **own)
    flow.on("*", seen.heard.append)
    return flow


def _must_leave(case: Case) -> bool:
    """Whether the connection is good for nothing more, so that the client must close it."""
    answer = case.fault.answer(case.api)
    return answer is not None and answer.ending in ("cut", "hang")


@contextlib.contextmanager
def serving() -> Iterator[Bench]:
    """A bench whose server answers; tries follow each other at once."""
    bench = Bench()
    with mock.patch("eventflow.exchange._FIRST_DELAY", 0.001), bench.server:
        yield bench


# --- the judge -------------------------------------------------------------------------------------------------------


def outcome_of(case: Case, seen: Seen) -> Expected:
    """What came of it, in the words of the catalogue."""
    error = seen.error
    asked = case.fault.expected[case.api].says
    assert error is None or isinstance(error, EventflowError)
    text = seen.run.text if seen.run is not None else ""
    return Expected(
        status=seen.run.status if seen.run is not None else None,
        error=type(error) if error is not None else None,
        retryable=error is not None and error.retryable,
        phase=error.phase if error is not None else None,
        text=text,
        heard=None if seen.said == text else seen.said,
        tool="runs" if seen.executed else "does not run",
        tries=seen.visit.tries,
        says={name: getattr(error, name, None) for name in asked},
        warnings=frozenset(warning.kind for warning in seen.run.warnings) if seen.run is not None else frozenset(),
    )


def promised(case: Case) -> Expected:
    """What must come of it: a plain response is sent once, and its run sees what the client would raise."""
    expected = case.fault.expected[case.api]
    if case.face == "client":
        return expected
    return attrs.evolve(expected, tries=1, status=expected.status or "failed")


def mistakes(case: Case, seen: Seen) -> list[str]:
    """What is not as it must be."""
    found: list[str] = []
    outcome, expected = outcome_of(case, seen), promised(case)
    for field in attrs.fields(Expected):
        got, wanted = getattr(outcome, field.name), getattr(expected, field.name)
        if got != wanted:
            found.append(f"{field.name} is {got!r}, not {wanted!r}")
    error, run = seen.error, seen.run
    if run is not None and error is not None and (error.partial != run.response or run.error is not error):
        found.append("the error does not carry what was received")
    theirs = [event for event in seen.heard if not event.type.startswith("eventflow.")]
    if run is not None and len(theirs) != run.events:
        found.append(f"handlers were told {len(theirs)} events, {run.events} were received")
    if seen.executed > 1:
        found.append(f"the tool ran {seen.executed} times")
    if seen.took > case.fault.seconds + GRACE:
        found.append(f"it took {seen.took:.2f} s")
    if not seen.left:
        found.append("the connection is still open")
    return [f"{case}: {each}; {error!r}" for each in found]
