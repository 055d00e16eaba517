"""Training that can be killed at any moment: whole states on disk, and batches that depend on the step alone."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch


def batch_generator(seed: int, step: int) -> np.random.Generator:
    """The dice of one step: the same whether training came here in one go or was resumed."""
    return np.random.default_rng([seed, step])


def learning_rate(step: int, total_steps: int, peak: float, warmup_steps: int = 100, decay_share: float = 0.5) -> float:
    """Linear warm-up, a plateau, then a cosine down to 2 % of ``peak`` over the last ``decay_share`` of the steps."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    decay_start = total_steps * (1 - decay_share)
    if step <= decay_start:
        return peak
    progress = min((step - decay_start) / (total_steps - decay_start), 1.0)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


def segment_at(step: int, lengths: Sequence[int]) -> tuple[int, int]:
    """Which segment of a training a step is in, and how many of its steps are done; past the end, the last one."""
    for number, length in enumerate(lengths):
        if step < length or number == len(lengths) - 1:
            return number, step
        step -= length
    raise ValueError("a training has at least one segment")


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """``torch.save`` beside ``path``, then renamed into it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    torch.save(dict(state), partial)
    os.replace(partial, path)


def load_state(path: Path) -> dict[str, Any] | None:
    """What :func:`save_state` wrote, or None when there is nothing yet."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


class Curve:
    """Figures of a training as JSON lines, cut back to ``step`` on resume, and drawn as a picture."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.rows: list[dict[str, float]] = [row for row in _read_rows(path) if row["step"] <= step]
        path.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")

    def add(self, step: int, **figures: float) -> None:
        """Append one row and flush it."""
        row = {"step": float(step), **figures}
        self.rows.append(row)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def draw(self, path: Path) -> None:
        """One panel a figure, over steps, as a PNG."""
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        names = sorted({name for row in self.rows for name in row} - {"step", "seconds"})
        if not names:
            return
        figure, panels = pyplot.subplots(
            1, len(names), figsize=(4 * len(names), 3), squeeze=False, layout="constrained"
        )
        for panel, name in zip(panels[0], names, strict=True):
            points = [(row["step"], row[name]) for row in self.rows if name in row]
            panel.plot(*zip(*points, strict=True), linewidth=1)
            panel.set(title=name.replace("_", " "), xlabel="step")
            panel.grid(alpha=0.3)
        figure.savefig(path, dpi=110)
        pyplot.close(figure)


def _read_rows(path: Path) -> list[dict[str, float]]:
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:  # the last line of a killed run may be cut
            break
    return rows


class Trainer(Protocol):
    """What :func:`run_training` drives."""

    finished_steps: int

    @property
    def recipe(self) -> Recipe:
        """How long to train and how often to report and to save."""
        ...

    def state(self) -> dict[str, Any]:
        """All that a resumed training needs."""
        ...


class Recipe(Protocol):
    """The part of a recipe that the loop needs."""

    @property
    def steps(self) -> int:
        """Train until this many steps are done."""
        ...

    @property
    def report_every(self) -> int:
        """Steps between two rows of the curve."""
        ...

    @property
    def save_every_seconds(self) -> float:
        """Seconds between two states on disk."""
        ...


class Resumable(Protocol):
    """A trainer whose state was saved by :func:`run_training`."""

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from it."""
        ...


def resume_from(folder: Path, trainer: Resumable) -> None:
    """Go on from ``folder/state.pt``, if it is there."""
    saved = load_state(folder / "state.pt")
    if saved is not None:
        trainer.resume(saved)


def run_training(trainer: Trainer, step: Callable[[], Mapping[str, float]], folder: Path, name: str) -> None:
    """Call ``step`` until the recipe's last one, saving ``state.pt``, ``curve.jsonl`` and ``curve.png`` on the way."""
    curve = Curve(folder / "curve.jsonl", trainer.finished_steps)
    seen: dict[str, list[float]] = {}
    started = saved_at = time.monotonic()
    while trainer.finished_steps < trainer.recipe.steps:
        for key, value in step().items():
            seen.setdefault(key, []).append(value)
        done = trainer.finished_steps
        last = done == trainer.recipe.steps
        now = time.monotonic()
        if done % trainer.recipe.report_every == 0:
            means = {key: round(sum(values) / len(values), 4) for key, values in seen.items()}
            seen = {}
            curve.add(done, seconds=round(now - started, 1), **means)
            figures = ", ".join(f"{key} {value:.3f}" for key, value in means.items())
            print(f"{name}: step {done} of {trainer.recipe.steps}, {now - started:.0f} s: {figures}", flush=True)
            if last or now - saved_at > trainer.recipe.save_every_seconds:
                save_state(folder / "state.pt", trainer.state())
                saved_at = time.monotonic()
                curve.draw(folder / "curve.png")
    save_state(folder / "state.pt", trainer.state())
    curve.draw(folder / "curve.png")
