"""Damaged, incomplete and hostile checkpoints: a clear refusal that names the file, and nothing else happens."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_factory import CheckpointRecipe, static_chunks_config, write_checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from sottovoce.export.checkpoint.reader import Checkpoint
from sottovoce.export.checkpoint.safetensors_shards import read_header
from sottovoce.runtime.errors import CheckpointError

INDEX = "model.safetensors.index.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
DECODER, CODEC = Path("vita_tts_ckpt/decoder/final.pt"), Path("vita_tts_ckpt/codec/final.pt")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("template"))


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "checkpoint"))


@pytest.fixture
def single(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "checkpoint", CheckpointRecipe(shards=1))


def refusal(folder: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(folder)
    assert caught.value.file is not None
    return caught.value


def rewrite(path: Path, **changes: torch.Tensor | None) -> None:
    """Replace tensors of a safetensors file by name (dots as double underscores); None removes one."""
    tensors = load_file(path)
    for name, tensor in changes.items():
        key = name.replace("__", ".")
        tensors.pop(key, None)
        if tensor is not None:
            tensors[key] = tensor
    save_file(tensors, path)


def test_missing_shard(folder: Path) -> None:
    (folder / SECOND).unlink()
    problem = refusal(folder)
    assert problem.file == str(folder / SECOND)
    assert "missing" in problem.message
    assert "download" in (problem.fix or "")


def test_truncated_shard_tells_both_sizes(folder: Path) -> None:
    size = (folder / FIRST).stat().st_size
    with (folder / FIRST).open("ab") as file:
        file.truncate(size - 1000)
    problem = refusal(folder)
    assert problem.file == str(folder / FIRST)
    assert str(size) in problem.message
    assert str(size - 1000) in problem.message


def test_shard_with_bytes_behind_its_tensors(folder: Path) -> None:
    with (folder / FIRST).open("ab") as file:
        file.write(b"more")
    assert refusal(folder).file == str(folder / FIRST)


def test_tensors_that_share_bytes(single: Path) -> None:
    path = single / "model.safetensors"
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    entries = json.loads(content[8 : 8 + length])
    norms = [name for name, entry in entries.items() if "norm" in name and entry["shape"] == [96]]
    entries[norms[0]]["data_offsets"] = entries[norms[1]]["data_offsets"]
    path.write_bytes(header(entries, content[8 + length :]))
    assert refusal(single).file == str(path)


def test_extra_shard(folder: Path) -> None:
    shutil.copy(folder / FIRST, folder / "model-00003-of-00003.safetensors")
    assert "model-00003-of-00003.safetensors" in refusal(folder).message


def test_shards_without_their_index(folder: Path) -> None:
    (folder / INDEX).unlink()
    assert refusal(folder).file == str(folder / INDEX)


def test_no_weights_at_all(single: Path) -> None:
    (single / "model.safetensors").unlink()
    assert "no weights" in refusal(single).message
    (single / "pytorch_model.bin").write_bytes(b"")
    problem = refusal(single)
    assert "pytorch_model.bin" in problem.message
    assert "safetensors" in (problem.fix or "")


def test_index_names_a_tensor_that_the_shard_lacks(folder: Path) -> None:
    index = json.loads((folder / INDEX).read_text())
    name = next(name for name, shard in index["weight_map"].items() if shard == FIRST)
    index["weight_map"][name] = SECOND
    (folder / INDEX).write_text(json.dumps(index))
    problem = refusal(folder)
    assert name in problem.message
    assert problem.file == str(folder / SECOND)
    assert FIRST in problem.message


def test_tensor_in_two_shards(folder: Path) -> None:
    tensors = load_file(folder / FIRST)
    name = next(iter(tensors))
    save_file(load_file(folder / SECOND) | {name: tensors[name]}, folder / SECOND)
    problem = refusal(folder)
    assert name in problem.message
    assert FIRST in problem.message


def test_shard_holds_a_tensor_that_the_index_does_not_list(folder: Path) -> None:
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"].pop("model.norm.weight")
    (folder / INDEX).write_text(json.dumps(index))
    assert "model.norm.weight" in refusal(folder).message


@pytest.mark.parametrize("shard", ["../outside.safetensors", "/etc/passwd", "sub/model.safetensors", 3, "model.bin"])
def test_index_cannot_point_outside(folder: Path, shard: object) -> None:
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["model.norm.weight"] = shard
    (folder / INDEX).write_text(json.dumps(index))
    problem = refusal(folder)
    assert problem.file == str(folder / INDEX)
    assert "model.norm.weight" in problem.message


def test_wrong_shape_tells_both(single: Path) -> None:
    rewrite(single / "model.safetensors", model__norm__weight=torch.ones(97))
    problem = refusal(single)
    assert "'model.norm.weight' has shape [97], expected [96]" in problem.message
    assert problem.file == str(single / "model.safetensors")


def test_many_wrong_shapes_are_summarised(single: Path) -> None:
    settings_file = single / "config.json"
    changed = json.loads(settings_file.read_text()) | {"intermediate_size": 161}
    settings_file.write_text(json.dumps(changed))
    problem = refusal(single)
    assert "6 tensors do not fit" in problem.message
    assert "and 3 more" in problem.message


def test_missing_and_unexpected_tensors_are_named(single: Path) -> None:
    rewrite(single / "model.safetensors", model__norm__weight=None, model__norm__gamma=torch.ones(96))
    problem = refusal(single)
    assert "1 tensor is missing: 'model.norm.weight' [96]" in problem.message
    assert "1 tensor is unexpected: 'model.norm.gamma'" in problem.message


def test_more_layers_than_configured_are_unexpected(single: Path) -> None:
    settings_file = single / "config.json"
    changed = json.loads(settings_file.read_text()) | {"num_hidden_layers": 1}
    settings_file.write_text(json.dumps(changed))
    problem = refusal(single)
    assert "12 tensors are unexpected" in problem.message
    assert "and 9 more" in problem.message


@pytest.mark.parametrize("dtype", [torch.int8, torch.float64, torch.float8_e4m3fn])
def test_other_types_are_refused(single: Path, dtype: torch.dtype) -> None:
    rewrite(single / "model.safetensors", model__norm__weight=torch.ones(96).to(dtype))
    problem = refusal(single)
    assert "'model.norm.weight' is stored as" in problem.message
    assert "bfloat16" in problem.message


def test_missing_tensors_of_final_pt(folder: Path) -> None:
    state = torch.load(folder / DECODER, weights_only=True)
    state["model"].pop("out_fnn.bias")
    state["model"]["layers.0.extra"] = torch.ones(1)
    torch.save(state, folder / DECODER)
    problem = refusal(folder)
    assert "'out_fnn.bias' [52]" in problem.message
    assert "'layers.0.extra'" in problem.message
    assert problem.file == str(folder / DECODER)


def test_codec_without_a_part(folder: Path) -> None:
    state = torch.load(folder / CODEC, weights_only=True)
    torch.save({"generator": state["generator"]}, folder / CODEC)
    assert "no part 'quantizer'" in refusal(folder).message


@pytest.mark.parametrize("path", [DECODER, CODEC])
def test_missing_pt(folder: Path, path: Path) -> None:
    (folder / path).unlink()
    assert refusal(folder).file == str(folder / path)


class Payload:
    """Unpickled by a careless reader, it makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("path", [DECODER, CODEC])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(folder: Path, path: Path, legacy: bool) -> None:
    target = folder / "owned"
    content = {"model": Payload(target), "generator": Payload(target), "quantizer": {}}
    torch.save(content, folder / path, _use_new_zipfile_serialization=not legacy)
    problem = refusal(folder)
    assert not target.exists()
    assert problem.file == str(folder / path)
    assert "contains code" in problem.message
    assert "do not use this file" in (problem.fix or "")


