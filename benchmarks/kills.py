"""Kills runs of `gdfq quantize` in every stage and goes on with them.

    python -m benchmarks.kills --output=docs/results/kills.json

A run is killed by SIGKILL at a random moment of a random stage, the same command is
given again, killed in a later stage, and so on, until it is let to its end. Then all
that it made must be what an unbroken run made, byte for byte, and nothing else may be
left. The signal goes to the supervisor, to the command's own process, as the system
kills for want of memory, or to both, as a power cut does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import rich.box
import rich.console
import rich.table
from absl import flags

from benchmarks import commands
from gdfq_tf import embedded
from gdfq_tf.system.output_files import write_whole

_ROOT = Path(__file__).parent.parent
_TARGETS = ("both", "command", "supervisor")
# A stage in which files are written comes after the last that tells of itself.
_WRITING = "writing"
_BEGUN = re.compile(r"([a-zA-Z ]+?)(?:: \d+ steps)?(?:, run [^=]*)?\n")
_ENDED = re.compile(r"([a-zA-Z ]+): \d+\.\d+ s\b.*\n")
# What differs between runs: seconds and latencies.
_WITH_TIMES = ("summary.json", "report.html", "events.out.tfevents")


def define_flags() -> commands.Flags:
    """Those of this benchmark."""
    defined = commands.Flags()
    defined.group("The benchmark")
    defined.string("model", "What is quantized; the embedded classifier if not given.")
    defined.integer("num_kills", 50, "Kills.", low=1)
    defined.integer("num_runs", 2, "Runs that they are shared among.", low=1)
    defined.integer("num_steps", None, "Generator steps, if not the recipe's.", low=1)
    defined.integer("seed", 0, "Of the moments.", low=0)
    defined.string("output", "JSON file of all kills.", required=True)
    return defined


def main(values: flags.FlagValues) -> None:
    """Kills, goes on, compares; writes a row for each kill and prints a table."""
    rng, output = random.Random(values.seed), Path(values.output)
    command = [
        *(sys.executable, "tools/quantize.py", "--num_threads=1"),
        f"--model={values.model or embedded.NAME}",
        *([f"--num_steps={values.num_steps}"] if values.num_steps else []),
    ]
    rows: list[dict] = []
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        folder = Path(name)
        stages = _unbroken(command, folder / "unbroken")
        expected = _digests(folder / "unbroken")
        for run in range(values.num_runs):
            directory = folder / str(run) / "run"
            count = len(range(run, values.num_kills, values.num_runs))
            moments = sorted(
                (rng.randrange(len(stages)), rng.random()) for _ in range(count)
            )
            kills = []
            for number, moment in enumerate(moments):
                target = _TARGETS[number % len(_TARGETS)]
                started = Run(command, directory)
                kills.append({"run": run} | _kill(started, stages, moment, target))
                print(f"{len(rows) + len(kills)}: {kills[-1]}", flush=True)
            faults = _faults_at_the_end(command, directory, expected)
            rows += [kill | {"faults": faults} for kill in kills]
            text = json.dumps({"stages": stages, "kills": rows}, indent=1) + "\n"
            write_whole(output, text.encode())
    rich.console.Console().print(_table(rows))
    harmed = [row for row in rows if row["faults"]]
    sys.exit(f"{len(harmed)} kills did harm: {harmed}" if harmed else 0)


class Run:
    """A running command, whose stages are known as they come.

    Attributes:
      directory: that it is to leave.
      process: the supervisor's.
    """

    def __init__(self, command: Sequence[str], directory: Path) -> None:
        """Starts it."""
        self.directory = directory
        directory.parent.mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            [*command, f"--output_dir={directory}"],
            cwd=_ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._told: list[str] = []
        stream = self.process.stderr or ()
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def stages(self) -> Iterator[tuple[str, bool]]:
        """Names of stages as they begin (True) and end, until all processes are gone.

        Writing, which tells nothing, begins when the evaluation ends.
        """
        while (line := self._lines.get()) is not None:
            if ended := _ENDED.fullmatch(line):
                yield ended[1], False
                if ended[1] == "evaluation":
                    yield _WRITING, True
            elif begun := _BEGUN.fullmatch(line):
                yield begun[1], True
        yield _WRITING, False

    def next_stage(self, seconds: float) -> bool:
        """Waits so long, or until something is told; whether it was."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self._lines.qsize():
                return True
            time.sleep(min(left, 0.005))
        return False

    def kill(self, target: str) -> None:
        """SIGKILL to the supervisor, the command or both; waits until all are gone."""
        children = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            command = [int(pid) for pid in Path(children).read_text().split()]
            of = {"supervisor": [self.process.pid], "command": command}
            for pid in of.get(target, [self.process.pid, *command]):
                os.kill(pid, signal.SIGKILL)
        for _ in self.stages():
            pass
        self.process.wait()

    def errors(self) -> str:
        """All that was written to standard error so far."""
        return "".join(self._told)

    def _read(self, stream: Iterable[str]) -> None:
        for line in stream:
            self._told.append(line)
            self._lines.put(line)
        self._lines.put(None)


