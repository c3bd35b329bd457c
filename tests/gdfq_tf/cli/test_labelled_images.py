from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from gdfq_tf.cli import labelled_images
from gdfq_tf.cli.labelled_images import LabelledImages, read_split
from gdfq_tf.errors import UserError
from gdfq_tf.input_format import InputFormat
from gdfq_tf.keras_compat import keras
from gdfq_tf.preprocessing import make_preprocessing, preprocessing_of_features

GRAY = (4, 4, 1)
RGB = (4, 4, 3)


def pixels_of(shape, image_shape=None) -> InputFormat:
    image_shape = image_shape or shape
    preprocessing = make_preprocessing("unit", image_shape[-1])
    return InputFormat(shape, image_shape, preprocessing)


def read_labelled_images(spec, shape, *arguments, **options) -> LabelledImages:
    return labelled_images.read_labelled_images(
        spec, pixels_of(shape), *arguments, **options
    )


def some_pixels(count=6, shape=GRAY):
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)


def write_npz(path, **arrays):
    np.savez_compressed(path, **arrays)
    return str(path)


def write_idx(path, values):
    header = struct.pack(">HBB", 0, 8, values.ndim)
    sizes = struct.pack(f">{values.ndim}i", *values.shape)
    data = header + sizes + values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def write_image(path, pixels):
    image = pytest.importorskip("PIL.Image")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.fromarray(pixels).save(path)


def refuses(message, spec, shape=GRAY, **options):
    with pytest.raises(UserError, match=message) as caught:
        read_labelled_images(str(spec), shape, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("x", "y"), [("x_test", "y_test"), ("x", "y")])
def test_npz(tmp_path, x, y):
    pixels, labels = some_pixels(), np.array([2, 0, 1, 1, 0, 2], np.uint8)
    spec = write_npz(tmp_path / "a.npz", **{x: pixels, y: labels})
    images = read_labelled_images(spec, GRAY, num_classes=3)
    np.testing.assert_array_equal(images.pixels, pixels)
    np.testing.assert_array_equal(images.labels, labels)
    assert images.labels.dtype == np.int64
    assert images.class_names is None


def test_npz_prefers_the_test_arrays(tmp_path):
    spec = write_npz(
        tmp_path / "a.npz",
        x=some_pixels(2),
        y=[0, 0],
        x_test=some_pixels(1),
        y_test=[1],
    )
    assert read_labelled_images(spec, GRAY).labels.tolist() == [1]


def test_npz_with_label_column_and_without_channel_axis(tmp_path):
    pixels = some_pixels(3)
    spec = write_npz(tmp_path / "a.npz", x=pixels[..., 0], y=[[1], [0], [1]])
    images = read_labelled_images(spec, GRAY)
    np.testing.assert_array_equal(images.pixels, pixels)
    assert images.labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize(("wanted", "got"), [(1, 1), (6, 6), (7, 6), (None, 6)])
def test_num_images_takes_the_first(tmp_path, wanted, got):
    pixels = some_pixels()
    spec = write_npz(tmp_path / "a.npz", x=pixels, y=np.arange(6))
    images = read_labelled_images(spec, GRAY, wanted)
    np.testing.assert_array_equal(images.pixels, pixels[:got])
    assert images.labels.tolist() == list(range(got))


def test_arrays_that_do_not_fit_are_refused(tmp_path):
    def npz(**arrays):
        return write_npz(tmp_path / "a.npz", **arrays)

    pixels, labels = some_pixels(), np.arange(6)
    refuses(
        "pixels are float32; expected uint8", npz(x=pixels / np.float32(255), y=labels)
    )
    refuses("pixels are int64; expected uint8", npz(x=pixels.astype(int), y=labels))
    refuses(
        r"examples are \(4, 4, 1\), but .* \(4, 4, 3\)", npz(x=pixels, y=labels), RGB
    )
    refuses(r"examples are \(\)", npz(x=pixels[:, 0, 0, 0], y=labels))
    refuses(r"labels are int64 \(5,\)", npz(x=pixels, y=labels[:5]))
    refuses(r"labels are int64 \(6, 6\)", npz(x=pixels, y=np.eye(6, dtype=int)))
    refuses("labels are float64", npz(x=pixels, y=labels / 1.0))
    refuses("labels reach from -1 to 4", npz(x=pixels, y=labels - 1))
    refuses("from 0 to 5; expected .* 0 to 4", npz(x=pixels, y=labels), num_classes=5)
    refuses("holds no images", npz(x=pixels[:0], y=labels[:0]))
    refuses("holds images, y; expected arrays x_test", npz(images=pixels, y=labels))
    refuses("at least 1, got 0", npz(x=pixels, y=labels), num_images=0)


def test_files_that_are_no_npz_are_refused(tmp_path):
    refuses("does not exist", tmp_path / "none.npz")
    broken = tmp_path / "broken.npz"
    for content in (b"", b"text", b"PK\x03\x04 cut off"):
        broken.write_bytes(content)
        refuses("not a readable .npz", broken)
    np.savez(broken, x=np.array([object()]), y=[0])
    refuses("not a readable .npz", broken)
    with broken.open("wb") as file:
        np.save(file, some_pixels())
    refuses("not a readable .npz", broken)


