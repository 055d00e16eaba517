"""Speech for the audio encoder: shards of log-mel features with what was asked and what is to be answered.

A shard depends on the seed and its number alone, and is written whole or not at all, so that making them can stop and
go on at any time.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sottovoce.demos.miniature import augmentation
from sottovoce.demos.miniature.clips import draw_clip
from sottovoce.demos.miniature.curriculum import Exchange, Turn, questions, small_sums
from sottovoce.demos.miniature.followups import followups
from sottovoce.demos.miniature.pictures import draw_picture, draw_visual_question
from sottovoce.demos.miniature.sentences import overheard, say_after_me
from sottovoce.demos.miniature.voices import SAMPLE_RATE, Voice, draw_training_voice, speak

MEL_BINS = 80
UTTERANCES_A_SHARD = 500
NOISES_A_SHARD = 20

TASK_WEIGHTS = {
    "sums": 12, "numbers": 6, "capitals": 11, "opposites": 8, "colors": 8, "dates": 10, "units": 5, "animals": 5,
    "devices": 9, "timers": 5, "small_talk": 6, "say_after_me": 17, "follow_up": 8, "overheard": 8, "picture": 14,
    "clip": 3,
}  # fmt: skip
"""How often a task is spoken: the small ones far more often than their number of questions would give."""


@dataclass(frozen=True)
class Spoken:
    """One utterance: (frames, 80) features, the exchange it opens, and who said it."""

    features: NDArray[np.float16]
    exchange: Exchange
    voice: str


def fbank(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Kaldi's compute-fbank-feats at its defaults with 80 bins and no dither, of samples at 16 kHz within ±1."""
    import kaldi_native_fbank

    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = SAMPLE_RATE
    options.frame_opts.dither = 0.0
    options.frame_opts.snip_edges = True
    options.mel_opts.num_bins = MEL_BINS
    computer = kaldi_native_fbank.OnlineFbank(options)
    computer.accept_waveform(SAMPLE_RATE, samples * 32768.0)
    computer.input_finished()
    return np.array([computer.get_frame(i) for i in range(computer.num_frames_ready)], dtype=np.float32)


def draw_exchanges(seed: int, held_out: bool, visual: bool = True) -> Iterator[Exchange]:
    """An endless stream of exchanges, tasks by their weights, on one side of the hold-out.

    The visual ones have no reply: they are questions to be put to a picture that is drawn when it is needed.
    """
    draw = random.Random(seed)
    streams = {"say_after_me": say_after_me(seed), "follow_up": followups(seed), "overheard": overheard(seed)}
    by_task: dict[str, list[Exchange]] = {}
    for exchange in questions():
        if exchange.held_out == held_out:
            by_task.setdefault(exchange.task, []).append(exchange)
    small = small_sums()
    first_tried = [exchange for exchange in by_task["sums"] if exchange.question in small]
    drawn = ("picture", "clip") if visual else ()
    tasks = [task for task in TASK_WEIGHTS if task in by_task or task in streams or task in drawn]
    weights = [TASK_WEIGHTS[task] for task in tasks]
    while True:
        task = draw.choices(tasks, weights)[0]
        if task in streams:
            yield next(exchange for exchange in streams[task] if exchange.held_out == held_out)
        elif task == "picture":
            asked = draw_visual_question(draw, draw_picture(draw, held_out, 16))
            yield Exchange(asked.question, "", "picture", held_out)
        elif task == "clip":
            asked = draw.choice(draw_clip(draw, held_out, 16).questions)
            yield Exchange(asked.question, "", "clip", held_out)
        elif task == "sums" and draw.random() < 0.5:
            yield draw.choice(first_tried)
        else:
            yield draw.choice(by_task[task])


def _say_all(exchanges: Sequence[Exchange], voices: Sequence[Voice], seed: int) -> list[NDArray[np.float32]]:
    """Grouped by voice, since some synthesizers take long to start."""
    said: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(exchanges)
    for voice in dict.fromkeys(voices):
        places = [i for i, other in enumerate(voices) if other == voice]
        draw = random.Random(f"{seed} {voice.label}")
        for place, samples in zip(places, speak(voice, [exchanges[i].question for i in places], draw), strict=True):
            said[place] = samples
    return said


def make_shard(seed: int, number: int, size: int = UTTERANCES_A_SHARD, noises: int = NOISES_A_SHARD) -> list[Spoken]:
    """Speak, disturb and analyze one shard."""
    draw = random.Random(f"shard {seed} {number}")
    stream = draw_exchanges(draw.randrange(1 << 40), held_out=False)
    exchanges = [next(stream) for _ in range(size)]
    voices = [draw_training_voice(draw) for _ in range(size)]
    said = _say_all(exchanges, voices, draw.randrange(1 << 40))
    shaken = np.random.default_rng(draw.randrange(1 << 40))
    spoken = []
    for exchange, voice, samples in zip(exchanges, voices, said, strict=True):
        features = fbank(augmentation.disturb(samples, shaken, said[:20]))
        spoken.append(Spoken(features.astype(np.float16), exchange, voice.label))
    for _ in range(noises):
        features = fbank(augmentation.disturbance(shaken))
        spoken.append(Spoken(features.astype(np.float16), Exchange("", "", "noise", False), "noise"))
    return spoken


def write_shard(path: Path, spoken: Sequence[Spoken]) -> None:
    """One npz file of all features end to end and a JSON record an utterance, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    records = [json.dumps({"voice": one.voice, **asdict(one.exchange)}) for one in spoken]
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, features=np.concatenate([one.features for one in spoken]),
             ends=np.cumsum([len(one.features) for one in spoken]), records=np.array(records))  # fmt: skip
    os.replace(partial, path)


def read_shard(path: Path) -> list[Spoken]:
    """All utterances of a shard."""
    with np.load(path, allow_pickle=False) as shard:
        pieces = np.split(shard["features"], shard["ends"][:-1])
        return [
            _spoken(features, json.loads(str(record)))
            for features, record in zip(pieces, shard["records"], strict=True)
        ]


def _spoken(features: NDArray[np.float16], record: dict[str, Any]) -> Spoken:
    history = tuple(Turn(turn["question"], turn["reply"]) for turn in record["history"])
    exchange = Exchange(record["question"], record["reply"], record["task"], record["held_out"], history)
    return Spoken(features, exchange, record["voice"])


def shard_path(folder: Path, number: int) -> Path:
    """Where a shard lies."""
    return folder / f"shard-{number:04d}.npz"


def make_speech(folder: Path, shards: int, seed: int) -> Iterator[int]:
    """Write the shards that are not there yet, yielding each number as it is done."""
    for number in range(shards):
        path = shard_path(folder, number)
        if not path.exists():
            write_shard(path, make_shard(seed, number))
        yield number
