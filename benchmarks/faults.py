"""What users see when something goes wrong: commands and the lines that they write.

    python -m benchmarks.faults --output=docs/results/faults.json

Each fault is really made: file systems that are full or read-only are mounted, which
takes root; processes are killed; files are damaged. Vela must not be installed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from benchmarks import commands
from gdfq_tf import embedded
from gdfq_tf.keras_compat import keras
from gdfq_tf.system.output_files import write_whole

_ROOT = Path(__file__).parent.parent
_TOLD = ("error: ", "warning: ", "note: ")
_OUTPUT = "runs/tiny"
# What the command's process runs, which is not the supervisor's.
_PROGRAM = """
from gdfq_tf.cli import main, runner

def run_module(name, values, run=runner.run_module):
    exec({fault!r}, {{}})
    run(name, values)

runner.run_module = run_module
main.main()
"""
# A value becomes NaN before the second step, as when memory fails.
_BROKEN_STEP = """
from {module} import {name} as make
import {module} as module

def broken(*args):
    step, variable, calls = make(*args), {variable}, []

    def run(*inputs):
        calls.append(inputs)
        if len(calls) == 2:
            variable.assign(variable * float("nan"))
        return step(*inputs)

    return run

module.{name} = broken
"""


class Place:
    """A folder to make faults in.

    Attributes:
      folder: where commands run.
    """

    def __init__(self, folder: Path) -> None:
        """Makes a small network there."""
        self.folder = folder
        _save_network(folder / "tiny.keras", seed=0)

    def start(self, *arguments: str, fault: str = "") -> subprocess.Popen[str]:
        """`gdfq ARGUMENTS`, in a process.

        Args:
          arguments: of the command.
          fault: Python that is run in it before the command's own.
        """
        program = _PROGRAM.format(fault=fault)
        (self.folder / "gdfq").write_text(program)
        return subprocess.Popen(
            [sys.executable, str(self.folder / "gdfq"), *arguments],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
        )

    def told(self, process: subprocess.Popen[str]) -> list[str]:
        """The lines about what is wrong, when a process has ended."""
        _, stderr = process.communicate()
        lines = [x for x in stderr.splitlines() if x.startswith(_TOLD)]
        return [line.replace(str(self.folder), "/home/me") for line in lines]

    def quantize(self, *arguments: str, model: str = "tiny.keras") -> tuple[str, ...]:
        """Arguments of the command that most faults come to."""
        named = {argument.partition("=")[0] for argument in arguments}
        defaults = {"--preprocessing": "tf", "--output_dir": _OUTPUT}
        if "--recipe" not in named:
            defaults["--num_steps"] = "2"
        more = [f"{k}={v}" for k, v in defaults.items() if k not in named]
        return ("quantize", model, *more, *arguments)

    def interrupted(self, number: int = signal.SIGKILL) -> list[str]:
        """Ends a run after its images have been made; what it told."""
        process = self.start(*self.quantize())
        states = self.folder / "runs" / ".tiny.state"
        while process.poll() is None and not list(states.glob("*/reconstruction*")):
            time.sleep(0.02)
        (os.killpg if number == signal.SIGKILL else os.kill)(process.pid, number)
        return self.told(process)


def define_flags() -> commands.Flags:
    """Those of this benchmark."""
    defined = commands.Flags()
    defined.group("The benchmark")
    defined.string("output", "JSON file of all faults.", required=True)
    return defined


def main(values: flags.FlagValues) -> None:
    """Makes all faults and writes what was told."""
    # Shells start background jobs with it ignored, which the runs would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rows: list[dict[str, Any]] = []
    for fault in FAULTS:
        with tempfile.TemporaryDirectory(prefix="faults-") as name:
            place = Place(Path(name))
            arguments, lines = fault(place)
        command = " ".join(["gdfq", *arguments]).replace(name, "/home/me")
        title = (fault.__doc__ or "").rstrip(".")
        rows.append({"fault": title, "command": command, "lines": lines})
        print(json.dumps(rows[-1], indent=1), flush=True)
        write_whole(Path(values.output), json.dumps(rows, indent=1).encode() + b"\n")


Told = tuple[tuple[str, ...], list[str]]


def _full_disk(place: Place) -> Told:
    """The disk is too small."""
    with _mounted(place.folder / "runs", "size=256k"):
        arguments = place.quantize()
        return arguments, place.told(place.start(*arguments))


def _disk_fills_up(place: Place) -> Told:
    """The disk becomes full while the run works."""
    with _mounted(place.folder / "runs", "size=64m"):
        arguments = place.quantize()
        process = place.start(*arguments)
        while process.poll() is None and not list(place.folder.glob("runs/.*.lock")):
            time.sleep(0.02)
        time.sleep(1.0)  # room has been looked at where the model has been read
        states = place.folder / "runs" / ".tiny.state"
        while process.poll() is None and not list(states.glob("*/generator*")):
            time.sleep(0.02)
        with (
            contextlib.suppress(OSError),
            (place.folder / "runs/big").open("wb") as big,
        ):
            while True:
                big.write(bytes(2**12))
        lines = place.told(process)
        for kept in Path(tempfile.gettempdir()).glob("tiny-*"):
            shutil.rmtree(kept)
        return arguments, lines


def _read_only(place: Place) -> Told:
    """The directory may not be written."""
    with _mounted(place.folder / "runs", "ro"):
        arguments = place.quantize()
        return arguments, place.told(place.start(*arguments))


def _interrupted(place: Place) -> Told:
    """Ctrl-C, or a kill by the user."""
    return place.quantize(), place.interrupted(signal.SIGINT)


def _killed(place: Place) -> Told:
    """A run goes on that was killed by SIGKILL."""
    place.interrupted()
    arguments = place.quantize()
    return arguments, place.told(place.start(*arguments))


def _corrupt_checkpoint(place: Place) -> Told:
    """What it left is damaged."""
    place.interrupted()
    (state,) = (place.folder / "runs").glob(".tiny.state/*/generator-*.state")
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    # Images that are refined need no generator.
    for refined in state.parent.glob("re*.state"):
        refined.unlink()
    arguments = place.quantize()
    return arguments, place.told(place.start(*arguments))


def _changed_model(place: Place) -> Told:
    """The model has changed since."""
    place.interrupted()
    _save_network(place.folder / "tiny.keras", seed=1)
    arguments = place.quantize()
    return arguments, place.told(place.start(*arguments))


def _changed_model_of_manifest(place: Place) -> Told:
    """The model is not that of the manifest."""
    place.told(place.start(*place.quantize("--bits=w8a8", "--recipe=calibrate")))
    _save_network(place.folder / "tiny.keras", seed=1)
    arguments = ("quantize", f"--from_manifest={_OUTPUT}", "--output_dir=runs/again")
    return arguments, place.told(place.start(*arguments))


def _not_a_number(place: Place) -> Told:
    """The model holds a weight that is no number."""
    return _quantized(place, kernel=float("nan"))


def _overflow(place: Place) -> Told:
    """Weights are so large that losses overflow."""
    return _quantized(place, kernel=1e30)


def _broken_generator(place: Place) -> Told:
    """A value becomes NaN while the generator is trained."""
    fault = _BROKEN_STEP.format(
        module="gdfq_tf.synthesis.generator_training",
        name="make_generator_step",
        variable="args[0].trainable_variables[0]",
    )
    arguments = place.quantize()
    return arguments, place.told(place.start(*arguments, fault=fault))


def _overflow_in_refinement(place: Place) -> Told:
    """The network overflows, and only on images that refinement comes to."""
    return _quantized(place, overflows_on_bright=True)


def _broken_student(place: Place) -> Told:
    """A value becomes NaN while the student is trained."""
    fault = _BROKEN_STEP.format(
        module="gdfq_tf.quantization.distillation",
        name="make_distillation_step",
        variable="args[1][0]",
    )
    arguments = place.quantize("--recipe=balanced", "--num_steps=2", "--bits=w4a4")
    return arguments, place.told(place.start(*arguments, fault=fault))


def _two_runs(place: Place) -> Told:
    """Another run writes the directory."""
    first = place.start(*place.quantize())
    while not (place.folder / "runs" / ".tiny.lock").exists():
        time.sleep(0.02)
    arguments = place.quantize()
    lines = place.told(place.start(*arguments))
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    return arguments, [line.replace(_process_in(line), "4711") for line in lines]


def _no_package(place: Place) -> Told:
    """A program that is optional is not installed, here Vela."""
    place.told(place.start(*place.quantize("--recipe=calibrate", "--bits=w8a8")))
    arguments = (
        "benchmark",
        f"{_OUTPUT}/tiny_w8a8.tflite",
        "--device=ethos-u55-128",
    )
    return arguments, place.told(place.start(*arguments))


def _wrong_preprocessing(place: Place) -> Told:
    """The preprocessing is not the one that the model was trained with."""
    shutil.copy(embedded.MODEL_PATH, place.folder / "trained.keras")
    arguments = place.quantize("--preprocessing=uint8", model="trained.keras")
    return arguments, place.told(place.start(*arguments))


FAULTS: tuple[Callable[[Place], Told], ...] = (
    _full_disk,
    _disk_fills_up,
    _read_only,
    _interrupted,
    _killed,
    _corrupt_checkpoint,
    _changed_model,
    _changed_model_of_manifest,
    _not_a_number,
    _overflow,
    _broken_generator,
    _overflow_in_refinement,
    _broken_student,
    _two_runs,
    _no_package,
    _wrong_preprocessing,
)


def _process_in(line: str) -> str:
    return line.split("process ")[1].split(";")[0]


@contextlib.contextmanager
def _mounted(folder: Path, options: str) -> Iterator[None]:
    """A file system in memory at a folder."""
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "faults", str(folder)], check=True
    )
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _quantized(
    place: Place, *, kernel: float | None = None, overflows_on_bright: bool = False
) -> Told:
    """What is told of such a network, see `_save_network`."""
    _save_network(
        place.folder / "tiny.keras",
        seed=0,
        kernel=kernel,
        overflows_on_bright=overflows_on_bright,
    )
    arguments = place.quantize()
    return arguments, place.told(place.start(*arguments))


def _save_network(
    path: Path,
    *,
    seed: int,
    kernel: float | None = None,
    overflows_on_bright: bool = False,
) -> None:
    """A convolution with BatchNormalization and a dense layer, of random weights.

    Args:
      path: of the file.
      seed: of the weights.
      kernel: what the dense layer's is full of in their place.
      overflows_on_bright: whether a large power of the mean brightness goes into the
        dense layer too, above that of the images which loading looks at.
    """
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    image = keras.Input((8, 8, 3))
    normalization, dense = layers.BatchNormalization(), layers.Dense(3)
    maps = layers.ReLU()(normalization(layers.Conv2D(4, 3)(image)))
    features = layers.GlobalAveragePooling2D()(maps)
    if overflows_on_bright:
        bright = layers.Dense(1)
        power = layers.ReLU()(bright(layers.GlobalAveragePooling2D()(image)))
        bright.kernel.assign(np.full((3, 1), 1e15))
        bright.bias.assign([-3 * 0.45 * 1e15])
        power = layers.Multiply()([power] * 2)
        power = layers.Multiply()([power] * 2)
        features = layers.Concatenate()([features, power])
    logits = dense(features)
    normalization.moving_mean.assign([0.1, -0.1, 0.2, 0.0])
    normalization.moving_variance.assign([0.5, 0.6, 0.7, 0.8])
    if kernel is not None:
        dense.kernel.assign(np.full(dense.kernel.shape, kernel))
    keras.Model(image, logits, name="tiny").save(path)


if __name__ == "__main__":
    commands.run(main, define_flags(), __doc__, bare="output")
