"""Planted keys, cookies and prompts, and a search for them wherever the library shows something.

What errors of the clients show is searched in test_client.py as well, for each of their troubles; this is the rest:
agents, redirects, retries, warnings, reprs, recordings, the command.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from commands import eventflow
from scenarios import answer, call, closed, completed, created, deltas, failed, opened
from servers import Answer, Server, document, sse, status

from eventflow import Agent, AsyncClient, Client, Dispatcher, EventflowError, Timeouts
from eventflow.errors import HTTPStatusError, UsageError
from eventflow.request import Secret, Settings, create_call
from eventflow_plugins import Log, Record, Redact, Terminal, Tools, Usage

FACES = ("sync", "async")


class Vault:
    """What must be shown nowhere; it shows none of it itself."""

    def __init__(self) -> None:
        made = os.urandom(6).hex()
        self.key = f"sk-made-up-{made}"
        self.header = f"header-{made}"
        self.cookie = f"cookie-{made}"
        self.prompt = f"prompt-{made}"
        self.instructions = f"instructions-{made}"
        self.schema = f"tool-{made}"
        self.query = f"query-{made}"

    def __repr__(self) -> str:
        return "<Vault>"

    def client(self, cls: type, url: str, **options: Any) -> Any:
        """A client that has them all."""
        headers = {"x-secret": self.header, "cookie": f"session={self.cookie}"}
        timeouts = Timeouts(first_event=5, idle=5)
        given = {"headers": headers, "timeout": timeouts, "max_retries": 0, **options}
        return cls(api_key=self.key, base_url=f"{url}?sig={self.query}", **given)

    def create(self, client: Any, *, stream: bool = True) -> Any:
        """A request that has the others."""
        return client.responses.create(
            model="m",
            input=self.prompt,
            instructions=self.instructions,
            tools=[{"type": "function", "name": self.schema, "parameters": {}}],
            stream=stream,
        )

    def ask(self, face: str, url: str, *, stream: bool = True, **options: Any) -> None:
        """Ask, and read the answer."""
        if face == "async":
            asyncio.run(self._aask(url, stream, options))
            return
        with self.client(Client, url, **options) as client:
            made = self.create(client, stream=stream)
            if stream:
                made.collect()

    async def _aask(self, url: str, stream: bool, options: dict[str, Any]) -> None:
        async with self.client(AsyncClient, url, **options) as client:
            made = await self.create(client, stream=stream)
            if stream:
                await made.collect()

    def agent(self, client: Any, **options: Any) -> Agent:
        """An agent that has the others."""
        return Agent(client, model="m", instructions=self.instructions, **options)

    def converse(self, face: str, url: str, **options: Any) -> Any:
        """Hold a conversation."""
        if face == "async":
            return asyncio.run(self._aconverse(url, options))
        with self.client(Client, url) as client:
            return self.agent(client, **options).run(self.prompt)

    async def _aconverse(self, url: str, options: dict[str, Any]) -> Any:
        async with self.client(AsyncClient, url) as client:
            return await self.agent(client, **options).arun(self.prompt)

    def check(self, *texts: str) -> None:
        """Fail with the lines that show something."""
        secrets = list(vars(self).values())
        assert [line for text in texts for line in text.splitlines() if any(each in line for each in secrets)] == []


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Vault:
    """One that is new."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return Vault()


def told(fault: BaseException) -> str:
    """All that can be seen of an error and of those behind it, with the variables of each frame."""
    shown = traceback.TracebackException.from_exception(fault, capture_locals=True)
    return "\n".join([str(fault), repr(fault), *getattr(fault, "__notes__", ()), *shown.format()])


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """All that the library wrote to the log, the arguments of its records too; not what the HTTP client did."""
    ours = [record for record in caplog.records if record.name.startswith("eventflow")]
    return "\n".join(f"{record.getMessage()} {record.args!r} {record.exc_text}" for record in ours)


def moved(to: str) -> Answer:
    """A redirect."""
    return status(307, headers={"location": to, "set-cookie": "a=b"})


