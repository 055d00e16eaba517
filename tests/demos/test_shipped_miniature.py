"""The checkpoint that ships, through exported graphs: it hears, sees, answers rightly, and speaks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from sottovoce.demos.first_answer import TRAINED
from sottovoce.demos.miniature.speech_out.acoustic_units import AcousticUnits
from sottovoce.demos.miniature.speech_out.codec_training import MINIATURE_CODEC
from sottovoce.demos.miniature.warm_start import PackedWeights, units_beside
from sottovoce.export.export import export
from sottovoce.export.modules.codec import CodecDecoder
from sottovoce.runtime import Assistant, AudioChunk, ReplyDone


@pytest.fixture(scope="module")
def assistant(tmp_path_factory: pytest.TempPathFactory) -> Assistant:
    bundle = tmp_path_factory.mktemp("miniature") / "miniature.bundle"
    export(TRAINED.checkpoint, bundle)
    return Assistant.open(bundle)


def asked(assistant: Assistant, **question: object) -> tuple[str, str | None, np.ndarray]:
    speech, done = [np.zeros(0, np.float32)], None
    for event in assistant.conversation(greedy=True, max_new_tokens=60).ask(**question):  # type: ignore[arg-type]
        if isinstance(event, AudioChunk):
            speech.append(event.samples)
        elif isinstance(event, ReplyDone):
            done = event
    assert done is not None
    return done.text.strip(), done.state, np.concatenate(speech)


def test_the_demonstration_is_answered_rightly_and_aloud(assistant: Assistant) -> None:
    text, state, speech = asked(assistant, audio=TRAINED.question)
    assert (text, state) == ("Seven plus five is twelve.", "☞")
    assert 0.8 < len(speech) / assistant.sample_rate < 4
    assert np.sqrt(np.square(speech).mean()) > 0.01


def test_a_typed_question_and_what_follows_from_it(assistant: Assistant) -> None:
    conversation = assistant.conversation(greedy=True, speech=False, max_new_tokens=60)
    replies = []
    for question in ("what is the capital of france", "and of italy"):
        *_, done = conversation.ask(question)
        assert isinstance(done, ReplyDone)
        replies.append(done.text.strip())
    assert replies == ["The capital of France is Paris.", "The capital of Italy is Rome."]


def test_a_picture_is_seen(assistant: Assistant, tmp_path: Path) -> None:
    picture = Image.new("RGB", (112, 112), (240, 240, 240))
    ImageDraw.Draw(picture).ellipse((31, 31, 81, 81), fill=(220, 40, 40))
    picture.save(tmp_path / "circle.png")
    text, _, _ = asked(assistant, text="What is in the picture?", images=[tmp_path / "circle.png"])
    assert text == "A red circle."


def test_silence_is_no_question(assistant: Assistant) -> None:
    hiss = np.random.default_rng(0).normal(0, 0.003, 32_000).astype(np.float32)
    text, state, speech = asked(assistant, audio=(hiss, 16_000))
    assert (text, state, len(speech)) == ("", "☟", 0)


def test_the_units_beside_the_checkpoint_hear_the_codes_that_the_codec_speaks(assistant: Assistant) -> None:
    """Where they were not the ones it was trained on, a code in a thousand would be the same."""
    _, _, speech = asked(assistant, text="what is seven plus five")
    units = AcousticUnits.read(units_beside(TRAINED.checkpoint))
    codes = units.encode(torch.from_numpy(speech[: len(speech) // 600 * 600]))
    codec = CodecDecoder(MINIATURE_CODEC)
    codec.load_state_dict(PackedWeights(TRAINED.checkpoint).codec)
    with torch.no_grad():
        again = units.encode(codec.fold_weight_norm().eval()(codes[None])[0])
    assert len(codes) > 40
    assert float((codes == again).float().mean()) > 0.5
