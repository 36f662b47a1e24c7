/* Timers expire in the order of their deadlines and never early. The heap is compared with a
 * plain array that is searched from end to end. */
#include "support.h"

#include "timers.h"

#include <string.h>

#define MANY 700

static fe_timers timers;

static void without_a_timer_nothing_expires_and_nothing_is_waited_for(void)
{
    fe_timer timer = {0};

    assert(fe_timers_expired(&timers, UINT64_MAX) == NULL);
    assert(fe_timers_wait_ms(&timers, 5, 100) == -1);
    assert(!fe_timer_is_set(&timer));
    fe_timers_clear(&timers, &timer);
    assert(!fe_timer_is_set(&timer) && timers.count == 0);
}

static void a_timer_expires_once_and_never_early(void)
{
    fe_timer timer = {0};

    assert(fe_timers_set(&timers, &timer, 1000) == 0);
    assert(fe_timer_is_set(&timer));
    assert(fe_timers_expired(&timers, 999) == NULL && fe_timer_is_set(&timer));
    assert(fe_timers_expired(&timers, 1000) == &timer);
    assert(!fe_timer_is_set(&timer));
    assert(fe_timers_expired(&timers, 2000) == NULL);
}

static void the_wait_ends_at_the_earliest_deadline(void)
{
    fe_timer first = {0}, second = {0};

    assert(fe_timers_set(&timers, &second, 5000) == 0);
    assert(fe_timers_set(&timers, &first, 3000) == 0);
    assert(fe_timers_wait_ms(&timers, 2999, 100000) == 1);
    assert(fe_timers_wait_ms(&timers, 1000, 100000) == 2000);
    assert(fe_timers_wait_ms(&timers, 3000, 100000) == 0);
    assert(fe_timers_wait_ms(&timers, 9000, 100000) == 0);
    /* A far deadline is approached in steps of the cap. */
    assert(fe_timers_wait_ms(&timers, 1000, 2000) == 2000);
    assert(fe_timers_wait_ms(&timers, 1000, 1999) == 1999);
    assert(fe_timers_set(&timers, &first, UINT64_MAX) == 0);
    fe_timers_clear(&timers, &second);
    assert(fe_timers_wait_ms(&timers, 0, 3600000) == 3600000);
    fe_timers_clear(&timers, &first);
    assert(fe_timers_wait_ms(&timers, 0, 3600000) == -1);
}

static void setting_again_moves_the_deadline(void)
{
    fe_timer timer = {0}, other = {0};

    assert(fe_timers_set(&timers, &other, 50) == 0);
    assert(fe_timers_set(&timers, &timer, 100) == 0);
    assert(fe_timers_set(&timers, &timer, 10) == 0 && timers.count == 2);
    assert(fe_timers_expired(&timers, 20) == &timer);
    assert(fe_timers_set(&timers, &timer, 10) == 0);
    assert(fe_timers_set(&timers, &timer, 100) == 0 && timers.count == 2);
    assert(fe_timers_expired(&timers, 60) == &other);
    assert(fe_timers_expired(&timers, 99) == NULL);
    fe_timers_clear(&timers, &timer);
    assert(timers.count == 0);
}

static void refused_memory_leaves_the_timer_unset_and_the_others_alone(void)
{
    static fe_timer full[64];
    fe_timer timer = {0};

    fe_timers_free(&timers);
    memory_is_refused = 1;
    assert(fe_timers_set(&timers, &timer, 1) == -ENOMEM && !fe_timer_is_set(&timer));
    memory_is_refused = 0;
    for (uint32_t i = 0; i < 64; i++)
        assert(fe_timers_set(&timers, &full[i], 1000 + i) == 0);
    memory_is_refused = 1;
    assert(fe_timers_set(&timers, &timer, 1) == -ENOMEM && !fe_timer_is_set(&timer));
    /* One that is set already needs no memory. */
    assert(fe_timers_set(&timers, &full[63], 1) == 0);
    memory_is_refused = 0;
    assert(timers.count == 64 && fe_timers_expired(&timers, 1) == &full[63]);
    assert(fe_timers_set(&timers, &timer, 2) == 0);
    assert(fe_timers_expired(&timers, 2) == &timer);
    fe_timers_free(&timers);
    assert(timers.count == 0 && timers.capacity == 0 && timers.heap == NULL);
}

static void more_timers_than_a_handle_can_count_are_refused(void)
{
    fe_timers huge = {NULL, UINT32_C(1) << 31, UINT32_C(1) << 31, 0};
    fe_timer timer = {0};

    assert(fe_timers_set(&huge, &timer, 1) == -ENOMEM && !fe_timer_is_set(&timer));
    assert(huge.count == UINT32_C(1) << 31 && huge.heap == NULL);
}

