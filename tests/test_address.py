"""Addresses: every form parses, prints as text that parses back, and wrong ones are named."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastecho.address import Address, format_host_port, is_loopback, parse_bind, parse_target
from fastecho.errors import ConfigError

TEXTS = {
    "127.0.0.1:7777": ("tcp", "127.0.0.1", 7777),
    "localhost:0": ("tcp", "localhost", 0),
    "example.org.:65535": ("tcp", "example.org.", 65535),
    "under_score.local:7": ("tcp", "under_score.local", 7),
    "bücher.example:7": ("tcp", "bücher.example", 7),
    "[::1]:7": ("tcp", "::1", 7),
    "[::]:0": ("tcp", "::", 0),
    "[fe80::1%eth0]:7": ("tcp", "fe80::1%eth0", 7),
    "[::ffff:10.0.0.1]:7": ("tcp", "::ffff:10.0.0.1", 7),
    ":7": ("tcp", "", 7),
    "udp://127.0.0.1:7": ("udp", "127.0.0.1", 7),
    "udp://[::1]:7": ("udp", "::1", 7),
    "udp://:0": ("udp", "", 0),
    "unix:/run/echo.sock": ("unix", "/run/echo.sock"),
    "unix:relative name:7": ("unix", "relative name:7"),
    "fd://3": ("fd", 3),
    "systemd:": ("systemd", ""),
    "systemd:web": ("systemd", "web"),
    "systemd:fastecho.socket": ("systemd", "fastecho.socket"),
}


@pytest.mark.parametrize("text", TEXTS)
def test_a_form_parses_into_its_parts_and_prints_as_itself(text: str) -> None:
    address = parse_bind(text)
    at = (address.host, address.port)
    parts = {"tcp": at, "udp": at, "unix": (address.path,), "fd": (address.fd,)}
    parts["systemd"] = (address.name,)
    assert (address.kind, *parts[address.kind]) == TEXTS[text]
    others = {
        "tcp": (address.path, address.fd),
        "udp": (address.path, address.fd),
        "unix": (address.host, address.port, address.fd),
        "fd": (address.host, address.port, address.path),
        "systemd": (address.host, address.port, address.path, address.fd),
    }
    assert set(others[address.kind]) == {None}
    assert str(address) == text
    assert parse_bind(str(address)) == address


WRONG = {
    "": "is empty",
    "7777": "write 127.0.0.1:7777, or :7777",
    "localhost": "has no port",
    "localhost:": "whole number from 0 to 65535",
    "localhost:http": "whole number from 0 to 65535",
    "localhost:65536": "whole number from 0 to 65535",
    "localhost:-1": "whole number from 0 to 65535",
    "localhost:+7": "whole number from 0 to 65535",
    "localhost: 7": "whole number from 0 to 65535",
    "localhost:7_7": "whole number from 0 to 65535",
    "localhost:\u0667": "whole number from 0 to 65535",
    "localhost:" + "9" * 5000: "whole number from 0 to 65535",
    "::1:7": "without brackets: write [::1]:7",
    "::1": "without brackets and port: write [::1]:PORT",
    "a:b:7": "more than one colon",
    "http://localhost:7": "write HOST:PORT, [IPV6]:PORT, :PORT, udp://HOST:PORT",
    "[]:7": "no valid IPv6 address",
    "[127.0.0.1]:7": "no valid IPv6 address",
    "[::1%]:7": "no valid IPv6 address",
    "[::1% x]:7": "no valid IPv6 address",
    "[::g]:7": "no valid IPv6 address",
    "[::1]": "write [IPV6]:PORT",
    "[::1]7": "write [IPV6]:PORT",
    "[::1:7": "write [IPV6]:PORT",
    "[::1]:": "whole number from 0 to 65535",
    "two words:7": "neither a name nor an address",
    "a..b:7": "neither a name nor an address",
    ".:7": "neither a name nor an address",
    "x" * 64 + ":7": "neither a name nor an address",
    ".".join(["x" * 60] * 5) + ":7": "neither a name nor an address",
    "bell\a:7": "neither a name nor an address",
    "nul\0:7": "neither a name nor an address",
    "\udcff:7": "neither a name nor an address",
    "ü" * 60 + ":7": "neither a name nor an address",
    "user@host:7": "neither a name nor an address",
    "udp://": "is empty",
    "udp://7777": "write 127.0.0.1:7777",
    "udp://localhost:http": "whole number from 0 to 65535",
    "udp://::1:7": "without brackets: write [::1]:7",
    "udp:localhost:7": "write HOST:PORT, [IPV6]:PORT, :PORT, udp://HOST:PORT",
    "UDP://localhost:7": "write HOST:PORT, [IPV6]:PORT, :PORT, udp://HOST:PORT",
    "systemd": "write HOST:PORT, [IPV6]:PORT, :PORT, udp://HOST:PORT",
    "unix:": "has no path",
    "unix:@name": "abstract",
    "unix:/tmp/a\nb": "control character",
    "unix:/tmp/a\0b": "control character",
    "unix:" + "x" * 108: "at most 107",
    "unix:" + "é" * 54: "path of 108 bytes",
    "unix:\ud800": "cannot be encoded",
    "fd:3": "write fd://N",
    "fd://": "write fd://N",
    "fd://-1": "write fd://N",
    "fd://3/": "write fd://N",
    "fd://" + "9" * 5000: "write fd://N",
    "systemd:a:b": "printable ASCII without a colon, at most 255",
    "systemd:\u00e9": "printable ASCII without a colon",
    "systemd:a\nb": "printable ASCII without a colon",
    "systemd:" + "x" * 256: "at most 255",
}


@pytest.mark.parametrize(
    "text", WRONG, ids=[f"{n}-{ascii(text)[1:25]}" for n, text in enumerate(WRONG)]
)
@pytest.mark.parametrize("parse", [parse_bind, parse_target])
def test_a_wrong_form_names_option_and_value_on_one_line(text: str, parse: object) -> None:
    with pytest.raises(ConfigError, match=r"^--bind ") as caught:
        parse(text, "--bind")  # type: ignore[operator]
    error = caught.value
    assert (error.option, error.value) == ("--bind", text)
    assert WRONG[text] in error.reason
    assert str(error).isprintable()
    assert len(str(error)) < 250


def test_its_representation_is_its_text() -> None:
    assert repr(parse_bind("[::1]:7")) == "<Address [::1]:7>"


def test_the_longest_unix_path_is_107_bytes() -> None:
    assert parse_bind("unix:" + "x" * 107).path == "x" * 107


def test_a_unix_path_keeps_bytes_that_are_not_utf8() -> None:
    text = "unix:" + b"/tmp/\xff".decode("utf-8", "surrogateescape")
    assert str(parse_bind(text)) == text


@pytest.mark.parametrize(
    ("pair", "text"), [(("127.0.0.1", 0), "127.0.0.1:0"), (("::1", 7), "[::1]:7"), (("", 7), ":7")]
)
def test_a_pair_is_the_same_as_its_text(pair: tuple[str, int], text: str) -> None:
    assert parse_bind(pair) == parse_bind(text)


@pytest.mark.parametrize(
    "pair",
    [
        ("a",),
        ("a", 1, 2),
        ("a", "1"),
        ("a", True),
        ("a", -1),
        ("a", 65536),
        (None, 1),
        (b"a", 1),
        ("a:b", 1),
        ("a b", 1),
        ("[::1]", 1),
    ],
)
def test_a_wrong_pair_is_refused(pair: tuple[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"^bind "):
        parse_bind(pair)


@pytest.mark.parametrize("value", [None, 7, 7.5, b"127.0.0.1:7", ["127.0.0.1", 7], object])
def test_another_type_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="must be a string or a"):
        parse_bind(value)


def test_an_address_is_taken_as_it_is() -> None:
    address = parse_bind("[::1]:7")
    assert parse_bind(address) is address
    assert parse_target(address) is address


def test_a_target_without_a_host_is_this_machine() -> None:
    assert str(parse_target(":7777")) == "localhost:7777"
    assert str(parse_target(("", 7777))) == "localhost:7777"
    assert str(parse_target("udp://:7777", udp=True)) == "udp://localhost:7777"


def test_a_udp_target_is_only_for_who_can_talk_udp() -> None:
    with pytest.raises(ConfigError, match=r"^address 'udp://localhost:7777' is UDP"):
        parse_target("udp://localhost:7777")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("localhost:0", "port 0"),
        (":0", "port 0"),
        ("fd://3", "descriptor"),
        ("systemd:web", "passed socket to listen on"),
    ],
)
def test_a_target_must_be_reachable(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        parse_target(text)


def test_an_address_cannot_be_changed_and_compares_by_value() -> None:
    address = parse_bind("localhost:7")
    with pytest.raises(AttributeError):
        address.port = 8
    with pytest.raises(AttributeError):
        del address.port
    same, other = parse_bind("localhost:07"), parse_bind("localhost:8")
    assert address == same
    assert hash(address) == hash(same)
    assert address != other
    assert address != "localhost:7"
    assert pickle.loads(pickle.dumps(address)) == address
    assert copy.deepcopy(address) == address
    named = parse_bind("systemd:web")
    assert named != parse_bind("systemd:other")
    assert pickle.loads(pickle.dumps(named)) == named


@pytest.mark.parametrize(
    ("host", "text"), [("127.0.0.1", "127.0.0.1:7"), ("::1", "[::1]:7"), ("", ":7")]
)
def test_only_ipv6_gets_brackets(host: str, text: str) -> None:
    assert format_host_port(host, 7) == text


LOOPBACK = ["127.0.0.1", "127.255.0.9", "::1", "::ffff:127.0.0.1"]
NOT_LOOPBACK = ["0.0.0.0", "10.0.0.1", "::", "::2", "fe80::1%eth0", "::ffff:10.0.0.1", "", "name"]


@pytest.mark.parametrize("host", LOOPBACK + NOT_LOOPBACK)
def test_loopback_is_told_from_what_others_can_reach(host: str) -> None:
    assert is_loopback(host) is (host in LOOPBACK)


@given(st.text(max_size=120) | st.text(":[]%.7af", max_size=20))
def test_any_text_parses_to_something_that_parses_back_or_is_refused(text: str) -> None:
    try:
        address = parse_bind(text)
    except ConfigError:
        return
    assert isinstance(address, Address)
    assert parse_bind(str(address)) == address
