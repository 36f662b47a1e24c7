"""Configuration: one table of limits, four sources in order, and an error that names the source."""

from __future__ import annotations

import inspect
import math
import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastecho.address import parse_bind
from fastecho.config import Config, format_toml, merge
from fastecho.errors import ConfigError
from fastecho.networks import parse_networks
from fastecho.setting import Setting
from fastecho.settings import SETTINGS


def values(config: Config) -> dict[str, object]:
    return config.keywords()


def write(tmp_path: Path, text: str | bytes) -> str:
    file = tmp_path / "fastecho.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(file)


# --- the table and Config ---------------------------------------------------------------------


def test_the_table_and_the_keywords_agree() -> None:
    parameters = list(inspect.signature(Config).parameters.values())
    assert [p.name for p in parameters] == [s.name for s in SETTINGS]
    assert [p.default for p in parameters] == [s.default for s in SETTINGS]
    assert list(values(Config())) == [s.name for s in SETTINGS]


def test_the_defaults() -> None:
    assert values(Config()) == {
        "bind": (parse_bind("127.0.0.1:0"),),
        "threads": 1,
        "backlog": None,
        "reuse_port": False,
        "service": "echo",
        "frame": "recv",
        "prefix": b"",
        "suffix": b"",
        "max_frame": 65536,
        "high_water": 262144,
        "low_water": 65536,
        "max_connections": None,
        "at_limit": "reset",
        "max_per_ip": None,
        "ipv6_prefix": 64,
        "accept_rate": None,
        "udp_rate": 1000,
        "udp_guards": True,
        "first_byte_timeout": None,
        "idle_timeout": None,
        "proxy_protocol": "off",
        "proxy_trusted": parse_networks("127.0.0.0/8,::1", ""),
        "proxy_timeout": 5.0,
        "identify": False,
        "instance": None,
        "user_timeout": None,
        "keepalive": None,
        "send_buffer": None,
        "receive_buffer": None,
        "graceful_timeout": 30.0,
        "drain_delay": 0.0,
        "drain_idle": 1.0,
        "spin_us": 0,
        "access_log": False,
        "access_log_sample": 1,
        "access_log_rate": None,
        "log_format": "text",
        "fault": None,
    }


def test_water_marks_left_out_follow_the_high_one() -> None:
    config = Config(high_water=1000)
    assert (config.low_water, config.max_frame) == (250, 1000)
    smallest = Config(high_water=1)
    assert (smallest.low_water, smallest.max_frame) == (0, 1)
    largest = Config(high_water=2**30)
    assert (largest.low_water, largest.max_frame) == (2**28, 65536)


def test_the_keywords_of_a_config_make_the_same_config() -> None:
    config = Config([":0", "unix:x"], threads=3, prefix=b"\xff", idle_timeout=2, high_water=99)
    again = Config(**config.keywords())
    assert again == config
    assert hash(again) == hash(config)
    assert config != Config()
    assert config != "something else"


def test_its_representation_tells_every_setting() -> None:
    config = Config("127.0.0.1:7", threads=3, prefix=b"\xff")
    assert repr(config).startswith("Config(bind=")
    assert all(f" {name}=" in repr(config) for name in list(config.keywords())[1:])
    assert "127.0.0.1:7" in repr(config)
    assert " threads=3, " in repr(config)


def test_a_config_cannot_be_changed() -> None:
    config = Config()
    with pytest.raises(AttributeError):
        config.threads = 2
    with pytest.raises(AttributeError):
        del config.threads


@pytest.mark.parametrize(
    ("bind", "texts"),
    [
        ("localhost:7", ["localhost:7"]),
        (("127.0.0.1", 0), ["127.0.0.1:0"]),
        (["127.0.0.1:0", ("::1", 7)], ["127.0.0.1:0", "[::1]:7"]),
        (("a:1", "b:2"), ["a:1", "b:2"]),
        (parse_bind("unix:x"), ["unix:x"]),
        (["127.0.0.1:0", "127.0.0.1:0"], ["127.0.0.1:0", "127.0.0.1:0"]),
    ],
)
def test_bind_takes_one_address_or_several(bind: str, texts: list[str]) -> None:
    assert [str(address) for address in Config(bind).bind] == texts


