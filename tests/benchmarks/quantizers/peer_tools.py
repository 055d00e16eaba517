"""Other libraries' quantizers on one graph, run by a Python of their own (they ask for older packages than ours).

    PEER_PYTHON peer_tools.py TOOL GRAPH.onnx FEEDS OUTPUT.onnx

FEEDS is a folder of numbered `.npz` files, what the graph was fed in calibration. That Python needs

    pip install onnxruntime "onnx~=1.21.0" onnxscript torch==2.13.0 "transformers==4.57.*" datasets auto-round==0.16.1
    pip install nvidia-modelopt==0.47.0 onnx-graphsurgeon polygraphy cppimport onnxconverter-common onnxslim lief
    pip install --no-deps optimum-onnx==0.1.0 optimum
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

Feeds = list[dict[str, Any]]
SEQUENCE = 64
AWQ_POSITIONS = 24


class Reader:
    """Feeds, one after the other, as ONNX Runtime's calibrators take them."""

    def __init__(self, fed: Feeds) -> None:
        self._fed = fed
        self.rewind()

    def get_next(self) -> dict[str, Any] | None:
        return next(self._left, None)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._fed)

    def __len__(self) -> int:
        return len(self._fed)

    def get_first(self) -> dict[str, Any]:
        return self._fed[0]

    def rewind(self) -> None:
        self._left: Iterator[dict[str, Any]] = iter(self._fed)


def optimum_int8(graph: Path, fed: Feeds, output: Path) -> None:
    """`ORTQuantizer`, static, for AVX512-VNNI, with minima and maxima."""
    from datasets import Dataset
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import AutoCalibrationConfig, AutoQuantizationConfig

    # It stacks items to a batch itself: an utterance, or one tile.
    items = [{name: values[row].tolist() for name, values in feeds.items()} for feeds in fed for row in _rows(feeds)]
    dataset = Dataset.from_list(items).with_format("numpy")
    quantizer = ORTQuantizer(graph)
    wanted = AutoQuantizationConfig.avx512_vnni(is_static=True, per_channel=True)
    ranges = quantizer.fit(
        dataset, AutoCalibrationConfig.minmax(dataset), operators_to_quantize=wanted.operators_to_quantize
    )
    written = quantizer.quantize(wanted, output.parent / "optimum", calibration_tensors_range=ranges)
    shutil.copy(written if Path(written).suffix else next(Path(written).glob("*.onnx")), output)


def _rows(feeds: dict[str, Any]) -> range:
    """Of a call, the items that are stacked in it."""
    return range(len(next(iter(feeds.values()))))


def modelopt(mode: str, method: str) -> Callable[[Path, Feeds, Path], None]:
    """`modelopt.onnx.quantization.quantize`, with its float type left as the graph's."""

    def quantize(graph: Path, fed: Feeds, output: Path) -> None:
        from modelopt.onnx.quantization import quantize as modelopt_quantize

        if method == "awq_lite":
            fed = _of_one_length(fed)
        modelopt_quantize(
            str(graph), quantize_mode=mode, calibration_method=method, calibration_data_reader=Reader(fed),
            calibration_eps=["cpu"], high_precision_dtype="fp32", output_path=str(output),
        )  # fmt: skip

    return quantize


def _of_one_length(fed: Feeds) -> Feeds:
    """A decoder's calls cut to as many positions: AWQ lays activations of all calls on one another."""
    long = [feeds for feeds in fed if feeds["embeddings"].shape[1] >= AWQ_POSITIONS]
    return [{**feeds, "embeddings": feeds["embeddings"][:, :AWQ_POSITIONS]} for feeds in long]


