"""Typing, as a terminal and as a pipe send it."""

from __future__ import annotations

import os
import pty
import sys
import termios
from collections.abc import Iterator

import pytest

from sottovoce.runtime.chat.keyboard import Keyboard


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A terminal as standard input; what is written into this end is typed."""
    typing, end = pty.openpty()
    with os.fdopen(end, "r") as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        yield typing
    os.close(typing)


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    end, typing = os.pipe()
    with os.fdopen(end, "r") as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        yield typing


@pytest.mark.parametrize(
    ("typed", "entered", "left"),
    [
        (b"hello\n", ["hello"], ""),
        (b"hel", [], "hel"),
        ("Grüße, 你好 🙂\n".encode(), ["Grüße, 你好 🙂"], ""),
        (b"hallp\x7fo\n", ["hallo"], ""),
        ("fü\x7fe\n".encode(), ["fe"], ""),
        (b"\x7f\x7fa\n", ["a"], ""),
        (b"wrong\x15right\n", ["right"], ""),
        (b"\n \n", [], ""),
        (b"\x04", [("quit",)], ""),
        (b"one\ntwo\nthr", ["one", "two"], "thr"),
        (b"ab\x1b[A\x1b[3~\x1bOPc", [], "abc"),  # arrow up, delete, F1
        (b"\x1b\x1b[Ax", [("interrupt",)], "x"),
        (b"a\x07b\x00\n", ["ab"], ""),
        (b"\xff\xfe bad\n", ["\ufffd\ufffd bad"], ""),
    ],
)
def test_keys(terminal, typed, entered, left):
    with Keyboard() as keyboard:
        os.write(terminal, typed)
        assert keyboard.read() == entered
        assert keyboard.line == left
        assert not keyboard.ended


def test_escape_alone_is_known_when_nothing_follows(terminal):
    with Keyboard() as keyboard:
        os.write(terminal, b"\x1b")
        assert keyboard.read() == []
        assert keyboard.read() == [("interrupt",)]
        assert keyboard.read() == []
        os.write(terminal, b"\x1b")
        assert keyboard.read() == []
        os.write(terminal, b"[B")  # an arrow that came in two pieces
        assert keyboard.read() == []
        assert keyboard.line == ""


def test_a_character_that_comes_in_two_pieces(terminal):
    with Keyboard() as keyboard:
        letter = "好".encode()
        os.write(terminal, letter[:2])
        assert keyboard.read() == []
        os.write(terminal, letter[2:] + b"\n")
        assert keyboard.read() == ["好"]


def test_the_terminal_is_restored_after_an_error(terminal):
    before = termios.tcgetattr(sys.stdin.fileno())
    with pytest.raises(ZeroDivisionError), Keyboard():
        during = termios.tcgetattr(sys.stdin.fileno())
        raise ZeroDivisionError
    assert termios.tcgetattr(sys.stdin.fileno()) == before
    assert during[3] & (termios.ICANON | termios.ECHO) == 0
    assert during[3] & termios.ISIG  # Ctrl-C is a signal still


def test_a_terminal_that_is_closed_ends_the_typing(monkeypatch):
    typing, end = pty.openpty()
    with os.fdopen(end, "r") as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        with Keyboard() as keyboard:
            os.close(typing)
            assert keyboard.read() == []
            assert keyboard.ended


def test_a_pipe_gives_its_lines_and_ends(pipe):
    with Keyboard() as keyboard:
        assert not keyboard.is_terminal
        os.write(pipe, b"first\nsecond \x1b[A\nlast, without its end")
        assert keyboard.read() == ["first", "second [A"]
        assert not keyboard.ended
        os.close(pipe)
        assert keyboard.read() == ["last, without its end"]
        assert keyboard.ended
        assert keyboard.read() == []


def test_no_standard_input_at_all(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with Keyboard() as keyboard:
        assert keyboard.ended
        assert keyboard.read() == []
