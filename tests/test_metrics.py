"""Metrics: the exposition against the statistics, probes while the server drains, bad addresses."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from commands import COMMAND, assert_refused, environment, run, serving
from conftest import Join, MakeServer, open_descriptors
from diary import Gate
from peers import (
    connect,
    exchange,
    expect_stats,
    has_ipv6,
    is_turned_away,
    read_to_eof,
    reset,
    wait_until,
)
from test_queues import knocked

import fastecho
from fastecho import Connection

prometheus_client = pytest.importorskip("prometheus_client")
from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

from fastecho.metrics import LONGEST_HEAD, MOST_REQUESTS, Collector, MetricsServer  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
Samples = dict[tuple[str, str], float]


@contextmanager
def exporting(server: fastecho.Server, address: str = "127.0.0.1:0") -> Iterator[MetricsServer]:
    with MetricsServer(address, server) as metrics:
        yield metrics


def ask(address: str, path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
    """Return status, type and body of an answer."""
    if address.startswith("unix:"):
        connection = http.client.HTTPConnection("localhost", timeout=10)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(address.removeprefix("unix:"))
    else:
        connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=10)
    with closing(connection):
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type", ""), answer.read().decode()


def samples_of(text: str) -> Samples:
    """Return each sample by its name and its labels' values."""
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def exported(server: fastecho.Server) -> Samples:
    registry = prometheus_client.CollectorRegistry()
    registry.register(Collector(server))
    return samples_of(prometheus_client.generate_latest(registry).decode())


# The exposition


def test_every_counter_of_the_statistics_is_exported_with_its_value(
    make_server: MakeServer, join: Join
) -> None:
    server = make_server(threads=2, max_connections=3)
    peers = [join(server) for _ in range(3)]
    for peer in peers:
        assert exchange(peer, b"12345") == b"12345"
    assert is_turned_away(server)
    reset(peers[0])
    expect_stats(server, connections_closed=1, shed_max_connections=1)
    found = exported(server)
    for name, value in {
        "connections_accepted_total": 3,
        "connections_open": 2,
        "received_bytes_total": 15,
        "sent_bytes_total": 15,
        "messages_total": 3,
        "pending_bytes": 0,
        "accept_queue_wait_seconds_count": 4,
    }.items():
        assert found[f"fastecho_{name}", ""] == value, name
    assert found["fastecho_connections_ended_total", "error"] == 1
    assert found["fastecho_connections_shed_total", "max_connections"] == 1
    assert found["fastecho_errors_total", "ECONNRESET"] == 1
    assert found["fastecho_accept_queue_limit", f"{server.address},0"] > 0
    assert found["fastecho_accept_queue_drops_total", f"{server.address},0"] == 0
    assert found["fastecho_worker_running_seconds_total", "1"] > 0


def test_nothing_that_the_statistics_count_is_left_out(make_server: MakeServer) -> None:
    """A new counter must have a name here as well."""
    from fastecho.metrics import COUNTERS, WORKER_COUNTERS
    from fastecho.stats import WorkerStats

    others = {
        "bytes_pending", "connections_closed", "connections_open", "errors", "queue_wait",
        "queue_waits",
    }  # fmt: skip
    exported_names = {*COUNTERS, *WORKER_COUNTERS, *others}
    left_out = [
        name
        for name in WorkerStats.__slots__
        if name not in exported_names
        and not name.startswith(("ended_by_", "shed_", "datagrams_refused_"))
    ]
    assert left_out == []


