"""How far a gradient is from a reference along random directions, and how far rounding alone would take it.

Every direction is equalised, u_i = ±U(1/2, 3/2) / max(|g_i|, floor max|g|), so that each entry above the floor weighs
the same however small it is; the sizes are random so that equal errors do not cancel. The residual ∇f·u - g·u is
measured at x0 and at points a few rounding units from it: what varies between them is rounding, what stays is an error.
The directions vary as well, since where fun is linear, or x0 zero, nothing else does. What an entry of the gradient
itself loses to rounding does not show where it is the same to the last bit at all points; then what the reference loses
stands for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from matbackprop.gradcheck.directional import Derivative, Reference
from matbackprop.gradcheck.problem import Problem
from matbackprop.validation import Array

__all__ = ["CHANCE", "DEVIATIONS", "Measurement", "dot", "equalised", "measure"]

# The constants of the tolerance are chosen by hand. How many clean gradients would fail with other values:
# benchmarks/gradcheck_study.py --only thresholds.

#: The tolerance is this many units of rounding of the terms of g·u ...
ROUNDING = 50.0
#: ... and this many of the largest entry, in each entry: what sums that cancel leave behind, wherever x is ...
ABSOLUTE = 1.0
#: ... and this many once, for a gradient of few entries that is itself the small rest of a sum ...
REST = 1000.0
#: ... and this many standard deviations of the residual over points that differ by rounding: measured on few points, it
#: may be several times too small ...
DEVIATIONS = 15.0
#: ... which grows by as much times the part of the entries whose own rounding is not seen. A sum of N numbers in a row
#: rounds sqrt(N) times worse than one in pairs, as NumPy has it: N = 10,000.
UNSEEN = 100.0
#: More entries than that are not seen for a reason, fewer by chance. By hand.
CHANCE = 0.25


def equalised(gradient: Array, rng: np.random.Generator, where: slice | None = None, floor: float = 1e-3) -> Array:
    """Return a random direction in which every entry of the gradient weighs about the same; zero outside `where`.

    Entries smaller than `floor` times the largest are weighed as if they were that large.
    """
    size = np.abs(gradient).astype(np.float64)
    part = size if where is None else size[where]
    largest = float(part.max(initial=0.0))
    weight = 1.0 / np.maximum(part / largest, floor) if largest > 0 else np.ones(part.size)
    u = np.zeros(gradient.size)
    u[slice(None) if where is None else where] = (
        rng.choice((-1.0, 1.0), part.size) * rng.uniform(0.5, 1.5, part.size) * weight
    )
    return u


def dot(gradient: Array, u: Array) -> float:
    """Return g·u, summed in more than double precision where there is one."""
    return float(np.add.reduce(gradient.astype(np.longdouble) * u))


@dataclass(frozen=True)
class Measurement:
    """Residuals of K directions (rows) at J points (columns), in units of the largest entry of the gradient."""

    directions: list[Array]
    expected: Array  # (K, J)
    got: Array  # (K, J)
    #: The reference's own estimate of its error, (K,).
    error: Array
    #: The root of the sum of squares of the terms of g·u.
    terms: float
    #: One-sided slopes of the directions that meet a kink.
    kinks: list[tuple[float, float]]
    #: What one unit is: max |g|, or the size of the derivative where the gradient is zero.
    unit: float
    eps: float
    #: The part of the entries other than zero that are the same to the last bit at all points.
    unmoved: float = 0.0
    #: What rounding may do to those, by what it does to the reference.
    unseen: float = 0.0

    @property
    def residual(self) -> Array:
        """Expected minus got, (K, J); where the reference was taken at x0 alone, (K, 1)."""
        return self.expected - self.got[:, : self.expected.shape[1]]

    @property
    def noise(self) -> float:
        """The standard deviation of the residual over points that differ by rounding."""
        return _spread(self.residual) if self.expected.shape[1] > 1 else self.noise_of_gradient

    @property
    def noise_of_gradient(self) -> float:
        """The same of g·u alone. Of points in pairs, x0 ± δ, the slope of g cancels and rounding is left."""
        if self.expected.shape[1] > 1:
            return _spread(self.got)
        pairs = self.got[:, 1::2] + self.got[:, 2::2] - 2 * self.got[:, :1]
        return float(np.sqrt(np.mean(pairs**2) / 6))

    @property
    def noise_of_reference(self) -> float:
        """The same of the derivative alone."""
        return _spread(self.expected)

    @property
    def tolerance(self) -> float:
        """The residual that rounding can explain."""
        length = max(float(np.linalg.norm(u)) for u in self.directions)
        return (
            self.eps * (ROUNDING * self.terms + ABSOLUTE * length + REST)
            + DEVIATIONS * self.noise
            + 4 * float(self.error.max())
            + self.unseen
        )

    @property
    def deviation(self) -> float:
        """The largest residual at x0."""
        return float(np.abs(self.residual[:, 0]).max())

    @property
    def lasting(self) -> float:
        """The largest residual that is there at most of the points."""
        return float(np.abs(np.median(self.residual, axis=1)).max())

    @property
    def worst(self) -> int:
        """The direction of the largest residual."""
        return int(np.argmax(np.abs(self.residual[:, 0])))

    @property
    def factor(self) -> float:
        """The largest |g·u|, by which a common factor is seen."""
        return float(np.abs(self.got[:, 0]).max())


def _spread(values: Array) -> float:
    """Return the pooled standard deviation within rows."""
    return float(np.sqrt(np.mean(np.var(values, axis=1, ddof=1)))) if values.shape[1] > 1 else 0.0


def measure(
    problem: Problem,
    reference: Reference,
    x: Array,
    gradient: Array,
    directions: list[Array],
    points: list[Array],
    replay: bool,
) -> Measurement:
    """Return the residuals at `x` and at `points`.

    Parameters
    ----------
    problem : Problem
    reference : Reference
    x, gradient : numpy.ndarray, shape (P,)
        The point, and the gradient there.
    directions : list of numpy.ndarray, shape (P,)
    points : list of numpy.ndarray, shape (P,)
        Points that differ from `x` by rounding.
    replay : bool
        Whether the reference is taken at all points, or at `x` alone (where it is dear and knows its own error).
    """
    gradients = [gradient, *(problem.gradient(point) for point in points)]
    if replay:
        # As many roundings as fun has go otherwise for other numbers, even where it is linear.
        factors = [1.0, *_nearly_one(x.size, len(points))]
        rows = [
            [_pair(reference, p, g, u * f) for p, g, f in zip([x, *points], gradients, factors, strict=True)]
            for u in directions
        ]
        got = np.array([[g for _, g in row] for row in rows])
        found = [[d for d, _ in row] for row in rows]
    else:
        got = np.array([[dot(g, u) for g in gradients] for u in directions])
        found = [[reference.derivative(x, u)] for u in directions]
    expected = np.array([[d.value for d in row] for row in found])
    error = np.array([max(d.error for d in row) for row in found])
    kinks = [d.kink for row in found for d in row if d.kink is not None]
    unit = float(np.abs(gradient).max()) or float(np.abs(expected).max()) or 1.0
    terms = max(float(np.linalg.norm(gradient.astype(np.float64) / unit * u)) for u in directions)
    terms = max(terms, 1.0 if float(np.abs(gradient).max()) == 0.0 else 0.0)
    measured = Measurement(
        directions,
        expected / unit,
        got / unit,
        error / unit,
        terms,
        kinks,
        unit,
        problem.packing.eps,
        _unmoved(gradients),
    )
    coarser = problem.packing.eps / float(np.finfo(reference.dtype).eps)
    if coarser <= 1:
        unseen = measured.unmoved * (DEVIATIONS * UNSEEN * measured.noise if replay else 0.0)
        return replace(measured, unseen=unseen)
    if measured.unmoved > CHANCE:
        # The reference computes in a finer type than the gradient, whose rounding is most of the noise at other points.
        rounding = 4 * float(measured.error.max())
        if replay:
            rows = [[_pair(reference, x, gradient, u * f) for f in factors[:3]] for u in directions]
            rounding = DEVIATIONS * UNSEEN * _spread(np.array([[d.value - g for d, g in row] for row in rows])) / unit
        return replace(measured, unseen=measured.unmoved * coarser * rounding)
    return measured


def _pair(reference: Reference, x: Array, gradient: Array, u: Array) -> tuple[Derivative, float]:
    """Return ∇f·u and g·u."""
    return reference.derivative(x, u), dot(gradient, u)


def _nearly_one(size: int, count: int) -> list[Array]:
    """Return vectors of factors that change numbers by a few rounding units."""
    rng = np.random.default_rng(size)
    return [1 + rng.uniform(-16, 16, size) * float(np.finfo(np.float64).eps) for _ in range(count)]


def _unmoved(gradients: list[Array]) -> float:
    """Return the part of the entries other than zero that are the same in all of these."""
    first = gradients[0]
    same = first != 0
    count = int(same.sum())
    for other in gradients[1:]:
        same &= other == first
    return int(same.sum()) / count if count else 0.0