def _unbroken(command: Sequence[str], directory: Path) -> list[tuple[str, float]]:
    """Makes the run that is compared with; its stages and their seconds."""
    run, found, begun = Run(command, directory), [], 0.0
    for name, begins in run.stages():
        if begins:
            begun = time.monotonic()
        else:
            found.append((name, round(time.monotonic() - begun, 3)))
    if run.process.wait() != 0:
        raise RuntimeError(f"the run fails unkilled: {run.errors()}")
    return found


def _kill(
    run: Run,
    stages: Sequence[tuple[str, float]],
    moment: tuple[int, float],
    target: str,
) -> dict[str, Any]:
    """Kills a run that has just begun, or goes on.

    Args:
      run: which.
      stages: of the unbroken run.
      moment: number of a stage, and which share of its time is to go by.
      target: who gets the signal.
    """
    place, worked_since = -1, time.time()
    number, share = moment
    for name, begins in run.stages():
        if name == "loading" and not begins:
            worked_since = time.time()
        if begins:
            names = [stage for stage, _ in stages]
            place = names.index(name, place + 1)
        if place >= number and begins:
            run.next_stage(share * stages[number][1])
            break
    killed = time.time()
    directory = run.directory
    states = directory.parent.glob(f".{directory.name}.state/*/*.state")
    saved = [path.stat().st_mtime for path in states]
    worked = place > _place_of(stages, "loading")
    lost = killed - max(worked_since, *saved, 0.0) if worked else 0.0
    finished = directory.exists()
    run.kill(target)
    return {
        "stage": stages[place][0],
        "place": place,
        "share": round(share, 3),
        "to": target,
        "seconds_lost": round(lost, 2),
        "too_late": finished,
    }


def _place_of(stages: Sequence[tuple[str, float]], name: str) -> int:
    return [stage for stage, _ in stages].index(name)


def _faults_at_the_end(
    command: Sequence[str], directory: Path, expected: dict[str, str]
) -> list[str]:
    """Goes on with a run until its end; what is not as it should be."""
    if not directory.exists():
        run = Run(command, directory)
        for _ in run.stages():
            pass
        if run.process.wait() != 0:
            return [f"it failed: {run.errors()}"]
    found = _digests(directory)
    names = sorted(expected.keys() | found.keys())
    faults = [name for name in names if expected.get(name) != found.get(name)]
    # Students that were kept when the command alone was killed stay, as documented.
    kept = f"{directory.name}-unfinished"
    left = (path.name for path in directory.parent.iterdir() if path != directory)
    return faults + [name for name in left if not name.startswith(kept)]


def _digests(directory: Path) -> dict[str, str]:
    """SHA-256 of what holds neither times nor latencies, by name."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.iterdir()
        if path.name not in _WITH_TIMES
    }


def _table(rows: Sequence[dict[str, Any]]) -> rich.table.Table:
    table = rich.table.Table(box=rich.box.SIMPLE_HEAVY)
    for title in ("stage", "kills", "equal", "lost at most"):
        table.add_column(title, justify="left" if title == "stage" else "right")
    for place in sorted({row["place"] for row in rows}):
        group = [row for row in rows if row["place"] == place]
        equal = sum(not row["faults"] for row in group)
        lost = max(row["seconds_lost"] for row in group)
        cells = (group[0]["stage"], str(len(group)), str(equal), f"{lost:.1f} s")
        table.add_row(*cells)
    return table


if __name__ == "__main__":
    commands.run(main, define_flags(), __doc__)
