"""MLP: what the classifier and the regressor share, which is everything but the targets."""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Any, Self

import numpy as np
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, is_regressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from matbackprop.interop.scipy import objective
from matbackprop.interop.sklearn.architecture import Architecture
from matbackprop.interop.sklearn.examples import Examples, as_weight, hold_out
from matbackprop.loss import Loss, check_loss
from matbackprop.losses import MSE
from matbackprop.optimizer import Optimizer
from matbackprop.optimizers import SGD, Adam, AdamW, RMSprop
from matbackprop.penalties import L2
from matbackprop.sequential import Sequential
from matbackprop.settings import Check, flag, real
from matbackprop.training import EarlyStopping, History, fit
from matbackprop.validation import Array, as_size, describe

__all__ = ["MLP"]

#: The optimisers by name, made with a learning rate; "sgd" has scikit-learn's momentum.
SOLVERS: dict[str, Callable[[float], Optimizer]] = {
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
    "sgd": lambda lr: SGD(lr, momentum=0.9, nesterov=True),
}


def _as_patience(value: object, name: str) -> float:
    """Return a number of epochs, which may be infinite, as scikit-learn has it."""
    return inf if isinstance(value, float) and value == inf else as_size(value, name)


#: The settings that are numbers and flags.
CHECKS: dict[str, Check[Any]] = {
    "alpha": real(),
    "learning_rate_init": real(),
    "max_iter": as_size,
    "tol": real(),
    "n_iter_no_change": _as_patience,
    "early_stopping": flag,
    "validation_fraction": real(0, 1, "()"),
    "warm_start": flag,
}

#: L-BFGS-B ends where the loss falls by less than this, relatively: where only rounding is left.
FTOL = 64 * float(np.finfo(np.float64).eps)


