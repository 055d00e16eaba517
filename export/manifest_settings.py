"""What the manifest says beside the graphs: front ends, prompts, limits and the rules of speech.

Numbers that a checkpoint does not hold are the released model's own (VITA-1.5, Fu et al. 2025).
"""

from __future__ import annotations

from sottovoce.export.checkpoint.extras import CheckpointExtras, SystemPrompts
from sottovoce.export.config import CodecConfig, SpeechDecoderConfig, VitaConfig
from sottovoce.export.graphs.audio_encoder import MIN_FRAMES, subsampling_steps
from sottovoce.runtime.manifest import (
    AudioFrontEnd,
    GenerationSpec,
    ImageFrontEnd,
    PieceSpec,
    PromptSpec,
    SpeechSpec,
    StateTokens,
    VideoFrontEnd,
)

WAVEFORM_SCALE = 32768.0
"""The filterbank takes samples in the range of 16-bit integers."""
MAX_AUDIO_SECONDS = 120.0
"""A question, not a lecture: attention in the audio encoder grows with the square of this."""
MIN_TILES, MAX_TILES = 1, 12
VIDEO = VideoFrontEnd(frames_per_second=1.0, min_frames=4, max_frames=16)
PADDING_CODES = 10
"""Codes of context on each side of a streamed piece."""
ONSET_CODES = (4, 4, 8, 16)
"""Codes of the first pieces of a reply."""

PERSONA = (
    "You are VITA, an assistant that listens, looks and speaks. Always answer in the language that the user speaks or "
    "writes."
)
OWN_PROMPTS = SystemPrompts(
    plain=f"{PERSONA} Be helpful, accurate and brief.",
    image=f"{PERSONA} The user shows you pictures: base your answer strictly on what they show.",
    video=f"{PERSONA} The user shows you a video: base your answer strictly on what it shows.",
)


def audio_front_end(config: VitaConfig) -> AudioFrontEnd:
    """Mel filterbank settings and how many embeddings come out."""
    return AudioFrontEnd(
        sample_rate=config.sample_rate,
        mel_bins=config.audio.mel_bins,
        frame_length_ms=config.frame_length_ms,
        frame_shift_ms=config.frame_shift_ms,
        waveform_scale=WAVEFORM_SCALE,
        min_frames=MIN_FRAMES,
        max_seconds=MAX_AUDIO_SECONDS,
        subsampling=subsampling_steps(config.audio),
        prompt_tokens=config.audio.prompt_tokens,
    )


def image_front_end(config: VitaConfig, extras: CheckpointExtras) -> ImageFrontEnd:
    """Tiling and normalization."""
    return ImageFrontEnd(
        image_size=config.vision.image_size,
        mean=config.image_mean,
        std=config.image_std,
        pad_to_square=config.pad_to_square,
        min_tiles=MIN_TILES,
        max_tiles=MAX_TILES if extras.max_tiles is None else extras.max_tiles,
        thumbnail=True,
        tokens_per_tile=config.vision.tokens_per_tile,
    )


def prompt(extras: CheckpointExtras) -> PromptSpec:
    """ChatML, with a system text for each kind of conversation: the checkpoint's own, if it brings them."""
    texts = extras.system_prompts or OWN_PROMPTS
    return PromptSpec(
        turn_start="<|im_start|>",
        turn_end="<|im_end|>",
        system_image=texts.image,
        system_video=texts.video,
        system_plain=texts.plain,
        states=StateTokens(),
    )


def generation(config: VitaConfig, context_length: int) -> GenerationSpec:
    """Greedy unless asked otherwise: the released model samples at a temperature of 0.01, which is the same."""
    return GenerationSpec(
        stop_ids=config.stop_ids,
        context_length=context_length,
        max_new_tokens=1024,
        temperature=0.0,
        top_k=0,
        top_p=1.0,
        repetition_penalty=1.0,
    )


def onset(reach: int) -> tuple[PieceSpec, ...]:
    """The first chunks of a reply, for a codec that looks `reach` codes to each side.

    With that much context a chunk's samples are the same as in the whole, however small the chunk; so 4 codes and their
    context are enough to begin with, where the released server waits for 30. Each chunk is ready before the one before
    is played if a code takes half as long to make as to play. A codec that looks further gets the released rule.
    """
    if reach > PADDING_CODES:
        return ()
    return tuple(PieceSpec(chunk, reach, 0.0) for chunk in ONSET_CODES)


def speech(decoder: SpeechDecoderConfig, codec: CodecConfig, reach: int) -> SpeechSpec:
    """Ids, limits and the streaming rules of the released server, but for a reply's onset."""
    return SpeechSpec(
        sample_rate=codec.sample_rate,
        samples_per_code=codec.samples_per_code,
        codes=decoder.num_codes,
        begin_id=decoder.begin_id,
        start_id=decoder.start_id,
        end_id=decoder.end_id,
        padding_id=decoder.padding_id,
        max_codes=1000,
        top_k=2,
        penalty=1.0,
        penalty_window=0,
        frame_width=decoder.hidden_size,
        first_piece=PieceSpec(chunk_codes=20, padding_codes=PADDING_CODES, threshold=0.1),
        later_pieces=PieceSpec(chunk_codes=40, padding_codes=PADDING_CODES, threshold=0.015),
        cut_window_samples=2401,
        cut_search_samples=1200,
        split_after=",.?!\n，。？！、",
        min_piece_characters=5,
        onset=onset(reach),
    )
