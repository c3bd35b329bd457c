"""What TFLite's Task Library makes of a file; for benchmarks/task_library.py.

Takes a `.tflite` file and an `.npz` with images, and prints one line of JSON: the
metadata and labels as the library reads them, and the scores of each image.
"""

from __future__ import annotations

import json
import sys

import numpy as np
from tflite_support import metadata
from tflite_support.task import vision


def main() -> None:
    """The two paths are the arguments."""
    path, images = sys.argv[1:]
    displayer = metadata.MetadataDisplayer.with_model_file(path)
    labels = displayer.get_associated_file_buffer("labels.txt").decode()
    classifier = vision.ImageClassifier.create_from_file(path)
    scores = []
    for pixels in np.load(images)["pixels"]:
        image = vision.TensorImage.create_from_array(pixels)
        (head,) = classifier.classify(image).classifications
        scores.append([[c.index, c.category_name, c.score] for c in head.categories])
    answer = {
        "metadata": json.loads(displayer.get_metadata_json()),
        "labels": labels.splitlines(),
        "scores": scores,
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
