"""Files of data points: what is read, and where it says that a file is wrong."""

import re

import numpy as np
import pytest

from constrained_vae._utils.points import read_points


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": [[1.0, 2.0], [3.0, np.inf]]}, "x must be finite, got inf at row 2, column 2 (counted from 1)"),
        ({"x": [1.0, np.nan]}, "x must be finite, got nan at row 2 (counted from 1)"),
        ({"x": [[1.0]], "weights": [np.nan]}, "weights must be finite, got nan at row 1"),
        ({"x": [[1.0]], "labels": [0.5]}, "labels must be whole numbers"),
        ({"x": [["text"]]}, "the array 'x' holds text instead of real numbers"),
        ({"x": [[1j]]}, "the array 'x' holds complex numbers instead of real numbers"),
        ({"x": [[np.timedelta64(1, "s")]]}, "the array 'x' holds time spans instead of real numbers"),
        ({"x": np.array([[None]])}, "the array 'x' holds pickled objects instead of real numbers"),
        ({"a": [1.0], "b": [1.0]}, "it holds a, b, and none of x, X, data, x_train, images"),
        ({}, "it holds nothing"),
    ],
)
def test_archives_are_refused_by_what_they_hold(arrays, message, tmp_path):
    np.savez(tmp_path / "x.npz", **arrays)
    start = f"{tmp_path / 'x.npz'} must hold an array x of numbers, or one array alone: "
    with pytest.raises(ValueError, match=re.escape(start + message)):
        read_points(tmp_path / "x.npz")
