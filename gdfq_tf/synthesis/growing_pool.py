"""The pool of a run: as many of its images are refined as students ask for."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence

from gdfq_tf.checkpoints import NO_CHECKPOINTS, Checkpoints
from gdfq_tf.classifier import Classifier
from gdfq_tf.config import Recipe, RefinementConfig
from gdfq_tf.progress import Progress
from gdfq_tf.synthesis.generator_training import synthesize
from gdfq_tf.synthesis.image_pool import ImagePool, joined
from gdfq_tf.synthesis.refinement import Refiner

# A part of the generated images and where it begins among them -> the part refined.
RefinePart = Callable[[ImagePool, int], ImagePool]


class GrowingPool:
    """Images of a generator, the first so many of them refined.

    Parts are refined together, each up to the next size that the recipe's budgets name,
    so images depend on how many were asked for before as little as on widths. None are
    generated before one is asked for that is not there yet.

    Attributes:
      seconds: that all images so far took.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        generate: Callable[[], ImagePool],
        refine_part: RefinePart,
        earlier: ImagePool | None = None,
    ) -> None:
        """Takes how images are made, and the first of them if they are there.

        Args:
          sizes: by which the pool grows, the smallest first.
          generate: called once at most; gives as many images as the largest of them.
          refine_part: called for each part once.
          earlier: what `first` gave of the same pool in an earlier run.
        """
        self.seconds = 0.0
        self._bounds = list(zip((0, *sizes), sizes, strict=False))
        self._generated = functools.cache(generate)
        self._refine_part = refine_part
        self._parts = [
            earlier[start:stop]
            for start, stop in self._bounds
            if earlier is not None and stop <= len(earlier)
        ]

    def first(self, num_images: int) -> ImagePool:
        """The first `num_images`, one of the sizes by which the pool grows.

        Raises:
          UserError: a loss stopped being finite.
        """
        started = time.monotonic()
        for start, stop in self._bounds[len(self._parts) :]:
            if stop > num_images:
                break
            self._parts.append(self._refine_part(self._generated()[start:stop], start))
        self.seconds += time.monotonic() - started
        return joined(self._parts)[:num_images]


def make_pool(
    classifier: Classifier,
    recipe: Recipe,
    *,
    seed: int,
    progress: Progress,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
    earlier: ImagePool | None = None,
) -> GrowingPool:
    """The pool of a run, of a generator's images, or of noise if there is none.

    Args:
      classifier: what images are for.
      recipe: how they are made, and for which students.
      seed: of everything random.
      progress: told of each step.
      checkpoints: keep generator and parts.
      earlier: see `GrowingPool`.
    """
    sizes = recipe.pool_sizes(classifier.input_shape)
    return GrowingPool(
        sizes,
        functools.partial(
            synthesize,
            classifier,
            recipe.synthesis,
            sizes[-1],
            seed=seed,
            progress=progress,
            checkpoints=checkpoints,
        ),
        refine_parts(
            classifier,
            recipe.refinement,
            seed=seed,
            progress=progress,
            checkpoints=checkpoints,
        ),
        earlier,
    )


def refine_parts(
    classifier: Classifier,
    config: RefinementConfig | None,
    *,
    seed: int,
    progress: Progress,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
) -> RefinePart:
    """How parts of a pool are refined; None: they stay as they are."""
    refiner = Refiner(classifier, progress, checkpoints)

    def refine_part(part: ImagePool, start: int) -> ImagePool:
        if config is None:
            return part
        return refiner.refine(part, config, seed=seed + start)

    return refine_part
