"""Permission entries: a letter and a domid."""

from __future__ import annotations

from typing import NamedTuple

#: n: none, r: read, w: write, b: both.
LETTERS = "nrwb"
DOMID_MAX = 65535

_EXPECTED = "expected a letter n, r, w or b and a domid, as in r5"


class Permission(NamedTuple):
    """One entry of a permission list.

    The domain of the first entry owns the node, and its letter holds for every domain that no
    later entry names.
    """

    access: str
    domid: int

    def __str__(self) -> str:
        return f"{self.access}{self.domid}"

    @classmethod
    def parse(cls, text: str) -> Permission:
        """Parse the form ``r5``; ``ValueError`` says what was expected."""
        access, digits = text[:1], text[1:]
        if not access or access not in LETTERS:
            raise ValueError(f"invalid permission '{text}': {_EXPECTED}")
        if not (digits.isascii() and digits.isdigit()) or int(digits) > DOMID_MAX:
            raise ValueError(f"invalid permission '{text}': {_EXPECTED} (0 to {DOMID_MAX})")
        return cls(access, int(digits))
