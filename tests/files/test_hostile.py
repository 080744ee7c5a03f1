"""Files from anywhere: whatever they hold, an error that says so, and no memory beyond what they take themselves."""

from __future__ import annotations

import contextlib
import io
import json
import re
import struct
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from file_models import Scale, nested
from hypothesis import given, settings
from hypothesis import strategies as st

import matbackprop as mb
from matbackprop.files import npz_format, read_tensors, safetensors_format
from matbackprop.files.limits import MAX_BYTES


def tensor(dtype="F64", shape=(1,), start=0, stop=8) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


def described(text: str, order: str = "[]") -> bytes:
    """Return a safetensors file of no tensors with this metadata."""
    return safetensors({"__metadata__": {"matbackprop": f'{{"order":{order},"metadata":{text}}}'}})


def safetensors(header, body=b"", length=None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


ONE = safetensors({"a": tensor()}, bytes(8))

SAFETENSORS = {
    "empty": (b"", "truncated, or not a safetensors file"),
    "seven bytes": (bytes(7), "truncated"),
    "random": (b"\x93NUMPY" * 20, "truncated, or not a safetensors file"),
    "truncated": (ONE[:-1], "not fully covered"),
    "truncated in the header": (ONE[:20], "truncated"),
    "trailing bytes": (ONE + b"\0", "not fully covered"),
    "overlap": (safetensors({"a": tensor(), "b": tensor()}, bytes(8)), "invalid offset"),
    "hole": (safetensors({"a": tensor(start=8, stop=16)}, bytes(16)), "invalid offset"),
    "reversed": (safetensors({"a": tensor(start=8, stop=0)}, bytes(8)), "invalid offset"),
    "huge": (safetensors({"a": tensor(shape=(10**9, 10**9))}), "invalid shape|overflow|not fully"),
    "overflow": (safetensors({"a": tensor(shape=(2**62, 4), stop=0)}), "overflow"),
    "negative": (safetensors({"a": tensor(shape=(-1,))}, bytes(8)), "expected usize"),
    "float": (safetensors({"a": tensor(shape=(1.0,))}, bytes(8)), "expected usize"),
    "dimensions": (safetensors({"a": tensor(shape=(1,) * 100)}, bytes(8)), "maximum supported dimension"),
    "a key twice": (
        safetensors(b'{"a":%s,"a":%s}' % ((json.dumps(tensor()).encode(),) * 2), bytes(8)),
        "header: the key 'a' stands twice",
    ),
    "a type we lack": (safetensors({"a": tensor("BF16", (4,))}, bytes(8)), "'a': expected a dtype among BOOL, .*BF16"),
    "no type": (safetensors({"a": 1}), "'a': expected a dtype"),
    "an odd bool": (safetensors({"a": tensor("BOOL", (2,), 0, 2)}, b"\1\2"), "'a': a bool that is neither 0 nor 1"),
    "a list": (safetensors([]), "expected an object of tensors"),
    "no JSON": (safetensors(b"{,}"), "header: Expecting"),
    "not UTF-8": (safetensors(b'{"\xff":1}'), "header: 'utf-8' codec"),
    "deep": (safetensors(b"[" * 10**6), "header: nested too deeply"),
    "long header": (safetensors(b" " * (MAX_BYTES + 1)), "says that it takes 4,194,305 bytes"),
    "NaN": (safetensors(b'{"a":NaN}'), "JSON has no nan"),
    "metadata": (safetensors({"__metadata__": {"a": 1}}), "metadata that maps text to text"),
    "metadata, a list": (safetensors({"__metadata__": []}), "metadata that maps text to text"),
    "no object": (described("[]"), "metadata: expected an object"),
    "broken": (described("{"), "metadata: Expecting"),
    "twice": (described('{"a":1,"a":2}'), "metadata: the key 'a' stands twice"),
    "infinite": (described('{"a":1e999}'), "a: JSON has no inf"),
    "digits": (described("1" * 10**6), "an integer of 1000000 digits"),
    "levels": (described("[" * 500 + "]" * 500), "more than 100 levels"),
    "an order of others": (described("{}", '["a"]'), "the order is not that of the tensors in the file"),
    "an order of lists": (described("{}", "[[]]"), "the order is not that of the tensors in the file"),
    "no order": (described("{}", "{}"), "the order is not that of the tensors in the file"),
    "no more": (safetensors({"__metadata__": {"matbackprop": "{}"}}), "expected an object with order and metadata"),
}


def npy(header: str = "{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }", body=bytes(8), version=1) -> bytes:
    text = header.encode() + b" " * 10 + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<L", len(text)) + text + body


def npz(members, kind=zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", kind) as archive:
        warnings.simplefilter("ignore")  # names that stand twice
        for name, content in members.items() if isinstance(members, dict) else members:
            archive.writestr(name, content)
    return buffer.getvalue()


def with_shape(text: str, body: bytes = b"") -> bytes:
    return npz({"a.npy": npy(f"{{'descr': '<f8', 'fortran_order': False, 'shape': {text}, }}", body)})


def with_type(text: str) -> bytes:
    return npz({"a.npy": npy(f"{{'descr': {text}, 'fortran_order': False, 'shape': (1,), }}")})


def patched(data: bytes, record: bytes, offset: int, number: bytes, which: int = 0) -> bytes:
    """Return the archive with a field of one of its records changed."""
    at = -1
    for _ in range(which + 1):
        at = data.index(record, at + 1)
    at += offset
    return data[:at] + number + data[at + len(number) :]


SOUND = npz({"a.npy": npy(), "b.npy": npy()})
END, ENTRY = b"PK\5\6", b"PK\1\2"

NPZ = {
    "empty": (b"", "truncated, or not a .npz file"),
    "random": (b"\x93NUMPY" * 20, "truncated, or not a .npz file"),
    "truncated": (SOUND[:-1], "truncated, or not a .npz file"),
    "cut off in front": (SOUND[10:], "overlaps|not a sound .npz file"),
    "trailing bytes": (SOUND + b"\0", "truncated, or not a .npz file"),
    "a comment": (SOUND[:-2] + b"\1\0x", "truncated, or not a .npz file"),
    "compressed": (npz({"a.npy": npy()}, zipfile.ZIP_DEFLATED), "'a.npy' is compressed or encrypted; write it with np"),
    "a bomb": (npz({"a.npy": bytes(10**7)}, zipfile.ZIP_DEFLATED), "compressed"),
    "encrypted": (patched(SOUND, ENTRY, 8, b"\1"), "compressed or encrypted"),
    "unknown method": (patched(SOUND, ENTRY, 10, b"\x63"), "compressed"),
    "a flipped bit": (SOUND.replace(bytes(8), bytes(7) + b"\1", 1), "Bad CRC|not a sound"),
    "no array": (npz({"a.txt": b"x"}), "member 'a.txt': expected a .npy file"),
    "a folder": (npz({"a/": b""}), "expected a .npy file"),
    "twice": (npz([("a.npy", npy()), ("a.npy", npy())]), "'a.npy' stands twice"),
    "overlap": (patched(SOUND, ENTRY, 42, bytes(4), which=1), "overlaps|File name"),
    "beyond the end": (patched(patched(SOUND, ENTRY, 20, b"\xff\xff\xff\0"), ENTRY, 24, b"\xff\xff\xff\0"), "overlaps"),
    "long list": (patched(SOUND, END, 12, b"\xff\xff\xff\x7f"), "list of members takes 2,147,483,647 bytes"),
    "huge": (with_shape("(1000000000, 1000000000)"), "'a.npy': an array of shape .* takes 8,000,000,000,000,000,0"),
    "too short": (with_shape("(2,)", bytes(15)), "takes .* bytes, got"),
    "too long": (with_shape("(2,)", bytes(17)), "takes .* bytes, got"),
    "overflow": (with_shape("(400000000000000000, 400)"), "takes 1,280,000,000,000,000,000,0"),
    "negative": (with_shape("(-1,)", bytes(8)), "expected the header of an array of numbers"),
    "dimensions": (with_shape(f"({'1, ' * 70})", bytes(8)), "dimension"),
    "code": (with_shape("__import__('os')"), "expected the header of an array of numbers"),
    "objects": (with_type("'|O'"), "expected the header of an array of numbers"),
    "text": (with_type("'<U2'"), "expected the header of an array of numbers"),
    "records": (with_type("[('x', '<f8')]"), "expected the header of an array of numbers"),
    "no such type": (with_type("'<f3'"), "expected a dtype among .*, got 'f3'"),
    "a long header": (npz({"a.npy": npy("{" + "(" * 60000)}), "expected the header"),
    "a longer header": (npz({"a.npy": npy("{" + "(" * 10**6, version=2)}), "expected the header"),
    "a later version": (npz({"a.npy": npy(version=9)}), "expected the header|version"),
    "no magic": (npz({"a.npy": bytes(200)}), "magic"),
    "an empty member": (npz({"a.npy": b""}), "magic|EOF"),
    "an odd bool": (
        npz({"a.npy": npy("{'descr': '|b1', 'fortran_order': False, 'shape': (1,), }", b"\2")}),
        "'a': a bool that is neither 0 nor 1",
    ),
    "metadata": (npz({"__metadata__.npy": npy()}), "__metadata__: expected a vector of uint8"),
}


@pytest.mark.parametrize(("data", "words"), NPZ.values(), ids=NPZ)
def test_npz(data, words, tmp_path) -> None:
    check_refused(tmp_path / "a.npz", data, words)


@pytest.mark.parametrize(("data", "words"), SAFETENSORS.values(), ids=SAFETENSORS)
def test_safetensors(data, words, tmp_path) -> None:
    pytest.importorskip("safetensors", reason="needs safetensors: pip install 'matbackprop[io]'")
    check_refused(tmp_path / "a.safetensors", data, words)


def check_refused(path: Path, data: bytes, words: str) -> None:
    path.write_bytes(data)
    for function in (read_tensors, mb.load):
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match=words) as caught:
                function(path)
            assert tracemalloc.get_traced_memory()[1] < 6 * len(data) + (64 << 20)
        finally:
            tracemalloc.stop()
        assert str(path) in str(caught.value)


def test_the_sound_ones_are_read(tmp_path) -> None:
    """Or the tables above would prove nothing."""
    (tmp_path / "a.npz").write_bytes(SOUND)
    assert list(read_tensors(tmp_path / "a.npz")[0]) == ["a", "b"]
    pytest.importorskip("safetensors", reason="needs safetensors: pip install 'matbackprop[io]'")
    (tmp_path / "a.safetensors").write_bytes(ONE)
    assert list(read_tensors(tmp_path / "a.safetensors")[0]) == ["a"]


def test_so_many_tensors_and_no_more(sound, monkeypatch) -> None:
    module = npz_format if sound.suffix == ".npz" else safetensors_format
    count = len(read_tensors(sound)[0])
    monkeypatch.setattr(module, "MAX_TENSORS", count)
    assert len(read_tensors(sound)[0]) == count
    monkeypatch.setattr(module, "MAX_TENSORS", count - 1)
    with pytest.raises(ValueError, match=f"expected at most {count - 1} tensors"):
        read_tensors(sound)


# Anything else. benchmarks/fuzz_load.py does this for as long as one likes.


@st.composite
def damage(draw, data: bytes) -> bytes:
    """Draw a few changes of the data, half of them in the part that describes it."""
    array = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(array)))
        cut = draw(st.sampled_from([0, 0, 1, 8, len(array)]))
        new = draw(st.sampled_from([b"", b"\0", b"\xff" * 4, b"9", b"-", b"[", b'"', b"{", b"1e999", b"\0" * 8]))
        array[at : at + cut] = new if draw(st.booleans()) else draw(st.binary(max_size=9))
    return bytes(array)


@pytest.fixture
def sound(suffix, tmp_path) -> Path:
    model = mb.Sequential(nested(dtype=np.float32), Scale(1))
    mb.save(model, tmp_path / f"a{suffix}")
    return tmp_path / f"a{suffix}"


def test_damage_is_refused_or_harmless(sound) -> None:
    data = sound.read_bytes()

    @settings(max_examples=150, database=None)
    @given(st.one_of(damage(data), st.binary(max_size=200)))
    def check(changed: bytes) -> None:
        sound.write_bytes(changed)
        with contextlib.suppress(ValueError):
            assert np.isfinite(mb.load(sound, layers=[Scale]).parameters).all()

    check()


def test_every_truncation_is_refused(sound) -> None:
    data = sound.read_bytes()
    for length in range(0, len(data), 29):
        sound.write_bytes(data[:length])
        with pytest.raises(ValueError, match=re.escape(str(sound))):
            mb.load(sound, layers=[Scale])
