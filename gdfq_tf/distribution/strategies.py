"""Which `tf.distribute` strategy a run works with, and how its processes keep together.

Every process of a cluster does the whole run with the same flags; replicas share the
steps of training. One process, the chief, writes.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from gdfq_tf.config import DISTRIBUTIONS
from gdfq_tf.distribution import replicas
from gdfq_tf.distribution.cluster import this_task
from gdfq_tf.errors import UserError, option

Strategy: TypeAlias = tf.distribute.Strategy

# What steps raise when a process they wait for is gone. TensorFlow's coordination
# service finds that out: at once where a connection breaks, by missing heartbeats
# otherwise.
_LOSSES = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


def make_strategy(distribution: str) -> Strategy:
    """The strategy of a name, to be called before TensorFlow computes anything.

    Args:
      distribution: "none", this process' default device; "mirrored", all its GPUs, or
        without any all its logical CPUs; "multi_worker", the processes that TF_CONFIG
        names: waits for them.

    Raises:
      UserError: the name or TF_CONFIG is wrong, TensorFlow has computed something, the
        cluster cannot be formed.
    """
    if distribution not in DISTRIBUTIONS:
        raise UserError(
            f"{option('distribution', distribution)} is unknown; expected one of "
            f"{', '.join(DISTRIBUTIONS)}, or a tf.distribute.Strategy"
        )
    if distribution == "none":
        return tf.distribute.get_strategy()
    if distribution == "mirrored":
        devices = tf.config.list_logical_devices("GPU")
        devices = devices or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return _multi_worker()


def _multi_worker() -> Strategy:
    task = this_task()
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise UserError(
            "TensorFlow has computed something before the cluster was formed; pass "
            f"{option('distribution')} the tf.distribute.MultiWorkerMirroredStrategy() "
            "that was made first of all"
        ) from error
    except tf.errors.OpError as error:
        address = task.cluster[task.job][task.index]
        raise UserError(
            f"{task.name} cannot join its cluster ({_first_line(error)}); check that "
            f"{address} is this machine's, is free and can be reached by the others"
        ) from error


def num_processes(strategy: Strategy) -> int:
    """How many do the run, this one included."""
    resolver = strategy.cluster_resolver
    if resolver is None:
        return 1
    return max(1, sum(map(len, resolver.cluster_spec().as_dict().values())))


@contextlib.contextmanager
def lost_processes_told(strategy: Strategy) -> Iterator[None]:
    """Ends in one error should another process of the run be gone.

    Raises:
      UserError: it is.
    """
    try:
        yield
    except _LOSSES as error:
        if num_processes(strategy) == 1:
            raise
        raise UserError(
            f"another process of the run was lost ({_first_line(error)}); look at what "
            "the others said last, then start all of them again with the same command"
        ) from error


def _first_line(error: tf.errors.OpError) -> str:
    """What happened, without the graph it happened in."""
    lines = [line.strip() for line in str(error.message).splitlines()]
    told = [line for line in lines if "ollective ops is aborted by" in line]
    return (told or lines)[0].split("aborted by: ")[-1].rstrip(":")


def require_same(strategy: Strategy, facts: Mapping[str, object]) -> None:
    """Compares what the processes of a run are to do.

    Args:
      strategy: of the run.
      facts: by name; compared by what they show.

    Raises:
      UserError: they differ.
    """
    if num_processes(strategy) == 1:
        return
    names = sorted(facts)
    digests = [hashlib.sha256(repr(facts[name]).encode()).digest() for name in names]
    own = tf.constant([[list(digest) for digest in digests]], tf.int32)
    with strategy.scope():
        found = replicas.gathered(replicas.run(tf.identity, own)).numpy()
    differing = np.any(found != found[0], axis=(0, 2))
    if differing.any():
        names = [x for x, differs in zip(names, differing, strict=True) if differs]
        raise UserError(
            f"the processes of the run have another {', '.join(names)} each; start all "
            "of them with the same command, but for the task's index in TF_CONFIG"
        )


def from_chief(strategy: Strategy, message: bytes) -> bytes:
    """What the chief calls this with, in all processes; all of them call it."""
    size = _of_first(strategy, np.array([len(message)], np.float32))
    own = np.zeros(int(size[0]), np.float32)
    count = min(len(own), len(message))
    own[:count] = np.frombuffer(message, np.uint8, count)
    return _of_first(strategy, own).astype(np.uint8).tobytes()


def _of_first(strategy: Strategy, values: np.ndarray) -> np.ndarray:
    """The first replica's values, which is one of the chief's, in all processes.

    In float32, of which every kind of device can make sums.
    """

    def of_first() -> tf.Tensor:
        replica = tf.distribute.get_replica_context()
        is_first = replica.replica_id_in_sync_group == 0
        own = tf.where(is_first, values, tf.zeros_like(values))
        return replica.all_reduce(tf.distribute.ReduceOp.SUM, own)

    with lost_processes_told(strategy), strategy.scope():
        return replicas.from_any(replicas.run(of_first)).numpy()


def wait_for_all(strategy: Strategy) -> None:
    """Returns once every process of the run has called it.

    Raises:
      UserError: one of them is gone.
    """
    if num_processes(strategy) > 1:
        from_chief(strategy, b"")
