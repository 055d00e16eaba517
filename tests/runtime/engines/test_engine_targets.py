"""What `build` refuses before it begins: targets, stages, dialects, libraries and GPUs that are not there."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest
from bundle_factory import write_bundle

from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.cli import main
from sottovoce.runtime.engines import library
from sottovoce.runtime.engines.library import load_library, target_gpu
from sottovoce.runtime.engines.refusals import check_target
from sottovoce.runtime.engines.targets import TARGETS, target_named
from sottovoce.runtime.errors import BackendError, BundleError, InputError
from sottovoce.runtime.manifest import STAGES


def files_of(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--target", "rtx-9.9"], "rtx-8.9"),
        (["--target", "rtx-8.9", "--stage", "hearing"], "audio_encoder"),
        ([], "--target"),
    ],
)
def test_wrong_words_are_answered_with_the_right_ones(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", str(write_bundle(tmp_path / "b")), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_an_unknown_target_lists_those_there_are() -> None:
    with pytest.raises(InputError, match="unknown target 'cuda'") as problem:
        target_named("cuda")
    assert all(name in str(problem.value.fix) for name in TARGETS)


@pytest.mark.parametrize("target", ["rtx-8.9", "local", "jetpack6"])
def test_a_dialect_that_cannot_be_parsed_is_refused_with_the_export_that_can(
    target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def spell(record: dict) -> None:
        record["graphs"]["language_model"]["dialect"] = "cpu"

    folder = write_bundle(tmp_path / "b", spell)
    before = files_of(folder)
    assert main(["build", str(folder), "--target", target, "--json"]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert "'language_model' is spelled in the dialect 'cpu'" in error["message"]
    wanted = "jetpack6" if target == "jetpack6" else "tensorrt"
    assert f"sottovoce export CHECKPOINT -o BUNDLE2 --target {wanted}" in error["fix"]
    assert files_of(folder) == before


def test_an_int8_cache_is_refused_where_the_library_cannot_write_one(tmp_path: Path) -> None:
    def shrink(record: dict) -> None:
        record["graphs"]["speech_codes"]["cache"]["dtype"] = "int8"

    bundle = Bundle.open(write_bundle(tmp_path / "b", shrink))
    with pytest.raises(BundleError, match="cannot take graph 'speech_codes': its KV cache is int8"):
        check_target(bundle, TARGETS["rtx-8.9"], STAGES)
    check_target(bundle, TARGETS["rtx-8.9"], ("codec", "language_model"))


@pytest.mark.parametrize("target", ["local", "jetpack7"])
def test_a_machine_without_tensorrt_is_told_what_to_install(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    folder = write_bundle(tmp_path / "b")
    before = files_of(folder)
    assert main(["build", str(folder), "--target", target]) == 1
    said = capsys.readouterr().err
    assert "TensorRT (Python module 'tensorrt') is not installed" in said
    assert "Traceback" not in said
    assert "fix: " in said
    assert files_of(folder) == before


def test_a_stub_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt.py").write_text("raise RuntimeError('libnvinfer.so.10: cannot open shared object file')")
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(BackendError, match=r"'tensorrt' is installed, but cannot be imported.*libnvinfer"):
        load_library("tensorrt")


def stand_in(version: str | None) -> types.ModuleType:
    module = types.ModuleType("tensorrt")
    module.Builder = object  # type: ignore[attr-defined]
    if version is not None:
        module.__version__ = version  # type: ignore[attr-defined]
    return module


@pytest.mark.parametrize("version", ["8.6.1", "10.0.1", "10.2.0.post1"])
def test_an_old_library_is_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in(version))
    with pytest.raises(BackendError, match=rf"TensorRT {version} is too old: 10.3 or later"):
        load_library("tensorrt")


@pytest.mark.parametrize("version", ["10.3.0", "10.13.3.9", "11.0.0"])
def test_a_new_library_is_taken(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in(version))
    assert load_library("tensorrt").version == version


def test_a_module_of_that_name_that_is_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in(None))
    with pytest.raises(BackendError, match="is not TensorRT"):
        load_library("tensorrt")


def test_a_library_without_a_gpu_cannot_build_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in("10.13.3"))
    monkeypatch.setattr(library, "find_gpu", lambda: None)
    assert main(["build", str(write_bundle(tmp_path / "b")), "--target", "local"]) == 1
    assert "no NVIDIA GPU with a driver was found" in capsys.readouterr().err
    assert target_gpu(TARGETS["rtx-8.6"]) == "8.6"
