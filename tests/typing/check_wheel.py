"""Check the typing tests as a user's checkers see them: against the built wheel, installed in a venv of its own.

Checkers do not see the second package of an editable install, and they find every module of a source tree, packaged or
not.  Here they see what the wheel holds, ``py.typed`` included.  ``make types`` runs this from the development venv.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

HERE = Path(__file__).resolve()
ROOT = HERE.parents[2]
PYRIGHT = {
    "typeCheckingMode": "strict",
    "enableTypeIgnoreComments": False,
    "reportUnnecessaryTypeIgnoreComment": "error",
}


def main() -> int:
    """Build, install, check; the exit status is 0 when both checkers are content."""
    sources = [path for path in sorted(HERE.parent.glob("*.py")) if path != HERE]
    if not sources:
        print(f"no typing tests in {HERE.parent.relative_to(ROOT)}")
        return 1
    with tempfile.TemporaryDirectory(prefix="eventflow-types-") as folder:
        work = Path(folder)
        python = install(build(work / "dist"), work / "venv")
        cases = work / "cases"
        cases.mkdir()
        for source in sources:
            shutil.copy(source, cases)
        (cases / "pyrightconfig.json").write_text(json.dumps(PYRIGHT), encoding="utf-8")
        (cases / "mypy.ini").write_text("[mypy]\nstrict = True\nwarn_unreachable = True\n", encoding="utf-8")
        names = [source.name for source in sources]
        print(f"The typing tests against the wheel: {' '.join(names)}", flush=True)
        checks = (
            [sys.executable, "-m", "mypy", "--python-executable", str(python), *names],
            [sys.executable, "-m", "pyright", "--pythonpath", str(python)],
        )
        return max([subprocess.run(check, cwd=cases, check=False).returncode for check in checks])


def build(folder: Path) -> Path:
    """Build the wheel through an sdist, so that leftovers in ``build/`` cannot get in."""
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout}\nthe wheel cannot be built: python -m build ended with status {done.returncode}")
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path) -> Path:
    """Install *wheel* and what it requires into a new venv; its interpreter."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel], check=True)
    return python


if __name__ == "__main__":
    sys.exit(main())
