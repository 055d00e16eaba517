"""How acoustic units are found: a listener learns phonemes, k-means gives a start, and both learn to be read.

What counts is what can be told from the codes again, so the last step asks just that: a small network reads phonemes
and log-mels off a row of codes, and listener, map and centres are moved to make that easy (a vector quantizer whose
gradient goes through its softened choice, after van den Oord et al. 2017, section 3.2, and Agustsson et al. 2017).

Measured on unheard sentences by a reader that learns anew from the finished codes (nats about the phoneme missed /
log-mels missed by): k-means over principal components and linear discriminants, 0.74 / 0.414; k-means over principal
components and the listener, 0.60 / 0.413; these, 0.50 / 0.404.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .acoustic_units import AcousticUnits, UnitSettings, distances, nearest
from .phoneme_listener import PHONEMES, HeardFrames, ListenerTrainer, ListenerTraining, NeighbourLayers
from .spoken_codes import phonemes_of_codes, sound_of_codes
from .training_state import batch_generator, learning_rate, resume_from, run_training
from .voice import Utterance

_READER_DROPOUT = 0.15


@dataclass(frozen=True)
class UnitTraining:
    """Recipe of the units; ``reader_alone``: steps in which the reader learns the first codes and nothing moves yet."""

    steps: int = 1_500
    reader_alone: int = 150
    batch_size: int = 16
    cut_codes: int = 100
    reader_rate: float = 2e-3
    listener_rate: float = 5e-4
    centre_rate: float = 3e-4
    weight_decay: float = 0.02
    phonetic_weight: float = 0.5
    mel_weight: float = 2.0
    certainty_weight: float = 0.02
    softness: float = 0.25
    gradient_limit: float = 1.0
    k_means_rounds: int = 20
    k_means_samples: int = 100_000
    seed: int = 0
    save_every_seconds: float = 60.0
    report_every: int = 50
    low_precision: bool = True
    settings: UnitSettings = field(default_factory=UnitSettings)
    listener: ListenerTraining = field(default_factory=ListenerTraining)


class CodeReader(nn.Module):
    """Rows of numbers, one a code (batch, t, width), to phoneme logits and frames of unit scale."""

    def __init__(self, settings: UnitSettings, width: int = 256) -> None:
        super().__init__()
        self.table = nn.Embedding(settings.codes, width)
        self.layers = NeighbourLayers(width, 2, _READER_DROPOUT)
        self.phonemes = nn.Linear(width, PHONEMES)
        self.frames = nn.Linear(width, settings.frame_size)
        self.dropout = nn.Dropout(_READER_DROPOUT)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, t, phonemes) and (batch, t, frame_size)."""
        hidden = self.layers(self.dropout(rows))
        return self.phonemes(hidden), self.frames(hidden)


