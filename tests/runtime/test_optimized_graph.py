"""Graphs are optimized once and kept: the replies are the same, and what cannot be believed is not used."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from short_bundle import shortened

from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.backends import onnxruntime as backend
from sottovoce.runtime.backends import open_session, optimized_graph
from sottovoce.runtime.backends.optimized_graph import MOST_KEPT, SUFFIX, UNFINISHED_SUFFIX
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.manifest import STAGES
from sottovoce.runtime.model import Model

STAGE = "codec"


@pytest.fixture
def bundle(tiny_bundle, tmp_path) -> Bundle:
    shutil.copytree(tiny_bundle, tmp_path / "tiny.bundle", ignore=shutil.ignore_patterns(f"*{SUFFIX}"))
    return Bundle.open(tmp_path / "tiny.bundle")


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """The names of the graphs that ONNX Runtime is given, as it is given them."""
    names: list[str] = []

    class Noting(onnxruntime.InferenceSession):
        def __init__(self, path: str, *others, **named) -> None:
            names.append(Path(path).name)
            super().__init__(path, *others, **named)

    monkeypatch.setattr(backend.onnxruntime, "InferenceSession", Noting)
    return names


def kept(bundle: Bundle, suffix: str = SUFFIX) -> list[Path]:
    return sorted(bundle.path.rglob(f"*{suffix}"))


def load(bundle: Bundle) -> None:
    open_session(bundle, STAGE, threads=1).close()


def everything_said(bundle: Bundle, golden_dir: Path) -> list[object]:
    with Assistant(Model(shortened(bundle, max_new_tokens=12), threads=1)) as assistant:
        conversation = assistant.conversation(greedy=True)
        asked = conversation.ask(audio=golden_dir / "speech.wav", images=[golden_dir / "picture.png"])
        return [getattr(event, "samples", getattr(event, "text", None)) for event in asked]


@pytest.mark.parametrize("which", ["tiny_bundle", "tiny_half_bundle"])
def test_the_next_start_says_the_same_and_optimizes_nothing(which, request, tmp_path, golden_dir, opened):
    shutil.copytree(
        request.getfixturevalue(which), tmp_path / "one.bundle", ignore=shutil.ignore_patterns(f"*{SUFFIX}")
    )
    bundle = Bundle.open(tmp_path / "one.bundle")
    first = everything_said(bundle, golden_dir)
    assert len(opened) == len(kept(bundle)) == len(STAGES)
    assert not any(name.endswith(SUFFIX) for name in opened)
    opened.clear()
    again = everything_said(bundle, golden_dir)
    assert len(opened) == len(STAGES)
    assert all(name.endswith(SUFFIX) for name in opened)
    assert len(again) == len(first) > 2
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    Bundle.open(bundle.path)  # is still what was exported


def test_weights_that_were_left_as_they_are_stay_where_they_are(bundle):
    load(bundle)
    weights = sum(bundle.file(name).stat().st_size for name in bundle.graph(STAGE).data)
    assert kept(bundle)[0].stat().st_size < weights / 4
    assert kept(bundle)[0].stat().st_mode == bundle.file(bundle.graph(STAGE).file).stat().st_mode


def test_a_bundle_from_elsewhere_brings_none(bundle, tmp_path, opened):
    load(bundle)
    shutil.copytree(bundle.path, tmp_path / "copy.bundle")  # with its times, as an archive would
    copy = Bundle.open(tmp_path / "copy.bundle")
    opened.clear()
    load(copy)
    assert opened == ["codec.onnx"]
    assert len(kept(copy)) == 2


def test_a_graph_that_was_changed_is_optimized_again(bundle, opened):
    load(bundle)
    graph = bundle.file(bundle.graph(STAGE).file)
    before = graph.stat()
    content = graph.read_bytes()
    graph.write_bytes(content)
    os.utime(graph, ns=(before.st_atime_ns, before.st_mtime_ns))  # who changes it may hide that
    opened.clear()
    load(bundle)
    assert opened == ["codec.onnx"]


@pytest.mark.parametrize("damage", ["cut", "link", "another graph"])
def test_what_is_damaged_is_made_anew(bundle, opened, damage):
    load(bundle)
    (path,) = kept(bundle)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "link":
        path.rename(path.with_suffix(".moved"))
        path.symlink_to(path.with_suffix(".moved"))
    else:  # whole, but not what ONNX Runtime can load
        monstrous = b"\x08\x08 this is no graph"
        path.write_bytes(monstrous)
        name = path.name.split(".")
        name[2] = optimized_graph.file_sha256(path)[: len(name[2])]
        path.rename(path.with_name(".".join(name)))
    opened.clear()
    load(bundle)
    assert opened[-1] == "codec.onnx"
    load(bundle)
    opened.clear()
    load(bundle)
    assert opened == [path.name for path in kept(bundle)]


@pytest.mark.parametrize("what", ["config_entries", "processor"])
def test_other_settings_or_another_processor_have_their_own(bundle, opened, monkeypatch, what):
    load(bundle)
    if what == "processor":
        monkeypatch.setattr(optimized_graph, "processor_instructions", lambda: "another one")
    else:
        entries = backend.config_entries
        monkeypatch.setattr(backend, what, lambda spec: {**entries(spec), "session.set_denormal_as_zero": "0"})
    opened.clear()
    load(bundle)
    assert opened == ["codec.onnx"]
    assert len(kept(bundle)) == 2


def test_only_the_newest_stay(bundle, monkeypatch):
    for number in range(MOST_KEPT + 2):
        monkeypatch.setattr(optimized_graph, "processor_instructions", lambda number=number: str(number))
        load(bundle)
        newest = max(kept(bundle), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (number, number))
    assert sorted(path.stat().st_mtime for path in kept(bundle))[-1] == MOST_KEPT + 1
    assert len(kept(bundle)) == MOST_KEPT


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(bundle, opened, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(optimized_graph.tempfile, "mkstemp", refuse)
    load(bundle)
    assert opened == ["codec.onnx"]
    assert not kept(bundle)


def test_a_full_disk_leaves_nothing_behind(bundle, monkeypatch):
    class Full(onnxruntime.InferenceSession):
        def __init__(self, path: str, options: onnxruntime.SessionOptions, **named) -> None:
            if options.optimized_model_filepath:
                Path(options.optimized_model_filepath).write_bytes(b"the beginning")
                raise RuntimeError("no space left on device")
            super().__init__(path, options, **named)

    monkeypatch.setattr(backend.onnxruntime, "InferenceSession", Full)
    load(bundle)
    assert not kept(bundle)
    assert not kept(bundle, UNFINISHED_SUFFIX)


def test_what_a_killed_process_left_is_removed(bundle):
    folder = bundle.file(bundle.graph(STAGE).file).parent
    old, new = (folder / f".{STAGE}.{name}{UNFINISHED_SUFFIX}" for name in ("old", "new"))
    for path in (old, new):
        path.touch()
    os.utime(old, (time.time() - 7200,) * 2)
    load(bundle)
    assert kept(bundle, UNFINISHED_SUFFIX) == [new]


def test_of_large_weights_that_are_widened_nothing_is_kept(tiny_half_bundle, tmp_path, monkeypatch):
    shutil.copytree(tiny_half_bundle, tmp_path / "half.bundle", ignore=shutil.ignore_patterns(f"*{SUFFIX}"))
    bundle = Bundle.open(tmp_path / "half.bundle")
    monkeypatch.setattr(optimized_graph, "MOST_CHANGED_WEIGHTS", 1000)
    load(bundle)
    assert not kept(bundle)


def test_that_there_was_too_much_to_keep_is_known_the_next_time(bundle, opened, monkeypatch):
    monkeypatch.setattr(optimized_graph, "MOST_BYTES", 1000)
    load(bundle)
    assert [path.stat().st_size for path in kept(bundle)] == [0]
    monkeypatch.setattr(optimized_graph.tempfile, "mkstemp", lambda *_: pytest.fail("it is tried again"))
    opened.clear()
    load(bundle)
    assert opened == ["codec.onnx"]
