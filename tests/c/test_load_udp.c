/* Datagrams of a load: each reply is known, and judged, whatever order and number they come in. */
#include "loads.h"

#include "load_udp.h"

enum { COUNT = 3, SIZE = 40, LARGE = 2000 };

typedef struct rig {
    fe_load *l;
    fe_udp u;
    fe_load_connection *c;
} rig;

/* A load of COUNT connections of `depth`, and its second one. */
static rig new_rig(uint32_t depth, const char *prefix, const char *suffix)
{
    rig r = {.l = new_load(COUNT, depth, FE_PATTERN_RAW, SIZE, "", "")};

    r.c = &r.l->connections[1];
    r.u.flows = calloc(COUNT, sizeof(*r.u.flows));
    r.u.places = calloc((size_t)COUNT * depth, sizeof(*r.u.places));
    assert(r.u.flows != NULL && r.u.places != NULL);
    r.u.seed = 7;
    r.u.prefix = (const unsigned char *)prefix;
    r.u.suffix = (const unsigned char *)suffix;
    r.u.prefix_size = strlen(prefix);
    r.u.suffix_size = strlen(suffix);
    for (uint32_t i = 0; i < COUNT; i++)
        fe_udp_clear(&r.u, r.l, i);
    return r;
}

static void free_rig(rig *r)
{
    free(r->u.flows);
    free(r->u.places);
    free_load(r->l);
}

/* Gives c one message at now_ns and sends it; the reply that is due is written to `reply`, of
 * LARGE bytes. Result: its size. */
static size_t exchange(rig *r, fe_load_connection *c, uint64_t now_ns, unsigned char *reply)
{
    fe_udp_datagram d;
    size_t n = r->u.prefix_size;

    fe_load_release(r->l, c, 1, now_ns, now_ns);
    memcpy(reply, r->u.prefix, n);
    d = fe_udp_next(&r->u, r->l, c, reply + n);
    assert(fe_udp_places(&r->u, r->l, c)[d.place].number == c->sent - 1);
    n += FE_UDP_HEADER;
    memcpy(reply + n, d.body, d.body_size);
    n += d.body_size;
    memcpy(reply + n, r->u.suffix, r->u.suffix_size);
    n += r->u.suffix_size;
    assert(n <= LARGE);
    return n;
}

static uint32_t receive(rig *r, const unsigned char *bytes, size_t n, uint64_t now_ns)
{
    return fe_udp_received(&r->u, r->l, r->c, bytes, n, now_ns);
}

static void a_header_says_which_message_it_is_of(void)
{
    rig r = new_rig(1, "", "");
    unsigned char header[FE_UDP_HEADER];
    fe_udp_id of = {0x01020304, 0xabcd, 0x112233445566u}, found;

    fe_udp_header(&r.u, &of, header);
    assert(memcmp(header, "\1\2\3\4\x11\x22\x33\x44\x55\x66\xab\xcd", 12) == 0);
    assert(fe_udp_read(&r.u, header, &found));
    assert(found.connection == of.connection && found.place == of.place);
    assert(found.number == of.number);
    for (size_t i = 0; i < FE_UDP_HEADER * 8; i++) {
        header[i / 8] ^= (unsigned char)(1 << i % 8);
        assert(!fe_udp_read(&r.u, header, &found));
        header[i / 8] ^= (unsigned char)(1 << i % 8);
    }
    r.u.seed++;
    assert(!fe_udp_read(&r.u, header, &found));
    free_rig(&r);
}

static void replies_in_any_order_are_right_and_the_overtaken_are_reordered(void)
{
    rig r = new_rig(5, "pre", "suffix");
    unsigned char replies[5][LARGE];
    static const int order[] = {1, 0, 3, 2, 4};
    size_t n = 0;

    for (int i = 0; i < 5; i++)
        n = exchange(&r, r.c, 100, replies[i]);
    assert(n == SIZE + 9 && fe_load_room(r.l, r.c) == 0);
    for (int i = 0; i < 5; i++)
        assert(receive(&r, replies[order[i]], n, 164) == 1);
    assert(counted(r.l, FE_LOAD_MESSAGES) == 5 && counted(r.l, FE_LOAD_RIGHT) == 5);
    assert(counted(r.l, FE_LOAD_REORDERED) == 2 && counted(r.l, FE_LOAD_BYTES) == 5 * n);
    assert(counted(r.l, FE_LOAD_MESSAGES_IN_WINDOW) == 5 && r.l->outstanding == 0);
    assert(r.l->latency->count == 5 && r.l->latency->max == 64 && r.l->service->count == 5);
    assert(r.l->counts.described == 0 && r.c->done == 5);
    free_rig(&r);
}

