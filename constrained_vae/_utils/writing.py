"""The one way in which files are written: a file is replaced as a whole, or stays what it was.

A draft is written beside the file, forced to the disk, and then replaces the file in one step. Ctrl-C and SIGTERM wait
until this is done. A process that is killed (SIGKILL, a power failure) can leave a draft `.constrained-vae-*.part`,
which nothing reads and which may be deleted. So can SIGTERM, if it ends a process while a thread other than the main
one writes.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from os import PathLike
from typing import IO, Any

import numpy as np

from .checks import check_path
from .interrupts import deferred_interrupts

_OPEN_FILES = ("/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/")  # names of files that are open already


@contextlib.contextmanager
def whole_file(path: str | bytes | PathLike[Any]) -> Iterator[IO[bytes]]:
    """A binary file to write; it replaces the file at the path when the block ends, and is removed if the block fails.

    The draft has a name that cannot be foreseen and is created exclusively, so two writers of one path do not meet (the
    last one wins), and a link in its place is not followed. A symbolic link at the path itself stays, and the file that
    it points to is replaced. The new file has the permissions of the old one, and otherwise those of the umask. Owner
    and hard links of an old file are not kept. A device or a pipe is written directly.

    Raises
    ------
    ValueError
        If the path is not one.
    OSError
        If the file cannot be written; it names the path, and an old file there is as before.
    """
    target = _target(path)
    if _is_special(target):
        with open(target, "wb") as file:
            yield file
        return
    with deferred_interrupts(), _draft(target) as (file, draft):
        yield file
        file.flush()
        os.fsync(file.fileno())
        file.close()  # some platforms do not rename an open file
        os.replace(draft, target)
    _sync_folder(os.path.dirname(target))


def check_writable(path: str | bytes | PathLike[Any], name: str) -> None:
    """Raise now what `whole_file` would raise before anything is written; the name is that of the argument."""
    target = _target(path, name)
    if not _is_special(target):
        with deferred_interrupts(), _draft(target) as (file, draft):
            file.close()
            os.unlink(draft)


def write_npz(path: str | bytes | PathLike[Any], header: Mapping[str, Any] | None, arrays: Mapping[str, Any]) -> None:
    """Write named arrays to a compressed .npz file, and the header as JSON unless it is None."""
    contents = dict(arrays) if header is None else {"header": np.array(json.dumps(header)), **arrays}
    with whole_file(path) as file:  # np.savez would append .npz to a name
        np.savez_compressed(file, **contents)


def write_text(path: str | bytes | PathLike[Any], text: str) -> None:
    """Write text as UTF-8."""
    with whole_file(path) as file:
        file.write(text.encode())


def write_picture(path: str | bytes | PathLike[Any], figure: Any, dpi: int | str = 200) -> None:
    """Write a Matplotlib figure; the suffix of the path names the format."""
    with whole_file(path) as file:
        figure.savefig(file, format=os.path.splitext(os.fsdecode(path))[1][1:], dpi=dpi)


def _target(path: Any, name: str = "path") -> str:
    """The file that a path stands for, after symbolic links."""
    text = str(check_path(path, name))
    if os.path.abspath(text).startswith(_OPEN_FILES):
        return text
    target = os.path.realpath(text)
    if os.path.islink(target):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), text)
    return target


def _is_special(target: str) -> bool:
    """Whether a path is that of a device, a pipe or an open file, which cannot be replaced."""
    if os.path.abspath(target).startswith(_OPEN_FILES):
        return True
    return os.path.exists(target) and not os.path.isfile(target) and not os.path.isdir(target)


@contextlib.contextmanager
def _draft(target: str) -> Iterator[tuple[IO[bytes], str]]:
    """A new open file beside the target, and its name; the file is removed if the block fails."""
    draft = os.path.join(os.path.dirname(target), f".constrained-vae-{secrets.token_hex(8)}.part")
    created = False
    try:
        mode = _mode(target)
        with open(draft, "xb") as file:
            created = True
            if mode is not None:
                os.chmod(draft, mode)
            yield file, draft
    except BaseException as error:
        if created:
            with contextlib.suppress(OSError):
                os.unlink(draft)
        if isinstance(error, OSError) and error.errno is not None and error.filename in (None, draft):
            raise OSError(error.errno, error.strerror, target) from error  # the name that the caller knows
        raise


def _mode(target: str) -> int | None:
    """The permissions of an existing file, None where there is none; OSError if it cannot be written."""
    try:
        os.stat(target)
    except FileNotFoundError:
        return None
    with open(target, "r+b") as file:  # changes nothing
        return stat.S_IMODE(os.fstat(file.fileno()).st_mode)


def _sync_folder(folder: str) -> None:
    """Force the name of a new file to the disk, on platforms that can open folders."""
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
