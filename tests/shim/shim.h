/* What the parts of the shim share: the calls by number, and the campaign's decision.
 *
 * Lives here: names that more than one part uses. Does not live here: the rules and the log
 * (shim.c), the campaign (campaign.c), blocks of memory (blocks.c), what stands in for the C
 * library (shim.c, memory.c).
 */
#ifndef FASTECHO_SHIM_H
#define FASTECHO_SHIM_H

#include <stddef.h>

/* Python counts them in the same order (tests/served.py, tests/faults/lives.py). */
enum shim_call {
    SHIM_RECV,
    SHIM_SEND,
    SHIM_ACCEPT,
    SHIM_EPOLL_CTL,
    SHIM_EPOLL_WAIT,
    SHIM_READ,
    SHIM_WRITE,
    SHIM_CLOSE,
    SHIM_MALLOC,
    SHIM_CALLOC,
    SHIM_REALLOC,
    SHIM_ALIGNED_ALLOC,
    SHIM_RECVMMSG,
    SHIM_SENDMMSG,
    SHIM_CALLS
};

/* Decides about a call of the extensions; whoever else calls is left alone.
 * caller: the address that the call returns to. fd: of a connection or a listener; -1: none.
 * *n, the bytes, events or messages asked for, may be lowered to 1 or more; NULL: it cannot.
 * Result: the errno to fail with, or 0. */
int campaign_judge(enum shim_call call, const void *caller, int fd, size_t *n);

/* Whether a call returns into an extension, as far as they are known. */
int campaign_is_ours(const void *caller);

/* blocks.c; a block may be NULL. */
void blocks_add(const void *block);
int blocks_remove(const void *block);

#endif
