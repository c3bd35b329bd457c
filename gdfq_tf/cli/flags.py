"""The flags of every command.

Reading them takes no TensorFlow, so that mistakes are told at once. Each command has
flags of its own (`absl.flags.FlagValues`), in groups that its help shows in this order.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import re
import shutil
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from gdfq_tf import embedded
from gdfq_tf.cli.flag_values import constant_inputs, numbers
from gdfq_tf.config import (
    DEFAULT_RECIPE,
    DISTRIBUTIONS,
    PREPROCESSINGS,
    RECIPES,
    TASKS,
    get_recipe,
    parse_bit_widths,
)
from gdfq_tf.distribution.cluster import this_task
from gdfq_tf.errors import UserError, option
from gdfq_tf.manifest import read_manifest
from tflite_export.interface import DEFAULT_END_TYPE, END_TYPES, END_TYPES_OF_BITS
from tflite_export.targets import CORTEX_M, DEFAULT_TARGET, NPUS, PHONE, TARGETS

_OF_OTHER_MODELS = (
    "weights",
    "input_size",
    "output_name",
    "constant_inputs",
    "allow_unsafe",
    "preprocessing",
    "mean",
    "std",
    "input_range",
)

VERBOSITIES = {
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
}

# Of choices in front of a text; more are told in it.
_LONGEST_VALUE = 60


class Flags:
    """One command's flags, by group; `values` holds what they are set to.

    Attributes:
      values: of the flags, once they are parsed: `flags.values.model`.
    """

    def __init__(self, values: flags.FlagValues | None = None) -> None:
        """Takes where to define flags; new ones that nobody shares if none is given."""
        self.values = flags.FlagValues() if values is None else values
        self.required: list[str] = []
        self._groups: dict[str, list[str]] = {}
        self._group: list[str] = []

    def group(self, title: str) -> None:
        """Flags defined from here on are shown under this title."""
        self._group = self._groups.setdefault(title, [])

    def string(self, name: str, text: str, *, required: bool = False) -> None:
        """A flag that is text, None if not given."""
        flags.DEFINE_string(name, None, text, flag_values=self.values)
        self._added(name, required)

    def texts(self, name: str, default: list[str] | str, text: str) -> None:
        """A flag that is a list, given with commas."""
        flags.DEFINE_list(name, default, text, flag_values=self.values)
        self._added(name)

    def choice(
        self, name: str, default: str | None, choices: Sequence[str], text: str
    ) -> None:
        """A flag that is one of `choices`."""
        flags.DEFINE_enum(name, default, list(choices), text, flag_values=self.values)
        self._added(name)

    def integer(
        self,
        name: str,
        default: int | None,
        text: str,
        *,
        low: int,
        high: int | None = None,
    ) -> None:
        """A flag that is an integer from `low` to `high`."""
        flags.DEFINE_integer(
            name,
            default,
            text,
            lower_bound=low,
            upper_bound=high,
            flag_values=self.values,
        )
        self._added(name)

    def number(self, name: str, text: str, *, low: float) -> None:
        """A flag that is a number of at least `low`, None if not given."""
        flags.DEFINE_float(name, None, text, lower_bound=low, flag_values=self.values)
        self._added(name)

    def switch(self, name: str, text: str) -> None:
        """A flag that is off unless given."""
        flags.DEFINE_bool(name, False, text, flag_values=self.values)
        self._added(name)

    def _added(self, name: str, required: bool = False) -> None:
        self._group.append(name)
        if required:
            self.required.append(name)

    def help(self, width: int | None = None) -> str:
        """All flags in their groups, `width` characters wide or as the terminal is."""
        width = width or min(shutil.get_terminal_size().columns, 100)
        lines = []
        for title, names in self._groups.items():
            lines += ["", f"{title}:"]
            for name in names:
                flag = self.values[name]
                value = "" if flag.boolean else f"={_placeholder(flag)}"
                default = flag.default_as_str
                text = flag.help.split(">: ", 1)[-1]  # absl puts choices in front
                if len(value) > _LONGEST_VALUE:
                    text += f" One of {value[1:].replace('|', ', ')}."
                    value = "=NAME"
                lines.append(f"  --{name}{value}")
                if name in self.required:
                    text += " Required."
                elif flag.default not in (None, []) and not flag.boolean:
                    text += f" Default: {default.strip(chr(39))}."
                lines += textwrap.wrap(
                    text, width, initial_indent=" " * 6, subsequent_indent=" " * 6
                )
        return "\n".join(lines)

    def parse(
        self,
        arguments: Sequence[str],
        bare: str,
        *,
        several: bool,
        fill: Callable[[flags.FlagValues], None] = lambda values: None,
    ) -> None:
        """Sets the values.

        Args:
          arguments: flags, and what stands without one.
          bare: the flag that this is for.
          several: whether that may be a list of them.
          fill: called before flags are missed, to set those that were not given.

        Raises:
          UserError: an unknown flag, a wrong value, a missing flag.
        """
        self.values.set_gnu_getopt()  # flags may come behind other arguments
        try:
            rest = self.values(["gdfq", *arguments])[1:]
            if rest and not self.values[bare].present:
                count = len(rest) if several else 1
                self.values[bare].parse(",".join(rest[:count]))
                self.values[bare].present += 1
                rest = rest[count:]
            fill(self.values)
        except flags.Error as error:
            raise UserError(" ".join(str(error).split())) from error
        if rest:
            raise UserError(
                f"unexpected argument {rest[0]!r}; flags are written --name=value"
            )
        for name in self.required:
            if not self.values[name].value:
                raise UserError(
                    f"{option(name)} is missing: {self.values[name].help[0].lower()}"
                    f"{self.values[name].help[1:].rstrip('.')}"
                )


def _placeholder(flag: flags.Flag) -> str:
    choices = getattr(flag.parser, "enum_values", None)
    if choices:
        return "|".join(choices)
    kind = flag.flag_type()
    if "list" in kind:
        return "A,B"
    return {"int": "N", "float": "X"}.get(kind, "TEXT")


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of `gdfq`.

    Attributes:
      name: `gdfq NAME`.
      summary: what it does, in a line.
      example: a call of it.
      argument: the flag that a bare argument stands for; `takes_several`: whether
        several may be given, for a list.
      define: makes its flags.
      fill: gives flags that were not given values from elsewhere.
      check: what can be told of them alone; raises `UserError`.
    """

    name: str
    summary: str
    example: str
    argument: str
    define: Callable[[Flags], None]
    fill: Callable[[flags.FlagValues], None] = lambda values: None
    check: Callable[[flags.FlagValues], None] = lambda values: None
    takes_several: bool = False

    @property
    def module(self) -> str:
        """Where its `main(flags)` is, which needs TensorFlow."""
        return f"gdfq_tf.cli.{self.name}"

    def parse(self, arguments: Sequence[str]) -> flags.FlagValues:
        """The values of its flags.

        Raises:
          UserError: see `Flags.parse`; or they do not go together.
        """
        defined = self._flags()
        defined.parse(
            arguments, self.argument, several=self.takes_several, fill=self.fill
        )
        _check_messages(defined.values)
        self.check(defined.values)
        return defined.values

    def help(self, width: int | None = None) -> str:
        """What `gdfq NAME --help` shows, see `Flags.help`."""
        defined = self._flags()
        return (
            f"{self.summary}\n\nusage: gdfq {self.name} {self.argument.upper()} "
            f"[--flag=value ...]\n\n    {self.example}\n{defined.help(width)}"
        )

    def _flags(self) -> Flags:
        """Its own and those of all commands."""
        defined = Flags()
        self.define(defined)
        _define_messages(defined)
        return defined


