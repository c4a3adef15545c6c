"""The tools of `comparison.py` that work on ONNX: what they make is counted by its nodes, and run by onnxruntime."""

# ruff: noqa: INP001 - beside a script, and no package

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fxfuse.cli import models

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

ARITHMETIC = {"Mul", "Add", "Sub", "Div"}


class Exported:
    """A model as the exporter of torch writes it.

    Without its optimiser it writes the bias that a convolution lacks as something to be computed, which other tools
    find too late.  So the others are given an export with its constants computed, and nothing else done.
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        program: Any = torch.onnx.export(model, (x,), dynamo=True, optimize=False, verbose=False)
        self.program = program
        models.need("onnxscript.optimizer", "export").fold_constants(program.model)
        self.plain = copy.deepcopy(program.model_proto)

    def by_torch(self) -> Any:
        """What is written with `optimize=True`, the default."""
        optimized = copy.copy(self.program)
        optimized.optimize()
        return optimized.model_proto

    def by_onnxslim(self) -> Any:
        """What `onnxslim` makes of it."""
        return models.need("onnxslim").slim(copy.deepcopy(self.plain))

    def by_onnxsim(self) -> Any:
        """What `onnxsim` makes of it."""
        return models.need("onnxsim").simplify(copy.deepcopy(self.plain), certify=False)[0]

    def by_onnxruntime(self) -> Any:
        """What onnxruntime makes of it when it loads it, but for what depends on the processor.

        There a norm is written as a convolution of each channel, which cannot be counted.
        """
        ort, onnx = models.need("onnxruntime"), models.need("onnx")
        with tempfile.TemporaryDirectory() as folder:
            options = ort.SessionOptions()
            options.log_severity_level = 4
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
            options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
            ort.InferenceSession(self.plain.SerializeToString(), options)
            return onnx.load(options.optimized_model_filepath)


def runner(model: Any) -> Callable[[Tensor], Any]:
    """Run ONNX as it is: onnxruntime changes nothing more."""
    ort = models.need("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options)
    name = session.get_inputs()[0].name

    def run(x: Tensor) -> Any:
        outputs = [torch.from_numpy(value) for value in session.run(None, {name: x.numpy()})]
        return outputs[0] if len(outputs) == 1 else outputs

    return run


def count(model: Any) -> tuple[int, int]:
    """The batch norms of a graph; and with them the multiplications, additions, and other norms with a weight.

    What is computed from constants alone does not count.  An addition behind a product of matrices is its bias, which
    ONNX has no other place for.
    """
    ones, constants = _names_of_ones(model), {value.name for value in model.graph.initializer}
    moving = {value.name for value in model.graph.input} - constants
    products: set[str] = set()
    norms = work = 0
    for node in model.graph.node:
        if moving.isdisjoint(node.input):
            continue
        moving.update(node.output)
        products.update(node.output if node.op_type == "MatMul" else ())
        norms += node.op_type == "BatchNormalization"
        work += node.op_type in ARITHMETIC and not (node.op_type == "Add" and products.intersection(node.input))
        work += node.op_type == "LayerNormalization" and node.input[1] not in ones
    return norms, norms + work


def _names_of_ones(model: Any) -> set[str]:
    """The constants that are nothing but ones."""
    to_array = models.need("onnx").numpy_helper.to_array
    return {value.name for value in model.graph.initializer if bool((to_array(value) == 1).all())}
