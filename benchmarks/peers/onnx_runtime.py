"""ONNX Runtime, for predictions: our parameters as Gemm nodes, one session on the CPU."""

from __future__ import annotations

import os

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from benchmarks.peers import Prepared
from benchmarks.task import Case, Network, outcome

ACTIVATIONS = {"tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid"}


def export(network: Network, dtype: str, parameters: np.ndarray) -> bytes:
    """Return the network as an ONNX model."""
    kind = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}[dtype]
    nodes, weights, name = [], [], "x"
    last = len(network.shapes) - 1
    for index, (weight, bias) in enumerate(network.split(parameters)):
        weights += [numpy_helper.from_array(weight, f"w{index}"), numpy_helper.from_array(bias, f"b{index}")]
        out = "y" if index == last else f"z{index}"
        nodes.append(helper.make_node("Gemm", [name, f"w{index}", f"b{index}"], [out], transB=1))
        name = out
        if index < last:
            nodes.append(helper.make_node(ACTIVATIONS[network.activation], [name], [f"a{index}"]))
            name = f"a{index}"
    graph = helper.make_graph(
        nodes, "network",
        [helper.make_tensor_value_info("x", kind, [None, network.widths[0]])],
        [helper.make_tensor_value_info("y", kind, [None, network.widths[-1]])],
        weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def prepare(case: Case) -> Prepared:
    """Return the task."""
    parameters, x, _ = case.batch()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        export(case.network, case.dtype, parameters), options, providers=["CPUExecutionProvider"]
    )
    return Prepared(lambda: session.run(None, {"x": x})[0], lambda output: outcome(case, output))
