"""Every hyperparameter, once: frozen dataclasses and the named recipes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import TypeVar

from gdfq_tf.errors import UserError, option

# What classifiers are trained on; see `preprocessing.make_preprocessing`.
PREPROCESSINGS = ("tf", "torch", "caffe", "unit", "uint8", "custom")
# What outputs are; see `load_classifier`.
TASKS = ("classification", "features")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Which kernels and ReLU outputs have the widths asked for, and which 8 bits.

    Image input, residual branches, pooled features and outputs are 8 bits in all: the
    paper leaves them in float, which integer kernels cannot.

    Attributes:
      keeps_ends: the first and the last kernel layer have 8 bits, and so have outputs
        that enter a residual add or a pooling layer.
      keeps_windows: so have layers whose INT4 kernels are slow in LiteRT, all but
        dense and pointwise ones.
    """

    keeps_ends: bool
    keeps_windows: bool = False


PROTOCOLS: Mapping[str, Protocol] = {
    "edge": Protocol(keeps_ends=True),
    "paper": Protocol(keeps_ends=False),  # Xu et al. 2020, §4
    "pointwise": Protocol(keeps_ends=True, keeps_windows=True),
}
_DEFAULT_PROTOCOL = "edge"


@dataclasses.dataclass(frozen=True)
class BitWidths:
    """Widths of one student; everything not named here is 8 bits.

    Attributes:
      weight_bits: convolution and dense kernels, 2..8, symmetric, narrow range, one
        scale per output channel.
      activation_bits: ReLU outputs, 3..8, one scale per tensor.
      protocol: a key of `PROTOCOLS`: which kernels and ReLU outputs are meant.
    """

    weight_bits: int
    activation_bits: int
    protocol: str = _DEFAULT_PROTOCOL

    def __post_init__(self) -> None:
        """Refuses widths and protocols that there are not."""
        if not 2 <= self.weight_bits <= 8:
            raise UserError(
                f"weight bits must be 2..8, got {self.weight_bits}; e.g. "
                f"{option('bits', 'w4a8')}"
            )
        if not 3 <= self.activation_bits <= 8:
            raise UserError(
                f"activation bits must be 3..8, got {self.activation_bits}; e.g. "
                f"{option('bits', 'w4a8')}"
            )
        if self.protocol not in PROTOCOLS:
            raise UserError(
                f"protocol must be one of {', '.join(PROTOCOLS)}, got "
                f"{self.protocol!r}; "
                f"e.g. {option('bits', 'w4a4/paper')}"
            )

    @property
    def name(self) -> str:
        """For example "w4a8", "w4a4_paper"."""
        suffix = f"_{self.protocol}" if self.protocol != _DEFAULT_PROTOCOL else ""
        return f"w{self.weight_bits}a{self.activation_bits}{suffix}"


def parse_bit_widths(text: str) -> BitWidths:
    """`BitWidths` of a text such as "w4a8" or "w4a4/paper".

    Raises:
      UserError: not of that form, or bits out of range.
    """
    match = re.fullmatch(r"w(\d+)a(\d+)(?:/(\w+))?", text.strip().lower())
    if not match:
        raise UserError(
            f"bit widths {text!r} not understood; expected w<bits>a<bits>, such as "
            "w4a8, or w4a4/paper"
        )
    return BitWidths(int(match[1]), int(match[2]), match[3] or _DEFAULT_PROTOCOL)


# 128 images of 128 x 128: a few gigabytes in the teacher's backward pass.
_PIXELS_PER_STEP = 2**21
# 1536 images of 128 x 128.
_PIXELS_IN_POOL = 3 * 2**23


def images_per_step(batch_size: int, input_shape: tuple[int, int, int]) -> int:
    """`batch_size`, or fewer (32 at least) so that a step's memory stays flat.

    Args:
      batch_size: images of a step of small images.
      input_shape: (height, width, channels) of the classifier.
    """
    height, width, _ = input_shape
    fitting = _PIXELS_PER_STEP // (height * width)
    return max(min(batch_size, 32), min(batch_size, fitting))


