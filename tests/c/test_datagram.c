/* The guards of the UDP echo: ports and addresses that are never answered, a bucket for each
 * source which no number of sources makes larger, and loops that end. */
#include "support.h"

#include "datagram.h"

#include <string.h>

#define SECOND 1000000000ull

static fe_guards *guards_new(void)
{
    fe_guards *g = calloc(1, sizeof(*g));

    assert(g != NULL);
    g->seed = 12345;
    return g;
}

static fe_guarding guarding(void)
{
    fe_guarding how;

    memset(&how, 0, sizeof(how));
    how.is_on = true;
    return how;
}

/* sockaddr_in and sockaddr_in6 as bytes: family, port, address. */
static unsigned char name[28];

static fe_datagram from_4(uint32_t address, unsigned port)
{
    fe_datagram d = {name, (const unsigned char *)"hello", 5, 0, false, false};

    memset(name, 0, sizeof(name));
    name[2] = (unsigned char)(port >> 8);
    name[3] = (unsigned char)port;
    name[4] = (unsigned char)(address >> 24);
    name[5] = (unsigned char)(address >> 16);
    name[6] = (unsigned char)(address >> 8);
    name[7] = (unsigned char)address;
    return d;
}

static fe_datagram from_6(const unsigned char *address, unsigned port)
{
    fe_datagram d = from_4(0, port);

    d.is_ipv6 = true;
    memcpy(name + 8, address, 16);
    return d;
}

static int judged(const fe_guarding *how, fe_datagram d)
{
    fe_guards *g = guards_new();
    int verdict = fe_judge(g, how, &d, 0, 64, SECOND);

    free(g);
    return verdict;
}

static void services_and_ourselves_are_not_answered(void)
{
    fe_guarding how = guarding();

    fe_own_port(&how, 7777);
    assert(judged(&how, from_4(0x0a000001, 7)) == FE_REFUSE_PORT);
    assert(judged(&how, from_4(0x0a000001, 0)) == FE_REFUSE_PORT);
    assert(judged(&how, from_4(0x0a000001, 1023)) == FE_REFUSE_PORT);
    assert(judged(&how, from_4(0x0a000001, 1024)) == FE_ECHO);
    assert(judged(&how, from_4(0x0a000001, 7777)) == FE_REFUSE_PORT);
    assert(judged(&how, from_4(0x0a000001, 7776)) == FE_ECHO);
    assert(judged(&how, from_4(0x0a000001, 7778)) == FE_ECHO);
    how.is_on = false;
    assert(judged(&how, from_4(0x0a000001, 7)) == FE_ECHO);
    assert(judged(&how, from_4(0x0a000001, 7777)) == FE_ECHO);
}

static void who_is_not_one_machine_is_not_answered(void)
{
    static const unsigned char group[16] = {0xff, 2, [15] = 1}, any[16] = {0};
    static const unsigned char one[16] = {0xfd, [15] = 1};
    fe_guarding how = guarding();
    fe_datagram d;

    assert(judged(&how, from_4(0xffffffff, 5000)) == FE_REFUSE_ADDRESS);
    assert(judged(&how, from_4(0xe0000001, 5000)) == FE_REFUSE_ADDRESS);
    assert(judged(&how, from_4(0xdfffffff, 5000)) == FE_ECHO);
    assert(judged(&how, from_4(0, 5000)) == FE_REFUSE_ADDRESS);
    assert(judged(&how, from_6(group, 5000)) == FE_REFUSE_ADDRESS);
    assert(judged(&how, from_6(any, 5000)) == FE_REFUSE_ADDRESS);
    assert(judged(&how, from_6(one, 5000)) == FE_ECHO);
    d = from_4(0x0a000001, 5000);
    d.is_to_many = true;
    assert(judged(&how, d) == FE_REFUSE_ADDRESS);
    how.is_on = false;
    assert(judged(&how, d) == FE_ECHO);
}

