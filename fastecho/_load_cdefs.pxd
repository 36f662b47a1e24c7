# Mirror of src_c for the load generator: the headers' names for Cython, grouped by header, only what
# is used. What it shares with the server is in _cdefs.pxd.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fastecho._cdefs cimport fe_buffer, fe_framing, fe_timer, fe_timers


cdef extern from "histogram.h" nogil:
    const uint32_t FE_HISTOGRAM_SLOTS

    ctypedef struct fe_histogram:
        uint64_t count
        uint64_t overflow
        uint64_t min
        uint64_t max
        uint64_t *slots

    void fe_histogram_reset(fe_histogram *h) noexcept
    uint64_t fe_histogram_lowest(uint32_t slot) noexcept
    uint64_t fe_histogram_highest(uint32_t slot) noexcept
    void fe_histogram_record_n(fe_histogram *h, uint64_t ns, uint64_t n) noexcept
    void fe_histogram_copy(fe_histogram *into, const fe_histogram *source) noexcept
    int fe_histogram_merge(fe_histogram *into, const fe_histogram *source) noexcept
    void fe_histogram_narrow(fe_histogram *h, int64_t min, int64_t max) noexcept
    int fe_histogram_subtract(fe_histogram *h, const fe_histogram *part) noexcept
    uint64_t fe_histogram_percentile(const fe_histogram *h, double percent) noexcept
    double fe_histogram_mean(const fe_histogram *h) noexcept
    double fe_histogram_variance(const fe_histogram *h) noexcept


cdef extern from "histogram_v2.h" nogil:
    const size_t FE_HISTOGRAM_V2_MAX

    int fe_histogram_v2_encode(const fe_histogram *h, unsigned char *out) noexcept
    int fe_histogram_v2_decode(fe_histogram *h, const unsigned char *data, size_t n) noexcept


cdef extern from "pattern.h" nogil:
    enum:
        FE_PATTERN_RAW
        FE_PATTERN_LINE
        FE_PATTERN_LENGTH
    const uint32_t FE_PATTERN_WINDOWS
    const uint64_t FE_PATTERN_MAX_SIZE
    const int FE_PATTERN_MAX_AFFIX
    const uint32_t FE_PATTERN_MAX_SIZES

    ctypedef struct fe_size:
        pass

    ctypedef struct fe_pattern:
        const unsigned char *noise

    int fe_pattern_init(fe_pattern *p, int frame, uint64_t size, uint64_t seed,
                        const void *prefix, size_t prefix_size, const void *suffix,
                        size_t suffix_size) noexcept
    void fe_pattern_vary(fe_pattern *p, const uint32_t *sizes, fe_size *table,
                         uint32_t count) noexcept
    size_t fe_pattern_noise_size(uint64_t size) noexcept
    void fe_pattern_fill(unsigned char *noise, size_t n, uint64_t seed, int frame) noexcept
    uint32_t fe_pattern_first(const fe_pattern *p, uint32_t connection) noexcept


cdef extern from "schedule.h" nogil:
    ctypedef struct fe_schedule:
        uint64_t next_ns
        double interval_ns
        double phase
        bint is_poisson
        uint64_t seed

    void fe_schedule_start(fe_schedule *s, uint64_t start_ns) noexcept


cdef extern from "load_counts.h" nogil:
    enum:
        FE_LOAD_BYTES_SENT
        FE_LOAD_MESSAGES
        FE_LOAD_CONNECTS
        FE_LOAD_BYTES_RECEIVED
        FE_LOAD_CPU_NS
        FE_LOAD_SPIN_NS
        FE_LOAD_ITERATIONS
        FE_LOAD_OVERFLOWS
        FE_LOAD_LATE
        FE_LOAD_CORRUPT
        FE_LOAD_MISPLACED
        FE_LOAD_TIMED_OUT
        FE_LOAD_EXTRA_BYTES
        FE_LOAD_RESET
        FE_LOAD_CLOSED_BY_SERVER
        FE_LOAD_REFUSED
        FE_LOAD_CONNECT_TIMED_OUT
        FE_LOAD_OTHER
        FE_LOAD_COUNTERS

    ctypedef struct fe_load_failure:
        int32_t kind
        int32_t state
        uint32_t connection
        int32_t error
        uint64_t at_ns
        uint64_t number
        uint64_t offset
        uint64_t count
        uint8_t expected
        uint8_t got

    ctypedef struct fe_load_counts:
        uint64_t *n
        uint64_t window_ns
        uint64_t end_ns
        uint64_t last_ns
        uint64_t done_ns
        uint32_t described
        fe_load_failure *failures

    const char *fe_load_counter_name(int counter) noexcept
    uint64_t fe_load_read(const uint64_t *number) noexcept
    void fe_load_write(uint64_t *number, uint64_t value) noexcept
    void fe_load_add(fe_load_counts *counts, int counter, uint64_t by) noexcept
    void fe_load_forget(fe_load_counts *counts) noexcept
    uint64_t fe_load_elapsed_ns(const fe_load_counts *counts, uint64_t now_ns) noexcept
    int fe_load_kind_for(int error, bint connecting) noexcept


