"""Sequential: a chain of layers over one flat vector of parameters and one of gradients."""

from __future__ import annotations

from math import prod

import numpy as np

from matbackprop.chain import Chain
from matbackprop.engine import Engine
from matbackprop.flat import width_after
from matbackprop.layer import as_result, read_only
from matbackprop.loss import Loss, check_loss
from matbackprop.parallel import as_workers
from matbackprop.validation import Array, as_array, as_out, check_features

__all__ = ["Sequential"]


class Sequential(Chain):
    """A chain of layers, with every parameter in one flat vector and every gradient in another.

    The layers become part of the model: their `weight`, `bias` and gradients are from then on views into the two
    vectors, which are never replaced. A Sequential is itself a layer and can stand in another one.

    Parameters
    ----------
    *layers : Layer
        In order. Each can be part of one model only.
    dtype : dtype, keyword-only, default float64
        What the model computes in: float32, float64, longdouble, or a complex type for complex-step derivatives.
        By default the type that its layers were made with, if any was.
    rng : int, numpy.random.Generator or None, keyword-only
        Where the weights are drawn from that have not been drawn yet, in the order of the layers. A Sequential inside
        has drawn its own, and must have been given an `rng` too.

    Attributes
    ----------
    parameters, gradients : numpy.ndarray, shape (P,)
        Live views: of all weights and biases, in the order of `state_dict`, and of ∂L/∂ each of them. Assigning
        writes into them, so that ``model.parameters -= 0.1 * model.gradients`` is a training step.
    dtype : numpy.dtype

    Raises
    ------
    TypeError
        If something is not a layer, or the types of layers disagree.
    ValueError
        If there is no layer, one appears twice or is part of another model, or the widths do not fit.

    Examples
    --------
    >>> import matbackprop as mb
    >>> model = mb.Sequential(mb.Linear(2, 3), mb.Tanh(), mb.Linear(3, 1), rng=0)
    >>> x, y = [[0.0, 1.0], [1.0, 1.0]], [[1.0], [0.0]]
    >>> first = model.backprop(x, y, mb.MSE())
    >>> for _ in range(100):
    ...     value = model.backprop(x, y, mb.MSE())
    ...     model.parameters -= 0.1 * model.gradients
    >>> value < first / 100
    True
    >>> model.predict([0.0, 1.0]).round(1)
    array([1.])
    """

    _transient = Chain._transient | {"_engine", "_last"}
    _engine: Engine
    _last: tuple[tuple[int, ...], tuple[int, ...], list[int]]  # the last forward pass: shapes of input, output; widths

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        for name in ("forward", "backward"):
            if name in vars(cls):
                raise TypeError(
                    f"{cls.__name__}: predict and backprop run the layers of a Sequential one by one and would not see "
                    f"{name}; derive from Layer, and hold the Sequential as an attribute"
                )

    def _renew(self) -> None:
        self._engine = Engine(self.leaves(), self._vectors[1])

    def _running(self) -> Engine:
        """Return the engine."""
        if self._seen is not self._layers[0]._layout:
            self._refresh()
        return self._engine

    def forward(self, x: Array, out: Array | None = None) -> Array:
        """Return the model's output, and let each layer keep what `backward` needs.

        It is a pass made to train: a `Dropout` drops. `predict` is the one for evaluation.

        Parameters
        ----------
        x : array_like, shape (..., in)
            One example a row; one example alone, (in,), or more leading dimensions are taken too. Do not change it,
            nor the result, between this call and `backward`.
        out : numpy.ndarray, shape (..., out), optional
            Where to write the result.

        Returns
        -------
        numpy.ndarray, shape (..., out)
            `out`, or a fresh array, which the library never overwrites.

        Raises
        ------
        TypeError, ValueError
            If `x` or `out` does not fit.
        """
        self._pass = None
        x, rows = self._as_rows(x)
        shape = (*x.shape[:-1], self.output_width(x.shape[-1]))
        if out is not None:
            as_out(out, "Sequential", shape, rows.dtype)
            if np.may_share_memory(out, rows):
                rows = rows.copy()  # the first layer may keep it
        first, leaves, this_pass = rows, self.leaves(), object()
        widths = [rows.shape[1]]
        for layer in leaves:
            widths.append(width_after(layer, widths[-1]))
            wanted = (len(rows), widths[-1])
            rows = as_result(layer, "forward", layer.forward(read_only(rows)), wanted, first.dtype)
            layer._pass = this_pass
        self._last, self._pass = (x.shape, shape, widths), this_pass
        return _deliver(rows, first, shape, out)

    def backward(self, delta: Array, out: Array | None = None) -> Array:
        """Return ∂L/∂X from ``delta = ∂L/∂Ŷ``, and replace `gradients`.

        Parameters
        ----------
        delta : array_like, shape (..., out)
            The upstream gradient, of the shape that `forward` returned: a loss's ``backward()``.
        out : numpy.ndarray, shape (..., in), optional
            Where to write the result.

        Returns
        -------
        numpy.ndarray, shape (..., in)

        Raises
        ------
        RuntimeError
            If no successful `forward` came before, or a `backprop` came in between.
        TypeError, ValueError
            If `delta` or `out` does not fit.
        """
        leaves = self.leaves()
        if self._pass is None or any(layer._pass is not self._pass for layer in leaves):
            raise RuntimeError(
                "Sequential: backward before forward; call forward(x) first (the last one may have failed, or a "
                "backprop or another model's pass through these layers come in between)"
            )
        input_shape, output_shape, widths = self._last
        delta = as_array(delta, "Sequential: delta", self.dtype)
        if delta.shape != output_shape:
            raise ValueError(f"Sequential: delta must have the shape of the output, {output_shape}, got {delta.shape}")
        if out is not None:
            as_out(out, "Sequential", input_shape, delta.dtype)
        first = rows = delta.reshape(prod(delta.shape[:-1]), delta.shape[-1])
        for layer, width in zip(reversed(leaves), widths[-2::-1], strict=True):
            rows = as_result(layer, "backward", layer.backward(read_only(rows)), (len(rows), width), first.dtype)
        return _deliver(rows, first, input_shape, out)

    def predict(self, x: Array, *, workers: int | None = None) -> Array:
        """Return the model's output and keep nothing: for evaluation. A `Dropout` drops nothing.

        It works in blocks of rows, so that it needs little memory beyond the result, and may be called from several
        threads at once. (A layer of your own that is not `rowwise` gets the batch in one piece.)

        Parameters
        ----------
        x : array_like, shape (..., in)
        workers : int, optional
            How many threads share the rows. By default as many as there are cores to use, where that is worth it.

        Returns
        -------
        numpy.ndarray, shape (..., out)
            A fresh array.

        Raises
        ------
        TypeError, ValueError
            If `x` or `workers` does not fit.

        Examples
        --------
        >>> import matbackprop as mb
        >>> model = mb.Sequential(mb.Linear(2, 1), rng=0)
        >>> model.predict(np.ones((1000, 2))).shape
        (1000, 1)
        """
        if workers is None:
            again = self._running().predict_again(x)
            if again is not None:
                return again
        x, rows = self._as_rows(x)
        result = self._engine.predict(rows, as_workers(workers))
        return result.reshape(*x.shape[:-1], result.shape[1])

    def backprop(
        self,
        x: Array,
        y: Array,
        loss: Loss,
        *,
        sample_weight: Array | float | None = None,
        workers: int | None = None,
    ) -> float:
        """Return the loss of a batch and leave its gradient in `gradients`.

        One thread at a time: each thread needs a copy of the model. After the first call with a batch size it
        allocates no array. Where the network ends in `Sigmoid` and the
        loss is `BCE`, both come from the pre-activation, so that saturation loses nothing.

        Parameters
        ----------
        x : array_like, shape (..., in)
        y : array_like, shape (..., out)
            Targets, of the shape of the output; for `CrossEntropy`, integer classes of shape (...) too.
        loss : Loss
        sample_weight : array_like, optional
            Multiplies each element's loss; anything that broadcasts to the shape of the output. For `CrossEntropy`,
            which has one loss a row, of shape (...) or (..., 1).
        workers : int, optional
            How many threads share the batch, in blocks of rows; 1 is none but this one. By default as many as there
            are cores to use, where the batch is large enough to be worth it. The same number gives the same bits.

        Returns
        -------
        float

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; parameters and gradients are then as before. (After an exception of a layer
            of your own they may be half new.)

        Examples
        --------
        >>> import matbackprop as mb
        >>> model = mb.Sequential(mb.Linear(1, 1), rng=0)
        >>> model.parameters = [0.3, 0.4]
        >>> round(model.backprop([[0.5]], [[0.95]], mb.MSE()), 4)
        0.16
        >>> model.gradients.round(4)
        array([-0.4, -0.8])
        """
        return self._backprop(x, y, loss, sample_weight, workers, fresh=False)[0]

    def value_and_grad(
        self,
        x: Array,
        y: Array,
        loss: Loss,
        *,
        sample_weight: Array | float | None = None,
        workers: int | None = None,
    ) -> tuple[float, Array]:
        """Return the loss of a batch and its gradient as a fresh vector: `backprop` for functional use.

        Parameters and errors are those of `backprop`, which it calls: `gradients` holds the same numbers afterwards.

        Returns
        -------
        value : float
        gradient : numpy.ndarray, shape (P,)

        Examples
        --------
        >>> import matbackprop as mb
        >>> model = mb.Sequential(mb.Linear(1, 1), rng=0)
        >>> value, gradient = model.value_and_grad([[0.5]], [[0.95]], mb.MSE())
        >>> gradient.shape
        (2,)
        """
        return self._backprop(x, y, loss, sample_weight, workers, fresh=True)

    def _backprop(
        self, x: Array, y: Array, loss: Loss, sample_weight: Array | float | None, workers: int | None, *, fresh: bool
    ) -> tuple[float, Array]:
        """Do what `backprop` says, and return the gradient too, as it was before another thread could come."""
        engine = self._running()
        if not engine.busy.acquire(blocking=False):
            raise RuntimeError(
                "Sequential: backprop is running already, in another thread or in a layer of yours; a model has one "
                "vector of gradients, so give each thread a model.copy()"
            )
        try:
            value = self._step(engine, x, y, loss, sample_weight, workers)
            return value, engine.gradients.copy() if fresh else engine.gradients
        finally:
            engine.busy.release()

    def _step(
        self,
        engine: Engine,
        x: Array,
        y: Array,
        loss: Loss,
        sample_weight: Array | float | None,
        workers: int | None,
    ) -> float:
        if self._pass is not None:
            self._pass = None
        plan = engine.last
        if plan is not None and workers is None and plan.fits(x, y, loss, sample_weight):
            return engine.step(plan, x, y)

        check_loss(loss)
        x, rows = self._as_rows(x)
        outputs = engine.costs(rows.shape[1]).outputs
        shape = (*x.shape[:-1], outputs)
        y = loss.as_targets(y, shape, rows.dtype, "backprop: y")
        weight = None
        if sample_weight is not None:
            weight = loss.as_weight(sample_weight, shape, rows.dtype).reshape(loss.loss_shape((len(rows), outputs)))
        y = y.reshape(len(rows), *y.shape[x.ndim - 1 :])
        return engine.backprop(rows, y, weight, loss, as_workers(workers))

    def _as_rows(self, x: Array) -> tuple[Array, Array]:
        """Return `x` as a checked array of the model's type, and as a view of shape (rows, features)."""
        first, dtype = self._layers[0], self._running().dtype
        if type(x) is not np.ndarray or x.dtype != dtype:
            x = as_array(x, f"{first.label}: x", dtype)
        if x.ndim != 2 or x.shape[1] != first.in_features:
            check_features(first.label, x.shape, self.in_features)
            return x, x.reshape(prod(x.shape[:-1]), x.shape[-1])
        return x, x


def _deliver(rows: Array, given: Array, shape: tuple[int, ...], out: Array | None) -> Array:
    """Return the rows in their final shape, in `out` if that is given, and never in the memory that the caller gave."""
    result = rows.reshape(shape)
    if out is None:
        return result.copy() if not result.flags.writeable or np.may_share_memory(result, given) else result
    out[...] = result
    return out
