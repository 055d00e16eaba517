"""onnxruntime-genai, on a model its own builder wrote.

PEER_PYTHON decode_genai.py build HUGGING_FACE_FOLDER OUTPUT
PEER_PYTHON decode_genai.py serve MODEL THREADS CONTEXT

The package asks for onnxruntime alone. Its builder imports more, which have to be installed beside it: onnx, onnx-ir,
torch and transformers.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import onnxruntime_genai as og
from peer_protocol import serve


def build(source: Path, output: Path) -> None:
    """Four bits in blocks of 32, as its builder does it unless told otherwise."""
    arguments = {"-i": source, "-o": output, "-p": "int4", "-e": "cpu", "-c": output / "cache"}
    flat = [str(part) for pair in arguments.items() for part in pair]
    done = subprocess.run([sys.executable, "-m", "onnxruntime_genai.models.builder", *flat], check=False)
    if done.returncode:
        sys.exit(done.returncode)  # what the builder said last is the reason: an exception would stand behind it


class GenAI:
    """A generator."""

    def __init__(self, folder: Path, threads: int, context: int) -> None:
        self.versions = {name: metadata.version(name) for name in ("onnxruntime-genai", "onnxruntime")}
        path = folder / "genai_config.json"
        settings = json.loads(path.read_text())
        settings["model"]["decoder"]["session_options"]["intra_op_num_threads"] = threads
        path.write_text(json.dumps(settings, indent=1))
        self._model = og.Model(str(folder))
        self._context = context

    def start(self, prompt: list[int]) -> None:
        parameters = og.GeneratorParams(self._model)
        parameters.set_search_options(max_length=self._context, do_sample=False)
        self._generator = og.Generator(self._model, parameters)
        self._generator.append_tokens(prompt)
        self._prompt = prompt

    def rewind(self, length: int) -> None:
        """It wants something to append before it goes on."""
        self._generator.rewind_to(length - 1)
        self._generator.append_tokens([self._prompt[length - 1]])

    def step(self) -> int:
        self._generator.generate_next_token()
        return int(self._generator.get_next_tokens()[0])


if __name__ == "__main__":
    if sys.argv[1] == "build":
        build(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        serve(GenAI(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