def test_a_bare_pickle_is_refused_and_does_not_run(folder: Path) -> None:
    (folder / DECODER).write_bytes(pickle.dumps(Payload(folder / "owned"), protocol=2))
    refusal(folder)
    assert not (folder / "owned").exists()


def test_older_format_of_pt_is_read(folder: Path) -> None:
    state = torch.load(folder / DECODER, weights_only=True)
    torch.save(state, folder / DECODER, _use_new_zipfile_serialization=False)
    found = Checkpoint.open(folder).component_state("speech_decoder")
    assert torch.equal(found["norm.weight"], state["model"]["norm.weight"])


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"PK\x03\x04 cut short", b"\x80\x02K\x01."])
def test_pt_files_that_are_not(folder: Path, content: bytes) -> None:
    (folder / DECODER).write_bytes(content)
    assert refusal(folder).file == str(folder / DECODER)


def test_truncated_pt(folder: Path) -> None:
    with (folder / CODEC).open("ab") as file:
        file.truncate((folder / CODEC).stat().st_size // 2)
    assert refusal(folder).file == str(folder / CODEC)


def test_compressed_pt_is_not_unpacked(folder: Path) -> None:
    with zipfile.ZipFile(folder / DECODER) as source:
        members = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(folder / DECODER, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    assert "compressed" in refusal(folder).message


def test_pt_with_other_values_than_tensors(folder: Path) -> None:
    state = torch.load(folder / DECODER, weights_only=True)["model"]
    torch.save(state | {"note": "hello"}, folder / DECODER)
    assert "'note'" in refusal(folder).message or "note is a str" in refusal(folder).message


def test_tokenizer_missing_damaged_or_of_another_model(folder: Path) -> None:
    path = folder / "tokenizer.json"
    whole = json.loads(path.read_text())
    path.unlink()
    assert "missing" in refusal(folder).message
    path.write_text("{}")
    assert refusal(folder).file == str(path)
    path.write_text(
        json.dumps(whole | {"added_tokens": [t for t in whole["added_tokens"] if "im_" not in t["content"]]})
    )
    assert "<|im_start|>" in refusal(folder).message
    far = dict(whole["added_tokens"][-1], id=640, content="<|beyond|>")
    path.write_text(json.dumps(whole | {"added_tokens": [*whole["added_tokens"], far]}))


def test_vocabulary_larger_than_the_embeddings(folder: Path) -> None:
    settings_file = folder / "config.json"
    settings_file.write_text(json.dumps(json.loads(settings_file.read_text()) | {"vocab_size": 556}))
    problem = refusal(folder)
    assert problem.file == str(folder / "tokenizer.json")
    assert "below 556" in problem.message


def cmvn(mean: float = 1.0, bins: int = 80, frames: int = 1) -> str:
    return json.dumps({"mean_stat": [mean] * bins, "var_stat": [1.0] * bins, "frame_num": frames})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "is_json_cmvn"),
        (cmvn(bins=1), "expected 80"),
        (cmvn(frames=0), "frame count"),
        (cmvn(mean=float("nan")), "not finite"),
        ("[ 1 2 3 ]", "is not JSON"),
    ],
)
def test_damaged_cmvn(tmp_path: Path, text: str, words: str) -> None:
    folder = write_checkpoint(tmp_path, CheckpointRecipe(cmvn_in_main=False))
    (folder / "audio-encoder-small" / "global_cmvn").write_text(text)
    problem = refusal(folder)
    assert problem.file == str(folder / "audio-encoder-small" / "global_cmvn")
    assert words in str(problem)


