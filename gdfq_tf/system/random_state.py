"""The random numbers of the process, which belong to the program that calls."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np

from gdfq_tf.keras_compat import seed_source


@contextlib.contextmanager
def random_state_kept() -> Iterator[None]:
    """Puts the generators that Keras draws seeds from back to where they were.

    It does so for every initializer, also of layers that are given their weights.
    """
    python, numpy = random.getstate(), np.random.get_state()
    # Of tf_keras, once somebody seeded it.
    own = getattr(seed_source, "generator", None)
    own_state = own and own.getstate()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        if own is not None:
            own.setstate(own_state)
