"""Bad calls: each gives the right error, in words that help, and leaves the model as it was.

A row of the table is a call, the exception's type, and the telling words of its message: which layer or argument,
what was expected, what came, and the likely fix.
"""

from __future__ import annotations

import contextlib
import copy
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import sparse

import matbackprop as mb

X = np.array([[0.0, 1.0], [1.0, -1.0], [0.5, 2.0], [-2.0, 0.25]])
Y = np.array([[0.0], [1.0], [1.0], [0.0]])
NAN, INF = float("nan"), float("inf")


class Passing(mb.Layer):
    """A user's layer that passes everything on, until a test breaks one method."""

    def forward(self, x, out=None):
        return x.copy()

    def backward(self, delta, out=None):
        return delta.copy()


def broken(**methods: Any) -> mb.Layer:
    return type("Broken", (Passing,), methods)()


def loss_with(elementwise: Any) -> mb.Loss:
    return type("Odd", (mb.Loss,), {"elementwise": elementwise})()


def probability(**changes: Any) -> mb.Sequential:
    return mb.Sequential(mb.Linear(2, 3), mb.Tanh(), mb.Linear(3, 1), mb.Sigmoid(), rng=0, **changes)


def read_only(shape: tuple[int, ...]) -> np.ndarray:
    array = np.empty(shape)
    array.flags.writeable = False
    return array


def assign(target: object, name: str, value: object) -> None:
    setattr(target, name, value)


def then(*calls: Any) -> Any:
    """Make the calls; all but the last may fail."""
    for call in calls[:-1]:
        with contextlib.suppress(TypeError, ValueError):
            call()
    return calls[-1]()


def state(model: mb.Sequential, **changes: Any) -> dict[str, Any]:
    changed = {**model.state_dict(), **{name.replace("_", "."): value for name, value in changes.items()}}
    return {name: value for name, value in changed.items() if value is not None}


def declared(*names: str) -> dict[str, Any]:
    """Return what a class body says of such parameters."""
    return {name: mb.Parameter() for name in names} | {f"{name}_grad": mb.Gradient(name) for name in names}


CASES: list[Any] = []


def case(name: str, call: Any, error: type[Exception], *words: str) -> None:
    CASES.append(pytest.param(call, error, words, id=name))


# Inputs: the same for a model, a layer alone, and targets.
NOT_NUMBERS: list[tuple[str, Any, type[Exception], str]] = [
    ("text", [["a", "b"]], TypeError, "list [['a', 'b']]"),
    ("objects", np.array([[object(), object()]]), TypeError, "dtype object"),
    ("none", None, TypeError, "got None"),
    ("none-inside", [[1.0, None]], TypeError, "None"),
    ("masked", np.ma.masked_invalid([[1.0, NAN]]), TypeError, ".filled"),
    ("sparse-array", sparse.csr_array(X), TypeError, ".toarray()"),
    ("sparse-matrix", sparse.coo_matrix(X), TypeError, ".toarray()"),
    ("ragged", [[1.0, 2.0], [1.0]], ValueError, "differ in length"),
    ("dates", np.array([["2024-01-01", "2024-01-02"]], "M8[D]"), TypeError, "datetime64"),
    ("durations", np.array([[1, 2]], "m8[s]"), TypeError, "timedelta64"),
    ("records", np.zeros((1, 2), [("a", float)]), TypeError, "numbers"),
    ("mapping", {"a": 1.0}, TypeError, "dict"),
    ("generator", (i for i in range(2)), TypeError, "generator"),
    ("huge-integer", [[10**400, 1]], TypeError, "object"),
    ("complex", X + 1j, TypeError, "complex128"),
]
for what, bad, error, word in NOT_NUMBERS:
    for method in ("forward", "__call__", "predict"):
        case(
            f"{method}-{what}",
            lambda s, m=method, b=bad: getattr(s.model, m)(b),
            error,
            "layer 0, Linear(2, 3): x",
            "expected",
            word,
        )
    case(
        f"linear-{what}",
        lambda s, b=bad: s.layer.forward(b),
        error,
        "Linear(2, 3): x",
        "expected",
        word,
    )
    case(
        f"backprop-x-{what}", lambda s, b=bad: s.model.backprop(b, Y, mb.MSE()), error, "layer 0, Linear(2, 3): x", word
    )
    case(f"backprop-y-{what}", lambda s, b=bad: s.model.backprop(X, b, mb.MSE()), error, "y", "expected", word)
    if what != "none":  # no weights
        case(
            f"weights-{what}",
            lambda s, b=bad: s.model.backprop(X, Y, mb.MSE(), sample_weight=b),
            error,
            "sample_weight",
            "expected",
            word,
        )
    case(f"delta-{what}", lambda s, b=bad: (s.model.forward(X), s.model.backward(b)), error, "delta", "expected", word)
    if what != "complex":  # a loss computes in the type of the predictions
        case(f"loss-pred-{what}", lambda s, b=bad: mb.MSE()(b, Y), error, "MSE(): y_pred", "expected", word)
    case(f"loss-true-{what}", lambda s, b=bad: mb.MSE()(Y, b), error, "MSE(): y_true", "expected", word)
    case(f"set-parameters-{what}", lambda s, b=bad: assign(s.model, "parameters", b), error, "parameters", word)
    case(f"set-weight-{what}", lambda s, b=bad: assign(s.model[0], "weight", b), error, "Linear(2, 3).weight", word)
    case(
        f"load-{what}",
        lambda s, b=bad: s.model.load_state_dict({**s.model.state_dict(), "2.bias": b}),
        error,
        "load_state_dict: '2.bias'",
        "expected",
        word,
    )
