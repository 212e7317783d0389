"""The built wheel, and environments of their own to install it in: what a user has, without a path into the tree."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

__all__ = ["CLEAN", "ROOT", "UNMEASURED", "environment", "run", "wheel_in"]

ROOT = Path(__file__).parents[1]
OFFLINE = (  # what pip says where it reaches no index
    "NewConnectionError",
    "ConnectTimeoutError",
    "ProxyError",
    "Temporary failure in name resolution",
    "No matching distribution found for setuptools",
)
NEEDED = ("eventflow", "plugins", "pyproject.toml", "setup.cfg", "README.md", "LICENSE")
UNMEASURED = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
"""The environment for processes whose coverage is not measured, which would take them twice the time and the memory."""
CLEAN = {name: value for name, value in UNMEASURED.items() if not name.startswith("PYTHON")}  # no path into the tree


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """What the command prints; its whole output in the failure when it fails. Skips where pip can reach no index."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=CLEAN | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode and any(sign in done.stdout for sign in OFFLINE):
        pytest.skip("pip reaches no index: nothing can be built or installed")
    assert done.returncode == 0, done.stdout
    return done.stdout


def wheel_in(shared: Path) -> Path:
    """The wheel in a folder that several processes may share: the first one builds it, the others wait for it."""
    folder = shared / "wheel"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed
        built = next(folder.glob("*.whl"), None)
        return _build(folder) if built is None else built


def _build(folder: Path) -> Path:
    """The wheel, built from a copy of the tree: nothing is left behind here, nothing left here gets in."""
    tree = folder / "tree"
    shutil.rmtree(tree, ignore_errors=True)  # of somebody who could not build it
    tree.mkdir()
    for name in NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(ROOT / name, tree / name)
    if importlib.util.find_spec("build") is not None:
        run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, tree, cwd=folder)
    elif importlib.util.find_spec("pip") is not None:
        run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, tree, cwd=folder)
    else:
        pytest.skip("neither build nor pip is installed: the wheel cannot be built")
    (found,) = folder.glob("*.whl")
    return found


def environment(folder: Path, *requirements: str | Path) -> Path:
    """The interpreter of a new environment with *requirements*, and what they require."""
    shared = importlib.util.find_spec("pip") is not None  # a pip of its own takes longer than all the rest
    venv.create(folder / "venv", with_pip=not shared)
    python = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    pip = (sys.executable, "-m", "pip", "--python", python) if shared else (python, "-m", "pip")
    run(*pip, "--quiet", "--disable-pip-version-check", "install", *requirements, cwd=folder)
    return python
