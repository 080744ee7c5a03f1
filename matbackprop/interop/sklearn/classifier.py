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
from matbackprop.validation import Array

__all__ = ["MLPClassifier"]


class MLPClassifier(ClassifierMixin, MLP):  # type: ignore[misc]
    """A multilayer perceptron for classification, also into several labels at once, as a scikit-learn estimator.

    The last layer gives a logit for each class. Where it differs from scikit-learn's: any loss of logits; class
    weights; float32 stays float32; early stopping goes back to the best epoch by the loss on the held-out rows;
    probabilities and their logarithms are computed from logits and lose nothing in the tails; a callable activation
    and any `Optimizer`.

    Parameters
    ----------
    hidden_layer_sizes, activation, solver, alpha, batch_size, learning_rate_init, max_iter, tol, n_iter_no_change, \
early_stopping, validation_fraction, warm_start, random_state, workers, verbose
        As in `MLPRegressor`.
    loss : Loss, keyword-only, optional
        Of the logits. By default `CrossEntropy`, and for several labels `BCEWithLogits`. A loss that is no CrossEntropy
        gets a 1 in the column of the class and 0 elsewhere.
    class_weight : dict, "balanced" or None
        Multiplies the weight of each class's examples; "balanced" is inversely proportional to how many they are.

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
    >>> net = MLPClassifier(10, learning_rate_init=0.02, random_state=0).fit(x, y)
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
        if labels:
            return y.astype(np.float64), y.shape[1]
        numbers = np.searchsorted(self.classes_, y)
        if self.loss is None or isinstance(self.loss, CrossEntropy):
            return numbers, len(self.classes_)
        return np.eye(len(self.classes_))[numbers], len(self.classes_)

    def _default_loss(self) -> Loss:
        return BCEWithLogits() if self._labels else CrossEntropy()

    def _balance(self, y: Any, weight: Array | None, partial: bool) -> Array | None:
        if self.class_weight is None:
            return weight
        if partial and isinstance(self.class_weight, str):
            raise ValueError("class_weight: partial_fit does not see all examples; give each class's weight in a dict")
        balance: Array = compute_sample_weight(self.class_weight, y)
        return balance if weight is None else balance * weight

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
        outputs = self._outputs(X)
        if self._labels:
            return (outputs > 0).astype(int)
        predictions: Array = self.classes_[outputs.argmax(axis=1)]
        return predictions

    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class, shape (N, classes): softmax of the logits, or σ for several labels."""
        outputs = self._outputs(X)
        probabilities: Array = expit(outputs) if self._labels else softmax(outputs, axis=1)
        return probabilities

    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithms of `predict_proba`, from the logits: -1000 is not -inf."""
        outputs = self._outputs(X)
        logarithms: Array = log_expit(outputs) if self._labels else log_softmax(outputs, axis=1)
        return logarithms

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
