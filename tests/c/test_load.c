/* What a load sends, played through without a socket: whatever way sends are cut short and
 * replies are split, right replies count once each, in their window; sizes may differ. */
#include "loads.h"

#include "load.h"
#include "load_counts.h"

/* Sends everything that is due on c, the kernel taking `most` bytes at a time at random.
 * Result: the bytes, as one stream. */
static unsigned char *sent_stream(fe_load *l, fe_load_connection *c, size_t room, uint64_t most,
                                  uint64_t *state, size_t *size)
{
    unsigned char *scratch = malloc(room);
    size_t most_of_one = (size_t)l->pattern.one.whole[FE_REQUEST];
    unsigned char *stream = malloc((size_t)(c->due - c->sent) * most_of_one + 1);

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
                unsigned char *replies = malloc(7 * (size_t)l->pattern.one.whole[FE_REPLY]);
                uint64_t number = 0;

                assert(replies != NULL);
                for (int round = 0; round < 3; round++) {
                    size_t size, at = 0, total = 0;
                    unsigned char *stream;

                    fe_load_release(l, c, 7, 1000, 1000);
                    stream = sent_stream(l, c, rooms[r], sizes[s] * 3, &state, &size);
                    assert(size == 7 * l->pattern.one.whole[FE_REQUEST]);
                    for (uint64_t i = 0; i < 7; i++) {
                        whole(l, FE_REQUEST, c, number + i, replies);
                        assert(memcmp(stream + i * l->pattern.one.whole[FE_REQUEST], replies,
                                      l->pattern.one.whole[FE_REQUEST]) == 0);
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
                assert(counted(l, FE_LOAD_MESSAGES) == 21 && counted(l, FE_LOAD_SENT) == 21);
                assert(counted(l, FE_LOAD_MESSAGES_IN_WINDOW) == 21 && l->outstanding == 0);
                assert(counted(l, FE_LOAD_BYTES) == 21 * l->pattern.one.whole[FE_REPLY]);
                assert(counted(l, FE_LOAD_BYTES_RECEIVED) == counted(l, FE_LOAD_BYTES));
                assert(counted(l, FE_LOAD_BYTES_SENT) == 21 * l->pattern.one.whole[FE_REQUEST]);
                assert(l->latency->count == 21 && l->latency->min == 500);
                assert(l->counts.described == 0);
                free(replies);
                free_load(l);
            }
}

static void every_message_has_the_size_that_its_number_draws(void)
{
    static const uint32_t sizes[] = {1, 7, 64, 300, 5000, 40000};
    uint64_t state = 5;

    for (int frame = FE_PATTERN_RAW; frame <= FE_PATTERN_LENGTH; frame++)
        for (size_t room = 100; room <= 65536; room += 65436) {
            const char *affix = frame == FE_PATTERN_RAW ? "" : "affix";
            fe_load *l = new_load(2, 50, frame, 40000, affix, affix);
            fe_load_connection *c = &l->connections[1];
            unsigned char *replies = malloc(50 * 50000), *message = malloc(50000), *stream;
            size_t size, at = 0, total = 0, sent = 0;

            assert(replies != NULL && message != NULL);
            vary(l, sizes, 6);
            fe_load_release(l, c, 50, 1000, 1000);
            stream = sent_stream(l, c, room, 60000, &state, &size);
            for (uint64_t i = 0; i < 50; i++) {
                size_t n = whole(l, FE_REQUEST, c, i, message);

                assert(sent + n <= size && memcmp(stream + sent, message, n) == 0);
                sent += n;
                total += right_reply(l, c, i, replies + total);
            }
            assert(sent == size && counted(l, FE_LOAD_BYTES_SENT) == size);
            while (at < total) {
                size_t n = 1 + (size_t)random_below(&state, 20000);

                n = n > total - at ? total - at : n;
                fe_load_received(l, c, replies + at, n, 1500);
                at += n;
            }
            assert(counted(l, FE_LOAD_MESSAGES) == 50 && l->outstanding == 0);
            assert(counted(l, FE_LOAD_BYTES) == total && l->counts.described == 0);
            free(stream);
            free(message);
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

static void only_messages_of_the_window_count_but_a_rate_takes_what_came_in_it(void)
{
    fe_load *l = new_load(1, 4, FE_PATTERN_RAW, 64, "", "");
    fe_load_connection *c = &l->connections[0];

    fe_load_set_window(l, 1000, 2000);
    fe_load_release(l, c, 2, 990, 990);
    fe_load_release(l, c, 1, 1000, 1000);
    fe_load_release(l, c, 1, 1999, 1999);
    assert(counted(l, FE_LOAD_SENT) == 2);
    receive_reply(l, c, 0, 999);
    assert(counted(l, FE_LOAD_MESSAGES_IN_WINDOW) == 0);
    receive_reply(l, c, 1, 1000);
    assert(counted(l, FE_LOAD_MESSAGES_IN_WINDOW) == 1 && counted(l, FE_LOAD_MESSAGES) == 0);
    receive_reply(l, c, 2, 1999);
    receive_reply(l, c, 3, 2000);
    assert(counted(l, FE_LOAD_MESSAGES_IN_WINDOW) == 2 && counted(l, FE_LOAD_MESSAGES) == 2);
    assert(counted(l, FE_LOAD_BYTES) == 128 && l->latency->count == 2 && l->service->count == 2);
    free_load(l);
}

static void a_number_of_messages_is_given_and_no_more(void)
{
    fe_load *l = new_load(2, 4, FE_PATTERN_RAW, 64, "", "");
    fe_load_connection *c = &l->connections[0];

    l->left = 5;
    assert(fe_load_room(l, c) == 4);
    fe_load_release(l, c, 4, 0, 0);
    assert(!fe_load_is_over(l, 0) && fe_load_room(l, &l->connections[1]) == 1);
    fe_load_release(l, &l->connections[1], 1, 0, 0);
    assert(fe_load_is_over(l, 0) && fe_load_room(l, &l->connections[1]) == 0);
    free_load(l);
}

static void a_window_of_a_number_of_messages_ends_with_their_last_reply(void)
{
    fe_load *l = new_load(1, 2, FE_PATTERN_RAW, 64, "", "");
    fe_load_connection *c = &l->connections[0];

    fe_load_set_window(l, 1000, UINT64_MAX);
    fe_schedule_start(&l->schedule, 1000);
    l->left = 2;
    fe_load_release(l, c, 1, 1000, 1000);
    assert(fe_load_elapsed_ns(&l->counts, 1300) == 300);
    fe_load_release(l, c, 1, 1000, 1350);
    assert(fe_load_elapsed_ns(&l->counts, 9000) == 350);
    fe_load_spent(l, 1500);
    assert(fe_load_elapsed_ns(&l->counts, 1400) == 400);
    assert(fe_load_elapsed_ns(&l->counts, 9000) == 500);
    fe_load_spent(l, 1700);
    assert(fe_load_elapsed_ns(&l->counts, 9000) == 700);
    /* Ended before. */
    fe_load_cut(l, 1600);
    assert(fe_load_elapsed_ns(&l->counts, 9000) == 600);
    fe_load_forget(&l->counts);
    fe_load_set_window(l, 1000, 9000);
    assert(fe_load_elapsed_ns(&l->counts, 9000) == 8000);
    free_load(l);
}

static void a_window_can_be_cut(void)
{
    fe_load *l = new_load(1, 1, FE_PATTERN_RAW, 64, "", "");

    fe_load_set_window(l, 1000, 2000);
    assert(fe_load_elapsed_ns(&l->counts, 900) == 0);
    assert(fe_load_elapsed_ns(&l->counts, 1300) == 300);
    assert(fe_load_elapsed_ns(&l->counts, 5000) == 1000);
    fe_load_cut(l, 2000);
    assert(l->end_ns == 2000 && fe_load_is_over(l, 2000) && !fe_load_is_over(l, 1999));
    fe_load_cut(l, 1500);
    assert(l->window_ns == 1000 && l->end_ns == 1500);
    assert(fe_load_elapsed_ns(&l->counts, 5000) == 500);
    /* In the warm-up. */
    fe_load_cut(l, 800);
    assert(l->window_ns == 800 && l->end_ns == 800);
    assert(fe_load_elapsed_ns(&l->counts, 5000) == 0);
    free_load(l);
}

static void counting_starts_anew_but_open_connections_stay(void)
{
    fe_load *l = new_load(3, 1, FE_PATTERN_RAW, 64, "", "");

    fe_load_fail(l, &l->connections[0], FE_LOAD_OTHER, 1, 5);
    fe_load_forget(&l->counts);
    for (int i = 0; i < FE_LOAD_COUNTERS; i++)
        assert(counted(l, i) == (i == FE_LOAD_CONNECTIONS_OPEN ? 3 : 0));
    assert(l->counts.described == 0 && l->counts.end_ns == 0);
    assert(strcmp(fe_load_counter_name(FE_LOAD_MESSAGES), "messages") == 0);
    assert(strcmp(fe_load_counter_name(FE_LOAD_OTHER), "other") == 0);
    free_load(l);
}

int main(void)
{
    short_writes_and_split_replies_change_nothing();
    every_message_has_the_size_that_its_number_draws();
    a_message_that_stands_in_the_noise_is_not_copied();
    a_long_line_keeps_bytes_back_so_that_its_end_is_no_send_of_its_own();
    only_messages_of_the_window_count_but_a_rate_takes_what_came_in_it();
    a_number_of_messages_is_given_and_no_more();
    a_window_of_a_number_of_messages_ends_with_their_last_reply();
    a_window_can_be_cut();
    counting_starts_anew_but_open_connections_stay();
    return 0;
}
