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


def requirements(wheel: Path, python: str) -> list[Requirement]:
    """What a plain installation needs on a Python such as 3.10."""
    environment = {"python_version": python, "extra": ""}
    found = map(Requirement, read_metadata(wheel).get_all("Requires-Dist", []))
    return [x for x in found if not x.marker or x.marker.evaluate(environment)]


def lower_bounds(wheel: Path, python: str) -> list[str]:
    """Every requirement at the version that its range begins with, as pip reads it."""
    return [
        f"{requirement.name}=={bound.version}"
        for requirement in requirements(wheel, python)
        for bound in requirement.specifier
        if bound.operator == ">="
    ]
