"""optimum-onnx, float32.

PEER_PYTHON decode_optimum.py build HUGGING_FACE_FOLDER OUTPUT
PEER_PYTHON decode_optimum.py serve OUTPUT THREADS
"""

from __future__ import annotations

import sys
from importlib import metadata

import onnxruntime
import torch
from optimum.onnxruntime import ORTModelForCausalLM
from peer_protocol import serve


class Optimum:
    """Its model: the cache goes out and comes back in as tensors, so that an old one is a rewind."""

    def __init__(self, folder: str, threads: int) -> None:
        self.versions = {name: metadata.version(name) for name in ("optimum-onnx", "onnxruntime")}
        torch.set_num_threads(threads)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._model = ORTModelForCausalLM.from_pretrained(folder, session_options=options, use_cache=True)

    def start(self, prompt: list[int]) -> None:
        self._past, self._length = None, 0
        self._append(prompt)
        self._filled = (self._past, self._logits, self._length)

    def rewind(self, length: int) -> None:
        self._past, self._logits, self._length = self._filled
        if self._length != length:
            raise SystemExit("only to the end of the prompt")

    def step(self) -> int:
        token = int(self._logits.argmax())
        self._append([token])
        return token

    def _append(self, tokens: list[int]) -> None:
        self._length += len(tokens)
        fed = {"input_ids": torch.tensor([tokens]), "attention_mask": torch.ones((1, self._length), dtype=torch.int64)}
        found = self._model(**fed, past_key_values=self._past, use_cache=True)
        self._past, self._logits = found.past_key_values, found.logits[0, -1]


if __name__ == "__main__":
    if sys.argv[1] == "build":
        ORTModelForCausalLM.from_pretrained(sys.argv[2], export=True).save_pretrained(sys.argv[3])
    else:
        serve(Optimum(sys.argv[2], int(sys.argv[3])))
