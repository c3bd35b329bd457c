"""The whole way on a tiny classifier: slow steps are shared by all tests."""

from __future__ import annotations

import contextlib
import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

from gdfq_tf import pipeline
from gdfq_tf.baselines import make_baselines
from gdfq_tf.classifier import Classifier, Head
from gdfq_tf.config import (
    RECIPES,
    DistillationConfig,
    Limits,
    Recipe,
    ReconstructionConfig,
    RefinementConfig,
    StudentBudget,
    SynthesisConfig,
    parse_bit_widths,
)
from gdfq_tf.errors import UserError
from gdfq_tf.job import Job
from gdfq_tf.quantization import mixed_precision
from gdfq_tf.quantization.estimation import AccuracyEstimate, blend
from gdfq_tf.recording import times_resumed
from gdfq_tf.synthesis import growing_pool
from gdfq_tf.synthesis.image_pool import ImagePool
from tests.checkpoints import KilledError, MemoryCheckpoints
from tests.tiny import (
    INPUT_SHAPE,
    NUM_CLASSES,
    alike,
    build_tiny_classifier,
    classifier_of,
)
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import read_model
from tflite_export.interpreter import TFLiteClassifier
from tflite_export.litert.simulator import infer
from tflite_export.quantization_params import weight_levels
from tflite_export.verification.rules import Expectation

TINY_RECIPE = Recipe(
    "tiny",
    SynthesisConfig(num_steps=4, batch_size=16, num_snapshots=2),
    RefinementConfig(num_steps=2),
    ReconstructionConfig(alike(96)),
)
WIDTHS = tuple(map(parse_bit_widths, ("w8a8", "w4a8", "w4a4/paper")))


def make_classifier(head: Head = Head.LOGITS) -> Classifier:
    return classifier_of(build_tiny_classifier(), "tf", head)


def quantize(classifier, recipe, bit_widths, *, pool=None, progress=None, **options):
    job = Job(classifier, recipe, tuple(bit_widths), **options)
    return pipeline.quantize(job, pool=pool, progress=progress)


@pytest.fixture(scope="module")
def result():
    return quantize(make_classifier(), TINY_RECIPE, WIDTHS, seed=1)


def verify(model, result, bits=None, kept=frozenset()):
    """What the pipeline does with a file, which may be expected to be another."""
    num_operators = len(read_model(result.baselines.noise_ptq).operators)
    weight_bits = bits or model.bit_widths.weight_bits
    return pipeline.verify(
        model.network,
        model.tflite,
        Expectation(weight_bits, num_operators, frozenset(kept)),
        make_classifier().preprocessing.to_integers(result.images.pixels[:64]),
    )


def test_one_verified_model_per_width_in_the_order_asked(result):
    assert tuple(model.bit_widths for model in result.models) == WIDTHS
    for model in result.models:
        assert model.findings
        assert all(finding.passed for finding in model.findings)
        assert model.agreement.num_images == 128  # 64 random, 64 synthetic
        assert model.agreement.max_lsb <= 1
        assert model.seconds > 0
    assert result.synthesis_seconds > 0


def test_files_compute_what_their_networks_say(result):
    rng = np.random.default_rng(7)
    inputs = rng.integers(-128, 128, (16, *INPUT_SHAPE), np.int8)
    for model in result.models:
        outputs = TFLiteClassifier(model.tflite).run(inputs)
        assert outputs.dtype == np.int8
        difference = outputs.astype(int) - np.rint(infer(model.network, inputs))
        assert np.abs(difference).max() <= 1


def test_widths_are_kept(result):
    for model in result.models:
        kernels = [op.kernel for op in model.network.ops if op.kernel is not None]
        bits = model.bit_widths.weight_bits
        # The edge protocol keeps the first, the depthwise one and the last.
        kept = bits if model.bit_widths.protocol == "paper" else 8
        assert [kernel.bits for kernel in kernels] == [kept, kept, bits, kept]
        for kernel in kernels:
            lowest, highest = weight_levels(kernel.bits)
            assert lowest <= kernel.values.min() <= kernel.values.max() <= highest
    eight, four, _ = result.models
    assert len(four.tflite) < len(eight.tflite)


