"""What Vela is asked, and what is read of its answer."""

from __future__ import annotations

import functools
import shutil

import pytest

from tests.command import run_command
from tests.tiny_network import NetworkBuilder
from tflite_export import vela
from tflite_export.convert import convert_network
from tflite_export.errors import ExportError, as_flag
from tflite_export.operator_forms import in_forms_of
from tflite_export.targets import NPUS, TARGETS
from tflite_export.vela import vela_report

# Prints what Vela 5.2.0 does, and leaves its files behind.
PROGRAM = """#!/bin/sh
[ "$1" = --version ] && echo 5.2.0 && exit 0
mkdir out && cp model.tflite out/model_vela.tflite
echo "system_config,memory_mode,cycles_total,inference_time,sram_memory_used,\
on_chip_flash_memory_used,off_chip_flash_memory_used" > out/m_summary_x.csv
echo "Ethos_U55_High_End_Embedded,Shared_Sram,3040,6.08e-06,0.5,0.0,2.71875" \
>> out/m_summary_x.csv
echo "CPU operators = 2 (50.0%)"
echo "NPU operators = 2 (50.0%)"
"""


@functools.cache
def file(bits: int = 8) -> bytes:
    b = NetworkBuilder()
    x = b.kernel("conv", "conv", "image", bits=bits, stride=4, relu=True)
    b.kernel("logits", "dense", b.flatten(x), bits=8)
    return convert_network(in_forms_of(TARGETS["litert"], b.build_ops()))


def program(folder, text: str) -> None:
    (folder / "vela").write_text(text)
    (folder / "vela").chmod(0o755)


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A folder in front of the search path."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def test_figures_are_read(path):
    program(path, PROGRAM)
    found = vela_report(file(), "ethos-u55-128")
    assert (found.cycles, found.npu_operators, found.version) == (3040, 2, "5.2.0")
    assert found.inference_ms == pytest.approx(0.00608)
    assert (found.sram_bytes, found.flash_bytes) == (512, 2784)
    assert found.cpu_operators == ("CONV_2D", "RESHAPE", "FULLY_CONNECTED")
    assert found.system == "Ethos_U55_High_End_Embedded, Shared_Sram"


def refusal(tflite: bytes) -> str:
    with pytest.raises(ExportError) as error:
        vela_report(tflite, NPUS[0])
    message = error.value.render(as_flag)
    assert "\n" not in message
    return message


def test_what_stops_it_is_told_in_one_line(path, monkeypatch):
    program(path, "#!/bin/sh\necho first >&2\necho bad operator >&2\nexit 136\n")
    assert "Vela fails with status 136 (bad operator); expected" in refusal(file())
    message = refusal(file(bits=4))
    assert "INT4 kernels, and Vela stops at" in message
    assert "take --bits=w8a8" in message
    monkeypatch.setattr(vela.shutil, "which", lambda *args, **options: None)
    assert "not installed: pip install 'gdfq-tf[ethos-u]'" in refusal(file())


def test_the_command_prints_and_writes_it(path):
    program(path, PROGRAM)
    (path / "net.tflite").write_bytes(file())
    arguments = ["--device=ethos-u55-128", f"--result_json={path / 'r.json'}"]
    code, stdout, stderr = run_command(
        "benchmark", str(path / "net.tflite"), *arguments
    )
    assert code == 0, stderr
    assert "3,040" in stdout and "2,784" in stdout and "FULLY_CONNECTED" in stdout
    assert '"cycles": 3040' in (path / "r.json").read_text()


@pytest.mark.skipif(shutil.which("vela") is None, reason="Vela is not installed")
def test_vela_itself():
    found = vela_report(file(), "ethos-u55-128")
    assert found.cycles > 0 and found.sram_bytes > 0 and found.flash_bytes > 0
    assert found.npu_operators >= 2
    assert found.cpu_operators == ()
