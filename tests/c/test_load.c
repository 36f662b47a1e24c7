/* A load's decisions, played through without a socket: whatever way sends are cut short and
 * replies are split, right replies count once each; every kind of wrong reply, and of ending,
 * counts as what it is; an open loop keeps its schedule and its depth. */
#include "support.h"

#include "load.h"

/* A load of `count` connections with its memory. */
static fe_load *new_load(uint32_t count, uint32_t depth, int frame, uint64_t size,
                         const char *prefix, const char *suffix)
{
    fe_load *l = calloc(1, sizeof(*l));
    size_t n = fe_pattern_noise_size(size);
    unsigned char *noise = malloc(n);
    uint32_t places = 1;

    assert(l != NULL && noise != NULL);
    while (places < depth)
        places *= 2;
    assert(fe_pattern_init(&l->pattern, frame, size, 1, prefix, strlen(prefix), suffix,
                           strlen(suffix)) == 0);
    fe_pattern_fill(noise, n, 1, frame);
    l->pattern.noise = noise;
    l->count = count;
    l->depth = depth;
    l->ring_mask = places - 1;
    l->end_ns = 1000000;
    l->connections = calloc(count, sizeof(*l->connections));
    l->times = calloc((size_t)count * places, sizeof(*l->times));
    l->given = calloc((size_t)count * places, sizeof(*l->given));
    l->ring = calloc(count, sizeof(*l->ring));
    l->touched = calloc(count, sizeof(*l->touched));
    l->latency = malloc(sizeof(*l->latency));
    l->lateness = malloc(sizeof(*l->lateness));
    assert(l->connections && l->times && l->given && l->ring && l->touched && l->latency && l->lateness);
    fe_histogram_reset(l->latency);
    fe_histogram_reset(l->lateness);
    for (uint32_t i = 0; i < count; i++) {
        l->connections[i].fd = 100 + (int)i;
        l->connections[i].state = FE_LOAD_OPEN;
        l->connections[i].first = fe_pattern_first(&l->pattern, i);
    }
    return l;
}

static void free_load(fe_load *l)
{
    free((unsigned char *)(uintptr_t)l->pattern.noise);
    free(l->connections);
    free(l->times);
    free(l->given);
    free(l->ring);
    free(l->touched);
    free(l->latency);
    free(l->lateness);
    free(l);
}

/* Message `number` of c, or the reply to it, written to out. Result: its size. */
static size_t whole(const fe_load *l, const fe_shape *shape, const fe_load_connection *c,
                    uint64_t number, unsigned char *out)
{
    uint64_t at = 0;

    while (at < shape->size) {
        const unsigned char *bytes;
        size_t run =
            fe_shape_run(shape, fe_pattern_body(&l->pattern, c->first, number), at, &bytes);

        memcpy(out + at, bytes, run);
        at += run;
    }
    return (size_t)shape->size;
}

static size_t right_reply(const fe_load *l, const fe_load_connection *c, uint64_t number,
                          unsigned char *out)
{
    return whole(l, &l->pattern.reply, c, number, out);
}

/* Sends everything that is due on c, the kernel taking `most` bytes at a time at random.
 * Result: the bytes, as one stream. */
static unsigned char *sent_stream(fe_load *l, fe_load_connection *c, size_t room, uint64_t most,
                                  uint64_t *state, size_t *size)
{
    unsigned char *scratch = malloc(room);
    unsigned char *stream = malloc((size_t)((c->due - c->sent) * l->pattern.request.size) + 1);

    assert(scratch != NULL && stream != NULL);
    *size = 0;
    for (;;) {
        fe_load_chunk chunk = fe_load_next(l, c, scratch, room);
        size_t taken = chunk.size;

        if (chunk.size == 0)
            break;
        assert(chunk.noise_at < 0 || l->pattern.noise + chunk.noise_at == chunk.bytes);
        if (taken > most)
            taken = 1 + (size_t)random_below(state, most);
        memcpy(stream + *size, chunk.bytes, taken);
        *size += taken;
        fe_load_taken(l, c, taken);
    }
    assert(c->sent == c->due && c->sent_at == 0);
    free(scratch);
    return stream;
}

