"""``oxenstored.conf``: ``key = value`` lines, ``#`` comments on lines of their own.

Every key that file can have is understood.  Unlike the daemon it was made for, an unknown key
or a bad value is a fault, because a limit that is silently not set protects nobody.
"""

from __future__ import annotations

from xsd.daemon.faults import bad_value, unknown
from xsd.daemon.kinds import BadValueError, Bool, Int, Kind, Value
from xsd.daemon.layer import Layer
from xsd.daemon.table import BY_OXEN

# Keys that set nothing here.
_PERSISTENT = "persistent"
_COLLECTOR = "gc-max-overhead"

KEYS = (*BY_OXEN, _PERSISTENT, _COLLECTOR)


def read(text: str, source: str) -> Layer:
    """Everything the file says; mistakes are in the layer's ``faults``."""
    layer = Layer(source)
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals:
            layer.fault(f"expected 'key = value' or '# comment', not {line[:60]!r}", number)
        elif not key:
            layer.fault("no key before '='", number)
        else:
            _read_line(layer, number, key, value)
    return layer


def _read_line(layer: Layer, number: int, key: str, text: str) -> None:
    row = BY_OXEN.get(key)
    if row is not None:
        value = _parsed(layer, row.oxen_kind or row.kind, number, key, text)
        earlier = layer.entries.get(row.name)
        if earlier is not None:
            layer.notes.append(
                f"{layer.source}, line {number}: {key}: replaces line {earlier.line}"
            )
        if value is not None:
            layer.put(row.name, value, number, key)
    elif key == _PERSISTENT:
        if _parsed(layer, Bool(), number, key, text) is True:
            layer.fault(
                "not supported: the store is kept in memory only; write false or remove the line",
                number,
                key,
            )
    elif key == _COLLECTOR:
        if _parsed(layer, Int(0, 10**9), number, key, text) is not None:
            layer.notes.append(f"{layer.source}, line {number}: {key}: ignored, nothing needs it")
    else:
        layer.fault(unknown("key", key, KEYS), number, key)


def _parsed(layer: Layer, kind: Kind, number: int, key: str, text: str) -> Value | None:
    """The value, or None after noting what is wrong with it."""
    try:
        return kind.from_text(text)
    except BadValueError as bad:
        # The file's format has no comments behind values, but people write them.
        hint = "a comment must stand on a line of its own" if "#" in text else str(bad)
        layer.fault(bad_value(repr(text), kind.expected, hint), number, key)
        return None
