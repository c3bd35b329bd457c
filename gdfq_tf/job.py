"""What a run is to do, checked before it begins."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from gdfq_tf.classifier import Classifier, Head
from gdfq_tf.config import NO_LIMITS, BitWidths, FineTuningConfig, Limits, Recipe
from gdfq_tf.disk_needs import require_temporary_room
from gdfq_tf.distribution.strategies import Strategy, num_processes
from gdfq_tf.errors import UserError, option
from gdfq_tf.file_interface import check_labels, interface_of
from gdfq_tf.graph.traits import becomes_operation, kind_of
from gdfq_tf.memory_needs import require_memory_for_run
from gdfq_tf.quantization.plan import match_kernel_layers
from tflite_export.interface import DEFAULT_END_TYPE, Interface
from tflite_export.presentation import require_end_type
from tflite_export.quantization_params import storage_bits
from tflite_export.target_rules import refusal_of, without_int4, without_int16
from tflite_export.targets import DEFAULT_TARGET, TARGETS

# Heads without classes, in words.
_KINDS = {
    Head.MULTI_LABEL: "a multi-label network",
    Head.FEATURES: "a network of features",
}
# Limit -> what it is, in words.
_MEANINGS = {
    "max_accuracy_loss": "points of accuracy",
    "max_bytes": "a number of bytes",
    "max_latency_ratio": "how many times as long as int8 a file may take",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """One run of the pipeline.

    Attributes:
      classifier: what is quantized.
      recipe: how much work.
      bit_widths: of the students, each once.
      keep_layers: kernel layers that stay at 8 bits, names or shell-style patterns.
      limits: of files of few weight bits; layers stay at 8 bits besides `keep_layers`
        accordingly.
      seed: of everything random.
      target: what the files are made for, a key of `tflite_export.targets.TARGETS`.
      input_type: of the files' input, "int8" or "uint8"; `output_type`: likewise.
      labels: names of the classes, in the order of the outputs; none if not known.
      strategy: whose replicas share the steps of training, see
        `distribution.strategies`.
    """

    classifier: Classifier
    recipe: Recipe
    bit_widths: tuple[BitWidths, ...]
    keep_layers: tuple[str, ...] = ()
    limits: Limits = NO_LIMITS
    seed: int = 0
    target: str = DEFAULT_TARGET
    input_type: str = DEFAULT_END_TYPE
    output_type: str = DEFAULT_END_TYPE
    labels: tuple[str, ...] = ()
    strategy: Strategy = dataclasses.field(default_factory=tf.distribute.get_strategy)

    def interface(self, bit_widths: BitWidths) -> Interface:
        """How the file with those widths presents itself."""
        return interface_of(
            self.classifier,
            bit_widths,
            input_type=self.input_type,
            output_type=self.output_type,
            labels=self.labels,
        )

    @property
    def alternates(self) -> bool:
        """Whether generator and student are trained in turn, as GDFQ was published."""
        return isinstance(self.recipe.student, FineTuningConfig)

    @property
    def fits_noise(self) -> bool:
        """Whether students are fitted to noise, and estimates are made of it."""
        student = self.recipe.student
        return not isinstance(student, FineTuningConfig) and student.images_are_noise

    @property
    def could_train(self) -> bool:
        """Whether students are only reconstructed that other recipes train as well."""
        student = self.recipe.student
        if self.fits_noise or isinstance(student, FineTuningConfig):
            return False
        few = (x for x in self.bit_widths if min(x.weight_bits, x.activation_bits) < 8)
        return any(student.budgets.of(x).distillation is None for x in few)

    def checked(self) -> Job:
        """The job as it will be carried out.

        Raises:
          UserError: there are no or equal bit widths, `keep_layers` match nothing,
            there is no such target or it does not take widths or layers, recipe or
            limits do not fit the classifier or the widths, there are more replicas
            than images, or memory or the temporary directory does not hold the run.
        """
        job = self
        if not self.bit_widths or len(set(self.bit_widths)) < len(self.bit_widths):
            names = ",".join(width.name for width in self.bit_widths)
            raise UserError(
                f"{option('bits', names)} must name at least one width, and each once"
            )
        if self.target not in TARGETS:
            raise UserError(
                f"{option('target', self.target)} is unknown; expected one of "
                f"{', '.join(TARGETS)}"
            )
        self._check_end_types()
        check_labels(self.labels, self.classifier)
        self._check_target()
        kept = match_kernel_layers(self.classifier.model, self.keep_layers)
        self._check_limits()
        self._check_recipe()
        self._check_distribution()
        if not self.classifier.has_bn_statistics:
            recipe = self.recipe.without_bn_statistics()
            job = dataclasses.replace(job, recipe=recipe)
        taken = self.classifier.model, self.classifier.name, job.recipe, self.bit_widths
        num_replicas = self.strategy.num_replicas_in_sync
        require_memory_for_run(*taken, num_replicas // num_processes(self.strategy))
        require_temporary_room(*taken)
        return dataclasses.replace(job, keep_layers=tuple(sorted(kept)))

    @property
    def _wide(self) -> str:
        """Names of the widths whose activations are int16."""
        wide = (x.name for x in self.bit_widths if x.has_int16)
        return ",".join(wide)

    def _check_end_types(self) -> None:
        for name in ("input_type", "output_type"):
            value = getattr(self, name)
            require_end_type(name, value, 8)
            if self._wide and value != DEFAULT_END_TYPE:
                raise UserError(
                    f"{option(name, value)} is an int8 file's, and those of "
                    f"{option('bits', self._wide)} have int16 ends; drop {option(name)}"
                )

    def _check_target(self) -> None:
        """Tells at once what the conversion would refuse."""
        target = TARGETS[self.target]
        few = [x.name for x in self.bit_widths if storage_bits(x.weight_bits) == 4]
        for names, reason in (
            (",".join(few), without_int4(target)),
            (self._wide, without_int16(target)),
        ):
            if names and reason:
                raise UserError(
                    f"{option('target', target.name)} does not take "
                    f"{option('bits', names)}: {reason}"
                )
        for widths in self.bit_widths:
            bits = widths.stored_activation_bits
            for layer in filter(becomes_operation, self.classifier.model.layers):
                refusal = refusal_of(target, layer.name, kind_of(layer), bits)
                if refusal is not None:
                    raise UserError(
                        f"{option('target', target.name)} with "
                        f"{option('bits', widths.name)}: {refusal}"
                    )

    def _check_recipe(self) -> None:
        classifier, recipe = self.classifier, self.recipe
        nothing_known = (
            classifier.head is Head.FEATURES and not classifier.has_bn_statistics
        )
        if nothing_known and recipe.synthesis.num_steps:
            raise UserError(
                f"{classifier.name} has neither classes nor BatchNormalization "
                f"statistics, which recipe {recipe.name!r} makes its images from; take "
                f"{option('recipe', 'calibrate')}"
            )
        if self.alternates and not classifier.head.has_classes:
            raise UserError(
                f"recipe {recipe.name!r} trains on classes, and {classifier.name} is "
                f"{_KINDS[classifier.head]}; take another recipe"
            )

    def _check_distribution(self) -> None:
        """Every replica is to have a part of every batch."""
        num_replicas = self.strategy.num_replicas_in_sync
        # Batches of refinement are of nearly that size.
        most = self.recipe.fewest_images_per_step(self.classifier.input_shape) // 2
        if num_replicas > max(1, most):
            raise UserError(
                f"{option('distribution')} gives {num_replicas} replicas, too many for "
                f"the recipe's batches; expected {most} at most"
            )
        limit = self.limits.max_latency_ratio
        if limit is not None and num_processes(self.strategy) > 1:
            raise UserError(
                f"{option('max_latency_ratio', limit)} is held by times, which several "
                f"machines measure differently: name layers with "
                f"{option('keep_layers')} instead"
            )

    def _check_limits(self) -> None:
        limits, instead = self.limits, option("keep_layers")
        given = {
            name: value
            for name, value in dataclasses.asdict(limits).items()
            if value is not None
        }
        if not given:
            return
        least = {"max_accuracy_loss": 0.0, "max_bytes": 1, "max_latency_ratio": 1.0}
        for name, value in given.items():
            if not value >= least[name]:
                raise UserError(
                    f"{option(name, value)} must be {_MEANINGS[name]}, "
                    f"{least[name]:g} or more"
                )
        first = option(next(iter(given)))
        if self.alternates:
            raise UserError(
                f"{first} cannot be held by recipe {self.recipe.name!r}, which would "
                "train anew for every layer it tries; name layers with "
                f"{instead} instead"
            )
        loss = option("max_accuracy_loss")
        if limits.max_accuracy_loss is not None and (
            not self.classifier.head.has_classes
        ):
            raise UserError(
                f"{loss} is of top-1, which {self.classifier.name} does not have, "
                f"being {_KINDS[self.classifier.head]}; name layers with {instead} "
                "instead"
            )
        if all(storage_bits(widths.weight_bits) == 8 for widths in self.bit_widths):
            names = ",".join(width.name for width in self.bit_widths)
            raise UserError(
                f"{first} is held by the choice between 4 and 8 bits for each kernel, "
                f"and {option('bits', names)} store all of them with 8; name a width "
                "such as w4a8 besides"
            )