FAULTS: dict[str, tuple[Answer, ...]] = {
    "status": (status(401),),
    "retries": (status(500), status(503), status(500)),
    "redirect to another origin": (moved("http://127.0.0.1:1/"),),
    "redirects without an end": tuple(moved("/v1/responses") for _ in range(7)),
    "cut": (sse(answer("a")[:3], end=b""),),
    "garbled": (sse([*answer("a")[:3], b"data: {]\n\n"]),),
    "failed": (sse([created(), failed()]),),
}


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("fault", FAULTS)
def test_client_when_it_fails(face: str, fault: str, vault: Vault, caplog: pytest.LogCaptureFixture) -> None:
    """No key, header, cookie, query or body is in the error, in those behind it, in their frames, or in our log."""
    caplog.set_level(logging.DEBUG)
    retries = 2 if fault == "retries" else 0
    with Server(*FAULTS[fault]) as server, pytest.raises(EventflowError) as caught:
        vault.ask(face, server.url, max_retries=retries, follow_redirects=True)
    assert server.requests[0].headers["x-secret"] == vault.header
    assert vault.query in server.requests[0].path
    vault.check(told(caught.value), logged(caplog))


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("fault", FAULTS)
def test_agent_when_it_fails(face: str, fault: str, vault: Vault, caplog: pytest.LogCaptureFixture) -> None:
    """Nor of an agent: neither what it was asked, nor what it says in every turn."""
    caplog.set_level(logging.DEBUG)
    with Server(*FAULTS[fault]) as server, pytest.raises(EventflowError) as caught:
        vault.converse(face, server.url, plugins=[Tools([get_weather])])
    assert vault.prompt.encode() in server.requests[0].body
    assert caught.value.result is not None
    vault.check(told(caught.value), repr(caught.value.result), repr(caught.value.run), logged(caplog))


def get_weather(city: str) -> str:
    """The weather."""
    raise ValueError(f"no {city}")


@pytest.mark.parametrize("face", FACES)
def test_agent_when_its_second_turn_fails(face: str, vault: Vault) -> None:
    """The conversation is long then, and still not shown."""
    item = call('{"city": "Paris"}', name="get_weather")
    turn = sse([created(), opened(item), closed(item), completed(item)])
    with Server(turn, status(500)) as server, pytest.raises(HTTPStatusError) as caught:
        vault.converse(face, server.url, plugins=[Tools([get_weather])])
    assert len(server.requests) == 2
    vault.check(told(caught.value), repr(caught.value.result))


@pytest.mark.parametrize("face", FACES)
def test_agent_when_its_prepare_fails(face: str, vault: Vault) -> None:
    """No frame of ours holds the parameters; what the function itself has is the caller's."""

    def prepare(*_: object) -> Any:
        raise LookupError("no")

    with Server(document({})) as server, pytest.raises(LookupError) as caught:
        vault.converse(face, server.url, prepare=prepare)
    caught.value.__traceback__ = None if caught.value.__traceback__ is None else caught.value.__traceback__.tb_next
    ours = [text for text in told(caught.value).split("  File ") if "in prepare" not in text]
    vault.check("".join(ours))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"max_turns": 0}, "max_turns"), ({"history": "all"}, "history"), ({"plugins": Usage()}, "takes a list")],
)
def test_agent_when_it_is_made_wrongly(options: dict[str, Any], message: str, vault: Vault) -> None:
    """The message says what is wrong, and the frame has none of the parameters."""
    with Client(base_url="http://127.0.0.1:1") as client, pytest.raises(UsageError, match=message) as caught:
        vault.agent(client, **options)
    vault.check(told(caught.value))


@pytest.mark.parametrize(
    "base_url",
    ["http://user:{key}@127.0.0.1/v1", "http://user:{key}@[::1", "ftp://{key}@127.0.0.1/", "127.0.0.1/?key={key}"],
)
def test_address_when_it_has_a_password(base_url: str, vault: Vault) -> None:
    """It is refused, and the message leaves the password out."""
    for cls in (Client, AsyncClient):
        with pytest.raises(UsageError, match="base_url") as caught:
            cls(base_url=base_url.format(key=vault.key))
        vault.check(str(caught.value), repr(caught.value))


def test_client_when_something_is_left_out(vault: Vault) -> None:
    """A warning of what a provider cannot be told names it, and says nothing of the request's texts."""
    with Server(document({"choices": []})) as server, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with vault.client(Client, server.url, wire="chat", lenient=True) as client, contextlib.suppress(EventflowError):
            client.responses.create(
                model="m",
                instructions=vault.instructions,
                input=[{"role": "user", "content": vault.prompt}, {"type": "computer_call", "x": vault.prompt}],
                tools=[{"type": "web_search", "filters": vault.schema}],
                tool_choice={"type": "mcp", "server_label": vault.schema},
                include=["reasoning.encrypted_content"],
                prompt={"id": vault.prompt},
            )
    assert caught
    vault.check(*(f"{each.message} {each}" for each in caught))


def test_stream_when_it_is_never_read(vault: Vault) -> None:
    """Python's warning of it names the stream, not the request."""
    with Server(sse(answer("a"))) as server, vault.client(Client, server.url) as client:
        stream = vault.create(client)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del stream
            gc.collect()
    assert any(each.category is ResourceWarning for each in caught)
    vault.check(*(f"{each.message} {each.source!r}" for each in caught))


