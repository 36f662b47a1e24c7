/* What the V2 form promises: it gives back every count, bytes of other layouts are counted at the
 * middle of their buckets, and bytes that are cut, absurd or hostile are refused, with nothing
 * left in the histogram. The header and the numbers are written here again, by other code. */
#include "support.h"

#include "histogram_v2.h"

static unsigned char bytes[FE_HISTOGRAM_V2_MAX];

static fe_histogram *new_histogram(void)
{
    fe_histogram *h = malloc(sizeof(*h));

    assert(h != NULL);
    fe_histogram_reset(h);
    return h;
}

static void put(unsigned char *at, uint64_t value, int n)
{
    while (n-- > 0) {
        at[n] = (unsigned char)value;
        value >>= 8;
    }
}

/* A header for `size` bytes of counts; returns where they begin. */
static unsigned char *header(uint64_t digits, uint64_t lowest, uint64_t highest, size_t size)
{
    memset(bytes, 0, FE_HISTOGRAM_V2_HEADER);
    put(bytes, 0x1c849313, 4);
    put(bytes + 4, size, 4);
    put(bytes + 12, digits, 4);
    put(bytes + 16, lowest, 8);
    put(bytes + 24, highest, 8);
    put(bytes + 32, 0x3ff0000000000000, 8);
    return bytes + FE_HISTOGRAM_V2_HEADER;
}

/* Decodes from memory of the exact size, so that a sanitizer sees what is read behind it. */
static int decode(fe_histogram *h, size_t n)
{
    unsigned char *exact = malloc(n + 1);
    int rc;

    assert(exact != NULL);
    memcpy(exact + 1, bytes, n);
    h->count = 17; /* what it held is forgotten */
    rc = fe_histogram_v2_decode(h, exact + 1, n);
    free(exact);
    if (rc < 0)
        assert(h->count == 0 && h->overflow == 0 && h->max == 0 && h->min == UINT64_MAX);
    return rc;
}

static void every_count_comes_back(void)
{
    fe_histogram *h = new_histogram(), *back = new_histogram();
    uint64_t state = 3;

    for (int round = 0; round < 40; round++) {
        int n;

        for (int i = 0; i < round * 30; i++)
            fe_histogram_record_n(h, next_random(&state) >> (next_random(&state) % 64),
                                  next_random(&state) >> (16 + next_random(&state) % 48));
        n = fe_histogram_v2_encode(h, bytes);
        assert(n >= FE_HISTOGRAM_V2_HEADER && (size_t)n <= sizeof(bytes));
        assert(decode(back, (size_t)n) == 0);
        assert(back->count == h->count && back->overflow == h->overflow);
        assert(memcmp(back->slots, h->slots, sizeof(h->slots)) == 0);
        if (h->count > 0)
            assert(fe_histogram_slot(back->min) == fe_histogram_slot(h->min));
        if (h->count > 0 && h->overflow == 0)
            assert(fe_histogram_slot(back->max) == fe_histogram_slot(h->max));
        fe_histogram_reset(h);
    }
    free(h);
    free(back);
}

static void a_header_says_what_ours_is(void)
{
    fe_histogram *h = new_histogram();
    int n = fe_histogram_v2_encode(h, bytes);
    unsigned char written[FE_HISTOGRAM_V2_HEADER];

    assert(n == FE_HISTOGRAM_V2_HEADER);
    memcpy(written, bytes, sizeof(written));
    header(3, 64, 3600000000000, 0);
    assert(memcmp(written, bytes, sizeof(written)) == 0);
    free(h);
}

static void zeros_are_one_number_and_counts_are_zigzag(void)
{
    fe_histogram *h = new_histogram();
    static const unsigned char expected[] = {
        6,          /* 3 in slot 0 */
        0,          /* one zero */
        0x80, 0x02, /* 128 in slot 2 */
        0x8d, 0x0f, /* 967 zeros: -967 is 1933 */
        2           /* 1 in slot 970 */
    };
    int n;

    fe_histogram_record_n(h, 0, 3);
    fe_histogram_record_n(h, 2 * 64, 128);
    fe_histogram_record(h, 970 * 64);
    n = fe_histogram_v2_encode(h, bytes);
    assert(n == FE_HISTOGRAM_V2_HEADER + (int)sizeof(expected));
    assert(memcmp(bytes + FE_HISTOGRAM_V2_HEADER, expected, sizeof(expected)) == 0);
    free(h);
}

static void the_longest_number_takes_nine_bytes(void)
{
    fe_histogram *h = new_histogram(), *back = new_histogram();
    int n;

    fe_histogram_record_n(h, 5, INT64_MAX);
    n = fe_histogram_v2_encode(h, bytes);
    assert(n == FE_HISTOGRAM_V2_HEADER + 9);
    assert(decode(back, (size_t)n) == 0);
    assert(back->slots[0] == INT64_MAX && back->count == INT64_MAX);
    assert(fe_histogram_percentile(back, 100) == 63);
    fe_histogram_record(h, 5);
    assert(fe_histogram_v2_encode(h, bytes) == -EOVERFLOW);
    free(h);
    free(back);
}

