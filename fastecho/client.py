"""The blocking client: one stream connection to an echo server, or to any other peer.

What lives here: trying every address of a name in turn, sending, receiving through one buffer,
and the exchange that sends and receives at the same time. It is pure Python over the standard
library and works where the compiled core does not. What may not live here: looking up and
connecting to one address (dial.py), event loops, threads, and anything about servers, terminals
or measurements.

The socket is non-blocking. Each call tries first and waits with poll(2) only when the kernel says
that there is nothing to do, until the call's own deadline. What a call has received and not given
back (after a timeout, or behind the end of a line) stays in the buffer for the next call.
"""

from __future__ import annotations

import errno
import select
import socket
from time import monotonic

from .address import Address, parse_target
from .dial import connect, connect_error, resolve, text_of
from .errors import ConfigError

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["Client"]

RECV_BYTES = 262144
"""At most so many bytes from one recv(2): larger ones were no faster on loopback."""

LINE_BYTES = 1048576
"""Longest line of recv_line: 15 times the largest frame that a server sends by default."""

POLL_SECONDS = 3600.0
"""Longest single wait; a longer timeout is waited for in parts (poll takes 2**31 ms)."""


class Client:
    """Connect to an echo server and exchange bytes with it, blocking.

    Use it in tests and scripts; it leaves by close() at the end of a `with` block.

    Args:
        address: HOST:PORT, [V6]:PORT, :PORT (this machine), unix:PATH, a (host, port) pair. All
            addresses of a name are tried in the order of getaddrinfo(3).
        timeout: seconds for each call, the connection included, float > 0; None waits for ever.
            The lookup of a name has no deadline. Several addresses share the time fairly.
    Raises:
        ConfigError: the address or the timeout has no valid form.
        OSError: errno of the last address tried; the text names every address and its reason
            (ConnectionRefusedError, TimeoutError; socket.gaierror for an unknown name).
    Thread: one thread may send while another receives; two must not do the same. echo() does
        both. close() only when no other thread is in a call.
    Cost: one connection, no thread, no descriptor but the socket's.
    Source: connect(2), getaddrinfo(3); TCP_NODELAY is always set, as on the server's side.
    """

    __slots__ = ("_buffer", "_local", "_peer", "_scanned", "_socket", "_timeout")

    def __init__(
        self, address: str | tuple[str, int] | Address, timeout: float | None = None
    ) -> None:
        self._timeout = checked_timeout(timeout)
        # Bytes received and not given back yet.
        self._buffer = bytearray()
        # So many bytes of the buffer hold no newline: recv_line looks at each byte once.
        self._scanned = 0
        self._socket, self._peer = _connect(stream_target(address), self._timeout)
        self._local = text_of(self._socket.family, self._socket.getsockname())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed, " if self._socket.fileno() < 0 else ""
        return f"<Client {state}from {self._local} to {self._peer}>"

    @property
    def timeout(self) -> float | None:
        """Seconds that each call may take, or None; may be set, calls under way keep theirs."""
        return self._timeout

    @timeout.setter
    def timeout(self, value: float | None) -> None:
        self._timeout = checked_timeout(value)

    @property
    def local_address(self) -> str:
        """The numeric address of our end, in the form that the constructor takes."""
        return self._local

    @property
    def peer_address(self) -> str:
        """The numeric address that was reached, in the form that the constructor takes."""
        return self._peer

    def fileno(self) -> int:
        """Return the socket's descriptor, for select(2) and the like; -1 once closed.

        The socket is non-blocking and stays ours. Bytes that already stand in the buffer do not
        make the descriptor readable: only recv_line leaves such bytes after success.
        """
        return self._socket.fileno()

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Send all of the data.

        It does not read. A peer that echoes stops reading once nobody reads from it: for more
        than a few 100 KiB use echo(), or receive in another thread.

        Args:
            data: bytes-like, contiguous; borrowed for the call.
        Returns:
            int: the bytes sent, always all of them.
        Raises:
            TimeoutError: not all could be sent in time; the text tells how much was.
            OSError: errno kept (EPIPE, ECONNRESET; EBADF once closed).
        Thread: one sender at a time.   Cost: O(n), one send(2) for each buffer's worth.
        Source: send(2).
        """
        view = flat(data)
        deadline = self._deadline()
        sent = 0
        while sent < len(view):
            taken = self._send_some(view[sent:])
            sent += taken
            if not taken and not any(_wait(self._socket, deadline, write=True)):
                raise self._too_late(f"took {sent} of {len(view)} bytes")
        return sent

    def recv(self, n: int) -> bytes:
        """Receive what is there, at most n bytes; wait if there is nothing.

        Args:
            n: bytes, at least 1.
        Returns:
            bytes: 1..n bytes; b"" once the peer has closed and all has been received.
        Raises:
            ValueError: n is below 1.
            TimeoutError: nothing came in time.
            OSError: errno kept (ECONNRESET; EBADF once closed).
        Thread: one receiver at a time.   Cost: one recv(2), at most 256 KiB.
        Source: recv(2).
        """
        if n < 1:
            raise ValueError(f"recv needs room for at least 1 byte, not {n}")
        if not self._buffer:
            self._fill(min(n, RECV_BYTES), self._deadline(), "sent nothing")
        return self._take(n)

    def recv_exactly(self, n: int) -> bytes:
        """Receive exactly n bytes.

        Args:
            n: bytes, 0 or more.
        Returns:
            bytes: n bytes. After an error the bytes that came are still there to be received.
        Raises:
            ValueError: n is negative.
            EOFError: the peer closed before the n-th byte; the text tells how many came.
            TimeoutError: fewer came in time; the text tells how many.
            OSError: errno kept (ECONNRESET; EBADF once closed).
        Thread: one receiver at a time.   Cost: O(n).
        Source: recv(2) with MSG_WAITALL, but with a deadline and without losing bytes.
        """
        if n < 0:
            raise ValueError(f"recv_exactly needs 0 bytes or more, not {n}")
        deadline = self._deadline()
        while (missing := n - len(self._buffer)) > 0:
            state = f"sent {len(self._buffer)} of {n} bytes"
            if not self._fill(min(missing, RECV_BYTES), deadline, state):
                raise EOFError(f"{self._peer} {state}, then closed")
        return self._take(n)

    def recv_line(self) -> bytes:
        """Receive one line with its newline.

        Returns:
            bytes: up to and with the first newline; at the end of the stream the rest, which has
            none, and then b"". After an error the bytes that came are still there.
        Raises:
            TimeoutError: no newline came in time; the text tells how many bytes did.
            OSError: EMSGSIZE when 1 MiB came without a newline (recv() still gives it); else
                errno kept (ECONNRESET; EBADF once closed).
        Thread: one receiver at a time.   Cost: O(n), each byte is looked at once.
        Source: the frame `line` of the server: CRLF is kept as it is.
        """
        deadline = self._deadline()
        while (end := self._buffer.find(b"\n", self._scanned, LINE_BYTES) + 1) == 0:
            size = len(self._buffer)
            if size >= LINE_BYTES:
                raise OSError(
                    errno.EMSGSIZE, f"{self._peer} sent {LINE_BYTES} bytes without a newline"
                )
            self._scanned = size
            if not self._fill(RECV_BYTES, deadline, f"sent {size} bytes without a newline"):
                return self._take(size)
        return self._take(end)

    def echo(self, data: bytes | bytearray | memoryview) -> bytes:
        """Send the data and receive as many bytes, at the same time.

        So data of any size comes back from a server that echoes, however small the buffers
        between. Whether the right bytes came back is the caller's to compare.

        Args:
            data: bytes-like, contiguous; borrowed for the call.
        Returns:
            bytes: exactly len(data) bytes, whatever the peer sent.
        Raises:
            EOFError: the peer closed before that; the text tells how many bytes came.
            TimeoutError: fewer came in time; the text tells how many.
            OSError: errno kept (EPIPE, ECONNRESET; EBADF once closed).
            After an error the exchange is out of step: close the client.
        Thread: no other thread may send or receive meanwhile.   Cost: O(n) time and memory.
        Source: RFC 862.
        """
        view = flat(data)
        size = len(view)
        deadline = self._deadline()
        sent = self._send_some(view)
        while (missing := size - len(self._buffer)) > 0 or sent < size:
            state = f"took {sent} of {size} bytes and sent {len(self._buffer)} back"
            readable, writable = _wait(self._socket, deadline, read=True, write=sent < size)
            if not readable and not writable:
                raise self._too_late(state)
            # Bytes from before the call may have left nothing missing: it still reads, lest the
            # peer stop for want of a reader while there is something to send.
            room = min(missing, RECV_BYTES) if missing > 0 else RECV_BYTES
            if readable and not self._fill(room, deadline, state):
                raise EOFError(f"{self._peer} {state}, then closed")
            if writable:
                sent += self._send_some(view[sent:])
        return self._take(size)

    def shutdown(self) -> None:
        """Tell the peer that nothing more will be sent; receiving goes on.

        A server that echoes then sends what it still has, and closes.

        Raises:
            OSError: errno kept (ENOTCONN when the peer has reset; EBADF once closed).
        Thread: as send().   Cost: one shutdown(2) with SHUT_WR.
        Source: shutdown(2).
        """
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Release the connection; further calls do nothing.

        Thread: only when no other thread is in a call.   Cost: one close(2).
        Source: close(2). What stands unread in the kernel makes it reset the connection.
        """
        self._socket.close()
        self._buffer.clear()
        self._scanned = 0

    def _deadline(self) -> float | None:
        """Return when a call that starts now must end."""
        return None if self._timeout is None else monotonic() + self._timeout

    def _too_late(self, state: str) -> OSError:
        """Return the TimeoutError for a call in which the peer did only `state`."""
        return OSError(errno.ETIMEDOUT, f"timed out: {self._peer} {state}")

    def _send_some(self, view: memoryview) -> int:
        """Send what the kernel takes now; return its count, 0 when there is no room."""
        try:
            return self._socket.send(view)
        except BlockingIOError:
            return 0

    def _fill(self, n: int, deadline: float | None, state: str) -> bool:
        """Receive 1..n bytes into the buffer, waiting for the first; False at the end."""
        while True:
            try:
                data = self._socket.recv(n)
            except BlockingIOError:
                if not any(_wait(self._socket, deadline, read=True)):
                    raise self._too_late(state) from None
                continue
            self._buffer += data
            return bool(data)

    def _take(self, n: int) -> bytes:
        """Return and remove at most n bytes from the front of the buffer."""
        if n >= len(self._buffer):
            data = bytes(self._buffer)
            self._buffer.clear()
        else:
            data = bytes(self._buffer[:n])
            del self._buffer[:n]
        self._scanned = 0
        return data


