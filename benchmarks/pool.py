"""The processes of the peers, and whose turn it is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from multiprocessing import Pipe
from typing import Any, Self

from benchmarks.machine import ROOT, thread_environment


class Failure(Exception):
    """What a peer could not do, in its own words."""


class Process:
    """A worker, stopped unless it has something to do.

    Parameters
    ----------
    peer : str
    cores : list of int
        Where it is pinned; it gets as many threads.
    dtype : str
        JAX is told by its environment whether float64 is on.
    """

    def __init__(self, peer: str, cores: list[int], dtype: str) -> None:
        self.peer, self.alive, self.stopped = peer, True, False
        self.pipe, theirs = Pipe()
        environment = {**os.environ, **thread_environment(len(cores))}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment["JAX_ENABLE_X64"] = str(int(dtype == "float64"))
        environment["JAX_PLATFORMS"] = "cpu"
        environment["TF_CPP_MIN_LOG_LEVEL"] = "3"
        settings = json.dumps({"peer": peer, "cores": cores, "pipe": theirs.fileno()})
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the process)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", settings],
            env=environment, pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL, stdout=self.errors, stderr=self.errors,
        )  # fmt: skip
        theirs.close()

    def stop(self) -> None:
        """Let no thread of it run."""
        if self.alive and hasattr(signal, "SIGSTOP"):
            self.process.send_signal(signal.SIGSTOP)
            self.stopped = True

    def resume(self) -> None:
        """Let it run again."""
        if self.stopped:
            self.process.send_signal(signal.SIGCONT)
            self.stopped = False

    def send(self, name: str, *arguments: Any) -> None:
        """Give it something to do."""
        if not self.alive:
            raise Failure("its process has ended")
        self.resume()
        try:
            self.pipe.send((name, *arguments))
        except OSError:
            raise self._gone() from None

    def receive(self, seconds: float) -> Any:
        """Return what came of it, and stop the process."""
        try:
            if not self.pipe.poll(seconds):
                self.kill()
                raise Failure(f"no answer within {seconds:.0f} s")
            state, value = self.pipe.recv()
        except (EOFError, OSError):
            raise self._gone() from None
        self.stop()
        if state == "failed":
            raise Failure(value)
        return value

    def call(self, name: str, *arguments: Any, seconds: float = 120) -> Any:
        """Have it do something and wait."""
        self.send(name, *arguments)
        return self.receive(seconds)

    def _gone(self) -> Failure:
        self.process.wait()
        self.errors.seek(0)
        words = self.errors.read().decode("utf-8", "replace").strip().splitlines()
        self.kill()
        return Failure(f"its process ended with {self.process.returncode}: {words[-1][:300] if words else 'no word'}")

    def kill(self) -> None:
        """End it."""
        if self.alive:
            self.alive = False
            self.process.kill()  # ends a stopped process too
            self.process.wait()
            self.pipe.close()
            self.errors.close()


class Pool:
    """A process for each peer, all on the same cores; a context, at whose end they end.

    Attributes
    ----------
    processes : dict of str to Process
        Those that run.
    about : dict of str to dict
        What each runs on.
    left_out : dict of str to str
        Why the others do not.
    """

    def __init__(self, peers: list[str], cores: list[int], dtype: str, seconds: float = 120) -> None:
        self.processes: dict[str, Process] = {}
        self.about: dict[str, Any] = {}
        self.left_out: dict[str, str] = {}
        started = {peer: Process(peer, cores, dtype) for peer in peers}
        try:
            for peer, process in started.items():
                try:
                    self.about[peer] = process.receive(seconds)
                    self.processes[peer] = process
                except Failure as failure:
                    self.left_out[peer] = str(failure)
                    process.kill()
        except BaseException:
            for process in started.values():
                process.kill()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes.values():
            process.kill()
