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
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from fastecho._accept cimport accept_watch
from fastecho._callbacks cimport block_set, callbacks_call, callbacks_open
from fastecho._cdefs cimport *
from fastecho._handle cimport ask, is_here, write_here, write_there
from fastecho._listeners cimport listeners_leave, listeners_share
from fastecho._log cimport log_wait, log_wake
from fastecho._loop cimport worker_fail, worker_run
from fastecho._messages cimport LINK_CLOSING, LINK_OPEN, LINK_WROTE_EOF, Link, Messages
from fastecho._objects cimport (
    counters_of, datagrams_into, ended_of, entries_of, fault_into, framing_into, front_into,
    listeners_into, newcomers_of, proxy_of, troubles_of,
)
from fastecho._poll cimport (
    Mailbox, Message, mailbox_close, mailbox_close_descriptors, mailbox_free, mailbox_open,
    mailbox_post, mailbox_take, pthread_cond_timedwait, pthread_mutex_lock, pthread_mutex_unlock,
    pthread_self,
)
from fastecho._samples cimport samples_of
from fastecho._udp cimport datagrams_watch
from fastecho._worker cimport (
    MESSAGE_ABORT, MESSAGE_DRAIN, MESSAGE_LIMITS, MESSAGE_LOOK, MESSAGE_ROOM,
    MESSAGE_STOP_ACCEPTING, MESSAGE_VERDICT, WISH_CLOSE, WISH_EOF, WISH_PAUSE, WISH_RESET,
    WISH_RESUME, Limits, Shared, Worker, shared_close_locks, shared_free, shared_open_locks,
    worker_began, worker_close_descriptors, worker_ended, worker_free, worker_open,
)
cimport fastecho._sys as _sys


cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t size)


# --- Python --------------------------------------------------------------------------------

cdef object os_error(int rc, str what):
    """The OSError for -errno."""
    return OSError(-rc, f"{what}: {os.strerror(-rc)}")


# Who has it may make a Connection: without a link it would be a null pointer.
cdef object MAKER = object()


cdef object make_connection(object core, Link *link):
    """The handle of a link, which is its from now on."""
    cdef Connection connection = Connection.__new__(Connection, MAKER)
    connection.core = <Core>core
    connection.link = link
    return connection


def reason_names():
    """Why connections end, by number: the names of src_c/connection.h."""
    return [fe_reason_name(<int>i).decode("ascii") for i in range(<int>FE_REASONS)]


