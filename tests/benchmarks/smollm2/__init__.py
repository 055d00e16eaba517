"""SmolLM2-135M-Instruct as a language model stage: real trained weights for what is measured of quantization."""

from __future__ import annotations

from pathlib import Path


def llama_cpp_peer_path() -> Path:
    """The script that a Python with llama-cpp-python runs."""
    return Path(__file__).with_name("llama_cpp_peer.py")
