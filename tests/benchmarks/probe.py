"""Measures this very process: ``probe.py import MODULE`` or ``probe.py stream DELTAS``; prints a JSON object.

Nothing is imported at the top that a module under test might import as well.
"""

import sys
import time


def probe_import(module: str) -> str:
    """The CPU time of the import of *module*, and by how much the process has grown."""
    sys.path.pop(0)  # this folder
    before = resident()
    start = time.process_time_ns()
    __import__(module)
    taken = time.process_time_ns() - start
    return f'{{"milliseconds": {taken / 1e6}, "kibibytes": {resident() - before}}}'


def resident() -> int:
    """Resident memory in KiB; where there is no /proc, the highest so far."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)


def probe_stream(deltas: int) -> str:
    """What a run holds of a text of *deltas* deltas, as tracemalloc counts it: the input is made before."""
    import gc
    import tracemalloc

    from streams import text_stream

    from eventflow import Dispatcher, TextDelta

    flow = Dispatcher()
    flow.on(TextDelta, lambda event: None)
    flow.run(text_stream(1000))  # fills what is made once
    blocks = list(text_stream(deltas))
    gc.collect()
    tracemalloc.start()
    with flow.open() as run:
        for block in blocks[:-4]:
            run.feed(block)
        del block
        after_deltas = tracemalloc.get_traced_memory()[0]
        text = sys.getsizeof(run.text)
        for block in blocks[-4:]:
            run.feed(block)
    after_end, peak = tracemalloc.get_traced_memory()
    assert sys.getsizeof(run.text) == text
    return f'{{"text": {text}, "after_deltas": {after_deltas}, "after_end": {after_end}, "peak": {peak}}}'


if __name__ == "__main__":
    _, what, argument = sys.argv
    print(probe_import(argument) if what == "import" else probe_stream(int(argument)))
