"""Commands of which several processes share the training."""

from __future__ import annotations

from collections.abc import Callable

from absl import flags

from gdfq_tf.classifier import Classifier
from gdfq_tf.cli.classifier_flags import load_classifier_from_flags
from gdfq_tf.cli.runner import CommandProgress
from gdfq_tf.distribution.cluster import this_task
from gdfq_tf.distribution.strategies import Strategy, make_strategy, wait_for_all
from gdfq_tf.progress import whole_stage


def strategy_of(values: flags.FlagValues, progress: CommandProgress) -> Strategy:
    """That of `--distribution`; before TensorFlow computes anything."""
    if values.distribution != "multi_worker":
        return make_strategy(values.distribution)
    with whole_stage(progress, "waiting for all processes"):
        return make_strategy(values.distribution)


def take_part(
    values: flags.FlagValues,
    train: Callable[[Classifier, Strategy, CommandProgress], object],
) -> None:
    """All that a process does that does not write: its share of `train`."""
    progress = CommandProgress(values)
    strategy = strategy_of(values, progress)
    with whole_stage(progress, "loading"):
        classifier = load_classifier_from_flags(values)
    train(classifier, strategy, progress)
    wait_for_all(strategy)
    print(f"{this_task().name}: done; the first of them has written all")
