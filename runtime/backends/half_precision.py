"""Does ONNX Runtime multiply float16 matrices here, or widen them? It does not say, so a small graph is tried."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import onnxruntime

# One MatMul of two float16 (1, 1) inputs, opset 13: written out, since the runtime has no `onnx` to build it with.
_INPUT = b"\x12\x0e\n\x0c\x08\n\x12\x08\n\x02\x08\x01\n\x02\x08\x01"
PROBE = (
    b'\x08\x08\x12\x00:U\n\x11\n\x01a\n\x01b\x12\x01c"\x06MatMul\x12\x01g'
    + b"Z\x13\n\x01a"
    + _INPUT
    + b"Z\x13\n\x01b"
    + _INPUT
    + b"b\x13\n\x01c"
    + _INPUT
    + b"B\x04\n\x00\x10\r"
)


@functools.cache
def multiplies_half_precision(provider: str) -> bool:
    """Whether products of float16 matrices are computed as such.

    Where there is no kernel, ONNX Runtime inserts casts around the operator; they show in the graph that it would run.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only: it warns about every optimized graph that is saved
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        onnxruntime.InferenceSession(PROBE, options, providers=[provider])
        return b"Cast" not in Path(options.optimized_model_filepath).read_bytes()
