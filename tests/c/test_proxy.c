/* The PROXY protocol, read: each rule, each error with the byte that decides it, and headers that
 * haproxy sent. Whatever is parsed here is parsed at every cut. */
#include "proxies.h"

#include "proxy.h"

#define PARSE(text) parse(BYTES(text), sizeof(text) - 1)

/* A text that is refused, and bytes of it that say so. */
typedef struct refusal {
    const char *text;
    int error;
    size_t decided;
} refusal;

static void names_are_short_and_all_different(void)
{
    for (int i = 0; i < FE_PROXY_ERRORS; i++) {
        assert(strlen(fe_proxy_error_name(i)) > 5 && strlen(fe_proxy_error_name(i)) < 50);
        for (int j = 0; j < i; j++)
            assert(strcmp(fe_proxy_error_name(i), fe_proxy_error_name(j)) != 0);
    }
}

static void what_begins_otherwise_is_absent_at_once(void)
{
    assert(PARSE("").status == FE_PROXY_NEED_INPUT);
    assert(PARSE("PROXY").status == FE_PROXY_NEED_INPUT);
    assert(PARSE("PROXY ").status == FE_PROXY_NEED_INPUT);
    assert(PARSE("\r\n\r\n\0\r\nQUIT").status == FE_PROXY_NEED_INPUT);
    assert(PARSE(SIGNATURE).status == FE_PROXY_NEED_INPUT);
    for (size_t i = 0; i < 12; i++) {
        unsigned char changed[12];
        verdict v;

        memcpy(changed, SIGNATURE, 12);
        changed[i] ^= 0x40;
        v = parse(changed, 12);
        assert(v.status == FE_PROXY_ABSENT && v.decided == i + 1);
        memcpy(changed, "PROXY TCP4 1", 12);
        changed[i] ^= 1;
        v = parse(changed, 6);
        assert(i >= 6 || (v.status == FE_PROXY_ABSENT && v.decided == i + 1));
    }
    assert(PARSE("GET / HTTP/1.1\r\n").decided == 1);
    assert(PARSE("POST / HTTP/1.1\r\n").decided == 2);
    assert(PARSE("PROXYTCP4").decided == 6 && PARSE("PROXY\r\n").decided == 6);
    assert(PARSE("\x16\3\1\2\0\1\0\1\xfc\3\3").status == FE_PROXY_ABSENT);
    assert(PARSE("proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n").status == FE_PROXY_ABSENT);
}

static void a_line_tells_addresses_and_ports(void)
{
    verdict v = PARSE("PROXY TCP4 192.0.2.1 198.51.100.22 56324 443\r\nGET / HTTP/1.1\r\n");
    static const unsigned char zeros[FE_PROXY_PATH_MAX];

    assert(v.status == FE_PROXY_DONE && v.decided == 46 && v.header.version == 1);
    assert(v.header.family == FE_PROXY_INET && !v.header.is_local && !v.header.is_datagram);
    assert(memcmp(v.header.source, "\xc0\0\2\1", 4) == 0);
    assert(memcmp(v.header.destination, "\xc6\x33\x64\x16", 4) == 0);
    assert(memcmp(v.header.source + 4, zeros, sizeof(zeros) - 4) == 0);
    assert(v.header.source_port == 56324 && v.header.destination_port == 443);
    assert(v.header.authority_size == 0 && v.header.unique_id_size == 0);
    v = PARSE("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n");
    assert(v.status == FE_PROXY_DONE && v.decided == 56);
    v = PARSE("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n\r\n");
    assert(v.status == FE_PROXY_DONE && v.decided == 32 && v.header.source_port == 0);
    v = PARSE("PROXY TCP6 2001:DB8::1 ::ffff:192.0.2.1 1 65535\r\n");
    assert(v.status == FE_PROXY_DONE && v.header.family == FE_PROXY_INET6);
    assert(memcmp(v.header.source, "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1", 16) == 0);
    assert(memcmp(v.header.destination, "\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\2\1", 16) == 0);
    v = PARSE("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
              "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n");
    assert(v.status == FE_PROXY_DONE && v.decided == 104);
}