def test_the_image_input_is_pixel_minus_128(result):
    for model in result.models:
        file = TFLiteClassifier(model.tflite)
        assert file.input_shape == (1, *INPUT_SHAPE)
        assert file.input_quantization.scale == pytest.approx(2 / 255, rel=2e-5)
        assert file.input_quantization.zero_point == 0
        assert file.num_classes == NUM_CLASSES


def test_eight_bits_keep_the_classifiers_logits(result):
    classifier = make_classifier()
    logits = classifier.model(
        classifier.preprocessing.to_input(result.images.pixels), training=False
    ).numpy()
    file = TFLiteClassifier(result.models[0].tflite)
    outputs = file.run(classifier.preprocessing.to_integers(result.images.pixels))
    error = file.dequantize_output(outputs) - logits
    assert np.sqrt(np.mean(error**2)) < 0.1 * np.std(logits)


def test_widths_share_one_pool(result):
    # Of 96, a quarter is held out for the estimate, in 6 pairs each.
    assert result.images.pixels.shape == (72, *INPUT_SHAPE)
    assert [model.estimate.num_images for model in result.models] == [144] * 3


def test_widths_finished_before_a_kill_are_not_made_again(result, monkeypatch):
    memory, classifier = MemoryCheckpoints(), make_classifier()
    done = []

    def counted(name):
        function = getattr(pipeline, name)
        return lambda *args, **options: done.append(name) or function(*args, **options)

    for name in ("convert_network", "verify_file", "estimate"):
        monkeypatch.setattr(pipeline, name, counted(name))

    def run(on_student=None):
        job = Job(classifier, TINY_RECIPE, WIDTHS[:2], seed=1)
        return pipeline.quantize(job, on_student=on_student, checkpoints=memory)

    def kill(bit_widths, *_):
        if bit_widths == WIDTHS[1]:
            raise KilledError

    with pytest.raises(KilledError):
        run(kill)
    resumed = run()
    assert done == ["convert_network", "verify_file", "estimate"] * 2
    for model, unbroken in zip(resumed, result.models[:2], strict=True):
        assert model.tflite == unbroken.tflite
        assert model.estimate == unbroken.estimate
        assert model.findings == unbroken.findings
        assert model.agreement == unbroken.agreement
    # Of the third width there are others.
    titles = [stage.name for stage in result.stages][: len(resumed.stages)]
    assert [stage.name for stage in resumed.stages] == titles
    assert times_resumed(resumed.stages) == 1
    earlier = {stage.name: stage.earlier_seconds for stage in resumed.stages[:3]}
    images = earlier["generator"] + earlier["refinement"]
    assert resumed.synthesis_seconds > images > 0
    assert resumed.earlier_seconds > images + earlier["baselines"]
    assert resumed.models[0].seconds > resumed.earlier_seconds - sum(earlier.values())


def test_the_same_seed_gives_the_same_bytes_and_another_others(result):
    alone = quantize(make_classifier(), TINY_RECIPE, WIDTHS[1:2], seed=1)
    assert alone.models[0].tflite == result.models[1].tflite
    assert alone.baselines.float32 == result.baselines.float32
    assert alone.baselines.noise_ptq == result.baselines.noise_ptq
    np.testing.assert_array_equal(alone.images.pixels, result.images.pixels)
    other = quantize(make_classifier(), TINY_RECIPE, WIDTHS[1:2], seed=2)
    assert other.models[0].tflite != result.models[1].tflite
    assert other.baselines.float32 == result.baselines.float32


