"""Files of images: what they hold is read exactly, and what is wrong with them is told in one line."""

import gzip
import math
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

import constrained_vae as cv
from constrained_vae import datasets
from constrained_vae._utils import memory
from constrained_vae.datasets import images, resized

RNG = np.random.default_rng(0)
GREY = RNG.integers(256, size=(5, 6, 4), dtype=np.uint8)
COLOUR = RNG.integers(256, size=(5, 32, 32, 3), dtype=np.uint8)
LABELS = np.array([3, 0, 9, 1, 3], dtype=np.uint8)


def idx(array, number=8):
    """An IDX file as its description says: two zeros, number of the type, number of axes, lengths, contents."""
    return struct.pack(f">4B{array.ndim}I", 0, 0, number, array.ndim, *array.shape) + array.tobytes()


def batch(pixels, labels):
    """A batch of CIFAR-10: for each image its label, then all of red, green and blue."""
    return b"".join(
        bytes([label]) + image.transpose(2, 0, 1).tobytes() for image, label in zip(pixels, labels, strict=True)
    )


def rows(pixels):
    return pixels.reshape(len(pixels), -1) / 255


@pytest.fixture
def mnist_folder(tmp_path):
    for part, some in (("train", slice(0, 3)), ("t10k", slice(3, 5))):
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(GREY[some])))
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS[some])))
    return tmp_path


@pytest.fixture
def cifar_folder(tmp_path):
    for i in range(5):
        (tmp_path / f"data_batch_{i + 1}.bin").write_bytes(batch(COLOUR[[i]], LABELS[[i]]))
    (tmp_path / "test_batch.bin").write_bytes(batch(COLOUR[:2], LABELS[:2]))
    (tmp_path / "batches.meta.txt").write_text("airplane")
    return tmp_path


# --- IDX --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_images_with_the_labels_beside_them(tmp_path, pack):
    suffix = "" if pack is bytes else ".gz"
    path = tmp_path / f"train-images.idx3-ubyte{suffix}"
    path.write_bytes(pack(idx(GREY)))
    assert images(path).labels is None
    (tmp_path / f"train-labels.idx1-ubyte{suffix}").write_bytes(pack(idx(LABELS)))
    data = datasets.find(path)
    np.testing.assert_array_equal(data.x, rows(GREY))
    np.testing.assert_array_equal(data.labels, LABELS)
    assert data.image_shape == (6, 4)
    few = images(path, n=2)
    np.testing.assert_array_equal(few.x, data.x[:2])
    np.testing.assert_array_equal(few.labels, LABELS[:2])


def test_idx_in_colour_and_without_labels(tmp_path):
    (tmp_path / "x.idx").write_bytes(idx(COLOUR))
    (tmp_path / "x.idx.gz").write_bytes(gzip.compress(idx(COLOUR)))  # no labels: its name has no word to exchange
    data = datasets.load(tmp_path / "x.idx")
    assert data.image_shape == (32, 32, 3)
    np.testing.assert_array_equal(data.x.reshape(COLOUR.shape), COLOUR / 255)


