"""Closing words on summaries made by hand."""

from __future__ import annotations

import pytest

from gdfq_tf.verdict import choose, complaint, complaints, verdict

NO_LIMITS = {"max_accuracy_loss": None, "max_bytes": None, "max_latency_ratio": None}


def row(title, *, size=100, latency=1.0, bits=(8, 8), **facts) -> dict:
    widths = {"weight_bits": bits[0], "activation_bits": bits[1], "protocol": "edge"}
    return {
        "title": title,
        "file": f"{title}.tflite",
        "size_bytes": size,
        "latency_ms": latency,
        "widths": widths,
        **facts,
    }


def labelled(title, top1, agreement=0.95, **facts) -> dict:
    facts |= {"top1_interval_95": [top1 - 0.01, top1 + 0.01]}
    return row(title, top1=top1, agreement_with_float=agreement, **facts)


def summary(*own, recipe="balanced", noise=0.8, target="litert") -> dict:
    models = [labelled("float", 0.9, size=400), labelled("noise", noise), *own]
    return {
        "recipe": {"name": recipe},
        "target": target,
        "limits": dict(NO_LIMITS),
        "models": models,
    }


@pytest.mark.parametrize(
    ("top1", "noise", "expected"),
    [
        (0.9, 0.8, None),
        (0.8901, 0.8, None),
        (0.889, 0.8, "1.1 points below float, beyond its interval"),
        (0.8905, 0.8906, "no better than calibrating on noise"),
        (0.66, 0.8, "24.0 points below float, beyond its interval"),
        (
            0.64,
            0.8,
            "26.0 points below float, beyond its interval: broken, do not ship it",
        ),
    ],
)
def test_measured_files(top1, noise, expected):
    found = complaint(
        labelled("w8a8", top1),
        labelled("float", 0.9),
        labelled("noise", noise, agreement=0.96),
    )
    assert found == expected


def test_what_agrees_with_float_more_often_than_noise_is_no_worse():
    found = complaint(
        labelled("w8a16", 0.8905, agreement=1.0),
        labelled("float", 0.9),
        labelled("noise", 0.8906, agreement=0.98),
    )
    assert found is None


@pytest.mark.parametrize(
    ("estimate", "expected"),
    [
        ({"accuracy_loss": 3.0}, None),
        ({"accuracy_loss": 3.1}, "about 3.1 points lost, as estimated"),
        ({"accuracy_loss": 24.9}, "about 24.9 points lost, as estimated"),
        (
            {"accuracy_loss": 25.0},
            "about 25.0 points lost, as estimated: broken, do not ship it",
        ),
        ({"label_agreement": 0.97}, None),
        (
            {"label_agreement": 0.7},
            "30.0 % of labels are others than float's: broken, do not ship it",
        ),
        ({"label_agreement": 0.96}, "4.0 % of labels are others than float's"),
        ({"signal_to_noise_db": 15.0}, None),
        ({"signal_to_noise_db": 9.96}, "its error is -10.0 dB beside the signal"),
        (
            {"signal_to_noise_db": -1.0},
            "its error is +1.0 dB beside the signal: broken, do not ship it",
        ),
    ],
)
def test_estimated_files(estimate, expected):
    assert complaint(row("w4a8", estimate=estimate), row("float"), row("x")) == expected


def test_the_smallest_good_file_is_chosen():
    small, large = row("small", size=60, latency=9.0), row("large", size=100)
    assert choose([large, small]) is small
    # A tenth is not worth nine times the time.
    assert choose([large, row("near", size=91, latency=9.0)]) is large
    assert choose([large, row("far", size=89, latency=9.0)])["title"] == "far"


def test_words_by_hand():
    found = summary(
        labelled("w8a8", 0.901, size=100, latency=1.0),
        labelled("w4a8", 0.895, size=50, latency=4.0, bits=(4, 8)),
        labelled("w2a8", 0.5, size=50, latency=4.0, bits=(2, 8)),
    )
    wrong = "40.0 points below float, beyond its interval: broken, do not ship it"
    assert complaints(found) == {"w2a8": wrong}
    assert verdict(found) == [
        f"! w2a8: {wrong}; take w8a8, or "
        "--max_accuracy_loss to keep sensitive layers at 8 bits",
        "ship w4a8.tflite: 50 bytes, 8.0 times less than float; top-1 0.50 points "
        "below float, within float's interval; where speed counts more, w8a8.tflite is "
        "100 % larger and runs 4.0 times as fast here",
    ]


def slow(times, protocol="edge", target="litert", size=60) -> list[str]:
    """What is said of a file that takes so many times as long as int8."""
    file = labelled("x", 0.9, size=size, bits=(4, 8), times_as_long_as_int8=times)
    file["widths"]["protocol"] = protocol
    return verdict(summary(file, target=target))[:-1]


def test_slow_files_are_told():
    assert slow(3.04) == [
        "x takes 3.0 times as long as int8 in LiteRT here, for 40 % fewer bytes: its "
        "INT4 convolutions are slow; take w4a8/pointwise or w8a8 where speed counts"
    ]
    (line,) = slow(2.0, size=104)
    assert "for 4 % more bytes" in line
    assert slow(1.3) == slow(0.9) == slow(1.4, protocol="pointwise") == []
    # It is not LiteRT that will run it.
    assert slow(3.0, target="tflm") == []


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_bytes": 60}, None),
        ({"max_bytes": 59}, "60 bytes, more than --max_bytes=59; no choice of layers"),
        ({"max_latency_ratio": 1.3}, None),
        (
            {"max_latency_ratio": 1.2},
            "takes 1.40 times as long as int8, above --max_latency_ratio; run again",
        ),
        ({"max_accuracy_loss": 0.5}, None),
        (
            {"max_accuracy_loss": 0.4},
            "about 0.5 points lost, as estimated, above --max_accuracy_loss; take a",
        ),
    ],
)
def test_limits_that_are_not_held_are_told(limits, words):
    file = labelled(
        "x",
        0.9,
        size=60,
        bits=(4, 8),
        times_as_long_as_int8=1.4,
        estimate={"accuracy_loss": 0.5},
    )
    found = summary(file)
    found["limits"].update(limits)
    assert ("x" in complaints(found)) == (words is not None)
    if words is not None:
        assert words in verdict(found)[0]


def test_there_may_be_nothing_to_ship():
    found = verdict(summary(labelled("w8a8", 0.5), recipe="calibrate"))
    assert found[-1] == "ship none of these files as they are"
    assert "take --recipe=balanced, and check --preprocessing" in found[0]


@pytest.mark.parametrize(
    ("recipe", "bits", "advice"),
    [
        ("balanced", (8, 8), "check --preprocessing"),
        ("fast", (4, 8), "take a longer --recipe"),
        ("balanced", (4, 4), "take w4a8, or --keep_layers"),
        ("balanced", (4, 8), "--max_accuracy_loss"),
    ],
)
def test_advice_fits_the_run(recipe, bits, advice):
    bad = labelled("x", 0.5, bits=bits)
    assert advice in verdict(summary(bad, recipe=recipe))[0]


def test_estimates_are_enough_without_labels():
    good = row("w8a8", estimate={"accuracy_loss": 0.5})
    found = {
        "recipe": {"name": "fast"},
        "target": "litert",
        "limits": dict(NO_LIMITS),
        "models": [row("float"), row("noise"), good],
    }
    (line,) = verdict(found)
    assert line.startswith("ship w8a8.tflite: 100 bytes, 1.0 times less than float; no")
