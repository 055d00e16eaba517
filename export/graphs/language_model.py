"""Language model: Qwen2 over embeddings, causal, with grouped KV heads. For the tensors see `decoder_contract`."""

from __future__ import annotations

from sottovoce.export.config import LanguageModelConfig
from sottovoce.export.dialects import Dialect
from sottovoce.export.graphs.contract import StageFiles
from sottovoce.export.graphs.decoder_builder import (
    DecoderPlan,
    DecoderShape,
    DecoderWeightNames,
    TensorReader,
    build_decoder,
)
from sottovoce.runtime.manifest import GraphSpec


def export_language_model(
    config: LanguageModelConfig, context_length: int, dialect: Dialect, read: TensorReader, files: StageFiles
) -> GraphSpec:
    """Write the graph; weights stream from `read` to the data file, one at a time.

    Raises:
        SottovoceError: `read` refused a tensor, or a weight is beyond float16.
        OSError: the disk is full or not writable.
    """
    shape = DecoderShape(
        hidden_size=config.hidden_size,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads,
        head_size=config.head_size,
        vocab_size=config.vocab_size,
        context_length=context_length,
        rms_norm_eps=config.rms_norm_eps,
        rope_theta=config.rope_theta,
        query_key_value_bias=True,
        head_bias=False,
        prefix_attention=False,
    )
    head = "model.embed_tokens" if config.tie_word_embeddings else "lm_head"
    names = DecoderWeightNames(layers="model.layers", norm="model.norm", head=head)
    return build_decoder(DecoderPlan(shape, names, dialect), read, files)
