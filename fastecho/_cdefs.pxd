# Mirror of src_c: the headers' names for Cython, grouped by header, only what is used.
# Nothing is decided here, and nothing runs here.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "buffer.h" nogil:
    ctypedef struct fe_buffer:
        size_t start
        size_t end
        size_t capacity
        size_t scanned

    size_t fe_buffer_size(const fe_buffer *b) noexcept
    unsigned char *fe_buffer_bytes(fe_buffer *b) noexcept
    int fe_buffer_append(fe_buffer **slot, const void *bytes, size_t n) noexcept
    void fe_buffer_consume(fe_buffer **slot, size_t n) noexcept
    void fe_buffer_free(fe_buffer **slot) noexcept


cdef extern from "timers.h" nogil:
    ctypedef struct fe_timer:
        uint32_t place

    ctypedef struct fe_deadline:
        uint64_t at_ms

    ctypedef struct fe_timers:
        fe_deadline *heap
        uint32_t count

    int fe_timers_init(fe_timers *t, uint32_t spare) noexcept
    void fe_timers_set_spare(fe_timers *t, fe_timer *timer, uint64_t at_ms) noexcept
    int fe_timers_set(fe_timers *t, fe_timer *timer, uint64_t at_ms) noexcept
    bint fe_timer_is_set(const fe_timer *timer) noexcept
    void fe_timers_clear(fe_timers *t, fe_timer *timer) noexcept
    fe_timer *fe_timers_expired(fe_timers *t, uint64_t now_ms) noexcept
    int fe_timers_wait_ms(const fe_timers *t, uint64_t now_ms, int cap_ms) noexcept
    void fe_timers_free(fe_timers *t) noexcept


cdef extern from "frame.h" nogil:
    enum:
        FE_FRAME_RECV
        FE_FRAME_LINE
        FE_FRAME_LENGTH
        FE_FRAMES_MORE
        FE_FRAMES_NEED_INPUT
        FE_FRAMES_TOO_LONG
    const size_t FE_LENGTH_HEADER

    ctypedef struct fe_framing:
        const unsigned char *prefix
        const unsigned char *suffix
        size_t prefix_size
        size_t suffix_size
        size_t max_frame
        int kind

    ctypedef struct fe_frame:
        size_t payload
        size_t size
        size_t line_end
        size_t total

    ctypedef struct fe_replies:
        size_t consumed
        size_t produced
        size_t frames
        int status

    int fe_frame_next(const fe_framing *f, const unsigned char *data, size_t n, size_t *scanned,
                      bint eof, fe_frame *frame) noexcept
    void fe_store_be32(unsigned char *p, uint32_t v) noexcept
    size_t fe_frame_max_input(const fe_framing *f) noexcept
    size_t fe_reply_max(const fe_framing *f, size_t n) noexcept
    fe_replies fe_frame_replies(const fe_framing *f, const unsigned char *data, size_t n,
                                size_t *scanned, bint eof, unsigned char *out,
                                size_t room) noexcept


cdef extern from "connection.h" nogil:
    enum:
        FE_FREE
        FE_ADMIT
        FE_OPEN
        FE_PEER_EOF
        FE_ENDING
        FE_LINGER
        FE_REAP

        FE_ON_ADMITTED
        FE_ON_EOF
        FE_ON_FLUSHED
        FE_ON_END
        FE_ON_ABORT
        FE_ON_OVERDUE

        FE_DO_SERVE
        FE_DO_LAST_FRAMES
        FE_DO_LINGER_TIMER
        FE_DO_FIN
        FE_DO_RESET
        FE_DO_CLOSE

        FE_BY_NOBODY
        FE_BY_PEER
        FE_BY_ERROR
        FE_BY_IDLE_TIMEOUT
        FE_BY_FRAME_TOO_LONG
        FE_BY_DENIAL
        FE_BY_DRAIN
        FE_BY_ABORT
        FE_BY_NO_MEMORY
        FE_BY_FIRST_BYTE_TIMEOUT
        FE_BY_CLOSE
        FE_BY_RESET
        FE_BY_CALLBACK_ERROR
        FE_BY_MAX_PENDING
        FE_BY_FAULT
        FE_BY_MAX_CONNECTIONS
        FE_BY_MAX_PER_IP
        FE_BY_ACCEPT_RATE
        FE_BY_NO_DESCRIPTORS

        FE_IS_REGISTERED
        FE_IS_READY
        FE_IS_PAUSED
        FE_HAS_FRAMES
        FE_HAS_HUNG_UP
        FE_WAS_REFUSED
        FE_HAS_EOF
        FE_AWAITS_FIRST

        FE_PATH_RAW
        FE_PATH_FRAMES
        FE_PATH_CALLBACKS
        FE_PATH_FAULT

        FE_HOLDS
        FE_KEEPS_OPEN
        FE_WANTS_FIN
        FE_SENT_FIN
        FE_AWAITS_CALLBACK
        FE_OWES_DRAIN
        FE_OWES_EOF
        FE_IS_TO_FLUSH

        FE_REASONS

        FE_LINGER_MS
        FE_LINGER_BYTES
    const uint32_t FE_NO_SLOT

    ctypedef struct fe_transition:
        uint8_t next
        uint8_t actions

    ctypedef struct fe_connection:
        uint64_t number
        fe_buffer *pending
        fe_buffer *unparsed
        uint32_t active_ms
        uint32_t discarded
        uint32_t unsent
        uint32_t slot
        uint32_t generation
        int32_t fd
        fe_timer timer
        uint32_t next
        uint32_t previous
        uint16_t listener
        uint8_t state
        uint8_t path
        uint8_t interest
        uint8_t flags
        uint8_t reason
        uint8_t wishes

    const char *fe_reason_name(int reason) noexcept
    fe_connection *fe_connection_of(fe_timer *timer) noexcept
    fe_transition fe_transition_for(int state, int event) noexcept


