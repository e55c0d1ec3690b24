"""Files that are replaced as a whole: after a failure or a signal the old one is there, and nothing else."""

import errno
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest

from constrained_vae._utils.writing import check_writable, whole_file, write_npz, write_picture, write_text

WRITERS = {"path": lambda path: write_text(path, "new"), "out": lambda path: check_writable(path, "out")}


@pytest.fixture
def old(tmp_path):
    """A file with text, alone in its folder."""
    path = tmp_path / "file.json"
    path.write_text("old")
    return path


def only(path, text):
    """Assert that a file holds this text and is alone in its folder."""
    assert path.read_text() == text
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("kind", [Path, str, os.fsencode])
def test_paths_of_every_kind(old, kind):
    write_text(kind(old), "new")
    only(old, "new")


def test_names_of_every_kind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["plain", "ß λ.json", "x" * 255, os.fsdecode(b"\xff")]
    for name in names:
        write_text(name, "new")
    assert sorted(os.listdir()) == sorted(names)


@pytest.mark.parametrize("path", [None, 3, "", "a\0b", b"", 1.5, []])
def test_what_is_not_a_path_is_refused(path):
    for name, write in WRITERS.items():
        with pytest.raises(ValueError, match=rf"^{name} must be the path of a file, got"):
            write(path)


@pytest.mark.parametrize("failing", ["fsync", "replace", "chmod"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(old, monkeypatch, failing):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError, match=r"No space left on device: '.*file\.json'"):
        write_text(old, "new")
    only(old, "old")


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(old):
    def fail():
        with whole_file(old) as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    only(old, "old")


LIMITED = """
import resource, signal, sys
import numpy as np
from constrained_vae._utils.writing import write_npz
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_npz(sys.argv[1], None, {"x": np.random.default_rng(0).random(10_000)})
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of resources")
def test_a_real_limit_of_the_size_of_files(old):
    done = subprocess.run([sys.executable, "-c", LIMITED, old], capture_output=True, text=True, check=True)
    assert done.stdout == f"[Errno {errno.EFBIG}] File too large: '{old}'\n"
    assert done.stderr == ""
    only(old, "old")


def test_permissions_are_those_of_the_old_file_or_of_the_umask(old):
    before = os.umask(0o027)
    try:
        old.chmod(0o604)
        for path in (old, old.with_name("new")):
            write_text(path, "new")
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (old, old.with_name("new"))]
    finally:
        os.umask(before)
    assert modes == [0o604, 0o640]


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "file", tmp_path / "link"
    link.symlink_to("folder/file")
    for text in ("first", "second"):  # the first time the target is not there
        write_text(link, text)
        only(target, text)
    assert link.is_symlink()
    link.unlink()
    link.symlink_to("link")
    with pytest.raises(OSError, match="link") as caught:
        write_text(link, "new")
    assert caught.value.errno == errno.ELOOP


def test_a_draft_is_new_and_its_name_cannot_be_foreseen(old, monkeypatch):
    names = set()
    for _ in range(2):
        with whole_file(old) as file:
            names.add(Path(file.name).name)
            assert Path(file.name).parent == old.parent
    assert len(names) == 2
    other = old.with_name("other")
    other.write_text("other")
    monkeypatch.setattr("secrets.token_hex", lambda count: "guessed")
    guessed = old.with_name(".constrained-vae-guessed.part")
    guessed.symlink_to(other)
    with pytest.raises(FileExistsError):
        write_text(old, "new")
    assert guessed.is_symlink()
    assert (old.read_text(), other.read_text()) == ("", "other")


def test_what_cannot_be_replaced_is_refused_at_once(old):
    for write in WRITERS.values():
        with pytest.raises(IsADirectoryError, match=str(old.parent)):
            write(old.parent)
        with pytest.raises(FileNotFoundError, match=r"nowhere/file\.npz'$"):
            write(old.parent / "nowhere" / "file.npz")
        with pytest.raises(NotADirectoryError, match=r"file\.json/file\.npz'$"):
            write(old / "file.npz")
    check_writable(old, "out")
    check_writable(old.with_name("new"), "out")
    only(old, "old")


PROTECTED = """
import os, sys
from constrained_vae._utils.writing import write_text
os.setuid(65534)
try:
    write_text(sys.argv[1], "new")
except PermissionError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(os, "setuid") or os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(("mode_of_folder", "name"), [(0o777, "old"), (0o755, "new")])
def test_protected_files_and_folders_are_refused(mode_of_folder, name):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "old")
        path.write_text("old")
        os.chmod(folder, mode_of_folder)
        command = [sys.executable, "-c", PROTECTED, path.with_name(name)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == f"[Errno 13] Permission denied: '{path.with_name(name)}'\n"
        only(path, "old")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_and_open_files_are_written_directly(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    received = []
    reader = threading.Thread(target=lambda: received.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write_text(tmp_path / "pipe", "new")
    reader.join()
    assert received == [b"new"]
    write_text("/dev/null", "new")


@pytest.mark.skipif(not Path("/dev/fd/1").exists(), reason="needs names of open files")
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1"])
def test_an_open_file_is_not_replaced(tmp_path, name):
    """What is printed later would go to a file that is no longer there."""
    code = f"from constrained_vae._utils.writing import write_text; write_text({name!r}, 'a'); print('b')"
    with open(tmp_path / "out", "ab") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "ab\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_end_of_the_file(old, number):
    def write():
        with whole_file(old) as file:
            signal.raise_signal(number)
            file.write(b"new")

    def end(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(number, end)
    try:
        with pytest.raises(KeyboardInterrupt):
            write()
    finally:
        signal.signal(number, before)
    only(old, "new")


def test_threads_that_write_one_file_do_not_meet(old):
    def work(number):
        for _ in range(20):
            write_npz(old, None, {"x": np.full(1000, number)})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with np.load(old) as file:
        assert len(set(file["x"].tolist())) == 1
    assert os.listdir(old.parent) == [old.name]


def test_pictures(tmp_path):
    from matplotlib.figure import Figure

    for suffix, start in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")):
        write_picture(tmp_path / f"p.{suffix}", Figure(figsize=(1, 1)))
        assert (tmp_path / f"p.{suffix}").read_bytes().startswith(start)
