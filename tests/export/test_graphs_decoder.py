"""The decoders' graphs against the reference and the PyTorch stages, in every dialect and precision that is built."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from checkpoint_factory import CheckpointRecipe, small_config, write_checkpoint
from graph_runner import HAS_OPSET_24, DecoderRunner, check_greedy, cosine, teacher_forced

from sottovoce.calibration.bundles.external_data import ExternalDataWriter, WeightBlocks
from sottovoce.calibration.bundles.graph_contract import check_graph
from sottovoce.export.checkpoint.reader import Checkpoint
from sottovoce.export.config import LanguageModelConfig
from sottovoce.export.dialects import DIALECTS, Dialect
from sottovoce.export.graphs.contract import StageFiles
from sottovoce.export.graphs.language_model import export_language_model
from sottovoce.export.graphs.speech_codes import export_speech_codes
from sottovoce.export.modules.language_model import LanguageModel
from sottovoce.runtime.backends.onnxruntime import OnnxRuntimeSession
from sottovoce.runtime.errors import SottovoceError
from sottovoce.runtime.manifest import GraphSpec, Precision
from sottovoce.runtime.stages.decoder import DecoderStage

needs_opset_24 = pytest.mark.skipif(not HAS_OPSET_24, reason="opset 24 needs ONNX Runtime 1.24")
every_dialect = pytest.mark.parametrize(
    "dialect",
    [pytest.param(dialect, marks=[needs_opset_24] if dialect.opset == 24 else []) for dialect in DIALECTS.values()],
    ids=list(DIALECTS),
)
every_precision = pytest.mark.parametrize("precision", ["fp32", "fp16"])
ACTIVATION_BAR, COSINE_BAR = 1e-4, 0.9999
MARGIN: dict[Precision, float] = {"fp32": 1e-3, "fp16": 0.05}
ANY = DIALECTS["portable-23"]


def small_language_model(**changes: object) -> LanguageModelConfig:
    return replace(small_config().language_model, **changes)  # type: ignore[arg-type]


def random_model(config: LanguageModelConfig) -> LanguageModel:
    torch.manual_seed(3)
    model = LanguageModel(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def build(folder: Path, model: LanguageModel, dialect: Dialect = ANY, precision: Precision = "fp32") -> GraphSpec:
    (folder / "graphs").mkdir(exist_ok=True)
    files = StageFiles("language_model", folder, precision)
    state = model.state_dict()
    spec = export_language_model(model.config, model.config.max_positions, dialect, state.__getitem__, files)
    check_graph(folder, spec)
    return spec


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: Path) -> Checkpoint:
    return Checkpoint.open(tiny_checkpoint)


@every_dialect
@every_precision
def test_language_model_equals_the_reference(
    dialect: Dialect, precision: Precision, tiny: Checkpoint, golden: dict[str, np.ndarray], tmp_path: Path
) -> None:
    (tmp_path / "graphs").mkdir()
    state = tiny.component_state("language_model")
    files = StageFiles("language_model", tmp_path, precision)
    spec = export_language_model(tiny.config.language_model, 1024, dialect, state.__getitem__, files)
    check_graph(tmp_path, spec)
    table = state["model.embed_tokens.weight"].numpy()
    for prompt in ("text", "audio", "image_audio"):
        reference = golden[f"llm.{prompt}.step_logits"]
        decoder = DecoderRunner(tmp_path, spec, capacity=640)
        found = teacher_forced(decoder, golden[f"llm.{prompt}.embeddings"], table, reference)
        check_greedy(found, reference, MARGIN[precision])
        if precision == "fp32":
            np.testing.assert_allclose(found, reference, rtol=0, atol=ACTIVATION_BAR)
        assert min(cosine(row, expected) for row, expected in zip(found, reference, strict=True)) > COSINE_BAR


@every_dialect
@every_precision
def test_speech_codes_equal_the_reference(
    dialect: Dialect, precision: Precision, tiny: Checkpoint, golden: dict[str, np.ndarray], tmp_path: Path
) -> None:
    (tmp_path / "graphs").mkdir()
    config, state = tiny.config.speech_decoder, tiny.component_state("speech_decoder")
    spec = export_speech_codes(config, dialect, state.__getitem__, StageFiles("speech_codes", tmp_path, precision))
    check_graph(tmp_path, spec)
    table, reference = state["embedding.weight"].numpy(), golden["speech.step_logits"]
    decoder = DecoderRunner(tmp_path, spec, capacity=200)
    decoder.append(np.concatenate([table[[config.begin_id]], golden["speech.nar"]]))
    found = teacher_forced(decoder, table[[config.start_id]], table, reference)
    check_greedy(found, reference, MARGIN[precision])
    if precision == "fp32":
        np.testing.assert_allclose(found, reference, rtol=0, atol=ACTIVATION_BAR)
    assert min(cosine(row, expected) for row, expected in zip(found, reference, strict=True)) > COSINE_BAR


@every_dialect
def test_a_prompt_in_pieces_is_the_prompt_at_once(dialect: Dialect, tmp_path: Path) -> None:
    model = random_model(small_language_model())
    spec = build(tmp_path, model, dialect)
    prompt = np.random.default_rng(0).normal(size=(23, model.config.hidden_size)).astype(np.float32)
    whole = DecoderRunner(tmp_path, spec, capacity=32).append(prompt)
    pieces = DecoderRunner(tmp_path, spec, capacity=23)
    for start, end in ((0, 1), (1, 9), (9, 22), (22, 23)):
        last = pieces.append(prompt[start:end])
    np.testing.assert_allclose(last, whole, rtol=0, atol=ACTIVATION_BAR)


@every_dialect
def test_the_runtime_gives_the_buffers_the_graph_takes(dialect: Dialect, tmp_path: Path) -> None:
    """TensorRT's in-place cache update refuses a symbolic capacity; elsewhere memory should follow the conversation."""
    model = random_model(small_language_model(max_positions=2048))
    spec = build(tmp_path, model, dialect)
    past = next(tensor for tensor in spec.inputs if tensor.role == "past_key.0")
    assert past.shape[2] == (2048 if dialect.fixed_capacity else "capacity")
    stage = DecoderStage(OnnxRuntimeSession("language_model", spec, tmp_path / spec.file, threads=1))
    cache = stage.create_cache()
    assert (cache.capacity == 2048) == dialect.fixed_capacity
    prompt = torch.randn(1, 9, model.config.hidden_size, generator=torch.Generator().manual_seed(8))
    stage.append(prompt[0, :6].numpy(), cache)
    found = stage.append(prompt[0, 6:].numpy(), cache)
    np.testing.assert_allclose(found, model(prompt)[0, -1].numpy(), rtol=0, atol=ACTIVATION_BAR)


