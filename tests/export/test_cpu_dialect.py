"""The `cpu` dialect: one operator of ONNX Runtime's for attention and cache, and the tokens of the portable one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from checkpoint_factory import small_config

from sottovoce.export.dialects import DIALECTS, dialect_for
from sottovoce.export.graphs.contract import StageFiles
from sottovoce.export.graphs.language_model import export_language_model
from sottovoce.export.graphs.speech_codes import export_speech_codes
from sottovoce.export.modules.language_model import LanguageModel
from sottovoce.export.modules.speech_decoder import SpeechDecoder
from sottovoce.runtime.backends.onnxruntime import OnnxRuntimeSession
from sottovoce.runtime.manifest import GraphSpec
from sottovoce.runtime.stages.language_model import LanguageModel as LanguageModelStage

TOKENS = 60


def written(folder: Path, dialect: str, model: LanguageModel) -> GraphSpec:
    (folder / "graphs").mkdir(parents=True)
    files = StageFiles("language_model", folder, "fp32")
    config = model.config
    return export_language_model(config, config.max_positions, DIALECTS[dialect], model.state_dict().__getitem__, files)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    torch.manual_seed(5)
    model = LanguageModel(small_config().language_model).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def operators(path: Path) -> Counter[tuple[str, str]]:
    return Counter((node.domain, node.op_type) for node in onnx.load(str(path), load_external_data=False).graph.node)


def greedy(folder: Path, spec: GraphSpec, table: np.ndarray, threads: int) -> list[int]:
    """Tokens behind a prompt in three slices, a rewind and another end among them."""
    stage = LanguageModelStage(OnnxRuntimeSession("language_model", spec, folder / spec.file, threads))
    cache = stage.create_cache()
    prompt = np.random.default_rng(6).integers(0, len(table), 40)
    stage.prefill(table[prompt[:11]], cache)
    stage.prefill(table[prompt[:5]], cache)
    cache.rewind(11)
    logits = stage.prefill(table[prompt[11:]], cache)
    tokens = []
    for _ in range(TOKENS):
        tokens.append(int(np.argmax(logits)))
        logits = stage.step(table[[tokens[-1]]], cache)
    return tokens


@pytest.mark.parametrize("threads", [1, 2])
def test_greedy_tokens_are_those_of_the_portable_dialect(model: LanguageModel, threads: int, tmp_path: Path) -> None:
    table = model.state_dict()["model.embed_tokens.weight"].numpy()
    found = {
        dialect: greedy(tmp_path / dialect, written(tmp_path / dialect, dialect, model), table, threads)
        for dialect in ("portable-23", "cpu")
    }
    assert found["cpu"] == found["portable-23"]
    assert len(set(found["cpu"])) > 10


def test_attention_and_cache_are_one_operator_a_layer(model: LanguageModel, tmp_path: Path) -> None:
    spec = written(tmp_path, "cpu", model)
    found = operators(tmp_path / spec.file)
    assert found["com.microsoft", "GroupQueryAttention"] == model.config.num_layers
    assert not {("", "Attention"), ("", "ScatterND"), ("", "Transpose")} & set(found)


def test_a_prefix_that_sees_itself_stays_with_the_standards_attention(tmp_path: Path) -> None:
    """Of ONNX Runtime's own operator 1.23 knows the causal form alone."""
    config = small_config().speech_decoder
    state = SpeechDecoder(config).state_dict()
    (tmp_path / "graphs").mkdir()
    spec = export_speech_codes(config, DIALECTS["cpu"], state.__getitem__, StageFiles("speech_codes", tmp_path, "fp32"))
    found = operators(tmp_path / spec.file)
    assert found["", "Attention"] == config.num_code_layers
    assert not any(domain for domain, _ in found)


def test_the_target_cpu_is_spelled_so() -> None:
    assert dialect_for("cpu").name == "cpu"