static void short_writes_and_split_replies_change_nothing(void)
{
    static const uint64_t sizes[] = {1, 2, 64, 5000, 40000};
    static const size_t rooms[] = {1, 100, 65536};
    uint64_t state = 3;

    for (int frame = FE_PATTERN_RAW; frame <= FE_PATTERN_LENGTH; frame++)
        for (size_t s = 0; s < 5; s++)
            for (size_t r = 0; r < 3; r++) {
                const char *affix = frame == FE_PATTERN_RAW ? "" : "affix";
                fe_load *l = new_load(2, 7, frame, sizes[s], affix, affix);
                fe_load_connection *c = &l->connections[1];
                unsigned char *replies = malloc(7 * (size_t)l->pattern.reply.size);
                uint64_t number = 0;

                assert(replies != NULL);
                for (int round = 0; round < 3; round++) {
                    size_t size, at = 0, total = 0;
                    unsigned char *stream;

                    fe_load_release(l, c, 7, 1000, 1000);
                    stream = sent_stream(l, c, rooms[r], sizes[s] * 3, &state, &size);
                    assert(size == 7 * l->pattern.request.size);
                    for (uint64_t i = 0; i < 7; i++) {
                        whole(l, &l->pattern.request, c, number + i, replies);
                        assert(memcmp(stream + i * l->pattern.request.size, replies,
                                      l->pattern.request.size) == 0);
                    }
                    free(stream);
                    for (int i = 0; i < 7; i++)
                        total += right_reply(l, c, number++, replies + total);
                    while (at < total) {
                        size_t n = 1 + (size_t)random_below(&state, sizes[s] * 2);

                        n = n > total - at ? total - at : n;
                        fe_load_received(l, c, replies + at, n, 1500);
                        at += n;
                    }
                }
                assert(l->counts.messages == 21 && l->counts.sent == 21);
                assert(l->counts.messages_in_window == 21 && l->outstanding == 0);
                assert(l->counts.bytes == 21 * l->pattern.reply.size);
                assert(l->counts.bytes_received == l->counts.bytes);
                assert(l->counts.bytes_sent == 21 * l->pattern.request.size);
                assert(l->latency->count == 21 && l->latency->min == 500);
                assert(l->counts.described == 0);
                free(replies);
                free_load(l);
            }
}

static void a_message_that_stands_in_the_noise_is_not_copied(void)
{
    unsigned char scratch[1000];
    fe_load *l = new_load(1, 2, FE_PATTERN_RAW, 64, "", "");
    fe_load_connection *c = &l->connections[0];
    fe_load_chunk chunk;

    fe_load_release(l, c, 1, 0, 0);
    chunk = fe_load_next(l, c, scratch, sizeof(scratch));
    assert(chunk.bytes == fe_pattern_body(&l->pattern, c->first, 0) && chunk.size == 64);
    assert(chunk.noise_at == chunk.bytes - l->pattern.noise);
    fe_load_release(l, c, 1, 0, 0);
    chunk = fe_load_next(l, c, scratch, sizeof(scratch));
    assert(chunk.bytes == scratch && chunk.size == 128 && chunk.noise_at == -1);
    free_load(l);
}

static void a_long_line_keeps_bytes_back_so_that_its_end_is_no_send_of_its_own(void)
{
    unsigned char scratch[65536];
    fe_load *l = new_load(1, 1, FE_PATTERN_LINE, 100000, "", "");
    fe_load_connection *c = &l->connections[0];
    fe_load_chunk chunk;

    fe_load_release(l, c, 1, 0, 0);
    chunk = fe_load_next(l, c, scratch, sizeof(scratch));
    assert(chunk.noise_at >= 0 && chunk.size == 100000 - 1 - FE_LOAD_KEPT_BACK);
    fe_load_taken(l, c, chunk.size);
    chunk = fe_load_next(l, c, scratch, sizeof(scratch));
    assert(chunk.noise_at == -1 && chunk.size == FE_LOAD_KEPT_BACK + 1);
    assert(chunk.bytes[chunk.size - 1] == '\n');
    free_load(l);
}

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

        memset(&l->counts, 0, sizeof(l->counts));
        fe_load_release(l, c, 2, 0, 0);
        right_reply(l, c, number, replies[0]);
        right_reply(l, c, number + 1, replies[1]);
        replies[0][i] ^= 1;
        assert(fe_load_received(l, c, replies[0], size, 1) == 1);
        assert(fe_load_received(l, c, replies[1], size, 1) == 1);
        assert(l->counts.kinds[FE_LOAD_WRONG] == 1 && l->counts.messages == 1);
        assert(l->counts.described == 1 && f->kind == FE_LOAD_WRONG && f->connection == 3);
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
    assert(l->counts.kinds[FE_LOAD_WRONG] == 1 && l->counts.failures[0].offset == 0);
    assert(fe_load_received(l, c, reply, right_reply(l, c, 1, reply), 1) == 1);
    assert(l->counts.kinds[FE_LOAD_WRONG] == 1 && l->counts.messages == 1);
    free_load(l);
}

