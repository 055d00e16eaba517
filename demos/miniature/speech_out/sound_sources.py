"""Who makes the sounds that are listened to: the newest training states in PyTorch, or an exported bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from sottovoce.demos.miniature.settings import Workspace
from sottovoce.demos.miniature.tokenizer import prepare
from sottovoce.export.modules.codec import CodecDecoder
from sottovoce.export.modules.speech_decoder import SpeechDecoder
from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.errors import SottovoceError
from sottovoce.runtime.model import Model
from sottovoce.runtime.reply import AudioChunk

from .codec_training import MINIATURE_CODEC
from .speech_decoder_training import MINIATURE_SPEECH_DECODER, SpeechDecoderTraining
from .training_state import load_state
from .voice import SAMPLE_RATE

Samples = npt.NDArray[np.float32]
_LONGEST_CODES = 400
_SILENCE = np.zeros(SAMPLE_RATE // 10, dtype=np.float32)


class SoundSource(Protocol):
    """Codes to (n,) samples at 24 kHz, and text to samples if it ``can_speak``."""

    can_speak: bool

    def decode(self, codes: np.ndarray) -> Samples:
        """The codec alone."""
        ...

    def say(self, text: str) -> Samples:
        """The whole way from text."""
        ...


class TrainingStates:
    """What stage 3 has learned so far; it cannot speak before the speech decoder has begun to learn that.

    Raises:
        SottovoceError: no codec has been trained.
    """

    def __init__(self, workspace: Workspace) -> None:
        path = workspace.root / "codec" / "state.pt"
        state = load_state(path)
        if state is None:
            raise SottovoceError("there is no state of the codec's training", file=str(path),
                                 fix="run: python -m sottovoce.demos.miniature train --stage 3")  # fmt: skip
        codec = CodecDecoder(MINIATURE_CODEC)
        codec.load_state_dict(state["decoder"])
        self._codec = codec.fold_weight_norm().eval()
        self._speaker = _speech_decoder(workspace)
        self.can_speak = self._speaker is not None
        self._tokenizer, self._table = prepare(workspace), torch.from_numpy(np.load(workspace.embeddings))

    @torch.no_grad()
    def decode(self, codes: Sequence[int] | np.ndarray) -> Samples:
        """The generator on (n,) codes."""
        if not len(codes):
            return _SILENCE
        samples: Samples = self._codec(torch.tensor(np.asarray(codes, dtype=np.int64))[None])[0].numpy()
        return samples

    @torch.no_grad()
    def say(self, text: str) -> Samples:
        """Greedy codes of a whole piece, decoded at once."""
        assert self._speaker is not None  # noqa: S101  # `can_speak` says so
        ids = torch.tensor(self._tokenizer.encode(text, add_special_tokens=False).ids)
        codes, _ = self._speaker.greedy(self._table[ids][None], _LONGEST_CODES)
        return self.decode(codes)


class ExportedBundle:
    """A bundle, as people hear it: spoken in streamed pieces. A context manager.

    Raises:
        BundleError: not a bundle.
    """

    can_speak = True

    def __init__(self, path: Path) -> None:
        self._model = Model(Bundle.open(path))
        self._assistant = Assistant(self._model)

    def __enter__(self) -> ExportedBundle:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._assistant.close()

    def decode(self, codes: np.ndarray) -> Samples:
        """The bundle's codec on (n,) codes."""
        return self._model.codec([int(code) for code in codes]) if len(codes) else _SILENCE

    def say(self, text: str) -> Samples:
        """What ``say`` gives out, greedily."""
        events = self._assistant.say(text, greedy=True)
        chunks = [event.samples for event in events if isinstance(event, AudioChunk)]
        return np.concatenate(chunks) if chunks else _SILENCE


def _speech_decoder(workspace: Workspace) -> SpeechDecoder | None:
    state = load_state(workspace.root / "speech_decoder" / "state.pt")
    if state is None or state["step"] <= SpeechDecoderTraining.text_only_steps:
        return None  # it cannot speak yet, and would babble to the limit
    model = SpeechDecoder(MINIATURE_SPEECH_DECODER)
    model.load_state_dict(state["model"])
    return model.eval()