case("activation-list-of-complex", lambda s: mb.Tanh().forward([1j]), TypeError, "Tanh(): x", "real")
case("loss-list-of-complex", lambda s: mb.MSE()([1j], [1.0]), TypeError, "MSE(): y_pred", "real")

# Shapes.
for method in ("forward", "predict"):
    case(
        f"{method}-scalar", lambda s, m=method: getattr(s.model, m)(1.0), ValueError, "layer 0, Linear(2, 3)", "scalar"
    )
    case(
        f"{method}-wide",
        lambda s, m=method: getattr(s.model, m)(np.ones((4, 3))),
        ValueError,
        "layer 0, Linear(2, 3)",
        "2 features",
        "(4, 3)",
    )
    case(f"{method}-flat", lambda s, m=method: getattr(s.model, m)(np.ones(4)), ValueError, "(N, 2)", "(4,)")
    case(f"{method}-transposed", lambda s, m=method: getattr(s.model, m)(X[:3].T), ValueError, "transposed", "(2, 3)")
case("row-for-column", lambda s: mb.Linear(1, 2).forward(np.ones(5)), ValueError, "x[:, None]", "(5,)")
case("backprop-width", lambda s: s.model.backprop(X[:, :1], Y, mb.MSE()), ValueError, "layer 0, Linear(2, 3)", "(4, 1)")
case("backprop-n-n1", lambda s: s.model.backprop(X, Y[:, 0], mb.MSE()), ValueError, "(4, 1)", "(4,)", "with y[:, None]")
case("backprop-transposed", lambda s: s.model.backprop(X, Y.T, mb.MSE()), ValueError, "transposed", "(1, 4)")
case("backprop-rows", lambda s: s.model.backprop(X, Y[:3], mb.MSE()), ValueError, "(4, 1)", "(3, 1)")
case("backprop-scalar-y", lambda s: s.model.backprop(X, 1.0, mb.MSE()), ValueError, "(4, 1)", "()")
case("loss-n-n1", lambda s: mb.MSE()(Y[:, 0], Y), ValueError, "MSE()", "y_pred[:, None]")
case("loss-n1-n", lambda s: mb.MSE()(Y, Y[:, 0]), ValueError, "MSE()", "y_true[:, None]")
case("delta-n-n1", lambda s: (s.model.forward(X), s.model.backward(Y[:, 0])), ValueError, "delta", "(4, 1)", "(4,)")
case("layer-delta", lambda s: (s.layer.forward(X), s.layer.backward(Y)), ValueError, "Linear(2, 3)", "(4, 3)", "(4, 1)")
case(
    "widths",
    lambda s: mb.Sequential(mb.Linear(2, 3), mb.Tanh(), mb.Linear(4, 1)),
    ValueError,
    "layer 2, Linear(4, 1)",
    "takes 4",
    "gives 3",
)
case(
    "widths-nested",
    lambda s: mb.Sequential(mb.Linear(2, 3), mb.Sequential(mb.Linear(4, 1))),
    ValueError,
    "layer 1",
    "takes 4",
    "gives 3",
)

# Values.
LOSSES = {"bce": mb.BCE(), "logits": mb.BCEWithLogits(), "mse": mb.MSE(), "sum": mb.BCE("sum")}
for name, loss in LOSSES.items():
    for bad in (NAN, INF, -INF) if name == "mse" else (NAN, INF, -INF, 2.0, -1e-9):
        target = Y.copy()
        target[2] = bad
        case(
            f"{name}-target-{bad}",
            lambda s, t=target, f=loss: f(np.full_like(Y, 0.5), t),
            ValueError,
            f"{loss!r}: y_true",
            "expected",
            f"got {bad}",
            "at (2, 0)",
        )
        case(
            f"{name}-backprop-target-{bad}",
            lambda s, t=target, f=loss: s.probability.backprop(X, t, f),
            ValueError,
            f"{loss!r}: y_true",
            f"got {bad}",
        )
