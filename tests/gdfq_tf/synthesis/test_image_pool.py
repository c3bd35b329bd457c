"""Pools of images, in memory and in files."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from gdfq_tf import memory_needs
from gdfq_tf.config import RECIPES, RefinementConfig, SynthesisConfig
from gdfq_tf.progress import NullProgress
from gdfq_tf.quantization.estimation import blend
from gdfq_tf.synthesis.generator_training import noise_images
from gdfq_tf.synthesis.growing_pool import make_pool
from gdfq_tf.synthesis.image_pool import ImagePool, joined
from gdfq_tf.system import large_arrays
from tests.tiny import alike, classifier_of


@pytest.fixture
def in_files(monkeypatch):
    """Every array that may be mapped from a file is."""
    monkeypatch.setattr(large_arrays, "_LARGEST_UNMAPPED_BYTES", 0)


def is_mapped(array: np.ndarray) -> bool:
    while array.base is not None:
        array = array.base
        if isinstance(array, np.memmap):
            return True
    return False


def test_a_pool_in_a_file_has_the_same_images(tiny_classifier, monkeypatch):
    recipe = dataclasses.replace(
        RECIPES["fast"],
        synthesis=SynthesisConfig(num_steps=2, batch_size=8, num_snapshots=2),
        refinement=RefinementConfig(num_steps=2, batch_size=8),
    )
    student = dataclasses.replace(recipe.student, budgets=alike(24))
    recipe = dataclasses.replace(recipe, student=student)
    pools = []
    for largest in (2**25, 0):
        monkeypatch.setattr(large_arrays, "_LARGEST_UNMAPPED_BYTES", largest)
        pool = make_pool(
            classifier_of(tiny_classifier), recipe, seed=1, progress=NullProgress()
        )
        pools.append(pool.first(24))
    in_memory, in_file = pools
    assert (is_mapped(in_memory.pixels), is_mapped(in_file.pixels)) == (False, True)
    assert in_memory.pixels.std() > 1
    np.testing.assert_array_equal(in_memory.pixels, in_file.pixels)
    np.testing.assert_array_equal(in_memory.labels, in_file.labels)


def pool_of_numbers(count: int) -> ImagePool:
    rng = np.random.default_rng(count)
    pixels = rng.integers(0, 256, (count, 3, 2, 1)).astype(np.uint8)
    return ImagePool(pixels, np.arange(count, dtype=np.int32))


def test_images_are_taken_in_any_order(in_files):
    pool, order = pool_of_numbers(5), np.array([3, 0, 4])
    taken = pool[order]
    assert is_mapped(taken.pixels)
    np.testing.assert_array_equal(taken.pixels, pool.pixels[[3, 0, 4]])
    np.testing.assert_array_equal(taken.labels, [3, 0, 4])
    both = joined([pool, taken])
    np.testing.assert_array_equal(both.labels, [0, 1, 2, 3, 4, 3, 0, 4])
    np.testing.assert_array_equal(both.pixels[5:], taken.pixels)


@pytest.mark.parametrize("count", [1, 60, 200])
def test_blended_images_by_hand(count):
    pool = pool_of_numbers(count)
    blended = blend(pool)
    # So often that there are 128 pairs, or every other image's turn has come.
    times = {1: 1, 60: 3, 200: 1}[count]
    assert len(blended) == times * count
    for i in (0, len(blended) // 2, len(blended) - 1):
        number, shift = i % count, i // count + 1
        ours, other = pool.pixels[[number, (number + shift) % count]].astype(float)
        expected = np.round((5 * ours + 3 * other) / 8)
        np.testing.assert_array_equal(blended.pixels[i], expected)
        assert blended.labels[i] == number


@pytest.mark.parametrize("most", [2**28, 1], ids=["together", "one by one"])
@pytest.mark.parametrize("shape", [(32, 32, 3), (20, 48, 1), (1, 1, 40)])
def test_noise_is_the_same_in_parts(shape, most, in_files, monkeypatch):
    monkeypatch.setattr(memory_needs, "_MAX_VALUES_AT_ONCE", most)
    found = noise_images(shape, 70, seed=3)
    assert is_mapped(found.pixels)
    # All images at once.
    rng, (height, width, channels) = np.random.default_rng(3), shape
    finest = [max(1, int(np.ceil(np.log2(side)))) for side in (height, width)]
    noise = np.zeros((70, *shape), np.float32)
    for octave in range(1, max(2, *finest) + 1):
        size = [2 ** min(octave, limit) for limit in finest]
        grid = rng.normal(0, 0.5**octave, (70, *size, channels))
        noise += tf.image.resize(grid, (height, width), method="bilinear").numpy()
    deviation = noise.std(axis=(1, 2, 3), keepdims=True)
    noise /= np.where(deviation > 0, deviation, 1)
    expected = np.clip(128 + 64 * noise, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(found.pixels, expected)