def test_prefix_takes_bytes_of_any_kind_and_text_as_utf8() -> None:
    assert Config(prefix="收到: ").prefix == "收到: ".encode()
    assert Config(prefix=b"\x00\xff").prefix == b"\x00\xff"
    assert Config(prefix=bytearray(b"ab")).prefix == b"ab"
    assert Config(prefix=memoryview(b"ab")).prefix == b"ab"
    assert len(Config(prefix=b"x" * 4096).prefix) == 4096


WRONG: list[tuple[str, object, str]] = [
    ("bind", [], "names no address"),
    ("bind", None, "an address or a list"),
    ("bind", {"127.0.0.1:7"}, "an address or a list"),
    ("bind", ["a:1", "a:01"], "is given twice"),
    ("bind", ["unix:x", "unix:x"], "is given twice"),
    ("bind", ["fd://3", "fd://3"], "is given twice"),
    ("bind", "::1:7", "without brackets"),
    ("threads", 0, "from 1 to 1024"),
    ("threads", 1025, "from 1 to 1024"),
    ("threads", None, "from 1 to 1024"),
    ("threads", True, "from 1 to 1024"),
    ("threads", 2.0, "from 1 to 1024"),
    ("threads", "2", "from 1 to 1024"),
    ("threads", 10**5000, "from 1 to 1024"),
    ("backlog", -1, "from 0 to 2147483647, or none"),
    ("backlog", 2**31, "from 0 to 2147483647, or none"),
    ("reuse_port", 1, "true or false"),
    ("reuse_port", None, "true or false"),
    ("frame", "lines", "one of recv, line, length"),
    ("frame", None, "one of recv, line, length"),
    ("frame", ["recv"], "one of recv, line, length"),
    ("prefix", b"x" * 4097, "has 4097 bytes: at most 4096"),
    ("prefix", "é" * 2049, "has 4098 bytes: at most 4096"),
    ("prefix", None, "text or bytes"),
    ("prefix", 5, "text or bytes"),
    ("prefix", [256], "text or bytes"),
    ("prefix", ["a"], "text or bytes"),
    ("prefix", "\ud800", "UTF-8"),
    ("suffix", b"x" * 4097, "has 4097 bytes: at most 4096"),
    ("max_frame", 0, "from 1 to 1073741824"),
    ("max_frame", 262145, "is above high_water 262144"),
    ("high_water", 0, "from 1 to 1073741824"),
    ("high_water", 2**30 + 1, "from 1 to 1073741824"),
    ("low_water", -1, "from 0 to 1073741824, or none"),
    ("low_water", 262144, "is not below high_water 262144"),
    ("max_connections", 0, "from 1 to 2147483647, or none"),
    ("idle_timeout", 0, "seconds from 0.001 to 1000000, or none"),
    ("idle_timeout", -1.0, "seconds from 0.001 to 1000000, or none"),
    ("idle_timeout", math.nan, "seconds from 0.001 to 1000000, or none"),
    ("idle_timeout", math.inf, "seconds from 0.001 to 1000000, or none"),
    ("idle_timeout", 10**400, "seconds from 0.001 to 1000000, or none"),
    ("idle_timeout", True, "seconds from 0.001 to 1000000, or none"),
    ("idle_timeout", "5", "seconds from 0.001 to 1000000, or none"),
    ("graceful_timeout", -0.5, "seconds from 0 to 1000000"),
    ("graceful_timeout", None, "seconds from 0 to 1000000"),
    ("drain_idle", -math.inf, "seconds from 0 to 1000000"),
    ("spin_us", -1, "from 0 to 100000"),
    ("spin_us", 0.5, "from 0 to 100000"),
    ("access_log", 1, "true or false"),
    ("access_log_sample", 0, "from 1 to 2147483647"),
    ("access_log_rate", 0, "from 1 to 1000000000"),
    ("log_format", "xml", "one of text, json"),
]


