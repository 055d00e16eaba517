"""Audio encoder: one utterance's mel filterbank → embeddings for the language model.

| name | type | shape | meaning |
| --- | --- | --- | --- |
| features | float32 | (1, frames, mel bins) | Kaldi log-mel filterbank, not normalized; at least 7 frames |
| embeddings | float32 | (1, tokens, LLM width) | learned prompts (if the checkpoint has them), then the utterance |

With full attention that is all. An encoder with chunked attention also takes and gives a state, so that an utterance
can come in several calls; with the empty first state and the zeros of the end it hears all of it in one:

| name | type | shape | meaning |
| --- | --- | --- | --- |
| past_keys, present_keys | float32 | (layers, heads, past, head size) | of frames in sight: keys with positions |
| past_key_biases, present_… | float32 | (layers, heads, past, 1) | what the biases add to their scores |
| past_values, present_… | float32 | (layers, heads, past, head size) | their values |
| position | int64 | (1) | place of the call's first encoder frame |
| past_frames, present_… | float32 | (1, tail, width) | frames that later embeddings need; none with a linear adapter |
| padding | float32 | (1, padding, channels) | subsampling adapter: zeros behind the end; no rows before it |
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sottovoce.export.config import AudioEncoderConfig
from sottovoce.export.graphs.contract import StageFiles
from sottovoce.export.graphs.traced import TracedStage, trace
from sottovoce.export.modules.audio_encoder import AudioEncoder, AudioState
from sottovoce.export.modules.audio_transformer import AttendedFrames
from sottovoce.runtime.manifest import AudioStreamSpec, GraphSpec, TensorSpec

MIN_FRAMES = 7
"""Two unpadded convolutions of kernel 3 and stride 2 need this many."""
STRIDE_FRAMES = 4
EXAMPLE_FRAMES = 171
EXAMPLE_TAIL = 3


class AudioGraph(nn.Module):
    """The encoder on one unpadded utterance. Normalization stays in float32: raw energies are large and close."""

    def __init__(self, encoder: AudioEncoder, dtype: torch.dtype) -> None:
        super().__init__()
        self.cmvn = encoder.encoder.global_cmvn.float()
        encoder.encoder.global_cmvn = nn.Identity()  # type: ignore[assignment]  # done here, before the cast
        self.encoder = encoder.to(dtype)
        self.dtype = dtype

    def forward(self, features: Tensor) -> Tensor:
        """(1, frames, mel) → (1, tokens, llm)."""
        embeddings: Tensor = self.encoder(self.cmvn(features).to(self.dtype))[0]
        return embeddings.float()


class StreamingAudioGraph(AudioGraph):
    """The chunked encoder on a part of one utterance."""

    def forward(  # type: ignore[override]  # noqa: PLR0913  # the graph's inputs, with those of the state
        self,
        features: Tensor,
        past_keys: Tensor,
        past_key_biases: Tensor,
        past_values: Tensor,
        position: Tensor,
        past_frames: Tensor | None = None,
        padding: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Inputs as in the module's table → embeddings and the state, without the parts that the adapter lacks."""
        attended = AttendedFrames(*(past.to(self.dtype) for past in (past_keys, past_key_biases, past_values)))
        none = features.new_zeros(1, 0, 1).to(self.dtype)
        tail = none if past_frames is None else past_frames.to(self.dtype)
        behind = none if padding is None else padding.to(self.dtype)
        normed = self.cmvn(features).to(self.dtype)
        embeddings, state = self.encoder.stream(normed, AudioState(attended, tail), position, behind)
        kept = state.attended if past_frames is None else (*state.attended, state.tail)
        return tuple(value.float() for value in (embeddings, *kept))


