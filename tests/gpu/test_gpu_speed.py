"""On a GPU: engines are built once, memory comes back, how fast a step reads weights, how soon one hears a reply."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from stage_feeds import FEED_FORWARD, feeds_of, rows_of

from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.backends import open_session
from sottovoce.runtime.backends.tensorrt import borrow_gpu, give_gpu_back
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.conversation import Conversation
from sottovoce.runtime.engines.build import BuildOptions, build_engines
from sottovoce.runtime.features.audio_file import read_audio
from sottovoce.runtime.kv_cache import KVCache
from sottovoce.runtime.manifest import StageName
from sottovoce.runtime.model import Model
from sottovoce.runtime.reply import AudioChunk, ReplyEvent
from sottovoce.runtime.stages.decoder import DecoderStage

RUNS = 30
LEFT_BYTES = 32 << 20
"""What libraries keep of a GPU once they were used."""
LEAST_BANDWIDTH = 0.7
"""What a step's reading of the weights is to reach, of what copying on the device does."""
LARGE_BYTES = 256 << 20
"""More weights than any GPU's cache holds: only they are read from memory in every step."""
FIRST_AUDIO_MS = 150.0
"""The miniature's; a model of another size has no such bar."""
SMALL_BYTES = 64 << 20
QUESTION = "what is the capital of france"
SPOKEN_QUESTION = Path(__file__).parents[2] / "demos" / "miniature" / "question.wav"
PIECE_SECONDS = 0.02
TARGET = "local"


def milliseconds(call: Callable[[], object]) -> float:
    """The median, after three calls that count for nothing."""
    times = []
    for _ in range(RUNS + 3):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times[3:]))


def test_engines_are_built_once(gpu_bundle):
    start = time.perf_counter()
    assert all(engine.cached for engine in build_engines(gpu_bundle, [TARGET]))
    assert time.perf_counter() - start < 2


def test_memory_comes_back(gpu_bundle):
    gpu = borrow_gpu()
    try:

        def free() -> int:
            with gpu.working("codec"):
                return int(gpu.driver.mem_get_info()[0])

        before = None
        for _ in range(3):
            with Assistant(Model(gpu_bundle, "tensorrt", require_engine=True)) as assistant:
                assistant.load()
                for _ in assistant.conversation(greedy=True, max_new_tokens=20).ask(QUESTION):
                    pass
            now = free()
            assert before is None or before - now < LEFT_BYTES
            before = before or now
    finally:
        give_gpu_back()


def test_how_long_everything_takes(gpu_bundle, gpu_name, capsys):
    rows = [(stage, *stage_times(gpu_bundle, stage)) for stage in FEED_FORWARD]
    for stage in ("language_model", "speech_codes"):
        rows += [(stage, *row) for row in decoder_times(gpu_bundle, stage)]
    typed, spoken = first_audio(gpu_bundle, ask_typed), first_audio(gpu_bundle, ask_spoken)
    rows += [("a typed question", "first audio", typed), ("a spoken question", "first audio after its end", spoken)]
    with capsys.disabled():
        print(f"\n{gpu_name}")
        for stage, what, taken in rows:
            print(f"  {stage:<18} {what:<28} {taken:8.2f} ms")
    if gpu_bundle.weights_bytes <= SMALL_BYTES:
        assert spoken <= FIRST_AUDIO_MS


def test_a_step_of_decoding_reads_at_the_memorys_speed(large_bundle, gpu_name, capsys):
    _, (_, step_ms) = decoder_times(large_bundle, "language_model")
    read = weights_bytes(large_bundle, "language_model") / step_ms
    copied = copied_bytes_a_ms()
    with capsys.disabled():
        print(f"\n{gpu_name}")
        print(f"  a step takes {step_ms:.2f} ms and reads its weights at {read / 1e6:.0f} GB/s")
        print(f"  that is {100 * read / copied:.0f} % of what a copy reads and writes, {copied / 1e6:.0f} GB/s")
    assert read >= LEAST_BANDWIDTH * copied


