/* Schedules: evenly spaced without drift, or independent of each other with the right mean. */
#include "support.h"

#include <math.h>

#include "schedule.h"

static void an_even_schedule_does_not_drift(void)
{
    fe_schedule s = {.interval_ns = 1e9 / 3};

    fe_schedule_start(&s, 7);
    assert(s.next_ns == 7);
    for (int i = 0; i < 3000; i++)
        fe_schedule_advance(&s);
    assert(s.next_ns >= 7 + 999999999999u && s.next_ns <= 7 + 1000000000000u);
    assert(s.count == 3000);
}

static void a_phase_moves_an_even_schedule(void)
{
    fe_schedule s = {.interval_ns = 1000, .phase = 0.25};

    fe_schedule_start(&s, 100);
    assert(s.next_ns == 350);
    fe_schedule_advance(&s);
    assert(s.next_ns == 1350);
}

static void each_message_has_an_interval_of_time(void)
{
    fe_schedule s = {.interval_ns = 1000, .phase = 0.25}, random = {.interval_ns = 1000};

    fe_schedule_start(&s, 100);
    assert(fe_schedule_passed(&s) == 100);
    fe_schedule_advance(&s);
    assert(fe_schedule_passed(&s) == 1100);
    /* Of independent messages: until the next one would be due. */
    random.is_poisson = 1;
    fe_schedule_start(&random, 100);
    fe_schedule_advance(&random);
    assert(fe_schedule_passed(&random) == random.next_ns);
}

static void an_exponential_is_the_logarithm_of_its_bits(void)
{
    uint64_t state = 3;

    for (int i = 0; i < 100000; i++) {
        uint64_t random = next_random(&state) >> random_below(&state, 64);
        double expected = -log((double)((random >> 11) + 1) / 9007199254740992.0);

        assert(fabs(fe_schedule_exponential(random) - expected) < 1e-13 * (1 + expected));
    }
    assert(fabs(fe_schedule_exponential(UINT64_MAX)) < 1e-15);
    assert(fabs(fe_schedule_exponential(0) - 53 * log(2)) < 1e-12);
}

static void a_poisson_schedule_keeps_its_rate_and_forgets_nothing_but_its_past(void)
{
    enum { N = 200000 };
    fe_schedule s = {.interval_ns = 1000, .is_poisson = 1, .seed = 5}, again;
    uint64_t before = 0;
    double square = 0;
    int longer = 0;

    fe_schedule_start(&s, 0);
    again = s;
    for (int i = 0; i < N; i++) {
        double interval = (double)(s.next_ns - before);

        assert(s.next_ns >= before);
        square += interval * interval;
        longer += interval > 1000;
        before = s.next_ns;
        fe_schedule_advance(&s);
    }
    /* Of an exponential: deviation = mean, and 1/e are longer than the mean. Five deviations of
     * these estimates. */
    assert(fabs((double)before / N / 1000 - 1) < 5 / sqrt(N));
    assert(fabs(square / N / 2e6 - 1) < 5 * sqrt(5.0 / N));
    assert(fabs((double)longer / N - exp(-1)) < 5 * 0.5 / sqrt(N));
    /* The seed decides. */
    fe_schedule_start(&s, 0);
    assert(s.next_ns == again.next_ns);
    fe_schedule_advance(&s);
    fe_schedule_advance(&again);
    assert(s.next_ns == again.next_ns);
    again.seed = 6;
    fe_schedule_start(&again, 0);
    fe_schedule_start(&s, 0);
    assert(s.next_ns != again.next_ns);
}

int main(void)
{
    an_even_schedule_does_not_drift();
    a_phase_moves_an_even_schedule();
    each_message_has_an_interval_of_time();
    an_exponential_is_the_logarithm_of_its_bits();
    a_poisson_schedule_keeps_its_rate_and_forgets_nothing_but_its_past();
    return 0;
}