def test_a_folder_of_idx_files_has_two_parts(mnist_folder):
    np.testing.assert_array_equal(images(mnist_folder).x, rows(GREY[:3]))
    test = images(mnist_folder, part="test")
    np.testing.assert_array_equal(test.x, rows(GREY[3:]))
    np.testing.assert_array_equal(test.labels, LABELS[3:])
    (mnist_folder / "train-images-idx3-ubyte").write_bytes(idx(GREY[:3]))  # unpacked, and its packed copy kept
    assert len(images(mnist_folder)) == 3
    (mnist_folder / "letters-train-images-idx3-ubyte").write_bytes(idx(GREY))
    with pytest.raises(
        ValueError, match=r"must hold one IDX file of train images, it holds .*letters.*: give the path"
    ):
        images(mnist_folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it ends 4 bytes too early"),
        (b"\0\0\x08", "it ends 1 bytes too early"),
        (idx(LABELS), "it begins with 00000801 instead of 00000803 or 00000804"),
        (idx(GREY, number=13), "it begins with 00000d03"),
        (b"PK\3\4" + idx(GREY), "it begins with 504b0304"),
        (idx(GREY)[:10], "it ends 6 bytes too early"),
        (idx(GREY)[:-1], r"has the shape \(5, 6, 4\) in its head, which does not fit its 119 bytes"),
        (idx(GREY) + b"\0", "which does not fit its 121 bytes"),
        (idx(GREY[:0]), r"its head says that it has the shape \(0, 6, 4\)"),
        (struct.pack(">4B3I", 0, 0, 8, 3, 2**32 - 1, 2**31, 2**31), "which does not fit its 0 bytes"),
    ],
)
def test_wrong_idx_files(tmp_path, content, message):
    path = tmp_path / "images.idx3"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"images.idx3 must hold images in the IDX format: .*{message}"):
        images(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx(GREY), "it is damaged"),
        (gzip.compress(idx(GREY))[:-20], "only a part of a packed file"),
        (gzip.compress(idx(GREY)[:-7]), "it ends 7 bytes too early"),
        (gzip.compress(idx(GREY) + b"\0"), "more bytes than that"),
    ],
)
def test_wrong_packed_idx_files(tmp_path, content, message):
    (tmp_path / "images.idx3.gz").write_bytes(content)
    with pytest.raises(ValueError, match=rf"images.idx3.gz must hold images in the IDX format: .*{message}"):
        images(tmp_path / "images.idx3.gz")


def test_the_head_of_a_packed_file_is_not_believed(tmp_path):
    """It promises 2^50 images, which no machine has the memory for, and none is there."""
    (tmp_path / "images.idx3.gz").write_bytes(gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, 2**30, 2**10, 2**10)))
    with pytest.raises(cv.TooLargeError, match=r"images.idx3.gz must hold .*: its arrays have 8388608.0 GiB"):
        images(tmp_path / "images.idx3.gz")
    with pytest.raises(ValueError, match=r"it ends 1048576 bytes too early"):
        images(tmp_path / "images.idx3.gz", n=1)


def test_labels_must_be_as_many_as_images(mnist_folder):
    labels = mnist_folder / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(idx(LABELS)))
    with pytest.raises(ValueError, match=r"must hold a label for each of the 3 images of .*, it holds 5"):
        images(mnist_folder, n=2)
    labels.write_bytes(gzip.compress(idx(GREY)))
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte.gz must hold labels .*: it begins with 00000803"):
        images(mnist_folder)


# --- CIFAR-10 ---------------------------------------------------------------------------------------------------------


def test_cifar10_has_its_channels_last(cifar_folder):
    data = datasets.find(cifar_folder)
    np.testing.assert_array_equal(data.x.reshape(COLOUR.shape), COLOUR / 255)
    np.testing.assert_array_equal(data.labels, LABELS)
    assert data.image_shape == (32, 32, 3)
    for test in (images(cifar_folder, part="test"), images(cifar_folder / "test_batch.bin")):
        np.testing.assert_array_equal(test.x, data.x[:2])
    assert len(images(cifar_folder, n=3)) == 3


def test_wrong_batches(cifar_folder):
    path = cifar_folder / "data_batch_2.bin"
    for content, message in (
        (b"", "it has 0 bytes"),
        (batch(COLOUR, LABELS)[:-1], "it has 15364 bytes"),
        (batch(COLOUR, [0, 9, 10, 0, 77]), "image 2 has the label 10, the last is 9"),
    ):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=rf"data_batch_2.bin must hold a batch of CIFAR-10, 3073 bytes.*: {message}"
        ):
            images(cifar_folder)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_2\.bin"):
        images(cifar_folder)


# --- archives of NumPy ------------------------------------------------------------------------------------------------


def test_archives_with_two_parts(tmp_path):
    path = tmp_path / "cifar.npz"
    np.savez(path, x_train=COLOUR, y_train=LABELS[:, None], x_test=COLOUR[3:], y_test=LABELS[3:])
    train, test = datasets.find(path), images(path, part="test", n=1)
    np.testing.assert_array_equal(train.x, rows(COLOUR))
    np.testing.assert_array_equal(train.labels, LABELS)  # a column in the file
    np.testing.assert_array_equal(test.x, rows(COLOUR[3:4]))
    assert (train.image_shape, test.labels.tolist()) == ((32, 32, 3), [1])


