"""End of speech → first sample of the reply, turn after turn, against the reference's order of work on the same graphs.

    python tests/benchmarks/conversation_latency.py BUNDLE --set DIR [--turns 20] [--conversations 5] [--json]

VITA-1.5's web demo does nothing before the end of speech (the reference): then the recording is encoded, all
history (as much as the context holds) is filled into an empty cache again, text is written until a sentence is
complete, all of its codes are drawn, and the codec makes a first piece. Ours hears and fills while speech goes on;
"prepared" also begins the reply at the pause that ends the turn, as `chat` does, so that only what is left by then is
waited for. All three answer the same questions one after the other in each conversation, on the same threads, in one
process. Greedy; replies are compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from judged import Bar, as_records, show

from sottovoce.runtime import Assistant, read_audio
from sottovoce.runtime.console import Console
from sottovoce.runtime.dialogue.context import embeddings_of
from sottovoce.runtime.features.audio_file import Waveform
from sottovoce.runtime.model import Model
from sottovoce.runtime.profile import Stopwatch
from sottovoce.runtime.question import Question, parts_of, prepare
from sottovoce.runtime.reply import AudioChunk, ReplyDone, ReplyText
from sottovoce.runtime.sampling import Sampler, SamplingOptions
from sottovoce.runtime.speech.output import open_speech_output
from sottovoce.runtime.text.speech_text import SpeechPieces

BLOCK_SECONDS = 0.02
SHOWN_TURNS = (1, 5, 10, 20)
FIRST_SOONER, LAST_SOONER, LAST_TO_FIRST = 5, 10, 1.3


class ReferenceOrder:
    """A conversation that does everything after the end of speech, and everything anew."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._said: list[np.ndarray] = []

    def ask(self, waveform: Waveform) -> tuple[float, str]:
        """Seconds to the first sample, and the reply."""
        model, started = self._model, time.perf_counter()
        prepared = prepare(Question(audio=waveform), model.manifest, Stopwatch())
        prompt = model.prompt
        opening = prompt.after_reply() if self._said else prompt.system(prompt.system_text(images=False, video=False))
        parts = parts_of([*opening, *prompt.user(prepared.content)], prepared, model, Stopwatch(), None)
        self._said.append(embeddings_of(parts, model.token_embeddings.rows))
        while sum(map(len, self._said)) + 40 > model.context_length:
            del self._said[1:3]  # a question and its reply; the system text stands with the first
        cache = model.language_model.create_cache()
        logits = model.language_model.prefill(np.concatenate(self._said), cache)
        text = ReplyText(model.tokenizer, model.manifest.prompt.states)
        sampler, first = Sampler(SamplingOptions(greedy=True)), None
        while (token := sampler.pick(logits)) not in model.manifest.generation.stop_ids and len(text.tokens) < 40:
            delta = text.append(token)
            if first is None and delta and text.text[-1:] in ".?!":
                first = self._first_sample(text.text, started)
            logits = model.language_model.step(model.token_embeddings.rows([token]), cache)
        text.finish()
        if first is None:
            first = self._first_sample(text.text, started)
        end = model.tokenizer.encode(prompt.spec.turn_end)
        self._said.append(model.token_embeddings.rows([*text.tokens, *end]))
        return first, text.text

    def _first_sample(self, sentence: str, started: float) -> float:
        model = self._model
        pieces = SpeechPieces(model.manifest.speech, model.manifest.prompt.states)
        spoken = " ".join(piece.text for piece in (*pieces.append(sentence), *pieces.finish()))
        if spoken:
            output = open_speech_output(model, Sampler(SamplingOptions(greedy=True)), Stopwatch())
            codes = list(output.decoder.codes(model.tokenizer.encode_plain(spoken)))
            model.codec(codes[:20])
        return time.perf_counter() - started


def ours(conversation, waveform: Waveform, prepare_at_pause: bool) -> tuple[float, str]:
    """Seconds from the end of speech to the first sample, and the reply."""
    block = int(BLOCK_SECONDS * waveform.sample_rate)
    for start in range(0, len(waveform.samples), block):
        conversation.accept_waveform(waveform.samples[start : start + block], waveform.sample_rate)
    if prepare_at_pause:
        conversation.prepare()
    started, first = time.perf_counter(), None
    for event in conversation.end_of_speech():
        if isinstance(event, AudioChunk) and first is None:
            first = time.perf_counter() - started
        if isinstance(event, ReplyDone):
            done = event
    waited = time.perf_counter() - started if first is None else first
    conversation.make_room()  # as `chat` does while the reply is played
    return waited, done.text


