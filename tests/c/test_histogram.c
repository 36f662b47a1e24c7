/* What the histogram promises, checked against plain arithmetic: slots that tile the range
 * without a gap, three digits, exact merging, ranks, overflow. The record cost is printed by
 * `test_histogram cost`, which is not part of the assertions: sanitizers change it. */
#include "support.h"

#include <pthread.h>

#include "histogram.h"

#include <stdio.h>
#include <time.h>

static fe_histogram *new_histogram(void)
{
    fe_histogram *h = malloc(sizeof(*h));

    assert(h != NULL);
    fe_histogram_reset(h);
    return h;
}

static void slots_tile_the_range_without_gap_or_overlap(void)
{
    uint64_t expected = 0;

    for (uint32_t slot = 0; slot < FE_HISTOGRAM_SLOTS; slot++) {
        assert(fe_histogram_lowest(slot) == expected);
        assert(fe_histogram_slot(fe_histogram_lowest(slot)) == slot);
        assert(fe_histogram_slot(fe_histogram_highest(slot)) == slot);
        expected = fe_histogram_highest(slot) + 1;
    }
    assert(expected > FE_HISTOGRAM_HIGHEST);
    assert(fe_histogram_slot(FE_HISTOGRAM_HIGHEST) < FE_HISTOGRAM_SLOTS);
}

static void a_slot_is_64_ns_or_a_thousandth_of_its_values(void)
{
    for (uint32_t slot = 0; slot < FE_HISTOGRAM_SLOTS; slot++) {
        uint64_t width = fe_histogram_width(slot);

        assert(width == 64 || width * 1000 <= fe_histogram_lowest(slot));
    }
}

static void an_empty_histogram_reads_as_zero(void)
{
    fe_histogram *h = new_histogram();

    assert(h->count == 0 && h->overflow == 0 && h->max == 0);
    assert(fe_histogram_percentile(h, 0) == 0);
    assert(fe_histogram_percentile(h, 50) == 0);
    assert(fe_histogram_percentile(h, 100) == 0);
    assert(fe_histogram_mean(h) == 0);
    assert(fe_histogram_variance(h) == 0);
    free(h);
}

