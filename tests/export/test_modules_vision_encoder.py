"""The vision encoder against the reference's values, its position table and shuffle, and that it trains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sottovoce.export.checkpoint.reader import Checkpoint
from sottovoce.export.config import VisionEncoderConfig
from sottovoce.export.modules.vision_encoder import VisionEncoder, pixel_shuffle

SMALL = VisionEncoderConfig(
    hidden_size=32,
    intermediate_size=48,
    num_layers=2,
    num_heads=4,
    patch_size=14,
    image_size=56,
    llm_hidden_size=24,
)


def random_encoder(config: VisionEncoderConfig = SMALL) -> VisionEncoder:
    torch.manual_seed(16)
    encoder = VisionEncoder(config).eval()
    for parameter in encoder.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return encoder


def test_equal_to_the_reference_step_by_step(golden: dict[str, np.ndarray], tiny_checkpoint: Path) -> None:
    checkpoint = Checkpoint.open(tiny_checkpoint)
    encoder = VisionEncoder(checkpoint.config.vision).eval()
    encoder.load_state_dict(dict(checkpoint.component_state("vision")))
    seen: dict[str, Tensor] = {}
    transformer = encoder.vision_tower.vision_tower
    transformer.embeddings.register_forward_hook(lambda _m, _i, output: seen.update(embedded=output))
    transformer.register_forward_hook(lambda _m, _i, output: seen.update(hidden=output))
    encoder.mm_projector.register_forward_pre_hook(lambda _m, inputs: seen.update(shuffled=inputs[0]))
    with torch.no_grad():
        embeddings = encoder(torch.from_numpy(golden["image.pixels"]))
    values = {
        "image.embeddings_layer0_input": seen["embedded"][:1],
        "image.vision_hidden": seen["hidden"][:1],
        "image.shuffled": seen["shuffled"][0],
        "image.embeddings": embeddings,
    }
    for key, value in values.items():
        np.testing.assert_allclose(value.numpy(), golden[key], rtol=0, atol=1e-4, err_msg=key)


def test_the_shuffle_puts_four_neighbours_side_by_side() -> None:
    """Each output token holds one 2×2 block; blocks, and patches within a block, are in reading order."""
    side = 4
    patches = torch.arange(side * side, dtype=torch.float32).reshape(1, side * side, 1)
    blocks = [
        [row * side + column for row in (2 * i, 2 * i + 1) for column in (2 * j, 2 * j + 1)]
        for i in range(2)
        for j in range(2)
    ]
    assert pixel_shuffle(patches)[0].tolist() == blocks


def test_positions_are_resized_to_another_grid() -> None:
    encoder = random_encoder()
    embeddings = encoder.vision_tower.vision_tower.embeddings
    table = embeddings.position_embedding
    pixels = torch.zeros(1, 3, 84, 84)
    embeddings.patch_embedding.bias.data.zero_()
    embeddings.class_embedding.data.zero_()
    with torch.no_grad():
        found = embeddings(pixels)
        assert encoder(pixels).shape == (1, 9, 24)
        assert torch.equal(embeddings(torch.zeros(1, 3, 56, 56)), table)
    grid = table[0, 1:].reshape(4, 4, 32).permute(2, 0, 1)[None]
    expected = F.interpolate(grid, (6, 6), mode="bicubic", align_corners=False)[0].permute(1, 2, 0).reshape(36, 32)
    torch.testing.assert_close(found[0, 1:], expected, rtol=0, atol=1e-6)
    assert torch.equal(found[0, 0], table[0, 0])


def test_tiles_do_not_see_each_other() -> None:
    encoder = random_encoder()
    tiles = torch.randn(3, 3, 56, 56)
    with torch.no_grad():
        together = encoder(tiles)
        alone = torch.cat([encoder(tile[None]) for tile in tiles])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, qkv_bias=False, dropout=0.1, drop_path_rate=0.2)])
def test_training_lowers_the_loss_and_reaches_every_parameter(config: VisionEncoderConfig) -> None:
    torch.manual_seed(17)
    encoder = VisionEncoder(config).train()
    tiles, target = torch.randn(4, 3, 56, 56), torch.randn(4, 4, 24)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=3e-3)
    losses = []
    for _ in range(20):
        loss = F.mse_loss(encoder(tiles), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    assert all(value.grad is not None for value in encoder.parameters())


def test_whole_branches_are_dropped_in_training_only() -> None:
    encoder = random_encoder(replace(SMALL, drop_path_rate=0.5))
    tiles = torch.randn(1, 3, 56, 56).expand(64, -1, -1, -1)
    with torch.no_grad():
        assert len({tuple(row) for row in encoder(tiles).flatten(1).round(decimals=3).tolist()}) == 1
        rows = encoder.train()(tiles).flatten(1).round(decimals=3).tolist()
    # Only the second layer drops here, each of its two branches or not: four different outcomes.
    assert len({tuple(row) for row in rows}) == 4


def test_what_is_kept_of_a_dropped_branch_is_scaled_up() -> None:
    layer = random_encoder(replace(SMALL, drop_path_rate=0.5)).vision_tower.vision_tower.encoder.layers[1].train()
    assert set(layer._branch(torch.ones(64, 3, 32)).flatten().tolist()) == {0.0, 2.0}
