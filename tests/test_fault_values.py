"""Fault: what it accepts, how it is written, and where a configuration has one."""

from __future__ import annotations

import copy
import pickle
import tomllib
from pathlib import Path
from typing import Any

import pytest
from commands import assert_refused, run
from hypothesis import given, settings
from hypothesis import strategies as st

from fastecho import ConfigError, Fault, Server
from fastecho.config import Config, format_toml, merge
from fastecho.faults import ENDS, OPTIONS
from fastecho.settings import SETTINGS

SECONDS = st.floats(0, 3600, allow_subnormal=True)
CHANCES = st.floats(0, 1)
COUNTS = st.integers(1, 2**62)
FAULTS = st.builds(
    Fault,
    delay=SECONDS,
    bandwidth=st.none() | st.integers(1, 10**11),
    slice=COUNTS,
    gap=st.none() | SECONDS,
    close_after=st.none() | COUNTS,
    corrupt=CHANCES,
    duplicate=CHANCES,
    accept_delay=SECONDS,
    fail_first=st.none() | COUNTS,
    probability=CHANCES,
    seed=st.integers(0, 2**64 - 1),
) | st.builds(
    Fault,
    delay=SECONDS,
    jitter=st.floats(0.001, 3600),
    distribution=st.sampled_from([None, "uniform", "normal"]),
    silent=st.booleans(),
)


@settings(max_examples=50, deadline=None)
@given(FAULTS)
def test_its_text_and_its_repr_are_the_same_fault(fault: Fault) -> None:
    assert eval(repr(fault)) == fault
    assert copy.copy(fault) == fault == pickle.loads(pickle.dumps(fault))
    assert Fault.parse(str(fault)) == fault
    assert hash(Fault.parse(str(fault))) == hash(fault)


@pytest.mark.parametrize("text", ["probability=1", "delay=0", "seed=0", "silent=no"])
def test_one_that_changes_nothing_is_printed_as_it_is_read(text: str, tmp_path: Path) -> None:
    path = tmp_path / "f.toml"
    path.write_text(format_toml(merge({"fault": text}, {}), SETTINGS))
    assert tomllib.loads(path.read_text())["fault"] == "delay=0"
    assert merge({}, {}, str(path)).config.fault == Fault.parse(text) == Fault()


def test_times_are_the_nearest_nanosecond_and_the_gap_is_one_millisecond() -> None:
    assert Fault(slice=1).numbers()["gap_ns"] == 1_000_000
    assert Fault(slice=1, gap=0).numbers()["gap_ns"] == 0
    assert int(0.000065 * 1e9) == 64_999
    assert Fault(delay=0.000065).numbers()["delay_ns"] == 65_000


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("delay=50ms,jitter=10ms,slice=1", {"delay": 0.05, "jitter": 0.01, "slice": 1}),
        ("delay=1.5, accept-delay=2s", {"delay": 1.5, "accept_delay": 2.0}),
        ("delay=250us", {"delay": 0.00025}),
        ("bandwidth=64k", {"bandwidth": 64000}),
        ("close_after=2M,seed=7", {"close_after": 2_000_000, "seed": 7}),
        ("silent", {"silent": True}),
        ("silent=no,deny=yes", {"deny": True}),
        ("corrupt=0.01,probability=.5", {"corrupt": 0.01, "probability": 0.5}),
        ("jitter=1ms,distribution=normal", {"jitter": 0.001, "distribution": "normal"}),
    ],
)
def test_text_is_read(text: str, values: dict[str, Any]) -> None:
    assert Fault.parse(text) == Fault(**values)
    assert Config(fault=text).fault == Fault(**values)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "fault '' names no fault: there are delay, jitter, "),
        ("delya=1", "fault 'delya=1' has no option 'delya': did you mean delay?"),
        ("delay=1,delay=2", "fault 'delay=1,delay=2' gives delay twice"),
        ("delay", "fault: delay '' must be a time from 0 to 3600 s, as 50ms"),
        ("silent,,delay=1", "fault 'silent,,delay=1' has a comma too many, or no name before ="),
        ("silent,", "fault 'silent,' has a comma too many, or no name before ="),
        ("=3", "fault '=3' has a comma too many, or no name before ="),
        ("delay=5x", "fault: delay '5x' must be a time from 0 to 3600 s, as 50ms"),
        ("delay=-1", "fault: delay '-1' must be a time from 0 to 3600 s, as 50ms"),
        ("delay=2h", "fault: delay '2h' must be a time from 0 to 3600 s, as 50ms"),
        ("delay=3601", "fault: delay '3601' must be a time from 0 to 3600 s, as 50ms"),
        ("slice=0", "fault: slice '0' must be a whole number from 1 to 4611686018427387904"),
        ("slice=1.5", "fault: slice '1.5' must be a whole number from 1 to 4611686018427387904"),
        ("bandwidth=1T", "fault: bandwidth '1T' must be a whole number from 1 to 100000000000"),
        ("corrupt=2", "fault: corrupt '2' must be a probability from 0 to 1"),
        ("corrupt=nan", "fault: corrupt 'nan' must be a probability from 0 to 1"),
        ("silent=maybe", "fault: silent 'maybe' must be true or false"),
        ("distribution=flat", "fault: distribution 'flat' must be one of fixed, uniform, normal"),
        ("distribution=normal", "fault: distribution 'normal' needs jitter"),
        (
            "jitter=1ms,distribution=fixed",
            "fault: jitter 0.001 has no effect with distribution fixed",
        ),
        ("gap=1ms", "fault: gap 0.001 needs slice"),
        ("deny,silent", "fault: silent cannot be combined with deny"),
        ("close_after=1,reset_after=0", "fault: close_after 1 cannot be combined with reset_after"),
    ],
)
def test_wrong_text_is_refused_in_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Server(fault=text)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"delay": "1"}, "delay '1' must be a time from 0 to 3600 s, as 50ms"),
        ({"delay": float("nan")}, "delay nan must be a time from 0 to 3600 s, as 50ms"),
        ({"delay": True}, "delay True must be a time from 0 to 3600 s, as 50ms"),
        ({"seed": -1}, "seed -1 must be a whole number from 0 to 18446744073709551615"),
        ({"probability": 1.5}, "probability 1.5 must be a probability from 0 to 1"),
        ({"deny": 1}, "deny 1 must be true or false"),
        ({"distribution": 3}, "distribution 3 must be one of fixed, uniform, normal"),
    ],
)
def test_wrong_value_is_refused_in_one_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Fault(**values)
    assert str(caught.value) == sentence


