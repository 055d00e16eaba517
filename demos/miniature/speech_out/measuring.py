"""How well stage 3 is understood, by an independent listener, at each step from the voice to the speech decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sottovoce.demos.miniature.settings import Workspace
from sottovoce.demos.miniature.tokenizer import prepare
from sottovoce.export.modules.codec import CodecDecoder
from sottovoce.export.modules.speech_decoder import SpeechDecoder
from sottovoce.runtime.errors import SottovoceError

from .acoustic_units import AcousticUnits, UnitSettings
from .codec_training import MINIATURE_CODEC
from .listener import Listener, ListeningReport
from .speech_decoder_training import MINIATURE_SPEECH_DECODER, SpeechDecoderTraining
from .spoken_codes import encode_utterances
from .training_state import load_state
from .voice import SAMPLE_RATE, Utterance, read_shards

_LONGEST_CODES = 400


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


def measure_speech_out(workspace: Workspace, count: int, sounds: Path | None = None) -> SpeechMeasures:
    """Listen to ``count`` held-out replies with the newest states; write the sounds to a folder if one is given."""
    utterances = list(read_shards(workspace.root / "voice" / "replies-held-out"))
    if not utterances:
        raise SottovoceError(
            "there are no held-out replies to listen to",
            file=str(workspace.root / "voice"),
            fix="run: python -m sottovoce.demos.miniature train --stage 3",
        )
    utterances = utterances[:: max(1, len(utterances) // count)][:count]
    codec = _codec(workspace)
    made = {
        "voice": [utterance.samples.astype(np.float32) / 32768 for utterance in utterances],
        "codec": [_decode(codec, codes) for codes in _codes(workspace, utterances)],
    }
    speaker = _speech_decoder(workspace)
    if speaker is not None:
        made["decoder"] = _say(workspace, speaker, codec, [utterance.text for utterance in utterances])
    if sounds is not None:
        _write_sounds(sounds, made)
    listener = Listener()
    texts = [utterance.text for utterance in utterances]
    reports = {kind: listener.judge(zip(texts, spoken, strict=True), SAMPLE_RATE) for kind, spoken in made.items()}
    return SpeechMeasures(reports["voice"], reports["codec"], reports.get("decoder"))


def _codec(workspace: Workspace) -> CodecDecoder:
    state = load_state(workspace.root / "codec" / "state.pt")
    if state is None:
        raise SottovoceError(
            "there is no state of the codec's training",
            file=str(workspace.root / "codec" / "state.pt"),
            fix="run: python -m sottovoce.demos.miniature train --stage 3",
        )
    codec = CodecDecoder(MINIATURE_CODEC)
    codec.load_state_dict(state["decoder"])
    return codec.fold_weight_norm().eval()


def _speech_decoder(workspace: Workspace) -> SpeechDecoder | None:
    state = load_state(workspace.root / "speech_decoder" / "state.pt")
    if state is None or state["step"] <= SpeechDecoderTraining.text_only_steps:
        return None  # it cannot speak yet, and would babble to the limit
    model = SpeechDecoder(MINIATURE_SPEECH_DECODER)
    model.load_state_dict(state["model"])
    return model.eval()


def _codes(workspace: Workspace, utterances: Sequence[Utterance]) -> list[np.ndarray]:
    units = AcousticUnits(UnitSettings())
    saved = load_state(workspace.root / "codec" / "units.pt")
    assert saved is not None  # noqa: S101  # the codec was trained on its codes
    units.load_state_dict(saved["units"])
    return [item.codes for item in encode_utterances(units, utterances)]


@torch.no_grad()
def _decode(codec: CodecDecoder, codes: Sequence[int] | np.ndarray) -> np.ndarray:
    if not len(codes):
        return np.zeros(SAMPLE_RATE // 10, dtype=np.float32)
    samples: np.ndarray = codec(torch.tensor(np.asarray(codes, dtype=np.int64))[None])[0].numpy()
    return samples


@torch.no_grad()
def _say(workspace: Workspace, speaker: SpeechDecoder, codec: CodecDecoder, texts: Sequence[str]) -> list[np.ndarray]:
    tokenizer, table = prepare(workspace), torch.from_numpy(np.load(workspace.embeddings))
    made = []
    for text in texts:
        ids = torch.tensor(tokenizer.encode(text, add_special_tokens=False).ids)
        codes, _ = speaker.greedy(table[ids][None], _LONGEST_CODES)
        made.append(_decode(codec, codes))
    return made


def _write_sounds(folder: Path, made: dict[str, list[np.ndarray]]) -> None:
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    for kind, sounds in made.items():
        for index, samples in enumerate(sounds):
            soundfile.write(folder / f"{index:03d}-{kind}.wav", samples, SAMPLE_RATE)
