"""The shapes that each stage's engine takes: optimization profiles, from what the manifest says of lengths.

| stage | profiles | shapes |
| --- | --- | --- |
| language_model | prefill, decode | 1…`max_prompt` positions; one position is what decode is best at |
| speech_codes | prefill, decode | 1…the longest part of a reply that is said at once, which comes in one call |
| vision_encoder | tiles | 1…all tiles of a picture and its thumbnail |
| audio_encoder | utterance | the shortest to the longest utterance; a stream's state from empty to all it may hold |
| speech_text | text | 1…the frames of that part |
| codec | chunk | 1…the codes of the largest chunk, with its context |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.engines.record import ShapeRange
from sottovoce.runtime.errors import BundleError
from sottovoce.runtime.features.images import THUMBNAIL_MIN_TILES
from sottovoce.runtime.manifest import (
    AudioFrontEnd,
    BundleManifest,
    GraphSpec,
    ImageFrontEnd,
    SpeechSpec,
    StageName,
    TensorSpec,
)
from sottovoce.runtime.speech_in.encoder_stream import CALL_MS

PREFILL, DECODE = "prefill", "decode"
DEFAULT_MAX_PROMPT = 512
"""Positions of one call of the language model; a longer prompt goes in several."""
USUAL_PROMPT = 128
USUAL_UTTERANCE_SECONDS = 4.0
USUAL_TEXT_FRAMES = 32


@dataclass(frozen=True)
class SizeRange:
    """What one symbol of the graph's shapes may be."""

    minimum: int
    optimum: int
    maximum: int

    @classmethod
    def upto(cls, maximum: int, *, usual: int, minimum: int = 1) -> SizeRange:
        """From `minimum` to `maximum`, best at `usual` or as near to it as that allows."""
        maximum = max(minimum, maximum)
        return cls(minimum, min(max(usual, minimum), maximum), maximum)


@dataclass(frozen=True)
class StageProfile:
    """One optimization profile: its name, and the sizes of the graph's symbols."""

    name: str
    sizes: Mapping[str, SizeRange]

    def shapes(self, spec: GraphSpec) -> dict[str, ShapeRange]:
        """Name of each input that has a symbol in its shape → the shapes it may have.

        Raises:
            BundleError: a symbol of the graph is none that this stage has.
        """
        return {tensor.name: self._range(tensor, spec) for tensor in spec.inputs if _is_dynamic(tensor)}

    def _range(self, tensor: TensorSpec, spec: GraphSpec) -> ShapeRange:
        sizes = []
        for size in tensor.shape:
            if isinstance(size, str) and size not in self.sizes:
                message = f"the input {tensor.name!r} has the size {size!r}, expected one of {', '.join(self.sizes)}"
                raise BundleError(message, file=spec.file, fix="export the checkpoint again with this sottovoce")
            sizes.append(self.sizes[size] if isinstance(size, str) else SizeRange(size, size, size))
        return ShapeRange(
            tuple(size.minimum for size in sizes),
            tuple(size.optimum for size in sizes),
            tuple(size.maximum for size in sizes),
        )


def stage_profiles(bundle: Bundle, stage: StageName, max_prompt: int = DEFAULT_MAX_PROMPT) -> tuple[StageProfile, ...]:
    """The optimization profiles of a stage.

    A decoder's second profile takes prompts, too: TensorRT-RTX keeps a second copy of all weights for a profile that
    allows one shape alone, and one copy for two profiles that allow several.

    Args:
        bundle: whose manifest says how long things get.
        stage: which graph.
        max_prompt: positions that one call of the language model may take; cut to what its cache holds.
    """
    manifest, spec = bundle.manifest, bundle.graph(stage)
    match stage:
        case "language_model":
            return _decoder_profiles(spec, _longest_prompt(spec, max_prompt))
        case "speech_codes":
            return _decoder_profiles(spec, 1 + _text_frames(manifest))
        case "audio_encoder":
            return (StageProfile("utterance", _audio_sizes(spec, manifest.audio)),)
        case "vision_encoder":
            return (StageProfile("tiles", {"tiles": SizeRange.upto(_tiles(manifest.image), usual=1)}),)
        case "speech_text":
            frames = SizeRange.upto(_text_frames(manifest), usual=USUAL_TEXT_FRAMES)
            return (StageProfile("text", {"frames": frames}),)
        case "codec":
            return (StageProfile("chunk", {"codes": _codes(manifest.speech)}),)


