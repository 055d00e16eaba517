"""Whatever happens in whatever order: what must hold, holds (turn_world.py is the witness)."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from turn_world import World

from sottovoce.runtime.duplex.settings import DuplexSettings

DEFAULTS = DuplexSettings()
ALL_SETTINGS = (
    DEFAULTS,
    replace(DEFAULTS, half_duplex=True),
    replace(DEFAULTS, max_turn_ms=1_000),
    replace(DEFAULTS, prepare_ms=500),
    replace(DEFAULTS, preroll_ms=0, duck=False),
    replace(DEFAULTS, onset_ms=32, interruption_ms=32, resume_ms=32),
    replace(DEFAULTS, preroll_ms=1_000, stop_report_ms=10, stall_ms=500, half_duplex=True, max_turn_ms=2_000),
)
PROBABILITIES = (0.02, 0.45, 0.95)
REASONS = ("stop", "length", "cancelled", "not_addressed", "error")


def happen(world: World, chance: random.Random) -> None:
    """One thing that may happen: mostly capture and replies going on, as in life."""
    kind = chance.choices(
        ("windows", "reply", "speaker", "stop", "line", "picture", "key", "device", "tick", "quit"),
        (40, 25, 20, 8, 4, 3, 3, 4, 3, 0.2),
    )[0]
    if kind == "windows":
        probability = chance.choice(PROBABILITIES)
        for _ in range(chance.randint(1, 30)):
            world.window(probability if chance.random() < 0.9 else chance.choice(PROBABILITIES))
    elif kind in ("reply", "speaker", "stop"):
        _go_on(world, kind, chance)
    elif kind == "line":
        for _ in range(chance.randint(1, 2)):
            world.line(chance.choice(("hello", "what is it?", " ")))
    elif kind == "picture":
        world.picture(f"{len(world.shown)}.png")
    elif kind == "device":
        device = chance.choice(("microphone", "speaker"))
        if chance.random() < 0.5:
            world.lose(device)
        else:
            world.regain(device, chance.choice((0, 512, 5000)))
    elif kind == "tick":
        world.tick(chance.choice((0.001, 0.3, 2.0)))
    elif kind == "key":
        world.key()
    else:
        world.quit()


def _go_on(world: World, kind: str, chance: random.Random) -> None:
    if not world.replies:
        return
    epoch = max(world.replies) if chance.random() < 0.8 else chance.randint(1, max(world.replies))
    if kind == "stop":
        world.answer_stop(epoch)
    elif kind == "speaker":
        world.play(epoch, chance.choice((100, 2_400, 24_000)), reports=chance.random() < 0.8)
    else:
        what = chance.random()
        if what < 0.2:
            world.reply_starts(epoch)
        elif what < 0.7:
            world.make_audio(epoch, chance.choice((1, 2_400, 24_000)))
        else:
            world.finish(epoch, chance.choice(REASONS))


def run_script(seed: int) -> int:
    """One random script, quiet at its end; returns how many events it had."""
    chance = random.Random(seed)
    world = World(ALL_SETTINGS[seed % len(ALL_SETTINGS)])
    for _ in range(chance.randint(5, 60)):
        happen(world, chance)
    world.settle()
    return len(world.windows)


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_random_scripts(first):
    for seed in range(first, first + 50):
        run_script(seed)


@pytest.mark.slow
def test_ten_thousand_random_scripts():
    began = time.perf_counter()
    windows = sum(run_script(seed) for seed in range(10_000))
    print(f"10,000 scripts, {windows * 0.032 / 3600:.1f} hours of capture, in {time.perf_counter() - began:.0f} s")


class AnyEvents(RuleBasedStateMachine):
    """The same world, with scripts that hypothesis makes, and makes smaller when one fails."""

    @initialize(settings=st.sampled_from(ALL_SETTINGS))
    def begin(self, settings):
        self.world = World(settings)

    def last(self, back):
        return max(1, max(self.world.replies) - back)

    has_replies = precondition(lambda self: bool(getattr(self, "world", None) and self.world.replies))

    @rule(probability=st.sampled_from(PROBABILITIES), count=st.integers(1, 40))
    def windows(self, probability, count):
        for _ in range(count):
            self.world.window(probability)

    @has_replies
    @rule(back=st.integers(0, 1), count=st.sampled_from((1, 2_400, 24_000)))
    def make_audio(self, back, count):
        self.world.make_audio(self.last(back), count)

    @has_replies
    @rule(back=st.integers(0, 1), reason=st.sampled_from(REASONS))
    def finish(self, back, reason):
        self.world.finish(self.last(back), reason)

    @has_replies
    @rule(back=st.integers(0, 1), count=st.sampled_from((1, 2_400, 1 << 30)), reports=st.booleans())
    def play(self, back, count, reports):
        self.world.play(self.last(back), count, reports=reports)

    @has_replies
    @rule(back=st.integers(0, 1))
    def answer_stop(self, back):
        self.world.answer_stop(self.last(back))

    @rule(text=st.sampled_from(("hello", "")))
    def line(self, text):
        self.world.line(text)

    @rule()
    def picture(self):
        self.world.picture(f"{len(self.world.shown)}.png")

    @rule()
    def key(self):
        self.world.key()

    @rule(device=st.sampled_from(("microphone", "speaker")))
    def lose(self, device):
        self.world.lose(device)

    @rule(device=st.sampled_from(("microphone", "speaker")), gap=st.sampled_from((0, 700)))
    def regain(self, device, gap):
        self.world.regain(device, gap)

    @rule(seconds=st.sampled_from((0.0, 0.6, 6.0)))
    def tick(self, seconds):
        self.world.tick(seconds)

    @rule()
    def quit(self):
        self.world.quit()

    def teardown(self):
        if hasattr(self, "world"):
            self.world.settle()


TestAnyEvents = AnyEvents.TestCase
TestAnyEvents.settings = hypothesis_settings(max_examples=60, stateful_step_count=40, deadline=None)