static void a_spare_timer_is_set_when_memory_is_refused(void)
{
    fe_timers timers;
    fe_timer spare[2] = {{0}, {0}};
    fe_timer others[66];

    memset(others, 0, sizeof(others));
    memory_is_refused = 1;
    assert(fe_timers_init(&timers, 2) == -ENOMEM && timers.capacity == 0);
    memory_is_refused = 0;
    assert(fe_timers_init(&timers, 2) == 0);
    memory_is_refused = 1;
    for (int i = 0; i < 64; i++)
        assert(fe_timers_set(&timers, &others[i], 10 + (uint64_t)i) == 0);
    assert(fe_timers_set(&timers, &others[64], 1) == -ENOMEM);
    fe_timers_set_spare(&timers, &spare[0], 5);
    fe_timers_set_spare(&timers, &spare[1], 4);
    fe_timers_set_spare(&timers, &spare[0], 3);
    memory_is_refused = 0;
    assert(timers.count == 66);
    assert(fe_timers_expired(&timers, 9) == &spare[0]);
    assert(fe_timers_expired(&timers, 9) == &spare[1]);
    assert(fe_timers_expired(&timers, 9) == NULL);
    assert(fe_timers_set(&timers, &others[64], 1) == 0);
    fe_timers_free(&timers);
}

/* --- against the plain array --- */

static fe_timer handles[MANY];
/* 0: not set. */
static uint64_t deadlines[MANY];

static uint64_t earliest(void)
{
    uint64_t least = 0;

    for (uint32_t i = 0; i < MANY; i++)
        if (deadlines[i] != 0 && (least == 0 || deadlines[i] < least))
            least = deadlines[i];
    return least;
}

static void every_handle_points_at_its_entry(void)
{
    uint32_t set = 0;

    for (uint32_t i = 0; i < MANY; i++) {
        assert(fe_timer_is_set(&handles[i]) == (deadlines[i] != 0));
        if (deadlines[i] == 0)
            continue;
        set++;
        assert(handles[i].place <= timers.count);
        assert(timers.heap[handles[i].place - 1].timer == &handles[i]);
        assert(timers.heap[handles[i].place - 1].at_ms == deadlines[i]);
    }
    assert(set == timers.count);
}

static void expire_like_the_array(uint64_t now_ms)
{
    for (;;) {
        uint64_t least = earliest();
        fe_timer *timer = fe_timers_expired(&timers, now_ms);
        size_t i;

        if (least == 0 || least > now_ms) {
            assert(timer == NULL);
            return;
        }
        assert(timer != NULL);
        i = (size_t)(timer - handles);
        /* Which of several equal ones comes first is not promised. */
        assert(deadlines[i] == least && !fe_timer_is_set(timer));
        deadlines[i] = 0;
    }
}

/* span: how far apart deadlines lie; a small one gives many equal ones. */
static void any_use_gives_what_the_array_gives(uint64_t seed, uint64_t span)
{
    uint64_t state = seed, now_ms = 1;

    memset(handles, 0, sizeof(handles));
    memset(deadlines, 0, sizeof(deadlines));
    for (int round = 0; round < 20000; round++) {
        uint32_t i = (uint32_t)random_below(&state, MANY);
        uint64_t what = random_below(&state, 100);

        if (what < 65) {
            deadlines[i] = now_ms + random_below(&state, span) + (what < 5 ? 0 : span / 4);
            assert(fe_timers_set(&timers, &handles[i], deadlines[i]) == 0);
        } else if (what < 85) {
            deadlines[i] = 0;
            fe_timers_clear(&timers, &handles[i]);
        } else if (what < 95) {
            now_ms += random_below(&state, span / 64 + 2);
            expire_like_the_array(now_ms);
        } else {
            uint64_t least = earliest();
            int wait_ms = fe_timers_wait_ms(&timers, now_ms, 1 << 30);

            assert(wait_ms == (least == 0 ? -1 : least <= now_ms ? 0 : (int)(least - now_ms)));
        }
        if (round % 64 == 0)
            every_handle_points_at_its_entry();
    }
    expire_like_the_array(UINT64_MAX);
    assert(timers.count == 0);
    fe_timers_free(&timers);
}

int main(void)
{
    without_a_timer_nothing_expires_and_nothing_is_waited_for();
    a_timer_expires_once_and_never_early();
    the_wait_ends_at_the_earliest_deadline();
    setting_again_moves_the_deadline();
    refused_memory_leaves_the_timer_unset_and_the_others_alone();
    more_timers_than_a_handle_can_count_are_refused();
    a_spare_timer_is_set_when_memory_is_refused();
    any_use_gives_what_the_array_gives(1, 1000);
    any_use_gives_what_the_array_gives(2, 8);
    any_use_gives_what_the_array_gives(3, UINT64_C(1) << 30);
    return 0;
}
