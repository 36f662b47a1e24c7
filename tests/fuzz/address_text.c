/* Fuzz target: addresses are read as inet_pton of libc reads them, and written so that it reads
 * them back; numbers as a plain reader of digits sees them.
 *
 * The first byte says what the rest is: a text as it is; pieces of addresses, a byte each; or an
 * address and a number to write.
 */
#define _DEFAULT_SOURCE
#include "input.h"

#include <arpa/inet.h>
#include <stdio.h>

#include "address_text.h"

/* Longer ones are never addresses. */
enum { TEXT_MAX = 300 };

/* From memory of the exact size, so that a sanitizer sees what is read behind it. */
static void read_text(const uint8_t *bytes, size_t n)
{
    unsigned char *copy = malloc(n + 1), *address = malloc(16), wanted[16];
    char text[TEXT_MAX + 1];
    int has_zero = n > 0 && memchr(bytes, 0, n) != NULL, is_number;
    uint32_t value, most = 65535;

    assert(copy != NULL && address != NULL);
    if (n > 0)
        memcpy(copy + 1, bytes, n);
    memcpy(text, copy + 1, n);
    text[n] = 0;
    assert(fe_read_ipv4(copy + 1, n, address) == (!has_zero && inet_pton(AF_INET, text, wanted)));
    if (fe_read_ipv4(copy + 1, n, address))
        assert(n <= FE_IPV4_TEXT_MAX && memcmp(address, wanted, 4) == 0);
    assert(fe_read_ipv6(copy + 1, n, address) == (!has_zero && inet_pton(AF_INET6, text, wanted)));
    if (fe_read_ipv6(copy + 1, n, address))
        assert(n <= FE_IPV6_READ_MAX && memcmp(address, wanted, 16) == 0);

    is_number = n > 0 && n <= 5 && strspn(text, "0123456789") == n && (*text != '0' || n == 1);
    is_number = is_number && strtoul(text, NULL, 10) <= most;
    assert(fe_read_decimal(copy + 1, n, most, &value) == is_number);
    assert(!is_number || value == strtoul(text, NULL, 10));
    free(address);
    free(copy);
}

static void read_pieces(input *in)
{
    static const char *const pieces[] = {
        "0", "1", "9", "25", "255", "256", ".", ":", "::", "a", "F", "ffff", "00", "/", "%", "g",
    };
    unsigned char text[TEXT_MAX];
    size_t n = 0;

    while (in->left > 0 && n + 4 <= sizeof(text)) {
        const char *piece = pieces[take(in) % (sizeof(pieces) / sizeof(pieces[0]))];

        memcpy(text + n, piece, strlen(piece));
        n += strlen(piece);
    }
    read_text(text, n);
}

/* What is written has its size at the most, is read back by libc, and is as libc writes it: but for
 * addresses that hold one of IPv4, which libc writes with dots. */
static void write_address(input *in)
{
    unsigned char address[16], back[16];
    char text[64], libc[64];
    unsigned zeros = (unsigned)take_number(in, 2);
    uint32_t value = (uint32_t)take_number(in, 4) % 100000;
    unsigned char *out = malloc(FE_IPV6_TEXT_MAX), *end;
    size_t n;

    assert(out != NULL);
    for (int i = 0; i < 16; i++) {
        address[i] = take(in);
        if (zeros >> i & 1)
            address[i] = 0;
    }
    end = fe_write_ipv6(out, address);
    n = (size_t)(end - out);
    assert(n <= FE_IPV6_TEXT_MAX);
    memcpy(text, out, n);
    text[n] = 0;
    assert(inet_pton(AF_INET6, text, back) == 1 && memcmp(back, address, 16) == 0);
    assert(inet_ntop(AF_INET6, address, libc, sizeof(libc)) != NULL);
    assert(strchr(libc, '.') != NULL || strcmp(text, libc) == 0);
    read_text((const uint8_t *)text, n);
    free(out);

    out = malloc(FE_IPV4_TEXT_MAX);
    assert(out != NULL);
    end = fe_write_ipv4(out, address);
    assert(inet_ntop(AF_INET, address, libc, sizeof(libc)) != NULL);
    assert((size_t)(end - out) == strlen(libc) && memcmp(out, libc, strlen(libc)) == 0);
    end = fe_write_decimal(out, value);
    n = (size_t)snprintf(text, sizeof(text), "%lu", (unsigned long)value);
    assert((size_t)(end - out) == n && memcmp(out, text, n) == 0);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    input in = {bytes, size < INPUT_MAX ? size : INPUT_MAX};

    switch (take(&in) % 3) {
    case 0:
        read_text(in.bytes, in.left < TEXT_MAX ? in.left : TEXT_MAX);
        break;
    case 1:
        read_pieces(&in);
        break;
    default:
        write_address(&in);
    }
    return 0;
}
