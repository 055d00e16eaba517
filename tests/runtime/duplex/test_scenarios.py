"""Turn taking, told as tables (turn_scenario.py says how to read them)."""

from __future__ import annotations

import pytest
from turn_scenario import Outcome, play

from sottovoce.runtime.duplex.actions import CancelReply, Close, EndOfSpeech, Hear, Play, Prepare, StopPlayback
from sottovoce.runtime.duplex.events import InterruptKey, Picture, ReplyFinished, Tick, VoiceWindow
from sottovoce.runtime.duplex.machine import Duplex
from sottovoce.runtime.duplex.settings import DuplexSettings
from sottovoce.runtime.errors import InputError

ANSWERED = """
      0 | quiet             |
   1000 | speech 1000       |
   2000 | quiet             | Prepare(1) within 200, EndOfSpeech(1, _, _, pause) within 500
   2600 | started 1         |
   2700 | audio 1 48000     | Play(1, 0, 48000)
"""
"""A question, and two seconds of reply at 24 kHz that begin at 2.7 s."""


def after_answer(table: str, settings: DuplexSettings | None = None) -> Outcome:
    return play(ANSWERED + table, settings)


def test_a_spoken_turn_and_its_reply():
    outcome = after_answer("""
   2900 | played 1 4800     |
   3000 | finished 1 stop   |
   4700 | played 1 48000    | ReplyOver(1, stop, 48000)
   5000 | tick              |
    """)
    assert outcome.duplex.state == "idle"
    (end,) = outcome.of(EndOfSpeech)
    assert outcome.heard() == [(end.start, end.end)]
    # Windows were voiced from 1.0 s to 2.0 s, the last 64 ms late: 300 ms before them and 200 - 64 ms after.
    assert end.start / 16000 == pytest.approx(0.7, abs=0.033)
    assert end.end / 16000 == pytest.approx(2.136, abs=0.033)


def test_silence_for_ten_minutes_is_nothing():
    outcome = play("0 | quiet |\n 600000 | tick |")
    assert outcome.actions == []
    assert outcome.duplex.needed_from == outcome.duplex.view.position - 300 * 16


def test_the_first_words_of_the_stream_have_what_preroll_there_is():
    outcome = play(
        "0 | speech 500 | \n 500 | quiet | Prepare(1) within 200, EndOfSpeech(1, 0) within 500\n 1500 | tick |"
    )
    assert outcome.heard()[0][0] == 0


def test_a_click_is_no_turn():
    play("0 | quiet |\n 1000 | speech 96 |\n 3000 | tick |")


def test_clicks_far_apart_do_not_add_up():
    play("0 | quiet |\n" + "\n".join(f"{1000 + 320 * i} | speech 64 |" for i in range(40)))


def test_hysteresis_holds_on_to_a_soft_voice_but_does_not_begin_with_one():
    duplex = Duplex()
    soft = [duplex.handle(VoiceWindow(i * 0.032, i * 512, 0.45)) for i in range(1, 50)]
    assert soft == [()] * 49
    loud = [duplex.handle(VoiceWindow(i * 0.032, i * 512, 0.9 if i == 50 else 0.45)) for i in range(50, 60)]
    assert [type(action) for actions in loud for action in actions][:1] == [Hear]


def test_a_user_who_goes_on_keeps_the_turn():
    outcome = play("""
      0 | quiet             |
   1000 | speech 600        |
   1600 | quiet             | Prepare(1) within 200
   1900 | speech 800        | Withdraw(1) within 100
   2000 | finished 1 cancelled |
   2700 | quiet             | Prepare(2) within 200, EndOfSpeech(2, _, _, pause) within 500
   3400 | tick              |
    """)
    (end,) = outcome.of(EndOfSpeech)
    assert outcome.heard() == [(end.start, end.end)]