def test_two_ends_are_refused_whichever_they_are() -> None:
    given = {name: True if OPTIONS[name][1] is False else 0 for name in ENDS}
    for one in ENDS:
        Fault(**{one: given[one]})  # type: ignore[arg-type]
        for two in set(ENDS) - {one}:
            with pytest.raises(ConfigError, match="cannot be combined with"):
                Fault(**{one: given[one], two: given[two]})  # type: ignore[arg-type]


def test_it_is_immutable() -> None:
    fault = Fault(delay=1)
    with pytest.raises(AttributeError, match="a Fault is immutable: delay cannot be set"):
        fault.delay = 2
    with pytest.raises(AttributeError, match="a Fault is immutable: delay cannot be deleted"):
        del fault.delay
    assert fault != "delay=1"
    assert repr(fault) == "Fault(delay=1.0)"
    assert repr(Fault()) == "Fault()"


def test_it_is_refused_with_what_it_does_not_fit() -> None:
    with pytest.raises(
        ConfigError, match=r"^fault 'duplicate=0.1' duplicates frames, which frame recv"
    ):
        Server(fault="duplicate=0.1")
    Server(fault="duplicate=0.1", frame="line")
    with pytest.raises(ConfigError, match=r"^fault 'duplicate=0.1' duplicates .*, which on_mes"):
        Server(fault="duplicate=0.1", frame="line", on_message=lambda connection, data: None)
    with pytest.raises(ConfigError, match=r"^fault 5 must be a Fault, or text such as delay"):
        Server(fault=5)  # type: ignore[arg-type]


def test_set_fault_changes_nothing_when_it_is_refused() -> None:
    server = Server(fault="silent")
    for wrong in ("nonsense", "duplicate=1"):
        with pytest.raises(ConfigError):
            server.set_fault(wrong)
    assert server.config.fault == Fault(silent=True)
    server.set_fault("deny")
    assert server.config.fault == Fault(deny=True)
    server.set_fault(None)
    assert server.config.fault is None
    with pytest.raises(ConfigError, match="fault 'deny' cannot change"):
        server.set_limits(fault="deny")


def test_flag_variable_and_file_have_it_and_print_it(tmp_path: Path) -> None:
    path = tmp_path / "f.toml"
    path.write_text('fault = "slice=1"\n')
    assert merge({}, {}, str(path)).config.fault == Fault(slice=1)
    variables = {"FASTECHO_FAULT": "delay=20ms"}
    merged = merge({}, variables, str(path))
    assert merged.config.fault == Fault(delay=0.02)
    assert tomllib.loads(format_toml(merged, SETTINGS))["fault"] == "delay=0.02"
    assert merge({"fault": "none"}, variables).config.fault is None


def test_command_refuses_a_wrong_fault() -> None:
    sentence = "--fault: delay '5x' must be a time from 0 to 3600 s, as 50ms"
    assert_refused(run("serve", "--fault=delay=5x"), 2, sentence)