def shown_by(vault: Vault) -> dict[str, Callable[[], Any]]:
    """What a program may print: made with everything that is not to be shown."""

    def settings() -> Settings:
        return Settings.of(
            api_key=Secret(vault.key),
            base_url=f"http://127.0.0.1:1/v1?sig={vault.query}",
            wire="responses",
            timeouts=None,
            max_retries=0,
            retry_timeouts=False,
            headers=Secret({"x-secret": vault.header, "cookie": vault.cookie}),
            follow_redirects=False,
            limits=None,
        )

    def offline(cls: type) -> Any:
        return vault.client(cls, "http://127.0.0.1:1/v1")

    return {
        "Client": lambda: offline(Client),
        "AsyncClient": lambda: offline(AsyncClient),
        "responses": lambda: offline(Client).responses,
        "Settings": settings,
        "Call": lambda: create_call(settings(), stream=True, model="m", input=vault.prompt),
        "Secret": lambda: [Secret(vault.key), Secret({"cookie": vault.cookie}), Secret(lambda: vault.key)],
        "Agent": lambda: vault.agent(offline(Client)),
        "Redact": lambda: Redact(vault.key, words=[vault.prompt]),
        "Tools": lambda: Tools([get_weather], context=vault.key),
        "Dispatcher": lambda: Dispatcher(Redact(words=[vault.key]), Tools([get_weather], context=vault.key)),
    }


@pytest.mark.parametrize("name", shown_by(Vault()))
def test_repr_when_something_has_secrets(name: str, vault: Vault) -> None:
    """`repr`, `str` and f-strings of it, alone and in a list."""
    thing = shown_by(vault)[name]()
    vault.check(repr(thing), str(thing), f"{thing}", repr([thing]), repr({"x": thing}))
    if isinstance(thing, Settings):
        fields = [getattr(thing, field.name) for field in attrs.fields(Settings) if field.repr]
        vault.check(*map(repr, fields))


def test_repr_of_a_run_when_it_is_of_a_client(vault: Vault) -> None:
    """Stream, run and result of one's own request."""
    with Server(sse(answer("a")), sse(answer("b"))) as server, vault.client(Client, server.url) as client:
        stream = vault.create(client)
        run = Dispatcher(Tools([get_weather], context=vault.key)).run(stream)
        result = vault.agent(client).run(vault.prompt)
        vault.check(*map(repr, (stream, run, run.plugins, run.dispatcher, result, result.turns)))


@pytest.mark.parametrize("end", ["good", "cut", "refused"])
def test_files_when_they_are_of_a_client(end: str, vault: Vault, tmp_path: Path) -> None:
    """A recording, a log and a terminal have the answer: no header or body of the request, no cookie of the answer."""
    headers = {"set-cookie": f"session={vault.cookie}"}
    replies: dict[str, Answer] = {
        "good": sse(answer("a"), headers=headers),
        "cut": sse([created(), *deltas("a")], end=b"", headers=headers),
        "refused": status(500, headers=headers),
    }
    with (
        (tmp_path / "screen").open("w", encoding="utf-8") as screen,
        Server(replies[end]) as server,
        vault.client(Client, server.url) as client,
        Dispatcher(Record(tmp_path / "record"), Log(tmp_path / "log"), Terminal(screen)) as flow,
        contextlib.suppress(EventflowError),
    ):
        flow.run(vault.create(client))
    texts = [path.read_text(encoding="utf-8") for path in tmp_path.iterdir() if path.is_file()]
    assert end == "refused" or all(texts)
    vault.check(*texts)


@pytest.fixture
def served() -> Iterator[Server]:
    """A server with an answer of each kind."""
    with Server(status(401), sse(answer("a")[:3], end=b""), sse(answer("a"))) as server:
        yield server


def test_command_when_it_asks(served: Server, vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`eventflow run` shows no key, query or prompt, refused, cut off or answered, and records none."""
    monkeypatch.setenv("OPENAI_API_KEY", vault.key)
    command = ("run", "--model", "m", "--base-url", f"{served.url}?sig={vault.query}")
    for number, code in enumerate((1, 1, 0)):
        options = ("--instructions", vault.instructions, "--record", str(tmp_path / f"{number}.jsonl"))
        done = eventflow(*command, *options, vault.prompt)
        assert done.returncode == code
        vault.check(done.stdout.decode(), done.stderr.decode())
    assert served.requests[-1].headers["authorization"] == f"Bearer {vault.key}"
    vault.check(*(path.read_text(encoding="utf-8") for path in tmp_path.iterdir()))
