/* Replies, right and wrong: each counts as what it is, once, however it is split. */
#include "loads.h"

#include "load_reply.h"

static void a_changed_byte_is_one_wrong_reply_and_the_next_is_right(void)
{
    fe_load *l = new_load(4, 2, FE_PATTERN_LENGTH, 50, "pre", "suf");
    fe_load_connection *c = &l->connections[3];
    unsigned char replies[2][200];
    size_t size;

    /* Every byte of the reply, header and affixes included. */
    size = right_reply(l, c, 0, replies[0]);
    for (size_t i = 0; i < size; i++) {
        uint64_t number = c->due;
        const fe_load_failure *f = &l->counts.failures[0];

        fe_load_forget(&l->counts);
        fe_load_set_window(l, 0, 1000000);
        fe_load_release(l, c, 2, 0, 0);
        right_reply(l, c, number, replies[0]);
        right_reply(l, c, number + 1, replies[1]);
        replies[0][i] ^= 1;
        assert(fe_load_received(l, c, replies[0], size, 1) == 1);
        assert(fe_load_received(l, c, replies[1], size, 1) == 1);
        assert(counted(l, FE_LOAD_CORRUPT) == 1 && counted(l, FE_LOAD_MESSAGES) == 1);
        assert(l->counts.described == 1 && f->kind == FE_LOAD_CORRUPT && f->connection == 3);
        assert(f->number == number && f->offset == i && f->got == (f->expected ^ 1));
    }
    assert(l->latency->count == size);
    free_load(l);
}

static void a_reply_that_differs_in_every_piece_is_one_wrong_reply(void)
{
    fe_load *l = new_load(1, 2, FE_PATTERN_LENGTH, 50, "pre", "suf");
    fe_load_connection *c = &l->connections[0];
    unsigned char reply[200];
    size_t size = right_reply(l, c, 0, reply);

    fe_load_release(l, c, 2, 0, 0);
    for (size_t i = 0; i < size; i++) {
        reply[i] ^= 1;
        fe_load_received(l, c, reply + i, 1, 1);
    }
    assert(counted(l, FE_LOAD_CORRUPT) == 1 && l->counts.failures[0].offset == 0);
    assert(fe_load_received(l, c, reply, right_reply(l, c, 1, reply), 1) == 1);
    assert(counted(l, FE_LOAD_CORRUPT) == 1 && counted(l, FE_LOAD_MESSAGES) == 1);
    free_load(l);
}

static void the_reply_of_another_message_is_misplaced(void)
{
    fe_load *l = new_load(2, 3, FE_PATTERN_RAW, 64, "", "");
    fe_load_connection *c = &l->connections[0];
    unsigned char reply[64];

    fe_load_release(l, c, 3, 0, 0);
    receive_reply(l, c, 1, 1);
    receive_reply(l, c, 0, 1);
    receive_reply(l, c, 2, 1);
    assert(counted(l, FE_LOAD_MISPLACED) == 2 && counted(l, FE_LOAD_MESSAGES) == 1);
    assert(l->counts.failures[0].number == 0 && l->counts.failures[0].count == 1);
    assert(l->counts.failures[1].number == 1 && l->counts.failures[1].count == 0);
    /* Stale: the last reply once more. */
    fe_load_release(l, c, 1, 0, 0);
    receive_reply(l, c, 2, 1);
    assert(counted(l, FE_LOAD_MISPLACED) == 3);
    /* Another connection's is nobody's. */
    fe_load_release(l, c, 1, 0, 0);
    right_reply(l, &l->connections[1], 4, reply);
    fe_load_received(l, c, reply, 64, 1);
    assert(counted(l, FE_LOAD_MISPLACED) == 3 && counted(l, FE_LOAD_CORRUPT) == 1);
    assert(counted(l, FE_LOAD_MESSAGES) == 1 && l->outstanding == 0);
    free_load(l);
}

static void a_reply_is_looked_for_among_the_last_64_and_those_to_come(void)
{
    fe_load *l = new_load(1, 2, FE_PATTERN_RAW, 64, "", "");
    fe_load_connection *c = &l->connections[0];

    for (uint64_t i = 0; i < 100; i++) {
        fe_load_release(l, c, 1, 0, 0);
        receive_reply(l, c, i, 1);
    }
    fe_load_release(l, c, 2, 0, 0);
    receive_reply(l, c, 36, 1);
    assert(counted(l, FE_LOAD_MISPLACED) == 1);
    receive_reply(l, c, 36, 1);
    assert(counted(l, FE_LOAD_MISPLACED) == 1 && counted(l, FE_LOAD_CORRUPT) == 1);
    /* It is counted where it is not described. */
    l->counts.described = FE_LOAD_DESCRIBED;
    fe_load_release(l, c, 1, 0, 0);
    receive_reply(l, c, 101, 1);
    assert(counted(l, FE_LOAD_MISPLACED) == 2);
    free_load(l);
}

