/* Addresses as text: each form that is right, and each that is nearly right; then whatever texts
 * may come, against inet_pton and inet_ntop of the C library (of glibc: others may differ). */
#include "support.h"

#include "address_text.h"

#include <arpa/inet.h>
#include <stdio.h>

/* Reads a text from memory of its exact size, so that a sanitizer sees what is read behind it. */
static int reads(int is_ipv6, const char *text, size_t n, unsigned char *out)
{
    unsigned char *copy = malloc(n + 1), *exact = copy + 1;
    int result;

    assert(copy != NULL);
    memcpy(exact, text, n);
    result = (is_ipv6 ? fe_read_ipv6 : fe_read_ipv4)(exact, n, out);
    free(copy);
    return result;
}

static void an_ipv4_address_is_four_plain_numbers(void)
{
    static const char *const wrong[] = {
        "", "1", "1.2.3", "1.2.3.", ".1.2.3", "1..2.3", "1.2.3.4.", "1.2.3.4.5", "01.2.3.4",
        "1.2.3.04", "00.0.0.0", "1.2.3.256", "256.2.3.4", "1.2.3.1000", "1.2.3.999999", "1.2.3.4 ",
        " 1.2.3.4", "1.2.3.+4", "1.2.3.-4", "0x1.2.3.4", "1.2.3.a", "1.2.3.4/8", "::1", "...",
        "1.2.3:4"};
    unsigned char a[16];

    assert(reads(0, "192.0.2.10", 10, a) && memcmp(a, "\xc0\0\2\n", 4) == 0);
    assert(reads(0, "0.0.0.0", 7, a) && memcmp(a, "\0\0\0\0", 4) == 0);
    assert(reads(0, "255.255.255.255", 15, a) && memcmp(a, "\xff\xff\xff\xff", 4) == 0);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert(!reads(0, wrong[i], strlen(wrong[i]), a));
    assert(!reads(0, "1.2.3.4\0", 8, a) && !reads(0, "1.2.3.\0", 7, a));
}

static void an_ipv6_address_is_eight_groups_or_has_one_gap(void)
{
    static const struct {
        const char *text;
        unsigned char bytes[16];
    } right[] = {
        {"::", {0}},
        {"::1", {[15] = 1}},
        {"1::", {[1] = 1}},
        {"1:2:3:4:5:6:7:8", {0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8}},
        {"::2:3:4:5:6:7:8", {0, 0, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8}},
        {"1:2:3::5:6:7:8", {0, 1, 0, 2, 0, 3, 0, 0, 0, 5, 0, 6, 0, 7, 0, 8}},
        {"1:2:3:4:5:6:7::", {0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 0}},
        {"2001:DB8::a0B", {0x20, 1, 0x0d, 0xb8, [14] = 0x0a, [15] = 0x0b}},
        {"0000:0001:00a:0f::FfFf", {[3] = 1, [5] = 10, [7] = 15, [14] = 255, [15] = 255}},
        {"::ffff:192.0.2.1", {[10] = 255, [11] = 255, [12] = 192, [14] = 2, [15] = 1}},
        {"::1.2.3.4", {[12] = 1, [13] = 2, [14] = 3, [15] = 4}},
        {"1::1.2.3.4", {[1] = 1, [12] = 1, [13] = 2, [14] = 3, [15] = 4}},
        {"1:2:3:4:5:6:7.8.9.10", {0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 7, 8, 9, 10}},
        {"1:2:3:4:5::7.8.9.10", {0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 0, 7, 8, 9, 10}}};
    static const char *const wrong[] = {
        "", ":", ":::", "1", "1:", ":1", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:", ":1:2:3:4:5:6:7:8",
        "1:2:3:4:5:6:7:8:", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:8::", "::1:2:3:4:5:6:7:8",
        "1:2:3:4::5:6:7:8", "1::2::3", "::1::", "1:::2", "12345::", "::12345", "::g", "::1%lo",
        "::1/64", "[::1]", "::1 ", " ::1", "1.2.3.4", "::1.2.3", "::1.2.3.4.5", "::1.2.3.256",
        "::01.2.3.4", "::a.2.3.4", "::1.2.3.4:5", "1.2.3.4::", "1:2:3:4:5:6:7:1.2.3.4",
        "1:2:3:4:5:1.2.3.4", "::1:2:3:4:5:6:1.2.3.4", "::.1.2.3", ":1.2.3.4", "1:2:3:4:5:6:7:8.",
        "::1-2"};
    unsigned char a[16];

    for (size_t i = 0; i < sizeof(right) / sizeof(right[0]); i++) {
        assert(reads(1, right[i].text, strlen(right[i].text), a));
        assert(memcmp(a, right[i].bytes, 16) == 0);
    }
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert(!reads(1, wrong[i], strlen(wrong[i]), a));
    assert(!reads(1, "::1\0", 4, a) && !reads(1, "::\0", 3, a));
}

static void numbers_have_no_leading_zero_and_a_limit(void)
{
    char text[16];
    uint32_t value;

    for (uint32_t number = 0; number < 100000; number++) {
        unsigned char *out = (unsigned char *)text;
        size_t n = (size_t)(fe_write_decimal(out, number) - out);

        text[n] = 0;
        assert(strtoul(text, NULL, 10) == number && (n == 1 || text[0] != '0'));
        assert(fe_read_decimal(out, n, 65535, &value) == (number <= 65535));
        assert(number > 65535 || value == number);
    }
    assert(!fe_read_decimal((const unsigned char *)"100000", 6, 99999, &value));
    assert(!fe_read_decimal((const unsigned char *)"1/", 2, 99999, &value));
    assert(!fe_read_decimal((const unsigned char *)":", 1, 99999, &value));
}

