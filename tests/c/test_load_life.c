/* Connections that come and go: every message of one that ended is counted once, as what became
 * of it; gaps are measured; silence is noticed. */
#include "loads.h"

#include "load_life.h"

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
            fe_load_gone(l, c, kinds[k], 0, 5);
            assert(c->state == FE_LOAD_CLOSED && c->fd == -1 && l->outstanding == 0);
            assert(c->done == c->due && c->sent == c->due && c->sent_at == 0 && c->done_at == 0);
            assert(counted(l, kinds[k]) == (kinds[k] == FE_LOAD_TIMED_OUT ? missing : 1));
            assert(counted(l, FE_LOAD_LOST) == (kinds[k] == FE_LOAD_TIMED_OUT ? 0 : missing));
            assert(counted(l, FE_LOAD_CORRUPT) == (uint64_t)wrong);
            assert(counted(l, FE_LOAD_MESSAGES) + counted(l, FE_LOAD_LOST) + counted(l, FE_LOAD_CORRUPT) +
                       counted(l, FE_LOAD_TIMED_OUT) ==
                   counted(l, FE_LOAD_SENT));
            assert(l->counts.failures[l->counts.described - 1].count == missing);
            free_load(l);
        }
}

static void an_end_without_a_reason_is_no_failure(void)
{
    fe_load *l = new_load(1, 1, FE_PATTERN_RAW, 64, "", "");

    fe_load_gone(l, &l->connections[0], -1, 0, 5);
    assert(l->counts.described == 0 && counted(l, FE_LOAD_LOST) == 0);
    free_load(l);
}

static void a_connect_that_failed_counts_as_one(void)
{
    fe_load *l = new_load(1, 1, FE_PATTERN_RAW, 64, "", "");

    l->connections[0].state = FE_LOAD_CONNECTING;
    fe_load_gone(l, &l->connections[0], FE_LOAD_CONNECT_TIMED_OUT, ETIMEDOUT, 5);
    assert(counted(l, FE_LOAD_CONNECT_TIMED_OUT) == 1 && counted(l, FE_LOAD_TIMED_OUT) == 0);
    assert(l->counts.failures[0].state == FE_LOAD_CONNECTING);
    assert(l->counts.failures[0].error == ETIMEDOUT && l->counts.failures[0].at_ns == 5);
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
    fe_load_gone(l, &l->connections[0], FE_LOAD_TIMED_OUT, 0, 5);
    assert(counted(l, FE_LOAD_CORRUPT) == 1 && counted(l, FE_LOAD_TIMED_OUT) == 0);
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
    assert(counted(l, FE_LOAD_EXTRA_BYTES) == 3 * FE_LOAD_DESCRIBED);
    memcpy(first, l->counts.failures, sizeof(first));
    /* Each of those that could say more about itself. */
    fe_load_release(l, c, 2, 0, 0);
    right_reply(l, c, 0, &reply);
    reply ^= 1;
    fe_load_received(l, c, &reply, 1, 1);
    fe_load_gone(l, c, FE_LOAD_RESET, ECONNRESET, 5);
    assert(counted(l, FE_LOAD_CORRUPT) == 1 && counted(l, FE_LOAD_RESET) == 1);
    assert(counted(l, FE_LOAD_LOST) == 1 && l->counts.described == FE_LOAD_DESCRIBED);
    fe_load_release(l, c, 1, 0, 0);
    assert(memcmp(first, l->counts.failures, sizeof(first)) == 0);
    free_load(l);
}

/* c is given a message and answers rightly. */
static void answer(fe_load *l, fe_load_connection *c, uint64_t now_ns)
{
    uint64_t number = c->due;

    fe_load_release(l, c, 1, now_ns, now_ns);
    receive_reply(l, c, number, now_ns);
}