static void swapped_and_repeated_replies_are_wrong(void)
{
    fe_load *l = new_load(2, 3, FE_PATTERN_RAW, 64, "", "");
    fe_load_connection *c = &l->connections[0];
    unsigned char reply[64];

    fe_load_release(l, c, 3, 0, 0);
    right_reply(l, c, 1, reply);
    fe_load_received(l, c, reply, 64, 1);
    right_reply(l, c, 0, reply);
    fe_load_received(l, c, reply, 64, 1);
    right_reply(l, c, 2, reply);
    fe_load_received(l, c, reply, 64, 1);
    assert(l->counts.kinds[FE_LOAD_WRONG] == 2 && l->counts.messages == 1);
    /* Stale: the last reply once more. */
    fe_load_release(l, c, 1, 0, 0);
    fe_load_received(l, c, reply, 64, 1);
    assert(l->counts.kinds[FE_LOAD_WRONG] == 3);
    /* Another connection's. */
    fe_load_release(l, c, 1, 0, 0);
    right_reply(l, &l->connections[1], 4, reply);
    fe_load_received(l, c, reply, 64, 1);
    assert(l->counts.kinds[FE_LOAD_WRONG] == 4 && l->counts.messages == 1);
    assert(l->outstanding == 0);
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
    assert(l->counts.messages == 1 && l->counts.kinds[FE_LOAD_EXTRA] == 5);
    assert(l->counts.bytes_received == 69);
    /* They do not count towards the next reply. */
    fe_load_release(l, c, 1, 0, 0);
    right_reply(l, c, 1, reply);
    assert(fe_load_received(l, c, reply, 64, 1) == 1);
    assert(l->counts.messages == 2 && l->counts.kinds[FE_LOAD_WRONG] == 0);
    free_load(l);
}

static void every_message_of_a_dead_connection_is_counted_once(void)
{
    static const int kinds[] = {FE_LOAD_RESET, FE_LOAD_CLOSED_BY_SERVER, FE_LOAD_OTHER,
                                FE_LOAD_TIMED_OUT};

    for (size_t k = 0; k < 4; k++)
        for (int wrong = 0; wrong < 2; wrong++) {
            fe_load *l = new_load(1, 8, FE_PATTERN_RAW, 64, "", "");
            fe_load_connection *c = &l->connections[0];
            unsigned char reply[64], scratch[1024];
            uint64_t missing = 7 - (uint64_t)wrong;

            fe_load_release(l, c, 8, 0, 0);
            fe_load_taken(l, c, fe_load_next(l, c, scratch, 100).size);
            right_reply(l, c, 0, reply);
            fe_load_received(l, c, reply, 64, 1);
            right_reply(l, c, 1, reply);
            reply[3] ^= (unsigned char)wrong;
            fe_load_received(l, c, reply, 32, 1);
            fe_load_gone(l, c, kinds[k], 0);
            assert(c->state == FE_LOAD_CLOSED && c->fd == -1 && l->outstanding == 0);
            assert(c->done == c->due && c->sent == c->due && c->sent_at == 0 && c->done_at == 0);
            assert(l->counts.kinds[kinds[k]] == (kinds[k] == FE_LOAD_TIMED_OUT ? missing : 1));
            assert(l->counts.lost == (kinds[k] == FE_LOAD_TIMED_OUT ? 0 : missing));
            assert(l->counts.kinds[FE_LOAD_WRONG] == (uint64_t)wrong);
            assert(l->counts.messages + l->counts.lost + l->counts.kinds[FE_LOAD_WRONG] +
                       l->counts.kinds[FE_LOAD_TIMED_OUT] ==
                   l->counts.sent);
            assert(l->counts.failures[l->counts.described - 1].count == missing);
            free_load(l);
        }
}

