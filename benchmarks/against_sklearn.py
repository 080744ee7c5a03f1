"""Accuracy and wall time of training beside scikit-learn and torch: `python benchmarks/against_sklearn.py --help`.

All have the same network, float32 data, epochs, batch size, Adam with the same settings, no penalty, and number of
threads, in each one's customary form: scikit-learn's MLPClassifier, a loop over shuffled mini-batches in torch,
`mb.fit`, and our MLPClassifier. They run in turns, seed by seed and fold by fold, so that other load on the machine
falls on all. Printed are the mean accuracy over the seeds and its range, the median seconds of a training and of the
processor, and the ratio of the seconds to those of `mb.fit`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import warnings
from collections.abc import Callable
from time import perf_counter, process_time
from typing import NamedTuple

THREADS = next((part.partition("=")[2] for part in sys.argv if part.startswith("--threads=")), "1")
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = THREADS  # before NumPy and torch are loaded

import numpy as np
import sklearn
import torch
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold
from sklearn.neural_network import MLPClassifier

import matbackprop as mb
import matbackprop.interop.sklearn as ours
from matbackprop.datasets import load_fashion_mnist


class Settings(NamedTuple):
    """What everybody is given."""

    hidden: int
    epochs: int
    batch_size: int
    lr: float
    threads: int


class Data(NamedTuple):
    """Training and test data."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


#: Trains with these settings and seed, and returns the test predictions.
Contender = Callable[[Data, Settings, int], np.ndarray]


def by_fit(data: Data, settings: Settings, seed: int) -> np.ndarray:
    """Train by mb.fit."""
    layers = mb.Linear(data.x.shape[1], settings.hidden), mb.ReLU(), mb.Linear(settings.hidden, 10)
    model = mb.Sequential(*layers, dtype=np.float32, rng=seed)
    mb.fit(
        model, data.x, data.y, mb.CrossEntropy(), mb.Adam(settings.lr),
        epochs=settings.epochs, batch_size=settings.batch_size, rng=seed, progress=False, workers=settings.threads,
    )  # fmt: skip
    return model.predict(data.x_test, workers=settings.threads).argmax(axis=1)


