from __future__ import annotations

import csv
import hashlib
import importlib.resources
import io
import json

import jsonschema
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from gdfq_tf.report.event_file import write_events
from gdfq_tf.report.figure_files import write_layers
from gdfq_tf.run_directory import claim_run_directory


@pytest.fixture(scope="module")
def schema() -> dict:
    path = importlib.resources.files("gdfq_tf.report") / "files/summary.schema.json"
    return json.loads(path.read_text())


def without_other_keys(schema: object) -> None:
    """Makes every object refuse keys that are not described."""
    if isinstance(schema, dict):
        if schema.get("properties") and schema["properties"].keys() != {"name"}:
            schema.setdefault("additionalProperties", False)
        for part in schema.values():
            without_other_keys(part)


def problems(schema, summary) -> list[str]:
    validator = jsonschema.Draft202012Validator(schema)
    return [f"{e.json_path}: {e.message}" for e in validator.iter_errors(summary)]


def test_every_key_of_the_summary_is_in_its_schema(schema, summary):
    jsonschema.Draft202012Validator.check_schema(schema)
    assert problems(schema, summary) == []
    without_other_keys(schema)
    assert problems(schema, summary) == []
    summary["models"][2]["layers"][0]["colour"] = "red"
    del summary["seed"]
    found = "\n".join(problems(schema, summary))
    assert "$.models[2].layers[0]" in found
    assert "'seed' is a required property" in found


def test_tables_of_layers_are_those_of_the_summary(directory, summary):
    for row in summary["models"][2:]:
        name = row["file"].replace(".tflite", "_layers.csv")
        with (directory / name).open(newline="") as file:
            found = list(csv.DictReader(file))
        assert [x["name"] for x in found] == [x["name"] for x in row["layers"]]
        assert [float(x["cosine"]) for x in found] == [
            x["cosine"] for x in row["layers"]
        ]
        assert {x["name"] for x in found if x["weight_bits"] == ""} == {
            "add3",
            "pool",
        }


def test_names_are_no_formulas_for_spreadsheets(tmp_path):
    names = ["=1+1", "+x", "-x", "@x", "plain", 'a,"b"']
    write_layers(tmp_path / "x.csv", [{"name": name, "scale": -1.0} for name in names])
    with (tmp_path / "x.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [x["name"] for x in found] == ["'=1+1", "'+x", "'-x", "'@x", *names[4:]]
    assert found[0]["scale"] == "-1.0"


def test_a_run_may_replace_one_with_all_these_files(directory):
    with claim_run_directory(directory, overwrite=True):
        pass


def test_sha256_of_every_other_file_is_told(directory, summary):
    others = [path for path in directory.iterdir() if path.name != "summary.json"]
    assert {path.name: sha256(path) for path in others} == summary["sha256"]
    assert {"report.html", "events.out.tfevents", "tiny_w8a8_layers.csv"} <= {
        path.name for path in others
    }


def sha256(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def events(path):
    records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    return [tf.compat.v1.Event.FromString(record) for record in records]


def scalars(found) -> dict[str, list[tuple[int, float]]]:
    """Tag -> (step, value)."""
    tags: dict[str, list] = {}
    for event in found:
        for value in event.summary.value:
            if value.HasField("simple_value"):
                tags.setdefault(value.tag, []).append((event.step, value.simple_value))
    return tags


def test_a_run_has_losses_gaps_and_images(directory, summary, images):
    found = events(directory / "events.out.tfevents")
    assert found[0].file_version == "brain.Event:2"
    tags = scalars(found)
    stage = next(x for x in summary["stages"] if x["name"] == "generator")
    assert tags["generator/loss"] == [
        (point["step"], pytest.approx(point["metrics"]["loss"]))
        for point in stage["points"]
    ]
    assert len(tags["refinement_2/loss"]) > 0  # of more images, for w4a8
    assert tags["generator/bn_gap/bn2"] == [
        (point["step"], pytest.approx(point["metrics"]["bn_gap/bn2"]))
        for point in stage["points"]
    ]
    gaps = [row["gap"] for row in summary["bn_gaps"]]
    assert [row["layer"] for row in summary["bn_gaps"]] == ["bn1", "bn2", "bn3"]
    assert tags["bn_gap_by_layer"] == list(enumerate(pytest.approx(x) for x in gaps))
    (picture,) = (v for e in found for v in e.summary.value if v.HasField("image"))
    with Image.open(io.BytesIO(picture.image.encoded_image_string)) as image:
        shown = np.asarray(image)
    np.testing.assert_array_equal(shown[:8, 8:16], images.pixels[1])


def test_speed_is_that_between_two_points(tmp_path, summary, images):
    points = [
        {"step": 2, "seconds": 1.0, "metrics": {"loss": 1.0}},
        {"step": 12, "seconds": 3.0, "metrics": {"loss": 0.5}},
    ]
    stage = {"name": "a b", "started": 100.0, "seconds": 4.0, "points": points}
    summary["stages"] = [{**stage, "total": 12, "images_per_step": 8}]
    write_events(tmp_path / "tfevents", summary, images)
    found = events(tmp_path / "tfevents")
    assert scalars(found)["a_b/images_per_second"] == [(2, 16.0), (12, 40.0)]
    assert [e.wall_time for e in found[1:3]] == [101.0, 103.0]
