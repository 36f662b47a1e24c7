/* Fuzz target: what a load makes of datagrams is what plain books of its messages say.
 *
 * Messages are sent, time goes on, and replies come in any order, any number of times, late, with a
 * byte changed, cut or longer, or are any bytes. The books know of each message where it stood and what
 * became of it.
 */
#include "../c/loads.h"
#include "input.h"

#include "load_udp.h"

enum { COUNT = 2, MESSAGES = 512, SIZE = 32, DEPTH = 6, TIMEOUT_NS = 50, LARGEST = SIZE + 64 };

/* --- the model --- */

enum fate { WAITS, RIGHT, WRONG, LOST, LOST_AND_CAME, NOT_SENT };

typedef struct message {
    enum fate fate;
    uint32_t place;
    uint64_t given_ns;
    size_t size;
    unsigned char reply[LARGEST];
} message;

typedef struct books {
    message messages[MESSAGES];
    uint64_t sent;
    /* What is counted. */
    uint64_t right, lost, late, duplicates, reordered, wrong, extra, not_sent;
    uint64_t next_expected;
} books;

static uint64_t waiting(const books *b)
{
    uint64_t n = 0;

    for (uint64_t i = 0; i < b->sent; i++)
        n += b->messages[i].fate == WAITS;
    return n;
}

static void lose(books *b, uint64_t number)
{
    b->messages[number].fate = LOST;
    b->lost++;
}

/* Whether a message is taken for lost: it was, and is among the last four of its place, or it is older
 * than all of these. */
static int counts_as_lost(const books *b, uint64_t number)
{
    uint64_t oldest = 0;
    unsigned losses = 0;

    for (uint64_t i = b->sent; i-- > 0 && losses < 4;) {
        const message *m = &b->messages[i];

        if (m->place != b->messages[number].place || (m->fate != LOST && m->fate != LOST_AND_CAME))
            continue;
        if (i == number)
            return m->fate == LOST;
        oldest = i;
        losses++;
    }
    return losses == 4 && number < oldest;
}

/* The header of the reply to a message can be read; is_same: it is the reply itself. */
static void model_known(books *b, uint64_t number, int is_same, uint64_t now_ns)
{
    message *m = &b->messages[number];
    int waits = m->fate == WAITS;

    if (waits && now_ns > m->given_ns + TIMEOUT_NS)
        lose(b, number), waits = 0;
    if (!is_same) {
        b->wrong++;
        if (waits)
            m->fate = WRONG;
    } else if (waits) {
        m->fate = RIGHT;
        b->right++;
        b->reordered += number < b->next_expected;
        if (number >= b->next_expected)
            b->next_expected = number + 1;
    } else if (counts_as_lost(b, number)) {
        b->late++;
        if (m->fate == LOST)
            m->fate = LOST_AND_CAME;
    } else {
        b->duplicates++;
    }
}

/* It cannot; with_body: its body is that of message `number`. */
static void model_unknown(books *b, uint64_t number, int with_body, size_t n)
{
    uint64_t waits = waiting(b);

    if (waits == 0) {
        b->extra += n;
        return;
    }
    b->wrong++;
    if (waits == 1)
        for (uint64_t i = 0; i < b->sent; i++)
            if (b->messages[i].fate == WAITS)
                number = i;
    if (waits == 1 || (with_body && b->messages[number].fate == WAITS))
        b->messages[number].fate = WRONG;
}

/* --- the input --- */

static void send_one(books *b, fe_udp *u, fe_load *l, fe_load_connection *c, int fails,
                     uint64_t now_ns)
{
    message *m = &b->messages[b->sent];
    fe_udp_datagram d;

    if (fe_load_room(l, c) == 0 || b->sent == MESSAGES)
        return;
    fe_load_release(l, c, 1, now_ns, now_ns);
    memcpy(m->reply, u->prefix, u->prefix_size);
    d = fe_udp_next(u, l, c, m->reply + u->prefix_size);
    memcpy(m->reply + u->prefix_size + FE_UDP_HEADER, d.body, d.body_size);
    m->size = u->prefix_size + FE_UDP_HEADER + d.body_size;
    memcpy(m->reply + m->size, u->suffix, u->suffix_size);
    m->size += u->suffix_size;
    m->place = d.place;
    m->given_ns = now_ns;
    m->fate = WAITS;
    b->sent++;
    if (fails) {
        fe_udp_not_sent(u, l, c, d.place);
        m->fate = NOT_SENT;
        b->not_sent++;
    }
}

