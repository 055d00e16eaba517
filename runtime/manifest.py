"""`bundle.json` as typed data: everything the runtime must know is in here, and nothing else is believed.

The graphs' tensor names, dtypes and shapes are values of this manifest. The runtime looks a tensor up by its *role*
(what it is for) and feeds it under its *name* (what this exporter called it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

FORMAT_VERSION = 1
MODEL_FAMILY = "vita-1.5"

StageName = Literal["audio_encoder", "vision_encoder", "language_model", "speech_text", "speech_codes", "codec"]
STAGES: tuple[StageName, ...] = (
    "audio_encoder",
    "vision_encoder",
    "language_model",
    "speech_text",
    "speech_codes",
    "codec",
)
DataType = Literal["float32", "float16", "int64", "int32", "int8", "bool"]
Precision = Literal["fp32", "fp16"]
StagePrecision = Literal["fp32", "fp16", "int8", "int8-weights", "int4-weights"]
"""`int8`: weights and the activations that meet them; `…-weights`: weights alone, activations stay floating point."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph. A dimension is a number or a symbol, the same symbol meaning the same size."""

    role: str
    name: str
    dtype: DataType
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class KVCacheSpec:
    """Layout of a decoder's cache: for each layer one key and one value buffer (1, kv_heads, capacity, head_size).

    The graph takes all buffers and the number of valid positions (`cache_length`), writes the new positions behind
    them, and returns the buffers. `capacity` is symbolic in the graph: the runtime chooses it, up to `max_length`.
    With `fixed_capacity` it is a number in the graph, `max_length`, and the buffers have that size from the start.
    """

    layers: int
    kv_heads: int
    head_size: int
    dtype: DataType
    max_length: int
    fixed_capacity: bool = False


@dataclass(frozen=True)
class AudioStreamSpec:
    """How an audio encoder with chunked attention takes an utterance in several calls.

    Encoder frame n is made of the filterbank frames from `stride_frames` · n on, `receptive_frames` of them, so that a
    call's last ones come again in the next. The state goes in and comes out: `past_keys`, `past_key_biases`,
    `past_values` (no frames at first), `past_frames` if there is `first_tail_frames`; with it go the place of the
    call's first encoder frame (`position`), and with the last call `padding_frames` of zeros (`padding`), if any.
    """

    stride_frames: int
    receptive_frames: int
    step_frames: int
    """Calls that do not end the utterance take a multiple of so many encoder frames: whole chunks."""
    first_step_frames: int
    """The first call, if it does not end the utterance, takes at least so many."""
    visible_frames: int | None
    """Past encoder frames that attention can see, at most; None: all."""
    first_tail_frames: int | None
    """Frames of zeros in the first state's `past_frames`; None: the graph has none."""
    padding_frames: int
    prompt_tokens: int
    """Learned vectors in front of every call's embeddings: those of the first call alone are to be kept."""


@dataclass(frozen=True)
class QuantizationSpec:
    """How one stage was made smaller, and by how much. Bytes are of the graph, its weights and its embedding table."""

    floats: Precision
    """The type of all that stayed in floating point."""
    method: str
    """How integers were chosen: "nearest" (least error of the weights), "gptq" (least error of a layer's output)."""
    block_size: int | None
    """Weights that share a scale, along a layer's inputs; None: all weights of an output channel do."""
    bytes_before: int
    bytes_after: int
    weights_share: float
    """Of the weights of matrix products and convolutions, how many are stored in the stage's precision: 0 to 1."""
    multiply_adds_share: float | None = None
    """Of the multiply-adds of a typical call, how many have both factors in INT8: 0 to 1; None: not counted."""
    smoothed: int = 0
    """Groups of layers whose activations' outlier channels were moved into the weights."""
    kept: Mapping[str, str] = field(default_factory=dict)
    """Weights, and products of activations, that stay in floating point, and why."""


@dataclass(frozen=True)
class GraphSpec:
    """One exported stage: its files, how it is spelled, and its contract."""

    file: str
    data: tuple[str, ...]
    dialect: str
    opset: int
    precision: StagePrecision
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    cache: KVCacheSpec | None = None
    quantization: QuantizationSpec | None = None
    stream: AudioStreamSpec | None = None
    """Only of an audio encoder that can hear speech while it is spoken."""

    @property
    def floats(self) -> Precision:
        """The type of what the graph holds in floating point."""
        if self.quantization is not None:
            return self.quantization.floats
        return "fp16" if self.precision == "fp16" else "fp32"

    @property
    def has_integer_weights(self) -> bool:
        """Whether products have weights in INT8 or INT4."""
        return self.precision.startswith("int")


