"""A newcomer: tables of their own, with a header, labels, an index and missing cells, through every command."""

import gzip
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_iris, load_wine

import constrained_vae as cv
from constrained_vae.cli.main import main
from tests.helpers.marks import slow

MESSY = """\
id;length;width;kind;height
1;"5,1";3,5;setosa;1,4
2;4,9;NA;setosa;1,4
3;6,5;2,8;virginica;4,6
4;5,7;2,8;virginica;4,5
5;;3,3;setosa;6,0
6;6,3;2,7;"virginica";4,9
"""


def run(*arguments):
    return main([*map(str, arguments), *["--quiet"] * (arguments[0] != "estimate")])


def write_csv(path, x, names, labels=None, index=False):
    """A table as pandas writes one, with a column `kind` of texts."""
    head = [*([""] if index else []), *names, *(["kind"] if labels is not None else [])]
    lines = [",".join(head)]
    for i, row in enumerate(x):
        cells = [*([str(i)] if index else []), *map(repr, map(float, row))]
        lines.append(",".join([*cells, *([f"class {labels[i]}"] if labels is not None else [])]))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Iris and wine as CSV files with labels, wine with an index; and a table as people have them."""
    folder = tmp_path_factory.mktemp("tables")
    for name, load in (("iris", load_iris), ("wine", load_wine)):
        data = load()
        write_csv(folder / f"{name}.csv", data.data, data.feature_names, data.target, index=name == "wine")
    (folder / "messy.csv").write_text(MESSY)
    return folder


def small(command, folder):
    """Options of a command that make it fast; files of results and pictures."""
    found = {
        "solve": ["--n-tiles", "4", "--beta", "1"],
        "sweep": ["--n-tiles", "4", "--betas", "1:3:5"],
        "transitions": ["--n-tiles", "4", "--limit", "1"],
        "frontier": ["--betas", "2:3:2", "--gap", "0.1"],
        "train": ["--kappa", "1.5", "--steps", "5", "--hidden", "3"],
        "suggest": ["--most", "4"],
    }[command]
    return [*found, "--out", folder / f"{command}.json", "--plot", folder / f"{command}.png"]


CHOICES = {
    "iris": (["--labels", "kind"], (150, 4)),
    "wine": (["--labels", "kind", "--standardize"], (178, 13)),
    "messy": (["--labels", "kind", "--drop", "id", "--missing", "drop", "--standardize"], (4, 3)),
}


@pytest.mark.parametrize("command", ["solve", "sweep", "transitions", "frontier", "train", "suggest"])
@pytest.mark.parametrize("name", CHOICES)
def test_tables_go_through_every_command(name, command, tables, tmp_path, capsys):
    options, (n, d) = CHOICES[name]
    status = run(command, tables / f"{name}.csv", *options, *small(command, tmp_path))
    said = capsys.readouterr()
    assert status in (0, 1), said.err  # 1: not converged in so few steps
    assert "Traceback" not in said.err
    found = json.loads((tmp_path / f"{command}.json").read_text())
    assert found["data_set"] == {"name": name, "n_points": n, "dim": d}
    assert (tmp_path / f"{command}.png").stat().st_size > 1000
    if command == "solve":  # tables have the names of the columns
        first = {"iris": "sepal length (cm)", "wine": "alcohol", "messy": "length"}[name]
        assert first in said.out
        assert "adjusted Rand index with the labels" in said.out
    if command == "suggest":
        assert found["columns"]["n_reconstructions"][:1] == {"iris": [2], "wine": [3], "messy": []}[name]


@pytest.mark.parametrize("name", [slow("iris"), slow("wine"), "messy"])
def test_a_table_becomes_a_page(name, tables, tmp_path, capsys):
    options, (n, d) = CHOICES[name]
    assert run("explore", tables / f"{name}.csv", *options, "--out", tmp_path / "page.html") == 0
    assert f"{n} points of {d} dimensions" in (tmp_path / "page.html").read_text()
    assert (tmp_path / "page.html").stat().st_size < 2e6
    capsys.readouterr()
    assert run("explore", tables / f"{name}.csv", "--out", tmp_path / "none.html") == 2  # there are labels among them
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "none.html").exists()


def test_estimate_takes_a_table(tables, capsys):
    assert run("estimate", 150, 4, 4, "--data", tables / "iris.csv", "--drop", "kind") == 0
    assert run("estimate", 150, 4, 4, "--data", tables / "iris.csv") == 2
    assert "'kind'" in capsys.readouterr().err


def test_numbers_are_those_of_the_arrays(tables, tmp_path):
    data = load_wine()
    assert run("solve", tables / "wine.csv", "--labels", "kind", "--standardize", *small("solve", tmp_path)) == 0
    found = json.loads((tmp_path / "solve.json").read_text())
    x = (data.data - data.data.mean(axis=0)) / data.data.std(axis=0)
    s = cv.solve(x, beta=1, n_tiles=4)
    assert found["free_energy"] == pytest.approx(s.free_energy, rel=1e-9)
    some = cv.datasets.load(tables / "wine.csv", columns=["alcohol", "3"], labels="kind")
    np.testing.assert_array_equal(some.x, data.data[:, :2])  # the third column of the file, whose first is the index
    np.testing.assert_array_equal(some.labels, data.target)
    assert some.classes == ("class 0", "class 1", "class 2")


def test_a_column_that_counts_the_rows_is_warned_about(tables, tmp_path, capsys):
    path = write_csv(tmp_path / "x.csv", np.column_stack([np.arange(1000, 1150), load_iris().data]), "nabcd")
    assert run("solve", path, *small("solve", tmp_path)) == 0
    assert (
        "column 'n' counts the rows (1000, 1001, 1002, ...): if it is an index, leave it out" in capsys.readouterr().err
    )
    assert run("solve", path, "--drop", "n", *small("solve", tmp_path)) == 0
    assert "counts" not in capsys.readouterr().err


def files_of(x, folder):
    """The same points in every kind of file that can be written here."""
    lines = [" ".join(map(repr, row)) for row in x.tolist()]
    for suffix, separator in ((".csv", ","), (".tsv", "\t"), (".txt", " ")):
        text = "\n".join(line.replace(" ", separator) for line in lines)
        (folder / f"x{suffix}").write_text(text)
        (folder / f"x{suffix}.gz").write_bytes(gzip.compress(text.encode()))
        yield folder / f"x{suffix}"
        yield folder / f"x{suffix}.gz"
    np.save(folder / "x.npy", x)
    yield folder / "x.npy"
    for name in ("x", "X", "data", "alone"):
        np.savez(folder / f"{name}.npz", **{name: x})
        yield folder / f"{name}.npz"


def test_every_kind_of_file_has_the_same_points(tmp_path):
    x = load_iris().data[:7, :3] / 3
    for path in files_of(x, tmp_path):
        data = cv.datasets.load(path)
        np.testing.assert_array_equal(data.x, x)
        assert data.columns is None
        np.testing.assert_array_equal(cv.datasets.load(path, columns=[1, 3], drop=["3"]).x, x[:, :1])


@pytest.mark.parametrize("suffix", [".parquet", ".xlsx"])
def test_files_of_pandas(suffix, tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip({".parquet": "pyarrow", ".xlsx": "openpyxl"}[suffix])
    frame = pandas.DataFrame({"a": [1.5, 2, None], "b": [1, 2, 3], "kind": ["x", "y", "x"]})
    path = tmp_path / f"t{suffix}"
    if suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_excel(path)  # with the index as a column without a name
    data = cv.datasets.load(path, labels="kind", missing="drop")
    assert (data.columns, data.x.tolist(), data.classes) == (("a", "b"), [[1.5, 1], [2, 2]], ("x", "y"))
    with pytest.raises(ValueError, match=f"t{suffix}: a cell is missing at row .*, column 'a'"):
        cv.datasets.load(path, labels="kind")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=f"t{suffix} must hold a table: it is no {suffix} file") as caught:
        cv.datasets.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "install"),
    [("t.parquet", "'constrained-vae[tables]'"), ("t.xlsx", "'constrained-vae[tables]'"), ("t.ods", "pandas odfpy")],
)
def test_without_pandas_text_is_read_and_the_rest_says_what_to_install(
    name, install, tables, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert cv.datasets.load(tables / "iris.csv", labels="kind").x.shape == (150, 4)
    (tmp_path / name).write_bytes(b"PK")
    assert run("solve", tmp_path / name) == 2
    said = capsys.readouterr().err
    assert said.endswith(f"pip install {install}\n")
    assert said.count("\n") == 1


def test_images_of_a_file_keep_their_shape(tmp_path):
    images = cv.datasets.digits(20).x.reshape(20, 8, 8)
    np.save(tmp_path / "x.npy", images)
    np.savez(tmp_path / "x.npz", data=images, target=np.arange(20))
    for name in ("x.npy", "x.npz"):
        data = cv.datasets.load(tmp_path / name)
        assert (data.x.shape, data.image_shape) == ((20, 64), (8, 8))
    assert cv.datasets.load(tmp_path / "x.npz").labels.tolist() == list(range(20))
    assert cv.datasets.load(tmp_path / "x.npy", standardize=True).image_shape == (8, 8)
    np.savez(tmp_path / "x.npz", X=images.reshape(20, -1), y=np.array(["a", "b"] * 10))
    data = cv.datasets.load(tmp_path / "x.npz")
    assert (data.classes, data.labels.tolist()) == (("a", "b"), [0, 1] * 10)


WRONG = {
    "a text column": ("a,b\n1,x\n2,y\n", [], "got 'x' at row 2, column 'b'"),
    "a missing cell": ("a,b\n1,\n2,3\n", [], "a cell is missing at row 2, column 'b' (counted from 1"),
    "a ragged row": ("a,b\n1,2\n3\n", [], "row 3 (counted from 1) has 1 columns, and row 2 has 2"),
    "no such column": ("a,b\n1,2\n", ["--columns", "a,c"], "columns must name columns of the table, got 'c': a, b"),
    "no such label": ("a,b\n1,2\n", ["--labels", "c"], "labels must name columns of the table, got 'c'"),
    "nothing left": ("a,b\n1,2\n", ["--drop", "a,b"], "columns must leave at least one feature"),
    "all rows lack a cell": ("a,b\n1,\n,2\n", ["--missing", "drop"], "every row lacks a cell"),
    "an empty column": ("a,b\n1,\n2,\n", ["--missing", "drop"], "column 'b' is empty: leave it out"),
    "a label of a number": (
        "a,b\n1,2.5\n",
        ["--labels", "b"],
        "labels must be whole numbers or texts, got 2.5 at row 2",
    ),
    "no end of a quote": ('a,b\n1,"2\n', [], "a quote has no end"),
    "an odd option": ("a,b\n1,2\n", ["--drop", '"a'], "--drop wants names of columns separated by commas"),
    "a header alone": ("a,b\n", [], "it has a header, a, b, and no rows"),
    "UTF-16": ("a,b\n1,2\n".encode("utf-16"), [], "it is no text in UTF-8"),
}


@pytest.mark.parametrize(("text", "options", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_table_is_one_line_and_exit_2(text, options, message, tmp_path, capsys):
    path = tmp_path / "x.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert run("solve", path, *options) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err
    assert said.err.count("\n") == 1
    assert not re.search("usecols|loadtxt|allow_pickle|dtype", said.err)  # the advice of other libraries


def test_figures_take_the_same_options(tables, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    from analysis import figure2

    out = tmp_path / "figure"
    options = ["--n-tiles", "3", "--betas", "1:5:5", "--exact", "1", "--quiet", "--out", str(out)]
    arguments = ["--data", str(tables / "iris.csv"), "--labels", "kind", *options]
    assert figure2.main(arguments) == 0
    assert Path(f"{out}.png").exists()
    assert figure2.main(["--data", str(tables / "iris.csv"), *options]) == 2
    assert "column 'kind'" in capsys.readouterr().err
