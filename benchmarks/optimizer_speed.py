"""One optimiser step against torch's, side by side: `python -m benchmarks.optimizer_speed --help`.

Both change the parameters of the same network by the same gradients on one pinned core with one thread: ours as one
flat vector, torch's tensor by tensor, as each has them. Torch runs as its default (a loop over the tensors, on a CPU),
with foreach=True, and with fused=True. They agree before anything is timed, and run in turns, round by round; printed
are medians over the rounds, and theirs over ours.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from itertools import pairwise

from benchmarks.machine import THREAD_VARIABLES
from benchmarks.worker import calibrate, turn

for variable in THREAD_VARIABLES:
    os.environ[variable] = "1"  # before NumPy and torch are loaded

import numpy as np
import torch

import matbackprop as mb

NETWORKS = {"5-14-1", "30-20-4", "100-100-10", "784-120-10", "784-1000-200-10"}
SETTINGS = {
    "SGD": {"lr": 1e-3, "momentum": 0.9},
    "Adam": {"lr": 1e-3},
    "AdamW": {"lr": 1e-3},
    "RMSprop": {"lr": 1e-3},
}
VARIANTS = {"default": {}, "foreach": {"foreach": True}, "fused": {"fused": True}}


def twin(model, name, variant):
    """Return torch's tensors for the model's parameters, and the step of an optimiser over them."""
    tensors = [torch.nn.Parameter(torch.tensor(array)) for array in model.state_dict().values()]
    start = 0
    for tensor in tensors:
        part = model.gradients[start : start + tensor.numel()]
        tensor.grad = torch.tensor(part).reshape(tensor.shape)
        start += tensor.numel()
    return tensors, getattr(torch.optim, name)(tensors, **SETTINGS[name], **variant).step


def interleaved(steps, rounds):
    """Return each step's nanoseconds per call, a number a round."""
    calls = [calibrate(step) for step in steps]
    times = [[] for _ in steps]
    for _ in range(rounds):
        for step, count, samples in zip(steps, calls, times, strict=True):
            samples.extend(turn(step, count, 1))
    return times


def check(model, tensors, who):
    """Stop where the parameters have come apart."""
    theirs = torch.cat([tensor.detach().reshape(-1) for tensor in tensors]).numpy()
    np.testing.assert_allclose(model.parameters, theirs, 0, 1e-5 * np.abs(theirs).max(), err_msg=who)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--optimizer", default="Adam", choices=SETTINGS)
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64"])
    parser.add_argument("--rounds", type=int, default=60, help="(default: %(default)s)")
    parser.add_argument("--core", type=int, default=0, help="the core to pin to, -1 for none (default: %(default)s)")
    args = parser.parse_args()
    if args.core >= 0 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {args.core})
    torch.set_num_threads(1)
    variants = VARIANTS if args.optimizer != "RMSprop" else {name: VARIANTS[name] for name in ("default", "foreach")}

    print(
        f"{args.optimizer}, {args.dtype}, one core; Python {sys.version.split()[0]}, NumPy {np.__version__}, "
        f"torch {torch.__version__}"
    )
    head = [f"{name} µs" for name in variants]
    print(f"{'network':>18} {'P':>8} {'ours µs':>10}", *(f"{name:>12}" for name in head), "  theirs/ours")
    for network in sorted(NETWORKS, key=lambda name: (len(name), name)):
        widths = [int(width) for width in network.split("-")]
        layers = [mb.Linear(wide, narrow) for wide, narrow in pairwise(widths)]
        model = mb.Sequential(*layers, dtype=args.dtype, rng=0)
        model.gradients = np.random.default_rng(1).normal(size=model.gradients.size)
        twins = [twin(model, args.optimizer, variant) for variant in variants.values()]
        optimizer = getattr(mb, args.optimizer)(**SETTINGS[args.optimizer])

        def ours(model=model, optimizer=optimizer):
            optimizer.step(model.parameters, model.gradients)

        steps = [ours, *(step for _, step in twins)]
        for step in steps * 3:
            step()
        for name, (tensors, _) in zip(variants, twins, strict=True):
            check(model, tensors, name)
        mine, *theirs = map(statistics.median, interleaved(steps, args.rounds))
        print(
            f"{network:>18} {model.parameters.size:>8} {mine / 1e3:>10.1f}",
            *(f"{time / 1e3:>12.1f}" for time in theirs),
            "  " + " ".join(f"{time / mine:.2f}" for time in theirs),
            flush=True,
        )


if __name__ == "__main__":
    main()
