"""The only reader of labelled real images: for evaluation, never for quantization.

Four sources, told apart by the specification string: a `.npz` file, the name
of a `keras.datasets` image set, a folder of IDX files (the MNIST format) and
a folder of class folders with image files. Arrays must already have the
classifier's input size; image files are resized (see `read_labelled_images`).
Features that are no pixels come as arrays.
"""

from __future__ import annotations

import dataclasses
import gzip
import pathlib
from collections.abc import Sequence

import numpy as np

from gdfq_tf.cli.class_names import numbered
from gdfq_tf.errors import UserError, option
from gdfq_tf.input_format import InputFormat
from gdfq_tf.keras_compat import keras
from tflite_export.presentation import require_labels

KERAS_DATASETS = ("mnist", "fashion_mnist", "cifar10", "cifar100")
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
_IDX_PREFIXES = {"train": "train", "test": "t10k"}
_IDX_UINT8 = 0x08
_PIL_MODES = {1: "L", 3: "RGB"}


@dataclasses.dataclass(frozen=True)
class LabelledImages:
    """Images with their classes.

    Attributes:
      pixels: uint8 (N, H, W, C), RGB or gray; or features. Not checked yet: (N, ...)
        of any type.
      labels: int64 (N,), class indices.
      class_names: by index, or None where the source holds no names.
    """

    pixels: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...] | None = None


def read_labelled_images(
    spec: str,
    input_format: InputFormat,
    num_images: int | None = None,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] = (),
) -> LabelledImages:
    """The test images a specification names, see `InputFormat.reshaped`.

    Image files are converted to RGB or gray by the classifier's channels,
    scaled (bicubic, antialiased) until they just cover the input and cropped
    around the centre: the shorter side fits, nothing is distorted or padded.

    Args:
      spec: path of an `.npz` file with x_test/y_test or x/y; one of
        `KERAS_DATASETS` (test split, downloaded once); folder with
        t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, plain or `.gz`;
        folder of class folders.
      input_format: how the classifier takes its examples.
      num_images: how many to read at most, None for all. Arrays give their
        first images; class folders, being sorted by class, give images spread
        evenly over the whole list.
      num_classes: of the classifier, to check the labels with; None checks
        that they are >= 0 only.
      class_names: in the order of the classifier's outputs; none: class folders are
        numbered alphabetically.

    Raises:
      UserError: unknown source, missing or damaged file, pixels not uint8,
        size or labels that do not fit the classifier, names that are not the folders'.
    """
    if num_images is not None and num_images < 1:
        raise UserError(f"number of images must be at least 1, got {num_images}")
    path = pathlib.Path(spec).expanduser()
    if path.suffix == ".npz":
        images = _read_npz(path)
    elif spec in KERAS_DATASETS or _idx_files(path, "test"):
        images = read_split(spec, "test")
    elif path.is_dir():
        names = numbered(_folders_in(path), class_names)
        images = _read_class_folders(path, names, input_format, num_images)
    else:
        raise _unknown(spec)
    _check_labels(images, spec, num_classes)
    if class_names and images.class_names is None:
        _check_names(images, spec, class_names, num_classes)
        images = dataclasses.replace(images, class_names=tuple(class_names))
    try:
        pixels = input_format.reshaped(images.pixels[:num_images])
    except UserError as error:
        raise UserError(f"{spec}: {error.render(option)}") from error
    return LabelledImages(
        pixels,
        images.labels[:num_images].astype(np.int64),
        images.class_names,
    )


def read_split(spec: str, split: str) -> LabelledImages:
    """All images of a `keras.datasets` name or an IDX folder, in their own size.

    Args:
      spec: one of `KERAS_DATASETS`, or a folder of IDX files.
      split: "train" or "test".

    Raises:
      UserError: neither of the two, download failed, damaged file.
    """
    path = pathlib.Path(spec).expanduser()
    if spec in KERAS_DATASETS:
        try:
            train, test = getattr(keras.datasets, spec).load_data()
        except Exception as error:  # keras raises a bare Exception offline
            raise UserError(
                f"dataset {spec!r} could not be downloaded "
                f"({_first_line(error)}); pass a folder or an .npz file instead"
            ) from error
        pixels, labels = train if split == "train" else test
    elif files := _idx_files(path, split):
        pixels, labels = (_read_idx(file) for file in files)
    else:
        raise _unknown(spec)
    return _from_arrays(pixels, labels)


def _read_npz(path: pathlib.Path) -> LabelledImages:
    try:
        with path.open("rb") as file, np.lib.npyio.NpzFile(file) as arrays:
            for x, y in (("x_test", "y_test"), ("x", "y")):
                if x in arrays and y in arrays:
                    return _from_arrays(arrays[x], arrays[y])
            names = ", ".join(arrays.files) or "nothing"
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; check the path") from error
    except Exception as error:  # damage shows in zipfile, zlib, numpy or tokenize
        raise UserError(
            f"{path} is not a readable .npz file ({_first_line(error)}); write it "
            "with numpy.savez(path, x_test=pixels, y_test=labels)"
        ) from error
    raise UserError(f"{path} holds {names}; expected arrays x_test and y_test, or x, y")