@pytest.mark.parametrize("text", ["", "{}", "[ 1 2 0 ]", "[ x y 1 1 1 0 ]", "\0B binary"])
def test_damaged_kaldi_cmvn(tmp_path: Path, text: str) -> None:
    recipe = CheckpointRecipe(static_chunks_config(), cmvn_in_main=False, cmvn_format="kaldi")
    folder = write_checkpoint(tmp_path, recipe)
    path = folder / "audio-encoder-small" / "global_cmvn"
    path.write_text(text)
    assert refusal(folder).file == str(path)
    path.unlink()
    assert "missing" in refusal(folder).message


def header(entries: dict[str, Any], data: bytes = b"") -> bytes:
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\1\2\3",
        (1 << 60).to_bytes(8, "little") + b"{}",
        (200 << 20).to_bytes(8, "little") + b" " * 64,
        (2).to_bytes(8, "little") + b"[]",
        (4).to_bytes(8, "little") + b"\xff\xff\xff\xff",
        header({"a": 3}),
        header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"1234"),
        header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"1234"),
        header({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4 << 40]}}, b"1234"),
        header({"a": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 4]}}, b"1234"),
        header({"a": {"dtype": 5, "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
    ],
)
def test_malformed_headers(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    assert caught.value.file == str(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_to_a_header_is_refused_or_harmless(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(3), "b": torch.zeros(2, 2)}, path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    with contextlib.suppress(CheckpointError):  # any other exception fails the test
        tensors = read_header(path)
        assert all(stored.file == path for stored in tensors.values())
