"""One wheel with two import packages: what is in it, and that it works in an environment of its own."""

from __future__ import annotations

import email.parser
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from environments import CLEAN, ROOT, environment, run


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a clean environment with the wheel and its dependencies."""
    return environment(tmp_path_factory.mktemp("installed"), wheel)


def test_wheel_when_opened_holds_the_two_packages(wheel: Path) -> None:
    """All modules of both packages with ``py.typed``, the command's data, the licence; and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = [name for name in archive.namelist() if name.endswith("LICENSE")]
    expected: set[str] = set()
    for top, package in ((ROOT, "eventflow"), (ROOT / "plugins", "eventflow_plugins")):
        for path in (top / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                expected.add(path.relative_to(top).as_posix())
    assert names == expected
    assert {"eventflow/py.typed", "eventflow_plugins/py.typed"} <= names
    assert licences


def test_wheel_when_its_metadata_is_read(wheel: Path) -> None:
    """Its name, the light dependencies, the command and the bundled plugins stand in the metadata."""
    with zipfile.ZipFile(wheel) as archive:
        info = next(name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name)
        metadata = email.parser.Parser().parsestr(archive.read(f"{info}/METADATA").decode())
        entry_points = archive.read(f"{info}/entry_points.txt").decode()
    assert metadata["Name"] == "eventflow-stream"
    needed = {value.split(";")[0].strip() for value in metadata.get_all("Requires-Dist", []) if "extra ==" not in value}
    names = {
        name for name in ("anyio", "attrs", "blinker", "httpx", "msgspec") if any(n.startswith(name) for n in needed)
    }
    assert len(needed) == len(names) == 5
    assert "cli" in metadata.get_all("Provides-Extra", [])
    assert "[eventflow.plugins]" in entry_points
    assert "accumulate = eventflow_plugins" in entry_points
    assert "eventflow = eventflow.cli:main" in entry_points


CODE = """
import eventflow, eventflow_plugins, sys
assert all(sys.prefix in module.__file__ for module in (eventflow, eventflow_plugins))
from eventflow.plugin import available
assert not any(name in sys.modules for name in ("click", "rich", "trio")), "the extras are not needed"
names = {plugin.name: plugin.distribution.split()[0] for plugin in available()}
assert names["accumulate"] == names["log"] == "eventflow-stream", names
flow = eventflow.Dispatcher()
flow.use("accumulate")
flow.use("log")
run = flow.run([{"type": "response.output_text.delta", "delta": "hi"}, {"type": "response.completed", "response": {}}])
print(run.status, run.text, run[eventflow_plugins.Accumulate].text)
"""


def test_wheel_when_installed_in_a_clean_environment(installed: Path, tmp_path: Path) -> None:
    """Both packages import, and the bundled plugins are found by name, as a stranger's would be."""
    assert run(installed, "-W", "error", "-c", CODE, cwd=tmp_path).split() == ["completed", "hi", "hi"]


def test_command_when_its_extra_is_not_installed(installed: Path, tmp_path: Path) -> None:
    """Without the extra the command says what to install, and shows no traceback."""
    command = installed.parent / ("eventflow.exe" if sys.platform == "win32" else "eventflow")
    done = subprocess.run(
        [command, "plugins"], cwd=tmp_path, env=CLEAN, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode != 0
    assert "eventflow-stream[cli]" in done.stderr
    assert "Traceback" not in done.stderr
