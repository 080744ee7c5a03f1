"""clip_norm: no gradient longer than it should be."""

from __future__ import annotations

from math import inf, isfinite, sqrt

import numpy as np

from matbackprop.settings import real
from matbackprop.validation import Array, check_vector

__all__ = ["clip_norm"]

#: Numbers at a time, where the plain sum of squares leaves the type's range.
_PIECE = 4096


def clip_norm(gradients: Array, max_norm: float) -> float:
    """Scale a vector in place to the length `max_norm`, if it is longer; return its length before.

    g ← g · min(1, max_norm / ‖g‖), ‖g‖ the Euclidean norm. It allocates no array of the vector's size.

    Parameters
    ----------
    gradients : numpy.ndarray, shape (P,)
        Of any floating or complex type a model can have. Where the norm is infinite or NaN it is left as it is.
    max_norm : float
        Above 0; infinity only measures.

    Returns
    -------
    float
        The norm before. It is right too where squares overflow or vanish, as those of 1e30 and 1e-30 do in float32.

    Raises
    ------
    TypeError, ValueError
        If `gradients` is no such vector or read-only, or `max_norm` no such number.

    Notes
    -----
    torch's ``clip_grad_norm_`` divides by ‖g‖ + 1e-6, so that its result is shorter than `max_norm` by the factor
    1 + 1e-6/‖g‖. Here the length afterwards is `max_norm`, to rounding.

    References
    ----------
    Pascanu, Mikolov, Bengio. On the difficulty of training recurrent neural networks. ICML 2013. arXiv:1211.5063.

    Examples
    --------
    >>> import matbackprop as mb
    >>> gradients = np.array([3.0, 4.0])
    >>> mb.clip_norm(gradients, 1.0)
    5.0
    >>> gradients
    array([0.6, 0.8])
    """
    check_vector("clip_norm: gradients", gradients, "pass model.gradients, or array.reshape(-1)")
    if not gradients.flags.writeable:
        raise ValueError("clip_norm: gradients: they are read-only, and are scaled in place")
    largest = real(0, inf, "(]")(max_norm, "clip_norm: max_norm")

    norm = _norm(gradients)
    if isfinite(norm) and norm > largest:
        ratio, limit = norm / largest, float(np.finfo(gradients.dtype).max)
        if ratio < limit:
            np.divide(gradients, ratio, gradients)
        else:  # in two steps, each within the type's range
            root = min(sqrt(norm) / sqrt(largest), limit)
            np.divide(gradients, root, gradients)
            np.divide(gradients, root, gradients)
    return norm


def _norm(vector: Array) -> float:
    """Return √Σ|x|²."""
    with np.errstate(over="ignore", invalid="ignore"):
        square = float(np.vdot(vector, vector).real)
    info = np.finfo(vector.dtype)
    if float(info.tiny) / float(info.eps) < square < float("inf"):
        return sqrt(square)
    if not vector.size:
        return 0.0
    parts = (vector.real, vector.imag) if vector.dtype.kind == "c" else (vector,)
    scale = max(max(float(part.max()), -float(part.min())) for part in parts)
    if scale == 0 or not isfinite(scale):
        return scale
    buffer = np.empty(min(vector.size, _PIECE), parts[0].dtype)
    total = 0.0
    for part in parts:
        for start in range(0, part.size, _PIECE):
            piece = part[start : start + _PIECE]
            scaled = np.divide(piece, scale, buffer[: piece.size])
            total += float(np.dot(scaled, scaled))
    return scale * sqrt(total)
