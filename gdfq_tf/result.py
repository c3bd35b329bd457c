"""What a run gives: verified models, their images and all figures."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gdfq_tf.baselines import Baselines
from gdfq_tf.config import DEFAULT_RECIPE, BitWidths, parse_bit_widths
from gdfq_tf.errors import UserError, option
from gdfq_tf.evaluation import ModelFile, compare
from gdfq_tf.job import Job
from gdfq_tf.manifest import MANIFEST, Manifest
from gdfq_tf.progress import NullProgress, Progress, whole_stage
from gdfq_tf.provenance import versions
from gdfq_tf.quantization.estimation import Estimate
from gdfq_tf.quantization.layer_figures import LayerTable
from gdfq_tf.quantization.trade_off import TradeOff
from gdfq_tf.recording import StageRecord, times_resumed
from gdfq_tf.report.pictures import sheet
from gdfq_tf.run_directory import (
    SCHEMA_VERSION,
    claim_run_directory,
    write_images,
    write_models,
    write_student,
    write_summary,
)
from gdfq_tf.synthesis.bn_gaps import bn_gaps
from gdfq_tf.synthesis.image_pool import ImagePool
from gdfq_tf.system.machine import describe_machine
from gdfq_tf.system.output_files import write_whole
from tflite_export.benchmark import times_as_long
from tflite_export.integer_network import IntegerNetwork
from tflite_export.interface import END_TYPES
from tflite_export.interpreter import TFLiteClassifier
from tflite_export.quantization_params import storage_bits
from tflite_export.verification.verify import Agreement, Finding

if TYPE_CHECKING:
    from PIL import Image

_NUM_COMPARED_IMAGES = 512


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class QuantizedModel:
    """One width's result, verified.

    Attributes:
      name: of the classifier.
      bit_widths: what was asked.
      layers_at_8_bits: kernel layers whose kernels have 8 bits.
      trade_off: what layers at 8 bits cost, if limits asked for it.
      estimate: how like the classifier it is, on held-out synthetic images.
      network: the student in integers; `tflite`: the file that computes it.
      findings: one per rule of the verification, all passed.
      agreement: student against LiteRT on random and synthetic images.
      seconds: calibration to verification.
      measure_layers: computes `layers`.
    """

    name: str
    bit_widths: BitWidths
    layers_at_8_bits: frozenset[str]
    trade_off: TradeOff | None
    estimate: Estimate
    network: IntegerNetwork
    tflite: bytes
    findings: tuple[Finding, ...]
    agreement: Agreement
    seconds: float
    measure_layers: Callable[[], LayerTable]

    @functools.cached_property
    def layers(self) -> LayerTable:
        """One row of figures for each layer, computed when it is first asked for."""
        return self.measure_layers()

    def save(self, path: str | Path) -> Path:
        """Writes the `.tflite` file; what is there is replaced.

        Returns:
          The path, with `~` as the home directory.

        Raises:
          UserError: the file cannot be written.
        """
        path = Path(path).expanduser()
        write_whole(path, self.tflite)
        return path

    def __repr__(self) -> str:
        """One line."""
        return (
            f"<{self.name} {self.bit_widths.name}: {len(self.tflite):,} bytes, "
            f"{self.estimate.in_words()}>"
        )


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Result:
    """All that one run made; `result["w4a8"]` is the model of that width.

    Attributes:
      job: as carried out.
      images: a pool of synthetic images; none of the held-out ones.
      pool: the largest of the run as it was made, held-out images among them: what
        `pool` of `gdfq_tf.quantize` takes to make the same students again.
      models: one per width, in the order asked.
      baselines: see `Baselines`.
      manifest: what it was made from.
      synthesis_seconds: generator, pool and refinement; 0 where recipes alternate.
      stages: what each stage told, with the losses of its steps.
    """

    job: Job
    images: ImagePool
    pool: ImagePool
    models: tuple[QuantizedModel, ...]
    baselines: Baselines
    synthesis_seconds: float
    stages: tuple[StageRecord, ...] = ()
    manifest: Manifest | None = None

    def __getitem__(self, bits: str) -> QuantizedModel:
        """The model of a width such as "w4a8" or "w4a4/paper".

        Raises:
          KeyError: it was not asked for.
        """
        bit_widths = parse_bit_widths(bits.replace("_", "/"))
        for model in self.models:
            if model.bit_widths == bit_widths:
                return model
        names = ", ".join(model.bit_widths.name for model in self.models)
        raise KeyError(f"{bits}; this run made {names}")

    def __iter__(self) -> Iterator[QuantizedModel]:
        """The models, in the order asked."""
        return iter(self.models)

    def __len__(self) -> int:
        """How many models there are."""
        return len(self.models)

    def __repr__(self) -> str:
        """A line for the run and one for each model."""
        lines = [f"<{self.job.classifier.name}, recipe {self.job.recipe.name}"]
        return "\n  ".join([*lines, *map(repr, self.models)]) + ">"

    @property
    def earlier_seconds(self) -> float:
        """What killed processes took, of the work that this one went on with."""
        return sum(stage.earlier_seconds for stage in self.stages)

    def files(self) -> list[ModelFile]:
        """The run's `.tflite` files: float, noise-calibrated, then one per width."""
        name, recipe = self.job.classifier.name, self.job.recipe.name
        label = "GDFQ" if recipe == DEFAULT_RECIPE else f"{recipe} recipe"
        return [
            ModelFile("float", f"{name}_float.tflite", self.baselines.float32),
            ModelFile(
                "int8 PTQ on noise",
                f"{name}_int8_noise.tflite",
                self.baselines.noise_ptq,
            ),
            *(
                ModelFile(
                    f"{label} {model.bit_widths.name}",
                    f"{name}_{model.bit_widths.name}.tflite",
                    model.tflite,
                )
                for model in self.models
            ),
        ]

    def compare(
        self,
        pixels: npt.NDArray[np.uint8] | None = None,
        labels: npt.NDArray[np.integer[Any]] | None = None,
        *,
        progress: Progress | None = None,
    ) -> list[dict[str, Any]]:
        """All files of the run beside each other: accuracy, likeness, size, latency.

        Args:
          pixels: uint8 pixels, or features, (N, ...) as the model takes them; None:
            the synthetic images, without top-1.
          labels: int (N,), the classes of `pixels`.
          progress: is told of the stage.

        Returns:
          One row for each of `files()`, as `summary.json` holds them. Those of
          `models` with INT4 kernels say how their latency compares with that of the
          converter's own int8 quantization.
        """
        if pixels is None:
            pixels, labels = self.images.pixels[:_NUM_COMPARED_IMAGES], None
        else:
            pixels = self.job.classifier.input_format.images(pixels)
        files, progress = self.files(), progress or NullProgress()
        with progress.stage("evaluation", len(files)) as advance:
            rows = compare(files, self.job.classifier, pixels, labels, advance)
        for row, model in zip(rows[-len(self) :], self.models, strict=True):
            widths = model.bit_widths
            if storage_bits(widths.weight_bits) == 4 or widths.has_int16:
                row["times_as_long_as_int8"] = times_as_long(
                    model.tflite, self.baselines.noise_ptq
                )
        return rows

    def summary(
        self,
        rows: Sequence[Mapping[str, Any]],
        *,
        progress: Progress | None = None,
        **more: object,
    ) -> dict[str, Any]:
        """All figures, ready for JSON: what `summary.json` holds.

        Args:
          rows: from `compare`.
          progress: is told of the stage: layers are measured.
          more: further entries.
        """
        job, classifier = self.job, self.job.classifier
        with whole_stage(progress or NullProgress(), "layer figures"):
            own = [_facts(model, job) for model in self.models]
            gaps = bn_gaps(classifier, self.images)
        own = [{}] * (len(rows) - len(own)) + own
        return {
            "schema_version": SCHEMA_VERSION,
            "seed": job.seed,
            "recipe": dataclasses.asdict(job.recipe),
            "target": job.target,
            "keep_layers": list(job.keep_layers),
            "limits": dataclasses.asdict(job.limits),
            "class_names": list(job.labels) or None,
            "num_fitted_images": len(self.images),
            "manifest": self._manifest_facts(),
            "classifier": {
                "name": classifier.name,
                "input_shape": classifier.example_shape,
                "image_shape": classifier.input_shape,
                "input": classifier.input_format.in_words(),
                "constant_inputs": dict(classifier.constant_inputs),
                "num_classes": classifier.num_classes,
                "head": classifier.head.value,
                "bn_statistics_used": classifier.has_bn_statistics,
                "preprocessing": dataclasses.asdict(classifier.preprocessing),
                "int8_input": classifier.preprocessing.formula(),
                "int8_input_quantization": (
                    classifier.preprocessing.input_quantization().as_json()
                ),
                "exported_input_shape": [1, *classifier.example_shape],
                "input_type": job.input_type,
                "output_type": job.output_type,
                **_uint8_input(job),
            },
            "models": [{**row, **facts} for row, facts in zip(rows, own, strict=True)],
            "bn_gaps": [{"layer": name, "gap": gap} for name, gap in gaps.items()],
            "stages": [dataclasses.asdict(stage) for stage in self.stages],
            "seconds": {
                "synthesis": self.synthesis_seconds,
                "earlier": self.earlier_seconds,
            },
            "times_resumed": times_resumed(self.stages),
            "machine": describe_machine(),
            "versions": versions(),
            **more,
        }

    def _manifest_facts(self) -> dict[str, Any] | None:
        """What is stored of the manifest beside it."""
        if self.manifest is None:
            return None
        return {"file": MANIFEST, "from_program": list(self.manifest.from_program)}

    def write(self, directory: Path, summary: Mapping[str, Any]) -> None:
        """Fills a directory with models, students, images and the summary.

        Raises:
          UserError: a model does not read back as it was verified.
        """
        write_models(directory, self.files())
        for model in self.models:
            write_student(directory, model.name, model.bit_widths, model.network)
        write_images(directory, self.pool)
        # Imported late: plotting takes a while to load.
        from gdfq_tf.report.figure_files import write_figures

        write_figures(directory, dict(summary), self.pool)
        if self.manifest is not None:
            self.manifest.write(directory)
        write_summary(directory, dict(summary))

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Writes the run directory that the command line writes, whole or not at all.

        The summary compares all files on the synthetic images.

        Args:
          path: of the directory; `~` is the home directory.
          overwrite: whether an earlier run there may be replaced.

        Raises:
          UserError: something is there that may not be replaced, or it cannot be
            written.
        """
        path = Path(path).expanduser()
        started = time.monotonic()
        with claim_run_directory(path, overwrite=overwrite) as output:
            summary = self.summary(self.compare(), evaluated_on=None)
            summary["seconds"]["total"] = (
                self.synthesis_seconds
                + sum(model.seconds for model in self.models)
                + time.monotonic()
                - started
            )
            output.publish(lambda directory: self.write(directory, summary))
        return path

    def show_images(self, num_images: int = 64) -> Image.Image:
        """The first synthetic images in one picture, which notebooks show.

        Raises:
          UserError: `num_images` is below 1, or the images have neither 1 nor 3
            channels.
        """
        pixels = self.images.pixels[:num_images]
        channels = pixels.shape[-1]
        if num_images < 1 or channels not in (1, 3):
            raise UserError(
                f"{option('num_images', num_images)} images of {channels} channels "
                "cannot be shown; expected 1 or more, of 1 or 3 channels"
            )
        return sheet(pixels)


def _uint8_input(job: Job) -> dict[str, Any]:
    """What is stored of the files' input where it is not int8."""
    offset, preprocessing = END_TYPES[job.input_type], job.classifier.preprocessing
    if not offset:
        return {}
    int8 = preprocessing.input_quantization()
    uint8 = dataclasses.replace(int8, zero_point=int8.zero_point + offset)
    return {
        "uint8_input": preprocessing.formula(job.input_type),
        "uint8_input_quantization": uint8.as_json(),
    }


def _int16_input(model: QuantizedModel, job: Job) -> dict[str, Any]:
    """What is stored of a file's input where it is int16."""
    bits, preprocessing = model.network.activation_bits, job.classifier.preprocessing
    if bits != 16:
        return {}
    return {
        "int16_input": preprocessing.formula("int16"),
        "int16_input_quantization": preprocessing.input_quantization(bits).as_json(),
    }


def _facts(model: QuantizedModel, job: Job) -> dict[str, Any]:
    """What is stored of a model beside its comparison."""
    quantization = TFLiteClassifier(model.tflite).output_quantization
    trade_off = {} if model.trade_off is None else {"trade_off": model.trade_off.rows()}
    return {
        **trade_off,
        "widths": dataclasses.asdict(model.bit_widths),
        "layers_at_8_bits": sorted(model.layers_at_8_bits),
        **_int16_input(model, job),
        f"{model.network.interface.output_type}_output": quantization.as_json(),
        "estimate": dataclasses.asdict(model.estimate),
        "verification": {
            "rules": [dataclasses.asdict(finding) for finding in model.findings],
            "student_agreement": dataclasses.asdict(model.agreement),
        },
        "layers": model.layers.as_dicts(),
        "seconds": model.seconds,
    }
