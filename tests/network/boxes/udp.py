"""An honest relay of datagrams, and by --fault a broken one. By rule: the same each time.

    python -m boxes.udp --to 127.0.0.1:7777 --fault loses --every 10

Each peer has a socket of its own towards the server, as a NAT gives it one. Most faults meet one
answer in --every, of those of one peer, or all that are larger than --size:

    loses        it is gone
    doubles      it comes twice
    swaps        it comes after the next one, or when nothing follows for 50 ms
    corrupts     one bit of its last byte is another
    truncates    what is larger than --size is cut to that
    drops_large  what is larger than --size is gone: fragments that are filtered
    drops_empty  a datagram without bytes is gone
    elsewhere    all answers come from another port than the one that was asked
    limits       more than --rate in a second are gone, after --burst
    forgets      an answer that comes --seconds after its peer's last datagram but one is gone
    garbles      every byte of 128 and more becomes a question mark
    mutes        of the peers, one in --every is never answered
    delays       all answers come --ms later
"""

from __future__ import annotations

import argparse
import select
import socket
import sys
import time
from heapq import heappop, heappush

FAULTS = (
    "none", "loses", "doubles", "swaps", "corrupts", "truncates", "drops_large", "drops_empty",
    "elsewhere", "limits", "forgets", "garbles", "mutes", "delays",
)  # fmt: skip
SWAP_SECONDS = 0.05


class Peer:
    """One who sends: its address, its socket towards the server, what it has done so far."""

    def __init__(self, address: tuple[str, int], server: tuple[str, int], number: int) -> None:
        self.address = address
        self.number = number
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.connect(server)
        self.sock.setblocking(False)
        self.answers = 0
        self.held: tuple[float, bytes] | None = None
        self.last = self.before = time.monotonic()


class Relay:
    """The box."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        host, _, port = options.to.rpartition(":")
        self._server = (host, int(port))
        self.sock = self._bound()
        self._other = self._bound()
        self._poller = select.poll()
        self._poller.register(self.sock, select.POLLIN)
        self._peers: dict[tuple[str, int], Peer] = {}
        self._by_fd: dict[int, Peer] = {}
        self._tokens, self._filled = float(options.burst), time.monotonic()
        self._pushed = 0
        self._late: list[tuple[float, int, bytes, Peer]] = []

    def _bound(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        return sock

    def run(self) -> None:
        """Relay for ever."""
        while True:
            for fd, _ in self._poller.poll(5 if self._is_holding() else None):
                if fd == self.sock.fileno():
                    self._outward()
                else:
                    self._inward(self._by_fd[fd])
            self._release()

    def _is_holding(self) -> bool:
        return bool(self._late) or any(one.held for one in self._peers.values())

    def _outward(self) -> None:
        while True:
            try:
                data, address = self.sock.recvfrom(65536)
            except BlockingIOError:
                return
            if address not in self._peers:
                peer = Peer(address, self._server, len(self._peers))
                self._peers[address] = self._by_fd[peer.sock.fileno()] = peer
                self._poller.register(peer.sock, select.POLLIN)
            peer = self._peers[address]
            peer.before, peer.last = peer.last, time.monotonic()
            if self._passes_out(peer):
                peer.sock.send(data)

    def _passes_out(self, peer: Peer) -> bool:
        fault = self._options.fault
        if fault == "limits":
            now = time.monotonic()
            self._tokens += (now - self._filled) * self._options.rate
            self._tokens, self._filled = min(self._tokens, self._options.burst), now
            if self._tokens < 1:
                return False
            self._tokens -= 1
        return not (fault == "mutes" and peer.number % self._options.every == 0)

    def _inward(self, peer: Peer) -> None:
        while True:
            try:
                data = peer.sock.recv(65536)
            except (BlockingIOError, ConnectionRefusedError):
                return
            peer.answers += 1
            self._answer(peer, data)

    def _answer(self, peer: Peer, data: bytes) -> None:
        options, fault = self._options, self._options.fault
        is_met = peer.answers % options.every == 0
        is_large = len(data) > options.size
        if fault == "swaps":
            held, peer.held = peer.held, None
            if is_met and held is None:
                peer.held = (time.monotonic() + SWAP_SECONDS, data)
                return
            self._send(peer, data)
            if held is not None:
                self._send(peer, held[1])
            return
        if fault == "delays":
            due = time.monotonic() + options.ms / 1e3
            self._pushed += 1
            heappush(self._late, (due, self._pushed, data, peer))
            return
        gone = {
            "loses": is_met,
            "drops_large": is_large,
            "drops_empty": not data,
            "forgets": peer.last - peer.before > options.seconds,
        }
        if gone.get(fault):
            return
        if fault == "truncates" and is_large:
            data = data[: options.size]
        if fault == "corrupts" and is_met and data:
            data = data[:-1] + bytes([data[-1] ^ 1])
        if fault == "garbles":
            data = bytes(byte if byte < 128 else 63 for byte in data)
        self._send(peer, data)
        if fault == "doubles" and is_met:
            self._send(peer, data)

    def _send(self, peer: Peer, data: bytes) -> None:
        sock = self._other if self._options.fault == "elsewhere" else self.sock
        sock.sendto(data, peer.address)

    def _release(self) -> None:
        now = time.monotonic()
        while self._late and self._late[0][0] <= now:
            _, _, data, peer = heappop(self._late)
            self._send(peer, data)
        for peer in self._peers.values():
            if peer.held is not None and peer.held[0] <= now:
                (_, data), peer.held = peer.held, None
                self._send(peer, data)


def main() -> None:
    """Relay until the process ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", required=True, metavar="HOST:PORT")
    parser.add_argument("--fault", choices=FAULTS, default="none")
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--size", type=int, default=1200)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--burst", type=float, default=20.0)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--ms", type=float, default=20.0)
    relay = Relay(parser.parse_args())
    host, port = relay.sock.getsockname()
    print(f"{host}:{port}", flush=True)
    relay.run()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
