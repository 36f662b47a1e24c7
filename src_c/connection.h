/* The connection record and the life of a connection.
 *
 * Lives here: what the server knows of one accepted socket, and the table that
 * says what follows from what. Does not live here: any action. The table names
 * actions; fastecho/_connection.pxd carries them out.
 *
 *            admitted            peer's FIN            all replies sent
 *   ADMIT ------------> OPEN ----------------> PEER_EOF ---------------> REAP
 *     |                  | we end first                                   ^
 *     | denied           v          all replies sent          peer's FIN  |
 *     |               ENDING ------------------> LINGER ------------------+
 *     |                                                                   |
 *     +---------------- abort (RST), from any state ----------------------+
 *
 * Why ENDING and LINGER. A close() while input is unread, or input that arrives
 * after it, makes the kernel send RST and throw away what it still had to send
 * (2 MB taken by send, 113 KB read, measured). So when we end first: send what is
 * pending, send FIN, and read and discard until the peer's FIN. Neither lasts for
 * ever: a second without progress towards the peer ends it, in ENDING by RST, in
 * LINGER by a plain close, after which the kernel goes on alone. A peer that has
 * everything and keeps sending is cut off after FE_LINGER_BYTES.
 *
 * Nothing is freed while events are dispatched: REAP means that the descriptor
 * is closed and the record waits for the end of the iteration.
 */
#ifndef FASTECHO_CONNECTION_H
#define FASTECHO_CONNECTION_H

#include <stdint.h>

#include "buffer.h"
#include "timers.h"

enum fe_state {
    /* The slot is free. */
    FE_FREE = 0,
    /* Accepted, not served yet: the accept callback has not answered. */
    FE_ADMIT,
    /* Served. */
    FE_OPEN,
    /* The peer has sent FIN; replies are left to send. */
    FE_PEER_EOF,
    /* We end first; replies are left to send, input is discarded. */
    FE_ENDING,
    /* Our FIN is sent; input is discarded until the peer's FIN. */
    FE_LINGER,
    /* Closed; the record is given back after the batch. */
    FE_REAP,
    FE_STATES
};

enum fe_event {
    /* The accept callback accepted, or there is none. */
    FE_ON_ADMITTED = 0,
    /* The peer's FIN was read. */
    FE_ON_EOF,
    /* No reply is left to send and no input left to answer. */
    FE_ON_FLUSHED,
    /* We want to end it, in order. */
    FE_ON_END,
    /* To end at once, by RST: denied, deadline, or the kernel has given it up. Never by FIN:
     * that would tell the peer that all it sent was echoed. */
    FE_ON_ABORT,
    /* The time or the bytes of ENDING or LINGER are used up. */
    FE_ON_OVERDUE,
    FE_EVENTS
};

/* Actions, in the order in which they are carried out. */
enum fe_action {
    /* Register with epoll and start the idle timer. */
    FE_DO_SERVE = 1,
    /* Answer what is left of the input as the last of the stream. */
    FE_DO_LAST_FRAMES = 2,
    /* Start the linger timer. */
    FE_DO_LINGER_TIMER = 4,
    /* shutdown(SHUT_WR): our FIN. */
    FE_DO_FIN = 8,
    /* RST, and the send queue is thrown away. */
    FE_DO_RESET = 16,
    /* Out of epoll, close, put on the reap list. */
    FE_DO_CLOSE = 32
};

typedef struct fe_transition {
    uint8_t next;
    uint8_t actions;
} fe_transition;

/* What follows in a state on an event. An event that means nothing in a state
 * changes nothing. */