static void unknown_ignores_what_is_before_the_line_end(void)
{
    verdict v = PARSE("PROXY UNKNOWN\r\nabc");

    assert(v.status == FE_PROXY_DONE && v.decided == 15 && v.header.family == FE_PROXY_UNKNOWN);
    assert(v.header.version == 1 && !v.header.is_local);
    assert(PARSE("PROXY UNKNOWN \r\n").decided == 16);
    assert(PARSE("PROXY UNKNOWN   x\r\n").status == FE_PROXY_DONE);
    assert(PARSE("PROXY UNKNOWN a\rb\nc\n\r\r\n\r\n").decided == 23);
    v = PARSE("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
              "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n");
    assert(v.status == FE_PROXY_DONE && v.decided == 107);
    assert(v.header.source_port == 0 && v.header.source[0] == 0);
    v = PARSE("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
              "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535 \r\n");
    assert(v.status == FE_PROXY_BAD && v.header.error == FE_PROXY_TOO_LONG && v.decided == 107);
}

static void a_wrong_line_is_refused_at_its_first_wrong_byte(void)
{
    static const refusal wrong[] = {
        /* The family. */
        {"PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n", FE_PROXY_BAD_LINE, 7},
        {"PROXY \r\n", FE_PROXY_BAD_LINE, 7},
        {"PROXY tcp4 1.2.3.4 5.6.7.8 1 2\r\n", FE_PROXY_BAD_FAMILY, 7},
        {"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n", FE_PROXY_BAD_FAMILY, 8},
        {"PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n", FE_PROXY_BAD_FAMILY, 10},
        {"PROXY TCP46 1.2.3.4 5.6.7.8 1 2\r\n", FE_PROXY_BAD_FAMILY, 11},
        {"PROXY TCP 1.2.3.4 5.6.7.8 1 2\r\n", FE_PROXY_BAD_FAMILY, 10},
        {"PROXY UNKNOWN2\r\n", FE_PROXY_BAD_FAMILY, 14},
        {"PROXY UNKNOWN\n", FE_PROXY_BAD_LINE, 14},
        {"PROXY UNKNOWN\r \r\n", FE_PROXY_BAD_LINE, 15},
        {"PROXY TCP4\r\n", FE_PROXY_BAD_LINE, 11},
        {"PROXY TCP6\t::1 ::1 1 2\r\n", FE_PROXY_BAD_LINE, 11},
        /* Addresses. */
        {"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n", FE_PROXY_BAD_LINE, 12},
        {"PROXY TCP4 1.2.3.4  5.6.7.8 1 2\r\n", FE_PROXY_BAD_LINE, 20},
        {"PROXY TCP4 1.2.3.4\t5.6.7.8 1 2\r\n", FE_PROXY_BAD_LINE, 19},
        {"PROXY TCP4 1.2.3.4\r\n", FE_PROXY_BAD_LINE, 19},
        {"PROXY TCP4 1.2.3.4 5.6.7.8\n", FE_PROXY_BAD_LINE, 27},
        {"PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n", FE_PROXY_BAD_ADDRESS, 17},
        {"PROXY TCP4 01.2.3.4 5.6.7.8 1 2\r\n", FE_PROXY_BAD_ADDRESS, 20},
        {"PROXY TCP4 1.2.3.256 5.6.7.8 1 2\r\n", FE_PROXY_BAD_ADDRESS, 21},
        {"PROXY TCP4 1.2.3.4.5 5.6.7.8 1 2\r\n", FE_PROXY_BAD_ADDRESS, 21},
        {"PROXY TCP4 1.2.3.4 5.6.7.08 1 2\r\n", FE_PROXY_BAD_ADDRESS, 28},
        {"PROXY TCP4 1.2.x.4 5.6.7.8 1 2\r\n", FE_PROXY_BAD_ADDRESS, 16},
        {"PROXY TCP4 ::1 ::1 1 2\r\n", FE_PROXY_BAD_ADDRESS, 12},
        {"PROXY TCP4 1111.2222.3333.4444 5.6.7.8 1 2\r\n", FE_PROXY_BAD_ADDRESS, 27},
        {"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n", FE_PROXY_BAD_ADDRESS, 19},
        {"PROXY TCP6 ::1%1 ::1 1 2\r\n", FE_PROXY_BAD_ADDRESS, 15},
        {"PROXY TCP6 ::1 1::2::3 1 2\r\n", FE_PROXY_BAD_ADDRESS, 23},
        {"PROXY TCP6 [::1] ::1 1 2\r\n", FE_PROXY_BAD_ADDRESS, 12},
        {"PROXY TCP6 00001:2:3:4:5:6:7:8 ::1 1 2\r\n", FE_PROXY_BAD_ADDRESS, 31},
        {"PROXY TCP6 ::1 ::1\r\n", FE_PROXY_BAD_LINE, 19},
        {"PROXY TCP6 0000:0000:0000:0000:0000:0000:0000:0000:00000 ::1 1 2\r\n",
         FE_PROXY_BAD_ADDRESS, 57},
        /* Ports. */
        {"PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n", FE_PROXY_BAD_PORT, 33},
        {"PROXY TCP4 1.2.3.4 5.6.7.8 123456 2\r\n", FE_PROXY_BAD_PORT, 33},
        {"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n", FE_PROXY_BAD_PORT, 30},
        {"PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n", FE_PROXY_BAD_PORT, 28},
        {"PROXY TCP4 1.2.3.4 5.6.7.8 1 2x\r\n", FE_PROXY_BAD_PORT, 31},
        {"PROXY TCP4 1.2.3.4 5.6.7.8 1 00\r\n", FE_PROXY_BAD_PORT, 32},
        /* The line's end. */
        {"PROXY TCP4 1.2.3.4 5.6.7.8  1 2\r\n", FE_PROXY_BAD_LINE, 28},
        {"PROXY TCP4 1.2.3.4 5.6.7.8 1 \r\n", FE_PROXY_BAD_LINE, 30},
        {"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", FE_PROXY_BAD_LINE, 29},
        {"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n", FE_PROXY_BAD_LINE, 31},
        {"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n", FE_PROXY_BAD_LINE, 31},
        {"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n", FE_PROXY_BAD_LINE, 31},
        {"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\rx\n", FE_PROXY_BAD_LINE, 32},
        /* Only a long way of writing IPv6 gets there. */
        {"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255 "
         "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255 65535 65535\r\n",
         FE_PROXY_TOO_LONG, 107},
    };

    for (size_t i = 0; i < COUNT(wrong); i++) {
        verdict v = parse(BYTES(wrong[i].text), strlen(wrong[i].text));

        assert(v.status == FE_PROXY_BAD && v.header.version == 1);
        assert(v.header.error == wrong[i].error && v.decided == wrong[i].decided);
    }
    /* A zero is no end of a text. */
    assert(PARSE("PROXY TCP4 1.2.3.4\0 5.6.7.8 1 2\r\n").header.error == FE_PROXY_BAD_ADDRESS);
    assert(PARSE("PROXY TCP4\0 1.2.3.4 5.6.7.8 1 2\r\n").header.error == FE_PROXY_BAD_FAMILY);
}

