r"""Flash, memory and instructions of firmware on Cortex-M processors, in QEMU.

    python -m benchmarks.firmware --students=runs/x/x_w8a8_student.npz,... \
        --output=firmware.json

It needs Debian's gcc-arm-none-eabi, picolibc-arm-none-eabi and qemu-system-arm.
Instructions are those of one inference: QEMU counts one for each nanosecond of its
clock, and SysTick, which is read after each step of the network, has one tick in 40,
or 31.25 on the machine with a Cortex-M55, whose memory is too small for large networks.
Flash is code and constants of model.c alone. Rows that --output already holds are not
measured again.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rich.box
import rich.console
import rich.table
from absl import flags

from benchmarks import commands
from benchmarks.commands import Row, key_of
from gdfq_tf.errors import UserError
from tflite_export.c99.firmware import Description, Firmware, make_firmware
from tflite_export.integer_network import IntegerNetwork
from tflite_export.student_file import load_network
from tflite_export.tensor_shapes import tensor_shapes

_NUM_TESTS = 8
_FEW_TESTS = 2  # of networks of so many multiply-adds, as QEMU takes minutes for them
_MANY_MULTIPLY_ADDS = 10_000_000
_WITH_LAYERS = "cortex-m4"  # of this processor, rows have each layer
TOOLS = ("arm-none-eabi-gcc", "arm-none-eabi-size", "qemu-system-arm")
_WARNINGS = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-O2", "-mthumb"]


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


PROCESSORS = {
    "cortex-m0": Processor(("-mcpu=cortex-m0",), "mps2-an385"),
    "cortex-m3": Processor(("-mcpu=cortex-m3",), "mps2-an385"),
    "cortex-m4": Processor(
        ("-mcpu=cortex-m4", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"), "mps2-an386"
    ),
    "cortex-m7": Processor(
        ("-mcpu=cortex-m7", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16"), "mps2-an500"
    ),
    # Without its vector unit, for which there is no code.
    "cortex-m55": Processor(
        ("-mcpu=cortex-m55+nomve", "-mfloat-abi=hard"), "mps3-an547", 512 << 10, 31.25
    ),
}


def define_flags() -> commands.Flags:
    """Those of this benchmark."""
    defined = commands.Flags()
    defined.group("The benchmark")
    defined.texts("students", [], "*_student.npz files of runs.")
    defined.texts("processors", list(PROCESSORS), "Which.")
    defined.string("output", "JSON file, extended row by row.", required=True)
    return defined


def main(values: flags.FlagValues) -> None:
    """Measures what --output does not hold yet and prints all of it."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise UserError(f"{missing[0]} is not installed; see this benchmark's --help")
    output = Path(values.output)
    rows = commands.read_rows(output)
    for student in map(Path, values.students):
        name, _, bits = student.name.removesuffix("_student.npz").rpartition("_w")
        network = load_network(student)
        for processor in values.processors:
            if (name, processor, 0, f"w{bits}") not in set(map(key_of, rows)):
                rows.append(measure(network, name, f"w{bits}", processor))
                commands.write_rows(output, rows)
    console = rich.console.Console(width=140)
    console.print(_table(rows))
    for row in rows:
        if "layers" in row:
            console.print(_layers_table(row))


