"""A byte-level BPE tokenizer of short pieces, in the files of Qwen2's.

Pieces are at most four bytes: the speech decoder reads one frame a piece, and short ones are seen in many words, so
that it can say words it never met (and the language model can copy them). Only the framing of a prompt, which is
never spoken, gets whole words.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from sottovoce.demos.miniature.curriculum import questions
from sottovoce.demos.miniature.followups import followups
from sottovoce.demos.miniature.sentences import overheard, say_after_me
from sottovoce.demos.miniature.settings import Workspace

LEARNED_SIZE = 480
MAX_PIECE_BYTES = 4
EMBEDDING_WIDTH = 256
EMBEDDING_SCALE = 0.25
EMBEDDING_SEED = 20

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt",
)  # fmt: skip
END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END)
STATE_SPOKEN, STATE_NOISE, STATE_TYPED = "☞", "☟", "☜"

FRAMING = (
    "system",
    "user",
    "assistant",
    "You",
    " are",
    " helpful",
    " assistant",
    STATE_SPOKEN,
    STATE_NOISE,
    STATE_TYPED,
)
"""Texts that become one token each, though they are longer than a piece."""

# Qwen2's split: contractions, letters with at most one sign in front, single digits, signs, line ends, blanks.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def corpus() -> Iterable[str]:
    """What pieces are learned from: questions and replies, each word about as often as it is said."""
    for exchange in questions():
        yield " " + exchange.question
        yield exchange.reply
        yield " " + exchange.reply.lower()
    for stream in (followups(1), say_after_me(1), overheard(1)):
        for exchange in islice(stream, 1500):
            yield " " + exchange.question
            yield exchange.reply


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _merge_whole(text: str, vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> None:
    """Add the merges that make `text` one token, left to right, after all that were learned."""
    scratch = Tokenizer(models.BPE(vocab=dict(vocabulary), merges=list(merges)))
    scratch.pre_tokenizer = _pre_tokenizer()
    pieces = scratch.encode(text, add_special_tokens=False).tokens
    while len(pieces) > 1:
        merges.append((pieces[0], pieces[1]))
        joined = pieces[0] + pieces[1]
        vocabulary.setdefault(joined, len(vocabulary))
        pieces = [joined, *pieces[2:]]


def train_tokenizer() -> Tokenizer:
    """Learn the pieces and add the framing; the same corpus gives the same tokenizer."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = _pre_tokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=LEARNED_SIZE,
        max_token_length=MAX_PIECE_BYTES,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator(corpus(), trainer)
    model = json.loads(learner.to_str())["model"]
    vocabulary: dict[str, int] = model["vocab"]
    merges = [(left, right) for left, right in model["merges"]]
    for text in FRAMING:
        _merge_whole(text, vocabulary, merges)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = _pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write `tokenizer.json`, `vocab.json`, `merges.txt` and Qwen2's two small configuration files."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))
    added = {
        str(tokenizer.token_to_id(token)): {
            "content": token, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
            "special": True,
        }
        for token in SPECIAL_TOKENS
    }  # fmt: skip
    config = {
        "add_prefix_space": False, "added_tokens_decoder": added, "additional_special_tokens": [TURN_START, TURN_END],
        "bos_token": None, "clean_up_tokenization_spaces": False, "eos_token": TURN_END, "errors": "replace",
        "model_max_length": 1024, "pad_token": END_OF_TEXT, "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer", "unk_token": None,
    }  # fmt: skip
    special = {"additional_special_tokens": [TURN_START, TURN_END], "eos_token": TURN_END, "pad_token": END_OF_TEXT}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")


def draw_embeddings(vocabulary_size: int) -> NDArray[np.float32]:
    """The token embedding table, (vocabulary, 256): drawn once from a seed and kept frozen by every training.

    Language model and speech decoder share it and are trained apart, so neither may move it. Rows of a wide normal
    draw are nearly orthogonal, which is what both need: tokens that are easy to tell apart.
    """
    draw = np.random.default_rng(EMBEDDING_SEED)
    return draw.normal(0.0, EMBEDDING_SCALE, (vocabulary_size, EMBEDDING_WIDTH)).astype(np.float16).astype(np.float32)


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of a token that must be there."""
    found: int | None = tokenizer.token_to_id(token)
    if found is None:
        raise KeyError(token)
    return found


def prepare(workspace: Workspace) -> Tokenizer:
    """Load the workspace's tokenizer, making it and the embedding table first when they are not there."""
    path = workspace.tokenizer / "tokenizer.json"
    if not path.exists():
        tokenizer = train_tokenizer()
        save_tokenizer(tokenizer, workspace.tokenizer)
    tokenizer = Tokenizer.from_file(str(path))
    if not workspace.embeddings.exists():
        np.save(workspace.embeddings, draw_embeddings(tokenizer.get_vocab_size()))
    return tokenizer