def measure(assistant: Assistant, waveforms: Sequence[Waveform]) -> dict[str, list[tuple[float, str]]]:
    """One conversation in each order of work, turn by turn side by side."""
    reference = ReferenceOrder(assistant._model)
    streamed, prepared = (assistant.conversation(greedy=True) for _ in range(2))
    turns: dict[str, list[tuple[float, str]]] = {"reference": [], "streamed": [], "prepared": []}
    for waveform in waveforms:
        turns["reference"].append(reference.ask(waveform))
        turns["streamed"].append(ours(streamed, waveform, prepare_at_pause=False))
        turns["prepared"].append(ours(prepared, waveform, prepare_at_pause=True))
    return turns


def summary(conversations: Sequence[dict[str, list[tuple[float, str]]]], turns: int) -> dict[str, Any]:
    """Medians in milliseconds by turn, ratios to the reference, and how many replies are the reference's."""
    rows = []
    for turn in (shown for shown in SHOWN_TURNS if shown <= turns):
        medians = {
            order: 1000 * statistics.median(one[order][turn - 1][0] for one in conversations)
            for order in ("reference", "streamed", "prepared")
        }
        ratios = {order: medians["reference"] / medians[order] for order in ("streamed", "prepared")}
        rows.append({"turn": turn, "milliseconds": medians, "sooner": ratios})
    same = [
        one["reference"][turn][1] == one[order][turn][1]
        for one in conversations for order in ("streamed", "prepared") for turn in range(turns)
    ]  # fmt: skip
    streamed = {row["turn"]: row["milliseconds"]["streamed"] for row in rows}  # type: ignore[index]
    return {
        "turns": rows,
        "same_replies": sum(same) / len(same),
        "last_to_first": streamed[max(streamed)] / streamed[1],
    }


def bars(found: dict[str, Any]) -> list[Bar]:
    """What is asked of a reply as `chat` gives it, which is begun in the pause."""
    rows = {row["turn"]: row["sooner"] for row in found["turns"]}
    first, last = min(rows), max(rows)
    return [
        Bar(f"sooner at turn {first}, begun in the pause", rows[first]["prepared"], FIRST_SOONER),
        Bar(f"sooner at turn {last}, begun in the pause", rows[last]["prepared"], LAST_SOONER),
        Bar(f"sooner at turn {first}, begun when it is over", rows[first]["streamed"]),
        Bar(f"sooner at turn {last}, begun when it is over", rows[last]["streamed"]),
        Bar(f"turn {last} against turn {first}, begun when it is over", found["last_to_first"], None, LAST_TO_FIRST),
        Bar("share of replies that are the reference's", found["same_replies"]),
    ]


def main() -> int:
    """Measure and print; 1 when a bar is missed."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("bundle", type=Path)
    arguments.add_argument("--set", type=Path, required=True, help="recorded questions, as `evaluate` takes them")
    arguments.add_argument("--turns", type=int, default=20)
    arguments.add_argument("--conversations", type=int, default=5)
    arguments.add_argument("--threads", type=int, default=None)
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    items = [json.loads(line) for line in (options.set / "set.jsonl").read_text().splitlines()]
    asked = [item["audio"] for item in items if item["task"] == "spoken_question"]
    wanted = options.turns * (options.conversations + 1)
    waveforms = [read_audio(options.set / asked[place % len(asked)]) for place in range(wanted)]
    with Assistant.open(options.bundle, threads=options.threads) as assistant:
        measure(assistant, waveforms[:3])  # loads all stages
        chunks = [waveforms[n * options.turns : (n + 1) * options.turns] for n in range(1, options.conversations + 1)]
        found = summary([measure(assistant, chunk) for chunk in chunks], options.turns)
    console = Console(options.json)
    rows = []
    for row in found["turns"]:  # type: ignore[attr-defined]
        spent, sooner = row["milliseconds"], row["sooner"]
        told = [f"{spent['reference']:.1f} ms"]
        told += [f"{spent['streamed']:.1f} ms", f"{sooner['streamed']:.1f} ×"]
        told += [f"{spent['prepared']:.3f} ms", f"{sooner['prepared']:,.0f} ×"]
        rows.append([str(row["turn"]), *told])
    columns = ["turn", "the reference's order", "streamed", "sooner", "begun in the pause", "sooner"]
    console.table("end of speech to first sample", columns, rows, range(len(columns)))
    reached = bars(found)
    good = show(console, reached)
    console.result({**found, "bars": as_records(reached)})
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
