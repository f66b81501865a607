"""Which socket a client connects to."""

from __future__ import annotations

import pytest

from xsd.client.address import socket_path

BOTH = {"XENSTORED_PATH": "/p", "XENSTORED_RUNDIR": "/r"}


@pytest.mark.parametrize(
    ("explicit", "environ", "expected"),
    [
        ("/x", BOTH, "/x"),
        (None, BOTH, "/p"),
        (None, {"XENSTORED_RUNDIR": "/r"}, "/r/socket"),
        (None, {}, "/run/xenstored/socket"),
        ("", {"XENSTORED_PATH": "", "XENSTORED_RUNDIR": ""}, "/run/xenstored/socket"),
    ],
)
def test_order(explicit: str | None, environ: dict[str, str], expected: str) -> None:
    """Explicit path, then the two variables, then the default; an empty string is none of them."""
    assert socket_path(explicit, environ) == expected


def test_process_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a mapping the process's own environment counts."""
    monkeypatch.setenv("XENSTORED_PATH", "/from/environment")
    assert socket_path() == "/from/environment"
