"""Reading and writing .npz files: named arrays, with an optional JSON header."""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np


def write_npz(path: str | PathLike[str], header: Mapping[str, Any] | None, arrays: Mapping[str, Any]) -> None:
    """Write named arrays, and the header unless it is None.

    The data go to a draft beside the file, which then replaces the file in one step: a reader never sees half a file.
    """
    contents = dict(arrays) if header is None else {"header": np.array(json.dumps(header)), **arrays}
    if os.path.exists(path) and not (os.path.isfile(path) and os.access(path, os.W_OK)):
        _write(path, contents)  # a folder or a protected file: raises the usual OSError and replaces nothing
        return
    target = os.path.realpath(path)  # a symbolic link stays, and its target is replaced
    draft = Path(f"{target}.part")
    try:
        _write(draft, contents)
        os.replace(draft, target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _write(path: str | PathLike[str], contents: Mapping[str, Any]) -> None:
    with open(path, "wb") as file:  # np.savez would append .npz to a name
        np.savez_compressed(file, **contents)


def read_npz(
    path: str | PathLike[str], kind: str, description: str | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the arrays of a file whose header has this kind.

    Raises
    ------
    ValueError
        If the file holds something else; the message names the description, by default the kind.
    OSError
        If the file cannot be opened.
    """
    header: Any = None
    with open(path, "rb") as stream:
        try:
            with np.load(stream) as file:
                arrays = {name: file[name] for name in file.files}
            header = json.loads(str(arrays.pop("header")))
        except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile):
            pass  # not such a file: refused below
    if not isinstance(header, dict) or header.get("kind") != kind:
        raise ValueError(f"{path} does not hold a saved {description or kind}")
    return header, arrays


def without_addresses(text: str) -> str:
    """The text of a repr without memory addresses, which differ from run to run."""
    return re.sub(r" at 0x[0-9a-f]+", "", text)
