"""Wheel and sdist: built, installed in an environment of their own, and used there."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import constrained_vae as cv

pytestmark = pytest.mark.slow
ROOT = Path(cv.__file__).parents[1]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get("scripts", {})


def run(*command, cwd):
    """What a command prints; neither the checkout nor the packages of the running interpreter are in its way."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with the sdist, and the wheel made from it, as releases are."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    return out


@pytest.fixture(scope="module", params=["resolved", "lent"])
def python(request, built, tmp_path_factory):
    """The interpreter of a fresh environment that holds the wheel, and its dependencies in one of two ways.

    "resolved": as pip installs them from a package index; skipped where none can be reached. "lent": the wheel without
    dependencies, and those of the running interpreter behind it by a .pth file. That needs no network, and does not
    see whether the wheel names all of them.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    (python,) = folder.glob("bin/python") if os.name == "posix" else folder.glob("Scripts/python.exe")
    (wheel,) = built.glob("*.whl")
    install = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    if request.param == "resolved":
        if not index_is_reachable(install, folder):
            pytest.skip("pip reaches no package index, so the dependencies of the wheel cannot be installed")
        run(*install, wheel, cwd=folder)
    else:
        run(*install, "--no-deps", "--no-index", wheel, cwd=folder)
        own = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
        lent = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
        (Path(own) / "dependencies.pth").write_text("\n".join([*lent, ""]))
    return python


def index_is_reachable(install, folder):
    """Whether pip finds one small dependency: what fails after that is the wheel's fault."""
    try:
        run(*install, "--dry-run", "--no-deps", "--retries", "0", "--timeout", "10", "threadpoolctl", cwd=folder)
    except AssertionError:
        return False
    return True


def version_of(built):
    """The version of the wheel: that of an editable installation may be older."""
    (wheel,) = built.glob("*.whl")
    return wheel.name.split("-")[1]


@pytest.mark.parametrize(("tag", "expected"), [(None, r"0\.1(\.0)?\.dev\d+\+g.*"), ("v7.8.9", r"7\.8\.9")])
def test_the_version_comes_from_the_tags(tag, expected, tmp_path):
    """Also in a shallow clone without tags, in which a change may be tested."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone")
    run("git", "clone", "--quiet", "--depth", "1", "--no-tags", ROOT.as_uri(), tmp_path / "clone", cwd=tmp_path)
    if tag:
        run("git", "tag", tag, cwd=tmp_path / "clone")
    version = run(sys.executable, "-m", "hatchling", "version", cwd=tmp_path / "clone").split()[-1]
    assert re.fullmatch(expected, version)


def test_the_version_and_where_it_comes_from(python, built, tmp_path):
    code = "import constrained_vae as cv; print(cv.__version__, cv.__file__)"
    version, place = run(python, "-c", code, cwd=tmp_path).split(maxsplit=1)
    assert version == version_of(built)
    assert Path(place.strip()).is_relative_to(python.parents[1])


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_the_command(python, built, tmp_path, script):
    assert version_of(built) in run(python.parent / script, "--version", cwd=tmp_path)


def first_example():
    """The first block of Python in the README, as it is printed there."""
    return (ROOT / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]


def test_the_first_example_of_the_readme(python, tmp_path):
    (tmp_path / "example.txt").write_text(first_example(), encoding="utf-8")
    code = (
        "import doctest, sys, constrained_vae; "
        "found = doctest.testfile('example.txt', module_relative=False, encoding='utf-8',"
        " optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE); "
        "print(found.attempted); sys.exit(found.failed)"
    )
    assert int(run(python, "-c", code, cwd=tmp_path).split()[-1]) >= 5


def test_every_public_name_is_in_the_wheel(python, tmp_path):
    """No room, no CUDA source and no marker of types is left behind; the strategies need the extra `test`."""
    code = "import constrained_vae as cv; print(*[getattr(cv, name).__name__ for name in cv.__all__])"
    assert len(run(python, "-c", code, cwd=tmp_path).split()) == len(cv.__all__)


def test_what_is_in_them(built):
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    inside = set(zipfile.ZipFile(wheel).namelist())
    package = ROOT / "constrained_vae"
    sources = {path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path.relative_to(ROOT).as_posix() for path in sources} <= inside
    assert not {name for name in inside if name.startswith(("tests/", "analysis/"))}
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "tests/conftest.py", "analysis/figure2.py"} <= names
    assert not {name for name in names if "__pycache__" in name or name.startswith(".venv")}
