/* IP addresses and small numbers as text, whatever the locale.
 *
 * Lives here: reading and writing them, exactly: a text is an address from its first byte to its
 * last, or it is none. Does not live here: what surrounds them.
 *
 * What inet_pton and inet_ntop of libc do, with these differences: texts have a size and need no
 * zero behind them; an IPv6 address is written in hexadecimal groups only, even one that holds an
 * IPv4 address, because the PROXY protocol promises no more than these (RFC 5952 otherwise). Both
 * are read. "::" stands for one group or more. There is no scope (%eth0).
 */
#ifndef FASTECHO_ADDRESS_TEXT_H
#define FASTECHO_ADDRESS_TEXT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    /* Bytes of the longest texts that are read, and of those that are written. */
    FE_IPV4_TEXT_MAX = 15,
    FE_IPV6_READ_MAX = 45,
    FE_IPV6_TEXT_MAX = 39
};

/* --- reading. Result: 1, or 0: it is none --- */

/* A decimal number up to `most` < 100000, without a leading zero. */
static inline int fe_read_decimal(const unsigned char *p, size_t n, uint32_t most,
                                   uint32_t *value)
{
    *value = 0;
    if (n == 0 || n > 5 || (n > 1 && p[0] == '0'))
        return 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9')
            return 0;
        *value = *value * 10 + (uint32_t)(p[i] - '0');
    }
    return *value <= most;
}

/* Four numbers with dots between them, into 4 bytes. */
static inline int fe_read_ipv4(const unsigned char *p, size_t n, unsigned char *out)
{
    const unsigned char *end = p + n;

    for (int i = 0; i < 4; i++) {
        const unsigned char *dot = i < 3 ? memchr(p, '.', (size_t)(end - p)) : end;
        uint32_t value;

        if (dot == NULL || !fe_read_decimal(p, (size_t)(dot - p), 255, &value))
            return 0;
        out[i] = (unsigned char)value;
        p = i < 3 ? dot + 1 : end;
    }
    return 1;
}

/* The hexadecimal digits at p, at most 4. Result: how many there are. */
static inline size_t fe_read_group(const unsigned char *p, size_t n, uint32_t *value)
{
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    size_t i = 0;

    *value = 0;
    for (; i < n && i < 4; i++) {
        const char *digit = memchr(digits, p[i], sizeof(digits) - 1);
        if (digit == NULL)
            break;
        *value = *value << 4 | ((uint32_t)(digit - digits) & 15);
    }
    return i;
}

/* Groups of hexadecimal digits, into 16 bytes, which are anything if it is none. */
static inline int fe_read_ipv6(const unsigned char *p, size_t n, unsigned char *out)
{
    const size_t none = SIZE_MAX;
    /* Bytes written, and where of them the "::" stands. */
    size_t at = 0, gap = none, i = 0;

    memset(out, 0, 16);
    if (n >= 2 && p[0] == ':' && p[1] == ':') {
        gap = 0;
        i = 2;
    }
    while (i < n) {
        uint32_t value;
        size_t digits = fe_read_group(p + i, n - i, &value);

        if (i + digits < n && p[i + digits] == '.') {
            if (at > 12 || !fe_read_ipv4(p + i, n - i, out + at))
                return 0;
            at += 4;
            break;
        }
        if (digits == 0 || at == 16)
            return 0;
        out[at++] = (unsigned char)(value >> 8);
        out[at++] = (unsigned char)value;
        i += digits;
        if (i == n)
            break;
        if (p[i++] != ':' || i == n)
            return 0;
        if (p[i] == ':') {
            if (gap != none)
                return 0;
            gap = at;
            i++;
        }
    }
    if (gap == none || at == 16) /* with 16 bytes, "::" would stand for nothing */
        return gap == none && at == 16;
    memmove(out + 16 - (at - gap), out + gap, at - gap);
    memset(out + gap, 0, 16 - at);
    return 1;
}

/* --- writing. Result: one behind the last byte --- */

/* A number below 100000. */
static inline unsigned char *fe_write_decimal(unsigned char *out, uint32_t value)
{
    uint32_t unit = 1;

    while (value / unit >= 10)
        unit *= 10;
    for (; unit > 0; unit /= 10)
        *out++ = (unsigned char)('0' + value / unit % 10);
    return out;
}

/* At most FE_IPV4_TEXT_MAX bytes. */
static inline unsigned char *fe_write_ipv4(unsigned char *out, const unsigned char *address)
{
    for (int i = 0; i < 4; i++) {
        if (i > 0)
            *out++ = '.';
        out = fe_write_decimal(out, address[i]);
    }
    return out;
}

/* The longest run of zero groups, the first of equals. Result: its groups; *first is set. */
static inline int fe_zero_run(const unsigned char *address, int *first)
{
    int longest = 0, run = 0;

    *first = 0;
    for (int i = 0; i < 8; i++) {
        run = address[2 * i] == 0 && address[2 * i + 1] == 0 ? run + 1 : 0;
        if (run > longest) {
            longest = run;
            *first = i + 1 - run;
        }
    }
    return longest;
}

/* At most FE_IPV6_TEXT_MAX bytes. */
static inline unsigned char *fe_write_ipv6(unsigned char *out, const unsigned char *address)
{
    int first, zeros = fe_zero_run(address, &first);

    for (int i = 0; i < 8; i++) {
        uint32_t group = (uint32_t)(address[2 * i] << 8 | address[2 * i + 1]);
        int shift = 12;

        if (zeros > 1 && i == first) {
            *out++ = ':';
            *out++ = ':';
            i += zeros - 1;
            continue;
        }
        if (i > 0 && out[-1] != ':')
            *out++ = ':';
        while (shift > 0 && group >> shift == 0)
            shift -= 4;
        for (; shift >= 0; shift -= 4)
            *out++ = (unsigned char)"0123456789abcdef"[group >> shift & 15];
    }
    return out;
}

#endif
