"""The table of settings is complete, and everything made from it says the same."""

from __future__ import annotations

import tomllib
import typing
from collections import Counter
from dataclasses import fields

from hypothesis import given
from hypothesis import strategies as st

from xsd.daemon import options, oxen_config, quotas, toml_config
from xsd.daemon.config import build, field_name, resolve
from xsd.daemon.kinds import (
    LOG_FACILITIES,
    Bool,
    Choice,
    Float,
    Int,
    Kind,
    Target,
    User,
    Value,
    Words,
    to_toml,
)
from xsd.daemon.settings import Settings
from xsd.daemon.table import DEFAULTS, ROWS, SECTIONS
from xsd.daemon.template import render


def test_every_field_has_one_row_of_its_type() -> None:
    """Settings and table name the same things, with the same types."""
    of_rows = {(field_name(row.section), field_name(row.key)): type(row.default) for row in ROWS}
    of_fields = {}
    for section, kind in typing.get_type_hints(Settings).items():
        for name, annotation in typing.get_type_hints(kind).items():
            of_fields[section, name] = typing.get_origin(annotation) or annotation
    assert of_rows == of_fields


def test_sections_are_those_of_the_settings() -> None:
    """Sections stand in the file in the order of the fields."""
    assert [field_name(name) for name in SECTIONS] == [part.name for part in fields(Settings)]


def test_no_spelling_means_two_things() -> None:
    """Row names, options and keys of oxenstored.conf are each unique."""
    spellings = {
        "name": [row.name for row in ROWS],
        "toml": [f"{row.section}.{key}" for row in ROWS for key in (row.key, *row.aliases)],
        "option": [name for option in options.OPTIONS for name in option.names],
        "oxen": list(oxen_config.KEYS),
    }
    twice = {
        what: [word for word, count in Counter(words).items() if count > 1]
        for what, words in spellings.items()
    }
    assert twice == {what: [] for what in spellings}


def test_every_default_fits_its_kind() -> None:
    """A default written in TOML is a value the row accepts, and the same one."""
    read = {
        row.name: row.kind.from_toml(tomllib.loads(f"x = {to_toml(row.default)}")["x"])
        for row in ROWS
    }
    assert read == DEFAULTS


def test_both_quota_sections_have_every_quota() -> None:
    """Each quota has a hard and a soft row, with the defaults of the list."""
    assert {
        quota.name: (DEFAULTS[f"quota.{quota.name}"], DEFAULTS[f"quota-soft.{quota.name}"])
        for quota in quotas.QUOTAS
    } == {quota.name: (quota.hard, quota.soft) for quota in quotas.QUOTAS}


def test_quota_names_of_the_protocol() -> None:
    """The names that GET_QUOTA lists, in its order."""
    assert [quota.name for quota in quotas.QUOTAS if quota.public] == [
        "nodes",
        "watches",
        "outstanding",
        "memory",
        "transactions",
        "transaction-nodes",
        "node-permissions",
        "path-max",
        "node-size",
    ]


def test_printed_defaults_are_the_defaults() -> None:
    """What --print-config writes is read back without faults as what it was."""
    layer = toml_config.read(render(DEFAULTS), "printed")
    assert layer.faults == []
    assert {name: entry.value for name, entry in layer.entries.items()} == DEFAULTS


def test_help_names_every_option() -> None:
    """No option is hidden."""
    text = options.usage()
    words = set(text.replace(",", " ").split())
    assert [name for option in options.OPTIONS for name in option.names if name not in words] == []


def values_of(kind: Kind) -> st.SearchStrategy[Value]:
    """Everything a kind accepts, as it is after reading."""
    match kind:
        case Bool():
            return st.booleans()
        case Int(low, high):
            return st.integers(low, high)
        case Float(low, high):
            return st.floats(low, high, exclude_min=True)
        case Choice(words):
            return st.sampled_from(words)
        case Words(words):
            subsets = st.sets(st.sampled_from(words))
            return subsets.map(lambda chosen: tuple(w for w in words if w in chosen))
        case Target(words, syslog):
            letters = st.characters(exclude_categories=["C", "Z"], include_characters=" #'\"\\")
            forms = [st.text(letters, max_size=30).map(lambda text: "/" + text)]
            if words:
                forms.append(st.sampled_from(words))
            if syslog:
                forms.append(st.sampled_from(LOG_FACILITIES).map(lambda name: "syslog:" + name))
            return st.one_of(forms)
        case User():
            return st.sampled_from(["", "root", "_xsd-1", "a.b", "machine$", "65534"])
    raise AssertionError(kind)


ALL_VALUES = st.fixed_dictionaries({row.name: values_of(row.kind) for row in ROWS})


@given(ALL_VALUES)
def test_any_settings_survive_printing(values: dict[str, Value]) -> None:
    """Whatever can be set is read back from --print-config as the same settings."""
    layer = toml_config.read(render(values), "printed")
    assert layer.faults == []
    again = {name: entry.value for name, entry in layer.entries.items()}
    assert again == values
    assert build(resolve(again)) == build(resolve(values))


@given(ALL_VALUES)
def test_lines_of_printed_settings(values: dict[str, Value]) -> None:
    """Every key is found on the line where it stands."""
    text = render(values)
    lines = text.split("\n")
    layer = toml_config.read(text, "printed")
    assert {
        entry.key: lines[entry.line - 1].partition(" = ")[0] for entry in layer.entries.values()
    } == {row.name: row.key for row in ROWS}


@given(ALL_VALUES)
def test_oxenstored_conf_means_the_same(values: dict[str, Value]) -> None:
    """A value written in the other format is the same value, unless 0 means something else."""
    written = {
        row.oxen: values[row.name]
        for row in ROWS
        if row.oxen and (row.oxen_kind is None or values[row.name] != 0)
    }
    text = "".join(
        f"{key} = {str(value).lower() if isinstance(value, bool) else value}\n"
        for key, value in written.items()
        if value == str(value).strip() or not isinstance(value, str)
    )
    layer = oxen_config.read(text, "conf")
    assert layer.faults == []
    assert {name: entry.value for name, entry in layer.entries.items()} == {
        name: values[name] for name in layer.entries
    }
