"""The `jetpack6` dialect: the tokens of the portable one in operators that TensorRT 10.3 has, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from checkpoint_factory import small_config
from onnx import helper, numpy_helper

from sottovoce.export.dialects import DIALECTS
from sottovoce.export.graphs.contract import StageFiles
from sottovoce.export.graphs.language_model import export_language_model
from sottovoce.export.graphs.speech_codes import export_speech_codes
from sottovoce.export.modules.language_model import LanguageModel
from sottovoce.export.modules.speech_decoder import SpeechDecoder
from sottovoce.export.operator_lists.check import operator_findings
from sottovoce.export.operator_lists.operator_list import operator_list
from sottovoce.runtime.backends.onnxruntime import OnnxRuntimeSession
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.errors import SottovoceError
from sottovoce.runtime.manifest import STAGES, GraphSpec, Precision
from sottovoce.runtime.stages.language_model import LanguageModel as LanguageModelStage

JETPACK6 = DIALECTS["jetpack6"]
LISTED = operator_list("tensorrt-10.3")
FLOAT = onnx.TensorProto.FLOAT
TOKENS = 40
NEWER = {"Attention", "RotaryEmbedding", "RMSNormalization", "TensorScatter"}


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    torch.manual_seed(7)
    model = LanguageModel(small_config().language_model).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def written(folder: Path, dialect: str, model: LanguageModel, precision: Precision = "fp32") -> GraphSpec:
    (folder / "graphs").mkdir(parents=True)
    files = StageFiles("language_model", folder, precision)
    return export_language_model(model.config, 128, DIALECTS[dialect], model.state_dict().__getitem__, files)


def graph_of(folder: Path, spec: GraphSpec) -> onnx.ModelProto:
    return onnx.load(str(folder / spec.file), load_external_data=False)


def greedy(folder: Path, spec: GraphSpec, table: np.ndarray) -> list[int]:
    """Tokens behind a prompt in two slices, a rewind and another end among them."""
    stage = LanguageModelStage(OnnxRuntimeSession("language_model", spec, folder / spec.file, threads=1))
    cache = stage.create_cache()
    prompt = np.random.default_rng(6).integers(0, len(table), 30)
    stage.prefill(table[prompt[:11]], cache)
    stage.prefill(table[prompt[:5]], cache)
    cache.rewind(11)
    logits, tokens = stage.prefill(table[prompt[11:]], cache), []
    for _ in range(TOKENS):
        tokens.append(int(np.argmax(logits)))
        logits = stage.step(table[[tokens[-1]]], cache)
    return tokens


def test_greedy_tokens_are_those_of_the_portable_dialect_and_of_pytorch(model: LanguageModel, tmp_path: Path) -> None:
    table = model.state_dict()["model.embed_tokens.weight"].numpy()
    found = {
        dialect: greedy(tmp_path / dialect, written(tmp_path / dialect, dialect, model), table)
        for dialect in ("portable-23", "jetpack6")
    }
    assert found["jetpack6"] == found["portable-23"]
    assert len(set(found["jetpack6"])) > 5
    prompt = np.random.default_rng(6).integers(0, len(table), 30)
    fed = torch.from_numpy(table[[*prompt, *found["jetpack6"][:-1]]])[None]
    assert model(fed)[0, len(prompt) - 1 :].argmax(-1).tolist() == found["jetpack6"]


def test_its_contract_is_the_portable_one(model: LanguageModel, tmp_path: Path) -> None:
    ours, theirs = (written(tmp_path / name, name, model, "fp16") for name in ("jetpack6", "portable"))
    assert (ours.inputs, ours.outputs, ours.cache) == (theirs.inputs, theirs.outputs, theirs.cache)
    assert (ours.opset, ours.dialect) == (20, "jetpack6")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_decoders_keep_to_the_list(model: LanguageModel, precision: Precision, tmp_path: Path) -> None:
    language_model = written(tmp_path / "language_model", "jetpack6", model, precision)
    config = small_config().speech_decoder
    (tmp_path / "graphs").mkdir()
    files = StageFiles("speech_codes", tmp_path, precision)
    codes = export_speech_codes(config, JETPACK6, SpeechDecoder(config).state_dict().__getitem__, files)
    for graph in (graph_of(tmp_path / "language_model", language_model), graph_of(tmp_path, codes)):
        assert operator_findings(graph, LISTED) == []
        assert not NEWER & {node.op_type for node in graph.graph.node}


def test_half_precision_norms_are_accumulated_in_float32(model: LanguageModel, tmp_path: Path) -> None:
    graph = onnx.shape_inference.infer_shapes(graph_of(tmp_path, written(tmp_path, "jetpack6", model, "fp16"))).graph
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    means = [node.output[0] for node in graph.node if node.op_type == "ReduceMean"]
    products = [node.output[0] for node in graph.node if node.op_type == "MatMul"]
    assert len(means) == 2 * model.config.num_layers + 1
    assert {types[name] for name in means} == {FLOAT}
    assert {types[name] for name in products} == {onnx.TensorProto.FLOAT16}


def test_traced_graphs_keep_to_the_list(tiny_bundle: Path, tiny_half_bundle: Path) -> None:
    """They are the same for every target."""
    for bundle in (Bundle.open(tiny_bundle), Bundle.open(tiny_half_bundle)):
        for stage in STAGES:
            spec = bundle.graph(stage)
            if spec.cache is None:
                assert operator_findings(graph_of(bundle.path, spec), LISTED) == []


def test_other_dialects_do_not(model: LanguageModel, tmp_path: Path) -> None:
    for dialect in ("portable", "cpu"):
        findings = operator_findings(graph_of(tmp_path / dialect, written(tmp_path / dialect, dialect, model)), LISTED)
        assert {"RMSNormalization", "RotaryEmbedding"} <= {finding.operator for finding in findings}
        assert findings[0].operator == "opset"


def _unlisted_operator(graph: onnx.ModelProto) -> None:
    graph.graph.node.append(helper.make_node("NonMaxSuppressionV9", ["logits"], ["more"], name="more"))


def _unlisted_standard_operator(graph: onnx.ModelProto) -> None:
    graph.graph.node.append(helper.make_node("Det", ["square"], ["more"], name="more"))
    graph.graph.initializer.append(numpy_helper.from_array(np.eye(2, dtype=np.float32), "square"))


def _other_domain(graph: onnx.ModelProto) -> None:
    graph.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    graph.graph.node.append(helper.make_node("FusedGelu", ["logits"], ["more"], name="more", domain="com.microsoft"))


def _unlisted_type(graph: onnx.ModelProto) -> None:
    graph.graph.node.append(helper.make_node("Neg", ["byte"], ["more"], name="more"))
    graph.graph.initializer.append(numpy_helper.from_array(np.zeros(2, np.int8), "byte"))


def _axes_that_are_computed(graph: onnx.ModelProto) -> None:
    graph.graph.node.append(helper.make_node("ReduceSum", ["logits", "cache_length"], ["more"], name="more"))


def _added_up(graph: onnx.ModelProto) -> None:
    scatter = next(node for node in graph.graph.node if node.op_type == "ScatterND")
    scatter.attribute.append(helper.make_attribute("reduction", "add"))


def _zero_point(graph: onnx.ModelProto) -> None:
    graph.graph.node.append(helper.make_node("DequantizeLinear", ["byte", "step", "shift"], ["more"], name="more"))
    graph.graph.initializer.append(numpy_helper.from_array(np.zeros(2, np.int8), "byte"))
    graph.graph.initializer.append(numpy_helper.from_array(np.ones((), np.float32), "step"))
    graph.graph.initializer.append(numpy_helper.from_array(np.full((), 3, np.int8), "shift"))


def _newer_opset(graph: onnx.ModelProto) -> None:
    graph.opset_import[0].version = 21


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_unlisted_operator, "NonMaxSuppressionV9 'more' is not in its operator list"),
        (_unlisted_standard_operator, "Det 'more' is not in its operator list"),
        (_other_domain, "FusedGelu 'more' is of the domain 'com.microsoft'"),
        (_unlisted_type, "Neg 'more' has 'byte' of type INT8, and FP32.*are taken"),
        (_axes_that_are_computed, "ReduceSum 'more' has an input 'cache_length' that must be a constant"),
        (_added_up, "ScatterND .* has reduction = 'add', and 'none' is taken"),
        (_zero_point, "DequantizeLinear 'more' has an input 'shift' that must be zeros"),
        (_newer_opset, "opset 'graph' is 21, and 9 to 20 are taken"),
    ],
)
def test_what_tensorrt_10_3_does_not_take_is_refused(
    change: Callable[[onnx.ModelProto], None], problem: str, model: LanguageModel, tmp_path: Path
) -> None:
    spec = written(tmp_path, "jetpack6", model)
    path = tmp_path / spec.file
    JETPACK6.check_operators(path)
    graph = graph_of(tmp_path, spec)
    change(graph)
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(SottovoceError, match=problem) as refusal:
        JETPACK6.check_operators(path)
    assert refusal.value.file == str(path)
    assert "--target tensorrt" in str(refusal.value.fix)


def test_four_bit_weights_raise_the_opset_as_far_as_the_standard_needs() -> None:
    """The list has INT4, and the standard has had it since opset 21 alone."""
    packed = helper.make_tensor("w", onnx.TensorProto.INT4, [2, 2], [1, 2, 3, 4])
    step = numpy_helper.from_array(np.ones((), np.float32), "step")
    node = helper.make_node("DequantizeLinear", ["w", "step"], ["out"], name="out")
    graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("out", FLOAT, [2, 2])], [packed, step])
    for opset, problems in ((21, 0), (22, 1)):
        found = operator_findings(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]), LISTED)
        assert len(found) == problems


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_tensorrt_parser_takes_the_decoders(model: LanguageModel, precision: Precision, tmp_path: Path) -> None:
    """TensorRT-RTX builds for a GPU that is not here. It is a newer parser: what 10.3 has, the list says."""
    trt = pytest.importorskip("tensorrt_rtx")
    path = tmp_path / written(tmp_path, "jetpack6", model, precision).file
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network, config = builder.create_network(0), builder.create_builder_config()
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
    assert parser.parse_from_file(str(path)), [parser.get_error(number).desc() for number in range(parser.num_errors)]
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    width = model.config.hidden_size
    for longest in (64, 1):
        profile = builder.create_optimization_profile()
        profile.set_shape("embeddings", (1, 1, width), (1, longest, width), (1, longest, width))
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    assert engine is not None
    assert engine.nbytes > 0


def test_the_list_names_its_source() -> None:
    assert LISTED.engine == "TensorRT 10.3"
    assert any("onnx-tensorrt, docs/operators.md" in source and "commit" in source for source in LISTED.source)
    assert len(LISTED.operators) == 150
    assert not NEWER & set(LISTED.operators)