def _idx_files(folder: pathlib.Path, split: str) -> list[pathlib.Path]:
    """The images and labels file of a split; empty unless there are both."""
    found = []
    for kind in ("images-idx3", "labels-idx1"):
        name = f"{_IDX_PREFIXES[split]}-{kind}-ubyte"
        paths = (folder / name, folder / f"{name}.gz")
        found += [path for path in paths if path.is_file()][:1]
    return found if len(found) == 2 else []


def _read_idx(path: pathlib.Path) -> np.ndarray:
    """The uint8 array of an IDX file: big-endian sizes, then the values."""
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        values_type, rank = data[2], data[3]
        if values_type != _IDX_UINT8:
            raise ValueError(f"values of type 0x{values_type:02x}, not 0x08, uint8")
        shape = np.frombuffer(data, ">i4", count=rank, offset=4)
        return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except (OSError, EOFError, IndexError, ValueError) as error:
        raise UserError(
            f"{path} is not a readable IDX file ({_first_line(error)}); fetch it again"
        ) from error


def _folders_in(folder: pathlib.Path) -> list[str]:
    return [entry.name for entry in folder.iterdir() if entry.is_dir()]


def _read_class_folders(
    folder: pathlib.Path,
    names: tuple[str, ...],
    input_format: InputFormat,
    num_images: int | None,
) -> LabelledImages:
    shape = input_format.picture_shape
    if shape is None:
        raise UserError(
            "image files give pixels of 1 or 3 channels, but the classifier takes "
            f"{input_format.in_words()}; pass an .npz file instead"
        )
    files = [
        (path, label)
        for label, name in enumerate(names)
        for path in sorted((folder / name).iterdir())
        if path.suffix.lower() in _IMAGE_SUFFIXES
    ]
    if not files:
        raise UserError(
            f"{folder} holds no class folders with images; expected "
            "<folder>/<class>/<image>.png (or .jpg, .bmp, .gif, .webp)"
        )
    if num_images is not None and num_images < len(files):
        files = [files[i * len(files) // num_images] for i in range(num_images)]
    pixels = [_read_image(path, shape) for path, _ in files]
    return LabelledImages(
        np.stack(pixels), np.array([label for _, label in files]), names
    )


def _read_image(path: pathlib.Path, shape: tuple[int, int, int]) -> np.ndarray:
    from PIL import Image, ImageOps  # here, as arrays do without it

    height, width, channels = shape
    try:
        with Image.open(path) as image:
            fitted = ImageOps.fit(
                image.convert(_PIL_MODES[channels]),
                (width, height),
                method=Image.Resampling.BICUBIC,
            )
    except (OSError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{path} is not a readable image ({_first_line(error)}); remove it"
        ) from error
    return np.asarray(fitted, np.uint8).reshape(shape)


def _check_names(
    images: LabelledImages,
    spec: str,
    names: Sequence[str],
    num_classes: int | None,
) -> None:
    """Refuses names that cannot be those of the class numbers of arrays."""
    if num_classes is not None:
        require_labels(names, num_classes, "the classifier")
    highest = int(images.labels.max())
    if highest >= len(names):
        raise UserError(
            f"{option('labels')} has {len(names)} names, and {spec} has class numbers "
            f"up to {highest}; expected one name for each class"
        )


def _check_labels(images: LabelledImages, spec: str, num_classes: int | None) -> None:
    pixels, labels = images.pixels, images.labels
    if labels.shape != pixels.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(
            f"{spec}: labels are {labels.dtype} {labels.shape}; expected one class "
            f"index for each of the {len(pixels)} images"
        )
    if not len(labels):
        raise UserError(f"{spec}: holds no images; expected at least one")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (num_classes is not None and high >= num_classes):
        expected = "0 on" if num_classes is None else f"0 to {num_classes - 1}"
        raise UserError(
            f"{spec}: labels reach from {low} to {high}; expected class indices "
            f"from {expected}, as the classifier numbers them"
        )
    names = images.class_names
    if names is not None and num_classes is not None and len(names) != num_classes:
        # A missing folder would shift all later classes.
        raise UserError(
            f"{spec}: holds {len(names)} class folders, but the classifier has "
            f"{num_classes} classes; give each class a folder, empty if need be"
        )


def _from_arrays(pixels: np.ndarray, labels: np.ndarray) -> LabelledImages:
    """Drops the label axis that CIFAR has."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    return LabelledImages(pixels, labels)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _unknown(spec: str) -> UserError:
    found = "are of no known kind" if pathlib.Path(spec).exists() else "not found"
    return UserError(
        f"labelled images {spec!r} {found}; expected an .npz file, one of "
        f"{', '.join(KERAS_DATASETS)}, a folder of IDX files or a folder of class "
        "folders with images"
    )
