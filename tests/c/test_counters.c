/* What the counters promise: each has a name, is found under it, and a reader in another
 * thread sees them in the order in which the owner raised them. */
#include "support.h"

#include "counters.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

static void a_counter_is_read_under_its_own_name(void)
{
    fe_counters c;
    uint64_t value = 1;
    int i = 0;

    memset(&c, 0, sizeof(c));
#define SET(name) c.name = value++;
    FE_COUNTERS(SET)
#undef SET
    value = 1;
#define CHECK(name)                                                                                \
    assert(strcmp(fe_counter_name(i), #name) == 0);                                                \
    assert(fe_counter_get(&c, i) == value && c.name == value);                                     \
    i++, value++;
    FE_COUNTERS(CHECK)
#undef CHECK
    assert(i == FE_COUNTER_COUNT);
}

static void every_name_is_there_once(void)
{
    for (int i = 0; i < FE_COUNTER_COUNT; i++)
        for (int k = 0; k < i; k++)
            assert(strcmp(fe_counter_name(i), fe_counter_name(k)) != 0);
}

static void two_workers_share_no_cache_line(void)
{
    fe_counters two[2];

    assert(sizeof(fe_counters) % 64 == 0);
    assert((uintptr_t)&two[0] % 64 == 0 && (uintptr_t)&two[1] % 64 == 0);
}

static void counting_adds_and_uncounting_takes_away(void)
{
    uint64_t counter = 0;

    fe_count(&counter, 5);
    fe_count(&counter, 0);
    fe_count(&counter, UINT64_C(1) << 40);
    assert(fe_counter_read(&counter) == (UINT64_C(1) << 40) + 5);
    fe_uncount(&counter, 5);
    fe_uncount(&counter, UINT64_C(1) << 40);
    assert(fe_counter_read(&counter) == 0);
}

static void a_wait_in_the_queue_is_counted_by_its_class(void)
{
    fe_counters c;

    memset(&c, 0, sizeof(c));
    fe_count_queue_wait(&c, -EOPNOTSUPP);
    for (int i = 0; i < FE_QUEUE_WAITS; i++)
        assert(c.queue_waits[i] == 0);
    fe_count_queue_wait(&c, 0);
    fe_count_queue_wait(&c, 1);
    fe_count_queue_wait(&c, 3);
    fe_count_queue_wait(&c, 4);
    fe_count_queue_wait(&c, 32767);
    fe_count_queue_wait(&c, 32768);
    fe_count_queue_wait(&c, INT32_MAX);
    assert(c.queue_waits[0] == 1 && c.queue_waits[1] == 1 && c.queue_waits[2] == 1);
    assert(c.queue_waits[3] == 1 && c.queue_waits[15] == 1 && c.queue_waits[16] == 2);
    assert(c.queue_wait_ms == 0 + 1 + 3 + 4 + 32767 + 32768 + (uint64_t)INT32_MAX);
}

static void an_errno_is_counted_by_its_number_whatever_its_sign(void)
{
    fe_counters c;

    memset(&c, 0, sizeof(c));
    fe_count_errno(&c, -ECONNRESET);
    fe_count_errno(&c, ECONNRESET);
    fe_count_errno(&c, EPIPE);
    assert(c.errnos[ECONNRESET] == 2 && c.errnos[EPIPE] == 1);
    fe_count_errno(&c, FE_ERRNOS - 1);
    assert(c.errnos[FE_ERRNOS - 1] == 1 && c.errnos[0] == 0);
    fe_count_errno(&c, FE_ERRNOS);
    fe_count_errno(&c, -100000);
    assert(c.errnos[0] == 2);
    for (int number = 1; number < FE_ERRNOS; number++)
        if (number != ECONNRESET && number != EPIPE && number != FE_ERRNOS - 1)
            assert(c.errnos[number] == 0);
}

static void every_errno_of_this_system_has_a_counter_of_its_own(void)
{
    /* Unknown numbers share one text: whatever has another text is an errno. */
    for (int number = FE_ERRNOS; number < 600; number++)
        assert(strncmp(strerror(number), "Unknown error", 13) == 0 ||
               strncmp(strerror(number), "No error information", 20) == 0);
}

#define ROUNDS 200000

static void *accept_and_close(void *argument)
{
    fe_counters *c = argument;

    for (int i = 0; i < ROUNDS; i++) {
        fe_count(&c->connections_accepted, 1);
        fe_count(&c->connections_closed, 1);
    }
    return NULL;
}

static void a_reader_never_sees_more_closed_than_accepted(void)
{
    static fe_counters c;
    pthread_t owner;
    uint64_t closed = 0;

    assert(pthread_create(&owner, NULL, accept_and_close, &c) == 0);
    while (closed < ROUNDS) {
        uint64_t accepted;

        closed = fe_counter_read(&c.connections_closed);
        accepted = fe_counter_read(&c.connections_accepted);
        assert(closed <= accepted && accepted <= ROUNDS);
    }
    assert(pthread_join(owner, NULL) == 0);
}

int main(void)
{
    a_counter_is_read_under_its_own_name();
    every_name_is_there_once();
    two_workers_share_no_cache_line();
    counting_adds_and_uncounting_takes_away();
    a_wait_in_the_queue_is_counted_by_its_class();
    an_errno_is_counted_by_its_number_whatever_its_sign();
    every_errno_of_this_system_has_a_counter_of_its_own();
    a_reader_never_sees_more_closed_than_accepted();
    return 0;
}
