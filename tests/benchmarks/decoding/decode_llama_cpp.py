"""llama.cpp through llama-cpp-python: `PEER_PYTHON decode_llama_cpp.py MODEL.gguf THREADS CONTEXT`."""

from __future__ import annotations

import ctypes
import os
import sys
from importlib import metadata

import llama_cpp
import numpy as np
from peer_protocol import serve

BATCH = 512


class LlamaCpp:
    """Its C interface: the Python class around it keeps all logits and samples in Python.

    `special_layouts`: let it lay weights out for AMX, where it finds that.
    """

    def __init__(self, path: str, threads: int, context: int, special_layouts: bool = True) -> None:
        version = metadata.version("llama-cpp-python")
        self.versions = {"llama-cpp-python": version if special_layouts else f"{version} without AMX"}
        llama_cpp.llama_log_set(_silent, None)
        llama_cpp.llama_backend_init()
        chosen = llama_cpp.llama_model_default_params()
        chosen.use_extra_bufts = special_layouts
        self._model = llama_cpp.llama_model_load_from_file(path.encode(), chosen)
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx, parameters.n_batch, parameters.n_ubatch = context, BATCH, BATCH
        parameters.n_threads = parameters.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, parameters)
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._length = 0

    def start(self, prompt: list[int]) -> None:
        self._clear(0)
        for first in range(0, len(prompt), BATCH):
            self._append(prompt[first : first + BATCH])
        self._logits()

    def rewind(self, length: int) -> None:
        self._clear(length)

    def step(self) -> int:
        token = int(self._logits().argmax())
        self._append([token])
        return token

    def _append(self, tokens: list[int]) -> None:
        ids = (llama_cpp.llama_token * len(tokens))(*tokens)  # the batch does not keep it
        if llama_cpp.llama_decode(self._context, llama_cpp.llama_batch_get_one(ids, len(tokens))):
            raise SystemExit("llama_decode failed")
        self._length += len(tokens)

    def _clear(self, length: int) -> None:
        if not llama_cpp.llama_memory_seq_rm(self._memory, 0, length, -1):
            raise SystemExit("llama.cpp could not rewind")
        self._length = length

    def _logits(self) -> np.ndarray:
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self._context, -1), (self._vocabulary,))


def dies(path: str) -> bool:
    """Whether computing ends the process: some virtual machines name AMX among their instructions and refuse it."""
    child = os.fork()
    if not child:
        LlamaCpp(path, 1, BATCH).start(list(range(64)))
        os._exit(0)
    return os.waitpid(child, 0)[1] != 0


@llama_cpp.llama_log_callback
def _silent(level: int, text: bytes, data: ctypes.c_void_p) -> None:
    del level, text, data


if __name__ == "__main__":
    serve(LlamaCpp(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), special_layouts=not dies(sys.argv[1])))
