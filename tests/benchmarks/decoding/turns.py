"""All runtimes in turns, so that what else the machine does meets all alike; medians and quartiles over rounds."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from decoding.asked_peer import AskedPeer
from sottovoce.runtime.profiling.ceilings import ReadBandwidth
from sottovoce.runtime.progress import Progress

PREFILLED = 512
SPINNING_S = 0.3
"""Threads of whoever computed before may spin for so long for more work: OpenMP's do, and those of an engine."""
READ_PASSES = 3


@dataclass(frozen=True)
class Effort:
    """How often, and how many tokens each time."""

    rounds: int
    tokens: int
    prefills: int


FULL, QUICK = Effort(15, 16, 7), Effort(5, 6, 2)


@dataclass
class Speeds:
    """Seconds a token of each runtime, a value a round: by context for decoding, and of a prompt of `PREFILLED`."""

    decode: dict[int, dict[str, list[float]]] = field(default_factory=dict)
    prefill: dict[str, list[float]] = field(default_factory=dict)
    engine_share: list[float] = field(default_factory=list)
    """Of our own steps, how much of the time the engine computed."""
    memory_gb_s: dict[int, list[float]] = field(default_factory=dict)
    """What the machine could read, by context and round: where others share it, that changes from second to second."""

    def ratio(self, context: int, ours: str, theirs: str) -> tuple[float, float, float] | None:
        """How much faster: lower quartile, median and upper quartile over rounds; None where one is missing."""
        return _ratio(self.decode.get(context, {}), ours, theirs)

    def prefill_ratio(self, ours: str, theirs: str) -> tuple[float, float, float] | None:
        """The same for the prompt."""
        return _ratio(self.prefill, ours, theirs)


def _ratio(seconds: Mapping[str, Sequence[float]], ours: str, theirs: str) -> tuple[float, float, float] | None:
    if not seconds.get(ours) or not seconds.get(theirs):
        return None
    low, middle, high = np.quantile(np.array(seconds[theirs]) / np.array(seconds[ours]), [0.25, 0.5, 0.75])
    return float(low), float(middle), float(high)


def take_turns(
    peers: Mapping[str, AskedPeer], prompt: Sequence[int], contexts: Sequence[int], effort: Effort, ours: str,
    memory: ReadBandwidth, progress: Progress,
) -> Speeds:  # fmt: skip
    """Decode behind each context, and prefill; every peer once a round, and the memory."""
    speeds = Speeds()
    total = len(contexts) * effort.rounds + effort.prefills
    done = 0
    for context in contexts:
        seconds: dict[str, list[float]] = {name: [] for name in peers}
        speeds.decode[context] = seconds
        for peer in peers.values():
            peer.ask(do="fill", prompt=list(prompt[:context]))
            peer.ask(do="decode", count=2)
        speeds.memory_gb_s[context] = []
        for _ in range(effort.rounds):
            time.sleep(SPINNING_S)
            speeds.memory_gb_s[context].append(memory.best(READ_PASSES))
            for name, peer in peers.items():
                time.sleep(SPINNING_S)
                found = peer.ask(do="decode", count=effort.tokens)
                seconds[name].append(found["seconds"] / effort.tokens)
                if name == ours:
                    # the engine's time holds the step that is not counted, too
                    steps = effort.tokens / (effort.tokens + 1)
                    speeds.engine_share.append(steps * found["engine_seconds"] / found["seconds"])
            done += 1
            progress.step("decoding and prefilling in turns", done, total)
    speeds.prefill = {name: [] for name in peers}
    for peer in peers.values():
        peer.ask(do="prefill", prompt=list(prompt[:PREFILLED]))
    for _ in range(effort.prefills):
        for name, peer in peers.items():
            time.sleep(SPINNING_S)
            seconds_all = peer.ask(do="prefill", prompt=list(prompt[:PREFILLED]))["seconds"]
            speeds.prefill[name].append(seconds_all / PREFILLED)
        done += 1
        progress.step("decoding and prefilling in turns", done, total)
    return speeds


def agreement(peers: Mapping[str, AskedPeer], prompt: Sequence[int], count: int, reference: str) -> dict[str, int]:
    """Of `count` greedy tokens behind the prompt, how many each runtime has in common with the reference at first."""
    tokens = {name: peer.ask(do="tokens", prompt=list(prompt), count=count)["tokens"] for name, peer in peers.items()}
    expected = tokens[reference]
    return {
        name: next((place for place in range(count) if found[place] != expected[place]), count)
        for name, found in tokens.items()
    }
