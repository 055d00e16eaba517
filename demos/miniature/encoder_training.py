"""Stage 2, first part: the audio encoder learns by CTC (Graves et al. 2006), apart from the language model.

First letters, from the encoder's own frames; then also tokens, from the adapter's output, classified by its distance
to the rows of the language model's embedding table: so that what is heard arrives as what would have been read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sottovoce.calibration.edit_distance import edit_distance
from sottovoce.demos.miniature.model import AUDIO, build_audio_encoder, use_bfloat16
from sottovoce.demos.miniature.prompts import PromptWriter
from sottovoce.demos.miniature.speech_batches import LETTERS, Disturbance, SpeechData, collate, letters_of
from sottovoce.demos.miniature.speech_out.training_state import batch_generator, learning_rate
from sottovoce.export.config import AudioEncoderConfig
from sottovoce.export.modules.masks import length_mask


@dataclass(frozen=True)
class EncoderRecipe:
    """How the encoder is trained on letters."""

    growth: tuple[tuple[int, int], ...] = ((0, 4), (500, 18), (1500, 30))
    """From which step on how many shards are drawn from: training may start while the later ones are being made."""
    seed: int = 11
    steps: int = 10_000
    batch_size: int = 16
    peak_rate: float = 1.5e-3
    clean_steps: int = 400
    tokens_from: int = 700
    """From this step on the adapter learns tokens too."""
    token_weight: float = 0.5
    report_every: int = 20
    save_every_seconds: float = 90.0

    def shards_at(self, step: int) -> int:
        """How many shards that step draws from."""
        return max(shards for start, shards in self.growth if step >= start)


def ctc_path(ids: Tensor, blank: int) -> list[int]:
    """The labels of a best path: repeats joined, blanks dropped."""
    joined = torch.unique_consecutive(ids)
    return [int(label) for label in joined if label != blank]


class EncoderTrainer:
    """Encoder, letter head and optimizer."""

    def __init__(
        self,
        recipe: EncoderRecipe,
        data: SpeechData,
        writer: PromptWriter,
        table: NDArray[np.float32],
        config: AudioEncoderConfig = AUDIO,
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.data, self.finished_steps = recipe, data, 0
        self.writer, self.table = writer, torch.from_numpy(table)
        self.encoder = build_audio_encoder(config)
        self.head = nn.Linear(config.attention_size, len(LETTERS) + 1)
        total, squares, frames = data.statistics()
        mean = total / frames
        self.encoder.encoder.global_cmvn.mean.copy_(torch.from_numpy(mean))
        self.encoder.encoder.global_cmvn.istd.copy_(torch.from_numpy((squares / frames - mean**2) ** -0.5))
        use_bfloat16(self.encoder)
        self.weights = [
            *self.encoder.encoder.parameters(), *self.head.parameters(), *self.encoder.adpter.parameters(),
        ]  # fmt: skip
        self.optimizer = torch.optim.AdamW(self.weights, lr=0.0, fused=True, betas=(0.9, 0.98), weight_decay=0.01)

    def step(self) -> Mapping[str, float]:
        """One batch; returns its loss and, now and then, the letter errors on it."""
        dice = batch_generator(self.recipe.seed, self.finished_steps)
        torch.manual_seed(int(dice.integers(1 << 40)))
        self.data.require(self.recipe.shards_at(self.finished_steps))
        spoken = self.data.draw(self.recipe.batch_size, dice)
        how = Disturbance() if self.finished_steps >= self.recipe.clean_steps else None
        features, lengths = collate(spoken, how, dice)
        labels = [letters_of(one.exchange.question) for one in spoken]
        rate = learning_rate(self.finished_steps, self.recipe.steps, self.recipe.peak_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.encoder.train()
        hidden, sizes = self.encoder.encode(features, lengths)
        log_probabilities = self.head(hidden).log_softmax(-1)
        loss = letter_loss(log_probabilities, sizes, labels)
        figures = {"letter_errors": letter_errors(log_probabilities, sizes, labels)}
        if self.finished_steps >= self.recipe.tokens_from:
            embeddings = self.encoder.adpter(hidden, length_mask(sizes, hidden.shape[1]))
            tokens = [
                self.writer.encode(" " + one.exchange.question) if one.exchange.question else () for one in spoken
            ]
            tied = token_loss(embeddings, (sizes + 1) // 2, tokens, self.table, self.writer.blank)
            loss = loss + self.recipe.token_weight * tied
            figures["token_loss"] = float(tied.detach())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, 5.0)
        self.optimizer.step()
        self.finished_steps += 1
        return {"loss": float(loss.detach()), **figures}

    def state(self) -> dict[str, Any]:
        """Everything to go on from here."""
        return {
            "encoder": self.encoder.state_dict(), "head": self.head.state_dict(),
            "optimizer": self.optimizer.state_dict(), "step": self.finished_steps,
        }  # fmt: skip

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.encoder.load_state_dict(state["encoder"])
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.finished_steps = state["step"]


def letter_loss(log_probabilities: Tensor, sizes: Tensor, labels: list[list[int]]) -> Tensor:
    """CTC over a batch, per letter, (B, M, letters + 1) and (B,) frames."""
    flat = torch.tensor([label for row in labels for label in row], dtype=torch.long)
    counts = torch.tensor([len(row) for row in labels])
    losses = F.ctc_loss(log_probabilities.transpose(0, 1), flat, sizes, counts, reduction="none", zero_infinity=True)
    return (losses / counts.clamp(min=4)).mean()


NEARNESS = 0.75
"""Scale of the distances: two rows of the table lie about 32 apart, squared; half of that times this is 12 logits."""


def token_scores(embeddings: Tensor, table: Tensor) -> Tensor:
    """Log-probabilities of tokens by squared distance to their rows, (B, N, d) → (B, N, vocabulary)."""
    closeness = embeddings @ table.T - 0.5 * table.pow(2).sum(1)
    return (NEARNESS * closeness).log_softmax(-1)


def token_loss(embeddings: Tensor, sizes: Tensor, tokens: Sequence[Sequence[int]], table: Tensor, blank: int) -> Tensor:
    """CTC of the adapter's output against the words' tokens, per token; the padding token is the blank."""
    flat = torch.tensor([token for row in tokens for token in row], dtype=torch.long)
    counts = torch.tensor([len(row) for row in tokens])
    scores = token_scores(embeddings, table).transpose(0, 1)
    losses = F.ctc_loss(scores, flat, sizes, counts, blank=blank, reduction="none", zero_infinity=True)
    return (losses / counts.clamp(min=4)).mean()


@torch.no_grad()
def letter_errors(log_probabilities: Tensor, sizes: Tensor, labels: list[list[int]]) -> float:
    """Letter error rate of the best paths."""
    paths = log_probabilities.argmax(-1)
    wrong = sum(
        edit_distance(row, ctc_path(path[:size], 0))
        for row, path, size in zip(labels, paths, sizes.tolist(), strict=True)
    )
    return wrong / max(1, sum(map(len, labels)))
