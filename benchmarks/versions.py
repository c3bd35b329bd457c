"""Tries the package with the oldest, the newest and other versions of what it needs.

    python -m benchmarks.versions --output=docs/results/versions.json

The wheel is built from the checkout and installed into a new environment for each
combination, where benchmarks/versions_trial.py uses it from another folder. "oldest" is
the lower bound of every requirement in pyproject.toml, so none of them is a guess;
elsewhere pip takes the newest versions that go together. On Python 3.12, 2.19 is the
oldest TensorFlow.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import rich.box
import rich.console
import rich.markup
import rich.table
from absl import app, flags

from benchmarks.wheel import build_wheel, lower_bounds
from gdfq_tf.system.output_files import write_whole

_ROOT = Path(__file__).parent.parent
_TRIAL = Path(__file__).with_name("versions_trial.py")
_NUM_ERROR_LINES = 5


@dataclasses.dataclass(frozen=True)
class Combination:
    """One environment.

    Attributes:
      name: to ask for it.
      python: minor version.
      constraints: as pip reads them; None: the lower bound of every requirement.
    """

    name: str
    python: str
    constraints: Sequence[str] | None


_COMBINATIONS = (
    Combination("oldest", "3.10", None),
    Combination("2.17", "3.11", ("tensorflow==2.17.*",)),
    Combination("2.18", "3.11", ("tensorflow==2.18.*",)),
    Combination("2.19", "3.12", ("tensorflow==2.19.*",)),
    Combination("2.20", "3.10", ("tensorflow==2.20.*",)),
    Combination("newest", "3.12", ()),
)

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "python",
    ["python3.10", "python3.11", "python3.12"],
    "Interpreters; a combination takes the one of its version.",
)
flags.DEFINE_multi_enum(
    "combinations",
    [combination.name for combination in _COMBINATIONS],
    [combination.name for combination in _COMBINATIONS],
    "Which ones, by name; the default is all.",
)
flags.DEFINE_string("output", None, "JSON file for one row each.", required=True)


def main(_: list[str]) -> None:
    """Tries each, one at a time; writes the rows after each and prints a table."""
    interpreters = {_minor_version(path): path for path in FLAGS.python}
    rows = []
    with tempfile.TemporaryDirectory(prefix="versions-") as name:
        wheel = build_wheel(_ROOT, Path(name))
        for combination in _COMBINATIONS:
            if combination.name not in FLAGS.combinations:
                continue
            folder = Path(name, combination.name)
            folder.mkdir()
            python = interpreters[combination.python]
            rows.append(_try(combination, python, wheel, folder))
            shutil.rmtree(folder)
            print(rows[-1], flush=True)
            content = json.dumps(rows, indent=1).encode() + b"\n"
            write_whole(Path(FLAGS.output), content)
    rich.console.Console().print(_table(rows))
    sys.exit(any(row["error"] for row in rows))


def _try(combination: Combination, python: str, wheel: Path, folder: Path) -> dict:
    """One row; `error` is None or the last lines of what failed."""
    started = time.monotonic()
    constraints = combination.constraints
    if constraints is None:
        constraints = lower_bounds(wheel, combination.python)
    row = {"name": combination.name, "python": combination.python, "error": None}
    environment, work = folder / "environment", folder / "work"
    work.mkdir()
    trial = shutil.copy(_TRIAL, folder)
    installed = environment / "bin" / "python"
    steps: tuple[list[str | Path], ...] = (
        [python, "-m", "venv", environment],
        [installed, "-m", "pip", "install", "-q", "--no-compile", wheel, *constraints],
        [installed, trial],
    )
    for step in steps:
        # Nothing of the checkout is to be found by way of the caller's variables.
        variables = {**os.environ, "PYTHONPATH": "", "CUDA_VISIBLE_DEVICES": "-1"}
        done = subprocess.run(
            step, cwd=work, env=variables, capture_output=True, text=True
        )
        if done.returncode:
            lines = (done.stdout + done.stderr).strip().splitlines()
            row["error"] = "\n".join(lines[-_NUM_ERROR_LINES:])
            break
    else:
        row |= json.loads(done.stdout.splitlines()[-1])
    return row | {"seconds": round(time.monotonic() - started)}


def _minor_version(python: str) -> str:
    """Such as 3.11, of an interpreter's path."""
    code = "import sys; print('{}.{}'.format(*sys.version_info))"
    return subprocess.run(
        [python, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


def _table(rows: list[dict]) -> rich.table.Table:
    packages = sorted({name for row in rows for name in row.get("versions", {})})
    table = rich.table.Table("combination", box=rich.box.SIMPLE_HEAVY)
    for name in (*packages, "outcome"):
        table.add_column(name)
    for row in rows:
        versions = row.get("versions", {})
        exact = row.get("exact", {}).items()
        table.add_row(
            row["name"],
            *(versions.get(name, "") for name in packages),
            rich.markup.escape(
                row["error"]
                or ", ".join(f"{name} {share:.0%} exact" for name, share in exact)
            ),
        )
    return table


if __name__ == "__main__":
    app.run(main)