def test_damage_anywhere_in_an_npz_file_is_one_line(tmp_path):
    good, damaged = tmp_path / "good.npz", tmp_path / "damaged.npz"
    np.savez_compressed(good, x_test=some_pixels(3), y_test=np.array([0, 1, 2]))
    rng = np.random.default_rng(0)
    for _ in range(200):
        content = bytearray(good.read_bytes())
        for position in rng.integers(0, len(content), rng.integers(1, 9)):
            content[position] = rng.integers(256)
        damaged.write_bytes(content)
        try:
            read_labelled_images(str(damaged), GRAY)
        except UserError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("shape", "image_shape", "found"),
    [
        ((28, 28), (28, 28, 1), (28, 28)),
        ((28, 28), (28, 28, 1), (28, 28, 1)),
        ((28, 28), (28, 1, 28), (28, 28)),
        ((49, 10), (49, 10, 1), (49, 10)),
        ((784,), (28, 28, 1), (784,)),
        ((784,), (28, 28, 1), (28, 28)),
        ((375,), (125, 1, 3), (125, 3)),
        ((28, 28, 1), (28, 28, 1), (1, 28, 28)),
    ],
)
def test_data_in_the_order_of_the_models_input_is_taken(
    tmp_path, shape, image_shape, found
):
    pixels = some_pixels(3, found)
    spec = write_npz(tmp_path / "a.npz", x=pixels, y=np.arange(3))
    images = labelled_images.read_labelled_images(spec, pixels_of(shape, image_shape))
    assert images.pixels.shape == (3, *image_shape)
    np.testing.assert_array_equal(images.pixels.ravel(), pixels.ravel())


def test_features_are_left_as_they_are(tmp_path):
    features = np.array([[-123.25, 26.0], [1e3, 0.5]], np.float32)
    spec = write_npz(tmp_path / "a.npz", x=features, y=[0, 1])
    taken = InputFormat((2,), (1, 1, 2), preprocessing_of_features((-123, 26), 2))
    images = labelled_images.read_labelled_images(spec, taken)
    np.testing.assert_array_equal(images.pixels[:, 0, 0], features)
    write_image(tmp_path / "a" / "0.png", np.zeros(GRAY[:2], np.uint8))
    with pytest.raises(UserError, match=r"takes \(2,\) features; pass an .npz file"):
        labelled_images.read_labelled_images(str(tmp_path), taken)


@pytest.mark.parametrize(
    ("shape", "image_shape"), [((4, 6), (4, 6, 1)), ((4, 6), (4, 1, 6))]
)
def test_models_without_a_channel_take_gray_image_files(tmp_path, shape, image_shape):
    pixels = some_pixels(1, shape)
    write_image(tmp_path / "a" / "0.png", pixels[0])
    images = labelled_images.read_labelled_images(
        str(tmp_path), pixels_of(shape, image_shape)
    )
    np.testing.assert_array_equal(images.pixels.ravel(), pixels.ravel())


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_folder(tmp_path, suffix):
    pixels, labels = some_pixels(3)[..., 0], np.array([7, 0, 9])
    write_idx(tmp_path / f"t10k-images-idx3-ubyte{suffix}", pixels)
    write_idx(tmp_path / f"t10k-labels-idx1-ubyte{suffix}", labels)
    images = read_labelled_images(str(tmp_path), GRAY, num_classes=10)
    np.testing.assert_array_equal(images.pixels[..., 0], pixels)
    assert images.labels.tolist() == [7, 0, 9]
    with pytest.raises(UserError, match="of no known kind"):
        read_split(str(tmp_path), "train")


def test_damaged_idx_files_are_refused(tmp_path):
    images = tmp_path / "t10k-images-idx3-ubyte.gz"
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.array([0]))
    cut_off = struct.pack(">HBB3i", 0, 8, 3, 1, 4, 4) + bytes(15)
    for content in (b"", b"text", gzip.compress(b"ab"), gzip.compress(cut_off)):
        images.write_bytes(content)
        refuses("not a readable IDX file", tmp_path)
    images.write_bytes(gzip.compress(struct.pack(">HBBi", 0, 0x0D, 1, 4) + bytes(16)))
    refuses("values of type 0x0d", tmp_path)


def test_keras_dataset_splits(monkeypatch):
    train = some_pixels(2, RGB), np.array([[1], [0]], np.uint8)
    test = some_pixels(3, RGB), np.array([[5], [6], [7]], np.uint8)
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: (train, test))
    images = read_labelled_images("cifar10", RGB, 2, num_classes=10)
    np.testing.assert_array_equal(images.pixels, test[0][:2])
    assert images.labels.tolist() == [5, 6]
    assert read_split("cifar10", "train").labels.tolist() == [1, 0]