@pytest.mark.parametrize(
    ("name", "value", "reason"), WRONG, ids=[f"{n}-{row[0]}" for n, row in enumerate(WRONG)]
)
def test_a_wrong_value_is_refused_by_name(name: str, value: object, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**{name: value})  # type: ignore[arg-type]
    assert caught.value.option == name
    assert reason in caught.value.reason
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 250
    assert isinstance(caught.value, ValueError)


NUMBERS = [setting for setting in SETTINGS if setting.kind in ("whole", "seconds")]


@pytest.mark.parametrize("setting", NUMBERS, ids=lambda setting: setting.name)
def test_the_limits_of_a_number_are_allowed_and_what_lies_beyond_is_not(setting: Setting) -> None:
    step = 1 if setting.kind == "whole" else 1e-6
    for value in (setting.low, setting.high):
        number = int(value) if setting.kind == "whole" else value
        assert setting.check(number, "x") == number
    for value in (setting.low - step, setting.high + step):
        number = int(value) if setting.kind == "whole" else value
        with pytest.raises(ConfigError):
            setting.check(number, "x")


# --- sources and their order ------------------------------------------------------------------


def test_flags_win_over_variables_those_over_the_file_those_over_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, "threads = 2\nspin_us = 2\nbacklog = 2\nhigh_water = 99999\n")
    environ = {"FASTECHO_THREADS": "3", "FASTECHO_SPIN_US": "3", "FASTECHO_BACKLOG": "3"}
    merged = merge(
        {"threads": "4", "spin_us": None},
        {**environ, "FASTECHO_BACKLOG": ""},
        path,
        defaults={"drain_idle": 0.5, "backlog": 1, "threads": 1},
    )
    config = merged.config
    assert (config.threads, config.spin_us, config.backlog) == (4, 3, 2)
    assert (config.high_water, config.drain_idle, config.graceful_timeout) == (99999, 0.5, 30.0)
    sources = merged.sources
    assert sources["threads"] == "--threads"
    assert sources["spin_us"] == "FASTECHO_SPIN_US"
    assert sources["backlog"] == path  # an empty variable counts as not set
    assert sources["drain_idle"] == sources["graceful_timeout"] == "default"


TEXT_VALUES: list[tuple[str, str, object]] = [
    ("bind", "127.0.0.1:7,unix:a b", (parse_bind("127.0.0.1:7"), parse_bind("unix:a b"))),
    ("threads", "007", 7),
    ("backlog", "none", None),
    ("backlog", "0", 0),
    ("reuse_port", "Yes", True),
    ("reuse_port", "0", False),
    ("frame", "length", "length"),
    ("prefix", "收到: ", "收到: ".encode()),
    ("prefix", b"\xff\xfe".decode("utf-8", "surrogateescape"), b"\xff\xfe"),
    ("suffix", "none", b"none"),
    ("max_connections", "NONE", None),
    ("idle_timeout", "0.25", 0.25),
    ("idle_timeout", "none", None),
    ("graceful_timeout", "1e3", 1000.0),
]


@pytest.mark.parametrize(("name", "text", "value"), TEXT_VALUES)
def test_text_is_read_alike_from_a_flag_and_a_variable(name: str, text: str, value: object) -> None:
    variable = "FASTECHO_" + name.upper()
    assert merge({}, {variable: text}).values[name] == value
    if name not in ("bind", "reuse_port"):  # their flags are a list and a switch
        assert merge({name: text}, {}).values[name] == value


WRONG_TEXTS = [
    ("bind", "127.0.0.1:7,", "is empty"),
    ("threads", "two", "whole number"),
    ("threads", "2.0", "whole number"),
    ("threads", "1_0", "whole number"),
    ("threads", " 2", "whole number"),
    ("threads", "+2", "whole number"),
    ("threads", "none", "whole number"),
    ("threads", "9" * 5000, "whole number"),
    ("backlog", "-1", "whole number"),
    ("reuse_port", "maybe", "yes or no"),
    ("frame", "LINE", "one of recv, line, length"),
    ("idle_timeout", "nan", "seconds"),
    ("idle_timeout", "inf", "seconds"),
    ("idle_timeout", "-1", "seconds"),
    ("idle_timeout", "5s", "seconds"),
    ("idle_timeout", "1_0", "seconds"),
]