case("bce-prediction", lambda s: mb.BCE()(Y * 2, Y), ValueError, "BCE(): y_pred", "[0, 1]", "BCEWithLogits")
case("bce-nan-prediction", lambda s: mb.BCE()(Y * NAN, Y), ValueError, "BCE(): y_pred", "[0, 1]", "nan")
case("bce-unfused", lambda s: s.model.backprop(X * 99, Y, mb.BCE()), ValueError, "BCE(): y_pred", "Sigmoid")
for bad in (NAN, INF, -INF):
    for where, weights in (("one", np.array([[1.0], [bad], [1.0], [1.0]])), ("all", bad)):
        case(
            f"weight-{where}-{bad}",
            lambda s, w=weights: s.model.backprop(X, Y, mb.MSE(), sample_weight=w),
            ValueError,
            "sample_weight",
            f"got {bad}",
        )
case(
    "weight-inf-loss-0",
    lambda s: mb.MSE()(Y, Y, sample_weight=INF),
    ValueError,
    "sample_weight",
    "inf",
)
case(
    "weight-rows",
    lambda s: s.model.backprop(X, Y, mb.MSE(), sample_weight=np.ones(4)),
    ValueError,
    "sample_weight",
    "(4, 1)",
    "(4,)",
    "sample_weight[:, None]",
)
case("weight-shape", lambda s: mb.MSE()(Y, Y, np.ones((3, 1))), ValueError, "sample_weight", "(4, 1)", "(3, 1)")
case("weight-text", lambda s: mb.MSE()(Y, Y, "a"), TypeError, "sample_weight", "'a'")
case("weight-complex", lambda s: mb.MSE()(Y, Y, 1j), TypeError, "sample_weight", "complex")
for bad, error in ((0.0, ValueError), (-1.0, ValueError), (NAN, ValueError), ("a", TypeError), (1j, TypeError)):
    case(
        f"pos-weight-{bad}",
        lambda s, b=bad: mb.BCEWithLogits(pos_weight=b),
        error,
        "BCEWithLogits: pos_weight",
        str(bad) if bad != 1j else "complex",
    )
case("pos-weight-shape", lambda s: mb.BCEWithLogits(pos_weight=[1, 2])(Y, Y), ValueError, "pos_weight", "(1,)", "(2,)")
for bad in ("avg", None, 1, [], np.array(["mean", "sum"])):
    case(
        f"reduction-{type(bad).__name__}",
        lambda s, b=bad: mb.MSE(b),
        ValueError,
        "MSE: reduction",
        "'mean' or 'sum'",
    )

for bad, error in ((0.0, ValueError), (-1.0, ValueError), (NAN, ValueError), (INF, ValueError), ("1", TypeError),
                   (None, TypeError), (True, TypeError), (1j, TypeError), ([1.0], TypeError)):  # fmt: skip
    case(f"huber-delta-{bad}", lambda s, b=bad: mb.Huber(delta=b), error, "Huber: delta", "number above 0")

# Classes.
Z3, CLASSES = np.zeros((4, 3)), np.array([0, 1, 2, 1])
for bad, error in ((-0.1, ValueError), (1.1, ValueError), (NAN, ValueError), ("1", TypeError), (True, TypeError)):
    case(
        f"label-smoothing-{bad}",
        lambda s, b=bad: mb.CrossEntropy(label_smoothing=b),
        error,
        "CrossEntropy: label_smoothing",
        "[0, 1]",
    )
for bad, error, word in (
    ([1.0, 0.0, 1.0], ValueError, "positive"),
    ([1.0, NAN, 1.0], ValueError, "nan"),
    (2.0, ValueError, "(C,)"),
    (np.ones((1, 3)), ValueError, "(1, 3)"),
    ("a", TypeError, "'a'"),
):
    case(
        f"class-weight-{bad}",
        lambda s, b=bad: mb.CrossEntropy(class_weight=b),
        error,
        "CrossEntropy: class_weight",
        word,
    )
