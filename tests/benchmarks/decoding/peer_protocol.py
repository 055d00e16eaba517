"""How a runtime that is compared is asked: one JSON object a line in, one out. Needs numpy alone: peers have Pythons of
their own.

| ask | answer |
| --- | --- |
| {"do": "hello"} | {"versions": …} |
| {"do": "tokens", "prompt": ids, "count": n} | {"tokens": ids}, the greedy continuation |
| {"do": "prefill", "prompt": ids} | {"seconds": s}, from nothing to the logits of the last place |
| {"do": "fill", "prompt": ids} | {}, the cache then holds these |
| {"do": "decode", "count": n} | {"seconds": s} for n greedy tokens behind what was filled; they are taken back |
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, Protocol


class Peer(Protocol):
    """One runtime with the model loaded. `step` gives the token that follows what was appended, and appends it."""

    versions: dict[str, str]

    def start(self, prompt: list[int]) -> None:
        """Forget everything, and compute the prompt."""
        ...

    def rewind(self, length: int) -> None:
        """Back to the first so many positions of the prompt and what followed it, ready to go on from there."""
        ...

    def step(self) -> int:
        """Pick the likeliest token, and compute what follows it: one pass through the model."""
        ...


def serve(peer: Peer) -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to standard error
    filled: list[int] = []
    for line in sys.stdin:
        asked = json.loads(line)
        answer: dict[str, Any] = {}
        if asked["do"] == "hello":
            answer = {"versions": peer.versions}
        elif asked["do"] == "tokens":
            peer.start(asked["prompt"])
            answer = {"tokens": [peer.step() for _ in range(asked["count"])]}
        elif asked["do"] == "prefill":
            started = time.perf_counter()
            peer.start(asked["prompt"])
            answer = {"seconds": time.perf_counter() - started}
        elif asked["do"] == "fill":
            filled = asked["prompt"]
            peer.start(filled)
        elif asked["do"] == "decode":
            peer.rewind(len(filled))
            peer.step()  # what a runtime does only after a rewind is not its speed
            started = time.perf_counter()
            for _ in range(asked["count"]):
                peer.step()
            answer = {"seconds": time.perf_counter() - started, **getattr(peer, "notes", dict)()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
