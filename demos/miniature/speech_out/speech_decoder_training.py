"""Stage 3, second half: the speech decoder learns to say text in the codec's codes.

Teacher forcing on the language model's frozen input embeddings, with some input codes replaced at random, and two
hints that only training sees: what the text part makes of a sentence must spell its phonemes (learned first, see
:mod:`.pronunciation`), and after the last but one layer the code part must know which phoneme it is speaking. That is
what they have to find out from the text anyway; knowing the answer they find out from far fewer sentences.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sottovoce.export.config import SpeechDecoderConfig
from sottovoce.export.modules.speech_decoder import SpeechDecoder

from .phoneme_listener import PHONEMES
from .pronunciation import SLOTS_A_TOKEN, PronunciationBatch, PronunciationCorpus, pronunciation_loss
from .reading_place import ReadingHead
from .speech_batches import IGNORED, BatchRecipe, SpeechBatch, SpeechCorpus
from .training_state import learning_rate, resume_from, run_training

MINIATURE_SPEECH_DECODER = SpeechDecoderConfig(
    hidden_size=256, num_heads=4, intermediate_size=256, num_code_layers=4, num_codes=1024, dropout=0.05
)
_EMBEDDING_SCALE = 0.25
_READING_LAYER = 1


@dataclass(frozen=True)
class SpeechDecoderTraining:
    """Recipe of the speech decoder; in the first ``text_only_steps`` of all steps only pronunciation is learned."""

    steps: int = 6_300
    text_only_steps: int = 600
    pronunciation_batch: int = 64
    pronunciation_weight: float = 0.1
    peak_learning_rate: float = 1.5e-3
    decay_share: float = 0.5
    weight_decay: float = 0.05
    phoneme_weight: float = 0.3
    place_weight: float = 0.2
    gradient_limit: float = 1.0
    seed: int = 0
    save_every_seconds: float = 180.0
    report_every: int = 25
    low_precision: bool = False
    batches: BatchRecipe = field(default_factory=BatchRecipe)
    model: SpeechDecoderConfig = MINIATURE_SPEECH_DECODER


class SpeechDecoderTrainer:
    """Speech decoder, phoneme head and optimizer; one :meth:`step` a batch.

    Args:
        recipe: sizes and schedule.
        text_embeddings: (vocabulary, hidden_size) the language model's input embeddings, not trained here.
        codebook: (codes, width) the codec's rows: codes that sound alike start with embeddings that are alike.
    """

    def __init__(self, recipe: SpeechDecoderTraining, text_embeddings: Tensor, codebook: Tensor | None = None) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.text_embeddings = text_embeddings
        self.model = SpeechDecoder(recipe.model)
        nn.init.normal_(self.model.embedding.weight, std=_EMBEDDING_SCALE)
        if codebook is not None:
            self._start_from(codebook)
        self.phoneme_head = nn.Linear(recipe.model.hidden_size, PHONEMES)
        self.pronunciation_head = nn.Linear(recipe.model.hidden_size, SLOTS_A_TOKEN * PHONEMES)
        heads = [*self.phoneme_head.parameters(), *self.pronunciation_head.parameters()]
        self.parameters = [*self.model.parameters(), *heads]
        decayed = [parameter for parameter in self.parameters if parameter.dim() == 2]
        plain = [parameter for parameter in self.parameters if parameter.dim() != 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            betas=(0.9, 0.98),
        )
        self.finished_steps = 0
        self._middle: Tensor | None = None
        self.model.layers[-2].register_forward_hook(self._keep_middle)
        self._reading = ReadingHead(self.model.layers[_READING_LAYER].self_attn)  # type: ignore[arg-type]

    def step(self, corpus: SpeechCorpus, pronunciation: PronunciationCorpus) -> dict[str, float]:
        """One update on the two corpora's batches of this step."""
        recipe = self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        torch.manual_seed(recipe.seed * 1_000_003 + self.finished_steps)  # dropout's dice, the same after a resume
        self.model.train()
        speech_step = self.finished_steps - recipe.text_only_steps
        size = recipe.pronunciation_batch if speech_step < 0 else recipe.pronunciation_batch // 4
        losses = {"pronunciation": self.pronunciation_loss(pronunciation.batch(self.finished_steps, size))}
        total = losses["pronunciation"] * (recipe.pronunciation_weight if speech_step >= 0 else 1.0)
        if speech_step >= 0:
            batch = corpus.batch(speech_step)
            losses |= self.losses(batch)
            losses["place"] = self._reading.loss(batch.token_words, batch.code_words)
            total = total + losses["code"] + recipe.phoneme_weight * losses["phoneme"]
            total = total + recipe.place_weight * losses["place"]
        self.optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters, recipe.gradient_limit)
        self.optimizer.step()
        self.finished_steps += 1
        return {name: float(value.detach()) for name, value in losses.items()}

    def pronunciation_loss(self, batch: PronunciationBatch) -> Tensor:
        """How badly the text part spells the phonemes of a batch."""
        return pronunciation_loss(self.pronunciation_logits(batch), batch)

    def pronunciation_logits(self, batch: PronunciationBatch) -> Tensor:
        """(B, L, slots · phonemes)."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.low_precision):
            conditioned = self.model.condition(self.text_embeddings[batch.text_ids], batch.text_lengths)
            logits: Tensor = self.pronunciation_head(conditioned)
        return logits

    def losses(self, batch: SpeechBatch) -> dict[str, Tensor]:
        """Cross-entropies of codes (end included) and phonemes, and the share of codes guessed right."""
        frames = self.text_embeddings[batch.text_ids]
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.low_precision):
            logits = self.model(frames, batch.text_lengths, batch.codes, batch.code_lengths)
            assert self._middle is not None  # noqa: S101  # set by the hook in the call above
            phoneme_logits = self.phoneme_head(self._middle[:, -logits.shape[1] :])
        logits, targets = logits.float().flatten(0, 1), batch.targets.flatten()
        real = targets != IGNORED
        return {
            "code": nn.functional.cross_entropy(logits, targets, ignore_index=IGNORED),
            "phoneme": nn.functional.cross_entropy(
                phoneme_logits.float().flatten(0, 1), batch.phonemes.flatten(), ignore_index=IGNORED
            ),
            "accuracy": (logits.argmax(-1) == targets)[real].float().mean(),
        }

    @torch.no_grad()
    def evaluate(self, batches: Sequence[SpeechBatch]) -> dict[str, float]:
        """Mean losses on held-out batches, without dropout."""
        self.model.eval()
        rows = [{name: float(value) for name, value in self.losses(batch).items()} for batch in batches]
        return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}

    def state(self) -> dict[str, Any]:
        """All that a later :meth:`resume` needs; loads with ``weights_only=True``."""
        return {
            "step": self.finished_steps,
            "recipe": json.dumps(asdict(self.recipe)),
            "model": self.model.state_dict(),
            "phoneme_head": self.phoneme_head.state_dict(),
            "pronunciation_head": self.pronunciation_head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self.model.load_state_dict(state["model"])
        self.phoneme_head.load_state_dict(state["phoneme_head"])
        self.pronunciation_head.load_state_dict(state["pronunciation_head"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.finished_steps = int(state["step"])

    def _learning_rate(self) -> float:
        """Warmed up twice: for the text part at the start, for the code part when speech begins."""
        recipe, step = self.recipe, self.finished_steps
        rate = learning_rate(step, recipe.steps, recipe.peak_learning_rate, 100, recipe.decay_share)
        since_speech = step - recipe.text_only_steps
        return rate * min(1.0, (since_speech + 1) / 200) if since_speech >= 0 else rate

    def _keep_middle(self, _layer: nn.Module, _inputs: Any, hidden: Tensor) -> None:
        self._middle = hidden

    @torch.no_grad()
    def _start_from(self, codebook: Tensor) -> None:
        centred = codebook - codebook.mean(0)
        projected = centred @ torch.randn(codebook.shape[1], self.recipe.model.hidden_size)
        projected = projected / projected.std()
        codes = self.recipe.model.num_codes
        self.model.embedding.weight[:codes] = (
            0.7 * self.model.embedding.weight[:codes] + 0.7 * _EMBEDDING_SCALE * projected
        )
        self.model.out_fnn.weight[:codes] = 0.7 * self.model.out_fnn.weight[:codes] + 0.02 * projected


def train_speech_decoder(
    trainer: SpeechDecoderTrainer,
    training: SpeechCorpus,
    pronunciation: PronunciationCorpus,
    held_out: SpeechCorpus,
    folder: Path,
) -> None:
    """Train to the recipe's last step, going on from ``folder/state.pt`` if it is there; ``held_out`` only measures."""
    resume_from(folder, trainer)
    unheard_batches = [held_out.batch(step) for step in range(held_out.batches_in_a_pass)]

    def step() -> dict[str, float]:
        figures = trainer.step(training, pronunciation)
        if "code" in figures and trainer.finished_steps % trainer.recipe.report_every == 0:
            count = trainer.recipe.report_every  # the loop takes means over that many steps; this is measured once
            figures |= {f"unheard_{name}": value * count for name, value in trainer.evaluate(unheard_batches).items()}
        return figures

    run_training(trainer, step, folder, "speech decoder")