def _define_messages(flags_: Flags) -> None:
    flags_.group("Messages")
    flags_.choice(
        "verbosity",
        "info",
        list(VERBOSITIES),
        "What is shown on standard error: errors alone; warnings; progress; what the "
        "libraries log besides.",
    )
    flags_.switch("quiet", "Short for --verbosity=error.")


def _check_messages(values: flags.FlagValues) -> None:
    if values.quiet and values["verbosity"].present and values.verbosity != "error":
        raise UserError(
            f"{option('quiet', True)} and {option('verbosity', values.verbosity)} "
            "contradict each other; drop one"
        )


def verbosity_of(values: flags.FlagValues) -> int:
    """The least severe level, of the module `logging`, of what is to be shown.

    Progress is `logging.INFO`.
    """
    return VERBOSITIES["error" if values.quiet else values.verbosity]


def define_classifier_flags(flags_: Flags) -> None:
    """What names a float classifier and says what it was trained on."""
    flags_.group("The classifier")
    flags_.string(
        "model",
        "A .keras, .h5, .hdf5 or .json file, a SavedModel, keras.applications.NAME, or "
        "embedded: the Fashion-MNIST classifier that comes with the package.",
        required=True,
    )
    flags_.choice(
        "preprocessing",
        None,
        PREPROCESSINGS,
        "What the classifier was trained on: tf [-1, 1]; torch, caffe: as in "
        "keras.applications; unit [0, 1]; uint8 [0, 255]; custom: --mean and --std. "
        "Known by itself for keras.applications names, told by the statistics of other "
        "models if these are clear.",
    )
    flags_.texts("mean", [], "For custom: mean of pixel / 255, one or per channel.")
    flags_.texts("std", [], "For custom: deviation of pixel / 255, likewise.")
    flags_.texts(
        "input_range",
        [],
        "For features that are no pixels, in place of --preprocessing: the range that "
        "they lie in, low,high, or both for each channel.",
    )
    flags_.string(
        "weights",
        "For keras.applications names and .json files: a .weights.h5 or .h5 file; for "
        "the names also imagenet.",
    )
    flags_.integer(
        "input_size",
        None,
        "For keras.applications names: height and width of the images, if not their "
        "own.",
        low=1,
    )
    flags_.string("output_name", "The output to keep of a model that has several.")
    flags_.texts(
        "constant_inputs",
        [],
        "Inputs that are no images and always the same, as NAME=VALUE: a number, or an "
        ".npy file with an array that broadcasts to the input's shape without the "
        "batch.",
    )
    flags_.choice(
        "task",
        "classification",
        TASKS,
        "What the outputs are: classification, also labels beside each other; "
        "features: an embedding, a regression, an image.",
    )
    flags_.switch(
        "without_bn_statistics",
        "Take a classifier that was trained without BatchNormalization: images are "
        "then made from class boundaries and smoothness alone.",
    )
    flags_.switch(
        "allow_unsafe",
        "Take Lambda layers and run the code that the model file holds for them, "
        "which may do whatever you may: only for files from whom you trust.",
    )


