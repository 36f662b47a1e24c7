/* What messages and replies look like: head, body and tail of every frame, byte for byte against
 * a plain construction; bodies that differ by seed, connection and number. */
#include "support.h"

#include "pattern.h"

typedef struct built {
    unsigned char bytes[3 * FE_PATTERN_MAX_AFFIX];
    size_t size;
} built;

static void add(built *b, const void *bytes, size_t n)
{
    assert(b->size + n <= sizeof(b->bytes));
    if (n > 0)
        memcpy(b->bytes + b->size, bytes, n);
    b->size += n;
}

static unsigned char *new_noise(fe_pattern *p, uint64_t size, int frame)
{
    size_t n = fe_pattern_noise_size(size);
    unsigned char *noise = malloc(n);

    assert(noise != NULL);
    fe_pattern_fill(noise, n, p->seed, frame);
    p->noise = noise;
    return noise;
}

/* Walks a message or reply from every offset and compares it with what was built. */
static void assert_is(const fe_pattern *p, int what, const fe_size *size,
                      const unsigned char *body, const built *b)
{
    assert(size->whole[what] == b->size);
    for (uint64_t from = 0; from < b->size; from++) {
        uint64_t at = from;

        while (at < b->size) {
            const unsigned char *bytes;
            size_t run = fe_pattern_run(p, what, size, body, at, &bytes);

            assert(run > 0 && at + run <= b->size);
            assert(memcmp(bytes, b->bytes + at, run) == 0);
            at += run;
        }
    }
}

static void frames_are_composed_as_documented(void)
{
    static const uint64_t sizes[] = {1, 2, 3, 64, 300};
    static const char *const affixes[] = {"", "p", "a prefix, longer than some messages"};

    for (int frame = FE_PATTERN_RAW; frame <= FE_PATTERN_LENGTH; frame++)
        for (size_t s = 0; s < sizeof(sizes) / sizeof(*sizes); s++)
            for (size_t a = 0; a < (frame == FE_PATTERN_RAW ? 1u : 3u); a++) {
                uint64_t size = sizes[s], body_size = size - (frame == FE_PATTERN_LINE);
                const char *prefix = affixes[a], *suffix = affixes[2 - a];
                size_t prefix_size = frame == FE_PATTERN_RAW ? 0 : strlen(prefix);
                size_t suffix_size = frame == FE_PATTERN_RAW ? 0 : strlen(suffix);
                uint64_t total = prefix_size + size + suffix_size;
                unsigned char header[4] = {0, 0, (unsigned char)(size >> 8), (unsigned char)size};
                unsigned char reply_header[4] = {0, 0, (unsigned char)(total >> 8),
                                                 (unsigned char)total};
                fe_pattern p;
                built request = {.size = 0}, reply = {.size = 0};
                unsigned char *noise;
                const unsigned char *body;

                assert(fe_pattern_init(&p, frame, size, 5, prefix, prefix_size, suffix,
                                       suffix_size) == 0);
                noise = new_noise(&p, size, frame);
                body = fe_pattern_body(&p, fe_pattern_first(&p, 3), 9);
                if (frame == FE_PATTERN_LENGTH) {
                    add(&request, header, 4);
                    add(&reply, reply_header, 4);
                }
                add(&request, body, body_size);
                add(&reply, prefix, prefix_size);
                add(&reply, body, body_size);
                add(&reply, suffix, suffix_size);
                if (frame == FE_PATTERN_LINE) {
                    add(&request, "\n", 1);
                    add(&reply, "\n", 1);
                }
                assert_is(&p, FE_REQUEST, &p.one, body, &request);
                assert_is(&p, FE_REPLY, &p.one, body, &reply);
                {
                    const uint32_t several[] = {(uint32_t)size, 1};
                    fe_size table[2];

                    fe_pattern_vary(&p, several, table, 2);
                    assert_is(&p, FE_REQUEST, &table[0], body, &request);
                    assert_is(&p, FE_REPLY, &table[0], body, &reply);
                }
                free(noise);
            }
}

