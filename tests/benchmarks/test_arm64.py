"""Rows of the benchmark on an emulated processor, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import arm64, arm64_machine
from gdfq_tf.errors import UserError
from tests.tiny_network import NetworkBuilder, random_images
from tflite_export.convert import convert_network
from tflite_export.litert.simulator import infer


class OneChanged:
    """A machine on which the first class of the first of its images differs by 2."""

    described = "a machine"

    def __init__(self, outputs):
        self.changed = outputs.copy()
        self.changed[0, 0] += 2 if outputs[0, 0] < 100 else -2

    def outputs(self, file, images):
        return self.changed


def test_a_row_tells_what_differs(tmp_path):
    b = NetworkBuilder()
    b.kernel("logits", "dense", b.flatten("image"), bits=8, outputs=5)
    network, images = b.build_ops(), random_images(4)
    file = tmp_path / "x.tflite"
    file.write_bytes(convert_network(network))
    outputs = infer(network, images)
    machine = OneChanged(outputs)
    labels = outputs.argmax(axis=1)
    row = arm64._compare(machine, file, network, images, labels)
    changed = int((machine.changed.argmax(axis=1) != labels).sum())
    assert row == {
        "num_images": 4,
        "machine": "a machine",
        "classes_changed": changed,
        "x86_64_exact_outputs": 0.95,
        "x86_64_max_lsb": 2,
        "simulated_exact_outputs": 0.95,
        "simulated_max_lsb": 2,
        "first_unlike": None,
        "top1": 1 - changed / 4,
        "x86_64_top1": 1.0,
    }


def test_the_first_layer_that_differs():
    """A convolution of INT8 kernels, one of INT4 kernels without ReLU, and another."""
    b = NetworkBuilder()
    same = b.kernel("same", "conv", "image", bits=8)
    first = b.kernel("first", "conv", same, bits=4)
    b.flatten(b.kernel("second", "conv", first, bits=4))
    network, images = b.build_ops(), random_images(4)
    found = arm64.first_unlike(network, images)
    assert (found["layer"], found["kind"], found["max_lsb"]) == ("first", "conv", 1)
    # Less than one sum in as many as make a step of the output.
    op = network.ops[1]
    steps = op.quant_params.scale / (
        op.kernel.scale * network.ops[0].quant_params.scale
    )
    assert 0 < found["share"] < np.max(1 / steps)


def test_what_is_missing_is_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(arm64_machine.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="apt-get is not installed") as refusal:
        arm64_machine.Machine(tmp_path / "machine")
    assert "\n" not in str(refusal.value)
    assert not list((tmp_path / "machine").iterdir())


def test_an_emulator_that_is_not_there_is_told(tmp_path):
    for name in ("root", "litert-0"):
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=r"^/none cannot be started .*see --qemu"):
        arm64_machine.Machine(tmp_path, litert="0", qemu="/none")
