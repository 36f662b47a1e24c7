# Mirror of src_c/datagram.h for Cython, only what is used. Nothing is decided here.

from libc.stdint cimport uint64_t


cdef extern from "datagram.h" nogil:
    enum:
        FE_ECHO
        FE_REFUSE_PORT
        FE_REFUSE_ADDRESS
        FE_REFUSE_RATE
        FE_REFUSE_LOOP

    ctypedef struct fe_guards:
        uint64_t seed

    ctypedef struct fe_guarding:
        bint is_on
        const unsigned char *prefix
        const unsigned char *suffix
        size_t prefix_size
        size_t suffix_size

    ctypedef struct fe_datagram:
        const unsigned char *name
        const unsigned char *data
        size_t size
        size_t segment
        bint is_ipv6
        bint is_to_many

    void fe_own_port(fe_guarding *g, unsigned port) noexcept
    uint64_t fe_datagram_count(const fe_datagram *d) noexcept
    int fe_judge(fe_guards *g, const fe_guarding *how, const fe_datagram *d, uint64_t interval_ns,
                 unsigned ipv6_prefix, uint64_t now_ns) noexcept
