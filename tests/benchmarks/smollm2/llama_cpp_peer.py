"""llama.cpp's own types of the same weights, run by a Python that has `llama-cpp-python`: one JSON line a type.

    PEER_PYTHON llama_cpp_peer.py F16.gguf REFERENCE WORK

All types are made from the float16 file. REFERENCE is the folder of the logits.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path

import llama_cpp
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from scores import Divergence, open_reference  # this Python has not the package

TYPES = {"F16": 1, "Q8_0": 7, "Q4_0": 2, "Q4_1": 3, "Q4_K_M": 15}
"""llama.cpp's numbers of its file types."""


def quantize(source: Path, output: Path, kind: int) -> None:
    """As `llama-quantize` does."""
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread = kind, 1
    failed = llama_cpp.llama_model_quantize(str(source).encode(), str(output).encode(), ctypes.byref(parameters))
    if failed:
        raise SystemExit(f"llama.cpp could not write {output}: {failed}")


def measure(path: Path, reference: Path) -> dict[str, float]:
    """Its divergence from the reference."""
    logits, tokens = open_reference(reference)
    length = tokens.shape[1]
    model = llama_cpp.Llama(
        str(path), n_ctx=length, n_batch=length, n_ubatch=length, n_threads=1, n_threads_batch=1, logits_all=True,
        verbose=False,
    )  # fmt: skip
    divergence = Divergence()
    for expected, window in zip(logits, tokens, strict=True):
        model.reset()
        model.eval(window.tolist())
        divergence.append(expected, np.asarray(model.scores[:length]), window)
    return {**divergence.figures(), "bytes": float(path.stat().st_size)}


def main() -> int:
    source, reference, work = (Path(argument) for argument in sys.argv[1:4])
    work.mkdir(parents=True, exist_ok=True)
    for name, kind in TYPES.items():
        path = source if kind == 1 else work / f"{name}.gguf"
        if path != source:
            quantize(source, path, kind)
        print(json.dumps({"name": name, **measure(path, reference)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
