"""A float32 graph made float16 is what the exporter makes: the same contract, places of float32, and values."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from changed_bundle import change_bundle, change_stage, export_stage, with_stage
from checkpoint_factory import CheckpointRecipe, static_chunks_config, write_checkpoint
from onnx import TensorProto, helper, numpy_helper

from sottovoce.calibration.quantization.graph import StageGraph
from sottovoce.calibration.quantization.half_precision import narrow_floats
from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.backends import open_session
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.errors import SottovoceError
from sottovoce.runtime.manifest import STAGES, GraphSpec, StageName, TensorSpec
from sottovoce.runtime.model import Model
from sottovoce.runtime.stages.decoder import DecoderStage

INPUTS: dict[StageName, str] = {
    "audio_encoder": "audio.fbank",
    "vision_encoder": "image.pixels",
    "language_model": "llm.text.embeddings",
    "speech_text": "speech.text_frames",
    "speech_codes": "speech.nar",
    "codec": "codec.codes",
}
EXACT: tuple[StageName, ...] = ("vision_encoder", "language_model", "speech_codes", "codec")
"""Nodes and weights are the exporter's. In the others, a Cast lies on the other side of a reshaping, or of an input's
first norm: ONNX Runtime on a CPU drops pairs of Casts, and with them other roundings."""
DECODERS: tuple[StageName, ...] = ("language_model", "speech_codes")
DIALECTS = ("portable", "portable-23", "cpu")
MOVES = ("Cast", "Reshape", "Transpose", "Unsqueeze", "Squeeze", "Slice", "Gather", "Concat", "Split", "Expand")
HALF_MARGIN = 0.05


@pytest.fixture(scope="module")
def narrowed(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("narrowed") / "tiny.bundle"
    return change_bundle(tiny_bundle, folder, dict.fromkeys(STAGES, narrow_floats))


def run_stage(bundle: Bundle, stage: StageName, values: np.ndarray) -> np.ndarray:
    """What the stage makes of golden values."""
    session = open_session(bundle, stage, threads=1)
    if stage in DECODERS:
        decoder = DecoderStage(session)
        return decoder.append(values, decoder.create_cache())
    batch = values if stage == "vision_encoder" else values[None]
    return np.asarray(next(iter(session.run({session.spec.inputs[0].name: batch}).values())))


def arithmetic(bundle: Bundle, stage: StageName) -> Counter[tuple[str, int]]:
    """How often each operator computes in each type; what only moves values about is left out."""
    graph = StageGraph(bundle, stage)
    types = graph.value_types()
    return Counter((node.op_type, types[node.output[0]].elem_type) for node in graph.nodes if node.op_type not in MOVES)


@pytest.mark.parametrize("stage", STAGES)
def test_contract_places_and_size_are_the_exporters(stage: StageName, narrowed: Path, tiny_half_bundle: Path) -> None:
    ours, exported = Bundle.open(narrowed), Bundle.open(tiny_half_bundle)
    assert ours.graph(stage) == exported.graph(stage)
    assert arithmetic(ours, stage) == arithmetic(exported, stage)
    assert arithmetic(ours, stage)[("MatMul", TensorProto.FLOAT)] == 0
    (data,) = ours.graph(stage).data
    assert ours.manifest.files[data].bytes <= exported.manifest.files[data].bytes


@pytest.mark.parametrize("stage", STAGES)
def test_values_are_the_exporters(
    stage: StageName, narrowed: Path, tiny_half_bundle: Path, tiny_bundle: Path, golden: dict[str, np.ndarray]
) -> None:
    values = golden[INPUTS[stage]][:2] if stage == "vision_encoder" else golden[INPUTS[stage]]
    found, exported, whole = (
        run_stage(Bundle.open(bundle), stage, values) for bundle in (narrowed, tiny_half_bundle, tiny_bundle)
    )
    assert found.dtype == np.float32
    if stage in EXACT:
        np.testing.assert_array_equal(found, exported)
    noise = np.abs(exported - whole).max()  # 2e-3 of the audio encoder's 3, 7e-3 of speech_text's 6
    assert 0 < np.abs(found - whole).max() <= 1.5 * noise
    assert np.abs(found - exported).max() <= 1.5 * noise


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("stage", DECODERS)
def test_decoders_in_every_dialect(
    dialect: str,
    stage: StageName,
    tiny_checkpoint: Path,
    tiny_bundle: Path,
    golden: dict[str, np.ndarray],
    tmp_path: Path,
) -> None:
    whole, exported = (
        export_stage(tiny_checkpoint, Bundle.open(tiny_bundle), tmp_path / precision, stage, dialect, precision)
        for precision in ("fp32", "fp16")
    )
    found = change_stage(whole, stage, tmp_path / "narrowed", narrow_floats)
    assert found.graph(stage) == exported.graph(stage)
    assert found.graph(stage).cache.dtype == "float16"
    assert arithmetic(found, stage) == arithmetic(exported, stage)
    assert arithmetic(found, stage)[("RMSNormalization", TensorProto.FLOAT)] > 0
    values = golden[INPUTS[stage]]
    np.testing.assert_array_equal(run_stage(found, stage, values), run_stage(exported, stage, values))


def test_greedy_ids_are_the_references_where_it_is_sure(
    narrowed: Path, golden_dir: Path, golden_json: dict[str, Any]
) -> None:
    questions = {"text": {"text": "What is the time?"}, "audio": {"audio": golden_dir / "speech.wav"}}
    with Assistant(Model(Bundle.open(narrowed), threads=1)) as assistant:
        for name, question in questions.items():
            conversation = assistant.conversation(
                "You are a helpful assistant.", greedy=True, max_new_tokens=24, speech=False
            )
            *_, done = conversation.ask(**question)  # type: ignore[arg-type]
            expected = golden_json["llm"][name]
            sure = next((n for n, margin in enumerate(expected["margin"]) if margin <= HALF_MARGIN), 24)
            assert sure >= 5
            assert list(done.tokens[:sure]) == expected["greedy"][:sure]


@pytest.mark.slow
def test_the_mask_of_a_chunked_encoder_still_masks(tiny_bundle: Path, tmp_path: Path) -> None:
    """Its scores are filled with float32's lowest number, which float16 does not have."""
    checkpoint = write_checkpoint(tmp_path / "checkpoint", CheckpointRecipe(static_chunks_config(), seed=3))
    tiny, stage = Bundle.open(tiny_bundle), "audio_encoder"
    whole, exported = (
        export_stage(checkpoint, tiny, tmp_path / precision, stage, "portable", precision)
        for precision in ("fp32", "fp16")
    )
    found = change_stage(whole, stage, tmp_path / "narrowed", narrow_floats)
    assert arithmetic(found, stage) == arithmetic(exported, stage)
    assert arithmetic(found, stage)[("Where", TensorProto.FLOAT16)] > 0
    values = np.random.default_rng(5).normal(size=(171, 64)).astype(np.float32)
    ours, theirs, expected = (run_stage(bundle, stage, values) for bundle in (found, exported, whole))
    assert np.abs(ours - expected).max() <= 1.5 * np.abs(theirs - expected).max() < 0.05