BAD_TARGETS: list[tuple[str, Any, type[Exception], tuple[str, ...]]] = [
    ("float", CLASSES.astype(float), TypeError, ("integer classes", "float64", "y.astype(int)")),
    ("halves", CLASSES + 0.5, TypeError, ("integer classes",)),
    ("bool", CLASSES > 0, TypeError, ("integer classes", "bool")),
    ("too-large", [0, 1, 3, 2], ValueError, ("classes 0...2", "got 3 at (2,)", "counted from 0")),
    ("far-too-large", np.array([0, 1, 200, 2], np.uint8), ValueError, ("classes 0...2", "got 200 at (2,)")),
    ("unsigned", np.array([0, 2**63 + 1, 1, 2], np.uint64), ValueError, ("classes 0...2", f"got {2**63 + 1} at (1,)")),
    ("negative", [0, 1, -100, 2], ValueError, ("classes 0...2", "got -100 at (2,)", "sample_weight")),
    ("negative-int8", np.array([0, -1, 1, 2], np.int8), ValueError, ("classes 0...2", "got -1 at (1,)")),
    ("column", CLASSES[:, None], ValueError, ("(4,)", "(4, 3)", "(4, 1)", "y[..., 0]")),
    ("short", CLASSES[:3], ValueError, ("(4,)", "(4, 3)", "got shape (3,)")),
    ("scalar", 1, ValueError, ("(4,)", "got shape ()")),
    ("wide", np.full((4, 4), 0.25), ValueError, ("(4, 3)", "(4, 4)")),
    ("transposed", np.full((3, 4), 0.25), ValueError, ("(4, 3)", "(3, 4)")),
    ("none", None, TypeError, ("None",)),
    ("text", ["a", "b", "c", "d"], TypeError, ("'a'",)),
    ("masked", np.ma.masked_equal(CLASSES, 1), TypeError, (".filled",)),
    ("complex", Z3 + 1j, TypeError, ("complex",)),
    ("logits", np.array([[0.0, 2.0, -1.0]] * 4), ValueError, ("probabilities", "-1.0 at (0, 2)", "softmax")),
    ("counts", np.array([[1.0, 0, 0], [1, 0, 0], [2, 3, 1], [0, 1, 0]]), ValueError, ("sum to 1", "6.0 in row 2")),
    ("zeros", np.zeros((4, 3)), ValueError, ("sum to 1", "0.0 in row 0")),
    ("nan", np.array([[1.0, 0, 0], [NAN, 0, 1]] * 2), ValueError, ("probabilities", "nan at (1, 0)")),
    ("inf", np.array([[1.0, 0, 0], [INF, 0, 1]] * 2), ValueError, ("sum to 1", "inf in row 1")),
]
for name, target, error, words in BAD_TARGETS:
    case(f"classes-{name}", lambda s, t=target: mb.CrossEntropy()(Z3, t), error, "CrossEntropy(): y_true", *words)
    case(
        f"backprop-classes-{name}",
        lambda s, t=target: s.classifier.backprop(X, t, mb.CrossEntropy()),
        error,
        "y",
        *words,
    )
    if name not in ("text", "masked", "none", "scalar", "short"):  # and where there is a plan for such targets already
        case(
            f"again-classes-{name}",
            lambda s, t=target: then(
                lambda: s.classifier.backprop(X, CLASSES if np.ndim(t) == 1 else np.eye(3)[CLASSES], mb.CrossEntropy()),
                lambda: s.classifier.backprop(X, np.asarray(t), mb.CrossEntropy()),
            ),
            error,
            *words,
        )
case("one-logit", lambda s: s.model.backprop(X, [0, 0, 0, 0], mb.CrossEntropy()), ValueError, "BCEWithLogits", "(4, 1)")
case("no-logit", lambda s: mb.CrossEntropy()(1.0, 0), ValueError, "2 classes", "()")
case(
    "class-weight-number",
    lambda s: mb.CrossEntropy(class_weight=[1, 2])(Z3, CLASSES),
    ValueError,
    "class_weight",
    "(3,)",
    "(2,)",
)
case(
    "class-sample-weight",
    lambda s: mb.CrossEntropy()(Z3, CLASSES, np.ones((4, 3))),
    ValueError,
    "sample_weight",
    "(4, 1)",
    "(4, 3)",
)
case("class-sample-weight-rows", lambda s: mb.CrossEntropy()(Z3, CLASSES, np.ones(3)), ValueError, "(4,)", "(3,)")
case("classes-for-mse", lambda s: s.classifier.backprop(X, CLASSES, mb.MSE()), ValueError, "y", "(4, 3)", "(4,)")

# Making layers.
for bad, error in ((1.0, ValueError), (-0.1, ValueError), (NAN, ValueError), ("1", TypeError), (None, TypeError),
                   (True, TypeError), (1j, TypeError)):  # fmt: skip
    case(f"dropout-{bad}", lambda s, b=bad: mb.Dropout(b), error, "Dropout: p", "[0, 1)")
for bad in (-1, 1.5, "seed"):
    case(f"dropout-rng-{bad}", lambda s, b=bad: mb.Dropout(rng=b), TypeError, "Dropout: rng")
    case(f"dropout-set-rng-{bad}", lambda s, b=bad: assign(mb.Dropout(), "rng", b), TypeError, "Dropout(0.5).rng")
