"""Statistics in flat memory are what numpy says of all values at once; range files refuse other graphs and damage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sottovoce.calibration.ranges.range_file import Ranges, graph_hash, read_ranges
from sottovoce.calibration.ranges.statistics import (
    BINS,
    NotFiniteError,
    ObservedTensor,
    StatisticsCollector,
    TensorStatistics,
)
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.cli import main
from sottovoce.runtime.errors import SottovoceError

TENSOR = ObservedTensor("language_model", "layers.0.mlp.product", (-1,), keeps_rows=True)


def collected(*arrays: np.ndarray, tensor: ObservedTensor = TENSOR) -> TensorStatistics:
    collector = StatisticsCollector(tensor)
    for array in arrays:
        collector.append(array)
    found = collector.statistics
    assert found is not None
    return found


def test_statistics_are_those_of_all_values_at_once() -> None:
    dice = np.random.default_rng(1)
    arrays = [dice.normal(0, 2.0**power, (1, count, 8)).astype(np.float32) for power, count in enumerate((3, 50, 7))]
    found, everything = collected(*arrays), np.concatenate(arrays, axis=1)[0]
    assert (found.lowest, found.highest, found.count) == (everything.min(), everything.max(), everything.size)
    np.testing.assert_array_equal(found.channel_peaks, np.abs(everything).max(axis=0))
    np.testing.assert_allclose(found.mean_squares, np.square(everything).mean(axis=0), rtol=1e-5)
    assert found.histogram.sum() == everything.size
    exact = np.quantile(np.abs(everything), 0.9)
    assert abs(found.percentile(0.9) - exact) <= found.limit / BINS + 0.05 * exact
    assert found.percentile(1.0) == found.peak


def test_a_growing_range_keeps_every_value_in_its_bin() -> None:
    """The histogram of small values then large ones equals that of large ones then small ones."""
    small, large = np.full((4, 8), 0.3, np.float32), np.full((2, 8), 100.0, np.float32)
    first, second = collected(small, large), collected(large, small)
    np.testing.assert_array_equal(first.histogram, second.histogram)
    assert first.limit == second.limit == 128.0


def test_sampled_rows_are_a_fair_choice_and_never_more_than_their_room() -> None:
    wide = replace(TENSOR, name="wide")
    rows = np.arange(4096, dtype=np.float32).repeat(1024).reshape(-1, 1024)
    found = collected(*np.split(rows, 64), tensor=wide)
    assert found.rows.shape == (256, 1024)
    picked = found.rows[:, 0]
    assert len(set(picked)) == 256
    assert 1600 < picked.mean() < 2500, "early and late rows have the same chance"
    np.testing.assert_array_equal(found.rows, picked[:, None].repeat(1024, axis=1))


def test_fewer_rows_than_room_are_all_kept() -> None:
    rows = np.random.default_rng(2).normal(size=(5, 8)).astype(np.float32)
    np.testing.assert_array_equal(collected(rows[:2], rows[2:]).rows, rows)


def test_channels_may_lie_on_several_axes() -> None:
    cache = ObservedTensor("language_model", "key", (-3, -1))
    values = np.random.default_rng(3).normal(size=(1, 2, 7, 4)).astype(np.float32)
    np.testing.assert_array_equal(collected(values, tensor=cache).channel_peaks, np.abs(values).max((0, 2)).reshape(-1))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_names_stage_and_tensor(bad: float) -> None:
    values = np.zeros((2, 8), np.float32)
    values[1, 3] = bad
    with pytest.raises(NotFiniteError, match=r"'language_model'.*'layers\.0\.mlp\.product'.*1 of 16"):
        collected(values)


def test_ranges_know_every_stage_and_what_they_are_of(tiny_ranges: Ranges, tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    assert set(tiny_ranges.record.graphs) == set(bundle.manifest.graphs)
    assert tiny_ranges.record.conversations == 2
    assert tiny_ranges.record.tasks == {"spoken_picture_question": 1, "typed_question": 1}
    tiny_ranges.require_graphs(bundle, list(bundle.manifest.graphs))
    with pytest.raises(SottovoceError, match="no ranges of the tensor 'nothing'"):
        tiny_ranges.of("codec", "nothing")
    other = replace(tiny_ranges, record=replace(tiny_ranges.record, graphs={"codec": "0" * 64}))
    with pytest.raises(SottovoceError, match=r"another graph of stage 'codec'"):
        other.require_graphs(bundle, ["codec"])
    assert graph_hash(bundle, "codec") == tiny_ranges.record.graphs["codec"]


def test_a_damaged_range_file_is_refused(
    tiny_ranges: Ranges, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in (("cut", tiny_ranges.path.read_bytes()[:5000]), ("text", b"no zip"), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SottovoceError, match="not a range file"):
            read_ranges(tmp_path / name)
    with pytest.raises(SottovoceError, match="no range file"):
        read_ranges(tmp_path / "missing")


def test_little_data_is_refused_by_the_command(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "set.jsonl").write_text('{"task": "typed_question", "reply": "", "text": "Hello."}\n')
    arguments = ["calibrate", str(tiny_bundle), "--data", str(tmp_path), "-o", str(tmp_path / "ranges")]
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert "1 conversations are too few" in said
    assert "--allow-little-data" in said
    assert not (tmp_path / "ranges").exists()


def test_empty_data_is_refused_by_the_command(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "set.jsonl").write_text("")
    arguments = ["calibrate", str(tiny_bundle), "--data", str(tmp_path), "-o", str(tmp_path / "ranges")]
    assert main(arguments) == 1
    assert not (tmp_path / "ranges").exists()
