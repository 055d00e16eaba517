"""AR part of the speech decoder: conditioned frames, then code after code. For the tensors see `decoder_contract`.

The first call is the prefix, which sees all of itself; every later call is one code. So one rule serves both: a
position sees everything up to the end of its call.
"""

from __future__ import annotations

from sottovoce.export.config import SpeechDecoderConfig
from sottovoce.export.dialects import Dialect
from sottovoce.export.graphs.contract import StageFiles
from sottovoce.export.graphs.decoder_builder import (
    DecoderPlan,
    DecoderShape,
    DecoderWeightNames,
    TensorReader,
    build_decoder,
)
from sottovoce.export.modules.speech_decoder import SPECIAL_IDS
from sottovoce.runtime.manifest import GraphSpec

CONTEXT_LENGTH = 4096
"""Prefix and codes of one piece of text: a thousand codes leave room for more than seven hundred tokens of text."""


def export_speech_codes(
    config: SpeechDecoderConfig, dialect: Dialect, read: TensorReader, files: StageFiles
) -> GraphSpec:
    """Write the graph; weights stream from `read` to the data file, one at a time.

    Raises:
        SottovoceError: `read` refused a tensor, or a weight is beyond float16.
        OSError: the disk is full or not writable.
    """
    shape = DecoderShape(
        hidden_size=config.hidden_size,
        num_layers=config.num_code_layers,
        num_heads=config.num_heads,
        num_kv_heads=config.num_heads,
        head_size=config.head_size,
        vocab_size=config.num_codes + SPECIAL_IDS,
        context_length=CONTEXT_LENGTH,
        rms_norm_eps=config.rms_norm_eps,
        rope_theta=config.rope_theta,
        query_key_value_bias=False,
        head_bias=True,
        prefix_attention=True,
    )
    names = DecoderWeightNames(layers="layers", norm="norm", head="out_fnn")
    return build_decoder(DecoderPlan(shape, names, dialect), read, files)