def test_a_click_in_the_pause_does_not_take_back_what_was_prepared():
    play("""
      0 | quiet             |
   1000 | speech 600        |
   1600 | quiet             | Prepare(1) within 200
   1900 | speech 40         | EndOfSpeech(1) within 200
   3000 | tick              |
    """)


def test_the_turn_does_not_end_on_the_first_window_of_what_comes_next():
    outcome = play("""
      0 | quiet             |
   1000 | speech 600        |
   1600 | quiet             | Prepare(1) within 200
   2020 | speech 400        | Withdraw(1) within 100
   2100 | finished 1 cancelled |
   2420 | quiet             | Prepare(2) within 200, EndOfSpeech(2) within 500
   3400 | tick              |
    """)
    assert len(outcome.heard()) == 1


def test_nothing_is_prepared_while_the_withdrawn_reply_is_ending():
    play("""
      0 | quiet             |
   1000 | speech 600        |
   1600 | quiet             | Prepare(1) within 200
   1900 | speech 400        | Withdraw(1) within 100
   2300 | quiet             |
   2620 | finished 1 cancelled | Prepare(2)
   2650 | tick              | EndOfSpeech(2) within 100
   3000 | tick              |
    """)


def test_a_turn_that_ended_meanwhile_is_over_as_soon_as_the_withdrawn_reply_is():
    play("""
      0 | quiet             |
   1000 | speech 600        |
   1600 | quiet             | Prepare(1) within 200
   1900 | speech 400        | Withdraw(1) within 100
   2300 | quiet             |
   4000 | finished 1 stop   | EndOfSpeech(2)
   4100 | tick              |
    """)


def test_a_prepared_reply_sounds_only_when_the_turn_is_over():
    outcome = play("""
      0 | quiet             |
   1000 | speech 600        |
   1600 | quiet             | Prepare(1) within 200
   1850 | started 1         |
   1860 | audio 1 2400      |
   1900 | audio 1 2400      |
   1950 | finished 1 stop   | EndOfSpeech(1) within 200, Play(1, 0, 4800) within 200
   2500 | played 1 4800     | ReplyOver(1, stop, 4800)
    """)
    assert len(outcome.of(Play)) == 1


def test_without_preparing_the_end_of_speech_asks_at_once():
    settings = DuplexSettings(prepare_ms=500, end_ms=500)
    play("0 | quiet |\n 1000 | speech 600 |\n 1600 | quiet | EndOfSpeech(1) within 500\n 3000 | tick |", settings)


def test_a_monologue_is_cut_and_said_to_be_so():
    settings = DuplexSettings(max_turn_ms=10_000)
    outcome = play(
        """
      0 | quiet             |
   1000 | speech 600000     | EndOfSpeech(1, _, _, too_long) within 10100
  20000 | finished 1 stop   | ReplyOver(1, stop, 0)
 601000 | quiet             | Discard(_, _, too_long) within 200
 602000 | speech 500        |
 602500 | quiet             | Prepare(2) within 200, EndOfSpeech(2, _, _, pause) within 500
 603500 | tick              |
    """,
        settings,
    )
    first, _ = outcome.of(EndOfSpeech)
    assert first.end - first.start == 160_000
    assert outcome.heard()[0] == (first.start, first.end)


def test_a_turn_cut_at_its_very_end_goes_on_normally():
    settings = DuplexSettings(max_turn_ms=1_000, preroll_ms=0)
    play(
        """
      0 | quiet             |
   1024 | speech 928        | EndOfSpeech(1, _, _, too_long) within 1100
   2200 | finished 1 not_addressed | ReplyOver(1, not_addressed, 0)
   2500 | speech 300        |
   2800 | quiet             | Prepare(2) within 200, EndOfSpeech(2, _, _, pause) within 500
   3600 | tick              |
    """,
        settings,
    )


