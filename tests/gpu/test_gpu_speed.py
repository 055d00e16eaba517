"""On a GPU: engines are built once, memory comes back, and how long everything takes, as a table."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from stage_feeds import FEED_FORWARD, feeds_of, rows_of

from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.backends import open_session
from sottovoce.runtime.backends.tensorrt import borrow_gpu, give_gpu_back
from sottovoce.runtime.engines.build import build_engines
from sottovoce.runtime.kv_cache import KVCache
from sottovoce.runtime.model import Model
from sottovoce.runtime.reply import AudioChunk
from sottovoce.runtime.stages.decoder import DecoderStage

RUNS = 30
LEFT_BYTES = 32 << 20
"""What libraries keep of a GPU once they were used."""
FIRST_AUDIO_MS = 150.0


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
    assert all(engine.cached for engine in build_engines(gpu_bundle, ["local"]))
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
                for _ in assistant.conversation(greedy=True, max_new_tokens=20).ask("what is the capital of france"):
                    pass
            now = free()
            assert before is None or before - now < LEFT_BYTES
            before = before or now
    finally:
        give_gpu_back()


def test_how_long_everything_takes(gpu_bundle, gpu_name, capsys):
    rows = [(stage, *stage_times(gpu_bundle, stage)) for stage in FEED_FORWARD]
    decoders, shares = decoder_times(gpu_bundle)
    first = first_audio(gpu_bundle)
    with capsys.disabled():
        print(f"\n{gpu_name}")
        for stage, what, taken in rows + decoders:
            print(f"  {stage:<16} {what:<28} {taken:8.2f} ms")
        print(f"  {'a typed question':<16} {'first audio':<28} {first:8.2f} ms")
        print("\n".join(f"  {share}" for share in shares))
    assert first < FIRST_AUDIO_MS


def stage_times(bundle, stage) -> tuple[str, float]:
    feeds = feeds_of(bundle, stage)
    session = open_session(bundle, stage, require_engine=True)
    try:
        main = max(feeds, key=lambda name: feeds[name].size)
        return f"one call {feeds[main].shape}", milliseconds(lambda: session.run(feeds))
    finally:
        session.close()


def decoder_times(bundle) -> tuple[list[tuple[str, str, float]], list[str]]:
    found, shares = [], []
    for stage in ("language_model", "speech_codes"):
        session = open_session(bundle, stage, require_engine=True)
        try:
            decoder, cache = DecoderStage(session), KVCache(session)
            prompt = rows_of(bundle, stage, 128)

            def prefill(cache=cache, decoder=decoder, prompt=prompt) -> None:
                cache.reset()
                decoder.append(prompt, cache)

            def step(cache=cache, decoder=decoder, prompt=prompt) -> None:
                cache.rewind(128)
                decoder.append(prompt[:1], cache)

            found.append((stage, "128 positions", milliseconds(prefill)))
            found.append((stage, "one token behind them", milliseconds(step)))
            share = bandwidth_share(bundle, stage, found[-1][2])
            shares.append(f"{stage}: a step reads its weights at {share:.0f} % of the memory's bandwidth")
        finally:
            session.close()
    return found, shares


def bandwidth_share(bundle, stage, step_ms: float) -> float:
    """Per cent of what copying on the device reaches that a step's reading of the weights does."""
    gpu, size, repeats = borrow_gpu(), 256 << 20, 8
    try:
        with gpu.working(stage) as lane:
            memory = [gpu.allocate(size) for _ in range(2)]

            def copy() -> None:
                for _ in range(repeats):
                    gpu.driver.memcpy_dtod_async(int(memory[0]), int(memory[1]), size, lane.stream)
                lane.stream.synchronize()

            bytes_a_ms = 2 * size * repeats / milliseconds(copy)
            for one in memory:
                gpu.release(one)
    finally:
        give_gpu_back()
    spec = bundle.graph(stage)
    weights = sum(bundle.manifest.files[name].bytes for name in spec.data)
    return 100 * weights / step_ms / bytes_a_ms


def first_audio(bundle) -> float:
    """From a typed question to the first samples, in milliseconds."""
    with Assistant(Model(bundle, "tensorrt", require_engine=True)) as assistant:
        assistant.load()

        def ask() -> float:
            start = time.perf_counter()
            for event in assistant.conversation(greedy=True, max_new_tokens=40).ask("what is the capital of france"):
                if isinstance(event, AudioChunk):
                    return 1e3 * (time.perf_counter() - start)
            pytest.fail("nothing was said")

        return float(np.median([ask() for _ in range(5)][1:]))
