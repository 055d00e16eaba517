"""A bundle is opened if it is whole and understood, and refused by name otherwise."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from bundle_factory import write_bundle

from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.errors import BundleError


def refused(folder: Path, *, says: str, names: str = "bundle.json", **options) -> BundleError:
    with pytest.raises(BundleError, match=says) as caught:
        Bundle.open(folder, **options)
    assert Path(caught.value.file).name == names
    assert caught.value.fix
    return caught.value


def test_a_whole_bundle_is_opened(tmp_path):
    bundle = Bundle.open(write_bundle(tmp_path))
    assert bundle.graph("codec").file == "graphs/codec.onnx"
    assert bundle.file("graphs/codec.onnx").read_bytes() == b"graph of codec"
    tables = 16 * 8 * 4 + 12 * 4 * 4
    graphs = sum(len(f"graph of {stage}weights of {stage}") for stage in bundle.manifest.graphs)
    assert bundle.weights_bytes == tables + graphs


def test_hashing_tells_how_far_it_is(tmp_path):
    steps: list[tuple[int, int]] = []

    class Steps:
        def step(self, label: str, done: int, total: int) -> None:
            steps.append((done, total))

    Bundle.open(write_bundle(tmp_path), progress=Steps())
    assert steps[-1][0] == steps[-1][1] > 0
    assert sorted(steps) == steps


def test_no_folder(tmp_path):
    refused(tmp_path / "nowhere", says="no such folder", names="nowhere")


def test_a_file_is_no_bundle(tmp_path):
    (tmp_path / "weights.zip").write_bytes(b"")
    refused(tmp_path / "weights.zip", says="a file, not a folder", names="weights.zip")


def test_a_folder_without_manifest(tmp_path):
    refused(tmp_path, says=r"holds no bundle\.json", names=tmp_path.name)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000])
def test_a_manifest_that_is_no_json_object(tmp_path, text):
    (tmp_path / "bundle.json").write_text(text)
    refused(tmp_path, says=r"not JSON|expected an object")


def test_a_manifest_of_absurd_size_is_not_read(tmp_path):
    with (tmp_path / "bundle.json").open("wb") as file:
        file.truncate(1 << 30)
    refused(tmp_path, says="1073741824 bytes")


@pytest.mark.parametrize("version", [2, 0, "1", None, True, 1.5])
def test_another_format_version(tmp_path, version):
    folder = write_bundle(tmp_path, lambda record: record.update(format_version=version))
    refused(folder, says="reads version 1")


def test_the_version_is_looked_at_first(tmp_path):
    (tmp_path / "bundle.json").write_text(json.dumps({"format_version": 7, "surprise": 1}))
    refused(tmp_path, says="format_version is 7")


def test_another_family(tmp_path):
    folder = write_bundle(tmp_path, lambda record: record.update(model_family="vita-2"))
    refused(folder, says="'vita-2'")


def test_an_unknown_key_is_named_and_guessed(tmp_path):
    folder = write_bundle(tmp_path, lambda record: record["speech"].update(sampel_rate=1))
    refused(folder, says=r"speech\.sampel_rate.*did you mean 'sample_rate'")


def test_a_missing_graph(tmp_path):
    folder = write_bundle(tmp_path, lambda record: record["graphs"].pop("codec"))
    refused(folder, says="missing.*codec")


def test_an_unknown_graph(tmp_path):
    folder = write_bundle(tmp_path, lambda record: record["graphs"].update(dance=record["graphs"]["codec"]))
    refused(folder, says="not known.*dance")


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "graphs/../../secret", "a\\..\\b", "C:/x", "", "..", "graphs/\0x"]
)
def test_a_path_that_leaves_the_bundle(tmp_path, name):
    def edit(record):
        record["files"][name] = {"bytes": 0, "sha256": "0"}

    refused(write_bundle(tmp_path / "bundle", edit), says="leaves the bundle")


def test_a_link_that_leaves_the_bundle(tmp_path):
    folder = write_bundle(tmp_path / "bundle")
    graph = folder / "graphs" / "codec.onnx"
    outside = tmp_path / "outside.onnx"
    graph.rename(outside)
    os.symlink(outside, graph)
    refused(folder, says="'graphs/codec.onnx' leaves the bundle")


def test_a_bundle_reached_by_a_link_is_fine(tmp_path):
    write_bundle(tmp_path / "bundle")
    os.symlink(tmp_path / "bundle", tmp_path / "link")
    assert Bundle.open(tmp_path / "link").manifest.tokenizer == "tokenizer.json"


def test_a_missing_file(tmp_path):
    folder = write_bundle(tmp_path)
    (folder / "graphs" / "codec.onnx.data").unlink()
    refused(folder, says="missing", names="codec.onnx.data")


def test_a_truncated_file_is_found_without_hashing(tmp_path):
    folder = write_bundle(tmp_path)
    (folder / "graphs" / "codec.onnx.data").write_bytes(b"w")
    refused(folder, says="1 bytes, the manifest says 16", names="codec.onnx.data", verify_hashes=False)


def test_a_changed_file_is_found_by_its_hash(tmp_path):
    folder = write_bundle(tmp_path)
    (folder / "graphs" / "codec.onnx.data").write_bytes(b"Weights of codec")
    refused(folder, says="SHA-256", names="codec.onnx.data")
    Bundle.open(folder, verify_hashes=False)


def test_a_used_file_must_be_listed(tmp_path):
    folder = write_bundle(tmp_path, lambda record: record["files"].pop("graphs/codec.onnx"))
    refused(folder, says=r"'graphs/codec.onnx' is used but has no entry")


def test_a_stage_without_its_tensor(tmp_path):
    def edit(record):
        record["graphs"]["codec"]["inputs"][0]["role"] = "notes"

    refused(write_bundle(tmp_path, edit), says="inputs of graph 'codec'.*missing.*codes.*not known.*notes")


def test_a_cache_with_too_few_buffers(tmp_path):
    def edit(record):
        record["graphs"]["language_model"]["cache"]["layers"] = 2

    refused(write_bundle(tmp_path, edit), says=r"language_model.*past_key\.1")


def test_a_decoder_without_cache(tmp_path):
    folder = write_bundle(tmp_path, lambda record: record["graphs"]["speech_codes"].update(cache=None))
    refused(folder, says="'speech_codes' must have a cache")


def test_the_same_name_twice(tmp_path):
    def edit(record):
        record["graphs"]["language_model"]["inputs"][1]["name"] = "embeddings"

    refused(write_bundle(tmp_path, edit), says="same name twice")


def test_a_table_of_another_size(tmp_path):
    folder = write_bundle(tmp_path, lambda record: record["token_embeddings"].update(rows=17))
    refused(folder, says="token_embeddings.*512 bytes.*544")


@pytest.mark.parametrize(
    ("section", "key", "value", "says"),
    [
        ("speech", "frame_width", 3, "divide"),
        ("speech", "start_id", 12, "rows of code_embeddings"),
        ("speech", "samples_per_code", 0, "positive"),
        ("generation", "stop_ids", [], "stop_ids"),
        ("generation", "context_length", 0, "positive"),
    ],
)
def test_settings_that_cannot_be(tmp_path, section, key, value, says):
    refused(write_bundle(tmp_path, lambda record: record[section].update({key: value})), says=says)


def with_stream(record, **stream):
    """An audio encoder that streams, as its exporter describes it, with some numbers changed."""
    graph = record["graphs"]["audio_encoder"]
    numbers = {
        "stride_frames": 4, "receptive_frames": 7, "step_frames": 2, "first_step_frames": 6, "visible_frames": 32,
        "first_tail_frames": 0, "padding_frames": 4, "prompt_tokens": 0,
    }  # fmt: skip
    graph["stream"] = {**numbers, **stream}
    state = {"keys": [6, 4, "past", 64], "key_biases": [6, 4, "past", 1], "values": [6, 4, "past", 64]}
    for time, tensors in (("past", graph["inputs"]), ("present", graph["outputs"])):
        for kind, shape in {**state, "frames": [1, "tail", 256]}.items():
            tensors.append({"role": f"{time}_{kind}", "name": f"{time}_{kind}", "dtype": "float32", "shape": shape})
    graph["inputs"].append({"role": "position", "name": "position", "dtype": "int64", "shape": [1]})
    graph["inputs"].append({"role": "padding", "name": "padding", "dtype": "float32", "shape": [1, "padding", 256]})
    return {tensor["role"]: tensor for tensor in (*graph["inputs"], *graph["outputs"])}


def test_a_stream_that_fits_its_graph(tmp_path):
    stream = Bundle.open(write_bundle(tmp_path, with_stream)).graph("audio_encoder").stream
    assert stream is not None
    assert (stream.step_frames, stream.visible_frames) == (2, 32)


def test_a_bundle_from_before_there_were_streams(tmp_path):
    def edit(record):
        for graph in record["graphs"].values():
            del graph["stream"]

    assert Bundle.open(write_bundle(tmp_path, edit)).graph("audio_encoder").stream is None


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ({"stride_frames": 0}, r"stride_frames \(0\) must be from 1 to receptive_frames"),
        ({"receptive_frames": 8}, r"receptive_frames \(8\) must be audio.min_frames \(7\)"),
        ({"step_frames": 0}, r"step_frames \(0\) must be positive"),
        ({"first_step_frames": 5}, r"first_step_frames \(5\) a multiple"),
        ({"visible_frames": -1}, r"visible_frames \(-1\) must not be negative"),
        ({"first_tail_frames": -1}, r"first_tail_frames \(-1\) must not be negative"),
        ({"padding_frames": -4}, r"padding_frames \(-4\) must not be negative"),
        ({"prompt_tokens": 3}, r"prompt_tokens \(3\) must be audio.prompt_tokens \(0\)"),
        ({"padding_frames": 0}, "inputs of graph 'audio_encoder'.*not known.*padding"),
        ({"first_tail_frames": None}, "inputs of graph 'audio_encoder'.*not known.*past_frames"),
    ],
)
def test_a_stream_whose_numbers_do_not_fit(tmp_path, numbers, says):
    refused(write_bundle(tmp_path, lambda record: with_stream(record, **numbers)), says=says)


@pytest.mark.parametrize(
    ("role", "change", "says"),
    [
        ("past_keys", {"dtype": "float16"}, r"'past_keys' is float16 .*, expected float32"),
        ("past_keys", {"shape": [6, 4, 32, 64]}, r"'past_keys' is float32 \(6, 4, 32, 64\), expected .*symbol"),
        ("past_values", {"shape": [6, "heads", "past", 64]}, "'past_values' is float32"),
        ("present_keys", {"shape": [6, 4, "past", 32]}, r"'present_keys' is \(6, 4, 'past', 32\), which 'past_keys'"),
        ("present_values", {"dtype": "float16"}, "'present_values'.*cannot take"),
        ("past_frames", {"shape": [1, 256]}, "'past_frames' is float32"),
        ("past_frames", {"shape": [1, 3, 256]}, "'past_frames' is float32"),
        ("padding", {"shape": [1, 4, 256]}, "'padding' is float32.*symbol"),
        ("position", {"dtype": "float32"}, "'position' is float32"),
        ("position", {"shape": []}, "'position' is int64"),
        ("past_key_biases", {"role": "past_biases"}, "missing.*past_key_biases.*not known.*past_biases"),
    ],
)
def test_a_stream_whose_tensors_do_not_fit(tmp_path, role, change, says):
    refused(write_bundle(tmp_path, lambda record: with_stream(record)[role].update(change)), says=says)


def test_only_an_audio_encoder_streams(tmp_path):
    def edit(record):
        with_stream(record)
        record["graphs"]["codec"]["stream"] = record["graphs"]["audio_encoder"]["stream"]

    refused(write_bundle(tmp_path, edit), says="graph 'codec' has a stream; only 'audio_encoder' may")
