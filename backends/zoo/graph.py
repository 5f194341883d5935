"""Collects the nodes and constants of an ONNX graph under construction. Knows nothing of any model."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

FUSED = "com.microsoft"
_OPSET, _FUSED_OPSET, _IR_VERSION = 20, 1, 10


class Graph:
    """A graph that grows node by node; the methods return the names of what they add."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: npt.ArrayLike) -> str:
        """Add an array under a name that is new to the graph."""
        self.constants.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def node(self, operator: str, *inputs: str, output: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output, whose name is also the node's."""
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, domain=domain, **attributes))
        return output

    def model(
        self,
        name: str,
        *,
        inputs: tuple[str, ...],
        output: str,
        width: int,
        more: tuple[onnx.ValueInfoProto, ...] = (),
    ) -> onnx.ModelProto:
        """Return the model: int64 inputs [batch, tokens], one float32 output [batch, width], and maybe more."""
        ids = [helper.make_tensor_value_info(each, TensorProto.INT64, ["batch", "tokens"]) for each in inputs]
        graph = helper.make_graph(self.nodes, name, ids, [vector(output, width), *more], self.constants)
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(FUSED, _FUSED_OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)


def vector(name: str, width: int) -> onnx.ValueInfoProto:
    """Return the description of a float32 value [batch, width]."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