@dataclasses.dataclass(frozen=True)
class SynthesisConfig:
    """The generator's training and the pool of images it fills.

    Attributes:
      num_steps: generator steps; 0: no generator, the pool is noise.
      batch_size: images per step; large images come in smaller batches, see
        `images_per_step`.
      learning_rate: Adam, betas (0.5, 0.999) as in GDFQ, cosine to a twentieth.
      bn_weight: factor of the BN-statistics loss beside the cross-entropy. High:
        the statistics say more about the lost data than the labels do, and images
        that match them are classified as asked anyway.
      relative_bn_loss: measure the statistics' distance in units of each
        channel's stored deviation (True) or absolutely as in GDFQ (False).
      pool_size: synthetic images kept; of large images fewer, see
        `images_in_pool`.
      num_snapshots: moments, evenly over the second half of training, at which
        the generator fills its share of the pool; more moments, more variety.
      compute_ratio: generator multiply-adds aimed at, per teacher's.
    """

    num_steps: int
    batch_size: int = 128
    learning_rate: float = 1e-2
    bn_weight: float = 20.0
    relative_bn_loss: bool = True
    pool_size: int = 1536
    num_snapshots: int = 8
    compute_ratio: float = 0.4

    def images_per_step(self, input_shape: tuple[int, int, int]) -> int:
        """Images of a generator step, see `images_per_step`."""
        return images_per_step(self.batch_size, input_shape)

    def images_in_pool(self, input_shape: tuple[int, int, int]) -> int:
        """`pool_size`, or fewer (640 at least): large images say more each."""
        height, width, _ = input_shape
        fitting = _PIXELS_IN_POOL // (height * width)
        return max(min(self.pool_size, 640), min(self.pool_size, fitting))


@dataclasses.dataclass(frozen=True)
class RefinementConfig:
    """The pool's images, once made, fitted pixel by pixel.

    Attributes:
      num_steps: of each batch of images.
      batch_size: images whose statistics are fitted together, about; of large images
        fewer, see `images_per_step`.
      learning_rate: Adam, in units of half the input range, cosine to nothing.
      bn_weight: factor of the relative BN-statistics loss beside the cross-entropy:
        single images reach their class at once, all that takes steps is the rest.
      class_weight: factor of the cross-entropy.
      temperature: of the cross-entropy. At 1 it lets go of images next to the
        boundary, where classifiers leave few of their training images; those excite
        their class's features all over the image.
      collages: whether every second large image starts as a collage of all.
      varied_exposure: whether each image starts with a contrast, brightness and tint
        of its own.
    """

    num_steps: int
    batch_size: int = 128
    learning_rate: float = 0.03
    bn_weight: float = 200.0
    class_weight: float = 1.0
    temperature: float = 2.0
    collages: bool = True
    varied_exposure: bool = True

    def images_per_step(self, input_shape: tuple[int, int, int]) -> int:
        """Images of a batch, about, see `images_per_step`."""
        return images_per_step(self.batch_size, input_shape)


@dataclasses.dataclass(frozen=True)
class DistillationConfig:
    """The reconstructed student's training, end to end.

    Attributes:
      num_steps: student steps.
      batch_size: images per step; of large images fewer, see `images_per_step`.
      learning_rate: Adam, relative to each variable's root mean square, after a
        warm-up; cosine to nothing.
      temperature: of the softened distributions.
    """

    num_steps: int
    batch_size: int = 128
    learning_rate: float = 4e-3
    temperature: float = 4.0

    def images_per_step(self, input_shape: tuple[int, int, int]) -> int:
        """Images of a student step, see `images_per_step`."""
        return images_per_step(self.batch_size, input_shape)


@dataclasses.dataclass(frozen=True)
class RoundingConfig:
    """How a layer's kernel is rounded to quantized values.

    Attributes:
      fits_target: round the kernel that predicts the teacher's output best from the
        student's own input; False: the teacher's.
      spreads_errors: the error of each row is made good by the rows still open (GPTQ);
        False: every weight is rounded to nearest.
    """

    fits_target: bool = True
    spreads_errors: bool = True


@dataclasses.dataclass(frozen=True)
class ReconstructionConfig:
    """How the student's kernels and ranges are fitted to the teacher, layer by layer.

    Attributes:
      images_are_noise: fit to a classifier whose BatchNormalization statistics are
        the images', so that all ranges behind them are the training data's.
      logits_margin: room above the largest logit that the images give; much more for
        noise, which belongs to no class.
      equalizes: whether channels of tensors of few bits are given like ranges first.
      rounding: of kernels.
      distillation: of students so found, but for those of 8 bits throughout; None:
        none is trained.
    """

    images_are_noise: bool = False
    logits_margin: float = 1.5
    equalizes: bool = True
    rounding: RoundingConfig = RoundingConfig()
    distillation: DistillationConfig | None = None

    def training_of(self, bit_widths: BitWidths) -> DistillationConfig | None:
        """How a student of those widths is trained after reconstruction, if at all.

        At 8 bits throughout, kernels lose next to nothing that training could make
        good.
        """
        if bit_widths.weight_bits == bit_widths.activation_bits == 8:
            return None
        return self.distillation


