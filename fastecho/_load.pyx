"""The load generator: one thread drives connections to an echo server, every byte verified.

Lives here: the classes that Python sees, their arguments, memory and results. Does not live
here: the loop (_drive.pxd), its calls (_load_connection.pxd), what is sent, expected and counted
(src_c/load*.h), which bytes (src_c/pattern.h), addresses (_load_targets.pxd), failures in words
(_load_words.pxd); threads, plans and reports (fastecho/measure).
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

cimport fastecho._sys as _sys
from fastecho._load_cdefs cimport *
from fastecho._drive cimport *
from fastecho._load_greeting cimport *
from fastecho._load_targets cimport *
from fastecho._load_udp cimport *
from fastecho._load_words cimport *

import math
import os
import threading

cdef enum:
    # A run in the main thread comes back this often to see whether Ctrl-C was pressed.
    SIGNALS_NS = 250000000
    # How far ahead a run may be asked to begin.
    HOUR_NS = 3600000000000

# As int: Cython's conversion of an unnamed enum does not compile without a warning.
_MODES = {"closed": <int>FE_LOAD_CLOSED_LOOP, "open": <int>FE_LOAD_OPEN_LOOP,
          "reconnect": <int>FE_LOAD_RECONNECT, "idle": <int>FE_LOAD_IDLE}
_FRAMES = {"raw": <int>FE_PATTERN_RAW, "line": <int>FE_PATTERN_LINE,
           "length": <int>FE_PATTERN_LENGTH}
_HISTOGRAMS = ("latency", "service", "connect", "schedule_error")


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
        """Return the ns that about `p` percent of the values (0..100) do not exceed; 0 if empty."""
        if not 0 <= p <= 100:
            raise ValueError(f"a percentile is between 0 and 100, not {p}")
        return fe_histogram_percentile(self.h, p)

    def merge(self, Histogram other not None):
        """Add everything that `other` holds. Exact: no value moves to another bucket."""
        if fe_histogram_merge(self.h, other.h) < 0:
            raise ValueError("histograms of more than 2**63 - 1 values cannot be added up")

    def reset(self):
        """Forget everything."""
        fe_histogram_reset(self.h)

    def subtract(self, Histogram other not None):
        """Take away what an earlier copy of this histogram held."""
        if fe_histogram_subtract(self.h, other.h) < 0:
            raise ValueError("a histogram holds values that the one it is taken from does not")

    def encode(self):
        """Return the counts as HdrHistogram V2 holds them, with its header, not compressed."""
        cdef bytearray out = bytearray(FE_HISTOGRAM_V2_MAX)
        cdef int n = fe_histogram_v2_encode(self.h, <unsigned char *>out)
        if n < 0:
            raise ValueError("a histogram with more than 2**63 - 1 values cannot be encoded")
        return bytes(out[:n])

    @staticmethod
    def decode(bytes data not None, int64_t least=-1, int64_t most=-1):
        """Return the histogram that V2 bytes hold, not compressed."""
        cdef Histogram h = Histogram()
        cdef int rc = fe_histogram_v2_decode(h.h, <const unsigned char *>data, len(data))
        if rc < 0:
            raise ValueError(not_decoded(-rc))
        fe_histogram_narrow(h.h, least, most)
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


cdef fe_histogram *_new_histogram() noexcept nogil:
    """An empty histogram; NULL: no memory."""
    cdef fe_histogram *h = <fe_histogram *>malloc(sizeof(fe_histogram))
    if h != NULL:
        fe_histogram_reset(h)
    return h


def _choice(name, value, choices):
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
    return choices[value]


cdef int _checked(int rc, what) except -1:
    """Return rc, or raise what it says: the one place where -errno becomes an OSError."""
    if rc < 0:
        raise OSError(-rc, f"{what}: {os.strerror(-rc)}")
    return rc


@cython.final
cdef class Load:
    """Drive connections to echo servers from one thread, and verify every byte."""

    cdef Drive d
    # The bytes that every message is a window of.
    cdef unsigned char *noise
    cdef size_t noise_size
    # What follows from each size that messages have; NULL while there is one.
    cdef fe_size *sizes
    # What d.targets points into.
    cdef list packed
    cdef object timeout
    # Held by the method that runs; and by whoever reads histograms, or frees them.
    cdef object lock
    cdef object reading
    # What was counted is told: the next connect() or run() begins anew.
    cdef bint told

    def __cinit__(self):
        self.d.epfd = self.d.timer_fd = self.d.noise_fd = -1
        self.lock = threading.Lock()
        self.reading = threading.Lock()

    def __init__(self, targets, *, connections=1, depth=1, size=64, frame="raw",
                 bytes prefix=b"", bytes suffix=b"", mode="closed", double rate=0.0,
                 schedule="fixed", double phase=0.0, bint sendfile=False, timeout=5.0, seed=1,
                 sources=(), close="fin", bint poll=False, bint reopen=False, proxy=0,
                 bint identify=False, bint udp=False):
        cdef Drive *d = &self.d
        cdef uint64_t seed64 = seed & (2**64 - 1)
        if d.load.connections != NULL or d.epfd >= 0:
            raise RuntimeError("a load is made once")
        d.mode = _choice("mode", mode, _MODES)
        d.by_sendfile = sendfile
        d.polls = poll
        d.reopens = reopen
        d.proxy = within("proxy", proxy, 0, 2)
        d.by_reset = _choice("close", close, {"fin": False, "reset": True})
        d.load.count = within("connections", connections, 1, 1 << 20)
        d.load.depth = within("depth", depth, 1, FE_PATTERN_WINDOWS)
        if d.mode == FE_LOAD_RECONNECT and depth != 1:
            raise ValueError(f"depth must be 1 in mode 'reconnect', not {depth}")
        self.timeout = within("timeout", timeout, 0.001, 1e6)
        d.load.timeout_ns = <uint64_t>(self.timeout * 1e9)
        self._set_schedule(mode, rate, schedule, phase, seed64)
        self._set_targets(targets, sources)
        if udp:
            udp_check(mode, frame, [size] if hasattr(size, "__index__") else size, prefix, suffix,
                      {"sendfile": sendfile, "proxy": proxy, "identify": identify})
        self._set_messages(size, frame, b"" if udp else prefix, b"" if udp else suffix, seed64)
        self._allocate()
        if udp:
            d.udp = udp_new(&d.load, self.noise_size - FE_PATTERN_WINDOWS, seed64, <const char *>prefix,
                            len(prefix), <const char *>suffix, len(suffix))
            if d.udp == NULL:
                raise MemoryError(f"no memory for datagrams of {connections} connections")
        if identify and not greetings_expect(&d.greetings, d.load.count):
            raise MemoryError(f"no memory for {d.load.count} connections")
        d.epfd = _checked(_sys.sys_epoll_create(), "epoll_create1")
        if d.mode == FE_LOAD_OPEN_LOOP:
            d.timer_fd = _checked(_sys.sys_timerfd(), "timerfd_create")
            # Edge-triggered: an expiry is told once and need not be read.
            _checked(_sys.sys_epoll_ctl(d.epfd, _sys.EPOLL_CTL_ADD, d.timer_fd,
                                        _sys.EPOLLIN | _sys.EPOLLET, d.load.count), "epoll_ctl")

    def __dealloc__(self):
        self._release()

    cdef int _set_schedule(self, mode, double rate, schedule, double phase,
                           uint64_t seed) except -1:
        cdef fe_schedule *s = &self.d.load.schedule
        s.is_poisson = _choice("schedule", schedule, {"fixed": False, "poisson": True})
        s.phase = within("phase", phase, 0.0, 1.0)
        s.seed = seed
        if (self.d.mode == FE_LOAD_OPEN_LOOP) != (rate != 0):
            raise ValueError(f"rate must be given in mode 'open' only, not {rate} in {mode!r}")
        if self.d.mode == FE_LOAD_OPEN_LOOP:
            s.interval_ns = 1e9 / within("rate", rate, 0.001, 1e7)
        return 0

    cdef int _set_targets(self, targets, sources) except -1:
        cdef Drive *d = &self.d
        cdef Target *target
        cdef bytes address, joined
        cdef int family
        targets = list(targets)
        within("the number of targets", len(targets), 1, 65536)
        d.targets = <Target *>calloc(len(targets), sizeof(Target))
        if d.targets == NULL:
            raise MemoryError(f"no memory for {len(targets)} targets")
        d.target_count = <uint32_t>len(targets)
        each = (d.load.count + d.target_count - 1) // d.target_count
        self.packed = []
        for i, (family, where) in enumerate(targets):
            address = packed(family, where)
            origin = (packed_sources(family, where, sources) if sources else
                      [packed(family, (host, 0))
                       for host in default_sources(family, address, d.mode, each)])
            joined = b"".join(origin)
            self.packed += [address, joined]
            target = &d.targets[<size_t>i]
            target.family = family
            target.address = address
            target.size = <uint32_t>len(address)
            target.sources = joined
            target.source_count = <uint32_t>len(origin)
            target.source_size = <uint32_t>len(origin[0]) if origin else 0
        return 0

    cdef int _set_messages(self, size, frame, bytes prefix, bytes suffix,
                           uint64_t seed) except -1:
        """Sizes, frames and the bytes that all messages are windows of."""
        cdef fe_pattern *pattern = &self.d.load.pattern
        cdef int kind = _choice("frame", frame, _FRAMES)
        cdef uint64_t largest
        is_table = not hasattr(size, "__index__")
        if is_table:
            within("the number of sizes", len(size), 1, FE_PATTERN_MAX_SIZES)
            if self.d.by_sendfile:
                raise ValueError(f"sendfile needs one size, not a table of {len(size)}")
        for one in size if is_table else (size,):
            within("size", one, 1, FE_PATTERN_MAX_SIZE)
        for name, affix in (("prefix", prefix), ("suffix", suffix)):
            within(f"the length of {name}", len(affix), 0, FE_PATTERN_MAX_AFFIX)
            if affix and kind == FE_PATTERN_RAW:
                raise ValueError(f"{name} needs frame 'line' or 'length', not 'raw'")
        largest = max(size) if is_table else size
        _checked(fe_pattern_init(pattern, kind, largest, seed, <const char *>prefix,
                                 len(prefix), <const char *>suffix, len(suffix)), "pattern")
        if is_table:
            self._set_sizes(size)
        return self._make_noise(largest, seed, kind)

    cdef int _set_sizes(self, table) except -1:
        cdef size_t i, count = len(table)
        cdef uint32_t *sizes = <uint32_t *>malloc(count * sizeof(uint32_t))
        self.sizes = <fe_size *>malloc(count * sizeof(fe_size))
        try:
            if sizes == NULL or self.sizes == NULL:
                raise MemoryError(f"no memory for {count} sizes")
            for i in range(count):
                sizes[i] = table[i]
            fe_pattern_vary(&self.d.load.pattern, sizes, self.sizes, <uint32_t>count)
        finally:
            free(sizes)
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
        l.pasts = <fe_load_past *>calloc(l.count, sizeof(fe_load_past))
        l.times = l.given = <uint64_t *>calloc(l.count * places, sizeof(uint64_t))
        l.latency = _new_histogram()
        l.connect = _new_histogram()
        if d.mode == FE_LOAD_OPEN_LOOP:
            l.given = <uint64_t *>calloc(l.count * places, sizeof(uint64_t))
            l.service = _new_histogram()
            l.lateness = _new_histogram()
        l.ring = <uint32_t *>calloc(l.count, sizeof(uint32_t))
        l.touched = <uint32_t *>calloc(l.count, sizeof(uint32_t))
        d.buffer = <unsigned char *>malloc(RECV_SIZE)
        d.scratch = <unsigned char *>malloc(SCRATCH_SIZE)
        d.events = <_sys.epoll_event *>malloc(EVENTS * sizeof(_sys.epoll_event))
        if (l.connections == NULL or l.pasts == NULL or l.times == NULL or l.given == NULL
                or l.ring == NULL or l.touched == NULL or l.latency == NULL or l.connect == NULL
                or d.mode == FE_LOAD_OPEN_LOOP and (l.service == NULL or l.lateness == NULL)
                or d.buffer == NULL or d.scratch == NULL or d.events == NULL):
            raise MemoryError(f"no memory for {l.count} connections of depth {l.depth}")
        for i in range(l.count):
            l.connections[i].fd = -1
            l.connections[i].first = <uint16_t>fe_pattern_first(&l.pattern, i)
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
        greetings_free(&d.greetings, l.count)
        udp_free(d.udp)
        d.udp = NULL
        free(l.connections)
        if l.given != l.times:
            free(l.given)
        free(l.times)
        free(l.ring)
        free(l.touched)
        free(l.pasts)
        free(l.latency)
        free(l.connect)
        free(l.service)
        free(l.lateness)
        free(self.sizes)
        free(d.targets)
        free(d.buffer)
        free(d.scratch)
        free(d.events)
        memset(l, 0, sizeof(fe_load))
        self.noise = d.buffer = d.scratch = NULL
        self.sizes = NULL
        d.targets = NULL
        d.events = NULL
        d.alive = d.connecting = 0

    # --- the way in from Python -------------------------------------------------------------

    cdef int _enter(self) except -1:
        """Takes the lock, without waiting: two threads at once are a mistake, not a queue."""
        if not self.lock.acquire(False):
            raise RuntimeError("another thread is in a method of this load")
        if self.d.epfd < 0:
            self.lock.release()
            raise RuntimeError("the load is closed")
        return 0

    cdef int _begin(self) except -1:
        """Counting starts anew, once the last run is told."""
        if self.told:
            fe_load_forget(&self.d.load.counts)
            fe_instances_forget(&self.d.greetings.instances)
            self.told = False
        return 0

    cdef int _drive(self, bint runs) except -1:
        """Runs, as drive_start_run() has set it up, or connects. Interrupted or failed, every
        connection is closed: nothing of a broken-off run is left in flight."""
        cdef Drive *d = &self.d
        cdef uint64_t slice_ns = <uint64_t>-1  # for ever
        cdef int rc = 0
        if threading.get_ident() == threading.main_thread().ident:
            slice_ns = SIGNALS_NS
        try:
            while rc == 0:
                PyErr_CheckSignals()
                with nogil:
                    rc = drive_run(d, slice_ns) if runs else drive_connect(d, slice_ns)
            return _checked(rc, "epoll_wait")
        except BaseException:
            self._drop_all()
            raise

    cdef void _drop_all(self) noexcept:
        """Closes every connection and forgets what was counted."""
        cdef uint32_t i
        self.d.runs = self.d.sends = False
        fe_instances_forget(&self.d.greetings.instances)
        for i in range(self.d.load.count):
            if self.d.load.connections[i].state != FE_LOAD_CLOSED:
                drive_end(&self.d, &self.d.load.connections[i], -1, 0)
        fe_load_forget(&self.d.load.counts)

    def connect(self):
        """Open every connection that is not open; at most 64 connects are under way at once."""
        self._enter()
        try:
            if self.d.mode == FE_LOAD_RECONNECT:
                return
            self._begin()
            drive_start_connecting(&self.d)
            self._drive(False)
            if self.d.failed:
                fe_load_forget(&self.d.load.counts)
                _checked(-self.d.first_error,
                         f"{self.d.failed} of {counted(self.d.load.count, 'connection')} failed")
        finally:
            self.lock.release()

    def disconnect(self):
        """Close every connection by FIN; connect() opens new ones."""
        self._enter()
        self._drop_all()
        self.lock.release()

    def run(self, double seconds, *, messages=None, double warmup=0.0, double ramp=0.0,
            start_ns=None):
        """Send for `seconds`, then collect what is outstanding: nothing stays in flight."""
        cdef Drive *d = &self.d
        cdef uint64_t begin_ns = 0
        cdef uint64_t left = <uint64_t>-1
        cdef bint opens = ramp > 0 or d.reopens or d.mode == FE_LOAD_RECONNECT
        within("seconds", seconds, 1e-6, 1e6)
        within("warmup", warmup, 0.0, 1e6)
        within("ramp", ramp, 0.0, 1e6)
        if messages is not None:
            left = within("messages", messages, 1, 2**63)
        if start_ns is not None:
            begin_ns = within("start_ns", start_ns, 0, _sys.sys_now_ns() + HOUR_NS)
        self._enter()
        try:
            if fe_load_open(&d.load) == 0 and not opens:
                raise RuntimeError("no connection is open: connect() first")
            self._begin()
            d.load.left = left
            drive_start_run(d, begin_ns, <uint64_t>(warmup * 1e9), <uint64_t>(seconds * 1e9),
                            <uint64_t>(ramp * 1e9), opens)
            self._drive(True)
            self.told = True
            return self._result()
        finally:
            self.lock.release()

    cdef dict _result(self):
        cdef fe_load_counts *counts = &self.d.load.counts
        result = numbers(counts)
        result["failures"] = [
            (int(counts.failures[i].at_ns) - int(counts.window_ns),
             described(&counts.failures[i], self.timeout)) for i in range(counts.described)]
        return result

    def snapshot(self):
        """Return what the run under way has counted so far; after a run, what it had counted."""
        with self.reading:
            return numbers(&self.d.load.counts)

    def instances(self):
        """Return what each instance has answered, as the lines name it; empty without identify."""
        self._enter()
        try:
            return told_instances(&self.d.greetings)
        finally:
            self.lock.release()

    @property
    def unidentified(self):
        """The target of the first connection that began by no line, and what came instead."""
        cdef Greetings *all_ = &self.d.greetings
        if not all_.is_wrong:
            return None
        return (all_.connection % self.d.target_count,
                (<const char *>all_.instead)[:all_.instead_used])

    def stop(self, *, bint collect=True):
        """End the window of the run under way now, or the one of the next run at once."""
        fe_atomic_store(&self.d.stop, STOP_WINDOW if collect else STOP_RUN)

    def histogram(self, name="latency"):
        """Return a copy of the nanoseconds recorded since the last reset(). Any thread."""
        cdef Histogram copy = Histogram()
        cdef fe_histogram *source
        if name not in _HISTOGRAMS:
            raise ValueError(f"name must be one of {', '.join(_HISTOGRAMS)}, not {name!r}")
        with self.reading:
            if self.d.epfd < 0:
                raise RuntimeError("the load is closed")
            if name == "latency":
                source = self.d.load.latency
            elif name == "connect":
                source = self.d.load.connect
            elif name == "service":
                source = self.d.load.service
            else:
                source = self.d.load.lateness
            if source != NULL:
                fe_histogram_copy(copy.h, source)
        return copy

    def reset(self):
        """Empty all histograms."""
        cdef fe_load *l = &self.d.load
        self._enter()
        with self.reading:
            fe_histogram_reset(l.latency)
            fe_histogram_reset(l.connect)
            if l.service != NULL:
                fe_histogram_reset(l.service)
                fe_histogram_reset(l.lateness)
        self.lock.release()

    def close(self):
        """Close every connection and free the memory; idempotent."""
        if self.d.epfd >= 0:
            self._enter()
            with self.reading:
                self._release()
            self.lock.release()

    @property
    def failed_target(self):
        """Which of the targets the first connect that failed went to, by its index."""
        return self.d.first_failed

    @property
    def connections_open(self):
        """Connections that are open now."""
        return fe_load_open(&self.d.load)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
