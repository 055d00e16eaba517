"""The sizes and switches of each component, as frozen dataclasses in the field's names.

These are what the PyTorch stages are built from. `checkpoint_config.py` reads them from a checkpoint's own JSON and
YAML files; training code may build them directly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class LanguageModelConfig:
    """Qwen2 decoder (Qwen2 technical report, 2024): grouped KV heads, q/k/v biases, SwiGLU, RMSNorm, rotary."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    vocab_size: int
    max_positions: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1e6
    tie_word_embeddings: bool = False
    attention_dropout: float = 0.0


@dataclass(frozen=True)
class VisionEncoderConfig:
    """InternViT (Chen et al. 2024), pixel shuffle by 0.5, and the two-layer GELU projector."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    patch_size: int
    image_size: int
    llm_hidden_size: int
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = True
    num_channels: int = 3
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path_rate: float = 0.0

    @property
    def tokens_per_tile(self) -> int:
        """Embeddings of one tile after pixel shuffle: a quarter of the patches."""
        return (self.image_size // self.patch_size // 2) ** 2

    @property
    def projector_input_size(self) -> int:
        """Width of a shuffled patch: four patches side by side."""
        return 4 * self.hidden_size


@dataclass(frozen=True)
class AdapterConfig:
    """From the audio encoder's frames to the language model's width."""

    kind: Literal["subsampling", "cnn", "linear"]
    encoder_size: int
    llm_hidden_size: int
    kernel_size: int = 5
    norm: Literal["batch", "layer"] = "batch"
    activation: Literal["relu", "gelu"] = "relu"

    @property
    def widens_first(self) -> bool:
        """Whether the subsampling adapter has a first convolution of stride 1: where the encoder is narrow."""
        return self.kind == "subsampling" and 4 * self.encoder_size < self.llm_hidden_size


@dataclass(frozen=True)
class AudioEncoderConfig:
    """Whale audio encoder (Freeze-Omni, Wang et al. 2024): conv subsampling by 4 and a pre-norm transformer."""

    mel_bins: int
    subsampling_size: int
    attention_size: int
    num_heads: int
    linear_units: int
    num_blocks: int
    adapter: AdapterConfig
    chunk_size: int = -1
    """Encoder frames a chunk; -1 is full attention."""
    left_chunks: int = -1
    """Chunks visible to the left; -1 is all of them."""
    prompt_tokens: int = 0
    dropout: float = 0.1
    positional_dropout: float = 0.1
    attention_dropout: float = 0.0
    subsampling_dropout: float = 0.1


@dataclass(frozen=True)
class SpeechDecoderConfig:
    """Two-part speech decoder (VITA-1.5, Fu et al. 2025): a NAR text part and an AR code part of llama layers."""

    hidden_size: int
    num_heads: int
    intermediate_size: int
    num_code_layers: int
    num_codes: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    dropout: float = 0.1

    @property
    def num_text_layers(self) -> int:
        """The NAR part has half as many layers as the AR part."""
        return self.num_code_layers // 2

    @property
    def head_size(self) -> int:
        """Width of an attention head."""
        return self.hidden_size // self.num_heads

    @property
    def begin_id(self) -> int:
        """Put before the conditioned frames."""
        return self.num_codes

    @property
    def start_id(self) -> int:
        """The first input of the AR part after its prefix."""
        return self.num_codes + 1

    @property
    def end_id(self) -> int:
        """Emitted when the speech is over."""
        return self.num_codes + 2

    @property
    def padding_id(self) -> int:
        """Fills batches."""
        return self.num_codes + 3


@dataclass(frozen=True)
class CodecConfig:
    """Codec decoder in the TiCodec layout (Ren et al. 2023) with a HiFi-GAN generator (Kong et al. 2020)."""

    num_codes: int
    upsample_rates: tuple[int, ...]
    upsample_kernel_sizes: tuple[int, ...]
    upsample_initial_channel: int
    resblock_kind: Literal["1", "2"]
    resblock_kernel_sizes: tuple[int, ...]
    resblock_dilation_sizes: tuple[tuple[int, ...], ...]
    global_tokens: tuple[int, ...]
    code_groups: int = 1
    residual_layers: int = 1
    sample_rate: int = 24000
    code_width: int = 512
    global_width: int = 128

    @property
    def samples_per_code(self) -> int:
        """Product of the upsampling rates."""
        product = 1
        for rate in self.upsample_rates:
            product *= rate
        return product


@dataclass(frozen=True)
class VitaConfig:
    """All components of one checkpoint, with what the prompt and the front ends need of its files."""

    language_model: LanguageModelConfig
    vision: VisionEncoderConfig
    audio: AudioEncoderConfig
    speech_decoder: SpeechDecoderConfig
    codec: CodecConfig
    stop_ids: tuple[int, ...]
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    pad_to_square: bool
    sample_rate: int
    frame_length_ms: float
    frame_shift_ms: float
    notes: tuple[str, ...] = ()
    """What was read but treated in a way the user should know of (say, random dynamic chunks as full attention)."""