def _longest_prompt(spec: GraphSpec, max_prompt: int) -> int:
    assert spec.cache is not None  # noqa: S101  # the contract of a bundle that was opened
    return min(max_prompt, spec.cache.max_length)


def _decoder_profiles(spec: GraphSpec, longest: int) -> tuple[StageProfile, ...]:
    assert spec.cache is not None  # noqa: S101  # the caller has looked
    capacity = SizeRange.upto(spec.cache.max_length, usual=spec.cache.max_length)
    return tuple(
        StageProfile(name, {"positions": SizeRange.upto(longest, usual=usual), "capacity": capacity})
        for name, usual in ((PREFILL, USUAL_PROMPT), (DECODE, 1))
    )


def _audio_sizes(spec: GraphSpec, front_end: AudioFrontEnd) -> dict[str, SizeRange]:
    """Filterbank frames of an utterance, and what a stream keeps between calls."""
    longest = int((front_end.max_seconds * 1000 - front_end.frame_length_ms) / front_end.frame_shift_ms) + 1
    usual = round(USUAL_UTTERANCE_SECONDS * 1000 / front_end.frame_shift_ms)
    sizes = {"frames": SizeRange.upto(longest, usual=usual, minimum=front_end.min_frames)}
    stream = spec.stream
    if stream is None:
        return sizes
    call = round(CALL_MS / front_end.frame_shift_ms) + stream.receptive_frames - stream.stride_frames
    sizes["frames"] = SizeRange.upto(longest, usual=call, minimum=front_end.min_frames)
    past = longest // stream.stride_frames if stream.visible_frames is None else stream.visible_frames
    tail = (stream.first_tail_frames or 0) + 2 * stream.padding_frames + stream.step_frames
    sizes["past"] = SizeRange.upto(past, usual=past, minimum=0)
    sizes["tail"] = SizeRange.upto(tail, usual=stream.padding_frames, minimum=0)
    sizes["padding"] = SizeRange.upto(stream.padding_frames, usual=stream.padding_frames, minimum=0)
    return sizes


def _tiles(image: ImageFrontEnd) -> int:
    """Of one picture: its tiles, and a thumbnail of the whole."""
    return image.max_tiles + (1 if image.thumbnail and image.max_tiles >= THUMBNAIL_MIN_TILES else 0)


def _text_frames(manifest: BundleManifest) -> int:
    """Half of the speech decoder's context is for the text of one part, in whole tokens; see `speech.decoder`."""
    cache = manifest.graphs["speech_codes"].cache
    assert cache is not None  # noqa: S101  # the contract of a bundle that was opened
    frames_per_token = manifest.token_embeddings.width // manifest.speech.frame_width
    return max(1, (cache.max_length // 2 - 1) // frames_per_token) * frames_per_token


def _codes(speech: SpeechSpec) -> SizeRange:
    """Of a chunk with its context on both sides."""
    pieces = (speech.first_piece, speech.later_pieces, *speech.onset)
    before = max(speech.first_piece.padding_codes, speech.later_pieces.padding_codes)
    largest = before + max(piece.chunk_codes + piece.padding_codes for piece in pieces)
    usual = speech.later_pieces
    return SizeRange.upto(largest, usual=usual.chunk_codes + 2 * usual.padding_codes)


def _is_dynamic(tensor: TensorSpec) -> bool:
    return any(isinstance(size, str) for size in tensor.shape)