def test_names_and_types_follow_the_conventions(make_server: MakeServer) -> None:
    registry = prometheus_client.CollectorRegistry()
    registry.register(Collector(make_server()))
    text = prometheus_client.generate_latest(registry).decode()
    for family in text_string_to_metric_families(text):
        assert re.fullmatch(r"fastecho_[a-z_]+", family.name)
        assert family.documentation.endswith(".")
        assert not re.search(r"_(ms|us|ns|milliseconds|kib|mib)\b", family.name)
        assert family.type in ("counter", "gauge", "histogram")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_nothing_to_complain_of(make_server: MakeServer, join: Join) -> None:
    server = make_server()
    assert exchange(join(server), b"x") == b"x"
    with exporting(server) as metrics:
        _, _, text = ask(metrics.addresses[0], "/metrics")
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_histogram_adds_up(make_server: MakeServer, join: Join) -> None:
    server = make_server(fault="accept_delay=0.1s")
    peers = [join(server) for _ in range(4)]
    for peer in peers:
        assert exchange(peer, b"x") == b"x"
    found = exported(server)
    buckets = [
        (float(labels), value)
        for (name, labels), value in found.items()
        if name == "fastecho_accept_queue_wait_seconds_bucket"
    ]
    assert [count for _, count in buckets] == sorted(count for _, count in buckets)
    assert dict(buckets)[0.064] == 0
    assert dict(buckets)[float("inf")] == found["fastecho_accept_queue_wait_seconds_count", ""] == 4
    total = found["fastecho_accept_queue_wait_seconds_sum", ""]
    assert total == server.stats().queue_wait >= 4 * 0.08


def test_listeners_are_told_apart(make_server: MakeServer, tmp_path: Path) -> None:
    unix = f"unix:{tmp_path / 'socket'}"
    server = make_server(["127.0.0.1:0", unix], threads=2, reuse_port=True)
    found = exported(server)
    depths = {labels for name, labels in found if name == "fastecho_accept_queue_depth"}
    assert depths == {f"{server.address},0", f"{server.address},1", f"{unix},0"}
    drops = {labels for name, labels in found if name == "fastecho_accept_queue_drops_total"}
    assert drops == {f"{server.address},0", f"{server.address},1"}


def test_the_queue_is_seen_while_the_worker_is_kept(make_server: MakeServer, join: Join) -> None:
    gate = Gate()

    def hold(_: Connection, data: bytes) -> bytes:
        gate.hold()
        return data

    server = make_server(on_message=hold, backlog=1)
    peer = join(server)
    wait_until(lambda: server.stats().connections_open == 1)
    peer.sendall(b"x")
    gate.wait()
    with exporting(server) as metrics, knocked(server.sockets[0], 4):
        _, _, text = ask(metrics.addresses[0], "/metrics")
        gate.open()
    found = samples_of(text)
    assert found["fastecho_accept_queue_depth", f"{server.address},0"] == 2
    assert found["fastecho_accept_queue_drops_total", f"{server.address},0"] >= 2


def test_before_the_start_and_after_the_end_it_can_be_collected(make_server: MakeServer) -> None:
    assert ("fastecho_accept_queue_depth", "") not in exported(fastecho.Server())
    server = make_server()
    server.stop()
    assert exported(server)["fastecho_connections_open", ""] == 0


def test_a_registry_takes_two_servers_apart(make_server: MakeServer) -> None:
    """An embedder gives each a registry of its own, or labels of its own."""
    for server in (make_server(), make_server()):
        assert exported(server)["fastecho_connections_accepted_total", ""] == 0


# Over HTTP


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:0",
        pytest.param("[::1]:0", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6")),
        "unix",
    ],
)
def test_it_answers_over_http(make_server: MakeServer, address: str, tmp_path: Path) -> None:
    server = make_server()
    if address == "unix":
        address = f"unix:{tmp_path / 'metrics'}"
    with exporting(server, address) as metrics:
        (where,) = metrics.addresses
        status, kind, text = ask(where, "/metrics")
        assert (status, kind.partition(";")[0]) == (200, "text/plain")
        found = samples_of(text)
        assert found["fastecho_connections_open", ""] == 0
        assert found["process_open_fds", ""] > 0
        assert ask(where, "/metrics?x=y")[0] == 200
        assert ask(where, "/healthz") == (200, "text/plain; charset=utf-8", "ok\n")
        assert ask(where, "/readyz")[::2] == (200, "ready\n")
        assert ask(where, "/metrics", "HEAD")[::2] == (200, "")
        assert ask(where, "/")[::2] == (404, "there are /metrics, /healthz and /readyz\n")
        assert ask(where, "/metrics", "POST")[0] == 501
        _, kind, text = ask(where, "/metrics", Accept="application/openmetrics-text")
        assert kind.startswith("application/openmetrics-text")
        assert text.endswith("# EOF\n")
    if where.startswith("unix:"):
        assert not Path(where.removeprefix("unix:")).exists()


