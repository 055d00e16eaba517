"""The record of a target's engines, which is believed only after it was checked; and `inspect`, which shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bundle_factory import write_bundle

from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.cli import main
from sottovoce.runtime.engines.record import (
    EngineFolderRecord,
    EngineRecord,
    EngineSettings,
    Fingerprint,
    LayerReport,
    ShapeRange,
    fingerprint_digest,
    graph_sha256,
    read_engines,
    record_text,
)
from sottovoce.runtime.errors import BundleError

TARGET = "rtx-8.9"


def codec_record(bundle: Bundle, **changes: Any) -> EngineRecord:
    settings = EngineSettings(({"codes": ShapeRange((1, 1), (1, 60), (1, 60))},), ("chunk",))
    fingerprint = Fingerprint(graph_sha256(bundle, "codec"), "tensorrt_rtx", "1.7.1", "8.9", "linux-x86_64", settings)
    values = {"stage": "codec", "file": "codec-0123456789ab.engine", "bytes": 3, "sha256": "0" * 64, "seconds": 1.0}
    values |= {"created": "2026-01-01T00:00:00+00:00", "fingerprint": fingerprint, "report": LayerReport(7)}
    return EngineRecord(**{**values, **changes})


def write(bundle: Bundle, text: str) -> Path:
    folder = bundle.path / "engines" / TARGET
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "engines.json").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def opened(tmp_path: Path) -> Bundle:
    return Bundle.open(write_bundle(tmp_path / "b"))


def test_what_is_written_is_read(opened: Bundle) -> None:
    record = EngineFolderRecord(1, TARGET, {"codec": codec_record(opened)})
    write(opened, record_text(record))
    assert read_engines(opened, TARGET) == record


@pytest.mark.parametrize(
    "file", ["../codec.engine", "/etc/passwd", "..", "", "a/b.engine", "a\\b.engine", ".engine", "engines.json"]
)
def test_a_file_outside_the_folder_is_refused(file: str, opened: Bundle) -> None:
    write(opened, record_text(EngineFolderRecord(1, TARGET, {"codec": codec_record(opened, file=file)})))
    with pytest.raises(BundleError, match="names the file"):
        read_engines(opened, TARGET)


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{", "null", '{"format_version": 2}', '{"format_version": 1}', "[" * 100_000,
        '{"format_version": 1, "target": "rtx-8.6", "engines": {}}',
        '{"format_version": 1, "target": "rtx-8.9", "engines": {"codec": 3}}',
        '{"format_version": 1, "target": "rtx-8.9", "engines": {}, "more": 1}',
    ],
)  # fmt: skip
def test_junk_is_refused_with_the_command_that_repairs_it(text: str, opened: Bundle) -> None:
    folder = write(opened, text)
    with pytest.raises(BundleError) as problem:
        read_engines(opened, TARGET)
    assert problem.value.file == str(folder / "engines.json")
    assert "sottovoce build BUNDLE --target rtx-8.9" in str(problem.value.fix)


def test_an_engine_under_another_name_is_refused(opened: Bundle) -> None:
    write(opened, record_text(EngineFolderRecord(1, TARGET, {"vision_encoder": codec_record(opened)})))
    with pytest.raises(BundleError, match="'vision_encoder' names the file"):
        read_engines(opened, TARGET)


def test_inspect_shows_fingerprints(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = Bundle.open(bundle)
    record = codec_record(opened)
    write(opened, record_text(EngineFolderRecord(1, TARGET, {"codec": record})))
    assert main(["inspect", str(opened.path), "--json"]) == 0
    printed = capsys.readouterr()
    [engine] = json.loads(printed.out)["engines"]
    assert (engine["stage"], engine["target"], engine["bytes"]) == ("codec", TARGET, 3)
    assert engine["fingerprint"] == fingerprint_digest(record.fingerprint)
    assert engine["graph_unchanged"]
    assert engine["fingerprint"] in printed.err


def test_inspect_shows_the_rest_where_a_record_is_damaged(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(Bundle.open(bundle), "junk")
    assert main(["inspect", str(bundle), "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["engines"] == []
    assert "the record of the engines cannot be read" in printed.err
