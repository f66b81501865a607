"""All sources together: who wins, and what is shown when something is wrong."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import pytest

from xsd.daemon import config
from xsd.daemon.config import Loaded
from xsd.daemon.faults import ConfigError
from xsd.daemon.settings import Settings

NOWHERE = "/nonexistent/xsd.toml"


def load(*arguments: str, env: Mapping[str, str] | None = None, default: str = NOWHERE) -> Loaded:
    """Loads with nothing of this machine in it."""
    return config.load(arguments, env or {}, base="/here", default_config=default)


def settings(*arguments: str, env: Mapping[str, str] | None = None) -> Settings:
    """The settings of good arguments."""
    return load(*arguments, env=env).settings


def faults(*arguments: str, env: Mapping[str, str] | None = None) -> list[str]:
    """What is wrong with bad arguments."""
    with pytest.raises(ConfigError) as caught:
        load(*arguments, env=env)
    return [str(fault) for fault in caught.value.faults]


def run(*arguments: str, default: str = NOWHERE) -> tuple[int | Loaded, str, str]:
    """What the program would do: its status, or settings, and both outputs."""
    out, err = io.StringIO(), io.StringIO()
    result = config.startup(arguments, {}, stdout=out, stderr=err, default_config=default)
    return result, out.getvalue(), err.getvalue()


def test_defaults() -> None:
    """Without any source the daemon serves domains and the usual socket."""
    plain = settings()
    assert plain.socket.path == "/run/xenstored/socket"
    assert plain.socket.backlog == 128
    assert plain.daemon.pid_file == "/run/xenstored/xenstored.pid"
    assert plain.log.file == "syslog:daemon"
    assert plain.access_log.file == ""
    assert (plain.quota.nodes, plain.quota.memory, plain.quota_soft.memory) == (
        1000,
        2621440,
        2097152,
    )
    assert (plain.conflict.active, plain.write_rate.active) == (True, False)


def test_contract_of_scripts() -> None:
    """``--no-fork --no-xen --rundir DIR`` keeps to DIR and to the terminal, whatever is around."""
    ours = settings(
        "--no-fork", "--no-xen", "--rundir", "/d", env={"XENSTORED_PATH": "/other/socket"}
    )
    assert ours.socket.path == "/d/socket"
    assert ours.daemon.pid_file == "/d/xenstored.pid"
    assert ours.log.file == "stderr"
    assert (ours.daemon.fork, ours.xen.enabled) == (False, False)


@pytest.mark.parametrize(
    ("arguments", "env", "path"),
    [
        ([], {"XENSTORED_RUNDIR": "/r"}, "/r/socket"),
        ([], {"XENSTORED_PATH": "/p"}, "/p"),
        ([], {"XENSTORED_RUNDIR": "/r", "XENSTORED_PATH": "/p"}, "/p"),
        ([], {"XENSTORED_RUNDIR": "", "XENSTORED_PATH": ""}, "/run/xenstored/socket"),
        ([], {"XENSTORED_RUNDIR": "r"}, "/here/r/socket"),
        (["--rundir", "/x"], {"XENSTORED_RUNDIR": "/r"}, "/x/socket"),
        (["--rundir", "/x"], {"XENSTORED_PATH": "/p"}, "/x/socket"),
        (["--socket", "/s"], {"XENSTORED_PATH": "/p"}, "/s"),
        (["--socket", "/s", "--rundir", "/x"], {}, "/s"),
        (["--socket", "/s"], {"XENSTORED_RUNDIR": "/r"}, "/s"),
    ],
)
def test_socket_path(arguments: list[str], env: dict[str, str], path: str) -> None:
    """The environment counts, an option more, and a directory beats an earlier source's path."""
    assert settings(*arguments, env=env).socket.path == path


def test_later_sources_win(tmp_path: Path) -> None:
    """Default, file, environment, command line."""
    file = tmp_path / "x.toml"
    file.write_text(
        '[quota]\nnodes = 1\nwatches = 2\n[socket]\nrundir = "/f"\npath = "/f/s"\nbacklog = 9\n'
    )
    ours = settings("--config", str(file), "-W", "3", env={"XENSTORED_RUNDIR": "/e"})
    assert (ours.quota.nodes, ours.quota.watches, ours.quota.transactions) == (1, 3, 10)
    assert (ours.socket.path, ours.socket.backlog) == ("/e/socket", 9)


def test_default_file_is_read_if_there(tmp_path: Path) -> None:
    """The usual file needs no option; naming another one leaves it unread."""
    usual, other, conf = tmp_path / "a.toml", tmp_path / "b.toml", tmp_path / "c.conf"
    usual.write_text("[quota]\nnodes = 1\n")
    other.write_text("[quota]\nwatches = 2\n")
    conf.write_text("quota-transaction = 3\n")
    seen = {}
    for arguments in ([], ["--config", str(other)], ["--config-file", str(conf)]):
        loaded = load(*arguments, default=str(usual))
        quota = loaded.settings.quota
        seen[Path(loaded.file).name] = (quota.nodes, quota.watches, quota.transactions)
    assert seen == {"a.toml": (1, 128, 10), "b.toml": (1000, 2, 10), "c.conf": (1000, 128, 3)}


def test_switches_change_those_of_the_file(tmp_path: Path) -> None:
    """--trace-control adds to and takes from what the file says."""
    file = tmp_path / "x.toml"
    file.write_text('[access-log]\nswitches = ["obj", "wrl"]\n')
    ours = settings("--config", str(file), "--trace-control=+acc", "--trace-control=-obj")
    assert ours.access_log.switches == ("wrl", "acc")
    assert settings("--trace-control=-obj").access_log.switches == ("io",)