@pytest.mark.parametrize(("name", "text", "reason"), WRONG_TEXTS, ids=lambda one: one[:20])
def test_wrong_text_is_refused_as_it_was_written(name: str, text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        merge({}, {"FASTECHO_" + name.upper(): text})
    assert caught.value.option == "FASTECHO_" + name.upper()
    if name != "bind":
        assert caught.value.value == text
        with pytest.raises(ConfigError, match=reason) as caught:
            merge({name: text}, {})
        assert caught.value.option == "--" + name.replace("_", "-")


def test_values_that_do_not_fit_together_name_both_sources(tmp_path: Path) -> None:
    path = write(tmp_path, "high_water = 1000\n")
    with pytest.raises(ConfigError) as caught:
        merge({"max_frame": "2000"}, {}, path)
    assert str(caught.value) == f"--max-frame 2000 is above {path}: high_water 1000"
    with pytest.raises(ConfigError) as caught:
        merge({}, {"FASTECHO_LOW_WATER": "300000"})
    assert str(caught.value) == (
        "FASTECHO_LOW_WATER 300000 is not below the default high_water 262144"
    )


def test_a_variable_of_no_setting_is_left_alone() -> None:
    """Cluster managers set FASTECHO_PORT for a service that is called fastecho."""
    environ = {"FASTECHO_PORT": "tcp://10.0.0.1:7", "FASTECHO_SERVICE_HOST": "10.0.0.1"}
    assert merge({}, environ).config == Config()


def test_a_setting_of_the_command_is_merged_but_no_part_of_the_config() -> None:
    extra = Setting("loud", "switch", False, "")
    merged = merge({}, {"FASTECHO_LOUD": "on"}, extra=[extra])
    assert merged.values["loud"] is True
    assert "loud" not in merged.config.keywords()


# --- the file ---------------------------------------------------------------------------------


def test_a_file_carries_every_kind_of_value(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        'bind = ["127.0.0.1:0", "[::1]:0"]\nthreads = 2\nreuse_port = true\nframe = "line"\n'
        'prefix = "收到: "\nsuffix = [255, 0]\nidle_timeout = 3\ngraceful_timeout = 0.5\n',
    )
    config = merge({}, {}, path).config
    assert config == Config(
        ["127.0.0.1:0", "[::1]:0"], threads=2, reuse_port=True, frame="line", prefix="收到: ",
        suffix=b"\xff\x00", idle_timeout=3.0, graceful_timeout=0.5,
    )  # fmt: skip
    assert type(config.idle_timeout) is float
    assert merge({}, {}, write(tmp_path, 'bind = ":7"')).config.bind == (parse_bind(":7"),)


WRONG_FILES: list[tuple[str | bytes, str]] = [
    ("max-frame = 1", "{path}: key 'max-frame' is not a setting: did you mean max_frame?"),
    ("thread = 1", "{path}: key 'thread' is not a setting: did you mean threads?"),
    ("[server]\nthreads = 1", "{path}: key 'server' is not a setting: did you mean service?"),
    ('threads = "2"', "{path}: threads '2' must be a whole number from 1 to 1024"),
    ("threads = 2.0", "{path}: threads 2.0 must be a whole number"),
    ("threads = true", "{path}: threads True must be a whole number"),
    ("threads = 1979-05-27", "{path}: threads datetime.date(1979, 5, 27) must be a whole"),
    ("bind = 7777", "{path}: bind 7777 must be an address or a list of addresses"),
    ("bind = [7777]", "{path}: bind 7777 must be a string or a (host, port) pair"),
    ('bind = ["127.0.0.1", 7777]', "{path}: bind '127.0.0.1' has no port"),
    ('reuse_port = "yes"', "{path}: reuse_port 'yes' must be true or false"),
    ("idle_timeout = nan", "{path}: idle_timeout nan must be seconds"),
    ("prefix = [256]", "{path}: prefix [256] must be text or bytes"),
    ("threads = ", "--config '{path}' is not valid TOML: "),
    ("threads = 1\nthreads = 2", "--config '{path}' is not valid TOML: "),
    ("threads = " + "9" * 5000, "--config '{path}' is not valid TOML: "),
    ("x = " + "[" * 5000, "--config '{path}' is not valid TOML: "),
    (b"prefix = '\xff'", "--config '{path}' is not UTF-8 at byte 10"),
    (b"#" * 2**20 + b"#", "--config '{path}' has more than 1048576 bytes"),
]


@pytest.mark.parametrize(
    ("text", "message"), WRONG_FILES, ids=[f"{n}" for n in range(len(WRONG_FILES))]
)
def test_a_wrong_file_is_refused(
    text: str | bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        merge({}, {}, "fastecho.toml")
    assert str(caught.value).startswith(message.format(path="fastecho.toml"))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("path", ["missing.toml", ".", "a\0b"])
def test_a_file_that_cannot_be_read_is_refused(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        merge({}, {}, path)
    assert caught.value.option == "--config"
    assert str(caught.value).isprintable()


# --- --print-config ---------------------------------------------------------------------------


def test_the_printed_configuration_names_each_source() -> None:
    merged = merge({"threads": "2"}, {"FASTECHO_FRAME": "line"})
    lines = format_toml(merged, SETTINGS).splitlines()
    assert len(lines) == len(SETTINGS)
    assert "threads = 2  # --threads" in lines
    assert 'frame = "line"  # FASTECHO_FRAME' in lines
    assert 'bind = ["127.0.0.1:0"]  # default' in lines
    assert "# idle_timeout is not set: no limit  # default" in lines


@given(
    prefix=st.binary(max_size=50) | st.text(st.characters(codec="utf-8"), max_size=50),
    suffix=st.binary(max_size=50),
    bind=st.sampled_from(["127.0.0.1:0", ":7", "[::1]:7", 'unix:/tmp/"quoted\\ 收']),
    idle=st.none() | st.floats(0.001, 1e6),
    spin=st.integers(0, 100_000),
    reuse=st.booleans(),
)
def test_the_printed_configuration_reads_back_to_the_same(
    prefix: bytes | str, suffix: bytes, bind: str, idle: float | None, spin: int, reuse: bool
) -> None:
    flags = {
        "prefix": prefix, "suffix": suffix, "bind": [bind], "idle_timeout": idle, "spin_us": spin,
        "reuse_port": reuse,
    }  # fmt: skip
    merged = merge(flags, {})
    table = tomllib.loads(format_toml(merged, SETTINGS))
    for setting in SETTINGS:
        if setting.name in table:
            assert setting.check(table[setting.name], "x") == merged.values[setting.name]
        else:
            assert merged.values[setting.name] is None


def test_what_is_limited_by_default_can_be_without_a_limit_in_a_file(tmp_path: Path) -> None:
    printed = format_toml(merge({"udp_rate": None, "bind": ["udp://:0"]}, {}), SETTINGS)
    assert "udp_rate = 1000  # default" in printed
    merged = merge({"udp_rate": "none", "bind": ["udp://:0"]}, {})
    path = tmp_path / "fastecho.toml"
    path.write_text(format_toml(merged, SETTINGS))
    again = merge({}, {}, os.fspath(path))
    assert again.config.udp_rate is merged.config.udp_rate is None
    path.write_text('user_timeout = "none"\nspin_us = "none"\n')
    with pytest.raises(ConfigError, match="spin_us"):
        merge({}, {}, os.fspath(path))


def test_a_source_with_a_newline_in_its_name_cannot_add_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a\nthreads = 9\n#.toml"
    path.write_text("spin_us = 7")
    merged = merge({}, {}, os.fspath(path))
    assert tomllib.loads(format_toml(merged, SETTINGS))["threads"] == 1
