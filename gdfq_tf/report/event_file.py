"""A run's record as TensorBoard reads it: losses, speed, gaps, images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import tensorflow as tf

from gdfq_tf.recording import titles
from gdfq_tf.report.pictures import encoded, sheet
from gdfq_tf.run_directory import input_format_of
from gdfq_tf.synthesis.image_pool import ImagePool

_Event: TypeAlias = tf.compat.v1.Event
_Summary: TypeAlias = tf.compat.v1.Summary
_VERSION = "brain.Event:2"
_MOST_IMAGES = 64
_MOST_PIXELS = 2**19  # of all images together


def write_events(path: Path, summary: dict[str, Any], images: ImagePool) -> None:
    """Writes the event file: scalars by stage, BatchNormalization gaps, an image grid.

    Gaps are one curve, whose steps are the layers.

    Args:
      path: of the file.
      summary: as `summary.json` holds it.
      images: of the run.
    """
    stages = summary["stages"]
    ended = max((x["started"] + x["seconds"] for x in stages), default=0.0)
    events = [_Event(file_version=_VERSION, wall_time=ended)]
    for title, stage in zip(titles([x["name"] for x in stages]), stages, strict=True):
        events += _of_stage(title.replace(" ", "_"), stage)
    for number, row in enumerate(summary["bn_gaps"]):
        events.append(_scalars(number, ended, {"bn_gap_by_layer": row["gap"]}))
    if input_format_of(summary).picture_shape is not None:
        events.append(_image(images, ended))
    with tf.io.TFRecordWriter(str(path)) as writer:
        for event in events:
            writer.write(event.SerializeToString())


def _of_stage(tag: str, stage: Mapping[str, Any]) -> Iterator[_Event]:
    step, seconds = 0, 0.0
    for point in stage["points"]:
        values = {f"{tag}/{name}": value for name, value in point["metrics"].items()}
        passed = point["seconds"] - seconds
        if stage["images_per_step"] and passed > 0:
            count = stage["images_per_step"] * (point["step"] - step)
            values[f"{tag}/images_per_second"] = count / passed
        step, seconds = point["step"], point["seconds"]
        yield _scalars(step, stage["started"] + seconds, values)


def _scalars(step: int, wall_time: float, values: Mapping[str, float]) -> _Event:
    content = [_Summary.Value(tag=k, simple_value=v) for k, v in values.items()]
    return _Event(step=step, wall_time=wall_time, summary=_Summary(value=content))


def _image(images: ImagePool, wall_time: float) -> _Event:
    _, height, width, _ = images.pixels.shape
    count = min(_MOST_IMAGES, max(1, _MOST_PIXELS // (height * width)))
    grid = sheet(images.pixels[:count])
    image = _Summary.Image(
        height=grid.height,
        width=grid.width,
        colorspace=len(grid.getbands()),
        encoded_image_string=encoded(grid),
    )
    value = _Summary.Value(tag="synthetic_images", image=image)
    return _Event(step=0, wall_time=wall_time, summary=_Summary(value=[value]))
