# What leaves the core as Python objects: newcomers, entries of the access log, counters; and what
# comes in as such: a fault, framing.
#
# Lives here: turning structs into tuples and dicts. Does not live here: who asks for them
# (_core.pyx), what they mean (src_c, stats.py, reporter.py).

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport ENOMEM
from libc.stdint cimport int64_t, uint32_t, uint8_t
from libc.stdlib cimport calloc, malloc
from libc.string cimport memcpy

from fastecho._cdefs cimport *
from fastecho._datagram_cdefs cimport fe_guarding, fe_own_port
from fastecho._datagrams cimport DatagramSocket
cimport fastecho._sys as _sys
from fastecho._messages cimport Link, Maker
from fastecho._poll cimport Message
from fastecho._worker cimport MESSAGE_CONNECTION, MESSAGE_ENDED, Listener, Shared, Worker


cdef enum:
    # Entries of the access log that become Python objects at a time.
    LOG_ENTRIES_MAX = 1000


cdef inline int fault_into(fe_fault *f, dict numbers) except -1:
    """Reads what fastecho/faults.py makes of a Fault."""
    f.delay_ns = numbers["delay_ns"]
    f.jitter_ns = numbers["jitter_ns"]
    f.distribution = numbers["distribution"]
    f.flags = 0
    if numbers["no_read"]:
        f.flags |= FE_FAULT_NO_READ
    if numbers["deny"]:
        f.flags |= FE_FAULT_DENY
    if numbers["half_close"]:
        f.flags |= FE_FAULT_HALF_CLOSE
    f.bandwidth = numbers["bandwidth"]
    f.slice = numbers["slice"]
    f.gap_ns = numbers["gap_ns"]
    f.stall_after = numbers["stall_after"]
    f.close_after = numbers["close_after"]
    f.reset_after = numbers["reset_after"]
    f.corrupt = numbers["corrupt"]
    f.duplicate = numbers["duplicate"]
    f.probability = numbers["probability"]
    f.seed = numbers["seed"]
    f.fail_first = numbers["fail_first"]
    f.base = 0
    return 0


cdef inline void framing_into(fe_framing *f, int kind, bytes prefix, bytes suffix,
                              size_t max_frame) noexcept:
    """How bytes are cut into frames, and what is put around them: borrowed, the caller keeps it."""
    f.kind = kind
    f.prefix = prefix
    f.prefix_size = len(prefix)
    f.suffix = suffix
    f.suffix_size = len(suffix)
    f.max_frame = max_frame


cdef inline int front_into(Shared *shared, dict front) except 1:
    """What stands before a connection's first byte. proxy: 0 off, 1 optional, 2 required;
    proxy_timeout_ms; trusted: (is IPv6, address as bytes, bits) of each range that is believed;
    identity: how the line begins that says who answers, or None; service: 0 echo, 1 discard,
    2 chargen. The caller frees the copies.

    0 or -ENOMEM.
    """
    cdef list trusted = front["trusted"] if front["proxy"] else []
    cdef bytes identity = front["identity"]
    cdef fe_network *network
    cdef bytes address
    shared.began_ns = _sys.sys_now_ns()
    if front["service"]:
        shared.service = FE_PATH_DISCARD if front["service"] == 1 else FE_PATH_CHARGEN
    shared.proxy_mode = front["proxy"]
    shared.proxy_timeout_ms = front["proxy_timeout_ms"]
    if trusted:
        shared.trusted = <fe_network *>calloc(len(trusted), sizeof(fe_network))
        if shared.trusted == NULL:
            return -ENOMEM
    for is_ipv6, address, bits in trusted:
        network = &shared.trusted[shared.trusted_count]
        network.is_ipv6 = is_ipv6
        network.bits = bits
        memcpy(network.address, <const char *>address, min(len(address), 16))
        shared.trusted_count += 1
    if identity is not None:
        shared.identity = <unsigned char *>malloc(max(len(identity), 1))
        if shared.identity == NULL:
            return -ENOMEM
        memcpy(shared.identity, <const char *>identity, len(identity))
        shared.identity_size = len(identity)
    return 0


cdef inline int listeners_into(Shared *shared, list listeners) except 1:
    """(fd, worker, owned, is_unix) of each. 0 or -ENOMEM."""
    cdef int i
    shared.listeners = <Listener *>calloc(max(len(listeners), 1), sizeof(Listener))
    if shared.listeners == NULL:
        return -ENOMEM
    for i, (fd, worker, owned, is_unix) in enumerate(listeners):
        shared.listeners[i] = Listener(fd, worker, owned, is_unix, False, 0)
    shared.listener_count = len(listeners)
    return 0


cdef inline int datagrams_into(Shared *shared, dict datagrams, bytes prefix,
                               bytes suffix) except 1:
    """sockets: (fd, worker, port) of each socket for datagrams, worker -1: all receive from it;
    guards: whether ports, addresses and loops are looked at. prefix and suffix are borrowed. 0 or
    -ENOMEM."""
    cdef list sockets = datagrams["sockets"]
    cdef int i
    if not sockets:
        return 0
    shared.datagrams = <DatagramSocket *>calloc(len(sockets), sizeof(DatagramSocket))
    shared.guarding = <fe_guarding *>calloc(1, sizeof(fe_guarding))
    if shared.datagrams == NULL or shared.guarding == NULL:
        return -ENOMEM
    shared.guarding.is_on = datagrams["guards"]
    shared.guarding.prefix = prefix
    shared.guarding.prefix_size = len(prefix)
    shared.guarding.suffix = suffix
    shared.guarding.suffix_size = len(suffix)
    for i, (fd, worker, port) in enumerate(sockets):
        shared.datagrams[i] = DatagramSocket(fd, worker)
        fe_own_port(shared.guarding, port)
    shared.datagram_count = len(sockets)
    return 0