def check_classifier_flags(values: flags.FlagValues) -> None:
    """Refuses flags that do not go with the embedded classifier, and no numbers."""
    given = [name for name in _OF_OTHER_MODELS if values[name].value]
    if values.model == embedded.NAME and given:
        raise UserError(
            f"{option(given[0])} does not go with {option('model', embedded.NAME)}, of "
            "which all is known; drop it"
        )
    for name in ("mean", "std", "input_range"):
        numbers(values, name)
    constant_inputs(values)


# Of ResNet-20 at 32x32, widths w8a8 and w4a8, on two CPU cores.
RECIPE_COSTS = {
    "calibrate": "half a minute, from noise alone",
    "fast": "a minute, images are made",
    "balanced": "several times that, students of few bits are trained besides",
    "best": "longest",
    "gdfq": "25 minutes, as published",
}


def _define_quantize(flags_: Flags) -> None:
    define_classifier_flags(flags_)
    flags_.group("What comes out")
    flags_.string(
        "output_dir", "The directory that the run leaves behind.", required=True
    )
    flags_.switch("overwrite", "Replace an earlier run at --output_dir.")
    flags_.switch(
        "fresh",
        "Begin anew, where a run for --output_dir was interrupted: without this, the "
        "same command goes on where that one was.",
    )
    flags_.string(
        "from_manifest",
        "Make an earlier run again, from its manifest.json or directory: all flags are "
        "that run's but --output_dir and what only places or shows things.",
    )
    flags_.texts(
        "bits",
        "w8a8,w4a8",
        "Widths: w<weight bits>a<activation bits>. First and last layer stay at 8 "
        "bits, and so do depthwise layers, residual adds and pooling, unless /paper is "
        "added (w4a4/paper): all kernels and ReLU outputs. With /pointwise "
        "(w4a8/pointwise) only 1x1 convolutions and dense layers have the weight bits: "
        "others with INT4 kernels are slow in LiteRT. w8a16 and w4a16 have int16 in "
        "all tensors: nearest to float, for regressions and audio, and slow in LiteRT.",
    )
    flags_.texts(
        "keep_layers", [], "Layers that stay at 8 bits: names or patterns, conv_dw_*."
    )
    flags_.number(
        "max_accuracy_loss",
        "Points of top-1 that may be lost, as estimated without data; as many of the "
        "most sensitive layers stay at 8 bits as that takes.",
        low=0.0,
    )
    flags_.integer(
        "max_bytes",
        None,
        "Bytes that a file with INT4 kernels may have: layers that lose most stay at 8 "
        "bits as far as they allow.",
        low=1,
    )
    flags_.number(
        "max_latency_ratio",
        "How many times as long such a file may take in LiteRT, on this machine, as "
        "with 8 bits in all kernels; layers stay at 8 bits accordingly.",
        low=1.0,
    )
    _define_target(flags_, "What runs the files", DEFAULT_TARGET)
    _define_end_types(flags_, DEFAULT_END_TYPE)
    _define_labels(flags_)
    flags_.group("How much work")
    _define_recipe(flags_)
    flags_.string(
        "images",
        "Images to work with in place of making some: the directory of an earlier run, "
        "or an .npz file of gdfq synthesize.",
    )
    _define_reproduction(flags_)
    flags_.group("The closing table")
    flags_.string(
        "data",
        "Labelled test images, for this table alone: an .npz with x_test and y_test, a "
        "keras.datasets name, or a folder of class folders.",
    )
    flags_.integer("num_images", None, "How many of them at most.", low=1)