/* How many of n datagrams, step_ns apart, a source gets answered. */
static unsigned answered(fe_guards *g, fe_datagram d, uint64_t interval_ns, uint64_t now_ns,
                         unsigned n, uint64_t step_ns)
{
    fe_peer_key key = fe_source_key(&d, 64);
    unsigned i, taken = 0;

    for (i = 0; i < n; i++)
        taken += fe_take_tokens(g, &key, interval_ns, fe_datagram_count(&d), now_ns + i * step_ns);
    return taken;
}

static void a_source_has_a_burst_of_one_second_and_then_its_rate(void)
{
    fe_guards *g = guards_new();
    fe_datagram d = from_4(0x0a000001, 5000);

    /* 100 a second: a burst of 100, in the next second 100 more. */
    assert(answered(g, d, SECOND / 100, 5 * SECOND, 1000, 0) == 100);
    assert(answered(g, d, SECOND / 100, 5 * SECOND + 1, 1000, SECOND / 1000) == 99);
    /* A long pause saves no more than the burst. */
    assert(answered(g, d, SECOND / 100, 500 * SECOND, 1000, 0) == 100);
    free(g);
}

static void one_a_second_lets_one_pass(void)
{
    fe_guards *g = guards_new();
    fe_datagram d = from_4(0x0a000001, 5000);

    assert(answered(g, d, SECOND, SECOND, 3, 0) == 1);
    assert(answered(g, d, SECOND, 2 * SECOND, 3, 0) == 1);
    free(g);
}

static void the_sources_of_an_address_share_a_bucket_and_others_have_their_own(void)
{
    static const unsigned char a[16] = {0x20, 1, [15] = 1}, near[16] = {0x20, 1, [15] = 2};
    static const unsigned char far[16] = {0x20, 1, [7] = 1, [15] = 1};
    fe_guards *g = guards_new();

    assert(answered(g, from_4(0x0a000001, 5000), SECOND / 10, SECOND, 20, 0) == 10);
    assert(answered(g, from_4(0x0a000001, 5001), SECOND / 10, SECOND, 20, 0) == 0);
    assert(answered(g, from_4(0x0a000002, 5000), SECOND / 10, SECOND, 20, 0) == 10);
    assert(answered(g, from_6(a, 5000), SECOND / 10, SECOND, 20, 0) == 10);
    assert(answered(g, from_6(near, 5000), SECOND / 10, SECOND, 20, 0) == 0);
    assert(answered(g, from_6(far, 5000), SECOND / 10, SECOND, 20, 0) == 10);
    free(g);
}

static void a_train_takes_as_many_tokens_as_it_has_datagrams(void)
{
    static unsigned char bytes[1000];
    fe_guarding how = guarding();
    fe_guards *g = guards_new();
    fe_datagram d = from_4(0x0a000001, 5000);

    d.data = bytes;
    d.size = 1000;
    d.segment = 300;
    assert(fe_datagram_count(&d) == 4);
    assert(fe_judge(g, &how, &d, SECOND / 10, 64, SECOND) == FE_ECHO);
    assert(fe_judge(g, &how, &d, SECOND / 10, 64, SECOND) == FE_ECHO);
    assert(fe_judge(g, &how, &d, SECOND / 10, 64, SECOND) == FE_REFUSE_RATE);
    d.segment = 1000;
    assert(fe_datagram_count(&d) == 1);
    d.segment = 0;
    assert(fe_datagram_count(&d) == 1);
    assert(fe_judge(g, &how, &d, SECOND / 10, 64, SECOND) == FE_ECHO);
    assert(fe_judge(g, &how, &d, SECOND / 10, 64, SECOND) == FE_ECHO);
    assert(fe_judge(g, &how, &d, SECOND / 10, 64, SECOND) == FE_REFUSE_RATE);
    assert(fe_judge(g, &how, &d, 0, 64, SECOND) == FE_ECHO);
    free(g);
}

