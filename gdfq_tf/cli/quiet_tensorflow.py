"""Importing this module, before all others, imports TensorFlow quietly.

TensorFlow's libraries write notes about CPUs and GPUs to file descriptor 2 while they
are loaded, whatever TF_CPP_MIN_LOG_LEVEL says, and obey it later only. Setting
TF_CPP_MIN_LOG_LEVEL shows all. Supervised commands do without, see `supervisor`.
"""

import os

from tflite_export.quiet import quiet_stderr

if "TF_CPP_MIN_LOG_LEVEL" not in os.environ:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with quiet_stderr():
        import gdfq_tf.keras_compat  # noqa: F401
