"""Tables: what columns and rows they show."""

from __future__ import annotations

import io

import pytest
import rich.console

from gdfq_tf.cli import reporting

FLOAT = {"title": "float", "top1": 0.91234, "top1_interval_95": [0.904, 0.921]}


def render(rows, marked=(), foot=None) -> str:
    console = rich.console.Console(file=io.StringIO(), width=100)
    console.print(reporting.results_table("a title", rows, marked, foot))
    return console.file.getvalue()


def test_the_foot_is_shown_as_it_is():
    assert "0 [red]ape, 1 cat" in render([FLOAT], foot="0 [red]ape, 1 cat")


def test_tables_show_filled_columns_only():
    text = render(
        [
            {**FLOAT, "size_bytes": 1234567},
            {"title": "w4a8", "top1": 0.5, "top1_interval_95": [0.41, 0.5923]},
        ]
    )
    assert "a title" in text
    float_row, student_row = (
        next(line for line in text.splitlines() if name in line)
        for name in ("float", "w4a8")
    )
    assert "91.23 % (90.4-92.1)" in float_row
    assert "1,234,567" in float_row
    assert student_row.split() == ["w4a8", "50.00", "%", "(41.0-59.2)", "-"]
    assert "latency" not in text
    assert "as float" not in text


def test_tables_without_data_have_agreement_and_latency():
    text = render(
        [{"title": "w8a8", "agreement_with_float": 0.998, "latency_ms": 0.1234}]
    )
    assert "top-1" not in text
    assert "99.80 %" in text
    assert "0.123 ms" in text


def test_likeness_of_labels_and_features():
    text = render([{"title": "x", "label_agreement_with_float": 2 / 3}])
    assert "labels as in float" in text
    assert "66.67 %" in text
    assert "20.0 dB" in render([{"title": "x", "signal_to_noise_db": 20.0}])


def test_bad_rows_are_marked():
    text = render([FLOAT, {**FLOAT, "title": "w2a8"}], ["w2a8"])
    (row,) = (line for line in text.splitlines() if "w2a8" in line)
    assert row.strip().startswith("! w2a8")
    assert text.count("!") == 1


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["runs/a_net_w8a8.tflite"], ["a_net_w8a8.tflite"]),
        (["r/net_w8a8.tflite", "net_w4a8.tflite"], ["w8a8", "w4a8"]),
        (["net_w4a8.tflite", "net_w4a8_paper.tflite"], ["w4a8", "w4a8_paper"]),
        (["a.tflite", "b.tflite"], ["a", "b"]),
        (["a_1.tflite", "a_1.npz"], ["1.tflite", "1.npz"]),
        (["x/a.tflite", "y/a.tflite"], ["a.tflite", "a.tflite"]),
        (["a_.tflite", "a_b.tflite"], ["a_.tflite", "a_b.tflite"]),
    ],
)
def test_files_are_named_by_what_tells_them_apart(paths, expected):
    assert reporting.distinct_names(paths) == expected
