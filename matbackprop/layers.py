"""The algebra, layer by layer: Linear, Tanh, ReLU, Sigmoid.

Rows are examples. A layer maps its input A(l-1), shape (N, in), to its output, shape (N, out); backward it turns
Δ = ∂L/∂output into the gradients of its parameters and into ∂L/∂input. Each pass is written as the NumPy calls that
make it up: ``call(function, inputs..., out)``. How NumPy does a product best, `matbackprop.products` knows.

==================  =======================  =============================================
layer               forward                  backward
==================  =======================  =============================================
Linear              Z = A Wᵀ + 1 bᵀ          ∂L/∂W = Δᵀ A,  ∂L/∂b = Δᵀ 1,  ∂L/∂A = Δ W
Tanh                A = tanh Z               ∂L/∂Z = Δ ⊙ (1 - A) ⊙ (1 + A)
ReLU                A = max(Z, 0)            ∂L/∂Z = Δ ⊙ [A > 0]
Sigmoid             A = 1 / (1 + e^-Z)       ∂L/∂Z = Δ ⊙ A ⊙ (1 - A)
==================  =======================  =============================================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial as call
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from matbackprop.calls import Call
from matbackprop.initializers import RULES, Initializer, torch_default
from matbackprop.parameter import Gradient, Parameter
from matbackprop.products import add_row, ones, times, times_transposed, transposed_times
from matbackprop.stepped import SteppedLayer
from matbackprop.validation import Array, as_array, as_dtype, as_flag, as_rng, as_size, check_finite
from matbackprop.workspace import Empty

__all__ = ["Linear", "ReLU", "Sigmoid", "Tanh", "exp", "sigmoid"]


def exp(z: Array, out: Array) -> None:
    """Write e^z into `out`; that it overflows to infinity is no event to warn of where 1 / (1 + e^z) follows."""
    with np.errstate(over="ignore", under="ignore"):
        np.exp(z, out)


def sigmoid(z: Array, out: Array) -> Iterable[Call]:
    """Yield the calls for σ(z) = 1 / (1 + e^-z), which keeps its relative accuracy as z goes to -∞."""
    if np.iscomplexobj(z):
        yield call(_complex_sigmoid, z, out)
        return
    yield call(np.negative, z, out)
    yield call(exp, out, out)
    yield call(np.add, out, np.ones((), z.dtype), out)
    yield call(np.reciprocal, out, out)


def _complex_sigmoid(z: Array, out: Array) -> None:
    """The same off the real axis, without overflow: the real part decides which form."""
    right = z.real > 0
    e = np.exp(np.where(right, -z, z))
    np.divide(np.where(right, 1, e), 1 + e, out)


class Linear(SteppedLayer):
    """The affine map Z = A Wᵀ + 1 bᵀ of every row.

    Backward: ∂L/∂W = Δᵀ A, ∂L/∂b = Δᵀ 1 and ∂L/∂A = Δ W. Δᵀ 1 is a product too, which BLAS sums row after row: in
    float32 and over 16,384 rows, the most that a model's row block has, its error is about 3e-6 of the largest entry,
    where a pairwise sum (torch's) has 5e-8 and takes seven times as long.

    Parameters
    ----------
    in_features, out_features : int
        Features that go in, and units that come out.
    bias : bool, default True
        Whether there is a b.
    weight_init : {"glorot", "he", "torch"} or callable, optional
        The rule by which the weights are drawn, by name or as ``rule((out, in), rng) -> array``. By default the one
        that suits the activation that follows in a `Sequential` (He for ReLU, Glorot for everything else). The bias
        starts at zero; only "torch" draws it too.
    rng : int, numpy.random.Generator or None, keyword-only
        Where the numbers come from. By default the Sequential's, or fresh ones.
    dtype : dtype, optional
        float64 by default, or what the Sequential has.

    Attributes
    ----------
    weight : numpy.ndarray, shape (out, in)
        W. Drawn when it is first needed: when it is read, or when a Sequential adopts the layer. Assigning to it
        writes into it.
    bias : numpy.ndarray, shape (out,), or None
        b.
    weight_grad, bias_grad : numpy.ndarray
        ∂L/∂W and ∂L/∂b, replaced by each `backward`.

    Raises
    ------
    TypeError, ValueError
        If a size is not a positive integer, or the rule or type is unknown.

    Examples
    --------
    >>> import matbackprop as mb
    >>> layer = mb.Linear(2, 1)
    >>> layer.weight, layer.bias = [[1.0, -2.0]], [0.5]
    >>> layer.forward([[3.0, 1.0]])
    array([[1.5]])
    >>> layer.backward([[2.0]])
    array([[ 2., -4.]])
    >>> layer.weight_grad, layer.bias_grad
    (array([[6., 2.]]), array([2.]))
    """

    preferred_init: ClassVar[str | None] = "glorot"  # between two Linears there is no activation
    drawn: ClassVar[tuple[str, ...]] = ("weight", "bias")
    keeps_output: ClassVar[bool] = False
    rowwise: ClassVar[bool] = True
    mixes: ClassVar[str | None] = "weight"
    symbols: Mapping[str, str] = MappingProxyType({"weight": "W", "bias": "b"})

    weight = Parameter()
    bias = Parameter()
    weight_grad = Gradient("weight")
    bias_grad = Gradient("bias")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        weight_init: str | Initializer | None = None,
        rng: int | np.random.Generator | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        self.in_features: int = as_size(in_features, "Linear: in_features")
        self.out_features = as_size(out_features, "Linear: out_features")
        known = isinstance(weight_init, str) and weight_init in RULES
        if not (weight_init is None or callable(weight_init) or known):
            raise ValueError(
                f"Linear: weight_init: expected one of {list(RULES)} or a callable, got {weight_init!r}; "
                "values are assigned to .weight"
            )
        self.has_bias = as_flag(bias, "Linear: bias", "assign values to .bias afterwards")
        self.weight_init = weight_init
        self.requested_dtype = None if dtype is None else as_dtype(dtype, "Linear: dtype")
        self._rng = None if rng is None else as_rng(rng, "Linear: rng")
        if not self.has_bias:
            self._absent.add("bias")

    def initialize(self, rule: str | None = None, rng: np.random.Generator | None = None) -> None:
        """Draw W and b, unless they are there already."""
        if "weight" in self._parameters:
            return
        rng = self._rng or rng or as_rng(None)
        init = self.weight_init or rule or "glorot"
        shape = (self.out_features, self.in_features)
        dtype, who = self.requested_dtype or np.dtype(np.float64), f"{self.label}: what weight_init returned"
        weight = as_array((RULES[init] if isinstance(init, str) else init)(shape, rng), who, dtype)
        if weight.shape != shape:
            raise ValueError(f"{who}: expected shape {shape}, got {weight.shape}")
        check_finite(who, weight)
        bias = torch_default(shape[:1], rng, self.in_features) if init == "torch" else np.zeros(shape[0])
        self._add_parameter("weight", np.array(weight, dtype))
        if self.has_bias:
            self._add_parameter("bias", np.array(bias, dtype))

    @property
    def formulas(self) -> Mapping[str, str]:  # type: ignore[override]
        """Z = A Wᵀ + 1 bᵀ, ∂L/∂A = Δ W, ∂L/∂W = Δᵀ A and ∂L/∂b = Δᵀ 1."""
        forward = "{x} {weight}ᵀ + {1} {bias}ᵀ" if self.has_bias else "{x} {weight}ᵀ"
        return {"forward": forward, "weight": "{delta}ᵀ {x}", "bias": "{delta}ᵀ {1}", "backward": "{delta} {weight}"}

    def config(self) -> dict[str, Any]:
        """Return the sizes, and whether there is a bias."""
        return {"in_features": self.in_features, "out_features": self.out_features, "bias": self.has_bias}

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of W and b."""
        bias = {"bias": (self.out_features,)} if self.has_bias else {}
        return {"weight": (self.out_features, self.in_features), **bias}

    def output_width(self, width: int) -> int:
        """Return `out_features`."""
        return self.out_features

    def forward_steps(self, x: Array, out: Array, empty: Empty) -> Iterable[Call]:
        """Z = A Wᵀ + 1 bᵀ."""
        yield from times_transposed(x, self.weight, out, empty)  # (N, in) (in, out)
        if self.has_bias:
            yield from add_row(out, self.bias, empty)

    def backward_steps(self, x: Array, y: Array, delta: Array, out: Array | None, empty: Empty) -> Iterable[Call]:
        """∂L/∂W = Δᵀ A, ∂L/∂b = Δᵀ 1, ∂L/∂A = Δ W."""
        yield from transposed_times(delta, x, self.weight_grad, empty)  # (out, N) (N, in)
        if self.has_bias:
            yield call(np.dot, ones(len(delta), delta.dtype), delta, self.bias_grad[None])  # (1, N) (N, out)
        if out is not None:
            yield from times(delta, self.weight, out)  # (N, out) (out, in)

    def row_gradients(self, x: Array, delta: Array, out: Array) -> None:
        """Δᵢᵀ Aᵢ and Δᵢ, of every row i."""
        weights = self.weight.size
        np.multiply(delta[:, :, None], x[:, None, :], out[:, :weights].reshape(len(x), *self.weight.shape))
        if self.has_bias:
            out[:, weights:] = delta

    def __getstate__(self) -> dict[str, Any]:
        # The weights are drawn by now: neither generator nor rule is needed, and not every rule can be pickled.
        state = super().__getstate__()
        return {**state, "_rng": None, "weight_init": self.weight_init if isinstance(self.weight_init, str) else None}

    def __repr__(self) -> str:
        names = [name for name, rule in RULES.items() if self.weight_init in (name, rule)]
        rule = f", weight_init={names[0]!r}" if names else ""
        bias = "" if self.has_bias else ", bias=False"
        dtype = f", dtype={self.requested_dtype.name!r}" if self.requested_dtype else ""
        return f"Linear({self.in_features}, {self.out_features}{bias}{rule}{dtype})"


class Activation(SteppedLayer):
    """A function of each element, whose derivative is written from its output: what Tanh, ReLU and Sigmoid share."""

    keeps_input: ClassVar[bool] = False
    in_place: ClassVar[bool] = True
    rowwise: ClassVar[bool] = True
    elementwise: ClassVar[bool] = True

    def __init__(self) -> None:
        """Make it; there is nothing to choose."""


class Tanh(Activation):
    """The hyperbolic tangent, A = tanh Z, of every element.

    Backward: ∂L/∂Z = Δ ⊙ (1 - A) ⊙ (1 + A), which keeps one more digit near ±1 than 1 - A² does. It is written from
    the output, which costs no second evaluation; where the output has rounded to ±1 (|z| > 19 in float64, 9 in
    float32) the derivative is 0, as torch's is, though 1 / cosh² z is not.

    Examples
    --------
    >>> import matbackprop as mb
    >>> tanh = mb.Tanh()
    >>> tanh.forward([0.0, 1.0]).round(4)
    array([0.    , 0.7616])
    >>> tanh.backward([1.0, 1.0]).round(4)
    array([1.  , 0.42])
    """

    preferred_init: ClassVar[str | None] = "glorot"
    formulas: Mapping[str, str] = MappingProxyType({"forward": "tanh {x}", "derivative": "(1 - {y}) ⊙ (1 + {y})"})

    def forward_steps(self, x: Array, out: Array, empty: Empty) -> Iterable[Call]:
        """A = tanh Z."""
        yield call(np.tanh, x, out)

    def backward_steps(self, x: Array, y: Array, delta: Array, out: Array | None, empty: Empty) -> Iterable[Call]:
        """∂L/∂Z = Δ ⊙ (1 - A) ⊙ (1 + A)."""
        if out is None:
            return
        one, factor = np.ones((), y.dtype), empty(y.shape, y.dtype)
        yield call(np.subtract, one, y, factor)
        yield call(np.multiply, delta, factor, out)
        yield call(np.add, one, y, factor)
        yield call(np.multiply, out, factor, out)


class ReLU(Activation):
    """The rectified linear unit, A = max(Z, 0), of every element.

    Backward: ∂L/∂Z = Δ ⊙ [A > 0]; the derivative at the kink is 0, as torch has it, and so it is where A is NaN (torch
    has 1). The mask is multiplied in, so an infinite or NaN Δ on a silent unit gives NaN. For complex steps, max looks
    at the real part alone.

    Examples
    --------
    >>> import matbackprop as mb
    >>> relu = mb.ReLU()
    >>> relu.forward([-1.0, 0.0, 2.0])
    array([0., 0., 2.])
    >>> relu.backward([5.0, 5.0, 5.0])
    array([0., 0., 5.])
    """

    preferred_init: ClassVar[str | None] = "he"
    formulas: Mapping[str, str] = MappingProxyType({"forward": "max({x}, 0)", "derivative": "[{y} > 0]"})

    def forward_steps(self, x: Array, out: Array, empty: Empty) -> Iterable[Call]:
        """A = max(Z, 0)."""
        zero = np.zeros((), x.real.dtype)
        if np.iscomplexobj(x):
            mask = empty(x.shape, np.bool_)
            yield call(np.greater, x.real, zero, mask)
            yield call(np.multiply, x, mask, out)
        else:
            yield call(np.maximum, x, zero, out=out)

    def backward_steps(self, x: Array, y: Array, delta: Array, out: Array | None, empty: Empty) -> Iterable[Call]:
        """∂L/∂Z = Δ ⊙ [A > 0]."""
        if out is None:
            return
        mask = empty(y.shape, np.bool_)
        yield call(np.greater, y.real, np.zeros((), y.real.dtype), mask)
        yield call(np.multiply, delta, mask, out)


class Sigmoid(Activation):
    """The logistic function, A = σ(Z) = 1 / (1 + e^-Z), of every element.

    Backward: ∂L/∂Z = Δ ⊙ A ⊙ (1 - A), written from the output. σ keeps its relative accuracy in the lower tail; in the
    upper one 1 - A has lost its digits, as it has in torch (all of them where z > 37 in float64, 17 in float32). Where
    the network ends in Sigmoid and the loss is BCE, `Sequential.backprop` avoids that: see `BCE`.

    Examples
    --------
    >>> import matbackprop as mb
    >>> sigmoid = mb.Sigmoid()
    >>> sigmoid.forward([0.0, -1000.0])
    array([0.5, 0. ])
    >>> sigmoid.backward([1.0, 1.0])
    array([0.25, 0.  ])
    """

    preferred_init: ClassVar[str | None] = "glorot"
    formulas: Mapping[str, str] = MappingProxyType({"forward": "1 / (1 + e^-{x})", "derivative": "{y} ⊙ (1 - {y})"})

    def forward_steps(self, x: Array, out: Array, empty: Empty) -> Iterable[Call]:
        """A = 1 / (1 + e^-Z)."""
        return sigmoid(x, out)

    def backward_steps(self, x: Array, y: Array, delta: Array, out: Array | None, empty: Empty) -> Iterable[Call]:
        """∂L/∂Z = Δ ⊙ A ⊙ (1 - A)."""
        if out is None:
            return
        factor = empty(y.shape, y.dtype)
        yield call(np.subtract, np.ones((), y.dtype), y, factor)
        yield call(np.multiply, factor, y, factor)
        yield call(np.multiply, delta, factor, out)