def test_the_classifier_is_left_as_it_was():
    classifier = make_classifier()
    before = classifier.model.get_weights()
    quantize(classifier, TINY_RECIPE, WIDTHS[:1])
    for now, then in zip(classifier.model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_published_recipe_and_softmax_end_in_verified_models():
    published = RECIPES["gdfq"]
    recipe = dataclasses.replace(
        published,
        synthesis=dataclasses.replace(published.synthesis, num_steps=2, batch_size=16),
        student=dataclasses.replace(published.student, num_steps=2, num_images=20),
    )
    result = quantize(make_classifier(Head.SOFTMAX), recipe, WIDTHS[2:])
    (model,) = result.models
    assert all(finding.passed for finding in model.findings)
    assert model.agreement.max_lsb <= 1
    assert model.network.softmax
    assert result.images.pixels.shape == (15, *INPUT_SHAPE)
    assert model.estimate.num_images == 5
    file = TFLiteClassifier(model.tflite)
    # The grid that TFLite's softmax kernel prescribes.
    assert file.output_quantization.scale == pytest.approx(1 / 256)
    assert file.output_quantization.zero_point == -128


def test_baselines_are_the_float_model_and_its_noise_calibration():
    classifier = make_classifier(Head.SOFTMAX)
    baselines = make_baselines(classifier, seed=0)
    pixels = np.random.default_rng(0).integers(0, 256, (8, *INPUT_SHAPE))
    inputs = classifier.preprocessing.to_input(pixels).numpy()
    expected = tf.nn.softmax(classifier.model(inputs, training=False))
    exact = TFLiteClassifier(baselines.float32)
    assert exact.dtype == np.float32
    np.testing.assert_allclose(exact.logits(inputs), expected, atol=1e-5)
    noisy = TFLiteClassifier(baselines.noise_ptq)
    assert noisy.dtype == np.int8
    np.testing.assert_allclose(noisy.logits(inputs), expected, atol=0.05)


def test_a_file_that_computes_something_else_is_refused(result, monkeypatch):
    model = result.models[0]
    assert verify(model, result) == (model.findings, model.agreement)
    monkeypatch.setattr(
        "tflite_export.verification.verify.compute",
        lambda kernels, *given: np.clip(infer(*given), None, 120) + 2,
    )
    with pytest.raises(ExportError, match=r"within [01] LSB") as error:
        verify(model, result)
    assert "\n" not in str(error.value)


def test_a_file_of_other_widths_is_refused(result):
    with pytest.raises(ExportError, match="breaks"):
        verify(result.models[1], result, bits=8)


KERNELS = ["conv1", "dw2", "conv3", "logits"]
CALIBRATE = RECIPES["calibrate"].with_budgets(lambda _: StudentBudget(96))


def stored_types(tflite: bytes) -> list[str]:
    """Types of the weights, in the order of `KERNELS`."""
    model = read_model(tflite)
    names = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    operators = [x for x in model.operators if x.name in names]
    return [model.tensors[x.inputs[1]].dtype for x in operators]


@functools.cache
def known_baselines():
    return make_baselines(make_classifier(), seed=0)


def keeping(*keep_layers: str, bit_widths: str = "w4a8/paper", **options):
    with pytest.MonkeyPatch.context() as patch:
        # The same for all: made once.
        baselines = known_baselines()
        patch.setattr(pipeline, "make_baselines", lambda *args: baselines)
        return quantize(
            make_classifier(),
            CALIBRATE,
            [parse_bit_widths(bit_widths)],
            keep_layers=keep_layers,
            **options,
        )


@pytest.mark.parametrize(
    ("patterns", "kept"),
    [
        ((), set()),
        (("conv1", "logits"), {"conv1", "logits"}),
        (("conv3", "*2"), {"conv3", "dw2"}),
        (("*",), set(KERNELS)),
    ],
)
def test_kept_layers_are_int8_in_the_file_and_all_others_int4(patterns, kept):
    (model,) = keeping(*patterns).models
    assert model.layers_at_8_bits == kept
    expected = ["INT8" if name in kept else "INT4" for name in KERNELS]
    assert stored_types(model.tflite) == expected
    bits = [op.kernel.bits for op in model.network.ops if op.kernel is not None]
    assert bits == [8 if name in kept else 4 for name in KERNELS]
    assert all(finding.passed for finding in model.findings)


def test_a_kept_layer_that_was_stored_as_int4_is_refused(result):
    """And an INT8 one that was not to be kept."""
    (mixed,) = keeping("conv1", "dw2").models

    verify(mixed, result, kept={"conv1", "dw2"})
    for kept, text in (
        ({"conv1", "dw2", "conv3"}, "INT4"),
        ({"conv1", "dw2", "logits"}, "INT4"),
        ({"conv1"}, "INT8"),
        (set(), "INT8"),
    ):
        with pytest.raises(ExportError, match=f"breaks.*constant {text}") as error:
            verify(mixed, result, kept=kept)
        assert "\n" not in str(error.value)


def test_layers_to_keep_that_are_not_there_are_refused_before_any_work(monkeypatch):
    def unreachable(*args, **kwargs):
        raise AssertionError("work began")

    monkeypatch.setattr(growing_pool, "synthesize", unreachable)
    message = "keep_layers='conv9' matches no layer"
    with pytest.raises(UserError, match=message) as error:
        keeping("conv1", "conv9")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="max_accuracy_loss cannot be held") as error:
        quantize(
            make_classifier(),
            RECIPES["gdfq"],
            WIDTHS[:1],
            limits=Limits(max_accuracy_loss=1.0),
        )
    assert "\n" not in str(error.value)


