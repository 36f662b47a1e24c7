"""A server that is measured as a process of its own: starting it, what it takes, whom it serves.

Lives here: the process, its clock and memory as the kernel tells them, the peers of a probe. Does
not live here: which servers and how often (model_runs.py), the load (fastecho/_load.pyx). Every
wait has a deadline; a process ends by SIGKILL, since it may be one that hangs.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import tempfile
import time

from .words import counted

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import IO, Self

__all__ = ["MESSAGE", "ModelServer", "Peers", "ServerError"]

MESSAGE = bytes(range(64))
"""What a peer of a probe sends: as long as the messages of the load are by default."""
CPUCLOCK_SCHED = 2
"""The kind of CPU clock that counts what the scheduler gave, to the ns (linux/posix-timers.h)."""
PAGE = 4096
DYING_SECONDS = 0.1
LONGEST_REASON = 100
"""Characters of what a server said before it ended."""


class ServerError(Exception):
    """A server that cannot be measured; its text says why, without the server's name."""


class ModelServer:
    """A running server, from its start to its end; a context manager.

    Args:
        command: what starts it; `--ready-fd N` is added, to which it writes HOST:PORT.
        environment: of the process; None: ours.
        patience: seconds until it must be ready.
    Raises:
        ServerError: it did not start, or was not ready in time.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str] | None, patience: float
    ) -> None:
        self.stopped = False
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in end()
        reader, writer = os.pipe()
        try:
            self._process = subprocess.Popen(
                [*command, "--ready-fd", str(writer)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._said,
                pass_fds=[writer],
                # Ctrl-C is for who measures, who then ends it.
                start_new_session=True,
            )
        except BaseException as error:
            os.close(reader)
            self._said.close()
            if isinstance(error, OSError):
                raise ServerError(f"did not start: {error.strerror}") from None
            raise
        finally:
            os.close(writer)
        try:
            self.address = self._await_address(reader, patience)
        except BaseException:
            self.end()
            raise
        finally:
            os.close(reader)

    def _await_address(self, reader: int, patience: float) -> tuple[str, int]:
        told, deadline = b"", time.monotonic() + patience
        ready = select.poll()  # select() itself ends at descriptor 1,024: loads have more
        ready.register(reader, select.POLLIN)
        while not told.endswith(b"\n"):
            if not ready.poll(max(deadline - time.monotonic(), 0) * 1e3):
                raise ServerError(f"was not ready within {patience:.3g} s")
            if not (chunk := os.read(reader, 4096)):
                # The pipe is closed a moment before the process has ended.
                self._wait(max(deadline - time.monotonic(), 0.1))
                raise ServerError(self.death() or "ended before it was ready")
            told += chunk
        host, _, port = told.decode().split("\n")[0].rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def death(self) -> str:
        """Say how the process has ended, and what it said last; "" while it lives."""
        code = self._process.poll()
        if code is None:
            return ""
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        self._said.seek(0)
        lines = self._said.read().decode(errors="backslashreplace").splitlines()
        last = f": {lines[-1][:LONGEST_REASON]}" if lines else ""
        return f"ended with {how}{last}"

    def reason(self, otherwise: str) -> str:
        """Say how it has ended if that is why it answers no more, else what is given."""
        self._wait(DYING_SECONDS)  # its connections end a moment before it does
        return self.death() or otherwise

    def cpu(self) -> float:
        """Return the seconds of CPU of all its threads so far."""
        try:
            return time.clock_gettime((~self.pid << 3) | CPUCLOCK_SCHED)
        except OSError:
            raise ServerError(self.death() or "has no CPU clock") from None

    def kernel_cpu(self) -> tuple[int, int]:
        """Return the clock ticks so far in user mode, and in the kernel for it."""
        fields = self._read("stat").rpartition(")")[2].split()
        return int(fields[11]), int(fields[12])

    def threads(self) -> int:
        """Return how many threads it has now."""
        lines = self._read("status").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Threads:"))

    def memory(self) -> int:
        """Return its resident memory in bytes: counted where the kernel does, else as it knows."""
        try:
            lines = self._read("smaps_rollup").splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("Rss:")) * 1024
        except (OSError, ServerError, StopIteration):
            return int(self._read("statm").split()[1]) * PAGE

    def descriptors(self) -> int:
        """Return how many descriptors it has open."""
        try:
            return len(os.listdir(f"/proc/{self.pid}/fd"))
        except OSError:
            return 0

    def _read(self, name: str) -> str:
        try:
            with open(f"/proc/{self.pid}/{name}", encoding="ascii", errors="replace") as file:
                return file.read()
        except OSError as error:
            raise ServerError(self.death() or f"has no {name}: {error.strerror}") from None

    def pin(self, core: int) -> None:
        """Keep all its threads, and those that they will start, on one core."""
        try:
            for thread in os.listdir(f"/proc/{self.pid}/task"):
                os.sched_setaffinity(int(thread), {core})
        except OSError:
            pass  # it has ended, which is noticed where it is asked for something

    def pause(self) -> None:
        """Stop it: it takes no CPU until resume()."""
        self._process.send_signal(signal.SIGSTOP)
        self.stopped = True

    def resume(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)
        self.stopped = False

    def await_descriptors(self, most: int, patience: float) -> None:
        """Wait until it has no more than so many descriptors open: its peers have left."""
        deadline = time.monotonic() + patience
        while self.descriptors() > most and time.monotonic() < deadline and not self.death():
            time.sleep(0.005)

    def _wait(self, patience: float) -> None:
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            pass

    def end(self) -> None:
        """Kill it; idempotent."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._said.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


