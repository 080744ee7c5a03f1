"""Files are whole: whatever stops a writer, there is the old file or the new one, and no other."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import matbackprop
from matbackprop.files import disk, read_tensors, write_tensors

posix = pytest.mark.skipif(os.name != "posix", reason="asks for POSIX files")
not_root = pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may do anything")


def value(path) -> float:
    return float(read_tensors(path)[0]["a"][0])


@pytest.fixture
def path(tmp_path) -> Path:
    """A file that is there already."""
    write_tensors(tmp_path / "a.npz", {"a": np.zeros(1)})
    return tmp_path / "a.npz"


def only_the_old(path: Path) -> bool:
    return value(path) == 0 and [p.name for p in path.parent.iterdir()] == [path.name]


# What stops a writer.


@pytest.mark.parametrize("name", ["fsync", "write", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_at_any_step(name, error, path, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise error

    if name == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    elif name == "replace":
        monkeypatch.setattr(Path, "replace", fail)
    else:
        opened = Path.open

        class Full:
            def __init__(self, *args: object) -> None:
                self.file = opened(*args)

            def __enter__(self):
                return self

            def __exit__(self, *_: object) -> None:
                self.file.close()

            def write(self, data) -> None:
                self.file.write(data[:10])
                fail()

        def full(*args: object) -> Full:  # a function, so that it becomes a method
            return Full(*args)

        monkeypatch.setattr(Path, "open", full)
    with pytest.raises(type(error)) as caught:
        write_tensors(path, {"a": np.ones(1)})
    monkeypatch.undo()
    if isinstance(error, OSError):
        assert caught.value.errno == errno.ENOSPC
        assert str(path) in str(caught.value)
        assert "nothing was written" in str(caught.value)
    assert only_the_old(path)


@posix
def test_a_full_disk(path) -> None:
    """A limit on the size of files stands for it: the write breaks off in the middle, with what went before written."""
    code = (
        "import resource, sys, numpy as np\n"
        "from matbackprop.files import write_tensors\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n    write_tensors(sys.argv[1], {'a': np.ones(10_000)})\n"
        "except OSError as error:\n    print(error)\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True, env=environment()
    )
    assert out.stdout.strip() == f"[Errno 27] File too large; nothing was written: '{path}'"
    assert only_the_old(path)


def test_a_directory_as_path(tmp_path) -> None:
    (tmp_path / "d.npz").mkdir()
    for call in (lambda p: write_tensors(p, {}), read_tensors):
        with pytest.raises(IsADirectoryError, match=r"got a directory: '.*d.npz'"):
            call(tmp_path / "d.npz")
    assert not list((tmp_path / "d.npz").iterdir())


def test_a_directory_that_is_not_there(tmp_path) -> None:
    for call in (lambda p: write_tensors(p, {}), read_tensors):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            call(tmp_path / "nowhere" / "a.npz")
        (tmp_path / "file").touch()
        with pytest.raises(NotADirectoryError):
            call(tmp_path / "file" / "a.npz")
    with pytest.raises(FileNotFoundError):
        read_tensors(tmp_path / "a.npz")


@posix
@not_root
def test_permissions_that_lack(path) -> None:
    path.chmod(0o444)
    with pytest.raises(PermissionError, match="The file is read-only"):
        write_tensors(path, {})
    path.chmod(0o000)
    with pytest.raises(PermissionError):
        read_tensors(path)
    path.chmod(0o644)
    path.parent.chmod(0o555)
    with pytest.raises(PermissionError, match=r"nothing was written: '.*a\.npz'"):
        write_tensors(path, {})
    path.parent.chmod(0o333)
    write_tensors(path, {"a": np.ones(1)})
    path.parent.chmod(0o755)
    assert value(path) == 1


def test_the_same_without_being_somebody_else(path, monkeypatch) -> None:
    """As root, permissions do not stop anybody; the errors are made."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match="The file is read-only"):
        write_tensors(path, {"a": np.ones(1)})
    monkeypatch.undo()
    assert only_the_old(path)
    opened = os.open

    def refuse(where, *args):
        if Path(where) == path.parent:
            raise PermissionError(errno.EACCES, "Permission denied", str(where))
        return opened(where, *args)

    monkeypatch.setattr(os, "open", refuse)
    write_tensors(path, {"a": np.ones(1)})  # the directory may be written, and not listed
    assert value(path) == 1


@posix
def test_what_is_no_file(tmp_path) -> None:
    fifo, link = tmp_path / "fifo.npz", tmp_path / "zero.npz"
    os.mkfifo(fifo)
    link.symlink_to("/dev/zero")
    for path in (fifo, link):
        with pytest.raises(ValueError, match="expected a regular file, got a device, a pipe or a socket"):
            read_tensors(path)  # at once: nobody writes into it
        with pytest.raises(ValueError, match="expected a regular file"):
            write_tensors(path, {})
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    with socket.socket(socket.AF_UNIX) as door:
        os.chdir(tmp_path)
        door.bind("s.npz")
        with pytest.raises(OSError, match=r"s\.npz"):
            read_tensors("s.npz")