def test_other_names_and_floats(tmp_path):
    x = RNG.normal(size=(3, 2, 5))
    np.savez(tmp_path / "a.npz", images=x.astype(np.float32), labels=[1, 2, 3])
    np.savez(tmp_path / "b.npz", x=x, weights=[0.5, 0.25, 0.25])
    np.testing.assert_array_equal(datasets.load(tmp_path / "a.npz").x, x.reshape(3, 10).astype(np.float32))
    for read in (datasets.load, images):
        np.testing.assert_array_equal(read(tmp_path / "b.npz").weights, [0.5, 0.25, 0.25])
        np.testing.assert_array_equal(read(tmp_path / "b.npz").x, x.reshape(3, 10))
    np.save(tmp_path / "c.npy", x)
    for read in (images, datasets.load):
        assert read(tmp_path / "c.npy").image_shape == (2, 5)


def test_archives_of_something_else(tmp_path):
    path = tmp_path / "x.npz"
    for arrays, message in (
        ({"x_train": GREY.astype(np.int64)}, "the type must be uint8, from 0 to 255, or that of floats, got int64"),
        ({"x_train": COLOUR.transpose(0, 3, 1, 2)}, r"with at most 4 channels C, got \(5, 3, 32, 32\)"),
        ({"x_train": GREY[0], "y_train": LABELS}, r"the shape must be \(n, H, W\) or .*, got \(6, 4\)"),
        ({"x_train": GREY, "y_train": LABELS[:4]}, r"labels must have shape \(5,\)"),
        ({"x_train": np.full((1, 2, 2), np.nan)}, "x must be finite, got nan at index"),
        ({"x_train": GREY[:0]}, r"not empty and with at most 4 channels C, got \(0, 6, 4\)"),
        ({"one": GREY, "two": GREY}, "it holds one, two, and none of x, X, data, x_train, images"),
    ):
        np.savez(path, **arrays)
        for size in (None, 2):
            with pytest.raises(ValueError, match=rf"x\.npz must hold .*: .*{message}"):
                images(path, size=size)
    np.savez(path, x_train=GREY)
    with pytest.raises(ValueError, match=r"x\.npz must hold .*: it holds x_train, and none of x_test"):
        images(path, part="test")


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_a_folder_of_pictures(tmp_path):
    for i, pixels in enumerate(GREY):
        Image.fromarray(pixels).save(tmp_path / f"{4 - i}.png")
    (tmp_path / "notes.txt").write_text("none of the pictures")
    data = datasets.find(tmp_path)
    np.testing.assert_array_equal(data.x, rows(GREY[::-1]))
    assert (data.name, data.image_shape, data.labels) == (tmp_path.name, (6, 4), None)
    red = np.zeros((6, 4, 3), dtype=np.uint8)
    red[..., 0] = 255
    Image.fromarray(red).save(tmp_path / "9.bmp")
    data = images(tmp_path)
    assert data.image_shape == (6, 4, 3)
    np.testing.assert_array_equal(data.x[-1], [1, 0, 0] * 24)
    np.testing.assert_array_equal(data.x[0].reshape(6, 4, 3), np.repeat(GREY[4, :, :, None] / 255, 3, axis=2))


def test_pictures_of_different_sizes_want_a_size(tmp_path):
    for side in (4, 8):
        Image.fromarray(np.full((side, 12), side, dtype=np.uint8)).save(tmp_path / f"{side}.png")
    with pytest.raises(ValueError, match=r"there are pictures of 2 sizes, such as \(4, 12\) and \(8, 12\): give size"):
        images(tmp_path)
    np.testing.assert_allclose(images(tmp_path, size=2).x, np.repeat([[4 / 255], [8 / 255]], 4, axis=1), rtol=1e-15)
    assert images(tmp_path, n=1).image_shape == (4, 12)