static void binary_addresses_are_taken_as_they_are(void)
{
    unsigned char unix_header[16 + 216] = SIGNATURE "\x21\x31\0\xd8/from";
    verdict v = PARSE(SIGNATURE "\x21\x11\0\x0c\xc0\0\2\1\xc6\x33\x64\x16\xdc\4\1\xbb" "data");

    assert(v.status == FE_PROXY_DONE && v.decided == 28 && v.header.version == 2);
    assert(v.header.family == FE_PROXY_INET && !v.header.is_datagram && !v.header.is_local);
    assert(memcmp(v.header.source, "\xc0\0\2\1\0", 5) == 0);
    assert(memcmp(v.header.destination, "\xc6\x33\x64\x16\0", 5) == 0);
    assert(v.header.source_port == 56324 && v.header.destination_port == 443);
    assert(!v.header.has_checksum && v.header.authority_size == 0);
    v = PARSE(SIGNATURE "\x21\x22\0\x24" "0123456789abcdefFEDCBA9876543210\0\1\xff\xfe");
    assert(v.status == FE_PROXY_DONE && v.decided == 52 && v.header.family == FE_PROXY_INET6);
    assert(v.header.is_datagram && memcmp(v.header.source, "0123456789abcdef\0", 17) == 0);
    assert(memcmp(v.header.destination, "FEDCBA9876543210\0", 17) == 0);
    assert(v.header.source_port == 1 && v.header.destination_port == 65534);
    memset(unix_header + 16 + 108, 'd', 108);
    v = parse(unix_header, sizeof(unix_header));
    assert(v.status == FE_PROXY_DONE && v.decided == 232 && v.header.family == FE_PROXY_UNIX);
    assert(memcmp(v.header.source, "/from\0", 6) == 0 && v.header.source_port == 0);
    assert(memcmp(v.header.destination, unix_header + 124, 108) == 0);
    unix_header[13] = 0x32;
    assert(parse(unix_header, sizeof(unix_header)).header.is_datagram);
}

