from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sottovoce.runtime.devices import DeviceError, DeviceInfo, DeviceSettings, ReopenPolicy
from sottovoce.runtime.devices.quiet import quiet_stderr
from sottovoce.runtime.devices.reopening import ReopenSchedule, StallWatch
from sottovoce.runtime.devices.selection import choose_device, find_again

DEVICES = [
    DeviceInfo(0, "HDA Intel: ALC257 (hw:0,0)", 2, 2, 48_000),
    DeviceInfo(1, "USB Microphone: Audio (hw:1,0)", 1, 0, 44_100),
    DeviceInfo(2, "pulse", 32, 32, 44_100),
    DeviceInfo(3, "HDMI: pulse bridge (hw:0,3)", 0, 8, 48_000),
    DeviceInfo(4, "default", 32, 32, 44_100, is_default_input=True, is_default_output=True),
]


@pytest.mark.parametrize(
    ("direction", "wanted", "index"),
    [
        ("microphone", None, 4),
        ("microphone", "usb", 1),
        ("microphone", 1, 1),
        ("microphone", "1", 1),
        ("speaker", "pulse", 2),  # the whole name goes before a part of another
        ("speaker", "PULSE BRIDGE", 3),
        ("microphone", "pulse", 2),
        ("speaker", "alc257", 0),
    ],
)
def test_a_device_is_chosen_by_index_or_part_of_a_name_or_default(direction, wanted, index):
    assert choose_device(DEVICES, direction, wanted).index == index


def test_without_a_default_the_first_able_one_is_taken():
    assert choose_device(DEVICES[1:3], "speaker", None).index == 2


@pytest.mark.parametrize(
    ("direction", "wanted", "words"),
    [
        ("microphone", "webcam", ["no microphone is called 'webcam'", "1 'USB Microphone", "give the index"]),
        ("speaker", 1, ["no speaker is called 1", "0 'HDA Intel"]),  # it only captures
        ("speaker", "hw:0", ["several", "HDA Intel", "HDMI"]),
    ],
)
def test_what_is_not_there_is_named_beside_what_is(direction, wanted, words):
    with pytest.raises(DeviceError) as error:
        choose_device(DEVICES, direction, wanted)
    for word in words:
        assert word in str(error.value)
    assert "pulse'" not in str(error.value) or wanted != "hw:0"


def test_no_microphone_at_all_says_what_there_is_and_how_to_get_one():
    with pytest.raises(DeviceError, match="there is no microphone") as error:
        choose_device(DEVICES[3:4], "microphone", None)
    assert "HDMI: pulse bridge" in error.value.message
    assert "arecord -l" in error.value.fix
    with pytest.raises(DeviceError, match="lists no audio devices at all"):
        choose_device([], "microphone", None)


def test_a_device_that_came_back_is_found_by_its_name():
    usb = DEVICES[1]
    moved = [DEVICES[0], DeviceInfo(5, usb.name, 1, 0, 44_100), DeviceInfo(1, "webcam", 1, 0, 16_000)]
    assert find_again(moved, "microphone", 1, usb).index == 5
    assert find_again(moved, "microphone", "1", usb).index == 5
    assert find_again(moved, "microphone", "usb", usb).index == 5
    with pytest.raises(DeviceError, match="no microphone is called 'USB Microphone"):
        find_again(moved[:1], "microphone", 1, usb)
    twins = [DeviceInfo(index, usb.name, 1, 0, 44_100) for index in (1, 2)]
    assert find_again(twins, "microphone", "usb", twins[1]).index == 2
    assert find_again(DEVICES, "microphone", None, usb).index == 4


def test_impossible_settings_are_refused():
    with pytest.raises(DeviceError, match="fade_ms is 30, expected 0 to 10"):
        DeviceSettings(fade_ms=30)
    with pytest.raises(DeviceError, match="output_buffer_ms"):
        DeviceSettings(output_buffer_ms=0)


def test_tries_are_bounded_and_further_and_further_apart():
    policy = ReopenPolicy(attempts=6, first_wait_s=0.5, growth=2.0, longest_wait_s=3.0)
    schedule = ReopenSchedule(policy, now=10.0)
    now, moments = 10.0, []
    while not schedule.is_over:
        assert not schedule.is_due(now)
        now = schedule.next_try
        assert schedule.is_due(now)
        moments.append(now)
        schedule.failed(now)
    assert moments == [10.5, 11.5, 13.5, 16.5, 19.5, 22.5]
    assert not schedule.is_due(1000.0)


def test_a_device_that_calls_no_more_is_noticed():
    watch = StallWatch(1.0, now=0.0)
    watch.called(5.0)
    assert not watch.is_stalled(5.9)
    assert watch.is_stalled(6.1)


def test_the_chatter_of_libraries_is_silenced_and_nothing_else(capfd):
    with quiet_stderr():
        os.write(2, b"ALSA lib chatter\n")
        with quiet_stderr():
            os.write(2, b"more\n")
    os.write(2, b"ours\n")
    with quiet_stderr(debug=True):
        os.write(2, b"wanted\n")
    with pytest.raises(KeyboardInterrupt), quiet_stderr():
        raise KeyboardInterrupt
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "ours\nwanted\nafter\n"


def test_silencing_leaves_no_descriptor_behind():
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = count()
    for _ in range(20):
        with quiet_stderr():
            pass
    assert count() == before


def test_without_pyaudio_the_error_says_how_to_install_it():
    code = (
        "import sys; sys.modules['pyaudio'] = None\n"
        "from sottovoce.runtime.devices import DeviceError, open_microphone\n"
        "try: open_microphone()\n"
        "except DeviceError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "need PyAudio" in done.stdout
    assert "pip install 'sottovoce[audio]'" in done.stdout