def _define_recipe(flags_: Flags) -> None:
    costs = RECIPE_COSTS.items()
    flags_.choice(
        "recipe",
        DEFAULT_RECIPE,
        list(RECIPES),
        "The preset, with its time for ResNet-20 at 32x32 and two widths on two CPU "
        f"cores: {'; '.join(f'{name}: {cost}' for name, cost in costs)}.",
    )
    flags_.integer(
        "num_steps",
        None,
        "Generator steps, instead of the recipe's; all other steps change as much.",
        low=1,
    )


def _define_reproduction(flags_: Flags) -> None:
    flags_.integer("seed", 0, "Seed of everything random.", low=0, high=2**32 - 1)
    flags_.integer(
        "num_threads",
        None,
        "Threads that TensorFlow computes with, instead of one per usable CPU: the "
        "same number gives the same bytes on however many CPUs of one kind.",
        low=1,
    )
    _define_distribution(flags_)


def _define_synthesize(flags_: Flags) -> None:
    define_classifier_flags(flags_)
    flags_.group("What comes out")
    flags_.string(
        "output",
        "The .npz file to write: pixels, uint8 (N, height, width, channels), and "
        "labels, int32 (N,).",
        required=True,
    )
    flags_.switch("overwrite", "Replace what is at --output.")
    flags_.string(
        "png_dir",
        "Also a new directory of PNG files, with one folder for each class.",
    )
    flags_.switch(
        "fresh",
        "Begin anew, where this command was interrupted: without this, it goes on "
        "where it was.",
    )
    flags_.group("How much work")
    flags_.integer("num_images", 512, "How many images.", low=1)
    _define_recipe(flags_)
    _define_reproduction(flags_)


