/* The PROXY protocol, written: byte for byte, what is refused, and that each header is read as what
 * it was written from. Then such headers with random changes, against a reading of the whole header
 * by other code, which cuts the line at its spaces. */
#include "proxies.h"

#include <stdio.h>

static unsigned char out[FE_PROXY_MAX + 16];

/* Writes into memory of the exact size, and not into less. */
static size_t write_exactly(const fe_proxy *p, const char *authority, const char *unique_id)
{
    size_t n = fe_proxy_write(p, BYTES(authority), BYTES(unique_id), out, sizeof(out));
    unsigned char *copy = malloc(n + 1);

    assert(copy != NULL);
    copy[0] = 'x';
    assert(fe_proxy_write(p, BYTES(authority), BYTES(unique_id), copy + 1, n) == n);
    assert(memcmp(copy + 1, out, n) == 0);
    for (size_t room = 0; room < n; room += 1 + room / 20)
        assert(fe_proxy_write(p, BYTES(authority), BYTES(unique_id), copy + 1, room) == 0);
    assert(copy[0] == 'x');
    free(copy);
    return n;
}

#define WRITES(p, authority, unique_id, text)                                                     \
    assert(write_exactly(p, authority, unique_id) == sizeof(text) - 1 &&                          \
           memcmp(out, text, sizeof(text) - 1) == 0)

static fe_proxy of_family(int version, int family)
{
    fe_proxy p;

    memset(&p, 0, sizeof(p));
    p.version = (uint8_t)version;
    p.family = (uint8_t)family;
    memcpy(p.source, "\xc0\0\2\1", 4);
    memcpy(p.destination, "\xc6\x33\x64\x16", 4);
    p.source_port = 56324;
    p.destination_port = 443;
    if (family == FE_PROXY_INET6) {
        memcpy(p.source, "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1", 16);
        memcpy(p.destination, "\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\2\1", 16);
    }
    return p;
}

static void a_line_is_written(void)
{
    fe_proxy p = of_family(1, FE_PROXY_INET);

    WRITES(&p, NULL, NULL, "PROXY TCP4 192.0.2.1 198.51.100.22 56324 443\r\n");
    p = of_family(1, FE_PROXY_INET6);
    WRITES(&p, NULL, NULL, "PROXY TCP6 2001:db8::1 ::ffff:c000:201 56324 443\r\n");
    memset(p.source, 0xff, 16);
    memset(p.destination, 0xff, 16);
    p.source_port = p.destination_port = 65535;
    assert(write_exactly(&p, NULL, NULL) == 104);
    p = of_family(1, FE_PROXY_UNKNOWN);
    WRITES(&p, NULL, NULL, "PROXY UNKNOWN\r\n");
}

static void a_line_calls_unknown_what_it_has_no_word_for(void)
{
    fe_proxy p = of_family(1, FE_PROXY_UNIX);

    WRITES(&p, NULL, NULL, "PROXY UNKNOWN\r\n");
    p = of_family(1, FE_PROXY_INET);
    p.is_datagram = 1;
    WRITES(&p, NULL, NULL, "PROXY UNKNOWN\r\n");
    p.is_datagram = 0;
    p.is_local = 1;
    WRITES(&p, NULL, NULL, "PROXY UNKNOWN\r\n");
}

static void a_binary_header_is_written(void)
{
    fe_proxy p = of_family(2, FE_PROXY_INET);

    WRITES(&p, NULL, NULL,
           SIGNATURE "\x21\x11\0\x0c\xc0\0\2\1\xc6\x33\x64\x16\xdc\4\1\xbb");
    p.is_datagram = 1;
    WRITES(&p, NULL, NULL,
           SIGNATURE "\x21\x12\0\x0c\xc0\0\2\1\xc6\x33\x64\x16\xdc\4\1\xbb");
    p = of_family(2, FE_PROXY_INET6);
    WRITES(&p, NULL, NULL,
           SIGNATURE "\x21\x21\0\x24\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1"
                     "\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\2\1\xdc\4\1\xbb");
    p = of_family(2, FE_PROXY_UNIX);
    assert(write_exactly(&p, NULL, NULL) == 232);
    assert(memcmp(out, SIGNATURE "\x21\x31\0\xd8\xc0\0\2\1\0", 21) == 0);
    p = of_family(2, FE_PROXY_UNKNOWN);
    WRITES(&p, NULL, NULL, SIGNATURE "\x21\0\0\0");
    p = of_family(2, FE_PROXY_INET);
    p.is_local = 1;
    WRITES(&p, NULL, NULL, SIGNATURE "\x20\0\0\0");
}

