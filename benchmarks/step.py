"""One backprop (loss and all gradients) against torch eager, side by side: `python benchmarks/step.py --help`.

Both get the same parameters and data on one pinned core with one thread, agree on loss and gradient before anything is
timed, and run in turns, round by round. Printed are medians over the rounds, their ratio, and the middle half of the
ratios round by round as a measure of the noise.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable
from itertools import pairwise
from time import perf_counter

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # before NumPy and torch are loaded

import numpy as np

import matbackprop as mb

Step = Callable[[], float]


def our_step(
    widths: list[int], activation: str, dtype: str, x: np.ndarray, y: np.ndarray
) -> tuple[Step, mb.Sequential]:
    """Return a function that computes loss and gradients, and the model."""
    layers: list[mb.Layer] = []
    for wide, narrow in pairwise(widths):
        layers += [mb.Linear(wide, narrow), {"tanh": mb.Tanh, "relu": mb.ReLU}[activation]()]
    model = mb.Sequential(*layers[:-1], dtype=dtype, rng=0)
    loss = mb.MSE()
    return lambda: model.backprop(x, y, loss), model


def torch_step(model: mb.Sequential, x: np.ndarray, y: np.ndarray) -> tuple[Step, Callable[[], np.ndarray]]:
    """Return the same step in torch, in its customary form, and a function that returns its last gradient."""
    import torch

    torch.set_num_threads(1)
    twin = {"Linear": torch.nn.Linear, "Tanh": torch.nn.Tanh, "ReLU": torch.nn.ReLU}
    parts = [
        twin["Linear"](layer.in_features, layer.out_features)
        if isinstance(layer, mb.Linear)
        else twin[type(layer).__name__]()
        for layer in model
    ]
    net = torch.nn.Sequential(*parts).to(getattr(torch, model.dtype.name))
    net.load_state_dict({name: torch.from_numpy(array) for name, array in model.state_dict().items()})
    data, target, loss = torch.from_numpy(x), torch.from_numpy(y), torch.nn.MSELoss()

    def step() -> float:
        net.zero_grad(set_to_none=True)
        value = loss(net(data), target)
        value.backward()
        return value.item()

    return step, lambda: np.concatenate([p.grad.numpy().ravel() for p in net.parameters()])


def interleaved(steps: list[Step], rounds: int, seconds: float = 0.005) -> list[list[float]]:
    """Return each step's seconds per call, a number a round; a round gives each step `seconds` at least."""
    counts = []
    for step in steps:
        step()
        start = perf_counter()
        step()
        counts.append(max(1, int(seconds / (perf_counter() - start))))
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(rounds):
        for step, count, samples in zip(steps, counts, times, strict=True):
            start = perf_counter()
            for _ in range(count):
                step()
            samples.append((perf_counter() - start) / count)
    return times


def main() -> None:
    """Time the batch sizes one by one and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="32-64-64-1", help="widths, joined by - (default: %(default)s)")
    parser.add_argument("--activation", default="tanh", choices=["tanh", "relu"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64"])
    parser.add_argument("--batches", default="1,64,512,4096", help="batch sizes, joined by , (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=60, help="(default: %(default)s)")
    parser.add_argument("--core", type=int, default=0, help="the core to pin to, -1 for none (default: %(default)s)")
    args = parser.parse_args()
    if args.core >= 0 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {args.core})
    widths, rng = [int(width) for width in args.network.split("-")], np.random.default_rng(0)

    print(
        f"{args.network} {args.activation} {args.dtype}, MSE, one core; "
        f"Python {sys.version.split()[0]}, NumPy {np.__version__}"
    )
    print(f"{'N':>8} {'ours µs':>10} {'torch µs':>10} {'ratio':>7}   middle half of the rounds")
    for batch in map(int, args.batches.split(",")):
        x = rng.standard_normal((batch, widths[0])).astype(args.dtype)
        y = rng.standard_normal((batch, widths[-1])).astype(args.dtype)
        ours, model = our_step(widths, args.activation, args.dtype, x, y)
        theirs, gradient = torch_step(model, x, y)
        tolerance = 1e-4 if args.dtype == "float32" else 1e-10
        np.testing.assert_allclose(ours(), theirs(), rtol=tolerance)
        np.testing.assert_allclose(model.gradients, gradient(), rtol=0, atol=tolerance * np.abs(gradient()).max())
        a, b = interleaved([ours, theirs], args.rounds)
        low, _, high = statistics.quantiles([t / o for o, t in zip(a, b, strict=True)], n=4)
        us, them = statistics.median(a), statistics.median(b)
        print(
            f"{batch:>8} {us * 1e6:>10.1f} {them * 1e6:>10.1f} {them / us:>7.2f}   {low:.2f} ... {high:.2f}", flush=True
        )


if __name__ == "__main__":
    main()
