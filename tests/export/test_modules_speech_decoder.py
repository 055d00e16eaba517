"""The speech decoder against the reference's values, its two parts' masks and positions, and that it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sottovoce.export.checkpoint.reader import Checkpoint
from sottovoce.export.config import SpeechDecoderConfig
from sottovoce.export.modules.speech_decoder import SpeechDecoder

SMALL = SpeechDecoderConfig(hidden_size=32, num_heads=4, intermediate_size=64, num_code_layers=3, num_codes=20)
SURE_MARGIN = 1e-3


def random_decoder() -> SpeechDecoder:
    """A decoder whose norms and bias also differ from their initial values."""
    torch.manual_seed(10)
    decoder = SpeechDecoder(SMALL).eval()
    for parameter in decoder.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return decoder


@pytest.fixture(scope="module")
def tiny_decoder(tiny_checkpoint: Path) -> SpeechDecoder:
    checkpoint = Checkpoint.open(tiny_checkpoint)
    decoder = SpeechDecoder(checkpoint.config.speech_decoder).eval()
    decoder.load_state_dict(dict(checkpoint.component_state("speech_decoder")))
    return decoder


def test_the_conditioned_frames_are_the_references(tiny_decoder: SpeechDecoder, golden: dict[str, np.ndarray]) -> None:
    with torch.no_grad():
        conditioned = tiny_decoder.condition(torch.from_numpy(golden["speech.text_frames"])[None])
    np.testing.assert_allclose(conditioned[0].numpy(), golden["speech.nar"], rtol=0, atol=1e-4)


def test_the_greedy_codes_are_the_references(
    tiny_decoder: SpeechDecoder, golden: dict[str, np.ndarray], golden_json: dict[str, Any]
) -> None:
    expected = golden_json["speech"]
    steps = len(expected["greedy_codes"])
    codes, logits = tiny_decoder.greedy(torch.from_numpy(golden["speech.text_frames"])[None], steps)
    np.testing.assert_allclose(logits.numpy(), golden["speech.step_logits"], rtol=0, atol=1e-4)
    sure = [margin > SURE_MARGIN for margin in expected["margin"]]
    assert [c for c, s in zip(codes, sure, strict=True) if s] == [
        c for c, s in zip(expected["greedy_codes"], sure, strict=True) if s
    ]


def test_teacher_forcing_gives_the_references_step_logits(
    tiny_decoder: SpeechDecoder, golden: dict[str, np.ndarray], golden_json: dict[str, Any]
) -> None:
    codes = torch.tensor([golden_json["speech"]["greedy_codes"][:-1]])
    with torch.no_grad():
        logits = tiny_decoder(torch.from_numpy(golden["speech.text_frames"])[None], None, codes, None)[0]
    np.testing.assert_allclose(logits.numpy(), golden["speech.step_logits"], rtol=0, atol=1e-4)


def test_a_padded_batch_equals_single_pieces() -> None:
    decoder = random_decoder()
    frame_lengths, code_lengths = torch.tensor([9, 2, 5]), torch.tensor([4, 11, 0])
    frames, codes = torch.randn(3, 9, 32), torch.randint(0, 20, (3, 11))
    poisoned, padded = frames.clone(), codes.clone()
    for item in range(3):
        poisoned[item, frame_lengths[item] :] = torch.nan
        padded[item, code_lengths[item] :] = SMALL.padding_id
    with torch.no_grad():
        conditioned = decoder.condition(poisoned, frame_lengths)
        logits = decoder(poisoned, frame_lengths, padded, code_lengths)
        for item in range(3):
            n, m = int(frame_lengths[item]), int(code_lengths[item])
            alone = frames[item : item + 1, :n]
            torch.testing.assert_close(conditioned[item, :n], decoder.condition(alone)[0], rtol=0, atol=1e-5)
            expected = decoder(alone, None, codes[item : item + 1, :m], None)[0]
            torch.testing.assert_close(logits[item, : m + 1], expected, rtol=0, atol=1e-5)
    assert logits.isfinite().all()


def test_the_prefix_is_seen_whole_and_the_codes_only_backwards() -> None:
    decoder = random_decoder()
    frames = torch.randn(1, 4, 32)
    codes = torch.tensor([[1, 2, 3, 4, 5]])
    with torch.no_grad():
        before = decoder(frames, None, codes, None)[0]
        codes[0, 2] = 19
        after = decoder(frames, None, codes, None)[0]
        assert torch.equal(before[:3], after[:3])
        assert all(not torch.allclose(a, b) for a, b in zip(before[3:], after[3:], strict=True))
        conditioned = decoder.condition(frames)
        frames[0, 3] += 1.0
        assert all(not torch.allclose(a, b) for a, b in zip(conditioned[0], decoder.condition(frames)[0], strict=True))


def test_ids_that_are_no_codes_are_never_spoken_and_the_end_ends() -> None:
    decoder = random_decoder()
    frames = torch.randn(1, 6, 32)
    decoder.out_fnn.bias.data[[SMALL.begin_id, SMALL.start_id, SMALL.padding_id]] = 100.0
    codes, logits = decoder.greedy(frames, 30)
    assert len(logits) in (len(codes), len(codes) + 1)
    assert codes
    assert max(codes) < SMALL.num_codes
    decoder.out_fnn.bias.data[SMALL.end_id] = 50.0
    codes, logits = decoder.greedy(frames, 30)
    assert codes == []
    assert len(logits) == 1


def test_training_lowers_the_loss_and_reaches_every_parameter() -> None:
    torch.manual_seed(11)
    decoder = SpeechDecoder(SMALL).train()
    frames, codes = torch.randn(3, 6, 32), torch.randint(0, 20, (3, 10))
    frame_lengths, code_lengths = torch.tensor([6, 3, 5]), torch.tensor([10, 6, 8])
    places = torch.arange(11)[None]
    labels = F.pad(codes, (0, 1))
    labels = torch.where(places == code_lengths[:, None], SMALL.end_id, labels)
    labels = torch.where(places > code_lengths[:, None], -100, labels)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=5e-3)
    losses = []
    for _ in range(20):
        logits = decoder(frames, frame_lengths, codes, code_lengths)
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    assert all(value.grad is not None and value.grad.any() for value in decoder.parameters())


def test_dropout_is_for_training_only() -> None:
    decoder = random_decoder()
    frames = torch.randn(1, 6, 32)
    with torch.no_grad():
        assert torch.equal(decoder.condition(frames), decoder.condition(frames))
        decoder.train()
        assert not torch.equal(decoder.condition(frames), decoder.condition(frames))
