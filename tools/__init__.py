"""Command lines. Importing this package first imports TensorFlow, quietly.

TensorFlow's libraries write notes about CPUs and GPUs to file descriptor 2
while they are loaded, whatever TF_CPP_MIN_LOG_LEVEL says, and obey it later
only. A tool's standard error is for its own messages, so the import happens
here, with the descriptor redirected. Setting TF_CPP_MIN_LOG_LEVEL shows all.
"""

import os
import sys
import tempfile


def _import_tensorflow_quietly() -> None:
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            import gdfq_tf.keras_compat  # noqa: F401
        except BaseException:
            notes.seek(0)
            os.write(stderr, notes.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)


_import_tensorflow_quietly()
