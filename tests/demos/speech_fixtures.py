"""Little sounds that stand for a rendered voice."""

from __future__ import annotations

import numpy as np

from sottovoce.demos.miniature.speech_out.voice import Utterance


def noises(count: int = 4) -> list[Utterance]:
    """Sentences of noise, each of its own length."""
    draw = np.random.default_rng(5)
    made = []
    for index in range(count):
        length = 5_000 + 700 * index
        samples = (draw.normal(0, 2_000, length)).astype(np.int16)
        phonemes = np.array([1, 120, 33, 122, 10], dtype=np.int16)
        made.append(Utterance(f"sentence {'abcd'[index % 4]}", samples, phonemes, np.full(5, length / 5, np.float32)))
    return made


def tones(count: int = 4) -> list[Utterance]:
    """Sounds of four tones in different orders, the tone being the phoneme."""
    made = []
    for index in range(count):
        order = np.random.default_rng(index).permutation(4)
        places = np.arange(2_400) / 24_000
        samples = np.concatenate([6_000 * np.sin(2 * np.pi * 300 * 2**tone * places) for tone in order])
        made.append(Utterance("tones", samples.astype(np.int16), (order + 20).astype(np.int16), np.full(4, 2_400.0)))
    return made
