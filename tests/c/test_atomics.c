/* What several workers change together: results of each step alone, then from four threads at
 * once, where nothing may be lost, given twice or taken above the limit. */
#include "support.h"

#include "atomics.h"

#include <errno.h>
#include <pthread.h>

#define THREADS 4
#define ROUNDS 50000

static void adding_gives_the_value_afterwards(void)
{
    int64_t number = 0;

    fe_atomic_store(&number, 40);
    assert(fe_atomic_load(&number) == 40);
    assert(fe_atomic_add(&number, 2) == 42);
    assert(fe_atomic_add(&number, -43) == -1);
    assert(fe_atomic_load(&number) == -1);
}

static void raising_succeeds_only_from_the_expected_value(void)
{
    int64_t number = 7;

    assert(fe_atomic_raise_from(&number, 6) == 0 && number == 7);
    assert(fe_atomic_raise_from(&number, 8) == 0 && number == 7);
    assert(fe_atomic_raise_from(&number, 7) == 1 && number == 8);
}

static void a_value_is_swapped_for_what_was_there(void)
{
    int64_t number = 7;

    assert(fe_atomic_swap(&number, 9) == 7 && number == 9);
    assert(fe_atomic_swap(&number, 9) == 9 && number == 9);
}

static void only_a_larger_value_is_taken(void)
{
    int64_t number = 7;

    fe_atomic_max(&number, 7);
    fe_atomic_max(&number, -EOPNOTSUPP);
    assert(number == 7);
    fe_atomic_max(&number, 8);
    assert(number == 8);
    added_meanwhile = 1;
    fe_atomic_max(&number, 10);
    assert(number == 10);
    added_meanwhile = 5;
    fe_atomic_max(&number, 11);
    assert(number == 15);
}

static void places_end_at_the_limit(void)
{
    int64_t places = 0;

    assert(fe_place_reserve(&places, 2) == 1);
    assert(fe_place_reserve(&places, 2) == 1);
    assert(fe_place_reserve(&places, 2) == 0 && places == 2);
    fe_atomic_add(&places, -1);
    assert(fe_place_reserve(&places, 2) == 1 && places == 2);
    assert(fe_place_reserve(&places, 0) == 0 && places == 2);
}

static void a_place_that_another_took_meanwhile_counts(void)
{
    int64_t places = 0;

    added_meanwhile = 1;
    assert(fe_place_reserve(&places, 2) == 1 && places == 2);
    places = 1;
    added_meanwhile = 1;
    assert(fe_place_reserve(&places, 2) == 0 && places == 2);
}

static void a_number_that_another_raised_meanwhile_is_left_alone(void)
{
    int64_t number = 7;

    added_meanwhile = 1;
    assert(fe_atomic_raise_from(&number, 7) == 0 && number == 8);
}

static void without_a_limit_every_place_is_given(void)
{
    int64_t places = INT64_C(1) << 40;

    assert(fe_place_reserve(&places, -1) == 1 && places == (INT64_C(1) << 40) + 1);
}

/* --- four threads at once --- */

static int64_t shared_number, taken, highest_taken, raised;

static void run_threads(void *(*run)(void *))
{
    pthread_t threads[THREADS];

    for (int i = 0; i < THREADS; i++)
        assert(pthread_create(&threads[i], NULL, run, NULL) == 0);
    for (int i = 0; i < THREADS; i++)
        assert(pthread_join(threads[i], NULL) == 0);
}

static void *add_and_take_away(void *unused)
{
    (void)unused;
    for (int i = 0; i < ROUNDS; i++) {
        fe_atomic_add(&shared_number, 3);
        fe_atomic_add(&shared_number, -2);
    }
    return NULL;
}

static void no_addition_is_lost(void)
{
    fe_atomic_store(&shared_number, 0);
    run_threads(add_and_take_away);
    assert(fe_atomic_load(&shared_number) == THREADS * ROUNDS);
}

static void *raise_each_value(void *unused)
{
    (void)unused;
    for (;;) {
        int64_t value = fe_atomic_load(&shared_number);

        if (value >= ROUNDS)
            return NULL;
        if (fe_atomic_raise_from(&shared_number, value))
            fe_atomic_add(&raised, 1);
    }
}

static void a_value_is_raised_by_one_thread_only(void)
{
    int64_t above;

    fe_atomic_store(&shared_number, 0);
    run_threads(raise_each_value);
    above = fe_atomic_load(&shared_number) - ROUNDS;
    /* Whoever read ROUNDS - 1 raised it to ROUNDS; nobody starts from there. */
    assert(above == 0 && fe_atomic_load(&raised) == ROUNDS);
}

static void *take_and_give_back(void *unused)
{
    int64_t now, highest;

    (void)unused;
    /* Many, so that two meet between the look and the exchange. */
    for (int i = 0; i < 10 * ROUNDS; i++) {
        if (!fe_place_reserve(&shared_number, 2))
            continue;
        now = fe_atomic_add(&taken, 1);
        do
            highest = fe_atomic_load(&highest_taken);
        while (highest < now && !__sync_bool_compare_and_swap(&highest_taken, highest, now));
        fe_atomic_add(&taken, -1);
        fe_atomic_add(&shared_number, -1);
    }
    return NULL;
}

static void four_threads_never_hold_more_than_two_places(void)
{
    fe_atomic_store(&shared_number, 0);
    run_threads(take_and_give_back);
    assert(fe_atomic_load(&shared_number) == 0 && fe_atomic_load(&taken) == 0);
    assert(fe_atomic_load(&highest_taken) >= 1 && fe_atomic_load(&highest_taken) <= 2);
}

int main(void)
{
    adding_gives_the_value_afterwards();
    raising_succeeds_only_from_the_expected_value();
    a_value_is_swapped_for_what_was_there();
    only_a_larger_value_is_taken();
    places_end_at_the_limit();
    a_place_that_another_took_meanwhile_counts();
    a_number_that_another_raised_meanwhile_is_left_alone();
    without_a_limit_every_place_is_given();
    no_addition_is_lost();
    a_value_is_raised_by_one_thread_only();
    four_threads_never_hold_more_than_two_places();
    return 0;
}