static inline fe_transition fe_transition_for(int state, int event)
{
    static const fe_transition table[FE_STATES][FE_EVENTS] = {
#define FE_STAY(state) {state, 0}
#define FE_ENDS {FE_REAP, FE_DO_FIN | FE_DO_CLOSE}
#define FE_ABORTS {FE_REAP, FE_DO_RESET | FE_DO_CLOSE}
#define FE_CLOSES {FE_REAP, FE_DO_CLOSE}
        /*             ADMITTED                 EOF
         *             FLUSHED                  END
         *             ABORT                    OVERDUE */
        [FE_FREE] = {FE_STAY(FE_FREE), FE_STAY(FE_FREE),
                     FE_STAY(FE_FREE), FE_STAY(FE_FREE),
                     FE_STAY(FE_FREE), FE_STAY(FE_FREE)},
        [FE_ADMIT] = {{FE_OPEN, FE_DO_SERVE}, FE_STAY(FE_ADMIT),
                      FE_STAY(FE_ADMIT), FE_STAY(FE_ADMIT),
                      FE_ABORTS, FE_STAY(FE_ADMIT)},
        [FE_OPEN] = {FE_STAY(FE_OPEN), {FE_PEER_EOF, FE_DO_LAST_FRAMES},
                     FE_STAY(FE_OPEN), {FE_ENDING, FE_DO_LINGER_TIMER},
                     FE_ABORTS, FE_STAY(FE_OPEN)},
        [FE_PEER_EOF] = {FE_STAY(FE_PEER_EOF), FE_STAY(FE_PEER_EOF),
                         FE_ENDS, FE_STAY(FE_PEER_EOF),
                         FE_ABORTS, FE_STAY(FE_PEER_EOF)},
        [FE_ENDING] = {FE_STAY(FE_ENDING), FE_STAY(FE_ENDING),
                       {FE_LINGER, FE_DO_LINGER_TIMER | FE_DO_FIN}, FE_STAY(FE_ENDING),
                       FE_ABORTS, FE_ABORTS},
        [FE_LINGER] = {FE_STAY(FE_LINGER), FE_CLOSES,
                       FE_STAY(FE_LINGER), FE_STAY(FE_LINGER),
                       FE_ABORTS, FE_CLOSES},
        [FE_REAP] = {FE_STAY(FE_REAP), FE_STAY(FE_REAP),
                     FE_STAY(FE_REAP), FE_STAY(FE_REAP),
                     FE_STAY(FE_REAP), FE_STAY(FE_REAP)},
#undef FE_STAY
#undef FE_ENDS
#undef FE_ABORTS
#undef FE_CLOSES
    };
    return table[state][event];
}

/* Why a connection ended: the first cause counts. Each has a counter. The last five never began:
 * accepted and reset at once; max_per_ip can also end one whose PROXY header tells its address. */
enum fe_reason {
    FE_BY_NOBODY = 0,
    /* The peer's FIN came first and everything was echoed. */
    FE_BY_PEER,
    /* The kernel reported an error; the errno is counted as well. */
    FE_BY_ERROR,
    /* No byte in either direction for idle_timeout. */
    FE_BY_IDLE_TIMEOUT,
    /* A frame longer than max_frame. */
    FE_BY_FRAME_TOO_LONG,
    /* The accept callback said no. */
    FE_BY_DENIAL,
    /* Quiet during a drain. */
    FE_BY_DRAIN,
    /* Still busy at the drain's deadline, or abort() was called. */
    FE_BY_ABORT,
    /* Memory for its bytes was refused. */
    FE_BY_NO_MEMORY,
    /* Not one byte came within first_byte_timeout. */
    FE_BY_FIRST_BYTE_TIMEOUT,
    /* A callback's side called close(), or abort(). */
    FE_BY_CLOSE,
    FE_BY_RESET,
    /* A callback raised, or returned what is no reply. */
    FE_BY_CALLBACK_ERROR,
    /* More bytes than max_pending waited for a peer that does not read. */
    FE_BY_MAX_PENDING,
    /* Its fault says so: denied, or so many bytes were sent. */
    FE_BY_FAULT,
    /* Its PROXY header is wrong, missing or late. */
    FE_BY_PROXY_HEADER,
    FE_BY_MAX_CONNECTIONS,
    FE_BY_MAX_PER_IP,
    FE_BY_ACCEPT_RATE,
    FE_BY_NO_DESCRIPTORS,
    /* A PROXY header is required, and nobody believes one that comes from there. */
    FE_BY_UNTRUSTED,
    FE_REASONS
};

/* The name of a reason, as a log line has it; reason < FE_REASONS. */
static inline const char *fe_reason_name(int reason)
{
    static const char *const names[FE_REASONS] = {
        [FE_BY_NOBODY] = "nobody",
        [FE_BY_PEER] = "peer",
        [FE_BY_ERROR] = "error",
        [FE_BY_IDLE_TIMEOUT] = "idle_timeout",
        [FE_BY_FRAME_TOO_LONG] = "frame_too_long",
        [FE_BY_DENIAL] = "denial",
        [FE_BY_DRAIN] = "drain",
        [FE_BY_ABORT] = "abort",
        [FE_BY_NO_MEMORY] = "no_memory",
        [FE_BY_FIRST_BYTE_TIMEOUT] = "first_byte_timeout",
        [FE_BY_CLOSE] = "close",
        [FE_BY_RESET] = "reset",
        [FE_BY_CALLBACK_ERROR] = "callback_error",
        [FE_BY_MAX_PENDING] = "max_pending",
        [FE_BY_FAULT] = "fault",
        [FE_BY_MAX_CONNECTIONS] = "max_connections",
        [FE_BY_MAX_PER_IP] = "max_per_ip",
        [FE_BY_ACCEPT_RATE] = "accept_rate",
        [FE_BY_PROXY_HEADER] = "proxy_header",
        [FE_BY_NO_DESCRIPTORS] = "no_descriptors",
        [FE_BY_UNTRUSTED] = "untrusted"};
    return names[reason];
}

