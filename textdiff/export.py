"""Export of networks to ONNX, checked in onnxruntime against torch."""

import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from textdiff.config import UserError
from textdiff.diffusion.schedules import Schedule, grid
from textdiff.training.checkpoint import reraise_write_errors

TOLERANCE = 1e-4  # of every output, in absolute value

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Graph:
    """A network as it is exported.

    Args:
        module: Module that maps its inputs to a tuple of outputs.
        inputs: Names of the inputs.
        outputs: Names of the outputs.
        dynamic: Names of the axes of each input that may have any size, by their number.
        examples: Function that makes inputs with given sizes of the dynamic axes. It is called with
            numbers from 1 to 3; higher ones make larger inputs.
        facts: What the file says about the model, by name.
    """

    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dynamic: tuple[dict[int, str], ...]
    examples: Callable[[int], Tensors]
    facts: dict[str, str]


@dataclass(frozen=True)
class Exported:
    """A file with a graph.

    Args:
        file: The file.
        graph: The graph.
        error: Largest difference of an output from torch.
    """

    file: Path
    graph: Graph
    error: float

    def __str__(self) -> str:
        takes, gives = ", ".join(self.graph.inputs), ", ".join(self.graph.outputs)
        return f"{self.file}: {takes} -> {gives}; differs from torch by {self.error:.1e} at most"


def export_onnx(graph: Graph, file: Path) -> Exported:
    """Writes a network to an ONNX file and compares it with torch on inputs of other sizes.

    Raises:
        UserError: If onnx, onnxscript or onnxruntime is missing, the file cannot be written, or the
            difference is above `TOLERANCE`.
    """
    need_onnx()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph.module.eval(),
            graph.examples(2),
            input_names=graph.inputs,
            output_names=graph.outputs,
            dynamic_shapes=graph.dynamic,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(graph.facts)
    with reraise_write_errors("the graph", file):
        file.parent.mkdir(parents=True, exist_ok=True)
        program.save(file)
    error = max(_difference(graph, file, graph.examples(size)) for size in (1, 2, 3))
    if not error <= TOLERANCE:
        raise UserError(f"{file} differs from torch by {error:.1e}, more than {TOLERANCE:g}")
    return Exported(file, graph, error)


def log_snrs(schedule: Schedule, steps: int = 32) -> str:
    """Log SNRs of a sampler, noisy end first, as JSON."""
    with torch.no_grad():
        return json.dumps(grid(schedule, steps).tolist())


def need_onnx() -> None:
    """Raises UserError, with the extra to install, if a library is missing."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise UserError(f"this needs {name}: pip install 'textdiff[onnx]'")


@torch.no_grad()
def _difference(graph: Graph, file: Path, inputs: Sequence[Tensor]) -> float:
    """Largest difference between onnxruntime and torch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    named = {name: each.numpy() for name, each in zip(graph.inputs, inputs, strict=True)}
    found = session.run(list(graph.outputs), named)
    pairs = zip(map(torch.from_numpy, found), graph.module(*inputs), strict=True)
    return max(float((one - two).abs().max()) for one, two in pairs)