def raw(address: str, request: bytes) -> bytes:
    """Return all that is answered to these bytes."""
    with connect(address) as peer:
        peer.sendall(request)
        return read_to_eof(peer)


def test_what_others_ask_for_is_answered(make_server: MakeServer) -> None:
    with exporting(make_server()) as metrics:
        (where,) = metrics.addresses
        absolute = f"GET http://{where}/healthz HTTP/1.1\r\nHost: {where}\r\n\r\n".encode()
        assert b" 200 OK\r\n" in raw(where, absolute)
        strange = (
            b"GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text;version=zz\r\n\r\n"
        )
        assert raw(where, strange).split()[1] in (b"200", b"500")
        assert raw(where, b"GET /healthz HTTP/1.0\n\n").endswith(b"ok\n")
        assert raw(where, b"nonsense\r\n\r\n")
        assert raw(where, b"GET /".ljust(LONGEST_HEAD, b"x"))


def test_what_cannot_be_written_is_told(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = make_server()
    with exporting(server) as metrics:
        monkeypatch.setattr(server, "stats", lambda: 1 // 0)
        told = ask(metrics.addresses[0], "/metrics")
        assert told[::2] == (500, "the metrics cannot be written: division by zero\n") or (
            told[0] == 500 and "cannot be written" in told[2]
        )


def test_so_many_requests_are_under_way_and_none_for_longer_than_it_may(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who sends a byte now and then holds its place no longer than who sends none."""
    monkeypatch.setattr("fastecho.metrics.REQUEST_SECONDS", 0.5)
    with exporting(make_server()) as metrics, contextlib.ExitStack() as stack:
        (where,) = metrics.addresses
        slow = [stack.enter_context(connect(where)) for _ in range(3 * MOST_REQUESTS)]
        threads, pause = {len(threading.enumerate())}, threading.Event()
        began = time.monotonic()
        asked = stack.enter_context(ThreadPoolExecutor(1)).submit(ask, where, "/healthz")
        while not asked.done():
            for peer in slow:
                with contextlib.suppress(OSError):
                    peer.sendall(b"G")
            threads.add(len(threading.enumerate()))
            pause.wait(0.02)
        assert asked.result()[0] == 200
        # Its turn comes after three rounds of slow ones.
        assert 1.0 < time.monotonic() - began < 15
        assert max(threads) - min(threads) <= MOST_REQUESTS + 1


def few_descriptors(*command: str) -> list[str]:
    """Return a command that may open 64 descriptors."""
    program = (
        "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    return [sys.executable, "-c", program, *command]


def cpu_seconds(pid: int) -> float:
    """Return how much CPU a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def sockets(pid: int) -> int:
    """Return how many sockets a process has."""
    return sum(what.startswith("socket:") for what in open_descriptors(pid).values())


def test_without_a_descriptor_left_a_scrape_waits_and_nothing_spins(tmp_path: Path) -> None:
    where = f"unix:{tmp_path / 'metrics'}"
    program = few_descriptors(*COMMAND)
    with serving(f"--metrics={where}", program=program) as server, contextlib.ExitStack() as stack:
        # Two listeners, and the pair by which it waits for signals: from there it needs no more.
        wait_until(lambda: sockets(server.process.pid) == 4)
        for _ in range(70):
            with contextlib.suppress(ConnectionError):  # it sheds who finds no descriptor
                stack.enter_context(server.connect())
        scraper = stack.enter_context(connect(where))
        scraper.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        before, began = cpu_seconds(server.process.pid), time.monotonic()
        wait_until(lambda: time.monotonic() - began > 1)
        assert cpu_seconds(server.process.pid) - before < 0.4 * (time.monotonic() - began)
        stack.pop_all().close()
        assert ask(where, "/healthz")[0] == 200
        assert server.end(signal.SIGTERM)[0] == 0


def test_a_path_that_is_no_utf_8_is_escaped(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server(f"unix:{tmp_path}/a\udcff")
    with exporting(server) as metrics:
        code, _, text = ask(metrics.addresses[0], "/metrics")
    assert code == 200
    assert f'listener="unix:{tmp_path}/a\\\\xff"' in text


def test_a_registry_takes_one_server(make_server: MakeServer) -> None:
    registry = prometheus_client.CollectorRegistry()
    registry.register(Collector(make_server()))
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(Collector(make_server()))


def test_a_listener_that_the_kernel_tells_nothing_of_has_no_samples(
    make_server: MakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That unix_diag is refused cannot be provoked here."""

    def refused(inode: int) -> None:
        raise PermissionError

    monkeypatch.setattr("fastecho.diagnose.sock_diag.unix_listener", refused)
    found = exported(make_server(["127.0.0.1:0", f"unix:{tmp_path / 'socket'}"]))
    depths = [labels for name, labels in found if name == "fastecho_accept_queue_depth"]
    assert len(depths) == 1
    assert depths[0].startswith("127.0.0.1:")


def test_readiness_follows_the_server(make_server: MakeServer, join: Join) -> None:
    server = fastecho.Server(drain_idle=20)
    with exporting(server) as metrics:
        (where,) = metrics.addresses
        assert ask(where, "/readyz")[::2] == (503, "not ready\n")
        server.start()
        assert ask(where, "/readyz")[0] == 200
        server.refuse()
        assert ask(where, "/readyz")[0] == 503
        server.admit()
        assert ask(where, "/readyz")[0] == 200
        server.close()
        assert ask(where, "/readyz")[0] == 503
        assert ask(where, "/healthz")[0] == 200
        server.abort()


def test_readiness_ends_with_the_signal_though_it_accepts_still(
    make_server: MakeServer, join: Join
) -> None:
    """A worker that is kept keeps the listener open."""
    gate = Gate()

    def hold(_: Connection, data: bytes) -> bytes:
        gate.hold()
        return data

    server = make_server(on_message=hold)
    with exporting(server) as metrics:
        join(server).sendall(b"x")
        gate.wait()
        ended = threading.Thread(target=server.stop, args=[0])
        ended.start()
        wait_until(lambda: ask(metrics.addresses[0], "/readyz")[0] == 503)
        assert server.is_serving()
        gate.open()
        ended.join(20)


def test_head_has_the_length_of_the_body_and_no_body(make_server: MakeServer) -> None:
    with (
        exporting(make_server()) as metrics,
        connect(metrics.addresses[0].removeprefix("http://")) as peer,
    ):
        peer.sendall(b"HEAD /metrics HTTP/1.0\r\n\r\n")
        head, _, body = read_to_eof(peer).partition(b"\r\n\r\n")
    assert re.search(rb"^Content-Length: [1-9]\d{3}", head, re.M)
    assert body == b""


def test_a_scraper_that_goes_away_or_talks_nonsense_is_nobody_s_trouble(
    make_server: MakeServer, capfd: pytest.CaptureFixture[str]
) -> None:
    server = make_server()
    with exporting(server) as metrics:
        host, _, port = metrics.addresses[0].rpartition(":")
        for data in (b"", b"GET /metrics HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\r\n\r\n"):
            with socket.create_connection((host, int(port))) as peer:
                peer.sendall(data)
                reset(peer)
        assert ask(metrics.addresses[0], "/healthz")[0] == 200
    assert capfd.readouterr().err == ""


# The command


def served_metrics(said: str) -> str:
    found = re.search(r"metrics on (?:http://)?(\S+?)(?:/metrics)?$", said, re.M)
    assert found, said
    return found[1]


def test_serve_exports_until_the_drain_is_over(tmp_path: Path) -> None:
    where = f"unix:{tmp_path / 'metrics'}"
    with serving(f"--metrics={where}", "--drain-idle=20", "--graceful-timeout=20") as server:
        with server.connect() as peer:
            peer.sendall(b"hello")
            assert peer.recv(5) == b"hello"
            assert ask(where, "/readyz")[0] == 200
            assert samples_of(ask(where, "/metrics")[2])["fastecho_received_bytes_total", ""] == 5
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: ask(where, "/readyz")[0] == 503)
            assert ask(where, "/healthz")[0] == 200
        code, said = server.end()
    assert code == 0
    assert f"fastecho: metrics on {where}" in said
    assert not (tmp_path / "metrics").exists()


def test_serve_says_where_and_warns_of_other_machines() -> None:
    with serving("--metrics=0.0.0.0:0") as server:
        code, said = server.end(signal.SIGTERM)
    assert code == 0
    (where,) = [line for line in said if "metrics on http://0.0.0.0:" in line]
    assert where.endswith("/metrics")
    assert any(re.search(r"metrics on 0\.0\.0\.0:\d+ can be reached", line) for line in said)


def test_an_address_that_is_taken_is_told_before_the_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run("serve", "--bind=127.0.0.1:0", f"--metrics={address}")
    assert_refused(done, 4, f"--metrics: cannot listen on {address}: ")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--metrics=9477"], "--metrics '9477'"),
        (["--metrics=localhost:http"], "--metrics 'localhost:http'"),
        (["--metrics=:9477", "--model=epoll"], "--metrics ':9477' is more than --model epoll can"),
        (["--metrics=:9477", "--black-hole"], "--metrics ':9477' cannot be used with --black-hole"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], sentence: str) -> None:
    assert_refused(run("serve", *arguments), 2, sentence)


def test_it_is_among_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text('metrics = "127.0.0.1:9477"\n')
    done = run("serve", f"--config={file}", "--print-config")
    assert re.search(r'^metrics = "127\.0\.0\.1:9477" +# .*serve\.toml', done.stdout, re.M)
    assert re.search(r"^# metrics", run("serve", "--print-config").stdout, re.M)


def test_without_the_extra_it_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from fastecho.cli import main\n"
        "raise SystemExit(main(['serve', '--bind=127.0.0.1:0', '--metrics=127.0.0.1:0']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=20,
        check=False,
    )
    assert_refused(done, 4, "metrics need prometheus-client, which is not installed: pip install")


# The dashboard


def test_the_dashboard_asks_for_metrics_that_there_are(make_server: MakeServer) -> None:
    dashboard = json.loads((ROOT / "deploy" / "grafana-dashboard.json").read_text())
    texts = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    asked = set(re.findall(r"\b(?:fastecho|process)_\w+", " ".join(texts)))
    assert len(texts) >= 10
    server = make_server()
    with exporting(server) as metrics:
        there = {name for name, _ in samples_of(ask(metrics.addresses[0], "/metrics")[2])}
    # Of errors there is no sample before the first one.
    assert asked - there <= {"fastecho_errors_total"}


def test_the_reference_names_every_metric(make_server: MakeServer) -> None:
    text = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    registry = prometheus_client.CollectorRegistry()
    registry.register(Collector(make_server()))
    exposition = prometheus_client.generate_latest(registry).decode()
    for family in text_string_to_metric_families(exposition):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert f"`{name}`" in text
