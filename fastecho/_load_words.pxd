# What C says of a load or a histogram, as Python reads it: numbers by name, failures as sentences.
#
# Lives here: turning the records of src_c/load_counts.h into Python objects. Does not live here:
# counting, and whoever may call (fastecho/_load.pyx).

from libc.errno cimport EBADMSG, EINVAL, EMSGSIZE, ENOMSG, EPROTO, ETIMEDOUT, EXDEV
from libc.stdint cimport uint64_t
from libc.string cimport strerror

cimport fastecho._sys as _sys
from fastecho._cdefs cimport *
from fastecho._load_cdefs cimport *


cdef inline str counted(n, str noun):
    """Return "1 message" or "2 messages"."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


cdef inline str described(const fe_load_failure *f, timeout):
    """Return one sentence about a failure."""
    where = f"connection {f.connection}"
    outstanding = f"with {counted(f.count, 'message')} outstanding"
    if f.kind == FE_LOAD_CORRUPT and f.error == EMSGSIZE:
        return (f"{where}, message {f.number}: a reply of {counted(f.offset, 'byte')} came, "
                f"not of {f.count}")
    if f.kind == FE_LOAD_CORRUPT and f.error == ENOMSG:
        return f"{where}: a reply came that fits none of the messages that are outstanding"
    if f.kind == FE_LOAD_MISPLACED and f.error == EXDEV:
        return f"{where}: the reply to message {f.number} of connection {f.count} came"
    if f.kind == FE_LOAD_CORRUPT:
        return (f"{where}, message {f.number}: byte {f.offset} of the reply is "
                f"0x{f.got:02x}, not 0x{f.expected:02x}")
    if f.kind == FE_LOAD_MISPLACED:
        return f"{where}, message {f.number}: the reply to message {f.count} came instead"
    if f.kind == FE_LOAD_LATE:
        return (f"{where}, message {f.number}: the reply took {f.count / 1e9:.3f} s, "
                f"the timeout is {timeout} s")
    if f.kind == FE_LOAD_EXTRA_BYTES:
        return f"{where}: {counted(f.count, 'byte')} came although no reply was due"
    if f.kind == FE_LOAD_TIMED_OUT:
        return (f"{where}, message {f.number}: no complete reply within {timeout} s, "
                f"{counted(f.offset, 'byte')} of it came; {outstanding}")
    if f.kind == FE_LOAD_OTHER and f.state == FE_LOAD_ENDING and f.error == ETIMEDOUT:
        return f"{where}: the server did not answer our FIN within {timeout} s"
    if f.kind == FE_LOAD_CONNECT_TIMED_OUT:
        return f"{where}: not connected within {timeout} s"
    if f.kind == FE_LOAD_RESET:
        return f"{where}: reset by the server {outstanding}"
    if f.kind == FE_LOAD_CLOSED_BY_SERVER:
        return f"{where}: closed by the server {outstanding}"
    if f.kind == FE_LOAD_OTHER and f.error == EPROTO:
        return f"{where}: it did not begin by a line that says who answers"
    if f.kind == FE_LOAD_REFUSED:
        return f"{where}: refused"
    return f"{where}: {(<bytes>strerror(f.error)).decode()} (errno {f.error}) {outstanding}"


cdef inline str not_decoded(int error):
    """Return why a histogram could not be read."""
    if error == EPROTO:
        return "the bytes are no HdrHistogram V2"
    if error == EINVAL:
        return "the histogram has a layout that HdrHistogram does not make"
    if error == EBADMSG:
        return "the histogram is cut or damaged"
    return "the histogram holds more than 2**63 - 1 values"


cdef inline dict numbers(const fe_load_counts *counts):
    """Return what a load has counted, under the names of a result; any thread may ask."""
    cdef int counter
    cdef uint64_t done_ns = fe_load_read(&counts.done_ns)
    cdef uint64_t start_ns = fe_load_read(&counts.window_ns)
    cdef uint64_t now_ns = done_ns if done_ns else _sys.sys_now_ns()
    told = {}
    for counter in range(FE_LOAD_COUNTERS):
        told[fe_load_counter_name(counter).decode()] = fe_load_read(&counts.n[counter])
    told["elapsed_ns"] = fe_load_elapsed_ns(counts, now_ns)
    told["total_ns"] = now_ns - start_ns if start_ns and now_ns > start_ns else 0
    return told
