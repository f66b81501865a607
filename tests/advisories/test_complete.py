"""Every advisory has its tests, and none of them can vanish unnoticed."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stores import EngineStore

ADVISORIES = {
    38, 72, 115, 206, 233, 272, 322, 323, 324, 325, 326, 330, 352, 353, 354, 414, 415, 416, 417,
    418, 419, 420, 421, 425, 440, 481, 483, 484,
}  # fmt: skip
"""All that concerned a xenstored."""

NAME = re.compile(r"test_xsa_(\d+)_\w+")


def collected(directory: Path) -> dict[int, list[str]]:
    """The names of the test functions for each advisory.

    Raises ValueError for a function that is not named after one, has no docstring, or does not
    say which stores it runs against.
    """
    found: dict[int, list[str]] = {}
    for path in sorted(directory.glob("test_*.py")):
        if path.name == Path(__file__).name:
            continue
        for function in ast.parse(path.read_text()).body:
            if not isinstance(function, ast.FunctionDef) or not function.name.startswith("test"):
                continue
            match = NAME.fullmatch(function.name)
            decorators = [ast.unparse(one) for one in function.decorator_list]
            stores = [text for text in decorators if text.startswith("on(")]
            if match is None or ast.get_docstring(function) is None or len(stores) != 1:
                raise ValueError(f"{path.name}: {function.name}")
            found.setdefault(int(match[1]), []).append(stores[0])
    return found


def test_every_advisory_is_tested() -> None:
    """Neither is one missing, nor is there one that is not in the table."""
    assert set(collected(Path(__file__).parent)) == ADVISORIES


def test_every_advisory_is_tested_on_our_daemon() -> None:
    """On the engine in process, or, where it is about rings, on the daemon itself."""
    for number, stores in collected(Path(__file__).parent).items():
        ours = ("EVERYBODY", "DAEMONS", "'xsd'")
        assert any(word in text for text in stores for word in ours), number


def test_a_missing_test_is_noticed(tmp_path: Path) -> None:
    """What is not there, or not named as it must be, is not taken for there."""
    text = '@on("engine")\ndef test_xsa_72_x(store) -> None:\n    """It holds."""\n'
    (tmp_path / "test_one.py").write_text(text)
    assert collected(tmp_path) == {72: ["on('engine')"]}
    for bad in (
        text.replace("xsa_72", "xsa"),
        text.replace('@on("engine")\n', ""),
        text.replace('"""It holds."""', "pass"),
    ):
        (tmp_path / "test_one.py").write_text(bad)
        try:
            collected(tmp_path)
        except ValueError:
            continue
        raise AssertionError(bad)


# --- that the tests can fail


def deaf(store: EngineStore) -> None:
    """Permissions do not matter for events."""
    store.world.engine.configure(event_perms=False)


def lawless(store: EngineStore) -> None:
    """Permissions do not matter at all."""
    store.world.engine.configure(perms=False)


def boundless(store: EngineStore) -> None:
    """There are no quotas."""
    store.world.engine.configure(quota=False)


def sparing(store: EngineStore) -> None:
    """Nodes of dead domains stay."""
    store.world.engine.configure(keep_orphans=True)


def defenceless(store: EngineStore) -> None:
    """Nobody pays for conflicts."""
    store.world.engine.configure(conflict=False, priority_after=0)


def credulous(store: EngineStore) -> None:
    """Every domain that one can think of is there."""
    store.world.domains |= set(range(100))


def forgetful(store: EngineStore) -> None:
    """Deaths are not told."""
    store.world.engine = Mute(store.world.engine)


class Mute:
    """An engine that hears of no death."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def domain_died(self, now: int, domid: int) -> None:
        pass


CANARIES: list[tuple[Callable[[EngineStore], None], str, str]] = [
    (deaf, "rights", "test_xsa_115_events_are_for_those_who_may_read"),
    (deaf, "rights", "test_xsa_115_events_of_a_commit_are_for_those_who_may_read"),
    (deaf, "rights", "test_xsa_115_special_watches_ask_for_permission"),
    (lawless, "rights", "test_xsa_353_the_root_is_no_special_case"),
    (credulous, "rights", "test_xsa_417_entries_for_domains_to_come_are_not_valid"),
    (boundless, "accounting", "test_xsa_272_the_quota_bites_at_the_commit"),
    (boundless, "accounting", "test_xsa_354_values_are_bounded"),
    (boundless, "accounting", "test_xsa_354_the_bounds_are_the_toolstacks_to_choose"),
    (boundless, "memory", "test_xsa_326_transactions_are_bounded"),
    (boundless, "memory", "test_xsa_326_what_a_transaction_looks_at_is_bounded"),
    (boundless, "memory", "test_xsa_326_nodes_times_transactions_are_bounded"),
    (boundless, "lifecycle", "test_xsa_330_reset_watches_removes_them_all"),
    (sparing, "memory", "test_xsa_418_deep_trees"),
    (sparing, "accounting", "test_xsa_419_what_is_below_goes_too_and_its_owner_pays_no_more"),
    (defenceless, "lifecycle", "test_xsa_206_a_writing_guest_does_not_starve_transactions"),
    (forgetful, "accounting", "test_xsa_440_a_domain_dies_while_its_nodes_are_in_transactions"),
]


@pytest.mark.parametrize(
    ("sabotage", "module", "name"), CANARIES, ids=[f"{how.__name__}-{n}" for how, _, n in CANARIES]
)
def test_a_store_that_breaks_the_rule_is_noticed(
    sabotage: Callable[[EngineStore], None],
    module: str,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An engine with the protection switched off does not pass the advisory's test."""
    path = Path(__file__).with_name(f"test_{module}.py")
    spec = importlib.util.spec_from_file_location(f"canary_{module}", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, loaded)
    spec.loader.exec_module(loaded)
    store = EngineStore()
    sabotage(store)
    with pytest.raises(AssertionError):
        getattr(loaded, name)(store)
