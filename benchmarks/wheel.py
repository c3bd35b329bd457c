"""The package as people install it."""

from __future__ import annotations

import email
import email.message
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from packaging.requirements import Requirement

_NOT_SOURCE = (".*", "*.egg-info", "__pycache__", "build", "runs")


def build_wheel(checkout: Path, folder: Path) -> Path:
    """Builds the wheel of a copy of the checkout and puts it into `folder`.

    In the checkout, setuptools would leave a folder behind and take from it modules
    that are there no more.
    """
    copy = folder / "source"
    shutil.copytree(checkout, copy, ignore=shutil.ignore_patterns(*_NOT_SOURCE))
    pip_wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    subprocess.run([*pip_wheel, "--wheel-dir", folder, copy], check=True)
    shutil.rmtree(copy)
    (wheel,) = folder.glob("*.whl")
    return wheel


def read_metadata(wheel: Path) -> email.message.Message:
    """Headers such as Requires-Dist; the payload is the README."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        return email.message_from_bytes(archive.read(name))


def lower_bounds(wheel: Path) -> list[str]:
    """Every requirement at the version that its range begins with, as pip reads it."""
    requirements = map(Requirement, read_metadata(wheel).get_all("Requires-Dist", []))
    return [
        f"{requirement.name}=={bound.version}"
        for requirement in requirements
        for bound in requirement.specifier
        if bound.operator == ">="
    ]
