"""A model's loss as the functions that SciPy's optimisers take: value and gradient, H v, and least squares."""

from __future__ import annotations

from math import isfinite
from threading import Lock
from typing import Any

import numpy as np

from matbackprop.interop.least_squares import Data, LeastSquares
from matbackprop.loss import Loss, check_loss
from matbackprop.parallel import as_workers
from matbackprop.penalties import Penalty
from matbackprop.sequential import Sequential
from matbackprop.validation import Array, as_array, check_features, check_finite, describe

__all__ = ["ScipyObjective", "objective"]

#: The length of a complex step: its square underflows, so that the step has no truncation error and crosses no kink.
STEP = 1e-200

#: The rows on which complex steps are compared with differences once, and the lengths of those differences: where a
#: difference crosses a kink a shorter one does not, and few rows have few kinks nearby.
SAMPLE, REACHES = 32, (1e-4, 1e-5, 1e-6, 1e-7)


def objective(
    model: Sequential,
    x: Array,
    y: Array,
    loss: Loss,
    *,
    sample_weight: Array | float | None = None,
    penalty: Penalty | None = None,
    workers: int | None = None,
) -> ScipyObjective:
    """Return the loss of `model` on this data as a function of its parameters, for `scipy.optimize`.

    The model itself is left alone: the objective works on a copy, taken now. So it is never left where a line search
    happened to try last, whatever fails; when the result is to your liking, ``model.parameters = result.x``.

    Everything is computed in float64, for a float32 model too: SciPy's line searches and trust regions work in float64
    and give up early where values have rounding errors of 1e-7. Assigning the result rounds it once.

    Parameters
    ----------
    model : Sequential
        Real, with at least one parameter.
    x : array_like, shape (..., in)
    y : array_like, shape (..., out)
        Targets; for `CrossEntropy`, integer classes of shape (...) too. `x` and `y` are checked and converted here,
        once. Where they are float64 already they are not copied, so do not change them afterwards.
    loss : Loss
    sample_weight : array_like, optional
        As in `Sequential.backprop`.
    penalty : L1 or L2, optional
        Added to the loss.
    workers : int, optional
        How many threads share the batch, as in `Sequential.backprop`.

    Returns
    -------
    ScipyObjective
        ``f(p) -> (value, gradient)``, with ``f.x0``, ``f.hessp``, ``f.residuals`` and ``f.jacobian``.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, there is no data, a number is not finite, or two evaluations differ because a
        layer draws random numbers.

    Examples
    --------
    >>> import matbackprop as mb
    >>> from scipy.optimize import least_squares, minimize
    >>> x = np.linspace(-1, 1, 50)[:, None]
    >>> y = np.sin(3 * x)
    >>> model = mb.Sequential(mb.Linear(1, 8), mb.Tanh(), mb.Linear(8, 1), rng=0)
    >>> f = mb.objective(model, x, y, mb.MSE())
    >>> result = minimize(f, f.x0, jac=True, method="L-BFGS-B")
    >>> model.parameters = result.x
    >>> mb.MSE()(model.predict(x), y) < 1e-3
    True

    With curvature, and as a least-squares problem:

    >>> result = minimize(f, f.x0, jac=True, hessp=f.hessp, method="trust-ncg")
    >>> result = least_squares(f.residuals, f.x0, f.jacobian, method="lm")
    >>> bool(result.cost < 1e-8)
    True
    """
    if not isinstance(model, Sequential):
        raise TypeError(f"objective: model: expected a Sequential, got {describe(model)}")
    if model.dtype.kind == "c":
        raise TypeError(f"objective: model: expected a real model, got {model.dtype}; hessp makes its own complex copy")
    if not model.parameters.size:
        raise ValueError(f"objective: {model!r} has no parameters to optimise")
    check_loss(loss)
    if penalty is not None and not isinstance(penalty, Penalty):
        raise TypeError(f"objective: penalty: expected an L1 or L2, got {describe(penalty)}")
    workers, twin = as_workers(workers), model.astype(np.float64)
    return ScipyObjective(twin, _as_data(twin, x, y, loss, sample_weight), loss, penalty, workers)


