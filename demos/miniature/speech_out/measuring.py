"""How well stage 3 is understood by an independent listener: the voice, the codec alone, and text to speech.

Half of what it listens to are replies, half are practice sentences; none was trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sottovoce.demos.miniature.settings import Workspace
from sottovoce.runtime.errors import SottovoceError

from .acoustic_units import AcousticUnits
from .listener import Listener, ListeningReport
from .sound_sources import Samples, SoundSource
from .spoken_codes import encode_utterances
from .stage import SpeechOutRecipe
from .voice import SAMPLE_RATE, Utterance, read_shards

MAKE_VOICE = "run: python -m sottovoce.demos.miniature train --stage 3 --part voice"


@dataclass(frozen=True)
class SpeechMeasures:
    """What the listener heard of the same sentences as the voice said them, through the codec, and from text."""

    voice: ListeningReport
    codec: ListeningReport
    decoder: ListeningReport | None

    def rows(self) -> list[tuple[str, float, float]]:
        """(what, word error rate, the same minus the voice's) for each."""
        base = self.voice.word_error_rate
        named = (("the voice", self.voice), ("codec alone", self.codec), ("text to speech", self.decoder))
        return [(name, r.word_error_rate, r.word_error_rate - base) for name, r in named if r is not None]

    def as_json(self) -> dict[str, Any]:
        """Rates, differences to the voice, and how many sentences and words they come from."""
        rates = {
            name.replace(" ", "_"): {"word_error_rate": rate, "minus_voice": difference}
            for name, rate, difference in self.rows()
        }
        words = sum(item.words for item in self.voice.utterances)
        return {"sentences": len(self.voice.utterances), "words": words, **rates}


def measure_speech_out(
    workspace: Workspace,
    source: SoundSource,
    count: int,
    sounds: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> SpeechMeasures:
    """Listen to ``count`` sentences that were kept out; write the sounds to a folder if one is given.

    Raises:
        SottovoceError: the voice has not said them yet, or its codes are not known.
    """
    utterances = held_out_utterances(workspace, count)
    codes = _codes(workspace, utterances)
    texts = [utterance.text for utterance in utterances]
    made: dict[str, list[Samples]] = {
        "voice": [utterance.samples.astype(np.float32) / np.float32(32768) for utterance in utterances],
        "codec": [source.decode(one) for one in codes],
    }
    if source.can_speak:
        made["decoder"] = [source.say(text) for text in texts]
    if sounds is not None:
        _write_sounds(sounds, made)
    listener = Listener()
    heard: dict[str, ListeningReport] = {}
    for kind, spoken in made.items():
        heard[kind] = listener.judge(zip(texts, spoken, strict=True), SAMPLE_RATE)
        progress(len(heard), len(made))
    return SpeechMeasures(heard["voice"], heard["codec"], heard.get("decoder"))


def held_out_utterances(workspace: Workspace, count: int) -> list[Utterance]:
    """Half replies and half practice sentences, spread evenly over what was kept out.

    Raises:
        SottovoceError: they are not rendered.
    """
    voice = workspace.root / "voice"
    replies = list(read_shards(voice / "replies-held-out"))
    practice = list(read_shards(voice / "practice", first=SpeechOutRecipe.practice))
    if not replies or not practice:
        raise SottovoceError("there are no held-out sentences to listen to", file=str(voice), fix=MAKE_VOICE)
    half = (count + 1) // 2
    return [*_spread(replies, half), *_spread(practice, count - half)]


def _spread(utterances: Sequence[Utterance], count: int) -> list[Utterance]:
    return list(utterances[:: max(1, len(utterances) // max(1, count))][:count])


def _codes(workspace: Workspace, utterances: Sequence[Utterance]) -> list[np.ndarray]:
    path = workspace.root / "codec" / "units.safetensors"
    if not path.exists():
        raise SottovoceError("there are no acoustic units", file=str(path), fix=MAKE_VOICE)
    return [item.codes for item in encode_utterances(AcousticUnits.read(path), utterances)]


def _write_sounds(folder: Path, made: dict[str, list[Samples]]) -> None:
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    for kind, sounds in made.items():
        for index, samples in enumerate(sounds):
            soundfile.write(folder / f"{index:03d}-{kind}.wav", samples, SAMPLE_RATE)
