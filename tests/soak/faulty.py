"""A server of faults on loopback: prints its address, and ends when its stdin is closed.

The headers of a request say which fault, on which wire, of how many deltas, at which pace. It is a process of its own:
what it opens is none of the client's.
"""

from __future__ import annotations

import sys
from typing import Any

from eventflow.testing import FakeStream, Reply, Request, Server, stream


def _stream(request: Request) -> FakeStream:
    given: dict[str, Any] = {"text": ["a "] * int(request.headers["x-deltas"]), "wire": request.headers["x-wire"]}
    match request.headers["x-fault"]:
        case "short":
            given["status"] = "incomplete"
        case "error":
            given["error_at"] = 3
        case "cut" | "reset" | "hang":
            given["cut_at"] = 4
        case _:
            given["tools"] = [("get_weather", {"city": "Paris"}), ("get_time", {"city": "Paris"})]
    return stream(**given)


def _answer(request: Request) -> Any:
    fault, pace = request.headers["x-fault"], float(request.headers["x-pace"])
    match fault:
        case "silent":
            return Reply(None, then="hang")
        case "gone":
            return Reply(None, then="cut")
        case "busy":
            return Reply({"error": {"message": "too much to do"}}, status=503, headers={"retry-after-ms": "10"})
        case "page":
            return Reply("<html>hello</html>", headers={"content-type": "text/html"})
        case "garbage":
            return Reply([*_stream(request).blocks[:3], b"data: {\n\n"], pace=pace)
        case "cut" | "reset" | "hang":
            return Reply(_stream(request).blocks[:4], pace=pace, then=fault)
        case _:
            return Reply(_stream(request), pace=pace)


if __name__ == "__main__":
    with Server(_answer, repeat=True, patience=20) as server:
        print(server.url, flush=True)
        sys.stdin.read()