def test_barge_in_stops_the_reply_and_its_speech_is_the_next_turn():
    outcome = after_answer("""
   2900 | played 1 4800     |
   3000 | speech 1500       | Duck(1) within 200, StopPlayback(1) within 550
   3580 | stopped 1 17280   | CancelReply(1, 17280)
   3590 | finished 1 cancelled |
   4500 | quiet             | Prepare(2) within 200, EndOfSpeech(2, _, _, pause) within 500
   5100 | tick              |
    """)
    first, second = outcome.of(EndOfSpeech)
    assert outcome.heard() == [(first.start, first.end), (second.start, second.end)]
    assert second.start / 16000 == pytest.approx(2.7, abs=0.033)


@pytest.mark.parametrize("spoken_ms", [200, 300, 450])
def test_a_short_acknowledgement_only_lowers_the_volume(spoken_ms):
    outcome = after_answer(f"""
   2900 | played 1 4800     |
   3000 | speech {spoken_ms}        | Duck(1) within 200, Discard(_, _, too_short) within 650, Unduck(1) within 650
   4500 | finished 1 stop   |
   4700 | played 1 48000    | ReplyOver(1, stop, 48000)
    """)
    assert outcome.of(CancelReply) == []
    assert outcome.duplex.state == "idle"


def test_a_cough_over_the_reply_changes_nothing():
    after_answer("3000 | speech 96 |\n 4000 | tick |")


def test_volume_stays_if_so_set():
    after_answer("3000 | speech 250 | Discard(_, _, too_short) within 450\n 4000 | tick |", DuplexSettings(duck=False))


def test_speech_at_the_end_of_the_reply_is_the_next_turn():
    outcome = after_answer("""
   2800 | finished 1 stop   |
   4500 | speech 800        | Duck(1) within 200
   4700 | played 1 48000    | ReplyOver(1, stop, 48000)
   5300 | quiet             | Prepare(2) within 200, EndOfSpeech(2) within 500
   6000 | tick              |
    """)
    assert outcome.of(CancelReply) == []
    assert outcome.heard()[1][0] / 16000 == pytest.approx(4.2, abs=0.033)


def test_speech_while_the_assistant_thinks_takes_the_turn():
    play("""
      0 | quiet             |
   1000 | speech 600        |
   1600 | quiet             | Prepare(1) within 200, EndOfSpeech(1) within 500
   2400 | speech 700        | CancelReply(1, 0) within 550
   3000 | finished 1 cancelled |
   3100 | quiet             | Prepare(2) within 200, EndOfSpeech(2) within 500
   4000 | tick              |
    """)


def test_audio_of_a_cancelled_reply_is_not_played():
    after_answer("""
   3000 | key               | StopPlayback(1)
   3010 | stopped 1 7200    | CancelReply(1, 7200)
   3020 | audio 1 2400      |
   3030 | played 1 9600     |
   3040 | finished 1 cancelled |
   3050 | line next         | Ask(2, next)
   3060 | audio 1 2400      |
   3070 | audio 2 100       | Play(2, 0, 100)
   3080 | played 1 99999    |
    """)


def test_audio_made_while_the_speaker_stops_is_not_played():
    after_answer("""
   3000 | key               | StopPlayback(1)
   3005 | audio 1 2400      |
   3006 | played 1 7100     |
   3010 | stopped 1 7200    | CancelReply(1, 7200)
   3100 | tick              |
    """)


def test_a_speaker_that_does_not_answer_is_not_waited_for():
    after_answer("""
   2900 | played 1 4800     |
   3000 | key               | StopPlayback(1), CancelReply(1, 4800) within 520
   4000 | stopped 1 9000    |
   4100 | tick              |
    """)


def test_a_stalled_speaker_is_given_up():
    outcome = after_answer("""
   2800 | finished 1 stop   |
   2900 | played 1 4800     |
   7850 | tick              | StopPlayback(1) within 60, CancelReply(1, 4800) within 600
   9000 | tick              |
    """)
    assert outcome.duplex.state == "idle"


