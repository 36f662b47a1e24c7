/* The rate: never more than was allowed in any span, nothing lost to a pause, and threads share
 * one budget. */
#include "support.h"

#include <pthread.h>

#include "rate.h"

#define SECOND 1000000000ull

static void without_a_limit_everything_passes(void)
{
    fe_rate rate = {0, 0};
    int i;

    assert(!fe_rate_is_limited(&rate));
    for (i = 0; i < 1000; i++)
        assert(fe_rate_take(&rate, 5));
    fe_rate_set(&rate, 1);
    assert(fe_rate_is_limited(&rate) && fe_rate_take(&rate, 5) && !fe_rate_take(&rate, 5));
    fe_rate_set(&rate, 0);
    assert(!fe_rate_is_limited(&rate) && fe_rate_take(&rate, 5));
}

/* 100 a second, tried every 100 us: a burst of a tenth of a second's worth, then every 10 ms. */
static void a_steady_stream_is_cut_to_the_rate(void)
{
    fe_rate rate = {0, 0};
    uint64_t now = 77 * SECOND, end = now + 2 * SECOND;
    int first = 0, second = 0;

    fe_rate_set(&rate, 100);
    for (; now < end; now += 100000)
        if (fe_rate_take(&rate, now))
            *(now < end - SECOND ? &first : &second) += 1;
    assert(first == 110);
    assert(second == 100);
}

static void below_the_rate_everything_passes(void)
{
    fe_rate rate = {0, 0};
    uint64_t now = 0;
    int i;

    fe_rate_set(&rate, 100);
    for (i = 0; i < 1000; i++, now += SECOND / 100)
        assert(fe_rate_take(&rate, now));
}

static void a_long_pause_is_not_saved_up(void)
{
    fe_rate rate = {0, 0};
    int i, passed = 0;

    fe_rate_set(&rate, 100);
    assert(fe_rate_take(&rate, SECOND));
    for (i = 0; i < 1000; i++)
        passed += fe_rate_take(&rate, 3600 * SECOND);
    assert(passed == 11);
}

static void one_a_second_lets_one_pass(void)
{
    fe_rate rate = {0, 0};

    fe_rate_set(&rate, 1);
    assert(fe_rate_take(&rate, SECOND));
    assert(!fe_rate_take(&rate, SECOND));
    assert(!fe_rate_take(&rate, SECOND + SECOND / 2));
    assert(fe_rate_take(&rate, 2 * SECOND));
}

static void what_another_let_through_meanwhile_counts(void)
{
    fe_rate rate = {0, 0};

    fe_rate_set(&rate, 1);
    assert(fe_rate_take(&rate, SECOND) && rate.used_until_ns == 2 * SECOND);
    /* Another passes at the same moment: there is no room for both. */
    added_meanwhile = (int64_t)SECOND;
    assert(!fe_rate_take(&rate, 2 * SECOND) && rate.used_until_ns == 3 * SECOND);
    /* It uses up less than was left: both pass, and both count. */
    fe_rate_set(&rate, 100);
    added_meanwhile = 5;
    assert(fe_rate_take(&rate, 3 * SECOND));
    assert(rate.used_until_ns == 3 * SECOND + 5 + SECOND / 100);
}

enum { THREADS = 4, TRIES = 400000 };
static fe_rate shared;

static void *try_often(void *passed)
{
    int i;

    for (i = 0; i < TRIES; i++)
        *(int *)passed += fe_rate_take(&shared, SECOND);
    return NULL;
}

static void threads_share_one_budget(void)
{
    pthread_t threads[THREADS];
    int passed[THREADS] = {0}, i, all = 0;

    fe_rate_set(&shared, 10000000);
    for (i = 0; i < THREADS; i++)
        assert(pthread_create(&threads[i], NULL, try_often, &passed[i]) == 0);
    for (i = 0; i < THREADS; i++) {
        assert(pthread_join(threads[i], NULL) == 0);
        all += passed[i];
    }
    assert(all == 1000001);
}

int main(void)
{
    without_a_limit_everything_passes();
    a_steady_stream_is_cut_to_the_rate();
    below_the_rate_everything_passes();
    a_long_pause_is_not_saved_up();
    one_a_second_lets_one_pass();
    what_another_let_through_meanwhile_counts();
    threads_share_one_budget();
    return 0;
}
