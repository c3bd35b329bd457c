"""An emulated 64-bit ARM processor with Python and LiteRT: QEMU's user mode.

A folder holds the emulator, Debian's Python for arm64 and wheels of numpy and LiteRT,
fetched once by the ordinary apt-get and pip; nothing is installed on the host.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

from gdfq_tf.errors import UserError
from tflite_export.programs import run_program

_PROCESSOR = "cortex-a72"  # as QEMU names it
_PYTHON = "3.11"
_EMULATOR = "qemu-user-static"
_DEBS = (
    *(f"python{_PYTHON}-minimal", f"libpython{_PYTHON}-minimal"),
    *(f"libpython{_PYTHON}-stdlib", "libc6", "libgcc-s1", "libstdc++6", "zlib1g"),
    *("libexpat1", "libffi8", "libssl3", "libbz2-1.0", "liblzma5"),
)
_PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
_FETCHES = "expected Debian or Ubuntu, and that it reaches its sources of packages"
_EMULATES = (
    "expected a file and an emulator that LiteRT runs with: see --qemu, --litert"
)
_WORKER = Path(__file__).with_name("litert_worker.py")


class Machine:
    """An emulated processor that runs `.tflite` files.

    Attributes:
      described: what results depend on.
    """

    def __init__(
        self, folder: Path, litert: str | None = None, qemu: str | None = None
    ) -> None:
        """Fills the folder with what it lacks.

        Args:
          folder: of the machine.
          litert: version; None: the one that the host has.
          qemu: program of the emulator; None: the host's distribution's.

        Raises:
          UserError: a program is not installed, or a download failed.
        """
        folder = folder.resolve()
        self._litert = litert or metadata.version("ai-edge-litert")
        self._root, self._packages = folder / "root", folder / f"litert-{self._litert}"
        _fill(self._root, _extract_python)
        _fill(self._packages, self._extract_packages)
        if qemu is None:
            _fill(folder / "emulator", _extract_emulator)
            qemu = str(folder / "emulator" / "usr" / "bin" / "qemu-aarch64-static")
        self._qemu = qemu
        version = run_program([qemu, "--version"], expected=_EMULATES).stdout.split()[2]
        self.described = f"LiteRT {self._litert}, {_PROCESSOR}, QEMU {version}"

    def outputs(self, file: Path, images: np.ndarray) -> np.ndarray:
        """Outputs int8 (N, classes) of a `.tflite` file for int8 images (N, ...).

        Raises:
          UserError: LiteRT refuses the file, or the emulator stopped.
        """
        paths = {"PYTHONPATH": self._packages, "PYTHONHOME": self._root / "usr"}
        python = self._root / "usr" / "bin" / f"python{_PYTHON}"
        with tempfile.TemporaryDirectory() as folder:
            np.save(Path(folder, "images.npy"), images)
            emulator = [self._qemu, "-cpu", _PROCESSOR, "-L", str(self._root)]
            answer = run_program(
                [*emulator, str(python), str(_WORKER), f"{folder}/images.npy"],
                expected=_EMULATES,
                environment=os.environ | {k: str(path) for k, path in paths.items()},
                text=f"{file.resolve()}\n",
            )
        found = json.loads(answer.stdout)
        if "refused" in found:
            raise UserError(f"LiteRT {self._litert} for arm64 refuses {file}")
        return np.array(found["outputs"], np.int8)

    def _extract_packages(self, folder: Path) -> None:
        """Wheels for arm64; pip neither builds nor runs anything of them."""
        platforms = [f"--platform={name}_aarch64" for name in _PLATFORMS]
        run_program(
            [
                *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"),
                *("--only-binary=:all:", f"--python-version={_PYTHON}", *platforms),
                *(f"--target={folder}", f"ai-edge-litert=={self._litert}", "numpy"),
            ],
            expected=_FETCHES,
        )


def _fill(folder: Path, extract: Callable[[Path], None]) -> None:
    """Makes a folder that is whole or not there."""
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        extract(Path(temporary, "new"))
        Path(temporary, "new").rename(folder)


def _extract_emulator(folder: Path) -> None:
    _extract_debs(folder, "amd64", (_EMULATOR,))


def _extract_python(folder: Path) -> None:
    _extract_debs(folder, "arm64", _DEBS)


def _extract_debs(folder: Path, architecture: str, names: Sequence[str]) -> None:
    """Debian's packages of an architecture, from where the host has its own."""
    missing = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
    if missing:
        raise UserError(f"{missing[0]} is not installed; this needs Debian or Ubuntu")
    with tempfile.TemporaryDirectory() as temporary:
        for name in ("lists/partial", "archives/partial", "debs"):
            Path(temporary, name).mkdir(parents=True)
        # Lists of its own, so that the host does not learn of another architecture.
        Path(temporary, "status").touch()
        settings = {
            "APT::Architecture": architecture,
            "APT::Architectures": architecture,
            "APT::Sandbox::User": "root",
            "Dir::State": temporary,
            "Dir::State::lists": f"{temporary}/lists",
            "Dir::State::status": f"{temporary}/status",
            "Dir::Cache": temporary,
        }
        apt = ["apt-get", "-q"]
        for setting in settings.items():
            apt += ["-o", "=".join(setting)]
        run_program([*apt, "update"], expected=_FETCHES)
        debs = Path(temporary, "debs")
        run_program([*apt, "download", *names], expected=_FETCHES, folder=debs)
        for deb in sorted(debs.iterdir()):
            unpack = ["dpkg-deb", "-x", str(deb), str(folder)]
            run_program(unpack, expected=_FETCHES)