static void a_gap_lasts_from_the_loss_to_the_next_right_reply(void)
{
    fe_load *l = new_load(2, 1, FE_PATTERN_RAW, 64, "", "");
    fe_load_connection *c = &l->connections[1];

    assert(counted(l, FE_LOAD_CONNECTIONS_OPEN) == 2 && fe_load_open(l) == 2);
    fe_load_gone(l, c, FE_LOAD_RESET, 0, 1000);
    assert(l->broken == 1 && fe_load_open(l) == 1 && c->state == FE_LOAD_CLOSED);
    /* Connects that fail meanwhile are a part of it. */
    fe_load_gone(l, c, FE_LOAD_REFUSED, 0, 1500);
    assert(l->broken == 1);
    c->since_ns = 1900;
    assert(fe_load_opened(l, c, 2000) == 1900);
    /* Open is not yet there: it may be lost again, or give a wrong reply. */
    assert(l->broken == 0 && counted(l, FE_LOAD_REOPENED) == 0);
    fe_load_gone(l, c, FE_LOAD_TIMED_OUT, 0, 2000);
    assert(l->broken == 1);
    c->since_ns = 2000;
    fe_load_opened(l, c, 2000);
    fe_load_release(l, c, 1, 2000, 2000);
    receive_reply(l, c, c->due + 1, 2000);
    assert(l->broken == 0 && counted(l, FE_LOAD_REOPENED) == 0);
    answer(l, c, 2000);
    assert(counted(l, FE_LOAD_REOPENED) == 1);
    assert(counted(l, FE_LOAD_GAP_NS) == 1000 && counted(l, FE_LOAD_LONGEST_GAP_NS) == 1000);
    assert(l->connect->count == 2 && l->connect->max == 100);
    fe_load_gone(l, c, FE_LOAD_RESET, 0, 3000);
    fe_load_opened(l, c, 3300);
    answer(l, c, 3500);
    assert(counted(l, FE_LOAD_GAP_NS) == 1500 && counted(l, FE_LOAD_LONGEST_GAP_NS) == 1000);
    /* A run has gaps of its own. */
    fe_load_gone(l, c, FE_LOAD_RESET, 0, 4000);
    fe_load_forget_gaps(l);
    fe_load_opened(l, c, 9000);
    answer(l, c, 9000);
    assert(l->broken == 0 && counted(l, FE_LOAD_REOPENED) == 2 && fe_load_open(l) == 2);
    /* Nothing went wrong: that is no gap. */
    fe_load_gone(l, c, -1, 0, 9500);
    assert(l->broken == 0);
    free_load(l);
}

static void silence_is_what_counts_in_every_state(void)
{
    fe_load *l = new_load(1, 4, FE_PATTERN_RAW, 64, "", "");
    fe_load_connection *c = &l->connections[0];
    unsigned char reply[64];

    l->timeout_ns = 10;
    assert(!fe_load_silent(l, c, 1000000));
    fe_load_release(l, c, 1, 100, 100);
    fe_load_release(l, c, 1, 150, 150);
    assert(!fe_load_silent(l, c, 110) && fe_load_silent(l, c, 111));
    /* A byte is a sign of life, however slow the reply is. */
    right_reply(l, c, 0, reply);
    fe_load_received(l, c, reply, 1, 111);
    assert(!fe_load_silent(l, c, 121) && fe_load_silent(l, c, 122));
    /* The oldest message decides. */
    fe_load_received(l, c, reply + 1, 63, 125);
    assert(!fe_load_silent(l, c, 160) && fe_load_silent(l, c, 161));
    /* When it became due does not matter: only since when the server can know of it. */
    fe_load_release(l, c, 1, 3, 300);
    right_reply(l, c, 1, reply);
    fe_load_received(l, c, reply, 64, 300);
    assert(!fe_load_silent(l, c, 310) && fe_load_silent(l, c, 311));
    assert(l->latency->max == 150);
    /* A time that lies ahead is not late. */
    assert(!fe_load_silent(l, c, 50));
    c->since_ns = 500;
    for (int state = FE_LOAD_WAITING; state <= FE_LOAD_ENDING; state++)
        if (state != FE_LOAD_OPEN) {
            c->state = (uint8_t)state;
            assert(!fe_load_silent(l, c, 510) && fe_load_silent(l, c, 511));
        }
    for (int state = FE_LOAD_CLOSED; state <= FE_LOAD_RESTING; state++) {
        c->state = (uint8_t)state;
        assert(!fe_load_silent(l, c, 1000000));
    }
    free_load(l);
}

static void an_errno_has_its_kind(void)
{
    assert(fe_load_kind_for(ECONNRESET, 0) == FE_LOAD_RESET);
    assert(fe_load_kind_for(EPIPE, 0) == FE_LOAD_RESET);
    assert(fe_load_kind_for(ECONNREFUSED, 1) == FE_LOAD_REFUSED);
    assert(fe_load_kind_for(ETIMEDOUT, 1) == FE_LOAD_CONNECT_TIMED_OUT);
    assert(fe_load_kind_for(ETIMEDOUT, 0) == FE_LOAD_OTHER);
    assert(fe_load_kind_for(EHOSTUNREACH, 1) == FE_LOAD_OTHER);
}

int main(void)
{
    every_message_of_a_dead_connection_is_counted_once();
    an_end_without_a_reason_is_no_failure();
    a_connect_that_failed_counts_as_one();
    a_wrong_reply_whose_rest_times_out_is_counted_as_wrong_only();
    only_the_first_failures_are_described_and_all_are_counted();
    a_gap_lasts_from_the_loss_to_the_next_right_reply();
    silence_is_what_counts_in_every_state();
    an_errno_has_its_kind();
    return 0;
}
