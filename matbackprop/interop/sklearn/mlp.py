"""MLP: what the classifier and the regressor share, which is everything but the targets."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from math import inf
from typing import Any, NamedTuple, Self

import numpy as np
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, is_regressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from matbackprop.interop.scipy import objective
from matbackprop.layer import Layer
from matbackprop.layers import Linear, ReLU, Sigmoid, Tanh
from matbackprop.loss import Loss, check_loss
from matbackprop.optimizer import Optimizer
from matbackprop.optimizers import SGD, Adam, AdamW, RMSprop
from matbackprop.penalties import L2
from matbackprop.sequential import Sequential
from matbackprop.settings import Check, flag, real
from matbackprop.training import EarlyStopping, History, fit
from matbackprop.validation import Array, as_array, as_size, check_finite, describe

__all__ = ["MLP"]

#: What stands after each hidden Linear, by scikit-learn's names.
ACTIVATIONS: dict[str, Callable[[], Layer] | None] = {
    "relu": ReLU,
    "tanh": Tanh,
    "logistic": Sigmoid,
    "identity": None,
}

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
CHECKS: dict[str, Check] = {
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


class Examples(NamedTuple):
    """Checked data, as `matbackprop.fit` takes them."""

    x: Array
    y: Array
    outputs: int
    weight: Array | None  # (N, 1)
    each: float  # how many rows a row counts for, on average


class MLP(BaseEstimator):  # type: ignore[misc]
    """A multilayer perceptron: the base of both estimators, whose parameters `MLPRegressor` explains."""

    classes_: Array
    model_: Sequential
    n_outputs_: int
    loss_curve_: list[float]
    history_: History | None
    #: The optimiser and the generator of the calls to `partial_fit`.
    _ongoing: tuple[Optimizer, np.random.Generator] | None = None

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

    def _as_targets(self, y: Any, classes: Any, again: bool) -> tuple[Array, int]:
        """Return checked targets for the loss, and the number of outputs; `again` if the model is to go on."""
        raise NotImplementedError

    def _default_loss(self) -> Loss:
        """Return the loss where none was chosen."""
        raise NotImplementedError

    def _balance(self, y: Any, weight: Array | None, partial: bool) -> Array | None:
        """Return the weights of the examples, after those of their classes."""
        return weight

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
            If the loss became NaN or infinite.
        """
        again = self.warm_start and hasattr(self, "model_")
        examples = self._prepare(X, y, sample_weight, None, again, partial=False)
        rng = self._generator()
        model = self.model_ if again else self._make_model(examples, rng)
        if self._by_lbfgs():
            curve = self._minimize(model, examples)
        else:
            curve = self._train(model, examples, self._make_optimizer(), rng, partial=False)
        self._ongoing = None
        self.n_iter_ = len(curve)
        return self._keep(model, curve, again)

    def _partial_fit(self, X: Any, y: Any, classes: Any, sample_weight: Any) -> Self:
        """Go through the data once, with the optimiser of the calls before."""
        again = hasattr(self, "model_")
        examples = self._prepare(X, y, sample_weight, classes, again, partial=True)
        optimizer, rng = self._ongoing or (self._make_optimizer(), self._generator())
        model = self.model_ if again else self._make_model(examples, rng)
        curve = self._train(model, examples, optimizer, rng, partial=True)
        self._ongoing = optimizer, rng
        self.n_iter_ = getattr(self, "n_iter_", 0) + len(curve)
        return self._keep(model, curve, again)

    def _keep(self, model: Sequential, curve: list[float], again: bool) -> Self:
        """Keep what a run has left."""
        self.model_, self.n_outputs_ = model, model.output_width(self.n_features_in_)
        self.loss_curve_ = [*self.loss_curve_, *curve] if again else curve
        self.loss_ = self.loss_curve_[-1] if self.loss_curve_ else float("nan")
        if self.history_ is not None and self.history_.interrupted:
            raise KeyboardInterrupt  # a search is to end with it, too; what was learnt is in model_
        return self

    def _prepare(self, X: Any, y: Any, sample_weight: Any, classes: Any, again: bool, *, partial: bool) -> Examples:
        """Return the data, checked, with weights whose mean is 1, but for `partial`: no call then has all rows."""
        self._check_settings()
        kinds = {"multi_output": True, "y_numeric": is_regressor(self)}
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32), order="C", reset=not again, **kinds)
        targets, outputs = self._as_targets(y, classes, again)
        if again and outputs != self.n_outputs_:
            raise ValueError(f"y: expected {self.n_outputs_} outputs, as in the fit before, got {outputs}")
        if again:
            X = X.astype(self.model_.dtype, copy=False)
        weight = None
        if sample_weight is not None:
            weight = as_array(sample_weight, "sample_weight", np.dtype(np.float64))
            if weight.shape != (len(X),):
                raise ValueError(f"sample_weight: expected shape ({len(X)},), one an example, got {weight.shape}")
            check_finite("sample_weight", weight)
            if (weight < 0).any():
                raise ValueError("sample_weight: expected weights that are not negative")
        weight = self._balance(y, weight, partial)
        if weight is None:
            return Examples(X, targets, outputs, None, 1.0)
        mean = float(weight.mean())
        if not mean:
            raise ValueError("sample_weight: all weights are zero")
        each = 1.0 if partial else mean
        return Examples(X, targets, outputs, (weight / each).astype(X.dtype)[:, None], each)

    def _check_settings(self) -> None:
        """Check the numbers and flags under the names that the user gave them; the rest is checked where it is used."""
        for name, check in CHECKS.items():
            check(getattr(self, name), name)

    def _generator(self) -> np.random.Generator:
        """Return the generator that `random_state` stands for: weights and order come from it."""
        return np.random.default_rng(check_random_state(self.random_state).randint(0, 1 << 31, 4))

    def _make_model(self, examples: Examples, rng: np.random.Generator) -> Sequential:
        """Return the network, with weights drawn by `rng`."""
        known = isinstance(self.activation, str) and self.activation in ACTIVATIONS
        if not known and not callable(self.activation):
            raise ValueError(
                f"activation: expected one of {list(ACTIVATIONS)} or a function that returns a layer, "
                f"got {describe(self.activation)}"
            )
        make = ACTIVATIONS[self.activation] if known else self.activation
        layers: list[Layer] = []
        width = examples.x.shape[1]
        for size in np.atleast_1d(np.asarray(self.hidden_layer_sizes, object)).tolist():
            layers.append(Linear(width, width := as_size(size, "hidden_layer_sizes")))
            if make is not None:
                layers.append(make())
        return Sequential(*layers, Linear(width, examples.outputs), dtype=examples.x.dtype, rng=rng)

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

    def _penalty(self, rows: int, each: float) -> L2 | None:
        """Return the L2 penalty for batches of so many rows, where a row counts for `each`."""
        return L2(self.alpha / (rows * each)) if self.alpha else None

    def _train(
        self, model: Sequential, examples: Examples, optimizer: Optimizer, rng: np.random.Generator, *, partial: bool
    ) -> list[float]:
        """Run `matbackprop.fit`, for one epoch if `partial`, and return the loss of each epoch."""
        count, epochs = len(examples.x), 1 if partial else self.max_iter
        stopping, validation = None, None
        if not partial:
            patience = int(min(self.n_iter_no_change, epochs))
            stopping = EarlyStopping(patience, min_delta=self.tol, restore_best=self.early_stopping)
            if self.early_stopping:
                validation = self.validation_fraction
                count = max(1, count - round(count * validation))
        auto = isinstance(self.batch_size, str) and self.batch_size == "auto"
        rows = min(200 if auto else as_size(self.batch_size, "batch_size"), count)
        self.history_ = fit(
            model,
            examples.x,
            examples.y,
            self._chosen_loss(),
            optimizer,
            epochs=epochs,
            batch_size=rows,
            validation=validation,
            early_stopping=stopping,
            sample_weight=examples.weight,
            penalty=self._penalty(rows, examples.each),
            progress=bool(self.verbose),
            rng=rng,
            workers=self.workers,
        )
        losses: list[float] = self.history_["loss"].tolist() if self.history_.epochs else []
        return losses

    def _minimize(self, model: Sequential, examples: Examples) -> list[float]:
        """Run SciPy's L-BFGS-B on all data at once, and return the loss after each iteration."""
        if self.early_stopping:
            raise ValueError("early_stopping: solver='lbfgs' has no epochs after which to validate; choose another")
        penalty = self._penalty(len(examples.x), examples.each)
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
