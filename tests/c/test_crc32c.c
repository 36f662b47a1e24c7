/* CRC32c: the vectors of RFC 3720, B.4; then what a reader of single bits gives, at any cut. */
#include "support.h"

#include "crc32c.h"

#include <string.h>

/* Bit by bit, the highest of the polynomial first: no table, and nothing reflected but the ends. */
static uint32_t bit_by_bit(const unsigned char *p, size_t n)
{
    uint32_t sum = 0xffffffff, reflected = 0;

    for (size_t i = 0; i < n; i++)
        for (int bit = 0; bit < 8; bit++) {
            uint32_t top = sum >> 31 ^ (p[i] >> bit & 1u);
            sum = sum << 1 ^ (top ? 0x1edc6f41u : 0);
        }
    for (int bit = 0; bit < 32; bit++)
        reflected |= (sum >> bit & 1u) << (31 - bit);
    return ~reflected;
}

static void known_sums_are_right(void)
{
    static const unsigned char read_command[48] = {
        0x01, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x14, 0, 0, 0, 0, 0, 0x04, 0,
        0, 0, 0, 0x14, 0, 0, 0, 0x18, 0x28, 0, 0, 0, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0, 0};
    unsigned char bytes[32];

    memset(bytes, 0, 32);
    assert(fe_crc32c(0, bytes, 32) == 0x8a9136aa);
    memset(bytes, 0xff, 32);
    assert(fe_crc32c(0, bytes, 32) == 0x62a8ab43);
    for (int i = 0; i < 32; i++)
        bytes[i] = (unsigned char)i;
    assert(fe_crc32c(0, bytes, 32) == 0x46dd794e);
    for (int i = 0; i < 32; i++)
        bytes[i] = (unsigned char)(31 - i);
    assert(fe_crc32c(0, bytes, 32) == 0x113fdb5c);
    assert(fe_crc32c(0, read_command, 48) == 0xd9963a56);
    assert(fe_crc32c(0, (const unsigned char *)"123456789", 9) == 0xe3069283);
    assert(fe_crc32c(0, bytes, 0) == 0);
}

static void any_cut_gives_the_same_sum(void)
{
    unsigned char bytes[300];
    uint64_t state = 1;

    for (int round = 0; round < 300; round++) {
        size_t n = random_below(&state, sizeof(bytes)), cut = random_below(&state, n + 1);
        uint32_t sum;

        for (size_t i = 0; i < n; i++)
            bytes[i] = (unsigned char)random_below(&state, 256);
        sum = fe_crc32c(fe_crc32c(0, bytes, cut), bytes + cut, n - cut);
        assert(sum == bit_by_bit(bytes, n));
    }
}

int main(void)
{
    known_sums_are_right();
    any_cut_gives_the_same_sum();
    return 0;
}