static void values_above_an_hour_are_still_above_it(void)
{
    fe_histogram *h = new_histogram(), *back = new_histogram();
    int n;

    fe_histogram_record(h, FE_HISTOGRAM_HIGHEST);
    n = fe_histogram_v2_encode(h, bytes);
    assert(decode(back, (size_t)n) == 0);
    assert(back->count == 1 && back->overflow == 0);
    assert(fe_histogram_slot(FE_HISTOGRAM_HIGHEST) == fe_histogram_slot(back->min));
    fe_histogram_record_n(h, UINT64_MAX, 4);
    n = fe_histogram_v2_encode(h, bytes);
    assert(decode(back, (size_t)n) == 0);
    assert(back->count == 5 && back->overflow == 4);
    assert(back->max == fe_histogram_highest(FE_HISTOGRAM_SLOTS - 1));
    free(h);
    free(back);
}

static void other_layouts_are_counted_at_the_middle_of_their_buckets(void)
{
    fe_histogram *h = new_histogram();
    unsigned char *counts = header(1, 1000, 3600000000, 2);

    /* Units of 512, 32 in the first two halves; 33 zeros, then the bucket from 34 * 512. */
    counts[0] = 65;
    counts[1] = 14;
    assert(decode(h, FE_HISTOGRAM_V2_HEADER + 2) == 0);
    assert(h->count == 7);
    assert(h->slots[fe_histogram_slot(34 * 512 + 512)] == 7);
    /* The edges are those of both: the bucket has 1,024 values, the slot 64. */
    assert(h->min == 35 * 512 && h->max == 35 * 512 + 63);
    assert(fe_histogram_percentile(h, 50) == h->max);

    /* A single value in each bucket: 1 at 100, 2 at 101. */
    counts = header(3, 1, 3600000000, 4);
    counts[0] = 0xc7; /* 100 zeros */
    counts[1] = 1;
    counts[2] = 2;
    counts[3] = 4;
    assert(decode(h, FE_HISTOGRAM_V2_HEADER + 4) == 0);
    assert(h->count == 3 && h->slots[1] == 3);
    assert(h->min == 100 && h->max == 101);

    /* No digit at all: buckets are doublings. 2^41 to 2^42 - 1 holds the hour; so does ours. */
    counts = header(0, 1, INT64_MAX, 2);
    counts[0] = 83; /* 42 zeros */
    counts[1] = 2;
    assert(decode(h, FE_HISTOGRAM_V2_HEADER + 2) == 0);
    assert(h->count == 1 && h->overflow == 0);
    assert(h->slots[fe_histogram_slot((uint64_t)3 << 40)] == 1);
    counts[0] = 85;
    assert(decode(h, FE_HISTOGRAM_V2_HEADER + 2) == 0);
    assert(h->overflow == 1 && h->min == (uint64_t)1 << 42 && h->max == ((uint64_t)2 << 42) - 1);
    free(h);
}

static void a_bucket_that_reaches_over_the_hour_is_within_it(void)
{
    fe_histogram *h = new_histogram();
    unsigned char *counts = header(0, (uint64_t)1 << 41, (uint64_t)1 << 50, 2);

    /* From 2^41, which is below the hour, to 2^42: its middle is below, too. */
    counts[0] = 0;
    counts[1] = 2;
    assert(decode(h, FE_HISTOGRAM_V2_HEADER + 2) == 0);
    assert(h->overflow == 0 && h->slots[fe_histogram_slot((uint64_t)3 << 40)] == 1);
    /* From 0 to 2^43, whose middle is above it. */
    counts = header(0, (uint64_t)1 << 43, (uint64_t)1 << 50, 1);
    counts[0] = 2;
    assert(decode(h, FE_HISTOGRAM_V2_HEADER + 1) == 0);
    assert(h->overflow == 0 && h->slots[fe_histogram_slot(FE_HISTOGRAM_HIGHEST)] == 1);
    free(h);
}

static void bytes_of_something_else_are_refused(void)
{
    fe_histogram *h = new_histogram();

    header(3, 64, 3600000000000, 0);
    for (size_t n = 0; n < FE_HISTOGRAM_V2_HEADER; n++)
        assert(decode(h, n) == (n < 4 ? -EPROTO : -EBADMSG));
    assert(decode(h, FE_HISTOGRAM_V2_HEADER) == 0);
    bytes[3] = 0x03; /* the size of a word does not matter */
    assert(decode(h, FE_HISTOGRAM_V2_HEADER) == 0);
    bytes[3] = 0x14; /* compressed */
    assert(decode(h, FE_HISTOGRAM_V2_HEADER) == -EPROTO);
    bytes[3] = 0x11; /* version 1 */
    assert(decode(h, FE_HISTOGRAM_V2_HEADER) == -EPROTO);
    free(h);
}

