"""The engine of one model: its prepared plans, and the workers that share a large batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from threading import Lock
from typing import Any

import numpy as np

from matbackprop import aligned
from matbackprop.blas import one_blas_thread
from matbackprop.flat import own_gradients
from matbackprop.layer import Layer
from matbackprop.loss import Loss
from matbackprop.parallel import Costs, Shares, costs, cut, run_all, share
from matbackprop.plan import Plans, PredictPlan, TrainingPlan
from matbackprop.validation import Array, check_finite

__all__ = ["Engine"]


class Worker:
    """What a thread works with: replicas of the layers, with gradients, caches and buffers of their own."""

    def __init__(self, layers: Sequence[Layer], dtype: np.dtype[Any]) -> None:
        self.layers = [layer.replica() for layer in layers]
        self.pairs = [
            (part, original)
            for twin, layer in zip(self.layers, layers, strict=True)
            for (_, part), (_, original) in zip(twin.walk(), layer.walk(), strict=True)
        ]
        self.gradients = own_gradients(self.layers, dtype)
        self.sum = aligned.empty(self.gradients.size, dtype)
        self.plans: Plans[TrainingPlan] = Plans()

    def follow(self) -> None:
        """Take over the settings of the layers, and of those in them."""
        for part, original in self.pairs:
            part.follow(original)

    def run(
        self, blocks: Sequence[slice], x: Array, y: Array, weight: Array | None, loss: Loss, divisor: float
    ) -> float:
        """Return the blocks' share of the loss, a mean by `divisor`, and leave their gradient in `sum`."""
        value = 0.0
        for index, block in enumerate(blocks):
            shape, targets, weighted = x[block].shape, y[block], weight is not None
            make = partial(TrainingPlan, self.layers, loss, shape, x.dtype, targets, weighted)
            plan = self.plans.get((shape, targets.shape, targets.dtype, weighted, loss._key()), make)
            value += plan.run(x[block], targets, None if weight is None else weight[block], divisor)
            if index:
                self.sum += self.gradients
            else:
                self.sum[...] = self.gradients
        return value


class Predictor:
    """What one prediction at a time works with."""

    def __init__(self) -> None:
        self.plans: Plans[PredictPlan] = Plans()
        self.last: PredictPlan | None = None  # the plan of the last batch, if that was in one piece


class Engine:
    """How a model runs, as long as its layers and vectors are these.

    Parameters
    ----------
    layers : list of Layer
        Its leaves.
    gradients : numpy.ndarray
        Its vector.
    """

    def __init__(self, layers: Sequence[Layer], gradients: Array) -> None:
        self.layers, self.gradients, self.dtype = layers, gradients, gradients.dtype
        self.plans: Plans[TrainingPlan] = Plans()
        self.last: TrainingPlan | None = None
        self.busy = Lock()
        self.workers: list[Worker] = []
        self._predictors: list[Predictor] = []
        self._costs: dict[int, Costs] = {}

    def costs(self, width: int) -> Costs:
        """Return what a row of this many features costs."""
        cost = self._costs.get(width)
        if cost is None:
            cost = self._costs[width] = costs(self.layers, width)
        return cost

    def backprop(self, x: Array, y: Array, weight: Array | None, loss: Loss, workers: int | None) -> float:
        """Return the loss of the rows `x` and leave its gradient in the model's vector."""
        cost = self.costs(x.shape[1])
        if not loss.rowwise:
            cost = cost._replace(rowwise=False)
        shares = share(cost, len(x), self.dtype.itemsize, workers)
        if shares.workers > 1 or len(x) > shares.block:
            return self._in_blocks(x, y, weight, loss, shares)
        shape, weighted = (len(x), x.shape[1]), weight is not None
        plan = self.plans.get(
            (shape, y.shape, y.dtype, weighted, loss._key()),
            partial(TrainingPlan, self.layers, loss, shape, self.dtype, y, weighted),
        )
        plan.light = shares.light
        self.last = plan if workers is None else None
        return self.step(plan, x, y, weight)

    @staticmethod
    def step(plan: TrainingPlan, x: Array, y: Array, weight: Array | None = None) -> float:
        """Run a plan."""
        if plan.light:
            return plan.run(x, y, weight)
        with one_blas_thread:
            return plan.run(x, y, weight)

    def _in_blocks(self, x: Array, y: Array, weight: Array | None, loss: Loss, shares: Shares) -> float:
        """Share the blocks among the workers, and sum what they found in the order of the rows."""
        while len(self.workers) < shares.workers:
            self.workers.append(Worker(self.layers, self.dtype))
        team = self.workers[: shares.workers]
        count = prod(loss.loss_shape((len(x), self.costs(x.shape[1]).outputs)))
        divisor = loss.divisor(y, count)

        def job(worker: Worker, blocks: list[slice]) -> Callable[[], float]:
            worker.follow()
            return lambda: worker.run(blocks, x, y, weight, loss, divisor)

        parts = cut(len(x), shares.block, shares.workers)
        try:
            with one_blas_thread:
                values = run_all([job(worker, blocks) for worker, blocks in zip(team, parts, strict=True)])
        except ValueError:
            loss.check_values(None, y)  # which may name the value by its place in the batch, not in a block
            check_finite(f"{loss!r}: y_true", y)
            raise
        self.gradients[...] = team[0].sum
        for worker in team[1:]:
            self.gradients += worker.sum
        return sum(values)

    def predict_again(self, x: object) -> Array | None:
        """Return the output for `x` if it is like the last batch, and that was in one piece: the quick way in."""
        try:
            predictor = self._predictors.pop()
        except IndexError:
            return None
        plan, result = predictor.last, None
        if plan is not None and type(x) is np.ndarray and x.shape == plan.x_shape and x.dtype == self.dtype:
            if plan.light:
                result = plan.run(x)
            else:
                with one_blas_thread:
                    result = plan.run(x)
            result = result.copy()  # the buffer is another call's as soon as the predictor is back
        self._predictors.append(predictor)
        return result

    def predict(self, x: Array, workers: int | None) -> Array:
        """Return the output for the rows `x`, in a fresh array."""
        cost = self.costs(x.shape[1])
        result = np.empty((len(x), cost.outputs), self.dtype)
        shares = share(cost, len(x), self.dtype.itemsize, workers, predict=True)
        parts = cut(len(x), shares.block, shares.workers)
        jobs = [partial(self._predict_blocks, x, blocks, result, shares.light, workers is None) for blocks in parts]
        if shares.light:
            run_all(jobs)
        else:
            with one_blas_thread:
                run_all(jobs)
        return result

    def _predict_blocks(self, x: Array, blocks: Sequence[slice], result: Array, light: bool, again: bool) -> None:
        """Fill these rows of the result, in buffers that no other thread has in hand, perhaps to be used `again`."""
        try:
            predictor = self._predictors.pop()
        except IndexError:
            predictor = Predictor()
        predictor.last = None
        for block in blocks:
            shape = x[block].shape
            plan = predictor.plans.get(shape, partial(PredictPlan, self.layers, shape, x.dtype))
            result[block] = plan.run(x[block])
            if again and shape == x.shape:
                plan.light, predictor.last = light, plan
        self._predictors.append(predictor)