def _check_synthesize(values: flags.FlagValues) -> None:
    check_classifier_flags(values)
    _check_distribution(values)
    get_recipe(values.recipe, values.num_steps)


# What a manifest does not hold: where a run is and what it shows.
_NOT_IN_MANIFESTS = (
    "output_dir",
    "overwrite",
    "fresh",
    "from_manifest",
    "data",
    "num_images",
    "verbosity",
    "quiet",
)
# What it holds, and may have moved since.
_MAY_MOVE = ("model", "weights", "images")


def manifest_options(values: flags.FlagValues) -> dict[str, Any]:
    """All flags of `gdfq quantize` that its bytes may depend on, as they are set."""
    return {
        name: values[name].value for name in values if name not in _NOT_IN_MANIFESTS
    }


def _fill_from_manifest(values: flags.FlagValues) -> None:
    """Sets flags that were not given as `--from_manifest` has them.

    Raises:
      UserError: it cannot be read, holds what was an object of a Python program, or
        flags that are not known or were given otherwise.
    """
    if values.from_manifest is None:
        return
    manifest = read_manifest(Path(values.from_manifest))
    if manifest.from_program:
        raise UserError(
            f"{option('from_manifest', values.from_manifest)} is of a run in Python, "
            f"whose {', '.join(manifest.from_program)} it does not hold; pass them to "
            "gdfq_tf.quantize_from_manifest"
        )
    for name, value in manifest.options.items():
        if name not in values or name in _NOT_IN_MANIFESTS:
            raise UserError(
                f"{option('from_manifest', values.from_manifest)} has {name}, which "
                "this version does not know; take the version that it names"
            )
        flag = values[name]
        if not flag.present:
            if value is None:
                flag.value = None
            else:
                flag.parse(value)
        elif flag.value != value and name not in _MAY_MOVE:
            raise UserError(
                f"{option(name, flag.value)} does not go with "
                f"{option('from_manifest')}, which has {value}; drop one of them"
            )


def _define_distribution(flags_: Flags) -> None:
    """Where training is done; `_check_distribution` belongs to it."""
    flags_.choice(
        "distribution",
        "none",
        DISTRIBUTIONS,
        "Who shares the steps of training: none, one device does all; mirrored, all "
        "GPUs of this machine; multi_worker, the processes that the environment "
        "variable TF_CONFIG names, all started with this command; the first of them "
        "writes.",
    )


def _check_distribution(values: flags.FlagValues) -> None:
    """Refuses a TF_CONFIG that names no cluster, before anything waits for it."""
    if values.distribution == "multi_worker":
        this_task()


def _check_quantize(values: flags.FlagValues) -> None:
    check_classifier_flags(values)
    _check_distribution(values)
    get_recipe(values.recipe, values.num_steps)
    widths = [parse_bit_widths(text) for text in values.bits]
    if not widths or len(set(widths)) < len(widths):
        raise UserError(
            f"{option('bits', ','.join(values.bits))} must name at least one width, "
            "and each once"
        )
    for name in ("max_accuracy_loss", "max_latency_ratio"):
        if values[name].value is not None and math.isnan(values[name].value):
            raise UserError(f"{option(name, values[name].value)} must be a number")


def _define_labels(flags_: Flags) -> None:
    flags_.texts(
        "labels",
        [],
        "Names of the classes in the order of the model's outputs, or a text file with "
        "one in each line, packed into the files; if not given, those of the class "
        "folders of --data, in alphabetical order.",
    )


def _define_other_ends(flags_: Flags) -> None:
    """Ends that a file has in place of its student's."""
    _define_end_types(flags_, None)
    flags_.texts(
        "labels",
        [],
        "Names of the classes in the order of the outputs, or a text file with one in "
        "each line; those of the student if not given.",
    )


