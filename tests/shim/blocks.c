/* Knows the blocks of memory that the extensions hold: what is left after a life is a leak.
 *
 * Lives here: the table of blocks. Does not live here: the functions that fill it (memory.c), who
 * counts as an extension (campaign.c).
 *
 * Whoever frees a block takes it out, for an extension's last step may be a jump to free. Blocks
 * from before the first plan are not known.
 */
#include <stdint.h>

#include "shim.h"

/* More than the extensions ever hold; a power of two. */
#define SLOTS ((size_t)1 << 18)

static uintptr_t slots[SLOTS];
static int64_t held;
static char lock;

static size_t home_of(uintptr_t block)
{
    return (size_t)((uint64_t)block * 0x9e3779b97f4a7c15u >> 46);
}

static void enter(void)
{
    while (__atomic_test_and_set(&lock, __ATOMIC_ACQUIRE))
        ;
}

static void leave(void)
{
    __atomic_clear(&lock, __ATOMIC_RELEASE);
}

/* Where a block stands, or would. */
static size_t find(uintptr_t block)
{
    size_t i = home_of(block);

    while (slots[i] != 0 && slots[i] != block)
        i = (i + 1) % SLOTS;
    return i;
}

/* An extension has got a block. One more than there is room for is not known. */
void blocks_add(const void *block)
{
    enter();
    if (block != NULL && held < (int64_t)(SLOTS / 2)) {
        slots[find((uintptr_t)block)] = (uintptr_t)block;
        __atomic_add_fetch(&held, 1, __ATOMIC_RELAXED);
    }
    leave();
}

/* A block, of whomever, is given back: to be told before somebody else can have it. Result:
 * whether it was an extension's. */
int blocks_remove(const void *block)
{
    size_t gap, i;
    int was_known;

    if (block == NULL || __atomic_load_n(&held, __ATOMIC_RELAXED) == 0)
        return 0;
    enter();
    i = gap = find((uintptr_t)block);
    was_known = slots[gap] != 0;
    if (was_known) {
        __atomic_sub_fetch(&held, 1, __ATOMIC_RELAXED);
        /* Those behind it that stand further than they would close the gap. */
        for (i = (i + 1) % SLOTS; slots[i] != 0; i = (i + 1) % SLOTS) {
            if ((i - home_of(slots[i])) % SLOTS < (i - gap) % SLOTS)
                continue;
            slots[gap] = slots[i];
            gap = i;
        }
        slots[gap] = 0;
    }
    leave();
    return was_known;
}

/* How many blocks the extensions hold. */
int64_t shim_blocks(void)
{
    return __atomic_load_n(&held, __ATOMIC_RELAXED);
}
