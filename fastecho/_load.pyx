"""The load generator: one thread drives connections to an echo server, every byte verified.

Lives here: the classes that Python sees, their arguments, memory and results. Does not live
here: the loop and its system calls (_drive.pxd), what is sent, expected and counted
(src_c/load.h), which bytes (src_c/pattern.h); threads, plans and reports (fastecho/measure).
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EBADMSG, EINVAL, EOVERFLOW, EPROTO
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

cimport fastecho._sys as _sys
from fastecho._cdefs cimport *
from fastecho._drive cimport *

import math
import os
import socket
import struct
import threading

cdef enum:
    # A run in the main thread comes back this often to see whether Ctrl-C was pressed.
    SIGNALS_NS = 250000000
    # Connections towards 127.0.0.0/8 that share a source address; source addresses in
    # reconnect mode.
    PER_SOURCE = 8000
    RECONNECT_SOURCES = 64

# As int: Cython's conversion of an unnamed enum does not compile without a warning.
_MODES = {"closed": <int>FE_LOAD_CLOSED_LOOP, "open": <int>FE_LOAD_OPEN_LOOP,
          "reconnect": <int>FE_LOAD_RECONNECT, "idle": <int>FE_LOAD_IDLE}
_NOT_DECODED = {
    EPROTO: "the bytes are no HdrHistogram V2",
    EINVAL: "the histogram has a layout that HdrHistogram does not make",
    EBADMSG: "the histogram is cut or damaged",
    EOVERFLOW: "the histogram holds more than 2**63 - 1 values",
}
_FRAMES = {"raw": <int>FE_PATTERN_RAW, "line": <int>FE_PATTERN_LINE,
           "length": <int>FE_PATTERN_LENGTH}


@cython.final
cdef class Histogram:
    """A latency histogram in ns: 3 significant digits, 64 ns to 1 h, HdrHistogram's layout."""

    cdef fe_histogram *h

    def __cinit__(self):
        self.h = <fe_histogram *>malloc(sizeof(fe_histogram))
        if self.h == NULL:
            raise MemoryError("no memory for a histogram")
        fe_histogram_reset(self.h)

    def __dealloc__(self):
        free(self.h)

    def record(self, ns, count=1):
        """Count a value of `ns` nanoseconds, `count` times. Above 1 h: see `overflow`."""
        if ns < 0 or count < 0:
            raise ValueError(f"a value and its count must not be negative, not {ns}, {count}")
        fe_histogram_record_n(self.h, <uint64_t>min(ns, 2**64 - 1), <uint64_t>count)

    def percentile(self, double p):
        """Return the ns that `p` percent of the values (0..100) do not exceed; 0 if empty."""
        if not 0 <= p <= 100:
            raise ValueError(f"a percentile is between 0 and 100, not {p}")
        return fe_histogram_percentile(self.h, p)

    def merge(self, Histogram other not None):
        """Add everything that `other` holds. Exact: no value moves to another bucket."""
        fe_histogram_merge(self.h, other.h)

    def reset(self):
        """Forget everything."""
        fe_histogram_reset(self.h)

    def subtract(self, Histogram other not None):
        """Take away what an earlier copy of this histogram held."""
        if fe_histogram_subtract(self.h, other.h) < 0:
            raise ValueError("a histogram holds values that the one it is taken from does not")

    def encode(self):
        """Return the counts as HdrHistogram V2 holds them, with its header, not compressed."""
        cdef unsigned char *out = <unsigned char *>malloc(FE_HISTOGRAM_V2_MAX)
        cdef int n
        if out == NULL:
            raise MemoryError("no memory for the bytes of a histogram")
        try:
            n = fe_histogram_v2_encode(self.h, out)
            if n < 0:
                raise ValueError("a histogram with more than 2**63 - 1 values cannot be encoded")
            return out[:n]
        finally:
            free(out)

    @staticmethod
    def decode(bytes data not None):
        """Return the histogram that V2 bytes hold, not compressed."""
        cdef Histogram h = Histogram()
        cdef int rc = fe_histogram_v2_decode(h.h, <const unsigned char *>data, len(data))
        if rc < 0:
            raise ValueError(_NOT_DECODED[-rc])
        return h

    def buckets(self):
        """Return (lowest ns, highest ns, count) of every bucket that holds anything."""
        return [(fe_histogram_lowest(i), fe_histogram_highest(i), self.h.slots[i])
                for i in range(FE_HISTOGRAM_SLOTS) if self.h.slots[i] != 0]

    @property
    def count(self):
        """Values recorded, overflow included."""
        return self.h.count

    @property
    def overflow(self):
        """Of `count`: values above 1 h. They count as larger than any bucket."""
        return self.h.overflow

    @property
    def min(self):
        """The smallest value recorded, exact, in ns; 0 if empty."""
        return self.h.min if self.h.count else 0

    @property
    def max(self):
        """The largest value recorded, exact, in ns; 0 if empty."""
        return self.h.max

    @property
    def mean(self):
        """The mean in ns, from bucket middles (0.05 % at most from exact); 0.0 if empty."""
        return fe_histogram_mean(self.h)

    @property
    def stddev(self):
        """The standard deviation in ns, from bucket middles; 0.0 if empty."""
        return math.sqrt(fe_histogram_variance(self.h))