static void noise_of_lines_holds_no_line_end_and_other_noise_holds_every_byte(void)
{
    size_t n = fe_pattern_noise_size(1000);
    unsigned char *noise = malloc(n);
    int seen[256] = {0};

    assert(noise != NULL);
    fe_pattern_fill(noise, n, 1, FE_PATTERN_LINE);
    assert(memchr(noise, '\n', n) == NULL && memchr(noise, '\r', n) == NULL);
    fe_pattern_fill(noise, n, 1, FE_PATTERN_RAW);
    for (size_t i = 0; i < n; i++)
        seen[noise[i]]++;
    /* 66,536 bytes: 260 of each value are expected, 60 would be 12 deviations away. */
    for (int i = 0; i < 256; i++)
        assert(seen[i] > 60 && seen[i] < 460);
    free(noise);
}

static void successive_messages_of_a_connection_have_windows_of_their_own(void)
{
    fe_pattern p;
    unsigned char *noise, *used = calloc(FE_PATTERN_WINDOWS, 1);

    assert(used != NULL);
    assert(fe_pattern_init(&p, FE_PATTERN_RAW, 64, 1, NULL, 0, NULL, 0) == 0);
    noise = new_noise(&p, 64, FE_PATTERN_RAW);
    /* From a number beyond 32 bits: the sequence must not break where it wraps. */
    for (uint64_t i = 0; i < FE_PATTERN_WINDOWS; i++) {
        const unsigned char *body = fe_pattern_body(&p, 77, ((uint64_t)1 << 32) - 1000 + i);

        assert(body >= noise && body < noise + FE_PATTERN_WINDOWS);
        assert(!used[body - noise]);
        used[body - noise] = 1;
    }
    assert(fe_pattern_body(&p, 77, 5) == fe_pattern_body(&p, 77, 5 + FE_PATTERN_WINDOWS));
    free(noise);
    free(used);
}

static void bodies_differ_by_seed_connection_and_number(void)
{
    enum { SIZE = 16, CONNECTIONS = 50, MESSAGES = 50 };
    fe_pattern p, other;
    unsigned char *noise, *other_noise;
    int equal = 0;

    assert(fe_pattern_init(&p, FE_PATTERN_RAW, SIZE, 1, NULL, 0, NULL, 0) == 0);
    assert(fe_pattern_init(&other, FE_PATTERN_RAW, SIZE, 2, NULL, 0, NULL, 0) == 0);
    noise = new_noise(&p, SIZE, FE_PATTERN_RAW);
    other_noise = new_noise(&other, SIZE, FE_PATTERN_RAW);
    for (uint32_t a = 0; a < CONNECTIONS * MESSAGES; a++) {
        const unsigned char *body =
            fe_pattern_body(&p, fe_pattern_first(&p, a / MESSAGES), a % MESSAGES);

        for (uint32_t b = 0; b < a; b++)
            equal += memcmp(body,
                            fe_pattern_body(&p, fe_pattern_first(&p, b / MESSAGES), b % MESSAGES),
                            SIZE) == 0;
        assert(memcmp(body,
                      fe_pattern_body(&other, fe_pattern_first(&other, a / MESSAGES),
                                      a % MESSAGES),
                      SIZE) != 0);
    }
    /* 3.1 million pairs, one in 65,536 shares its window by chance: 48 are expected. */
    assert(equal < 120);
    free(noise);
    free(other_noise);
}

static void the_same_seed_gives_the_same_bytes(void)
{
    unsigned char a[100], b[100];

    fe_pattern_fill(a, sizeof(a), 42, FE_PATTERN_RAW);
    fe_pattern_fill(b, sizeof(b), 42, FE_PATTERN_RAW);
    assert(memcmp(a, b, sizeof(a)) == 0);
    fe_pattern_fill(b, sizeof(b), 43, FE_PATTERN_RAW);
    assert(memcmp(a, b, sizeof(a)) != 0);
}