def measure(network: IntegerNetwork, name: str, bits: str, processor: str) -> Row:
    """The row of a network that has these widths."""
    counts = _multiply_adds(network)
    large = sum(counts.values()) > _MANY_MULTIPLY_ADDS
    num_tests = _FEW_TESTS if large else _NUM_TESTS
    images = np.random.default_rng(0).integers(
        -128, 128, (num_tests, *network.input_shape)
    )
    made = make_firmware(network, Description(name), images.astype(np.int8))
    with tempfile.TemporaryDirectory() as folder:
        for file, text in made.files.items():
            Path(folder, file).write_text(text)
        Path(folder, "measured.c").write_text(_with_ends_of_steps(made))
        steps = len(made.program.steps)
        Path(folder, "measure.h").write_text(
            f"#define NUM_STEPS {steps}\nvoid end_of_step(int step);\n"
        )
        shutil.copy(Path(__file__).with_suffix(".c"), Path(folder, "measure.c"))
        flash = _build(Path(folder), PROCESSORS[processor])
        wrong, *ticks = map(int, _run(Path(folder), PROCESSORS[processor]).split())
    layers = [
        {
            "name": step.name,
            "kind": step.kind,
            "instructions": round(count * PROCESSORS[processor].tick / num_tests),
            "multiply_adds": counts.get(step.name, 0),
        }
        for step, count in zip(made.program.steps, ticks, strict=True)
    ]
    with_kernels = [layer for layer in layers if layer["multiply_adds"]]
    return {
        "model": name,
        "recipe": processor,  # as other benchmarks name what tells rows apart
        "seed": 0,
        "bits": bits,
        "flash_bytes": flash,
        "arena_bytes": made.program.plan.size,
        "arena_lower_bound": made.program.plan.lower_bound,
        "instructions": sum(layer["instructions"] for layer in layers),
        "multiply_adds": sum(counts.values()),
        "kinds": _of_kinds(layers),
        "num_inputs": num_tests,
        "num_wrong": wrong,
        # Of one processor, as they differ in much the same way on all.
        **({"layers": with_kernels} if processor == _WITH_LAYERS else {}),
    }


def _with_ends_of_steps(made: Firmware) -> str:
    """model.c that says where each step ends."""
    head, begin, body = made.files["model.c"].partition("void model_invoke(")
    for number, step in enumerate(made.program.steps):
        last = f"  {step.statements[-1]}\n"
        body = body.replace(last, f"{last}  end_of_step({number});\n")
    return f'#include "measure.h"\n{head}{begin}{body}'


def _of_kinds(layers: Sequence[Row]) -> dict[str, list[int]]:
    """Kind of operation -> instructions and multiply-adds of all of its layers."""
    found: dict[str, list[int]] = {}
    for layer in layers:
        figures = found.setdefault(layer["kind"], [0, 0])
        figures[0] += layer["instructions"]
        figures[1] += layer["multiply_adds"]
    return found


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
    """What a command prints; QEMU's programs print on its standard error."""
    done = subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True, timeout=600
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


def _table(rows: list[Row]) -> rich.table.Table:
    """One line per network, width and processor."""
    table = rich.table.Table(box=rich.box.MARKDOWN)
    for title in ("network", "width", "processor"):
        table.add_column(title)
    for title in ("flash", "arena", "bound", "instructions", "of a MAC", "equal"):
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(
            row["model"],
            row["bits"],
            row["recipe"],
            f"{row['flash_bytes']:,}",
            f"{row['arena_bytes']:,}",
            f"{row['arena_lower_bound']:,}",
            f"{row['instructions']:,}",
            f"{row['instructions'] / row['multiply_adds']:.2f}",
            f"{row['num_inputs'] - row['num_wrong']} of {row['num_inputs']}",
        )
    return table


def _layers_table(row: Row) -> rich.table.Table:
    """One line per layer with multiply-adds."""
    title = f"{row['model']}, {row['bits']}, {row['recipe']}"
    table = rich.table.Table(title=title, box=rich.box.MARKDOWN)
    for column in ("layer", "kind"):
        table.add_column(column)
    for column in ("instructions", "multiply-adds", "of each"):
        table.add_column(column, justify="right")
    for layer in row["layers"]:
        instructions, count = layer["instructions"], layer["multiply_adds"]
        table.add_row(
            layer["name"],
            layer["kind"],
            f"{instructions:,}",
            f"{count:,}",
            f"{instructions / count:.2f}",
        )
    return table


if __name__ == "__main__":
    commands.run(main, define_flags(), __doc__, bare="students")