static void tlvs_and_a_checksum_follow_the_addresses(void)
{
    fe_proxy p = of_family(2, FE_PROXY_UNKNOWN);

    p.authority_size = 3;
    WRITES(&p, "abc", NULL, SIGNATURE "\x21\0\0\6\2\0\3abc");
    p.unique_id_size = 2;
    WRITES(&p, "abc", "id", SIGNATURE "\x21\0\0\x0b\2\0\3abc\5\0\2id");
    p.authority_size = p.unique_id_size = 0;
    p.has_checksum = 1;
    WRITES(&p, NULL, NULL, SIGNATURE "\x21\0\0\7\3\0\4\x3e\xc9\x89\x4e");
    /* What haproxy 2.6.12 sent (send-proxy-v2, proxy-v2-options crc32c). */
    p = of_family(2, FE_PROXY_INET);
    memcpy(p.source, "\x7f\0\0\1", 4);
    memcpy(p.destination, "\x7f\0\0\1", 4);
    p.source_port = 46024;
    p.destination_port = 34305;
    p.has_checksum = 1;
    WRITES(&p, NULL, NULL,
           SIGNATURE "\x21\x11\0\x13\x7f\0\0\1\x7f\0\0\1\xb3\xc8\x86\1\3\0\4\xd0\x6a\x16\x69");
}

static void what_has_no_place_is_not_written(void)
{
    static const char text[FE_PROXY_MAX + 1];
    fe_proxy p = of_family(2, FE_PROXY_INET);

    p.authority_size = FE_PROXY_MAX - 16 - 12 - 3;
    assert(write_exactly(&p, text, NULL) == FE_PROXY_MAX);
    p.authority_size++;
    assert(write_exactly(&p, text, NULL) == 0);
    p.authority_size = UINT32_MAX;
    assert(write_exactly(&p, text, NULL) == 0);
    p.authority_size = 0;
    p.unique_id_size = 128;
    assert(write_exactly(&p, NULL, text) == 16 + 12 + 3 + 128);
    p.unique_id_size = 129;
    assert(write_exactly(&p, NULL, text) == 0);
    for (int version = 0; version < 4; version++)
        for (int field = 0; field < 4; field++)
            for (int is_local = 0; is_local < 2; is_local++) {
                int is_right = version == 2 ? !is_local || field == 0 : version == 1 && field == 0;

                p = of_family(version, FE_PROXY_INET);
                p.is_local = (uint8_t)is_local;
                p.authority_size = field == 1;
                p.unique_id_size = field == 2;
                p.has_checksum = field == 3;
                assert((write_exactly(&p, "a", "b") > 0) == is_right);
            }
    p = of_family(1, FE_PROXY_UNIX + 1);
    assert(write_exactly(&p, NULL, NULL) == 0);
    p = of_family(2, 255);
    assert(write_exactly(&p, NULL, NULL) == 0);
}

/* --- at random --- */

/* A header of any kind, written to out. Result: its bytes; *p says what must be read. */
static size_t random_header(uint64_t *state, fe_proxy *p)
{
    static const size_t sizes[] = {0, 4, 16, 108};
    static const char text[] = "an authority or a unique ID of some length";
    fe_proxy back;
    size_t n;

    *p = of_family(1 + (int)random_below(state, 2), (int)random_below(state, 4));
    memset(p->source, 0, sizeof(p->source));
    memset(p->destination, 0, sizeof(p->destination));
    for (size_t i = 0; i < sizes[p->family]; i++) {
        p->source[i] = (unsigned char)(random_below(state, 2) ? 0 : random_below(state, 256));
        p->destination[i] = (unsigned char)random_below(state, 256);
    }
    p->source_port = (uint16_t)random_below(state, 65536);
    p->destination_port = (uint16_t)random_below(state, 11);
    if (p->version == 2) {
        p->is_local = random_below(state, 8) == 0;
        p->is_datagram = random_below(state, 2) != 0;
        p->authority_size = p->is_local ? 0 : (uint32_t)random_below(state, sizeof(text));
        p->unique_id_size = p->is_local ? 0 : (uint32_t)random_below(state, 9);
        p->has_checksum = !p->is_local && random_below(state, 2) != 0;
    }
    n = write_exactly(p, text, text);
    assert(n > 0 && fe_proxy_parse(out, n, &back) == FE_PROXY_DONE && back.total == n);
    if (p->is_local || p->family == FE_PROXY_UNKNOWN ||
        (p->version == 1 && p->family == FE_PROXY_UNIX)) {
        int version = p->version;
        uint8_t local = p->is_local, checksum = p->has_checksum;
        uint32_t authority = p->authority_size, unique_id = p->unique_id_size;

        memset(p, 0, sizeof(*p));
        p->version = (uint8_t)version;
        p->is_local = local;
        p->has_checksum = checksum;
        p->authority_size = authority;
        p->unique_id_size = unique_id;
    }
    if (p->family == FE_PROXY_UNIX)
        p->source_port = p->destination_port = 0;
    p->total = back.total;
    p->authority = back.authority;
    p->unique_id = back.unique_id;
    assert(same_header(p, &back));
    assert(memcmp(out + p->authority, text, p->authority_size) == 0);
    assert(memcmp(out + p->unique_id, text, p->unique_id_size) == 0);
    return n;
}