def test_half_duplex_hears_nothing_while_the_reply_sounds_and_a_little_longer():
    settings = DuplexSettings(half_duplex=True)
    outcome = after_answer(
        """
   3000 | speech 1900       |
   3500 | finished 1 stop   |
   4700 | played 1 48000    | ReplyOver(1, stop, 48000)
   5200 | speech 400        |
   5600 | quiet             | Prepare(2) within 200, EndOfSpeech(2) within 500
   6300 | tick              |
    """,
        settings,
    )
    # Nothing from before the tail's end, 4.95 s, is in the second turn.
    assert 4.95 <= outcome.heard()[1][0] / 16000 <= 4.95 + 0.033


def test_half_duplex_still_listens_while_the_assistant_thinks():
    play(
        """
      0 | quiet             |
   1000 | speech 600        |
   1600 | quiet             | Prepare(1) within 200, EndOfSpeech(1) within 500
   2400 | speech 700        | CancelReply(1, 0) within 550
   3000 | tick              |
    """,
        DuplexSettings(half_duplex=True),
    )


def test_a_typed_line():
    outcome = play("""
      0 | line What is this? | Ask(1, What is this?)
    100 | audio 1 2400       | Play(1, 0, 2400)
    200 | finished 1 stop    |
    300 | played 1 2400      | ReplyOver(1, stop, 2400)
    """)
    assert outcome.duplex.state == "idle"


def test_a_typed_line_during_a_reply_cancels_it_as_speech_does():
    after_answer("""
   2900 | played 1 4800     |
   3000 | line And now?     | StopPlayback(1)
   3020 | stopped 1 7200    | CancelReply(1, 7200)
   3030 | finished 1 cancelled | Ask(2, And now?)
   3100 | tick              |
    """)


def test_lines_typed_quickly_are_all_asked_in_order():
    play("""
      0 | line one           | Ask(1, one)
    100 | line two           | CancelReply(1, 0)
    110 | line three         |
    120 | finished 1 cancelled | Ask(2, two), CancelReply(2, 0)
    130 | finished 2 cancelled | Ask(3, three)
    200 | tick               |
    """)


def test_a_line_typed_while_speaking_ends_the_turn_and_comes_after_it():
    outcome = play("""
      0 | quiet              |
   1000 | speech 1000        |
   1500 | line also this     | EndOfSpeech(1, _, _, typed), CancelReply(1, 0)
   1510 | finished 1 cancelled | Ask(2, also this), CancelReply(2) within 500
   2100 | finished 2 cancelled | Prepare(3) within 200, EndOfSpeech(3) within 500
   3000 | tick               |
    """)
    first, second = outcome.of(EndOfSpeech)
    assert outcome.heard() == [(first.start, second.end)]
    assert first.end == second.start


def test_a_line_that_waits_is_asked_before_a_turn_that_began_after_it():
    play("""
      0 | line one           | Ask(1, one)
    100 | line two           | CancelReply(1, 0)
   1000 | speech 500         |
   3000 | finished 1 cancelled | Ask(2, two), CancelReply(2, 0)
   3100 | finished 2 cancelled | EndOfSpeech(3)
   3200 | tick               |
    """)


def test_pictures_are_for_the_next_turn_also_in_the_middle_of_a_reply():
    outcome = play("""
      0 | line hello        | Ask(1, hello)
     10 | picture door.jpg  |
     20 | finished 1 stop   | ReplyOver(1)
     30 | picture cat.jpg   |
     40 | line what is it?  | Ask(2, what is it?)
     50 | line again        | CancelReply(2)
     60 | finished 2 cancelled | Ask(3, again)
    """)
    asked = [action.pictures for _, action in outcome.actions if hasattr(action, "pictures")]
    assert asked == [(), ("door.jpg", "cat.jpg"), ()]