class UnitTrainer:
    """Units, their reader and optimizer; one :meth:`step` a batch.

    Args:
        recipe: sizes and schedule.
        heard: what they learn from.
        units: as :func:`first_units` found them.
    """

    def __init__(self, recipe: UnitTraining, heard: HeardFrames, units: AcousticUnits) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.finished_steps, self.units, self._heard = recipe, 0, units, heard
        self.reader = CodeReader(recipe.settings)
        with torch.no_grad():
            features = units.features_of(heard.frames[None, :20_000])[0]
            closest = distances(features, units.centres).min(-1).values + features.square().sum(-1)
        self._sharpness = 1 / (recipe.softness * float(closest.mean()))
        rates = (
            (self.reader.parameters(), recipe.reader_rate, recipe.weight_decay),
            (units.listener.parameters(), recipe.listener_rate, recipe.weight_decay),
            ([units.projection, units.centres], recipe.centre_rate, 0.0),
        )
        self.optimizer = torch.optim.AdamW(
            [{"params": list(group), "peak": rate, "weight_decay": decay} for group, rate, decay in rates]
        )

    def step(self) -> dict[str, float]:
        """One update."""
        recipe, step = self.recipe, self.finished_steps
        for number, group in enumerate(self.optimizer.param_groups):
            rate = learning_rate(step, recipe.steps, group["peak"], 50, decay_share=1.0)
            group["lr"] = rate if number == 0 or step >= recipe.reader_alone else 0.0
        torch.manual_seed(recipe.seed * 1_000_003 + step)  # dropout's dice, the same after a resume
        self.units.train()
        frames, phonemes = self._heard.batch(batch_generator(recipe.seed, step), recipe.batch_size, recipe.cut_codes)
        losses = self._losses(frames, phonemes)
        self.optimizer.zero_grad()
        total = losses["phoneme"] + recipe.mel_weight * losses["mel"] + recipe.certainty_weight * losses["certainty"]
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.units.parameters(), recipe.gradient_limit)
        self.optimizer.step()
        self.finished_steps += 1
        return {name: float(value.detach()) for name, value in losses.items()}

    def _losses(self, frames: Tensor, phonemes: Tensor) -> dict[str, Tensor]:
        """What the reader misses; "certainty" pulls the softened choice to the one that is made."""
        units = self.units
        logits = -self._sharpness * distances(units.features_of(frames), units.centres)
        choice = logits.argmax(-1)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.low_precision):
            chosen = self.reader.table(choice)
            softened = torch.softmax(logits, -1) @ self.reader.table.weight
            read_phonemes, read_frames = self.reader(chosen + softened - softened.detach())
        read = read_frames.float() * units.scale + units.mean
        return {
            "phoneme": nn.functional.cross_entropy(read_phonemes.float().flatten(0, 1), phonemes.flatten()),
            "mel": (read - frames).abs().mean(),
            "certainty": nn.functional.cross_entropy(logits.flatten(0, 1), choice.flatten()),
        }

    def state(self) -> dict[str, Any]:
        """All that a later :meth:`resume` needs; loads with ``weights_only=True``."""
        return {
            "step": self.finished_steps,
            "recipe": json.dumps(asdict(self.recipe)),
            "units": self.units.state_dict(),
            "reader": self.reader.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self.units.load_state_dict(state["units"])
        self.reader.load_state_dict(state["reader"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.finished_steps = int(state["step"])


def train_units(utterances: Iterable[Utterance], recipe: UnitTraining, folder: Path) -> AcousticUnits:
    """Find the units of a voice, going on from the states in ``folder/listener`` and ``folder/units``."""
    heard = hear(utterances, recipe.settings)
    listening = ListenerTrainer(recipe.listener, recipe.settings.listener, heard)
    resume_from(folder / "listener", listening)
    run_training(listening, listening.step, folder / "listener", "phoneme listener")
    trainer = UnitTrainer(recipe, heard, first_units(recipe, listening, heard))
    resume_from(folder / "units", trainer)
    run_training(trainer, trainer.step, folder / "units", "units")
    return finished(trainer.units, heard)


def hear(utterances: Iterable[Utterance], settings: UnitSettings) -> HeardFrames:
    """Log-mels and phonemes of a voice."""
    units, frames, phonemes = AcousticUnits(settings), [], []
    for utterance in utterances:
        frames.append(units.frames(sound_of_codes(utterance)[None])[0])
        phonemes.append(torch.from_numpy(phonemes_of_codes(utterance, len(frames[-1]))))
    return HeardFrames(torch.cat(frames), torch.cat(phonemes))


@torch.no_grad()
def first_units(recipe: UnitTraining, listening: ListenerTrainer, heard: HeardFrames) -> AcousticUnits:
    """Principal components of a code's own frames, of total variance one, the listener's, weighed, and k-means."""
    units = AcousticUnits(recipe.settings)
    units.listener.load_state_dict(listening.listener.state_dict())
    units.eval()
    units.mean.copy_(listening.mean)
    units.scale.copy_(listening.scale)
    centred = heard.frames - units.mean
    directions = principal_components(centred, recipe.settings.spectral_size)
    units.projection.copy_(directions / (centred @ directions).var(0).sum().sqrt())
    phonetic = torch.cat([units.listener(part[None] / units.scale)[0] for part in centred.split(4_000)])
    units.phonetic_mean.copy_(phonetic.mean(0))
    units.phonetic_scale.copy_(recipe.phonetic_weight / phonetic.var(0).sum().sqrt())
    dice = torch.Generator().manual_seed(recipe.seed)
    drawn = torch.randperm(len(centred), generator=dice)[: recipe.k_means_samples]
    spectral = centred[drawn] @ units.projection
    points = torch.cat([spectral, (phonetic[drawn] - units.phonetic_mean) * units.phonetic_scale], 1)
    units.centres.copy_(k_means(points, recipe.settings.codes, recipe.k_means_rounds, dice))
    return units


@torch.no_grad()
def finished(units: AcousticUnits, heard: HeardFrames) -> AcousticUnits:
    """Ready to encode, with each code's mean spectrum."""
    units.eval().requires_grad_(False)
    codes = torch.cat([nearest(units.features_of(part[None])[0], units.centres) for part in heard.frames.split(4_000)])
    units.spectra.copy_(means(heard.frames, codes, units.settings.codes)[0])
    return units


def k_means(points: Tensor, count: int, rounds: int, dice: torch.Generator) -> Tensor:
    """``count`` centres of (n, d) points by Lloyd's algorithm; a centre without points moves to a random one."""
    centres = points[torch.randperm(len(points), generator=dice)[:count]].clone()
    for _ in range(rounds):
        moved, sizes = means(points, nearest(points, centres), count)
        spare = points[torch.randint(len(points), (count,), generator=dice)]
        centres = torch.where(sizes[:, None] > 0, moved, spare)
    return centres


def means(points: Tensor, groups: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(n, d) points and the group of each: (count, d) means, zeros where there is none, and (count,) sizes."""
    sizes = torch.bincount(groups, minlength=count)
    sums = torch.zeros(count, points.shape[1]).index_add_(0, groups, points)
    return sums / sizes.clamp(min=1)[:, None], sizes


def principal_components(centred: Tensor, count: int) -> Tensor:
    """The ``count`` directions (d, count) of largest variance."""
    directions: Tensor = torch.linalg.eigh(centred.T @ centred / len(centred)).eigenvectors
    return directions[:, -count:].flip(1)
