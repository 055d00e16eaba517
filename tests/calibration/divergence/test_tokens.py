"""The first greedy token that differs is found where it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from changed_bundle import change_bundle
from spoilt_bundle import Change, compared

from sottovoce.calibration.divergence.stage_calls import StageInputs, record_calls
from sottovoce.calibration.divergence.stage_replay import replaying
from sottovoce.calibration.quantization.graph import StageGraph
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.manifest import StageName
from sottovoce.runtime.progress import SilentProgress
from sottovoce.runtime.text.tokenizer import Tokenizer

STEPS = 12


def reference_logits(bundle: Bundle, stage: StageName) -> np.ndarray:
    """(tokens, V): what the decoder says before each greedy token of the built-in conversation."""
    calls = record_calls(bundle, StageInputs(steps=STEPS), SilentProgress())[stage]
    with replaying(bundle, stage) as replay:
        logits = [replay.run(call)["logits"][0] for call in calls]
    return np.stack(logits[-STEPS:])  # before these are slices of the prompt, or the text to speak


def louder(token: int, factor: float) -> Change:
    """A head whose logit of one token is so many times as large."""

    def change(graph: StageGraph) -> None:
        def column(values: np.ndarray) -> np.ndarray:
            changed = np.array(values)
            changed[..., token] *= factor
            return changed

        for name in ("head.weight", "head.bias"):
            if graph.tensor(name) is not None:
                graph.edit(name, column)

    return change


def late_rival(logits: np.ndarray, candidates: int) -> tuple[int, float, int]:
    """A token that, so many times as loud, wins at a late step and at none before: (token, factor, step)."""
    best = logits.max(axis=1)
    for token in range(candidates):
        own = logits[:, token]
        needed = np.where((own > 0) & (logits.argmax(axis=1) != token), best / np.maximum(own, 1e-6), np.inf)
        step = int(needed.argmin())
        if step > 2 and 1 < needed[step] < 10 and needed[:step].min() > 1.1 * needed[step]:
            return token, float(1.05 * needed[step]), step
    pytest.fail("no token of this bundle wins late")


@pytest.mark.parametrize("stage", ["language_model", "speech_codes"])
def test_the_first_token_that_differs_is_found(stage: StageName, tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    logits = reference_logits(bundle, stage)
    sayable = logits.shape[1] if stage == "language_model" else bundle.manifest.speech.codes
    token, factor, step = late_rival(logits[:, :sayable], sayable)
    spoilt = change_bundle(tiny_bundle, tmp_path / "spoilt.bundle", {stage: louder(token, factor)})
    report = compared(spoilt, tiny_bundle, STEPS)
    tokens = {found.stage: found.tokens for found in report.stages}[stage]
    assert tokens is not None
    assert (tokens.tokens, tokens.ok) == (STEPS, False)
    first = tokens.first_difference
    assert first is not None
    expected = int(logits[step, :sayable].argmax())
    assert (first.reply, first.position, first.expected, first.found) == (0, step, expected, token)
    assert first.margin == pytest.approx(logits[step, expected] - logits[step, token], rel=1e-4)
    tokenizer = Tokenizer(bundle.file(bundle.manifest.tokenizer))
    if stage == "language_model":
        assert first.expected_text == tokenizer.bytes_of(expected).decode(errors="replace")
    else:
        assert first.found_text == f"code {token}"
    assert report.first_divergence is not None
    assert (report.first_divergence.stage, report.first_divergence.verdict.blame) == (stage, "op")
    assert report.first_divergence.verdict.at.startswith("head.")


def test_near_ties_may_fall_either_way(weights_bundle: Path, tiny_bundle: Path) -> None:
    """Rounding turns some token round; with margins that the tolerance explains, that is no fault."""
    report = compared(weights_bundle, tiny_bundle, steps=24)
    tokens = {stage.stage: stage.tokens for stage in report.stages}["language_model"]
    assert tokens is not None
    assert tokens.tokens == 24
    if tokens.first_difference is not None:
        assert tokens.first_difference.margin <= tokens.first_difference.allowed
    assert tokens.ok
    assert report.ok