def _define_end_types(flags_: Flags, default: str | None) -> None:
    own = "" if default else " If not given, the student's own."
    types = list(END_TYPES_OF_BITS[8] if default else END_TYPES)
    flags_.choice(
        "input_type",
        default,
        types,
        "Type of the files' input. With uint8, bytes of images can be fed as they are "
        f"where the preprocessing lets them; the formula of the input says so.{own}",
    )
    flags_.choice("output_type", default, types, f"Type of the files' output.{own}")


def _define_target(flags_: Flags, what: str, default: str | None) -> None:
    flags_.choice(
        "target",
        default,
        list(TARGETS),
        f"{what}: {_targets_in_words()}.",
    )


def _targets_in_words() -> str:
    return "; ".join(f"{x.name}, {x.title}" for x in TARGETS.values())


def _define_convert(flags_: Flags) -> None:
    flags_.group("Files")
    flags_.string("student", "A *_student.npz file of a run.", required=True)
    flags_.string("output", "The .tflite file to write.", required=True)
    flags_.switch("overwrite", "Replace --output if it exists.")
    _define_target(flags_, "What runs the file, if not what the run was for", None)
    _define_other_ends(flags_)
    flags_.group("Verification")
    flags_.integer("num_images", 64, "Random images to compare on.", low=1)


def _define_firmware(flags_: Flags) -> None:
    flags_.group("Files")
    flags_.string(
        "model", "A .tflite file of a run, or a *_student.npz file.", required=True
    )
    flags_.string(
        "student",
        "The *_student.npz file that --model was made from; if not given, the one "
        "beside it.",
    )
    flags_.string("output_dir", "The folder that is written.", required=True)
    flags_.switch("overwrite", "Replace firmware at --output_dir.")
    flags_.choice(
        "target",
        "c99",
        ("c99", "tflm"),
        "What is written: c99, all of it as C99; tflm, a model and its operators for "
        "TensorFlow Lite for Microcontrollers, C++.",
    )
    flags_.string(
        "name",
        "Begins the names of C files, functions and macros, so that a program may have "
        "several networks; model if not given.",
    )
    flags_.choice(
        "layout",
        None,
        ("plain", "arduino", "zephyr"),
        "How the files of c99 lie: with a Makefile, as an Arduino library or as a "
        "module of Zephyr; plain if not given.",
    )
    flags_.texts(
        "labels",
        [],
        "Names of the classes in the order of the outputs, or a text file with one in "
        "each line; those of the run if not given.",
    )
    flags_.group("Verification")
    flags_.integer("num_tests", 16, "Inputs of the self-test.", low=1)


def _define_verify(flags_: Flags) -> None:
    flags_.group("Files")
    flags_.string("model", "A .tflite file, or the directory of a run.", required=True)
    flags_.string(
        "student",
        "The *_student.npz file that --model was made from; if not given, the one "
        "beside it. Of runs, each file has its own.",
    )
    _define_target(flags_, "What runs the file, if not what the run was for", None)
    _define_other_ends(flags_)
    flags_.group("Verification")
    flags_.integer("num_images", 64, "Random images to compare on.", low=1)


def _define_report(flags_: Flags) -> None:
    flags_.group("Files")
    flags_.string("run", "The directory of a run.", required=True)


def _define_evaluate(flags_: Flags) -> None:
    define_classifier_flags(flags_)
    flags_.group("Images and results")
    flags_.string(
        "data",
        "Labelled images: .npz, keras.datasets name, or folder of class folders.",
    )
    flags_.texts(
        "labels",
        [],
        "Names of the classes in the order of the model's outputs, or a text file with "
        "one in each line; if not given, those of the class folders of --data, in "
        "alphabetical order.",
    )
    flags_.integer("num_images", None, "How many of them at most.", low=1)
    flags_.string("result_json", "Also write the results to this file.")