static void writes(const char *address, const char *text)
{
    unsigned char a[16], *out = malloc(strlen(text));
    size_t n = strlen(text);
    int is_ipv6 = strchr(address, ':') != NULL;

    assert(out != NULL && reads(is_ipv6, address, strlen(address), a));
    assert((size_t)((is_ipv6 ? fe_write_ipv6 : fe_write_ipv4)(out, a) - out) == n);
    assert(memcmp(out, text, n) == 0);
    free(out);
}

static void the_longest_run_of_zero_groups_is_left_out(void)
{
    writes("0.0.0.0", "0.0.0.0");
    writes("255.255.255.255", "255.255.255.255");
    writes("10.0.200.9", "10.0.200.9");
    writes("0:0:0:0:0:0:0:0", "::");
    writes("0:0:0:0:0:0:0:1", "::1");
    writes("1:0:0:0:0:0:0:0", "1::");
    writes("1:0:0:2:0:0:0:3", "1:0:0:2::3");
    writes("1:0:0:0:2:0:0:3", "1::2:0:0:3");
    writes("1:0:0:2:3:0:0:4", "1::2:3:0:0:4");
    writes("1:0:2:3:4:5:6:7", "1:0:2:3:4:5:6:7");
    writes("0:1:2:3:4:5:6:7", "0:1:2:3:4:5:6:7");
    writes("2001:0DB8:0010:0100:1000:ABCD:000F:0000", "2001:db8:10:100:1000:abcd:f:0");
    writes("::ffff:192.0.2.1", "::ffff:c000:201");
    writes("::1.2.3.4", "::102:304");
    writes("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255",
           "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
}

/* --- against the C library --- */

static void random_address(uint64_t *state, unsigned char *a)
{
    for (int i = 0; i < 16; i += 2) {
        uint64_t group = random_below(state, 3) ? 0 : random_below(state, 65536);

        group >>= 4 * random_below(state, 4);
        a[i] = (unsigned char)(group / 256);
        a[i + 1] = (unsigned char)group;
    }
}

static void what_is_written_is_read_as_the_c_library_reads_it(void)
{
    uint64_t state = 5;

    for (int round = 0; round < 50000; round++) {
        unsigned char a[16], same[16];
        char text[64], theirs[64];
        int is_ipv6 = round % 2;
        unsigned char *out = (unsigned char *)text;
        size_t n;

        random_address(&state, a);
        n = (size_t)((is_ipv6 ? fe_write_ipv6 : fe_write_ipv4)(out, a) - out);
        assert(n <= (size_t)(is_ipv6 ? FE_IPV6_TEXT_MAX : FE_IPV4_TEXT_MAX));
        assert(reads(is_ipv6, text, n, same) && memcmp(a, same, is_ipv6 ? 16 : 4) == 0);
        text[n] = 0;
        assert(inet_pton(is_ipv6 ? AF_INET6 : AF_INET, text, same) == 1);
        assert(memcmp(a, same, is_ipv6 ? 16 : 4) == 0);
#ifdef __GLIBC__
        assert(inet_ntop(is_ipv6 ? AF_INET6 : AF_INET, a, theirs, sizeof(theirs)) != NULL);
        assert(strcmp(text, theirs) == 0 || (is_ipv6 && strchr(theirs, '.') != NULL));
        n = strlen(theirs);
        assert(reads(is_ipv6, theirs, n, same) && memcmp(a, same, is_ipv6 ? 16 : 4) == 0);
#else
        (void)theirs;
#endif
    }
}

#ifdef __GLIBC__
/* A text of the pieces of which addresses are made, mostly wrong in one place. */
static size_t random_text(uint64_t *state, char *text)
{
    static const char *const pieces[] = {":", ":", ":",  "::",  ".",       "0",    "1",   "1:",
                                         "f", "7", "ab", "255", "1.2.3.4", "a:b:", "1.2.", "00"};
    uint64_t count = random_below(state, 18);

    text[0] = 0;
    while (count-- > 0)
        strcat(text, pieces[random_below(state, sizeof(pieces) / sizeof(pieces[0]))]);
    return strlen(text);
}

static void any_text_is_read_as_the_c_library_reads_it(void)
{
    uint64_t state = 7;
    int right[2] = {0, 0};

    for (int round = 0; round < 400000; round++) {
        unsigned char ours[16], theirs[16];
        char text[256];
        size_t n = random_text(&state, text);
        int is_ipv6 = round % 2, is_right = reads(is_ipv6, text, n, ours);

        assert(is_right == (inet_pton(is_ipv6 ? AF_INET6 : AF_INET, text, theirs) == 1));
        assert(!is_right || memcmp(ours, theirs, is_ipv6 ? 16 : 4) == 0);
        right[is_ipv6] += is_right;
    }
    assert(right[0] > 100 && right[1] > 1000);
}
#endif

int main(void)
{
    an_ipv4_address_is_four_plain_numbers();
    an_ipv6_address_is_eight_groups_or_has_one_gap();
    numbers_have_no_leading_zero_and_a_limit();
    the_longest_run_of_zero_groups_is_left_out();
    what_is_written_is_read_as_the_c_library_reads_it();
#ifdef __GLIBC__
    any_text_is_read_as_the_c_library_reads_it();
#endif
    return 0;
}
