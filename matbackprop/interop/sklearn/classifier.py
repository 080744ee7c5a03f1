"""MLPClassifier: a multilayer perceptron for classes, or for several labels at once."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.base import ClassifierMixin
from sklearn.utils import column_or_1d
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from matbackprop.cross_entropy import CrossEntropy
from matbackprop.interop.sklearn.mlp import MLP
from matbackprop.loss import Loss
from matbackprop.losses import BCEWithLogits
from matbackprop.settings import real
from matbackprop.validation import Array

__all__ = ["MLPClassifier"]


class MLPClassifier(ClassifierMixin, MLP):  # type: ignore[misc]
    """A multilayer perceptron for classification, also into several labels at once, as a scikit-learn estimator.

    The last layer gives a logit for each class, but one alone where there are two. Where it differs from
    scikit-learn's: any loss; class weights; float32 stays float32; early stopping goes back to the best epoch by the
    loss on the held-out rows; probabilities and their logarithms are computed from logits and lose nothing in the
    tails; a callable activation and any `Optimizer`.

    Parameters
    ----------
    hidden_layer_sizes, activation, solver, alpha, batch_size, learning_rate_init, max_iter, tol, n_iter_no_change, \
early_stopping, validation_fraction, warm_start, random_state, workers, verbose
        As in `MLPRegressor`, with the logarithmic loss, summed over several labels, for ½ (Ŷ - Y)². The rows that are
        held out have each class in its share.
    loss : Loss, keyword-only, optional
        By default `CrossEntropy`, and for two classes or several labels `BCEWithLogits`. Another, such as `MSE`, gets
        a 1 in the column of the class and 0 elsewhere; the largest output is then the class, and there are no
        probabilities. Several labels need a `BCEWithLogits`.
    class_weight : dict, "balanced" or None
        Multiplies the weight of each class's examples, by 1 for a class that the dict does not name; "balanced" is
        inversely proportional to how many they are.

    Attributes
    ----------
    classes_ : numpy.ndarray
        The classes in the order of the columns of `predict_proba`.
    model_, history_, loss_curve_, loss_, n_iter_, n_outputs_, n_features_in_
        As in `MLPRegressor`.

    Examples
    --------
    >>> from matbackprop.interop.sklearn import MLPClassifier
    >>> from sklearn.datasets import load_iris
    >>> x, y = load_iris(return_X_y=True)
    >>> net = MLPClassifier(10, learning_rate_init=0.05, tol=1e-3, random_state=0).fit(x, y)
    >>> net.score(x, y) > 0.95, net.predict_proba(x[:2]).shape
    (True, (2, 3))
    """

    _labels: bool  # whether the targets are a matrix of labels

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        loss: Loss | None = None,
        class_weight: Any = None,
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
        super().__init__(
            hidden_layer_sizes,
            activation,
            loss=loss,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate_init=learning_rate_init,
            max_iter=max_iter,
            tol=tol,
            n_iter_no_change=n_iter_no_change,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            warm_start=warm_start,
            random_state=random_state,
            workers=workers,
            verbose=verbose,
        )
        self.class_weight = class_weight

    def _as_targets(self, y: Any, classes: Any, again: bool) -> tuple[Array, int]:
        """Return classes as their numbers, labels as a matrix of 0 and 1, or what a loss of one's own takes."""
        check_classification_targets(y)
        kind = type_of_target(y, input_name="y")
        if kind == "multiclass-multioutput":
            raise ValueError(
                "y: expected classes, shape (N,), or labels 0 and 1, shape (N, labels); got several classes a row"
            )
        labels = kind == "multilabel-indicator"
        if labels:
            found = np.arange(y.shape[1])
        else:
            y = column_or_1d(y, warn=True)
            found = np.unique(y)
        given = None if classes is None else np.unique(classes)
        if again:
            known = self.classes_
            if labels is not self._labels:
                raise ValueError("y: one call had classes and another a matrix of labels; a model is for one of them")
            if given is not None and not np.array_equal(given, known):
                raise ValueError(f"classes: the first call had {known.tolist()}, got {given.tolist()}")
        else:
            known = found if given is None else given
        unseen = np.setdiff1d(found, known)
        if unseen.size:
            raise ValueError(
                f"y: found classes {unseen.tolist()} that are not among {known.tolist()}; pass all of them as classes "
                "in the first partial_fit, or fit anew without warm_start"
            )
        if len(known) < 2 and not labels:
            raise ValueError(f"y: expected two classes or more, got 1 class, {known.tolist()}")
        self.classes_, self._labels = known, labels
        loss = self._chosen_loss()
        if labels:
            if not isinstance(loss, BCEWithLogits):
                raise ValueError(f"loss: expected a BCEWithLogits, as y is a matrix of labels, got {loss!r}")
            return y.astype(np.float64), y.shape[1]
        numbers = np.searchsorted(known, y)
        if isinstance(loss, CrossEntropy):
            return numbers, len(known)
        if isinstance(loss, BCEWithLogits) and len(known) == 2:
            return numbers[:, None].astype(np.float64), 1
        return np.eye(len(known))[numbers], len(known)

    def _default_loss(self) -> Loss:
        return BCEWithLogits() if self._labels or len(self.classes_) == 2 else CrossEntropy()

    def _strata(self, targets: Array) -> Array | None:
        if self._labels:
            return None
        if targets.ndim == 1 or targets.shape[1] == 1:
            return targets.reshape(-1)
        classes: Array = targets.argmax(axis=1)
        return classes

    def _balance(self, y: Any, weight: Array | None, partial: bool) -> Array | None:
        if self.class_weight is None:
            return weight
        if partial and isinstance(self.class_weight, str):
            raise ValueError("class_weight: partial_fit does not see all examples; give each class's weight in a dict")
        if isinstance(self.class_weight, dict) and not self._labels:
            balance: Array = self._class_weights()[np.searchsorted(self.classes_, column_or_1d(y))]
        else:
            balance = compute_sample_weight(self.class_weight, y)
        if weight is not None:
            with np.errstate(over="ignore"):
                balance = balance * weight
        if not np.isfinite(balance).all() or (balance < 0).any():
            raise ValueError(
                f"class_weight: expected weights that are finite and not negative, got {self.class_weight!r}"
            )
        return balance

    def _class_weights(self) -> Array:
        """Return the weights of the classes that the dict names, and 1 for others."""
        check = real()
        weights = {name: check(value, f"class_weight of {name!r}") for name, value in self.class_weight.items()}
        known = self.classes_.tolist()
        unknown = [name for name in weights if name not in known]
        if unknown and not weights.keys() >= set(known):  # a fold of the data may lack a class that has a weight
            raise ValueError(f"class_weight: {unknown} are not among the classes {known}")
        return np.array([weights.get(name, 1.0) for name in known])

    @available_if(MLP._by_steps)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Go through the data once, keeping the optimiser's state from call to call.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`; but weights are taken as they are, since no call sees all of them.
        classes : array_like, optional
            All classes that will ever come. To be given in the first call.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If they are not given in the first call, or `y` has one that was not.
        """
        if classes is None and not hasattr(self, "model_"):
            raise ValueError(
                "classes: must be passed on the first call to partial_fit: all classes that will ever come"
            )
        return self._partial_fit(X, y, classes, sample_weight)

    def predict(self, X: Any) -> Array:
        """Return the most probable class of each row, or where there are several labels 0 or 1 for each."""
        outputs = self._logits(X)
        if self._labels:
            return (outputs > 0).astype(int)
        predictions: Array = self.classes_[outputs.argmax(axis=1)]
        return predictions

    def _logits(self, X: Any) -> Array:
        """Return the network's outputs, one a class: a single logit z is that of the second class, -z of the first."""
        outputs = self._outputs(X)
        return outputs if self._labels or outputs.shape[1] > 1 else np.hstack([-outputs, outputs])

    def _with_probabilities(self) -> bool:
        """Return True, or raise the AttributeError that tells scikit-learn that there is no `predict_proba`."""
        loss = getattr(self, "_loss", self.loss)
        if loss is not None and not isinstance(loss, (CrossEntropy, BCEWithLogits)):
            raise AttributeError(f"predict_proba: outputs trained with {loss!r} are no logits; use CrossEntropy()")
        return True

    @available_if(_with_probabilities)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class, shape (N, classes).

        After `CrossEntropy` that is the softmax of the logits; after `BCEWithLogits` σ, which where there are several
        classes, not labels, is divided by its sum over them. After any other loss there is no such method.
        """
        logits = self._logits(X)
        if self._by_sigmoid():
            return expit(logits)  # type: ignore[no-any-return]
        return softmax(self._exponents(logits), axis=1)  # type: ignore[no-any-return]

    @available_if(_with_probabilities)  # type: ignore[untyped-decorator]
    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithms of `predict_proba`, from the logits: -1000 is not -inf."""
        logits = self._logits(X)
        if self._by_sigmoid():
            return log_expit(logits)  # type: ignore[no-any-return]
        return log_softmax(self._exponents(logits), axis=1)  # type: ignore[no-any-return]

    def _by_sigmoid(self) -> bool:
        """Return whether each column's probability is that of its logit alone."""
        return self._labels or self.n_outputs_ == 1

    def _exponents(self, logits: Array) -> Array:
        """Return what probabilities are proportional to the exponentials of."""
        exponents: Array = log_expit(logits) if isinstance(self._loss, BCEWithLogits) else logits
        return exponents

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