cdef inline object proxy_of(bint is_claimed, const uint8_t *proxy, uint32_t size):
    """The sockaddr of the proxy whose header told the address, empty of a Unix socket's; or None."""
    return PyBytes_FromStringAndSize(<const char *>proxy, size) if is_claimed else None


cdef inline list newcomers_of(const Message *messages, uint32_t n):
    """Those that wait for a verdict: (worker, slot, generation, listener, number, address,
    queue_wait_ms, proxy) each."""
    cdef const Message *m
    cdef uint32_t i
    newcomers = []
    for i in range(n):
        m = &messages[i]
        if m.kind == MESSAGE_CONNECTION:
            address = PyBytes_FromStringAndSize(<const char *>m.address, m.address_size)
            newcomers.append((m.worker, m.slot, m.generation, m.listener, m.number, address,
                              m.value, proxy_of(m.is_claimed, m.proxy, m.proxy_size)))
    return newcomers


cdef inline list ended_of(object core, Maker make, const Message *messages, uint32_t n):
    """Those that have ended: (Connection, reason) each. Their links are the handles'."""
    cdef Link *link
    cdef uint32_t i
    ended = []
    for i in range(n):
        if messages[i].kind == MESSAGE_ENDED:
            link = <Link *>messages[i].value
            ended.append((make(core, link), link.reason))
    return ended


cdef inline tuple troubles_of(Shared *shared):
    """Newcomers shed for want of a descriptor, times that accepting rested, lines dropped, PROXY
    headers refused, newcomers from where none is believed; datagrams not answered for their port,
    their address, their rate, a loop; and what was wrong with a header last."""
    cdef int i
    shed = pauses = dropped = refused = untrusted = port = address = rate = loop = 0
    for i in range(shared.worker_count):
        shed += fe_counter_read(&shared.workers[i].counters.shed_no_descriptors)
        pauses += fe_counter_read(&shared.workers[i].counters.accept_pauses)
        dropped += fe_counter_read(&shared.workers[i].counters.access_log_dropped)
        refused += fe_counter_read(&shared.workers[i].counters.ended_by_proxy_header)
        untrusted += fe_counter_read(&shared.workers[i].counters.shed_untrusted)
        port += fe_counter_read(&shared.workers[i].counters.datagrams_refused_port)
        address += fe_counter_read(&shared.workers[i].counters.datagrams_refused_address)
        rate += fe_counter_read(&shared.workers[i].counters.datagrams_refused_rate)
        loop += fe_counter_read(&shared.workers[i].counters.datagrams_refused_loop)
    return (shed, pauses, dropped, refused, untrusted, port, address, rate, loop,
            fe_atomic_load(&shared.proxy_error))


cdef inline list entries_of(fe_log_ring *ring):
    """Entries of the access log, taken out of their ring."""
    cdef fe_log_entry e
    entries = []
    while len(entries) < LOG_ENTRIES_MAX and fe_log_take(ring, &e):
        address = PyBytes_FromStringAndSize(<char *>e.address, e.address_size)
        entries.append((e.number, address, e.listener, e.began_ns, e.ended_ns, e.bytes_in,
                        e.bytes_out, fe_reason_name(e.reason).decode("ascii"), e.error,
                        e.queue_wait_ms))
    return entries


cdef inline dict named_counters(const fe_counters *n):
    """Every counter by its name."""
    cdef int i
    values = {}
    for i in range(FE_COUNTER_COUNT):
        values[fe_counter_name(i).decode("ascii")] = fe_counter_get(n, i)
    return values


cdef inline dict counted_errnos(const fe_counters *n):
    """Number to count, of those that were seen."""
    cdef int i
    values = {}
    for i in range(FE_ERRNOS):
        count = fe_counter_read(&n.errnos[i])
        if count:
            values[i] = count
    return values


cdef inline list counted_waits(const fe_counters *n):
    """How many waited in the accept queue, by class."""
    cdef int i
    values = []
    for i in range(FE_QUEUE_WAITS):
        values.append(fe_counter_read(&n.queue_waits[i]))
    return values


cdef inline tuple times_of(const Worker *w):
    """How long a thread runs the worker or did, and how much CPU it has used, in ns."""
    cdef int64_t cpu_ns = 0, tid = fe_atomic_load(&w.tid)
    if tid:
        cpu_ns = _sys.sys_cpu_of_thread_ns(tid)
        if cpu_ns >= 0:
            return <int64_t>_sys.sys_now_ns() - fe_atomic_load(&w.began_ns), cpu_ns
    # It has ended, or not begun.
    return fe_atomic_load(&w.ran_ns), fe_atomic_load(&w.cpu_ns)


cdef inline list counters_of(Shared *shared):
    """A dict for each worker."""
    cdef fe_counters *n
    cdef int i
    # Closed first: what closed was accepted before, so open never turns negative.
    closed = [fe_counter_read(&shared.workers[i].counters.connections_closed)
              for i in range(shared.worker_count)]
    result = []
    for i in range(shared.worker_count):
        n = &shared.workers[i].counters
        values = named_counters(n)
        values["connections_closed"] = closed[i]
        values["bytes_pending"] = fe_counter_read(&n.bytes_pending)
        values["connections_placed"] = fe_atomic_load(&shared.workers[i].placed)
        values["queue_waits"] = counted_waits(n)
        values["running_ns"], values["busy_ns"] = times_of(&shared.workers[i])
        values["errnos"] = counted_errnos(n)
        result.append(values)
    return result
