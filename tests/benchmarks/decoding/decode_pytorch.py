"""transformers in PyTorch, float32: `PEER_PYTHON decode_pytorch.py HUGGING_FACE_FOLDER THREADS`."""

from __future__ import annotations

import sys
from importlib import metadata

import torch
from peer_protocol import serve
from transformers import AutoModelForCausalLM, DynamicCache


class PyTorch:
    """Its model with a cache that grows."""

    def __init__(self, folder: str, threads: int) -> None:
        self.versions = {name: metadata.version(name) for name in ("torch", "transformers")}
        torch.set_num_threads(threads)
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def start(self, prompt: list[int]) -> None:
        self._cache = DynamicCache()
        self._append(prompt)

    def rewind(self, length: int) -> None:
        extra = self._cache.get_seq_length() - length
        if extra > 0:
            self._cache.crop(-extra)  # new versions of transformers take no length to keep

    def step(self) -> int:
        token = int(self._logits.argmax())
        self._append([token])
        return token

    def _append(self, tokens: list[int]) -> None:
        with torch.inference_mode():
            found = self._model(torch.tensor([tokens]), past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        self._logits = found.logits[0, -1]


if __name__ == "__main__":
    serve(PyTorch(sys.argv[1], int(sys.argv[2])))
