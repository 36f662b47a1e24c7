# Mirror of src_c: the headers' names for Cython, grouped by header, only what is used; those of the
# load generator are in _load_cdefs.pxd. Nothing is decided here, and nothing runs here.

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
        FE_BY_PROXY_HEADER
        FE_BY_MAX_CONNECTIONS
        FE_BY_MAX_PER_IP
        FE_BY_ACCEPT_RATE
        FE_BY_NO_DESCRIPTORS
        FE_BY_UNTRUSTED

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
        FE_PATH_PROXY

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
        uint64_t lead
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
        FE_QUEUE_WAITS

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
        uint64_t ended_by_proxy_header
        uint64_t ended_by_max_per_ip
        uint64_t ended_by_fault
        uint64_t connections_proxied
        uint64_t connections_faulty
        uint64_t bytes_corrupted
        uint64_t frames_duplicated
        uint64_t callback_errors
        uint64_t linger_timeouts
        uint64_t shed_max_connections
        uint64_t shed_max_per_ip
        uint64_t shed_accept_rate
        uint64_t shed_no_descriptors
        uint64_t shed_untrusted
        uint64_t accept_errors
        uint64_t accept_pauses
        uint64_t callback_ns
        uint64_t access_log_dropped
        uint64_t datagrams_in
        uint64_t datagram_bytes_in
        uint64_t datagrams_out
        uint64_t datagram_bytes_out
        uint64_t datagrams_unsent
        uint64_t datagrams_too_long
        uint64_t datagrams_failed
        uint64_t datagrams_refused_port
        uint64_t datagrams_refused_address
        uint64_t datagrams_refused_rate
        uint64_t datagrams_refused_loop
        uint64_t iterations
        uint64_t events
        uint64_t bytes_pending
        uint64_t *queue_waits
        uint64_t *errnos

    const char *fe_counter_name(int i) noexcept
    void fe_count(uint64_t *counter, uint64_t n) noexcept
    void fe_uncount(uint64_t *counter, uint64_t n) noexcept
    uint64_t fe_counter_read(const uint64_t *counter) noexcept
    uint64_t fe_counter_get(const fe_counters *c, int i) noexcept
    void fe_count_queue_wait(fe_counters *c, int64_t wait_ms) noexcept
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
        int32_t queue_wait_ms
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
    void fe_atomic_max(int64_t *number, int64_t value) noexcept
    int64_t fe_atomic_swap(int64_t *number, int64_t value) noexcept
    bint fe_atomic_raise_from(int64_t *number, int64_t expected) noexcept
    bint fe_place_reserve(int64_t *places, int64_t limit) noexcept


cdef extern from "peers.h" nogil:
    enum:
        FE_NO_PEER

    ctypedef struct fe_peer_key:
        pass

    ctypedef struct fe_peers:
        uint64_t seed

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


cdef extern from "proxy.h" nogil:
    enum:
        FE_PROXY_DONE
        FE_PROXY_NEED_INPUT
        FE_PROXY_ABSENT
        FE_PROXY_BAD

        FE_PROXY_UNKNOWN
        FE_PROXY_INET
        FE_PROXY_INET6
        FE_PROXY_UNIX

        FE_PROXY_MISSING
        FE_PROXY_CUT_OFF
        FE_PROXY_LATE

    const size_t FE_PROXY_MAX

    ctypedef struct fe_proxy:
        uint8_t version
        uint8_t is_local
        uint8_t family
        uint8_t error
        uint16_t source_port
        uint16_t destination_port
        unsigned char source[108]
        unsigned char destination[108]
        uint32_t total

    int fe_proxy_parse(const unsigned char *bytes, size_t n, fe_proxy *out) noexcept
    size_t fe_proxy_write(const fe_proxy *p, const unsigned char *authority,
                          const unsigned char *unique_id, unsigned char *out,
                          size_t room) noexcept
    bint fe_proxy_is_signed(const unsigned char *bytes, size_t n) noexcept
    const char *fe_proxy_error_name(int error) noexcept


cdef extern from "networks.h" nogil:
    ctypedef struct fe_network:
        unsigned char address[16]
        uint8_t is_ipv6
        uint8_t bits

    bint fe_networks_have(const fe_network *networks, size_t n, const unsigned char *address,
                          bint is_ipv6) noexcept


cdef extern from "identify.h" nogil:
    ctypedef struct fe_identity:
        uint64_t number
        uint64_t uptime_ms
        const unsigned char *seen
        const fe_proxy *proxy
        const unsigned char *header
        uint32_t worker
        uint16_t seen_port
        uint8_t seen_is_ipv6

    size_t fe_identify_write(const fe_identity *identity, unsigned char *out) noexcept
