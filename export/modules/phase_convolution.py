"""A transposed convolution as a plain one: every phase of its result is a channel, and then they are put in order.

Sample `q · stride + phase` of a transposed convolution is a sum over few inputs around `q` with that phase's own taps:
a plain convolution. All phases of a channel side by side are one convolution with `stride` times as many channels. Its
multiply-adds are those of the transposed one and of one input more, where the stride divides the kernel; elsewhere
some taps are zeros (11 by 5 are 15). TensorRT has INT8 kernels for it, and none for the transposed one.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class PhaseConvolution(nn.Module):
    """The same function as `F.conv_transpose1d` with these arguments, up to rounding.

    Args:
        weight: (inputs, outputs, kernel), the kernel at least as long as the stride.
        bias: (outputs,).
        stride: samples of the result for each of the input.
        padding: how many samples are cut off at either end.
    """

    def __init__(self, weight: Tensor, bias: Tensor, stride: int, padding: int) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        self.kernel = weight.shape[2]
        self.taps = -(-self.kernel // stride)
        self.weight = nn.Parameter(_by_phase(weight, stride, self.taps))
        self.bias = nn.Parameter(bias.repeat_interleave(stride))

    def forward(self, signal: Tensor) -> Tensor:
        """(B, inputs, n) → (B, outputs, (n - 1) · stride + kernel - 2 · padding)."""
        phases = F.conv1d(signal, self.weight, self.bias, padding=self.taps - 1)
        by_channel = phases.unflatten(1, (-1, self.stride))
        in_order = by_channel.transpose(2, 3).flatten(2)
        behind = self.taps * self.stride - self.kernel + self.padding
        return in_order[:, :, self.padding : -behind] if behind else in_order[:, :, self.padding :]


def _by_phase(weight: Tensor, stride: int, taps: int) -> Tensor:
    """(inputs, outputs, kernel) → (outputs · stride, inputs, taps): the last tap is that of the newest input."""
    inputs, outputs, kernel = weight.shape
    whole = F.pad(weight, (0, taps * stride - kernel)).reshape(inputs, outputs, taps, stride)
    return whole.flip(2).permute(1, 3, 0, 2).reshape(outputs * stride, inputs, taps).contiguous()
