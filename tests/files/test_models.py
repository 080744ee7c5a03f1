"""mb.save and mb.load: what went out comes back, bit for bit, and what does not fit is refused."""

from __future__ import annotations

import copy
import json
import re
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from file_models import MODELS, Residual, Scale, nested, net

import matbackprop as mb
from matbackprop.files import architecture, build, description, read_tensors, write_tensors

X = np.random.default_rng(0).normal(size=(5, 2))


def bits(model: mb.Sequential) -> list[tuple[str, str, tuple[int, ...], bytes]]:
    return [(name, a.dtype.str, a.shape, a.tobytes()) for name, a in model.state_dict().items()]


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_round_trip(make, dtype, suffix, tmp_path) -> None:
    model = make(dtype=dtype)
    if model.parameters.size:
        model.parameters[:3] = -0.0, np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max
    path = tmp_path / f"model{suffix}"
    assert mb.save(model, path) is None
    twin = mb.load(path, layers=[Scale, Residual])
    assert bits(twin) == bits(model)
    assert twin.dtype == dtype
    assert re.sub(r", (weight_init|dtype)='\w+'", "", repr(twin)) == re.sub(
        r", (weight_init|dtype)='\w+'", "", repr(model)
    )
    x = X.astype(dtype) / 4
    if model.parameters.size:
        model.parameters = twin.parameters = np.random.default_rng(1).normal(size=model.parameters.size)
    assert twin.predict(x).tobytes() == model.predict(x).tobytes()
    y = np.zeros_like(model.predict(x))
    for layer in (*model.leaves(), *twin.leaves()):
        if isinstance(layer, mb.Dropout):
            layer.rng = 2  # which the file does not hold
    value, gradient = model.value_and_grad(x, y, mb.MSE())
    again, same = twin.value_and_grad(x, y, mb.MSE())
    assert (again, same.tobytes()) == (value, gradient.tobytes())
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("dtype", [np.longdouble, np.complex64, np.complex128])
def test_types_that_only_npz_holds(dtype, tmp_path) -> None:
    model = net(dtype=dtype)
    model.parameters += np.asarray(1, dtype) / 3
    mb.save(model, tmp_path / "model.npz")
    twin = mb.load(tmp_path / "model.npz")
    assert twin.dtype == dtype
    assert np.array_equal(twin.parameters, model.parameters)
    pytest.importorskip("safetensors", reason="needs safetensors: pip install 'matbackprop[io]'")
    with pytest.raises(TypeError, match=rf"cannot hold dtype {np.dtype(dtype)}; a .npz file can"):
        mb.save(model, tmp_path / "model.safetensors")
    assert not (tmp_path / "model.safetensors").exists()


def test_the_same_model_gives_the_same_file(suffix, tmp_path) -> None:
    for name in "ab":
        mb.save(nested(), tmp_path / f"{name}{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_torch_reads_the_file(torch, tmp_path) -> None:
    safetensors_torch = pytest.importorskip("safetensors.torch")
    for dtype in (np.float32, np.float64):
        model = net(dtype=dtype)
        model[0].weight = np.arange(6).reshape(2, 3).T  # given in another order than C
        mb.save(model, tmp_path / "ours.safetensors")
        theirs = torch.nn.Sequential(
            torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1, bias=False), torch.nn.Sigmoid()
        ).to(getattr(torch, np.dtype(dtype).name))
        theirs.load_state_dict(safetensors_torch.load_file(tmp_path / "ours.safetensors"))
        for name, tensor in theirs.state_dict().items():
            assert np.array_equal(tensor.numpy(), model.state_dict()[name])
        x = X.astype(dtype)
        tolerance = 1e-12 if dtype == np.float64 else 1e-6
        np.testing.assert_allclose(model.predict(x), theirs(torch.from_numpy(x)).detach().numpy(), rtol=tolerance)


def test_a_file_of_torch_goes_into_a_model(torch, tmp_path) -> None:
    safetensors_torch = pytest.importorskip("safetensors.torch")
    theirs = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1, bias=False))
    path = tmp_path / "theirs.safetensors"
    safetensors_torch.save_file(theirs.state_dict(), path, metadata={"format": "pt"})
    tensors, metadata = read_tensors(path)
    assert metadata == {"format": "pt"}
    model = net(dtype=np.float32)
    model.load_state_dict(tensors)
    for name, tensor in theirs.state_dict().items():
        assert np.array_equal(tensor.numpy(), model.state_dict()[name])
    with pytest.raises(ValueError, match="tensors and no architecture; make the model"):
        mb.load(path)


