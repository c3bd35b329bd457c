"""The command of gdfq_tf/cli/verify.py, for people in a checkout."""

from gdfq_tf.cli.start import start

if __name__ == "__main__":
    start("gdfq_tf.cli.verify")