static void a_reply_is_not_looked_for_too_far_ahead(void)
{
    fe_load *l = new_load(1, 2048, FE_PATTERN_RAW, 64, "", "");
    fe_load_connection *c = &l->connections[0];

    fe_load_release(l, c, 2048, 0, 0);
    receive_reply(l, c, 1023, 1);
    assert(counted(l, FE_LOAD_MISPLACED) == 1);
    receive_reply(l, c, 1025, 1);
    assert(counted(l, FE_LOAD_MISPLACED) == 1 && counted(l, FE_LOAD_CORRUPT) == 1);
    free_load(l);
}

/* Every frame, one size and several, split in every way: the order of replies is known. */
static void misplaced_replies_may_come_in_pieces_and_have_other_sizes(void)
{
    static const uint32_t sizes[] = {20, 50, 64, 90};
    uint64_t state = 9;

    for (int frame = FE_PATTERN_RAW; frame <= FE_PATTERN_LENGTH; frame++)
        for (uint32_t varied = 0; varied < 2; varied++)
            for (int round = 0; round < 200; round++) {
                const char *affix = frame == FE_PATTERN_RAW ? "" : "affix";
                fe_load *l = new_load(1, 6, frame, 90, affix, affix);
                fe_load_connection *c = &l->connections[0];
                static const uint64_t order[] = {0, 3, 2, 1, 5, 4};
                unsigned char replies[6 * 200];
                size_t total = 0, at = 0;

                if (varied)
                    vary(l, sizes, 4);
                fe_load_release(l, c, 6, 0, 0);
                for (int i = 0; i < 6; i++)
                    total += right_reply(l, c, order[i], replies + total);
                while (at < total) {
                    size_t n = 1 + (size_t)random_below(&state, round % 2 ? 3 : 100);

                    n = n > total - at ? total - at : n;
                    fe_load_received(l, c, replies + at, n, 1);
                    at += n;
                }
                assert(counted(l, FE_LOAD_MISPLACED) == 4 && counted(l, FE_LOAD_CORRUPT) == 0);
                assert(counted(l, FE_LOAD_MESSAGES) == 2 && l->outstanding == 0);
                free_load(l);
            }
}

/* The first bytes fit another message, the rest fits none. */
static void a_reply_that_only_begins_like_another_is_corrupt(void)
{
    for (size_t cut = 1; cut < 64; cut++) {
        fe_load *l = new_load(1, 2, FE_PATTERN_RAW, 64, "", "");
        fe_load_connection *c = &l->connections[0];
        const fe_load_failure *f = &l->counts.failures[0];
        unsigned char due[64], came[64];
        size_t first;

        fe_load_release(l, c, 2, 0, 0);
        right_reply(l, c, 0, due);
        right_reply(l, c, 1, came);
        first = fe_pattern_difference(due, came, 64);
        fe_load_received(l, c, came, cut, 1);
        assert(counted(l, FE_LOAD_CORRUPT) == 0);
        came[cut] ^= 1;
        fe_load_received(l, c, came + cut, 64 - cut, 1);
        assert(counted(l, FE_LOAD_CORRUPT) == 1 && counted(l, FE_LOAD_MISPLACED) == 0);
        assert(f->offset == first && f->expected == due[first] && f->got == came[first]);
        receive_reply(l, c, 1, 1);
        assert(counted(l, FE_LOAD_MESSAGES) == 1 && l->outstanding == 0);
        free_load(l);
    }
}

