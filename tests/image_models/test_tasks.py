"""Batches of images: rotations against exact ones, colours, and draws that depend on the generator alone."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch, of the extra torch, is not installed")

from constrained_vae import datasets
from constrained_vae._utils import memory
from constrained_vae.image_models.tasks import ColourMnist, MnistRotate, PlainImages, rotated

FLOAT = 1e-6  # some roundings of float32 at values of order 1


def bytes_of(shape, seed=0):
    """A data set of whole numbers of 255ths."""
    whole = np.random.default_rng(seed).integers(256, size=shape)
    return datasets.DataSet(whole.reshape(len(whole), -1) / 255, "bytes", image_shape=shape[1:])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def blob(height=21):
    """A smooth image far from its border and unlike its mirror images, (1, 1, height, height) of float64."""
    y, x = np.mgrid[:height, :height] - (height - 1) / 2
    spots = [(2.0, 1.0, 1.0), (-3.0, 2.0, 0.7), (1.0, -4.0, 0.4)]
    return torch.tensor(sum(a * np.exp(-((x - u) ** 2 + (y - v) ** 2) / 8) for u, v, a in spots))[None, None]


TASKS = {
    "plain": (PlainImages, (7, 4, 6, 3)),
    "rotate": (MnistRotate, (7, 6, 6)),
    "rotate in colour": (MnistRotate, (7, 6, 6, 3)),
    "colour": (ColourMnist, (7, 4, 6)),
}
every_task = pytest.mark.parametrize("name", TASKS)


def made(name):
    kind, shape = TASKS[name]
    return kind(bytes_of(shape))


# --- data -------------------------------------------------------------------------------------------------------------


def test_bytes_are_kept_as_bytes_and_other_numbers_as_they_are():
    for data, dtype in ((bytes_of((3, 2, 4)), torch.uint8), (datasets.digits(9), torch.float64)):
        task = PlainImages(data)
        assert task.pixels.dtype == dtype
        np.testing.assert_array_equal(task.images(), data.x)
    almost = np.array(bytes_of((3, 2, 4)).x)
    almost[2, 5] += 1e-12
    assert PlainImages(datasets.DataSet(almost, "x", image_shape=(2, 4))).pixels.dtype == torch.float64
    assert PlainImages(datasets.DataSet(almost - 1, "x", image_shape=(2, 4))).images().min() < 0
    assert PlainImages(datasets.DataSet(almost * 1e308, "x", image_shape=(2, 4))).images().max() > 1e307


def test_channels_come_first_in_a_batch():
    data = bytes_of((4, 5, 6, 3))
    task = PlainImages(data)
    batch = task.batch(torch.tensor([2, 0, 2]), generator())
    assert (batch.x.dtype, tuple(batch.x.shape), batch.context) == (torch.float32, (3, 3, 5, 6), None)
    expected = data.x.reshape(4, 5, 6, 3)[[2, 0, 2]].transpose(0, 3, 1, 2)
    np.testing.assert_allclose(batch.x.numpy(), expected, rtol=1e-7)
    assert (task.image_shape, task.context_size, task.augmented, len(task)) == ((3, 5, 6), None, False, 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PlainImages(np.zeros((2, 4))), r"data must be an instance of DataSet such as datasets.digits\(\)"),
        (lambda: PlainImages(datasets.rings(9)), "data must be images, got .*rings.*, which has no image_shape"),
        (
            lambda: PlainImages(datasets.DataSet(np.ones((2, 4)), "w", [0.3, 0.7], image_shape=(2, 2))),
            "data must have no weights",
        ),
        (lambda: MnistRotate(bytes_of((2, 3, 4))), r"data must be square images, got \(3, 4\)"),
        (lambda: ColourMnist(bytes_of((2, 3, 4, 3))), r"data must be grey images, got \(3, 4, 3\)"),
    ],
)
def test_other_data_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- draws ------------------------------------------------------------------------------------------------------------


@every_task
def test_a_batch_depends_on_its_rows_and_the_generator_alone(name):
    task, rows = made(name), torch.tensor([3, 0, 6, 2])
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one = task.batch(rows, generator(5))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    two, other = made(name).batch(rows, generator(5)), task.batch(rows, generator(6))
    assert torch.equal(one.x, two.x)
    assert task.augmented != torch.equal(one.x, other.x)
    assert tuple(one.x.shape[1:]) == task.image_shape
    assert (one.context is None) == (task.context_size is None)
    if one.context is not None:
        assert torch.equal(one.context, two.context)
        assert tuple(one.context.shape) == (4, task.context_size, *task.image_shape[1:])


@every_task
def test_a_generator_goes_on(name):
    task, draw, rows = made(name), generator(), torch.tensor([1, 1])
    one, two = task.batch(rows, draw), task.batch(rows, draw)
    assert task.augmented != torch.equal(one.x, two.x)
    assert task.augmented != torch.equal(one.x[0], one.x[1])  # of the same row


@every_task
def test_a_row_does_not_depend_on_the_other_rows(name):
    """So that every process has its rows of the batch of all."""
    task = made(name)
    whole = task.batch(torch.tensor([3, 0, 6, 2]), generator(5))
    part, other = whole.part(slice(1, 3)), task.batch(torch.tensor([1, 0, 6, 5]), generator(5)).part(slice(1, 3))
    for one, two in ((part.x, other.x), (part.context, other.context)):
        assert one is two is None or torch.equal(one, two)


@every_task
def test_images_are_rows_of_pixels_that_stand_for_the_task(name, monkeypatch):
    task = made(name)
    x = task.images()
    assert (x.shape, x.dtype) == ((7, math.prod(task.image_shape)), np.float64)
    np.testing.assert_array_equal(x, task.images())
    channels, height, width = task.image_shape
    first = task.batch(torch.arange(7), torch.Generator().manual_seed(0)).x[0]
    np.testing.assert_allclose(x[0].reshape(height, width, channels), first.numpy().transpose(1, 2, 0), rtol=1e-7)
    monkeypatch.setattr(memory, "BLOCK", 3 * x.shape[1])  # blocks of 3, 3 and 1 row
    assert task.images().shape == x.shape
    assert (task.images() == x).all() or task.augmented


@every_task
def test_a_task_moves_to_a_device_as_a_copy(name):
    task = made(name)
    moved = task.to("meta")  # a device without data
    assert (moved.pixels.device.type, task.pixels.device.type) == ("meta", "cpu")
    assert (moved.image_shape, moved.context_size, len(moved)) == (task.image_shape, task.context_size, 7)
    assert moved.batch(torch.tensor([0]), generator()).x.device.type == "meta"


# --- rotations --------------------------------------------------------------------------------------------------------


def test_quarter_turns_are_exact():
    images = torch.rand(3, 2, 7, 7, generator=generator(), dtype=torch.float64)
    for turns in range(-1, 5):
        angles = torch.full((3,), turns * math.pi / 2, dtype=torch.float64)
        expected = torch.rot90(images, turns, dims=(2, 3))
        torch.testing.assert_close(rotated(images, angles)[:, :, 1:-1, 1:-1], expected[:, :, 1:-1, 1:-1])
        # At the border a rounding of the place mixes in what is outside: 1e-15 of a pixel.
        torch.testing.assert_close(rotated(images, angles), expected, rtol=0, atol=1e-13)


def test_rotations_compose_and_every_image_has_its_own_angle():
    image, angles = blob(), torch.tensor([0.3, 1.1, -2.0], dtype=torch.float64)
    images = image.expand(3, -1, -1, -1)
    # An interpolation is off by at most 1/8 of the sum of two second derivatives of at most 1/4.
    error = 1 / 16
    together, apart = rotated(images, angles + 0.7), rotated(rotated(images, angles), torch.full_like(angles, 0.7))
    assert (together - apart).abs().max() < 3 * error
    assert (rotated(together, -angles - 0.7) - images).abs().max() < 2 * error
    assert (together[0] - together[1]).abs().max() > 0.4
    for i in range(3):
        torch.testing.assert_close(rotated(images[[i]], angles[[i]] + 0.7), together[[i]])


def test_a_rotation_turns_a_point_counter_clockwise():
    y, x = np.mgrid[:41, :41] - 20.0
    spot = torch.tensor(np.exp(-((x - 10) ** 2 + y**2) / 4))[None, None]  # to the right of the middle
    turned = rotated(spot, torch.tensor([math.pi / 6], dtype=torch.float64))[0, 0].numpy()
    place = np.array([(turned * axis).sum() for axis in (x, -y)]) / turned.sum()  # y upwards
    np.testing.assert_allclose(place, [10 * math.cos(math.pi / 6), 5], atol=0.02)


def test_rotate_has_the_image_at_both_angles_and_both_angles():
    task = MnistRotate(bytes_of((5, 6, 6)))
    rows = torch.tensor([4, 1, 1])
    batch = task.batch(rows, generator(3))
    assert task.context_size == 5
    image, *maps = batch.context.movedim(1, 0)
    assert all((plane == plane[:, :1, :1]).all() for plane in maps)
    cos_own, sin_own, cos, sin = (plane[:, 0, 0] for plane in maps)
    plain = PlainImages(bytes_of((5, 6, 6))).batch(rows, generator()).x
    torch.testing.assert_close(rotated(plain, torch.atan2(sin_own, cos_own))[:, 0], image, rtol=0, atol=1e-5)
    torch.testing.assert_close(rotated(plain, torch.atan2(sin, cos)), batch.x, rtol=0, atol=1e-5)
    assert (batch.x - image[:, None]).abs().max() > 0.1


def test_angles_are_uniform_on_the_circle():
    task = MnistRotate(bytes_of((1, 2, 2)))
    context = task.batch(torch.zeros(4000, dtype=torch.long), generator()).context[:, 1:, 0, 0].numpy()
    # Mean and second moments of points on the circle, and of the two angles jointly: 4 standard errors of 0.71 / 63.
    np.testing.assert_allclose(context.mean(axis=0), 0, atol=0.045)
    np.testing.assert_allclose(context.T @ context / 4000, np.eye(4) / 2, atol=0.045)


# --- colours ----------------------------------------------------------------------------------------------------------


def test_the_brightest_channel_is_the_grey_digit_and_the_darkest_is_black():
    task, rows = ColourMnist(bytes_of((5, 4, 6))), torch.arange(5).repeat(40)
    grey = PlainImages(bytes_of((5, 4, 6))).batch(rows, generator()).x
    batch = task.batch(rows, generator(1))
    assert (task.image_shape, task.context_size, task.augmented) == ((3, 4, 6), None, True)
    assert batch.x.min() >= 0
    assert batch.x.max() <= 1
    torch.testing.assert_close(batch.x.amax(dim=1, keepdim=True), grey)
    assert (batch.x.amin(dim=1) == 0).all()
    share = (batch.x / grey.clamp(min=1 / 255)).amax(dim=(2, 3))  # the colour, (B, 3)
    torch.testing.assert_close(batch.x, grey * share[:, :, None, None], rtol=0, atol=FLOAT)


def test_hues_are_uniform_as_those_of_the_standard_library():
    import colorsys

    white = datasets.DataSet(np.ones((1, 1)), "white", image_shape=(1, 1))
    colours = ColourMnist(white).batch(torch.zeros(2000, dtype=torch.long), generator()).x[:, :, 0, 0].double()
    hues, saturations, values = np.transpose([colorsys.rgb_to_hsv(*colour) for colour in colours.tolist()])
    np.testing.assert_array_equal(saturations, 1)
    np.testing.assert_array_equal(values, 1)
    drawn = torch.rand(2000, 1, generator=generator()).numpy()[:, 0]
    np.testing.assert_allclose(hues, drawn, atol=FLOAT)