def test_words_that_stand_for_something() -> None:
    """none is no pid file."""
    assert settings("--pid-file", "none").daemon.pid_file == ""


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"[quota]\n# caf\xe9\n", "not UTF-8 text"),
        (b"#" * (config.MAX_CONFIG_BYTES + 1), "longer than 1048576 bytes"),
    ],
)
@pytest.mark.parametrize("option", ["--config", "--config-file"])
def test_unreadable_files(
    tmp_path: Path, option: str, content: bytes | None, expected: str
) -> None:
    """A file that cannot be read is a fault that names it."""
    file = tmp_path / "x"
    if content is not None:
        file.write_bytes(content)
    (found,) = faults(option, str(file))
    assert found.startswith(str(file))
    assert expected in found


def test_directory_as_file(tmp_path: Path) -> None:
    """A directory is no configuration."""
    assert faults("--config", str(tmp_path)) == [f"{tmp_path}: cannot be read: Is a directory"]


def test_unreadable_text_names_its_line(tmp_path: Path) -> None:
    """The line of the first byte that is not UTF-8."""
    file = tmp_path / "x"
    file.write_bytes(b"[quota]\n# caf\xe9\n")
    assert faults("--config", str(file)) == [f"{file}, line 2: not UTF-8 text"]


def test_faults_of_all_sources_at_once(tmp_path: Path) -> None:
    """File, environment and command line are all reported, in this order."""
    file = tmp_path / "x.toml"
    file.write_text("[quota]\nnodes = true\nnope = 1\n")
    found = faults("--config", str(file), "-W", "x", env={"XENSTORED_RUNDIR": "/a\nb"})
    assert [line.split(": ")[1] for line in found] == [
        "quota.nodes",
        "quota.nope",
        "XENSTORED_RUNDIR",
        "-W",
    ]


def test_socket_path_too_long(tmp_path: Path) -> None:
    """The length a socket's path can have is tested here, with the place that set it."""
    fits, long = "/" + "a" * 106, "/" + "b" * 107
    assert settings("--socket", fits).socket.path == fits
    assert faults("--socket", long) == [
        f"command line: --socket: the socket path has 108 bytes, 107 are possible: {long}"
    ]
    file = tmp_path / "x.toml"
    file.write_text(f'[socket]\nrundir = "/{"c" * 100}"\n')
    (found,) = faults("--config", str(file))
    assert found.startswith(f"{file}, line 2: socket.rundir: the socket path has 108 bytes")
    assert settings("--socket", long, "--disable-socket").socket.path == long


def test_nobody_to_talk_to() -> None:
    """Without socket and Xen there is nothing to do."""
    assert faults("--no-xen", "--disable-socket") == [
        "command line: --no-xen: with neither the socket nor Xen nobody could talk to the daemon"
    ]


def test_stderr_in_the_background() -> None:
    """A log that would go nowhere is refused."""
    (found,) = faults("--log-file", "stderr")
    assert found.startswith("command line: --log-file: stderr is closed in the background")
    assert settings("--log-file", "stderr", "-N").log.file == "stderr"


def test_notes_for_the_log() -> None:
    """What is allowed but risky or without effect is said."""
    loaded = load("-K", "-V", "-q", "nodes=2000")
    assert [note.partition(": ")[0] for note in loaded.notes] == [
        "command line",
        "quota-soft.nodes",
        "domains.keep-orphans",
    ]


def test_config_test_good(tmp_path: Path) -> None:
    """A valid file is called valid, with its path."""
    file = tmp_path / "x.toml"
    file.write_text("[quota]\nnodes = 1\n")
    for arguments in (["--config", str(file), "--config-test"], ["--config-test"]):
        assert run(*arguments, default=str(file)) == (0, f"Configuration valid at {file}\n", "")
    assert run("--config-test") == (0, "Configuration valid (no configuration file)\n", "")


def test_config_test_bad(tmp_path: Path) -> None:
    """An invalid one shows all faults, one per line, and nothing else."""
    file = tmp_path / "x.conf"
    file.write_text("quota-maxwatch = x\nnope = 1\n")
    status, out, err = run("--config-file", str(file), "--config-test")
    assert (status, out) == (1, "")
    assert [line.partition(": bad")[0] for line in err.splitlines()] == [
        f"xsd: {file}, line 1: quota-maxwatch",
        f"xsd: {file}, line 2: nope: unknown key",
    ]


def test_start_with_faults_does_not_start(tmp_path: Path) -> None:
    """The same mistakes prevent a start."""
    assert run("--nope")[0] == 1


def test_print_config_translates(tmp_path: Path) -> None:
    """oxenstored.conf and options, printed as TOML, mean the same."""
    conf, toml = tmp_path / "x.conf", tmp_path / "x.toml"
    conf.write_text("quota-maxentity = 8192\npid-file = /p\nxenstored-log-level = debug\n")
    status, out, _ = run("--config-file", str(conf), "-W", "7", "--print-config")
    assert status == 0
    toml.write_text(out)
    assert settings("--config", str(toml)) == settings("--config-file", str(conf), "-W", "7")


def test_help_wins_over_faults() -> None:
    """Who asks for help gets it."""
    status, out, err = run("--nope", "--help")
    assert (status, err) == (0, "")
    assert out.startswith("usage: xsd daemon")
