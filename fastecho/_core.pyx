# cython: language_level=3
"""The server's core: workers that echo without the GIL.

Lives here: Core, the one object that server.py talks to. Does not live here: the loop (_loop.pxd),
bytes (_stream.pxd), connections (_connection.pxd), newcomers (_accept.pxd), what mailbox messages
do (_orders.pxd), anything that a user configures (config.py) or sees (server.py).

Core imports nothing of ours from Python. Configuration arrives as plain numbers, statistics
leave as plain numbers, errors as OSError.
"""

import os

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport ENOMEM
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from fastecho._accept cimport accept_watch
from fastecho._cdefs cimport *
from fastecho._log cimport log_wake
from fastecho._loop cimport worker_fail, worker_run
from fastecho._poll cimport (
    Mailbox, Message, mailbox_close, mailbox_close_descriptors, mailbox_free, mailbox_open,
    mailbox_post, mailbox_take, pthread_cond_timedwait, pthread_cond_wait, pthread_mutex_lock,
    pthread_mutex_unlock,
)
from fastecho._worker cimport (
    MESSAGE_ABORT, MESSAGE_CONNECTION, MESSAGE_DRAIN, MESSAGE_LIMITS, MESSAGE_LOOK,
    MESSAGE_STOP_ACCEPTING, MESSAGE_VERDICT, Limits, Listener, Shared, Worker, shared_close_locks,
    shared_open_locks, worker_close_descriptors, worker_free, worker_open,
)
cimport fastecho._sys as _sys


cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t size)


cdef enum:
    # Entries of the access log that become Python objects at a time.
    LOG_ENTRIES_MAX = 1000


# --- Python --------------------------------------------------------------------------------

cdef void close_once(int *fd) noexcept nogil:
    """Closes a descriptor and forgets it."""
    if fd[0] >= 0:
        _sys.sys_close(fd[0])
        fd[0] = -1


