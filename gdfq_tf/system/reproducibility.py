"""Random numbers and kernels that give the same bytes again, for a while.

TensorFlow, NumPy and Python keep one state for the whole process. A library must not
change that of the program that calls it: `reproducible` puts all of it back.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context
from tensorflow.python.framework import config

from gdfq_tf.keras_compat import keras, seed_source

_GRAPH_OPTIMIZER = "disable_meta_optimizer"


@contextlib.contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """All random numbers follow from `seed`, all operations of CPUs are deterministic.

    Of those of GPUs, TensorFlow has no deterministic gradients of fake quantization, of
    BatchNormalization in inference mode and of nearest-neighbour upsampling: asked for
    determinism it refuses them.

    Whatever the process had before, it has afterwards, also if the block raises.
    """
    was_deterministic = config.is_op_determinism_enabled()
    options = tf.config.optimizer.get_experimental_options()
    with random_states_kept():
        keras.utils.set_random_seed(seed)
        if not tf.config.get_visible_devices("GPU"):
            tf.config.experimental.enable_op_determinism()
        # The graph optimizer reorders sums of gradients differently in every process.
        tf.config.optimizer.set_experimental_options({_GRAPH_OPTIMIZER: True})
        try:
            yield
        finally:
            was = options.get(_GRAPH_OPTIMIZER, False)
            tf.config.optimizer.set_experimental_options({_GRAPH_OPTIMIZER: was})
            if not was_deterministic:
                config.disable_op_determinism()


@contextlib.contextmanager
def random_states_kept() -> Iterator[None]:
    """All generators of random numbers are afterwards where they were.

    Keras draws seeds from them for every initializer, also of layers that are given
    their weights.
    """
    python, numpy = random.getstate(), np.random.get_state()
    tensorflow_seed = context.global_seed()
    # There is none before the first seed or random number.
    operation_seeds = getattr(context.context(), "_rng", None)
    operation_state = operation_seeds and operation_seeds.getstate()
    keras_seeds = getattr(seed_source, "generator", None)
    keras_state = keras_seeds and keras_seeds.getstate()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        tf.random.set_seed(tensorflow_seed)
        if operation_state is not None:
            context.context()._rng.setstate(operation_state)
        if keras_seeds is not None:
            keras_seeds.setstate(keras_state)
            seed_source.generator = keras_seeds
        elif hasattr(seed_source, "generator"):
            del seed_source.generator
