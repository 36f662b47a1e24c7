"""The SYN queue's rule, in a network namespace, with SYNs from an address that never answers."""

from __future__ import annotations

import subprocess
import sys

import pytest
from namespaces import can_unshare

from fastecho.diagnose.syn import _checksum
from fastecho.diagnose.syn_queue import syn_queue

EXPERIMENT = """
import socket, sys
from fastecho.diagnose import netns, queues, syn
from fastecho.diagnose.syn_queue import syn_queue

cookies, most, backlog = map(int, sys.argv[1:])
netns.make()
netns.set_up_loopback("10.66.0.0", 16)
for name, value in (("tcp_syncookies", cookies), ("tcp_max_syn_backlog", most)):
    with open(f"/proc/sys/net/ipv4/{name}", "w") as file:
        file.write(str(value))
with socket.create_server(("0.0.0.0", 0), backlog=backlog) as listener:
    port = listener.getsockname()[1]
    before = queues.look()
    syn.send_syns(300, "10.66.0.1", 1024, ("127.0.0.1", port))
    watch = queues.Watch()
    watch.add(queues.look())
    (one,) = [one for one in watch.last.listeners if one.port == port]
    after = watch.last.counters
    rule = syn_queue(one.limit, watch.last.settings)
    sent = after["cookies_sent"] - before.counters["cookies_sent"]
    from fastecho.diagnose.verdicts import verdict
    found = verdict(one, watch.seen(one), 1.0, watch.last.settings)
print(one.handshakes, rule.holds, rule.beyond, sent, one.drops, found.kind if found else None)
"""
SYNS = 300


needs_net = pytest.mark.skipif(
    not can_unshare("--net") and not can_unshare("--user", "--net"),
    reason="needs a network namespace",
)


def experiment(cookies: int, most: int, backlog: int) -> list[str]:
    """Return the words that the experiment prints."""
    command = [sys.executable, "-c", EXPERIMENT, str(cookies), str(most), str(backlog)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@needs_net
@pytest.mark.parametrize("cookies", [0, 1, 2])
@pytest.mark.parametrize("most", [64, 256, 2048])
@pytest.mark.parametrize("backlog", [0, 5, 128])
def test_the_queue_holds_what_the_rule_says(cookies: int, most: int, backlog: int) -> None:
    handshakes, holds, beyond, sent, drops, kind = experiment(cookies, most, backlog)
    assert handshakes == holds
    over = str(SYNS - int(holds))
    assert (beyond, sent, drops) == (("drop", "0", over) if cookies == 0 else ("cookie", over, "0"))
    assert kind == ("None" if cookies == 2 else "syn_queue_full")


@needs_net
def test_a_setting_above_two_is_as_one() -> None:
    found = experiment(3, 64, 5)
    assert found == experiment(1, 64, 5)
    assert found[2] == "cookie"


def settings(cookies: int, most: int = 2048) -> dict[str, int]:
    return {"tcp_syncookies": cookies, "tcp_max_syn_backlog": most, "somaxconn": 4096}


@pytest.mark.parametrize(
    ("release", "holds"),
    [
        ("6.18.44", 129),
        ("6.14.0-rc1", 129),
        ("6.13.7", 128),
        ("5.15.0-91-generic", 128),
        ("7.0", 129),
    ],
)
def test_before_linux_6_14_it_holds_one_less(release: str, holds: int) -> None:
    assert syn_queue(128, settings(1), release).holds == holds


def test_what_cannot_be_read_is_not_guessed() -> None:
    assert syn_queue(128, {}, "6.18.0").holds is None
    assert syn_queue(None, settings(1), "6.18.0").holds is None
    assert syn_queue(128, {"tcp_syncookies": 0}, "6.18.0").holds is None


def test_the_rule_names_the_setting_that_is_in_force() -> None:
    rule = syn_queue(128, settings(3), "6.18.0")
    assert (rule.holds, rule.beyond) == (129, "cookie")
    assert rule.rule.startswith("tcp_syncookies = 3: ")


@pytest.mark.parametrize(
    ("words", "checksum"),
    [
        ("0001 f203 f4f5 f6f7", 0x220D),  # the example of RFC 1071
        ("ffff ffff 0001", 0xFFFE),  # the sum of the halves carries once more
    ],
)
def test_a_syn_s_checksum_carries_as_often_as_it_must(words: str, checksum: int) -> None:
    assert _checksum(bytes.fromhex(words)) == checksum