static void a_second_reply_is_a_duplicate(void)
{
    rig r = new_rig(2, "", "");
    unsigned char reply[LARGE], other[LARGE];
    size_t n = exchange(&r, r.c, 0, reply);

    exchange(&r, r.c, 0, other);
    assert(receive(&r, reply, n, 1) == 1 && receive(&r, reply, n, 1) == 0);
    assert(counted(r.l, FE_LOAD_DUPLICATES) == 1);
    /* Also when its place has been given to another. */
    exchange(&r, r.c, 1, other);
    assert(receive(&r, reply, n, 2) == 0);
    assert(counted(r.l, FE_LOAD_DUPLICATES) == 2 && counted(r.l, FE_LOAD_MESSAGES) == 1);
    assert(counted(r.l, FE_LOAD_REORDERED) == 0);
    /* A byte of a duplicate can be wrong as well. */
    reply[SIZE - 1] ^= 1;
    assert(receive(&r, reply, n, 2) == 0);
    assert(counted(r.l, FE_LOAD_CORRUPT) == 1 && counted(r.l, FE_LOAD_DUPLICATES) == 2);
    assert(r.l->counts.failures[0].number == 0 && r.l->outstanding == 2);
    free_rig(&r);
}

static void without_a_reply_in_time_a_message_is_lost_and_the_reply_is_tardy_once(void)
{
    rig r = new_rig(2, "", "");
    unsigned char reply[LARGE], other[LARGE];
    size_t n = exchange(&r, r.c, 100, reply);
    uint64_t end_ns = 100 + r.l->timeout_ns;

    exchange(&r, r.c, 101, other);
    assert(fe_udp_expire(&r.u, r.l, r.c, end_ns, 0) == 0);
    assert(fe_udp_expire(&r.u, r.l, r.c, end_ns + 1, 0) == 1);
    assert(counted(r.l, FE_LOAD_NO_REPLY) == 1 && r.l->outstanding == 1);
    assert(receive(&r, reply, n, end_ns + 2) == 0);
    assert(counted(r.l, FE_LOAD_TARDY) == 1 && counted(r.l, FE_LOAD_RIGHT) == 1);
    assert(receive(&r, reply, n, end_ns + 2) == 0);
    assert(counted(r.l, FE_LOAD_TARDY) == 1 && counted(r.l, FE_LOAD_DUPLICATES) == 1);
    /* Nobody has looked yet, but its time is over. */
    assert(receive(&r, other, n, end_ns + 3) == 1);
    assert(counted(r.l, FE_LOAD_NO_REPLY) == 2 && counted(r.l, FE_LOAD_TARDY) == 2);
    assert(counted(r.l, FE_LOAD_MESSAGES) == 0 && r.l->latency->count == 0);
    assert(counted(r.l, FE_LOAD_REORDERED) == 0 && r.l->outstanding == 0);
    /* At the end nothing is waited for. */
    exchange(&r, r.c, 0, reply);
    exchange(&r, r.c, 0, other);
    assert(fe_udp_expire(&r.u, r.l, r.c, 1, 1) == 2 && r.l->outstanding == 0);
    /* The wrong reply, late: lost, and wrong. */
    exchange(&r, r.c, 0, reply);
    reply[20] ^= 1;
    assert(receive(&r, reply, n, end_ns) == 1);
    assert(counted(r.l, FE_LOAD_NO_REPLY) == 5 && counted(r.l, FE_LOAD_CORRUPT) == 1);
    assert(r.l->outstanding == 0);
    free_rig(&r);
}

