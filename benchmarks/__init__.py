"""Measurements, against the peers and against the hardware: `python -m benchmarks.sweep --help`.

The numeric code is in plain functions. `setup` is what pytest-benchmark and asv call:

    def test_step(benchmark):
        benchmark(setup("32-64-64-1:tanh", rows=512, dtype="float32", task="backprop"))
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["setup"]


def setup(network: object, rows: int, dtype: str, task: str, peer: str = "ours") -> Callable[[], object]:
    """Return a function without arguments that does the task once, ready to be timed."""
    from benchmarks.peers import prepare
    from benchmarks.task import Case, as_network

    return prepare(peer, Case(as_network(network), rows, dtype, task)).step
