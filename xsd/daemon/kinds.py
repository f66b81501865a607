"""The kinds of value a setting can have: what is accepted, how it is described and written.

Two spellings reach each kind: a value out of TOML, which has a type already and is tested
strictly (``true`` is no integer), and plain text from ``oxenstored.conf`` or the command line.
"""

from __future__ import annotations

import math
import os.path
import re
from dataclasses import dataclass
from typing import Protocol

Value = bool | int | float | str | tuple[str, ...]

LOG_FACILITIES = (
    "auth", "authpriv", "cron", "daemon", "ftp", "kern", "local0", "local1", "local2", "local3",
    "local4", "local5", "local6", "local7", "lpr", "mail", "news", "syslog", "user", "uucp",
)  # fmt: skip


class BadValueError(ValueError):
    """The value does not fit its kind; the message is a hint, or empty."""


class Kind(Protocol):
    """How one sort of value is read and written.

    ``expected`` completes the sentence "expected …".  Both readers raise :class:`BadValueError`.
    """

    @property
    def expected(self) -> str: ...

    def from_text(self, text: str) -> Value: ...

    def from_toml(self, value: object) -> Value: ...


def to_toml(value: Value) -> str:
    """The value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        import json  # to show a value, which a start does not

        # JSON's escapes are TOML's, but for DEL, which JSON lets stand.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return "[" + ", ".join(to_toml(word) for word in value) + "]"


@dataclass(frozen=True, slots=True)
class Bool:
    """``true`` or ``false``, in these letters."""

    expected: str = "true or false"

    def from_text(self, text: str) -> Value:
        if text not in ("true", "false"):
            raise BadValueError
        return text == "true"

    def from_toml(self, value: object) -> Value:
        if not isinstance(value, bool):
            raise BadValueError
        return value


# Bounded, so that no number is long enough for int() to refuse.
_INTEGER = re.compile(r"[+-]?(?:[0-9]{1,20}|0[xX][0-9a-fA-F]{1,16})")


@dataclass(frozen=True, slots=True)
class Int:
    """An integer from ``low`` to ``high``.

    Values of ``none_at`` and below mean "no limit" and become 0; None if no value does.
    """

    low: int
    high: int
    none_at: int | None = None

    @property
    def expected(self) -> str:
        text = f"an integer from {self.low} to {self.high}"
        return text if self.none_at is None else f"{text}, or {self.none_at} for no limit"

    def from_text(self, text: str) -> Value:
        if not _INTEGER.fullmatch(text):
            raise BadValueError
        return self._checked(int(text, 16 if "x" in text.lower() else 10))

    def from_toml(self, value: object) -> Value:
        # bool is a subclass of int
        if isinstance(value, bool) or not isinstance(value, int):
            raise BadValueError
        return self._checked(value)

    def _checked(self, number: int) -> int:
        if self.none_at is not None and number <= self.none_at:
            return 0
        if not self.low <= number <= self.high:
            raise BadValueError
        return number


@dataclass(frozen=True, slots=True)
class Float:
    """A finite number above ``low`` and up to ``high``."""

    low: float
    high: float

    @property
    def expected(self) -> str:
        return f"a number above {self.low:g} and up to {self.high:g}"

    def from_text(self, text: str) -> Value:
        try:
            return self._checked(float(text))
        except ValueError:
            raise BadValueError from None

    def from_toml(self, value: object) -> Value:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadValueError
        try:
            return self._checked(float(value))
        except OverflowError:
            raise BadValueError from None

    def _checked(self, number: float) -> float:
        if not math.isfinite(number) or not self.low < number <= self.high:
            raise BadValueError
        return number


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def expected(self) -> str:
        return "one of " + ", ".join(self.words)

    def from_text(self, text: str) -> Value:
        if text not in self.words:
            raise BadValueError
        return text

    def from_toml(self, value: object) -> Value:
        if not isinstance(value, str):
            raise BadValueError
        return self.from_text(value)


@dataclass(frozen=True, slots=True)
class Words:
    """A list, possibly empty, of some of a few words; as text separated by blanks."""

    words: tuple[str, ...]

    @property
    def expected(self) -> str:
        return "a list of any of " + ", ".join(self.words)

    def from_text(self, text: str) -> Value:
        return self._checked(text.split())

    def from_toml(self, value: object) -> Value:
        if not isinstance(value, list):
            raise BadValueError
        return self._checked(value)

    def _checked(self, given: list[object] | list[str]) -> tuple[str, ...]:
        if any(word not in self.words for word in given):
            raise BadValueError
        # The order of the table, so that equal sets are equal values.
        return tuple(word for word in self.words if word in given)


_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,254}\$?|[0-9]{1,10}", re.ASCII)


@dataclass(frozen=True, slots=True)
class User:
    """A user's name or number, or nobody; whether there is such a one is not tested."""

    expected: str = 'a user\'s name or number, or ""'

    def from_text(self, text: str) -> Value:
        if text and not _USER.fullmatch(text):
            raise BadValueError
        return text

    def from_toml(self, value: object) -> Value:
        if not isinstance(value, str):
            raise BadValueError
        return self.from_text(value)


@dataclass(frozen=True, slots=True)
class Target:
    """An absolute path, or one of ``words``, or ``syslog:<facility>`` where ``syslog`` is set.

    The empty word is written ``""`` in the description; what it means is the row's business.
    """

    words: tuple[str, ...] = ()
    syslog: bool = False

    @property
    def expected(self) -> str:
        forms = ["an absolute path", *(word or '""' for word in self.words)]
        if self.syslog:
            forms.append("syslog:<facility>")
        return " or ".join(forms)

    def from_text(self, text: str) -> Value:
        if text in self.words:
            return text
        if self.syslog and text.startswith("syslog:"):
            if text.removeprefix("syslog:") not in LOG_FACILITIES:
                raise BadValueError("facilities: " + " ".join(LOG_FACILITIES))
            return text
        if not os.path.isabs(text):
            raise BadValueError
        if not text.isprintable():
            raise BadValueError("with characters that cannot be shown")
        return text

    def from_toml(self, value: object) -> Value:
        if not isinstance(value, str):
            raise BadValueError
        return self.from_text(value)

    def made_absolute(self, text: str, base: str) -> str:
        """``text`` with a relative path taken from ``base``; words stay as they are."""
        if text in self.words or not text or (self.syslog and text.startswith("syslog:")):
            return text
        return os.path.normpath(os.path.join(base, text))
