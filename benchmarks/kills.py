"""Kills runs of tools/quantize.py at every moment and looks at what is left.

    python -m benchmarks.kills --output=docs/results/kills.json

A small network is quantized, to a new directory and over an earlier run in turn, and
the run is killed: at any moment, at one since the first file was saved, or while it is
being written and put in its place. Signals go to the supervisor, as `kill` sends them,
to the command's own process, as the system kills for want of memory, or to both, as a
terminal does. Then the directory must hold the earlier run, the new one or, where there
was none, nothing; the same command must succeed; and it must leave nothing else.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import gdfq_tf.cli.quiet_tensorflow  # noqa: F401
import numpy as np
import rich.box
import rich.console
import rich.table
from absl import flags
from gdfq_tf.cli.output_files import write_whole

from gdfq_tf.cli import runner
from gdfq_tf.cli.runner import EXIT_ERROR
from gdfq_tf.keras_compat import keras

FLAGS = flags.FLAGS
flags.DEFINE_integer("num_kills", 100, "Runs to kill.", lower_bound=1)
flags.DEFINE_integer("num_jobs", 2, "Runs at a time.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Of the moments.")
flags.DEFINE_string("output", None, "JSON file for one row per kill.", required=True)

_ROOT = Path(__file__).parent.parent
_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_TARGETS = ("supervisor", "command", "both")
_MOMENTS = ("any", "saving", "writing")
# Seconds after a file has been seen: until the run's end, and until it is in its place.
_LONGEST_DELAY = {"saving": 4.0, "writing": 0.08}
_EARLIER_SEED, _NEW_SEED = 1, 2


def main() -> None:
    """Kills, looks, runs again; writes a row for each and prints a table."""
    # Shells start background jobs with it ignored, which the runs would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rng = random.Random(FLAGS.seed)
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        folder = Path(name)
        model = folder / "tiny.keras"
        _save_network(model)
        earlier = folder / "earlier"
        started = time.monotonic()
        done = _finish(_start(model, earlier, folder, seed=_EARLIER_SEED))
        if done[0] != 0:
            raise RuntimeError(f"the run fails unkilled: {done}")
        seconds = time.monotonic() - started
        plans = [
            {
                "signal": _SIGNALS[number % 3].name,
                "to": _TARGETS[number // 3 % 3],
                "moment": rng.choice(_MOMENTS),
                "over_earlier_run": bool(number // 9 % 2),
                "delay": rng.random(),
            }
            for number in range(FLAGS.num_kills)
        ]

        def carry_out(number: int) -> dict:
            workplace, plan = folder / str(number), plans[number]
            row = plan | _kill_and_look(model, earlier, workplace, plan, seconds)
            shutil.rmtree(workplace)
            print(f"{number + 1}: {row}", flush=True)
            return row

        with concurrent.futures.ThreadPoolExecutor(FLAGS.num_jobs) as pool:
            rows = list(pool.map(carry_out, range(len(plans))))
    write_whole(Path(FLAGS.output), json.dumps(rows, indent=1).encode() + b"\n")
    rich.console.Console().print(_table(rows))
    faults = [row for row in rows if row["faults"]]
    sys.exit(f"{len(faults)} kills did harm: {faults}" if faults else 0)


def _kill_and_look(
    model: Path,
    earlier: Path,
    workplace: Path,
    plan: dict,
    seconds: float,
) -> dict:
    """One kill and what it left, then a run that is not killed."""
    (workplace / "tmp").mkdir(parents=True)
    runs = workplace / "runs"
    runs.mkdir()
    directory = runs / "run"
    if plan["over_earlier_run"]:
        shutil.copytree(earlier, directory)
    process = _start(model, directory, workplace, seed=_NEW_SEED, overwrite=True)
    started = time.monotonic()
    with contextlib.suppress(TimeoutError):  # it ended before
        _wait_for_moment(plan, process, runs, seconds)
    killed_after = time.monotonic() - started
    _send(signal.Signals[plan["signal"]], plan["to"], process)
    code, stderr = _finish(process)
    found = _what_is_at(directory)
    left = sorted(path.name for path in runs.iterdir() if path != directory)
    allowed = {"new", "earlier" if plan["over_earlier_run"] else "nothing"}
    faults = [] if found in allowed else [f"{found} is at the directory"]
    error = [line for line in stderr.splitlines() if line.startswith("error: ")]
    if code not in _exit_codes(signal.Signals[plan["signal"]], plan["to"]):
        faults.append(f"exit code {code}")
    # A killed supervisor says nothing.
    if "Traceback" in stderr or len(error) != (code > 0):
        faults.append("not one line of error")
    again = _finish(_start(model, directory, workplace, seed=_NEW_SEED, overwrite=True))
    if again[0] != 0 or _what_is_at(directory) != "new":
        faults.append(f"the next run ended with {again}")
    kept = {name for name in left if name.startswith("run-")}
    still = {path.name for path in runs.iterdir()} - {"run"} - kept
    still |= {path.name for path in (workplace / "tmp").iterdir()}
    if still:
        faults.append(f"the next run left {sorted(still)}")
    return {
        "seconds": round(killed_after, 3),
        "exit_code": code,
        "error": error[-1].replace(str(workplace), "") if error else None,
        "found": found,
        "left": [name.replace(str(process.pid), "PID") for name in left],
        "faults": faults,
    }


def _start(
    model: Path, directory: Path, workplace: Path, *, seed: int, overwrite: bool = False
) -> subprocess.Popen:
    temporary = workplace / "tmp"
    temporary.mkdir(exist_ok=True)
    return subprocess.Popen(
        [
            sys.executable,
            "tools/quantize.py",
            f"--model={model}",
            "--preprocessing=tf",
            "--recipe=calibrate",
            "--bits=w8a8",
            f"--seed={seed}",
            f"--output_dir={directory}",
            f"--overwrite={overwrite}",
        ],
        cwd=_ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _finish(process: subprocess.Popen) -> tuple[int, str]:
    """Exit code and standard error, when no process of the run lives any more.

    The command holds the other end of standard error until it is gone.
    """
    _, stderr = process.communicate()
    return process.returncode, stderr


def _wait_for_moment(
    plan: dict, process: subprocess.Popen, runs: Path, seconds: float
) -> None:
    """Raises TimeoutError if the run ends before."""
    delay = plan["delay"] * (_LONGEST_DELAY | {"any": seconds})[plan["moment"]]
    if plan["moment"] != "any":
        pattern = {"saving": "*", "writing": "*.tflite"}[plan["moment"]]
        while not any(runs.glob(f".run.partial-*/{pattern}")):
            if process.poll() is not None:
                raise TimeoutError
            time.sleep(0.001)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(delay)


def _send(number: signal.Signals, to: str, process: subprocess.Popen) -> None:
    if process.poll() is not None:
        return
    commands = list(_children(process.pid))
    targets: Sequence[int] = {
        "supervisor": [process.pid],
        "command": commands or [process.pid],
        "both": [*commands, process.pid],
    }[to]
    for target in targets:
        with contextlib.suppress(ProcessLookupError):
            os.kill(target, number)


def _exit_codes(number: signal.Signals, to: str) -> set[int]:
    """Of a run that was killed, and of one that was so no more."""
    if number != signal.SIGKILL:
        return {0, 128 + number}
    return {0, EXIT_ERROR if to == "command" else -number}


def _children(process: int) -> Iterator[int]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        yield from map(
            int, Path(f"/proc/{process}/task/{process}/children").read_text().split()
        )


def _what_is_at(directory: Path) -> str:
    """`nothing`, `earlier`, `new`, or what is wrong."""
    if not os.path.lexists(directory):
        return "nothing"
    try:
        summary = json.loads((directory / "summary.json").read_text())
        for row in summary["models"]:
            content = (directory / row["file"]).read_bytes()
            if hashlib.sha256(content).hexdigest() != row["sha256"]:
                return f"a damaged {row['file']}"
        with np.load(directory / "synthetic.npz") as images:
            is_whole = images["pixels"].size > 0
        with np.load(directory / "tiny_w8a8_student.npz") as student:
            is_whole &= bool(student.files)
        count = len(list(directory.iterdir()))
        if not is_whole or count != len(summary["models"]) + 3:
            return f"half a run ({count} files)"
    except Exception as error:
        return f"half a run ({error!r})"
    return {_EARLIER_SEED: "earlier", _NEW_SEED: "new"}[summary["seed"]]


def _save_network(path: Path) -> None:
    """A convolution with BatchNormalization and a dense layer, of random weights."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((8, 8, 3))
    maps = layers.Conv2D(4, 3)(image)
    normalization = layers.BatchNormalization()
    maps = layers.ReLU()(normalization(maps))
    logits = layers.Dense(3)(layers.GlobalAveragePooling2D()(maps))
    normalization.moving_mean.assign([0.1, -0.1, 0.2, 0.0])
    normalization.moving_variance.assign([0.5, 0.6, 0.7, 0.8])
    keras.Model(image, logits, name="tiny").save(path)


def _table(rows: Sequence[dict]) -> rich.table.Table:
    table = rich.table.Table(box=rich.box.SIMPLE_HEAVY)
    found = ("nothing", "earlier", "new")
    for name in ("signal", "over an earlier run"):
        table.add_column(name)
    for name in ("kills", "too late", *found, "faults"):
        table.add_column(name, justify="right")
    groups = collections.defaultdict(list)
    for row in rows:
        groups[row["signal"], row["over_earlier_run"]].append(row)
    for (name, over), group in groups.items():
        counts = [sum(row["found"] == what for row in group) for what in found]
        too_late = sum(row["exit_code"] == 0 for row in group)
        faults = sum(bool(row["faults"]) for row in group)
        numbers = [len(group), too_late, *counts, faults]
        table.add_row(name, "yes" if over else "no", *map(str, numbers))
    return table


if __name__ == "__main__":
    runner.run(main)
