"""What replicas of one step share, so that together they compute what one would.

In a strategy's scope a step is called once for each replica. All of them draw the
latents and labels of the whole, global batch, from one seed, and each works on a part
of it. What depends on all images of a batch, which BatchNormalization statistics do,
is exchanged, and gradients flow through the exchange: losses and gradients are those of
a single device at the same global batch, up to the rounding of sums.

With one replica, as without a strategy, every function here gives back what it is
given: nothing is computed that would not be computed anyway.

Source: the same for BatchNormalization layers, "cross-GPU" or synchronized BN, Peng et
al. 2018 (MegDet).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

# Values, in any structure, of which each replica has its own.
PerReplica: TypeAlias = Any


def run(function: Callable[..., Any], *args: PerReplica) -> PerReplica:
    """`function(*args)` in each replica; what they return, by replica.

    Arguments are the same for all, or by replica if another `run` returned them.
    """
    return tf.distribute.get_strategy().run(function, args)


def from_any(values: PerReplica) -> PerReplica:
    """Any replica's of values that all of them have alike."""
    strategy = tf.distribute.get_strategy()
    return tf.nest.map_structure(
        lambda value: strategy.experimental_local_results(value)[0], values
    )


def gathered(value: PerReplica) -> PerReplica:
    """The global batch of tensors (n, ...) that `run` returned; arrays are global."""
    if num_replicas() == 1 or isinstance(value, np.ndarray):
        return value
    return tf.distribute.get_strategy().gather(value, axis=0)


def num_replicas() -> int:
    """How many work on a step, on all machines."""
    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def own_part(batch: tf.Tensor) -> tf.Tensor:
    """Of a global batch (N, ...), the images of the replica that asks.

    Parts are of nearly equal size and follow each other in the order of the replicas.
    """
    replicas = _replicas()
    if replicas is None:
        return batch
    number, count = replicas.replica_id_in_sync_group, replicas.num_replicas_in_sync
    size = batch.shape[0] or tf.shape(batch)[0]
    start, stop = number * size // count, (number + 1) * size // count
    return batch[start:stop]


def shared(losses: Mapping[str, tf.Tensor], images: tf.Tensor) -> dict[str, tf.Tensor]:
    """Means over a replica's images as its share of those over the global batch.

    Args:
      losses: scalars by name.
      images: or labels, (n, ...), of which they are.

    Returns:
      Scalars that sum up to the global means.
    """
    replicas = _replicas()
    if replicas is None:
        return dict(losses)
    count = _count(images)
    share = count / replicas.all_reduce(tf.distribute.ReduceOp.SUM, count)
    return {name: share * loss for name, loss in losses.items()}


def summed(shares: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The global means whose shares these are: the same in all replicas."""
    replicas = _replicas()
    if replicas is None:
        return dict(shares)
    return replicas.all_reduce(tf.distribute.ReduceOp.SUM, dict(shares))


def global_moments(
    moments: Sequence[tuple[tf.Tensor, tf.Tensor]], batch: tf.Tensor
) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """Mean and biased variance over the global batch, of several tensors at once.

    Args:
      moments: mean and variance, (channels,) each, over a replica's part of it.
      batch: (n, ...), any tensor of that part.

    Returns:
      The same of the whole: the variance is the mean of the variances plus that of the
      means.
    """
    replicas = _replicas()
    if replicas is None:
        return list(moments)
    # One exchange for all: rows are replicas, the first column counts their images.
    own = [_count(batch)[tf.newaxis], *(value for pair in moments for value in pair)]
    rows = replicas.all_gather(tf.concat(own, 0)[tf.newaxis], 0)
    counts, *columns = tf.split(rows, [int(value.shape[0]) for value in own], axis=1)
    shares = counts / tf.reduce_sum(counts)
    found = []
    for means, variances in zip(columns[::2], columns[1::2], strict=True):
        mean = tf.reduce_sum(shares * means, 0)
        spread = variances + tf.math.squared_difference(means, mean)
        found.append((mean, tf.reduce_sum(shares * spread, 0)))
    return found


def _replicas() -> tf.distribute.ReplicaContext | None:
    """The replica that asks; None where it is the only one or none is running."""
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return None
    return replica


def _count(batch: tf.Tensor) -> tf.Tensor:
    """Of images, float32 scalar."""
    return tf.cast(tf.shape(batch)[0], tf.float32)
