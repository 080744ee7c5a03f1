"""A model in one file: its architecture and its parameters."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from matbackprop.files.container import read_tensors, write_tensors
from matbackprop.files.description import architecture, build
from matbackprop.flat import named_parameters
from matbackprop.layer import Layer
from matbackprop.sequential import Sequential
from matbackprop.validation import check_finite, describe

__all__ = ["load", "save"]


def save(model: Sequential, path: str | os.PathLike[str]) -> None:
    """Write a model, architecture and parameters, into one file: whole, or not at all.

    The tensors have torch's names ("0.weight", "0.bias", ...), so that torch users can read the file with the
    safetensors package and `load_state_dict` it. `load` gives the model back, every bit of it. How the file is
    replaced, and what becomes of links and permissions, is said at `matbackprop.files.write_tensors`.

    Parameters
    ----------
    model : Sequential
        A layer of your own that takes settings has a `config` method, which returns them. How the weights were drawn
        is not kept; nor is what a layer holds beside settings and parameters, such as a `Dropout`'s generator.
    path : str or os.PathLike
        The suffix chooses the format: ``.safetensors`` (needs ``pip install 'matbackprop[io]'``) or ``.npz``, which
        also holds longdouble and complex models.

    Raises
    ------
    ImportError
        If the format is safetensors and its package is not installed.
    OSError
        If the file cannot be written: a directory that is missing or read-only, a full disk. An older file is then
        as it was.
    TypeError
        If the path or model is none, the format cannot hold the model's type, or a layer has settings and no `config`.
    ValueError
        If the suffix is another, or a parameter is not finite: a model that has diverged does not replace a good one.
        (`matbackprop.files.write_tensors` writes any numbers.)

    See Also
    --------
    load

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import matbackprop as mb
    >>> model = mb.Sequential(mb.Linear(2, 3), mb.Tanh(), mb.Linear(3, 1), rng=0)
    >>> path = Path(tempfile.mkdtemp(), "model.npz")
    >>> mb.save(model, path)
    >>> mb.load(path)
    Sequential(Linear(2, 3), Tanh(), Linear(3, 1))
    >>> bool((mb.load(path).parameters == model.parameters).all())
    True
    """
    if not isinstance(model, Sequential):
        raise TypeError(f"save: model: expected a Sequential, got {describe(model)}; put a layer into one")
    tensors = named_parameters(model)
    for name, array in tensors.items():
        check_finite(f"save: {name!r}", array)
    write_tensors(path, tensors, {"architecture": architecture(model)})


def load(path: str | os.PathLike[str], *, layers: Iterable[type[Layer]] | Mapping[str, type[Layer]] = ()) -> Sequential:
    """Return the model in a file that `save` wrote.

    The file may come from anywhere. Nothing in it is executed, imported or unpickled: only the library's own layers are
    made, and those in `layers`. Whatever it says, at most six times its own size is allocated, and 256 MiB for names
    and architecture; a constructor of your own is not part of that bound.

    Parameters
    ----------
    path : str or os.PathLike
        A .safetensors or .npz file.
    layers : iterable of classes, or mapping of str to class, keyword-only, optional
        The layers of your own that the model has, by the names of their classes; or, where a class has been renamed
        since, under the names in the file: ``layers={"Scale": NewScale}``.

    Raises
    ------
    ImportError
        If the format is safetensors and its package is not installed.
    OSError
        If the file is missing or a directory, or may not be read.
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If the file is not sound: truncated, oversized, malformed, written by a newer version; if it has an unknown
        layer or setting; or if its tensors are not exactly the finite parameters of its architecture. Also if it is a
        plain file of tensors, without an architecture: make the model, then, and read them into it::

            model.load_state_dict(matbackprop.files.read_tensors(path)[0])

    See Also
    --------
    save

    Examples
    --------
    A model with a layer of one's own:

    >>> import tempfile
    >>> from pathlib import Path
    >>> import matbackprop as mb
    >>> class Power(mb.Layer):
    ...     def __init__(self, exponent):
    ...         self.exponent = exponent
    ...
    ...     def config(self):
    ...         return {"exponent": self.exponent}
    ...
    ...     def forward(self, x, out=None):
    ...         self.x = x
    ...         return np.power(x, self.exponent, out=out)
    ...
    ...     def backward(self, delta, out=None):
    ...         return np.multiply(delta, self.exponent * self.x ** (self.exponent - 1), out=out)
    >>> path = Path(tempfile.mkdtemp(), "power.npz")
    >>> mb.save(mb.Sequential(mb.Linear(2, 1), Power(2)), path)
    >>> mb.load(path, layers=[Power])[1].exponent
    2
    """
    tensors, metadata = read_tensors(path)
    where = os.fspath(path)
    if "architecture" not in metadata:
        raise ValueError(
            f"{where}: holds tensors and no architecture; make the model and fill it with "
            "model.load_state_dict(matbackprop.files.read_tensors(path)[0])"
        )
    try:
        return build(metadata["architecture"], tensors, layers=layers)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