@every_dialect
def test_rewinding_needs_nothing_but_the_length(dialect: Dialect, tmp_path: Path) -> None:
    model = random_model(small_language_model())
    decoder = DecoderRunner(tmp_path, build(tmp_path, model, dialect), capacity=40)
    random = np.random.default_rng(1)
    first, second = random.normal(size=(2, 9, model.config.hidden_size)).astype(np.float32)
    decoder.append(first)
    expected = decoder.append(second)
    decoder.append(random.normal(size=(20, model.config.hidden_size)))
    decoder.length = len(first)
    np.testing.assert_array_equal(decoder.append(second), expected)


def test_positions_far_into_the_context(tmp_path: Path) -> None:
    """Rotary tables at the far end of a long context, against PyTorch."""
    model = random_model(small_language_model(max_positions=4096))
    spec = build(tmp_path, model)
    prompt = torch.randn(1, 3001, model.config.hidden_size, generator=torch.Generator().manual_seed(2))
    expected = model(prompt)[0, -1].numpy()
    decoder = DecoderRunner(tmp_path, spec, capacity=3001)
    decoder.append(prompt[0, :3000].numpy())
    np.testing.assert_allclose(decoder.append(prompt[0, 3000:].numpy()), expected, rtol=0, atol=ACTIVATION_BAR)


