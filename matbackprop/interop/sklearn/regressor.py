"""MLPRegressor: a multilayer perceptron for regression."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import MultiOutputMixin, RegressorMixin
from sklearn.utils.metaestimators import available_if

from matbackprop.interop.sklearn.mlp import MLP
from matbackprop.loss import Loss
from matbackprop.losses import MSE
from matbackprop.validation import Array, as_array, check_finite

__all__ = ["MLPRegressor"]


class MLPRegressor(MultiOutputMixin, RegressorMixin, MLP):  # type: ignore[misc]
    """A multilayer perceptron for regression, one or several outputs, as a scikit-learn estimator.

    Where it differs from scikit-learn's: any loss; its gradient is that of the loss for several outputs, too; float32
    stays float32; early stopping goes back to the best epoch by the loss on the held-out rows, whatever the solver; a
    callable activation and any `Optimizer`.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default (100,)
        Units of each hidden layer; () for a linear model.
    activation : {"relu", "tanh", "logistic", "identity"} or callable, default "relu"
        What follows each hidden layer; a callable returns a `Layer`.
    loss : Loss, keyword-only, optional
        `MSE` by default.
    solver : {"adam", "sgd", "adamw", "rmsprop", "lbfgs"} or Optimizer, default "adam"
        "sgd" has Nesterov momentum 0.9; "lbfgs" is SciPy's L-BFGS-B, on all data at once. An `Optimizer` is copied and
        has its own learning rate.
    alpha : float, default 1e-4
        The L2 penalty as in scikit-learn: the weights minimise ½ Σ (Ŷ - Y)² + alpha/2 Σ W² over all rows and outputs,
        so that a model without hidden layers is `sklearn.linear_model.Ridge`. Other losses stand in for ½ (Ŷ - Y)².
        A batch of B rows has alpha/2 Σ W², too, and all is divided as the loss's mean is.
    batch_size : int or "auto", default "auto"
        Rows a step, at most all; "auto" is 200.
    learning_rate_init : float, default 1e-3
    max_iter : int, default 200
        Epochs at most.
    tol : float, default 1e-4
    n_iter_no_change : int, default 10
        Training ends when the loss has not fallen by `tol` for so many epochs; "lbfgs" ends when no entry of the
        gradient is larger than `tol`.
    early_stopping : bool, default False
        Whether that is the loss on held-out rows, and the model goes back to its best epoch.
    validation_fraction : float, default 0.1
        The share of the rows that are held out for it.
    warm_start : bool, default False
        Whether `fit` goes on from the parameters that are there. The hidden layers must be the same.
    random_state : int, numpy.random.RandomState or None
        Weights and the order of the rows follow from it.
    workers : int, optional
        Threads that share a batch.
    verbose : bool, default False
        Whether to show the progress.

    Attributes
    ----------
    model_ : Sequential
        The network.
    history_ : History or None
        The last run's; None after "lbfgs".
    loss_curve_, loss_ : list of float, float
        The training loss after each epoch or iteration, and the last.
    n_iter_, n_outputs_, n_features_in_ : int

    Examples
    --------
    >>> from matbackprop.interop.sklearn import MLPRegressor
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> x = np.linspace(0, 6, 200)[:, None]
    >>> y = np.hstack([np.sin(x), np.cos(x)])
    >>> net = make_pipeline(StandardScaler(), MLPRegressor(20, "tanh", solver="lbfgs", max_iter=500, random_state=0))
    >>> net.fit(x, y).score(x, y) > 0.99
    True
    """

    _one_column: bool  # whether the targets were a vector

    def _as_targets(self, y: Any, classes: Any, again: bool) -> tuple[Array, int]:
        """Return y as a matrix of numbers."""
        y = as_array(y, "y", np.dtype(np.float64))
        check_finite("y", y)
        if not again:
            self._one_column = y.ndim == 1
        y = y.reshape(len(y), -1)
        return y, y.shape[1]

    def _default_loss(self) -> Loss:
        return MSE()

    @available_if(MLP._by_steps)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Go through the data once, keeping the optimiser's state from call to call.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`; but weights are taken as they are, since no call sees all of them.

        Returns
        -------
        self
        """
        return self._partial_fit(X, y, None, sample_weight)

    def predict(self, X: Any) -> Array:
        """Return the predictions, of the shape of the targets: (N,) or (N, out)."""
        outputs = self._outputs(X)
        return outputs[:, 0] if self._one_column else outputs
