"""How far the prepared, blocked and threaded path is from plain passes by layers: `python -m benchmarks.fast_path`.

The same model computes loss and gradient by its layers' own `forward` and `backward` on the whole batch, and by
`backprop`; outputs by `forward` and by `predict`. Printed is the worst relative difference: of the loss, and of the
gradient's and the output's entries relative to the largest.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from benchmarks.peers import ours
from benchmarks.sweep import BATCHES, NETWORKS
from benchmarks.task import DTYPES, Case, Network, as_network

CLASSES = ("64-32-10:relu:cross_entropy", "30-16-1:sigmoid:bce_logits")


class Difference(NamedTuple):
    """Relative differences."""

    value: float
    gradient: float
    output: float


def difference(network: Network, rows: int, dtype: str, workers: int | None) -> Difference:
    """Return the differences of one case."""
    parameters, x, y = Case(network, rows, dtype, "backprop").batch()
    model, loss = ours.build(network, dtype), ours.LOSSES[network.loss]()
    model.parameters = parameters
    output = model.forward(x)
    value = loss(output, y)
    model.backward(loss.backward())
    gradient, output = model.gradients.copy(), output.copy()
    fast = model.backprop(x, y, loss, workers=workers)
    predicted = model.predict(x, workers=workers)

    def relative(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.abs(a - b).max() / (np.abs(b).max() or 1))

    return Difference(
        abs(fast - value) / (abs(value) or 1), relative(model.gradients, gradient), relative(predicted, output)
    )


def worst(differences: Iterable[Difference]) -> Difference:
    """Return the largest of each."""
    return Difference(*map(max, zip(*differences, strict=True)))


def main() -> None:
    """Print a line a network and type, and the worst of all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fast_path", description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=[*NETWORKS, *CLASSES])
    parser.add_argument("--batches", nargs="+", type=int, default=[*BATCHES[:-2], 1000, 10_001, BATCHES[-2]])
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 1, 2, 3], help="0 is the library's own choice")
    args = parser.parse_args()
    print(f"{'network':<30} {'type':<8} {'value':>9} {'gradient':>9} {'output':>9}   worst over N and workers")
    for dtype in args.dtypes:
        lines = []
        for network in map(as_network, args.networks):
            cases = [
                difference(network, rows, dtype, workers or None) for rows in args.batches for workers in args.workers
            ]
            lines.append(worst(cases))
            print(f"{network!s:<30} {dtype:<8} " + " ".join(f"{number:9.1e}" for number in lines[-1]), flush=True)
        print(f"{'all':<30} {dtype:<8} " + " ".join(f"{number:9.1e}" for number in worst(lines)))


if __name__ == "__main__":
    main()