def proxy_error_name(int error):
    """What is wrong with a PROXY header, by the number that news() gives: src_c/proxy.h."""
    return fe_proxy_error_name(error).decode("ascii")


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
        calls: a callbacks.Callbacks, or None: then no worker ever takes the GIL.
        front: what stands before a connection's first byte: _objects.front_into().
        datagrams: sockets for datagrams, and which are answered: _objects.datagrams_into().
    Raises:
        OSError: epoll, eventfd or memory was refused; nothing is left behind.
    Thread: any thread may call any method; run() once for each worker.
    """
    cdef Shared *shared
    cdef bint is_copy
    cdef bytes prefix
    cdef bytes suffix
    cdef object calls

    def __cinit__(self, int threads, list listeners, int frame, bytes prefix, bytes suffix,
                  size_t max_frame, size_t high_water, size_t low_water, uint64_t spin_us,
                  bint admits, bint queues, dict limits not None, uint64_t log_sample,
                  uint64_t log_rate, object calls, dict front not None,
                  dict datagrams not None):
        cdef Shared *shared = <Shared *>calloc(1, sizeof(Shared))
        cdef Worker *w
        cdef size_t size
        cdef int i, rc
        if shared == NULL:
            raise os_error(-ENOMEM, "could not prepare a server")
        self.shared = shared
        self.prefix = prefix
        self.suffix = suffix
        self.calls = calls
        shared.admissions.wake_fd = -1
        shared_open_locks(shared)
        fe_peers_init(&shared.peers, int.from_bytes(os.urandom(8), "big"))
        self.set_limits(**limits)
        rc = (front_into(shared, front) or listeners_into(shared, listeners)
              or datagrams_into(shared, datagrams, prefix, suffix))
        shared.high_water = high_water
        shared.low_water = low_water
        shared.admits = admits
        shared.queues = queues
        shared.log_sample = log_sample
        fe_rate_set(&shared.log_rate, log_rate)
        size = threads * sizeof(Worker)
        shared.workers = <Worker *>aligned_alloc(64, (size + 63) & ~<size_t>63)
        if rc < 0 or shared.workers == NULL:
            raise os_error(-ENOMEM, "could not prepare a server")
        memset(shared.workers, 0, size)
        rc = mailbox_open(&shared.admissions)
        if rc < 0:
            raise os_error(rc, "eventfd")
        for i in range(threads):
            w = &shared.workers[i]
            framing_into(&w.stream.framing, frame, prefix, suffix, max_frame)
            # Raw echo stops reading while anything is pending: reading on gained nothing.
            raw = frame == FE_FRAME_RECV and not prefix and not suffix
            raw = raw and (calls is None or calls.on_message is None)
            w.stream.high_water = 1 if raw else high_water
            w.stream.low_water = 0 if raw else low_water
            w.spin.span_ns = spin_us * 1000
            shared.worker_count = i + 1
            rc = 0 if calls is None else callbacks_open(w, calls)
            if rc == 0:
                rc = worker_open(w, shared, i)
            if rc < 0:
                raise os_error(rc, "could not prepare a worker")
        for i in range(threads):
            rc = accept_watch(&shared.workers[i]) or datagrams_watch(&shared.workers[i])
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
        shared_free(self.shared)

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
        if w.messages != NULL:
            w.messages.thread = pthread_self()
        worker_began(w)
        while True:
            with nogil:
                rc = worker_run(w)
            if rc == 0 or w.messages == NULL:
                break
            if not callbacks_call(w, self, make_connection, self.calls) and rc == 1:
                rc = -ENOMEM
                with nogil:
                    worker_fail(w)
                callbacks_call(w, self, make_connection, self.calls)
            if self.is_copy:
                return False  # a callback has forked, and this is the child
            if rc < 0:
                break
        worker_ended(w)
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
                   uint64_t first_byte_timeout_ms, uint64_t datagram_interval_ns):
        """Changes the limits of the running server; no connection is ended for one at once.

        max_connections is -1 for no limit, all others 0. max_per_ip is the number of connections
        of one address, of which ipv6_prefix bits count; accept_rate is newcomers a second; of one
        address one datagram in datagram_interval_ns is answered.
        """
        cdef Shared *shared = self.shared
        cdef Limits changed
        changed.max_connections = max_connections
        changed.max_per_ip = max_per_ip
        changed.ipv6_prefix = ipv6_prefix
        changed.idle_timeout_ms = idle_timeout_ms
        changed.first_byte_timeout_ms = first_byte_timeout_ms
        changed.datagram_interval_ns = datagram_interval_ns
        pthread_mutex_lock(&shared.limits_lock)
        shared.limits = changed
        pthread_mutex_unlock(&shared.limits_lock)
        fe_rate_set(&shared.accept_rate, accept_rate)
        self._tell(MESSAGE_LIMITS, 0, 0)

    def set_fault(self, dict numbers, int64_t accept_delay_ms):
        """Changes the fault of connections that are served from now on.

        Args:
            numbers: what faults.py makes of a Fault; None for no fault.
            accept_delay_ms: how long accepting rests before newcomers are accepted.
        """
        cdef Shared *shared = self.shared
        cdef fe_fault fault
        if numbers is not None:
            fault_into(&fault, numbers)
            fault.base = fe_atomic_load(&shared.last_number)
            pthread_mutex_lock(&shared.limits_lock)
            shared.fault = fault
            pthread_mutex_unlock(&shared.limits_lock)
        fe_atomic_store(&shared.has_fault, numbers is not None)
        if fe_atomic_swap(&shared.accept_delay_ms, accept_delay_ms) != accept_delay_ms:
            self._tell(MESSAGE_ROOM, 0, 0)

    def stop_accepting(self, int64_t grace_ms):
        """Ends accepting: connections established by then are accepted, new ones are not begun.

        grace_ms: how long to wait for handshakes that are under way. An inherited listener is
        left as it is: somebody else may go on accepting from it. Returns at once; see
        wait_not_accepting().
        """
        listeners_leave(self.shared, True)
        self._tell(MESSAGE_STOP_ACCEPTING, grace_ms, 0)

    def leave_listeners(self):
        """Whoever opened the listeners is about to close them: they are not touched any more."""
        listeners_leave(self.shared, False)

    def share(self, list whose not None):
        """Says of each listener whether it is owned, and whether it was given away; see Listener.
        Every worker looks at all sockets anew: another process may have left somebody waiting."""
        listeners_share(self.shared, whose)
        self._tell(MESSAGE_ROOM, 1, 0)

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
        cdef _sys.timespec until = _sys.sys_time_in(timeout_ms)
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
            tuple: a list of (worker, slot, generation, listener, number, address, queue_wait_ms,
            proxy), where address is the raw sockaddr as bytes, queue_wait_ms negative where unknown
            and proxy None, or the sockaddr of whose header claims that address;
            and, where on_close has no on_message beside it, a list of (Connection, reason) of those
            that have ended, reason by its number.
        Thread: one thread, the one that runs the accept callback.
        """
        cdef Message *messages
        cdef uint32_t n
        cdef int fd = self.shared.admissions.wake_fd
        with nogil:
            _sys.sys_wait_readable(fd, timeout_ms)
            n = mailbox_take(&self.shared.admissions, &messages)
        return newcomers_of(messages, n), ended_of(self, make_connection, messages, n)

    def wake(self):
        """Makes admissions() return, and every worker go round once."""
        cdef Message message
        memset(&message, 0, sizeof(message))
        message.kind = MESSAGE_LOOK
        message.fd = -1
        mailbox_post(&self.shared.admissions, &message, True)
        self._tell(MESSAGE_LOOK, 0, 0)

    def verdict(self, uint32_t worker, uint32_t slot, uint32_t generation, bint accept,
                dict numbers=None):
        """Serves or aborts a newcomer that admissions() gave; nothing happens when it is gone.

        numbers: what faults.py makes of a Fault for it; None: the one in force, if any.

        Returns:
            bool: False if there was no memory to say so: to be called again.
        """
        cdef fe_fault *fault = NULL
        cdef fe_fault read
        cdef Message message
        cdef int rc
        if numbers is not None:
            fault_into(&read, numbers)
            fault = <fe_fault *>malloc(sizeof(fe_fault))
            if fault == NULL:
                return False
            fault[0] = read
        memset(&message, 0, sizeof(message))
        message.kind = MESSAGE_VERDICT
        message.fd = -1
        message.slot = slot
        message.generation = generation
        message.value = accept
        message.value2 = <int64_t>fault
        rc = mailbox_post(&self.shared.workers[worker].mailbox, &message)
        if rc < 0:
            free(fault)
        return rc != -ENOMEM

    def news(self, int timeout_ms):
        """Waits until a worker has something for the log, wake_log() was called, or the timeout
        is over; negative: without one.

        Returns:
            tuple: as troubles_of() has it, each since the start.
        Thread: one thread, the one that writes the log.
        """
        with nogil:
            log_wait(self.shared, timeout_ms)
        return troubles_of(self.shared)

    def log_entries(self, int worker):
        """Entries of the access log that a worker has finished, oldest first, at most 1,000.

        Returns:
            list of (number, address, listener, began_ns, ended_ns, bytes_in, bytes_out, reason,
            error, queue_wait_ms): address is the raw sockaddr as bytes, reason one of
            src_c/connection.h's names, error an errno or 0, number 0 for a newcomer that was
            refused, queue_wait_ms negative where unknown. Times are of the monotonic clock.
        Thread: as news().
        """
        return entries_of(&self.shared.workers[worker].log)

    def wake_log(self):
        """Makes news() return."""
        log_wake(self.shared)

    def highest_depths(self):
        """The deepest accept queue that a worker found at each listener; 0 of Unix listeners."""
        return [fe_atomic_load(&self.shared.listeners[i].highest)
                for i in range(self.shared.listener_count)]

    def samples(self, int most, uint64_t timeout_ms):
        """What the kernel knows of open TCP connections, each worker asking for its own.

        Returns:
            list of (number, address, rtt_us, rttvar_us, retransmissions), at most about `most`; and
            whether each worker has answered in time, a list of bool, or None: it has ended.
        """
        return samples_of(self.shared, most, timeout_ms)

    def counters(self):
        """What each worker has counted so far.

        Returns:
            list of dict, one a worker: every counter of src_c/counters.h by name, and
            bytes_pending, connections_placed, running_ns, busy_ns, queue_waits, a list, and errnos,
            a dict of number to count.
        Thread: any; no worker is disturbed.
        """
        return counters_of(self.shared)

    def release(self):
        """Gives back the workers' buffers and descriptors; counters() goes on working.

        All run() have returned. The other methods may still be called: what they post is refused.
        """
        self._release()

    cdef void _release(self) noexcept:
        cdef Messages *m
        cdef int i
        for i in range(self.shared.worker_count):
            m = self.shared.workers[i].messages
            if m != NULL and m.block != NULL:  # otherwise the arena is malloc's
                block_set(m, None)
            worker_free(&self.shared.workers[i])
            _sys.sys_close_once(&self.shared.workers[i].mailbox.wake_fd)

    def end_admissions(self):
        """Closes what admissions() waits for; its thread has left it for good."""
        self._end_admissions()

    cdef void _end_admissions(self) noexcept:
        mailbox_close(&self.shared.admissions)
        _sys.sys_close_once(&self.shared.admissions.wake_fd)

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
            _sys.sys_close_once(&self.shared.workers[i].mailbox.wake_fd)
        _sys.sys_close_once(&self.shared.admissions.wake_fd)


