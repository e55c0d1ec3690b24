"""Tables of text: separators, headers, quotes, missing cells, and where a message says that a file is wrong."""

import csv
import gzip
import io
import re
import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st

from constrained_vae import datasets
from constrained_vae._utils.delimited import read_delimited


def written(folder, text, name="x.csv"):
    (folder / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return folder / name


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("1,2\n3,4\n", [[1, 2], [3, 4]]),
        ("\ufeff1,2\r\n3,4\r\n", [[1, 2], [3, 4]]),  # as a spreadsheet writes "CSV UTF-8"
        ("1,2\r3,4\r", [[1, 2], [3, 4]]),
        ("# a remark\n\n 1.5, -2e3 \n3,4 # more, and more\n", [[1.5, -2000], [3, 4]]),
        ("1\n2", [[1], [2]]),
        ("1;2\n3;4\n", [[1, 2], [3, 4]]),
        ("1,5;2\n3;4,25\n", [[1.5, 2], [3, 4.25]]),  # a decimal comma
        ("1\t2\n3\t4\n", [[1, 2], [3, 4]]),
        ("1|2\n3|4\n", [[1, 2], [3, 4]]),
        ("  1   2\n3 4  \n", [[1, 2], [3, 4]]),
        ('"1","2"\n', [[1, 2]]),
        ("0,1,2\n3,4,5\n", [[0, 1, 2], [3, 4, 5]]),
    ],
)
def test_tables_of_numbers(text, points, tmp_path):
    for name in ("x.csv", "x.txt", "x.tsv", "x.csv.gz"):
        data = datasets.load(written(tmp_path, text, name))
        np.testing.assert_array_equal(data.x, points)
        assert (data.columns, data.name) == (None, "x")


@pytest.mark.parametrize(
    ("text", "columns", "points"),
    [
        ("a,b\n1,2\n", ["a", "b"], [[1, 2]]),
        ('"a ""wide"" #1, mm";b\n1;2\n', ['a "wide" #1, mm', "b"], [[1, 2]]),
        (",a,b\n0,1.5,2\n1,3.5,4\n", ["a", "b"], [[1.5, 2], [3.5, 4]]),  # as pandas writes a frame
        (",0,1\n0,1.5,2\n1,3.5,4\n", ["0", "1"], [[1.5, 2], [3.5, 4]]),  # ... without names
        ("a b\nr1 1 2\nr2 3 4\n", ["a", "b"], [[1, 2], [3, 4]]),  # as R writes it
        ('"","a","b"\n"r1",1,2\n"r2",3,4\n', ["a", "b"], [[1, 2], [3, 4]]),
        ("a,b,\n1,2,\n3,4,\n", ["a", "b"], [[1, 2], [3, 4]]),
        ("a,a,b\n1,2,3\n", ["a", "a.1", "b"], [[1, 2, 3]]),
        ("price,2020\n1,2\n3,4\n", ["price", "2020"], [[1, 2], [3, 4]]),  # a text above numbers
        ("x\n1\n2\n", ["x"], [[1], [2]]),
        ("x\n# a remark\n1\n", ["x"], [[1]]),
    ],
)
def test_headers(text, columns, points, tmp_path):
    data = datasets.load(written(tmp_path, text))
    assert list(data.columns) == columns
    np.testing.assert_array_equal(data.x, points)


def test_an_index_that_does_not_count_may_be_a_feature_without_a_name(tmp_path):
    with pytest.warns(UserWarning, match="the first column has no name, so it is left out as an index"):
        data = datasets.load(written(tmp_path, ",a\n0.5,1\n1.5,3\n"))
    assert data.columns == ("a",)


