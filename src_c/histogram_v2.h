/* Histograms as bytes: HdrHistogram's V2 format, not compressed.
 *
 * Lives here: writing our slots, reading what any HdrHistogram wrote. Does not
 * live here: memory, zlib and base64, which wrap these bytes in files
 * (fastecho/measure/histograms.py).
 *
 * All numbers are big-endian: a cookie, the bytes of counts that follow the
 * header, a normalizing offset, significant digits, lowest and highest trackable
 * value, and a ratio (a double) that only users of doubles look at; it is written
 * as 1 and not read. Then come the counts in the order of their values, each as a
 * zigzag number: 7 bits a byte, lowest first, the top bit says that more follow,
 * and a ninth byte holds 8 bits. A negative number stands for so many zeros.
 *
 * Two things are ours. Values above 1 h have no slot of their own: they are written
 * into the last one (73 min), which nothing else uses, and are read back as what
 * they are. And a histogram of another layout is counted into our slots at the middle
 * of each of its own, so that its percentiles are off by half of its own precision.
 *
 * What is read may come from anybody. Its time is linear in the bytes: a run of
 * zeros is one addition, however long it claims to be.
 */
#ifndef FASTECHO_HISTOGRAM_V2_H
#define FASTECHO_HISTOGRAM_V2_H

#include "histogram.h"

#include <errno.h>

/* The cookie; its second digit from the right tells the size of a word and may be anything. */
#define FE_HISTOGRAM_V2_COOKIE 0x1c849313u
#define FE_HISTOGRAM_V2_COOKIE_MASK 0xffffff0fu
#define FE_HISTOGRAM_V2_HEADER 40
/* The longest number. */
#define FE_HISTOGRAM_V2_WORD 9
/* Bytes that always suffice for one of ours. */
#define FE_HISTOGRAM_V2_MAX (FE_HISTOGRAM_V2_HEADER + FE_HISTOGRAM_V2_WORD * FE_HISTOGRAM_SLOTS)

/* --- writing --- */

static inline void fe_histogram_v2_put(unsigned char *out, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        out[i] = (unsigned char)(value >> (8 * (bytes - 1 - i)));
}

/* Writes a zigzag number, at most `FE_HISTOGRAM_V2_WORD` bytes. Result: how many. */
static inline size_t fe_histogram_v2_put_number(unsigned char *out, int64_t number)
{
    uint64_t bits = ((uint64_t)number << 1) ^ (number < 0 ? UINT64_MAX : 0);
    size_t n = 0;

    while (bits > 0x7f && n < FE_HISTOGRAM_V2_WORD - 1) {
        out[n++] = (unsigned char)(bits | 0x80);
        bits >>= 7;
    }
    out[n++] = (unsigned char)bits;
    return n;
}

/* What stands in a slot of the written form: the last one holds what has no slot. */
static inline uint64_t fe_histogram_v2_count(const fe_histogram *h, uint32_t slot)
{
    return slot == FE_HISTOGRAM_SLOTS - 1 ? h->overflow : h->slots[slot];
}

/* Writes h to `out`, which has room for FE_HISTOGRAM_V2_MAX bytes. Result: bytes written, or
 * -EOVERFLOW: a count is larger than the format can hold (2^63 - 1). */
static inline int fe_histogram_v2_encode(const fe_histogram *h, unsigned char *out)
{
    const double ratio = 1;
    uint64_t ratio_bits;
    size_t n = FE_HISTOGRAM_V2_HEADER;
    int64_t zeros = 0;

    for (uint32_t slot = 0; slot < FE_HISTOGRAM_SLOTS; slot++) {
        uint64_t count = fe_histogram_v2_count(h, slot);

        if (count == 0) {
            zeros++;
            continue;
        }
        if (count > INT64_MAX)
            return -EOVERFLOW;
        if (zeros > 0)
            n += fe_histogram_v2_put_number(out + n, zeros == 1 ? 0 : -zeros);
        zeros = 0;
        n += fe_histogram_v2_put_number(out + n, (int64_t)count);
    }
    memcpy(&ratio_bits, &ratio, sizeof(ratio_bits));
    fe_histogram_v2_put(out, FE_HISTOGRAM_V2_COOKIE, 4);
    fe_histogram_v2_put(out + 4, n - FE_HISTOGRAM_V2_HEADER, 4);
    fe_histogram_v2_put(out + 8, 0, 4);
    fe_histogram_v2_put(out + 12, 3, 4);
    fe_histogram_v2_put(out + 16, (uint64_t)1 << FE_HISTOGRAM_UNIT_BITS, 8);
    fe_histogram_v2_put(out + 24, FE_HISTOGRAM_HIGHEST, 8);
    fe_histogram_v2_put(out + 32, ratio_bits, 8);
    return (int)n;
}

/* --- reading --- */

/* Where the buckets of some histogram lie: ours are the slots of histogram.h. */
typedef struct fe_histogram_v2_layout {
    /* log2 of its lowest discernible value, and of the buckets in a doubling. */
    uint32_t unit_bits;
    uint32_t half_bits;
    /* Its buckets. */
    uint64_t buckets;
} fe_histogram_v2_layout;

static inline uint64_t fe_histogram_v2_get(const unsigned char *in, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++)
        value = value << 8 | in[i];
    return value;
}