case(
    "dropout-after-backprop",
    lambda s: (s.dropout[1].forward(Y), s.dropout.backprop(X, Y, mb.MSE()), s.dropout[1].backward(Y)),
    RuntimeError,
    "layer 1, Dropout(0.5)",
    "backward before forward",
)
case(
    "dropout-unseeded",
    lambda s: mb.Sequential(mb.Sequential(mb.Dropout()), mb.Linear(2, 1), rng=0),
    ValueError,
    "layer 0",
    "without a seed",
)
for bad, error in (
    (0, ValueError),
    (-3, ValueError),
    (2.0, TypeError),
    (True, TypeError),
    ("2", TypeError),
    (None, TypeError),
    (np.array([2]), TypeError),
    (NAN, TypeError),
):
    case(f"in-{bad}", lambda s, b=bad: mb.Linear(b, 1), error, "Linear: in_features", "positive integer")
    case(f"out-{bad}", lambda s, b=bad: mb.Linear(1, b), error, "Linear: out_features", "positive integer")
    if bad is not None:
        case(f"summary-{bad}", lambda s, b=bad: s.model.summary(b), error, "summary: width", "positive integer")
for bad in ("xavier", 3, ["he"], ""):
    case(
        f"init-{bad}",
        lambda s, b=bad: mb.Linear(2, 1, weight_init=b),
        ValueError,
        "Linear: weight_init",
        "glorot",
        repr(bad),
    )
INITS = {
    "transposed": (lambda shape, rng: np.ones(shape[::-1]), "(2, 3)"),
    "none": (lambda shape, rng: None, "got"),
    "text": (lambda shape, rng: np.full(shape, "a"), "<U1"),
    "ragged": (lambda shape, rng: [[1.0], [1.0, 2.0]], "got"),
    "complex": (lambda shape, rng: np.full(shape, 1j), "complex"),
    "nan": (lambda shape, rng: np.full(shape, NAN), "nan"),
    "masked": (lambda shape, rng: np.ma.masked_all(shape), "mask"),
}
for name, (rule, word) in INITS.items():
    case(
        f"init-gives-{name}",
        lambda s, r=rule: mb.Linear(2, 3, weight_init=r).weight,
        (TypeError, ValueError),
        "Linear(2, 3",
        "weight_init",
        word,
    )
case("bias-values", lambda s: mb.Linear(2, 1, bias=[0.0]), TypeError, "Linear: bias", "True or False", ".bias")
case("bias-one", lambda s: mb.Linear(2, 1, bias=1), TypeError, "Linear: bias", "int 1")
for bad in (int, np.float16, "O", "U3", ">f8", [("a", "f8")], "flaot32", 3, object()):
    word = "expected one of"
    case(
        f"dtype-linear-{bad}",
        lambda s, b=bad: mb.Linear(2, 1, dtype=b),
        TypeError,
        "Linear: dtype",
        word,
        "float32",
    )
    case(
        f"dtype-model-{bad}",
        lambda s, b=bad: mb.Sequential(mb.Linear(2, 1), dtype=b),
        TypeError,
        "Sequential: dtype",
        word,
    )
    case(f"dtype-astype-{bad}", lambda s, b=bad: s.model.astype(b), TypeError, "astype: dtype", word)
case(
    "dtype-names",
    lambda s: mb.Linear(2, 1, dtype={"names": ["a"]}),
    TypeError,
    "Linear: dtype",
)
case("astype-none", lambda s: s.model.astype(None), TypeError, "astype: dtype", "None")
case("astype-real", lambda s: s.model.astype(np.complex128).astype(np.float64), TypeError, "imaginary", "float64")
case(
    "dtypes-differ",
    lambda s: mb.Sequential(mb.Linear(2, 1, dtype="f4"), dtype="f8"),
    TypeError,
    "float32",
    "float64",
    "one dtype",
)
for bad in (-1, 1.5, "seed", object(), np.random.RandomState(0)):
    case(
        f"rng-linear-{type(bad).__name__}",
        lambda s, b=bad: mb.Linear(2, 1, rng=b),
        TypeError,
        "Linear: rng",
        type(bad).__name__,
    )
    case(
        f"rng-model-{type(bad).__name__}",
        lambda s, b=bad: mb.Sequential(mb.Tanh(), rng=b),
        TypeError,
        "Sequential: rng",
    )

# Making models.
case("no-layer", lambda s: mb.Sequential(), ValueError, "at least one layer")
case("list-of-layers", lambda s: mb.Sequential([mb.Tanh(), mb.ReLU()]), TypeError, "layer 0", "Sequential(*layers)")
case("class-for-layer", lambda s: mb.Sequential(mb.Linear(2, 1), mb.Tanh), TypeError, "layer 1", "Tanh(...)")
case("function-for-layer", lambda s: mb.Sequential(np.tanh), TypeError, "layer 0", "must be a Layer", "ufunc")
case(
    "twice",
    lambda s: mb.Sequential(s.layer, mb.Tanh(), s.layer),
    ValueError,
    "layer 2, Linear(2, 3)",
    "layer 0",
    "copy()",
)
case(
    "twice-nested",
    lambda s: mb.Sequential(s.relu, mb.Sequential(mb.Tanh()), mb.Sequential(s.relu)),
    ValueError,
    "ReLU()",
    "copy()",
)
case("two-models", lambda s: mb.Sequential(s.model[0]), ValueError, "layer 0", "another model", "copy()")
case("two-outers", lambda s: mb.Sequential(s.outer[0]), ValueError, "layer 0", "another model", "copy()")
case("slice-adopted", lambda s: mb.Sequential(s.model[:1]), ValueError, "another model", "copy()")
case("empty-slice", lambda s: s.model[3:], IndexError, "slice", "3 layers")
case("stepped-slice", lambda s: s.model[::2], IndexError, "step 1")
case(
    "complex-parameter",
    lambda s: mb.Sequential(
        type("C", (Passing,), {**declared("w"), "__init__": lambda c: assign(c, "w", np.ones(2) * 1j)})()
    ),
    TypeError,
    "layer 0",
    "complex128",
)

