"""The shapes that engines are built for, from what the manifest says of lengths."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.engines.profiles import SizeRange, stage_profiles
from sottovoce.runtime.engines.record import ShapeRange
from sottovoce.runtime.errors import BundleError
from sottovoce.runtime.manifest import STAGES, AudioStreamSpec, GraphSpec, StageName, TensorSpec


@pytest.fixture(scope="module")
def opened(portable_bundle: Path) -> Bundle:
    return Bundle.open(portable_bundle)


def with_graph(bundle: Bundle, stage: StageName, spec: GraphSpec) -> Bundle:
    manifest = bundle.manifest
    return Bundle(bundle.path, replace(manifest, graphs={**manifest.graphs, stage: spec}))


def test_every_symbol_has_a_range(opened: Bundle) -> None:
    for stage in STAGES:
        for profile in stage_profiles(opened, stage):
            for shape in profile.shapes(opened.graph(stage)).values():
                ordered = zip(shape.minimum, shape.optimum, shape.maximum, strict=True)
                assert all(0 <= low <= usual <= high for low, usual, high in ordered)


def test_a_decoder_has_one_profile_for_prompts_and_one_for_a_token(opened: Bundle) -> None:
    width = opened.manifest.token_embeddings.width
    prefill, decode = (
        profile.shapes(opened.graph("language_model")) for profile in stage_profiles(opened, "language_model", 96)
    )
    assert prefill == {"embeddings": ShapeRange((1, 1, width), (1, 96, width), (1, 96, width))}
    assert decode == {"embeddings": ShapeRange((1, 1, width), (1, 1, width), (1, 96, width))}


def test_a_prompt_is_no_longer_than_the_cache(opened: Bundle) -> None:
    spec = opened.graph("language_model")
    assert spec.cache is not None
    [prompt, _] = (profile.sizes["positions"] for profile in stage_profiles(opened, "language_model", 1 << 20))
    assert prompt.maximum == spec.cache.max_length


def test_all_the_text_that_is_said_at_once_goes_in_one_call(opened: Bundle) -> None:
    """Positions of one call of the speech decoder see each other: its prompt cannot go in pieces, whatever is asked."""
    cache = opened.graph("speech_codes").cache
    assert cache is not None
    [text] = stage_profiles(opened, "speech_text", 8)
    frames = text.sizes["frames"].maximum
    per_token = opened.manifest.token_embeddings.width // opened.manifest.speech.frame_width
    assert frames == (cache.max_length // 2 - 1) // per_token * per_token
    for profile in stage_profiles(opened, "speech_codes", 8):
        assert profile.sizes["positions"].maximum == frames + 1


def test_pictures_have_a_thumbnail_beside_their_tiles(opened: Bundle) -> None:
    manifest = opened.manifest
    for tiles, thumbnail, most in ((12, True, 13), (12, False, 12), (1, True, 1)):
        image = replace(manifest.image, max_tiles=tiles, thumbnail=thumbnail)
        [profile] = stage_profiles(Bundle(opened.path, replace(manifest, image=image)), "vision_encoder")
        assert profile.sizes["tiles"] == SizeRange(1, 1, most)


def test_the_longest_utterance_and_all_that_a_stream_keeps(opened: Bundle) -> None:
    audio = replace(opened.manifest.audio, max_seconds=60.0, min_frames=7)
    stream = AudioStreamSpec(4, 7, 16, 16, 64, 0, 4, 0)
    spec = replace(opened.graph("audio_encoder"), stream=stream)
    bundle = with_graph(Bundle(opened.path, replace(opened.manifest, audio=audio)), "audio_encoder", spec)
    [profile] = stage_profiles(bundle, "audio_encoder")
    assert profile.sizes["frames"].minimum == 7
    assert profile.sizes["frames"].maximum == 5998
    assert profile.sizes["past"] == SizeRange(0, 64, 64)
    assert profile.sizes["tail"].minimum == 0
    assert profile.sizes["padding"] == SizeRange(0, 4, 4)
    unbounded = with_graph(bundle, "audio_encoder", replace(spec, stream=replace(stream, visible_frames=None)))
    [profile] = stage_profiles(unbounded, "audio_encoder")
    assert profile.sizes["past"].maximum == 5998 // 4


def test_a_chunk_of_codes_has_its_context_on_both_sides(opened: Bundle) -> None:
    speech = opened.manifest.speech
    [profile] = stage_profiles(opened, "codec")
    largest = max(piece.chunk_codes + 2 * piece.padding_codes for piece in (speech.first_piece, speech.later_pieces))
    assert profile.sizes["codes"].maximum >= largest
    assert profile.sizes["codes"].minimum == 1


def test_a_size_that_no_stage_has_is_named(opened: Bundle) -> None:
    spec = replace(opened.graph("codec"), inputs=(TensorSpec("codes", "codes", "int64", (1, "beats")),))
    [profile] = stage_profiles(opened, "codec")
    with pytest.raises(BundleError, match="'codes' has the size 'beats', expected one of codes"):
        profile.shapes(spec)
