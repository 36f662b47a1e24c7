/* Networks: who is in one and who is just outside; IPv4 in IPv6 is IPv4; then lists at random,
 * against a reading bit by bit. */
#include "support.h"

#include "networks.h"

static fe_network ipv4(int a, int b, int c, int d, int bits)
{
    fe_network n = {{(unsigned char)a, (unsigned char)b, (unsigned char)c, (unsigned char)d},
                    0, (uint8_t)bits};
    return n;
}

static fe_network ipv6(const char *address, int bits)
{
    fe_network n = {{0}, 1, (uint8_t)bits};

    memcpy(n.address, address, 16);
    return n;
}

#define V6(text) ((const unsigned char *)(text))
#define MAPPED "\0\0\0\0\0\0\0\0\0\0\xff\xff"
#define DOC "\x20\x01\x0d\xb8"
#define TWELVE_ZEROS "\0\0\0\0\0\0\0\0\0\0\0\0"
#define TWELVE_ONES "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"

static int has(fe_network network, const char *address, int is_ipv6)
{
    return fe_networks_have(&network, 1, V6(address), is_ipv6);
}

static void an_empty_list_has_nobody(void)
{
    assert(!fe_networks_have(NULL, 0, V6("\x7f\0\0\1"), 0));
    assert(!fe_networks_have(NULL, 0, V6(TWELVE_ZEROS "\0\0\0\1"), 1));
}

static void a_network_ends_at_its_last_bit(void)
{
    assert(has(ipv4(10, 0, 0, 0, 8), "\x0a\xff\xff\xff", 0));
    assert(!has(ipv4(10, 0, 0, 0, 8), "\x0b\0\0\0", 0));
    assert(!has(ipv4(10, 0, 0, 0, 8), "\x09\xff\xff\xff", 0));
    assert(has(ipv4(172, 16, 0, 0, 12), "\xac\x1f\xff\xff", 0));
    assert(!has(ipv4(172, 16, 0, 0, 12), "\xac\x20\0\0", 0));
    assert(has(ipv4(192, 0, 2, 1, 32), "\xc0\0\2\1", 0));
    assert(!has(ipv4(192, 0, 2, 1, 32), "\xc0\0\2\0", 0));
    assert(has(ipv4(192, 0, 2, 0, 31), "\xc0\0\2\1", 0));
    assert(!has(ipv4(192, 0, 2, 0, 31), "\xc0\0\2\2", 0));
    assert(has(ipv6(DOC TWELVE_ZEROS, 32), DOC TWELVE_ONES, 1));
    assert(!has(ipv6(DOC TWELVE_ZEROS, 33), DOC "\x80\0\0\0\0\0\0\0\0\0\0\0", 1));
    assert(has(ipv6(TWELVE_ZEROS "\0\0\0\1", 128), TWELVE_ZEROS "\0\0\0\1", 1));
    assert(!has(ipv6(TWELVE_ZEROS "\0\0\0\1", 128), TWELVE_ZEROS "\0\0\0\0", 1));
}

static void bits_behind_the_network_do_not_count(void)
{
    assert(has(ipv4(10, 1, 2, 3, 8), "\x0a\4\5\6", 0));
    assert(has(ipv4(255, 255, 255, 255, 0), "\0\0\0\0", 0));
    assert(has(ipv6(DOC TWELVE_ONES, 32), DOC TWELVE_ZEROS, 1));
}

static void one_family_is_never_in_the_other(void)
{
    assert(!has(ipv4(0, 0, 0, 0, 0), DOC TWELVE_ZEROS, 1));
    assert(!has(ipv6(TWELVE_ZEROS "\0\0\0\0", 0), "\x7f\0\0\1", 0));
    assert(!has(ipv6(TWELVE_ZEROS "\0\0\0\0", 0), MAPPED "\x7f\0\0\1", 1));
    assert(has(ipv6(TWELVE_ZEROS "\0\0\0\0", 0), DOC TWELVE_ZEROS, 1));
    assert(!has(ipv6("\x7f\0\0\1" TWELVE_ZEROS, 32), "\x7f\0\0\1", 0));
}