@cython.final
cdef class Connection:
    """A connection as message callbacks see it: writing to it, ending it, asking about it.

    One object for a connection's whole life; it stays good, and without effect, after the end.

    Attributes:
        id: its number among all that the server has accepted, from 1.
        peer: the remote end, a Peer.
        context: yours; None at first.
    Thread: every method may be called from any thread. In a callback of the same worker nothing
    is locked, and what is written leaves when the callbacks of this round have returned; elsewhere
    the worker is woken, once for many calls.
    """
    cdef Link *link
    cdef Core core
    cdef object _peer
    cdef public object context

    def __cinit__(self, maker=None):
        if maker is not MAKER:
            raise TypeError("a Connection is what callbacks are given; none can be made")

    def __dealloc__(self):
        free(self.link)

    def __repr__(self):
        state = ("open", "half-closed", "closing")[fe_atomic_load(&self.link.state)]
        return f"<fastecho.Connection {self.link.number} {state}>"

    @property
    def id(self):
        return self.link.number

    @property
    def peer(self):
        if self._peer is None:
            address = PyBytes_FromStringAndSize(<char *>self.link.address, self.link.address_size)
            proxy = proxy_of(self.link.is_claimed, self.link.proxy, self.link.proxy_size)
            self._peer = self.core.calls.peer(address, self.link.listener,
                                              self.link.queue_wait_ms, proxy)
        return self._peer

    def is_closing(self):
        """Tell whether it has ended or the server ends it, or close() or abort() was called."""
        return fe_atomic_load(&self.link.state) == LINK_CLOSING

    def write(self, data):
        """Send bytes behind all that was written before; with length frames, one frame.

        Args:
            data: bytes-like; copied.
        Returns:
            bool: False if high water is reached: better wait for on_drain. It was taken all the
            same, unless the connection is closing: then it is dropped, since every writer races
            with the peer.
        Raises:
            RuntimeError: write_eof() was called before.
            TypeError: it is not bytes-like.
        """
        if self.core.is_copy:
            return False
        if is_here(self.link):
            return write_here(self._worker(), self.link, data)
        return write_there(self._worker(), self.link, data)

    def writelines(self, lines):
        """Send each of an iterable of bytes-like, as write() does; the result is the last one's."""
        result = not self.is_closing()
        for line in lines:
            result = self.write(line)
        return result

    def write_eof(self):
        """Send FIN behind what was written; the peer may go on sending."""
        if fe_atomic_raise_from(&self.link.state, LINK_OPEN):
            self._ask(WISH_EOF)

    def close(self):
        """End it in order: what was written is sent, then FIN. No more is received."""
        if fe_atomic_swap(&self.link.state, LINK_CLOSING) != LINK_CLOSING:
            self._ask(WISH_CLOSE)

    def abort(self):
        """End it at once, by RST; what the kernel has not taken is lost. After close() as well."""
        fe_atomic_store(&self.link.state, LINK_CLOSING)
        self._ask(WISH_RESET)

    def pause_reading(self):
        """Deliver no further message, and receive none, until resume_reading()."""
        self._ask(WISH_PAUSE)

    def resume_reading(self):
        """Go on where pause_reading() has stopped; what was received meanwhile comes first."""
        self._ask(WISH_RESUME)

    cdef Worker *_worker(self) noexcept:
        return &self.core.shared.workers[self.link.worker]

    cdef int _ask(self, int wish) except -1:
        if not self.core.is_copy and ask(self._worker(), self.link, wish) == -ENOMEM:
            raise MemoryError("no memory to tell a worker")
        return 0