def _packed(int family, address):
    """Return the socket address as the kernel takes it. A host must be numeric."""
    if family == _sys.AF_UNIX:
        path = os.fsencode(address)
        if not 1 <= len(path) <= 107:
            raise ValueError(f"address must be a path of 1 to 107 bytes, not {path!r}")
        return struct.pack("=H", family) + path + (b"" if path[0] == 0 else b"\0")
    if family not in (_sys.AF_INET, _sys.AF_INET6):
        raise ValueError(f"family must be AF_INET, AF_INET6 or AF_UNIX, not {family}")
    try:
        host, port = address
        _within("port", port, 0, 65535)
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0,
                                   socket.AI_NUMERICHOST | socket.AI_NUMERICSERV)[0][4]
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(f"address must be (numeric host, port), not {address!r}") from error
    packed = socket.inet_pton(family, found[0].partition("%")[0])
    if family == _sys.AF_INET:
        return struct.pack("=H2s4s8x", family, found[1].to_bytes(2, "big"), packed)
    return struct.pack("=H2sI16sI", family, found[1].to_bytes(2, "big"), 0, packed, found[3])


def _default_sources(int family, bytes target, int mode, uint32_t connections):
    """Return source addresses so many that ports cannot run out; none where one is enough."""
    cdef uint32_t count
    if family != _sys.AF_INET or target[4] != 127:
        return ()
    if mode == FE_LOAD_RECONNECT:
        count = RECONNECT_SOURCES
    elif connections > PER_SOURCE:
        count = (connections + PER_SOURCE - 1) // PER_SOURCE
    else:
        return ()
    return [f"127.0.{1 + i // 250}.{1 + i % 250}" for i in range(count)]


def _choice(name, value, choices):
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
    return choices[value]


def _within(name, value, low, high):
    if not low <= value <= high:
        raise ValueError(f"{name} must be between {low} and {high}, not {value}")
    return value


cdef int _checked(int rc, what) except -1:
    """Return rc, or raise what it says: the one place where -errno becomes an OSError."""
    if rc < 0:
        raise OSError(-rc, f"{what}: {os.strerror(-rc)}")
    return rc


def _counted(n, noun):
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


cdef str _described(const fe_load_failure *f, timeout):
    """Return one sentence about a failure."""
    where = f"connection {f.connection}"
    outstanding = f"with {_counted(f.count, 'message')} outstanding"
    if f.kind == FE_LOAD_WRONG:
        return (f"{where}, message {f.number}: byte {f.offset} of the reply is "
                f"0x{f.got:02x}, not 0x{f.expected:02x}")
    if f.kind == FE_LOAD_EXTRA:
        return f"{where}: {_counted(f.count, 'byte')} came although no reply was due"
    if f.kind == FE_LOAD_TIMED_OUT and f.state == FE_LOAD_OPEN:
        return (f"{where}, message {f.number}: no complete reply within {timeout} s, "
                f"{_counted(f.offset, 'byte')} of it came; {outstanding}")
    if f.kind == FE_LOAD_TIMED_OUT and f.state == FE_LOAD_ENDING:
        return f"{where}: the server did not answer our FIN within {timeout} s"
    if f.kind == FE_LOAD_TIMED_OUT:
        return f"{where}: not connected within {timeout} s"
    if f.kind == FE_LOAD_RESET:
        return f"{where}: reset by the server {outstanding}"
    if f.kind == FE_LOAD_CLOSED_BY_SERVER:
        return f"{where}: closed by the server {outstanding}"
    if f.kind == FE_LOAD_REFUSED:
        return f"{where}: refused"
    return f"{where}: {os.strerror(f.error)} (errno {f.error}) {outstanding}"


