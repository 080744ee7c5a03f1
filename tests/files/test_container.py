"""write_tensors and read_tensors: every type and shape, metadata, and what is refused on the way in."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

from matbackprop.files import read_tensors, write_tensors
from matbackprop.files.limits import MAX_BYTES

TYPES = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"]
SHAPES = [(), (0,), (1,), (5,), (0, 3), (2, 3), (2, 1, 3)]


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_and_shape(kind, suffix, tmp_path, rng) -> None:
    tensors = {}
    for shape in SHAPES:
        raw = rng.integers(0, 256, (*shape, np.dtype(kind).itemsize), np.uint8)  # NaNs with payloads, too
        raw = raw % 2 if kind == "?" else raw
        tensors[f"t{shape}"] = np.ascontiguousarray(raw).view(kind).reshape(shape)
    write_tensors(tmp_path / f"a{suffix}", tensors)
    read, metadata = read_tensors(tmp_path / f"a{suffix}")
    assert metadata == {}
    assert list(read) == list(tensors)
    for name, array in tensors.items():
        assert same(read[name], array), name
        assert read[name].flags.writeable
        assert read[name].flags.c_contiguous


@pytest.mark.parametrize("kind", [np.longdouble, np.complex64, np.complex128])
def test_types_of_npz(kind, tmp_path, rng) -> None:
    array = (rng.normal(size=(2, 3)) + (1j if np.dtype(kind).kind == "c" else 0)).astype(kind) / 3
    write_tensors(tmp_path / "a.npz", {"a": array})
    read = read_tensors(tmp_path / "a.npz")[0]["a"]
    assert read.dtype == kind
    assert np.array_equal(read, array)
    pytest.importorskip("safetensors", reason="needs safetensors: pip install 'matbackprop[io]'")
    with pytest.raises(TypeError, match=r"'a': a .safetensors file cannot hold dtype .*; a .npz file can hold it"):
        write_tensors(tmp_path / "a.safetensors", {"a": array})


def test_arrays_in_other_orders(suffix, tmp_path) -> None:
    a = np.arange(24.0).reshape(2, 3, 4)
    tensors = {"T": a.T, "F": np.asfortranarray(a), "strided": a[:, ::-1, ::2], "big": a.astype(">f8")}
    tensors["broadcast"] = np.broadcast_to(np.float32(1), (2, 2))
    write_tensors(tmp_path / f"a{suffix}", tensors)
    read = read_tensors(tmp_path / f"a{suffix}")[0]
    for name, array in tensors.items():
        assert np.array_equal(read[name], array), name
        assert read[name].dtype.isnative


METADATA = {
    "": None,
    "generators": [np.random.PCG64(0).state, np.random.MT19937(0).state["state"]["pos"]],
    "ints": [0, -1, 2**63, 2**64, -(2**200), 2**4096 - 1],
    "floats": [0.0, -0.0, 0.1, 1 / 3, 5e-324, 1.7976931348623157e308, 1e22],
    "flags": [True, False],
    "text": 'é\n\0"\\ \U0001f600',
    "nested": {"a": {"b": [[[]], {}]}},
    "deep": json.loads("[" * 99 + "]" * 99),
}


def test_metadata(suffix, tmp_path) -> None:
    write_tensors(tmp_path / f"a{suffix}", {}, METADATA)
    tensors, metadata = read_tensors(tmp_path / f"a{suffix}")
    assert tensors == {}
    assert metadata == METADATA
    assert list(metadata) == list(METADATA)
    assert repr(metadata) == repr(METADATA)  # the sign of zero; True is not 1


def test_numpy_reads_and_writes_the_same(tmp_path) -> None:
    tensors = {"0.weight": np.ones((2, 3)), "file": np.zeros(0, np.int32)}
    write_tensors(tmp_path / "ours.npz", tensors, {"a": 1})
    with np.load(tmp_path / "ours.npz", allow_pickle=False) as archive:
        assert json.loads(bytes(archive["__metadata__"])) == {"a": 1}
        assert all(same(archive[name], array) for name, array in tensors.items())
    np.savez(tmp_path / "theirs.npz", a=np.asfortranarray(tensors["0.weight"]), b=np.ones((), ">f4"))
    read, metadata = read_tensors(tmp_path / "theirs.npz")
    assert metadata == {}
    assert same(read["a"], tensors["0.weight"])
    assert same(read["b"], np.ones((), np.float32))


def test_the_safetensors_package_reads_and_writes_the_same(tmp_path) -> None:
    library = pytest.importorskip("safetensors.numpy", reason="needs safetensors: pip install 'matbackprop[io]'")
    tensors = {"b": np.ones((2, 3), np.float32), "a": np.ones((), bool)}
    write_tensors(tmp_path / "ours.safetensors", tensors, {"x": 1})
    read = library.load_file(tmp_path / "ours.safetensors")
    assert all(same(read[name], array) for name, array in tensors.items())
    library.save_file(tensors, tmp_path / "theirs.safetensors", metadata={"by": "them", "x": "{"})
    read, metadata = read_tensors(tmp_path / "theirs.safetensors")
    assert metadata == {"by": "them", "x": "{"}
    assert all(same(read[name], array) for name, array in tensors.items())


class Str:
    def __fspath__(self) -> str:
        return "x.npz"


def test_kinds_of_paths(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("x.npz", Path("x.npz"), Str(), "X.NPZ", "./é x.y.npz"):
        write_tensors(path, {"a": np.ones(1)})
        assert read_tensors(path)[0]["a"] == 1


deep: list = []
for _ in range(200):
    deep = [deep]
circle: dict = {}
circle["a"] = circle
ONE = {"a": np.ones(1)}

BAD_CALLS = {
    "bytes": ((b"a.npz", ONE), TypeError, "path: expected a path as str or os.PathLike, got bytes .*os.fsdecode"),
    "None": ((None, ONE), TypeError, "expected a path as str or os.PathLike, got None"),
    "a number": ((1, ONE), TypeError, "expected a path"),
    "a file": ((io.BytesIO(), ONE), TypeError, "expected a path .*pass its name"),
    "empty": (("", ONE), ValueError, "expected a name that ends in .safetensors or .npz, got ''"),
    "no suffix": (("model", ONE), ValueError, "expected a name that ends in .safetensors or .npz, got ''"),
    "pickle": (("model.pkl", ONE), ValueError, "expected a name that ends in .* got '.pkl'"),
    "torch's": (("model.pt", ONE), ValueError, "got '.pt'"),
    "NUL": (("a\0.npz", ONE), ValueError, "null"),
    "a list": (("a.npz", [np.ones(1)]), TypeError, "tensors: expected a mapping, got list"),
    "metadata": (("a.npz", ONE, [1]), TypeError, "metadata: expected a mapping, got list"),
    "an int as name": (("a.npz", {0: np.ones(1)}), TypeError, "names that are text, got int 0"),
    "no name": (("a.npz", {"": np.ones(1)}), ValueError, "names of 1 to 1000 printable characters"),
    "our name": (("a.npz", {"__metadata__": np.ones(1)}), ValueError, "'__metadata__' not among them"),
    "NUL in a name": (("a.npz", {"a\0b": np.ones(1)}), ValueError, "printable"),
    "a surrogate": (("a.npz", {"\ud800": np.ones(1)}), ValueError, "printable"),
    "a long name": (("a.npz", {"a" * 1001: np.ones(1)}), ValueError, "1 to 1000"),
    "a sequence": (("a.npz", {"a": [1.0]}), TypeError, "'a': expected a NumPy array, got list"),
    "masked": (("a.npz", {"a": np.ma.ones(1)}), TypeError, "expected a NumPy array, got MaskedArray"),
    "objects": (("a.npz", {"a": np.array([None])}), TypeError, "'a': a .npz file cannot hold dtype object"),
    "text": (("a.npz", {"a": np.array(["x"])}), TypeError, "cannot hold dtype <U1"),
    "dates": (("a.npz", {"a": np.array(["2020"], "M8[D]")}), TypeError, "cannot hold dtype datetime"),
    "records": (("a.npz", {"a": np.zeros(1, "i4,f8")}), TypeError, "cannot hold dtype"),
    "NaN": (("a.npz", {}, {"loss": float("nan")}), ValueError, "loss: JSON has no nan; use None, or a tensor"),
    "infinity": (("a.npz", {}, {"best": [np.inf]}), ValueError, "best: JSON has no inf"),
    "an array": (("a.npz", {}, {"a": np.ones(1)}), TypeError, "a: expected what JSON has"),
    "a NumPy integer": (("a.npz", {}, {"a": np.int64(1)}), TypeError, r"a: expected what JSON has .* got int64"),
    "bytes in it": (("a.npz", {}, {"a": b""}), TypeError, "a: expected what JSON has"),
    "a key": (("a.npz", {}, {"a": {1: 2}}), TypeError, "a: expected keys that are text, got int 1"),
    "a huge integer": (("a.npz", {}, {"a": 2**4096}), ValueError, "a: an integer of more than 4096 bits"),
    "deep": (("a.npz", {}, {"a": deep}), ValueError, "nested more than 100 levels"),
    "a circle": (("a.npz", {}, circle), ValueError, "nested more than 100 levels"),
    "long": (("a.npz", {}, {"a": "x" * MAX_BYTES}), ValueError, "keep numbers as tensors"),
    "many": (("a.npz", {str(i): np.ones(0) for i in range(20_001)}), ValueError, "at most 20,000, got 20,001"),
    "long names": (("a.npz", {f"{i:01000}": np.ones(0) for i in range(5000)}), ValueError, "at most 4,194,304"),
}


@pytest.mark.parametrize(("arguments", "error", "words"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_calls(arguments, error, words, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.npz").write_bytes(b"old")
    with pytest.raises(error, match=words):
        write_tensors(*arguments)
    assert Path("a.npz").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1
    if not re.match(r"a\.npz", str(arguments[0])):
        with pytest.raises(error, match=words):
            read_tensors(arguments[0])


def test_long_names_in_safetensors(tmp_path) -> None:
    pytest.importorskip("safetensors", reason="needs safetensors: pip install 'matbackprop[io]'")
    with pytest.raises(ValueError, match=r"a\.safetensors: names and metadata take [\d,]+ bytes, expected at most"):
        write_tensors(tmp_path / "a.safetensors", {f"{i:01000}": np.ones(0) for i in range(5000)})
