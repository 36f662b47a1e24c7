/* The rule for each errno that a socket call can give.
 *
 * Lives here: errno in, rule out. Whatever has no rule of its own closes the
 * connection (recv, send) or suspends accepting for a moment (accept4): never
 * the loop, and always counted by its number.
 */
#ifndef FASTECHO_ERRORS_H
#define FASTECHO_ERRORS_H

#include <errno.h>

enum fe_accept_rule {
    /* Nothing there: the event is done. */
    FE_ACCEPT_DONE = 0,
    /* This one newcomer failed (accept(2): network errors are reported early, the
     * peer may be gone already, a firewall said no): go on with the next. */
    FE_ACCEPT_NEXT,
    /* No descriptor: spend the reserve to shed the newcomer. */
    FE_ACCEPT_SHED,
    /* The kernel has no memory, or an errno without a rule: try again later. */
    FE_ACCEPT_PAUSE,
    /* The listener was shut down: nothing will ever come. */
    FE_ACCEPT_OVER
};

static inline int fe_accept_rule_for(int error)
{
    switch (error) {
    case EAGAIN:
#if EWOULDBLOCK != EAGAIN
    case EWOULDBLOCK:
#endif
        return FE_ACCEPT_DONE;
    case ECONNABORTED:
    case EPERM:
    case EPROTO:
    case ENOPROTOOPT:
    case EOPNOTSUPP:
    case ENETDOWN:
    case ENETUNREACH:
    case ENONET:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ETIMEDOUT:
        return FE_ACCEPT_NEXT;
    case EMFILE:
    case ENFILE:
        return FE_ACCEPT_SHED;
    case EINVAL:
        return FE_ACCEPT_OVER;
    default: /* ENOBUFS, ENOMEM, and what nobody has foreseen */
        return FE_ACCEPT_PAUSE;
    }
}

enum fe_io_rule {
    /* Not now: wait for the next event. */
    FE_IO_WAIT = 0,
    /* The kernel is short of memory: wait once, then it is lost. */
    FE_IO_REFUSED,
    /* The connection is gone (ECONNRESET, EPIPE, ETIMEDOUT, EHOSTUNREACH,
     * ENETUNREACH, ... and every errno without a rule). */
    FE_IO_LOST
};

static inline int fe_io_rule_for(int error)
{
    switch (error) {
    case EAGAIN:
#if EWOULDBLOCK != EAGAIN
    case EWOULDBLOCK:
#endif
        return FE_IO_WAIT;
    case ENOBUFS:
    case ENOMEM:
        return FE_IO_REFUSED;
    default:
        return FE_IO_LOST;
    }
}

#endif