static void an_end_without_a_reason_is_no_failure(void)
{
    fe_load *l = new_load(1, 1, FE_PATTERN_RAW, 64, "", "");

    fe_load_gone(l, &l->connections[0], -1, 0);
    assert(l->counts.described == 0 && l->counts.lost == 0);
    free_load(l);
}

static void a_connect_or_a_fin_that_times_out_counts_as_one(void)
{
    fe_load *l = new_load(1, 1, FE_PATTERN_RAW, 64, "", "");

    l->connections[0].state = FE_LOAD_CONNECTING;
    fe_load_gone(l, &l->connections[0], FE_LOAD_TIMED_OUT, 0);
    assert(l->counts.kinds[FE_LOAD_TIMED_OUT] == 1 && l->counts.failures[0].count == 1);
    assert(l->counts.failures[0].state == FE_LOAD_CONNECTING);
    free_load(l);
}

static void a_wrong_reply_whose_rest_times_out_is_counted_as_wrong_only(void)
{
    fe_load *l = new_load(1, 1, FE_PATTERN_RAW, 64, "", "");
    unsigned char reply[64];

    fe_load_release(l, &l->connections[0], 1, 0, 0);
    right_reply(l, &l->connections[0], 0, reply);
    reply[0] ^= 1;
    fe_load_received(l, &l->connections[0], reply, 32, 1);
    fe_load_gone(l, &l->connections[0], FE_LOAD_TIMED_OUT, 0);
    assert(l->counts.kinds[FE_LOAD_WRONG] == 1 && l->counts.kinds[FE_LOAD_TIMED_OUT] == 0);
    assert(l->outstanding == 0 && l->counts.described == 1);
    free_load(l);
}

static void only_the_first_failures_are_described_and_all_are_counted(void)
{
    fe_load *l = new_load(1, 2, FE_PATTERN_RAW, 1, "", "");
    fe_load_connection *c = &l->connections[0];
    fe_load_failure first[FE_LOAD_DESCRIBED];
    unsigned char reply;

    for (int i = 0; i < 3 * FE_LOAD_DESCRIBED; i++)
        fe_load_received(l, c, (const unsigned char *)"x", 1, 1);
    assert(l->counts.described == FE_LOAD_DESCRIBED);
    assert(l->counts.kinds[FE_LOAD_EXTRA] == 3 * FE_LOAD_DESCRIBED);
    memcpy(first, l->counts.failures, sizeof(first));
    /* Each of those that could say more about itself. */
    fe_load_release(l, c, 2, 0, 0);
    right_reply(l, c, 0, &reply);
    reply ^= 1;
    fe_load_received(l, c, &reply, 1, 1);
    fe_load_gone(l, c, FE_LOAD_RESET, ECONNRESET);
    assert(l->counts.kinds[FE_LOAD_WRONG] == 1 && l->counts.kinds[FE_LOAD_RESET] == 1);
    assert(l->counts.lost == 1 && l->counts.described == FE_LOAD_DESCRIBED);
    assert(memcmp(first, l->counts.failures, sizeof(first)) == 0);
    free_load(l);
}

