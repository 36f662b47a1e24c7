/* Records: they never move, a slot comes back with another generation, a handle of a record
 * that is gone finds nothing, and no memory means no record and no harm. */
#include "support.h"

#include "slab.h"

#define MANY 5000

static fe_slab slab;

static void a_new_record_is_empty_and_waits_for_admission(void)
{
    fe_connection *c;

    fe_slab_init(&slab);
    c = fe_slab_take(&slab);
    assert(c != NULL && (uintptr_t)c % 64 == 0);
    assert(c->state == FE_ADMIT && c->slot == 0 && c->generation == 1 && c->fd == -1);
    assert(c->next == FE_NO_SLOT && c->previous == FE_NO_SLOT);
    assert(c->pending == NULL && c->unparsed == NULL && !fe_timer_is_set(&c->timer));
    assert(c->number == 0 && c->active_ms == 0 && c->listener == 0);
    assert(c->path == 0 && c->interest == 0 && c->flags == 0 && c->reason == FE_BY_NOBODY);
    assert(slab.live == 1 && slab.used == 1);
    fe_slab_free(&slab);
}

static void a_record_that_comes_back_starts_empty_again(void)
{
    fe_connection *c;

    fe_slab_init(&slab);
    c = fe_slab_take(&slab);
    c->number = 9;
    c->fd = 5;
    c->flags = c->reason = c->interest = c->path = 1;
    c->active_ms = c->listener = 3;
    c->previous = 4;
    fe_slab_give(&slab, c);
    assert(slab.live == 0);
    assert(fe_slab_take(&slab) == c);
    assert(c->state == FE_ADMIT && c->slot == 0 && c->generation == 2 && c->fd == -1);
    assert(c->number == 0 && c->flags == 0 && c->reason == 0 && c->interest == 0 && c->path == 0);
    assert(c->active_ms == 0 && c->listener == 0);
    assert(c->next == FE_NO_SLOT && c->previous == FE_NO_SLOT);
    fe_slab_free(&slab);
}

static void an_old_handle_finds_nothing(void)
{
    fe_connection *c;

    fe_slab_init(&slab);
    assert(fe_slab_find(&slab, 0, 1) == NULL);
    c = fe_slab_take(&slab);
    assert(fe_slab_find(&slab, 0, 1) == c);
    assert(fe_slab_find(&slab, 0, 2) == NULL && fe_slab_find(&slab, 0, 0) == NULL);
    assert(fe_slab_find(&slab, 1, 1) == NULL && fe_slab_find(&slab, FE_NO_SLOT, 1) == NULL);
    c->state = FE_REAP;
    assert(fe_slab_find(&slab, 0, 1) == c);
    fe_slab_give(&slab, c);
    assert(fe_slab_find(&slab, 0, 1) == NULL);
    /* Free, and with the generation that it will have next. */
    assert(fe_slab_find(&slab, 0, 2) == NULL);
    fe_slab_take(&slab);
    assert(fe_slab_find(&slab, 0, 1) == NULL && fe_slab_find(&slab, 0, 2) == c);
    fe_slab_free(&slab);
}

/* Takes and gives in random order against a plain list of who is live. */
static void records_never_move_and_are_given_to_one_owner(void)
{
    static fe_connection *held[MANY];
    static fe_connection *first_seen[MANY];
    static uint32_t generations[MANY];
    uint64_t state = 1;
    uint32_t live = 0;

    fe_slab_init(&slab);
    for (int round = 0; round < 60000; round++) {
        /* Grows at first, so that several blocks are in use. */
        if (live < MANY && random_below(&state, 100) < (round < 20000 ? 70u : 50u)) {
            fe_connection *c = fe_slab_take(&slab);

            assert(c != NULL && c->slot < MANY && c->state == FE_ADMIT && c->number == 0);
            if (first_seen[c->slot] == NULL)
                first_seen[c->slot] = c;
            assert(first_seen[c->slot] == c && c->generation == generations[c->slot] + 1);
            assert(fe_slab_at(&slab, c->slot) == c);
            generations[c->slot] = c->generation;
            c->number = (uint64_t)round + 1;
            held[live++] = c;
        } else if (live > 0) {
            uint32_t i = (uint32_t)random_below(&state, live);
            fe_connection *c = held[i];

            assert(fe_slab_find(&slab, c->slot, generations[c->slot]) == c && c->number != 0);
            fe_slab_give(&slab, c);
            assert(fe_slab_find(&slab, c->slot, generations[c->slot]) == NULL);
            held[i] = held[--live];
        }
        assert(slab.live == live && slab.used >= live);
    }
    assert(slab.used > 2 * FE_SLAB_BLOCK);
    fe_slab_free(&slab);
    assert(slab.live == 0 && slab.used == 0 && slab.blocks[0] == NULL);
}

static void refused_memory_gives_no_record_and_leaves_the_slab_usable(void)
{
    fe_slab_init(&slab);
    memory_is_refused = 1;
    assert(fe_slab_take(&slab) == NULL && slab.live == 0 && slab.used == 0);
    memory_is_refused = 0;
    for (uint32_t i = 0; i < FE_SLAB_BLOCK; i++)
        assert(fe_slab_take(&slab) != NULL);
    memory_is_refused = 1;
    assert(fe_slab_take(&slab) == NULL && slab.live == FE_SLAB_BLOCK);
    fe_slab_give(&slab, fe_slab_at(&slab, 17));
    assert(fe_slab_take(&slab) == fe_slab_at(&slab, 17));
    memory_is_refused = 0;
    assert(fe_slab_take(&slab)->slot == FE_SLAB_BLOCK);
    fe_slab_free(&slab);
}

static void a_full_slab_gives_no_record(void)
{
    fe_connection *last;

    fe_slab_init(&slab);
    for (uint32_t i = 0; i + 1 < FE_SLAB_BLOCKS; i++)
        assert((slab.blocks[i] = malloc(1)) != NULL);
    /* As after four million connections; only the last block is looked at. */
    slab.blocks[FE_SLAB_BLOCKS - 1] = calloc(FE_SLAB_BLOCK, sizeof(fe_connection));
    assert(slab.blocks[FE_SLAB_BLOCKS - 1] != NULL);
    slab.used = FE_SLAB_BLOCK * FE_SLAB_BLOCKS - 1;
    last = fe_slab_take(&slab);
    assert(last != NULL && last->slot == FE_SLAB_BLOCK * FE_SLAB_BLOCKS - 1);
    assert(fe_slab_take(&slab) == NULL && slab.used == FE_SLAB_BLOCK * FE_SLAB_BLOCKS);
    fe_slab_give(&slab, last);
    assert(fe_slab_take(&slab) == last);
    fe_slab_free(&slab);
    /* Tags of listeners and of the mailbox start at 0xFFFE0000: no slot reaches them. */
    assert(FE_SLAB_BLOCK * FE_SLAB_BLOCKS < 0xFFFE0000u);
}

int main(void)
{
    a_new_record_is_empty_and_waits_for_admission();
    a_record_that_comes_back_starts_empty_again();
    an_old_handle_finds_nothing();
    records_never_move_and_are_given_to_one_owner();
    refused_memory_gives_no_record_and_leaves_the_slab_usable();
    a_full_slab_gives_no_record();
    return 0;
}
