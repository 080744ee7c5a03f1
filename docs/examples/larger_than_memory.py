"""Data that need not fit in memory: a memory map, and batches that are made as they are needed.

    python larger_than_memory.py [MIB]

writes a file of so many MiB (64 by default), trains on it row by row in random order, and on a
stream of batches that no array ever held; it prints by how much the process grew.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import matbackprop as mb

FEATURES, SLOPE = 32, np.linspace(-1, 1, 32)[:, None]
rows = (int(sys.argv[1]) if len(sys.argv) > 1 else 64) * 2**20 // (4 * FEATURES)


def resident() -> float:
    """Return the memory in MiB that is this process's own, without the file's pages that the system keeps at hand."""
    try:
        pages = Path("/proc/self/statm").read_text().split()
    except OSError:  # no such file here
        return float("nan")
    return (int(pages[1]) - int(pages[2])) * 4096 / 2**20


def network() -> mb.Sequential:
    return mb.Sequential(mb.Linear(FEATURES, 16), mb.Tanh(), mb.Linear(16, 1), rng=0, dtype=np.float32)


def batches():
    """Make an epoch's batches, one after the other; afresh each time that fit asks."""
    rng = np.random.default_rng(1)
    for _ in range(rows // 1024):
        x = rng.standard_normal((1024, FEATURES), np.float32)
        yield x, x @ SLOPE


with TemporaryDirectory() as folder:
    x = np.memmap(f"{folder}/x.f32", np.float32, "w+", shape=(rows, FEATURES))
    y = np.empty((rows, 1), np.float32)
    rng = np.random.default_rng(0)
    for start in range(0, rows, 4096):
        x[start : start + 4096] = rng.standard_normal((len(x[start : start + 4096]), FEATURES), np.float32)
        y[start : start + 4096] = x[start : start + 4096] @ SLOPE
    print(f"a file of {x.nbytes / 2**20:.0f} MiB, {rows:,} rows")

    model, before = network(), resident()
    history = mb.fit(model, x, y, mb.MSE(), mb.Adam(0.01), epochs=1, batch_size=256, rng=0, progress=False)
    print(f"memory map: loss {history['loss'][-1]:.4f}, the process grew by {resident() - before:.1f} MiB")
    del x  # before its file goes

model, before = network(), resident()
history = mb.fit(model, batches, None, mb.MSE(), mb.Adam(0.01), epochs=1, progress=False)
print(f"stream:     loss {history['loss'][-1]:.4f}, the process grew by {resident() - before:.1f} MiB")
