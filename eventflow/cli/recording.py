"""A server on loopback that plays the project's own recording of a model's answer, for where no model is."""

from __future__ import annotations

import contextlib
import socketserver
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

__all__ = ["RECORDING", "recording_server"]

RECORDING = Path(__file__).with_name("demo.sse")
"""SmolLM2's answer to the question of `eventflow.cli.demo`, as llama.cpp sent it."""

_REQUEST_BYTES = 64 * 1024  # of a request's body that are read; a demo's has some 100
_TIMEOUT = 10.0  # seconds that one read or write may take


@contextmanager
def recording_server(recording: Path = RECORDING, *, pace: float = 0.02) -> Generator[str]:
    """Answer every POST to ``/v1/responses`` with *recording*, one request at a time, and stop with the block.

    Args:
        recording: A body of server-sent events.
        pace: Seconds between two events.

    Yields:
        Where the API begins: ``http://127.0.0.1:PORT/v1``.
    """
    blocks = [block + b"\n\n" for block in recording.read_bytes().split(b"\n\n") if block.strip()]
    stop = threading.Event()

    class Answer(BaseHTTPRequestHandler):
        timeout = _TIMEOUT

        def do_POST(self) -> None:
            with contextlib.suppress(OSError):  # the client has left
                self.rfile.read(min(int(self.headers.get("content-length") or 0), _REQUEST_BYTES))
                if self.path != "/v1/responses":
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.end_headers()
                for block in blocks:
                    if stop.wait(pace):
                        return
                    self.wfile.write(block)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the demo owns the terminal."""

    with socketserver.TCPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="recording-server")
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            stop.set()
            server.shutdown()
            thread.join()