/* One byte at a time: many messages have the byte that came, none has all that came before. */
static void a_byte_that_fits_by_chance_makes_no_other_reply(void)
{
    fe_load *l = new_load(1, 1000, FE_PATTERN_RAW, 64, "", "");
    fe_load_connection *c = &l->connections[0];
    unsigned char reply[64];

    fe_load_release(l, c, 1000, 0, 0);
    right_reply(l, c, 0, reply);
    reply[40] ^= 1;
    for (int i = 0; i < 64; i++)
        fe_load_received(l, c, reply + i, 1, 1);
    assert(counted(l, FE_LOAD_CORRUPT) == 1 && counted(l, FE_LOAD_MISPLACED) == 0);
    assert(l->counts.failures[0].offset == 40);
    /* The first byte is wrong: it fits one after the other, until none is left. */
    right_reply(l, c, 1, reply);
    reply[0] ^= 1;
    for (int i = 0; i < 64; i++)
        fe_load_received(l, c, reply + i, 1, 1);
    assert(counted(l, FE_LOAD_CORRUPT) == 2 && counted(l, FE_LOAD_MISPLACED) == 0);
    assert(l->counts.failures[1].offset == 0 && l->counts.failures[1].got == reply[0]);
    free_load(l);
}

static void few_bytes_are_not_enough_to_know_a_message_by(void)
{
    fe_load *l = new_load(1, 2, FE_PATTERN_RAW, 7, "", "");
    fe_load_connection *c = &l->connections[0];
    unsigned char reply[64];

    fe_load_release(l, c, 2, 0, 0);
    receive_reply(l, c, 1, 1);
    assert(counted(l, FE_LOAD_CORRUPT) == 1 && counted(l, FE_LOAD_MISPLACED) == 0);
    free_load(l);
    /* Nor when no more of them come. */
    for (size_t n = 7; n <= 8; n++) {
        l = new_load(1, 2, FE_PATTERN_RAW, 64, "", "");
        c = &l->connections[0];
        fe_load_release(l, c, 2, 0, 0);
        right_reply(l, c, 1, reply);
        fe_load_received(l, c, reply, n, 1);
        fe_load_gone(l, c, FE_LOAD_RESET, 0, 2);
        assert(counted(l, FE_LOAD_CORRUPT) == (n == 7) && counted(l, FE_LOAD_MISPLACED) == (n == 8));
        assert(counted(l, FE_LOAD_LOST) == 1 && counted(l, FE_LOAD_RESET) == 1);
        free_load(l);
    }
}

/* Sizes from a table, so a reply may be longer than the one that was due when it turns out to be
 * nobody's: what follows still adds up, byte for byte. */
static void a_wrong_reply_of_another_size_ends_somewhere(void)
{
    static const uint32_t sizes[] = {9, 40, 90};
    uint64_t state = 77;

    for (int round = 0; round < 3000; round++) {
        fe_load *l = new_load(1, 4, round % 3, 90, "", "");
        fe_load_connection *c = &l->connections[0];
        unsigned char stream[4 * 100];
        size_t total = 0, at = 0;
        uint64_t first = random_below(&state, 4);

        vary(l, sizes, 3);
        fe_load_release(l, c, 4, 0, 0);
        for (uint64_t i = 0; i < 4; i++)
            total += right_reply(l, c, (first + i) % 4, stream + total);
        stream[random_below(&state, total)] ^= 1;
        stream[random_below(&state, total)] ^= 4;
        while (at < total) {
            size_t n = 1 + (size_t)random_below(&state, 30);

            n = n > total - at ? total - at : n;
            fe_load_received(l, c, stream + at, n, 1);
            at += n;
        }
        fe_load_gone(l, c, FE_LOAD_CLOSED_BY_SERVER, 0, 1);
        assert(counted(l, FE_LOAD_CORRUPT) + counted(l, FE_LOAD_MISPLACED) +
                   counted(l, FE_LOAD_MESSAGES) + counted(l, FE_LOAD_LOST) ==
               4);
        assert(counted(l, FE_LOAD_CORRUPT) >= 1 && counted(l, FE_LOAD_BYTES_RECEIVED) == total);
        free_load(l);
    }
}

/* 90 bytes came where 9 were due, and the 50th is wrong: those 90 are one reply, the next is whole
 * again. */
static void a_longer_reply_that_goes_wrong_late_ends_where_it_would(void)
{
    static const uint32_t sizes[] = {9, 90};
    fe_load *l = new_load(1, 2, FE_PATTERN_RAW, 90, "", "");
    fe_load_connection *c = &l->connections[0];
    unsigned char reply[90];

    vary(l, sizes, 2);
    while (fe_pattern_size(&l->pattern, c->first, c->due)->body != 9 ||
           fe_pattern_size(&l->pattern, c->first, c->due + 1)->body != 90) {
        fe_load_release(l, c, 1, 0, 0);
        receive_reply(l, c, c->done, 1);
    }
    fe_load_release(l, c, 2, 0, 0);
    assert(right_reply(l, c, c->done + 1, reply) == 90);
    reply[50] ^= 1;
    fe_load_received(l, c, reply, 30, 1);
    fe_load_received(l, c, reply + 30, 25, 1);
    fe_load_received(l, c, reply + 55, 35, 1);
    assert(c->done + 1 == c->due && c->done_at == 0);
    receive_reply(l, c, c->done - 1, 1);
    assert(counted(l, FE_LOAD_CORRUPT) == 1 && counted(l, FE_LOAD_MISPLACED) == 1);
    assert(l->outstanding == 0 && counted(l, FE_LOAD_EXTRA_BYTES) == 0);
    free_load(l);
}

