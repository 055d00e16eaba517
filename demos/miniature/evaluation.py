"""The trained states against a held-out set, in PyTorch: the same table that `sottovoce evaluate` makes of a bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch

from sottovoce.calibration.evaluation_set import read_evaluation_set
from sottovoce.calibration.scores import Outcome, Scores, score
from sottovoce.demos.miniature.learner import Learner
from sottovoce.demos.miniature.lessons import FRONT_END
from sottovoce.demos.miniature.model import VISION, build_audio_encoder
from sottovoce.demos.miniature.pack import newest_states
from sottovoce.demos.miniature.prompts import SYSTEM, Ask, PromptWriter, Row, Sound
from sottovoce.demos.miniature.settings import Workspace
from sottovoce.demos.miniature.speech_in import fbank
from sottovoce.demos.miniature.tokenizer import STATE_NOISE, STATE_SPOKEN, STATE_TYPED, prepare
from sottovoce.export.modules.audio_encoder import AudioEncoder
from sottovoce.runtime.conversation_set.item import EvaluationItem
from sottovoce.runtime.features.images import pixels, read_image, tile_image
from sottovoce.runtime.features.video import read_video
from sottovoce.runtime.manifest import VideoFrontEnd

STATES = (STATE_SPOKEN, STATE_NOISE, STATE_TYPED)
VIDEO = VideoFrontEnd(frames_per_second=1.0, min_frames=4, max_frames=16)


class Examinee:
    """The newest language model, vision encoder and (if there is one) audio encoder of a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self.writer = PromptWriter(prepare(workspace), VISION.tokens_per_tile)
        self.learner = Learner(np.load(workspace.embeddings), self.writer.blank, training=False).eval()
        with_learner, with_encoder = newest_states(workspace)
        self.learner.load_state_dict(with_learner["learner"])
        self.audio: AudioEncoder | None = None
        if with_encoder is not None:
            self.audio = build_audio_encoder().eval()
            self.audio.load_state_dict(with_encoder["encoder"])

    @torch.no_grad()
    def answer(self, item: EvaluationItem, folder: Path) -> Outcome:
        """Greedy reply to one item."""
        images, heard = _pictures(item, folder), None
        content: str | Sound = item.text or ""
        if item.audio is not None:
            heard = self._hear(folder / item.audio)
            content = Sound(len(heard))
        row = self._prompt(item, Ask(content, len(images)))
        tiles = torch.from_numpy(pixels(images, FRONT_END)) if images else torch.zeros(0, 3, 1, 1)
        ids = self.learner.answer([row], tiles, heard, self.writer.end_of_turn)[0]
        return _outcome(item, self.writer.decode(ids))

    def _hear(self, path: Path) -> torch.Tensor:
        samples, _rate = soundfile.read(path, dtype="float32")
        assert self.audio is not None  # noqa: S101  # `examine` leaves spoken items out until there is one
        embeddings, _lengths = self.audio(torch.from_numpy(fbank(samples))[None])
        heard: torch.Tensor = embeddings[0]
        return heard

    def _prompt(self, item: EvaluationItem, ask: Ask) -> Row:
        asked = [turn.text for turn in item.history if turn.role == "user"]
        replies = [turn.text for turn in item.history if turn.role == "assistant"]
        history = [(Ask(question), reply) for question, reply in zip(asked, replies, strict=True)]
        return self.writer.prompt(SYSTEM, history, ask)


def examine(
    workspace: Workspace, folder: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> Scores:
    """Put a whole set to the newest states; spoken items are left out while nothing has learned to listen.

    Raises:
        SottovoceError: no states, or a set that `sottovoce evaluate` would refuse too.
    """
    examinee = Examinee(workspace)
    items = [item for item in read_evaluation_set(folder) if item.audio is None or examinee.audio is not None]
    outcomes: list[Outcome] = []
    for item in items:
        outcomes.append(examinee.answer(item, folder))
        progress(len(outcomes), len(items))
    return score(outcomes)


def _pictures(item: EvaluationItem, folder: Path) -> Sequence:  # type: ignore[type-arg]  # of Pillow images
    if item.video is not None:
        return read_video(folder / item.video, VIDEO)
    return [tile for name in item.images for tile in tile_image(read_image(folder / name), FRONT_END)]


def _outcome(item: EvaluationItem, text: str) -> Outcome:
    state = text[0] if text[:1] in STATES else None
    return Outcome(item, text[1:] if state else text, state)