# Order.
BEFORE = ("backward before forward", "forward(x) first")
case("backward-first", lambda s: s.fresh.backward(Y), RuntimeError, "Sequential", *BEFORE)
case("backward-first-layer", lambda s: mb.Linear(2, 3).backward(Y), RuntimeError, "Linear(2, 3)", *BEFORE)
case("backward-first-in-model", lambda s: s.fresh[2].backward(Y), RuntimeError, "layer 2, Linear(3, 1)", *BEFORE)
case(
    "backward-first-loss", lambda s: mb.MSE().backward(), RuntimeError, "MSE()", "before", "loss(y_pred, y_true) first"
)
FAILED = {"width": X[:, :1], "text": "a", "none": None}
for name, bad in FAILED.items():
    case(
        f"backward-after-failed-{name}",
        lambda s, b=bad: then(lambda: s.model.forward(X), lambda: s.model.forward(b), lambda: s.model.backward(Y)),
        RuntimeError,
        *BEFORE,
    )
    case(
        f"layer-after-failed-{name}",
        lambda s, b=bad: then(lambda: s.layer.forward(X), lambda: s.layer.forward(b), lambda: s.layer.backward(Y)),
        RuntimeError,
        *BEFORE,
    )
case(
    "loss-after-failed",
    lambda s: (f := mb.MSE(), then(lambda: f(Y, Y), lambda: f(Y, X), f.backward)),
    RuntimeError,
    "MSE()",
    "before",
)
case(
    "backward-after-backprop",
    lambda s: (s.model.forward(X), s.model.backprop(X, Y, mb.MSE()), s.model.backward(Y)),
    RuntimeError,
    "backprop",
)
case(
    "pickled-forgets",
    lambda s: then(lambda: s.model.forward(X), lambda: copy.deepcopy(s.model).backward(Y)),
    RuntimeError,
    *BEFORE,
)

# out=.
OUTS: list[tuple[str, Any, type[Exception], str]] = [
    ("shape", np.empty((4, 2)), ValueError, "(4, 2)"),
    ("flat", np.empty(4), ValueError, "(4,)"),
    ("dtype", np.empty((4, 1), np.float32), TypeError, "float32"),
    ("integer", np.empty((4, 1), int), TypeError, "int64" if np.dtype(int).itemsize == 8 else "int32"),
    ("list", [[0.0]] * 4, TypeError, "list"),
    ("read-only", read_only((4, 1)), ValueError, "read-only"),
    ("masked", np.ma.zeros((4, 1)), TypeError, "MaskedArray"),
]
for name, out, error, word in OUTS:
    case(f"out-model-{name}", lambda s, o=out: s.model.forward(X, out=o), error, "Sequential", "out", word)
    case(f"out-layer-{name}", lambda s, o=out: mb.Tanh().forward(Y, out=o), error, "Tanh()", "out", word)
    case(
        f"out-loss-{name}",
        lambda s, o=out: (f := mb.MSE(), f(Y, Y), f.backward(out=o)),
        error,
        "MSE()",
        "out",
        word,
    )
    case(
        f"out-backward-{name}",
        lambda s, o=out: (t := mb.Tanh(), t.forward(Y), t.backward(Y, out=o)),
        error,
        "Tanh()",
        "out",
        word,
    )
case(
    "out-model-backward",
    lambda s: (s.model.forward(X), s.model.backward(Y, out=np.empty((4, 1)))),
    ValueError,
    "out",
    "(4, 2)",
    "(4, 1)",
)

# Losses.
for what, bad, word in (
    ("class", mb.MSE, "MSE()"),
    ("text", "mse", "str 'mse'"),
    ("function", np.square, "ufunc"),
    ("none", None, "None"),
):
    case(f"loss-{what}", lambda s, b=bad: s.model.backprop(X, Y, b), TypeError, "loss", "expected a Loss", word)