static void waiting_too_long_is_late_in_every_state(void)
{
    fe_load *l = new_load(1, 4, FE_PATTERN_RAW, 64, "", "");
    fe_load_connection *c = &l->connections[0];
    unsigned char reply[64];

    assert(!fe_load_late(l, c, 1000000, 10));
    fe_load_release(l, c, 1, 100, 100);
    fe_load_release(l, c, 1, 150, 150);
    assert(!fe_load_late(l, c, 110, 10) && fe_load_late(l, c, 111, 10));
    /* The oldest message decides. */
    right_reply(l, c, 0, reply);
    fe_load_received(l, c, reply, 64, 111);
    assert(!fe_load_late(l, c, 160, 10) && fe_load_late(l, c, 161, 10));
    /* When it became due does not matter: only since when the server can know of it. */
    fe_load_release(l, c, 1, 3, 300);
    right_reply(l, c, 1, reply);
    fe_load_received(l, c, reply, 64, 300);
    assert(!fe_load_late(l, c, 310, 10) && fe_load_late(l, c, 311, 10));
    assert(l->latency->max == 150);
    /* A time that lies ahead is not late. */
    assert(!fe_load_late(l, c, 50, 10));
    c->since_ns = 500;
    for (int state = FE_LOAD_WAITING; state <= FE_LOAD_ENDING; state++)
        if (state != FE_LOAD_OPEN) {
            c->state = (uint8_t)state;
            assert(!fe_load_late(l, c, 510, 10) && fe_load_late(l, c, 511, 10));
        }
    c->state = FE_LOAD_CLOSED;
    assert(!fe_load_late(l, c, 1000000, 10));
    free_load(l);
}

static void an_open_loop_sends_on_time_to_each_in_turn(void)
{
    fe_load *l = new_load(3, 1, FE_PATTERN_RAW, 64, "", "");
    const fe_load_connection *c;

    l->interval_ns = 100;
    fe_load_schedule(l, 1000);
    for (uint32_t i = 0; i < 3; i++)
        fe_load_offer(l, &l->connections[i], 1000);
    fe_load_offer(l, &l->connections[0], 1000);
    assert(l->ring_used == 3);
    assert(fe_load_give(l, 999, 16) == 0);
    assert(fe_load_give(l, 1000, 16) == 1);
    c = fe_load_given(l);
    assert(c == &l->connections[0] && c->due == 1 && fe_load_given(l) == NULL);
    assert(l->next_ns == 1100);
    /* Two are due: the next two connections get them. */
    assert(fe_load_give(l, 1250, 16) == 2);
    assert(l->connections[1].due == 1 && l->connections[2].due == 1);
    assert(l->times[fe_load_place(l, &l->connections[2], 0)] == 1200);
    assert(l->lateness->count == 3 && l->lateness->max == 150);
    while (fe_load_given(l) != NULL)
        ;
    /* Nobody is free: the message waits, and counts from when it was due. */
    assert(fe_load_give(l, 2000, 16) == 0 && l->next_ns == 1300);
    {
        unsigned char reply[64];

        right_reply(l, &l->connections[1], 0, reply);
        fe_load_received(l, &l->connections[1], reply, 64, 2100);
        fe_load_offer(l, &l->connections[1], 2100);
        assert(fe_load_give(l, 2110, 16) == 1);
        assert(l->counts.held == 1 && l->lateness->count == 3);
        assert(l->times[fe_load_place(l, &l->connections[1], 1)] == 1300);
        right_reply(l, &l->connections[1], 1, reply);
        fe_load_received(l, &l->connections[1], reply, 64, 2200);
        assert(l->latency->max == 1000 && l->latency->min == 900);
    }
    free_load(l);
}

static void an_open_loop_ends_with_its_window_and_counts_what_it_could_not_send(void)
{
    fe_load *l = new_load(2, 1, FE_PATTERN_RAW, 64, "", "");
    unsigned char reply[64];

    l->interval_ns = 100;
    l->end_ns = 2000;
    fe_load_schedule(l, 1000);
    fe_load_offer(l, &l->connections[0], 1000);
    fe_load_offer(l, &l->connections[1], 1000);
    /* A dead connection is not given anything. */
    fe_load_gone(l, &l->connections[0], FE_LOAD_RESET, 0);
    assert(fe_load_give(l, 5000, 16) == 1 && l->connections[1].due == 1);
    fe_load_give_up(l);
    assert(l->counts.sent == 1 && l->counts.unsent == 9);
    fe_load_give_up(l);
    assert(l->counts.unsent == 9);
    /* A connection that is free changes nothing: the window is over. */
    right_reply(l, &l->connections[1], 0, reply);
    fe_load_received(l, &l->connections[1], reply, 64, 6000);
    fe_load_offer(l, &l->connections[1], 6000);
    assert(l->ring_used == 1 && fe_load_give(l, 7000, 16) == 0 && l->counts.sent == 1);
    free_load(l);
}