static void a_place_remembers_its_last_losses_and_takes_older_ones_for_lost(void)
{
    rig r = new_rig(1, "", "");
    unsigned char replies[8][LARGE];
    size_t n = 0;

    n = exchange(&r, r.c, 0, replies[0]);
    receive(&r, replies[0], n, 1);
    for (int i = 1; i < 7; i++) {
        exchange(&r, r.c, 0, replies[i]);
        fe_udp_expire(&r.u, r.l, r.c, 0, 1);
    }
    exchange(&r, r.c, 0, replies[7]);
    receive(&r, replies[7], n, 1);
    for (int i = 1; i < 7; i++)
        receive(&r, replies[i], n, 1);
    assert(counted(r.l, FE_LOAD_TARDY) == 6 && counted(r.l, FE_LOAD_DUPLICATES) == 0);
    for (int i = 3; i < 8; i++)
        receive(&r, replies[i], n, 1);
    assert(counted(r.l, FE_LOAD_TARDY) == 6 && counted(r.l, FE_LOAD_DUPLICATES) == 5);
    free_rig(&r);
}

static void a_changed_byte_is_one_wrong_reply_wherever_it_is(void)
{
    rig r = new_rig(2, "pre", "suf");
    unsigned char reply[LARGE], next[LARGE];

    for (size_t i = 0; i < SIZE + 6; i++) {
        const fe_load_failure *f = &r.l->counts.failures[0];
        uint64_t number = r.c->due;
        size_t n;

        fe_load_forget(&r.l->counts);
        fe_load_set_window(r.l, 0, 1000000);
        n = exchange(&r, r.c, 0, reply);
        exchange(&r, r.c, 0, next);
        reply[i] ^= 1;
        assert(receive(&r, reply, n, 1) == 1 && receive(&r, next, n, 1) == 1);
        assert(counted(r.l, FE_LOAD_CORRUPT) == 1 && counted(r.l, FE_LOAD_MESSAGES) == 1);
        assert(f->kind == FE_LOAD_CORRUPT && f->connection == 1 && f->number == number);
        assert(f->offset == i && f->got == (f->expected ^ 1) && f->error == 0);
        assert(r.l->outstanding == 0);
    }
    free_rig(&r);
}

static void a_reply_that_is_too_short_or_too_long_is_wrong(void)
{
    rig r = new_rig(1, "", "!");
    unsigned char reply[LARGE];

    for (size_t n = 0; n < SIZE + 10; n++) {
        const fe_load_failure *f = &r.l->counts.failures[0];

        fe_load_forget(&r.l->counts);
        exchange(&r, r.c, 0, reply);
        if (n == SIZE + 1) {
            receive(&r, reply, n, 1);
            continue;
        }
        assert(receive(&r, reply, n, 1) == 1 && counted(r.l, FE_LOAD_CORRUPT) == 1);
        assert(f->error == EMSGSIZE && f->offset == n && f->count == SIZE + 1);
    }
    free_rig(&r);
}

static void what_fits_no_message_is_wrong_and_settles_none(void)
{
    rig r = new_rig(4, "", "");
    unsigned char reply[LARGE];
    size_t n = exchange(&r, r.c, 0, reply);

    exchange(&r, r.c, 0, reply);
    memset(reply, 'x', n);
    assert(receive(&r, reply, n, 1) == 0 && counted(r.l, FE_LOAD_CORRUPT) == 1);
    assert(r.l->counts.failures[0].error == ENOMSG && r.l->outstanding == 2);
    assert(receive(&r, reply, n - 1, 1) == 0 && counted(r.l, FE_LOAD_CORRUPT) == 2);
    fe_udp_expire(&r.u, r.l, r.c, 1, 1);
    assert(receive(&r, reply, n, 1) == 0 && counted(r.l, FE_LOAD_EXTRA_BYTES) == n);
    free_rig(&r);
}