static void ipv4_in_ipv6_is_ipv4(void)
{
    assert(has(ipv4(127, 0, 0, 0, 8), MAPPED "\x7f\0\0\1", 1));
    assert(!has(ipv4(127, 0, 0, 0, 8), MAPPED "\x80\0\0\1", 1));
    assert(has(ipv4(0, 0, 0, 0, 0), MAPPED "\x80\0\0\1", 1));
    assert(has(ipv6(MAPPED "\x7f\0\0\0", 104), "\x7f\0\0\1", 0));
    assert(has(ipv6(MAPPED "\x7f\0\0\0", 104), MAPPED "\x7f\0\0\1", 1));
    assert(!has(ipv6(MAPPED "\x7f\0\0\0", 104), "\x80\0\0\1", 0));
    assert(has(ipv6(MAPPED "\0\0\0\0", 96), "\x80\0\0\1", 0));
    assert(has(ipv6(MAPPED "\x7f\0\0\1", 128), "\x7f\0\0\1", 0));
    assert(!has(ipv6(MAPPED "\x7f\0\0\1", 128), "\x7f\0\0\2", 0));
    /* A bit short of all that is mapped: a network of IPv6, with its other half. */
    assert(!has(ipv6(MAPPED "\0\0\0\0", 95), "\x7f\0\0\1", 0));
    assert(has(ipv6(MAPPED "\0\0\0\0", 95), "\0\0\0\0\0\0\0\0\0\0\xff\xfe\1\2\3\4", 1));
    /* Not quite the prefix. */
    assert(!has(ipv4(127, 0, 0, 0, 8), "\0\0\0\0\0\0\0\0\0\1\xff\xff\x7f\0\0\1", 1));
    assert(!has(ipv4(127, 0, 0, 0, 8), TWELVE_ZEROS "\x7f\0\0\1", 1));
}

static void a_network_with_too_many_bits_has_nobody(void)
{
    assert(!has(ipv4(127, 0, 0, 1, 33), "\x7f\0\0\1", 0));
    assert(!has(ipv4(127, 0, 0, 1, 255), "\x7f\0\0\1", 0));
    assert(!has(ipv6(DOC TWELVE_ZEROS, 129), DOC TWELVE_ZEROS, 1));
    assert(!has(ipv6(MAPPED "\x7f\0\0\1", 129), "\x7f\0\0\1", 0));
    assert(!has(ipv6(MAPPED "\x7f\0\0\1", 255), "\x7f\0\0\1", 0));
}

/* --- against a reading bit by bit --- */

/* The bits as text, behind the family: "4..." or "6...". Result: how many, without the family. */
static unsigned spell(const unsigned char *address, int is_ipv6, unsigned bits, char *text)
{
    int is_mapped = is_ipv6 && bits >= 96;

    for (int i = 0; i < 10; i++)
        is_mapped = is_mapped && address[i] == 0;
    is_mapped = is_mapped && address[10] == 255 && address[11] == 255;
    *text++ = is_ipv6 && !is_mapped ? '6' : '4';
    for (unsigned bit = is_mapped ? 96 : 0; bit < bits; bit++)
        *text++ = address[bit / 8] & 128 >> bit % 8 ? '1' : '0';
    *text = 0;
    return is_mapped ? bits - 96 : bits;
}

static int is_in_naively(const fe_network *list, size_t n, const unsigned char *address,
                         int is_ipv6)
{
    char wanted[200], text[200];

    spell(address, is_ipv6, is_ipv6 ? 128 : 32, wanted);
    for (size_t i = 0; i < n; i++) {
        spell(list[i].address, list[i].is_ipv6, list[i].bits, text);
        if (strncmp(text, wanted, strlen(text)) == 0)
            return 1;
    }
    return 0;
}

/* Addresses that are near each other. */
static void random_address(uint64_t *state, unsigned char *a, int is_ipv6)
{
    memset(a, 0, 16);
    if (is_ipv6 && random_below(state, 2))
        memcpy(a, MAPPED, 12);
    for (uint64_t flips = random_below(state, 4); flips > 0; flips--)
        a[random_below(state, is_ipv6 ? 16 : 4)] ^= (unsigned char)(1 << random_below(state, 8));
}

static void any_list_answers_as_its_bits_do(void)
{
    uint64_t state = 3;
    int in = 0, out = 0;

    for (int round = 0; round < 20000; round++) {
        size_t n = random_below(&state, 4);
        fe_network *list = malloc(n * sizeof(*list) + 1);
        int is_ipv6 = random_below(&state, 2) != 0, is_in;
        unsigned char address[16];

        assert(list != NULL);
        for (size_t i = 0; i < n; i++) {
            list[i].is_ipv6 = random_below(&state, 2) != 0;
            list[i].bits = (uint8_t)random_below(&state, list[i].is_ipv6 ? 129 : 33);
            random_address(&state, list[i].address, list[i].is_ipv6);
        }
        random_address(&state, address, is_ipv6);
        is_in = fe_networks_have(list, n, address, is_ipv6);
        assert(is_in == is_in_naively(list, n, address, is_ipv6));
        in += is_in;
        out += !is_in;
        free(list);
    }
    assert(in > 2000 && out > 2000);
}

int main(void)
{
    an_empty_list_has_nobody();
    a_network_ends_at_its_last_bit();
    bits_behind_the_network_do_not_count();
    one_family_is_never_in_the_other();
    ipv4_in_ipv6_is_ipv4();
    a_network_with_too_many_bits_has_nobody();
    any_list_answers_as_its_bits_do();
    return 0;
}
