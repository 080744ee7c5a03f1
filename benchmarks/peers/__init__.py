"""The library and its peers: how each does a task in its best customary form.

A peer is a module with ``prepare(case) -> Prepared`` and, if it runs on threads of its own, ``threads(cores)``. It is
imported in the process that runs it, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

from benchmarks.task import Arrays, Case

__all__ = ["PEERS", "Peer", "Prepared", "installed", "prepare"]


class Prepared(NamedTuple):
    """A task that is ready to be done, and how to read what it gave. A training step returns its loss."""

    step: Callable[[], Any]
    #: Turns what the last `step` returned into the arrays of `benchmarks.task.expected`.
    collect: Callable[[Any], Arrays]


class Peer(NamedTuple):
    """Where a peer lives, what it is called and what it needs."""

    module: str
    label: str
    packages: tuple[str, ...]  # as pip names them
    tasks: tuple[str, ...] = ("backprop", "train", "predict")


#: In the order of the tables. "floor" is no peer: the bare matrix products of the step, which nobody gets below without
#: better products.
PEERS = {
    "ours": Peer("ours", "matbackprop", ("numpy", "scipy", "threadpoolctl")),
    "floor": Peer("floor", "the bare products", ("numpy",)),
    "torch": Peer("torch_eager", "torch", ("torch",)),
    "torch.compile": Peer("torch_compiled", "torch.compile", ("torch",)),
    "jax": Peer("jax_jit", "JAX jit", ("jax", "jaxlib")),
    "sklearn": Peer("scikit_learn", "scikit-learn", ("scikit-learn",)),
    "autograd": Peer("autograd_hips", "autograd", ("autograd",)),
    "mygrad": Peer("mygrad_tensors", "MyGrad", ("mygrad",)),
    "onnxruntime": Peer("onnx_runtime", "ONNX Runtime", ("onnxruntime", "onnx"), ("predict",)),
}


def installed(name: str) -> dict[str, str]:
    """Return the versions of a peer's packages.

    Raises
    ------
    ImportError
        If one is not installed.
    """
    from importlib.metadata import PackageNotFoundError, version  # costs a cold start several milliseconds

    try:
        return {package: version(package) for package in PEERS[name].packages}
    except PackageNotFoundError as error:
        raise ImportError(f"{error.name} is not installed") from None


def load(name: str) -> Any:
    """Import a peer's module."""
    return import_module(f"benchmarks.peers.{PEERS[name].module}")


def prepare(name: str, case: Case) -> Prepared:
    """Return the task, as this peer does it."""
    return load(name).prepare(case)
