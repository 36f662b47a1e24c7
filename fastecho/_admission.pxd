# Admission: a newcomer that has its record is served, or waits for the accept callback.
#
# Lives here: the way that every newcomer goes, whether it came through a proxy or not. Does not
# live here: accepting (_accept.pxd), the PROXY header (_proxy.pxd), the verdict (_orders.pxd).

from libc.errno cimport ENOMEM
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from fastecho._cdefs cimport *
from fastecho._connection cimport connection_ask, connection_refused
from fastecho._faulty cimport connection_admit
from fastecho._messages cimport Link, link_new, link_of
from fastecho._poll cimport Message, mailbox_post
from fastecho._worker cimport Worker


cdef inline void newcomer_admit(Worker *w, fe_connection *c, Message *newcomer) noexcept nogil:
    """Serves it, or asks for a verdict. Until that is there, nothing is read."""
    if not w.shared.admits:
        connection_admit(w, c, NULL)
        return
    if c.flags & FE_IS_REGISTERED:
        connection_ask(w, c, 0)
        if c.state != FE_ADMIT:
            return
    newcomer.fd = -1  # its record has it
    newcomer.worker = w.index
    newcomer.slot = c.slot
    newcomer.generation = c.generation
    if mailbox_post(&w.shared.admissions, newcomer) < 0:
        connection_refused(w, c, -ENOMEM)


cdef inline uint8_t path_of(const Worker *w) noexcept nogil:
    """How the bytes of a connection without a fault are handled."""
    if w.messages != NULL and w.messages.delivers:
        return FE_PATH_CALLBACKS
    if w.shared.service:
        return w.shared.service
    return FE_PATH_RAW if is_raw(&w.stream.framing) else FE_PATH_FRAMES


cdef inline bint is_raw(const fe_framing *f) noexcept nogil:
    """What comes in goes out: no prefix, no suffix, no frames to find."""
    return f.kind == FE_FRAME_RECV and f.prefix_size == 0 and f.suffix_size == 0


# --- what callbacks will know of it --------------------------------------------------------

cdef inline int link_begin(Worker *w, const fe_connection *c,
                           const Message *newcomer) noexcept nogil:
    """With message callbacks: what they will know of it. 0 or -ENOMEM."""
    cdef Link *link
    if w.messages == NULL:
        return 0
    link = link_new(w.messages, c.slot)
    if link == NULL:
        return -ENOMEM
    link.number = newcomer.number
    link.worker = w.index
    link.slot = c.slot
    link.generation = c.generation
    link.listener = <uint16_t>newcomer.listener
    link.queue_wait_ms = newcomer.value
    link.thread = w.messages.thread
    link.address_size = newcomer.address_size
    memcpy(link.address, newcomer.address, newcomer.address_size)
    return 0


cdef inline void link_rename(Worker *w, uint32_t slot, const Message *newcomer) noexcept nogil:
    """A PROXY header has told who it is."""
    cdef Link *link
    if w.messages == NULL:
        return
    link = link_of(w.messages, slot)
    link.address_size = newcomer.address_size
    memcpy(link.address, newcomer.address, newcomer.address_size)
    link.is_claimed = newcomer.is_claimed
    link.proxy_size = newcomer.proxy_size
    memcpy(link.proxy, newcomer.proxy, newcomer.proxy_size)