static void local_and_unspecified_have_no_addresses(void)
{
    verdict v = PARSE(SIGNATURE "\x20\0\0\0\x20");

    assert(v.status == FE_PROXY_DONE && v.decided == 16 && v.header.is_local);
    assert(v.header.family == FE_PROXY_UNKNOWN && v.header.version == 2);
    /* Whatever its family is, and whatever follows: even what is no TLV. */
    v = PARSE(SIGNATURE "\x20\x11\0\x0d\1\2\3\4\5\6\7\x08\0\1\0\2\xff");
    assert(v.status == FE_PROXY_DONE && v.decided == 29 && v.header.source[0] == 0);
    assert(v.header.family == FE_PROXY_UNKNOWN && v.header.source_port == 0);
    v = PARSE(SIGNATURE "\x20\xff\0\2\1\2");
    assert(v.status == FE_PROXY_DONE && v.decided == 18 && !v.header.is_datagram);
    v = PARSE(SIGNATURE "\x21\0\0\0");
    assert(v.status == FE_PROXY_DONE && !v.header.is_local && v.header.family == FE_PROXY_UNKNOWN);
    v = PARSE(SIGNATURE "\x21\0\0\7\2\0\4name");
    assert(v.status == FE_PROXY_DONE && v.header.authority == 19 && v.header.authority_size == 4);
}

static void a_wrong_binary_header_is_refused_at_its_first_wrong_byte(void)
{
    for (int byte = 0; byte < 256; byte++) {
        unsigned char header[16 + 216] = SIGNATURE "\0\0\0\xd8";
        int family = byte >> 4, transport = byte & 15;
        verdict v;

        header[12] = (unsigned char)byte;
        memset(header + 16, 4, 216); /* TLVs of type 4 that are too long */
        v = parse(header, 16);
        if (family == 2 && transport < 2)
            assert(v.status == FE_PROXY_NEED_INPUT);
        else
            assert(v.status == FE_PROXY_BAD && v.decided == 13 &&
                   v.header.error == (family == 2 ? FE_PROXY_BAD_COMMAND : FE_PROXY_BAD_VERSION));
        header[12] = 0x21;
        header[13] = (unsigned char)byte;
        v = parse(header, 16);
        if (byte == 0 || (family > 0 && family < 4 && transport > 0 && transport < 3))
            assert(v.status == FE_PROXY_NEED_INPUT);
        else
            assert(v.status == FE_PROXY_BAD && v.decided == 14 &&
                   v.header.error == FE_PROXY_BAD_FAMILY);
    }
}