static void what_cannot_be_sent_is_refused(void)
{
    fe_pattern p;

    assert(fe_pattern_init(&p, FE_PATTERN_RAW, 0, 1, NULL, 0, NULL, 0) < 0);
    assert(fe_pattern_init(&p, FE_PATTERN_RAW, FE_PATTERN_MAX_SIZE + 1, 1, NULL, 0, NULL, 0) < 0);
    assert(fe_pattern_init(&p, FE_PATTERN_RAW, FE_PATTERN_MAX_SIZE, 1, NULL, 0, NULL, 0) == 0);
    assert(fe_pattern_init(&p, FE_PATTERN_RAW, 1, 1, "p", 1, NULL, 0) < 0);
    assert(fe_pattern_init(&p, FE_PATTERN_RAW, 1, 1, NULL, 0, "s", 1) < 0);
    assert(fe_pattern_init(&p, FE_PATTERN_LINE, 1, 1, "", FE_PATTERN_MAX_AFFIX + 1, "", 0) < 0);
    assert(fe_pattern_init(&p, FE_PATTERN_LINE, 1, 1, "", 0, "", FE_PATTERN_MAX_AFFIX + 1) < 0);
}

static void the_longest_affixes_fit(void)
{
    static unsigned char affix[FE_PATTERN_MAX_AFFIX];
    fe_pattern p;

    assert(fe_pattern_init(&p, FE_PATTERN_LENGTH, 1, 1, affix, sizeof(affix), affix,
                           sizeof(affix)) == 0);
    assert(p.one.whole[FE_REPLY] == 4 + 2 * sizeof(affix) + 1);
    assert(fe_pattern_init(&p, FE_PATTERN_LINE, 1, 1, affix, sizeof(affix), affix,
                           sizeof(affix)) == 0);
    assert(p.one.whole[FE_REPLY] == 2 * sizeof(affix) + 1);
}

static void the_first_difference_is_found(void)
{
    assert(fe_pattern_difference((const unsigned char *)"abc", (const unsigned char *)"abd", 3) ==
           2);
    assert(fe_pattern_difference((const unsigned char *)"abc", (const unsigned char *)"abc", 3) ==
           3);
}

static void sizes_are_drawn_evenly_by_seed_connection_and_number(void)
{
    enum { SIZES = 10, MESSAGES = 10000 };
    fe_pattern p, other;
    fe_size table[SIZES];
    uint32_t sizes[SIZES];
    int drawn[SIZES] = {0}, equal = 0, equal_here = 0;

    assert(fe_pattern_init(&p, FE_PATTERN_RAW, SIZES, 1, NULL, 0, NULL, 0) == 0);
    assert(fe_pattern_size(&p, 1, 2) == &p.one && p.one.body == SIZES);
    for (uint32_t i = 0; i < SIZES; i++)
        sizes[i] = i + 1;
    fe_pattern_vary(&p, sizes, table, SIZES);
    other = p;
    other.seed = 2;
    for (uint64_t i = 0; i < MESSAGES; i++) {
        const fe_size *size = fe_pattern_size(&p, 77, i);

        assert(size == fe_pattern_size(&p, 77, i));
        drawn[size->body - 1]++;
        equal += size == fe_pattern_size(&other, 77, i);
        equal_here += size == fe_pattern_size(&p, 78, i);
    }
    /* 1,000 are expected each time, the deviation is 30. */
    for (int i = 0; i < SIZES; i++)
        assert(drawn[i] > 850 && drawn[i] < 1150);
    assert(equal > 850 && equal < 1150 && equal_here > 850 && equal_here < 1150);
}

int main(void)
{
    sizes_are_drawn_evenly_by_seed_connection_and_number();
    frames_are_composed_as_documented();
    noise_of_lines_holds_no_line_end_and_other_noise_holds_every_byte();
    successive_messages_of_a_connection_have_windows_of_their_own();
    bodies_differ_by_seed_connection_and_number();
    the_same_seed_gives_the_same_bytes();
    what_cannot_be_sent_is_refused();
    the_longest_affixes_fit();
    the_first_difference_is_found();
    return 0;
}
