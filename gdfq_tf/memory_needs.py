"""How much memory a run takes, told from the shapes of the classifier.

Bytes per value were measured as peaks of resident memory on classifiers with inputs of
32x32 to 512x512, see docs/networks.md and docs/experiments.md. Stages follow each
other, and the largest counts. What NumPy and the converter have freed the next stage
uses; TensorFlow keeps what it once had, in pieces that do not serve everything.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from gdfq_tf.config import RECIPES, BitWidths, FineTuningConfig, Recipe
from gdfq_tf.graph.queries import is_depthwise, tensors_at_once
from gdfq_tf.graph.traits import has_kernel
from gdfq_tf.keras_compat import keras
from gdfq_tf.system.large_arrays import bytes_in_file
from gdfq_tf.system.memory import available_memory, gibibytes, require_memory
from tflite_export.names import shown

# Graphs of TensorFlow.
_BYTES_OF_GRAPHS = 2**27
# Of a weight: in teacher, student and files; besides in the converter's graphs.
_BYTES_OF_WEIGHT = 20
_BYTES_OF_CONVERTED_WEIGHT = 84
# Of one image and its copies on the way into the converter and LiteRT.
_BYTES_OF_CALIBRATION_PIXEL = 33
_NUM_CALIBRATION_IMAGES = 100
# Of the pool, uint8, with what is made of it later, as far as that is not in files.
_BYTES_OF_POOL_PIXEL, _MOST_BYTES_OF_POOL = 4, 2**28
# Beside the pool while noise is drawn and resized, or exposure varied, in float64.
_BYTES_OF_NOISE_PIXEL = 37
# Of an activation in a step: kept for the backward pass, and its gradient; the student
# adds what is quantized.
_BYTES_OF_TRAINED_ACTIVATION = 6
# What is left of them where the teacher runs in parts; of what TensorFlow keeps of
# that, what later stages do not use again.
_SHARE_OF_PARTS, _SHARE_NOT_REUSED = 0.4, 0.5
_BYTES_OF_STUDENT_ACTIVATION = 10
# Ranges settle with fewer images than kernels do.
NUM_RANGE_IMAGES = 512
# Of images turned into model inputs.
_BYTES_OF_INPUT = 16
# Outputs of teacher and student, before and behind a layer, of a batch of images.
_BYTES_OF_RECONSTRUCTED_ACTIVATION = 24
# Of X^T X and its factors, in float64.
_BYTES_OF_PRODUCT = 40
# In float64, of a batch.
_BYTES_OF_SIMULATED_ACTIVATION = 24
# Patches and their copy in the kernel's order.
_BYTES_OF_ROW = 12
# Layers' outputs of a batch, and what is computed on the way; about every third layer's
# are quantized.
_BYTES_OF_CALIBRATED_ACTIVATION, _SHARE_OF_QUANTIZED = 6, 1 / 3
# In float64, with their powers.
_BYTES_OF_EQUALIZED_ACTIVATION = 16
_BATCH_SIZE = 64
# Of one batch, in float32: 1 GiB.
_MAX_VALUES_AT_ONCE = 2**28
# Of one layer, in float64, with their powers: 1 GiB.
MAX_EQUALIZED_VALUES = 2**26
# One layer's output for all images of a reconstruction in float32: 1 GiB, of which a
# residual network has four at a time. Layers so large see many positions of each image
# besides.
_MAX_VALUES = 2**28
# Rows of X used for each layer: many times the unknowns of its kernel.
_ROWS_PER_UNKNOWN, _MIN_ROWS, _MAX_ROWS = 128, 2**14, 2**17
# Of what a teacher's layers give in a step, and of each part once it has to be cut.
_MAX_KEPT_BYTES, _KEPT_BYTES_OF_PART = 3 * 2**30, 2**30


def require_memory_for_run(
    model: keras.Model,
    name: str,
    recipe: Recipe,
    bit_widths: Sequence[BitWidths],
    num_replicas: int = 1,
) -> None:
    """Refuses a run that memory would not hold, before it is begun.

    Args:
      model: canonical.
      name: what messages call it.
      recipe: of the run.
      bit_widths: one for each student.
      num_replicas: of this process.

    Raises:
      UserError: says how much the run takes, what in it takes most, and what fits.
    """
    what = f"quantizing {shown(name)} by recipe"
    _require(model, what, recipe, bit_widths, num_replicas)


def require_memory_for_any_run(model: keras.Model, name: str) -> None:
    """Refuses a classifier for which memory holds no recipe.

    Raises:
      UserError: as by `require_memory_for_run`.
    """
    bit_widths = [BitWidths(8, 8)]
    recipe = min(
        RECIPES.values(), key=lambda x: _largest(memory_needs(model, x, bit_widths))[1]
    )
    _require(model, f"quantizing {shown(name)} even by recipe", recipe, bit_widths)


def _require(
    model: keras.Model,
    what: str,
    recipe: Recipe,
    bit_widths: Sequence[BitWidths],
    num_replicas: int = 1,
) -> None:
    needs = memory_needs(model, recipe, bit_widths, num_replicas)
    stage, num_bytes = _largest(needs)
    _, least = _largest(memory_needs(model, RECIPES["calibrate"], bit_widths))
    less = ""
    if least < min(num_bytes, available_memory()):
        less = f"recipe 'calibrate', which takes {gibibytes(least)}, "
    height, width, _ = model.input_shape[1:]
    require_memory(
        num_bytes,
        f"{what} {recipe.name!r}, with images of {height}x{width},",
        f"most is for {stage}: take {less}a machine with more memory or the network "
        "for smaller images",
    )


def images_that_fit(model: keras.Model) -> int:
    """How many images reconstruction takes at most, for its memory's sake."""
    largest = max(math.prod(layer.output_shape[1:]) for layer in model.layers[1:])
    return max(1, _MAX_VALUES // largest)


def images_per_batch(num_values: int, most: int = _BATCH_SIZE) -> int:
    """How many images to look at together, where so many values of each are kept.

    Args:
      num_values: of an image, in float32.
      most: of small ones.
    """
    return max(1, min(most, _MAX_VALUES_AT_ONCE // num_values))


def positions_that_suffice(positions: int, num_unknowns: int, num_images: int) -> int:
    """At how many of its positions in each image a layer is looked at.

    Args:
      positions: of its output in an image.
      num_unknowns: of its kernel, for each output channel.
      num_images: that there are.
    """
    num_wanted = max(_MIN_ROWS, min(_ROWS_PER_UNKNOWN * num_unknowns, _MAX_ROWS))
    return min(positions, math.ceil(num_wanted / num_images))


def teacher_parts(model: keras.Model, num_images: int) -> int:
    """Into how many parts to cut a teacher that looks at so many images in a step.

    1, as long as the backward pass takes a few GiB.
    """
    values = sum(math.prod(layer.output_shape[1:]) for layer in model.layers[1:])
    num_bytes = 4 * num_images * values
    if num_bytes <= _MAX_KEPT_BYTES:
        return 1
    return math.ceil(num_bytes / _KEPT_BYTES_OF_PART)


def reconstructed_arrays(model: keras.Model, num_images: int) -> Iterator[list[int]]:
    """Bytes of each array of layers' outputs that is there at one time.

    Teacher and student go through their layers side by side, all images at once, and
    keep no output longer than other layers take it.

    Args:
      model: canonical.
      num_images: that they look at.

    Yields:
      Of each layer, the bytes of all arrays that are there while it is reconstructed.
    """
    num_bytes = {
        layer.name: 4 * num_images * math.prod(layer.output.shape[1:])
        for layer in model.layers
    }
    for names in tensors_at_once(model):
        yield 2 * [num_bytes[name] for name in names]


def memory_needs(
    model: keras.Model,
    recipe: Recipe,
    bit_widths: Sequence[BitWidths],
    num_replicas: int = 1,
) -> Mapping[str, float]:
    """Bytes that each stage takes, beside what the process has before the run.

    Args:
      model: canonical.
      recipe: of the run.
      bit_widths: one for each student.
      num_replicas: of this process. Each has graphs and weights of its own and a part
        of a step's images.

    Returns:
      Stage, in words -> bytes.
    """
    input_shape = model.input_shape[1:]
    pixels = math.prod(input_shape)
    sizes = [math.prod(layer.output_shape[1:]) for layer in model.layers[1:]]
    activations, largest = sum(sizes), max(sizes)
    synthesis = recipe.synthesis
    step = synthesis.images_per_step(input_shape)
    pool = recipe.pool_size(input_shape, bit_widths)
    fitted = min(pool * 3 // 4, images_that_fit(model))
    rows = max(1, *(_row_values(layer, fitted) for layer in model.layers))
    in_memory = max(
        sum(x for x in arrays if not bytes_in_file(x))
        for arrays in reconstructed_arrays(model, fitted)
    )
    equalizes = any(w.activation_bits < 8 for w in bit_widths)
    trains = isinstance(recipe.student, FineTuningConfig) or (
        any(recipe.student.budgets.of(widths).distillation for widths in bit_widths)
    )
    num_weights = model.count_params()
    kept = num_replicas * (_BYTES_OF_GRAPHS + _BYTES_OF_WEIGHT * num_weights) + min(
        _BYTES_OF_POOL_PIXEL * pool * pixels, _MOST_BYTES_OF_POOL
    )
    batch = min(fitted, _BATCH_SIZE)
    stages, held = {}, 0.0
    if synthesis.num_steps:
        share = 1.0 if teacher_parts(model, step) == 1 else _SHARE_OF_PARTS
        held = share * _BYTES_OF_TRAINED_ACTIVATION * step * activations
        stages["synthesis"] = kept + held
    else:
        drawn = min(pool, images_per_batch(8 * pixels))
        stages["the pool of noise"] = kept + _BYTES_OF_NOISE_PIXEL * drawn * pixels

    def tensors(num_bytes: float) -> float:
        """TensorFlow's, in a stage that takes so many."""
        return max(held, num_bytes) + _SHARE_NOT_REUSED * min(held, num_bytes)

    quantized = min(_SHARE_OF_QUANTIZED * activations * batch, _MAX_VALUES_AT_ONCE)
    equalized = equalizes * min(largest * batch, MAX_EQUALIZED_VALUES)
    stages |= {
        "the converter": kept
        + held
        + _BYTES_OF_CONVERTED_WEIGHT * num_weights
        + _BYTES_OF_CALIBRATION_PIXEL * _NUM_CALIBRATION_IMAGES * pixels,
        "calibration": kept
        + tensors(_BYTES_OF_CALIBRATED_ACTIVATION * quantized)
        + _BYTES_OF_INPUT * min(fitted, NUM_RANGE_IMAGES) * pixels
        + _BYTES_OF_EQUALIZED_ACTIVATION * equalized,
        "reconstruction": kept
        + max(
            tensors(_BYTES_OF_RECONSTRUCTED_ACTIVATION * batch * largest),
            tensors(_BYTES_OF_ROW * rows * images_per_batch(rows)),
        )
        + in_memory
        + _BYTES_OF_PRODUCT * max(map(_product_values, model.layers)),
        "verification": kept
        + tensors(
            _BYTES_OF_SIMULATED_ACTIVATION * largest * images_per_batch(8 * largest)
        ),
    }
    if trains:
        stages["the student's training"] = kept + tensors(
            _BYTES_OF_STUDENT_ACTIVATION * step * activations
        )
    return stages


def _largest(needs: Mapping[str, float]) -> tuple[str, float]:
    return max(needs.items(), key=lambda item: item[1])


def _row_values(layer: keras.layers.Layer, num_images: int) -> int:
    """Values of one image's patches, as reconstruction lays them out for a kernel."""
    if not has_kernel(layer) or isinstance(layer, keras.layers.Dense):
        return 0
    values = math.prod(layer.kernel_size) * layer.input_shape[-1]
    groups = layer.input_shape[-1] if is_depthwise(layer) else layer.groups
    positions = math.prod(layer.output_shape[1:-1])
    return values * positions_that_suffice(positions, values // groups, num_images)


def _product_values(layer: keras.layers.Layer) -> int:
    """Values of X^T X, whose rows and columns are a kernel's inputs."""
    if not has_kernel(layer):
        return 0
    if isinstance(layer, keras.layers.Dense):
        return int(layer.input_shape[-1]) ** 2
    taps, channels = math.prod(layer.kernel_size), int(layer.input_shape[-1])
    groups = channels if is_depthwise(layer) else layer.groups
    return groups * (taps * channels // groups) ** 2
