"""Dropout: a layer that is random in training, and does nothing in prediction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial as call
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from matbackprop.calls import Call
from matbackprop.layer import Layer
from matbackprop.settings import real
from matbackprop.stepped import SteppedLayer
from matbackprop.validation import Array, as_rng
from matbackprop.workspace import Empty

__all__ = ["Dropout"]


class Dropout(SteppedLayer):
    """Inverted dropout: A = Z ⊙ M, where each element of M is 0 with probability p and 1 / (1 - p) otherwise.

    Backward: ∂L/∂Z = Δ ⊙ M, with the M of the forward pass. The expectation of A is Z, so that nothing has to be scaled
    afterwards.

    It drops in every pass that is made to train: `forward` (so ``layer(x)`` and ``model(x)`` too), `backprop` and
    `value_and_grad`. `Sequential.predict` drops nothing and draws nothing. There is no mode to forget: evaluate by
    `predict`.

    Parameters
    ----------
    p : float, default 0.5
        The probability that an element is dropped, in [0, 1).
    rng : int, numpy.random.Generator or None, keyword-only
        Where M is drawn from. By default a generator of its own: derived from the Sequential's `rng`, without
        changing what weights that draws, or fresh.

    Attributes
    ----------
    rng : numpy.random.Generator
        The generator, live. ``layer.rng.bit_generator.state`` is all of the layer's state that changes in training:
        save it, and assign it to resume. A copy or an unpickled layer goes on with the same masks as the original.

    Raises
    ------
    TypeError, ValueError
        If `p` is no number in [0, 1), or `rng` none of the above.

    Notes
    -----
    The same seed gives the same masks in every dtype: they are drawn in float32 (p is exact to 2⁻²⁴). Where a large
    batch is cut into blocks for several workers, each worker's masks come from a generator that this one seeds at every
    call: they depend on the number of workers, and on nothing else that varies.

    A dropped element that is infinite or NaN gives NaN, as in torch.

    References
    ----------
    N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever and R. Salakhutdinov, "Dropout: a simple way to prevent neural
    networks from overfitting", Journal of Machine Learning Research 15 (2014).

    Examples
    --------
    >>> import matbackprop as mb
    >>> model = mb.Sequential(mb.Linear(2, 8), mb.ReLU(), mb.Dropout(0.25), mb.Linear(8, 1), rng=0)
    >>> x = np.ones((4, 2))
    >>> bool((model(x) == model(x)).all()), bool((model.predict(x) == model.predict(x)).all())
    (False, True)

    A random function has no gradient to check, and the checker says so; with the same masks at every call it has:

    >>> layer, state = mb.Dropout(0.25, rng=0), mb.Dropout(0.25, rng=0).rng.bit_generator.state
    >>> def seeded(z):
    ...     layer.rng.bit_generator.state = state
    ...     return layer.forward(z)
    >>> def fun(z):
    ...     return (seeded(z) ** 2).sum()
    >>> def grad(z):
    ...     return layer.backward(2 * seeded(z))
    >>> bool(mb.check_gradient(fun, grad, np.linspace(1.0, 2.0, 12).reshape(3, 4), rng=0))
    True
    """

    keeps_input: ClassVar[bool] = False
    keeps_output: ClassVar[bool] = False
    in_place: ClassVar[bool] = True
    rowwise: ClassVar[bool] = True
    elementwise: ClassVar[bool] = True
    formulas: Mapping[str, str] = MappingProxyType(
        {"forward": "{x} ⊙ M", "derivative": "M", "note": "M: the mask of this pass, which prediction does without."}
    )
    _rng: np.random.Generator | None

    def __init__(self, p: float = 0.5, *, rng: int | np.random.Generator | None = None) -> None:
        self._p = real(0, 1)(p, "Dropout: p")
        self._rng = None if rng is None else as_rng(rng, "Dropout: rng")

    @property
    def p(self) -> float:
        """The probability that an element is dropped. It cannot be changed."""
        return self._p

    @property
    def rng(self) -> np.random.Generator:
        """The generator that masks are drawn from: live. Assigning replaces it."""
        self.initialize()
        assert self._rng is not None
        return self._rng

    @rng.setter
    def rng(self, rng: int | np.random.Generator | None) -> None:
        self._rng = as_rng(rng, f"{self.label}.rng")

    def initialize(self, rule: str | None = None, rng: np.random.Generator | None = None) -> None:
        """Make the generator, unless there is one already."""
        if self._rng is None:
            self._rng = as_rng(None) if rng is None else rng.spawn(1)[0]

    def config(self) -> dict[str, Any]:
        """Return p. The generator is part of a run, and not of the model."""
        return {"p": self._p}

    def waits(self) -> bool:
        """Return whether there is no generator yet."""
        return self._rng is None

    def _mask(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return the buffer for M, which the layer keeps from the forward to the backward pass."""
        return self._workspace.take("mask", shape, dtype)

    def _draw(self, noise: Array) -> None:
        self.rng.random(dtype=np.float32, out=noise)

    def forward_steps(self, x: Array, out: Array, empty: Empty) -> Iterable[Call]:
        """A = Z ⊙ M."""
        mask, noise = self._mask(x.shape, x.dtype), empty(x.shape, np.float32)
        scale = np.asarray(1 / (1 - np.longdouble(self._p)), x.dtype)
        yield call(self.forget)  # the M of an earlier pass is about to go
        yield call(self._draw, noise)
        yield call(np.greater_equal, noise, np.asarray(self._p, np.float32), mask)
        yield call(np.multiply, mask, scale, mask)
        yield call(np.multiply, x, mask, out)

    def backward_steps(self, x: Array, y: Array, delta: Array, out: Array | None, empty: Empty) -> Iterable[Call]:
        """∂L/∂Z = Δ ⊙ M."""
        if out is not None:
            yield call(np.multiply, delta, self._mask(delta.shape, delta.dtype), out)

    def predict_steps(self, x: Array, out: Array, empty: Empty) -> Iterable[Call]:
        """A = Z."""
        if not np.may_share_memory(x, out):
            yield call(np.copyto, out, x)

    def follow(self, other: Layer) -> None:
        """Take a new generator, seeded by that of `other`, of which this is a replica for another thread."""
        assert isinstance(other, Dropout)
        self._rng = np.random.default_rng(other.rng.integers(1 << 32, size=4, dtype=np.uint64))

    def __repr__(self) -> str:
        return f"Dropout({self._p!r})"