@pytest.mark.parametrize("value", [7e4, -7e4, 3e38])
def test_a_weight_beyond_float16_is_named_with_its_stage(value: float, tiny_bundle: Path, tmp_path: Path) -> None:
    name = "layers.1.mlp.up_proj.weight"

    def grow(values: np.ndarray) -> np.ndarray:
        larger = np.array(values)
        larger[3, 4] = value
        return larger

    def change(graph: StageGraph) -> None:
        graph.edit(name, grow)
        narrow_floats(graph)

    with pytest.raises(SottovoceError, match=rf"{name}' of stage 'language_model' holds (70000|3e\+38)") as problem:
        change_stage(Bundle.open(tiny_bundle), "language_model", tmp_path, change)
    assert "language_model=fp32" in str(problem.value.fix)


@pytest.mark.parametrize("stage", ["speech_text", "speech_codes"])
def test_what_is_float16_already_is_left_alone(stage: StageName, tiny_half_bundle: Path) -> None:
    graph = StageGraph(Bundle.open(tiny_half_bundle), stage)
    before = graph.model.SerializeToString()
    narrow_floats(graph)
    assert graph.spec == Bundle.open(tiny_half_bundle).graph(stage)
    assert graph.model.SerializeToString() == before
    assert list(graph.model.graph.node) == graph.nodes


