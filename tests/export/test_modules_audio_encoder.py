"""The audio encoder against the reference's values, its windows, its padding, its adapters, and that it trains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sottovoce.export.checkpoint.reader import Checkpoint
from sottovoce.export.config import AdapterConfig, AudioEncoderConfig
from sottovoce.export.modules.adapter import build_adapter
from sottovoce.export.modules.audio_encoder import AudioEncoder
from sottovoce.export.modules.audio_transformer import AudioTransformer, PositionAttention, sinusoid
from sottovoce.export.modules.masks import chunk_mask

LAYER_GELU = AdapterConfig("subsampling", 32, 48, kernel_size=5, norm="layer", activation="gelu")
BATCH_RELU = AdapterConfig("subsampling", 32, 48, kernel_size=4, norm="batch", activation="relu")
TWO_CONVOLUTIONS = AdapterConfig("subsampling", 32, 160, kernel_size=3)
CNN = AdapterConfig("cnn", 32, 48, kernel_size=3)
LINEAR = AdapterConfig("linear", 32, 48)
ADAPTERS = {
    "layer_gelu": LAYER_GELU,
    "batch_relu": BATCH_RELU,
    "two_convolutions": TWO_CONVOLUTIONS,
    "cnn": CNN,
    "linear": LINEAR,
}
SMALL = AudioEncoderConfig(
    mel_bins=40,
    subsampling_size=24,
    attention_size=32,
    num_heads=4,
    linear_units=56,
    num_blocks=2,
    adapter=LAYER_GELU,
)
CHUNKED = replace(SMALL, chunk_size=3, left_chunks=1, adapter=BATCH_RELU, prompt_tokens=2)


def random_encoder(config: AudioEncoderConfig) -> AudioEncoder:
    """An encoder whose every tensor, statistics too, differs from its initial value."""
    torch.manual_seed(5)
    encoder = AudioEncoder(config).eval()
    for name, tensor in encoder.state_dict().items():
        if name.endswith(("running_var", "istd")):
            tensor.uniform_(0.5, 2.0)
        elif tensor.is_floating_point():
            tensor.add_(0.05 * torch.randn_like(tensor))
    return encoder


def test_equal_to_the_reference_step_by_step(golden: dict[str, np.ndarray], tiny_checkpoint: Path) -> None:
    checkpoint = Checkpoint.open(tiny_checkpoint)
    encoder = AudioEncoder(checkpoint.config.audio).eval()
    encoder.load_state_dict(dict(checkpoint.component_state("audio")))
    seen: dict[str, Tensor] = {}
    steps = {
        "audio.cmvn": "encoder.global_cmvn",
        "audio.subsampling": "encoder.enc.0",
        "audio.layer0": "encoder.enc.1.encoders.0",
        "audio.encoder": "encoder.enc.1",
    }
    for key, name in steps.items():
        encoder.get_submodule(name).register_forward_hook(lambda _m, _i, output, key=key: seen.update({key: output}))
    with torch.no_grad():
        seen["audio.embeddings"], lengths = encoder(torch.from_numpy(golden["audio.fbank"])[None])
    assert lengths.tolist() == [len(golden["audio.embeddings"])]
    for key, value in seen.items():
        np.testing.assert_allclose(value[0].numpy(), golden[key], rtol=0, atol=1e-4, err_msg=key)


def test_token_counts_are_the_references(golden_json: dict[str, Any]) -> None:
    encoder = random_encoder(SMALL)
    table = golden_json["audio"]["length_table"]
    frames = torch.tensor([row[0] for row in table])
    with torch.no_grad():
        embeddings, lengths = encoder(torch.randn(len(table), int(frames.max()), 40), frames)
        assert lengths.tolist() == [row[1] for row in table]
        for count, tokens, _ in table:
            assert encoder(torch.randn(1, count, 40))[0].shape[1] == tokens
    assert embeddings.shape[1] == max(row[1] for row in table)


@pytest.mark.parametrize(
    "config",
    [replace(SMALL, adapter=adapter) for adapter in ADAPTERS.values()] + [CHUNKED],
    ids=[*ADAPTERS, "chunked_with_prompts"],
)
def test_a_padded_batch_equals_single_utterances(config: AudioEncoderConfig) -> None:
    encoder = random_encoder(config).double()  # so that nothing but a leak makes a difference
    lengths = torch.tensor([61, 7, 38, 4])
    features = torch.randn(4, 61, 40, dtype=torch.float64)
    poisoned = features.clone()
    for item, length in enumerate(lengths):
        poisoned[item, length:] = torch.nan
    with torch.no_grad():
        embeddings, counts = encoder(poisoned, lengths)
        hidden, frames = encoder.encode(poisoned, lengths)
        for item, length in enumerate(lengths[:3]):
            alone, _ = encoder(features[item : item + 1, :length])
            assert counts[item] == alone.shape[1]
            torch.testing.assert_close(embeddings[item, : counts[item]], alone[0], rtol=0, atol=1e-12)
            frames_alone, _ = encoder.encode(features[item : item + 1, :length])
            torch.testing.assert_close(hidden[item, : frames[item]], frames_alone[0], rtol=0, atol=1e-12)
    assert frames[3] == 0
    assert counts[3] == config.prompt_tokens
    assert embeddings.isfinite().all()


@pytest.mark.parametrize(("chunk_size", "left_chunks"), [(1, 0), (3, 0), (4, 1), (5, -1), (40, 2), (-1, -1)])
def test_a_frame_depends_on_its_window_alone(chunk_size: int, left_chunks: int) -> None:
    torch.manual_seed(1)
    size = 17
    config = replace(SMALL, num_blocks=1, chunk_size=chunk_size, left_chunks=left_chunks)
    transformer = AudioTransformer(config).eval()
    frames = torch.randn(1, size, config.subsampling_size, requires_grad=True)
    outputs = transformer(frames, None)[0].square().sum(dim=1)
    for i in range(size):
        gradient = torch.autograd.grad(outputs[i], frames, retain_graph=True)[0]
        reached = (gradient[0].abs().sum(dim=1) > 0).tolist()
        chunk = i // chunk_size if chunk_size > 0 else 0
        first = max((chunk - left_chunks) * chunk_size, 0) if left_chunks >= 0 else 0
        last = (chunk + 1) * chunk_size if chunk_size > 0 else size
        assert reached == [first <= j < last for j in range(size)]


def test_the_mask_of_chunks_spelled_out() -> None:
    expected = [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 0], [0, 0, 1, 1, 1]]
    assert chunk_mask(5, 2, 1, torch.device("cpu")).int().tolist() == expected


def test_attention_is_the_two_products_of_its_definition() -> None:
    torch.manual_seed(2)
    attention = PositionAttention(SMALL).eval()
    x, positions = torch.randn(1, 9, 32), sinusoid(9, 32, torch.device("cpu"))[None]
    heads = [part.view(1, 9, 4, 8).transpose(1, 2) for part in (
        attention.linear_q(x), attention.linear_k(x), attention.linear_v(x), attention.linear_pos(positions),
    )]  # fmt: skip
    query, key, value, position = heads
    content = (query + attention.pos_bias_u[:, None]) @ key.transpose(2, 3)
    place = (query + attention.pos_bias_v[:, None]) @ position.transpose(2, 3)
    mixed = ((content + place) / 8**0.5).softmax(-1) @ value
    expected = attention.linear_out(mixed.transpose(1, 2).reshape(1, 9, 32))
    torch.testing.assert_close(attention(x, positions, None), expected, rtol=0, atol=1e-5)


def test_positions_alternate_sine_and_cosine() -> None:
    table = sinusoid(50, 8, torch.device("cpu")).double().numpy()
    for column in range(8):
        angle = np.arange(50) * 10000.0 ** (-2 * (column // 2) / 8)
        np.testing.assert_allclose(table[:, column], np.cos(angle) if column % 2 else np.sin(angle), atol=1e-5)


@pytest.mark.parametrize(
    ("adapter", "first", "last"),
    [
        (LAYER_GELU, lambda i: 2 * i, lambda i: 2 * i + 4),
        (BATCH_RELU, lambda i: 2 * i, lambda i: 2 * i + 3),
        (TWO_CONVOLUTIONS, lambda i: 2 * i - 2, lambda i: 2 * i + 2),
        (CNN, lambda i: i - 4, lambda i: i),
        (LINEAR, lambda i: i, lambda i: i),
    ],
    ids=ADAPTERS,
)
def test_each_adapter_looks_where_it_should(adapter: AdapterConfig, first: Any, last: Any) -> None:
    torch.manual_seed(3)
    module = build_adapter(adapter).eval()
    size = 11
    frames = torch.randn(1, size, 32, requires_grad=True)
    outputs = module(frames, None)[0].square().sum(dim=1)
    assert len(outputs) == int(module.output_lengths(torch.tensor(size)))
    for i in range(len(outputs)):
        gradient = torch.autograd.grad(outputs[i], frames, retain_graph=True)[0]
        reached = (gradient[0].abs().sum(dim=1) > 0).tolist()
        assert reached == [first(i) <= j <= last(i) for j in range(size)]


def test_batch_norm_uses_the_stored_statistics_and_the_layouts_epsilon() -> None:
    torch.manual_seed(4)
    adapter = build_adapter(BATCH_RELU).eval()
    norm = adapter.bn2
    norm.running_mean.normal_()
    norm.running_var.uniform_(0, 1e-3)  # small, so that the epsilon shows
    frames = torch.randn(1, 8, 32)
    padded = F.pad(frames.transpose(1, 2), (0, 3))
    columns = F.conv1d(padded, adapter.conv1d2.weight, adapter.conv1d2.bias, stride=2).transpose(1, 2)
    normed = (columns - norm.running_mean) / (norm.running_var + 1e-3).sqrt() * norm.weight + norm.bias
    expected = adapter.project(normed.relu())
    torch.testing.assert_close(adapter(frames, None), expected, rtol=1e-5, atol=1e-4)


def test_an_unknown_adapter_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown adapter 'mamba'"):
        build_adapter(replace(LINEAR, kind="mamba"))  # type: ignore[arg-type]


@pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS)
def test_training_lowers_the_loss_and_reaches_every_parameter(adapter: AdapterConfig) -> None:
    torch.manual_seed(6)
    encoder = AudioEncoder(replace(SMALL, adapter=adapter, prompt_tokens=1)).train()
    features, lengths = torch.randn(3, 60, 40), torch.tensor([60, 41, 52])
    target = 0.3 * torch.randn(3, encoder(features, lengths)[0].shape[1], adapter.llm_hidden_size)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        loss = F.mse_loss(encoder(features, lengths)[0], target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    unreached = [name for name, value in encoder.named_parameters() if value.grad is None or not value.grad.any()]
    assert not unreached


def test_dropout_is_for_training_only() -> None:
    encoder = random_encoder(SMALL)
    features = torch.randn(1, 60, 40)
    with torch.no_grad():
        torch.testing.assert_close(encoder(features)[0], encoder(features)[0], rtol=0, atol=0)
        encoder.train()
        assert not torch.equal(encoder(features)[0], encoder(features)[0])
