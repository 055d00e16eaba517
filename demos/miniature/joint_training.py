"""Stage 2, second part: encoder, adapter and language model learn together to answer what is heard.

Typed and stretched text, pictures and clips stay in every step, so that nothing learned before is lost; so do both
CTC losses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sottovoce.demos.miniature.encoder_training import letter_errors, letter_loss, token_loss
from sottovoce.demos.miniature.language_training import teach
from sottovoce.demos.miniature.learner import Learner
from sottovoce.demos.miniature.lessons import Heard, Mixture, Teacher
from sottovoce.demos.miniature.model import AUDIO, build_audio_encoder, use_bfloat16
from sottovoce.demos.miniature.prompts import PromptWriter
from sottovoce.demos.miniature.speech_batches import LETTERS, Disturbance, SpeechData, collate, letters_of
from sottovoce.demos.miniature.speech_in import Spoken
from sottovoce.demos.miniature.speech_out.training_state import batch_generator, learning_rate, segment_at
from sottovoce.export.modules.masks import length_mask


@dataclass(frozen=True)
class Segment:
    """A part of the training whose rate rises to `peak_rate` and falls to nearly nothing."""

    steps: int
    peak_rate: float
    heard: int = 20
    """Utterances a step."""
    rehearse_every: int = 1
    """Every so many steps what is not heard is rehearsed, too: it is known by heart after the first segments."""


@dataclass(frozen=True)
class JointRecipe:
    """How the two are joined."""

    shards: int = 70
    seed: int = 13
    segments: tuple[Segment, ...] = (
        Segment(10_500, 6e-4),
        Segment(1_200, 2e-4),
        Segment(1_400, 5e-4, heard=32, rehearse_every=3),
    )
    """From a packed checkpoint, only the last is gone through.

    What is packed is the mean of the weights at the segments' ends, which answers more than the last of them does
    (Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization, 2018).
    """
    visual_every: int = 4
    """Every so many steps all that is heard is about pictures and clips."""
    letter_weight: float = 0.15
    token_weight: float = 0.3
    mixture: Mixture = field(
        default_factory=lambda: Mixture(typed=14, stretched=4, pictures=18, drills=18, clips=8, noises=0)
    )
    report_every: int = 20
    save_every_seconds: float = 90.0

    @property
    def steps(self) -> int:
        """Of all segments."""
        return sum(segment.steps for segment in self.segments)

    @property
    def segment_ends(self) -> list[int]:
        """After how many steps each segment is over."""
        return list(accumulate(segment.steps for segment in self.segments))

    def at(self, step: int) -> tuple[Segment, float]:
        """The segment of a step (the last one's after its end), and the learning rate."""
        number, done = segment_at(step, [segment.steps for segment in self.segments])
        segment = self.segments[number]
        return segment, learning_rate(done, segment.steps, segment.peak_rate, decay_share=0.7)


class JointTrainer:
    """All that hears, sees and answers, with one optimizer."""

    def __init__(self, recipe: JointRecipe, data: SpeechData, writer: PromptWriter, table: NDArray[np.float32]) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.data, self.finished_steps = recipe, data, 0
        self.mean: dict[str, dict[str, Tensor]] | None = None
        tasks = [one.exchange.task for one in data.spoken]
        self.visual = np.array([i for i, task in enumerate(tasks) if task in ("picture", "clip")], dtype=np.int64)
        self.writer, self.table = writer, torch.from_numpy(table)
        self.teacher = Teacher(writer, table)
        self.learner = Learner(table, writer.blank)
        self.audio = build_audio_encoder()
        self.head = nn.Linear(AUDIO.attention_size, len(LETTERS) + 1)
        use_bfloat16(self.audio)
        parts = (self.learner, self.audio, self.head)
        self.weights = [weight for part in parts for weight in part.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(self.weights, lr=0.0, fused=True, betas=(0.9, 0.98), weight_decay=0.02)

    def start_from(self, language: Mapping[str, Any], encoder: Mapping[str, Any]) -> None:
        """Take over what stage 1 and the encoder's own training have learned; a packed encoder has no letter head."""
        self.learner.load_state_dict(language["learner"])
        self.audio.load_state_dict(encoder["encoder"])
        if "head" in encoder:
            self.head.load_state_dict(encoder["head"])

    def begin_last_segment(self) -> None:
        """What has been taken over counts as the mean of the ends of all segments but the last."""
        self.finished_steps = self.recipe.segment_ends[-2]
        self.mean = self._copy_of_weights()

    def step(self) -> Mapping[str, float]:
        """One batch of heard speech and one of everything else."""
        dice = batch_generator(self.recipe.seed, self.finished_steps)
        torch.manual_seed(int(dice.integers(1 << 40)))
        segment, rate = self.recipe.at(self.finished_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        others: dict[str, float] = {}
        if self.finished_steps % segment.rehearse_every == 0:
            others = teach(self.learner, self.teacher.draw(self.recipe.mixture, dice))
            others["rehearsal_loss"] = others.pop("loss")
        among = self.visual if self.finished_steps % self.recipe.visual_every == 0 and len(self.visual) else None
        heard = self._listen(self.data.draw(segment.heard, dice, among), dice)
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.finished_steps += 1
        if self.finished_steps in self.recipe.segment_ends:
            self._take_into_mean(self.recipe.segment_ends.index(self.finished_steps))
        return {**heard, **others}

    def _take_into_mean(self, earlier: int) -> None:
        """The weights as they are now, beside those at the ends of `earlier` segments."""
        now = self._copy_of_weights()
        mean = self.mean if self.mean is not None and earlier else now
        self.mean = {
            part: {name: old + (now[part][name] - old) / (earlier + 1) for name, old in weights.items()}
            for part, weights in mean.items()
        }

    def _copy_of_weights(self) -> dict[str, dict[str, Tensor]]:
        parts = {"learner": self.learner, "encoder": self.audio}
        return {
            part: {name: weight.clone() for name, weight in module.state_dict().items()}
            for part, module in parts.items()
        }

    def _listen(self, spoken: list[Spoken], dice: np.random.Generator) -> dict[str, float]:
        features, lengths = collate(spoken, Disturbance(), dice)
        hidden, sizes = self.audio.encode(features, lengths)
        letters = [letters_of(one.exchange.question) for one in spoken]
        log_probabilities = self.head(hidden).log_softmax(-1)
        embeddings = self.audio.adpter(hidden, length_mask(sizes, hidden.shape[1]))
        counts = (sizes + 1) // 2
        tokens = [self.writer.encode(" " + one.exchange.question) if one.exchange.question else () for one in spoken]
        by_letters = letter_loss(log_probabilities, sizes, letters)
        by_tokens = token_loss(embeddings, counts, tokens, self.table, self.writer.blank)
        reply, right = self._reply(self.teacher.listen(spoken, counts.tolist(), dice), end_to_end(embeddings, counts))
        (reply + self.recipe.letter_weight * by_letters + self.recipe.token_weight * by_tokens).backward()
        return {
            "reply_loss": float(reply.detach()), "token_loss": float(by_tokens.detach()),
            "letter_errors": letter_errors(log_probabilities, sizes, letters), "spoken": right,
        }  # fmt: skip

    def _reply(self, groups: list[Heard], heard: Tensor) -> tuple[Tensor, float]:
        """The loss over all groups, every reply counting the same, and how many rows were right as a whole."""
        total, right, rows = torch.zeros(()), 0, 0
        replies = sum(group.lessons.replies for group in groups)
        for group, part in zip(groups, heard.split([group.embeddings for group in groups]), strict=True):
            lessons = group.lessons
            loss, correct = self.learner.reply_loss(lessons.rows, torch.from_numpy(lessons.pixels), part)
            total = total + loss * (lessons.replies / replies)
            right, rows = right + int(correct.sum()), rows + len(correct)
        return total, right / rows

    def state(self) -> dict[str, Any]:
        """Everything to go on from here."""
        return {
            "learner": self.learner.state_dict(), "encoder": self.audio.state_dict(), "head": self.head.state_dict(),
            "optimizer": self.optimizer.state_dict(), "step": self.finished_steps, "mean": self.mean,
        }  # fmt: skip

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.start_from(state, state)
        self.optimizer.load_state_dict(state["optimizer"])
        self.finished_steps, self.mean = state["step"], state.get("mean")


def end_to_end(embeddings: Tensor, counts: Tensor) -> Tensor:
    """(B, N, d) padded embeddings → (sum of counts, d), the padding cut out."""
    return torch.cat([row[:count] for row, count in zip(embeddings, counts.tolist(), strict=True)])
