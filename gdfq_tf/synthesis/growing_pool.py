"""The pool of a run: as many of its images are refined as students ask for."""

from __future__ import annotations

import time

from gdfq_tf.classifier import Classifier
from gdfq_tf.config import Recipe
from gdfq_tf.progress import Progress
from gdfq_tf.synthesis.generator_training import synthesize
from gdfq_tf.synthesis.image_pool import ImagePool, joined
from gdfq_tf.synthesis.refinement import refine


class GrowingPool:
    """Images of a generator, the first so many of them refined.

    Parts are refined together, each up to the next size that the recipe's budgets name,
    so images depend on how many were asked for before as little as on widths.

    Attributes:
      seconds: that all images so far took.
    """

    def __init__(
        self,
        generated: ImagePool,
        classifier: Classifier,
        recipe: Recipe,
        *,
        seed: int,
        progress: Progress,
    ) -> None:
        """Takes the images to begin with, and how they are refined for whom."""
        self.seconds = 0.0
        self._generated, self._classifier = generated, classifier
        self._refinement, self._seed, self._progress = recipe.refinement, seed, progress
        self._sizes = recipe.pool_sizes(classifier.input_shape)
        self._parts: list[ImagePool] = []

    def first(self, num_images: int) -> ImagePool:
        """The first `num_images`, one of the sizes of the recipe's budgets.

        Raises:
          UserError: a loss stopped being finite.
        """
        if self._refinement is None:
            return self._generated[:num_images]
        started = time.monotonic()
        bounds = list(zip((0, *self._sizes), self._sizes, strict=False))
        for start, stop in bounds[len(self._parts) :]:
            if stop > num_images:
                break
            part = refine(
                self._generated[start:stop],
                self._classifier,
                self._refinement,
                seed=self._seed + start,
                progress=self._progress,
            )
            self._parts.append(part)
        self.seconds += time.monotonic() - started
        return joined(self._parts)[:num_images]


def make_pool(
    classifier: Classifier, recipe: Recipe, *, seed: int, progress: Progress
) -> GrowingPool:
    """The pool of a run: a generator is trained, unless there is none and it is noise.

    Raises:
      UserError: a loss stopped being finite.
    """
    started = time.monotonic()
    generated = synthesize(
        classifier,
        recipe.synthesis,
        recipe.pool_sizes(classifier.input_shape)[-1],
        seed=seed,
        progress=progress,
    )
    pool = GrowingPool(generated, classifier, recipe, seed=seed, progress=progress)
    pool.seconds = time.monotonic() - started
    return pool