@dataclasses.dataclass(frozen=True)
class FineTuningConfig:
    """The student's training as published.

    Attributes:
      num_steps: student steps, on `batch_size` images of the generator each.
      learning_rate: SGD with Nesterov momentum.
      temperature: of the softened distributions in the distillation loss.
      classification_weight: factor of the cross-entropy on the generator's labels.
      least_warm_up_steps: of the generator alone, however short the run: ranges
        measured on an untrained generator's noise would stay wrong for good.
      num_calibration_images: that ranges are measured on, after the warm-up.
    """

    num_steps: int
    learning_rate: float = 1e-4
    temperature: float = 20.0
    classification_weight: float = 1.0
    least_warm_up_steps: int = 50
    num_calibration_images: int = 512

    @property
    def num_warm_up_steps(self) -> int:
        """Steps of the generator alone: 1 %, as 4 of the published 400 epochs."""
        return max(self.least_warm_up_steps, round(0.01 * self.num_steps))


Stage = TypeVar("Stage", RefinementConfig, DistillationConfig, FineTuningConfig)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How much work, and of which kind.

    Attributes:
      name: one of `RECIPES`.
      synthesis: of the images.
      refinement: of the images made; None: they stay as the generator left them.
      student: reconstructed from a pool of them, or fine-tuned in turn with the
        generator, as GDFQ was published.
    """

    name: str
    synthesis: SynthesisConfig
    refinement: RefinementConfig | None = None
    student: ReconstructionConfig | FineTuningConfig = ReconstructionConfig()

    def without_bn_statistics(self) -> Recipe:
        """The recipe for a classifier that has none.

        Nothing then holds images back from exciting their class, which refined ones do
        far beyond what real ones do: images stay as the generator leaves them, and
        logits need no room above.
        """
        student = self.student
        if isinstance(student, ReconstructionConfig) and not student.images_are_noise:
            student = dataclasses.replace(student, logits_margin=1.0)
        return dataclasses.replace(self, refinement=None, student=student)

    def image_passes(self, input_shape: tuple[int, int, int]) -> int:
        """Images that go forward and backward through the teacher, for all widths."""
        synthesis = self.synthesis
        passes = synthesis.num_steps * synthesis.images_per_step(input_shape)
        if self.refinement is not None:
            images = synthesis.images_in_pool(input_shape)
            passes += self.refinement.num_steps * images
        return passes


RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "balanced",
            SynthesisConfig(300),
            RefinementConfig(40),
            ReconstructionConfig(distillation=DistillationConfig(400)),
        ),
        Recipe("fast", SynthesisConfig(100, pool_size=1024), RefinementConfig(25)),
        Recipe(
            "best",
            SynthesisConfig(600, pool_size=4096),
            RefinementConfig(50),
            ReconstructionConfig(distillation=DistillationConfig(1200)),
        ),
        Recipe(
            "calibrate",
            SynthesisConfig(num_steps=0, pool_size=384),
            student=ReconstructionConfig(images_are_noise=True, logits_margin=6.0),
        ),
        # Xu et al. 2020 §4.1 and the published CIFAR configuration: batch 200,
        # BN weight 0.1, temperature 20; 400 epochs x 200 steps in full, scaled
        # by `num_steps` with the schedule's shape kept.
        Recipe(
            "gdfq",
            SynthesisConfig(
                num_steps=1000,
                batch_size=200,
                learning_rate=1e-3,
                bn_weight=0.1,
                relative_bn_loss=False,
                num_snapshots=1,
            ),
            student=FineTuningConfig(num_steps=1000),
        ),
    )
}
DEFAULT_RECIPE = "balanced"


def get_recipe(name: str, num_steps: int | None = None) -> Recipe:
    """The recipe of a name, with `num_steps` generator steps if given.

    Steps of refinement and of the student change by the same factor.

    Raises:
      UserError: unknown name, `num_steps` < 1, or a recipe without steps.
    """
    if name not in RECIPES:
        raise UserError(
            f"recipe {name!r} is unknown; expected one of {', '.join(RECIPES)}"
        )
    recipe = RECIPES[name]
    if num_steps is None:
        return recipe
    if num_steps < 1:
        raise UserError(f"{option('num_steps')} must be at least 1, got {num_steps}")
    if not recipe.synthesis.num_steps:
        raise UserError(
            f"{option('num_steps', num_steps)} was given, but recipe {name!r} trains "
            f"nothing; drop it or take another {option('recipe')}"
        )
    share = num_steps / recipe.synthesis.num_steps

    def scaled(stage: Stage) -> Stage:
        steps = max(1, round(share * stage.num_steps))
        return dataclasses.replace(stage, num_steps=steps)

    student, refinement = recipe.student, recipe.refinement
    if isinstance(student, FineTuningConfig):
        student = scaled(student)
    elif student.distillation is not None:
        distillation = scaled(student.distillation)
        student = dataclasses.replace(student, distillation=distillation)
    return dataclasses.replace(
        recipe,
        synthesis=dataclasses.replace(recipe.synthesis, num_steps=num_steps),
        refinement=None if refinement is None else scaled(refinement),
        student=student,
    )
