"""How files present themselves."""

from __future__ import annotations

import dataclasses

import pytest

from gdfq_tf.classifier import Head
from gdfq_tf.config import DEFAULT_RECIPE, RECIPES, BitWidths
from gdfq_tf.errors import UserError
from gdfq_tf.file_interface import check_labels, interface_of, read_labels
from gdfq_tf.job import Job
from gdfq_tf.preprocessing import preprocessing_of_features
from tests.tiny import NUM_CLASSES, build_tiny_classifier, classifier_of

NAMES = tuple("abcdefghij"[:NUM_CLASSES])


@pytest.fixture(scope="module")
def classifier():
    return dataclasses.replace(classifier_of(build_tiny_classifier()), name="net")


def presented(classifier, **options):
    ends = {"input_type": "uint8", "output_type": "int8", "labels": ()}
    return interface_of(classifier, BitWidths(4, 8), **(ends | options))


def test_of_pixels(classifier):
    interface = presented(classifier, labels=NAMES)
    assert (interface.input_type, interface.output_type) == ("uint8", "int8")
    assert (interface.input_name, interface.output_name) == ("image", "scores")
    meaning = interface.meaning
    assert (meaning.name, meaning.content, meaning.labels) == ("net", "rgb", NAMES)
    assert "4-bit weights and 8-bit activations" in meaning.description
    assert "as int8: q = pixel - 128; as uint8: q = pixel" in meaning.input_description
    assert meaning.mean == pytest.approx((128.0,) * 3)


def test_of_pixels_in_another_order(classifier):
    reversed_ = dataclasses.replace(classifier.preprocessing, reverse_channels=True)
    interface = presented(dataclasses.replace(classifier, preprocessing=reversed_))
    assert interface.meaning.content == "image"
    assert "channels in BGR order" in interface.meaning.input_description


def test_of_features(classifier):
    features = dataclasses.replace(
        classifier,
        preprocessing=preprocessing_of_features((-1, 1), 3),
        head=Head.FEATURES,
    )
    interface = presented(features)
    assert (interface.input_name, interface.output_name) == ("features", "outputs")
    assert interface.meaning.content == "features"
    with pytest.raises(UserError, match="net gives features; drop labels"):
        check_labels(NAMES, features)


def test_files_of_labels(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("\ufeffcat\n\n  dog \n", encoding="utf-8")
    assert read_labels(path) == read_labels(str(path)) == ("cat", "dog")
    assert read_labels(["cat", "dog"]) == ("cat", "dog")
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match="is no text"):
        read_labels(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_labels(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_type": "float32"}, "input_type='float32' is no type of a file's end"),
        ({"output_type": "UINT8"}, "output_type='UINT8' .* expected int8 or uint8"),
        ({"labels": ("a",)}, f"labels has 1 names, and net has {NUM_CLASSES} outputs"),
    ],
)
def test_jobs_with_other_ends_are_refused(classifier, options, message):
    job = Job(classifier, RECIPES[DEFAULT_RECIPE], (BitWidths(8, 8),), **options)
    with pytest.raises(UserError, match=message) as error:
        job.checked()
    assert "\n" not in str(error.value)