case(
    "loss-without-elementwise",
    lambda s: s.model.backprop(X, Y, type("Odd", (mb.Loss,), {})()),
    TypeError,
    "Odd",
    "elementwise",
)
ELEMENTWISE = {
    "row": (lambda f, p, y: (p[0], p), "(4, 1)"),
    "scalar": (lambda f, p, y: (p, 0.0), "(4, 1)"),
    "alone": (lambda f, p, y: p, "elementwise"),
    "none": (lambda f, p, y: None, "elementwise"),
    "complex": (lambda f, p, y: (p * 1j, p), "complex"),
}
for name, (elementwise, word) in ELEMENTWISE.items():
    case(
        f"loss-gives-{name}",
        lambda s, e=elementwise: s.model.backprop(X, Y, loss_with(e)),
        (TypeError, ValueError),
        "Odd()",
        word,
    )

# State.
for name, call, words in (
    ("missing", lambda m: state(m, **{"0_bias": None}), ("missing ['0.bias']",)),
    ("extra", lambda m: state(m, **{"4_weight": np.ones(1)}), ("unknown ['4.weight']",)),
    ("empty", lambda m: {}, ("missing", "'0.weight'")),
    (
        "transposed",
        lambda m: state(m, **{"0_weight": np.ones((2, 3))}),
        ("'0.weight'", "(3, 2)", "(2, 3)", "transposed"),
    ),
    ("shape", lambda m: state(m, **{"2_weight": np.ones(3)}), ("'2.weight'", "(1, 3)", "(3,)")),
    ("nan", lambda m: state(m, **{"2_bias": [NAN]}), ("'2.bias'", "finite", "nan")),
    ("inf", lambda m: state(m, **{"2_bias": [INF]}), ("'2.bias'", "finite", "inf")),
):
    case(f"state-{name}", lambda s, c=call: s.model.load_state_dict(c(s.model)), ValueError, "load_state_dict", *words)
case("state-list", lambda s: s.model.load_state_dict([1]), TypeError, "mapping", "list")
case("state-none", lambda s: s.model.load_state_dict(None), TypeError, "mapping", "None")

# Assigning.
case(
    "set-weight-transposed",
    lambda s: assign(s.model[0], "weight", np.ones((2, 3))),
    ValueError,
    "layer 0, Linear(2, 3).weight",
    "(3, 2)",
    "transposed",
)
case("set-weight-shape", lambda s: assign(s.model[0], "weight", np.ones(2)), ValueError, ".weight", "(3, 2)", "(2,)")
case(
    "set-bias-shape", lambda s: assign(s.model[2], "bias", 0.0), ValueError, "layer 2, Linear(3, 1).bias", "(1,)", "()"
)
case("set-bias-none", lambda s: assign(s.model[2], "bias", None), TypeError, "layer 2, Linear(3, 1).bias", "None")
case(
    "set-grad-shape",
    lambda s: assign(s.model[0], "weight_grad", np.ones(2)),
    ValueError,
    ".weight_grad",
    "(3, 2)",
    "(2,)",
)
case(
    "set-parameters-shape",
    lambda s: assign(s.model, "parameters", np.ones((13, 1))),
    ValueError,
    "parameters",
    "(13,)",
    "(13, 1)",
)
case("set-parameters-scalar", lambda s: assign(s.model, "parameters", 0.0), ValueError, "parameters", "(13,)", "()")
case(
    "set-gradients-shape",
    lambda s: assign(s.model, "gradients", np.ones(12)),
    ValueError,
    "gradients",
    "(13,)",
    "(12,)",
)
case(
    "set-missing-bias",
    lambda s: assign(mb.Linear(2, 1, bias=False), "bias", [1.0]),
    ValueError,
    "bias=False",
    ".bias",
    "without",
)
case(
    "set-missing-bias-in-model",
    lambda s: assign(mb.Sequential(s.bare)[0], "bias", [1.0]),
    ValueError,
    "layer 0",
    "without",
)
case(
    "set-missing-grad",
    lambda s: assign(mb.Linear(2, 1, bias=False), "bias_grad", [1.0]),
    AttributeError,
    "bias_grad",
    "no parameter 'bias'",
)
case(
    "parameter-without-gradient",
    lambda s: type("Half", (Passing,), {"w": mb.Parameter()}),
    TypeError,
    "Half: declare",
    'w_grad = mb.Gradient("w")',
)
case(
    "layer-changes-its-input",
    lambda s: mb.Sequential(mb.Linear(2, 2), broken(forward=lambda f, x, out=None: np.multiply(x, 2, x))).forward(X),
    ValueError,
    "read-only",
)
case("late-parameter", lambda s: assign(s.late[0], "extra", [1.0]), RuntimeError, "layer 0", "__init__")