/* Reads a zigzag number from n bytes. Result: bytes read, or -EBADMSG: it is cut. */
static inline int fe_histogram_v2_get_number(const unsigned char *in, size_t n, int64_t *number)
{
    uint64_t bits = 0;

    for (unsigned i = 0; i < n; i++) {
        int last = i == FE_HISTOGRAM_V2_WORD - 1;

        bits |= (uint64_t)(last ? in[i] : in[i] & 0x7f) << (7 * i);
        if (last || in[i] < 0x80) {
            /* Half of it, and that or its complement: never more than 63 bits. */
            *number = bits & 1 ? -(int64_t)(bits >> 1) - 1 : (int64_t)(bits >> 1);
            return (int)i + 1;
        }
    }
    return -EBADMSG;
}

/* The layout that a header asks for. Result: 0, or -EINVAL: no histogram has such a one. */
static inline int fe_histogram_v2_layout_of(const unsigned char *header, fe_histogram_v2_layout *l)
{
    /* ceil(log2(2 * 10^digits)) - 1 */
    static const unsigned char half_bits[] = {0, 4, 7, 10, 14, 17};
    uint64_t digits = fe_histogram_v2_get(header + 12, 4);
    uint64_t lowest = fe_histogram_v2_get(header + 16, 8);
    uint64_t highest = fe_histogram_v2_get(header + 24, 8);
    uint32_t bits;

    if (fe_histogram_v2_get(header + 8, 4) != 0 || digits >= sizeof(half_bits))
        return -EINVAL;
    if (lowest == 0 || highest > INT64_MAX || lowest > highest / 2)
        return -EINVAL;
    l->half_bits = half_bits[digits];
    l->unit_bits = 63u - (uint32_t)__builtin_clzll((unsigned long long)lowest);
    bits = l->unit_bits + l->half_bits + 1;
    if (bits > 62)
        return -EINVAL;
    /* The first 2^bits values take two halves, each doubling of them one more. */
    l->buckets = 2;
    for (; highest >> bits != 0; bits++)
        l->buckets++;
    l->buckets <<= l->half_bits;
    return 0;
}

/* Counts what stands in one bucket of a layout; `count` is not 0. Buckets come in the order of
 * their values. */
static inline void fe_histogram_v2_add(fe_histogram *h, const fe_histogram_v2_layout *l,
                                       uint64_t bucket, uint64_t count)
{
    uint64_t half = bucket >> l->half_bits;
    uint32_t doubling = half > 1 ? (uint32_t)half - 1 : 0;
    uint32_t width_bits = l->unit_bits + doubling;
    uint64_t lowest = (bucket - ((uint64_t)doubling << l->half_bits)) << width_bits;
    uint64_t highest = lowest + (((uint64_t)1 << width_bits) - 1);
    uint64_t middle = lowest + (((uint64_t)1 << width_bits) >> 1);

    if (lowest <= FE_HISTOGRAM_HIGHEST) {
        uint32_t slot =
            fe_histogram_slot(middle < FE_HISTOGRAM_HIGHEST ? middle : FE_HISTOGRAM_HIGHEST);

        h->slots[slot] += count;
        /* As narrow as both allow. */
        if (lowest < fe_histogram_lowest(slot))
            lowest = fe_histogram_lowest(slot);
        if (highest > fe_histogram_highest(slot))
            highest = fe_histogram_highest(slot);
    } else {
        h->overflow += count;
    }
    if (h->count == 0)
        h->min = lowest;
    h->max = highest;
    h->count += count;
}

/* Makes h what n bytes hold; what it held is forgotten, and it is empty after a failure.
 *
 * Minimum and maximum are the edges of their buckets. Result: 0, or
 * -EPROTO: the bytes are no V2 histogram;
 * -EINVAL: the header asks for a layout that no histogram has, or that is shifted;
 * -EBADMSG: the counts are cut, are more than the layout has buckets, or bytes follow them;
 * -EOVERFLOW: it holds more than 2^63 - 1 values. */
static inline int fe_histogram_v2_decode(fe_histogram *h, const unsigned char *in, size_t n)
{
    fe_histogram_v2_layout layout;
    uint64_t bucket = 0;
    int rc;

    fe_histogram_reset(h);
    if (n < 4 ||
        ((uint32_t)fe_histogram_v2_get(in, 4) & FE_HISTOGRAM_V2_COOKIE_MASK) !=
            (FE_HISTOGRAM_V2_COOKIE & FE_HISTOGRAM_V2_COOKIE_MASK))
        return -EPROTO;
    if (n < FE_HISTOGRAM_V2_HEADER ||
        fe_histogram_v2_get(in + 4, 4) != n - FE_HISTOGRAM_V2_HEADER)
        return -EBADMSG;
    rc = fe_histogram_v2_layout_of(in, &layout);
    for (size_t at = FE_HISTOGRAM_V2_HEADER; at < n && rc >= 0; at += (size_t)rc) {
        uint64_t left = layout.buckets - bucket;
        int64_t number;

        rc = fe_histogram_v2_get_number(in + at, n - at, &number);
        if (rc < 0)
            break;
        if (left == 0 || (number < 0 && (uint64_t)-(number + 1) >= left)) {
            rc = -EBADMSG;
        } else if (number < 0) {
            bucket += (uint64_t)-number;
        } else if ((uint64_t)number > INT64_MAX - h->count) {
            rc = -EOVERFLOW;
        } else {
            if (number > 0)
                fe_histogram_v2_add(h, &layout, bucket, (uint64_t)number);
            bucket++;
        }
    }
    if (rc < 0)
        fe_histogram_reset(h);
    return rc < 0 ? rc : 0;
}

#endif
