"""Where time goes: samples, instructions and system calls find their layers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import serving

from bench import layers
from bench.layers import Frame

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
\tffffffff81a0 unix_stream_sendmsg+0x1 ([kernel.kallsyms])
\tffffffff81b0 __x64_sys_sendto ([kernel.kallsyms])
\t7f0000001000 __send (/usr/lib/x86_64-linux-gnu/libc.so.6)

\t7f0000002000 leaf_index (/somewhere/xsd/core/store.cpython-311-x86_64-linux-gnu.so)
\t7f0000003000 __pyx_f_3xsd_4core_5store_op_read (/a (b)/xsd/core/store.cpython-311.so)

\tffffffff81c0 irqentry_exit ([kernel.kallsyms])
"""

CALLGRIND = """
events: Ir
ob=(1) /somewhere/xsd/io/sockets.cpython-311-x86_64-linux-gnu.so
fl=(1) sockets.c
fn=(1) __pyx_f_3xsd_2io_7sockets_serve
10 5
+2 7
cob=(2) /usr/lib/x86_64-linux-gnu/libc.so.6
cfn=(2) recv
calls=3 20
* 900

ob=(2)
fn=(2)
20 40
fn=(3) recv'2
20 2

totals: 54
"""

STRACE = """
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000600           1       300           recvfrom
 40.00    0.000400           1       200        12 accept4
------ ----------- ----------- --------- --------- ----------------
100.00    0.001000           2       500        12 total
"""


def test_every_layer_is_told_by_file_and_name() -> None:
    """Generated code is told from the C library that is linked into the same module."""
    store = "/x/xsd/core/store.cpython-311-x86_64-linux-gnu.so"
    known = {
        Frame("unix_release", "[kernel.kallsyms]"): layers.KERNEL,
        Frame("uv__io_poll", "/x/uvloop/loop.cpython-311-x86_64-linux-gnu.so"): layers.LOOP,
        Frame("_PyEval_EvalFrameDefault", "/usr/bin/python3.11"): layers.PYTHON,
        Frame("PyDict_GetItem", "/usr/lib/libpython3.11.so.1.0"): layers.PYTHON,
        Frame("__pyx_f_serve", "/x/xsd/io/rings.cpython-312-aarch64-linux-gnu.so"): layers.IO,
        Frame("__pyx_f_op_read", store): layers.CORE,
        Frame("xs_tree_find", store): layers.CSRC,
        Frame("__memmove", "/usr/lib/x86_64-linux-gnu/libc.so.6"): layers.LIBC,
        Frame("__vdso_clock_gettime", "[vdso]"): layers.LIBC,
        Frame("xenevtchn_notify", "/x/libxenevtchn.so.1"): layers.OTHER,
    }
    assert {frame: layers.layer(frame) for frame in known} == known
    assert set(known.values()) == set(layers.LAYERS)


def test_samples_are_placed_and_folded() -> None:
    """The innermost function decides; within the kernel the system call on the way is named."""
    found = list(layers.stacks(SCRIPT))
    assert [layers.place(stack) for stack in found] == [
        (layers.KERNEL, "sendto"),
        (layers.CSRC, "leaf_index"),
        (layers.KERNEL, "on the way in and out"),
    ]
    assert layers.folded([*found, found[1]]) == [
        "csrc;__pyx_f_3xsd_4core_5store_op_read;leaf_index 2",
        "kernel;__send;__x64_sys_sendto;unix_stream_sendmsg 1",
        "kernel;irqentry_exit 1",
    ]


def test_instructions_are_those_of_a_function_itself() -> None:
    """What it calls does not count; names are found again by number; recursion is one function."""
    io = "/somewhere/xsd/io/sockets.cpython-311-x86_64-linux-gnu.so"
    libc = "/usr/lib/x86_64-linux-gnu/libc.so.6"
    assert layers.instructions(CALLGRIND) == {
        Frame("__pyx_f_3xsd_2io_7sockets_serve", io): 12,
        Frame("recv", libc): 42,
    }


def test_system_calls_are_counted_with_and_without_errors() -> None:
    """The column of errors may be empty; the sum is no system call."""
    assert layers.system_calls(STRACE) == {"recvfrom": 300, "accept4": 200}


def profile(output: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("XENSTORED_")}
    return subprocess.run(
        [sys.executable, "-m", "bench.profile", "B1-read", "--tiny", "--output", str(output)],
        cwd=ROOT,
        check=False,
        env=environment | more,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_row_is_profiled(tmp_path: Path) -> None:
    """The text names layers; shares are of one whole; each request is read and answered once."""
    done = profile(tmp_path)
    document = json.loads((tmp_path / "profile-B1-read.json").read_text())
    if done.returncode != 0:
        serving.absent(done.stderr.strip())
    if document["shares"]:
        assert abs(sum(sum(part.values()) for part in document["shares"].values()) - 1) < 1e-6
        assert (tmp_path / "profile-B1-read.folded").stat().st_size > 0
    if document["instructions_per_request"]:
        assert {layers.IO, layers.CORE, layers.CSRC} <= set(document["instructions_per_request"])
    if document["system_calls_per_request"]:
        assert 1 <= document["system_calls_per_request"]["sendto"] < 2
    assert "us of CPU per request" in done.stdout


def test_missing_tools_are_named(tmp_path: Path) -> None:
    """Each tool that is not there is a line that says how to get it, and nothing is made up."""
    compiler = tmp_path / "bin"
    compiler.mkdir()
    for name in ("gcc", "git", "as", "ld"):
        for directory in os.get_exec_path():
            if (program := Path(directory) / name).exists():
                (compiler / name).symlink_to(program)
                break
    done = profile(tmp_path, PATH=str(compiler))
    assert done.returncode == 1
    assert done.stderr == "profile: neither perf nor callgrind could be used\n"
    for name in ("perf", "strace", "valgrind"):
        assert f"Not used: {name} is not installed (apt-get install" in done.stdout
    document = json.loads((tmp_path / "profile-B1-read.json").read_text())
    assert (document["shares"], document["instructions_per_request"]) == ({}, {})