def hand_made(
    tiny: Bundle, folder: Path, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Narrow a graph from `frames` (1, frames, 4) to `conditioned`; returns its constants, and what it makes of 5 rows.

    The rows are under `frames`, the result under `conditioned`.
    """
    shape = (1, "frames", 4)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("frames", "conditioned")]
    tensors = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "hand_made", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    (folder / "graphs").mkdir()
    (folder / "graphs/hand.onnx").write_bytes(model.SerializeToString())
    (folder / "graphs/hand.data").touch()
    inputs, outputs = ((TensorSpec(name, name, "float32", shape),) for name in ("frames", "conditioned"))
    spec = GraphSpec("graphs/hand.onnx", ("graphs/hand.data",), "portable", 20, "fp32", inputs, outputs)
    whole = with_stage(tiny, "speech_text", folder, spec)
    found = change_stage(whole, "speech_text", folder / "narrowed", narrow_floats)
    frames = np.random.default_rng(7).normal(size=(5, 4)).astype(np.float32)
    stored = onnx.load(str(found.path / "graphs/hand.onnx")).graph.initializer
    results = {tensor.name: numpy_helper.to_array(tensor) for tensor in stored}
    return results | {"frames": frames, "conditioned": run_stage(found, "speech_text", frames)[0]}


def test_a_constant_that_both_types_need_is_cast_for_one(tiny_bundle: Path, tmp_path: Path) -> None:
    """Gains are read before the first product, where an input stays as it is, and behind it."""
    random = np.random.default_rng(6)
    gains, matrix = (random.normal(size=shape).astype(np.float32) for shape in ((4,), (4, 4)))
    nodes = [
        helper.make_node("Mul", ["frames", "gains"], ["louder"], name="louder"),
        helper.make_node("MatMul", ["louder", "matrix"], ["product"], name="product"),
        helper.make_node("Mul", ["product", "gains"], ["conditioned"], name="conditioned"),
    ]
    found = hand_made(Bundle.open(tiny_bundle), tmp_path, nodes, {"gains": gains, "matrix": matrix})
    assert (found["gains"].dtype, found["matrix"].dtype) == (np.float32, np.float16)
    expected = (found["frames"] * gains) @ matrix * gains
    np.testing.assert_allclose(found["conditioned"], expected, atol=1e-2)


def test_what_masks_in_float32_masks_in_float16(tiny_bundle: Path, tmp_path: Path) -> None:
    """Masked scores are filled with float32's lowest number, which float16 does not have."""
    constants = {"matrix": np.eye(4, dtype=np.float32), "fill": np.array(np.finfo(np.float32).min), "last": np.array(3)}
    constants |= {"places": np.arange(4)}
    nodes = [
        helper.make_node("MatMul", ["frames", "matrix"], ["scores"], name="scores"),
        helper.make_node("Less", ["places", "last"], ["seen"], name="seen"),
        helper.make_node("Where", ["seen", "scores", "fill"], ["masked"], name="masked"),
        helper.make_node("Softmax", ["masked"], ["conditioned"], name="softmax", axis=-1),
    ]
    found = hand_made(Bundle.open(tiny_bundle), tmp_path, nodes, constants)
    assert (found["fill"].dtype, float(found["fill"])) == (np.float16, np.finfo(np.float16).min)
    expected = np.exp(found["frames"]) * [1, 1, 1, 0]
    np.testing.assert_allclose(found["conditioned"], expected / expected.sum(-1, keepdims=True), atol=1e-2)
    assert (found["conditioned"][:, 3] == 0).all()


def test_a_scalar_stays_a_scalar(tiny_bundle: Path, tmp_path: Path) -> None:
    """A Gather by one index drops the axis, by a list of one it does not."""
    tiny = Bundle.open(tiny_bundle)
    found = change_stage(tiny, "language_model", tmp_path, lambda graph: None)
    ranks = [
        {tensor.name: len(tensor.dims) for tensor in StageGraph(bundle, "language_model").model.graph.initializer}
        for bundle in (tiny, found)
    ]
    assert 0 in ranks[0].values()
    assert ranks[0] == ranks[1]


STREAMING = """
import sys
from pathlib import Path

import torch
from changed_bundle import change_stage, with_stage

from sottovoce.calibration.quantization.half_precision import narrow_floats
from sottovoce.export.config import LanguageModelConfig
from sottovoce.export.dialects import DIALECTS
from sottovoce.export.graphs.contract import StageFiles
from sottovoce.export.graphs.language_model import export_language_model
from sottovoce.export.modules.language_model import LanguageModel
from sottovoce.runtime.bundle import Bundle

def memory(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))

config = LanguageModelConfig(
    hidden_size=1024, intermediate_size=2816, num_layers=7, num_heads=16, num_kv_heads=2, head_size=64,
    vocab_size=4096, max_positions=2048,
)
with torch.device("meta"):
    shapes = {name: tensor.shape for name, tensor in LanguageModel(config).state_dict().items()}
folder = Path(sys.argv[2])
(folder / "graphs").mkdir()
files = StageFiles("language_model", folder, "fp32")
spec = export_language_model(config, 2048, DIALECTS["portable"], lambda name: torch.rand(shapes[name]), files)
whole = with_stage(Bundle.open(sys.argv[1]), "language_model", folder, spec)

Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
before = memory("VmRSS")
found = change_stage(whole, "language_model", folder / "narrowed", narrow_floats)
peak = memory("VmHWM") - before
print((found.path / found.graph("language_model").data[0]).stat().st_size, peak * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux to measure peak memory")
def test_weights_stream_through(tiny_bundle: Path, tmp_path: Path) -> None:
    """A model of 163 MB is written from one of 325 MB in the memory of a few of its tensors: 17 MB."""
    command = [sys.executable, "-c", STREAMING, str(tiny_bundle), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    written, memory = map(int, output.split())
    assert written > 150e6
    assert 0 < memory < 0.25 * written, f"{memory / 1e6:.0f} MB of memory for {written / 1e6:.0f} MB of weights"
