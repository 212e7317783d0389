"""Settings for all tests: hypothesis profiles, and where recordings are."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from environments import wheel_in
from hypothesis import HealthCheck, settings

from eventflow.cli import model_server
from eventflow.cli.model_server import ModelServer

settings.register_profile("default", max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("default"), derandomize=True, print_blob=True)
settings.register_profile("long", parent=settings.get_profile("default"), max_examples=5_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default"))

FIXTURES = Path(__file__).parent / "fixtures"
CORPUS = Path(os.environ.get("EVENTFLOW_CORPUS") or Path(__file__).parents[2] / "shared" / "corpus")


def pytest_collection_finish() -> None:
    """Leave what is imported and collected by now, half a million objects, out of every garbage collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of recorded streams; tests that need it skip where it is not."""
    if not (CORPUS / "truth.jsonl").is_file():
        pytest.skip(f"no recorded streams at {CORPUS.name}/: set EVENTFLOW_CORPUS to their folder")
    return CORPUS


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The project's own recorded streams."""
    return FIXTURES


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this tree: once, however many processes run the tests."""
    folder = tmp_path_factory.getbasetemp()
    return wheel_in(folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder)


@pytest.fixture(scope="session")
def model() -> Iterator[ModelServer]:
    """The small model of `make demo`, started once in a process; tests that need it skip where its wheels are not."""
    if not model_server.available():
        pytest.skip("the model's wheels are not installed (see make demo)")
    with model_server.model_server(template=model_server.TEMPLATE) as server:
        yield server


@pytest.fixture
def untraced() -> Iterator[None]:
    """Nothing is traced: time and memory are those of the code, not of what measures its coverage."""
    traced_by = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(traced_by)