def test_a_tied_head_and_bfloat16_weights(tmp_path: Path) -> None:
    config = replace(small_config(), language_model=small_language_model(tie_word_embeddings=True))
    folder = write_checkpoint(tmp_path / "checkpoint", CheckpointRecipe(config, dtype="bfloat16", shards=3))
    checkpoint = Checkpoint.open(folder)
    model = LanguageModel(checkpoint.config.language_model).eval()
    state = checkpoint.component_state("language_model")
    model.load_state_dict({name: state[name].float() for name in state})
    spec = build(tmp_path, model)
    prompt = torch.randn(1, 12, model.config.hidden_size, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        expected = model(prompt)[0, -1].numpy()
    found = DecoderRunner(tmp_path, spec, capacity=16).append(prompt[0].numpy())
    np.testing.assert_allclose(found, expected, rtol=0, atol=ACTIVATION_BAR)


def test_large_weights_start_on_a_page(tmp_path: Path) -> None:
    spec = build(tmp_path, random_model(small_language_model(hidden_size=192, vocab_size=2000)))
    graph = onnx.load(str(tmp_path / spec.file), load_external_data=False).graph
    size = (tmp_path / spec.data[0]).stat().st_size
    places = [{entry.key: entry.value for entry in tensor.external_data} for tensor in graph.initializer]
    large = [place for place in places if place and int(place["length"]) >= 65536]
    assert len(large) > 4
    assert all(int(place["offset"]) % 4096 == 0 for place in large)
    assert max(int(place["offset"]) + int(place["length"]) for place in places if place) == size


def test_pieces_that_are_not_the_tensor_are_refused(tmp_path: Path) -> None:
    pieces = WeightBlocks(np.dtype(np.float32), (4, 2), [np.zeros((3, 2), np.float32)])
    with ExternalDataWriter(tmp_path / "a.data") as data, pytest.raises(ValueError, match=r"'w'.*\(4, 2\)"):
        data.append("w", pieces)


def test_a_weight_beyond_float16_is_named(tmp_path: Path) -> None:
    model = random_model(small_language_model())
    model.model.layers[1].mlp.up_proj.weight[3, 4] = 1e5
    with pytest.raises(SottovoceError, match=r"model\.layers\.1\.mlp\.up_proj\.weight.* 100000") as problem:
        build(tmp_path, model, precision="fp16")
    assert "fp32" in str(problem.value.fix)


def test_a_graph_that_is_not_its_contract_is_refused(tmp_path: Path) -> None:
    spec = build(tmp_path, random_model(small_language_model()))
    other = replace(spec, outputs=(replace(spec.outputs[0], shape=(1, 641)), *spec.outputs[1:]))
    with pytest.raises(SottovoceError, match="outputs are"):
        check_graph(tmp_path, other)


STREAMING = """
import sys, torch
from pathlib import Path
from sottovoce.export.config import LanguageModelConfig
from sottovoce.export.dialects import DIALECTS
from sottovoce.export.graphs.contract import StageFiles
from sottovoce.export.graphs.language_model import export_language_model
from sottovoce.export.modules.language_model import LanguageModel

config = LanguageModelConfig(
    hidden_size=1024, intermediate_size=2816, num_layers=int(sys.argv[2]), num_heads=16, num_kv_heads=2, head_size=64,
    vocab_size=4096, max_positions=2048,
)
with torch.device("meta"):
    shapes = {name: tensor.shape for name, tensor in LanguageModel(config).state_dict().items()}
folder = Path(sys.argv[1])
(folder / "graphs").mkdir()
files = StageFiles("language_model", folder, "fp32")
def memory(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))

Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
before = memory("VmRSS")
export_language_model(config, 2048, DIALECTS["portable"], lambda name: torch.rand(shapes[name]), files)
print(files.data.stat().st_size, (memory("VmHWM") - before) * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux to measure peak memory")
def test_weights_stream_to_disk(tmp_path: Path) -> None:
    """A model of 300 MB is written in the memory of a few of its tensors."""
    output = subprocess.run(
        [sys.executable, "-c", STREAMING, str(tmp_path), "7"], check=True, capture_output=True, text=True
    ).stdout
    written, memory = map(int, output.split())
    assert written > 300e6
    assert 0 < memory < 0.25 * written, f"{memory / 1e6:.0f} MB of memory for {written / 1e6:.0f} MB of weights"
