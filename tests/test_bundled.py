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


def check(run: Run, number: int) -> None:
    """Everything in *run* is its own."""
    assert run.status == "completed"
    assert run.text == said(number)
    assert run[Accumulate].text == told(number)
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


@pytest.fixture
def flow(tmp_path: Path) -> Dispatcher:
    """Everything that keeps something, in one pipeline."""
    heard = list[str]()
    pipeline = Redact() | Accumulate() | Log(tmp_path / "log.jsonl", flush=False) | drop("reasoning") | Usage()
    return Dispatcher(pipeline | tap(lambda event: heard.append(event.type), "text") | tee(len_of, events="text"))


def len_of(event: object) -> None:
    """A sink."""


def test_runs_when_a_thousand_go_through_one_pipeline_at_once(flow: Dispatcher, tmp_path: Path) -> None:
    """A thousand async runs of one dispatcher each have their own text, call, output, tokens and lines in the log."""
    flow.use(Tools([double], concurrency=64))

    async def one(number: int) -> None:
        check(await flow.arun(source(number)), number)

    async def main() -> None:
        await asyncio.gather(*map(one, range(RUNS)))

    with flow:
        asyncio.run(main())
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    texts: dict[str, str] = {}
    for line in lines:
        if line.get("event", {}).get("type") == "response.output_text.done":
            texts[line["run"]] = line["event"]["text"]
    assert sorted(texts.values()) == sorted(map(told, range(RUNS)))


def test_runs_when_in_threads_go_through_one_pipeline_at_once(flow: Dispatcher) -> None:
    """The same in eight threads, with a plain function."""
    flow.use(Tools([double_here]))
    failures: list[BaseException] = []

    def work(first: int) -> None:
        try:
            for number in range(first, first + 25):
                check(flow.run(source(number)), number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(25 * place,)) for place in range(8)]
    with flow:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
