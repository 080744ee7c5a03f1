"""Row blocks and threads: how a large batch is cut up, and how the parts come together.

A block of rows runs forward and backward while its activations are still in cache. Threads work on blocks with BLAS
held to one thread each: where other work shares the cores, BLAS's own threads wait for one another and slow down many
times over, while these slow down in proportion. Who does what, and the order in which gradients are summed, follows
from the shapes and the number of workers alone: the same call gives the same bits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextvars import copy_context
from itertools import pairwise, starmap
from threading import Lock, local
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from matbackprop.flat import named_parameters, size, width_after
from matbackprop.layer import Layer
from matbackprop.validation import as_size

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

__all__ = ["Costs", "Shares", "as_workers", "costs", "cut", "run_all", "share"]

T = TypeVar("T")

#: A block's buffers take about this many bytes, which a core's own cache holds, within these numbers of rows: fewer
#: and the products are less efficient, more and nothing is gained. But a layer of mean width is to have about
#: FEWEST_ENTRIES, or each call would wait for Python: seventeen layers of 32 units take 1.4 µs a row in blocks of 1024,
#: 1.5 in blocks of 512. A prediction, of whose arrays the cache holds two at a time, has larger blocks.
BLOCK_BYTES, FEWEST_ROWS, FEWEST_ROWS_TO_PREDICT, MOST_ROWS = 1 << 20, 512, 1024, 8192
FEWEST_ENTRIES = 1 << 15

#: What predicting costs of the work of loss and gradients: one of about three products a layer.
FORWARD = 1 / 3

#: The edges between blocks of so many rows are at multiples of EVEN_ROWS, which leave no odd ends to products that are
#: made in parts: 3 to 5 % of a step. For the same reason a block has at most a power of two.
ROWS_TO_EVEN, EVEN_ROWS = 512, 128

#: Where several threads work on blocks, each has this many rows at least, and a layer of mean width that many entries,
#: if they take no more than MOST_BYTES: a thread that comes out of a NumPy call while another is between two of its own
#: sleeps, and wakes some 50 µs later, so that few long calls are better than many that fit the cache. Two threads take
#: 13 ms instead of 23 for 16,384 rows of sixteen layers of 32 units.
FEWEST_ROWS_OF_A_THREAD, FEWEST_ENTRIES_OF_A_THREAD, MOST_ROWS_OF_A_THREAD = 2048, 1 << 17, 16384
MOST_BYTES = 1 << 24

#: About what loss and gradients cost a core, measured in float32: for every row, so much a parameter for the products,
#: and so much a feature for everything else. It decides only what follows.
SECONDS_A_PARAMETER, SECONDS_A_FEATURE = 0.03e-9, 1e-9

#: About what it costs to share the work with another thread: handing over; the sleep described above, a few times a
#: layer; and adding up the gradients. Each thread is to have WORTH_A_THREAD times as much work at least.
SECONDS_A_THREAD, SECONDS_A_LAYER, SECONDS_TO_ADD_A_PARAMETER = 50e-6, 35e-6, 1e-9
WORTH_A_THREAD = 2

#: OpenBLAS stays on one thread by itself for products of at most so many multiplications, and for a product with a
#: vector, of so many. Beyond, it is told to: a few microseconds.
MOST_OF_ONE_THREAD, MOST_OF_ONE_THREAD_WITH_A_VECTOR = 1 << 18, 9 << 10


class Costs(NamedTuple):
    """What a row costs, for inputs of one width."""

    layers: int
    parameters: int
    features: int  # of the input and of every layer's output together
    outputs: int  # of the last layer
    largest: int  # entries of one parameter
    widest: int  # of those features
    rowwise: bool  # whether rows can be taken apart


def costs(layers: Sequence[Layer], width: int) -> Costs:
    """Return what a row of `width` features costs in these layers."""
    widths = [width]
    for layer in layers:
        widths.append(width_after(layer, widths[-1]))
    largest = max((array.size for layer in layers for array in named_parameters(layer).values()), default=0)
    rowwise = all(layer.rowwise for layer in layers)
    return Costs(len(layers), sum(map(size, layers)), sum(widths), widths[-1], largest, max(widths), rowwise)


class Shares(NamedTuple):
    """How a batch is cut up."""

    workers: int
    block: int  # rows at most
    light: bool  # so little work that BLAS will not use threads anyway


def share(cost: Costs, rows: int, itemsize: int, workers: int | None, *, predict: bool = False) -> Shares:
    """Decide how a batch is cut up, from shapes and cores alone.

    Parameters
    ----------
    cost : Costs
        If it is not `rowwise`, the batch stays whole.
    rows : int
    itemsize : int
        Bytes of a number.
    workers : int or None
        How many threads, or None for as many as there are cores to use and the batch is worth.
    predict : bool
        Whether there is only the output to compute, not loss and gradients.
    """
    part = FORWARD if predict else 1
    a_row = SECONDS_A_PARAMETER * cost.parameters + SECONDS_A_FEATURE * cost.features
    seconds = part * rows * a_row * itemsize / 4
    light = rows * cost.largest <= (MOST_OF_ONE_THREAD if rows > 1 else MOST_OF_ONE_THREAD_WITH_A_VECTOR)
    light &= rows * cost.widest <= MOST_OF_ONE_THREAD_WITH_A_VECTOR  # the gradient of a bias, or of a single unit
    if not cost.rowwise:
        return Shares(1, max(rows, 1), light)
    if workers is None:
        sharing = SECONDS_A_LAYER * cost.layers + SECONDS_TO_ADD_A_PARAMETER * cost.parameters
        workers = min(_cores(), int(seconds / (WORTH_A_THREAD * (SECONDS_A_THREAD + part * sharing))))
    workers = max(1, min(workers, rows))
    features = max(1, cost.features)
    if predict:
        row_bytes, fewest = 2 * max(1, cost.widest) * itemsize, FEWEST_ROWS_TO_PREDICT
    else:
        row_bytes = features * itemsize
        fewest = max(FEWEST_ROWS, min(FEWEST_ENTRIES * (cost.layers + 1) // features, MOST_BYTES // row_bytes))
    block = min(max(BLOCK_BYTES // row_bytes, fewest), MOST_ROWS)
    if workers > 1:
        of_a_thread = max(FEWEST_ROWS_OF_A_THREAD, FEWEST_ENTRIES_OF_A_THREAD * (cost.layers + 1) // features)
        block = max(block, min(of_a_thread, MOST_ROWS_OF_A_THREAD, MOST_BYTES // row_bytes))
    return Shares(workers, 1 << (block.bit_length() - 1), light)


def as_workers(workers: object) -> int | None:
    """Return `workers` as a positive int, or None."""
    return None if workers is None else as_size(workers, "workers")


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cut(rows: int, block: int, workers: int) -> list[list[slice]]:
    """Cut `rows` into blocks of at most `block`, about equally long, and deal them out to the workers in runs.

    Examples
    --------
    >>> from matbackprop.parallel import cut
    >>> cut(10, 3, 2)
    [[slice(0, 3, None), slice(3, 5, None)], [slice(5, 8, None), slice(8, 10, None)]]
    """
    each = max(1, -(-rows // (block * workers)))  # for every worker
    spans = pairwise(rows * index // workers for index in range(workers + 1))
    return [_blocks(start, stop, each, EVEN_ROWS if block % EVEN_ROWS == 0 else 1) for start, stop in spans]


def _blocks(start: int, stop: int, count: int, even: int) -> list[slice]:
    """Cut a worker's rows."""
    rows = stop - start
    if rows < count * ROWS_TO_EVEN:
        even = 1
    inner = (start + -(-rows * index // (count * even)) * even for index in range(1, count))
    return list(starmap(slice, pairwise([start, *inner, stop])))


def run_all(jobs: Sequence[Callable[[], T]]) -> list[T]:
    """Run the jobs at once, the first in this thread, and return their results when all have ended."""
    if len(jobs) == 1 or getattr(_here, "ours", False):
        return [job() for job in jobs]  # a thread of ours must not wait for its like
    futures = [_threads().submit(copy_context().run, job) for job in jobs[1:]]  # np.errstate holds there too
    try:
        results = [jobs[0]()]
    finally:
        errors = [future.exception() for future in futures]  # waits
    for error in errors:
        if error is not None:
            raise error
    return results + [future.result() for future in futures]


_here = local()  # .ours: whether this is a thread of the pool
_pool: ThreadPoolExecutor | None = None
_pool_lock = Lock()


def _threads() -> ThreadPoolExecutor:
    """Return the process's threads, started when they are first needed."""
    global _pool  # noqa: PLW0603
    with _pool_lock:
        if _pool is None:
            from concurrent.futures import ThreadPoolExecutor

            _pool = ThreadPoolExecutor(os.cpu_count(), "matbackprop", lambda: setattr(_here, "ours", True))
        return _pool


def _after_fork() -> None:
    """Start anew: a child process has none of its parent's threads."""
    global _pool, _pool_lock
    _pool, _pool_lock = None, Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