def estimator(kind: type, data: Data, settings: Settings, seed: int, **more: object) -> np.ndarray:
    """Train an estimator, ours or scikit-learn's, for all epochs."""
    net = kind(
        hidden_layer_sizes=(settings.hidden,), activation="relu", solver="adam", alpha=0.0,
        batch_size=settings.batch_size, learning_rate_init=settings.lr, max_iter=settings.epochs,
        n_iter_no_change=settings.epochs, random_state=seed, **more,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the epochs are as many as they are
        return net.fit(data.x, data.y).predict(data.x_test)


def by_our_estimator(data: Data, settings: Settings, seed: int) -> np.ndarray:
    """Train by our MLPClassifier."""
    return estimator(ours.MLPClassifier, data, settings, seed, workers=settings.threads)


def by_scikit_learn(data: Data, settings: Settings, seed: int) -> np.ndarray:
    """Train by scikit-learn's MLPClassifier."""
    return estimator(MLPClassifier, data, settings, seed)


def by_torch(data: Data, settings: Settings, seed: int) -> np.ndarray:
    """Train by the loop that torch's tutorials have, without the DataLoader, which costs more than the steps."""
    torch.manual_seed(seed)
    net = torch.nn.Sequential(
        torch.nn.Linear(data.x.shape[1], settings.hidden), torch.nn.ReLU(), torch.nn.Linear(settings.hidden, 10)
    )
    loss, optimizer = torch.nn.CrossEntropyLoss(), torch.optim.Adam(net.parameters(), lr=settings.lr)
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    for _ in range(settings.epochs):
        for rows in torch.randperm(len(x)).split(settings.batch_size):
            optimizer.zero_grad()
            loss(net(x[rows]), y[rows]).backward()
            optimizer.step()
    with torch.no_grad():
        return net(torch.from_numpy(data.x_test)).argmax(dim=1).numpy()


CONTENDERS: dict[str, Contender] = {
    "mb.fit": by_fit,
    "our MLPClassifier": by_our_estimator,
    "scikit-learn": by_scikit_learn,
    "torch": by_torch,
}


def digits_half() -> list[Data]:
    """Return scikit-learn's 8 x 8 digits as its own example splits them: the first half to train on."""
    x, y = load_digits(return_X_y=True)
    x, half = (x / 16).astype(np.float32), len(x) // 2
    return [Data(x[:half], y[:half], x[half:], y[half:])]


def digits_folds() -> list[Data]:
    """Return the digits in ten folds."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    folds = StratifiedKFold(10, shuffle=True, random_state=0).split(x, y)
    return [Data(x[train], y[train], x[test], y[test]) for train, test in folds]


def compare(title: str, parts: list[Data], settings: Settings, seeds: int) -> None:
    """Let all train in turns, and print a table."""
    print(f"\n{title}\n{settings}, {seeds} seed(s), {len(parts)} split(s)", flush=True)
    accuracies: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    processor: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    short = settings._replace(epochs=1)
    for train in CONTENDERS.values():  # imports, first allocations
        train(Data(parts[0].x[:200], parts[0].y[:200], *parts[0][2:]), short, 0)
    for seed in range(seeds):
        right = dict.fromkeys(CONTENDERS, 0)
        for data in parts:
            for name, train in CONTENDERS.items():
                start, used = perf_counter(), process_time()
                predictions = train(data, settings, seed)
                seconds[name].append(perf_counter() - start)
                processor[name].append(process_time() - used)
                right[name] += int((predictions == data.y_test).sum())
        for name, count in right.items():
            accuracies[name].append(count / sum(len(data.y_test) for data in parts))
    base = statistics.median(seconds["mb.fit"])
    print(f"{'':<18} {'accuracy':>8} {'range':>15} {'seconds':>8} {'ratio':>6} {'CPU s':>7}")
    for name, found in accuracies.items():
        median = statistics.median(seconds[name])
        spread = f"{min(found):.4f}-{max(found):.4f}"
        mean, cpu = statistics.mean(found), statistics.median(processor[name])
        print(f"{name:<18} {mean:>8.4f} {spread:>15} {median:>8.2f} {median / base:>6.2f} {cpu:>7.2f}", flush=True)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", default=["digits"], choices=["digits", "folds", "fashion"])
    parser.add_argument("--seeds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--epochs", type=int, help="100 for the digits and 10 for Fashion-MNIST by default")
    parser.add_argument("--threads", type=int, default=1, help="as --threads=N (default: %(default)s)")
    parser.add_argument("--folder", help="where Fashion-MNIST is, if not where Debian's package puts it")
    args = parser.parse_args()
    if str(args.threads) != THREADS:
        parser.error("write --threads=N, with the equals sign")
    torch.set_num_threads(args.threads)
    versions = f"NumPy {np.__version__}, scikit-learn {sklearn.__version__}, torch {torch.__version__}"
    print(f"Python {sys.version.split()[0]}, {versions}; {args.threads} thread(s) of {os.cpu_count()} cores")
    for what in args.what:
        if what == "fashion":
            train, test = load_fashion_mnist(*([args.folder] if args.folder else []))
            parts = [Data(train.x, train.y, test.x, test.y)]
            settings = Settings(100, args.epochs or 10, 128, 1e-3, args.threads)
            compare("Fashion-MNIST, 784-100-10, ReLU, float32", parts, settings, args.seeds)
        else:
            settings = Settings(64, args.epochs or 100, 32, 1e-3, args.threads)
            halves = what == "digits"
            title = f"digits, {'second half' if halves else 'ten folds'}, 64-64-10, ReLU, float32"
            compare(title, digits_half() if halves else digits_folds(), settings, args.seeds)


if __name__ == "__main__":
    main()