@cython.final
cdef class Load:
    """Drive connections to one echo server from one thread, and verify every byte."""

    cdef Drive d
    # The bytes that every message is a window of.
    cdef unsigned char *noise
    cdef size_t noise_size
    # What d.target and d.sources point into.
    cdef bytes target
    cdef bytes sources
    cdef object timeout
    # Held by the method that runs.
    cdef object lock

    def __cinit__(self):
        self.d.epfd = self.d.timer_fd = self.d.noise_fd = -1
        self.lock = threading.Lock()

    def __init__(self, int family, address, *, connections=1, depth=1, size=64, frame="raw",
                 bytes prefix=b"", bytes suffix=b"", mode="closed", double rate=0.0,
                 bint sendfile=False, timeout=5.0, seed=1, sources=(), close="fin",
                 bint poll=False):
        cdef Drive *d = &self.d
        cdef uint64_t seed64 = seed & (2**64 - 1)
        cdef int kind
        if d.load.connections != NULL or d.epfd >= 0:
            raise RuntimeError("a load is made once")
        d.family = family
        d.mode = _choice("mode", mode, _MODES)
        d.by_sendfile = sendfile
        d.polls = poll
        d.by_reset = _choice("close", close, {"fin": False, "reset": True})
        d.load.count = _within("connections", connections, 1, 1 << 20)
        d.load.depth = _within("depth", depth, 1, FE_PATTERN_WINDOWS)
        kind = _choice("frame", frame, _FRAMES)
        _within("size", size, 1, FE_PATTERN_MAX_SIZE)
        for name, affix in (("prefix", prefix), ("suffix", suffix)):
            _within(f"the length of {name}", len(affix), 0, FE_PATTERN_MAX_AFFIX)
            if affix and kind == FE_PATTERN_RAW:
                raise ValueError(f"{name} needs frame 'line' or 'length', not 'raw'")
        if (d.mode == FE_LOAD_OPEN_LOOP) != (rate != 0):
            raise ValueError(f"rate must be given in mode 'open' only, not {rate} in {mode!r}")
        if d.mode == FE_LOAD_OPEN_LOOP:
            d.load.interval_ns = 1e9 / _within("rate", rate, 0.001, 1e7)
        if d.mode == FE_LOAD_RECONNECT and depth != 1:
            raise ValueError(f"depth must be 1 in mode 'reconnect', not {depth}")
        self.timeout = _within("timeout", timeout, 0.001, 1e6)
        d.timeout_ns = <uint64_t>(self.timeout * 1e9)
        self.target = _packed(family, address)
        if sources and family == _sys.AF_UNIX:
            raise ValueError(f"sources need an IP address family, not AF_UNIX: {sources!r}")
        self._set_sources(
            sources or _default_sources(family, self.target, d.mode, d.load.count))
        _checked(fe_pattern_init(&d.load.pattern, kind, size, seed64, <const char *>prefix,
                                 len(prefix), <const char *>suffix, len(suffix)), "pattern")
        self._allocate()
        self._make_noise(size, seed64, kind)
        d.epfd = _checked(_sys.sys_epoll_create(), "epoll_create1")
        if d.mode == FE_LOAD_OPEN_LOOP:
            d.timer_fd = _checked(_sys.sys_timerfd(), "timerfd_create")
            # Edge-triggered: an expiry is told once and need not be read.
            _checked(_sys.sys_epoll_ctl(d.epfd, _sys.EPOLL_CTL_ADD, d.timer_fd,
                                        _sys.EPOLLIN | _sys.EPOLLET, d.load.count), "epoll_ctl")

    def __dealloc__(self):
        self._release()

    cdef int _set_sources(self, sources) except -1:
        packed = [_packed(self.d.family, (host, 0)) for host in sources]
        self.sources = b"".join(packed)
        self.d.target = self.target
        self.d.target_size = <uint32_t>len(self.target)
        self.d.sources = self.sources
        self.d.source_count = <uint32_t>len(packed)
        self.d.source_size = <uint32_t>len(packed[0]) if packed else 0
        return 0

    cdef int _allocate(self) except -1:
        """The memory of the connections; _release() frees it, all of it or a part."""
        cdef Drive *d = &self.d
        cdef fe_load *l = &d.load
        cdef size_t places = 1
        cdef uint32_t i
        while places < l.depth:
            places *= 2
        l.ring_mask = <uint32_t>(places - 1)
        l.connections = <fe_load_connection *>calloc(l.count, sizeof(fe_load_connection))
        l.times = l.given = <uint64_t *>calloc(l.count * places, sizeof(uint64_t))
        if d.mode == FE_LOAD_OPEN_LOOP:
            l.given = <uint64_t *>calloc(l.count * places, sizeof(uint64_t))
        l.ring = <uint32_t *>calloc(l.count, sizeof(uint32_t))
        l.touched = <uint32_t *>calloc(l.count, sizeof(uint32_t))
        l.latency = <fe_histogram *>malloc(sizeof(fe_histogram))
        l.lateness = <fe_histogram *>malloc(sizeof(fe_histogram))
        d.buffer = <unsigned char *>malloc(RECV_SIZE)
        d.scratch = <unsigned char *>malloc(SCRATCH_SIZE)
        d.events = <_sys.epoll_event *>malloc(EVENTS * sizeof(_sys.epoll_event))
        if (l.connections == NULL or l.times == NULL or l.given == NULL or l.ring == NULL
                or l.touched == NULL or l.latency == NULL or l.lateness == NULL
                or d.buffer == NULL or d.scratch == NULL or d.events == NULL):
            raise MemoryError(f"no memory for {l.count} connections of depth {l.depth}")
        for i in range(l.count):
            l.connections[i].fd = -1
            l.connections[i].first = fe_pattern_first(&l.pattern, i)
        fe_histogram_reset(l.latency)
        fe_histogram_reset(l.lateness)
        return 0

    cdef int _make_noise(self, uint64_t size, uint64_t seed, int frame) except -1:
        """The bytes that all messages are windows of; in a memfd if sendfile sends them."""
        self.noise_size = fe_pattern_noise_size(size)
        if self.d.by_sendfile:
            self.d.noise_fd = _checked(_sys.sys_memory_file(self.noise_size), "memfd_create")
        self.noise = <unsigned char *>_sys.sys_map(self.d.noise_fd, self.noise_size)
        if self.noise == NULL:
            raise MemoryError(f"no memory for messages of {size} bytes")
        fe_pattern_fill(self.noise, self.noise_size, seed, frame)
        self.d.load.pattern.noise = self.noise
        return 0

    cdef void _release(self) noexcept:
        """Closes and frees everything. The epoll set goes first, so that no descriptor leaves
        it by name: in a forked child that would take it out of the parent's set as well."""
        cdef Drive *d = &self.d
        cdef fe_load *l = &d.load
        cdef int fd
        cdef uint32_t i
        for fd in (d.epfd, d.timer_fd, d.noise_fd):
            if fd >= 0:
                _sys.sys_close(fd)
        d.epfd = d.timer_fd = d.noise_fd = -1
        if l.connections != NULL:
            for i in range(l.count):
                if l.connections[i].fd >= 0:
                    _sys.sys_close(l.connections[i].fd)
        if self.noise != NULL:
            _sys.sys_unmap(self.noise, self.noise_size)
        free(l.connections)
        if l.given != l.times:
            free(l.given)
        free(l.times)
        free(l.ring)
        free(l.touched)
        free(l.latency)
        free(l.lateness)
        free(d.buffer)
        free(d.scratch)
        free(d.events)
        memset(l, 0, sizeof(fe_load))
        self.noise = d.buffer = d.scratch = NULL
        d.events = NULL
        d.alive = d.opened = 0

    # --- the way in from Python -------------------------------------------------------------

    cdef int _enter(self) except -1:
        """Takes the lock, without waiting: two threads at once are a mistake, not a queue."""
        if not self.lock.acquire(False):
            raise RuntimeError("another thread is in a method of this load")
        if self.d.epfd < 0:
            self.lock.release()
            raise RuntimeError("the load is closed")
        return 0

    cdef int _drive(self, uint64_t span_ns) except -1:
        """A run of span_ns, or connecting if it is 0. Interrupted or failed, every connection
        is closed: nothing of a broken-off run is left in flight."""
        cdef Drive *d = &self.d
        cdef uint64_t slice_ns = <uint64_t>-1  # for ever
        cdef bint started = False
        cdef int rc = 0
        if threading.get_ident() == threading.main_thread().ident:
            slice_ns = SIGNALS_NS
        try:
            while rc == 0:
                PyErr_CheckSignals()
                with nogil:
                    if span_ns == 0:
                        if not started:
                            drive_start_connecting(d)
                        rc = drive_connect(d, slice_ns)
                    else:
                        if not started:
                            drive_start_run(d, span_ns)
                        rc = drive_run(d, slice_ns)
                    started = True
            return _checked(rc, "epoll_wait")
        except BaseException:
            self._drop_all()
            raise

    cdef void _drop_all(self) noexcept:
        """Closes every connection and forgets what was counted."""
        cdef uint32_t i
        self.d.load.end_ns = 0
        memset(&self.d.load.counts, 0, sizeof(self.d.load.counts))
        for i in range(self.d.load.count):
            if self.d.load.connections[i].state != FE_LOAD_CLOSED:
                drive_end(&self.d, &self.d.load.connections[i], -1, 0)

    def connect(self):
        """Open every connection that is not open; at most 64 connects are under way at once."""
        self._enter()
        try:
            if self.d.mode == FE_LOAD_RECONNECT:
                return
            self._drive(0)
            if self.d.failed:
                memset(&self.d.load.counts, 0, sizeof(self.d.load.counts))
                _checked(-self.d.first_error,
                         f"{self.d.failed} of {_counted(self.d.load.count, 'connection')} failed")
        finally:
            self.lock.release()

    def disconnect(self):
        """Close every connection by FIN; connect() opens new ones."""
        self._enter()
        self._drop_all()
        self.lock.release()

    def run(self, double seconds):
        """Send for `seconds`, then collect what is outstanding: nothing stays in flight."""
        if not 1e-6 <= seconds <= 1e6:
            raise ValueError(f"seconds must be between 1e-6 and 1e6, not {seconds}")
        self._enter()
        try:
            if self.d.opened == 0 and self.d.mode != FE_LOAD_RECONNECT:
                raise RuntimeError("no connection is open: connect() first")
            self._drive(<uint64_t>(seconds * 1e9))
            return self._result()
        finally:
            self.lock.release()

    cdef dict _result(self):
        """What has been counted; counting starts anew."""
        cdef fe_load_counts *n = &self.d.load.counts
        result = dict(
            messages=n.messages,
            messages_in_window=n.messages_in_window,
            sent=n.sent,
            bytes=n.bytes,
            bytes_sent=n.bytes_sent,
            bytes_received=n.bytes_received,
            connects=n.connects,
            elapsed_ns=min(self.d.now_ns, self.d.load.end_ns) - self.d.start_ns,
            total_ns=self.d.now_ns - self.d.start_ns,
            cpu_ns=self.d.cpu_ns,
            spin_ns=n.spin_ns,
            iterations=n.iterations,
            connections_open=self.d.opened,
            wrong_bytes=n.kinds[FE_LOAD_WRONG],
            lost=n.lost,
            extra_bytes=n.kinds[FE_LOAD_EXTRA],
            timed_out=n.kinds[FE_LOAD_TIMED_OUT],
            held=n.held,
            unsent=n.unsent,
            reset=n.kinds[FE_LOAD_RESET],
            closed=n.kinds[FE_LOAD_CLOSED_BY_SERVER],
            refused=n.kinds[FE_LOAD_REFUSED],
            other=n.kinds[FE_LOAD_OTHER],
            failures=[_described(&n.failures[i], self.timeout) for i in range(n.described)],
        )
        memset(n, 0, sizeof(n[0]))
        return result

    def histogram(self):
        """Return a copy of the latencies in ns of all right replies since the last reset()."""
        return self._copied(&self.d.load.latency)

    def schedule_histogram(self):
        """Return a copy of the schedule error in ns since the last reset(), open loop only."""
        return self._copied(&self.d.load.lateness)

    cdef Histogram _copied(self, fe_histogram **source):
        cdef Histogram copy = Histogram()
        self._enter()
        fe_histogram_merge(copy.h, source[0])
        self.lock.release()
        return copy

    def reset(self):
        """Empty both histograms."""
        self._enter()
        fe_histogram_reset(self.d.load.latency)
        fe_histogram_reset(self.d.load.lateness)
        self.lock.release()

    def close(self):
        """Close every connection and free the memory; idempotent."""
        if self.d.epfd >= 0:
            self._enter()
            self._release()
            self.lock.release()

    @property
    def connections_open(self):
        """Connections that are open now."""
        return self.d.opened

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
