"""Files of data points: what is read, and where it says that a file is wrong."""

import re

import numpy as np
import pytest

from constrained_vae._utils.points import read_points


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("1,2\n3,4\n", [[1, 2], [3, 4]]),
        ("\ufeff1,2\r\n3,4\r\n", [[1, 2], [3, 4]]),  # as a spreadsheet writes "CSV UTF-8"
        ("# a remark\n\n 1.5, -2e3 \n3,4 # more\n", [[1.5, -2000], [3, 4]]),
        ("1\n2", [[1], [2]]),
    ],
)
def test_tables_of_numbers(text, points, tmp_path):
    (tmp_path / "x.csv").write_text(text, encoding="utf-8", newline="")
    np.testing.assert_array_equal(read_points(tmp_path / "x.csv")["x"], points)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2\n\n# a remark\n3,nan\n", "got 'nan' at row 4, column 2 (counted from 1, like a spreadsheet)"),
        ("1,inf\n", "got 'inf' at row 1, column 2"),
        ("1,2\n1e999,2\n", "got '1e999' at row 2, column 1"),
        ("1,2\n3,\n", "there is an empty field at row 2, column 2"),
        ("1,2\n3\n", "row 2 (counted from 1) has 1 columns, and row 1 has 2"),
        ("width,height\n1,2\n", "got 'width' at row 1, column 1"),
        ("1;2\n3;4\n", "got '1;2' at row 1, column 1"),
        ('"1","2"\n', "got '\"1\"' at row 1, column 1"),
        ("1,2\n3,1_0\n", "got '1_0' at row 2, column 2"),
        ("", "it is empty"),
        ("# nothing but a remark\n", "it is empty"),
    ],
)
def test_what_is_no_table_of_numbers_is_told_with_its_place(text, message, tmp_path):
    (tmp_path / "x.csv").write_text(text)
    start = f"{tmp_path / 'x.csv'} must hold numbers separated by commas, without a header: "
    with pytest.raises(ValueError, match=re.escape(start + message)):
        read_points(tmp_path / "x.csv")


def test_comments_have_any_encoding_and_numbers_have_not(tmp_path):
    (tmp_path / "x.csv").write_bytes("# \xe9t\xe9\n1,2\n".encode("latin-1"))
    assert read_points(tmp_path / "x.csv")["x"].tolist() == [[1, 2]]
    (tmp_path / "x.csv").write_bytes("1,2\n".encode("utf-16"))
    with pytest.raises(ValueError, match=r"x\.csv must hold .*row 1, column 1"):
        read_points(tmp_path / "x.csv")


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
        ({"a": [1.0], "b": [1.0]}, "it holds a, b, and none of x, x_train, images"),
        ({}, "it holds nothing"),
    ],
)
def test_archives_are_refused_by_what_they_hold(arrays, message, tmp_path):
    np.savez(tmp_path / "x.npz", **arrays)
    start = f"{tmp_path / 'x.npz'} must hold an array x of numbers, or one array alone: "
    with pytest.raises(ValueError, match=re.escape(start + message)):
        read_points(tmp_path / "x.npz")