static void a_reply_after_the_timeout_is_late_and_its_latency_counts(void)
{
    fe_load *l = new_load(1, 2, FE_PATTERN_RAW, 64, "", "");
    fe_load_connection *c = &l->connections[0];

    l->timeout_ns = 100;
    fe_load_release(l, c, 1, 10, 50);
    receive_reply(l, c, 0, 150);
    assert(counted(l, FE_LOAD_MESSAGES) == 1 && counted(l, FE_LOAD_LATE) == 0);
    fe_load_release(l, c, 1, 10, 50);
    receive_reply(l, c, 1, 151);
    assert(counted(l, FE_LOAD_MESSAGES) == 1 && counted(l, FE_LOAD_LATE) == 1);
    assert(counted(l, FE_LOAD_MESSAGES_IN_WINDOW) == 1 && counted(l, FE_LOAD_BYTES) == 64);
    assert(l->latency->count == 2 && l->latency->max == 141 && l->service->max == 101);
    assert(l->counts.failures[0].count == 101 && l->counts.failures[0].at_ns == 151);
    l->counts.described = FE_LOAD_DESCRIBED;
    fe_load_release(l, c, 1, 10, 50);
    receive_reply(l, c, 2, 151);
    assert(counted(l, FE_LOAD_LATE) == 2);
    free_load(l);
}

static void without_a_histogram_of_service_times_only_latencies_are_kept(void)
{
    fe_load *l = new_load(1, 1, FE_PATTERN_RAW, 64, "", "");
    fe_histogram *service = l->service;

    l->service = NULL;
    fe_load_release(l, &l->connections[0], 1, 0, 0);
    receive_reply(l, &l->connections[0], 0, 1);
    assert(l->latency->count == 1);
    l->service = service;
    free_load(l);
}

static void bytes_that_are_not_due_are_extra(void)
{
    fe_load *l = new_load(1, 1, FE_PATTERN_RAW, 64, "", "");
    fe_load_connection *c = &l->connections[0];
    unsigned char reply[69] = {0};

    fe_load_release(l, c, 1, 0, 0);
    right_reply(l, c, 0, reply);
    assert(fe_load_received(l, c, reply, 69, 1) == 1);
    assert(counted(l, FE_LOAD_MESSAGES) == 1 && counted(l, FE_LOAD_EXTRA_BYTES) == 5);
    assert(counted(l, FE_LOAD_BYTES_RECEIVED) == 69);
    /* They do not count towards the next reply. */
    fe_load_release(l, c, 1, 0, 0);
    right_reply(l, c, 1, reply);
    assert(fe_load_received(l, c, reply, 64, 1) == 1);
    assert(counted(l, FE_LOAD_MESSAGES) == 2 && counted(l, FE_LOAD_CORRUPT) == 0);
    free_load(l);
}

int main(void)
{
    a_changed_byte_is_one_wrong_reply_and_the_next_is_right();
    a_reply_that_differs_in_every_piece_is_one_wrong_reply();
    the_reply_of_another_message_is_misplaced();
    a_reply_is_looked_for_among_the_last_64_and_those_to_come();
    a_reply_is_not_looked_for_too_far_ahead();
    misplaced_replies_may_come_in_pieces_and_have_other_sizes();
    a_byte_that_fits_by_chance_makes_no_other_reply();
    a_reply_that_only_begins_like_another_is_corrupt();
    few_bytes_are_not_enough_to_know_a_message_by();
    a_wrong_reply_of_another_size_ends_somewhere();
    a_longer_reply_that_goes_wrong_late_ends_where_it_would();
    a_reply_after_the_timeout_is_late_and_its_latency_counts();
    without_a_histogram_of_service_times_only_latencies_are_kept();
    bytes_that_are_not_due_are_extra();
    return 0;
}
