"""What ``import matbackprop`` costs, beside ``import numpy``: at most 1.5 times is the goal.

Run it as ``python benchmarks/import_time.py [RUNS]`` where the package is installed, or from the root of the
repository. Each run is a fresh interpreter under ``-X importtime``; the imports take turns, so that a change in the
machine's load meets all of them, and the median over the runs counts. The first round, which fills the file cache,
does not.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys

MODULES = ("numpy", "matbackprop", "matbackprop.cli", "matbackprop.demo")
GOAL = 1.5


def cumulative(module: str) -> float:
    """Return the milliseconds that the import takes, with all that it imports, in a fresh interpreter."""
    # Without compiled files every import would compile the package anew, but not the installed numpy.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", f"import {module}"],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    line = re.search(rf"\| +(\d+) \| {re.escape(module)}$", done.stderr, re.MULTILINE)  # parent packages included
    if line is None:
        raise RuntimeError(f"-X importtime did not report {module}")
    return int(line[1]) / 1000


def main() -> None:
    """Print the table."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 11
    times: dict[str, list[float]] = {module: [] for module in MODULES}
    for turn in range(runs + 1):
        for module in MODULES:
            took = cumulative(module)
            if turn:
                times[module].append(took)
    base = statistics.median(times["numpy"])
    print(f"{'import':<18} {'median ms':>9} {'min':>7} {'max':>7} {'/ numpy':>8}   ({runs} interleaved runs)")
    for module, all_runs in times.items():
        median = statistics.median(all_runs)
        print(f"{module:<18} {median:9.1f} {min(all_runs):7.1f} {max(all_runs):7.1f} {median / base:8.2f}")
    ratio = statistics.median(times["matbackprop"]) / base
    print(f"goal: import matbackprop at most {GOAL} times import numpy: {'met' if ratio <= GOAL else 'MISSED'}")


if __name__ == "__main__":
    main()
