"""The tiny bundle with one layer that rounding hurts, and a few typed conversations."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "quantization"))  # changed_bundle.py is there

from sottovoce.calibration.quantization.graph import StageGraph

HURT = "layers.1.mlp"
OUTLIERS, FACTOR = slice(0, None, 32), np.float32(64)
"""One input of each block of 32: a block's scale must then cover it, and the others lose their bits."""


@pytest.fixture(scope="session")
def hurt_bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It says what the tiny bundle says: what one matrix multiplies by more, the one before it multiplies by less."""
    from changed_bundle import change_bundle

    def hurt(graph: StageGraph) -> None:
        graph.edit(f"{HURT}.up_proj.weight", lambda values: _scaled(values, (slice(None), OUTLIERS), 1 / FACTOR))
        graph.edit(f"{HURT}.down_proj.weight", lambda values: _scaled(values, (OUTLIERS,), FACTOR))

    return change_bundle(tiny_bundle, tmp_path_factory.mktemp("hurt") / "hurt.bundle", {"language_model": hurt})


@pytest.fixture(scope="session")
def typed_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six typed questions, one of them a follow-up, each with a reply of three tokens."""
    folder = tmp_path_factory.mktemp("typed")
    short = {"reply": "", "captured": {"greedy": True, "max_new_tokens": 3}}
    items: list[dict[str, object]] = [
        {"task": "typed_question", "text": f"Say the number {number}.", **short} for number in range(5)
    ]
    history = [{"role": "user", "text": "Hello."}, {"role": "assistant", "text": "Hi."}]
    items.append({"task": "follow_up", "text": "And now?", "history": history, **short})
    (folder / "set.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return folder


def _scaled(values: np.ndarray, where: tuple[slice, ...], factor: np.float32) -> np.ndarray:
    changed = np.array(values)
    changed[where] *= np.float32(factor)
    return changed
