/* Fuzz target: bytes are read as a plain reader reads them, and what is read can be written.
 *
 * The first byte chooses: the rest is a payload as it stands; or a header is made, so that the
 * counts are reached; or values to record, which must survive their own bytes.
 */
#include "input.h"

#include "histogram_v2.h"

static fe_histogram first, second, model;
static unsigned char bytes[FE_HISTOGRAM_V2_MAX];

/* Whatever h was made of, its numbers fit one another. */
static void is_whole(const fe_histogram *h)
{
    uint64_t count = h->overflow, before = 0;

    for (uint32_t slot = 0; slot < FE_HISTOGRAM_SLOTS; slot++)
        count += h->slots[slot];
    assert(count == h->count && count <= INT64_MAX);
    assert(h->slots[FE_HISTOGRAM_SLOTS - 1] == 0);
    assert(count > 0 ? h->min <= h->max : h->min == UINT64_MAX && h->max == 0);
    for (int percent = 0; percent <= 100; percent += 25) {
        uint64_t ns = fe_histogram_percentile(h, percent);

        assert(ns >= before && ns <= h->max);
        before = ns;
    }
    assert(fe_histogram_mean(h) >= 0 && fe_histogram_variance(h) >= 0);
}

/* Bytes of ours give the same counts again, and the same bytes. */
static void survives(const fe_histogram *h)
{
    static unsigned char again[FE_HISTOGRAM_V2_MAX];
    int n = fe_histogram_v2_encode(h, bytes);

    assert(n >= FE_HISTOGRAM_V2_HEADER && (size_t)n <= sizeof(bytes));
    assert(fe_histogram_v2_decode(&second, bytes, (size_t)n) == 0);
    assert(second.count == h->count && second.overflow == h->overflow);
    assert(memcmp(second.slots, h->slots, sizeof(h->slots)) == 0);
    assert(fe_histogram_v2_encode(&second, again) == n);
    assert(memcmp(again, bytes, (size_t)n) == 0);
    assert(fe_histogram_subtract(&second, h) == 0 && second.count == 0);
}

/* --- a plain reader: wide integers, one bucket after the other --- */

typedef unsigned __int128 wide;

static wide number_at(const uint8_t *at, int bytes)
{
    wide value = 0;

    while (bytes-- > 0)
        value = value * 256 + *at++;
    return value;
}

/* The buckets of half a doubling, of all doublings and the width of the first, as the header has
 * it; 0 if no histogram is like that. */
static int layout_is_right(const uint8_t *header, uint64_t *size, uint64_t *buckets, uint64_t *unit)
{
    wide digits = number_at(header + 12, 4), lowest = number_at(header + 16, 8);
    wide highest = number_at(header + 24, 8), needed = 2;

    if (number_at(header + 8, 4) != 0 || digits > 5 || lowest == 0 || highest < 2 * lowest ||
        highest >> 63 != 0)
        return 0;
    while (digits-- > 0)
        needed *= 10;
    for (*size = 2; *size < needed;)
        *size *= 2;
    for (*unit = 1; (wide)*unit * 2 <= lowest;)
        *unit *= 2;
    if ((wide)*unit * *size > (wide)1 << 62)
        return 0;
    *buckets = *size;
    for (wide covered = (wide)*unit * *size; covered <= highest; covered *= 2)
        *buckets += *size / 2;
    return 1;
}

/* Counts into `model` what stands in a bucket. */
static void model_count(uint64_t bucket, uint64_t size, uint64_t unit, uint64_t count)
{
    wide low = bucket, width = unit, middle;

    while (low >= size) {
        low -= size / 2;
        width *= 2;
    }
    low *= width;
    middle = low + width / 2;
    if (low <= FE_HISTOGRAM_HIGHEST && middle > FE_HISTOGRAM_HIGHEST)
        middle = FE_HISTOGRAM_HIGHEST;
    fe_histogram_record_n(&model, (uint64_t)middle, count);
}

/* Result: what the header under test should say of the same bytes; `model` holds the counts. */
static int model_decode(const uint8_t *in, size_t n)
{
    uint64_t size, buckets, unit, bucket = 0;
    size_t at = FE_HISTOGRAM_V2_HEADER;

    fe_histogram_reset(&model);
    if (n < 4 || (number_at(in, 4) | 0xf0) != 0x1c8493f3)
        return -EPROTO;
    if (n < at || number_at(in + 4, 4) + at != n)
        return -EBADMSG;
    if (!layout_is_right(in, &size, &buckets, &unit))
        return -EINVAL;
    while (at < n) {
        wide bits = 0;
        int more = 1;

        for (int i = 0; more && i < 9; i++) {
            if (at == n)
                return -EBADMSG;
            more = in[at] >= 0x80 && i < 8;
            bits += (wide)(more ? in[at] - 0x80 : in[at]) << (7 * i);
            at++;
        }
        if (bucket == buckets || (bits % 2 == 1 && (bits + 1) / 2 > buckets - bucket))
            return -EBADMSG;
        if (bits % 2 == 0 && bits / 2 + model.count > INT64_MAX)
            return -EOVERFLOW;
        if (bits % 2 == 0)
            model_count(bucket, size, unit, (uint64_t)(bits / 2));
        bucket += bits % 2 == 1 ? (uint64_t)((bits + 1) / 2) : 1;
    }
    return 0;
}

static void decode(const uint8_t *payload, size_t n)
{
    int rc = fe_histogram_v2_decode(&first, payload, n);

    assert(rc == model_decode(payload, n));
    is_whole(&first);
    if (rc < 0) {
        assert(first.count == 0);
        return;
    }
    assert(memcmp(first.slots, model.slots, sizeof(first.slots)) == 0);
    assert(first.count == model.count && first.overflow == model.overflow);
    survives(&first);
}

/* A header of plausible values before the counts. */
static void decode_counts(input *in)
{
    static unsigned char payload[FE_HISTOGRAM_V2_HEADER + INPUT_MAX];
    uint64_t digits = take(in) % 7, lowest = (uint64_t)1 << take(in) % 64;
    uint64_t highest = take_number(in, 8);
    size_t n = in->left;

    memset(payload, 0, FE_HISTOGRAM_V2_HEADER);
    fe_histogram_v2_put(payload, FE_HISTOGRAM_V2_COOKIE, 4);
    fe_histogram_v2_put(payload + 4, n, 4);
    fe_histogram_v2_put(payload + 12, digits, 4);
    fe_histogram_v2_put(payload + 16, lowest, 8);
    fe_histogram_v2_put(payload + 24, highest, 8);
    if (n > 0)
        memcpy(payload + FE_HISTOGRAM_V2_HEADER, in->bytes, n);
    decode(payload, FE_HISTOGRAM_V2_HEADER + n);
}

static void record(input *in)
{
    fe_histogram_reset(&first);
    while (in->left > 0) {
        uint64_t ns = take_number(in, 1 + take(in) % 8);

        fe_histogram_record_n(&first, ns, take_number(in, 1 + take(in) % 6));
    }
    is_whole(&first);
    survives(&first);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input in = {data, size < INPUT_MAX ? size : INPUT_MAX};

    switch (take(&in) % 3) {
    case 0:
        decode(in.bytes, in.left);
        break;
    case 1:
        decode_counts(&in);
        break;
    default:
        record(&in);
    }
    return 0;
}