enum fe_connection_flag {
    /* Is in epoll's interest list. */
    FE_IS_REGISTERED = 1,
    /* Is in the worker's ready list. */
    FE_IS_READY = 2,
    /* Pending reached the high-water mark and is not below low water again. */
    FE_IS_PAUSED = 4,
    /* Complete frames may be left in unparsed. */
    FE_HAS_FRAMES = 8,
    /* HUP or ERR came while nothing was asked for: out of epoll until then. */
    FE_HAS_HUNG_UP = 16,
    /* The last recv or send failed for want of kernel memory. */
    FE_WAS_REFUSED = 32,
    /* The peer's FIN has been read. */
    FE_HAS_EOF = 64,
    /* No byte has come yet, and first_byte_timeout counts. */
    FE_AWAITS_FIRST = 128
};

/* What callbacks, or a fault's RST, want of a connection; 0 where there are none. */
enum fe_wish {
    /* No frame is to be delivered, and nothing to be read. */
    FE_HOLDS = 1,
    /* The peer's FIN does not end it. */
    FE_KEEPS_OPEN = 2,
    /* Our FIN is to follow what is pending, or has been sent. */
    FE_WANTS_FIN = 4,
    FE_SENT_FIN = 8,
    /* A callback is due: nothing is read until it has returned. */
    FE_AWAITS_CALLBACK = 16,
    /* A write() was told that high water is reached, and on_drain is owed for it. */
    FE_OWES_DRAIN = 32,
    /* The peer's FIN was read and is to be told. */
    FE_OWES_EOF = 64,
    /* Pending bytes that were not offered to the kernel yet. */
    FE_IS_TO_FLUSH = 128
};

/* No slot: the end of a list of slots. */
#define FE_NO_SLOT UINT32_MAX

/* How a connection's bytes are handled. */
enum fe_path {
    /* What comes in goes out. */
    FE_PATH_RAW = 0,
    /* Frames, prefix, suffix. */
    FE_PATH_FRAMES = 1,
    /* Callbacks get the frames. */
    FE_PATH_CALLBACKS = 2,
    /* Replies of either kind of echo go through a fault. (Those of callbacks may as well.) */
    FE_PATH_FAULT = 3,
    /* Nothing is served yet: its PROXY header is awaited. */
    FE_PATH_PROXY = 4,
    /* From here on there is no echo. What comes in is dropped (RFC 863). */
    FE_PATH_DISCARD = 5,
    /* A pattern goes out without end, and what comes in is dropped (RFC 864). */
    FE_PATH_CHARGEN = 6
};

typedef struct fe_connection {
    /* Number among all accepted of the server, from 1. */
    uint64_t number;
    /* Reply bytes that send did not take; NULL: none. */
    fe_buffer *pending;
    /* Input that is no complete frame yet, or not answered yet; NULL: none. */
    fe_buffer *unparsed;
    union {
        /* Last byte in or out: low 32 bits of the worker's clock in ms; kept only when a
         * timeout or a drain needs it. Differences hold up to 49 days, timers look earlier. */
        uint32_t active_ms;
        /* In LINGER: bytes discarded since the last look at the send queue. */
        uint32_t discarded;
    };
    /* Bytes in the kernel's send queue at the last look; 0: not looked since it was active. */
    uint32_t unsent;
    /* Place in the worker's slabs. */
    uint32_t slot;
    /* Raised whenever the slot is given back: old handles do not fit. */
    uint32_t generation;
    /* The socket; -1 once closed. */
    int32_t fd;
    /* Idle, linger. */
    fe_timer timer;
    /* Neighbours in the ready list; next also links the free and the reap list. */
    uint32_t next;
    union {
        uint32_t previous;
        /* FE_PATH_CHARGEN, which is never on the ready list: the place in the pattern of the next
         * byte to be sent (chargen.h). */
        uint32_t pattern_at;
    };
    /* Index of the listener that it came through. */
    uint16_t listener;
    /* enum fe_state. */
    uint8_t state;
    /* enum fe_path. */
    uint8_t path;
    /* What epoll is asked for: EPOLLIN, EPOLLOUT. */
    uint8_t interest;
    /* enum fe_connection_flag. */
    uint8_t flags;
    /* enum fe_reason. */
    uint8_t reason;
    /* enum fe_wish. */
    uint8_t wishes;
} fe_connection;

_Static_assert(sizeof(fe_connection) == 64, "a connection is one cache line");

/* The connection that a timer belongs to. */
static inline fe_connection *fe_connection_of(fe_timer *timer)
{
    return (fe_connection *)(void *)((char *)timer - offsetof(fe_connection, timer));
}

/* How long without progress, and how much input, when we end first. nginx waits 5 s
 * (lingering_timeout); a test-suite that stops a server should not. */
#define FE_LINGER_MS 1000
#define FE_LINGER_BYTES (1024 * 1024)

#endif