def test_a_picture_in_a_pause_is_part_of_the_turn():
    outcome = play("""
      0 | picture first.png |
   1000 | speech 600        |
   1600 | quiet             | Prepare(1) within 200
   1860 | picture second.png | Withdraw(1)
   1870 | finished 1 cancelled | Prepare(2)
   1900 | tick              | EndOfSpeech(2) within 200
   2500 | tick              |
    """)
    assert [action.pictures for action in outcome.of(Prepare)] == [("first.png",), ("first.png", "second.png")]
    assert outcome.of(EndOfSpeech)[0].pictures == ("first.png", "second.png")


def test_what_was_not_meant_for_the_assistant_leaves_everything_as_it_was():
    outcome = play("""
      0 | picture door.jpg  |
   1000 | speech 600        |
   1600 | quiet             | Prepare(1) within 200, EndOfSpeech(1) within 500
   2300 | started 1         |
   2400 | finished 1 not_addressed | ReplyOver(1, not_addressed, 0)
   2500 | line what is this? | Ask(2, what is this?)
   2600 | tick              |
    """)
    assert outcome.of(EndOfSpeech)[0].pictures == ("door.jpg",)
    assert outcome.actions[-1][1].pictures == ("door.jpg",)


def test_pictures_come_back_when_the_cancelled_reply_turns_out_not_meant_for_the_assistant():
    duplex = play("""
      0 | picture door.jpg  |
     10 | line hello        | Ask(1)
     20 | key               | CancelReply(1, 0)
     30 | finished 1 not_addressed |
    """).duplex
    assert duplex.view.pictures == ("door.jpg",)


def test_a_prepared_reply_that_is_not_for_us_ends_with_the_turn():
    play("""
      0 | quiet             |
   1000 | speech 600        |
   1600 | quiet             | Prepare(1) within 200
   1850 | finished 1 not_addressed | EndOfSpeech(1) within 300, ReplyOver(1, not_addressed, 0) within 300
   2500 | tick              |
    """)


def test_a_failed_reply_is_over_once_what_there_was_is_played():
    after_answer("3000 | finished 1 error |\n 4700 | played 1 48000 | ReplyOver(1, error, 48000)")


def test_the_interrupt_key_takes_back_a_turn():
    outcome = play("""
      0 | quiet             |
   1000 | speech 600        |
   1600 | quiet             | Prepare(1) within 200
   1900 | key               | Withdraw(1), Discard(_, _, interrupt_key)
   1910 | finished 1 cancelled |
   3000 | tick              |
    """)
    assert outcome.duplex.state == "idle"


def test_the_interrupt_key_forgets_lines_that_wait():
    play("""
      0 | line one           | Ask(1, one)
    100 | line two           | CancelReply(1, 0)
    110 | key                |
    120 | finished 1 cancelled |
    """)


def test_the_interrupt_key_in_silence_is_nothing():
    play("0 | quiet |\n 1000 | key |\n 2000 | tick |")


def test_a_lost_microphone_ends_the_turn_with_what_was_said():
    outcome = play("""
      0 | quiet             |
   1000 | speech 2000       |
   2000 | lost microphone   | EndOfSpeech(1, _, _, device_lost)
   2500 | finished 1 stop   | ReplyOver(1)
   4000 | returned microphone |
   5000 | speech 600        |
   5600 | quiet             | Prepare(2) within 200, EndOfSpeech(2, _, _, pause) within 500
   6300 | tick              |
    """)
    assert outcome.of(EndOfSpeech)[0].end == outcome.heard()[0][1] == 62 * 512


def test_preroll_does_not_reach_over_a_gap_in_the_capture():
    outcome = play("""
      0 | quiet             |
   1000 | lost microphone   |
   3008 | returned microphone |
   3100 | speech 600        |
   3700 | quiet             | Prepare(1) within 200, EndOfSpeech(1) within 500
   4500 | tick              |
    """)
    assert outcome.heard()[0][0] == 3008 * 16