def _as_data(model: Sequential, x: Array, y: Array, loss: Loss, sample_weight: Array | float | None) -> Data:
    """Return the data, checked and in the type of the model; classes stay integers."""
    dtype = model.dtype
    x = as_array(x, "objective: x", dtype)
    check_features("objective: x", x.shape, model.in_features)
    if not x.size:
        raise ValueError(f"objective: x: expected at least one example, got shape {x.shape}")
    check_finite("objective: x", x)
    shape = (*x.shape[:-1], model.output_width(x.shape[-1]))
    y = loss.as_targets(y, shape, dtype, "objective: y")
    check_finite("objective: y", y)
    weight = None if sample_weight is None else loss.as_weight(sample_weight, shape, dtype)
    return Data(np.ascontiguousarray(x), np.ascontiguousarray(y), weight)


class ScipyObjective:
    """The loss of a model on given data as a function of its parameters: what `objective` returns.

    Every method takes parameters of shape (P,) and returns fresh arrays, and several threads may call them: they wait
    for one another.

    Examples
    --------
    >>> import matbackprop as mb
    >>> model = mb.Sequential(mb.Linear(1, 1), rng=0)
    >>> f = mb.objective(model, [[0.5]], [[0.95]], mb.MSE())
    >>> value, gradient = f([0.3, 0.4])
    >>> round(value, 4), gradient.round(4)
    (0.16, array([-0.4, -0.8]))
    >>> f.hessp([0.3, 0.4], [1.0, 0.0])
    array([0.5, 1. ])
    >>> f.residuals([0.3, 0.4]), f.jacobian([0.3, 0.4])
    (array([-0.56568542]), array([[0.70710678, 1.41421356]]))
    """

    def __init__(self, model: Sequential, data: Data, loss: Loss, penalty: Penalty | None, workers: int | None) -> None:
        self.loss, self.penalty, self.workers = loss, penalty, workers
        self._model, self._data = model, data
        self._x0 = model.parameters.copy()
        self._complex: tuple[Sequential, Data] | None = None
        self._lock = Lock()
        self._check_function()

    def _check_function(self) -> None:
        """Check that this is a function: the same finite value at the same point."""
        first, again = self(self._x0)[0], self(self._x0)[0]
        if not isfinite(first):
            raise ValueError(f"objective: the loss at the model's parameters is {first}; draw or scale them anew")
        if first != again:
            raise ValueError(
                f"objective: two evaluations at the same parameters gave {first!r} and {again!r}: a layer draws random "
                "numbers (Dropout?) or keeps state, and SciPy's optimisers need a function; leave it out, or use mb.fit"
            )

    @property
    def x0(self) -> Array:
        """The model's parameters when this objective was made: where to start from. A copy, in float64."""
        return self._x0.copy()

    def __call__(self, p: Array) -> tuple[float, Array]:
        """Return the loss at the parameters `p`, with its penalty, and the gradient.

        Parameters
        ----------
        p : array_like, shape (P,)

        Returns
        -------
        value : float
        gradient : numpy.ndarray, shape (P,)

        Raises
        ------
        TypeError, ValueError
            If `p` is no vector of P real numbers.
        """
        p = self._vector(p, "p")
        with self._lock:
            return self._evaluate(self._model, p, self._data)

    def hessp(self, p: Array, v: Array) -> Array:
        """Return the Hessian at `p` times `v`, exact to rounding.

        By a complex step through the gradient, H v = Im ∇L(p + i h v) / h with h = 1e-200: no difference is taken, so
        no digits are lost, and no kink of ReLU is crossed. It costs 3 (ReLU) to 7 (Sigmoid) gradients, on a complex
        copy of model and data that is made at the first call. That call also compares one product, on a few rows,
        with differences of the gradient, since some functions take complex numbers and give a wrong derivative.

        Parameters
        ----------
        p, v : array_like, shape (P,)

        Returns
        -------
        numpy.ndarray, shape (P,)

        Raises
        ------
        TypeError
            If a layer, the loss or the penalty cannot take complex numbers, or takes them wrongly, as np.abs does.
        ValueError
            If `p` or `v` is no vector of P numbers.

        References
        ----------
        J. N. Lyness and C. B. Moler, "Numerical differentiation of analytic functions", SIAM J. Numer. Anal. 4 (1967).
        """
        p, v = self._vector(p, "p"), self._vector(v, "v")
        with self._lock:
            if self._complex is None:
                twin = self._model.astype(np.complex128)
                self._check_complex(twin, p)
                self._complex = twin, self._data.astype(np.complex128)
            return self._product(*self._complex, p, v)

    def residuals(self, p: Array) -> Array:
        """Return √(2 w / n) (Ŷ - Y), row by row: half the sum of their squares is the loss.

        So `scipy.optimize.least_squares` minimises the loss itself, its ``cost``. For ``MSE("sum")`` n is 1.

        Parameters
        ----------
        p : array_like, shape (P,)

        Returns
        -------
        numpy.ndarray, shape (N out,)

        Raises
        ------
        TypeError, ValueError
            If the loss is not `MSE`, there is a penalty, a weight is negative, or `p` does not fit.
        """
        p = self._vector(p, "p")
        problem = self._least_squares()
        with self._lock:
            self._model.parameters[...] = p
            return problem.residuals(self._model.predict(self._data.x, workers=self.workers))

    def jacobian(self, p: Array) -> Array:
        """Return the derivative of `residuals`.

        One backward pass an output where every layer is `rowwise`: Δ then belongs to its row, and a Linear's share of
        row i is Δᵢᵀ Aᵢ. (A rowwise layer of your own is asked row by row, unless it defines `row_gradients`.) Where
        one is not, one pass over the whole batch for each of the N out residuals.

        Parameters
        ----------
        p : array_like, shape (P,)

        Returns
        -------
        numpy.ndarray, shape (N out, P)

        Raises
        ------
        TypeError, ValueError
            As `residuals`.
        """
        p = self._vector(p, "p")
        problem = self._least_squares()
        with self._lock:
            self._model.parameters[...] = p
            return problem.jacobian(self._model)

    def _least_squares(self) -> LeastSquares:
        """Return the loss as a sum of squares."""
        if self.penalty is not None:
            raise TypeError("objective: least squares has no place for a penalty; leave it out, or use minimize")
        return LeastSquares(self._data, self.loss)

    def _vector(self, value: Array, name: str) -> Array:
        """Return `value` as a vector of P numbers."""
        array = as_array(value, f"objective: {name}", self._x0.dtype)
        if array.shape != self._x0.shape:
            raise ValueError(f"objective: {name}: expected shape {self._x0.shape}, got {array.shape}")
        return array

    def _evaluate(self, model: Sequential, p: Array, data: Data) -> tuple[float, Array]:
        """Return value and gradient at `p`, on this model and data."""
        model.parameters[...] = p
        value = model.backprop(data.x, data.y, self.loss, sample_weight=data.weight, workers=self.workers)
        if self.penalty is not None:
            value += self.penalty.add_to(model)
        return value, model.gradients.copy()

    def _product(self, twin: Sequential, data: Data, p: Array, v: Array) -> Array:
        """Return H(p) v by a complex step."""
        length = float(np.abs(v).max())
        if not length:
            return np.zeros_like(p)
        with np.errstate(under="ignore", invalid="ignore"):  # a NaN shows in the result
            _, gradient = self._evaluate(twin, p + 1j * STEP * (v / length), data)
            product: Array = gradient.imag / STEP * length
        return product

    def _check_complex(self, twin: Sequential, p: Array) -> None:
        """Check near `p`, on a few rows, that complex steps go through and agree with differences of the gradient."""
        x, y, weight = self._data
        if x.ndim > 1:
            x, y, weight = x[:SAMPLE], y[:SAMPLE], None if weight is None else weight[:SAMPLE]
        data = Data(x, y, weight)
        rng = np.random.default_rng(0)
        v = rng.choice((-1.0, 1.0), p.size) * rng.uniform(0.5, 1.5, p.size)
        p = p + 0.01 * (1 + np.abs(p)) * rng.uniform(-1, 1, p.size)  # off the kinks that biases of 0 lie on
        why = "objective.hessp: it takes complex steps, and a layer, the loss or the penalty"
        fix = "write it without np.abs, np.sign or .real, or choose a method that needs no hessp"
        try:
            exact = self._product(twin, data.astype(np.complex128), p, v)
        except Exception as error:  # a user's code may raise anything
            raise TypeError(f"{why} cannot take complex numbers: {error}; {fix}") from error
        for reach in REACHES:
            (_, above), (_, below) = (self._evaluate(self._model, p + h * v, data) for h in (reach, -reach))
            rounding = 1e-13 * float(np.abs(above).max()) / reach
            if np.abs((above - below) / (2 * reach) - exact).max() <= 1e-3 * np.abs(exact).max() + rounding:
                return
        raise TypeError(f"{why} takes complex numbers, but gives a derivative that differences do not bear out; {fix}")

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_lock": None, "_complex": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=Lock())

    def __repr__(self) -> str:
        return f"<ScipyObjective of {self._x0.size} parameters: {self.loss!r} of {self._model!r}>"
