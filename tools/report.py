"""`gdfq report`, for people in a checkout."""

import sys

from gdfq_tf.cli.main import run

if __name__ == "__main__":
    run("report", sys.argv[1:])
