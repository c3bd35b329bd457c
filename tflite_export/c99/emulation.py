"""Firmware measured on Cortex-M processors, in QEMU.

It needs a compiler and an emulator, see `TOOLS`. QEMU counts one instruction for each
nanosecond of its clock; SysTick, which the measured program reads after each step of
the network, has one tick in 40 of them, or 31.25 on the machine with a Cortex-M55,
whose memory is too small for large networks.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import math
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tflite_export.c99.firmware import Description, Firmware, make_firmware
from tflite_export.errors import ExportError
from tflite_export.integer_network import IntegerNetwork
from tflite_export.programs import run_program
from tflite_export.tensor_shapes import tensor_shapes

TOOLS = ("arm-none-eabi-gcc", "arm-none-eabi-size", "qemu-system-arm")
_INSTALL = (
    "Debian's packages gcc-arm-none-eabi, picolibc-arm-none-eabi and qemu-system-arm "
    "have all of it"
)
_NUM_TESTS = 8
_FEW_TESTS = 2  # of networks of so many multiply-adds, as QEMU takes minutes for them
_MANY_MULTIPLY_ADDS = 10_000_000
_WARNINGS = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-O2", "-mthumb"]
_LONGEST_CALL = 600  # seconds


@dataclasses.dataclass(frozen=True)
class Processor:
    """What programs are compiled for and run on.

    Attributes:
      flags: of the compiler.
      machine: of QEMU.
      memory: bytes of it that programs may have, and as many of RAM.
      tick: instructions of one tick of SysTick, which follow from its clock.
    """

    flags: tuple[str, ...]
    machine: str
    memory: int = 4 << 20
    tick: float = 40.0


PROCESSORS: Mapping[str, Processor] = {
    "cortex-m0": Processor(("-mcpu=cortex-m0",), "mps2-an385"),
    "cortex-m3": Processor(("-mcpu=cortex-m3",), "mps2-an385"),
    "cortex-m4": Processor(
        ("-mcpu=cortex-m4", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"), "mps2-an386"
    ),
    "cortex-m7": Processor(
        ("-mcpu=cortex-m7", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16"), "mps2-an500"
    ),
    "cortex-m55": Processor(
        ("-mcpu=cortex-m55", "-mfloat-abi=hard"), "mps3-an547", 512 << 10, 31.25
    ),
}


@dataclasses.dataclass(frozen=True)
class StepFigures:
    """What one step of a network takes.

    Attributes:
      name: of the operation; `kind` of the same.
      instructions: for one input.
      multiply_adds: likewise; 0 of operations without a kernel.
    """

    name: str
    kind: str
    instructions: int
    multiply_adds: int


@dataclasses.dataclass(frozen=True)
class FirmwareFigures:
    """What firmware takes of a processor.

    Attributes:
      processor: a key of `PROCESSORS`.
      flash_bytes: code and constants of the network, not of the rest of a program.
      arena_bytes: memory of its tensors.
      arena_lower_bound: what they need at one time.
      steps: one after the other.
      num_inputs: that were tried.
      num_wrong: of these, those with other outputs than the simulation's.
    """

    processor: str
    flash_bytes: int
    arena_bytes: int
    arena_lower_bound: int
    steps: tuple[StepFigures, ...]
    num_inputs: int
    num_wrong: int

    @property
    def instructions(self) -> int:
        """For one input."""
        return sum(step.instructions for step in self.steps)

    @property
    def multiply_adds(self) -> int:
        """For one input."""
        return sum(step.multiply_adds for step in self.steps)

    def to_dict(self) -> dict[str, Any]:
        """All of it by name, ready for JSON."""
        return {
            **dataclasses.asdict(self),
            "instructions": self.instructions,
            "multiply_adds": self.multiply_adds,
        }


def measure_firmware(
    network: IntegerNetwork, name: str, processor: str
) -> FirmwareFigures:
    """Compiles a network's firmware with a compiler of its own and runs it in QEMU.

    Args:
      network: for LiteRT's arithmetic.
      name: of it.
      processor: a key of `PROCESSORS`.

    Raises:
      ExportError: a tool is missing, or fails.
    """
    for tool in TOOLS:
        if shutil.which(tool) is None:
            raise ExportError(f"{tool} is not installed; {_INSTALL}")
    counts = _multiply_adds(network)
    large = sum(counts.values()) > _MANY_MULTIPLY_ADDS
    num_tests = _FEW_TESTS if large else _NUM_TESTS
    images = np.random.default_rng(0).integers(
        -128, 128, (num_tests, *network.input_shape)
    )
    made = make_firmware(network, Description(name), images.astype(np.int8))
    device = PROCESSORS[processor]
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        for file, text in made.files.items():
            (folder / file).write_text(text)
        (folder / "measured.c").write_text(_with_ends_of_steps(made))
        (folder / "measure.h").write_text(
            f"#define NUM_STEPS {len(made.program.steps)}\n"
            "void end_of_step(int step);\n"
        )
        (folder / "measure.c").write_text(_program())
        flash = _build(folder, device)
        wrong, *ticks = map(int, _run(folder, device).split())
    steps = tuple(
        StepFigures(
            step.name,
            step.kind,
            round(count * device.tick / num_tests),
            counts.get(step.name, 0),
        )
        for step, count in zip(made.program.steps, ticks, strict=True)
    )
    plan = made.program.plan
    return FirmwareFigures(
        processor, flash, plan.size, plan.lower_bound, steps, num_tests, wrong
    )


def _program() -> str:
    files = importlib.resources.files("tflite_export.c99") / "files"
    return (files / "measure.c").read_text()


def _with_ends_of_steps(made: Firmware) -> str:
    """model.c that says where each step ends."""
    head, begin, body = made.files["model.c"].partition("void model_invoke(")
    for number, step in enumerate(made.program.steps):
        last = f"  {step.statements[-1]}\n"
        body = body.replace(last, f"{last}  end_of_step({number});\n")
    return f'#include "measure.h"\n{head}{begin}{body}'


def _build(folder: Path, processor: Processor) -> int:
    """Compiles the folder's program; bytes of code and constants of model.c."""
    compiler = [
        "arm-none-eabi-gcc", "--specs=picolibc.specs", *processor.flags, *_WARNINGS
    ]  # fmt: skip
    _call([*compiler, "-c", "model.c", "-o", "model.o"], folder)
    places = {
        "flash": 0,
        "flash_size": processor.memory,
        "ram": 0x20000000,
        "ram_size": processor.memory,
        "stack_size": 0x4000,
    }
    memory = ",".join(f"--defsym=__{name}={x:#x}" for name, x in places.items())
    options = ["--oslib=semihost", "--crt0=hosted", f"-Wl,{memory}", "-lm"]
    sources = ["measure.c", "measured.c"]
    _call([*compiler, *sources, "-o", "measure.elf", *options], folder)
    text, data, *_ = (
        _call(["arm-none-eabi-size", "model.o"], folder).split("\n")[1].split()
    )
    return int(text) + int(data)


def _run(folder: Path, processor: Processor) -> str:
    semihosting = ["-semihosting-config", "enable=on,target=native"]
    quiet = ["-nographic", "-monitor", "none", "-serial", "none"]
    return _call(
        [
            *("qemu-system-arm", "-M", processor.machine, "-icount", "shift=0"),
            *(*semihosting, *quiet, "-kernel", "measure.elf"),
        ],
        folder,
    )


def _call(command: list[str], folder: Path) -> str:
    """What a command prints; QEMU's programs print on its standard error.

    Raises:
      ExportError: it fails, or takes too long.
    """
    done = run_program(
        command,
        expected=(
            f"expected tools that work ({_INSTALL}), and a network that the "
            "processor's memory holds and that is emulated in this time"
        ),
        folder=folder,
        seconds=_LONGEST_CALL,
    )
    return done.stdout + done.stderr


def _multiply_adds(network: IntegerNetwork) -> dict[str, int]:
    """Of each operation with a kernel."""
    shapes = tensor_shapes(network)
    return {
        op.name: math.prod(shapes[op.name])
        * (op.kernel.values.size // len(op.kernel.scale))
        for op in network.ops
        if op.kernel is not None
    }
