"""The client of an event loop: fastecho.Client, with every call a coroutine, on asyncio's streams.

Lives here: connecting, the deadline of each call, the buffer that they share. Does not live here:
the blocking client, whose words and limits these are (client.py); a server in a coroutine, which is
fastecho.Server itself (`async with`).

What a call has received and not given back (after a timeout, when it was cancelled, behind the end
of a line) stays in the buffer for the next call.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from .client import LINE_BYTES, RECV_BYTES, checked_timeout, flat, stream_target
from .dial import connect_error, is_itself, resolve, text_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import Self

    from .address import Address

__all__ = ["Client"]


class Client:
    """Connect to an echo server and exchange bytes with it, in coroutines.

    `async with Client(address, timeout=5) as client:` connects and, at the end, closes.

    Args:
        address: HOST:PORT, [V6]:PORT, :PORT (this machine), unix:PATH, a (host, port) pair. All
            addresses of a name are tried in the order of getaddrinfo(3).
        timeout: seconds for each call, the connection included, float > 0; None waits for ever.
    Raises:
        ConfigError: the address or the timeout has no valid form.
        OSError: of connect() and all calls: errno kept (ETIMEDOUT as TimeoutError, ECONNREFUSED,
            ECONNRESET; EBADF once closed, ENOTCONN before connect()).
    Thread: that of the event loop. One task may send while another receives; two must not do the
        same. echo() does both. Any call may be cancelled; bytes received stay there.
    Cost: one connection.
    """

    def __init__(
        self, address: str | tuple[str, int] | Address, timeout: float | None = None
    ) -> None:
        self._address = stream_target(address)
        self._timeout = checked_timeout(timeout)
        # Bytes received and not given back yet.
        self._buffer = bytearray()
        # Bytes that the call under way has handed to the transport.
        self._written = 0
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._closed = False
        self._local = self._peer = ""

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        if self._streams is None:
            return f"<aio.Client {'closed' if self._closed else 'not connected'}, {self._address}>"
        return f"<aio.Client from {self._local} to {self._peer}>"

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

    async def connect(self) -> None:
        """Connect; `async with` does. Raises OSError, whose text names every address tried."""
        if self._streams is not None or self._closed:
            raise OSError(errno.EISCONN, f"a Client connects once: {self!r}")
        loop = asyncio.get_running_loop()
        places = await asyncio.to_thread(resolve, self._address)
        deadline = None if self._timeout is None else loop.time() + self._timeout
        failures: list[tuple[str, OSError]] = []
        for i, (family, place) in enumerate(places):
            share = None
            if deadline is not None:
                # An address that never answers must leave the others their time.
                share = max(deadline - loop.time(), 0.001) / (len(places) - i)
            try:
                sock = await _connect_one(family, place, share)
            except OSError as error:
                failures.append((text_of(family, place), error))
                continue
            self._local = text_of(family, sock.getsockname())
            self._peer = text_of(family, place)
            if family == getattr(socket, "AF_UNIX", None):
                self._streams = await asyncio.open_unix_connection(sock=sock)
            else:
                self._streams = await asyncio.open_connection(sock=sock)
            # drain() waits until the kernel has it all.
            self._streams[1].transport.set_write_buffer_limits(0)
            return
        raise connect_error(self._address, failures)

    async def send(self, data: bytes | bytearray | memoryview) -> int:
        """Send all of the data; return its size.

        After a timeout, whose text tells how much was taken, a part of the rest is still sent.
        """
        view = flat(data)
        async with self._within(lambda: f"took {self._taken()} of {len(view)} bytes"):
            await self._send_all(view)
        return len(view)

    async def recv(self, n: int) -> bytes:
        """Receive what is there, at most n bytes; wait if there is nothing. b"" is the end."""
        if n < 1:
            raise ValueError(f"recv needs room for at least 1 byte, not {n}")
        if not self._buffer:
            async with self._within(lambda: "sent nothing"):
                await self._fill()
        return self._take(n)

    async def recv_exactly(self, n: int) -> bytes:
        """Receive exactly n bytes; EOFError if the peer closes before."""
        if n < 0:
            raise ValueError(f"recv_exactly needs 0 bytes or more, not {n}")
        async with self._within(lambda: f"sent {len(self._buffer)} of {n} bytes"):
            while len(self._buffer) < n:
                if not await self._fill():
                    raise EOFError(
                        f"{self._peer} sent {len(self._buffer)} of {n} bytes, then closed"
                    )
        return self._take(n)

    async def recv_line(self) -> bytes:
        """Receive one line with its newline; at the end the rest, and then b"".

        EMSGSIZE when 1 MiB came without a newline.
        """
        scanned = 0
        async with self._within(lambda: f"sent {len(self._buffer)} bytes without a newline"):
            while (end := self._buffer.find(b"\n", scanned, LINE_BYTES) + 1) == 0:
                scanned = len(self._buffer)
                if scanned >= LINE_BYTES:
                    raise OSError(
                        errno.EMSGSIZE, f"{self._peer} sent {LINE_BYTES} bytes without a newline"
                    )
                if not await self._fill():
                    return self._take(scanned)
        return self._take(end)

    async def echo(self, data: bytes | bytearray | memoryview) -> bytes:
        """Send the data and receive as many bytes, at the same time; EOFError at an early end.

        After an error the exchange is out of step: close the client.
        """
        view = flat(data)
        size = len(view)

        def state() -> str:
            return f"took {self._taken()} of {size} bytes and sent {len(self._buffer)} back"

        async with self._within(state):
            sending = asyncio.ensure_future(self._send_all(view))
            try:
                while len(self._buffer) < size:
                    if not await self._fill():
                        raise EOFError(f"{self._peer} {state()}, then closed")
                while not sending.done():  # it may stop for want of a reader
                    filling = asyncio.ensure_future(self._fill())
                    try:
                        await asyncio.wait((sending, filling), return_when=asyncio.FIRST_COMPLETED)
                    finally:  # out of time as well: two must not receive
                        filling.cancel()
                        await asyncio.gather(filling, return_exceptions=True)
                    if not filling.cancelled() and not filling.result():
                        raise EOFError(f"{self._peer} {state()}, then closed")
                await sending
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        return self._take(size)

    async def shutdown(self) -> None:
        """Tell the peer that nothing more will be sent; receiving goes on."""
        self._alive()[1].write_eof()

    async def close(self) -> None:
        """Release the connection; further calls do nothing. What was not sent in time is lost."""
        streams, self._streams, self._closed = self._streams, None, True
        self._buffer.clear()
        if streams is not None:
            if streams[1].transport.get_write_buffer_size():
                streams[1].transport.abort()  # the peer may never take it
            streams[1].close()
            try:
                await streams[1].wait_closed()
            except OSError:
                pass  # it was lost already

    @asynccontextmanager
    async def _within(self, state: Callable[[], str]) -> AsyncIterator[None]:
        """Give what is inside the timeout; out of time, the peer did only `state`."""
        self._alive()
        try:
            async with asyncio.timeout(self._timeout) as limit:
                yield
        except TimeoutError as error:
            if limit.expired():
                text = f"timed out: {self._peer} {state()}"
                raise OSError(errno.ETIMEDOUT, text) from None
            raise error  # the system's own

    def _alive(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            number = errno.EBADF if self._closed else errno.ENOTCONN
            raise OSError(number, os.strerror(number))
        return self._streams

    async def _send_all(self, view: memoryview) -> None:
        """Send it in parts: the transport would keep a copy of whatever is not sent at once."""
        writer = self._alive()[1]
        self._written = 0
        for start in range(0, len(view), RECV_BYTES):
            part = view[start : start + RECV_BYTES]
            writer.write(part)
            self._written += len(part)
            await writer.drain()

    def _taken(self) -> int:
        """Return how much of what is being sent the kernel has taken."""
        return max(self._written - self._alive()[1].transport.get_write_buffer_size(), 0)

    async def _fill(self) -> bool:
        """Receive 1 byte or more into the buffer; False at the end. It may be cancelled."""
        data = await self._alive()[0].read(RECV_BYTES)
        self._buffer += data
        return bool(data)

    def _take(self, n: int) -> bytes:
        """Return and remove at most n bytes from the front of the buffer."""
        data = bytes(self._buffer[:n])
        del self._buffer[:n]
        return data


async def _connect_one(family: int, place: object, timeout: float | None) -> socket.socket:
    """Return a connected, non-blocking socket, or raise OSError with an errno."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        async with asyncio.timeout(timeout) as limit:
            await asyncio.get_running_loop().sock_connect(sock, place)  # type: ignore[arg-type]
        sock.getpeername()  # ENOTCONN: the queue of a Unix socket was full
        if family != getattr(socket, "AF_UNIX", None) and is_itself(sock):
            raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    except TimeoutError as error:
        sock.close()
        if limit.expired():
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
        raise error
    except OSError as error:  # asyncio has words of its own for it
        sock.close()
        raise OSError(error.errno, os.strerror(error.errno or 0)) from None
    except BaseException:
        sock.close()
        raise
    return sock
