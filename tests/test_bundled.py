"""The bundled plugins together, in one pipeline: many runs at once share nothing, and what each is for comes out."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from eventflow import Dispatcher, Run
from eventflow.testing import stream
from eventflow_plugins import Accumulate, Log, Redact, Tools, Usage, drop, tap, tee

RUNS = 1_000


def said(number: int) -> str:
    """What the model of a run says; Redact has something to take out of it."""
    return f"run {number} of run-{number}@example.com ends"


def told(number: int) -> str:
    """The same behind Redact."""
    return f"run {number} of [redacted] ends"


def source(number: int) -> Any:
    """The stream of a run: its text, and a call of its own."""
    usage = {"input_tokens": number, "output_tokens": 2, "total_tokens": number + 2}
    return stream(said(number), tools=[("double", {"number": number}, f"call_{number}")], usage=usage)


def check(run: Run, number: int, text: str) -> None:
    """Everything in *run* is its own."""
    assert run.status == "completed"
    assert run.text == said(number)
    assert run[Accumulate].text == text
    assert run[Usage].tokens.input == number
    output = {"type": "function_call_output", "call_id": f"call_{number}", "output": str(2 * number)}
    assert run.outbox == [output]
    assert [each.output for each in run[Tools].outputs] == [str(2 * number)]


async def double(number: int) -> int:
    """Give a number twice."""
    await asyncio.sleep(0)
    return 2 * number


def double_here(number: int) -> int:
    """Give a number twice."""
    return 2 * number


double_here.__name__ = double_here.__qualname__ = "double"


@pytest.mark.usefixtures("untraced")
def test_runs_when_a_thousand_go_through_one_pipeline_at_once(tmp_path: Path) -> None:
    """A thousand async runs of one dispatcher each have their own text, call, output, tokens and lines in the log."""
    log = Log(tmp_path / "log.jsonl", events="response.output_text.done", flush=False)
    flow = Dispatcher(Accumulate() | log | Tools([double], concurrency=64) | Usage())

    async def one(number: int) -> None:
        check(await flow.arun(source(number)), number, said(number))

    async def main() -> None:
        await asyncio.gather(*map(one, range(RUNS)))

    with flow:
        asyncio.run(main())
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = {line["run"]: line["event"]["text"] for line in lines if "event" in line}
    assert sorted(texts.values()) == sorted(map(said, range(RUNS)))


def test_runs_when_in_threads_go_through_every_plugin_at_once(tmp_path: Path) -> None:
    """Two hundred runs in eight threads, with everything that keeps something, and plain functions."""
    heard = list[str]()
    pipeline = Redact() | Accumulate() | Log(tmp_path / "log.jsonl", flush=False) | drop("reasoning") | Usage()
    pipeline |= tap(lambda event: heard.append(event.type), "text") | tee(lambda event: None, events="text")
    flow = Dispatcher(pipeline | Tools([double_here]))
    failures: list[BaseException] = []

    def work(first: int) -> None:
        try:
            for number in range(first, first + 25):
                check(flow.run(source(number)), number, told(number))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(25 * place,)) for place in range(8)]
    with flow:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    assert len(heard) >= 200