static void a_length_is_judged_when_it_is_there(void)
{
    static const int families[] = {0x11, 0x12, 0x21, 0x22, 0x31, 0x32};
    static const unsigned shortest[] = {12, 12, 36, 36, 216, 216};
    static unsigned char long_header[FE_PROXY_MAX + 1] = SIGNATURE "\x21\0\x0f\xf0\4\x0f\xed";
    verdict v;

    for (size_t i = 0; i < COUNT(families); i++) {
        unsigned char header[16 + 216] = SIGNATURE "\x21\0\0\0";

        header[13] = (unsigned char)families[i];
        header[15] = (unsigned char)(shortest[i] - 1);
        v = parse(header, sizeof(header));
        assert(v.header.error == FE_PROXY_TOO_SHORT && v.decided == 16);
        header[15]++;
        v = parse(header, sizeof(header));
        assert(v.status == FE_PROXY_DONE && v.decided == 16 + shortest[i]);
    }
    v = parse(long_header, sizeof(long_header));
    assert(v.status == FE_PROXY_DONE && v.decided == FE_PROXY_MAX);
    long_header[15]++;
    v = parse(long_header, 40);
    assert(v.header.error == FE_PROXY_TOO_LONG && v.decided == 16);
    long_header[12] = 0x20;
    assert(parse(long_header, 40).header.error == FE_PROXY_TOO_LONG);
    v = PARSE(SIGNATURE "\x21\x11\xff\xff");
    assert(v.header.error == FE_PROXY_TOO_LONG && v.decided == 16);
}

static void tlvs_are_found_and_others_skipped(void)
{
    static unsigned char longest[16 + 3 + 129] = SIGNATURE "\x21\0\0\x83\5\0\x80";
    verdict v = PARSE(SIGNATURE "\x21\0\0\x24" "\4\0\0" "\xff\0\1x" "\2\0\4name"
                      "\x20\0\5\1\0\0\0\0" "\5\0\2id" "\0\0\1z" "\4\0\2  ");

    assert(v.status == FE_PROXY_DONE && v.header.authority == 26 && v.header.authority_size == 4);
    assert(v.header.unique_id == 41 && v.header.unique_id_size == 2 && v.header.total == 52);
    v = PARSE(SIGNATURE "\x21\0\0\6\2\0\0\5\0\0");
    assert(v.status == FE_PROXY_DONE && v.header.authority_size + v.header.unique_id_size == 0);
    v = parse(longest, sizeof(longest) - 1);
    assert(v.status == FE_PROXY_DONE && v.header.unique_id_size == 128);
    longest[15]++;
    longest[18]++;
    v = parse(longest, sizeof(longest));
    assert(v.header.error == FE_PROXY_BAD_TLV && v.decided == sizeof(longest));
    longest[16] = 2;
    assert(parse(longest, sizeof(longest)).header.authority_size == 129);
}

static void wrong_tlvs_are_refused(void)
{
    static const struct {
        size_t size;
        const char *tlvs;
    } wrong[] = {{1, "\4"}, {2, "\4\0"}, {3, "\4\0\1"}, {4, "\2\0\2a"}, {4, "\4\0\0\4"},
                 {5, "\4\0\0\4\0"}, {7, "\4\0\1x\4\0\1"}, {3, "\4\xff\xff"},
                 {6, "\2\0\0\2\0\0"}, {6, "\5\0\0\5\0\0"}, {14, "\3\0\4\0\0\0\0\3\0\4\0\0\0\0"},
                 {3, "\3\0\0"}, {6, "\3\0\3\0\0\0"}, {8, "\3\0\5\0\0\0\0\0"}};

    for (size_t i = 0; i < COUNT(wrong); i++) {
        unsigned char header[16 + 16] = SIGNATURE "\x21\0\0\0";
        verdict v;

        header[15] = (unsigned char)wrong[i].size;
        memcpy(header + 16, wrong[i].tlvs, wrong[i].size);
        v = parse(header, sizeof(header));
        assert(v.status == FE_PROXY_BAD && v.header.error == FE_PROXY_BAD_TLV);
        assert(v.decided == 16 + wrong[i].size);
    }
}

/* As haproxy 2.6.12 sent them: send-proxy-v2, proxy-v2-options crc32c and unique-id; to which a
 * peer on a Unix socket, or a health check, has no addresses that it could tell. */