class MLP(BaseEstimator, ABC):  # type: ignore[misc]
    """A multilayer perceptron: the base of both estimators, whose parameters `MLPRegressor` explains."""

    classes_: Array
    model_: Sequential
    n_outputs_: int
    loss_curve_: list[float]
    history_: History | None
    #: The optimiser and the generator of the calls to `partial_fit`.
    _ongoing: tuple[Optimizer, np.random.Generator] | None = None
    _architecture: Architecture  # what `model_` was made by
    _loss: Loss  # what it was trained with last

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        loss: Loss | None = None,
        solver: Any = "adam",
        alpha: float = 1e-4,
        batch_size: Any = "auto",
        learning_rate_init: float = 1e-3,
        max_iter: int = 200,
        tol: float = 1e-4,
        n_iter_no_change: Any = 10,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        warm_start: bool = False,
        random_state: Any = None,
        workers: int | None = None,
        verbose: bool = False,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.loss = loss
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.warm_start = warm_start
        self.random_state = random_state
        self.workers = workers
        self.verbose = verbose

    # What each of the two answers for itself.

    @abstractmethod
    def _as_targets(self, y: Any, classes: Any, again: bool) -> tuple[Array, int]:
        """Return checked targets for the loss, and the number of outputs; `again` if the model is to go on."""

    @abstractmethod
    def _default_loss(self) -> Loss:
        """Return the loss where none was chosen."""

    def _balance(self, y: Any, weight: Array | None, partial: bool) -> Array | None:
        """Return the weights of the examples, after those of their classes."""
        return weight

    def _strata(self, targets: Array) -> Array | None:
        """Return the classes that the rows held out shall have in the same shares as all, if there are any."""
        return None

    # Fitting.

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on examples `X` and targets `y`, afresh unless `warm_start`.

        Parameters
        ----------
        X : array_like, shape (N, in)
            With float32 the model is of float32, too; everything else is computed in float64.
        y : array_like, shape (N,) or (N, out)
        sample_weight : array_like, shape (N,), optional
            Not negative. The loss is the weighted mean, so that a weight of 2 is the same as standing there twice.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If the data or a parameter does not fit.
        matbackprop.Diverged
            If the loss became NaN or infinite. After any error the estimator is as it was before.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If training ended because there were `max_iter` epochs or iterations.
        """
        with self._undone_by_errors():
            again = self.warm_start and hasattr(self, "model_")
            examples = self._prepare(X, y, sample_weight, None, again, partial=False)
            rng = self._generator()
            model = self._next_model(examples, rng, again)
            if self._by_lbfgs():
                curve = self._minimize(model, examples)
            else:
                curve = self._train(model, examples, self._make_optimizer(), rng, partial=False)
            self._ongoing = None
            self.n_iter_ = len(curve)
            self._keep(model, curve, again)
        return self._unless_interrupted()

    def _partial_fit(self, X: Any, y: Any, classes: Any, sample_weight: Any) -> Self:
        """Go through the data once, with the optimiser of the calls before."""
        with self._undone_by_errors():
            again = hasattr(self, "model_")
            examples = self._prepare(X, y, sample_weight, classes, again, partial=True)
            if self.early_stopping:
                raise ValueError("early_stopping: partial_fit goes through the data once; use fit, or set it to False")
            optimizer, rng = copy.deepcopy(self._ongoing) or (self._make_optimizer(), self._generator())
            model = self._next_model(examples, rng, again)
            curve = self._train(model, examples, optimizer, rng, partial=True)
            self._ongoing = optimizer, rng
            self.n_iter_ = getattr(self, "n_iter_", 0) + len(curve)
            self._keep(model, curve, again)
        return self._unless_interrupted()

    @contextmanager
    def _undone_by_errors(self) -> Iterator[None]:
        """Leave every attribute as it was, if fitting fails; the objects that they name are replaced, not changed."""
        before = self.__dict__.copy()
        try:
            yield
        except BaseException:
            self.__dict__ = before
            raise

    def _keep(self, model: Sequential, curve: list[float], again: bool) -> None:
        """Keep what a run has left."""
        self.model_, self.n_outputs_ = model, model.output_width(self.n_features_in_)
        self._architecture, self._loss = self._chosen_architecture(), self._chosen_loss()
        self.loss_curve_ = [*self.loss_curve_, *curve] if again else curve
        self.loss_ = self.loss_curve_[-1] if self.loss_curve_ else float("nan")

    def _unless_interrupted(self) -> Self:
        """Return self, or raise what Ctrl-C does: a search is to end with it, too; what was learnt is in `model_`."""
        if self.history_ is not None and self.history_.interrupted:
            raise KeyboardInterrupt
        return self

    def _prepare(self, X: Any, y: Any, sample_weight: Any, classes: Any, again: bool, *, partial: bool) -> Examples:
        """Return the data, checked, with weights whose mean is 1, but for `partial`: no call then has all rows."""
        self._check_settings()
        kinds = {"multi_output": True, "y_numeric": is_regressor(self)}
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32), order="C", reset=not again, **kinds)
        targets, outputs = self._as_targets(y, classes, again)
        if again and outputs != self.n_outputs_:
            raise ValueError(
                f"y: expected {self.n_outputs_} outputs, as the model has that is to go on, got {outputs} for this loss"
            )
        if again:
            X = X.astype(self.model_.dtype, copy=False)
        weight = self._balance(y, as_weight(sample_weight, len(X)), partial)
        if weight is None:
            return Examples(X, targets, outputs, None, 1.0)
        with np.errstate(over="ignore"):
            mean = float(weight.mean())
        if mean == inf:
            raise ValueError("sample_weight: the weights are too large to be averaged; scale them")
        if not mean:
            raise ValueError("sample_weight: all weights are zero, those of the classes included")
        each = 1.0 if partial else mean
        return Examples(X, targets, outputs, (weight / each).astype(X.dtype)[:, None], each)

    def _check_settings(self) -> None:
        """Check the numbers and flags under the names that the user gave them; the rest is checked where it is used."""
        for name, check in CHECKS.items():
            check(getattr(self, name), name)

    def _generator(self) -> np.random.Generator:
        """Return the generator that `random_state` stands for: weights and order come from it."""
        return np.random.default_rng(check_random_state(self.random_state).randint(0, 1 << 31, 4))

    def _chosen_architecture(self) -> Architecture:
        """Return what the settings say of the hidden layers."""
        return Architecture.of(self.hidden_layer_sizes, self.activation)

    def _next_model(self, examples: Examples, rng: np.random.Generator, again: bool) -> Sequential:
        """Return the network that is to be trained: with weights drawn by `rng`, or a copy of the one to go on."""
        architecture = self._chosen_architecture()
        if not again:
            return architecture.build(examples.x.shape[1], examples.outputs, examples.x.dtype, rng)
        if architecture != self._architecture:
            raise ValueError(
                "hidden_layer_sizes, activation: they are not those of the model that is to go on; set them back, or "
                "fit anew without warm_start"
            )
        return self.model_.copy()

    def _chosen_loss(self) -> Loss:
        """Return the loss."""
        if self.loss is None:
            return self._default_loss()
        check_loss(self.loss)
        return self.loss

    def _by_lbfgs(self) -> bool:
        """Return whether the solver is SciPy's."""
        return isinstance(self.solver, str) and self.solver == "lbfgs"

    def _by_steps(self) -> bool:
        """Return True, or raise the AttributeError that tells scikit-learn that there is no `partial_fit`."""
        if self._by_lbfgs():
            raise AttributeError("partial_fit: solver='lbfgs' needs all data at once; choose another, such as 'adam'")
        return True

    def _make_optimizer(self) -> Optimizer:
        """Return an optimiser without a past."""
        if isinstance(self.solver, Optimizer):
            optimizer = copy.deepcopy(self.solver)
            optimizer.reset()
            return optimizer
        if not isinstance(self.solver, str) or self.solver not in SOLVERS:
            raise ValueError(
                f"solver: expected one of {[*SOLVERS, 'lbfgs']} or an Optimizer such as mb.Adam(), "
                f"got {describe(self.solver)}"
            )
        return SOLVERS[self.solver](self.learning_rate_init)

    def _penalty(self, examples: Examples, rows: int) -> L2 | None:
        """Return the L2 penalty for batches of so many rows.

        α/2 Σ w² goes with the sum of the rows' losses, squared errors halved, as in scikit-learn; here that sum is
        divided by what the loss's mean divides by.
        """
        loss = self._chosen_loss()
        share = rows * (1 if loss.per_row else examples.outputs) if loss.reduction == "mean" else 1
        strength = self.alpha * (2 if isinstance(loss, MSE) else 1) / (share * examples.each)
        return L2(strength) if strength else None

    def _train(
        self, model: Sequential, examples: Examples, optimizer: Optimizer, rng: np.random.Generator, *, partial: bool
    ) -> list[float]:
        """Run `matbackprop.fit`, for one epoch if `partial`, and return the loss of each epoch."""
        x, y, _, weight, _ = examples
        epochs = 1 if partial else self.max_iter
        stopping, validation = None, None
        if not partial:
            patience = int(min(self.n_iter_no_change, epochs))
            stopping = EarlyStopping(patience, min_delta=self.tol, restore_best=self.early_stopping)
            if self.early_stopping:
                (x, y, weight), validation = hold_out(examples, self.validation_fraction, self._strata(examples.y), rng)
        auto = isinstance(self.batch_size, str) and self.batch_size == "auto"
        rows = min(200 if auto else as_size(self.batch_size, "batch_size"), len(x))
        self.history_ = history = fit(
            model,
            x,
            y,
            self._chosen_loss(),
            optimizer,
            epochs=epochs,
            batch_size=rows,
            validation=validation,
            early_stopping=stopping,
            sample_weight=weight,
            penalty=self._penalty(examples, rows),
            progress=bool(self.verbose),
            rng=rng,
            workers=self.workers,
        )
        losses: list[float] = history["loss"].tolist() if history.epochs else []
        if not partial and history.completed and not history.interrupted:
            warnings.warn(
                f"training has not converged: the loss still fell in the last of max_iter={epochs} epochs; allow more, "
                "or raise learning_rate_init or tol",
                ConvergenceWarning,
                stacklevel=3,
            )
        return losses

    def _minimize(self, model: Sequential, examples: Examples) -> list[float]:
        """Run SciPy's L-BFGS-B on all data at once, and return the loss after each iteration."""
        if self.early_stopping:
            raise ValueError("early_stopping: solver='lbfgs' has no epochs after which to validate; choose another")
        penalty = self._penalty(examples, len(examples.x))
        f = objective(
            model,
            examples.x,
            examples.y,
            self._chosen_loss(),
            sample_weight=examples.weight,
            penalty=penalty,
            workers=self.workers,
        )
        curve: list[float] = []

        def note(intermediate_result: Any) -> None:
            curve.append(float(intermediate_result.fun))

        options = {"maxiter": self.max_iter, "maxfun": 1 << 30, "gtol": self.tol, "ftol": FTOL}
        result = minimize(f, f.x0, jac=True, method="L-BFGS-B", callback=note, options=options)
        model.parameters, self.history_ = result.x, None
        if not result.success:
            warnings.warn(f"L-BFGS-B has not converged: {result.message}", ConvergenceWarning, stacklevel=3)
        return curve

    def _outputs(self, X: Any) -> Array:
        """Return the network's outputs."""
        check_is_fitted(self, "model_")
        X = validate_data(self, X, dtype=(np.float64, np.float32), order="C", reset=False)
        return self.model_.predict(X, workers=self.workers)