class Peers:
    """Connections that send one message each, to see how many are answered; a context manager.

    Attributes:
        answered: peers whose message came back whole.
        refused: peers whose connection was ended, or that could not connect.
        reason: what the first of these was told.
    """

    def __init__(self, address: tuple[str, int], number: int) -> None:
        self.answered = 0
        self.refused = 0
        self.reason = ""
        self._waiting: dict[int, socket.socket] = {}
        self._received: dict[int, bytes] = {}
        self._served: list[socket.socket] = []
        self._epoll = select.epoll()
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        try:
            for _ in range(number):
                self._begin(
                    socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK), address
                )
        except BaseException:
            self.close()
            raise

    def _begin(self, sock: socket.socket, address: tuple[str, int]) -> None:
        self._waiting[sock.fileno()] = sock
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect_ex(address)  # how it ended is asked when the socket is ready
        self._epoll.register(sock, select.EPOLLOUT)

    def wait(self, quiet: float, longest: float) -> None:
        """Serve them until all have their answer, or none came for `quiet` seconds."""
        now = time.monotonic()
        end, silent_at = now + longest, now + quiet
        while self._waiting and (now := time.monotonic()) < min(end, silent_at):
            for fd, _ in self._epoll.poll(min(end, silent_at) - now):
                if self._advance(fd):
                    silent_at = time.monotonic() + quiet

    def _advance(self, fd: int) -> bool:
        """Take what has come for a peer, or send its message; tell whether it is done."""
        sock = self._waiting[fd]
        try:
            if fd not in self._received:
                if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(code, os.strerror(code))
                sock.send(MESSAGE)
                self._received[fd] = b""
                self._epoll.modify(fd, select.EPOLLIN)
                return False
            if not (chunk := sock.recv(len(MESSAGE))):
                raise OSError(0, "closed")
        except BlockingIOError:
            return False
        except OSError as error:
            self.refused += 1
            self.reason = self.reason or (error.strerror or str(error)).lower()
            self._epoll.unregister(fd)
            del self._waiting[fd]
            sock.close()
            return True
        self._received[fd] += chunk
        if len(self._received[fd]) < len(MESSAGE):
            return False
        self._epoll.unregister(fd)
        self.answered += self._received[fd] == MESSAGE
        self._served.append(self._waiting.pop(fd))
        return True

    def talk(self, seconds: float) -> int:
        """Let one of those that were answered talk for so long; return how many replies it got.

        It talks until it has had one.

        Raises:
            ServerError: it was not answered any more.
        """
        sock, got, end = self._served[0], 0, time.monotonic() + seconds
        sock.settimeout(1.0)
        try:
            while not got or time.monotonic() < end:
                sock.sendall(MESSAGE)
                left = len(MESSAGE)
                while left:
                    if not (chunk := sock.recv(left)):
                        raise ServerError("closed a connection that had been answered")
                    left -= len(chunk)
                got += 1
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise ServerError(f"answered no more while one peer talked: {why}") from None
        return got

    def refusal(self) -> str:
        """Say how many were refused, and why; "" if none was."""
        return f"refused {counted(self.refused, 'peer')}: {self.reason}" if self.refused else ""

    def close(self) -> None:
        """End all connections."""
        self._epoll.close()
        for sock in (*self._waiting.values(), *self._served):
            sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
