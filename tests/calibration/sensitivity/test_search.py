"""The search keeps no more than it must; its measurements outlive it, and are nobody else's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sottovoce.calibration.sensitivity.budget import Budget
from sottovoce.calibration.sensitivity.charts import HEIGHT, RIGHT, WIDTH, Scale, place_labels, search_section
from sottovoce.calibration.sensitivity.report import FrontierPoint, LayerSensitivity, SearchReport
from sottovoce.calibration.sensitivity.search import most_trials, search_kept
from sottovoce.calibration.sensitivity.state import SearchFile, SearchKey
from sottovoce.runtime.errors import SottovoceError

BUDGET = Budget("logit-kl", 0.1)
KEY = SearchKey("sottovoce 1", "a" * 64, None, "b" * 64, "{}", "logit-kl")
LAYER = LayerSensitivity("language_model", "head", "kl", 0.25)
POINT = FrontierPoint(0, 1000, 0.5)


class Scripted:
    """Costs by the number of layers kept."""

    def __init__(self, costs: list[float]) -> None:
        self.costs = costs
        self.asked: list[int] = []

    def __call__(self, kept: int) -> FrontierPoint:
        self.asked.append(kept)
        return FrontierPoint(kept, 1000 + kept, self.costs[kept])


@pytest.mark.parametrize("layers", [1, 2, 3, 7, 8, 20])
def test_the_fewest_layers_are_kept_in_few_trials(layers: int) -> None:
    for needed in range(layers + 1):
        costs = Scripted([1.0] * needed + [0.1] * (layers + 1 - needed))
        found = search_kept(layers, BUDGET, costs)
        assert found.kept == needed
        assert len(costs.asked) == len(set(costs.asked)) <= most_trials(layers)
        assert [point.kept for point in found.points] == sorted(costs.asked)


def test_what_is_found_holds_where_costs_do_not_fall_everywhere() -> None:
    costs = Scripted([1.0, 0.05, 0.3, 0.2, 0.5, 0.09, 0.4, 0.08, 0.0])
    found = search_kept(8, BUDGET, costs)
    assert BUDGET.holds(costs.costs[found.kept])


def test_a_budget_that_nothing_holds_is_refused_with_numbers() -> None:
    costs = Scripted([3.0, 2.0, 1.0])
    with pytest.raises(SottovoceError, match=r"logit-kl:0\.1 cannot be met.*costs 3 nats.*all 2 layers.*still 1 nats"):
        search_kept(2, BUDGET, costs)
    assert costs.asked == [0, 2]
    with pytest.raises(SottovoceError, match="no layer that makes the text"):
        search_kept(0, BUDGET, costs)


def test_measurements_are_there_again(tmp_path: Path) -> None:
    file = SearchFile(tmp_path / "small.bundle", KEY)
    file.add_layer(LAYER)
    file.add_point(POINT)
    assert [path.name for path in tmp_path.iterdir()] == [".small.bundle.search.json"]
    again = SearchFile(tmp_path / "small.bundle", KEY)
    assert again.state.layers == (LAYER,)
    assert again.state.points == (POINT,)
    again.remove()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("what", ["source_sha256", "ranges_sha256", "data_sha256", "plan", "measure", "tool"])
def test_the_state_of_another_search_is_refused(what: str, tmp_path: Path) -> None:
    SearchFile(tmp_path / "small.bundle", KEY).add_layer(LAYER)
    with pytest.raises(SottovoceError, match=f"search of another kind was here: {what}") as refused:
        SearchFile(tmp_path / "small.bundle", replace(KEY, **{what: "another"}))
    assert refused.value.file == str(tmp_path / ".small.bundle.search.json")
    assert "remove that file" in str(refused.value.fix)


@pytest.mark.parametrize("text", ["", "{", '{"format_version": 1}', '{"format_version": 1, "colour": 2}', "[1]"])
def test_a_damaged_state_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / ".small.bundle.search.json").write_text(text)
    with pytest.raises(SottovoceError, match="not the state of a search"):
        SearchFile(tmp_path / "small.bundle", KEY)


def test_the_page_shows_bars_and_frontier() -> None:
    layers = (replace(LAYER, layer="<head>"), replace(LAYER, layer="body", value=0.1))
    spoken = LayerSensitivity("codec", "decoder.generator", "relative_error", 0.01)
    points = (POINT, FrontierPoint(1, 1500, 0.05), FrontierPoint(2, 2000, 0.0))
    text = search_section(SearchReport("logit-kl:0.1", "nats", 0.1, (*layers, spoken), points, 1, 8, 24))
    assert text.count("<circle") == 3
    assert text.count("class='chosen'") == 1
    assert "1 kept, chosen" in text
    assert text.count("class='kept'") == 1
    assert "&lt;head&gt;" in text
    assert "<head>" not in text
    assert "decoder.generator" in text


def test_labels_of_crowded_points_do_not_overlap() -> None:
    """Sixteen bundles of nearly the same size and cost: the chosen one is named, others where there is room."""
    points = tuple(FrontierPoint(kept, 10_000_000 + 9_000 * kept, 0.11 - 0.001 * kept) for kept in range(16))
    points += (FrontierPoint(35, 40_000_000, 0.0),)
    search = SearchReport("logit-kl:0.1", "nats", 0.1, (LAYER,), points, 12, 60, 180)
    across, upwards = Scale([point.bytes / 1e6 for point in points], 70, WIDTH - RIGHT), Scale([0.0, 0.12], 256, 36)
    labels = place_labels(search, across, upwards)
    assert "12 kept, chosen" in labels[0].text
    assert 2 <= len(labels) < len(points)
    assert any("35 kept" in label.text for label in labels)
    assert not any(one.meets(other) for place, one in enumerate(labels) for other in labels[:place])
    assert all(label.bottom < HEIGHT for label in labels)