@pytest.fixture
def estimates(monkeypatch):
    """The loss a student's number of kept layers is said to have."""
    losses = [4.0, 3.0, 2.0, 1.0, 0.5]

    def estimate_accuracy(student, pixels):
        kept = sum(bits == 8 for bits in student.plan.weight_bits.values())
        assert len(pixels) == 24  # of 96
        return AccuracyEstimate(24, 0.5, losses[kept], 99.0)

    def outputs_of_both(student, classifier, pixels):
        return student, pixels

    monkeypatch.setattr(mixed_precision, "outputs_of_both", outputs_of_both)
    monkeypatch.setattr(mixed_precision, "estimate_accuracy", estimate_accuracy)
    monkeypatch.setattr(
        mixed_precision,
        "measure_sensitivity",
        # conv1 has the most bytes by far, and loses the most with each of them.
        lambda *args: {"conv1": 9.0, "dw2": 0.9, "conv3": 0.1, "logits": 0.2},
    )


@pytest.mark.parametrize(
    ("max_accuracy_loss", "kept"),
    [
        (4.0, set()),
        (2.0, {"conv1", "dw2"}),
        (1.5, {"conv1", "dw2", "logits"}),
        (0.1, set(KERNELS)),  # even they lose more
    ],
)
def test_as_many_of_the_most_sensitive_layers_are_kept_as_the_loss_takes(
    estimates, max_accuracy_loss, kept
):
    (model,) = keeping(limits=Limits(max_accuracy_loss=max_accuracy_loss)).models
    assert model.layers_at_8_bits == kept
    expected = ["INT8" if name in kept else "INT4" for name in KERNELS]
    assert stored_types(model.tflite) == expected


def test_layers_named_are_kept_besides_the_most_sensitive(estimates):
    (model,) = keeping("conv3", limits=Limits(max_accuracy_loss=2.0)).models
    assert model.layers_at_8_bits == {"conv3", "conv1"}


def test_a_loss_that_nothing_exceeds_keeps_no_layer():
    (model,) = keeping(limits=Limits(max_accuracy_loss=100.0)).models
    assert model.layers_at_8_bits == frozenset()


def test_a_limit_of_bytes_keeps_what_it_can():
    smallest, largest = (len(keeping(*kept).models[0].tflite) for kept in ((), KERNELS))
    limit = (smallest + largest) // 2
    (model,) = keeping(limits=Limits(max_bytes=limit)).models
    assert len(model.tflite) <= limit
    assert 0 < len(model.layers_at_8_bits) < len(KERNELS)
    curve = model.trade_off.curve()
    assert curve[0].num_bytes == smallest
    assert curve[-1].num_bytes == pytest.approx(largest, abs=64)
    assert curve[0].divergence > curve[-1].divergence == 0


@pytest.mark.parametrize(
    ("recipe", "bits", "could_train", "fits_noise"),
    [
        ("fast", "w4a8", True, False),
        ("fast", "w8a4", True, False),
        ("fast", "w8a8", False, False),
        ("balanced", "w4a8", False, False),
        ("calibrate", "w4a8", False, True),
        ("gdfq", "w4a8", False, False),
    ],
)
def test_what_a_job_says_of_its_recipe(recipe, bits, could_train, fits_noise):
    job = Job(make_classifier(), RECIPES[recipe], (parse_bit_widths(bits),))
    assert (job.could_train, job.fits_noise) == (could_train, fits_noise)


