"""The checkpoint's `tokenizer.json`, checked before it is copied into a bundle."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from sottovoce.runtime.errors import CheckpointError

CHATML = ("<|im_start|>", "<|im_end|>")
"""Tokens that the prompt is built with (OpenAI's ChatML, as Qwen2 uses it)."""

MAX_BYTES = 256 << 20


def check_tokenizer(folder: Path, vocab_size: int) -> Path:
    """The tokenizer's path, once it is known to fit the model.

    Args:
        folder: the checkpoint.
        vocab_size: rows of the embedding table; ids must stay below.

    Raises:
        CheckpointError: missing, not a tokenizer, without ChatML's tokens, or with ids beyond the embeddings.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(
            "is missing (vocab.json and merges.txt alone are not read)",
            file=path,
            fix="download it, or write it with transformers: AutoTokenizer.from_pretrained(…).save_pretrained(…)",
        )
    if path.stat().st_size > MAX_BYTES:
        raise CheckpointError(f"has {path.stat().st_size} bytes, expected at most {MAX_BYTES}", file=path)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as problem:  # the library raises bare Exceptions
        raise CheckpointError(f"is not a tokenizer: {problem}", file=path, fix="download this file again") from problem
    missing = [token for token in CHATML if tokenizer.token_to_id(token) is None]
    if missing:
        raise CheckpointError(
            f"has no token {missing[0]!r}, expected ChatML's {' and '.join(CHATML)}",
            file=path,
            fix="take tokenizer.json from the same release as the weights",
        )
    highest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    if highest >= vocab_size:
        raise CheckpointError(
            f"has id {highest}, expected ids below {vocab_size}, the vocab_size of config.json",
            file=path,
            fix="take tokenizer.json from the same release as the weights",
        )
    return path
