"""The wheel: what is in it, and what it does where nothing of the checkout is."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from benchmarks.wheel import build_wheel, lower_bounds, read_metadata, requirements

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PACKAGES = ("gdfq_tf", "tflite_export")
# Carries a quantization out and shows that nothing came from the checkout.
EXAMPLE = """
import pathlib
import sys

import gdfq_tf
import tflite_export

for package in (gdfq_tf, tflite_export):
    assert pathlib.Path(package.__file__).is_relative_to(sys.prefix), package
assert "tensorflow" not in sys.modules
result = gdfq_tf.quantize("tiny.keras", bits="w8a8", preprocessing="tf",
                          recipe="calibrate", seed=0)
assert result["w8a8"].agreement.exact_outputs == 1
result["w8a8"].save("api.tflite")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The scripts of an environment that has the wheel, and what it needs from here."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, symlinks=True)
    scripts = environment / "bin"
    install(wheel, scripts / "python")
    site = sysconfig.get_path("purelib", vars={"base": str(environment)})
    # As a path, not as a site: the checkout's own .pth file stays unread.
    Path(site, "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return scripts


@pytest.fixture
def elsewhere(tmp_path, tiny_classifier):
    """A folder with a model."""
    tiny_classifier.save(tmp_path / "tiny.keras")
    return tmp_path


def install(wheel, python):
    pip = [sys.executable, "-m", "pip", "--python", python]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", wheel], check=True)


def run(folder, *command):
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONPATH"
    }
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True
    )


def test_holds_the_packages_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    sources = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert found == sources
    assert {"gdfq_tf/py.typed", "tflite_export/py.typed"} <= found


def test_carries_its_licences(wheel):
    with zipfile.ZipFile(wheel) as archive:
        licences = [
            name for name in archive.namelist() if ".dist-info/licenses/" in name
        ]
    assert len(licences) == len(read_metadata(wheel).get_all("License-File")) == 2


def test_metadata(wheel):
    metadata = read_metadata(wheel)
    assert metadata["Name"] == "gdfq-tf"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == "<3.13,>=3.10"
    assert metadata.get_payload().startswith("# GDFQ-TF")
    assert "Programming Language :: Python :: 3.12" in metadata.get_all("Classifier")
    assert metadata.get_all("Project-URL")


def test_requirements_are_ranges_that_the_exact_set_lies_in(wheel):
    python = "{}.{}".format(*sys.version_info)
    ranges = {x.name: x.specifier for x in requirements(wheel, python)}
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pinned = [Requirement(line) for line in lines if not line.startswith("#")]
    exact = [x for x in pinned if not x.marker or x.marker.evaluate()]
    assert {requirement.name for requirement in exact} == set(ranges)
    for requirement in exact:
        (pin,) = requirement.specifier
        assert pin.operator == "=="
        assert pin.version in ranges[requirement.name]
    assert len(lower_bounds(wheel, python)) == len(ranges)


def test_console_command_lists_its_subcommands(installed, tmp_path):
    done = run(tmp_path, installed / "gdfq", "--help")
    assert done.returncode == 0
    assert not done.stderr
    assert "quantize" in done.stdout


def test_command_and_api_write_the_same_file(installed, elsewhere):
    api = run(elsewhere, installed / "python", "-c", EXAMPLE)
    assert api.returncode == 0, api.stderr
    command = run(
        elsewhere,
        installed / "gdfq",
        "quantize",
        "tiny.keras",
        "--preprocessing=tf",
        "--recipe=calibrate",
        "--bits=w8a8",
        "--output_dir=runs/tiny",
    )
    assert command.returncode == 0, command.stderr
    written = elsewhere / "runs" / "tiny" / "tiny_w8a8.tflite"
    assert written.read_bytes() == (elsewhere / "api.tflite").read_bytes()