def test_a_lost_speaker_ends_what_was_heard_of_the_reply():
    after_answer("""
   2900 | played 1 4800     |
   3000 | lost speaker      | CancelReply(1, 4800)
   3010 | finished 1 cancelled |
   3100 | line go on        | Ask(2, go on)
   3200 | audio 2 2400      |
   3300 | finished 2 stop   | ReplyOver(2, stop, 0)
   3400 | returned speaker  |
   3500 | line and now      | Ask(3, and now)
   3600 | audio 3 2400      | Play(3, 0, 2400)
   3700 | tick              |
    """)


def test_a_reply_without_a_speaker_counts_as_shown_when_it_is_cancelled():
    play("""
      0 | lost speaker      |
    100 | line go on        | Ask(1)
    200 | audio 1 2400      |
    300 | returned speaker  |
    400 | audio 1 2400      |
    500 | key               | CancelReply(1, None)
    """)


def test_a_speaker_lost_while_it_stops():
    after_answer("""
   3000 | key               | StopPlayback(1)
   3010 | lost speaker      | CancelReply(1, 0)
   3100 | tick              |
    """)


def test_quit_in_silence():
    outcome = play("0 | quiet |\n 1000 | quit | Close()\n 1100 | speech 900 |\n 2000 | line hello |")
    assert outcome.duplex.state == "closed"


def test_quit_waits_for_what_was_played():
    after_answer("""
   3000 | quit              | StopPlayback(1)
   3010 | line too late     |
   3020 | stopped 1 7200    | CancelReply(1, 7200), Close()
   3030 | finished 1 cancelled |
    """)


def test_quit_in_a_turn_takes_it_back():
    outcome = play("0 | quiet |\n 1000 | speech 900 |\n 1500 | quit | Discard(_, _, quit), Close()\n 3000 | tick |")
    assert len(outcome.of(Close)) == 1


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (VoiceWindow(1.0, 1536, 0.1), "samples 1024 to 1536 after sample 512"),
        (VoiceWindow(1.0, 512, 0.1), "samples 0 to 512 after sample 512"),
    ],
)
def test_windows_out_of_order_are_refused(event, told):
    duplex = Duplex()
    duplex.handle(VoiceWindow(0.0, 512, 0.1))
    with pytest.raises(InputError, match=told):
        duplex.handle(event)


def test_more_samples_played_than_given_are_refused():
    with pytest.raises(InputError, match="49000 samples of reply 1 were played, expected 0 to 48000"):
        after_answer("3000 | played 1 49000 |")
    with pytest.raises(InputError, match="100 samples of reply 1 were played, expected 200 to 48000"):
        after_answer("3000 | played 1 200 |\n 3100 | stopped 1 100 |")


def test_audio_after_the_end_of_a_reply_is_refused():
    with pytest.raises(InputError, match="after its end"):
        after_answer("3000 | finished 1 stop |\n 3100 | audio 1 10 |")


def test_a_late_event_counts_as_now():
    duplex = Duplex()
    duplex.handle(Picture(5.0, "a.png"))
    assert duplex.handle(ReplyFinished(1.0, 7, "stop")) == ()
    assert duplex.view.pictures == ("a.png",)


def test_a_late_key_is_waited_for_from_now_on():
    player = after_answer("2900 | played 1 4800 |\n 4000 | tick |").duplex
    assert [type(action) for action in player.handle(InterruptKey(1.0))] == [StopPlayback]
    assert player.handle(Tick(4.4)) == ()
    assert player.handle(Tick(4.6)) == (CancelReply(1, 4800),)


def test_the_view_tells_what_goes_on():
    view = after_answer("2900 | played 1 4800 |\n 3000 | picture a.png |").duplex.view
    assert (view.state, view.epoch, view.played_samples, view.has_started) == ("speaking", 1, 4800, True)
    assert (view.pictures, view.lost_devices, view.is_deaf, view.turn_start) == (("a.png",), (), False, None)
