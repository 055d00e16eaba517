"""Stage 3, between codec and speech decoder: codes stay as they are, generator and codebook go on learning.

With the encoder frozen its work is done once, a code's row is free to be any 512 numbers, and the speech decoder can
already train on the codes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .codec_encoder import SAMPLES_PER_CODE
from .codec_training import CodecTrainer
from .spectral_loss import SpectralLoss
from .spoken_codes import SpokenText, whole_codes
from .training_state import batch_generator, learning_rate, load_state, run_training
from .voice import Utterance


@dataclass(frozen=True)
class CodecRefinement:
    """Recipe of the refinement; a segment is that many codes, some codes on each side give it context."""

    steps: int = 8_000
    batch_size: int = 6
    segment_codes: int = 28
    peak_learning_rate: float = 1e-3
    codebook_rate: float = 0.3
    gradient_limit: float = 5.0
    seed: int = 1
    save_every_seconds: float = 180.0
    report_every: int = 50
    low_precision: bool = True


class CodecRefiner:
    """Generator and codebook of a trained codec, learning on."""

    def __init__(self, recipe: CodecRefinement, trained: CodecTrainer) -> None:
        self.recipe = recipe
        self.decoder = trained.decoder
        codebook = self.decoder.quantizer.quantizer_modules[0].embedding.weight  # type: ignore[index,union-attr]
        with torch.no_grad():
            codebook.copy_(trained.encoder.codebook())
        self.loss = SpectralLoss()
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in self.decoder.parameters() if p is not codebook], "share": 1.0},
                {"params": [codebook], "share": recipe.codebook_rate, "weight_decay": 0.0},
            ],
            betas=(0.8, 0.98),
            weight_decay=0.01,
        )
        self.finished_steps = 0

    def step(self, samples: np.ndarray, codes: np.ndarray) -> dict[str, float]:
        """One update; ``samples`` (600 n,) int16 and ``codes`` (n,) are all utterances in a row."""
        recipe = self.recipe
        rate = learning_rate(self.finished_steps, recipe.steps, recipe.peak_learning_rate, decay_share=0.7)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        draw = batch_generator(recipe.seed, self.finished_steps)
        starts = draw.integers(0, len(codes) - recipe.segment_codes, recipe.batch_size)
        batch_codes = np.stack([codes[start : start + recipe.segment_codes] for start in starts])
        bounds = [(start * SAMPLES_PER_CODE, (start + recipe.segment_codes) * SAMPLES_PER_CODE) for start in starts]
        sound = torch.from_numpy(np.stack([samples[first:last] for first, last in bounds]).astype(np.float32) / 32768)
        losses = self._losses(torch.from_numpy(batch_codes.astype(np.int64)), sound)
        self.optimizer.zero_grad()
        (losses["mel"] + 0.5 * losses["magnitude"] + 0.5 * losses["convergence"]).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.decoder.parameters(), recipe.gradient_limit)
        self.optimizer.step()
        self.finished_steps += 1
        return {name: float(value.detach()) for name, value in losses.items()}

    def _losses(self, codes: Tensor, sound: Tensor) -> dict[str, Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.low_precision):
            made = self.decoder(codes)
        return self.loss(made.float(), sound)

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


def refine_codec(
    trained: CodecTrainer,
    utterances: Sequence[Utterance],
    spoken: Sequence[SpokenText],
    folder: Path,
    recipe: CodecRefinement | None = None,
) -> CodecRefiner:
    """Refine on ``utterances`` and their codes, going on from ``folder/state.pt`` if it is there."""
    refiner = CodecRefiner(recipe or CodecRefinement(), trained)
    saved = load_state(folder / "state.pt")
    if saved is not None:
        refiner.resume(saved)
    samples = np.concatenate([whole_codes(utterance.samples) for utterance in utterances])
    codes = np.concatenate([item.codes for item in spoken])
    run_training(refiner, lambda: refiner.step(samples, codes), folder, "codec refinement")
    return refiner
