"""A model's architecture as JSON, and a model out of it: layers by name, each with its settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

import numpy as np

from matbackprop.chain import Chain
from matbackprop.dropout import Dropout
from matbackprop.files.limits import MAX_LAYERS
from matbackprop.files.strict_json import Json, check_json
from matbackprop.flat import named_parameters, stand_in
from matbackprop.layer import VARARGS, Layer
from matbackprop.layers import Linear, ReLU, Sigmoid, Tanh
from matbackprop.sequential import Sequential
from matbackprop.validation import DTYPES, Array, describe

__all__ = ["architecture", "build"]

FORMAT, VERSION = "matbackprop", 1

#: The layers that need no telling: all of the library's own.
BUILT_IN: dict[str, type[Layer]] = {cls.__name__: cls for cls in (Dropout, Linear, ReLU, Sequential, Sigmoid, Tanh)}

#: By name. What a longdouble is depends on the machine, so its name there says how many bits it has.
_TYPES = {f"longdouble{np.finfo(np.longdouble).nmant}" if dtype.char == "g" else dtype.name: dtype for dtype in DTYPES}

_VARKEYWORDS = 0x08  # inspect.CO_VARKEYWORDS


def architecture(model: Sequential) -> dict[str, Json]:
    """Return what there is to say of a model apart from its parameters, as JSON.

    Each layer answers for itself, by `Layer.config`. Neither the rules and generators by which weights were drawn, nor
    anything else that a layer holds beside its settings and parameters, is part of it.

    Raises
    ------
    TypeError, ValueError
        If `model` is not a Sequential, or a layer of your own has settings and no `config`.

    Examples
    --------
    >>> import matbackprop as mb
    >>> from matbackprop.files import architecture
    >>> described = architecture(mb.Sequential(mb.Linear(2, 1), mb.Tanh()))
    >>> described["format"], described["version"], described["dtype"]
    ('matbackprop', 1, 'float64')
    >>> for layer in described["model"]["settings"]["layers"]:
    ...     print(layer)
    {'layer': 'Linear', 'settings': {'in_features': 2, 'out_features': 1, 'bias': True}}
    {'layer': 'Tanh'}
    """
    if not isinstance(model, Sequential):
        raise TypeError(f"architecture: expected a Sequential, got {describe(model)}; put a layer into one")
    count = sum(1 for _ in model.walk())
    if count > MAX_LAYERS:
        raise ValueError(f"architecture: expected at most {MAX_LAYERS:,} layers, got {count:,}")
    name = next(name for name, dtype in _TYPES.items() if dtype == model.dtype)
    result = {"format": FORMAT, "version": VERSION, "dtype": name, "model": _describe(model)}
    check_json(result, "architecture")
    return result


def _describe(layer: Layer) -> dict[str, Json]:
    """Return the JSON of one layer."""
    cls = type(layer)
    if BUILT_IN.get(cls.__name__, cls) is not cls:
        raise TypeError(f"{layer.label}: has the name of one of the library's layers; rename the class")
    makes, says = (next(c for c in cls.__mro__ if name in vars(c)) for name in ("__init__", "config"))
    if not issubclass(says, makes) and _takes_arguments(makes):
        raise TypeError(
            f"{layer.label}: define config(self) in {cls.__name__}: it returns the keyword arguments that make this "
            f"layer again"
        )
    config = layer.config()
    if not isinstance(config, dict):
        raise TypeError(f"{layer.label}: config must return a dict, got {describe(config)}")
    settings = {name: _setting(value, f"{layer.label}: config: {name}") for name, value in config.items()}
    return {"layer": cls.__name__, **({"settings": settings} if settings else {})}


def _setting(value: Any, name: str) -> Json:
    """Return the JSON of a setting: a layer, a list with layers in it, or JSON as it is."""
    if isinstance(value, Layer):
        return _describe(value)
    if isinstance(value, (list, tuple)):
        return [_setting(part, name) for part in value]
    check_json(value, name)
    if isinstance(value, dict) and "layer" in value:
        raise ValueError(f"{name}: a dict with the key 'layer' would be taken for a layer; use another key")
    return value


def _takes_arguments(cls: type) -> bool:
    code = getattr(cls.__init__, "__code__", None)  # type: ignore[misc]
    if code is None:
        return cls is not object
    return code.co_argcount + code.co_kwonlyargcount > 1 or bool(code.co_flags & (VARARGS | _VARKEYWORDS))


def build(
    architecture: Mapping[str, Json],
    tensors: Mapping[str, Array],
    *,
    layers: Iterable[type[Layer]] | Mapping[str, type[Layer]] = (),
) -> Sequential:
    """Return a model of this architecture with these parameters.

    Both may come from anywhere. Only the library's layers are made, and those in `layers`; nothing is looked up by
    name anywhere else. No parameter is allocated before the tensors are seen to have as many: what is made takes at
    most four times their size. (What a layer of your own allocates in its constructor is its own affair.)

    Parameters
    ----------
    architecture : mapping
        As `architecture` returns it.
    tensors : mapping of str to numpy.ndarray
        A ``state_dict()``: exactly the model's parameters, finite, of exactly its type and shapes. They are copied.
    layers : iterable of classes, or mapping of str to class, optional
        The layers of your own, by the names of the classes or those that you give.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If the architecture is malformed, has an unknown layer or setting, or was written by a newer version, or if the
        tensors do not fit it.

    Examples
    --------
    >>> import matbackprop as mb
    >>> from matbackprop.files import architecture, build
    >>> model = mb.Sequential(mb.Linear(2, 1), mb.Tanh(), rng=0)
    >>> twin = build(architecture(model), model.state_dict())
    >>> bool((twin.parameters == model.parameters).all())
    True
    """
    if not isinstance(tensors, Mapping):
        raise TypeError(f"build: expected a mapping of names to arrays, got {describe(tensors)}")
    known = BUILT_IN | _as_classes(layers)
    described, dtype = _check_head(architecture)
    for name, array in tensors.items():
        if getattr(array, "dtype", None) != dtype:
            raise ValueError(
                f"{name[:60]!r}: expected an array of dtype {dtype}, as the architecture says, got {describe(array)}"
            )
    builder = _Builder(known, dtype, sum(array.size for array in tensors.values()))
    try:
        model = builder.make(described, "model")
        if not isinstance(model, Sequential):
            raise ValueError(f"the architecture: expected a Sequential as the model, got {describe(model)}")
        model.load_state_dict(tensors)
    except (TypeError, RecursionError) as error:
        raise ValueError(f"the architecture: {error}") from error
    return model


def _as_classes(layers: Iterable[type[Layer]] | Mapping[str, type[Layer]]) -> dict[str, type[Layer]]:
    """Return the layers of a user's own by name."""
    try:
        pairs = layers.items() if isinstance(layers, Mapping) else [(getattr(c, "__name__", ""), c) for c in layers]
    except TypeError:
        raise TypeError(f"layers: expected a list of classes, or a dict of them, got {describe(layers)}") from None
    result: dict[str, type[Layer]] = {}
    for name, cls in pairs:
        if not isinstance(cls, type) or not issubclass(cls, Layer):
            raise TypeError(f"layers: expected subclasses of Layer, got {describe(cls)}")
        if name in BUILT_IN or name in result:
            raise ValueError(f"layers: the name {name!r} is taken; give another one with layers={{name: class}}")
        result[name] = cls
    return result


