"""Every hyperparameter, once: frozen dataclasses and the named recipes."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from gdfq_tf.errors import UserError, option

# What classifiers are trained on; see `preprocessing.make_preprocessing`.
PREPROCESSINGS = ("tf", "torch", "caffe", "unit", "uint8", "custom")
# What outputs are; see `load_classifier`.
TASKS = ("classification", "features")
# Where training is done; see `distribution.strategies.make_strategy`.
DISTRIBUTIONS = ("none", "mirrored", "multi_worker")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Which kernels and ReLU outputs have the widths asked for, and which 8 bits.

    Image input, residual branches, pooled features and outputs are 8 bits in all: the
    paper leaves them in float, which integer kernels cannot.

    Attributes:
      keeps_ends: the first and the last kernel layer have 8 bits, and so have outputs
        that enter a residual add or a pooling layer.
      keeps_depthwise: so have depthwise layers: a hundredth of a network's weights,
        a quarter of what it loses at 4 bits, and slow as INT4 in LiteRT.
      keeps_windows: so have layers whose INT4 kernels are slow in LiteRT, all but
        dense and pointwise ones.
    """

    keeps_ends: bool
    keeps_depthwise: bool
    keeps_windows: bool = False


PROTOCOLS: Mapping[str, Protocol] = {
    "edge": Protocol(keeps_ends=True, keeps_depthwise=True),
    "paper": Protocol(keeps_ends=False, keeps_depthwise=False),  # Xu et al. 2020, §4
    "pointwise": Protocol(keeps_ends=True, keeps_depthwise=True, keeps_windows=True),
}
_DEFAULT_PROTOCOL = "edge"


@dataclasses.dataclass(frozen=True)
class BitWidths:
    """Widths of one student; everything not named here is 8 bits.

    Attributes:
      weight_bits: convolution and dense kernels, 2..8, zero point 0, one scale per
        output channel.
      activation_bits: ReLU outputs, 3..8, one scale per tensor; or 16, all tensors.
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
        if not (3 <= self.activation_bits <= 8 or self.activation_bits == 16):
            raise UserError(
                f"activation bits must be 3..8 or 16, got {self.activation_bits}; e.g. "
                f"{option('bits', 'w4a8')} or {option('bits', 'w8a16')}"
            )
        if self.protocol not in PROTOCOLS:
            raise UserError(
                f"protocol must be one of {', '.join(PROTOCOLS)}, got "
                f"{self.protocol!r}; "
                f"e.g. {option('bits', 'w4a4/paper')}"
            )

    @property
    def stored_activation_bits(self) -> int:
        """Bits in which all tensors are stored, 8 or 16."""
        return max(8, self.activation_bits)

    @property
    def has_int16(self) -> bool:
        """Whether activations are int16."""
        return self.stored_activation_bits == 16

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
# 256 images of 128 x 128.
_PIXELS_IN_POOL = 2**22


@dataclasses.dataclass(frozen=True)
class Limits:
    """What files of few weight bits may cost; layers stay at 8 bits accordingly.

    Attributes:
      max_accuracy_loss: points of top-1, as estimated; None: any.
      max_bytes: of the file; None: any.
      max_latency_ratio: how many times as long LiteRT may take, on this machine, as
        with 8 bits in all kernels; None: any.
    """

    max_accuracy_loss: float | None = None
    max_bytes: int | None = None
    max_latency_ratio: float | None = None

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return self != NO_LIMITS


NO_LIMITS = Limits()


def images_per_step(batch_size: int, input_shape: tuple[int, int, int]) -> int:
    """`batch_size`, or fewer (32 at least) so that a step's memory stays flat.

    Args:
      batch_size: images of a step of small images.
      input_shape: (height, width, channels) of the classifier.
    """
    height, width, _ = input_shape
    fitting = _PIXELS_PER_STEP // (height * width)
    return max(min(batch_size, 32), min(batch_size, fitting))


def images_in_pool(num_images: int, input_shape: tuple[int, int, int]) -> int:
    """`num_images`, or fewer (half at least) of large images, which say more each.

    Args:
      num_images: of small images.
      input_shape: (height, width, channels) of the classifier.
    """
    height, width, _ = input_shape
    fitting = _PIXELS_IN_POOL // (height * width)
    return max(math.ceil(num_images / 2), min(num_images, fitting))


@dataclasses.dataclass(frozen=True)
class SynthesisConfig:
    """The generator's training and how it fills a pool of images.

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
      num_snapshots: moments, evenly over the second half of training, at which
        the generator fills its share of the pool; more moments, more variety.
      compute_ratio: generator multiply-adds aimed at, per teacher's.
    """

    num_steps: int
    batch_size: int = 128
    learning_rate: float = 1e-2
    bn_weight: float = 20.0
    relative_bn_loss: bool = True
    num_snapshots: int = 8
    compute_ratio: float = 0.4

    def images_per_step(self, input_shape: tuple[int, int, int]) -> int:
        """Images of a generator step, see `images_per_step`."""
        return images_per_step(self.batch_size, input_shape)


@dataclasses.dataclass(frozen=True)
class RefinementConfig:
    """The pool's images, once made, fitted one by one.

    Attributes:
      num_steps: of each batch of images.
      batch_size: images whose statistics are fitted together, about; of large images
        fewer, see `images_per_step`.
      learning_rate: Adam, on waves (`natural_basis.py`), in units of half the input
        range; cosine to nothing.
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
    learning_rate: float = 0.02
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
class StudentBudget:
    """What a student of some widths is made from.

    Attributes:
      num_images: that it takes from the pool, a quarter of them for the estimate; of
        large images fewer, see `images_in_pool`.
      distillation: how it is trained once it is reconstructed; None: it is not.
    """

    num_images: int
    distillation: DistillationConfig | None = None

    def images_of(self, input_shape: tuple[int, int, int]) -> int:
        """How many of that shape, see `images_in_pool`."""
        return images_in_pool(self.num_images, input_shape)