# A user's own layers.
case(
    "layer-without-backward",
    lambda s: type("Half", (mb.Layer,), {"forward": lambda f, x, out=None: x})(),
    TypeError,
    "Half",
    "backward",
)
BROKEN = {
    "shape": (lambda f, x, out=None: x[:, :1].copy(), "(4, 1)"),
    "none": (lambda f, x, out=None: None, "()"),
    "complex": (lambda f, x, out=None: x * 1j, "complex"),
}
for name, (method, word) in BROKEN.items():
    for run in ("backprop", "predict", "forward"):
        call = {
            "backprop": lambda m: m.backprop(X, X, mb.MSE()),
            "predict": lambda m: m.predict(X),
            "forward": lambda m: m.forward(X),
        }[run]
        case(
            f"user-forward-{name}-{run}",
            lambda s, f=method, c=call: c(mb.Sequential(mb.Linear(2, 2), broken(forward=f))),
            (TypeError, ValueError),
            "layer 1, Broken()",
            "forward",
            word,
        )
    case(
        f"user-backward-{name}-backprop",
        lambda s, f=method: mb.Sequential(mb.Linear(2, 2), broken(backward=f)).backprop(X, X, mb.MSE()),
        (TypeError, ValueError),
        "layer 1, Broken()",
        "backward",
        word,
    )
    case(
        f"user-backward-{name}-backward",
        lambda s, f=method: (m := mb.Sequential(broken(backward=f), mb.Linear(2, 2)), m.forward(X), m.backward(X)),
        (TypeError, ValueError),
        "layer 0, Broken()",
        "backward",
        word,
    )
case(
    "user-no-out",
    lambda s: broken(forward=lambda f, x: x),
    TypeError,
    "Broken",
    "forward(self, x, out=None)",
)
WIDE = {"output_width": lambda f, width: 2 * width, "forward": lambda f, x, out=None: np.hstack([x, x])}
for run, call in (
    ("backprop", lambda m: m.backprop(X, Y, mb.MSE())),
    ("predict", lambda m: m.predict(X)),
    ("forward", lambda m: m.forward(X)),
):
    case(
        f"user-width-{run}",
        lambda s, c=call: c(mb.Sequential(mb.Tanh(), broken(**WIDE), mb.Linear(6, 1))),
        ValueError,
        "layer 2, Linear(6, 1)",
        "6",
        "4",
    )
case(
    "user-width-float",
    lambda s: mb.Sequential(mb.Linear(2, 2), broken(output_width=lambda f, w: w / 2)).predict(X),
    (TypeError, ValueError),
    "layer 1, Broken()",
    "output_width",
)


@pytest.fixture
def setting() -> SimpleNamespace:
    inner = mb.Sequential(mb.Linear(2, 2), rng=0)
    late = type("Late", (Passing,), {**declared("w", "extra"), "__init__": lambda f: assign(f, "w", [1.0])})
    model = mb.Sequential(mb.Linear(2, 3), mb.Tanh(), mb.Linear(3, 1), rng=0)
    model.backprop(X, Y, mb.MSE())  # a plan and gradients are there
    return SimpleNamespace(
        model=model,
        probability=probability(),
        fresh=mb.Sequential(mb.Linear(2, 3), mb.Tanh(), mb.Linear(3, 1), rng=0),
        layer=mb.Linear(2, 3, rng=0),
        bare=mb.Linear(2, 1, bias=False),
        classifier=mb.Sequential(mb.Linear(2, 3), rng=0),
        dropout=mb.Sequential(mb.Linear(2, 1), mb.Dropout(), rng=0),
        relu=mb.ReLU(),
        outer=mb.Sequential(inner),
        late=mb.Sequential(late()),
    )


@pytest.mark.parametrize(("call", "error", "words"), CASES)
def test_bad_call(setting: SimpleNamespace, call: Any, error: type[Exception], words: tuple[str, ...]) -> None:
    models = (setting.model, setting.probability)
    twins = [model.copy() for model in models]
    before = [model.parameters.tobytes() for model in models]
    gradients = setting.model.gradients.tobytes()

    with pytest.raises(error) as caught:
        call(setting)

    message = str(caught.value)
    assert not [word for word in words if word not in message], message
    assert not re.search(r"inhomogeneous|0x[0-9a-f]{6}.*0x[0-9a-f]{6}|NoneType", message.split(" (", 1)[0]), message
    assert [model.parameters.tobytes() for model in models] == before
    assert setting.model.gradients.tobytes() == gradients
    for model, twin, loss in zip(models, twins, (mb.MSE(), mb.BCE()), strict=True):
        assert model.predict(X).tobytes() == twin.predict(X).tobytes()
        assert model.backprop(X, Y, loss) == twin.backprop(X, Y, loss)
        assert model.gradients.tobytes() == twin.gradients.tobytes()


def test_failed_construction_leaves_layers_free() -> None:
    first, second = mb.Linear(2, 3), mb.Linear(4, 1)
    with pytest.raises(ValueError, match="takes 4"):
        mb.Sequential(first, second)
    assert not first.adopted
    assert mb.Sequential(first, mb.Linear(3, 1)).parameters.size == 13
