"""Stage 3, first half: the codec learns the voice, 40 codes of 1,024 a second.

Encoder, quantizer and generator are trained together on short cuts of the voice, by spectra alone (no discriminator),
plus a hint: the quantized rows must tell which phoneme is spoken, so that the few bits go first to what listeners
need. At the end the encoder is dropped; :func:`packed_codec` gives the checkpoint's ``final.pt`` and ``model.json``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sottovoce.export.config import CodecConfig
from sottovoce.export.modules.codec import CodecDecoder

from .codec_encoder import SAMPLES_PER_CODE, CodeEncoder, CodeEncoderConfig
from .spectral_loss import SpectralLoss
from .training_state import batch_generator, learning_rate, load_state, run_training
from .voice import Utterance
from .voice_stream import VoiceStream

MINIATURE_CODEC = CodecConfig(
    num_codes=1024,
    upsample_rates=(5, 5, 4, 6),
    upsample_kernel_sizes=(11, 11, 8, 12),
    upsample_initial_channel=256,
    resblock_kind="2",
    resblock_kernel_sizes=(3, 7),
    resblock_dilation_sizes=((1, 3), (1, 3)),
    global_tokens=(0,) * 8,
)


@dataclass(frozen=True)
class CodecTraining:
    """Recipe of the codec: lengths are in codes (1/40 s), learning rates Adam's."""

    steps: int = 5_500
    batch_size: int = 6
    segment_codes: int = 28
    context_codes: int = 8
    peak_learning_rate: float = 1.5e-3
    decay_share: float = 0.25
    phoneme_weight: float = 0.15
    gradient_limit: float = 5.0
    seed: int = 0
    save_every_seconds: float = 180.0
    report_every: int = 50
    low_precision: bool = True
    codec: CodecConfig = MINIATURE_CODEC
    encoder: CodeEncoderConfig = field(default_factory=CodeEncoderConfig)


class CodecTrainer:
    """Encoder, generator and optimizer; one :meth:`step` a batch."""

    def __init__(self, recipe: CodecTraining) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.encoder = CodeEncoder(recipe.encoder)
        self.decoder = CodecDecoder(recipe.codec)
        for table in self.decoder.quantizer.quantizer_modules_globaltokens:
            nn.init.zeros_(table.embedding.weight)  # type: ignore[union-attr,arg-type]  # one voice: learned from nothing
        self.loss = SpectralLoss()
        self.parameters = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, betas=(0.8, 0.98), weight_decay=0.01)
        self.finished_steps = 0

    def step(self, stream: VoiceStream) -> dict[str, float]:
        """One update on a batch that depends on the step's number alone."""
        recipe = self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(
                self.finished_steps, recipe.steps, recipe.peak_learning_rate, decay_share=recipe.decay_share
            )
        draw = batch_generator(recipe.seed, self.finished_steps)
        context = recipe.context_codes
        cuts, starts = stream.segments(draw, recipe.batch_size, (recipe.segment_codes + 2 * context) * SAMPLES_PER_CODE)
        centres = starts[:, None] + (context + np.arange(recipe.segment_codes) + 0.5) * SAMPLES_PER_CODE
        losses = self._losses(torch.from_numpy(cuts), torch.from_numpy(stream.phonemes_at(centres)))
        total = (
            losses["mel"]
            + 0.5 * losses["magnitude"]
            + 0.5 * losses["convergence"]
            + recipe.phoneme_weight * losses["phoneme"]
        )
        self.optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters, recipe.gradient_limit)
        self.optimizer.step()
        self.finished_steps += 1
        return {name: float(value.detach()) for name, value in losses.items()}

    def _losses(self, sound: Tensor, phonemes: Tensor) -> dict[str, Tensor]:
        context = self.recipe.context_codes
        inner = slice(context * SAMPLES_PER_CODE, sound.shape[1] - context * SAMPLES_PER_CODE)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.low_precision):
            rows = self.encoder.rows(sound)[:, context:-context].transpose(1, 2)
            phoneme_logits = self.encoder.phoneme_head(rows)
            made = self.decoder.generate(rows)
        losses = self.loss(made.float(), sound[:, inner])
        losses["phoneme"] = nn.functional.cross_entropy(phoneme_logits.float(), phonemes)
        return losses

    def state(self) -> dict[str, Any]:
        """All that a later :meth:`resume` needs; loads with ``weights_only=True``."""
        return {
            "step": self.finished_steps,
            "recipe": json.dumps(asdict(self.recipe)),
            "encoder": self.encoder.state_dict(),
            "decoder": self.decoder.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self.encoder.load_state_dict(state["encoder"])
        self.decoder.load_state_dict(state["decoder"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.finished_steps = int(state["step"])


def train_codec(utterances: Sequence[Utterance], folder: Path, recipe: CodecTraining | None = None) -> CodecTrainer:
    """Train to the recipe's last step, going on from ``folder/state.pt`` if it is there; curves go to the folder."""
    trainer = CodecTrainer(recipe or CodecTraining())
    saved = load_state(folder / "state.pt")
    if saved is not None:
        trainer.resume(saved)
    stream = VoiceStream(utterances)
    run_training(trainer, lambda: trainer.step(stream), folder, "codec")
    return trainer
