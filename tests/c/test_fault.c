/* Faults: draws depend on nothing but seed, number and offset; times and limits hold to the byte. */
#include "support.h"

#include <string.h>

#include "fault.h"

#define MS 1000000ull
#define SECOND 1000000000ull

/* No fault at all. */
static fe_fault none(void)
{
    fe_fault f;

    memset(&f, 0, sizeof(f));
    f.stall_after = f.close_after = f.reset_after = f.fail_first = FE_FAULT_NEVER;
    f.probability = FE_FAULT_CERTAIN;
    return f;
}

static fe_faulty *begin(const fe_fault *fault, uint64_t number)
{
    fe_faulty *f = calloc(1, sizeof(fe_faulty));

    assert(f != NULL);
    fe_faulty_init(f, fault, number);
    return f;
}

static void draws_depend_on_seed_number_and_offset_only(void)
{
    fe_fault a = none(), b = none();
    unsigned char whole[4096], parts[4096];
    fe_faulty *f, *g;
    size_t at, n;

    a.corrupt = FE_FAULT_CERTAIN / 10;
    a.seed = 7;
    b = a;
    b.seed = 8;
    memset(whole, 'x', sizeof(whole));
    memset(parts, 'x', sizeof(parts));
    f = begin(&a, 3);
    assert(fe_faulty_corrupt(f, whole, sizeof(whole)) > 300);
    g = begin(&a, 3);
    for (at = 0; at < sizeof(parts); at += n) {
        n = at % 7 + 1 < sizeof(parts) - at ? at % 7 + 1 : sizeof(parts) - at;
        fe_faulty_corrupt(g, parts + at, n);
        assert(fe_faulty_take(g, n, at) == 0);
    }
    assert(memcmp(whole, parts, sizeof(whole)) == 0);
    fe_faulty_free(g);
    g = begin(&a, 4);
    memset(parts, 'x', sizeof(parts));
    fe_faulty_corrupt(g, parts, sizeof(parts));
    assert(memcmp(whole, parts, sizeof(whole)) != 0);
    fe_faulty_free(g);
    g = begin(&b, 3);
    memset(parts, 'x', sizeof(parts));
    fe_faulty_corrupt(g, parts, sizeof(parts));
    assert(memcmp(whole, parts, sizeof(whole)) != 0);
    fe_faulty_free(g);
    fe_faulty_free(f);
}

static void probabilities_hold_at_both_ends_and_between(void)
{
    fe_fault a = none();
    fe_faulty *f;
    unsigned char bytes[1000];
    uint64_t number, hits = 0;

    assert(fe_fault_is_for(&a, 1));
    a.probability = 0;
    assert(!fe_fault_is_for(&a, 1));
    a.probability = FE_FAULT_CERTAIN / 10;
    for (number = 1; number <= 10000; number++)
        hits += (uint64_t)fe_fault_is_for(&a, number);
    assert(hits > 900 && hits < 1100);

    a.corrupt = FE_FAULT_CERTAIN;
    f = begin(&a, 1);
    memset(bytes, 0, sizeof(bytes));
    assert(fe_faulty_corrupt(f, bytes, sizeof(bytes)) == sizeof(bytes));
    assert(memchr(bytes, 0, sizeof(bytes)) == NULL);
    assert(!fe_faulty_is_twice(f));
    f->fault.duplicate = FE_FAULT_CERTAIN;
    assert(fe_faulty_is_twice(f));
    fe_faulty_free(f);
}

static void the_first_ones_get_it_and_no_other(void)
{
    fe_fault a = none();

    a.fail_first = 3;
    assert(fe_fault_is_for(&a, 1) && fe_fault_is_for(&a, 3) && !fe_fault_is_for(&a, 4));
    a.base = 10;
    assert(!fe_fault_is_for(&a, 9) && !fe_fault_is_for(&a, 10) && fe_fault_is_for(&a, 11));
    assert(fe_fault_is_for(&a, 13) && !fe_fault_is_for(&a, 14));
    a.fail_first = 0;
    assert(!fe_fault_is_for(&a, 11));
    a.fail_first = FE_FAULT_NEVER;
    assert(fe_fault_is_for(&a, 10) && fe_fault_is_for(&a, 11));
}

static void only_what_takes_time_needs_a_timer(void)
{
    fe_fault a = none();

    a.corrupt = a.duplicate = FE_FAULT_CERTAIN;
    a.stall_after = a.close_after = 0;
    assert(!fe_fault_is_timed(&a));
    a.reset_after = 0;
    assert(fe_fault_is_timed(&a));
    a = none();
    a.delay_ns = 1;
    assert(fe_fault_is_timed(&a));
    a = none();
    a.jitter_ns = 1;
    assert(fe_fault_is_timed(&a));
    a = none();
    a.bandwidth = 1;
    assert(fe_fault_is_timed(&a));
    a = none();
    a.slice = 1;
    assert(fe_fault_is_timed(&a));
}

