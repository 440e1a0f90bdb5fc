"""ONNX: a .onnx file, which onnxruntime and many other programs run."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from convert import Checkpoint, ConvertError
from export.signature import Signature
from export.torch import dynamic, example, module, program
from export.verify import Program

__all__ = ["load", "program", "write"]


def write(path: Path, checkpoint: Checkpoint, signature: Signature, dtype: str) -> None:
    """Write the model to a file. ConvertError for bfloat16."""
    if dtype == "bfloat16":
        raise ConvertError(
            "--dtype bfloat16: onnxruntime has no convolution in it, so nothing could run the file;"
            " give --dtype float16"
        )
    with _quiet():
        made = torch.onnx.export(
            module(checkpoint, signature, dtype),
            example(signature),
            dynamic_shapes=dynamic(signature),
            input_names=signature.inputs,
            output_names=signature.outputs,
            dynamo=True,
            verbose=False,
        )
        assert made is not None
        made.save(path, external_data=False)


def load(path: Path, signature: Signature) -> Program:
    """The model in a file."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def call(*inputs: np.ndarray) -> list[np.ndarray]:
        return list(session.run(None, dict(zip(signature.inputs, inputs, strict=True))))

    return call


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes on packages and deprecations, which nobody who exports can act on."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        log.setLevel(before)