def _check_head(architecture: Mapping[str, Json]) -> tuple[Json, np.dtype[Any]]:
    """Return the model's JSON and its type, if this is an architecture of ours that we can read."""
    if not isinstance(architecture, Mapping):
        raise ValueError(f"the architecture: expected an object, got {describe(architecture)}")
    if architecture.get("format") != FORMAT:
        raise ValueError(
            f"the architecture: expected the format {FORMAT!r}, got {describe(architecture.get('format'))}"
        )
    version = architecture.get("version")
    if type(version) is not int or version < 1:
        raise ValueError(f"the architecture: expected a version, got {describe(version)}")
    if version > VERSION:
        raise ValueError(
            f"the architecture: was written by a newer version of matbackprop, in version {version} of the format; "
            f"this one reads up to {VERSION}: upgrade it"
        )
    if set(architecture) != {"format", "version", "dtype", "model"}:
        raise ValueError(
            f"the architecture: expected format, version, dtype and model, got {describe(list(architecture))}"
        )
    dtype = architecture["dtype"]
    if not isinstance(dtype, str) or dtype not in _TYPES:
        raise ValueError(f"the architecture: expected a dtype among {', '.join(_TYPES)}, got {describe(dtype)}")
    return architecture["model"], _TYPES[dtype]


class _Builder:
    """Makes layers from the inside out, with stand-ins for their parameters, until what was allotted is used up."""

    def __init__(self, known: Mapping[str, type[Layer]], dtype: np.dtype[Any], values: int) -> None:
        self.known, self.dtype, self.values, self.layers = known, dtype, values, 0

    def make(self, described: Json, where: str) -> Layer:
        """Return the layer that the JSON describes."""
        who = f"the architecture: {where}"
        if not isinstance(described, dict) or not described.keys() <= {"layer", "settings"}:
            raise ValueError(f"{who}: expected a layer and its settings, got {describe(described)}")
        name, settings = described.get("layer"), described.get("settings", {})
        if not isinstance(name, str) or name not in self.known:
            raise ValueError(
                f"{who}: expected one of {', '.join(self.known)}, got {describe(name)}; for a layer of your own, "
                "pass layers=[its class]"
            )
        if not isinstance(settings, dict):
            raise ValueError(f"{who}: expected settings as an object, got {describe(settings)}")
        self.layers += 1
        if self.layers > MAX_LAYERS:
            raise ValueError(f"the architecture: expected at most {MAX_LAYERS:,} layers")
        ready = {key: self._value(value, f"{where}.{key[:60]}") for key, value in settings.items()}
        try:
            layer = self.known[name].from_config(ready)
            unknown = ready.keys() - layer.config().keys()
        except (TypeError, ValueError) as error:
            raise ValueError(f"{who}: {error}") from error
        if unknown:
            raise ValueError(f"{who}: {name} has no setting {describe(min(unknown))}")
        if not isinstance(layer, Chain):  # whose layers were made here
            self._reserve(layer, who)
        return layer

    def _value(self, value: Json, where: str) -> Any:
        if isinstance(value, dict) and "layer" in value:
            return self.make(value, where)
        if isinstance(value, list):
            return [self._value(part, f"{where}.{index}") for index, part in enumerate(value)]
        return value

    def _reserve(self, layer: Layer, who: str) -> None:
        """Let zeros that take no memory stand for the parameters not yet drawn, so that none are."""
        drawn = named_parameters(layer)
        for prefix, part in layer.walk():
            part.requested_dtype = part.requested_dtype or self.dtype
            for name, shape in part.parameter_shapes().items():
                if prefix + name in drawn:
                    continue
                self.values -= prod(shape)
                if self.values < 0:
                    raise ValueError(f"{who}: {name} of shape {shape} is more than the tensors in the file hold")
                stand_in(part, name, shape, self.dtype)