def test_a_user_s_class_that_was_renamed(tmp_path) -> None:
    path = tmp_path / "model.npz"
    mb.save(mb.Sequential(Scale(2)), path)
    New = type("New", (Scale,), {})
    assert type(mb.load(path, layers={"Scale": New})[0]) is New
    with pytest.raises(
        ValueError, match=r"model.layers.0: expected one of .*, got str 'Scale'; .*layers=\[its class\]"
    ):
        mb.load(path)


def test_a_subclass_that_adds_nothing_needs_no_config() -> None:
    Mine = type("Mine", (mb.Linear,), {})
    Chain = type("Chain", (mb.Sequential,), {})
    model = Chain(Mine(2, 1, bias=False), rng=0)
    twin = build(architecture(model), model.state_dict(), layers=[Mine, Chain])
    assert type(twin) is Chain
    assert type(twin[0]) is Mine
    assert bits(twin) == bits(model)


def test_nothing_is_drawn_in_loading(tmp_path, monkeypatch) -> None:
    mb.save(nested(), tmp_path / "model.npz")
    monkeypatch.setattr(mb.Linear, "initialize", lambda self, *args: None if self._parameters else pytest.fail("drawn"))
    mb.load(tmp_path / "model.npz")


class NoConfig(Scale):
    def __init__(self, features, power=2):
        super().__init__(features)


class Keywords(Scale):
    def __init__(self, **settings):
        super().__init__(2)


def config(value) -> mb.Sequential:
    return mb.Sequential(type("Odd", (Scale,), {"config": lambda self: value})(2))


def diverged() -> mb.Sequential:
    model = net()
    model[2].weight[0, 1] = np.inf
    return model


BAD_MODELS = {
    "None": (lambda: None, TypeError, "expected a Sequential, got None"),
    "a layer": (lambda: mb.Linear(2, 1), TypeError, "expected a Sequential, got Linear"),
    "no config": (
        lambda: mb.Sequential(NoConfig(2)),
        TypeError,
        r"layer 0, NoConfig\(\): define config\(self\) in NoC",
    ),
    "keywords": (lambda: mb.Sequential(Keywords()), TypeError, "define config"),
    "config of None": (lambda: config(None), TypeError, "config must return a dict, got None"),
    "an array in it": (lambda: config({"a": np.ones(2)}), TypeError, "config: a: expected what JSON has"),
    "a key that is an int": (lambda: config({"a": {1: 2}}), TypeError, "expected keys that are text, got int 1"),
    "NaN in it": (lambda: config({"a": float("nan")}), ValueError, "JSON has no nan"),
    "like a layer": (lambda: config({"a": {"layer": 1}}), ValueError, "would be taken for a layer"),
    "our name": (
        lambda: mb.Sequential(type("Tanh", (mb.ReLU,), {})()),
        TypeError,
        "name of one of the library's layers; rename",
    ),
    "diverged": (diverged, ValueError, r"save: '2.weight': expected finite numbers, got inf at \(0, 1\)"),
}


