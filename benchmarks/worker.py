"""One peer in a process of its own, pinned, which does what it is told over a pipe: `benchmarks.pool` starts it.

Frameworks in one process share what they should not: thread pools spin against each other, allocators and BLAS
libraries meet, one's settings are the other's. So each has a process; and while it is not its turn the process is
stopped (SIGSTOP), so that no thread of it can run, whatever it would do to wait.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from time import perf_counter_ns
from typing import Any

from benchmarks.machine import THREAD_VARIABLES, pin

#: A sample is as many calls as take this long at least, in nanoseconds, against the timer and the loop around it.
SAMPLE = 300_000
#: Before the samples of a turn the caches and threads get this long to come back, if a call is shorter than LONG.
WARM, LONG = 2_000_000, 20_000_000


def sample(step: Callable[[], object], calls: int) -> int:
    """Return the nanoseconds that so many calls take."""
    repeat = range(calls)
    start = perf_counter_ns()
    for _ in repeat:
        step()
    return perf_counter_ns() - start


def calibrate(step: Callable[[], object]) -> int:
    """Return how many calls make up a sample."""
    calls = 1
    while True:
        took = max(min(sample(step, calls) for _ in range(1 if calls == 1 else 3)), 1)
        if took >= SAMPLE:
            return calls
        calls = max(calls + 1, min(4 * calls, -(-calls * SAMPLE * 5 // (4 * took))))


def turn(step: Callable[[], object], calls: int, samples: int) -> list[float]:
    """Return so many samples, each in nanoseconds a call; what comes first does not count."""
    took = sample(step, 1)
    spent = took
    while took < LONG and spent < WARM:
        spent += sample(step, 1)
    return [sample(step, calls) / calls for _ in range(samples)]


class Worker:
    """The commands, a method each."""

    def __init__(self, peer: str, cores: int) -> None:
        from benchmarks.peers import load

        self.peer, self.module = peer, load(peer)
        if hasattr(self.module, "threads"):
            self.module.threads(cores)
        self.step: Callable[[], object] | None = None

    def hello(self) -> dict[str, Any]:
        """Return what this process runs on."""
        from threadpoolctl import threadpool_info

        from benchmarks.machine import cores
        from benchmarks.peers import installed

        names = (*THREAD_VARIABLES, "XLA_FLAGS", "JAX_ENABLE_X64")
        pools = [{key: pool.get(key) for key in ("internal_api", "version", "num_threads", "architecture")}
                 for pool in threadpool_info()]  # fmt: skip
        return {
            "versions": installed(self.peer),
            "cores": cores(),
            "environment": {name: os.environ[name] for name in names if name in os.environ},
            "thread pools": pools,
        }

    def prepare(self, network: str, rows: int, dtype: str, task: str) -> Any:
        """Get ready, do the task, and return what came of it."""
        from benchmarks.task import TRIAL_STEPS, Case, as_network

        self.clear()
        prepared = self.module.prepare(Case(as_network(network), rows, dtype, task))
        for _ in range(TRIAL_STEPS if task == "train" else 1):
            result = prepared.step()
        self.step = prepared.step
        return prepared.collect(result)

    def brisk(self, network: str, dtype: str) -> Any:
        """Return what a few training steps at a high rate come to."""
        from benchmarks import task

        rate = task.LR
        task.LR = task.BRISK_LR
        try:
            case = task.Case(task.as_network(network), task.BRISK_ROWS, dtype, "train")
            prepared = self.module.prepare(case)
            for _ in range(task.BRISK_STEPS):
                result = prepared.step()
            return prepared.collect(result)
        finally:
            task.LR = rate

    def calibrate(self) -> int:
        """Return how many calls make up a sample, and put what is there out of the garbage collector's way."""
        assert self.step is not None
        gc.collect()
        gc.freeze()
        self.step()
        return calibrate(self.step)

    def turn(self, calls: int, samples: int) -> list[float]:
        """Return samples."""
        assert self.step is not None
        return turn(self.step, calls, samples)

    def clear(self) -> None:
        """Let go of the case."""
        self.step = None
        gc.unfreeze()
        gc.collect()


def die_with_parent() -> None:
    """Ask the kernel to end this process when its parent ends: a stopped one would stay for ever."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL


def main() -> None:
    """Serve until the pipe closes."""
    settings = json.loads(sys.argv[1])
    die_with_parent()
    pin(settings["cores"])
    with Connection(settings["pipe"]) as pipe:
        try:
            worker = Worker(settings["peer"], len(settings["cores"]))
            pipe.send(("done", worker.hello()))
            while True:
                name, *arguments = pipe.recv()
                try:
                    reply = ("done", getattr(worker, name)(*arguments))
                except Exception as error:  # noqa: BLE001  (whatever a peer raises is its answer)
                    reply = ("failed", f"{type(error).__name__}: {error}".strip().splitlines()[0][:300])
                pipe.send(reply)
        except EOFError:
            pass
        except Exception as error:  # noqa: BLE001
            pipe.send(("failed", f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]))


if __name__ == "__main__":
    main()
