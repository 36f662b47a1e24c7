/* Fuzz target: which datagrams are answered is what plain books of a few sources say.
 *
 * Few sources, ports and datagrams come again and again, some of them hundreds of times in a row, at
 * times that go on by anything between nothing and hours. No source displaces another here: what
 * happens then is in tests/c.
 */
#include "input.h"

#include "datagram.h"

enum { SOURCES = 6, PORTS = 4, SIZES = 5, LONGEST = 400, LOOPS = SOURCES * PORTS * SIZES * 4 };

static const unsigned ports[PORTS] = {1023, 1024, 7777, 40000};
static const size_t sizes[SIZES] = {0, 3, 128, 300, LONGEST};

/* --- the model --- */

typedef struct model_loop {
    uint64_t last_ns;
    uint64_t rounds;
    int is_known;
} model_loop;

/* Of each source: when its bucket is full again, as a sum of what was taken. */
static uint64_t full_ns[SOURCES];
static model_loop loops[LOOPS];

/* The source that shares a bucket with this one: of IPv6 addresses 64 bits count. */
static unsigned bucket_of(unsigned source)
{
    return source == 5 ? 4 : source;
}

static int model_judge(unsigned source, unsigned port, unsigned what, int is_on, int is_to_many,
                       int is_own, uint64_t count, uint64_t interval_ns, uint64_t now_ns)
{
    uint64_t *full = &full_ns[bucket_of(source)];
    model_loop *loop = &loops[(source * PORTS + port) * SIZES * 4 + what];

    if (is_on) {
        if (ports[port] < 1024 || (is_own && ports[port] == 7777))
            return FE_REFUSE_PORT;
        if (is_to_many || source == 3)
            return FE_REFUSE_ADDRESS;
    }
    if (interval_ns) {
        uint64_t missing = *full > now_ns ? *full - now_ns : 0;

        if (missing + count * interval_ns > 1000000000u)
            return FE_REFUSE_RATE;
        *full = now_ns + missing + count * interval_ns;
    }
    if (!is_on)
        return FE_ECHO;
    if (!loop->is_known || now_ns - loop->last_ns > 1000000000u)
        loop->rounds = 0;
    loop->is_known = 1;
    loop->last_ns = now_ns;
    if (loop->rounds++ < 1000)
        return FE_ECHO;
    loop->rounds = 0;
    return FE_REFUSE_LOOP;
}

/* --- the input --- */

static void make_name(unsigned char *name, unsigned source, unsigned port)
{
    static const unsigned char addresses[SOURCES][16] = {
        {10, 0, 0, 1},         {10, 0, 0, 2},           {192, 168, 1, 1},
        {224, 0, 0, 1},        {0xfd, 0, [7] = 1, [15] = 1}, {0xfd, 0, [7] = 1, [15] = 2},
    };

    memset(name, 0, 28);
    name[2] = (unsigned char)(port >> 8);
    name[3] = (unsigned char)port;
    memcpy(name + (source >= 4 ? 8 : 4), addresses[source], source >= 4 ? 16 : 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static fe_guards guards;
    static fe_guarding how;
    static unsigned char data[LONGEST];
    input in = {bytes, size < INPUT_MAX ? size : INPUT_MAX};
    unsigned char name[28];
    uint64_t now_ns = 1000000000u, interval_ns;
    unsigned flags = take(&in);

    memset(&guards, 0, sizeof(guards));
    memset(&how, 0, sizeof(how));
    memset(full_ns, 0, sizeof(full_ns));
    memset(loops, 0, sizeof(loops));
    guards.seed = take_number(&in, 2);
    how.is_on = flags & 1;
    if (flags & 2)
        fe_own_port(&how, 7777);
    interval_ns = flags & 4 ? take_number(&in, 4) : 0;
    while (in.left > 0) {
        unsigned op = take(&in), what = take(&in) % (SIZES * 4);
        unsigned source = op % SOURCES, port = op / SOURCES % PORTS;
        uint64_t step_ns = take(&in);
        unsigned shift = take(&in) % 36;
        unsigned repeats = take(&in);
        fe_datagram d = {name, data, sizes[what % SIZES], 0, source >= 4, op >= 248};

        step_ns <<= shift;
        make_name(name, source, ports[port]);
        /* Four datagrams of each size: what makes the difference is at either end, or in the middle,
         * where it does not count. */
        memset(data, 0, sizeof(data));
        if (d.size > 0 && what / SIZES == 1)
            data[0] = 1;
        if (d.size > 0 && what / SIZES == 2)
            data[d.size - 1] = 2;
        if (d.size > 256 && what / SIZES == 3)
            data[d.size / 2] = 3;
        if (d.size == 0 || (what / SIZES == 3))
            what %= SIZES;
        if (flags & 8)
            d.segment = 1 + take(&in);
        repeats = repeats < 128 ? 1 : (repeats - 127) * 16;
        for (unsigned i = 0; i < repeats; i++) {
            int is = fe_judge(&guards, &how, &d, interval_ns, 64, now_ns);
            uint64_t count = d.segment && d.size ? (d.size + d.segment - 1) / d.segment : 1;

            assert(fe_datagram_count(&d) == count);
            assert(is == model_judge(source, port, what, flags & 1, op >= 248, flags & 2, count,
                                     interval_ns, now_ns));
            now_ns += step_ns;
        }
    }
    return 0;
}
