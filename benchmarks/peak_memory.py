"""Memory that `gdfq quantize` takes for keras.applications, beside what it estimates.

    python -m benchmarks.peak_memory --output=docs/results/peak_memory.json

Each family is built with random weights, 1,000 classes and large images, saved, and
quantized by a command of its own, so that peaks are its own. Few steps of training are
taken: memory is as after many. Families that --output has already are left out.

`--checkout=FOLDER` measures the code of another version in the same way.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from absl import flags

from benchmarks import commands
from benchmarks.conformance import (
    FAMILIES,
    build_application,
    layers_of,
    library_of,
)
from benchmarks.pages import ROOT
from gdfq_tf.config import DEFAULT_RECIPE, RECIPES, get_recipe, parse_bit_widths
from gdfq_tf.errors import UserError, option
from gdfq_tf.frontend.load import Interpretation, translate_classifier
from gdfq_tf.memory_needs import memory_needs
from gdfq_tf.model_files.readers import SourceModel

_NUM_CLASSES, _SIZE = 1000, 224
# Of those that are measured at their smallest.
_SIZES = {"InceptionResNetV2": FAMILIES["InceptionResNetV2"]}
# For BatchNormalization statistics.
_NUM_IMAGES = 8
_NUM_STEPS = 1
_SECONDS_BETWEEN_LOOKS = 0.05
_MIB = 2**20
# What the command prints where a stage begins, and where loading has ended.
_BEGIN = re.compile(r"([a-zA-Z ]+)(: \d+ steps)?(, run .*)?\n")
_LOADED = "loading: "


def resident_mib(field: str, process: int | str = "self") -> float:
    """A size of a process, 0 if it has ended.

    Args:
      field: "VmRSS", the size now, or "VmHWM", the largest since the last reset.
      process: its number.
    """
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    sizes = dict(line.split(":", 1) for line in lines)
    return int(sizes.get(field, "0 kB").removesuffix("kB")) / 1024


def reset_peak(process: int | str = "self") -> None:
    """Lets "VmHWM" begin anew."""
    Path(f"/proc/{process}/clear_refs").write_text("5")


def define_flags() -> commands.Flags:
    """Those of this benchmark."""
    defined = commands.Flags()
    defined.group("The benchmark")
    defined.texts("families", list(FAMILIES), "Names of keras.applications.")
    defined.choice("recipe", DEFAULT_RECIPE, list(RECIPES), "As of gdfq quantize.")
    defined.texts("bits", "w8a8,w4a8", "Widths, as of gdfq quantize.")
    defined.string("checkout", "Folder of the code to measure; this one if not given.")
    defined.integer(
        "most_gib", 12, "Runs that take more are not begun, or ended.", low=1
    )
    defined.string("output", "The .json file, extended row by row.", required=True)
    return defined


@dataclasses.dataclass(frozen=True)
class Application:
    """A network to measure.

    Attributes:
      file: that holds it.
      size: height and width of its images.
      num_parameters: of it.
      needs: bytes by stage, as `memory_needs` tells.
      has_bn_statistics: whether it has any.
    """

    file: Path
    size: int
    num_parameters: int
    needs: dict[str, float]
    has_bn_statistics: bool


def main(values: flags.FlagValues) -> None:
    """Measures the families one by one."""
    if unknown := sorted({*values.families} - FAMILIES.keys()):
        raise UserError(
            f"{option('families')} names {unknown[0]}; expected some of "
            f"{', '.join(FAMILIES)}"
        )
    output = Path(values.output)
    rows = commands.read_rows(output)
    for family in values.families:
        if family in [row["model"] for row in rows]:
            continue
        with tempfile.TemporaryDirectory() as folder:
            rows.append(_row(family, Path(folder), values))
        print(rows[-1], flush=True)
        commands.write_rows(output, rows)


def _row(family: str, folder: Path, values: flags.FlagValues) -> commands.Row:
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:  # what it takes is not this process'
        made = pool.apply(build, (family, folder, values.recipe, values.bits))
    stage, needed = max(made.needs.items(), key=lambda item: item[1])
    row = {
        "model": family,
        "recipe": values.recipe,
        "seed": 0,
        "bits": ",".join(values.bits),
        "size": made.size,
        "parameters": made.num_parameters,
        "estimated_mib": round(needed / _MIB),
        "estimated_stage": stage,
    }
    checkout, most_mib = Path(values.checkout or ROOT), 1024 * values.most_gib
    if row["estimated_mib"] > most_mib:
        return row
    command = [
        *(sys.executable, str(checkout / "tools" / "quantize.py")),
        *(str(made.file), "--preprocessing=uint8", f"--recipe={values.recipe}"),
        *(f"--bits={row['bits']}", f"--num_steps={_NUM_STEPS}"),
        f"--output_dir={folder / 'run'}",
    ]
    if not made.has_bn_statistics:
        command.append("--without_bn_statistics")
    return {**row, **measure(command, checkout, most_mib)}


def build(family: str, folder: Path, recipe: str, bits: list[str]) -> Application:
    """Builds an application, saves it and estimates its memory."""
    library, size = library_of(family), _SIZES.get(family, _SIZE)
    model = build_application(library, family, size, _NUM_CLASSES, _NUM_IMAGES)
    has_bn_statistics = bool(layers_of(model, "BatchNormalization"))
    file = folder / f"{family.lower()}.keras"
    model.save(file)
    interpretation = Interpretation(
        preprocessing="uint8", without_bn_statistics=not has_bn_statistics
    )
    source = SourceModel(family.lower(), model)
    classifier = translate_classifier(source, interpretation).classifier
    needs = memory_needs(
        classifier.model, get_recipe(recipe), [parse_bit_widths(text) for text in bits]
    )
    num_parameters = classifier.model.count_params()
    return Application(file, size, num_parameters, dict(needs), has_bn_statistics)


def measure(command: list[str], checkout: Path, most_mib: float) -> commands.Row:
    """Runs a command and watches its memory.

    Args:
      command: of `gdfq quantize`.
      checkout: the folder of its code.
      most_mib: it is ended if it takes more.

    Returns:
      "peak_mib", the largest of any of its processes, in "peak_stage"; "loaded_mib",
      what it had once it had loaded; "stages", each with its peak; "ended", whether it
      took too much.

    Raises:
      UserError: it failed.
    """
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(checkout)},
    )
    watched = _Watched(process.pid)
    reader = threading.Thread(target=watched.read, args=(process.stderr,))
    reader.start()
    ended = False
    while process.poll() is None:
        if watched.look() > most_mib:
            for number in watched.processes()[::-1]:
                os.kill(number, 9)
            ended = True
        threading.Event().wait(_SECONDS_BETWEEN_LOOKS)
    reader.join()
    if process.returncode and not ended:
        raise UserError(f"{' '.join(command)} failed: {watched.last_line}")
    stage, peak = max(watched.peaks, key=lambda item: item[1])
    return {
        "peak_mib": round(peak),
        "peak_stage": stage,
        "loaded_mib": round(watched.loaded),
        "stages": [[name, round(most)] for name, most in watched.peaks],
        "ended": ended,
    }


class _Watched:
    """A command, stage by stage.

    Attributes:
      peaks: each stage so far and its peak, MiB, the largest of its processes.
      loaded: MiB when the classifier was there.
      last_line: of its log.
    """

    def __init__(self, pid: int) -> None:
        self.peaks: list[tuple[str, float]] = [("start", 0.0)]
        self.loaded = 0.0
        self.last_line = ""
        self._pid = pid

    def read(self, log: Iterator[str]) -> None:
        """Follows the log to its end."""
        for line in log:
            self.last_line = line.strip()
            if line.startswith(_LOADED):
                self.loaded = self._largest("VmRSS")
            if begun := _BEGIN.fullmatch(line):
                self.look()
                for number in self.processes():
                    reset_peak(number)
                self.peaks.append((begun[1], 0.0))

    def look(self) -> float:
        """Notes the peak of the current stage and returns it."""
        stage, before = self.peaks[-1]
        peak = max(before, self._largest("VmHWM"))
        self.peaks[-1] = stage, peak
        return peak

    def processes(self) -> list[int]:
        """The command's and those that it started, each behind its parent."""
        found = [self._pid]
        for number in found:  # grows meanwhile
            for children in Path(f"/proc/{number}/task").glob("*/children"):
                found += [int(child) for child in children.read_text().split()]
        return found

    def _largest(self, field: str) -> float:
        return max(resident_mib(field, number) for number in self.processes())


if __name__ == "__main__":
    commands.run(main, define_flags(), __doc__, bare="families")
