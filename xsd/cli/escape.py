"""Values as text: unprintable bytes become escapes, and back.

``\\t \\n \\r \\\\`` stand for themselves, bytes 0 to 7 are three octal digits (``\\007``), other
bytes outside printable ASCII two hexadecimal ones (``\\xff``). Quotes are not escaped.
"""

from __future__ import annotations


def _escape_byte(byte: int) -> str:
    named = {0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r", 0x5C: "\\\\"}
    if byte in named:
        return named[byte]
    if 0x20 <= byte <= 0x7E:
        return chr(byte)
    return f"\\{byte:03o}" if byte < 8 else f"\\x{byte:02x}"


_ESCAPES = [_escape_byte(byte) for byte in range(256)]
_UNESCAPES = {ord("t"): 0x09, ord("n"): 0x0A, ord("r"): 0x0D}
_OCTAL = b"01234567"
_HEX = b"0123456789abcdefABCDEF"


def escape(value: bytes) -> str:
    """The value as printable ASCII."""
    return value.decode("latin-1").translate(_ESCAPES)


def unescape(text: bytes) -> bytes:
    """Undo ``escape``, generously: any string has a meaning.

    One to three octal digits and ``x`` with one or two hexadecimal ones are a byte, of an octal
    number above 255 the low eight bits; any other character after a backslash is itself, and so
    is a backslash at the end.
    """
    if b"\\" not in text:
        return text
    out = bytearray()
    position, end = 0, len(text)
    while position < end:
        byte = text[position]
        position += 1
        if byte != 0x5C or position == end:
            out.append(byte)
            continue
        byte = text[position]
        if byte in _OCTAL:
            digits = _run(text, position, _OCTAL, 3)
            out.append(int(digits, 8) & 0xFF)
            position += len(digits)
        elif byte == ord("x") and (digits := _run(text, position + 1, _HEX, 2)):
            out.append(int(digits, 16))
            position += 1 + len(digits)
        else:
            out.append(_UNESCAPES.get(byte, byte))
            position += 1
    return bytes(out)


def _run(text: bytes, start: int, digits: bytes, most: int) -> bytes:
    end = start
    while end < min(len(text), start + most) and text[end] in digits:
        end += 1
    return text[start:end]