static void the_nearest_limit_counts(void)
{
    fe_fault a = none();
    fe_faulty *f = begin(&a, 1);

    assert(fe_faulty_room(f, 1000) == 1000 && fe_faulty_end(f) == FE_FAULT_GOES_ON);
    fe_faulty_free(f);
    a.stall_after = 10;
    f = begin(&a, 1);
    assert(fe_faulty_room(f, 11) == 10 && fe_faulty_room(f, 9) == 9);
    assert(fe_faulty_take(f, 10, 0) == 0 && fe_faulty_room(f, 5) == 0);
    fe_faulty_sent(f, 10, 0);
    assert(fe_faulty_end(f) == FE_FAULT_GOES_ON);
    fe_faulty_free(f);
    a.close_after = 5;
    f = begin(&a, 1);
    assert(fe_faulty_room(f, 11) == 5 && fe_faulty_take(f, 5, 0) == 0);
    fe_faulty_sent(f, 4, 0);
    assert(fe_faulty_end(f) == FE_FAULT_GOES_ON);
    fe_faulty_sent(f, 1, 0);
    assert(fe_faulty_end(f) == FE_FAULT_CLOSES);
    f->has_ended = 1;
    assert(fe_faulty_end(f) == FE_FAULT_GOES_ON);
    fe_faulty_free(f);
    a.reset_after = 0;
    f = begin(&a, 1);
    assert(fe_faulty_room(f, 1) == 0 && fe_faulty_end(f) == FE_FAULT_RESETS);
    f->lead = 1; /* the line that says who answers is still on its way */
    assert(fe_faulty_end(f) == FE_FAULT_GOES_ON);
    fe_faulty_free(f);
}

static void chunks_ripen_in_order_after_their_delay(void)
{
    fe_fault a = none();
    fe_release r;
    fe_faulty *f;
    uint64_t i;

    a.delay_ns = 50 * MS;
    f = begin(&a, 1);
    assert(fe_faulty_release(f, 0).at_ns == FE_FAULT_NEVER);
    for (i = 0; i < 20; i++)
        assert(fe_faulty_take(f, 10, SECOND + i * MS) == 0);
    r = fe_faulty_release(f, SECOND + 50 * MS - 1);
    assert(r.bytes == 0 && r.at_ns == SECOND + 50 * MS);
    r = fe_faulty_release(f, SECOND + 52 * MS);
    assert(r.bytes == 30);
    fe_faulty_sent(f, 30, SECOND + 52 * MS);
    r = fe_faulty_release(f, SECOND + 52 * MS);
    assert(r.bytes == 0 && r.at_ns == SECOND + 53 * MS);
    /* The ring goes round, and grows while it does. */
    for (i = 20; i < 60; i++)
        assert(fe_faulty_take(f, 10, SECOND + i * MS) == 0);
    r = fe_faulty_release(f, 2 * SECOND);
    assert(r.bytes == 570);
    fe_faulty_sent(f, 570, 2 * SECOND);
    assert(fe_faulty_release(f, 2 * SECOND).at_ns == FE_FAULT_NEVER);
    assert(!fe_faulty_is_full(f));
    for (i = 0; i < FE_FAULT_MARKS; i++)
        assert(fe_faulty_take(f, 1, 3 * SECOND) == 0);
    assert(fe_faulty_is_full(f));
    memory_is_refused = 1;
    assert(fe_faulty_take(f, 1, 3 * SECOND) == -ENOMEM);
    memory_is_refused = 0;
    assert(f->queued == 600 + FE_FAULT_MARKS);
    fe_faulty_free(f);
}

static void jitter_spreads_the_delay_and_reorders_nothing(void)
{
    fe_fault a = none();
    uint64_t key = 99, i, least = FE_FAULT_NEVER, most = 0, last = 0;
    double sum = 0, squares = 0;
    fe_faulty *f;

    a.delay_ns = 50 * MS;
    a.jitter_ns = 10 * MS;
    a.distribution = FE_FAULT_UNIFORM;
    for (i = 0; i < 10000; i++) {
        uint64_t delay = fe_fault_delay_ns(&a, key, i);
        least = delay < least ? delay : least;
        most = delay > most ? delay : most;
        sum += (double)delay;
    }
    assert(least >= 40 * MS && least < 41 * MS && most > 59 * MS && most < 60 * MS);
    assert(sum / 10000 > 49.5 * MS && sum / 10000 < 50.5 * MS);
    a.distribution = FE_FAULT_NORMAL;
    sum = 0;
    for (i = 0; i < 10000; i++) {
        double away = (double)fe_fault_delay_ns(&a, key, i) - 50.0 * MS;
        sum += away;
        squares += away * away;
    }
    assert(sum / 10000 > -0.5 * MS && sum / 10000 < 0.5 * MS);
    assert(squares / 10000 > 90.0 * MS * MS && squares / 10000 < 110.0 * MS * MS);
    a.delay_ns = 0; /* below zero is zero */
    for (i = 0, least = 0; i < 1000; i++)
        least += fe_fault_delay_ns(&a, key, i) == 0;
    assert(least > 400 && least < 600);
    f = begin(&a, 1);
    for (i = 0; i < 100; i++) {
        assert(fe_faulty_take(f, 1, SECOND) == 0);
        assert(f->due_ns >= last);
        last = f->due_ns;
    }
    fe_faulty_free(f);
}