def stream_target(address: str | tuple[str, int] | Address) -> Address:
    """Return the address of a stream: Client's calls have no meaning for datagrams.

    What b"" from recv() tells, a datagram without bytes would tell as well; recv_exactly() and
    recv_line() would wait for what was lost. See docs/decisions/0022-udp-clients.md.
    """
    target = parse_target(address, udp=True)
    if target.kind == "udp":
        reason = "is UDP: Client is for streams (TCP and Unix sockets); use socket.SOCK_DGRAM"
        raise ConfigError("address", address, reason)
    return target


def checked_timeout(timeout: float | None) -> float | None:
    """Return a timeout that is None or a finite number above 0."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise ConfigError("timeout", timeout, "must be a number of seconds or None")
    if not 0 < timeout < float("inf"):
        raise ConfigError("timeout", timeout, "must be a finite number of seconds above 0")
    return float(timeout)


def flat(data: bytes | bytearray | memoryview) -> memoryview:
    """Return the bytes of any contiguous buffer (cast refuses an empty one)."""
    view = memoryview(data)
    return view.cast("B") if view.nbytes else memoryview(b"")


def _wait(
    sock: socket.socket, deadline: float | None, *, read: bool = False, write: bool = False
) -> tuple[bool, bool]:
    """Wait until the socket is readable or writable; return which, twice False at the deadline.

    An error or a hang-up counts as both: the next call on the socket tells what it is.
    """
    while True:
        left = POLL_SECONDS if deadline is None else min(deadline - monotonic(), POLL_SECONDS)
        ready = _poll_once(sock, max(left, 0.0), read, write)
        if any(ready) or (deadline is not None and monotonic() >= deadline):
            return ready


def _poll_once(sock: socket.socket, seconds: float, read: bool, write: bool) -> tuple[bool, bool]:
    if not hasattr(select, "poll"):  # Windows, where select has no limit on the number
        readable, writable, failed = select.select(
            [sock] if read else [], [sock] if write else [], [sock], seconds
        )
        return bool(readable or failed), bool(writable or failed)
    poller = select.poll()
    poller.register(sock, (select.POLLIN if read else 0) | (select.POLLOUT if write else 0))
    events = poller.poll(seconds * 1000)
    ready = events[0][1] if events else 0
    failing = ready & ~(select.POLLIN | select.POLLOUT)
    return bool(ready & select.POLLIN or failing), bool(ready & select.POLLOUT or failing)


def _connect(address: Address, timeout: float | None) -> tuple[socket.socket, str]:
    """Return a non-blocking socket connected to the first address that answers, and that address.

    On failure raise OSError with the errno of the last address; nothing stays open.
    """
    targets = resolve(address)
    deadline = None if timeout is None else monotonic() + timeout
    failures: list[tuple[str, OSError]] = []
    for i in range(len(targets)):
        share = None
        if deadline is not None:
            # An address that never answers must leave the others their time.
            share = max(deadline - monotonic(), 0.001) / (len(targets) - i)
        family, place = targets[i]
        name = text_of(family, place)
        try:
            return _connect_one(family, place, share), name
        except OSError as error:
            failures.append((name, error))
    raise connect_error(address, failures)


def _connect_one(family: int, place: object, timeout: float | None) -> socket.socket:
    """Return a connected, non-blocking socket, or raise OSError with an errno."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        connect(sock, place, timeout)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock
