"""TensorFlow without its notes, which no caller of a library asked for.

Its libraries write to file descriptor 2 while they are loaded, whatever
TF_CPP_MIN_LOG_LEVEL says; its Python code logs advice about conversions. Setting
TF_CPP_MIN_LOG_LEVEL shows all.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator

from tflite_export.quiet import quiet_stderr

_LOGGERS = ("tensorflow", "absl")


@contextlib.contextmanager
def quiet_start() -> Iterator[None]:
    """For imports: whatever loads TensorFlow for the first time does so quietly."""
    known = "tensorflow" in sys.modules or "TF_CPP_MIN_LOG_LEVEL" in os.environ
    with _callers_logging(), contextlib.nullcontext() if known else quiet_stderr():
        yield


@contextlib.contextmanager
def quiet_work() -> Iterator[None]:
    """For calls: TensorFlow logs errors alone."""
    with _callers_logging():
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        # Of tf_keras and the converter, about each other.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield


@contextlib.contextmanager
def _callers_logging() -> Iterator[None]:
    """What packages change of the caller's logging is afterwards as it was.

    That is: filters of warnings, levels of loggers, handlers of the root logger.
    """
    root, handlers = logging.getLogger(), logging.getLogger().handlers[:]
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    try:
        with warnings.catch_warnings():
            yield
    finally:
        root.handlers[:] = handlers
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
