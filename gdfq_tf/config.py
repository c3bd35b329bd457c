"""Every hyperparameter, once: frozen dataclasses and the named recipes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from gdfq_tf.errors import UserError


@dataclasses.dataclass(frozen=True)
class BitWidths:
    """Widths of one student; everything not named here is 8 bits.

    Attributes:
      weight_bits: every convolution and dense kernel, 2..8, symmetric, narrow
        range, one scale per output channel.
      activation_bits: ReLU outputs, 3..8, one scale per tensor.
      protocol: which ReLU outputs are meant. "edge": all but those that enter a
        residual add or a pooling layer. "paper": all (Xu et al. 2020, §4).
        Image input, residual branches, pooled features and logits are 8 bits in
        both: the paper leaves them in float, which integer kernels cannot.
    """

    weight_bits: int
    activation_bits: int
    protocol: str = "edge"

    def __post_init__(self):
        if not 2 <= self.weight_bits <= 8:
            raise UserError(
                f"weight bits must be 2..8, got {self.weight_bits}; e.g. --bits=w4a8"
            )
        if not 3 <= self.activation_bits <= 8:
            raise UserError(
                "activation bits must be 3..8, got "
                f"{self.activation_bits}; e.g. --bits=w4a8"
            )
        if self.protocol not in ("edge", "paper"):
            raise UserError(f"protocol must be edge or paper, got {self.protocol!r}")

    @property
    def name(self) -> str:
        """For example "w4a8", "w4a4_paper"."""
        suffix = f"_{self.protocol}" if self.protocol != "edge" else ""
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
    return BitWidths(int(match[1]), int(match[2]), match[3] or "edge")


@dataclasses.dataclass(frozen=True)
class SynthesisConfig:
    """The generator's training and the pool of images it fills.

    Attributes:
      num_steps: generator steps; batch_size: images per step.
      learning_rate: Adam, betas (0.5, 0.999) as in GDFQ, cosine to zero.
      bn_weight: factor of the BN-statistics loss beside the cross-entropy.
      relative_bn_loss: measure the statistics' distance in units of each
        channel's stored deviation (True) or absolutely as in GDFQ (False).
      pool_size: synthetic images kept for calibration and fine-tuning.
      num_snapshots: moments, evenly over the second half of training, at which
        the generator fills its share of the pool; more moments, more variety.
      compute_ratio: generator multiply-adds aimed at, per teacher's.
    """

    num_steps: int = 800
    batch_size: int = 128
    learning_rate: float = 1e-3
    bn_weight: float = 1.0
    relative_bn_loss: bool = True
    pool_size: int = 10_240
    num_snapshots: int = 8
    compute_ratio: float = 0.4


@dataclasses.dataclass(frozen=True)
class FineTuningConfig:
    """The student's training.

    Attributes:
      num_steps, batch_size: student steps and images per step.
      learning_rate: Adam, cosine to zero, for all variables.
      temperature: of the softened distributions in the distillation loss.
      classification_weight: factor of the cross-entropy on the generator's labels.
      feature_weight: factor of the relative error of the ReLU outputs.
      distillation_per_class: divide the distillation loss by the number of classes,
        as the published code's default reduction does.
    """

    num_steps: int = 300
    batch_size: int = 128
    learning_rate: float = 2e-4
    temperature: float = 4.0
    classification_weight: float = 0.1
    feature_weight: float = 1.0
    distillation_per_class: bool = False


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How much work, and of which kind.

    Attributes:
      alternating: GDFQ as published: generator and student in turn on fresh
        images. False: pool first, then calibration, then fine-tuning.
    """

    name: str
    synthesis: SynthesisConfig
    fine_tuning: FineTuningConfig
    alternating: bool = False


RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("default", SynthesisConfig(), FineTuningConfig()),
        # Xu et al. 2020 §4.1 and the published CIFAR configuration: batch 200,
        # BN weight 0.1, temperature 20; 400 epochs x 200 steps in full, scaled
        # by --num_steps with the schedule's shape kept.
        Recipe(
            "gdfq",
            SynthesisConfig(
                num_steps=1000,
                batch_size=200,
                bn_weight=0.1,
                relative_bn_loss=False,
                pool_size=2_000,
                num_snapshots=1,
            ),
            FineTuningConfig(
                num_steps=1000,
                batch_size=200,
                learning_rate=1e-4,
                temperature=20.0,
                classification_weight=1.0,
                feature_weight=0.0,
                distillation_per_class=True,
            ),
            alternating=True,
        ),
    )
}


def get_recipe(name: str, num_steps: int | None = None) -> Recipe:
    """The recipe of a name; `num_steps` scales both of its trainings together.

    `num_steps` counts student steps; the generator's follow in proportion.

    Raises:
      UserError: unknown name or `num_steps` < 1.
    """
    if name not in RECIPES:
        raise UserError(
            f"recipe {name!r} is unknown; expected one of {', '.join(RECIPES)}"
        )
    recipe = RECIPES[name]
    if num_steps is None:
        return recipe
    if num_steps < 1:
        raise UserError(f"--num_steps must be at least 1, got {num_steps}")
    factor = num_steps / recipe.fine_tuning.num_steps
    synthesis, fine_tuning = recipe.synthesis, recipe.fine_tuning
    return dataclasses.replace(
        recipe,
        synthesis=dataclasses.replace(
            synthesis, num_steps=max(1, round(synthesis.num_steps * factor))
        ),
        fine_tuning=dataclasses.replace(fine_tuning, num_steps=num_steps),
    )
