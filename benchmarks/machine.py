"""What the numbers depend on: the machine, its cores and caches, the versions, the commit."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CPU = Path("/sys/devices/system/cpu")

#: What sets the number of threads, for each library that reads it.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NPROC")


def cores() -> list[int]:
    """Return the cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def on(count: int) -> str:
    """Return so many cores in words."""
    return f"{count} core{'s' * (count > 1)}"


def pin(chosen: list[int]) -> None:
    """Keep this process, and the threads that it will start, on these cores, where the system can."""
    if chosen and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(chosen))


def thread_environment(count: int) -> dict[str, str]:
    """Return the environment in which every library starts `count` threads at most."""
    variables = dict.fromkeys(THREAD_VARIABLES, str(count))
    if count == 1:  # with more, XLA takes as many as there are cores, NPROC
        variables["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    return variables


def _read(path: Path) -> str | None:
    try:
        return path.read_text("utf-8").strip()
    except OSError:
        return None


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def cpu_model() -> str:
    """Return what the processor calls itself."""
    for line in (_read(Path("/proc/cpuinfo")) or "").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def describe() -> dict[str, Any]:
    """Return the machine and the state of the source, as far as they can be read."""
    caches = {}
    for index in sorted((CPU / "cpu0/cache").glob("index*")):
        name = f"L{_read(index / 'level')} {(_read(index / 'type') or '').lower()}"
        caches[name] = f"{_read(index / 'size')}, cores {_read(index / 'shared_cpu_list')}"
    memory = next((line.split()[1] for line in (_read(Path("/proc/meminfo")) or "").splitlines()), None)
    status = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": cpu_model(),
        "cores": cores(),
        "cores of the machine": os.cpu_count(),
        "caches": caches,
        "memory GiB": round(int(memory) / 2**20, 1) if memory else None,
        "governor": _read(CPU / "cpu0/cpufreq/scaling_governor"),
        "load at the start": [round(x, 2) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": sys.version.split()[0],
        "commit": _git("rev-parse", "HEAD"),
        "changed": None if status is None else bool(status),
    }
