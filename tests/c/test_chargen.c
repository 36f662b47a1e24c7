/* The pattern of RFC 864: its text read literally, every place to stop and go on at, every first
 * line of another server, and the first byte that differs. */
#include "support.h"

#include "chargen.h"

#include <stdio.h>
#include <string.h>

static unsigned char stream[3 * FE_CHARGEN_BUFFER];

/* As the RFC says it: on line N characters (0 + N mod 95) through (71 + N mod 95). */
static void write_by_the_rfc(void)
{
    size_t used = 0;

    for (unsigned line = 0; used + 74 <= sizeof(stream); line++) {
        for (unsigned i = 0; i < 72; i++)
            stream[used++] = (unsigned char)(' ' + (i + line) % 95);
        stream[used++] = '\r';
        stream[used++] = '\n';
    }
    memset(stream + used, 0, sizeof(stream) - used);
}

static void the_buffer_is_what_the_rfc_says(void)
{
    static unsigned char buffer[FE_CHARGEN_BUFFER];

    fe_chargen_fill(buffer, sizeof(buffer), FE_CHARGEN_RFC);
    assert(memcmp(buffer, stream, sizeof(buffer)) == 0);
    for (uint32_t at = 0; at < FE_CHARGEN_PERIOD; at++)
        assert(fe_chargen_byte(at, FE_CHARGEN_RFC) == stream[at]);
    assert(FE_CHARGEN_TURN % FE_CHARGEN_PERIOD == 0);
}

static void a_stream_goes_on_where_it_was_cut(void)
{
    static unsigned char buffer[FE_CHARGEN_BUFFER];
    uint64_t seed = 9;

    fe_chargen_fill(buffer, sizeof(buffer), FE_CHARGEN_RFC);
    for (int round = 0; round < 200; round++) {
        uint32_t at = 0;
        size_t done = 0;
        size_t most = round % 2 ? 100 : FE_CHARGEN_TURN;

        while (done < FE_CHARGEN_TURN) {
            size_t n = 1 + (size_t)random_below(&seed, most);

            if (n > FE_CHARGEN_TURN - done)
                n = FE_CHARGEN_TURN - done;
            assert(at < FE_CHARGEN_PERIOD);
            assert(memcmp(buffer + at, stream + done, n) == 0);
            at = fe_chargen_after(at, n);
            done += n;
        }
        assert(at == 0);
    }
}

static void every_line_may_be_the_first(void)
{
    for (int first = 0; first < 256; first++) {
        uint32_t at = fe_chargen_begin((unsigned char)first);

        if (first < ' ' || first > '~') {
            assert(at == FE_CHARGEN_NOWHERE);
            continue;
        }
        assert(at % FE_CHARGEN_LINE == 0 && at < FE_CHARGEN_PERIOD);
        assert(stream[at] == first);
    }
}

/* As seen of xinetd 2.3.15. */
static void the_pattern_of_xinetd_is_another(void)
{
    static unsigned char bytes[FE_CHARGEN_PERIOD + FE_CHARGEN_LINE];

    fe_chargen_fill(bytes, sizeof(bytes), FE_CHARGEN_XINETD);
    assert(memcmp(bytes, "!\"#$%&'()*+,-./0123456789", 25) == 0);
    assert(memcmp(bytes + 22 * FE_CHARGEN_LINE + 68, "z{|}!\r\n", 7) != 0);
    assert(memcmp(bytes + 22 * FE_CHARGEN_LINE + 67, "z{|}!\r\n", 7) == 0);
    assert(memcmp(bytes + 92 * FE_CHARGEN_LINE, "}!\"#", 4) == 0);
    assert(memcmp(bytes + 94 * FE_CHARGEN_LINE, "\"#$%", 4) == 0);
    assert(memcmp(bytes + 95 * FE_CHARGEN_LINE, "!\"#$", 4) == 0);
    assert(memchr(bytes, ' ', sizeof(bytes)) == NULL && memchr(bytes, '~', sizeof(bytes)) == NULL);
}

static void any_part_is_known_and_the_first_wrong_byte_is_found(void)
{
    static unsigned char period[FE_CHARGEN_PERIOD];
    uint64_t seed = 4;

    fe_chargen_fill(period, sizeof(period), FE_CHARGEN_RFC);
    for (int round = 0; round < 2000; round++) {
        uint32_t at = (uint32_t)random_below(&seed, FE_CHARGEN_PERIOD);
        size_t n = (size_t)random_below(&seed, round % 2 ? 200 : 2 * FE_CHARGEN_PERIOD);
        size_t wrong = n == 0 ? 0 : (size_t)random_below(&seed, n);

        assert(fe_chargen_same(period, at, stream + at, n) == n);
        if (n == 0)
            continue;
        stream[at + wrong] ^= 1;
        assert(fe_chargen_same(period, at, stream + at, n) == wrong);
        stream[at + wrong] ^= 1;
    }
}

int main(void)
{
    write_by_the_rfc();
    the_buffer_is_what_the_rfc_says();
    a_stream_goes_on_where_it_was_cut();
    every_line_may_be_the_first();
    the_pattern_of_xinetd_is_another();
    any_part_is_known_and_the_first_wrong_byte_is_found();
    return 0;
}
