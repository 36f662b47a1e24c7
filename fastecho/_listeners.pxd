# Listeners as a whole: whose they are, and the moment from which they are not touched any more.
#
# Lives here: what the life cycle does to all listeners at once, from a thread that is no worker.
# Does not live here: accepting, and a worker's own end of it (_accept.pxd).
#
# A worker reads whose a listener is when it stops accepting, behind a message: what was said here
# before that message was posted, it sees.

from fastecho._accept cimport accept_filter
from fastecho._poll cimport pthread_mutex_lock, pthread_mutex_unlock
from fastecho._worker cimport Shared


cdef inline void listeners_leave(Shared *shared, bint filters) noexcept nogil:
    """The listeners are left to whoever opened them; the first call may have them take no SYN
    any more, where they are ours alone."""
    pthread_mutex_lock(&shared.accept_lock)
    if filters and not shared.listeners_left:
        accept_filter(shared)
    shared.listeners_left = True
    pthread_mutex_unlock(&shared.accept_lock)


cdef inline int listeners_share(Shared *shared, list whose) except -1:
    """Takes (owned, given) of each listener over."""
    cdef bint owned, given
    cdef int i
    if len(whose) != shared.listener_count:
        raise ValueError("a pair for each listener is needed")
    for i in range(shared.listener_count):
        owned, given = whose[i]
        pthread_mutex_lock(&shared.accept_lock)
        shared.listeners[i].owned = owned
        shared.listeners[i].given = given
        pthread_mutex_unlock(&shared.accept_lock)
    return 0
