"""Engines built from the tiny bundle for a GPU that is not here, kept, built again when they must be, or not at all."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sealing import seal

from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.cli import main
from sottovoce.runtime.engines import build as build_module
from sottovoce.runtime.engines import engine_builder, engine_files
from sottovoce.runtime.engines.build import BuildOptions, BuiltEngine, TargetBuild, build_engines
from sottovoce.runtime.engines.library import EngineLibrary, load_library
from sottovoce.runtime.engines.matching import MatchedEngine, checked_bytes
from sottovoce.runtime.engines.record import read_engines
from sottovoce.runtime.engines.targets import TARGETS
from sottovoce.runtime.errors import BackendError, BundleError
from sottovoce.runtime.hashing import file_sha256
from sottovoce.runtime.manifest import STAGES, StageName

pytestmark = pytest.mark.usefixtures("rtx")
TARGET = "rtx-8.9"
SMALL: tuple[StageName, ...] = ("speech_text",)
"""The stage whose engine is built soonest."""
MAX_OVERHEAD_BYTES = 30_000_000


def build_small(bundle: Path, **changes: Any) -> BuiltEngine:
    [engine] = build_engines(Bundle.open(bundle), [TARGET], BuildOptions(stages=SMALL, **changes))
    return engine


def engine_path(bundle: Path, engine: BuiltEngine) -> Path:
    return bundle / "engines" / TARGET / engine.record.file


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_six_engines_once(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: file_sha256(path) for path in bundle.rglob("*") if path.is_file()}
    assert main(["build", str(bundle), "--target", TARGET, "--json"]) == 0
    printed = capsys.readouterr()
    engines = json.loads(printed.out)["engines"]
    assert [engine["stage"] for engine in engines] == list(STAGES)
    for engine in engines:
        path = Path(engine["file"])
        assert (engine["target"], engine["cached"], engine["sha256"]) == (TARGET, False, file_sha256(path))
        assert engine["bytes"] == path.stat().st_size <= 1.1 * engine["weights_bytes"] + MAX_OVERHEAD_BYTES
        assert engine["report"]["products"] > 0
        assert engine["report"]["layers"] > 0
        assert engine["report"]["int8_multiply_adds_share"] == 0
        assert engine["stage"] in printed.err
    assert {path: file_sha256(path) for path in before} == before

    started = time.process_time()  # this process's own: the machine may be busy
    assert main(["build", str(bundle), "--target", TARGET, "--json"]) == 0
    seconds = time.process_time() - started
    again = json.loads(capsys.readouterr().out)["engines"]
    assert [{**engine, "cached": True} for engine in engines] == again
    assert seconds < 2


def overwrite(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def cut(path: Path) -> None:
    os.truncate(path, 100)


def test_what_was_damaged_is_built_again_and_nothing_is_left_over(bundle: Path) -> None:
    path = engine_path(bundle, build_small(bundle))
    for damage in (overwrite, cut, Path.unlink):
        damage(path)
        repaired = build_small(bundle)
        path = engine_path(bundle, repaired)
        assert not repaired.cached
        assert file_sha256(path) == repaired.record.sha256
        assert [found.name for found in path.parent.glob("*.engine")] == [path.name]
    assert build_small(bundle).cached
    assert not build_small(bundle, force=True).cached
    assert sorted(files_of(bundle / "engines")) == sorted(
        [TARGET, f"{TARGET}/engines.json", f"{TARGET}/{engine_path(bundle, build_small(bundle)).name}"]
    )


def test_what_nobody_touched_is_not_read_again(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines of a 7B model are gigabytes, and hashing one takes seconds."""
    first = build_small(bundle)
    read: list[Path] = []
    monkeypatch.setattr(engine_files, "file_sha256", lambda path: read.append(path) or file_sha256(path))
    assert build_small(bundle) == replace(first, cached=True)
    assert read == []


