"""The codec decoder against the reference's waveform, its codebooks, weight norm and reach, and that it trains."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from sottovoce.export.checkpoint.reader import Checkpoint
from sottovoce.export.config import CodecConfig
from sottovoce.export.modules.codec import CodecDecoder, NormedConv, ResidualBlock1, ResidualBlock2
from sottovoce.export.modules.phase_convolution import PhaseConvolution

SMALL = CodecConfig(
    num_codes=24,
    upsample_rates=(4, 3, 2),
    upsample_kernel_sizes=(8, 7, 4),
    upsample_initial_channel=32,
    resblock_kind="1",
    resblock_kernel_sizes=(3, 5),
    resblock_dilation_sizes=((1, 3), (1, 2)),
    global_tokens=(3, 0),
    code_width=16,
    global_width=8,
)
OTHERS = {
    "type_1": SMALL,
    "type_2": replace(SMALL, resblock_kind="2", resblock_kernel_sizes=(3, 7), resblock_dilation_sizes=((1, 4), (2, 3))),
    "one_stage": replace(SMALL, upsample_rates=(6,), upsample_kernel_sizes=(12,), upsample_initial_channel=16),
}


def random_codec(config: CodecConfig = SMALL) -> CodecDecoder:
    torch.manual_seed(12)
    codec = CodecDecoder(config).eval()
    for parameter in codec.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return codec


def test_the_waveform_is_the_references(golden: dict[str, np.ndarray], tiny_checkpoint: Path) -> None:
    checkpoint = Checkpoint.open(tiny_checkpoint)
    codec = CodecDecoder(checkpoint.config.codec).eval()
    codec.load_released_state(checkpoint.component_state("codec"))
    codes = torch.from_numpy(golden["codec.codes"])[None]
    with torch.no_grad():
        trained = codec(codes)[0].numpy()
        folded = codec.fold_weight_norm()(codes)[0].numpy()
    np.testing.assert_allclose(trained, golden["codec.waveform"], rtol=0, atol=2e-5)
    np.testing.assert_allclose(folded, golden["codec.waveform"], rtol=0, atol=2e-5)
    assert codec.receptive_field_codes == 8


@pytest.mark.parametrize("config", OTHERS.values(), ids=OTHERS)
def test_folding_changes_names_and_not_sound(config: CodecConfig) -> None:
    codec = random_codec(config)
    codes = torch.randint(0, 24, (2, 9))
    with torch.no_grad():
        before = codec(codes)
        after = codec.fold_weight_norm().fold_weight_norm()(codes)
    assert before.shape == (2, 9 * config.samples_per_code)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)
    assert not [name for name in codec.state_dict() if name.endswith(("weight_g", "weight_v"))]


@pytest.mark.parametrize("config", OTHERS.values(), ids=OTHERS)
def test_upsampling_by_phases_is_the_same_sound(config: CodecConfig) -> None:
    codec = random_codec(config).fold_weight_norm()
    for count in (1, 2, 9):
        codes = torch.randint(0, 24, (2, count))
        with torch.no_grad():
            before = codec(codes)
            after = deepcopy(codec).upsample_by_phases()(codes)
        torch.testing.assert_close(after, before, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("kernel", "stride"), [(16, 8), (11, 5), (8, 4), (12, 6), (4, 2), (5, 5), (7, 3), (3, 1), (9, 3), (10, 4)]
)
def test_phases_are_the_transposed_convolution(kernel: int, stride: int) -> None:
    torch.manual_seed(14)
    weight, bias = torch.randn(6, 5, kernel, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    padding = (kernel - stride) // 2
    phases = PhaseConvolution(weight, bias, stride, padding)
    assert phases.weight.shape == (5 * stride, 6, -(-kernel // stride))
    for length in (1, 2, 7):
        signal = torch.randn(2, 6, length, dtype=torch.float64)
        expected = F.conv_transpose1d(signal, weight, bias, stride, padding)
        torch.testing.assert_close(phases(signal), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("transposed", [False, True])
def test_weight_norm_is_over_dimension_zero(transposed: bool) -> None:
    torch.manual_seed(13)
    ours = NormedConv((6, 4), 8, stride=4 if transposed else 1, transposed=transposed)
    theirs = weight_norm(nn.ConvTranspose1d(6, 4, 8, 4, 2) if transposed else nn.Conv1d(6, 4, 8, padding=3), dim=0)
    ours.weight_g.data.uniform_(0.5, 2.0)
    ours.bias.data.normal_()
    theirs.parametrizations.weight.original0.data = ours.weight_g.data
    theirs.parametrizations.weight.original1.data = ours.weight_v.data
    theirs.bias.data = ours.bias.data
    signal = torch.randn(2, 6, 10)
    torch.testing.assert_close(ours(signal), theirs(signal), rtol=0, atol=1e-5)


def test_groups_lie_side_by_side_and_residual_layers_are_summed() -> None:
    codec = random_codec(replace(SMALL, code_groups=2, residual_layers=4))
    state = codec.state_dict()
    codes = torch.randint(0, 24, (1, 5, 8))
    expected = torch.zeros(5, 16)
    for layer, name in enumerate(("", "2", "3", "4")):
        tables = [state[f"quantizer.quantizer_modules{name}.{group}.embedding.weight"] for group in range(2)]
        expected += torch.cat([table[codes[0, :, 2 * layer + group]] for group, table in enumerate(tables)], dim=1)
    torch.testing.assert_close(codec.quantizer.rows(codes)[0].T, expected)
    with torch.no_grad():
        torch.testing.assert_close(codec(codes), codec.generate(expected.T[None]), rtol=0, atol=1e-6)


def test_one_codebook_takes_codes_with_or_without_the_last_axis() -> None:
    codec = random_codec()
    codes = torch.randint(0, 24, (2, 7))
    with torch.no_grad():
        assert torch.equal(codec(codes), codec(codes[:, :, None]))


def test_the_voice_is_added_at_the_stage_of_its_width_only() -> None:
    codes = torch.randint(0, 24, (1, 7))
    tables = random_codec().quantizer.quantizer_modules_globaltokens
    expected = torch.cat([tables[0].embedding.weight[3], tables[1].embedding.weight[0]])
    assert torch.equal(random_codec().quantizer.voice()[0], expected)

    def difference(config: CodecConfig) -> float:
        with torch.no_grad():
            one, other = random_codec(config), random_codec(replace(config, global_tokens=(1, 2)))
            return float((one(codes) - other(codes)).abs().max())

    assert difference(SMALL) > 1e-3  # 32 → 16 → 8 → 4 channels
    assert difference(replace(SMALL, global_width=10)) == 0.0


@pytest.mark.parametrize("config", OTHERS.values(), ids=OTHERS)
def test_samples_depend_on_codes_up_to_the_receptive_field_and_no_further(config: CodecConfig) -> None:
    codec = random_codec(config)
    reach, place = codec.receptive_field_codes, 12
    features = torch.randn(1, 16, 25, requires_grad=True)
    samples = codec.generate(features)[0]
    span = samples[place * config.samples_per_code : (place + 1) * config.samples_per_code]
    reached = torch.autograd.grad(span.square().sum(), features)[0][0].abs().sum(dim=0) > 0
    seen = torch.nonzero(reached).flatten()
    assert max(place - int(seen.min()), int(seen.max()) - place) == reach


def test_the_two_residual_blocks_spelled_out() -> None:
    torch.manual_seed(14)
    signal = torch.randn(1, 3, 20)
    first, second = ResidualBlock1(3, 3, (1, 3)), ResidualBlock2(3, 3, (1, 3))
    expected = signal
    for index, dilation in enumerate((1, 3)):
        one, two = first.convs1[index], first.convs2[index]
        inner = F.conv1d(F.leaky_relu(expected, 0.1), one.weight_v, one.bias, padding=dilation, dilation=dilation)
        expected = expected + F.conv1d(F.leaky_relu(inner, 0.1), two.weight_v, two.bias, padding=1)
    torch.testing.assert_close(first(signal), expected, rtol=0, atol=1e-5)
    expected = signal
    for index, dilation in enumerate((1, 3)):
        one = second.convs[index]
        inner = F.conv1d(F.leaky_relu(expected, 0.1), one.weight_v, one.bias, padding=dilation, dilation=dilation)
        expected = expected + inner
    torch.testing.assert_close(second(signal), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("config", OTHERS.values(), ids=OTHERS)
def test_training_lowers_the_loss_and_reaches_every_parameter(config: CodecConfig) -> None:
    torch.manual_seed(15)
    codec = CodecDecoder(config).train()
    codes = torch.randint(0, 24, (2, 16))
    target = 0.5 * torch.sin(torch.arange(16 * config.samples_per_code) * 0.3).expand(2, -1)
    optimizer = torch.optim.Adam(codec.parameters(), lr=3e-3)
    losses = []
    for _ in range(15):
        loss = F.mse_loss(codec(codes), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(value.grad is not None and value.grad.any() for value in codec.parameters())