cdef extern from "fault.h" nogil:
    enum:
        FE_FAULT_NO_READ
        FE_FAULT_DENY
        FE_FAULT_HALF_CLOSE
        FE_FAULT_GOES_ON
        FE_FAULT_CLOSES
        FE_FAULT_RESETS
    const uint64_t FE_FAULT_NEVER

    ctypedef struct fe_fault:
        uint64_t delay_ns
        uint64_t jitter_ns
        uint32_t distribution
        uint32_t flags
        uint64_t bandwidth
        uint64_t slice
        uint64_t gap_ns
        uint64_t stall_after
        uint64_t close_after
        uint64_t reset_after
        uint64_t corrupt
        uint64_t duplicate
        uint64_t probability
        uint64_t seed
        uint64_t fail_first
        uint64_t base

    ctypedef struct fe_faulty:
        fe_fault fault
        uint64_t queued
        uint32_t slot
        uint64_t look_ns
        fe_timer timer
        uint8_t has_ended
        uint8_t is_held

    ctypedef struct fe_release:
        uint64_t bytes
        uint64_t at_ns

    bint fe_fault_is_for(const fe_fault *f, uint64_t number) noexcept
    bint fe_fault_is_timed(const fe_fault *f) noexcept
    void fe_faulty_init(fe_faulty *f, const fe_fault *fault, uint64_t number) noexcept
    void fe_faulty_free(fe_faulty *f) noexcept
    size_t fe_faulty_room(const fe_faulty *f, size_t n) noexcept
    bint fe_faulty_is_twice(const fe_faulty *f) noexcept
    size_t fe_faulty_corrupt(const fe_faulty *f, unsigned char *bytes, size_t n) noexcept
    int fe_faulty_take(fe_faulty *f, size_t n, uint64_t now_ns) noexcept
    bint fe_faulty_is_full(const fe_faulty *f) noexcept
    fe_release fe_faulty_release(fe_faulty *f, uint64_t now_ns) noexcept
    void fe_faulty_sent(fe_faulty *f, uint64_t n, uint64_t now_ns) noexcept
    int fe_faulty_end(const fe_faulty *f) noexcept
    fe_faulty *fe_faulty_of(fe_timer *timer) noexcept


cdef extern from "counters.h" nogil:
    enum:
        FE_COUNTER_COUNT
        FE_ERRNOS

    ctypedef struct fe_counters:
        uint64_t connections_accepted
        uint64_t connections_closed
        uint64_t bytes_in
        uint64_t bytes_out
        uint64_t bytes_dropped
        uint64_t bytes_discarded
        uint64_t messages
        uint64_t frames_incomplete
        uint64_t short_writes
        uint64_t ended_by_peer
        uint64_t ended_by_error
        uint64_t ended_by_idle_timeout
        uint64_t ended_by_first_byte_timeout
        uint64_t ended_by_frame_too_long
        uint64_t ended_by_denial
        uint64_t ended_by_drain
        uint64_t ended_by_abort
        uint64_t ended_by_no_memory
        uint64_t ended_by_close
        uint64_t ended_by_reset
        uint64_t ended_by_callback_error
        uint64_t ended_by_max_pending
        uint64_t ended_by_fault
        uint64_t connections_faulty
        uint64_t bytes_corrupted
        uint64_t frames_duplicated
        uint64_t callback_errors
        uint64_t linger_timeouts
        uint64_t shed_max_connections
        uint64_t shed_max_per_ip
        uint64_t shed_accept_rate
        uint64_t shed_no_descriptors
        uint64_t accept_errors
        uint64_t accept_pauses
        uint64_t access_log_dropped
        uint64_t iterations
        uint64_t events
        uint64_t bytes_pending
        uint64_t *errnos

    const char *fe_counter_name(int i) noexcept
    void fe_count(uint64_t *counter, uint64_t n) noexcept
    void fe_uncount(uint64_t *counter, uint64_t n) noexcept
    uint64_t fe_counter_read(const uint64_t *counter) noexcept
    uint64_t fe_counter_get(const fe_counters *c, int i) noexcept
    void fe_count_errno(fe_counters *c, int number) noexcept