static void pieces_keep_their_distance(void)
{
    fe_fault a = none();
    fe_release r;
    fe_faulty *f;

    a.slice = 4;
    a.gap_ns = MS;
    f = begin(&a, 1);
    assert(fe_faulty_take(f, 6, SECOND) == 0);
    assert(fe_faulty_release(f, SECOND).bytes == 4);
    fe_faulty_sent(f, 4, SECOND);
    r = fe_faulty_release(f, SECOND + 1);
    assert(r.bytes == 0 && r.at_ns == SECOND + MS);
    assert(fe_faulty_release(f, SECOND + MS).bytes == 2);
    fe_faulty_free(f);
}

/* Bytes that leave in `ns`, looked at whenever the line says so, `late_ns` later. */
static uint64_t flow(fe_faulty *f, uint64_t from_ns, uint64_t ns, uint64_t late_ns)
{
    uint64_t now = from_ns, total = 0;

    while (now < from_ns + ns) {
        fe_release r = fe_faulty_release(f, now);
        if (r.bytes == 0) {
            now = r.at_ns + late_ns;
            continue;
        }
        fe_faulty_sent(f, r.bytes, now);
        total += r.bytes;
    }
    return total;
}

static void the_line_has_its_bandwidth(void)
{
    static const uint64_t rates[] = {1, 999, 1000, 100000, 1000000, 100000000000};
    fe_fault a = none();
    fe_faulty *f;
    size_t i;

    for (i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
        uint64_t rate = rates[i], spent = rate < 1000 ? 100 * SECOND : SECOND, total;
        a.bandwidth = rate;
        f = begin(&a, 1);
        assert(fe_faulty_take(f, (size_t)1 << 40, 5 * SECOND) == 0);
        total = flow(f, 5 * SECOND, spent, 90000);
        assert(total >= rate * (spent / SECOND) * 98 / 100);
        assert(total <= rate * (spent / SECOND) * 101 / 100 + 1);
        fe_faulty_free(f);
    }
}

static void what_was_not_used_is_not_saved(void)
{
    fe_fault a = none();
    fe_release r;
    fe_faulty *f;

    a.bandwidth = 1000000;
    f = begin(&a, 1);
    assert(fe_faulty_take(f, 500, SECOND) == 0);
    r = fe_faulty_release(f, SECOND);
    assert(r.bytes == 0 && r.at_ns == SECOND + 500000);
    assert(fe_faulty_release(f, SECOND + 500000).bytes == 500);
    fe_faulty_sent(f, 500, SECOND + 500000);
    assert(fe_faulty_release(f, SECOND + 500000).at_ns == FE_FAULT_NEVER);
    /* Idle for a second, then again: the line begins anew. */
    assert(fe_faulty_take(f, 500, 2 * SECOND) == 0);
    assert(fe_faulty_release(f, 2 * SECOND).bytes == 0);
    /* The peer takes nothing for a second: 51 ms of it are made up for. */
    assert(fe_faulty_take(f, 1000000, 2 * SECOND) == 0);
    assert(fe_faulty_release(f, 3 * SECOND).bytes == 51000);
    /* What is ripe before the line is free again waits for it. */
    f->is_flowing = 0;
    f->line_ns = 4 * SECOND;
    r = fe_faulty_release(f, 3 * SECOND);
    assert(r.bytes == 0 && r.at_ns == 4 * SECOND + MS);
    fe_faulty_free(f);
}

static void a_piece_passes_the_line_as_a_whole(void)
{
    fe_fault a = none();
    fe_release r;
    fe_faulty *f;

    a.bandwidth = 1000;
    a.slice = 10;
    f = begin(&a, 1);
    assert(fe_faulty_take(f, 100, SECOND) == 0);
    r = fe_faulty_release(f, SECOND);
    assert(r.bytes == 0 && r.at_ns == SECOND + 10 * MS);
    assert(fe_faulty_release(f, SECOND + 9 * MS).bytes == 0);
    assert(fe_faulty_release(f, SECOND + 10 * MS).bytes == 10);
    fe_faulty_free(f);
}

static void a_timer_leads_to_its_connection(void)
{
    fe_fault a = none();
    fe_faulty *f = begin(&a, 1);

    assert(fe_faulty_of(&f->timer) == f);
    fe_faulty_free(f);
}

int main(void)
{
    draws_depend_on_seed_number_and_offset_only();
    probabilities_hold_at_both_ends_and_between();
    the_first_ones_get_it_and_no_other();
    only_what_takes_time_needs_a_timer();
    the_nearest_limit_counts();
    chunks_ripen_in_order_after_their_delay();
    jitter_spreads_the_delay_and_reorders_nothing();
    pieces_keep_their_distance();
    the_line_has_its_bandwidth();
    what_was_not_used_is_not_saved();
    a_piece_passes_the_line_as_a_whole();
    a_timer_leads_to_its_connection();
    return 0;
}
