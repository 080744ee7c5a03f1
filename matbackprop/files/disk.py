"""Whole files only: what is read is all of one file; what is written replaces the old one at once, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from matbackprop.validation import describe

__all__ = ["as_path", "read_file", "replace_file"]

#: Opening a FIFO without this waits for a writer. Neither flag exists everywhere.
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def as_path(path: object, name: str) -> Path:
    """Return `path` as a Path.

    Raises
    ------
    TypeError
        If it is neither text nor a path object: bytes and open files are not.
    """
    try:
        text = os.fspath(path)  # type: ignore[call-overload]
    except TypeError:
        text = None
    if not isinstance(text, str):
        hint = "; decode it with os.fsdecode" if isinstance(text, bytes) else ""
        hint = "; pass its name, since a file is replaced as a whole" if hasattr(path, "read") else hint
        raise TypeError(f"{name}: expected a path as str or os.PathLike, got {describe(path)}{hint}")
    return Path(text)


def read_file(path: Path) -> bytes:
    """Return the content of a regular file.

    Raises
    ------
    OSError
        If it is missing, a directory, or may not be read.
    ValueError
        If it is a device, a pipe or a socket, which might never end, or changed under the reader.
    """
    descriptor = os.open(path, _READ)
    try:
        status = os.fstat(descriptor)
        _check_regular(status, path)
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(status.st_size + 1)
    finally:
        os.close(descriptor)
    if len(data) != status.st_size:
        raise ValueError(f"{path}: the file changed while it was read; another program writes it in place")
    return data


def replace_file(path: Path, data: bytes | memoryview) -> None:
    """Make `data` the content of the file: all of it, or after an error none, with the old content in place.

    It goes into a temporary file ``.NAME-XXXXXXXXXXXXXXXX.tmp`` in the same directory, is flushed to the disk, and
    takes the file's name in one step; then the directory is flushed, too. Of several writers the last one wins, and a
    reader sees one or the other. Where `path` is a symbolic link, the file it points to is replaced and the link stays;
    another hard link keeps the old content. The new file has the permissions that the umask gives.

    Only a process that is killed leaves its temporary file behind. It can be deleted, once nobody is writing.

    Raises
    ------
    OSError
        If the directory is missing or read-only, the file is a directory or read-only, or the disk is full.
    ValueError
        If there is something else by that name, such as a device.
    """
    target = Path(os.path.realpath(path))
    with contextlib.suppress(FileNotFoundError):
        _check_regular(path.stat(), path)
        if not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, "The file is read-only", str(path))
    temporary = target.with_name(f".{target.name[:50]}-{secrets.token_hex(8)}.tmp")
    with _directory(target.parent) as directory:
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException as error:  # an interrupt, too
            with contextlib.suppress(OSError):
                temporary.unlink()
            if isinstance(error, OSError):
                raise OSError(error.errno, f"{error.strerror}; nothing was written", str(path)) from error
            raise
        if directory is not None:
            try:
                os.fsync(directory)
            except OSError as error:
                if error.errno != errno.EINVAL:  # some network file systems have no such thing
                    raise


def _check_regular(status: os.stat_result, path: Path) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "Expected a file, got a directory", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path}: expected a regular file, got a device, a pipe or a socket")


@contextlib.contextmanager
def _directory(path: Path) -> Iterator[int | None]:
    """Give the directory as something to flush, where the system has that and we may open it."""
    descriptor = None
    if os.name == "posix":
        with contextlib.suppress(PermissionError):
            descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)
