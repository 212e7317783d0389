"""A server on loopback that plays the project's own recordings of a model's answers, for where no model is."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from eventflow.testing import Reply, Request, Server

__all__ = ["ANSWER", "CALL", "recording_server"]

CALL = Path(__file__).with_name("demo-call.sse")
"""What SmolLM2 answered to the question of `eventflow.cli.demo`, as llama.cpp sent it: calls of a tool."""

ANSWER = Path(__file__).with_name("demo-answer.sse")
"""And what it answered when it was told what the tool gave."""


@contextmanager
def recording_server(*recordings: Path, pace: float = 0.02) -> Generator[str]:
    """Answer every request with a recording, and stop with the block.

    Args:
        recordings: Bodies of server-sent events: for requests without a tool's output, and for those with one.
        pace: Seconds between two events.

    Yields:
        Where the API begins: ``http://127.0.0.1:PORT/v1``.
    """
    first, second = recordings or (CALL, ANSWER)

    def answer(request: Request) -> Reply:
        body = (second if b"function_call_output" in request.body else first).read_bytes()
        return Reply((block + b"\n\n" for block in body.split(b"\n\n") if block.strip()), pace=pace)

    with Server(answer, repeat=True) as server:
        yield server.url