static void a_short_body_is_not_enough_to_know_a_message_by(void)
{
    static const uint32_t sizes[] = {FE_UDP_HEADER + 3};
    rig r = new_rig(2, "", "");
    unsigned char reply[LARGE];
    size_t n;

    vary(r.l, sizes, 1);
    n = exchange(&r, r.c, 0, reply);
    assert(n == FE_UDP_HEADER + 3);
    exchange(&r, r.c, 0, reply);
    reply[2] ^= 1;
    assert(receive(&r, reply, n, 1) == 0 && counted(r.l, FE_LOAD_CORRUPT) == 1);
    assert(r.l->outstanding == 2);
    free_rig(&r);
}

static void only_so_many_messages_are_searched_by_their_body(void)
{
    uint32_t depth = FE_LOAD_LOOK_AHEAD + 1;
    rig r = new_rig(depth, "", "");
    unsigned char reply[LARGE];
    size_t n = 0;

    for (uint32_t i = 0; i < depth; i++)
        n = exchange(&r, r.c, 0, reply);
    reply[0] ^= 1;
    assert(receive(&r, reply, n, 1) == 0 && counted(r.l, FE_LOAD_CORRUPT) == 1);
    fe_udp_settle(&r.u, r.l, r.c, r.u.flows[1].oldest);
    assert(receive(&r, reply, n, 1) == 1 && counted(r.l, FE_LOAD_CORRUPT) == 2);
    free_rig(&r);
}

static void a_reply_of_another_connection_is_misplaced(void)
{
    rig r = new_rig(1, "", "");
    unsigned char reply[LARGE];
    size_t n = exchange(&r, &r.l->connections[2], 0, reply);

    assert(receive(&r, reply, n, 1) == 0 && counted(r.l, FE_LOAD_MISPLACED) == 1);
    assert(r.l->counts.failures[0].count == 2 && r.l->counts.failures[0].error == EXDEV);
    reply[n - 1] ^= 1;
    assert(receive(&r, reply, n, 1) == 0 && counted(r.l, FE_LOAD_CORRUPT) == 1);
    reply[n - 1] ^= 1;
    for (int i = 0; i < FE_LOAD_DESCRIBED; i++)
        receive(&r, reply, n, 1);
    reply[n - 1] ^= 1;
    receive(&r, reply, n, 1);
    assert(r.l->counts.described == FE_LOAD_DESCRIBED && counted(r.l, FE_LOAD_CORRUPT) == 2);
    free_rig(&r);
}

static void what_was_never_sent_is_too_much(void)
{
    rig r = new_rig(1, "", "");
    unsigned char header[FE_UDP_HEADER];
    fe_udp_id future = {1, 0, 0}, outside = {1, 1, 0};

    fe_udp_header(&r.u, &future, header);
    assert(receive(&r, header, sizeof(header), 1) == 0);
    exchange(&r, r.c, 0, (unsigned char[LARGE]){0});
    fe_udp_header(&r.u, &outside, header);
    assert(receive(&r, header, sizeof(header), 1) == 0);
    assert(counted(r.l, FE_LOAD_EXTRA_BYTES) == 2 * FE_UDP_HEADER && r.l->outstanding == 1);
    free_rig(&r);
}

static void what_is_not_sent_frees_its_place(void)
{
    rig r = new_rig(3, "", "");
    unsigned char replies[3][LARGE];
    size_t n = 0;

    for (int i = 0; i < 3; i++)
        n = exchange(&r, r.c, 0, replies[i]);
    fe_udp_not_sent(&r.u, r.l, r.c, 1);
    assert(counted(r.l, FE_LOAD_NOT_SENT) == 1 && fe_load_room(r.l, r.c) == 1);
    assert(receive(&r, replies[2], n, 1) == 1 && receive(&r, replies[0], n, 1) == 1);
    assert(counted(r.l, FE_LOAD_MESSAGES) == 2 && r.l->outstanding == 0);
    assert(r.u.flows[1].oldest == FE_UDP_NOWHERE && r.u.flows[1].newest == FE_UDP_NOWHERE);
    free_rig(&r);
}