/* More sources than the table has: together they get what the table holds, and no more. */
static void no_number_of_sources_gets_more_than_the_table_holds(void)
{
    fe_guards *g = guards_new();
    uint64_t taken = 0, most = (uint64_t)FE_SOURCE_SETS * FE_SOURCE_WAYS * 2;
    uint32_t i;

    for (i = 0; i < 200000; i++)
        taken += answered(g, from_4(0x0a000000 + i, 5000), SECOND / 2, SECOND, 3, 0);
    assert(taken <= most && taken > most * 9 / 10);
    free(g);
}

/* Of n rounds in which a source sends what it was sent, how many are answered. */
static unsigned rounds(fe_guards *g, const fe_guarding *how, fe_datagram d, unsigned n,
                       uint64_t start_ns, uint64_t gap_ns)
{
    unsigned i, answers = 0;

    for (i = 0; i < n; i++)
        answers += fe_judge(g, how, &d, 0, 64, start_ns + i * gap_ns) == FE_ECHO;
    return answers;
}

static void one_of_what_comes_back_again_and_again_is_not_answered(void)
{
    static const unsigned char one[16] = {0xfd, [15] = 1};
    fe_guarding how = guarding();
    fe_guards *g = guards_new();

    assert(rounds(g, &how, from_4(0x0a000001, 5000), FE_LOOP_ROUNDS, SECOND, 1000) ==
           FE_LOOP_ROUNDS);
    assert(rounds(g, &how, from_4(0x0a000001, 5000), 1, SECOND + 1000000, 1000) == 0);
    /* It counts anew. */
    assert(rounds(g, &how, from_4(0x0a000001, 5000), FE_LOOP_ROUNDS, SECOND + 1000000, 0) ==
           FE_LOOP_ROUNDS);
    assert(rounds(g, &how, from_4(0x0a000001, 5000), 2, SECOND + 1000000, 1000) == 1);
    assert(rounds(g, &how, from_6(one, 5000), FE_LOOP_ROUNDS + 1, SECOND, 1000) ==
           FE_LOOP_ROUNDS);
    how.is_on = false;
    assert(rounds(g, &how, from_4(0x0a000009, 5000), 5000, SECOND, 1000) == 5000);
    free(g);
}

/* n other questions, none of which comes a second time. */
static void strangers(fe_guards *g, const fe_guarding *how, unsigned n, uint64_t now_ns)
{
    static uint64_t number;
    fe_datagram d = from_4(0x0a000002, 6000);

    d.data = (const unsigned char *)&number;
    d.size = sizeof(number);
    for (; n > 0; n--, number++)
        assert(fe_judge(g, how, &d, 0, 64, ++now_ns) == FE_ECHO);
}

/* A loop over a long line: 20 rounds a second, beside 1,000 other questions a second, and for the
 * first rounds beside so many that most rounds are forgotten until one is not. */
static void a_slow_loop_ends_beside_other_questions(void)
{
    static const unsigned crowds[] = {50, 8000};
    fe_guarding how = guarding();
    unsigned answers, i;

    for (i = 0; i < 2; i++) {
        fe_guards *g = guards_new();
        uint64_t now_ns = SECOND;

        for (answers = 0; answers < 5 * FE_LOOP_ROUNDS; answers++) {
            now_ns += SECOND / 20;
            if (rounds(g, &how, from_4(0x0a000001, 5000), 1, now_ns, 0) == 0)
                break;
            strangers(g, &how, answers < 100 ? crowds[i] : 50, now_ns);
        }
        assert(answers >= FE_LOOP_ROUNDS && answers < FE_LOOP_ROUNDS + 90);
        free(g);
    }
}

/* As many as some hundred forged datagrams make: the one does not hide the other. */
static void all_of_many_loops_end(void)
{
    enum { MANY = 600 };
    static uint32_t data[MANY];
    static bool is_over[MANY];
    fe_guarding how = guarding();
    fe_guards *g = guards_new();
    fe_datagram d = from_4(0x0a000001, 5000);
    unsigned i, turn, left = MANY;

    d.size = sizeof(data[0]);
    for (turn = 0; turn < 3 * FE_LOOP_ROUNDS && left > 0; turn++) {
        for (i = 0; i < MANY; i++) {
            data[i] = i;
            d.data = (const unsigned char *)&data[i];
            if (!is_over[i] && fe_judge(g, &how, &d, 0, 64, SECOND + turn) != FE_ECHO) {
                is_over[i] = true;
                left--;
            }
        }
    }
    assert(left == 0);
    free(g);
}

