# The line by which a server says who answers, on each connection of a load; replies by instance.
#
# Lives here: a line that comes in pieces, and with replies behind it; the memory of both. Does not
# live here: what such a line is (src_c/load_greeting.h), what becomes of a connection without one
# (_load_connection.pxd).
#
# Nobody waits for the line: messages are sent as without it, and it is taken away in front of the
# first reply. So latencies are what a client sees that asks who answers.

from libc.errno cimport ENOMEM, EPROTO
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from fastecho._load_cdefs cimport *

cdef enum:
    # Bytes that are kept of what came instead of a line.
    INSTEAD_SIZE = 40
    # Of a connection whose line has not come.
    NOBODY = 0xffff


cdef struct Greeting:
    # What has come of the line, in FE_GREETING_MAX bytes; NULL: it did not come in pieces.
    unsigned char *held
    uint16_t used
    # Where in Greetings.instances its messages count.
    uint16_t instance


cdef struct Greetings:
    # One for each connection; NULL: none is expected.
    Greeting *each
    fe_instances instances
    # The first that did not begin by a line, and how it began instead.
    bint is_wrong
    uint32_t connection
    uint8_t instead_used
    unsigned char instead[INSTEAD_SIZE]


cdef inline bint greetings_expect(Greetings *all_, uint32_t count) noexcept nogil:
    """A line on each of so many connections; False: no memory."""
    cdef uint32_t i
    all_.each = <Greeting *>calloc(count, sizeof(Greeting))
    if all_.each == NULL:
        return False
    for i in range(count):
        all_.each[i].instance = NOBODY
    return True


cdef inline void greetings_free(Greetings *all_, uint32_t count) noexcept nogil:
    cdef uint32_t i
    if all_.each != NULL:
        for i in range(count):
            free(all_.each[i].held)
    for i in range(all_.instances.used):
        free(all_.instances.each[i].name)
    free(all_.each)
    memset(all_, 0, sizeof(Greetings))


cdef inline void greeting_end(Greetings *all_, uint32_t connection) noexcept nogil:
    """A connection is gone: the next one begins by a line of its own."""
    cdef Greeting *g
    if all_.each != NULL:
        g = &all_.each[connection]
        free(g.held)
        g.held = NULL
        g.used = 0
        g.instance = NOBODY


cdef inline bint greeting_is_due(const Greetings *all_, uint32_t connection) noexcept nogil:
    return all_.each != NULL and all_.each[connection].instance == NOBODY


cdef inline ssize_t greeting_take(Greetings *all_, uint32_t connection,
                                  const unsigned char *came, size_t n) noexcept nogil:
    """Takes the line out of the n bytes that came next. Result: how many are the line's, all of
    them as long as it is not whole; -EPROTO: it is none; -ENOMEM."""
    cdef Greeting *g = &all_.each[connection]
    cdef const unsigned char *begin = came
    cdef size_t before = g.used, have = n
    cdef int size
    if before:
        have = before + min(n, FE_GREETING_MAX - before)
        memcpy(g.held + before, came, have - before)
        begin = g.held
    size = fe_greeting_size(begin, have)
    if size == 0:
        if not before:
            g.held = <unsigned char *>malloc(FE_GREETING_MAX)
            if g.held == NULL:
                return -ENOMEM
            memcpy(g.held, came, n)
        g.used = <uint16_t>have
        return <ssize_t>n
    if size < 0 or not greeting_count(all_, g, begin, <size_t>size):
        if not all_.is_wrong:
            all_.is_wrong = True
            all_.connection = connection
            all_.instead_used = <uint8_t>min(have, <size_t>INSTEAD_SIZE)
            memcpy(all_.instead, begin, all_.instead_used)
        return -EPROTO
    return <ssize_t>(<size_t>size - before)


cdef inline bint greeting_count(Greetings *all_, Greeting *g, const unsigned char *line,
                                size_t size) noexcept nogil:
    """Counts the connection for the instance that a whole line names; False: it names none."""
    cdef fe_instances *instances = &all_.instances
    cdef fe_instance *one
    cdef fe_json_text name
    cdef uint32_t at
    if not fe_greeting_name(line, size, &name):
        return False
    at = fe_instances_find(instances, &name)
    if at == instances.used and at < FE_INSTANCES:
        one = &instances.each[at]
        one.name = <unsigned char *>malloc(name.size)
        if one.name == NULL:
            at = FE_INSTANCES
        else:
            memcpy(one.name, name.bytes, name.size)
            one.size = name.size
            instances.used += 1
    instances.each[at].connections += 1
    g.instance = <uint16_t>at
    return True


cdef inline void greeting_answered(Greetings *all_, uint32_t connection,
                                   uint64_t messages) noexcept nogil:
    """So many more messages were answered on a connection whose line has come."""
    all_.instances.each[all_.each[connection].instance].messages += messages


cdef inline list told_instances(const Greetings *all_):
    """Return (name as it stands in JSON, connections, messages) of every instance; "": others."""
    cdef const fe_instance *one
    cdef uint32_t i
    found = []
    for i in range(FE_INSTANCES + 1):
        one = &all_.instances.each[i]
        if one.connections or one.messages:
            name = (<const char *>one.name)[:one.size].decode("ascii") if one.name != NULL else ""
            found.append((name, one.connections, one.messages))
    return found
