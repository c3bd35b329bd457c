"""What a run gives and writes, without a run."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from gdfq_tf import result as module
from gdfq_tf.baselines import Baselines
from gdfq_tf.config import DEFAULT_RECIPE, RECIPES, BitWidths
from gdfq_tf.errors import UserError
from gdfq_tf.job import Job
from gdfq_tf.quantization.estimation import AccuracyEstimate
from gdfq_tf.quantization.layer_figures import LayerFigures, LayerTable
from gdfq_tf.result import QuantizedModel, Result
from gdfq_tf.run_directory import SYNTHETIC_IMAGES, read_summary
from gdfq_tf.synthesis.image_pool import ImagePool
from tests.tiny import build_tiny_classifier, classifier_of
from tflite_export.integer_network import IntegerNetwork, IntegerOp
from tflite_export.quantization_params import QuantParams
from tflite_export.student_file import load_network
from tflite_export.verification.verify import Agreement

LAYERS = LayerTable(
    [LayerFigures("conv [1]", "conv", 4, 8, 12, 0.5, -3, 20.25, 0.995, 0.3, 0.01)]
)


@pytest.fixture
def result():
    quant_params = QuantParams(0.5, 3)
    flat = IntegerOp(
        "x", "reshape", ("image",), quant_params, attributes={"shape": [4]}
    )
    network = IntegerNetwork("image", (2, 2, 1), quant_params, (flat,), True)
    models = tuple(
        QuantizedModel(
            name="net",
            bit_widths=bit_widths,
            layers_at_8_bits=frozenset(),
            trade_off=None,
            estimate=AccuracyEstimate(10, 0.9, 2.0, 5.0),
            network=network,
            tflite=tflite,
            findings=(),
            agreement=Agreement(1, 0, 1.0, 1.0),
            seconds=1.0,
            measure_layers=lambda: LAYERS,
        )
        for bit_widths, tflite in (
            (BitWidths(8, 8), b"eight"),
            (BitWidths(4, 4, "paper"), b"four"),
        )
    )
    images = ImagePool(
        np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1), np.array([1, 0], np.int32)
    )
    classifier = dataclasses.replace(classifier_of(build_tiny_classifier()), name="net")
    job = Job(classifier, RECIPES[DEFAULT_RECIPE], tuple(m.bit_widths for m in models))
    return Result(job, images, images, models, Baselines(b"float", b"noise"), 1.0)


def test_models_are_found_by_their_widths(result):
    assert result["w8a8"] is result.models[0]
    assert result["w4a4/paper"] is result["w4a4_paper"] is result.models[1]
    assert list(result) == list(result.models)
    assert len(result) == 2
    with pytest.raises(KeyError, match="w4a8; this run made w8a8, w4a4_paper"):
        result["w4a8"]


def test_reprs_are_short(result):
    assert repr(result["w8a8"]) == (
        "<net w8a8: 5 bytes, agrees on 90.0 % of 10 synthetic images, loses about 2.0 "
        "points (5.0 at worst, as far as is known)>"
    )
    assert repr(result).count("\n") == 2


def test_files_have_names_titles_and_bytes(result):
    assert [(x.title, x.file, x.tflite) for x in result.files()] == [
        ("float", "net_float.tflite", b"float"),
        ("int8 PTQ on noise", "net_int8_noise.tflite", b"noise"),
        ("GDFQ w8a8", "net_w8a8.tflite", b"eight"),
        ("GDFQ w4a4_paper", "net_w4a4_paper.tflite", b"four"),
    ]
    job = dataclasses.replace(result.job, recipe=RECIPES["gdfq"])
    other = dataclasses.replace(result, job=job)
    assert other.files()[2].title == "gdfq recipe w8a8"


def test_a_model_is_saved_where_it_should(result, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert result["w8a8"].save("~/x.tflite") == tmp_path / "x.tflite"
    assert (tmp_path / "x.tflite").read_bytes() == b"eight"
    result["w4a4/paper"].save(tmp_path / "x.tflite")
    assert (tmp_path / "x.tflite").read_bytes() == b"four"
    with pytest.raises(UserError, match="cannot be written"):
        result["w8a8"].save(tmp_path / "none" / "x.tflite")


@pytest.fixture
def no_litert(monkeypatch):
    """The bytes are no models."""

    def compare(self):
        facts = {"sha256": "0" * 64, "size_bytes": 5, "latency_ms": 1.0}
        facts |= {"num_images": 2, "agreement_with_float": 1.0}
        return [
            {"title": file.title, "file": file.file, **facts} for file in self.files()
        ]

    monkeypatch.setattr(Result, "compare", compare)
    # The images are none of the classifier's.
    monkeypatch.setattr(module, "bn_gaps", lambda *_: {})

    class File:
        output_quantization = QuantParams(0.25, 7)

    monkeypatch.setattr(module, "TFLiteClassifier", lambda tflite: File)


def test_everything_a_run_made_is_written(result, tmp_path, no_litert):
    path = result.save(tmp_path / "run")
    assert sorted(file.name for file in path.iterdir()) == [
        "events.out.tfevents",
        "net_float.tflite",
        "net_int8_noise.tflite",
        "net_w4a4_paper.tflite",
        "net_w4a4_paper_layers.csv",
        "net_w4a4_paper_student.npz",
        "net_w8a8.tflite",
        "net_w8a8_layers.csv",
        "net_w8a8_student.npz",
        "report.html",
        "summary.json",
        SYNTHETIC_IMAGES,
    ]
    assert (path / "net_w4a4_paper.tflite").read_bytes() == b"four"
    network = load_network(path / "net_w8a8_student.npz")
    assert network.input_shape == (2, 2, 1)
    assert network.input_quant_params == QuantParams(0.5, 3)
    with np.load(path / SYNTHETIC_IMAGES) as arrays:
        np.testing.assert_array_equal(arrays["pixels"], result.images.pixels)
        np.testing.assert_array_equal(arrays["labels"], result.images.labels)
    summary = read_summary(path)
    digest = hashlib.sha256(b"float").hexdigest()
    assert summary["sha256"]["net_float.tflite"] == digest
    assert "estimate" not in summary["models"][1]
    assert summary["models"][2]["widths"]["weight_bits"] == 8
    assert summary["models"][3]["estimate"]["accuracy_loss"] == 2.0
    assert summary["models"][3]["int8_output"] == {"scale": 0.25, "zero_point": 7}
    assert summary["seconds"]["total"] >= 3.0


def test_an_earlier_run_is_replaced_on_request_only(result, tmp_path, no_litert):
    result.save(tmp_path / "run")
    with pytest.raises(UserError, match="overwrite=True") as error:
        result.save(tmp_path / "run")
    assert "overwrite" in error.value.options
    result.save(tmp_path / "run", overwrite=True)


def test_images_are_shown_in_a_square(result):
    sheet = np.asarray(result.show_images())
    # Two of 2x2 beside each other.
    np.testing.assert_array_equal(sheet, [[0, 1, 4, 5], [2, 3, 6, 7]])
    assert np.asarray(result.show_images(1)).tolist() == [[0, 1], [2, 3]]
    with pytest.raises(UserError, match="num_images=0"):
        result.show_images(0)


def test_layers_are_a_table(result):
    assert result["w8a8"].layers is LAYERS
    assert LAYERS[0].signal_to_noise_db == 20.25
    assert len(LAYERS) == 1
    assert json.loads(json.dumps(LAYERS.as_dicts()))[0]["name"] == "conv [1]"
    assert "conv [1]" in repr(LAYERS)
    assert "20.25" in repr(LAYERS)
