# What is known of connections that came through a proxy, by slot.
#
# Lives here: the table, kept beside the records as the access log's entries are. Does not live
# here: where its content comes from (_proxy.pxd), who reads it (_greeting.pxd).

from libc.errno cimport ENOMEM
from libc.stdint cimport uint32_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

from fastecho._poll cimport Message


# Whether newcomers begin by a PROXY header.
cdef enum ProxyMode:
    PROXY_OFF = 0
    PROXY_OPTIONAL
    PROXY_REQUIRED


cdef struct Proxied:
    bint is_used
    # As it was accepted: with the proxy's own address, until the header has told another.
    Message newcomer
    # The header as it came, header_size bytes; NULL: nobody wants to show it.
    unsigned char *header
    uint32_t header_size


# By slot. Begins as zeroes.
cdef struct ProxiedTable:
    Proxied *entries
    uint32_t size


cdef inline Proxied *proxied(const ProxiedTable *t, uint32_t slot) noexcept nogil:
    """What is known of the connection in a slot; NULL: it came through no proxy."""
    if slot >= t.size or not t.entries[slot].is_used:
        return NULL
    return &t.entries[slot]


cdef inline int proxied_begin(ProxiedTable *t, uint32_t slot, const Message *newcomer) noexcept nogil:
    """A newcomer waits for its header: keeps what is known of it. 0 or -ENOMEM."""
    cdef uint32_t size = t.size if t.size else 64
    cdef Proxied *grown
    while size <= slot:
        size *= 2
    if size != t.size:
        grown = <Proxied *>realloc(t.entries, size * sizeof(Proxied))
        if grown == NULL:
            return -ENOMEM
        memset(grown + t.size, 0, (size - t.size) * sizeof(Proxied))
        t.entries = grown
        t.size = size
    t.entries[slot].newcomer = newcomer[0]
    t.entries[slot].newcomer.fd = -1  # the record has it
    t.entries[slot].is_used = True
    return 0


cdef inline int proxied_keep(Proxied *p, const unsigned char *header, uint32_t n) noexcept nogil:
    """Keeps the header as it came, for who wants to show it; 0 or -ENOMEM."""
    p.header = <unsigned char *>malloc(n)
    if p.header == NULL:
        return -ENOMEM
    memcpy(p.header, header, n)
    p.header_size = n
    return 0


cdef inline void proxied_end(ProxiedTable *t, uint32_t slot) noexcept nogil:
    """The connection in a slot has ended."""
    if slot < t.size and t.entries[slot].is_used:
        free(t.entries[slot].header)
        t.entries[slot].header = NULL
        t.entries[slot].is_used = False


cdef inline void proxied_free(ProxiedTable *t) noexcept nogil:
    """Gives the table back."""
    cdef uint32_t slot
    for slot in range(t.size):
        free(t.entries[slot].header)
    free(t.entries)
    t.entries = NULL
    t.size = 0