static void before_the_window_nothing_of_this_counts(void)
{
    rig r = new_rig(3, "", "");
    unsigned char replies[4][LARGE];
    size_t n = 0;

    fe_load_set_window(r.l, 1000, 2000);
    free(r.l->service);
    r.l->service = NULL;
    for (int i = 0; i < 3; i++)
        n = exchange(&r, r.c, 10, replies[i]);
    receive(&r, replies[1], n, 20);
    receive(&r, replies[0], n, 20);
    receive(&r, replies[0], n, 20);
    fe_udp_expire(&r.u, r.l, r.c, 20, 1);
    receive(&r, replies[2], n, 20);
    for (int counter = FE_LOAD_NO_REPLY; counter <= FE_LOAD_NOT_SENT; counter++)
        assert(counted(r.l, counter) == 0);
    assert(counted(r.l, FE_LOAD_MESSAGES) == 0 && counted(r.l, FE_LOAD_RIGHT) == 3);
    exchange(&r, r.c, 1000, replies[3]);
    assert(receive(&r, replies[3], n, 2000) == 1);
    assert(counted(r.l, FE_LOAD_MESSAGES) == 1 && counted(r.l, FE_LOAD_MESSAGES_IN_WINDOW) == 0);
    receive(&r, replies[0], n, 2000);
    assert(counted(r.l, FE_LOAD_DUPLICATES) == 0);
    receive(&r, replies[3], n, 2000);
    assert(counted(r.l, FE_LOAD_DUPLICATES) == 1 && r.l->latency->count == 1);
    /* The next window. */
    fe_load_set_window(r.l, 3000, 4000);
    receive(&r, replies[3], n, 3000);
    assert(counted(r.l, FE_LOAD_DUPLICATES) == 1);
    free_rig(&r);
}

/* A path that keeps, drops, doubles and reorders, against plain arithmetic. */
static void books_balance_on_any_path(void)
{
    uint64_t state = 1;

    for (int round = 0; round < 200; round++) {
        uint32_t depth = 1 + (uint32_t)random_below(&state, 9);
        rig r = new_rig(depth, "", "");
        static unsigned char kept[64][SIZE];
        uint32_t used = 0;
        uint64_t doubled = 0, came = 0;

        r.l->timeout_ns = 50;
        for (uint64_t now = 1; now < 300; now++) {
            if (fe_load_room(r.l, r.c) > 0 && used < 62) {
                unsigned char reply[LARGE];
                uint64_t copies = random_below(&state, 3);

                exchange(&r, r.c, now, reply);
                for (uint64_t i = 0; i < copies; i++)
                    memcpy(kept[used++], reply, SIZE);
            }
            if (used > 0 && random_below(&state, 2)) {
                uint32_t i = (uint32_t)random_below(&state, used);

                came++;
                receive(&r, kept[i], SIZE, now);
                memcpy(kept[i], kept[--used], SIZE);
            }
            fe_udp_expire(&r.u, r.l, r.c, now, 0);
        }
        doubled = counted(r.l, FE_LOAD_DUPLICATES) + counted(r.l, FE_LOAD_TARDY);
        assert(counted(r.l, FE_LOAD_MESSAGES) + doubled == came);
        assert(counted(r.l, FE_LOAD_MESSAGES) + counted(r.l, FE_LOAD_NO_REPLY) + r.l->outstanding ==
               counted(r.l, FE_LOAD_SENT));
        assert(r.l->counts.described == 0);
        free_rig(&r);
    }
}

int main(void)
{
    a_header_says_which_message_it_is_of();
    replies_in_any_order_are_right_and_the_overtaken_are_reordered();
    a_second_reply_is_a_duplicate();
    without_a_reply_in_time_a_message_is_lost_and_the_reply_is_tardy_once();
    a_place_remembers_its_last_losses_and_takes_older_ones_for_lost();
    a_changed_byte_is_one_wrong_reply_wherever_it_is();
    a_reply_that_is_too_short_or_too_long_is_wrong();
    what_fits_no_message_is_wrong_and_settles_none();
    a_short_body_is_not_enough_to_know_a_message_by();
    only_so_many_messages_are_searched_by_their_body();
    a_reply_of_another_connection_is_misplaced();
    what_was_never_sent_is_too_much();
    what_is_not_sent_frees_its_place();
    before_the_window_nothing_of_this_counts();
    books_balance_on_any_path();
    return 0;
}
