"""What Arm's Vela says of a `.tflite` file on an Ethos-U NPU.

Vela is a compiler of its own, `pip install ethos-u-vela`; it estimates cycles from a
model of the NPU and its memories, and nothing is run.
"""

from __future__ import annotations

import csv
import dataclasses
import re
import shutil
import sys
import tempfile
from pathlib import Path

from tflite_export.errors import ExportError, option
from tflite_export.flatbuffer import read_model
from tflite_export.programs import run_program
from tflite_export.targets import TARGETS

_TIMEOUT_SECONDS = 600
_ON_NPU = re.compile(r"NPU operators = (\d+)")
_COMMANDS = "CUSTOM:ethos-u"  # the operator that stands for all that the NPU does
_FLASH = ("on_chip_flash_memory_used", "off_chip_flash_memory_used")


@dataclasses.dataclass(frozen=True)
class VelaReport:
    """What Vela estimates, with its default system and memories for the device.

    Attributes:
      device: one of `targets.NPUS`.
      system: configuration of clocks and memories.
      cycles: of one inference.
      inference_ms: the same as time, milliseconds.
      sram_bytes, flash_bytes: that are used.
      npu_operators: how many run on the NPU.
      cpu_operators: names of those that do not.
      version: of Vela.
    """

    device: str
    system: str
    cycles: int
    inference_ms: float
    sram_bytes: int
    flash_bytes: int
    npu_operators: int
    cpu_operators: tuple[str, ...]
    version: str

    def to_dict(self) -> dict[str, object]:
        """The attributes by name, ready for JSON."""
        return dataclasses.asdict(self)


def vela_report(tflite: bytes, device: str) -> VelaReport:
    """Compiles a file for a device.

    Raises:
      ExportError: Vela is not installed or stops; the file holds INT4.
    """
    program = _program()
    if any(tensor.dtype == "INT4" for tensor in read_model(tflite).tensors):
        raise ExportError(
            f"the file has INT4 kernels, and {TARGETS['ethos-u'].no_int4}; take "
            f"{option('bits', 'w8a8')}"
        )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.tflite").write_bytes(tflite)
        config = ["--accelerator-config", device, "--output-dir", "out"]
        printed = _call([program, "model.tflite", *config], folder)
        (summary,) = (folder / "out").glob("*_summary_*.csv")
        with summary.open(newline="") as file:
            (row,) = csv.DictReader(file)
        compiled = read_model((folder / "out" / "model_vela.tflite").read_bytes())
    left = (operator.name for operator in compiled.operators)
    on_npu = _ON_NPU.search(printed)
    return VelaReport(
        device=device,
        system=f"{row['system_config']}, {row['memory_mode']}",
        cycles=int(float(row["cycles_total"])),
        inference_ms=1000 * float(row["inference_time"]),
        sram_bytes=_bytes(row["sram_memory_used"]),
        flash_bytes=sum(_bytes(row[field]) for field in _FLASH),
        npu_operators=int(on_npu[1]) if on_npu else 0,
        cpu_operators=tuple(name for name in left if name != _COMMANDS),
        version=_call([program, "--version"], Path.cwd()).strip(),
    )


def _program() -> str:
    """Vela, on the path or beside this Python.

    Raises:
      ExportError: it is neither here nor there.
    """
    found = shutil.which("vela") or shutil.which(
        "vela", path=str(Path(sys.executable).parent)
    )
    if found is None:
        raise ExportError("Vela is not installed: pip install 'gdfq-tf[ethos-u]'")
    return found


def _call(command: list[str], folder: Path) -> str:
    done = run_program(
        command,
        name="Vela",
        expected=(
            "expected an 8-bit .tflite file: convert it again, or take another Vela"
        ),
        folder=folder,
        seconds=_TIMEOUT_SECONDS,
    )
    return done.stdout


def _bytes(kibibytes: str) -> int:
    return round(1024 * float(kibibytes))