@dataclasses.dataclass(frozen=True)
class WidthBudgets:
    """What students are made from, by what their widths ask for.

    Attributes:
      eight_bits: of 8 bits throughout.
      few_weight_bits: of fewer bits in kernels alone.
      few_activation_bits: of fewer bits in activations.
    """

    eight_bits: StudentBudget
    few_weight_bits: StudentBudget
    few_activation_bits: StudentBudget

    def of(self, bit_widths: BitWidths) -> StudentBudget:
        """That of a student of those widths."""
        if bit_widths.activation_bits < 8:
            return self.few_activation_bits
        return self.eight_bits if bit_widths.weight_bits == 8 else self.few_weight_bits

    def all(self) -> tuple[StudentBudget, StudentBudget, StudentBudget]:
        """Those of all widths, the smallest needs first."""
        return self.eight_bits, self.few_weight_bits, self.few_activation_bits

    def map(self, change: Callable[[StudentBudget], StudentBudget]) -> WidthBudgets:
        """Each of them changed."""
        return WidthBudgets(*map(change, self.all()))


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
      budgets: images and training, by widths.
      images_are_noise: fit to a classifier whose BatchNormalization statistics are
        the images', so that all ranges behind them are the training data's.
      logits_margin: room above the largest logit that the images give; much more for
        noise, which belongs to no class.
      equalizes: whether channels of tensors of few bits are given like ranges first.
      rounding: of kernels.
    """

    budgets: WidthBudgets
    images_are_noise: bool = False
    logits_margin: float = 1.5
    equalizes: bool = True
    rounding: RoundingConfig = RoundingConfig()


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
      num_images: made at the end, for verification and estimate; of large images
        fewer, see `images_in_pool`.
    """

    num_steps: int
    learning_rate: float = 1e-4
    temperature: float = 20.0
    classification_weight: float = 1.0
    least_warm_up_steps: int = 50
    num_calibration_images: int = 512
    num_images: int = 1536

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
    refinement: RefinementConfig | None
    student: ReconstructionConfig | FineTuningConfig

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

    def with_budgets(self, change: Callable[[StudentBudget], StudentBudget]) -> Recipe:
        """The recipe with every budget changed; one without budgets stays as it is."""
        student = self.student
        if isinstance(student, FineTuningConfig):
            return self
        budgets = student.budgets.map(change)
        return dataclasses.replace(
            self, student=dataclasses.replace(student, budgets=budgets)
        )

    def pool_size(
        self, input_shape: tuple[int, int, int], bit_widths: Sequence[BitWidths]
    ) -> int:
        """How many images of that shape a run for those widths keeps."""
        student = self.student
        if isinstance(student, FineTuningConfig):
            return images_in_pool(student.num_images, input_shape)
        budgets = map(student.budgets.of, bit_widths)
        return max(budget.images_of(input_shape) for budget in budgets)

    def pool_sizes(self, input_shape: tuple[int, int, int]) -> list[int]:
        """The sizes by which a pool of images of that shape grows, smallest first.

        They are the same for all runs, so that a student depends on no other.
        """
        student = self.student
        if isinstance(student, FineTuningConfig):
            return [images_in_pool(student.num_images, input_shape)]
        return sorted({x.images_of(input_shape) for x in student.budgets.all()})

    def fewest_images_per_step(self, input_shape: tuple[int, int, int]) -> int:
        """Of all its trainings' steps, see `images_per_step`."""
        student = self.student
        budgets = () if isinstance(student, FineTuningConfig) else student.budgets.all()
        stages = (self.synthesis, self.refinement, *(x.distillation for x in budgets))
        return min(x.images_per_step(input_shape) for x in stages if x is not None)

    def image_passes(
        self, input_shape: tuple[int, int, int], bit_widths: Sequence[BitWidths]
    ) -> int:
        """Images that go forward and backward through the teacher, for all widths."""
        synthesis = self.synthesis
        passes = synthesis.num_steps * synthesis.images_per_step(input_shape)
        if self.refinement is not None:
            images = self.pool_size(input_shape, bit_widths)
            passes += self.refinement.num_steps * images
        return passes


RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "fast",
            SynthesisConfig(20),
            RefinementConfig(25),
            ReconstructionConfig(
                WidthBudgets(
                    StudentBudget(128), StudentBudget(1024), StudentBudget(1024)
                )
            ),
        ),
        Recipe(
            "balanced",
            SynthesisConfig(60),
            RefinementConfig(40),
            ReconstructionConfig(
                WidthBudgets(
                    StudentBudget(256),
                    StudentBudget(1024, DistillationConfig(200)),
                    StudentBudget(1536, DistillationConfig(400)),
                )
            ),
        ),
        Recipe(
            "best",
            SynthesisConfig(200),
            RefinementConfig(50),
            ReconstructionConfig(
                WidthBudgets(
                    StudentBudget(512),
                    StudentBudget(2048, DistillationConfig(400)),
                    StudentBudget(4096, DistillationConfig(1200)),
                )
            ),
        ),
        Recipe(
            "calibrate",
            SynthesisConfig(num_steps=0),
            None,
            ReconstructionConfig(
                WidthBudgets(*[StudentBudget(384)] * 3),
                images_are_noise=True,
                logits_margin=6.0,
            ),
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
            None,
            FineTuningConfig(num_steps=1000),
        ),
    )
}
DEFAULT_RECIPE = "fast"


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

    def scaled_budget(budget: StudentBudget) -> StudentBudget:
        if budget.distillation is None:
            return budget
        return dataclasses.replace(budget, distillation=scaled(budget.distillation))

    recipe = recipe.with_budgets(scaled_budget)
    student, refinement = recipe.student, recipe.refinement
    return dataclasses.replace(
        recipe,
        synthesis=dataclasses.replace(recipe.synthesis, num_steps=num_steps),
        refinement=None if refinement is None else scaled(refinement),
        student=scaled(student) if isinstance(student, FineTuningConfig) else student,
    )