/* A line, which has its CRLF, cut into fields. Result: whether it is right. */
static int line_is_right(const unsigned char *in, size_t n)
{
    char text[FE_PROXY_LINE_MAX + 1], *fields[7], *field = text;
    unsigned char address[16];
    size_t count = 0;
    int is_ipv6;

    memcpy(text, in, n - 2);
    text[n - 2] = 0;
    if (strlen(text) != n - 2 && strncmp(text, "PROXY UNKNOWN ", 14) != 0)
        return 0;
    if (strcmp(text, "PROXY UNKNOWN") == 0 || strncmp(text, "PROXY UNKNOWN ", 14) == 0)
        return 1;
    while (field != NULL && count < COUNT(fields)) {
        fields[count++] = field;
        field = strchr(field, ' ');
        if (field != NULL)
            *field++ = 0;
    }
    if (count != 6 || field != NULL)
        return 0;
    is_ipv6 = strcmp(fields[1], "TCP6") == 0;
    if (!is_ipv6 && strcmp(fields[1], "TCP4") != 0)
        return 0;
    for (int i = 2; i < 4; i++)
        if (!(is_ipv6 ? fe_read_ipv6 : fe_read_ipv4)(BYTES(fields[i]), strlen(fields[i]), address))
            return 0;
    for (int i = 4; i < 6; i++) {
        char again[24];
        unsigned long port = strtoul(fields[i], NULL, 10);

        snprintf(again, sizeof(again), "%lu", port);
        if (strcmp(fields[i], again) != 0 || port > 65535)
            return 0;
    }
    return 1;
}

static int binary_is_right(unsigned char *in, size_t n)
{
    static const size_t sizes[] = {0, 12, 36, 216};
    int family = in[13] / 16, transport = in[13] % 16, seen[256] = {0};
    size_t at;

    if (in[12] == 0x20)
        return 1;
    if (in[12] != 0x21 || family > 3 || transport > 2 || (family == 0) != (transport == 0))
        return 0;
    for (at = 16 + sizes[family]; at + 3 <= n; at += 3 + in[at + 1] * 256u + in[at + 2]) {
        size_t size = in[at + 1] * 256u + in[at + 2];

        if (at + 3 + size > n)
            return 0;
        if (seen[in[at]]++ && (in[at] == 2 || in[at] == 3 || in[at] == 5))
            return 0;
        if ((in[at] == 5 && size > 128) || (in[at] == 3 && size != 4))
            return 0;
        if (in[at] == 3) {
            unsigned char sum[4];
            uint32_t crc;

            memcpy(sum, in + at + 3, 4);
            memset(in + at + 3, 0, 4);
            crc = fe_crc32c(0, in, n);
            memcpy(in + at + 3, sum, 4);
            if (crc != ((uint32_t)sum[0] << 24 | sum[1] << 16 | sum[2] << 8 | sum[3]))
                seen[0] = -1000;
        }
    }
    return at == n && seen[0] >= 0;
}

/* Whether what starts with a signature is a right header, once it is whole. *total: its bytes. */
static int is_right_by_other_code(unsigned char *in, size_t n, size_t *total)
{
    if (in[0] == 'P') {
        for (size_t i = 0; i + 1 < n && i + 1 < FE_PROXY_LINE_MAX; i++)
            if (in[i] == '\r' && in[i + 1] == '\n') {
                *total = i + 2;
                return line_is_right(in, i + 2);
            }
        return 0;
    }
    *total = n < 16 ? n : 16 + in[14] * 256u + in[15];
    return n >= 16 && *total <= n && *total <= FE_PROXY_MAX && binary_is_right(in, *total);
}

static void change(uint64_t *state, size_t n)
{
    static const char odd[] = " \r\n0.:fF15";
    size_t at = random_below(state, n);

    switch (random_below(state, 4)) {
    case 0:
        out[at] ^= (unsigned char)(1 << random_below(state, 8));
        break;
    case 1:
        out[at] = (unsigned char)odd[random_below(state, sizeof(odd) - 1)];
        break;
    case 2:
        memmove(out + at, out + at + 1, n - at); /* what follows moves up */
        break;
    default:
        memmove(out + at + 1, out + at, n - at);
    }
}

static void any_change_is_judged_as_by_other_code(void)
{
    uint64_t state = 11;
    int right = 0, wrong = 0;

    for (int round = 0; round < 30000; round++) {
        fe_proxy p, header;
        size_t n = random_header(&state, &p), total = 0;
        int status, is_right;

        memset(out + n, 'x', 8);
        change(&state, n);
        status = parse_exactly(out, n + 8, &header);
        if (round % 10 == 0)
            assert(parse(out, n + 8).status == status);
        if (status == FE_PROXY_ABSENT) {
            assert(memcmp(out, "PROXY ", 6) != 0 && memcmp(out, SIGNATURE, 12) != 0);
            continue;
        }
        is_right = is_right_by_other_code(out, n + 8, &total);
        assert((status == FE_PROXY_DONE) == is_right);
        assert(!is_right || header.total == total);
        right += is_right;
        wrong += !is_right;
    }
    assert(right > 3000 && wrong > 3000);
}

int main(void)
{
    a_line_is_written();
    a_line_calls_unknown_what_it_has_no_word_for();
    a_binary_header_is_written();
    tlvs_and_a_checksum_follow_the_addresses();
    what_has_no_place_is_not_written();
    any_change_is_judged_as_by_other_code();
    return 0;
}