static void receive_one(books *b, fe_udp *u, fe_load *l, fe_load_connection *c, unsigned how,
                        unsigned at, uint64_t number, uint64_t now_ns)
{
    unsigned char *bytes = malloc(LARGEST);
    const message *m = &b->messages[number];
    size_t n = m->size;

    assert(bytes != NULL);
    memcpy(bytes, m->reply, n);
    switch (how % 4) {
    case 0:
        model_known(b, number, 1, now_ns);
        break;
    case 1:
        at %= (unsigned)n;
        bytes[at] ^= 0x40;
        if (at >= u->prefix_size && at < u->prefix_size + FE_UDP_HEADER)
            model_unknown(b, number, 1, n);
        else
            model_known(b, number, 0, now_ns);
        break;
    case 2:
        n = at % LARGEST;
        if (n > m->size)
            memset(bytes + m->size, 'x', n - m->size);
        if (n < u->prefix_size + FE_UDP_HEADER)
            model_unknown(b, number, 0, n);
        else
            model_known(b, number, n == m->size, now_ns);
        break;
    default:
        memset(bytes, (int)at, n);
        model_unknown(b, number, 0, n);
    }
    bytes = realloc(bytes, n > 0 ? n : 1);
    fe_udp_received(u, l, c, bytes, n, now_ns);
    free(bytes);
}

static void compare(const books *b, const fe_load *l, const fe_load_connection *c)
{
    assert(counted(l, FE_LOAD_MESSAGES) == b->right && l->latency->count == b->right);
    assert(counted(l, FE_LOAD_NO_REPLY) == b->lost && counted(l, FE_LOAD_TARDY) == b->late);
    assert(counted(l, FE_LOAD_DUPLICATES) == b->duplicates);
    assert(counted(l, FE_LOAD_REORDERED) == b->reordered);
    assert(counted(l, FE_LOAD_CORRUPT) == b->wrong);
    assert(counted(l, FE_LOAD_EXTRA_BYTES) == b->extra);
    assert(counted(l, FE_LOAD_NOT_SENT) == b->not_sent && counted(l, FE_LOAD_MISPLACED) == 0);
    assert(l->outstanding == waiting(b) && c->due - c->done == waiting(b));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static books b;
    static fe_udp_flow flows[COUNT];
    static fe_udp_place places[COUNT * DEPTH];
    input in = {bytes, size < INPUT_MAX ? size : INPUT_MAX};
    unsigned flags = take(&in);
    fe_load *l = new_load(COUNT, 1 + flags % DEPTH, FE_PATTERN_RAW, SIZE, "", "");
    fe_load_connection *c = &l->connections[1];
    fe_udp u = {.flows = flows, .places = places, .seed = take_number(&in, 2)};
    uint64_t now_ns = 1;

    memset(&b, 0, sizeof(b));
    memset(flows, 0, sizeof(flows));
    memset(places, 0, sizeof(places));
    u.prefix = (const unsigned char *)"pre";
    u.suffix = (const unsigned char *)"suf";
    u.prefix_size = flags & 64 ? 3 : 0;
    u.suffix_size = flags & 128 ? 3 : 0;
    l->timeout_ns = TIMEOUT_NS;
    for (uint32_t i = 0; i < COUNT; i++)
        fe_udp_clear(&u, l, i);
    while (in.left > 0) {
        unsigned op = take(&in);

        if (op < 112) {
            send_one(&b, &u, l, c, op < 4, now_ns);
        } else if (op < 232 && b.sent > 0) {
            unsigned at = take(&in), back = take(&in);

            receive_one(&b, &u, l, c, op < 200 ? 0 : op, at, b.sent - 1 - back % b.sent, now_ns);
        } else if (op < 250) {
            now_ns += op % 16;
        } else {
            for (uint64_t i = 0; i < b.sent; i++)
                if (b.messages[i].fate == WAITS &&
                    (op == 255 || now_ns > b.messages[i].given_ns + TIMEOUT_NS))
                    lose(&b, i);
            fe_udp_expire(&u, l, c, now_ns, op == 255);
        }
        compare(&b, l, c);
    }
    free_load(l);
    return 0;
}