@dataclass(frozen=True)
class EmbeddingTableSpec:
    """A raw little-endian row-major table in a file of its own, memory-mapped at run time: (rows, width)."""

    file: str
    dtype: Literal["float32", "float16", "int8"]
    rows: int
    width: int
    scales: str | None = None
    """The file of float32 scales (rows,) that rows of an int8 table are multiplied with; the other types have none."""

    @property
    def files(self) -> tuple[str, ...]:
        """All files of the table."""
        return (self.file,) if self.scales is None else (self.file, self.scales)


@dataclass(frozen=True)
class AudioFrontEnd:
    """Kaldi mel filterbank settings (CMVN is inside the audio graph) and the encoder's length rule."""

    sample_rate: int
    mel_bins: int
    frame_length_ms: float
    frame_shift_ms: float
    waveform_scale: float
    min_frames: int
    max_seconds: float
    subsampling: tuple[tuple[int, int], ...]
    """Each step (start, stride) of the frame mask: tokens = length of ones(frames)[start::stride] applied in turn."""
    prompt_tokens: int
    """Learned vectors that the graph puts in front of every utterance (0 if the checkpoint has none)."""


@dataclass(frozen=True)
class ImageFrontEnd:
    """CLIP pixels and the dynamic tiling of InternVL."""

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    pad_to_square: bool
    min_tiles: int
    max_tiles: int
    thumbnail: bool
    tokens_per_tile: int


@dataclass(frozen=True)
class VideoFrontEnd:
    """How frames are taken from a clip: one each second, at least and at most so many."""

    frames_per_second: float
    min_frames: int
    max_frames: int


@dataclass(frozen=True)
class StateTokens:
    """The first token of a reply: what kind of turn the model took this for."""

    question: str = "☞"
    not_addressed: str = "☟"
    typed: str = "☜"


@dataclass(frozen=True)
class PromptSpec:
    """ChatML framing, system texts and placeholders."""

    turn_start: str
    turn_end: str
    system_image: str
    system_video: str
    system_plain: str
    states: StateTokens


@dataclass(frozen=True)
class GenerationSpec:
    """Stop tokens, limits and sampling defaults of the language model."""

    stop_ids: tuple[int, ...]
    context_length: int
    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    repetition_penalty: float


@dataclass(frozen=True)
class PieceSpec:
    """One setting of the streamed codec: codes per piece, codes of context each side, and the cut's threshold."""

    chunk_codes: int
    padding_codes: int
    threshold: float


@dataclass(frozen=True)
class SpeechSpec:
    """Ids, limits and streaming rules of the speech decoder and the codec."""

    sample_rate: int
    samples_per_code: int
    codes: int
    begin_id: int
    start_id: int
    end_id: int
    padding_id: int
    max_codes: int
    top_k: int
    penalty: float
    penalty_window: int
    frame_width: int
    first_piece: PieceSpec
    later_pieces: PieceSpec
    cut_window_samples: int
    cut_search_samples: int
    split_after: str
    min_piece_characters: int
    onset: tuple[PieceSpec, ...] = ()
    """The first chunks of a reply, each given out whole; then `first_piece` holds. None: it holds from the start."""


@dataclass(frozen=True)
class FileRecord:
    """Size and hash of one file of the bundle."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Provenance:
    """Who made this bundle, from what, with which versions."""

    exporter: str
    created: str
    checkpoint: str
    checkpoint_sha256: str
    versions: Mapping[str, str]
    notes: tuple[str, ...] = ()
    """What a person should know: a random dynamic chunk treated as full attention, keys that were ignored…"""


@dataclass(frozen=True)
class QuantizationRecord:
    """What this bundle was quantized from, and with which measurements."""

    tool: str
    created: str
    source_sha256: str
    """Of the `bundle.json` it was made from, which holds the hashes of all its files."""
    ranges_sha256: str | None
    data_sha256: str | None
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class BundleManifest:
    """The whole of `bundle.json`."""

    format_version: int
    model_family: str
    graphs: Mapping[str, GraphSpec]
    tokenizer: str
    token_embeddings: EmbeddingTableSpec
    code_embeddings: EmbeddingTableSpec
    audio: AudioFrontEnd
    image: ImageFrontEnd
    video: VideoFrontEnd
    prompt: PromptSpec
    generation: GenerationSpec
    speech: SpeechSpec
    provenance: Provenance
    files: Mapping[str, FileRecord]
    quality: Mapping[str, float] = field(default_factory=dict)
    """What this precision cost, as measured: filled by quantization."""
    quantization: QuantizationRecord | None = None
