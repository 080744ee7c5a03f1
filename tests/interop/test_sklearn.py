"""The scikit-learn estimators: its own checks, its tools, and what they promise beyond them."""

from __future__ import annotations

import pickle
import signal
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit, log_expit, log_softmax, softmax

import matbackprop as mb

pytest.importorskip("sklearn", reason="needs scikit-learn: pip install matbackprop[sklearn]")

from sklearn import neural_network as peers
from sklearn.base import clone
from sklearn.datasets import load_iris, make_classification, make_multilabel_classification, make_regression
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from matbackprop.interop.sklearn import MLPClassifier, MLPRegressor

#: Most runs here are short.
pytestmark = pytest.mark.filterwarnings("ignore:training has not converged:sklearn.exceptions.ConvergenceWarning")

QUICK = {"learning_rate_init": 0.01, "max_iter": 60}
BOTH = pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])


@parametrize_with_checks([MLPClassifier(**QUICK), MLPRegressor(**QUICK)])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learn_s_own_checks(estimator, check) -> None:
    check(estimator)


def iris(dtype=np.float64):
    x, y = load_iris(return_X_y=True)
    return StandardScaler().fit_transform(x).astype(dtype), np.array(["setosa", "versicolor", "virginica"])[y]


def numbers(outputs: int = 1, dtype=np.float64):
    x, y = make_regression(120, 4, n_targets=outputs, random_state=0)
    return x.astype(dtype), (y / y.std()).astype(dtype)


def data(kind, dtype=np.float64):
    return iris(dtype) if kind is MLPClassifier else numbers(dtype=dtype)


# scikit-learn's tools.


@BOTH
def test_pipeline_search_and_cross_validation(kind) -> None:
    x, y = data(kind)
    net = make_pipeline(StandardScaler(), kind(8, **QUICK, random_state=0))
    name = kind.__name__.lower()
    search = GridSearchCV(net, {f"{name}__activation": ["tanh", "relu"], f"{name}__alpha": [0.0, 1e-3]}, cv=2)
    assert search.fit(x, y).best_score_ > 0.8
    assert (cross_val_score(net, x, y, cv=3) > 0.7).all()


@BOTH
def test_clones_have_settings_and_no_past(kind) -> None:
    x, y = data(kind)
    net = kind(3, solver=mb.SGD(0.1, momentum=0.5), loss=mb.MSE(), max_iter=2, random_state=0).fit(x, y)
    assert net.solver.steps == 0  # the run had a copy
    twin = clone(net)
    assert twin.get_params()["hidden_layer_sizes"] == 3
    assert repr(twin.solver) == repr(net.solver)
    with pytest.raises(NotFittedError):
        twin.predict(x)
    assert_array_equal(twin.fit(x, y).model_.parameters, net.model_.parameters)


