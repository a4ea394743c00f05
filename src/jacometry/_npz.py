"""Reading ``.npy`` and ``.npz`` files that may be hostile.

Everything is checked against the file's real size before an array is made: nothing is unpickled, no
name from the file is used as a path, and memory stays in proportion to the file.
"""

from __future__ import annotations

import math
import os
import stat
import struct
import unicodedata
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from ._status import ModelFileError

__all__ = ["printable", "read_npy", "read_npz"]

# A file may expand to this much whatever its size, beyond it to so many times its size.
_FREE_BYTES = 64 * 2**20
_MAX_RATIO = 100
_MAX_BYTES = 8 * 2**30
_MAX_MEMBERS = 200_000
_MAX_DIMENSIONS = 8
# Characters of one string: activation names are short, a description is a paragraph.
_MAX_CHARACTERS = 4096


def printable(text: str, limit: int = 200) -> str:
    """`text` without control, format or surrogate characters, cut to `limit` characters.

    Parameters
    ----------
    text : str
        Anything that came from a file.
    limit : int, optional
        Longest result.

    Returns
    -------
    str

    Examples
    --------
    >>> printable("a\\x1b[31mb\\n")
    'a?[31mb?'
    """
    clean = "".join(
        "?" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") else c
        for c in text[: limit + 1]
    )
    return clean if len(text) <= limit else clean[: limit - 3] + "..."


def read_npy(path: str | os.PathLike[str]) -> np.ndarray:
    """The array of a ``.npy`` file.

    Parameters
    ----------
    path : str or path-like
        A regular file.

    Returns
    -------
    ndarray
        A copy of real numbers or strings; never memory-mapped.

    Raises
    ------
    ModelFileError
        Where the file is not what its name claims; one line, naming the file.
    OSError
        Where it cannot be opened.
    """
    with _open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            return _read_array(file, size, _shown(path))
        except (ValueError, EOFError, struct.error, SyntaxError, TypeError) as error:
            raise ModelFileError(_one_line(path, error, "not a readable .npy file")) from error


def read_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a ``.npz`` file, by name.

    Parameters
    ----------
    path : str or path-like
        A regular file.

    Returns
    -------
    dict of str to ndarray
        Copies of real numbers or strings; the names are as stored, without ``.npy``.

    Raises
    ------
    ModelFileError
        Where the file is not what its name claims; one line, naming the file and the member.
    OSError
        Where it cannot be opened.
    """
    with _open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            with zipfile.ZipFile(file) as archive:
                members = _checked_members(archive, size)
                return {
                    member.filename[: -len(".npy")]: _read_member(archive, member)
                    for member in members
                }
        except zipfile.BadZipFile as error:
            raise ModelFileError(_one_line(path, error, "not a readable .npz file")) from error
        except (
            ValueError,
            EOFError,
            NotImplementedError,
            OSError,  # a damaged directory can make zipfile seek before the file's start
            RuntimeError,
            struct.error,
            SyntaxError,
            TypeError,
            zlib.error,
        ) as error:
            raise ModelFileError(_one_line(path, error, "cannot be read")) from error


def _open_regular(path: str | os.PathLike[str]) -> IO[bytes]:
    # O_NONBLOCK: opening a FIFO without a writer must not hang before it can be refused.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    flags |= getattr(os, "O_CLOEXEC", 0)
    if os.path.isdir(path):
        raise ModelFileError(f"{_shown(path)}: is a directory; expected a file")
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ModelFileError(f"{_shown(path)}: is not a regular file (a FIFO, socket or device)")
    return os.fdopen(descriptor, "rb")


def _checked_members(archive: zipfile.ZipFile, file_size: int) -> list[zipfile.ZipInfo]:
    members = archive.infolist()
    if len(members) > _MAX_MEMBERS:
        raise ValueError(f"{len(members)} members; expected at most {_MAX_MEMBERS}")
    seen: set[str] = set()
    for member in members:
        name = printable(member.filename, 80)
        if member.filename in seen:
            raise ValueError(f"duplicate member {name!r}")
        seen.add(member.filename)
        if not member.filename.endswith(".npy") or member.is_dir():
            raise ValueError(f"member {name!r} is not an .npy array")
        if member.flag_bits & 0x1:
            raise ValueError(f"member {name!r} is encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"member {name!r} uses a compression that NumPy does not write")
    total = sum(member.file_size for member in members)
    limit = min(max(_FREE_BYTES, _MAX_RATIO * file_size), _MAX_BYTES)
    if total > limit:
        raise ValueError(
            f"would expand from {file_size} to {total} bytes; refused beyond {limit} (a zip bomb?)"
        )
    return members


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as stream:
        return _read_array(stream, member.file_size, f"member {printable(member.filename, 80)!r}")


def _read_array(stream: IO[bytes], size: int, what: str) -> np.ndarray:
    """The array in `stream`, whose `size` must be the header's and the entries' exactly."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran_order, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"{what} has .npy version {version[0]}.{version[1]}; expected 1.0 or 2.0")
    _check_dtype(dtype, what)
    if len(shape) > _MAX_DIMENSIONS or any(n < 0 for n in shape):
        raise ValueError(f"{what} claims shape {printable(str(shape), 60)}")
    n_bytes = math.prod(shape) * dtype.itemsize
    if stream.tell() + n_bytes != size:
        raise ValueError(
            f"{what} claims {printable(str(shape), 60)} entries of {dtype}, {n_bytes} bytes; the "
            f"file holds {max(size - stream.tell(), 0)}"
        )
    content = stream.read(n_bytes)
    if len(content) != n_bytes:
        raise ValueError(f"{what} is truncated")
    array = np.frombuffer(content, dtype=dtype).reshape(shape, order="F" if fortran_order else "C")
    return array.copy()


def _check_dtype(dtype: np.dtype[Any], what: str) -> None:
    if dtype.hasobject:
        raise ValueError(f"{what} holds pickled Python objects, which are never loaded")
    if dtype.kind == "U" and dtype.itemsize <= 4 * _MAX_CHARACTERS:
        return
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise ValueError(f"{what} has dtype {printable(str(dtype), 60)}; expected real numbers")


def _shown(path: str | os.PathLike[str]) -> str:
    return printable(Path(path).name or str(path))


def _one_line(path: str | os.PathLike[str], error: Exception, otherwise: str) -> str:
    reason = printable(str(error).split("\n")[0], 300) or otherwise
    return f"{_shown(path)}: {otherwise}: {reason}"