cdef _sys.timespec time_in(uint64_t ms) noexcept nogil:
    """The time of the monotonic clock in so many ms."""
    cdef uint64_t at_ns = _sys.sys_now_ns() + ms * 1000000
    cdef _sys.timespec at
    at.tv_sec = <long>(at_ns // 1000000000)
    at.tv_nsec = <long>(at_ns % 1000000000)
    return at


cdef object os_error(int rc, str what):
    """The OSError for -errno."""
    return OSError(-rc, f"{what}: {os.strerror(-rc)}")


cdef dict named_counters(const fe_counters *n):
    """Every counter by its name."""
    cdef int i
    values = {}
    for i in range(FE_COUNTER_COUNT):
        values[fe_counter_name(i).decode("ascii")] = fe_counter_get(n, i)
    return values


cdef dict counted_errnos(const fe_counters *n):
    """Number to count, of those that were seen."""
    cdef int i
    values = {}
    for i in range(FE_ERRNOS):
        count = fe_counter_read(&n.errnos[i])
        if count:
            values[i] = count
    return values


@cython.final
cdef class Core:
    """All workers of one server.

    Args:
        threads: number of workers, each to be run by a thread of its own.
        listeners: (fd, worker, owned, is_unix) for each listener; worker -1: all accept from
            it. The descriptors stay the caller's and stay open until accepting has ended.
        frame: 0 recv, 1 line, 2 length.
        prefix, suffix: bytes put around each frame.
        max_frame, high_water, low_water: bytes.
        spin_us: how long to poll before blocking; 0 for not at all.
        admits: newcomers wait for verdict().
        queues: newcomers above max_connections stay in the kernel's queue.
        limits: the keywords of set_limits().
        log_sample: of so many connections one has an entry in the access log; 0: none has.
        log_rate: entries a second; 0: no limit.
    Raises:
        OSError: epoll, eventfd or memory was refused; nothing is left behind.
    Thread: any thread may call any method; run() once for each worker.
    """
    cdef Shared *shared
    cdef bint listeners_left
    cdef bint is_copy
    cdef bytes prefix
    cdef bytes suffix

    def __cinit__(self, int threads, list listeners, int frame, bytes prefix, bytes suffix,
                  size_t max_frame, size_t high_water, size_t low_water, uint64_t spin_us,
                  bint admits, bint queues, dict limits not None, uint64_t log_sample, uint64_t log_rate):
        cdef Shared *shared = <Shared *>calloc(1, sizeof(Shared))
        cdef Worker *w
        cdef size_t size
        cdef int i, rc
        if shared == NULL:
            raise os_error(-ENOMEM, "could not prepare a server")
        self.shared = shared
        self.prefix = prefix
        self.suffix = suffix
        shared.admissions.wake_fd = -1
        shared_open_locks(shared)
        fe_peers_init(&shared.peers, int.from_bytes(os.urandom(8), "big"))
        self.set_limits(**limits)
        shared.admits = admits
        shared.queues = queues
        shared.log_sample = log_sample
        fe_rate_set(&shared.log_rate, log_rate)
        shared.listeners = <Listener *>calloc(max(len(listeners), 1), sizeof(Listener))
        size = threads * sizeof(Worker)
        shared.workers = <Worker *>aligned_alloc(64, (size + 63) & ~<size_t>63)
        if shared.listeners == NULL or shared.workers == NULL:
            raise os_error(-ENOMEM, "could not prepare a server")
        memset(shared.workers, 0, size)
        for i, (fd, worker, owned, is_unix) in enumerate(listeners):
            shared.listeners[i] = Listener(fd, worker, owned, is_unix)
        shared.listener_count = len(listeners)
        rc = mailbox_open(&shared.admissions)
        if rc < 0:
            raise os_error(rc, "eventfd")
        for i in range(threads):
            w = &shared.workers[i]
            w.stream.framing.kind = frame
            w.stream.framing.prefix = prefix
            w.stream.framing.prefix_size = len(prefix)
            w.stream.framing.suffix = suffix
            w.stream.framing.suffix_size = len(suffix)
            w.stream.framing.max_frame = max_frame
            # Raw echo stops reading while anything is pending: reading on gained nothing.
            raw = frame == FE_FRAME_RECV and not prefix and not suffix
            w.stream.high_water = 1 if raw else high_water
            w.stream.low_water = 0 if raw else low_water
            w.spin.span_ns = spin_us * 1000
            shared.worker_count = i + 1
            rc = worker_open(w, shared, i)
            if rc < 0:
                raise os_error(rc, "could not prepare a worker")
        for i in range(threads):
            rc = accept_watch(&shared.workers[i])
            if rc < 0:
                raise os_error(rc, "epoll_ctl on a listener")
            shared.workers[i].accepting = True
        shared.accepting = shared.running = threads

    def __dealloc__(self):
        cdef int i
        # In a forked child a thread that is no more may have held any lock and any pointer.
        if self.shared == NULL or self.is_copy:
            return
        self._release()
        self._end_admissions()
        for i in range(self.shared.worker_count):
            mailbox_free(&self.shared.workers[i].mailbox)
            fe_log_ring_free(&self.shared.workers[i].log)
        mailbox_free(&self.shared.admissions)
        shared_close_locks(self.shared)
        fe_peers_free(&self.shared.peers)
        free(self.shared.workers)
        free(self.shared.listeners)
        free(self.shared)

    def run(self, int worker):
        """Runs a worker's loop in this thread until it was told to end and has ended.

        Returns:
            bool: False if the worker was given up before this thread came to run it; leave() is
            called after everything else.
        Raises:
            OSError: epoll_wait keeps failing; the worker's connections were reset.
        Thread: one thread a worker. The GIL is released throughout.
        """
        cdef Worker *w = &self.shared.workers[worker]
        cdef int rc
        if not fe_atomic_raise_from(&w.claimed, 0):
            return False
        with nogil:
            rc = worker_run(w)
        if rc < 0:
            raise os_error(rc, "epoll_wait")
        return True

    def leave(self):
        """A thread has come back from run().

        Returns:
            int: workers that still run; who gets 0 ends the server.
        """
        return fe_atomic_add(&self.shared.running, -1)

    def give_up(self):
        """Ends the server while its threads are still being started.

        Workers that no thread has come to run are ended here; their run() will return False.

        Returns:
            bool: True if it has ended here; False: a worker that leaves will end it, or has.
        """
        cdef int i, n = 0
        for i in range(self.shared.worker_count):
            if fe_atomic_raise_from(&self.shared.workers[i].claimed, 0):
                worker_fail(&self.shared.workers[i])
                n += 1
        self.abort()
        return n > 0 and fe_atomic_add(&self.shared.running, -n) == 0

    cdef void _tell(self, int kind, int64_t value, int64_t value2) noexcept:
        """Posts to every worker that still reads its mailbox."""
        cdef Message message
        cdef int i
        memset(&message, 0, sizeof(message))
        message.kind = kind
        message.fd = -1
        message.value = value
        message.value2 = value2
        for i in range(self.shared.worker_count):
            mailbox_post(&self.shared.workers[i].mailbox, &message, True)

    def set_limits(self, *, int64_t max_connections, uint32_t max_per_ip, uint32_t ipv6_prefix,
                   uint64_t accept_rate, uint64_t idle_timeout_ms,
                   uint64_t first_byte_timeout_ms):
        """Changes the limits of the running server; no connection is ended for one at once.

        max_connections is -1 for no limit, all others 0. max_per_ip is the number of connections
        of one address, of which ipv6_prefix bits count; accept_rate is newcomers a second.
        """
        cdef Shared *shared = self.shared
        cdef Limits changed
        changed.max_connections = max_connections
        changed.max_per_ip = max_per_ip
        changed.ipv6_prefix = ipv6_prefix
        changed.idle_timeout_ms = idle_timeout_ms
        changed.first_byte_timeout_ms = first_byte_timeout_ms
        pthread_mutex_lock(&shared.limits_lock)
        shared.limits = changed
        pthread_mutex_unlock(&shared.limits_lock)
        fe_rate_set(&shared.accept_rate, accept_rate)
        self._tell(MESSAGE_LIMITS, 0, 0)

    def stop_accepting(self, int64_t grace_ms):
        """Ends accepting: connections established by then are accepted, new ones are not begun.

        grace_ms: how long to wait for handshakes that are under way. An inherited listener is
        left as it is: somebody else may go on accepting from it. Returns at once; see
        wait_not_accepting().
        """
        cdef Listener *l
        cdef int i
        pthread_mutex_lock(&self.shared.accept_lock)
        for i in range(self.shared.listener_count):
            l = &self.shared.listeners[i]
            if l.owned and not l.is_unix and not self.listeners_left:
                # Where the kernel refuses the filter, the race stays open.
                _sys.sys_drop_new_connections(l.fd)
        self.listeners_left = True
        pthread_mutex_unlock(&self.shared.accept_lock)
        self._tell(MESSAGE_STOP_ACCEPTING, grace_ms, 0)

    def leave_listeners(self):
        """Whoever opened the listeners is about to close them: they are not touched any more."""
        pthread_mutex_lock(&self.shared.accept_lock)
        self.listeners_left = True
        pthread_mutex_unlock(&self.shared.accept_lock)

    def drain(self, int64_t deadline_ms, int64_t idle_ms):
        """Connections that are quiet for idle_ms end by FIN, at the deadline all by RST; then
        run() returns. Accepting is ended by stop_accepting(), called before."""
        self._tell(MESSAGE_DRAIN, deadline_ms, idle_ms)

    def abort(self):
        """Everything ends now: RST to every connection; then run() returns."""
        self._tell(MESSAGE_ABORT, 0, 0)

    def wait_not_accepting(self, uint64_t timeout_ms):
        """True once no worker accepts any more, False after the timeout."""
        cdef Shared *shared = self.shared
        cdef _sys.timespec until = time_in(timeout_ms)
        cdef int rc = 0
        with nogil:
            pthread_mutex_lock(&shared.accept_lock)
            while fe_atomic_load(&shared.accepting) != 0 and rc == 0:
                rc = pthread_cond_timedwait(&shared.accept_ended, &shared.accept_lock, &until)
            pthread_mutex_unlock(&shared.accept_lock)
        return fe_atomic_load(&shared.accepting) == 0

    def admissions(self, int timeout_ms):
        """Newcomers that wait for a verdict, oldest first; empty after the timeout or wake().

        Returns:
            list of (worker, slot, generation, listener, number, address, queue_wait_ms):
            address is the raw sockaddr as bytes, queue_wait_ms is negative where unknown.
        Thread: one thread, the one that runs the accept callback.
        """
        cdef Message *messages
        cdef Message *m
        cdef uint32_t i, n
        cdef int fd = self.shared.admissions.wake_fd
        with nogil:
            _sys.sys_wait_readable(fd, timeout_ms)
            n = mailbox_take(&self.shared.admissions, &messages)
        newcomers = []
        for i in range(n):
            m = &messages[i]
            if m.kind == MESSAGE_CONNECTION:
                address = PyBytes_FromStringAndSize(<char *>m.address, m.address_size)
                newcomers.append((m.worker, m.slot, m.generation, m.listener, m.number, address,
                                  m.value))
        return newcomers

    def wake(self):
        """Makes admissions() return."""
        cdef Message message
        memset(&message, 0, sizeof(message))
        message.kind = MESSAGE_LOOK
        message.fd = -1
        mailbox_post(&self.shared.admissions, &message, True)

    def verdict(self, uint32_t worker, uint32_t slot, uint32_t generation, bint accept):
        """Serves or aborts a newcomer that admissions() gave; nothing happens when it is gone.

        Returns:
            bool: False if there was no memory to say so: to be called again.
        """
        cdef Message message
        memset(&message, 0, sizeof(message))
        message.kind = MESSAGE_VERDICT
        message.fd = -1
        message.slot = slot
        message.generation = generation
        message.value = accept
        return mailbox_post(&self.shared.workers[worker].mailbox, &message) != -ENOMEM

    def news(self, int timeout_ms):
        """Waits until a worker has something for the log, wake_log() was called, or the timeout
        is over; negative: without one.

        Returns:
            tuple: newcomers shed for want of a descriptor, times that accepting rested, and entries
            of the access log that were dropped, each since the start.
        Thread: one thread, the one that writes the log.
        """
        cdef Shared *shared = self.shared
        cdef _sys.timespec until = time_in(max(timeout_ms, 0))
        cdef int i, rc = 0
        with nogil:
            pthread_mutex_lock(&shared.news_lock)
            while not shared.has_news and rc == 0:
                if timeout_ms < 0:
                    pthread_cond_wait(&shared.news, &shared.news_lock)
                else:
                    rc = pthread_cond_timedwait(&shared.news, &shared.news_lock, &until)
            shared.has_news = False
            pthread_mutex_unlock(&shared.news_lock)
        shed = pauses = dropped = 0
        for i in range(shared.worker_count):
            shed += fe_counter_read(&shared.workers[i].counters.shed_no_descriptors)
            pauses += fe_counter_read(&shared.workers[i].counters.accept_pauses)
            dropped += fe_counter_read(&shared.workers[i].counters.access_log_dropped)
        return shed, pauses, dropped

    def log_entries(self, int worker):
        """Entries of the access log that a worker has finished, oldest first, at most 1,000.

        Returns:
            list of (number, address, listener, began_ns, ended_ns, bytes_in, bytes_out, reason,
            error): address is the raw sockaddr as bytes, reason one of src_c/connection.h's names,
            error an errno or 0, number 0 for a newcomer that was refused. Times are of the
            monotonic clock.
        Thread: as news().
        """
        cdef fe_log_ring *ring = &self.shared.workers[worker].log
        cdef fe_log_entry e
        entries = []
        while len(entries) < LOG_ENTRIES_MAX and fe_log_take(ring, &e):
            address = PyBytes_FromStringAndSize(<char *>e.address, e.address_size)
            entries.append((e.number, address, e.listener, e.began_ns, e.ended_ns, e.bytes_in,
                            e.bytes_out, fe_reason_name(e.reason).decode("ascii"), e.error))
        return entries

    def wake_log(self):
        """Makes news() return."""
        log_wake(self.shared)

    def counters(self):
        """What each worker has counted so far.

        Returns:
            list of dict, one a worker: every counter of src_c/counters.h by name, and
            bytes_pending, connections_placed, and errnos, a dict of number to count.
        Thread: any; no worker is disturbed.
        """
        cdef fe_counters *n
        cdef int i
        # Closed first: what closed was accepted before, so open never turns negative.
        closed = [fe_counter_read(&self.shared.workers[i].counters.connections_closed)
                  for i in range(self.shared.worker_count)]
        result = []
        for i in range(self.shared.worker_count):
            n = &self.shared.workers[i].counters
            values = named_counters(n)
            values["connections_closed"] = closed[i]
            values["bytes_pending"] = fe_counter_read(&n.bytes_pending)
            values["connections_placed"] = fe_atomic_load(&self.shared.workers[i].placed)
            values["errnos"] = counted_errnos(n)
            result.append(values)
        return result

    def release(self):
        """Gives back the workers' buffers and descriptors; counters() goes on working.

        All run() have returned. The other methods may still be called: what they post is refused.
        """
        self._release()

    cdef void _release(self) noexcept:
        cdef int i
        for i in range(self.shared.worker_count):
            worker_free(&self.shared.workers[i])
            close_once(&self.shared.workers[i].mailbox.wake_fd)

    def end_admissions(self):
        """Closes what admissions() waits for; its thread has left it for good."""
        self._end_admissions()

    cdef void _end_admissions(self) noexcept:
        mailbox_close(&self.shared.admissions)
        close_once(&self.shared.admissions.wake_fd)

    def close_in_child(self):
        """After fork, in the child: closes its copies of the descriptors, and does nothing else
        that the parent or a peer could notice."""
        cdef Mailbox *box
        cdef int i
        self.is_copy = True
        for i in range(self.shared.worker_count):
            box = &self.shared.workers[i].mailbox
            mailbox_close_descriptors(box.filling, box.filled)
            mailbox_close_descriptors(box.reading, box.read_count)
            worker_close_descriptors(&self.shared.workers[i])
            close_once(&self.shared.workers[i].mailbox.wake_fd)
        close_once(&self.shared.admissions.wake_fd)
