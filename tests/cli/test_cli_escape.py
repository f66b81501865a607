"""Values as text and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xsd.cli.escape import escape, unescape


@given(st.binary(max_size=300))
def test_round_trip(value: bytes) -> None:
    """Whatever is printed can be written again."""
    assert unescape(escape(value).encode()) == value


@given(st.binary(max_size=300))
def test_printable(value: bytes) -> None:
    """Only printable ASCII comes out, so a terminal cannot be controlled by a value."""
    text = escape(value)
    assert text.isascii()
    assert text.isprintable()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"", ""),
        (b"plain \"quoted\" 'text' ~", "plain \"quoted\" 'text' ~"),
        (b"\t\n\r\\", "\\t\\n\\r\\\\"),
        (b"\x00\x01\x07", "\\000\\001\\007"),
        (b"\x08\x0b\x1f\x7f\x80\xff", "\\x08\\x0b\\x1f\\x7f\\x80\\xff"),
        (b"\x001", "\\0001"),
    ],
)
def test_escape(value: bytes, text: str) -> None:
    """Each kind of byte has its form."""
    assert escape(value) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"\\x41", b"A"),
        (b"\\x411", b"A1"),
        (b"\\x4", b"\x04"),
        (b"\\x4z", b"\x04z"),
        (b"\\xzz", b"xzz"),
        (b"\\x", b"x"),
        (b"\\101", b"A"),
        (b"\\1", b"\x01"),
        (b"\\18", b"\x018"),
        (b"\\12345", b"S45"),
        (b"\\400", b"\x00"),
        (b"\\777", b"\xff"),
        (b'\\q\\e\\8\\X41\\"', b'qe8X41"'),
        (b"end\\", b"end\\"),
        ("grüß".encode(), "grüß".encode()),
    ],
)
def test_unescape(text: bytes, value: bytes) -> None:
    """Short, long and unknown escapes each mean one thing."""
    assert unescape(text) == value


@given(st.binary(max_size=300))
def test_every_string_means_something(text: bytes) -> None:
    """No input is an error, and undoing escapes never makes a value longer."""
    assert len(unescape(text)) <= len(text)