def test_failed_download_is_one_line(monkeypatch):
    def fail():
        raise Exception("URL fetch failure on https://example.org:\nno network")

    monkeypatch.setattr(keras.datasets.mnist, "load_data", fail)
    refuses("'mnist' could not be downloaded .*URL fetch failure", "mnist")


@pytest.mark.parametrize("spec", ["imagenet", "none/such", "pixels.npy"])
def test_unknown_specifications_are_refused(spec):
    refuses("expected an .npz file, one of mnist", spec)


def test_class_folders_are_numbered_alphabetically(tmp_path):
    write_image(tmp_path / "cat" / "1.png", np.full(RGB, 10, np.uint8))
    write_image(tmp_path / "cat" / "0.PNG", np.full(RGB, 20, np.uint8))
    write_image(tmp_path / "ape" / "z.png", np.full(RGB, 30, np.uint8))
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "README.md").write_text("no folder")
    images = read_labelled_images(str(tmp_path), RGB, num_classes=2)
    assert images.class_names == ("ape", "cat")
    assert images.labels.tolist() == [0, 1, 1]
    assert images.pixels[:, 0, 0, 0].tolist() == [30, 20, 10]
    refuses("2 class folders, .* 3 classes", tmp_path, RGB, num_classes=3)


def test_class_folders_are_numbered_as_told(tmp_path):
    for value, name in ((10, "cat"), (20, "ape"), (30, "dog")):
        write_image(tmp_path / name / "0.png", np.full(RGB, value, np.uint8))
    names = ("dog", "cat", "ape")
    options = {"num_classes": 3, "class_names": names}
    images = read_labelled_images(str(tmp_path), RGB, **options)
    assert images.class_names == names
    assert images.labels.tolist() == [0, 1, 2]
    assert images.pixels[:, 0, 0, 0].tolist() == [30, 10, 20]
    refuses(
        "pig unknown; dog missing", tmp_path, RGB, class_names=("pig", "cat", "ape")
    )
    few = {"num_classes": 4, "class_names": names}
    refuses("3 class folders, .* 4 classes", tmp_path, RGB, **few)


def test_class_numbers_are_not_renumbered(tmp_path):
    spec = write_npz(tmp_path / "a.npz", x=some_pixels(2), y=[0, 1])
    images = read_labelled_images(spec, GRAY, class_names=("b", "a"))
    assert images.class_names == ("b", "a")
    assert images.labels.tolist() == [0, 1]
    refuses("labels has 1 names, .* class numbers up to 1", spec, class_names=("a",))
    three = {"class_names": ("a", "b", "c"), "num_classes": 2}
    refuses("labels has 3 names, .* 2 outputs", spec, **three)


def test_some_images_of_class_folders_are_spread_over_the_classes(tmp_path):
    for name in ("a", "b", "c"):
        for index in range(2):
            write_image(tmp_path / name / f"{index}.png", np.zeros(GRAY[:2], np.uint8))
    images = read_labelled_images(str(tmp_path), GRAY, 3)
    assert images.labels.tolist() == [0, 1, 2]
    assert len(read_labelled_images(str(tmp_path), GRAY, 60).labels) == 6


def test_image_files_are_fitted_and_centre_cropped(tmp_path):
    # 16 high, 8 wide: halved to 8 x 4, then rows 2..5 of 8 are the centre.
    rows = np.repeat([0, 100, 100, 0], 4).astype(np.uint8)
    write_image(tmp_path / "a" / "0.png", np.repeat(rows[:, np.newaxis], 8, axis=1))
    (image,) = read_labelled_images(str(tmp_path), GRAY).pixels
    assert image.shape == GRAY
    np.testing.assert_allclose(image, 100, atol=12)  # bicubic rings at the edges
    assert image[1:3].min() == image[1:3].max()


def test_image_files_take_the_classifiers_channels(tmp_path):
    write_image(tmp_path / "a" / "0.png", np.full(GRAY[:2], 77, np.uint8))
    (image,) = read_labelled_images(str(tmp_path), RGB).pixels
    np.testing.assert_array_equal(image, np.full(RGB, 77))
    refuses(r"of 1 or 3 channels, but .* takes \(4, 4, 2\)", tmp_path, (4, 4, 2))


def test_unreadable_image_folders_are_refused(tmp_path):
    pytest.importorskip("PIL")
    refuses("no class folders with images", tmp_path)
    (tmp_path / "a").mkdir()
    refuses("no class folders with images", tmp_path)
    (tmp_path / "a" / "0.png").write_bytes(b"text")
    refuses("0.png is not a readable image", tmp_path)


def test_images_that_claim_to_be_huge_are_refused(tmp_path):
    write_image(tmp_path / "a" / "0.bmp", np.zeros(GRAY[:2], np.uint8))
    content = bytearray((tmp_path / "a" / "0.bmp").read_bytes())
    content[18:26] = struct.pack("<ii", 2**16, 2**16)
    (tmp_path / "a" / "0.bmp").write_bytes(content)
    refuses("0.bmp is not a readable image", tmp_path)