@pytest.fixture
def large_bundle(gpu_bundle, tmp_path) -> Iterator[Bundle]:
    """The bundle, if its language model is large; else with one layer and a head as wide as VITA-1.5's in its place."""
    if weights_bytes(gpu_bundle, "language_model") >= LARGE_BYTES:
        yield gpu_bundle
        return
    pytest.importorskip(
        "torch", reason="a large decoder is written by PyTorch: set SOTTOVOCE_GPU_BUNDLE to a bundle that has one"
    )
    from full_width import write_full_width
    from sealing import seal

    path = shutil.copytree(gpu_bundle.path, tmp_path / "large.bundle", ignore=shutil.ignore_patterns("engines"))
    dialect = gpu_bundle.graph("language_model").dialect
    seal(path, {"language_model": write_full_width(path, dialect)})
    bundle = Bundle.open(path)
    build_engines(bundle, [TARGET], BuildOptions(stages=("language_model",)))
    yield bundle
    shutil.rmtree(path)


def weights_bytes(bundle: Bundle, stage: StageName) -> int:
    return sum(bundle.manifest.files[name].bytes for name in bundle.graph(stage).data)


def stage_times(bundle: Bundle, stage: StageName) -> tuple[str, float]:
    feeds = feeds_of(bundle, stage)
    session = open_session(bundle, stage, require_engine=True)
    try:
        main = max(feeds, key=lambda name: feeds[name].size)
        return f"one call {feeds[main].shape}", milliseconds(lambda: session.run(feeds))
    finally:
        session.close()


def decoder_times(bundle: Bundle, stage: StageName) -> list[tuple[str, float]]:
    """Of a prompt and of one token behind it; both come back with their logits on the host."""
    session = open_session(bundle, stage, require_engine=True)
    try:
        decoder, cache = DecoderStage(session), KVCache(session)
        prompt = rows_of(bundle, stage, 128)

        def prefill() -> None:
            cache.reset()
            decoder.append(prompt, cache)

        def step() -> None:
            cache.rewind(128)
            decoder.append(prompt[:1], cache)

        return [("128 positions", milliseconds(prefill)), ("one token behind them", milliseconds(step))]
    finally:
        session.close()


def copied_bytes_a_ms() -> float:
    """What is read and written while memory is copied on the device."""
    gpu, size, repeats = borrow_gpu(), 256 << 20, 8
    try:
        with gpu.working("language_model") as lane:
            memory = [gpu.allocate(size) for _ in range(2)]
            try:

                def copy() -> None:
                    for _ in range(repeats):
                        gpu.driver.memcpy_dtod_async(int(memory[0]), int(memory[1]), size, lane.stream)
                    lane.stream.synchronize()

                return 2 * size * repeats / milliseconds(copy)
            finally:
                for one in memory:
                    gpu.release(one)
    finally:
        give_gpu_back()


Ask = Callable[[], Iterator[ReplyEvent]]


def ask_typed(conversation: Conversation) -> Ask:
    return lambda: conversation.ask(QUESTION)


def ask_spoken(conversation: Conversation) -> Ask:
    """All of it is heard before, as it would be while somebody speaks; what is left begins with the end of speech."""
    question = read_audio(SPOKEN_QUESTION)
    piece = int(PIECE_SECONDS * question.sample_rate)
    for start in range(0, len(question.samples), piece):
        conversation.accept_waveform(question.samples[start : start + piece], question.sample_rate)
    return conversation.end_of_speech


def first_audio(bundle: Bundle, asking: Callable[[Conversation], Ask], backend: str = "tensorrt") -> float:
    """From the question's end to the first samples, in milliseconds; the first time counts for nothing."""
    with Assistant(Model(bundle, backend, require_engine=backend == "tensorrt")) as assistant:
        assistant.load()

        def once() -> float:
            ask = asking(assistant.conversation(greedy=True, max_new_tokens=40))
            start = time.perf_counter()
            for event in ask():
                if isinstance(event, AudioChunk):
                    return 1e3 * (time.perf_counter() - start)
            pytest.fail("nothing was said")

        return float(np.median([once() for _ in range(6)][1:]))