def test_a_pool_given_takes_the_place_of_synthetic_images(monkeypatch):
    def unreachable(*args, **kwargs):
        raise AssertionError("images were made all the same")

    monkeypatch.setattr(growing_pool, "synthesize", unreachable)
    monkeypatch.setattr(pipeline, "make_baselines", lambda *args: known_baselines())
    rng = np.random.default_rng(3)
    pool = ImagePool(
        rng.integers(0, 256, (40, *INPUT_SHAPE)).astype(np.uint8),
        rng.integers(0, NUM_CLASSES, 40).astype(np.int32),
    )
    result = quantize(make_classifier(), TINY_RECIPE, WIDTHS[1:2], pool=pool)
    np.testing.assert_array_equal(result.images.pixels, pool.pixels[:30])
    np.testing.assert_array_equal(result.images.labels, pool.labels[:30])
    assert result.models[0].estimate.num_images == 90  # pairs of 10


def test_the_estimate_is_of_the_held_out_images(result, monkeypatch):
    pools = []
    refine = growing_pool.Refiner.refine

    def spy(*args, **kwargs):
        pools.append(refine(*args, **kwargs))
        return pools[-1]

    monkeypatch.setattr(growing_pool.Refiner, "refine", spy)
    again = quantize(make_classifier(), TINY_RECIPE, WIDTHS[1:2], seed=1)
    (pool,) = pools
    np.testing.assert_array_equal(again.images.pixels, pool.pixels[:72])
    np.testing.assert_array_equal(again.images.labels, pool.labels[:72])
    (model,) = again.models
    classifier = make_classifier()
    held_out = blend(pool[72:]).pixels
    logits = classifier.model(classifier.preprocessing.to_input(held_out)).numpy()
    file = TFLiteClassifier(model.tflite)
    outputs = file.run(classifier.preprocessing.to_integers(held_out))
    share = np.mean(outputs.argmax(axis=1) == logits.argmax(axis=1))
    assert model.estimate.num_images == 144  # pairs of 24
    # Logits at one level may tie.
    assert model.estimate.agreement == pytest.approx(share, abs=1.01 / 24)


@pytest.mark.parametrize("bit_widths", ["w8a8", "w4a8", "w4a4/paper"])
def test_without_training_models_are_verified_and_near_the_classifier(bit_widths):
    result = keeping(bit_widths=bit_widths)
    (model,) = result.models
    assert all(finding.passed for finding in model.findings)
    assert model.agreement.max_lsb <= 1
    assert result.images.labels.tolist() == [-1] * 72
    classifier = make_classifier()
    logits = classifier.model(
        classifier.preprocessing.to_input(result.images.pixels), training=False
    ).numpy()
    file = TFLiteClassifier(model.tflite)
    outputs = file.run(classifier.preprocessing.to_integers(result.images.pixels))
    error = file.dequantize_output(outputs) - logits
    share = {"w8a8": 0.1, "w4a8": 0.3, "w4a4/paper": 0.5}[bit_widths]
    assert np.sqrt(np.mean(error**2)) < share * np.std(logits)


def test_the_edge_protocol_keeps_the_ends_besides_those_asked_for():
    (model,) = keeping(bit_widths="w4a8").models
    assert model.layers_at_8_bits == {"conv1", "dw2", "logits"}
    assert stored_types(model.tflite) == ["INT8", "INT8", "INT4", "INT8"]
    (model,) = keeping("conv3", bit_widths="w4a8").models
    assert model.layers_at_8_bits == set(KERNELS)


def test_layers_the_protocol_keeps_are_not_tried(monkeypatch):
    tried = []

    def choose(ranked, accuracy_loss, limit):
        tried.append(ranked)
        return frozenset(ranked[:1])

    monkeypatch.setattr(mixed_precision, "choose_kept_layers", choose)
    limits = Limits(max_accuracy_loss=0.0)
    (model,) = keeping(bit_widths="w4a8", limits=limits).models
    (ranked,) = tried
    assert ranked == ["conv3"]
    assert model.layers_at_8_bits == set(KERNELS)


