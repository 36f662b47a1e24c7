/* The access log's entries and ring: nothing is lost but by a full ring, in order, between two
 * threads, and also when memory is refused. */
#include "support.h"

#include <pthread.h>
#include <sched.h>

#include "access_log.h"
#include "connection.h"

static void an_entry_begins_empty_whoever_had_the_slot(void)
{
    fe_log_table t = {NULL, 0};
    fe_log_entry *e = fe_log_begin(&t, 3), none;

    memset(&none, 0, sizeof(none));
    assert(e == &t.entries[3] && memcmp(e, &none, sizeof(none)) == 0);
    memset(e, 0xff, sizeof(*e));
    assert(fe_log_begin(&t, 3) == e && memcmp(e, &none, sizeof(none)) == 0);
    fe_log_table_free(&t);
    assert(t.entries == NULL && t.size == 0);
}

static void a_table_that_grows_keeps_its_entries(void)
{
    fe_log_table t = {NULL, 0};
    uint32_t slot;

    for (slot = 0; slot < 10 * FE_LOG_TABLE_MIN; slot++)
        fe_log_begin(&t, slot)->number = slot + 1;
    for (slot = 0; slot < 10 * FE_LOG_TABLE_MIN; slot++)
        assert(t.entries[slot].number == slot + 1);
    fe_log_begin(&t, 100000)->number = 7; /* many sizes at once */
    assert(t.entries[5].number == 6 && t.entries[100000].number == 7);
    fe_log_table_free(&t);
}

static void a_table_without_memory_stays_as_it_was(void)
{
    fe_log_table t = {NULL, 0};

    memory_is_refused = 1;
    assert(fe_log_begin(&t, 0) == NULL && t.size == 0);
    memory_is_refused = 0;
    fe_log_begin(&t, 0)->number = 9;
    memory_is_refused = 1;
    assert(fe_log_begin(&t, FE_LOG_TABLE_MIN) == NULL);
    assert(fe_log_begin(&t, FE_LOG_TABLE_MIN - 1) != NULL); /* needs none */
    memory_is_refused = 0;
    assert(t.entries[0].number == 9 && t.size == FE_LOG_TABLE_MIN);
    fe_log_table_free(&t);
}

static void a_full_ring_refuses_and_goes_on_in_order(void)
{
    fe_log_ring r;
    fe_log_entry e;
    uint64_t i;

    memset(&e, 0, sizeof(e));
    assert(fe_log_ring_init(&r) == 0);
    assert(!fe_log_take(&r, &e));
    for (i = 0; i < FE_LOG_ENTRIES; i++) {
        e.number = i;
        assert(fe_log_put(&r, &e));
    }
    e.number = 99999;
    assert(!fe_log_put(&r, &e));
    assert(fe_log_take(&r, &e) && e.number == 0);
    e.number = FE_LOG_ENTRIES;
    assert(fe_log_put(&r, &e) && !fe_log_put(&r, &e));
    for (i = 1; i <= FE_LOG_ENTRIES; i++)
        assert(fe_log_take(&r, &e) && e.number == i);
    assert(!fe_log_take(&r, &e));
    fe_log_ring_free(&r);
    assert(r.entries == NULL);
}

static void a_ring_without_memory_says_so_and_is_empty(void)
{
    fe_log_ring r;
    fe_log_entry e;

    memory_is_refused = 1;
    assert(fe_log_ring_init(&r) == -ENOMEM);
    memory_is_refused = 0;
    assert(!fe_log_take(&r, &e));
    fe_log_ring_free(&r);
}

enum { ENTRIES = 300000 };
static fe_log_ring shared;

static void *put_all(void *refused)
{
    fe_log_entry e;
    uint64_t i;

    memset(&e, 0, sizeof(e));
    for (i = 1; i <= ENTRIES; i++) {
        e.number = e.bytes_in = e.bytes_out = i;
        while (!fe_log_put(&shared, &e)) {
            ++*(uint64_t *)refused;
            sched_yield();
        }
    }
    return NULL;
}

/* Torn or reordered copies would show as numbers that differ. */
static void two_threads_pass_every_entry_whole_and_in_order(void)
{
    pthread_t putter;
    uint64_t refused = 0, i = 0;
    fe_log_entry e;

    assert(fe_log_ring_init(&shared) == 0);
    assert(pthread_create(&putter, NULL, put_all, &refused) == 0);
    while (i < ENTRIES) {
        if (!fe_log_take(&shared, &e)) {
            sched_yield();
            continue;
        }
        i++;
        assert(e.number == i && e.bytes_in == i && e.bytes_out == i);
    }
    assert(pthread_join(putter, NULL) == 0);
    assert(!fe_log_take(&shared, &e));
    fe_log_ring_free(&shared);
}

static void every_reason_has_a_name_of_its_own(void)
{
    int i, j;

    for (i = 0; i < FE_REASONS; i++) {
        assert(fe_reason_name(i) != NULL && fe_reason_name(i)[0] != '\0');
        for (j = 0; j < i; j++)
            assert(strcmp(fe_reason_name(i), fe_reason_name(j)) != 0);
    }
}

int main(void)
{
    an_entry_begins_empty_whoever_had_the_slot();
    a_table_that_grows_keeps_its_entries();
    a_table_without_memory_stays_as_it_was();
    a_full_ring_refuses_and_goes_on_in_order();
    a_ring_without_memory_says_so_and_is_empty();
    two_threads_pass_every_entry_whole_and_in_order();
    every_reason_has_a_name_of_its_own();
    return 0;
}