def test_a_file_that_grows_is_refused(path, monkeypatch) -> None:
    status = os.fstat

    def before(descriptor):
        result = status(descriptor)
        with path.open("ab") as file:
            file.write(b"more")
        return result

    monkeypatch.setattr(disk.os, "fstat", before)
    with pytest.raises(ValueError, match="the file changed while it was read"):
        read_tensors(path)


# Links and permissions.


@posix
def test_links(path) -> None:
    folder = path.parent
    soft, hard, dangling, loop = (folder / f"{name}.npz" for name in ("soft", "hard", "dangling", "loop"))
    soft.symlink_to("a.npz")
    os.link(path, hard)
    write_tensors(soft, {"a": np.ones(1)})
    assert soft.is_symlink()
    assert not path.is_symlink()
    assert [value(p) for p in (path, soft, hard)] == [1, 1, 0]
    dangling.symlink_to("new.npz")
    write_tensors(dangling, {"a": np.full(1, 2.0)})
    assert dangling.is_symlink()
    assert value(folder / "new.npz") == 2
    loop.symlink_to("loop.npz")
    with pytest.raises(OSError, match=r"loop\.npz"):
        write_tensors(loop, {})
    assert loop.is_symlink()


@posix
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_are_the_umask_s(mask, mode, tmp_path) -> None:
    old = os.umask(mask)
    try:
        write_tensors(tmp_path / "a.npz", {})
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a.npz").stat().st_mode) == mode


def test_a_long_name(tmp_path) -> None:
    path = tmp_path / f"{'é' * 124}.npz"  # 252 bytes
    write_tensors(path, {"a": np.ones(1)})
    assert value(path) == 1


# Several processes.

WRITER = """
import sys, numpy as np
from matbackprop.files import write_tensors
path, number = sys.argv[1], float(sys.argv[2])
arrays = [np.full(50_000, number + step / 10) for step in range(2)]
print("ready", flush=True)
while True:
    for array in arrays:
        write_tensors(path, {"a": array, "b": array[:7]}, {"value": array[0].item()})
"""


def environment() -> dict[str, str]:
    """What a child needs to find the package that is tested, wherever it is."""
    where = str(Path(matbackprop.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": where, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def writer(path: Path, number: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(number)], stdout=subprocess.PIPE, text=True, env=environment()
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def check_whole(path: Path) -> float:
    tensors, metadata = read_tensors(path)
    assert (tensors["a"].size, tensors["b"].size) == (50_000, 7)
    assert (tensors["a"] == metadata["value"]).all()
    assert (tensors["b"] == metadata["value"]).all()
    return float(metadata["value"])


def test_two_writers_and_a_reader(suffix, tmp_path) -> None:
    path = tmp_path / f"a{suffix}"
    write_tensors(path, {"a": np.zeros(50_000), "b": np.zeros(7)}, {"value": 0.0})
    writers = [writer(path, number) for number in (1, 2)]
    try:
        seen, end = set(), time.monotonic() + 60
        while len(seen) < 4 and time.monotonic() < end:  # the old file and three more: of both writers
            for _ in range(50):
                seen.add(check_whole(path))
    finally:
        for process in writers:
            process.kill()
            process.communicate()
    assert seen <= {0.0, 1.0, 1.1, 2.0, 2.1}
    assert len(seen) > 1


KILLER = """
import os, signal, sys, time, numpy as np
from matbackprop.files import write_tensors
for number, moment in enumerate(sys.argv[2:]):
    child = os.fork()
    if child == 0:
        array = np.full(50_000, float(number))
        while True:
            write_tensors(sys.argv[1], {"a": array, "b": array[:7]}, {"value": float(number)})
    time.sleep(float(moment))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print("killed", flush=True)
    sys.stdin.readline()
"""


@posix
def test_twenty_writers_killed(suffix, tmp_path, rng) -> None:
    """One after the other, each at a random moment; what they leave is their temporary files."""
    path = tmp_path / f"a{suffix}"
    write_tensors(path, {"a": np.zeros(50_000), "b": np.zeros(7)}, {"value": 0.0})
    killer = subprocess.Popen(
        [sys.executable, "-c", KILLER, str(path), *map(str, rng.uniform(0.002, 0.03, 20))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    for _ in range(20):
        assert killer.stdout.readline() == "killed\n"
        check_whole(path)
        killer.stdin.write("\n")
        killer.stdin.flush()
    killer.communicate()
    assert killer.returncode == 0
    names = {p.name for p in tmp_path.iterdir()} - {path.name}
    assert all(name.startswith(f".{path.name}-") and name.endswith(".tmp") for name in names)
    write_tensors(path, {"a": np.ones(1)})  # and they are in nobody's way
    assert value(path) == 1
