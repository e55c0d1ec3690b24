"""Folders of Parquet and Zarr on the command line, and a cluster that computes."""

import json

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae.cli import main as cli

da = pytest.importorskip("dask.array", reason="Dask is not installed: pip install 'constrained-vae[dask]'")
pd = pytest.importorskip("pandas", reason="pandas is not installed: pip install 'constrained-vae[tables]'")
pytest.importorskip("pyarrow", reason="PyArrow is not installed: pip install 'constrained-vae[tables]'")

OPTIONS = ["--beta", "0.2", "--n-tiles", "6", "--quiet"]


@pytest.fixture
def blobs(rng):
    return np.concatenate([rng.standard_normal((60, 2)) + c for c in ([0, 0], [9, 0], [0, 9])])


@pytest.fixture
def parquet(blobs, tmp_path):
    """Two files; one row has a missing cell."""
    table = pd.DataFrame(blobs, columns=["width", "height"]).assign(kind=np.repeat([0, 1, 2], 60), row=range(180))
    table.loc[7, "width"] = np.nan
    (tmp_path / "rows").mkdir()
    for n, part in enumerate((table[:100], table[100:])):
        part.to_parquet(tmp_path / "rows" / f"part.{n}.parquet")
    return tmp_path / "rows"


def test_a_folder_of_parquet_is_a_table(parquet, blobs, tmp_path):
    choice = ["--labels", "kind", "--drop", "4", "--standardize", "--missing", "drop"]
    assert cli.main(["solve", str(parquet), *choice, *OPTIONS, "--out", str(tmp_path / "s.json")]) == 0
    found = json.loads((tmp_path / "s.json").read_text())
    x = np.delete(blobs, 7, axis=0)
    expected = cv.solve((x - x.mean(axis=0)) / x.std(axis=0), beta=0.2, n_tiles=6)
    assert found["data_set"] == {"name": "rows", "n_points": 179, "dim": 2}
    assert found["free_energy"] == pytest.approx(expected.free_energy, rel=1e-9)
    assert found["agreement"] == 1


def test_a_folder_of_zarr_is_an_array(blobs, tmp_path, capsys):
    pytest.importorskip("zarr", reason="Zarr is not installed: pip install zarr")
    da.from_array(blobs, chunks=(70, 2)).to_zarr(str(tmp_path / "x.zarr"))
    assert cli.main(["solve", str(tmp_path / "x.zarr"), "--standardize", *OPTIONS]) == 0
    assert "3 distinct of 6 tiles" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--columns", "nix"], "there is no column 'nix': the columns are width, height, kind, row"),
        (["--drop", "1,2,3,4"], "no columns left"),
        ([], "must be finite"),
        (["--scheduler", "nowhere"], "--scheduler nowhere does not answer"),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_cannot_be_read_is_said_in_a_line(options, text, parquet, capsys, monkeypatch):
    if "--scheduler" in options:
        distributed = pytest.importorskip("distributed")

        def refused(address, timeout):
            raise OSError(f"Timed out trying to connect to {address}")

        monkeypatch.setattr(distributed, "Client", refused)
    assert cli.main(["solve", str(parquet), *options, *OPTIONS]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