static void a_question_each_second_is_no_loop(void)
{
    fe_guarding how = guarding();
    fe_guards *g = guards_new();

    assert(rounds(g, &how, from_4(0x0a000001, 5000), 5000, SECOND, FE_LOOP_GAP_NS + 1) == 5000);
    free(g);
}

static void what_differs_at_its_beginning_or_end_is_no_loop(void)
{
    static unsigned char bytes[600];
    fe_guarding how = guarding();
    fe_guards *g = guards_new();
    fe_datagram d = from_4(0x0a000001, 5000);
    unsigned i, size, answers = 0;

    d.data = bytes;
    for (size = 8; size <= 600; size += 74) {
        d.size = size;
        for (i = 0; i < 3000; i++) {
            memcpy(i % 2 ? bytes : bytes + size - 4, &i, 4);
            answers += fe_judge(g, &how, &d, 0, 64, SECOND) == FE_ECHO;
        }
    }
    assert(answers == 9 * 3000);
    /* Of another length, or of none. */
    memset(bytes, 0, sizeof(bytes));
    for (i = 0, answers = 0; i < 3000; i++) {
        d.size = i % 600;
        answers += fe_judge(g, &how, &d, 0, 64, SECOND) == FE_ECHO;
    }
    assert(answers == 3000);
    free(g);
}

/* With a prefix each round is longer than the last; that it begins with ours is the sign. */
static void a_loop_that_grows_is_seen_by_what_we_put_round_it(void)
{
    static unsigned char bytes[5000];
    fe_guarding how = guarding();
    fe_guards *g = guards_new();
    fe_datagram d = from_4(0x0a000001, 5000);
    unsigned i, answers = 0;

    how.prefix = (const unsigned char *)"<";
    how.prefix_size = 1;
    how.suffix = (const unsigned char *)">>";
    how.suffix_size = 2;
    memset(bytes, '<', 2500);
    memset(bytes + 2500, '>', 2500);
    for (i = 1; i <= FE_LOOP_ROUNDS + 1; i++) {
        d.data = bytes + 2500 - i;
        d.size = 3 * i;
        answers += fe_judge(g, &how, &d, 0, 64, SECOND) == FE_ECHO;
    }
    assert(answers == FE_LOOP_ROUNDS);
    /* What only begins or only ends so, or is too short for both, is an ordinary one. */
    d.data = (const unsigned char *)"<a";
    d.size = 2;
    assert(!fe_is_wrapped(&how, &d));
    d.data = (const unsigned char *)"<a>";
    d.size = 3;
    assert(!fe_is_wrapped(&how, &d));
    d.data = (const unsigned char *)"a>>";
    assert(!fe_is_wrapped(&how, &d));
    d.data = (const unsigned char *)"<>>";
    assert(fe_is_wrapped(&how, &d));
    free(g);
}

int main(void)
{
    services_and_ourselves_are_not_answered();
    who_is_not_one_machine_is_not_answered();
    a_source_has_a_burst_of_one_second_and_then_its_rate();
    one_a_second_lets_one_pass();
    the_sources_of_an_address_share_a_bucket_and_others_have_their_own();
    a_train_takes_as_many_tokens_as_it_has_datagrams();
    no_number_of_sources_gets_more_than_the_table_holds();
    one_of_what_comes_back_again_and_again_is_not_answered();
    a_slow_loop_ends_beside_other_questions();
    all_of_many_loops_end();
    a_question_each_second_is_no_loop();
    what_differs_at_its_beginning_or_end_is_no_loop();
    a_loop_that_grows_is_seen_by_what_we_put_round_it();
    return 0;
}
