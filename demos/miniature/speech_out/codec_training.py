"""Stage 3, first half: the codec's generator learns to speak the voice from its codes, 40 a second out of 1,024.

The codes come from :mod:`.acoustic_units` and stay as they are, so the speech decoder can train on them at the same
time. What learns is the generator and a row of 512 numbers a code, on short cuts of the voice, by spectra, and by the
features that the codes were found with: some of these tell phonemes apart, and that is what a listener needs. There is
no discriminator.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sottovoce.export.config import CodecConfig
from sottovoce.export.modules.codec import CodecDecoder

from .acoustic_units import SAMPLES_PER_CODE, AcousticUnits, whole_codes
from .spectral_loss import SpectralLoss
from .spoken_codes import SpokenText
from .training_state import batch_generator, learning_rate, resume_from, run_training, segment_at
from .voice import Utterance

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
    """Recipe of the generator; a segment is that many codes (1/40 s)."""

    segments: tuple[tuple[int, float], ...] = ((10_000, 1.5e-3), (8_000, 7e-4), (4_500, 1e-3))
    """Steps and peak rate of each; from a packed checkpoint, only the last is gone through."""
    batch_size: int = 6
    segment_codes: int = 28
    decay_share: float = 0.5
    feature_weight: float = 2.0
    gradient_limit: float = 5.0
    seed: int = 0
    save_every_seconds: float = 180.0
    report_every: int = 50
    low_precision: bool = True
    codec: CodecConfig = MINIATURE_CODEC

    @property
    def steps(self) -> int:
        """Of all segments."""
        return sum(steps for steps, _ in self.segments)

    def rate_at(self, step: int) -> float:
        """The learning rate of a step."""
        number, done = segment_at(step, [steps for steps, _ in self.segments])
        steps, peak = self.segments[number]
        return learning_rate(done, steps, peak, decay_share=self.decay_share)


class CodecTrainer:
    """Generator, codebook and optimizer; one :meth:`step` a batch."""

    def __init__(self, recipe: CodecTraining, units: AcousticUnits) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.decoder = CodecDecoder(recipe.codec)
        for table in self.decoder.quantizer.quantizer_modules_globaltokens:
            nn.init.zeros_(table.embedding.weight)  # type: ignore[union-attr,arg-type]  # one voice: learned from nothing
        codebook = self.decoder.quantizer.quantizer_modules[0].embedding.weight  # type: ignore[index,union-attr]
        with torch.no_grad():
            codebook.copy_(units.first_codebook(recipe.codec.code_width))  # type: ignore[operator]
        self.loss, self.units = SpectralLoss(), units
        self.optimizer = torch.optim.AdamW(self.decoder.parameters(), betas=(0.8, 0.98), weight_decay=0.0)
        self.finished_steps = 0

    def begin_last_segment(self, weights: Mapping[str, Tensor]) -> None:
        """Go on from a packed codec's weights."""
        self.decoder.load_state_dict(weights)
        self.finished_steps = self.recipe.steps - self.recipe.segments[-1][0]

    def step(self, samples: np.ndarray, codes: np.ndarray) -> dict[str, float]:
        """One update; ``samples`` (600 n,) int16 and ``codes`` (n,) are all utterances in a row."""
        recipe = self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.rate_at(self.finished_steps)
        draw = batch_generator(recipe.seed, self.finished_steps)
        starts = draw.integers(0, len(codes) - recipe.segment_codes, recipe.batch_size)
        cut_codes = np.stack([codes[start : start + recipe.segment_codes] for start in starts])
        length = recipe.segment_codes * SAMPLES_PER_CODE
        cuts = np.stack([samples[start * SAMPLES_PER_CODE :][:length] for start in starts])
        losses = self._losses(torch.from_numpy(cut_codes.astype(np.int64)), torch.from_numpy(cuts).float() / 32768)
        self.optimizer.zero_grad()
        total = losses["mel"] + 0.5 * losses["magnitude"] + 0.5 * losses["convergence"]
        total = total + recipe.feature_weight * losses["features"]
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.decoder.parameters(), recipe.gradient_limit)
        self.optimizer.step()
        self.finished_steps += 1
        return {name: float(value.detach()) for name, value in losses.items()}

    def _losses(self, codes: Tensor, sound: Tensor) -> dict[str, Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.low_precision):
            made = self.decoder(codes)
        losses: dict[str, Tensor] = self.loss(made.float(), sound)
        return {**losses, "features": (self.units.features(made.float()) - self.units.features(sound)).abs().mean()}

    def state(self) -> dict[str, Any]:
        """All that a later :meth:`resume` needs; loads with ``weights_only=True``."""
        return {
            "step": self.finished_steps,
            "recipe": json.dumps(asdict(self.recipe)),
            "decoder": self.decoder.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self.decoder.load_state_dict(state["decoder"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.finished_steps = int(state["step"])


def train_codec(
    trainer: CodecTrainer, utterances: Sequence[Utterance], spoken: Sequence[SpokenText], folder: Path
) -> None:
    """Train to the recipe's last step, going on from ``folder/state.pt`` if it is there; curves go to the folder.

    Args:
        trainer: as made from the recipe and the units.
        utterances: the voice.
        spoken: the codes of the same utterances.
        folder: state and curves.
    """
    resume_from(folder, trainer)
    samples = np.concatenate([whole_codes(utterance.samples) for utterance in utterances])
    codes = np.concatenate([item.codes for item in spoken])
    run_training(trainer, lambda: trainer.step(samples, codes), folder, "codec")