class Announced:
    """A progress that notes stages and those that are announced."""

    def __init__(self):
        self.expected, self.calls = [], []

    def expect(self, stages):
        assert not self.calls
        self.expected = [stage.name for stage in stages]
        assert all(stage.seconds > 0 for stage in stages)

    @contextlib.contextmanager
    def stage(self, name, total, images_per_step=0.0):
        self.calls.append(name)
        yield lambda n=1, **metrics: None


TRAINED = ReconstructionConfig(alike(96, DistillationConfig(num_steps=30)))


@pytest.mark.parametrize(
    "recipe",
    [
        TINY_RECIPE,
        dataclasses.replace(TINY_RECIPE, student=TRAINED),
        CALIBRATE,
        dataclasses.replace(
            RECIPES["gdfq"],
            synthesis=dataclasses.replace(TINY_RECIPE.synthesis, num_steps=2),
            student=dataclasses.replace(RECIPES["gdfq"].student, num_steps=2),
        ),
    ],
    ids=["fast", "balanced", "calibrate", "gdfq"],
)
def test_all_stages_are_announced_first(recipe):
    progress = Announced()
    quantize(make_classifier(), recipe, WIDTHS[::2], progress=progress)
    # The caller evaluates what it gets, and asks for figures of layers.
    assert [*progress.calls, "evaluation", "layer figures"] == progress.expected


@pytest.mark.slow
def test_only_students_of_8_bits_throughout_are_not_trained():
    budgets = dataclasses.replace(TRAINED.budgets, eight_bits=StudentBudget(96))
    student = dataclasses.replace(TRAINED, budgets=budgets)
    recipe = dataclasses.replace(TINY_RECIPE, student=student)
    bit_widths = [
        parse_bit_widths(text) for text in ("w8a8", "w3a8/paper", "w8a7/paper")
    ]
    progress = Announced()
    trained = quantize(make_classifier(), recipe, bit_widths, progress=progress)
    fitted = ["calibration", "reconstruction"]
    tail = ["conversion", "verification", "estimation"]
    assert progress.calls[3:] == [
        *(*fitted, *tail),
        *(*fitted, "distillation", *tail),
        *("equalization", *fitted, "distillation", *tail),
    ]
    untrained = quantize(make_classifier(), TINY_RECIPE, bit_widths)
    same = [
        a.tflite == b.tflite
        for a, b in zip(trained.models, untrained.models, strict=True)
    ]
    # The third was trained too, but may have come no nearer and been left as it was.
    assert same[:2] == [True, False]
    assert all(model.agreement.exact_outputs == 1.0 for model in trained.models)


def test_recipes_that_make_images_in_turn_refuse_a_pool():
    pool = ImagePool(np.zeros((40, *INPUT_SHAPE), np.uint8), np.zeros(40, np.int32))
    with pytest.raises(UserError, match="makes its images in turn with the student"):
        quantize(make_classifier(), RECIPES["gdfq"], WIDTHS[:1], pool=pool)


@pytest.mark.parametrize("name", ["gdfq", "calibrate"])
@pytest.mark.parametrize("bit_widths", [(), WIDTHS[:1] * 2])
def test_each_width_is_named_once(name, bit_widths):
    with pytest.raises(UserError, match="at least one width, and each once"):
        quantize(make_classifier(), RECIPES[name], bit_widths)


def test_figures_of_layers_say_where_the_error_comes_from(result):
    eight, four, _ = result.models
    assert [row.name for row in eight.layers] == [op.name for op in eight.network.ops]
    by_name = {row.name: row for row in four.layers}
    assert by_name["conv3"].weight_bits == 4
    assert by_name["dw2"].weight_bits == 8
    assert by_name["logits"].weight_bits == 8
    kernel = four.network.ops[0].kernel
    assert four.layers[0].weight_bytes == kernel.values.size + 4 * kernel.bias.size
    for finer, coarser in zip(eight.layers, four.layers, strict=True):
        assert finer.signal_to_noise_db > 20
        if finer.name == "conv3":
            assert coarser.signal_to_noise_db < finer.signal_to_noise_db - 1
    text = repr(four.layers)
    assert "signal_to_noise_db" in text
    assert all(row.name in text for row in four.layers)
