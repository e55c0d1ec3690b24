"""Mutations of valid files: of their bytes, of the members of a .npz file, of arrays and their heads, of headers."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable

import numpy as np

DEEP = "[" * 100_000 + "]" * 100_000  # JSON
STRANGE = [
    None,
    True,
    -1,
    0,
    2**70,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "text\nof two lines",
    [],
    [[]],
    {},
    "9" * 5000,
]


def of_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """The bytes of a file, cut, flipped, exchanged, or with others among them."""
    raw, n = bytearray(data), len(data)
    kind = rng.integers(7)
    if kind == 0:
        return data[: int(rng.integers(n))]
    if kind == 1:
        for place in rng.integers(n, size=rng.integers(1, 9)):
            raw[place] ^= 1 << int(rng.integers(8))
        return bytes(raw)
    start, length = int(rng.integers(n)), int(rng.integers(1, 200))
    if kind == 2:
        raw[start : start + length] = bytes(len(raw[start : start + length]))
    elif kind == 3:
        raw[start : start + length] = rng.bytes(len(raw[start : start + length]))
    elif kind == 4:
        del raw[start : start + length]
    elif kind == 5:
        raw[start:start] = rng.bytes(length)
    else:
        raw = raw[start:] + raw[:start]
    return bytes(raw)


def of_members(data: bytes, rng: np.random.Generator) -> bytes:
    """A .npz file with members removed, doubled, added, exchanged, or stored otherwise."""
    members = unpacked(data)
    names = list(members)
    one, two = (str(name) for name in rng.choice(names, 2, replace=len(names) < 2))
    kind = rng.integers(9)
    if kind == 0:
        del members[one]
    elif kind == 1:
        members[one], members[two] = members[two], members[one]
    elif kind == 2:
        members[one] = members[two]
    elif kind == 3:
        members[str(rng.choice(["other.npy", "../../other.npy", "/other.npy", "", "x", f"{one}.npy"]))] = members[two]
    elif kind == 4:
        members[f"_{one}"] = members.pop(one)
    elif kind == 5:
        return packed(members, twice=one)
    elif kind == 6:
        return packed(members, method=int(rng.choice([zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_STORED])))
    elif kind == 7:
        members[one] = of_bytes(members[one], rng)
    else:
        return in_directory(packed(members), rng)
    return packed(members)


def in_directory(data: bytes, rng: np.random.Generator) -> bytes:
    """A .npz file with another version, flag, method, checksum or size in an entry of its central directory."""
    raw, entry = bytearray(data), data.find(b"PK\x01\x02")
    for _ in range(int(rng.integers(data.count(b"PK\x01\x02")))):
        entry = data.find(b"PK\x01\x02", entry + 4)
    place, kind = [(6, "<H"), (8, "<H"), (10, "<H"), (16, "<I"), (20, "<I"), (24, "<I"), (42, "<I")][rng.integers(7)]
    value = int(rng.choice([0, 1, 9, 99, 2**16 - 1 if kind == "<H" else 2**32 - 2]))
    raw[entry + place : entry + place + struct.calcsize(kind)] = struct.pack(kind, value)
    return bytes(raw)


def of_head(data: bytes, rng: np.random.Generator) -> bytes:
    """A .npz file, or a .npy file, with another head of an array: shape, type, version, or text that is no head."""
    if not data.startswith(b"PK"):
        return _headed(data, rng)
    members = unpacked(data)
    name = str(rng.choice(list(members)))
    members[name] = _headed(members[name], rng)
    return packed(members)


def _headed(data: bytes, rng: np.random.Generator) -> bytes:
    stream = io.BytesIO(data)
    np.lib.format.read_magic(stream)
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    body = data[stream.tell() :]
    big = (2**40, *shape[1:]) if shape else (2**40,)  # 8 TB
    heads = [{"shape": s} for s in (big, (-1,), (2**70,), (True,), (0, 2**62), shape[::-1], (1,) * 70, "shape", 3)]
    heads += [{"descr": d} for d in ("|O", "<c16", "<f2", ">f8", "<M8[s]", "|V8", "no type", [("a", "<f8")], 3)]
    heads += [{"fortran_order": not fortran}, {"fortran_order": "yes"}, {"more": 1}]
    head = {"descr": dtype.str, "fortran_order": fortran, "shape": shape} | heads[rng.integers(len(heads))]
    texts = [repr(head)] * 8 + ["__import__('os')", "(" * 5000, "{", "", "{'descr':" * 500, "\x00\xff", " " * 20_000]
    text = texts[rng.integers(len(texts))].encode("latin1") + b"\n"
    version = [(1, 0)] * 8 + [(2, 0), (3, 0), (9, 9)]
    major, minor = version[rng.integers(len(version))]
    length = struct.pack("<H" if major == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([major, minor]) + length + text + body


def of_array(data: bytes, rng: np.random.Generator) -> bytes:
    """A .npz or .npy file with an array of another type or shape, or with other values."""
    if not data.startswith(b"PK"):
        return npy(_other(np.lib.format.read_array(io.BytesIO(data)), rng))
    members = unpacked(data)
    name = str(rng.choice([name for name in members if name != "header.npy"]))
    members[name] = npy(_other(np.lib.format.read_array(io.BytesIO(members[name])), rng))
    return packed(members)


def _other(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.3:
        types = ["f4", "f2", "i8", "i1", "u1", "?", "c16", "O", "U9", "S9", "m8[s]", "M8[s]", ">f8", "f8,f8"]
        with np.errstate(all="ignore"):
            return np.zeros(array.shape, types[13]) if rng.random() < 0.1 else array.astype(types[rng.integers(13)])
    if rng.random() < 0.4:
        flat = array.ravel()
        shapes = [flat, array[None], array[..., None], flat[:0], np.float64(1.0), array.T, flat[:1], flat[1:]]
        shapes += [np.repeat(array[None], 2, axis=0), array[:-1] if array.ndim else array, np.tile(flat, 3)]
        return np.asarray(shapes[rng.integers(len(shapes))])
    other = np.array(array, dtype=np.float64)
    values = [np.nan, np.inf, -np.inf, -1.0, 0.0, 1e300, 1e-300, 0.5, 2.0, 1 + 1e-4]
    value = values[rng.integers(len(values))]
    if other.size and rng.random() < 0.6:
        other.flat[rng.integers(other.size)] = value
        return other
    with np.errstate(all="ignore"):
        return [other * value, other + value, other[::-1] if other.ndim else other][rng.integers(3)]


def of_header(data: bytes, rng: np.random.Generator) -> bytes:
    """A .npz file with another entry in its header, however deep, or with a header that is no JSON object."""
    members = unpacked(data)
    text = str(np.lib.format.read_array(io.BytesIO(members["header.npy"])))
    if rng.random() < 0.15:
        whole = [DEEP, "", "{", "null", "[]", "3", text[:-1], text + "}", text.replace("1", "NaN"), '{"kind": ' + DEEP]
        text = whole[rng.integers(len(whole))]
    else:
        header = json.loads(text)
        place = _place(header, rng)
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = keys[rng.integers(len(keys))]
        if rng.random() < 0.2:
            del place[key]
        elif rng.random() < 0.3 and isinstance(place[key], float | int):
            place[key] = place[key] * [-1, 2, 0.5, 1.001, 1e10][rng.integers(5)]
        else:
            place[key] = STRANGE[rng.integers(len(STRANGE))]
        if rng.random() < 0.1:
            header |= [{"format": 2}, {"format": "1"}, {"kind": "other"}, {"more": DEEP[:50]}][rng.integers(4)]
        text = json.dumps(header)
    members["header.npy"] = npy(np.array(text))
    return packed(members)


def _place(value, rng):
    """A dict or a list that is not empty, at a random depth of a header."""
    inner = [v for v in (value.values() if isinstance(value, dict) else value) if isinstance(v, dict | list) and v]
    return _place(inner[rng.integers(len(inner))], rng) if inner and rng.random() < 0.75 else value


def of_text(data: bytes, rng: np.random.Generator) -> bytes:
    """A .csv file with another field, row or separator."""
    rows = [line.split(",") for line in data.decode().splitlines()]
    row = rows[rng.integers(len(rows))]
    column = int(rng.integers(len(row)))
    fields = ["nan", "inf", "", " ", "text", "1_0", "1,5", "1;5", '"1"', "0x10", "1e999", "1j", "-", "\x00", "é", "1 2"]
    kind = rng.integers(6)
    if kind < 3:
        row[column] = fields[rng.integers(len(fields))]
    elif kind == 3:
        del row[column]
    elif kind == 4:
        rows.insert(int(rng.integers(len(rows) + 1)), [["a", "b"], [], ["# a remark"], ["1"] * 9][rng.integers(4)])
    text = (
        "\n".join(",".join(row) for row in rows)
        if kind < 5
        else data.decode().replace(",", ["; ", "\t"][rng.integers(2)])
    )
    return text.encode(["utf-8", "utf-8-sig", "utf-16", "latin1"][rng.integers(4)])


def unpacked(data: bytes) -> dict[str, bytes]:
    """The members of a .npz file by name."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, twice: str | None = None) -> bytes:
    """A .npz file of these members, of which one may be there twice."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    if twice is not None:
        other = members | {"_" * len(twice): members[twice]}
        return packed(other, method).replace(b"_" * len(twice), twice.encode())
    return stream.getvalue()


def npy(array: np.ndarray) -> bytes:
    """The bytes of a .npy file; objects are pickled."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), allow_pickle=True)
    return stream.getvalue()


def with_header(data: bytes, change: Callable[[dict], dict | None]) -> bytes:
    """A .npz file whose header has gone through a function, which changes it or returns another one."""
    members = unpacked(data)
    header = json.loads(str(np.lib.format.read_array(io.BytesIO(members["header.npy"]))))
    members["header.npy"] = npy(np.array(json.dumps(change(header) or header)))
    return packed(members)


def with_array(data: bytes, name: str, change: Callable[[np.ndarray], np.ndarray]) -> bytes:
    """A .npz file of which one array has gone through a function."""
    members = unpacked(data)
    members[f"{name}.npy"] = npy(change(np.lib.format.read_array(io.BytesIO(members[f"{name}.npy"]))))
    return packed(members)