static const char of_ipv4[] = SIGNATURE "\x21\x11\0\x24\x7f\0\0\1\x7f\0\0\1\x9c\x9c\xe5\x9b"
                              "\3\0\4\x5d\x9d\xad\x9a\5\0\x0eid-127.0.0.1-6x";
static const char of_ipv6[] = SIGNATURE
    "\x21\x21\0\x36\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\xa4\x6c\xec\x73"
    "\3\0\4\x73\xdb\xff\x6e\5\0\x08id-::1-7x";
static const char of_check[] = SIGNATURE "\x20\0\0\7\3\0\4\xa9\xb8\x7e\x8fx";

static void headers_of_haproxy_are_understood(void)
{
    verdict v = PARSE(of_ipv4);

    assert(v.status == FE_PROXY_DONE && v.header.has_checksum && v.header.source_port == 40092);
    assert(v.header.destination_port == 58779 && memcmp(v.header.source, "\x7f\0\0\1", 5) == 0);
    assert(v.header.unique_id_size == 14 && v.header.total == sizeof(of_ipv4) - 2);
    assert(memcmp(of_ipv4 + v.header.unique_id, "id-127.0.0.1-6", 14) == 0);
    v = PARSE(of_ipv6);
    assert(v.status == FE_PROXY_DONE && v.header.has_checksum && v.header.source_port == 42092);
    assert(v.header.source[15] == 1 && v.header.total == sizeof(of_ipv6) - 2);
    v = PARSE(of_check);
    assert(v.status == FE_PROXY_DONE && v.header.is_local && !v.header.has_checksum);
    assert(v.header.total == sizeof(of_check) - 2);
    v = PARSE("PROXY TCP6 ::1 ::1 35966 37365\r\nx");
    assert(v.status == FE_PROXY_DONE && v.header.destination_port == 37365);
}

static void a_checksum_covers_every_bit(void)
{
    for (size_t byte = 16; byte < sizeof(of_ipv4) - 2; byte++)
        for (int bit = 0; bit < 8; bit++) {
            unsigned char changed[sizeof(of_ipv4)];
            verdict v;

            if ((byte >= 28 && byte < 31) || (byte >= 35 && byte < 38))
                continue; /* types and lengths of TLVs */
            memcpy(changed, of_ipv4, sizeof(of_ipv4));
            changed[byte] ^= (unsigned char)(1 << bit);
            v = parse(changed, sizeof(of_ipv4) - 2);
            assert(v.header.error == FE_PROXY_BAD_CHECKSUM);
            assert(v.decided == sizeof(of_ipv4) - 2 && !v.header.has_checksum);
        }
}

static void a_signature_is_seen_when_it_is_whole(void)
{
    static const unsigned char two[] = "\r\n\r\n\0\r\nQUIT\nx", one[] = "PROXY x";

    for (size_t n = 0; n < sizeof(two); n++)
        assert(fe_proxy_is_signed(two, n) == (n >= 12));
    for (size_t n = 0; n < sizeof(one); n++)
        assert(fe_proxy_is_signed(one, n) == (n >= 6));
    assert(!fe_proxy_is_signed((const unsigned char *)"PROXY\tTCP4 1.2", 12));
    assert(!fe_proxy_is_signed((const unsigned char *)"\r\n\r\n\0\r\nQUIT ", 12));
}

int main(void)
{
    a_signature_is_seen_when_it_is_whole();
    names_are_short_and_all_different();
    what_begins_otherwise_is_absent_at_once();
    a_line_tells_addresses_and_ports();
    unknown_ignores_what_is_before_the_line_end();
    a_wrong_line_is_refused_at_its_first_wrong_byte();
    binary_addresses_are_taken_as_they_are();
    local_and_unspecified_have_no_addresses();
    a_wrong_binary_header_is_refused_at_its_first_wrong_byte();
    a_length_is_judged_when_it_is_there();
    tlvs_are_found_and_others_skipped();
    wrong_tlvs_are_refused();
    headers_of_haproxy_are_understood();
    a_checksum_covers_every_bit();
    return 0;
}