def export_audio_encoder(encoder: AudioEncoder, config: AudioEncoderConfig, files: StageFiles) -> GraphSpec:
    """Write the graph. The encoder is consumed: it is cast and taken apart.

    Raises:
        OSError: the disk is full or not writable.
    """
    features = TensorSpec("features", "features", "float32", (1, "frames", config.mel_bins))
    embeddings = TensorSpec("embeddings", "embeddings", "float32", (1, "tokens", config.adapter.llm_hidden_size))
    example = torch.randn(1, EXAMPLE_FRAMES, config.mel_bins)
    if config.chunk_size <= 0:
        stage = TracedStage(
            AudioGraph(encoder, files.dtype), (example,), (features,), embeddings, smallest={"frames": MIN_FRAMES}
        )
        return trace(stage, files)
    state = _StateTensors(config, encoder)
    stage = TracedStage(
        StreamingAudioGraph(encoder, files.dtype),
        example=(example, *(state.example(tensor) for tensor in state.inputs)),
        inputs=(features, *state.inputs),
        output=embeddings,
        smallest={"frames": MIN_FRAMES, "past": 0, "tail": 0, "padding": 0},
        more_outputs=state.outputs,
    )
    spec = trace(stage, files)
    return replace(spec, stream=state.stream)


@dataclass(frozen=True)
class _StateTensors:
    """The contract of a chunked encoder's state."""

    config: AudioEncoderConfig
    encoder: AudioEncoder

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """All inputs but the features."""
        adapter = self.encoder.adpter.stream_shape
        padding = (TensorSpec("padding", "padding", "float32", (1, "padding", adapter.padding[1])),)
        position = TensorSpec("position", "position", "int64", (1,))
        attended, tail = self._kept("past", "past")
        return (*attended, position, *tail, *(padding if adapter.padding[0] else ()))

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """All outputs but the embeddings."""
        attended, tail = self._kept("present", "present")
        return (*attended, *tail)

    @property
    def stream(self) -> AudioStreamSpec:
        """What the runtime must keep to."""
        config, adapter = self.config, self.encoder.adpter.stream_shape
        step = math.lcm(config.chunk_size, adapter.step_frames)
        return AudioStreamSpec(
            stride_frames=STRIDE_FRAMES,
            receptive_frames=MIN_FRAMES,
            step_frames=step,
            first_step_frames=step * -(-adapter.least_frames // step),
            visible_frames=None if config.left_chunks < 0 else config.left_chunks * config.chunk_size,
            first_tail_frames=adapter.tail_frames,
            padding_frames=adapter.padding[0],
            prompt_tokens=config.prompt_tokens,
        )

    def example(self, tensor: TensorSpec) -> Tensor:
        """A value to trace with."""
        if tensor.role == "position":
            return torch.tensor([self.config.chunk_size * 8])
        sizes = {"past": max(2, self.stream.visible_frames or 8), "tail": EXAMPLE_TAIL, "padding": 2}
        return torch.randn([size if isinstance(size, int) else sizes[size] for size in tensor.shape])

    def _kept(self, time: str, past: str) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """What attention keeps, and what the adapter does."""
        config = self.config
        head_size = config.attention_size // config.num_heads
        sizes = {"keys": head_size, "key_biases": 1, "values": head_size}
        names = {name: f"{time}_{name}" for name in sizes}
        attended = tuple(
            TensorSpec(names[name], names[name], "float32", (config.num_blocks, config.num_heads, past, size))
            for name, size in sizes.items()
        )
        tail: int | str | None = self.encoder.adpter.stream_shape.tail_frames
        if tail is None:
            return attended, ()
        if config.adapter.kind == "subsampling":
            tail = "tail" if time == "past" else "present_tail"
        return attended, (TensorSpec(f"{time}_frames", f"{time}_frames", "float32", (1, tail, config.attention_size)),)


def subsampling_steps(config: AudioEncoderConfig) -> tuple[tuple[int, int], ...]:
    """How a mask of fbank frames thins out to a mask of embeddings: (start, stride) of each step.

    Two convolutions of kernel 3 and stride 2; the subsampling adapter halves once more, padded to the right.
    """
    convolutions = ((2, 2), (2, 2))
    return (*convolutions, (0, 2)) if config.adapter.kind == "subsampling" else convolutions