cdef extern from "load.h" nogil:
    enum:
        FE_LOAD_CLOSED_LOOP
        FE_LOAD_OPEN_LOOP
        FE_LOAD_RECONNECT
        FE_LOAD_IDLE

        FE_LOAD_CLOSED
        FE_LOAD_RESTING
        FE_LOAD_WAITING
        FE_LOAD_CONNECTING
        FE_LOAD_OPEN
        FE_LOAD_ENDING

        FE_LOAD_NO_GAP

    ctypedef struct fe_load_connection:
        int32_t fd
        uint8_t state
        uint8_t wants_write
        uint16_t first
        uint8_t gap
        uint64_t due
        uint64_t sent
        uint64_t done
        uint64_t since_ns

    ctypedef struct fe_load_past:
        uint64_t tried_ns

    ctypedef struct fe_load_chunk:
        const unsigned char *bytes
        size_t size
        int64_t noise_at

    ctypedef struct fe_load:
        fe_pattern pattern
        fe_load_connection *connections
        fe_load_past *pasts
        uint64_t *times
        uint64_t *given
        fe_histogram *latency
        fe_histogram *connect
        fe_histogram *service
        fe_histogram *lateness
        uint32_t *ring
        uint32_t *touched
        uint32_t count
        uint32_t ring_used
        uint32_t depth
        uint32_t ring_mask
        uint64_t outstanding
        uint64_t timeout_ns
        uint64_t window_ns
        uint64_t end_ns
        uint64_t left
        fe_schedule schedule
        fe_load_counts counts

    uint32_t fe_load_open(const fe_load *l) noexcept
    void fe_load_not_open(fe_load *l, fe_load_connection *c, int state) noexcept
    fe_load_failure *fe_load_fail(fe_load *l, const fe_load_connection *c, int kind, uint64_t by,
                                  uint64_t now_ns) noexcept
    void fe_load_set_window(fe_load *l, uint64_t window_ns, uint64_t end_ns) noexcept
    void fe_load_cut(fe_load *l, uint64_t now_ns) noexcept
    void fe_load_back(fe_load *l, fe_load_connection *c, uint64_t now_ns) noexcept
    bint fe_load_is_over(const fe_load *l, uint64_t now_ns) noexcept
    void fe_load_spent(fe_load *l, uint64_t now_ns) noexcept
    void fe_load_release(fe_load *l, fe_load_connection *c, uint32_t n, uint64_t due_ns,
                         uint64_t now_ns) noexcept
    uint32_t fe_load_room(const fe_load *l, const fe_load_connection *c) noexcept
    fe_load_chunk fe_load_next(const fe_load *l, const fe_load_connection *c,
                               unsigned char *scratch, size_t room) noexcept
    void fe_load_taken(fe_load *l, fe_load_connection *c, size_t n) noexcept


cdef extern from "load_reply.h" nogil:
    uint32_t fe_load_received(fe_load *l, fe_load_connection *c, const unsigned char *bytes,
                              size_t n, uint64_t now_ns) noexcept


cdef extern from "load_life.h" nogil:
    uint64_t fe_load_opened(fe_load *l, fe_load_connection *c, uint64_t now_ns) noexcept
    void fe_load_gone(fe_load *l, fe_load_connection *c, int kind, int error,
                      uint64_t now_ns) noexcept
    void fe_load_forget_gaps(fe_load *l) noexcept
    bint fe_load_silent(const fe_load *l, const fe_load_connection *c, uint64_t now_ns) noexcept


cdef extern from "load_open.h" nogil:
    void fe_load_offer(fe_load *l, fe_load_connection *c, uint64_t now_ns) noexcept
    bint fe_load_has_next(const fe_load *l) noexcept
    uint32_t fe_load_give(fe_load *l, uint64_t now_ns, uint32_t most) noexcept
    fe_load_connection *fe_load_given(fe_load *l) noexcept
    void fe_load_give_up(fe_load *l) noexcept


cdef extern from "load_udp.h" nogil:
    const size_t FE_UDP_HEADER
    const size_t FE_UDP_LARGEST

    ctypedef struct fe_udp_place:
        pass

    ctypedef struct fe_udp_flow:
        pass

    ctypedef struct fe_udp:
        fe_udp_flow *flows
        fe_udp_place *places
        uint64_t seed
        const unsigned char *prefix
        const unsigned char *suffix
        size_t prefix_size
        size_t suffix_size

    ctypedef struct fe_udp_datagram:
        const unsigned char *body
        size_t body_size
        uint32_t place

    void fe_udp_clear(fe_udp *u, const fe_load *l, uint32_t index) noexcept
    fe_udp_datagram fe_udp_next(fe_udp *u, fe_load *l, fe_load_connection *c,
                                unsigned char *header) noexcept
    void fe_udp_not_sent(fe_udp *u, fe_load *l, fe_load_connection *c, uint32_t at) noexcept
    uint32_t fe_udp_expire(fe_udp *u, fe_load *l, fe_load_connection *c, uint64_t now_ns,
                           bint everything) noexcept
    uint32_t fe_udp_received(fe_udp *u, fe_load *l, fe_load_connection *c,
                             const unsigned char *bytes, size_t n, uint64_t now_ns) noexcept


cdef extern from "load_greeting.h" nogil:
    const size_t FE_GREETING_MAX
    const uint32_t FE_INSTANCES

    ctypedef struct fe_json_text:
        const unsigned char *bytes
        size_t size

    ctypedef struct fe_instance:
        unsigned char *name
        size_t size
        uint64_t connections
        uint64_t messages

    ctypedef struct fe_instances:
        uint32_t used
        fe_instance *each

    int fe_greeting_size(const unsigned char *bytes, size_t n) noexcept
    bint fe_greeting_name(const unsigned char *bytes, size_t n, fe_json_text *name) noexcept
    uint32_t fe_instances_find(const fe_instances *instances, const fe_json_text *name) noexcept
    void fe_instances_forget(fe_instances *instances) noexcept
