/* Stands before malloc and its kin, and before read, write and close of the extensions.
 *
 * Lives here: the functions that only a campaign fails. Does not live here: the decision
 * (campaign.c), what is known of blocks (blocks.c), the socket calls (shim.c).
 *
 * The C library and its loader call malloc before any constructor has run, so each function
 * looks for the next one when it is first called.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "shim.h"

/* Finds the function behind ours, once. Two threads that come at the same time find the same. */
#define FIND_NEXT(pointer, name)                                                                \
    do {                                                                                        \
        if ((pointer) == NULL)                                                                  \
            *(void **)&(pointer) = dlsym(RTLD_NEXT, (name));                                    \
    } while (0)

static void (*next_free)(void *);

/* True: the call fails, and errno says why. */
static int fails(enum shim_call call, const void *caller)
{
    int error = campaign_judge(call, caller, -1, NULL);

    if (error != 0)
        errno = error;
    return error != 0;
}

/* A block that an extension has got is known. All others are passed on by a jump, for a leak
 * detector looks at who has called: it forgives the loader. */
static void *known(void *block)
{
    blocks_add(block);
    return block;
}

void *malloc(size_t n)
{
    static void *(*next)(size_t);
    const void *caller = __builtin_return_address(0);

    FIND_NEXT(next, "malloc");
    FIND_NEXT(next_free, "free");
    if (fails(SHIM_MALLOC, caller))
        return NULL;
    return campaign_is_ours(caller) ? known(next(n)) : next(n);
}

void *calloc(size_t n, size_t size)
{
    static void *(*next)(size_t, size_t);
    const void *caller = __builtin_return_address(0);

    FIND_NEXT(next, "calloc");
    FIND_NEXT(next_free, "free");
    if (fails(SHIM_CALLOC, caller))
        return NULL;
    return campaign_is_ours(caller) ? known(next(n, size)) : next(n, size);
}

void *realloc(void *block, size_t n)
{
    static void *(*next)(void *, size_t);
    const void *caller = __builtin_return_address(0);
    void *grown;
    int was_known;

    FIND_NEXT(next, "realloc");
    FIND_NEXT(next_free, "free");
    if (fails(SHIM_REALLOC, caller))
        return NULL;
    was_known = blocks_remove(block);
    if (!was_known && !campaign_is_ours(caller))
        return next(block, n);
    grown = next(block, n);
    if (grown == NULL && was_known && n > 0)
        blocks_add(block);
    return campaign_is_ours(caller) ? known(grown) : grown;
}

/* Found with malloc: the first free may come from within dlsym. */
void free(void *block)
{
    blocks_remove(block);
    if (next_free != NULL)
        next_free(block);
}

void *aligned_alloc(size_t alignment, size_t n)
{
    static void *(*next)(size_t, size_t);
    const void *caller = __builtin_return_address(0);

    FIND_NEXT(next, "aligned_alloc");
    if (fails(SHIM_ALIGNED_ALLOC, caller))
        return NULL;
    return campaign_is_ours(caller) ? known(next(alignment, n)) : next(alignment, n);
}

static ssize_t judged_read(int fd, void *data, size_t n, const void *caller)
{
    static ssize_t (*next)(int, void *, size_t);

    FIND_NEXT(next, "read");
    return fails(SHIM_READ, caller) ? -1 : next(fd, data, n);
}

ssize_t read(int fd, void *data, size_t n)
{
    return judged_read(fd, data, n, __builtin_return_address(0));
}

/* What read becomes under _FORTIFY_SOURCE. */
ssize_t __read_chk(int fd, void *data, size_t n, size_t room);
ssize_t __read_chk(int fd, void *data, size_t n, size_t room)
{
    (void)room;
    return judged_read(fd, data, n, __builtin_return_address(0));
}

ssize_t write(int fd, const void *data, size_t n)
{
    static ssize_t (*next)(int, const void *, size_t);

    FIND_NEXT(next, "write");
    return fails(SHIM_WRITE, __builtin_return_address(0)) ? -1 : next(fd, data, n);
}

/* Linux has released the descriptor when close reports an error: so it does here. */
int close(int fd)
{
    static int (*next)(int);
    int rc;

    FIND_NEXT(next, "close");
    rc = next(fd);
    return fails(SHIM_CLOSE, __builtin_return_address(0)) ? -1 : rc;
}
