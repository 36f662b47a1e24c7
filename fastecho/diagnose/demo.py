"""Both kernel queues overflowing, on listeners of our own: what `fastecho queues --demo` shows.

Lives here: the experiments, and the lines that tell of them. Does not live here: the rules
(syn_queue.py, verdicts.py), namespaces (netns.py), packets (syn.py).
"""

from __future__ import annotations

import os
import select
import socket
import time

from fastecho.diagnose import netns
from fastecho.diagnose.queues import Watch, look
from fastecho.diagnose.syn import send_syns
from fastecho.diagnose.syn_queue import syn_queue
from fastecho.diagnose.verdicts import verdict

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable

    from fastecho.diagnose.listening import Listening

    Say = Callable[[str], object]

__all__ = ["accept_queue", "run_apart", "syn_queues"]

BACKLOG = 4
CLIENTS = 8
STEP_SECONDS = 0.25
"""From one client to the next: slow enough to be read."""
RETRY_SECONDS = 10.0
"""A client sends its SYN again within this time."""
SILENT = ("10.66.0.0", 16)
"""A network that nobody has; of the namespace alone."""
SYNS = 200
EXPERIMENTS = ((1, 2048, 8), (0, 2048, 8), (0, 64, 128), (2, 2048, 8))
"""tcp_syncookies, tcp_max_syn_backlog, backlog."""


def accept_queue(say: Say) -> None:
    """Fill the accept queue of a listener on 127.0.0.1, overflow it, and accept at last."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    clients = list[socket.socket]()
    watch = Watch()
    try:
        port = listener.getsockname()[1]
        say("1. The accept queue")
        say(f"A program listens on 127.0.0.1:{port} with listen({BACKLOG}), and does not accept.")
        say("")
        say("   clients  connected  accept queue  SYNs dropped")
        for number in range(1, CLIENTS + 1):
            clients.append(_knock(listener))
            time.sleep(STEP_SECONDS)
            one = _look_at(watch, port)
            connected = len(select.select([], clients, [], 0)[1])
            depth = f"{one.depth} of {one.holds}"
            say(f"   {number:7}  {connected:9}  {depth:>12}  {_number(one.drops):>12}")
        one = _look_at(watch, port)
        assert watch.last is not None
        found = verdict(one, watch.seen(one), watch.seconds, watch.last.settings)
        if found is not None:
            say("")
            say(f"fastecho queues says: {found.sentence}")
        _accept_all(listener, clients, say)
    finally:
        for sock in (listener, *clients):
            sock.close()


def _accept_all(listener: socket.socket, clients: list[socket.socket], say: Say) -> None:
    """Accept, and wait for those whose SYN was dropped."""
    waiting = [one for one in clients if not select.select([], [one], [], 0)[1]]
    say("")
    say(
        f"Now the program accepts. {len(waiting)} clients do not know that there is a place: each "
        "hangs until it sends its SYN again."
    )
    accepted = []
    listener.setblocking(False)
    began = time.monotonic()
    try:
        while waiting and time.monotonic() - began < RETRY_SECONDS:
            ready = select.select([listener], waiting, [], 0.1)
            if ready[0]:
                accepted.append(listener.accept()[0])
            for one in ready[1]:
                waiting.remove(one)
                say(f"   a client is connected {time.monotonic() - began:.1f} s later")
    finally:
        for sock in accepted:
            sock.close()


def syn_queues(say: Say) -> None:
    """Fill SYN queues by SYNs that nobody stands behind, in a namespace made for it.

    Leaves the process in that namespace: call it in a process that ends afterwards.

    Raises:
        OSError: namespaces are not allowed, or their settings cannot be written.
    """
    netns.make()
    netns.set_up_loopback(*SILENT)
    say("2. The SYN queue")
    say(
        f"In a network namespace of its own, a listener gets {SYNS} SYNs from an address that "
        "never answers."
    )
    say("")
    say("   tcp_syncookies  tcp_max_syn_backlog  backlog  SYN queue  cookies  dropped")
    rules = []
    for cookies, most, backlog in EXPERIMENTS:
        _write_setting("tcp_syncookies", cookies)
        _write_setting("tcp_max_syn_backlog", most)
        with socket.create_server(("127.0.0.1", 0), backlog=backlog) as listener:
            port = listener.getsockname()[1]
            before = look()
            send_syns(SYNS, SILENT[0].replace("0.0", "0.1"), 1024, ("127.0.0.1", port))
            after = look()
            one = next(found for found in after.listeners if found.port == port)
            rule = syn_queue(one.limit, after.settings)
            sent, dropped = (
                after.counters.get(name, 0) - before.counters.get(name, 0)
                for name in ("cookies_sent", "listen_drops")
            )
            queue = f"{_number(one.handshakes)} of {_number(rule.holds)}"
            say(f"   {cookies:14}  {most:19}  {backlog:7}  {queue:>9}  {sent:7}  {dropped:7}")
            if rule.rule not in rules:
                rules.append(rule.rule)
    say("")
    for text in rules:
        say(text)


def _knock(listener: socket.socket) -> socket.socket:
    """Return a socket that has sent its SYN."""
    sock = socket.socket()
    sock.setblocking(False)
    sock.connect_ex(listener.getsockname())
    return sock


def _look_at(watch: Watch, port: int) -> Listening:
    watch.add(look())
    assert watch.last is not None
    return next(one for one in watch.last.listeners if one.port == port)


def _write_setting(name: str, value: int) -> None:
    with open(f"/proc/sys/net/ipv4/{name}", "w", encoding="ascii") as file:
        file.write(str(value))


def _number(value: int | None) -> str:
    return "?" if value is None else str(value)


def run_apart(experiment: Callable[[Say], None], say: Say) -> OSError | None:
    """Run an experiment in a process of its own; return what it could not do.

    Its lines come through a pipe, so that `say` is called here.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _child(experiment, writer)
    os.close(writer)
    with open(reader, encoding="utf-8") as lines:
        for line in lines:
            say(line.rstrip("\n"))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return None if code == 0 else OSError(abs(code), os.strerror(abs(code)))


def _child(experiment: Callable[[Say], None], writer: int) -> None:
    """Run the experiment and end this process with its errno."""
    code = 1
    try:
        with open(writer, "w", encoding="utf-8") as out:
            experiment(lambda line: print(line, file=out, flush=True))
        code = 0
    except OSError as error:
        code = error.errno or 1
    finally:
        os._exit(code)
