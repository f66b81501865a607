"""The daemon log: its lines, its places, and what happens when it cannot be written."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from xsd.daemon import logs
from xsd.daemon.config import load
from xsd.daemon.settings import LogSettings

ROOT = Path(logs.__file__).parents[2]

DATE = r"\d{8}T\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.fixture
def settings(tmp_path: Path) -> LogSettings:
    """Settings of a log in a file."""
    arguments = ["--log-file", str(tmp_path / "log"), "--log-level", "debug"]
    return load(arguments, {}, default_config="/nonexistent").settings.log


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leaves logging as it was."""
    logger = logging.getLogger(logs.ROOT)
    before = (logger.level, logger.propagate, logger.handlers[:])
    yield
    logger.level, logger.propagate, logger.handlers[:] = before
    logger.setLevel(before[0])


def written(settings: LogSettings) -> list[str]:
    """The lines of the log."""
    return Path(settings.file).read_text().splitlines()


def test_form_of_lines(settings: LogSettings) -> None:
    """Date in UTC, level in five columns, module, text."""
    log = logs.setup(settings)
    logger = logging.getLogger("xsd.daemon.thing")
    logger.debug("a %d", 1)
    logger.info("b")
    logger.warning("c")
    logger.error("d")
    log.close()
    assert [re.sub(DATE, "DATE", line) for line in written(settings)] == [
        "[DATE|debug|thing] a 1",
        "[DATE| info|thing] b",
        "[DATE| warn|thing] c",
        "[DATE|error|thing] d",
    ]


@pytest.mark.parametrize(
    ("level", "count"), [("debug", 4), ("info", 3), ("warn", 2), ("error", 1), ("null", 0)]
)
def test_levels(settings: LogSettings, level: str, count: int) -> None:
    """Only what is at least as important is written."""
    log = logs.setup(replace(settings, level=level))
    logger = logging.getLogger("xsd.x")
    for write in (logger.debug, logger.info, logger.warning, logger.error):
        write("text")
    log.close()
    assert len(written(settings)) == count


def test_nobody_forges_lines(settings: LogSettings) -> None:
    """Line ends and escapes in a message stay inside its line; letters stay letters."""
    log = logs.setup(settings)
    logging.getLogger("xsd.x").info('"%s"', "a\n[b]\x1b[2J é\r")
    log.close()
    (line,) = written(settings)
    assert line.partition("] ")[2] == '"a\\n[b]\\x1b[2J é\\r"'


def test_tracebacks_have_the_prefix_on_every_line(settings: LogSettings) -> None:
    """So that they can be told from other lines and survive rotation."""
    log = logs.setup(settings)
    try:
        raise ValueError("inner")
    except ValueError:
        logging.getLogger("xsd.x").exception("outer")
    log.close()
    lines = written(settings)
    assert [bool(re.match(rf"\[{DATE}\|error\|x\] ", line)) for line in lines] == [True] * len(
        lines
    )
    assert lines[0].endswith("outer")
    assert lines[-1].endswith("ValueError: inner")


def test_long_lines_are_cut(settings: LogSettings) -> None:
    """Line end included."""
    log = logs.setup(replace(settings, max_chars=60))
    logging.getLogger("xsd.x").info("y" * 500)
    log.close()
    content = Path(settings.file).read_bytes()
    assert (len(content), content[-5:]) == (60, b"yy..\n")


def test_wrong_arguments_do_not_reach_the_caller(
    settings: LogSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that cannot be formatted is logging's problem."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    log = logs.setup(settings)
    logging.getLogger("xsd.x").info("%d", "no number")
    logging.getLogger("xsd.x").info("next")
    log.close()
    assert [line.partition("] ")[2] for line in written(settings)] == ["next"]


def test_reopen(settings: LogSettings) -> None:
    """After reopen lines go to the new file."""
    log = logs.setup(settings)
    logging.getLogger("xsd.x").info("one")
    Path(settings.file).rename(settings.file + ".old")
    log.reopen()
    logging.getLogger("xsd.x").info("two")
    log.close()
    assert [line.partition("] ")[2] for line in written(settings)] == ["two"]


def test_rotation(settings: LogSettings) -> None:
    """The log is rotated by lines."""
    log = logs.setup(replace(settings, max_lines=2, max_files=2))
    for number in range(5):
        logging.getLogger("xsd.x").info("%d", number)
    log.close()
    assert [line.partition("] ")[2] for line in written(settings)] == ["4"]
    assert sorted(file.name for file in Path(settings.file).parent.iterdir()) == ["log", "log.1"]


def test_full_disk(settings: LogSettings, tmp_path: Path) -> None:
    """Lines are lost silently while the disk is full; afterwards their number is told."""
    link = tmp_path / "link"
    link.symlink_to("/dev/full")
    log = logs.setup(replace(settings, file=str(link)))
    logger = logging.getLogger("xsd.x")
    logger.info("one")
    logger.info("two")
    assert log.lost == 2
    link.unlink()
    log.reopen()
    logger.info("three")
    assert log.lost == 0
    log.close()
    assert [line.partition("|")[2] for line in link.read_text().splitlines()] == [
        " warn|logs] 2 lines of this log were lost",
        " info|x] three",
    ]


def test_cannot_be_opened(settings: LogSettings) -> None:
    """A log that cannot be made is an error at start."""
    with pytest.raises(FileNotFoundError):
        logs.setup(replace(settings, file="/nonexistent/log"))


def test_closed_stderr_does_no_harm() -> None:
    """A terminal that has gone does not end the daemon."""
    script = (
        "import logging, os\n"
        "from xsd.daemon import logs\n"
        "from xsd.daemon.settings import LogSettings\n"
        "log = logs.setup(LogSettings('stderr', 'info', 1, 0, 0))\n"
        "logging.getLogger('xsd.x').info('one')\n"
        "os.close(2)\n"
        "logging.getLogger('xsd.x').info('two')\n"
        "print(log.lost)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "1\n"
    assert re.sub(DATE, "DATE", done.stderr) == "[DATE| info|x] one\n"