static void a_connection_that_cannot_take_a_message_is_passed_over(void)
{
    fe_load *l = new_load(3, 1, FE_PATTERN_RAW, 64, "", "");

    l->interval_ns = 1;
    fe_load_schedule(l, 0);
    /* Closed: it is not queued. Filled while it was queued: its turn goes to the next. */
    fe_load_gone(l, &l->connections[0], FE_LOAD_RESET, 0);
    for (int i = 0; i < 3; i++)
        fe_load_offer(l, &l->connections[i], 0);
    assert(l->ring_used == 2);
    fe_load_release(l, &l->connections[1], 1, 0, 0);
    assert(fe_load_give(l, 10, 16) == 1 && fe_load_given(l) == &l->connections[2]);
    assert(l->connections[0].due == 0 && l->connections[1].due == 1 && l->ring_used == 0);
    free_load(l);
}

static void depth_and_batch_limit_what_is_given_at_once(void)
{
    fe_load *l = new_load(1, 5, FE_PATTERN_RAW, 64, "", "");

    l->interval_ns = 1;
    fe_load_schedule(l, 0);
    fe_load_offer(l, &l->connections[0], 0);
    assert(fe_load_give(l, 500, 3) == 3);
    assert(fe_load_given(l) == &l->connections[0] && fe_load_given(l) == NULL);
    assert(fe_load_give(l, 500, 3) == 2);
    assert(fe_load_give(l, 500, 3) == 0 && fe_load_room(l, &l->connections[0]) == 0);
    /* It had room all the time: the lateness is the caller's. */
    assert(l->counts.held == 0 && l->lateness->count == 5);
    free_load(l);
}

static void a_schedule_does_not_drift(void)
{
    fe_load *l = new_load(1, 1, FE_PATTERN_RAW, 64, "", "");

    l->interval_ns = 1e9 / 3;
    fe_load_schedule(l, 7);
    for (int i = 0; i < 3000; i++)
        fe_load_advance(l);
    assert(l->next_ns >= 7 + 999999999999u && l->next_ns <= 7 + 1000000000000u);
    free_load(l);
}

static void an_errno_has_its_kind(void)
{
    assert(fe_load_kind_for(ECONNRESET) == FE_LOAD_RESET);
    assert(fe_load_kind_for(EPIPE) == FE_LOAD_RESET);
    assert(fe_load_kind_for(ECONNREFUSED) == FE_LOAD_REFUSED);
    assert(fe_load_kind_for(ETIMEDOUT) == FE_LOAD_TIMED_OUT);
    assert(fe_load_kind_for(EHOSTUNREACH) == FE_LOAD_OTHER);
}

int main(void)
{
    short_writes_and_split_replies_change_nothing();
    a_message_that_stands_in_the_noise_is_not_copied();
    a_long_line_keeps_bytes_back_so_that_its_end_is_no_send_of_its_own();
    a_changed_byte_is_one_wrong_reply_and_the_next_is_right();
    a_reply_that_differs_in_every_piece_is_one_wrong_reply();
    swapped_and_repeated_replies_are_wrong();
    bytes_that_are_not_due_are_extra();
    every_message_of_a_dead_connection_is_counted_once();
    an_end_without_a_reason_is_no_failure();
    a_connect_or_a_fin_that_times_out_counts_as_one();
    a_wrong_reply_whose_rest_times_out_is_counted_as_wrong_only();
    only_the_first_failures_are_described_and_all_are_counted();
    waiting_too_long_is_late_in_every_state();
    an_open_loop_sends_on_time_to_each_in_turn();
    an_open_loop_ends_with_its_window_and_counts_what_it_could_not_send();
    a_connection_that_cannot_take_a_message_is_passed_over();
    depth_and_batch_limit_what_is_given_at_once();
    a_schedule_does_not_drift();
    an_errno_has_its_kind();
    return 0;
}
