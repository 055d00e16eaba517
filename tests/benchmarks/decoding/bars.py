"""What decoding should reach, and what it reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from judged import Bar

from decoding.turns import Speeds

OURS = "sottovoce int4"
OURS_FP32 = "sottovoce fp32"
GENAI, LLAMA = "onnxruntime-genai int4", "llama.cpp Q4_1"
OPTIMUM, PYTORCH = "optimum-onnx fp32", "PyTorch fp32"
DECODE_BARS = {GENAI: {256: 1.4, 1024: 1.5, 4096: 1.2}, LLAMA: {256: 2.5, 1024: 2.5, 4096: 2.0}}
FLOAT_BAR = 3.0
PREFILL_BAR = 1.2
BANDWIDTH_BAR = 0.6
GROWTH_BAR = 1.2
PYTHON_BAR = 0.05


@dataclass(frozen=True)
class Traffic:
    """Bytes a token reads: all weights, and this much cache for each position."""

    weights: int
    cache_per_position: int

    def read(self, context: int) -> int:
        """Bytes of a token at so many positions."""
        return self.weights + self.cache_per_position * context

    def share(self, seconds: Sequence[float], memory_gb_s: Sequence[float], context: int) -> float:
        """Of what the machine could read in the same round, how much a token read: the median over rounds."""
        return float(np.median(self.read(context) / np.array(seconds) / (1e9 * np.array(memory_gb_s))))

    def growth(self, short: tuple[int, float], long: tuple[int, float]) -> float:
        """How much more one token costs than another, by how much more it reads; contexts with seconds a token."""
        return (long[1] / short[1]) / (self.read(long[0]) / self.read(short[0]))

    def extra(self, short: tuple[int, float], long: tuple[int, float], memory_gb_s: float) -> float:
        """How many times as long as reading the extra cache at the machine's full bandwidth a token takes longer."""
        read = self.cache_per_position * (long[0] - short[0]) / (1e9 * memory_gb_s)
        return (long[1] - short[1]) / read


def bars(speeds: Speeds, contexts: Sequence[int], traffic: Traffic) -> list[Bar]:
    """All of them."""
    found: list[Bar] = []
    for peer, by_context in DECODE_BARS.items():
        found += [Bar(f"decode at {n}, against {peer}", _median(speeds, n, peer), by_context[n]) for n in contexts]
    for peer in (OPTIMUM, PYTORCH):
        found += [Bar(f"decode at {n}, against {peer}", _median(speeds, n, peer), FLOAT_BAR) for n in contexts]
    prefill = [ratio[1] for peer in DECODE_BARS if (ratio := speeds.prefill_ratio(OURS, peer)) is not None]
    found.append(Bar("prefill of 512, against the faster of these two", min(prefill, default=None), PREFILL_BAR))
    seconds = {n: float(np.median(speeds.decode[n][OURS])) for n in contexts}
    for n in contexts:
        share = traffic.share(speeds.decode[n][OURS], speeds.memory_gb_s[n], n)
        found.append(Bar(f"share of the memory bandwidth at {n}", share, BANDWIDTH_BAR))
    short, long = min(contexts), max(contexts)
    ends = (short, seconds[short]), (long, seconds[long])
    growth = traffic.growth(*ends)
    found.append(Bar(f"a token at {long} against {short}, by the bytes of each", growth, None, GROWTH_BAR))
    extra = traffic.extra(*ends, float(np.median(speeds.memory_gb_s[long])))
    found.append(Bar("the time that it takes longer, by the extra cache at full bandwidth", extra))
    found.append(Bar("share of our Python in a step", 1 - float(np.median(speeds.engine_share)), None, PYTHON_BAR))
    return found


def _median(speeds: Speeds, context: int, peer: str) -> float | None:
    ratio = speeds.ratio(context, OURS, peer)
    return None if ratio is None else ratio[1]