@pytest.mark.parametrize(("make", "error", "words"), BAD_MODELS.values(), ids=BAD_MODELS)
def test_bad_models(make, error, words, tmp_path) -> None:
    path = tmp_path / "model.npz"
    path.write_bytes(b"old")
    with pytest.raises(error, match=words):
        mb.save(make(), path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["model.npz"]


def changed(*where, to=None, **more) -> dict:
    """Return the architecture of `nested` with one part of it changed."""
    result = copy.deepcopy(architecture(nested()))
    part = result
    for key in where[:-1]:
        part = part[key]
    if where:
        part[where[-1]] = to
    return {**result, **more}


L = ("model", "settings", "layers")
BAD_ARCHITECTURES = {
    "None": (None, "expected an object, got None"),
    "a list": ([], "expected an object"),
    "no format": (changed(format=None), "expected the format 'matbackprop', got None"),
    "newer": (changed(version=2, more={}), r"written by a newer version .* version 2 .* up to 1: upgrade"),
    "version 0": (changed(version=0), "expected a version"),
    "version True": (changed(version=True), "expected a version, got bool True"),
    "another key": (changed(code="import os"), "expected format, version, dtype and model"),
    "dtype": (changed(dtype="O"), "expected a dtype among float32"),
    "dtype unhashable": (changed(dtype=[]), "expected a dtype among float32"),
    "other dtype": (changed(dtype="float32"), "'0.weight': expected an array of dtype float32"),
    "model": (changed("model", to=3), "model: expected a layer and its settings, got int 3"),
    "a layer alone": (changed("model", to={"layer": "Tanh"}), "expected a Sequential as the model, got Tanh"),
    "unknown layer": (changed(*L, 0, "layer", to="os.system"), r"layers\.0: expected one of .*, got str 'os.system'"),
    "unhashable layer": (changed(*L, 0, "layer", to=[]), "expected one of"),
    "abstract layer": (changed(*L, 0, "layer", to="Layer"), "expected one of"),
    "unknown setting": (changed(*L, 0, "settings", "p", to=1), "unexpected keyword argument 'p'"),
    "a setting that is no config": (changed(*L, 0, "settings", "weight_init", to="he"), "no setting str 'weight_init'"),
    "missing setting": (changed(*L, 0, "settings", to={"in_features": 2}), "missing 1 required"),
    "settings": (changed(*L, 0, "settings", to=[]), "expected settings as an object"),
    "another key in a layer": (changed(*L, 0, "module", to="os"), "expected a layer and its settings"),
    "huge": (
        changed(*L, 0, "settings", to={"in_features": 10**9, "out_features": 10**9}),
        r"layers.0: weight of shape \(1000000000, 1000000000\) is more than the tensors",
    ),
    "a little too large": (changed(*L, 0, "settings", "in_features", to=2000), "more than the tensors"),
    "beyond any memory": (changed(*L, 0, "settings", "in_features", to=10**30), "a size that fits memory"),
    "negative": (changed(*L, 0, "settings", "in_features", to=-1), "in_features: expected a positive integer"),
    "float": (changed(*L, 0, "settings", "in_features", to=2.0), "in_features: expected a positive integer"),
    "p": (changed(*L, 2, to={"layer": "Dropout", "settings": {"p": 1.5}}), "Dropout: p"),
    "bias": (changed(*L, 0, "settings", "bias", to=1), "bias: expected True or False"),
    "no bias": (changed(*L, 0, "settings", "bias", to=False), r"missing \[\], unknown \['0.bias'\]"),
    "no layers": (changed(*L, to=[]), "expected at least one layer"),
    "layers": (changed(*L, to={}), "expected a list of layers"),
    "not a layer among them": (changed(*L, 2, to=[]), "layer 2 must be a Layer"),
    "other widths": (changed(*L, 3, "settings", "in_features", to=1), "layer 3, .* takes 1 features, but layer 2"),
    "a layer less": (changed(*L, to=changed()["model"]["settings"]["layers"][:1]), r"unknown \['1.0.weight'"),
    "transposed": (
        changed(*L, to=[{"layer": "Linear", "settings": {"in_features": 3, "out_features": 2}}]),
        "do not match",
    ),
}


@pytest.mark.parametrize(("described", "words"), BAD_ARCHITECTURES.values(), ids=BAD_ARCHITECTURES)
def test_bad_architectures(described, words, tmp_path) -> None:
    path = tmp_path / "model.npz"
    write_tensors(path, nested().state_dict(), {"architecture": described})
    tracemalloc.start()
    with pytest.raises(ValueError, match=words) as caught:
        mb.load(path)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
    assert str(path) in str(caught.value)


def with_state(**changes) -> dict[str, np.ndarray]:
    state = {**nested().state_dict(), **{name.replace("__", "."): value for name, value in changes.items()}}
    return {name: value for name, value in state.items() if value is not None}


BAD_STATES = {
    "missing": (with_state(**{"0.bias": None}), r"missing \['0.bias'\]|more than the tensors"),
    "extra": (with_state(code=np.ones(1)), r"unknown \['code'\]"),
    "shape": (with_state(**{"0.weight": np.ones((2, 3))}), r"'0.weight': expected shape \(3, 2\).*transposed"),
    "dtype": (with_state(**{"0.weight": np.ones((3, 2), np.float32)}), "expected an array of dtype float64"),
    "integers": (with_state(**{"0.weight": np.ones((3, 2), int)}), "expected an array of dtype float64"),
    "NaN": (with_state(**{"0.weight": np.full((3, 2), np.nan)}), "'0.weight': expected finite numbers, got nan"),
    "none": ({}, "more than the tensors"),
}


@pytest.mark.parametrize(("state", "words"), BAD_STATES.values(), ids=BAD_STATES)
def test_bad_states(state, words, suffix, tmp_path) -> None:
    path = tmp_path / f"model{suffix}"
    write_tensors(path, state, {"architecture": architecture(nested())})
    with pytest.raises(ValueError, match=words):
        mb.load(path)


def test_nests_and_rows_of_layers_have_an_end(monkeypatch) -> None:
    def deep(levels: int) -> dict:
        described = {"layer": "Tanh"}
        for _ in range(levels):
            described = {"layer": "Sequential", "settings": {"layers": [described]}}
        return {**architecture(mb.Sequential(mb.Tanh())), "model": described}

    assert len(build(deep(30), {})) == 1  # in no time: nothing asks twice at each level
    with pytest.raises(ValueError, match="recursion"):
        build(deep(5000), {})
    monkeypatch.setattr(description, "MAX_LAYERS", 20)
    assert len(build(deep(19), {}).leaves()) == 1
    with pytest.raises(ValueError, match="at most 20 layers"):
        build(deep(20), {})
    row = [mb.Tanh() for _ in range(19)]
    assert len(build(architecture(mb.Sequential(*row)), {})) == 19
    with pytest.raises(ValueError, match="at most 20 layers, got 21"):
        architecture(mb.Sequential(mb.Tanh(), *(layer.copy() for layer in row)))


@pytest.mark.parametrize(
    ("layers", "error", "words"),
    [
        (Scale, TypeError, "expected a list of classes"),
        ([Scale(2)], TypeError, "expected subclasses of Layer, got Scale"),
        (["Scale"], TypeError, "expected subclasses of Layer, got str 'Scale'"),
        ([int], TypeError, "expected subclasses of Layer"),
        (None, TypeError, "expected a list of classes, .* got None"),
        ([mb.Linear], ValueError, "'Linear' is taken"),
        ([Scale, Scale], ValueError, "'Scale' is taken"),
        ({"Linear": Scale}, ValueError, "'Linear' is taken"),
    ],
)
def test_bad_classes(layers, error, words, tmp_path) -> None:
    mb.save(net(), tmp_path / "model.npz")
    with pytest.raises(error, match=words):
        mb.load(tmp_path / "model.npz", layers=layers)


def test_memory(suffix, tmp_path) -> None:
    """What the docstrings promise: three times the file's size to read tensors, six for a model, even a nested one."""
    model = mb.Sequential(mb.Linear(1000, 1000), rng=0, dtype=np.float32)
    for _ in range(10):
        model = mb.Sequential(model)  # which must let go of the vectors that it had
    path = tmp_path / f"model{suffix}"
    mb.save(model, path)
    size, peaks = path.stat().st_size, []
    for function in (read_tensors, mb.load):
        tracemalloc.start()
        function(path)
        peaks.append(tracemalloc.get_traced_memory()[1] / size)
        tracemalloc.stop()
    assert peaks[0] <= 3
    assert peaks[1] <= 6


def test_without_safetensors(monkeypatch, tmp_path) -> None:
    for name in ("safetensors", "safetensors.numpy"):
        monkeypatch.setitem(sys.modules, name, None)
    path = tmp_path / "model.safetensors"
    with pytest.raises(ImportError, match=r"pip install 'matbackprop\[io\]'"):
        mb.save(net(), path)
    assert not path.exists()
    path.write_bytes(b"")
    with pytest.raises(ImportError, match=r"pip install 'matbackprop\[io\]'"):
        mb.load(path)


def test_the_file_says_what_it_is(tmp_path) -> None:
    """The format, once and for all: a change here needs another version."""
    path = tmp_path / "model.npz"
    mb.save(mb.Sequential(mb.Linear(2, 1), mb.Sequential(mb.Tanh())), path)
    with np.load(path) as archive:
        assert sorted(archive) == ["0.bias", "0.weight", "__metadata__"]
        assert json.loads(bytes(archive["__metadata__"])) == {
            "architecture": {
                "format": "matbackprop",
                "version": 1,
                "dtype": "float64",
                "model": {
                    "layer": "Sequential",
                    "settings": {
                        "layers": [
                            {"layer": "Linear", "settings": {"in_features": 2, "out_features": 1, "bias": True}},
                            {"layer": "Sequential", "settings": {"layers": [{"layer": "Tanh"}]}},
                        ]
                    },
                },
            }
        }


def test_save_and_load_are_imported_on_demand() -> None:
    assert mb.save.__module__ == "matbackprop.files.models"
    assert Path(sys.modules["matbackprop.files"].__file__).name == "__init__.py"