static void one_value_is_every_percentile(void)
{
    fe_histogram *h = new_histogram();

    fe_histogram_record(h, 123456);
    assert(h->count == 1 && h->min == 123456 && h->max == 123456);
    assert(fe_histogram_percentile(h, 0) == 123456 / 64 * 64);
    assert(fe_histogram_percentile(h, 0.001) == 123456);
    assert(fe_histogram_percentile(h, 99.999) == 123456);
    assert(fe_histogram_percentile(h, 100) == 123456);
    assert(fe_histogram_percentile(h, 1000) == 123456);
    assert(fe_histogram_variance(h) < 64.0 * 64.0);
    free(h);
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static void percentiles_are_the_sorted_values_within_three_digits(void)
{
    enum { COUNT = 20000 };
    static const double percents[] = {0.01, 1, 25, 50, 75, 90, 99, 99.9, 99.99, 100};
    fe_histogram *h = new_histogram();
    uint64_t *values = malloc(COUNT * sizeof(*values));
    uint64_t state = 42;
    double sum = 0;

    assert(values != NULL);
    for (int i = 0; i < COUNT; i++) {
        /* Every order of magnitude up to an hour. */
        values[i] = (next_random(&state) >> (22 + next_random(&state) % 40)) %
                    (FE_HISTOGRAM_HIGHEST + 1);
        sum += (double)values[i];
        fe_histogram_record(h, values[i]);
    }
    qsort(values, COUNT, sizeof(*values), compare);
    assert(h->count == COUNT && h->min == values[0] && h->max == values[COUNT - 1]);
    for (size_t i = 0; i < sizeof(percents) / sizeof(*percents); i++) {
        uint64_t rank = (uint64_t)(percents[i] * COUNT / 100 + 0.5);
        uint64_t exact = values[(rank < 1 ? 1 : rank) - 1];
        uint64_t found = fe_histogram_percentile(h, percents[i]);

        assert(found >= exact);
        assert(found - exact <= 63 || (found - exact) * 1000 <= exact);
    }
    assert(fe_histogram_mean(h) > sum / COUNT * 0.999);
    assert(fe_histogram_mean(h) < sum / COUNT * 1.001 + 32);
    free(values);
    free(h);
}

static void values_above_an_hour_are_counted_and_keep_their_rank(void)
{
    fe_histogram *h = new_histogram();

    fe_histogram_record_n(h, 1000, 98);
    fe_histogram_record(h, FE_HISTOGRAM_HIGHEST);
    assert(h->overflow == 0);
    fe_histogram_record(h, FE_HISTOGRAM_HIGHEST + 1);
    assert(h->count == 100 && h->overflow == 1);
    fe_histogram_record_n(h, UINT64_MAX, 100);
    assert(h->count == 200 && h->overflow == 101 && h->max == UINT64_MAX);
    assert(fe_histogram_percentile(h, 49) == fe_histogram_highest(fe_histogram_slot(1000)));
    assert(fe_histogram_percentile(h, 51) == UINT64_MAX);
    assert(fe_histogram_mean(h) <= (double)FE_HISTOGRAM_HIGHEST);
    fe_histogram_reset(h);
    assert(h->count == 0 && h->overflow == 0 && h->max == 0);
    fe_histogram_record(h, UINT64_MAX);
    assert(fe_histogram_percentile(h, 0) > 0 && fe_histogram_percentile(h, 50) == UINT64_MAX);
    free(h);
}

static void merging_equals_recording_into_one(void)
{
    fe_histogram *a = new_histogram(), *b = new_histogram(), *both = new_histogram();
    fe_histogram *empty = new_histogram();
    uint64_t state = 7;

    for (int i = 0; i < 10000; i++) {
        uint64_t ns = next_random(&state) >> (next_random(&state) % 64);

        fe_histogram_record(i % 3 == 0 ? a : b, ns);
        fe_histogram_record(both, ns);
    }
    assert(fe_histogram_merge(a, b) == 0);
    assert(memcmp(a, both, sizeof(*a)) == 0);
    assert(fe_histogram_merge(a, empty) == 0);
    assert(memcmp(a, both, sizeof(*a)) == 0);
    assert(fe_histogram_merge(empty, a) == 0);
    assert(memcmp(empty, both, sizeof(*a)) == 0);
    free(a);
    free(b);
    free(both);
    free(empty);
}

static void a_single_value_survives_a_merge(void)
{
    for (uint64_t ns = 1; ns <= FE_HISTOGRAM_HIGHEST; ns *= 3) {
        fe_histogram *a = new_histogram(), *b = new_histogram();

        fe_histogram_record(a, ns);
        assert(fe_histogram_merge(b, a) == 0);
        assert(memcmp(a, b, sizeof(*a)) == 0);
        free(a);
        free(b);
    }
}

static void the_extremes_of_both_survive_a_merge(void)
{
    fe_histogram *wide = new_histogram(), *narrow = new_histogram();

    fe_histogram_record(wide, 10);
    fe_histogram_record(wide, 1000000);
    fe_histogram_record(narrow, 5000);
    assert(fe_histogram_merge(wide, narrow) == 0);
    assert(wide->count == 3 && wide->min == 10 && wide->max == 1000000);
    assert(fe_histogram_merge(narrow, wide) == 0);
    assert(narrow->count == 4 && narrow->min == 10 && narrow->max == 1000000);
    free(wide);
    free(narrow);
}

static void more_values_than_a_file_can_hold_are_not_added(void)
{
    fe_histogram *h = new_histogram(), *other = new_histogram(), *copy = new_histogram();

    fe_histogram_record_n(h, 1000, (uint64_t)1 << 62);
    fe_histogram_record_n(other, 5000, (uint64_t)1 << 62);
    assert(fe_histogram_merge(copy, h) == 0);
    assert(fe_histogram_merge(h, other) == -EOVERFLOW);
    assert(memcmp(h, copy, sizeof(*h)) == 0);
    fe_histogram_reset(other);
    fe_histogram_record_n(other, 5000, ((uint64_t)1 << 62) - 1);
    assert(fe_histogram_merge(h, other) == 0 && h->count == INT64_MAX);
    fe_histogram_reset(h);
    fe_histogram_record_n(other, 5000, UINT64_MAX / 2);
    assert(fe_histogram_merge(h, other) == -EOVERFLOW && h->count == 0);
    free(h);
    free(other);
    free(copy);
}

static void the_mean_lies_between_minimum_and_maximum(void)
{
    fe_histogram *h = new_histogram();

    /* The middle of their slot is 992. */
    fe_histogram_record_n(h, 1020, 3);
    assert(fe_histogram_mean(h) == 1020 && fe_histogram_variance(h) == 0);
    fe_histogram_reset(h);
    fe_histogram_record_n(h, 965, 3);
    assert(fe_histogram_mean(h) == 965 && fe_histogram_variance(h) == 0);
    fe_histogram_record(h, 1020);
    assert(fe_histogram_mean(h) == 992 && fe_histogram_variance(h) == 0);
    fe_histogram_reset(h);
    fe_histogram_record(h, UINT64_MAX);
    assert(fe_histogram_mean(h) == (double)UINT64_MAX && fe_histogram_variance(h) == 0);
    free(h);
}

static void a_rank_is_rounded_to_the_nearest(void)
{
    fe_histogram *h = new_histogram();

    for (uint64_t ns = 64; ns <= 3 * 64; ns += 64)
        fe_histogram_record(h, ns);
    /* Ranks 0.99 -> 1, 1.5 -> 2, 2.49 -> 2, 2.52 -> 3. */
    assert(fe_histogram_percentile(h, 33) == 127);
    assert(fe_histogram_percentile(h, 50) == 191);
    assert(fe_histogram_percentile(h, 83) == 191);
    assert(fe_histogram_percentile(h, 84) == 192);
    free(h);
}

static void recording_nothing_changes_nothing(void)
{
    fe_histogram *h = new_histogram(), *untouched = new_histogram();

    fe_histogram_record_n(h, 1, 0);
    assert(memcmp(h, untouched, sizeof(*h)) == 0);
    free(h);
    free(untouched);
}

static void subtracting_leaves_what_came_since(void)
{
    fe_histogram *h = new_histogram(), *before = new_histogram(), *since = new_histogram();
    uint64_t state = 5;

    for (int i = 0; i < 20000; i++) {
        uint64_t ns = next_random(&state) >> (next_random(&state) % 64);

        fe_histogram_record(h, ns);
        fe_histogram_record(i < 12000 ? before : since, ns);
    }
    assert(fe_histogram_subtract(h, before) == 0);
    assert(memcmp(h->slots, since->slots, sizeof(h->slots)) == 0);
    assert(h->count == since->count && h->overflow == since->overflow);
    assert(h->min <= since->min && h->max >= since->max);
    assert(fe_histogram_slot(h->min) == fe_histogram_slot(since->min));
    assert(fe_histogram_subtract(h, since) == 0);
    assert(h->count == 0 && h->min == UINT64_MAX && h->max == 0);
    free(h);
    free(before);
    free(since);
}

static void what_is_left_lies_between_the_edges_of_its_slots(void)
{
    fe_histogram *h = new_histogram(), *part = new_histogram();

    fe_histogram_record(h, 10);
    fe_histogram_record(h, 1000);
    fe_histogram_record(h, 200000);
    fe_histogram_record(part, 10);
    fe_histogram_record(part, 200000);
    assert(fe_histogram_subtract(h, part) == 0);
    assert(h->count == 1 && h->min == 960 && h->max == 1023);
    /* The exact ones stay where they are narrower. */
    fe_histogram_record(h, 1010);
    fe_histogram_record(h, 50);
    assert(h->min == 50);
    fe_histogram_reset(part);
    assert(fe_histogram_subtract(h, part) == 0);
    assert(h->count == 3 && h->min == 50 && h->max == 1023);
    free(h);
    free(part);
}

static void what_is_left_above_an_hour_has_a_minimum_and_a_maximum(void)
{
    fe_histogram *h = new_histogram(), *part = new_histogram();

    fe_histogram_record(h, 10);
    fe_histogram_record_n(h, UINT64_MAX, 3);
    fe_histogram_record(part, UINT64_MAX);
    assert(fe_histogram_subtract(h, part) == 0);
    assert(h->count == 3 && h->overflow == 2 && h->min == 10 && h->max == UINT64_MAX);
    fe_histogram_reset(part);
    fe_histogram_record(part, 10);
    assert(fe_histogram_subtract(h, part) == 0);
    assert(h->count == 2 && h->min == FE_HISTOGRAM_HIGHEST + 1 && h->max == UINT64_MAX);
    fe_histogram_reset(h);
    fe_histogram_record(h, UINT64_MAX - 1);
    fe_histogram_reset(part);
    assert(fe_histogram_subtract(h, part) == 0);
    assert(h->min == UINT64_MAX - 1 && h->max == UINT64_MAX - 1);
    free(h);
    free(part);
}

static void what_is_not_there_cannot_be_taken_away(void)
{
    fe_histogram *h = new_histogram(), *part = new_histogram(), *copy = new_histogram();

    fe_histogram_record(h, 1000);
    fe_histogram_record(h, 64);
    assert(fe_histogram_merge(copy, h) == 0);
    fe_histogram_record(part, 64);
    fe_histogram_record(part, 5000);
    assert(fe_histogram_subtract(h, part) == -ERANGE);
    assert(memcmp(h, copy, sizeof(*h)) == 0);
    fe_histogram_reset(part);
    fe_histogram_record(part, UINT64_MAX);
    assert(fe_histogram_subtract(h, part) == -ERANGE);
    assert(memcmp(h, copy, sizeof(*h)) == 0);
    free(h);
    free(part);
    free(copy);
}

/* What a file says of the extremes counts only where it agrees with the counts. */
static void kept_extremes_are_taken_within_their_slots(void)
{
    fe_histogram *h = new_histogram();

    fe_histogram_narrow(h, 5, 5);
    assert(h->min == UINT64_MAX && h->max == 0);
    fe_histogram_record(h, 960); /* the lower edge; its slot ends at 1,023 */
    fe_histogram_record(h, 1023);
    fe_histogram_narrow(h, -1, -1);
    fe_histogram_narrow(h, 959, 1024);
    assert(h->min == 960 && h->max == 1023);
    fe_histogram_narrow(h, 1010, 1020);
    assert(h->min == 1010 && h->max == 1020);
    fe_histogram_narrow(h, 1022, 1000);
    assert(h->min == 1010 && h->max == 1020);
    fe_histogram_record(h, FE_HISTOGRAM_HIGHEST + 1);
    fe_histogram_narrow(h, INT64_MAX, INT64_MAX);
    assert(h->min == 1010 && h->max == INT64_MAX);
    fe_histogram_narrow(h, 960, FE_HISTOGRAM_HIGHEST);
    assert(h->min == 960 && h->max == INT64_MAX);
    /* The slot of 1 h reaches beyond it, and a file has its edge. */
    fe_histogram_reset(h);
    fe_histogram_record(h, FE_HISTOGRAM_HIGHEST);
    h->max = FE_HISTOGRAM_HIGHEST + 1000000000;
    fe_histogram_narrow(h, -1, -1);
    assert(h->max == FE_HISTOGRAM_HIGHEST + 1000000000);
    fe_histogram_narrow(h, FE_HISTOGRAM_HIGHEST - 1, FE_HISTOGRAM_HIGHEST - 1);
    assert(h->max == FE_HISTOGRAM_HIGHEST - 1);
    free(h);
}

static void more_values_than_a_double_can_count_have_ranks(void)
{
    fe_histogram *h = new_histogram();

    fe_histogram_record_n(h, 1000, UINT64_MAX / 2);
    fe_histogram_record_n(h, 5000, UINT64_MAX / 2 + 1);
    assert(fe_histogram_percentile(h, 100) == 5000);
    assert(fe_histogram_percentile(h, 25) == 1023);
    free(h);
}

static uint64_t now_ns(void)
{
    struct timespec t;

    assert(timespec_get(&t, TIME_UTC) == TIME_UTC);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Prints the cost of one record, over values between 4 and 68 us. */
/* Another thread copies while this one records: each copy agrees with itself and none loses. */
static void *copy_until_full(void *argument)
{
    const fe_histogram *h = argument;
    fe_histogram *copy = new_histogram();
    uint64_t before = 0;

    do {
        uint64_t sum = 0;

        fe_histogram_copy(copy, h);
        for (uint32_t slot = 0; slot < FE_HISTOGRAM_SLOTS; slot++)
            sum += copy->slots[slot];
        assert(copy->count == sum + copy->overflow && copy->count >= before);
        if (copy->count > 0)
            assert(copy->min <= fe_histogram_percentile(copy, 100) &&
                   fe_histogram_percentile(copy, 100) <= copy->max);
        before = copy->count;
    } while (before < 300000);
    free(copy);
    return NULL;
}

static void a_copy_taken_meanwhile_agrees_with_itself(void)
{
    fe_histogram *h = new_histogram();
    pthread_t reader;
    uint64_t state = 4;

    assert(pthread_create(&reader, NULL, copy_until_full, h) == 0);
    for (int i = 0; i < 300000; i++)
        fe_histogram_record(h, i % 1000 == 0 ? UINT64_MAX : random_below(&state, 1000000));
    assert(pthread_join(reader, NULL) == 0);
    free(h);
}

static int print_cost(void)
{
    enum { COUNT = 20000000 };
    fe_histogram *h = new_histogram();
    uint64_t state = 1, start, empty, full;

    start = now_ns();
    for (int i = 0; i < COUNT; i++)
        __asm__ volatile("" : : "r"(4000 + (next_random(&state) >> 48)));
    empty = now_ns() - start;
    start = now_ns();
    for (int i = 0; i < COUNT; i++)
        fe_histogram_record(h, 4000 + (next_random(&state) >> 48));
    full = now_ns() - start;
    printf("record_ns %.2f\n", ((double)full - (double)empty) / COUNT);
    free(h);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "cost") == 0)
        return print_cost();
    slots_tile_the_range_without_gap_or_overlap();
    a_slot_is_64_ns_or_a_thousandth_of_its_values();
    an_empty_histogram_reads_as_zero();
    one_value_is_every_percentile();
    percentiles_are_the_sorted_values_within_three_digits();
    values_above_an_hour_are_counted_and_keep_their_rank();
    merging_equals_recording_into_one();
    a_single_value_survives_a_merge();
    the_extremes_of_both_survive_a_merge();
    more_values_than_a_file_can_hold_are_not_added();
    the_mean_lies_between_minimum_and_maximum();
    a_rank_is_rounded_to_the_nearest();
    recording_nothing_changes_nothing();
    subtracting_leaves_what_came_since();
    what_is_left_lies_between_the_edges_of_its_slots();
    what_is_left_above_an_hour_has_a_minimum_and_a_maximum();
    what_is_not_there_cannot_be_taken_away();
    kept_extremes_are_taken_within_their_slots();
    more_values_than_a_double_can_count_have_ranks();
    a_copy_taken_meanwhile_agrees_with_itself();
    return 0;
}