cdef extern from "errors.h" nogil:
    enum:
        FE_ACCEPT_DONE
        FE_ACCEPT_NEXT
        FE_ACCEPT_SHED
        FE_ACCEPT_PAUSE
        FE_ACCEPT_OVER
        FE_IO_WAIT
        FE_IO_REFUSED
        FE_IO_LOST

    int fe_accept_rule_for(int error) noexcept
    int fe_io_rule_for(int error) noexcept


cdef extern from "access_log.h" nogil:
    enum:
        FE_ADDRESS_MAX

    ctypedef struct fe_log_entry:
        uint64_t number
        uint64_t began_ns
        uint64_t ended_ns
        uint64_t bytes_in
        uint64_t bytes_out
        int32_t error
        uint16_t listener
        uint8_t reason
        uint32_t address_size
        uint8_t *address

    ctypedef struct fe_log_table:
        fe_log_entry *entries
        uint32_t size

    ctypedef struct fe_log_ring:
        pass

    fe_log_entry *fe_log_begin(fe_log_table *t, uint32_t slot) noexcept
    void fe_log_table_free(fe_log_table *t) noexcept
    int fe_log_ring_init(fe_log_ring *r) noexcept
    void fe_log_ring_free(fe_log_ring *r) noexcept
    bint fe_log_put(fe_log_ring *r, const fe_log_entry *entry) noexcept
    bint fe_log_take(fe_log_ring *r, fe_log_entry *entry) noexcept


cdef extern from "slab.h" nogil:
    ctypedef struct fe_slab:
        uint32_t used
        uint32_t live

    void fe_slab_init(fe_slab *s) noexcept
    fe_connection *fe_slab_at(fe_slab *s, uint32_t slot) noexcept
    fe_connection *fe_slab_find(fe_slab *s, uint32_t slot, uint32_t generation) noexcept
    fe_connection *fe_slab_take(fe_slab *s) noexcept
    void fe_slab_give(fe_slab *s, fe_connection *c) noexcept
    void fe_slab_free(fe_slab *s) noexcept


cdef extern from "atomics.h" nogil:
    int64_t fe_atomic_load(const int64_t *number) noexcept
    void fe_atomic_store(int64_t *number, int64_t value) noexcept
    int64_t fe_atomic_add(int64_t *number, int64_t n) noexcept
    int64_t fe_atomic_swap(int64_t *number, int64_t value) noexcept
    bint fe_atomic_raise_from(int64_t *number, int64_t expected) noexcept
    bint fe_place_reserve(int64_t *places, int64_t limit) noexcept


cdef extern from "peers.h" nogil:
    enum:
        FE_NO_PEER

    ctypedef struct fe_peer_key:
        pass

    ctypedef struct fe_peers:
        pass

    void fe_peers_init(fe_peers *t, uint64_t seed) noexcept
    void fe_peers_free(fe_peers *t) noexcept
    fe_peer_key fe_peer_key_4(const uint8_t *address) noexcept
    fe_peer_key fe_peer_key_6(const uint8_t *address, unsigned int bits) noexcept
    int fe_peers_take(fe_peers *t, const fe_peer_key *key, uint32_t most,
                      uint32_t *node) noexcept
    void fe_peers_give(fe_peers *t, uint32_t node) noexcept


cdef extern from "rate.h" nogil:
    ctypedef struct fe_rate:
        pass

    void fe_rate_set(fe_rate *r, uint64_t per_second) noexcept
    bint fe_rate_is_limited(const fe_rate *r) noexcept
    bint fe_rate_take(fe_rate *r, uint64_t now_ns) noexcept


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
        FE_LOAD_CONNECTS
        FE_LOAD_BYTES_RECEIVED
        FE_LOAD_CPU_NS
        FE_LOAD_SPIN_NS
        FE_LOAD_ITERATIONS
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
