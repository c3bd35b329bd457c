"""Tables of docs/ against the files and the code that they are made from."""

from __future__ import annotations

import json
import statistics

import pytest

from benchmarks import reference_tables, result_tables
from gdfq_tf.config import DEFAULT_RECIPE
from gdfq_tf.model_files.layer_arguments import ARGUMENTS, IDENTITIES
from tests import ROOT

NETWORKS = ("resnet20_cifar10", "resnet20w_cifar100", "mobilenet_imagenet")


def rows_of(name: str, recipe: str, bits: str) -> list[dict]:
    rows = json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text())
    return [row for row in rows if (row["recipe"], row["bits"]) == (recipe, bits)]


def cells(table: str, *beginning: str) -> list[str]:
    """What stands in the row of a table that begins like this."""
    rows = [[x.strip() for x in line[1:-1].split("|")] for line in table.splitlines()]
    (found,) = (row for row in rows if row[: len(beginning)] == list(beginning))
    return found


def test_table_in_markdown():
    found = reference_tables.markdown_table(("a", "b"), [("x", "1")], "lr")
    assert found == "| a | b |\n| --- | ---: |\n| x | 1 |"


@pytest.mark.parametrize(
    ("recipe", "title"),
    [
        ("fast", "`fast`"),
        ("ptq_on_noise", "converter's PTQ, 100 images of noise"),
    ],
)
def test_means_over_seeds(recipe, title):
    rows = rows_of("resnet20_cifar10", recipe, "w8a8")
    assert len(rows) == 3
    top1 = [100 * row["top1"] for row in rows]
    _, _, seeds, mean, drop, _, agreement, size, _ = cells(
        result_tables.accuracy("resnet20_cifar10"), "w8a8", title
    )
    assert seeds == "3"
    assert mean == f"{statistics.mean(top1):.2f} ± {statistics.pstdev(top1):.2f}"
    assert drop == f"{91.73 - statistics.mean(top1):.2f}"
    assert agreement == f"{100 * statistics.mean(r['agreement'] for r in rows):.2f}"
    assert size == f"{rows[0]['size_bytes']:,}"


def test_rows_that_saw_test_images_count_on_the_first_half():
    rows = rows_of("resnet20_cifar10", "real", "w4a8")
    found = cells(
        result_tables.accuracy("resnet20_cifar10"),
        "w4a8",
        "`fast`, real images instead",
    )
    top1 = 100 * statistics.mean(row["top1_first_half"] for row in rows)
    agreement = 100 * statistics.mean(row["agreement_first_half"] for row in rows)
    assert found[3:7] == ["", "", f"{91.6 - top1:.2f}", f"{agreement:.2f}"]


def test_one_run_has_no_deviation(monkeypatch):
    row = rows_of("resnet20_cifar10", "fast", "w4a4_paper")[0]
    monkeypatch.setattr(result_tables, "_read", lambda name: [row])
    found = cells(result_tables.accuracy("one"), "w4a4/paper", "`fast`")
    assert found[2:4] == ["1", f"{100 * row['top1']:.2f}"]


def test_ablation():
    name = "ablation_resnet20_cifar10"
    (row,) = rows_of(name, "no refinement", "w4a4_paper")
    drop, agreement = row["float_top1"] - row["top1"], row["agreement"]
    found = cells(result_tables.ablation(name), "no refinement")
    assert found[1] == f"{100 * drop:.2f} ({100 * agreement:.2f})"


def test_estimates():
    rows = rows_of("mobilenet_imagenet", DEFAULT_RECIPE, "w4a8")
    found = cells(result_tables.estimates(*NETWORKS), "mobilenet_imagenet", "w4a8")
    estimated = statistics.mean(row["estimate"]["accuracy_loss"] for row in rows)
    drop = statistics.mean(100 * (row["float_top1"] - row["top1"]) for row in rows)
    assert found[4:] == [f"{estimated:.1f}", f"{drop:.1f}"]


def test_errors_of_estimates_have_signs():
    rows = json.loads((ROOT / "docs/results/resnet20w_cifar100.json").read_text())
    errors = [
        row["estimate"]["accuracy_loss"] - 100 * (row["float_top1"] - row["top1"])
        for row in rows
        if row["recipe"] == "fast"
    ]
    found = cells(result_tables.estimate_errors("resnet20w_cifar100"), "`fast`")
    assert found[1] == str(len(errors))
    assert found[3] == f"{min(errors):+.1f} to {max(errors):+.1f}"


def test_own_networks_have_a_line_for_each_width():
    rows = rows_of("own_networks", "fast", "w4a8")
    assert len(rows) == 8
    for row in rows:
        table = result_tables.own_networks()
        top1 = f"{100 * row['float_top1']:.2f}"
        found = cells(table, row["model"], top1, "w4a8")
        assert found[3] == f"{100 * (row['float_top1'] - row['top1']):.2f}"
        assert found[5] == f"{row['estimate']['accuracy_loss']:.1f}"


def test_every_layer_is_in_the_table():
    table = reference_tables.layers()
    assert all(f"`{name}`" in table for name in [*ARGUMENTS, *IDENTITIES])
