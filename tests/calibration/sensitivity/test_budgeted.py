"""A bundle within a budget: what must be kept is kept and said; a killed search goes on; the page shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sottovoce.calibration.bundles.writer import BundleWriter
from sottovoce.calibration.quantization.plan import parse_plan
from sottovoce.calibration.quantization.quantize import REPORT_FILE, QuantizeJob, QuantizeReport
from sottovoce.calibration.sensitivity.acceptance import Acceptance
from sottovoce.calibration.sensitivity.budget import parse_budget
from sottovoce.calibration.sensitivity.budgeted import BudgetedJob, quantize_within
from sottovoce.calibration.sensitivity.layer_meter import LayerMeter
from sottovoce.calibration.sensitivity.layers import Layer
from sottovoce.calibration.sensitivity.report import LayerSensitivity
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.cli import main
from sottovoce.runtime.errors import InputError, SottovoceError

PLAN = "language_model=int4-weights"
SENSITIVITIES = {"layers.1.mlp": 9.0, "head": 5.0, "layers.0.mlp": 3.0}
COST_BY_KEPT = [8.0, 4.0, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05]


class Calls:
    """What was measured, in place of the measuring; optionally killed at one of the calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, killed_at: int | None = None) -> None:
        self.layers: list[str] = []
        self.bundles: list[int] = []
        self._killed_at = killed_at
        monkeypatch.setattr(LayerMeter, "measure", lambda _, layer, others: self._layer(layer))
        monkeypatch.setattr(Acceptance, "cost", lambda _, bundle: self._bundle(bundle))

    def _layer(self, layer: Layer) -> LayerSensitivity:
        self._tick()
        self.layers.append(layer.name)
        return LayerSensitivity(layer.stage, layer.name, "kl", SENSITIVITIES.get(layer.name, 0.1))

    def _bundle(self, path: Path) -> float:
        self._tick()
        spec = Bundle.open(path, verify_hashes=False).graph("language_model").quantization
        assert spec is not None
        layers = {name.rsplit(".", 2)[0] if "layers" in name else "head" for name in spec.kept}
        self.bundles.append(len(layers))
        return COST_BY_KEPT[len(layers)]

    def _tick(self) -> None:
        if len(self.layers) + len(self.bundles) == self._killed_at:
            raise KeyboardInterrupt


def made(source: Path, data: Path, output: Path, budget: str = "logit-kl:1", plan: str = PLAN) -> QuantizeReport:
    job = QuantizeJob(Bundle.open(source, verify_hashes=False), parse_plan(plan), data=data)
    return quantize_within(BudgetedJob(job, parse_budget(budget), True), BundleWriter(output, force=False))


def kept_in(bundle: Path) -> dict[str, str]:
    spec = Bundle.open(bundle).graph("language_model").quantization
    assert spec is not None
    return dict(spec.kept)


@pytest.mark.parametrize("killed_at", [3, 8], ids=["ranking", "trying"])
def test_a_killed_search_goes_on_where_it_was(
    killed_at: int, tiny_bundle: Path, typed_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "small.bundle"
    before = Calls(monkeypatch, killed_at)
    with pytest.raises(KeyboardInterrupt):
        made(tiny_bundle, typed_set, output)
    assert [path.name for path in tmp_path.iterdir()] == [".small.bundle.search.json"]
    with pytest.raises(SottovoceError, match="search of another kind was here: plan"):
        made(tiny_bundle, typed_set, output, plan="language_model=int8-weights")
    after = Calls(monkeypatch)
    report = made(tiny_bundle, typed_set, output)
    assert sorted(before.layers + after.layers) == sorted(
        ["head", *(f"layers.{n}.{part}" for n in range(3) for part in ("mlp", "self_attn"))]
    )
    assert before.bundles + after.bundles == [0, 7, 3, 1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["small.bundle"]
    kept = kept_in(output)
    assert kept["head.weight"] == "budget: KL 5"
    assert sorted(kept) == ["head.weight", *(f"layers.1.mlp.{name}_proj.weight" for name in ("down", "gate", "up"))]
    assert report.search is not None
    assert report.search.kept == 2
    assert [point.kept for point in report.search.points] == [0, 1, 2, 3, 7]
    sizes = [point.bytes for point in report.search.points]
    assert sizes == sorted(sizes)
    assert (report.search.ranked_on, report.search.accepted_on) == (2, 4)
    stored = json.loads((output / REPORT_FILE).read_text(encoding="utf-8"))["search"]
    assert stored["kept"] == 2
    assert stored["layers"][0] == {
        "stage": "language_model", "layer": "layers.1.mlp", "measure": "kl", "value": 9.0,
    }  # fmt: skip


def test_an_impossible_budget_ends_with_numbers_and_another_limit_goes_on(
    tiny_bundle: Path, typed_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(monkeypatch)
    with pytest.raises(SottovoceError, match=r"cannot be met.*costs 8 nats.*all 7 layers.*still 0\.05 nats"):
        made(tiny_bundle, typed_set, tmp_path / "small.bundle", "logit-kl:0.01")
    assert [path.name for path in tmp_path.iterdir()] == [".small.bundle.search.json"]
    measured = len(calls.layers)
    made(tiny_bundle, typed_set, tmp_path / "small.bundle", "logit-kl:8")
    assert len(calls.layers) == measured
    assert calls.bundles == [0, 7]
    assert kept_in(tmp_path / "small.bundle") == {}


def test_what_hurts_is_kept_for_real(
    hurt_bundle: Path, typed_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing scripted: the command, the tiny bundle with one spoilt layer, and KL divergence."""
    output, page = tmp_path / "small.bundle", tmp_path / "report.html"
    arguments = ["quantize", str(hurt_bundle), "--precision", PLAN, "--data", str(typed_set), "-o", str(output)]
    arguments += ["--budget", "logit-kl:0.3", "--allow-little-data", "--report", str(page), "--json"]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    search: dict[str, Any] = json.loads(printed.out)["search"]
    assert search["layers"][0]["layer"] == "layers.1.mlp"
    assert 1 <= search["kept"] < 7
    costs = {point["kept"]: point["cost"] for point in search["points"]}
    assert costs[0] > 0.3 >= costs[search["kept"]]
    assert {name.rpartition(".mlp")[0] for name in kept_in(output)} >= {"layers.1"}
    assert "budget logit-kl:0.3" in printed.err
    text = page.read_text(encoding="utf-8")
    assert "<svg" in text
    assert "layers.1.mlp" in text


def test_what_cannot_be_measured_is_refused(
    tiny_bundle: Path, typed_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["quantize", str(tiny_bundle), "--precision", PLAN, "-o", str(tmp_path / "small.bundle")]
    assert main([*arguments, "--budget", "logit-kl:1"]) == 2
    assert "--data" in capsys.readouterr().err
    assert main([*arguments, "--budget", "bleu:1", "--data", str(typed_set)]) == 1
    assert "reply-exact:-0.5" in capsys.readouterr().err
    assert main([*arguments, "--budget", "wer:1", "--data", str(typed_set)]) == 1
    assert "at least 32" in capsys.readouterr().err
    with pytest.raises(InputError, match="says anything about wer") as refused:
        made(tiny_bundle, typed_set, tmp_path / "small.bundle", "wer:1")
    assert "say_after_me" in str(refused.value.fix)
    with pytest.raises(InputError, match="none of 4 replies is exact before"):
        made(tiny_bundle, typed_set, tmp_path / "exact.bundle", "reply-exact:0")
    (tmp_path / "small.bundle").mkdir()
    with pytest.raises(SottovoceError, match="is there already"):
        made(tiny_bundle, typed_set, tmp_path / "small.bundle")