def test_a_copied_engine_is_read_once(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = engine_path(bundle, build_small(bundle))
    before = path.stat().st_mtime_ns
    os.utime(path, ns=(0, before + 1_000_000_000))
    read: list[Path] = []
    monkeypatch.setattr(engine_files, "file_sha256", lambda found: read.append(found) or file_sha256(found))
    for _ in range(2):
        assert build_small(bundle).cached
    assert read == [path]
    assert read_engines(Bundle.open(bundle), TARGET).engines["speech_text"].modified_ns == before + 1_000_000_000


def test_a_copy_that_cannot_be_written_is_cached_all_the_same(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.utime(engine_path(bundle, build_small(bundle)))

    def read_only(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(engine_files.EngineFolderWriter, "__enter__", read_only)
    assert build_small(bundle).cached


def test_what_changed_behind_an_old_time_is_refused_where_it_is_loaded(bundle: Path) -> None:
    """`build` believes size and time; nobody hands an engine to the library who has not compared its hash."""
    path = engine_path(bundle, build_small(bundle))
    time_before = path.stat().st_mtime_ns
    overwrite(path)
    os.utime(path, ns=(time_before, time_before))
    cached = build_small(bundle)
    assert cached.cached
    with pytest.raises(BundleError, match="was changed or damaged") as problem:
        checked_bytes(MatchedEngine(TARGET, path, cached.record))
    assert problem.value.fix == f"build the engines again: sottovoce build BUNDLE --target {TARGET} --force"
    rebuilt = build_small(bundle, force=True)
    assert checked_bytes(MatchedEngine(TARGET, engine_path(bundle, rebuilt), rebuilt.record))


def test_a_record_that_is_junk_is_replaced(bundle: Path) -> None:
    build_small(bundle)
    (bundle / "engines" / TARGET / "engines.json").write_text("junk")
    assert not build_small(bundle).cached
    assert build_small(bundle).cached


def test_the_fingerprint_is_of_graph_library_and_settings(bundle: Path) -> None:
    def target_build(folder: Path, library: EngineLibrary, options: BuildOptions) -> TargetBuild:
        return TargetBuild(Bundle.open(folder), TARGETS[TARGET], library, "8.9", options)

    library, options = load_library("tensorrt_rtx"), BuildOptions()
    first = target_build(bundle, library, options).fingerprint("language_model")
    assert target_build(bundle, library, options).fingerprint("language_model") == first
    others = [
        target_build(bundle, replace(library, version="1.8.0"), options),
        target_build(bundle, library, BuildOptions(max_prompt=64)),
        target_build(bundle, library, BuildOptions(workspace_mb=64)),
        replace(target_build(bundle, library, options), compute_capability="8.6"),
    ]
    spec = Bundle.open(bundle).graph("language_model")
    weights = bundle / spec.data[0]
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    seal(bundle, {"language_model": spec})
    others.append(target_build(bundle, library, options))
    found = [other.fingerprint("language_model") for other in others]
    assert all(fingerprint != first for fingerprint in found)
    assert len({str(fingerprint) for fingerprint in found}) == len(found)


def test_other_stages_engines_stay(bundle: Path) -> None:
    first = build_small(bundle)
    build_engines(Bundle.open(bundle), [TARGET], BuildOptions(stages=("codec",), workspace_mb=512))
    engines = read_engines(Bundle.open(bundle), TARGET).engines
    assert set(engines) == {"speech_text", "codec"}
    assert engines["speech_text"] == first.record
    assert engines["codec"].fingerprint.settings.workspace_bytes == 512 << 20
    assert build_small(bundle).cached


@pytest.mark.parametrize("stop", [KeyboardInterrupt, BackendError("no"), OSError(28, "No space left on device")])
def test_a_build_that_is_stopped_leaves_what_was_there(
    stop: BaseException, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_of(bundle)
    built = []
    real = build_module.build_engine

    def stopping(*arguments: Any) -> Any:
        if built:
            raise stop
        built.append(1)
        return real(*arguments)

    monkeypatch.setattr(build_module, "build_engine", stopping)
    with pytest.raises(stop if isinstance(stop, type) else type(stop)):
        build_engines(Bundle.open(bundle), [TARGET], BuildOptions(stages=("speech_text", "codec")))
    assert built
    assert files_of(bundle) == before


def test_what_a_killed_build_left_is_removed(bundle: Path) -> None:
    left = bundle / "engines" / TARGET / ".building-4194999"
    left.mkdir(parents=True)
    (left / "codec").write_bytes(b"half")
    build_small(bundle)
    assert not left.exists()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Error Code 2: OutOfMemory (Requested size was 34359738368 bytes.)", "out of memory while building stage"),
        (
            "Error Code 10: Could not find any implementation for node head",
            "cannot build stage 'speech_text'.*node head",
        ),
        ("", "the builder gave no reason"),
    ],
)
def test_a_builder_that_gives_nothing_is_quoted(
    said: str, expected: str, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = engine_builder.parse_graph

    class Failing:
        def __init__(self, builder: Any) -> None:
            self.builder = builder

        def __getattr__(self, name: str) -> Any:
            return getattr(self.builder, name)

        def build_serialized_network(self, network: Any, config: Any) -> None:
            del network, config

    def parse(*arguments: Any) -> Any:
        parsed = real(*arguments)
        parsed.log.add(1, said)
        return replace(parsed, builder=Failing(parsed.builder))

    monkeypatch.setattr(engine_builder, "parse_graph", parse)
    before = files_of(bundle)
    with pytest.raises(BackendError, match=expected) as problem:
        build_small(bundle)
    assert "--workspace-mb" in str(problem.value.fix)
    assert files_of(bundle) == before


def test_a_graph_that_cannot_be_parsed_is_named(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = Bundle.open(bundle).graph("codec")
    (bundle / spec.file).write_bytes(b"not a graph")
    seal(bundle, {"codec": spec})
    assert main(["build", str(bundle), "--target", TARGET, "--stage", "codec", "--json"]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert "cannot parse stage 'codec'" in error["message"]
    assert error["file"] == str(bundle / spec.file)
    assert not (bundle / "engines").exists()


def test_weights_that_were_damaged_are_not_built_from(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = bundle / Bundle.open(bundle).graph("speech_text").data[0]
    changed = bytearray(weights.read_bytes())
    changed[0] ^= 1
    weights.write_bytes(changed)
    assert main(["build", str(bundle), "--target", TARGET, "--stage", "speech_text", "--json"]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["file"] == str(weights)
    assert "SHA-256" in error["message"]
    assert not (bundle / "engines").exists()


def test_a_graph_that_is_not_the_manifests_is_refused(bundle: Path) -> None:
    spec = Bundle.open(bundle).graph("speech_text")
    renamed = replace(spec.outputs[0], name="spoken")
    seal(bundle, {"speech_text": replace(spec, outputs=(renamed,))})
    with pytest.raises(BackendError, match=r"outputs of stage 'speech_text' differ from the manifest: 'conditioned'"):
        build_small(bundle)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["rtx-8.6", "rtx-12.0"])
def test_six_engines_for_other_gpus(target: str, bundle: Path) -> None:
    engines = build_engines(Bundle.open(bundle), [target])
    assert [engine.record.stage for engine in engines] == list(STAGES)
    assert {engine.record.fingerprint.compute_capability for engine in engines} == {target.removeprefix("rtx-")}
