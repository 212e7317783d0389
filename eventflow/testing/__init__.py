"""For tests of handlers, plugins, agents and wires: fake streams, a server that plays them, and what to check with.

`stream` makes the bytes that a provider would send, `Server` plays them on loopback, `Clock` goes when it is told to,
`Recorder` notes what came to a place of a pipeline, `check_order` says whether events are in their order. The module
``eventflow.testing.strategies`` has strategies for hypothesis, and is the only one that needs it.
"""

from eventflow.testing.clock import Clock
from eventflow.testing.order import ORDER, Machine, OrderError, check_order, draw_order
from eventflow.testing.recorder import Recorder
from eventflow.testing.server import Peer, Reply, Request, Script, ScriptError, Server, Turn
from eventflow.testing.streams import FakeStream, cut, stream

__all__ = [
    "ORDER",
    "Clock",
    "FakeStream",
    "Machine",
    "OrderError",
    "Peer",
    "Recorder",
    "Reply",
    "Request",
    "Script",
    "ScriptError",
    "Server",
    "Turn",
    "check_order",
    "cut",
    "draw_order",
    "stream",
]
