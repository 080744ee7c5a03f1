"""What `benchmarks.cold_start` times: imports, training to a set loss. `python -m benchmarks.cold PEER DATA`."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

from benchmarks import task
from benchmarks.peers import prepare
from benchmarks.task import Batch, Case, as_network


@dataclass(frozen=True)
class Given(Case):
    """A case whose data are given."""

    data: Batch | None = None

    def batch(self) -> Batch:
        """Return parameters that are drawn, and the data that are given."""
        assert self.data is not None
        return Batch(Case(self.network, 1, self.dtype, self.task).batch().parameters, self.data.x, self.data.y)


def main() -> None:
    """Train, and say how many steps it took."""
    peer, path = sys.argv[1:3]
    data = np.load(path)
    x, y = data["x"], data["y"]
    task.LR = float(data["lr"])
    given = Batch(np.empty(0), x, y)
    step = prepare(peer, Given(as_network(str(data["network"])), len(x), x.dtype.name, "train", data=given)).step
    goal = float(data["goal"])
    for number in range(1, 20_001):
        value = float(step())
        if value <= goal:
            print(number, value)
            return
    raise SystemExit(f"{peer}: loss {value} after {number} steps")


if __name__ == "__main__":
    main()