def test_wrong_pictures(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(GREY[0]).save(path)
    whole = path.read_bytes()
    for content in (b"", b"text", whole[:40], whole[:-30]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.png must hold a picture: it is damaged"):
            images(tmp_path)
    Image.fromarray(GREY[0].astype(np.uint16)).save(path)
    with pytest.raises(
        ValueError, match=r"a\.png must hold a picture: it has pixels of type I;16, save it with 8 bits"
    ):
        images(tmp_path)


# --- all of them ------------------------------------------------------------------------------------------------------


def test_the_test_part_beside_what_find_reads(mnist_folder, tmp_path_factory, monkeypatch):
    held = datasets.held_out(mnist_folder, size=2)
    np.testing.assert_array_equal(held.x, images(mnist_folder, part="test", size=2).x)
    assert datasets.held_out(mnist_folder / "train-images-idx3-ubyte.gz") is None  # a file has one part
    folder = tmp_path_factory.mktemp("archives")
    monkeypatch.chdir(folder)
    (folder / "digits").symlink_to(mnist_folder)  # the name of a set goes first, as it does for find
    assert datasets.held_out("digits") is None
    assert len(datasets.held_out(Path("digits"))) == 2
    (mnist_folder / "t10k-images-idx3-ubyte.gz").unlink()
    assert datasets.held_out(mnist_folder) is None
    np.savez(folder / "both.npz", x_train=GREY, x_test=GREY[:2], y_test=LABELS[:2])
    np.testing.assert_array_equal(datasets.held_out(folder / "both.npz").labels, LABELS[:2])
    np.savez(folder / "one.npz", images=GREY)
    assert datasets.held_out(folder / "one.npz") is None
    np.savez(folder / "wrong.npz", x_train=GREY, x_test=GREY.astype(np.int64))
    with pytest.raises(ValueError, match=r"wrong.npz must hold images: the type must be uint8"):
        datasets.held_out(folder / "wrong.npz")


def test_the_test_part_of_cifar10(cifar_folder):
    np.testing.assert_array_equal(datasets.held_out(cifar_folder).x, rows(COLOUR[:2]))


def test_paths_that_hold_no_images(tmp_path, mnist_folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty must hold pictures .*, IDX files or the binary version of CIFAR-10"):
        datasets.load(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"path must be that of .* or of a folder, got .*, which is not there"):
        images(tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match=r"missing-idx3"):
        images(tmp_path / "missing-idx3")
    with pytest.raises(ValueError, match=r"source must name a data set, got .*: give .* images, or one of"):
        datasets.find(str(tmp_path / "missing"))
    with pytest.raises(ValueError, match=r"part must be 'train' for .*, which has one part"):
        images(mnist_folder / "train-images-idx3-ubyte.gz", part="test")
    with pytest.raises(ValueError, match=r"part must be 'train' for .*empty, which has one part"):
        images(tmp_path / "empty", part="test")
    with pytest.raises(ValueError, match=r"n must be a whole number of at most 3, the images in .*, got 4"):
        images(mnist_folder, n=4)
    with pytest.raises(ValueError, match=r"size must be a whole number of at most 4, got 5"):
        images(mnist_folder, size=5)


def test_no_more_is_read_than_there_is_memory(mnist_folder, cifar_folder, tmp_path, monkeypatch):
    (tmp_path / "pictures").mkdir()
    Image.fromarray(GREY[0]).save(tmp_path / "pictures" / "a.png")
    np.savez(tmp_path / "x.npz", x_train=GREY)
    monkeypatch.setattr(memory, "physical", lambda: 8 * GREY[:2].size)
    for path in ("train-images-idx3-ubyte.gz", "data_batch_1.bin", "pictures", "x.npz"):
        with pytest.raises(cv.TooLargeError, match=r"its arrays have 0\.0 GiB, the memory of this machine"):
            images(tmp_path / path)
    assert len(images(mnist_folder / "train-images-idx3-ubyte.gz", n=2)) == 2


def test_patches_are_parts_of_the_photographs():
    from sklearn.datasets import load_sample_images

    data = datasets.patches(30, side=9, seed=4)
    assert data.image_shape == (9, 9, 3)
    photographs = load_sample_images().images
    places = set()
    for row in np.rint(255 * data.x).astype(np.uint8).reshape(-1, 9, 9, 3):
        found = [
            (i, *place)
            for i, photograph in enumerate(photographs)
            for place in np.argwhere((photograph[:-8, :-8] == row[0, 0]).all(axis=-1))
            if (photograph[place[0] : place[0] + 9, place[1] : place[1] + 9] == row).all()
        ]
        assert found
        places.add(found[0])
    assert {0, 1} == {i for i, *_ in places}
    assert len(places) > 25
    assert datasets.patches(1, side=427).x.shape == (1, 3 * 427**2)


# --- resized ----------------------------------------------------------------------------------------------------------


def naive_means(image, size):
    """Means over areas of a square image (side, side), pixel by pixel."""
    side = len(image)
    small = np.zeros((size, size))
    for i, j in np.ndindex(size, size):
        for k, m in np.ndindex(side, side):
            height = max(0, min((i + 1) * side / size, k + 1) - max(i * side / size, k))
            width = max(0, min((j + 1) * side / size, m + 1) - max(j * side / size, m))
            small[i, j] += image[k, m] * height * width * (size / side) ** 2
    return small


@given(side=st.integers(1, 9), size=st.integers(1, 9), channels=st.sampled_from([None, 1, 3]), wide=st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_resized_images_are_means_over_areas(side, size, channels, wide):
    size = min(side, size)
    shape = (side, side + 2 * wide) if channels is None else (side, side + 2 * wide, channels)
    x = np.random.default_rng(side).random((2, *shape))
    data = datasets.DataSet(x.reshape(2, -1), "x", labels=[1, 2], image_shape=shape)
    small = resized(data, size)
    assert small.image_shape == (size, size, *shape[2:])
    assert small.labels.tolist() == [1, 2]
    pictures = x[:, :, wide : wide + side].reshape(2, side, side, -1)  # the middle
    expected = [[naive_means(plane, size) for plane in np.moveaxis(picture, -1, 0)] for picture in pictures]
    # 81 terms of order 1
    np.testing.assert_allclose(small.x, np.moveaxis(expected, 1, -1).reshape(2, -1), rtol=1e-13, atol=1e-14)
    assert x.min() <= small.x.min() <= small.x.max() <= x.max()
    if size == side and not wide:
        np.testing.assert_allclose(small.x, data.x, rtol=1e-15)


def test_resized_by_a_whole_factor_in_blocks_of_rows(monkeypatch):
    monkeypatch.setattr(memory, "BLOCK", 3 * 64)
    data = datasets.digits(10)
    small = resized(data, 2)
    np.testing.assert_allclose(small.x, data.x.reshape(10, 2, 4, 2, 4).mean(axis=(2, 4)).reshape(10, 4), rtol=1e-14)
    np.testing.assert_allclose(small.x.mean(axis=1), data.x.mean(axis=1), rtol=1e-14)


@pytest.mark.parametrize(("side", "size"), [(28, 16), (32, 16), (9, 7), (50, 13)])
def test_rounding_does_not_lead_out_of_the_unit_interval(side, size):
    white = datasets.DataSet(np.ones((1, side**2)), "white", image_shape=(side, side))
    np.testing.assert_array_less(0.999, resized(white, size).x)
    assert resized(white, size).x.max() <= 1


def test_resized_files_are_resized_data(mnist_folder):
    np.testing.assert_array_equal(images(mnist_folder, size=3).x, resized(images(mnist_folder), 3).x)


def test_resized_wants_images():
    with pytest.raises(ValueError, match=r"data must be images, got .*two_points.*, which has no image_shape"):
        resized(datasets.two_points(), 1)
    with pytest.raises(ValueError, match=r"data must be an instance of DataSet"):
        resized(np.zeros((2, 4)), 1)
    with pytest.raises(ValueError, match=r"size must be a whole number of at most 8, got 9"):
        resized(datasets.digits(2), 9)
    assert math.prod(resized(datasets.digits(2), 8).image_shape) == 64


def test_colour_fits_the_rest_of_the_package():
    """PNCC sees rows of the image first, channels last: at the edge of two patches a pixel goes to its own patch."""
    image = np.zeros((1, 4, 4, 3))
    image[0, :2, :2] = RNG.random((2, 2, 3))
    data = datasets.DataSet(image.reshape(1, -1), "corner", image_shape=(4, 4, 3))
    features = cv.NormalisedPatches(data.image_shape, 2)(data.x)
    assert np.flatnonzero(features[0]).tolist() == list(range(12))