def _check_evaluate(values: flags.FlagValues) -> None:
    check_classifier_flags(values)
    if values.data is None and values.model != embedded.NAME:
        raise UserError(
            f"{option('data')} is missing; pass an .npz file, a keras.datasets name or "
            "a folder of class folders"
        )


def _define_benchmark(flags_: Flags) -> None:
    flags_.group("What is timed")
    flags_.texts("model", [], ".tflite files, separated by commas.")
    flags_.required.append("model")
    flags_.choice(
        "device",
        None,
        (PHONE, *CORTEX_M, *NPUS),
        "In place of timing LiteRT here: android, the phone that adb finds, with "
        "LiteRT's benchmark_model in its /data/local/tmp; a microcontroller, on which "
        "firmware of the files' students is measured in QEMU; or an NPU by Arm, whose "
        "cycles and memory Vela estimates. Needs adb; arm-none-eabi-gcc and "
        "qemu-system-arm; or ethos-u-vela.",
    )
    flags_.integer("num_threads", 1, "Threads of one invocation.", low=1, high=256)
    flags_.integer("num_runs", 50, "Timed invocations of each, in turn.", low=1)
    flags_.integer("warmup_runs", 5, "Invocations before them.", low=0)
    flags_.switch("profile", "Also time every operator in a file of its own.")
    flags_.string("result_json", "Also write the results to this file.")


COMMANDS = {
    command.name: command
    for command in (
        Command(
            "quantize",
            "Quantizes a trained Keras classifier to integer TFLite, without any data.",
            "gdfq quantize classifier.keras --preprocessing=torch --output_dir=runs/x",
            "model",
            _define_quantize,
            _fill_from_manifest,
            _check_quantize,
        ),
        Command(
            "synthesize",
            "Makes images that stand for the lost training data, for other tools too.",
            "gdfq synthesize classifier.keras --preprocessing=torch --output=x.npz",
            "model",
            _define_synthesize,
            check=_check_synthesize,
        ),
        Command(
            "convert",
            "Makes a verified .tflite file of a student that a run left behind.",
            "gdfq convert runs/x/x_w4a8_student.npz --output=x.tflite",
            "student",
            _define_convert,
        ),
        Command(
            "firmware",
            "Writes a student as code for microcontrollers, with a self-test.",
            "gdfq firmware runs/x/x_w4a8.tflite --output_dir=fw",
            "model",
            _define_firmware,
        ),
        Command(
            "verify",
            "Holds .tflite files against their students, rule by rule, byte by byte.",
            "gdfq verify runs/x",
            "model",
            _define_verify,
        ),
        Command(
            "report",
            "Writes the report and the figures of a finished run again.",
            "gdfq report runs/x",
            "run",
            _define_report,
        ),
        Command(
            "evaluate",
            "Top-1 of classifiers, students, .tflite files or whole runs on images.",
            "gdfq evaluate runs/x --data=cifar10",
            "model",
            _define_evaluate,
            check=_check_evaluate,
        ),
        Command(
            "benchmark",
            "Latency, memory and size of .tflite files in LiteRT, or on other devices.",
            "gdfq benchmark a.tflite b.tflite --num_threads=2",
            "model",
            _define_benchmark,
            takes_several=True,
        ),
    )
}


def help_of_all() -> str:
    """What `gdfq --help` shows."""
    lines = [
        "Quantizes trained Keras classifiers to integer TFLite without any data.",
        "",
        "usage: gdfq COMMAND ARGUMENT [--flag=value ...]",
        "",
    ]
    lines += [f"  {name:<10} {c.summary}" for name, c in COMMANDS.items()]
    lines += ["", "gdfq COMMAND --help shows the flags of a command."]
    return "\n".join(lines)


def names_help(argument: str) -> bool:
    """Whether an argument asks for help."""
    return bool(re.fullmatch(r"-h|--?help(full|short)?", argument))