@BOTH
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_pickles(kind, solver) -> None:
    x, y = data(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        net = kind(5, solver=solver, max_iter=5, random_state=0).fit(x, y)
    twin = pickle.loads(pickle.dumps(net))
    assert_array_equal(twin.predict(x), net.predict(x))


@BOTH
def test_pickles_in_the_middle_of_partial_fits(kind) -> None:
    x, y = data(kind)
    more = {"classes": np.unique(y)} if kind is MLPClassifier else {}
    net = kind(5, random_state=0).partial_fit(x, y, **more)
    twin = pickle.loads(pickle.dumps(net))
    assert_array_equal(twin.partial_fit(x, y).model_.parameters, net.partial_fit(x, y).model_.parameters)


# What is computed.


@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_type_of_the_data_is_kept(kind, dtype) -> None:
    x, y = data(kind, dtype)
    net = kind(5, max_iter=3, random_state=0).fit(x, y)
    assert net.model_.dtype == dtype
    result = net.predict_proba(x) if kind is MLPClassifier else net.predict(x)
    assert result.dtype == dtype


@BOTH
def test_the_same_random_state_gives_the_same_bits(kind) -> None:
    x, y = data(kind)
    first, again, other = (kind(5, max_iter=4, random_state=seed).fit(x, y).model_.parameters for seed in (3, 3, 4))
    assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_training_is_that_of_fit() -> None:
    """One full batch and plain SGD: each step can be written down."""
    x, y = numbers(outputs=3)
    net = MLPRegressor(4, "tanh", solver=mb.SGD(0.1), alpha=0.5, batch_size=120, max_iter=1, random_state=0)
    start = net.fit(x, y).model_.copy()
    net.set_params(warm_start=True).fit(x, y)
    value, gradient = start.value_and_grad(x, y, mb.MSE())
    start.gradients = gradient
    value += mb.L2(2 * 0.5 / (120 * 3)).add_to(start)  # α/2 Σ w² with ½ Σ e²
    assert_allclose(net.loss_, value, rtol=1e-12)
    assert_allclose(net.model_.parameters, start.parameters - 0.1 * start.gradients, rtol=1e-10)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_linear_model_by_lbfgs_is_ridge_regression(weighted) -> None:
    """No hidden layer: ½ Σ w e² + α/2 Σ W², for any number of outputs."""
    x, y = numbers(outputs=3)
    weight = np.random.default_rng(0).uniform(0.1, 2.0, len(x)) if weighted else None
    net = MLPRegressor((), solver="lbfgs", alpha=3.0, tol=1e-8, max_iter=1000, random_state=0)
    net.fit(x, y, sample_weight=weight)
    peer = Ridge(alpha=3.0).fit(x, y, sample_weight=weight)
    assert_allclose(net.predict(x), peer.predict(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("weight", [None, "balanced", {0: 1.0, 1: 5.0}])
def test_a_linear_classifier_by_lbfgs_is_logistic_regression(weight) -> None:
    """One logit: Σ w ℓ + α/2 Σ W², and LogisticRegression has C = 1/α times the first."""
    x, y = make_classification(300, 5, weights=[0.8], random_state=0)
    net = MLPClassifier((), solver="lbfgs", alpha=2.0, tol=1e-8, max_iter=1000, class_weight=weight, random_state=0)
    net.fit(x, y)
    peer = LogisticRegression(C=0.5, class_weight=weight, tol=1e-10, max_iter=1000).fit(x, y)
    assert_allclose(net.predict_proba(x), peer.predict_proba(x), rtol=0, atol=1e-6)
    assert_array_equal(net.predict(x), peer.predict(x))


def minimum(net, peer, x, y, weight=None, slack=1e-5):
    """Fit both by L-BFGS, the peer on from our minimum, and see that it stays there."""
    net.fit(x, y, sample_weight=weight)
    linear = [layer for layer in net.model_ if isinstance(layer, mb.Linear)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        peer.set_params(max_iter=1, warm_start=True).fit(x, y, sample_weight=weight)
    peer.coefs_ = [layer.weight.T.copy() for layer in linear]
    peer.intercepts_ = [layer.bias.copy() for layer in linear]
    peer.set_params(max_iter=100).fit(x, y, sample_weight=weight)
    for layer, theirs in zip(linear, peer.coefs_, strict=True):
        assert_allclose(layer.weight.T, theirs, rtol=0, atol=slack)
        assert np.abs(theirs).max() > 100 * slack  # the penalty has not drawn all to 0
    return net, peer


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("activation", ["identity", "tanh"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_the_regressor_s_alpha_is_scikit_learn_s(outputs, activation, weighted) -> None:
    x, y = numbers(outputs)
    weight = np.random.default_rng(0).uniform(0.1, 2.0, len(x)) if weighted else None
    settings = {"hidden_layer_sizes": 3, "activation": activation, "solver": "lbfgs", "alpha": 2.0, "random_state": 0}
    net = MLPRegressor(**settings, tol=1e-8, max_iter=2000)
    net, peer = minimum(net, peers.MLPRegressor(**settings, tol=1e-6), x, y, weight)
    assert_allclose(net.predict(x), peer.predict(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("activation", ["identity", "tanh"])
@pytest.mark.parametrize("kind", ["two classes", "three classes", "labels"])
def test_the_classifier_s_alpha_is_scikit_learn_s(kind, activation, weighted) -> None:
    x, y = iris()
    if kind == "two classes":
        y = y == "versicolor"
    elif kind == "labels":
        y = (x[:, :3] > 0.3).astype(int)
    weight = np.random.default_rng(0).uniform(0.1, 2.0, len(x)) if weighted else None
    settings = {"hidden_layer_sizes": 3, "activation": activation, "solver": "lbfgs", "alpha": 0.5, "random_state": 0}
    net = MLPClassifier(**settings, tol=1e-8, max_iter=2000)
    net, peer = minimum(net, peers.MLPClassifier(**settings, tol=1e-6), x, y, weight)
    assert_allclose(net.predict_proba(x), peer.predict_proba(x), rtol=0, atol=1e-5)
    assert net.n_outputs_ == peer.n_outputs_


@pytest.mark.parametrize("kind", [mb.MSE, mb.Huber])
@pytest.mark.parametrize("outputs", [1, 2])
def test_alpha_is_the_same_for_a_sum_as_for_a_mean(kind, outputs) -> None:
    x, y = numbers(outputs)
    settings = {"hidden_layer_sizes": (), "solver": "lbfgs", "alpha": 5.0, "tol": 1e-7, "random_state": 0}
    mean, total = (MLPRegressor(loss=kind(reduction), **settings).fit(x, y) for reduction in ("mean", "sum"))
    assert_allclose(mean.predict(x), total.predict(x), rtol=0, atol=1e-5)


def test_the_regressor_s_gradient_is_that_of_its_loss_for_several_outputs() -> None:
    x, y = numbers(outputs=3)
    net = MLPRegressor(4, "tanh", max_iter=1, alpha=0.0, random_state=0).fit(x, y)
    assert mb.check_model(net.model_, mb.MSE(), x, y, rng=0)


@pytest.mark.parametrize("shape", [(120,), (120, 1), (120, 3)])
def test_predictions_have_the_shape_of_the_targets(shape) -> None:
    x, _ = numbers()
    y = np.resize(np.arange(5.0), shape)
    assert MLPRegressor(3, max_iter=2).fit(x, y).predict(x).shape == shape


def test_probabilities_are_those_of_the_logits() -> None:
    x, y = iris()
    net = MLPClassifier(8, **QUICK, random_state=0).fit(x, y)
    logits = net.model_.predict(x * 1e4)
    assert_allclose(net.predict_proba(x * 1e4), softmax(logits, axis=1), rtol=1e-13)
    assert_allclose(net.predict_log_proba(x * 1e4), log_softmax(logits, axis=1), rtol=1e-13)
    assert net.predict_log_proba(x * 1e4).min() < -800
    assert net.score(x, y) > 0.95
    assert_array_equal(net.predict(x), net.classes_[net.predict_proba(x).argmax(axis=1)])


def test_probabilities_of_two_classes_have_both_tails() -> None:
    x, y = iris()
    y = y == "setosa"
    net = MLPClassifier(8, **QUICK, random_state=0).fit(x, y)
    logit = net.model_.predict(x * 1e3)
    assert logit.shape == (150, 1)
    assert_allclose(net.predict_proba(x * 1e3), expit(np.hstack([-logit, logit])), rtol=1e-13)
    assert_allclose(net.predict_log_proba(x * 1e3), log_expit(np.hstack([-logit, logit])), rtol=1e-13)
    assert (net.predict_log_proba(x * 1e3).min(axis=0) < -800).all()
    assert net.score(x, y) > 0.99


def test_sigmoids_of_several_classes_are_divided_by_their_sum() -> None:
    x, y = iris()
    net = MLPClassifier(8, **QUICK, loss=mb.BCEWithLogits(), random_state=0).fit(x, y)
    share = expit(net.model_.predict(x))
    expected = share / share.sum(axis=1, keepdims=True)
    assert_allclose(net.predict_proba(x), expected, rtol=1e-12)
    assert_allclose(net.predict_log_proba(x), np.log(expected), rtol=1e-10, atol=1e-14)


def test_losses_without_logits_give_no_probabilities() -> None:
    x, y = iris()
    net = MLPClassifier(8, **QUICK, loss=mb.MSE(), random_state=0)
    assert not hasattr(net, "predict_proba")
    net.fit(x, y)
    for name in ("predict_proba", "predict_log_proba"):
        assert not hasattr(net, name)
        with pytest.raises(AttributeError) as error:
            getattr(net.set_params(loss=None), name)  # the model is as it was
        assert "MSE() are no logits" in str(error.value.__cause__)
    assert hasattr(net.fit(x, y), "predict_proba")
    probability = net.predict_proba(x)
    assert_array_equal(net.set_params(loss=mb.BCEWithLogits()).predict_proba(x), probability)


def test_several_labels_need_their_loss() -> None:
    x, y = make_multilabel_classification(50, 6, n_classes=4, random_state=0)
    with pytest.raises(ValueError, match=r"loss: expected a BCEWithLogits, .* got MSE"):
        MLPClassifier(3, max_iter=2, loss=mb.MSE()).fit(x, y)


def test_several_labels_are_as_many_logistic_regressions() -> None:
    """No hidden layer: Σ ℓ + α/2 Σ W², label by label LogisticRegression with C = 1/α."""
    x, y = make_multilabel_classification(200, 6, n_classes=4, random_state=0)
    x = StandardScaler().fit_transform(x)
    net = MLPClassifier((), solver="lbfgs", alpha=0.5, tol=1e-8, max_iter=1000, random_state=0).fit(x, y)
    probability = net.predict_proba(x)
    for label in range(4):
        peer = LogisticRegression(C=2.0, tol=1e-10, max_iter=1000).fit(x, y[:, label])
        assert_allclose(probability[:, label], peer.predict_proba(x)[:, 1], rtol=0, atol=1e-6)
    assert_array_equal(net.predict(x), probability > 0.5)
    assert_allclose(np.exp(net.predict_log_proba(x)), probability, rtol=1e-13)


def test_several_labels_by_steps() -> None:
    x, y = make_multilabel_classification(200, 6, n_classes=4, random_state=0)
    x = StandardScaler().fit_transform(x)
    net = MLPClassifier(20, learning_rate_init=0.03, random_state=0).fit(x, y)
    assert np.mean(net.predict(x) == y) > 0.85


@pytest.mark.parametrize("loss", [mb.CrossEntropy(label_smoothing=0.1), mb.BCEWithLogits(), mb.MSE(), mb.Huber()])
def test_the_loss_is_free(loss) -> None:
    x, y = iris()
    quick = {"learning_rate_init": 0.03, "max_iter": 100, "n_iter_no_change": 100}
    assert MLPClassifier(10, loss=loss, **quick, random_state=0).fit(x, y).score(x, y) > 0.95
    if not isinstance(loss, mb.CrossEntropy):
        target = (y == "setosa").astype(float)
        net = MLPRegressor(10, loss=loss, **quick, random_state=0).fit(x, target)
        assert np.mean((net.predict(x) > 0.5) == target) > 0.95


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity", mb.Tanh])
@pytest.mark.parametrize("solver", ["adam", "adamw", "rmsprop", "sgd", mb.Adam(0.01)])
def test_every_activation_with_every_solver(activation, solver) -> None:
    x, y = iris()
    net = MLPClassifier((6, 5), activation, solver=solver, learning_rate_init=0.01, max_iter=40, random_state=0)
    net.fit(x, y)
    assert net.loss_ < net.loss_curve_[0]
    assert len(net.model_) == (3 if activation == "identity" else 5)


def test_class_weights_move_the_boundary() -> None:
    x, y = make_classification(400, 5, weights=[0.9], class_sep=0.5, random_state=0)
    plain, even = (MLPClassifier(8, **QUICK, class_weight=w, random_state=0).fit(x, y) for w in (None, "balanced"))
    assert even.predict(x)[y == 1].mean() > plain.predict(x)[y == 1].mean() + 0.1


@BOTH
def test_scaling_all_weights_changes_the_penalty_s_share_alone(kind) -> None:
    x, y = data(kind)
    weight = np.random.default_rng(0).uniform(0.5, 2.0, len(x))
    nets = [kind(4, alpha=0.0, max_iter=3, random_state=0).fit(x, y, sample_weight=c * weight) for c in (1, 1000)]
    assert_allclose(*(net.model_.parameters for net in nets), rtol=1e-9)


# Runs and what goes on.


@BOTH
def test_early_stopping_goes_back_to_the_best(kind) -> None:
    x, y = data(kind)
    y = np.random.default_rng(0).permutation(y)  # there is nothing to learn, so the best comes early
    net = kind(50, learning_rate_init=0.02, early_stopping=True, validation_fraction=0.3, n_iter_no_change=5,
               max_iter=100, random_state=0).fit(x, y)  # fmt: skip
    validation = net.history_["validation_loss"]
    assert net.n_iter_ < 100
    assert net.history_.best_epoch == validation.argmin() < net.n_iter_ - 1


def test_the_rows_held_out_have_each_class_in_its_share(monkeypatch) -> None:
    from matbackprop.interop.sklearn import mlp

    seen, run = [], mlp.fit
    monkeypatch.setattr(mlp, "fit", lambda *data, **more: (seen.append((data, more)), run(*data, **more))[1])
    y = np.repeat(["rare", "often"], [10, 190])
    x = np.random.default_rng(0).normal(size=(200, 3))
    weight = np.where(y == "rare", 3.0, 1.0)
    for seed, loss in enumerate([None, mb.CrossEntropy(), mb.MSE()] * 3):
        net = MLPClassifier(3, max_iter=2, early_stopping=True, validation_fraction=0.2, loss=loss, random_state=seed)
        net.fit(x, y, sample_weight=weight)
        (_, x_train, *_), more = seen.pop()
        x_kept, _, weight_kept = more["validation"]
        assert len(x_train) == 160
        assert len(x_kept) == 40
        assert not set(x_train[:, 0]) & set(x_kept[:, 0])
        assert (weight_kept / weight_kept.min() > 2).sum() == 2
    with pytest.raises(ValueError, match=r"validation_fraction: 0.01 of 200 rows .* some of each class"):
        net.set_params(validation_fraction=0.01, early_stopping=True).fit(x, np.arange(200) // 10)


@BOTH
def test_training_ends_when_the_loss_falls_no_more(kind) -> None:
    x, y = data(kind)
    net = kind(4, max_iter=500, tol=10.0, n_iter_no_change=3, random_state=0).fit(x, y)
    assert net.n_iter_ == 4
    assert len(net.loss_curve_) == 4
    assert kind(4, max_iter=5, tol=10.0, n_iter_no_change=np.inf, random_state=0).fit(x, y).n_iter_ == 5


@BOTH
def test_warm_start_goes_on(kind) -> None:
    x, y = data(kind)
    net = kind(6, solver=mb.SGD(0.05), max_iter=5, warm_start=True, random_state=0).fit(x, y)
    first = net.loss_
    net.fit(x, y)
    assert net.loss_ < first
    assert len(net.loss_curve_) == 10
    net.set_params(warm_start=False).fit(x, y)
    assert net.loss_curve_[-1] == first


def test_warm_start_with_other_targets_is_refused() -> None:
    x, y = iris()
    net = MLPClassifier(3, max_iter=2, warm_start=True, random_state=0).fit(x, y)
    before = net.model_.parameters.copy()
    with pytest.raises(ValueError, match=r"found classes \['other'\] that are not among"):
        net.fit(x, np.where(y == "setosa", "other", y))
    x, y = numbers(2)
    other = MLPRegressor(3, max_iter=2, warm_start=True, random_state=0).fit(x, y)
    with pytest.raises(ValueError, match="expected 2 outputs"):
        other.fit(x, y[:, :1])
    assert_array_equal(net.model_.parameters, before)


@BOTH
@pytest.mark.parametrize("change", [{"hidden_layer_sizes": (5,)}, {"activation": "tanh"}, {"activation": mb.Sigmoid}])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_going_on_with_other_layers_is_refused(kind, change, method) -> None:
    x, y = data(kind)
    net = kind(6, max_iter=2, warm_start=True, random_state=0).fit(x, y)
    assert net.set_params(hidden_layer_sizes=[6], activation=mb.ReLU).fit(x, y)  # the same in other words
    with pytest.raises(ValueError, match="hidden_layer_sizes, activation: they are not those of the model"):
        getattr(net.set_params(**change), method)(x, y)
    assert len(net.set_params(warm_start=False).fit(x, y).loss_curve_) == 2


def state(net):
    """Return all that an estimator knows, its settings left out, as bytes."""
    settings = net.get_params()
    return pickle.dumps({name: value for name, value in vars(net).items() if name not in settings})


class Explodes(mb.Optimizer):
    """Makes the second step of each object infinite."""

    slots = ("m",)

    def update(self, parameters, gradients, m) -> None:
        m += gradients
        parameters -= (np.inf if self.steps == 2 else 0.01) * m


@BOTH
@pytest.mark.parametrize(
    ("before", "settings", "error"),
    [
        ("fit", {"alpha": -1.0}, ValueError),
        ("fit", {"activation": "gelu"}, ValueError),
        ("fit", {"solver": "newton"}, ValueError),
        ("fit", {"batch_size": 0}, ValueError),
        ("fit", {"solver": Explodes(0.1)}, mb.Diverged),
        ("fit", {"solver": Explodes(0.1), "warm_start": True}, mb.Diverged),
        ("fit", {"early_stopping": True, "validation_fraction": 1e-9}, ValueError),
        ("partial_fit", {"solver": Explodes(0.1)}, mb.Diverged),
        ("partial_fit", {"early_stopping": True}, ValueError),
    ],
)
def test_a_fit_that_fails_changes_nothing(kind, before, settings, error) -> None:
    x, y = data(kind)
    net = kind(4, max_iter=3, batch_size=200, random_state=0, solver=settings.get("solver", "adam"))
    more = {"classes": np.unique(y)} if before == "partial_fit" and kind is MLPClassifier else {}
    if "solver" in settings and before == "fit":
        net.set_params(solver="adam")
    getattr(net, before)(x, y, **more)
    kept, predictions = state(net), net.predict(x)
    net.set_params(**settings)
    others = y
    if before == "fit" and not net.warm_start:  # other features, labels and shapes
        x = x[:, :2]
        others = np.char.add("other ", y) if kind is MLPClassifier else y[:, None]
    with np.errstate(all="ignore"), pytest.raises(error):
        getattr(net, before)(x, others)
    assert state(net) == kept
    assert_array_equal(net.predict(data(kind)[0]), predictions)


def test_a_column_of_targets_does_not_change_the_shape_of_predictions() -> None:
    x, y = numbers()
    net = MLPRegressor(4, random_state=0).partial_fit(x, y)
    assert net.partial_fit(x, y[:, None]).predict(x).shape == (120,)
    net = MLPRegressor(4, random_state=0).partial_fit(x, y[:, None])
    assert net.partial_fit(x, y).predict(x).shape == (120, 1)


def test_partial_fit_is_an_epoch_and_keeps_the_optimiser() -> None:
    x, y = iris()
    net = MLPClassifier(8, learning_rate_init=0.01, random_state=0)
    for epoch in range(30):
        order = np.random.default_rng(epoch).permutation(len(x))
        for part in np.array_split(order, 3):
            net.partial_fit(x[part], y[part], classes=["virginica", "setosa", "versicolor"])
    assert net.n_iter_ == len(net.loss_curve_) == 90
    assert_array_equal(net.classes_, ["setosa", "versicolor", "virginica"])
    assert net.score(x, y) > 0.93
    steps, _ = net._ongoing
    assert steps.steps == 90
    net.fit(x, y)
    assert net._ongoing is None


@pytest.mark.parametrize(
    ("calls", "match"),
    [
        ([{}], "classes: must be passed on the first call"),
        ([{"classes": ["setosa", "versicolor"]}], r"found classes \['virginica'\] that are not among"),
        ([{"classes": ["setosa", "versicolor", "virginica"]}, {"classes": ["setosa"]}], "the first call had"),
        ([{"classes": ["setosa", "versicolor", "virginica"]}, {"y": ["other"] * 150}], r"found classes \['other'\]"),
        (
            [{"classes": ["setosa", "versicolor", "virginica"]}, {"y": np.tile([[0, 1], [1, 1]], (75, 1))}],
            "matrix of labels",
        ),
    ],
)
def test_classes_unseen_at_partial_fit_are_refused(calls, match) -> None:
    x, y = iris()
    net = MLPClassifier(3, random_state=0)
    for call in calls[:-1]:
        net.partial_fit(x, **{"y": y, **call})
    before = net.model_.parameters.copy() if calls[:-1] else None
    with pytest.raises(ValueError, match=match):
        net.partial_fit(x, **{"y": y, **calls[-1]})
    if before is not None:
        assert_array_equal(net.model_.parameters, before)


@pytest.mark.parametrize("epochs", [50, 5])
def test_ctrl_c_ends_more_than_the_fit(epochs) -> None:
    x, y = numbers()
    net = MLPRegressor(4, solver=Interrupting(0.1), max_iter=epochs, batch_size=len(x), random_state=0)
    with pytest.raises(KeyboardInterrupt):
        net.fit(x, y)
    assert net.predict(x).shape == y.shape


class Interrupting(mb.Optimizer):
    """Presses Ctrl-C in its fifth step."""

    def update(self, parameters, gradients) -> None:
        if self.steps == 5:
            signal.raise_signal(signal.SIGINT)
        parameters -= self.lr * gradients


@BOTH
@pytest.mark.filterwarnings("error")
def test_a_run_that_falls_to_the_last_epoch_says_so(kind) -> None:
    x, y = data(kind)
    with pytest.warns(ConvergenceWarning, match="training has not converged: .* max_iter=3 epochs") as caught:
        kind(4, max_iter=3, random_state=0).fit(x, y)
    assert caught[0].filename == __file__
    net = kind(4, max_iter=4, tol=10.0, n_iter_no_change=3, random_state=0).fit(x, y)
    assert net.n_iter_ == 4  # ended by the loss, though it was the last epoch
    more = {"classes": np.unique(y)} if kind is MLPClassifier else {}
    kind(4, random_state=0).partial_fit(x, y, **more)


def test_lbfgs_says_when_it_has_not_converged() -> None:
    x, y = numbers()
    with pytest.warns(ConvergenceWarning, match="L-BFGS-B has not converged"):
        net = MLPRegressor(5, solver="lbfgs", max_iter=3, tol=1e-9, random_state=0).fit(x, y)
    assert net.n_iter_ == len(net.loss_curve_) == 3
    assert net.history_ is None


# Bad calls.


@BOTH
@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"hidden_layer_sizes": (3, 0)}, ValueError, "hidden_layer_sizes"),
        ({"hidden_layer_sizes": 2.5}, TypeError, "hidden_layer_sizes"),
        ({"activation": "gelu"}, ValueError, "activation: expected one of"),
        ({"activation": mb.ReLU()}, TypeError, r"got the layer ReLU\(\), .* pass ReLU without parentheses"),
        ({"activation": int}, TypeError, "activation: expected a function that returns a layer, it returned int 0"),
        ({"solver": "newton"}, ValueError, "solver: expected one of"),
        ({"loss": "mse"}, TypeError, "loss: expected a Loss"),
        ({"loss": mb.MSE}, TypeError, r"make one with MSE\(\)"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"max_iter": 0}, ValueError, "max_iter"),
        ({"learning_rate_init": np.nan}, ValueError, "learning_rate_init: expected a finite number"),
        ({"alpha": -1.0}, ValueError, "alpha: expected a finite number of at least 0, got float -1.0"),
        ({"alpha": "small"}, TypeError, "alpha"),
        ({"alpha": None}, TypeError, "^alpha"),
        ({"tol": -1}, ValueError, "^tol"),
        ({"n_iter_no_change": np.nan}, TypeError, "^n_iter_no_change"),
        ({"validation_fraction": "a"}, TypeError, "^validation_fraction"),
        ({"n_iter_no_change": 2.5}, TypeError, "n_iter_no_change"),
        ({"n_iter_no_change": "ten"}, TypeError, "n_iter_no_change"),
        ({"early_stopping": "no"}, TypeError, "early_stopping: expected True or False"),
        ({"warm_start": 1}, TypeError, "warm_start: expected True or False"),
        ({"early_stopping": True, "validation_fraction": 1.5}, ValueError, "validation_fraction"),
        ({"early_stopping": True, "validation_fraction": 1e-9}, ValueError, "^validation_fraction"),
        ({"early_stopping": True, "solver": "lbfgs"}, ValueError, "early_stopping"),
        ({"workers": -1}, ValueError, "workers"),
        ({"random_state": "x"}, ValueError, "seed"),
    ],
)
def test_bad_settings_are_named_and_leave_no_model(kind, settings, error, match) -> None:
    net = kind(**settings)
    with pytest.raises(error, match=match):
        net.fit(*data(kind))
    assert not hasattr(net, "model_")


@BOTH
@pytest.mark.parametrize(
    ("weight", "match"),
    [
        (lambda n: np.ones(n - 1), "one an example"),
        (lambda n: np.ones((n, 1)), "one an example"),
        (lambda n: -np.ones(n), "not negative"),
        (np.zeros, "all weights are zero"),
        (lambda n: np.full(n, np.nan), "expected finite numbers"),
        (lambda n: np.full(n, 1e308), "sample_weight: .* too large"),
    ],
)
def test_bad_weights_are_named(kind, weight, match) -> None:
    x, y = data(kind)
    with pytest.raises(ValueError, match=match):
        kind(3, max_iter=2).fit(x, y, sample_weight=weight(len(x)))


@pytest.mark.parametrize(
    ("weight", "match"),
    [
        ({0: -1.0, 1: 1.0}, "class_weight of 0: expected a finite number of at least 0, got float -1.0"),
        ({0: np.nan, 1: 1.0}, "class_weight of 0: expected a finite number"),
        ({0: 1.0, 1: np.inf}, "class_weight of 1: expected a finite number"),
        ({1: 1e300}, "class_weight: expected weights that are finite"),
        ({7: 2.0}, r"class_weight: \[7\] are not among the classes \[0, 1\]"),
        ({0: 0.0, 1: 0.0}, "all weights are zero, those of the classes included"),
        ({0: "heavy"}, "class_weight of 0: expected a finite number"),
        ("even", "class_weight"),
    ],
)
def test_bad_class_weights_are_named(weight, match) -> None:
    x, y = make_classification(100, 5, random_state=0)
    with pytest.raises((TypeError, ValueError), match=match):
        MLPClassifier(3, max_iter=2, class_weight=weight).fit(x, y, sample_weight=np.full(100, 1e10))


def test_a_batch_may_lack_classes_that_have_a_weight_and_have_others() -> None:
    x, y = load_iris(return_X_y=True)
    net = MLPClassifier(3, class_weight={0: 1.0, 1: 5.0}, random_state=0)
    net.partial_fit(x, y, classes=[0, 1, 2])
    net.partial_fit(x[y != 1], y[y != 1])
    assert net.n_iter_ == 2


def test_targets_that_are_no_classes_are_refused() -> None:
    x, y = iris()
    for targets, match in (
        (np.linspace(0, 1, 150), "Unknown label type"),
        (np.full(150, "setosa"), "got 1 class"),
        (np.tile([[0, 1, 2]], (150, 1)), "several classes a row"),
        (y[:100], "inconsistent numbers of samples"),
    ):
        with pytest.raises(ValueError, match=match):
            MLPClassifier(3, max_iter=2).fit(x, targets)


@BOTH
def test_partial_fit_needs_a_solver_that_goes_step_by_step(kind) -> None:
    x, y = data(kind)
    more = {"classes": np.unique(y)} if kind is MLPClassifier else {}
    with pytest.raises(AttributeError) as error:
        kind(solver="lbfgs").partial_fit(x, y, **more)
    assert "needs all data at once" in str(error.value.__cause__)
    if kind is MLPClassifier:
        with pytest.raises(ValueError, match="give each class's weight in a dict"):
            kind(class_weight="balanced").partial_fit(x, y, **more)