def auto_round_int4(graph: Path, fed: Feeds, output: Path) -> None:
    """AutoRound's 4 bits in blocks of 32, symmetric, on the same layers in PyTorch; its rounded values go back.

    What the decoder was fed becomes a vocabulary, since AutoRound feeds ids. The head stays as it is, its default.
    """
    import torch
    from auto_round import AutoRound

    model = onnx.load(str(graph))
    weights = _parted(model)
    language_model = _as_qwen2(weights, np.concatenate([feeds["embeddings"][0] for feeds in fed]))
    rows = torch.arange(language_model.config.vocab_size)
    rows = rows[: len(rows) // SEQUENCE * SEQUENCE].reshape(-1, SEQUENCE)
    batches = [{"input_ids": row[None], "attention_mask": torch.ones_like(row[None])} for row in rows]
    rounding = AutoRound(
        language_model, _unused_tokenizer(), bits=4, group_size=32, sym=True, dataset=batches, seqlen=SEQUENCE,
        nsamples=len(batches), batch_size=8, device_map="cpu", amp=False,
    )  # fmt: skip
    rounded, _ = rounding.quantize()
    named = dict(rounded.named_modules())
    changed = 0
    for tensor in model.graph.initializer:
        names = _parts(tensor.name)
        layers = [named.get(f"model.{name.removesuffix('.weight')}") for name in names]
        if tensor.name.endswith("_proj.weight") and None not in layers:
            values = np.concatenate([layer.weight.detach().float().numpy().T for layer in layers], axis=1)
            changed += not np.array_equal(values, numpy_helper.to_array(tensor))
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))
    if not changed:
        raise SystemExit("AutoRound changed no weight")
    onnx.save(model, str(output))


def _parts(name: str) -> list[str]:
    """A weight's name, or, of query, key and value as one, the three that Qwen2 has."""
    return [name.replace("qkv_proj", f"{kind}_proj") for kind in "qkv"] if "qkv_proj" in name else [name]


def _parted(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The graph's weights under Qwen2's names."""
    attributes = next(node.attribute for node in model.graph.node if node.op_type == "GroupQueryAttention")
    heads = {entry.name: entry.i for entry in attributes if entry.name in ("num_heads", "kv_num_heads")}
    query, kv = heads["num_heads"], heads["kv_num_heads"]
    weights = {}
    for tensor in model.graph.initializer:
        values, names = numpy_helper.to_array(tensor), _parts(tensor.name)
        if len(names) == 1:
            weights[tensor.name] = values
            continue
        size = values.shape[-1] // (query + 2 * kv)
        weights |= zip(names, np.split(values, [query * size, (query + kv) * size], axis=-1), strict=True)
    return weights


def _unused_tokenizer() -> Any:
    """AutoRound asks for one, and has no use for it where it is fed ids."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"0": 0})))


def _as_qwen2(weights: dict[str, np.ndarray], embeddings: np.ndarray) -> Any:
    """Transformers' module with the graph's weights; (n, hidden) `embeddings` as its table."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    names = [name for name in weights if name.startswith("layers.")]
    head = 2 * weights["rotary.frequencies"].size
    config = Qwen2Config(
        vocab_size=len(embeddings), hidden_size=embeddings.shape[1], tie_word_embeddings=False,
        intermediate_size=weights["layers.0.mlp.gate_proj.weight"].shape[1],
        num_hidden_layers=1 + max(int(name.split(".")[1]) for name in names),
        num_attention_heads=weights["layers.0.self_attn.q_proj.weight"].shape[1] // head,
        num_key_value_heads=weights["layers.0.self_attn.k_proj.weight"].shape[1] // head, head_dim=head,
        rope_theta=float((1 / weights["rotary.frequencies"].reshape(-1)[1]) ** (head / 2)), rms_norm_eps=1e-6,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).float().eval()
    state = {
        f"model.{name}": torch.tensor(weights[name].T if weights[name].ndim == 2 else weights[name]) for name in names
    }
    state["model.norm.weight"] = torch.tensor(weights["norm.weight"])
    state["model.embed_tokens.weight"] = torch.tensor(embeddings)
    missing, strange = model.load_state_dict(state, strict=False)
    if strange or missing != ["lm_head.weight"]:
        raise SystemExit(f"the graph's weights are not a Qwen2's: {missing}, {strange}")
    return model


TOOLS: dict[str, Callable[[Path, Feeds, Path], None]] = {
    "optimum-int8": optimum_int8,
    "modelopt-int8": modelopt("int8", "entropy"),
    "modelopt-int4-awq": modelopt("int4", "awq_lite"),
    "modelopt-int4-rtn": modelopt("int4", "rtn_dq"),
    "auto-round-int4": auto_round_int4,
}


def main() -> int:
    tool, graph, feeds, output = sys.argv[1], *(Path(argument) for argument in sys.argv[2:5])
    fed = [dict(np.load(path)) for path in sorted(feeds.glob("*.npz"))]
    TOOLS[tool](graph, fed, output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