static void absurd_layouts_are_refused(void)
{
    static const uint64_t wrong[][3] = {
        {6, 1, 1000},          {UINT32_MAX, 1, 1000},  {3, 0, 1000},
        {3, 1, 1},             {3, 1, 0},              {3, UINT64_MAX, UINT64_MAX},
        {3, 1, UINT64_MAX},    {3, 501, 1000},         {3, (uint64_t)1 << 52, INT64_MAX},
        {5, (uint64_t)1 << 45, INT64_MAX},
    };
    fe_histogram *h = new_histogram();

    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        header(wrong[i][0], wrong[i][1], wrong[i][2], 0);
        assert(decode(h, FE_HISTOGRAM_V2_HEADER) == -EINVAL);
        header(wrong[i][0], wrong[i][1], wrong[i][2], 1)[0] = 2;
        assert(decode(h, FE_HISTOGRAM_V2_HEADER + 1) == -EINVAL);
    }
    header(3, 500, 1000, 0);
    assert(decode(h, FE_HISTOGRAM_V2_HEADER) == 0);
    bytes[11] = 1; /* shifted */
    assert(decode(h, FE_HISTOGRAM_V2_HEADER) == -EINVAL);
    free(h);
}

static void cut_counts_are_refused(void)
{
    fe_histogram *h = new_histogram();
    unsigned char *counts = header(3, 64, 3600000000000, 9);

    memset(counts, 0xff, 9);
    for (size_t n = 0; n < 9; n++) {
        assert(decode(h, FE_HISTOGRAM_V2_HEADER + n) == -EBADMSG);
        put(bytes + 4, n, 4);
        assert(decode(h, FE_HISTOGRAM_V2_HEADER + n) == (n == 0 ? 0 : -EBADMSG));
        put(bytes + 4, 9, 4);
    }
    assert(decode(h, FE_HISTOGRAM_V2_HEADER + 10) == -EBADMSG);
    put(bytes + 4, UINT32_MAX, 4);
    assert(decode(h, FE_HISTOGRAM_V2_HEADER + 9) == -EBADMSG);
    free(h);
}

static void counts_beyond_the_last_bucket_are_refused(void)
{
    fe_histogram *h = new_histogram();
    /* No digit, values below 4: three buckets. */
    unsigned char *counts = header(0, 1, 3, 4);

    memset(counts, 2, 4);
    assert(decode(h, FE_HISTOGRAM_V2_HEADER + 4) == -EBADMSG);
    put(bytes + 4, 3, 4);
    assert(decode(h, FE_HISTOGRAM_V2_HEADER + 3) == 0);
    assert(h->count == 3 && h->min == 0 && h->max == 3);
    counts[2] = 1; /* -1: the last is empty */
    assert(decode(h, FE_HISTOGRAM_V2_HEADER + 3) == 0);
    counts[2] = 3; /* -2 */
    assert(decode(h, FE_HISTOGRAM_V2_HEADER + 3) == -EBADMSG);
    counts = header(0, 1, 3, 9);
    memset(counts, 0xff, 9); /* -2^63 */
    assert(decode(h, FE_HISTOGRAM_V2_HEADER + 9) == -EBADMSG);
    free(h);
}

static void more_values_than_can_be_counted_are_refused(void)
{
    fe_histogram *h = new_histogram();
    unsigned char *counts = header(3, 64, 3600000000000, 10);

    memset(counts, 0xff, 9); /* 2^63 - 1 */
    counts[0] = 0xfe;
    counts[9] = 0;
    assert(decode(h, FE_HISTOGRAM_V2_HEADER + 10) == 0);
    assert(h->count == INT64_MAX);
    counts[9] = 2;
    assert(decode(h, FE_HISTOGRAM_V2_HEADER + 10) == -EOVERFLOW);
    free(h);
}

int main(void)
{
    every_count_comes_back();
    a_header_says_what_ours_is();
    zeros_are_one_number_and_counts_are_zigzag();
    the_longest_number_takes_nine_bytes();
    values_above_an_hour_are_still_above_it();
    other_layouts_are_counted_at_the_middle_of_their_buckets();
    a_bucket_that_reaches_over_the_hour_is_within_it();
    bytes_of_something_else_are_refused();
    absurd_layouts_are_refused();
    cut_counts_are_refused();
    counts_beyond_the_last_bucket_are_refused();
    more_values_than_can_be_counted_are_refused();
    return 0;
}