def test_a_row_of_numbers_of_columns_may_be_a_header(tmp_path):
    with pytest.warns(UserWarning, match="the first row is 0, 1, 2, ... and is read as a point"):
        datasets.load(written(tmp_path, "0,1,2\n5.1,3.5,1.4\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2\n\n# a remark\n3,nan\n", "a cell is missing at row 4, column 2 (counted from 1, like a spreadsheet)"),
        ("a,b\n1,2\n\n3,NA\n", "a cell is missing at row 4, column 'b'"),
        ("1,inf\n", "features must be finite numbers, got 'inf' at row 1, column 2"),
        ("1,2\n1e999,2\n", "got '1e999' at row 2, column 1"),
        ("1,2\n3,\n", "a cell is missing at row 2, column 2"),
        ("1,2\n3\n", "row 2 (counted from 1) has 1 columns, and row 1 has 2"),
        ("a,b\n1,2\n3,4,5\n", "row 3 (counted from 1) has 3 columns, and row 2 has 2"),
        ("width,height\n", "it has a header, width, height, and no rows"),
        ("width,kind\n1,a\n2,b\n", "got 'a' at row 2, column 'kind' (counted from 1, like a spreadsheet)"),
        ("1,2\n3,1_0\n", "got '1_0' at row 2, column 2"),
        ('a,b\n1,"2\n3,4\n', "at row 3 (counted from 1) a quote has no end"),
        ("", "it is empty"),
        ("# nothing but a remark\n", "it is empty"),
        ("a,b\n,\n", "a cell is missing at row 2, column 'a'"),
    ],
)
def test_what_is_no_table_of_numbers_is_told_with_its_place(text, message, tmp_path):
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}.*{re.escape(message)}"):
        datasets.load(path)


def test_comments_have_any_encoding_and_numbers_have_not(tmp_path):
    (tmp_path / "x.csv").write_bytes("# \xe9t\xe9\n1,2\n".encode("latin-1"))
    assert datasets.load(tmp_path / "x.csv").x.tolist() == [[1, 2]]
    (tmp_path / "x.csv").write_bytes("1,2\n".encode("utf-16"))
    with pytest.raises(ValueError, match=r"x\.csv must hold a table: it is no text in UTF-8"):
        datasets.load(tmp_path / "x.csv")


def test_a_damaged_gzip_file(tmp_path):
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(b"1,2\n" * 5000)[:-12])
    with pytest.raises(ValueError, match=r"x\.csv\.gz must hold a table: it is no gzip file, or only a part of one"):
        datasets.load(tmp_path / "x.csv.gz")


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="\r\n\0", exclude_categories=["Cc", "Cs", "Z"]), min_size=1
)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None)
@given(data=st.data())
def test_a_table_comes_back_whatever_separates_and_quotes_its_cells(data, tmp_path_factory):
    """Names with separators, quotes and signs of comments; missing cells; rows of any number."""
    separator, quoting = data.draw(st.sampled_from([",", ";", "\t", "|"])), data.draw(st.sampled_from([0, 1, 2]))
    d = data.draw(st.integers(2, 4))
    names = data.draw(st.lists(NAMES.map(lambda name: f"n{name}"), min_size=d, max_size=d, unique=True), label="names")
    rows = data.draw(
        st.lists(st.lists(st.none() | NUMBERS, min_size=d, max_size=d), min_size=2, max_size=5), label="rows"
    )
    assume(any(cell is not None for row in rows for cell in row))  # lines of separators alone may be no rows
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, quoting=quoting, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([["" if cell is None else repr(cell) for cell in row] for row in rows])
    path = written(tmp_path_factory.getbasetemp(), text.getvalue(), "round.csv")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = read_delimited(path)
    kept = [j for j in range(d)]
    assert [table.names[j] for j in kept] == names
    expected = np.array([[np.nan if cell is None else cell for cell in row] for row in rows])
    blank = np.isnan(expected).all(axis=1) & (quoting == 0) & (separator in "\t")  # a line of tabs is an empty line
    np.testing.assert_array_equal(np.stack([table.numbers(j) for j in kept], axis=1), expected[~blank])
