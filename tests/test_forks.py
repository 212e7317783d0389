"""Forked processes: nothing of a child waits for a thread that only its parent has."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from servers import Server, document

from eventflow import AsyncClient
from eventflow.errors import UsageError
from eventflow.forks import PerProcess
from eventflow.jobs import LoopThread
from eventflow_plugins.line_file import LineFile

PATIENCE = 5  # seconds until a child that hangs is ended, and the test fails

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="of systems that fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),  # that is what is tried here
]


def child(act: Callable[[], object]) -> int:
    """Do something in a child; its exit status, 0 where it came to an end."""
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    status = 1
    try:
        signal.alarm(PATIENCE)
        act()
        status = 0
    finally:
        os._exit(status)


def test_value_when_a_process_is_forked_is_its_own() -> None:
    """Within a process it is one and the same; a child has a new one, and its parent keeps what it had."""
    lists = PerProcess(list[int])
    lists.here().append(1)

    def look() -> None:
        assert lists.here() == []
        lists.here().append(2)
        assert lists.here() == [2]

    assert child(look) == 0
    assert lists.here() == [1]


def test_loop_when_it_was_used_before_a_fork() -> None:
    """A task that is started in the child runs there, in a loop of its own; the parent's goes on."""
    thread = LoopThread()

    def work() -> None:
        done = threading.Event()
        thread.start_task(lambda: asyncio.sleep(0), name="task", then=done.set)
        assert done.wait(PATIENCE)

    work()
    with thread._loops.here().lock:  # another thread may be there at the time
        assert child(lambda: (work(), thread.close())) == 0
    work()
    thread.close()


def test_file_when_a_process_is_forked_in_the_middle_of_a_line(tmp_path: Path) -> None:
    """The child writes to it as if nobody else did, and what its parent had still to write stays the parent's."""
    path = tmp_path / "run.jsonl"
    file = LineFile(str(path), owner="Log", what="log", least=100)
    file.open()
    file.write(b"parent\n")
    with file._waiting.here().lock:  # another thread writes
        assert child(lambda: (file.write(b"child\n"), file.close())) == 0
    file.close()
    assert path.read_bytes() == b"child\nparent\n"


def test_client_when_its_process_was_forked_has_connections_of_its_own() -> None:
    """What the child does, and that it closes the client, is nothing to the parent's connections."""
    with Server(document({"id": "resp_1", "status": "completed", "output": []})) as server, server.client() as client:

        def ask() -> None:
            client.responses.create(input="hello")
            client.responses.create(input="hello")
            client.close()
            with pytest.raises(UsageError, match="the HTTP client is closed"):
                client.responses.create(input="hello")

        client.responses.create(input="hello")
        assert child(ask) == 0
        client.responses.create(input="hello")
        assert server.connections == 2


def test_async_client_when_its_process_was_forked_has_connections_of_its_own() -> None:
    """The same, async: a loop of the child uses none of the parent's."""
    with Server(document({"id": "resp_1", "status": "completed", "output": []})) as server:
        client = AsyncClient(base_url=server.url, api_key="sk-made-up")

        async def ask() -> None:
            await client.responses.create(input="hello")

        async def main() -> None:
            await ask()
            assert await asyncio.to_thread(child, lambda: asyncio.run(ask())) == 0
            await ask()
            await client.close()

        asyncio.run(main())
        assert server.connections == 2
