/* The PROXY protocol, versions 1 and 2: between whom a connection is, as a proxy says it.
 *
 * Lives here: the header at the start of a stream, read and written. Does not live here: who may
 * send one (networks.h), and what follows from it.
 *
 * The rules are those of haproxy's doc/proxy-protocol.txt (2020/03/05). It is read from left to
 * right, and nothing is decided by a byte that has not come: whatever the stream is cut into, it
 * is the same header, or the same error, found at the first byte that cannot be right (in the text
 * of an address: at its end; in what follows version 2's length: at the end of the header).
 *
 * Where the specification leaves a choice:
 *   v1  "UNKNOWN" is followed by CRLF, or by a space and anything up to the first CRLF; a lone CR
 *       or LF there is ignored like the rest, and ends nothing.
 *   v1  An IPv6 address may end as an IPv4 address (::ffff:192.0.2.1): inet_ntop, which senders
 *       use, writes that. "::" stands for one group of zeros or more. No scope, no prefix.
 *   v1  Is never LOCAL: a line that says UNKNOWN has is_local 0.
 *   v2  LOCAL is to be accepted and thrown away, its family too. So nothing behind its length is
 *       read, not even the checksum that haproxy puts there: without a family, nobody knows where
 *       the TLVs begin.
 *   v2  Of families and transports, the seven pairs that the specification expects are taken. One
 *       half UNSPEC is refused: nobody says how long its addresses are. UNSPEC (00) has none, so
 *       TLVs begin at once.
 *   v2  TLVs must end where the header ends. Of authority, checksum and unique ID there is one at
 *       the most, a checksum has 4 bytes (big-endian, as haproxy writes it), a unique ID 128 at
 *       the most. Others are skipped, whatever is in them.
 */
#ifndef FASTECHO_PROXY_H
#define FASTECHO_PROXY_H

#include "address_text.h"
#include "crc32c.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum fe_proxy_status {
    /* A whole header, and right. */
    FE_PROXY_DONE = 0,
    /* The bytes so far can become a header. */
    FE_PROXY_NEED_INPUT,
    /* The bytes are no header: neither signature. */
    FE_PROXY_ABSENT,
    /* A signature, and then what must not follow. */
    FE_PROXY_BAD
};

enum fe_proxy_error {
    FE_PROXY_NO_ERROR = 0,
    /* v1: 107 bytes without CRLF. v2: more than FE_PROXY_MAX. */
    FE_PROXY_TOO_LONG,
    FE_PROXY_BAD_VERSION,
    FE_PROXY_BAD_COMMAND,
    /* Family or transport. */
    FE_PROXY_BAD_FAMILY,
    FE_PROXY_BAD_ADDRESS,
    FE_PROXY_BAD_PORT,
    /* v1: no CRLF where it must be, a space too many, a field too few. */
    FE_PROXY_BAD_LINE,
    /* v2: its length is below that of the family's addresses. */
    FE_PROXY_TOO_SHORT,
    FE_PROXY_BAD_TLV,
    FE_PROXY_BAD_CHECKSUM,
    /* What the receiver finds: other bytes came, the peer's FIN, or nothing in time. */
    FE_PROXY_MISSING,
    FE_PROXY_CUT_OFF,
    FE_PROXY_LATE,
    FE_PROXY_ERRORS
};

/* What a log line says of an error; error < FE_PROXY_ERRORS. */
static inline const char *fe_proxy_error_name(int error)
{
    static const char *const names[FE_PROXY_ERRORS] = {
        [FE_PROXY_NO_ERROR] = "nothing is wrong with it",
        [FE_PROXY_TOO_LONG] = "it is too long",
        [FE_PROXY_BAD_VERSION] = "its version is neither 1 nor 2",
        [FE_PROXY_BAD_COMMAND] = "its command is neither LOCAL nor PROXY",
        [FE_PROXY_BAD_FAMILY] = "its address family or transport is unknown",
        [FE_PROXY_BAD_ADDRESS] = "an address in it is wrong",
        [FE_PROXY_BAD_PORT] = "a port in it is wrong",
        [FE_PROXY_BAD_LINE] = "its line has wrong spaces or no CRLF",
        [FE_PROXY_TOO_SHORT] = "it is shorter than its addresses",
        [FE_PROXY_BAD_TLV] = "a TLV in it is wrong",
        [FE_PROXY_BAD_CHECKSUM] = "its checksum is wrong",
        [FE_PROXY_MISSING] = "there is none",
        [FE_PROXY_CUT_OFF] = "it is cut off",
        [FE_PROXY_LATE] = "it did not come in time"};
    return names[error];
}

enum {
    /* Bytes of a header, at the most. Version 1 ends at 107. Version 2 has 16, 216 for the longest
     * addresses, and TLVs, for which its length would allow 64 KiB: a name (255), a unique ID
     * (128) and what a proxy says of TLS and a client's certificate fit many times. The
     * specification wants all of it in 536 bytes; nginx stops at 4096 as well. */
    FE_PROXY_MAX = 4096,
    /* Bytes of version 1's line with its CRLF, at the most. */
    FE_PROXY_LINE_MAX = 107,
    /* Bytes of version 2 before its addresses. */
    FE_PROXY_FIXED = 16,
    /* Bytes of a Unix address. */
    FE_PROXY_PATH_MAX = 108,
    FE_PROXY_UNIQUE_ID_MAX = 128
};

enum fe_proxy_family {
    /* v1's UNKNOWN, v2's AF_UNSPEC and LOCAL: the addresses are those of the socket. */
    FE_PROXY_UNKNOWN = 0,
    FE_PROXY_INET,
    FE_PROXY_INET6,
    FE_PROXY_UNIX
};

/* The TLVs that are looked at. */
enum fe_proxy_tlv {
    FE_PROXY_TLV_AUTHORITY = 0x02,
    FE_PROXY_TLV_CRC32C = 0x03,
    FE_PROXY_TLV_UNIQUE_ID = 0x05
};

typedef struct fe_proxy {
    /* 1 or 2; with FE_PROXY_BAD as well. */
    uint8_t version;
    /* v2's LOCAL: the proxy's own connection, such as a health check. */
    uint8_t is_local;
    /* enum fe_proxy_family. */
    uint8_t family;
    /* v2's DGRAM. */
    uint8_t is_datagram;
    /* v2's CRC32c was there, and right. */
    uint8_t has_checksum;
    /* enum fe_proxy_error, with FE_PROXY_BAD. */
    uint8_t error;
    /* Host byte order; 0 for Unix addresses. */
    uint16_t source_port;
    uint16_t destination_port;
    /* 4, 16 or 108 bytes in network byte order, and zeros. */
    unsigned char source[FE_PROXY_PATH_MAX];
    unsigned char destination[FE_PROXY_PATH_MAX];
    /* Bytes of the header. */
    uint32_t total;
    /* Offset and bytes in the header; size 0: none. */
    uint32_t authority;
    uint32_t authority_size;
    uint32_t unique_id;
    uint32_t unique_id_size;
} fe_proxy;

/* Version 2's 12 bytes; version 1 begins with "PROXY ". */
static inline const unsigned char *fe_proxy_signature(void)
{
    static const unsigned char bytes[12] = {'\r', '\n', '\r', '\n', 0,   '\r',
                                            '\n', 'Q',  'U',  'I',  'T', '\n'};
    return bytes;
}

static inline uint16_t fe_proxy_get16(const unsigned char *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static inline void fe_proxy_put16(unsigned char *p, size_t value)
{
    p[0] = (unsigned char)(value >> 8);
    p[1] = (unsigned char)value;
}

/* Bytes of one address of a family. */
static inline size_t fe_proxy_address_size(int family)
{
    static const uint8_t sizes[] = {
        [FE_PROXY_UNKNOWN] = 0, [FE_PROXY_INET] = 4, [FE_PROXY_INET6] = 16,
        [FE_PROXY_UNIX] = FE_PROXY_PATH_MAX};
    return sizes[family];
}

static inline int fe_proxy_has_ports(int family)
{
    return family == FE_PROXY_INET || family == FE_PROXY_INET6;
}

/* Bytes of both addresses and both ports. */
static inline size_t fe_proxy_addresses_size(int family)
{
    return 2 * fe_proxy_address_size(family) + (fe_proxy_has_ports(family) ? 4 : 0);
}

/* --- reading version 1. Results: enum fe_proxy_error, or: --- */

/* What has come may be right, but is not all. */
#define FE_PROXY_RAN_OUT (-1)

typedef struct fe_proxy_line {
    const unsigned char *in;
    /* Bytes that have come, at most FE_PROXY_LINE_MAX. */
    size_t size;
    /* Bytes that were read. */
    size_t at;
} fe_proxy_line;

static inline int fe_proxy_is_blank(unsigned char byte)
{
    return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

/* Reads a field of one to `most` of these letters, and the byte that ends it: afterwards the field
 * ends at l->at - 1. A blank elsewhere is FE_PROXY_BAD_LINE, any other byte `error`. */
static inline int fe_proxy_field(fe_proxy_line *l, const char *letters, size_t most,
                                 unsigned char end, int error)
{
    for (size_t n = 0; l->at < l->size; n++) {
        unsigned char byte = l->in[l->at++];

        if (byte == end && n > 0)
            return FE_PROXY_NO_ERROR;
        if (fe_proxy_is_blank(byte))
            return FE_PROXY_BAD_LINE;
        if (n == most || memchr(letters, byte, strlen(letters)) == NULL)
            return error;
    }
    return FE_PROXY_RAN_OUT;
}

static inline int fe_proxy_line_address(fe_proxy_line *l, int family, unsigned char *address)
{
    const unsigned char *text = l->in + l->at;
    int is_ipv4 = family == FE_PROXY_INET, is_right;
    int error = fe_proxy_field(l, is_ipv4 ? "0123456789." : "0123456789abcdefABCDEF:.",
                               is_ipv4 ? FE_IPV4_TEXT_MAX : FE_IPV6_READ_MAX, ' ',
                               FE_PROXY_BAD_ADDRESS);
    size_t n = (size_t)(l->in + l->at - text);

    if (error != FE_PROXY_NO_ERROR)
        return error;
    is_right = is_ipv4 ? fe_read_ipv4(text, n - 1, address) : fe_read_ipv6(text, n - 1, address);
    return is_right ? FE_PROXY_NO_ERROR : FE_PROXY_BAD_ADDRESS;
}

static inline int fe_proxy_line_port(fe_proxy_line *l, unsigned char end, uint16_t *port)
{
    const unsigned char *text = l->in + l->at;
    int error = fe_proxy_field(l, "0123456789", 5, end, FE_PROXY_BAD_PORT);
    uint32_t value;

    if (error != FE_PROXY_NO_ERROR)
        return error;
    if (!fe_read_decimal(text, (size_t)(l->in + l->at - text) - 1, 65535, &value))
        return FE_PROXY_BAD_PORT;
    *port = (uint16_t)value;
    return FE_PROXY_NO_ERROR;
}

static inline int fe_proxy_line_end(fe_proxy_line *l, fe_proxy *out)
{
    if (l->at == l->size)
        return FE_PROXY_RAN_OUT;
    if (l->in[l->at] != '\n')
        return FE_PROXY_BAD_LINE;
    out->total = (uint32_t)l->at + 1;
    return FE_PROXY_NO_ERROR;
}

/* The name of the family, with the byte behind it that says whether more follows. */
static inline int fe_proxy_line_family(fe_proxy_line *l, fe_proxy *out)
{
    static const struct {
        char name[8];
        uint8_t size;
        uint8_t family;
    } families[] = {{"TCP4", 4, FE_PROXY_INET},
                    {"TCP6", 4, FE_PROXY_INET6},
                    {"UNKNOWN", 7, FE_PROXY_UNKNOWN}};
    const unsigned char *text = l->in + l->at;
    size_t n = l->size - l->at;

    if (n == 0)
        return FE_PROXY_RAN_OUT;
    if (fe_proxy_is_blank(text[0]))
        return FE_PROXY_BAD_LINE;
    for (int i = 0; i < 3; i++) {
        size_t size = families[i].size;

        if (memcmp(text, families[i].name, n < size ? n : size) != 0)
            continue;
        if (n <= size)
            return FE_PROXY_RAN_OUT;
        if (text[size] != ' ' && (text[size] != '\r' || families[i].family != FE_PROXY_UNKNOWN))
            return fe_proxy_is_blank(text[size]) ? FE_PROXY_BAD_LINE : FE_PROXY_BAD_FAMILY;
        out->family = families[i].family;
        l->at += size + 1;
        return FE_PROXY_NO_ERROR;
    }
    return FE_PROXY_BAD_FAMILY;
}

static inline int fe_proxy_read_line(fe_proxy_line *l, fe_proxy *out)
{
    int error = fe_proxy_line_family(l, out);

    if (error != FE_PROXY_NO_ERROR)
        return error;
    if (out->family == FE_PROXY_UNKNOWN) {
        if (l->in[l->at - 1] == '\r')
            return fe_proxy_line_end(l, out);
        for (; l->at + 1 < l->size; l->at++)
            if (l->in[l->at] == '\r' && l->in[l->at + 1] == '\n') {
                l->at++;
                return fe_proxy_line_end(l, out);
            }
        return FE_PROXY_RAN_OUT;
    }
    if ((error = fe_proxy_line_address(l, out->family, out->source)) != FE_PROXY_NO_ERROR ||
        (error = fe_proxy_line_address(l, out->family, out->destination)) != FE_PROXY_NO_ERROR ||
        (error = fe_proxy_line_port(l, ' ', &out->source_port)) != FE_PROXY_NO_ERROR ||
        (error = fe_proxy_line_port(l, '\r', &out->destination_port)) != FE_PROXY_NO_ERROR)
        return error;
    return fe_proxy_line_end(l, out);
}

/* --- reading version 2. Results as above --- */

/* Compares the checksum at in + field with that of the header, in which it counts as zeros. */
static inline int fe_proxy_checksum_is_right(const unsigned char *in, size_t field, size_t total)
{
    static const unsigned char zeros[4] = {0};
    uint32_t crc = fe_crc32c(0, in, field);

    crc = fe_crc32c(crc, zeros, 4);
    crc = fe_crc32c(crc, in + field + 4, total - field - 4);
    return crc == ((uint32_t)fe_proxy_get16(in + field) << 16 | fe_proxy_get16(in + field + 2));
}

/* Walks through the TLVs from `at` to the end of the header. */
static inline int fe_proxy_read_tlvs(const unsigned char *in, size_t at, size_t total,
                                     fe_proxy *out)
{
    size_t checksum = 0;
    unsigned seen = 0;

    while (at < total) {
        unsigned type = in[at], bit = 0;
        size_t size, value = at + 3;

        if (total - at < 3 || total - value < fe_proxy_get16(in + at + 1))
            return FE_PROXY_BAD_TLV;
        size = fe_proxy_get16(in + at + 1);
        if (type == FE_PROXY_TLV_AUTHORITY) {
            bit = 1;
            out->authority = (uint32_t)value;
            out->authority_size = (uint32_t)size;
        } else if (type == FE_PROXY_TLV_UNIQUE_ID) {
            bit = 2;
            out->unique_id = (uint32_t)value;
            out->unique_id_size = (uint32_t)size;
            if (size > FE_PROXY_UNIQUE_ID_MAX)
                return FE_PROXY_BAD_TLV;
        } else if (type == FE_PROXY_TLV_CRC32C) {
            bit = 4;
            checksum = value;
            if (size != 4)
                return FE_PROXY_BAD_TLV;
        }
        if (seen & bit)
            return FE_PROXY_BAD_TLV;
        seen |= bit;
        at = value + size;
    }
    out->has_checksum = checksum != 0;
    if (checksum != 0 && !fe_proxy_checksum_is_right(in, checksum, total))
        return FE_PROXY_BAD_CHECKSUM;
    return FE_PROXY_NO_ERROR;
}

/* in holds n >= 12 bytes, the first 12 of which are the signature. */
static inline int fe_proxy_read_binary(const unsigned char *in, size_t n, fe_proxy *out)
{
    const unsigned char *addresses = in + FE_PROXY_FIXED;
    size_t length, size;
    int family = 0;

    if (n < 13)
        return FE_PROXY_RAN_OUT;
    if (in[12] >> 4 != 2)
        return FE_PROXY_BAD_VERSION;
    if ((in[12] & 15) > 1)
        return FE_PROXY_BAD_COMMAND;
    out->is_local = (in[12] & 15) == 0;
    if (n < 14)
        return FE_PROXY_RAN_OUT;
    if (!out->is_local && in[13] != 0) {
        int transport = in[13] & 15;
        family = in[13] >> 4;
        if (family == 0 || family > 3 || transport == 0 || transport > 2)
            return FE_PROXY_BAD_FAMILY;
        out->is_datagram = transport == 2;
    }
    out->family = (uint8_t)family;
    if (n < FE_PROXY_FIXED)
        return FE_PROXY_RAN_OUT;
    length = fe_proxy_get16(in + 14);
    if (length > FE_PROXY_MAX - FE_PROXY_FIXED)
        return FE_PROXY_TOO_LONG;
    if (length < fe_proxy_addresses_size(family))
        return FE_PROXY_TOO_SHORT;
    out->total = (uint32_t)(FE_PROXY_FIXED + length);
    if (n < out->total)
        return FE_PROXY_RAN_OUT;
    if (out->is_local)
        return FE_PROXY_NO_ERROR;
    size = fe_proxy_address_size(family);
    memcpy(out->source, addresses, size);
    memcpy(out->destination, addresses + size, size);
    if (fe_proxy_has_ports(family)) {
        out->source_port = fe_proxy_get16(addresses + 2 * size);
        out->destination_port = fe_proxy_get16(addresses + 2 * size + 2);
    }
    return fe_proxy_read_tlvs(in, FE_PROXY_FIXED + fe_proxy_addresses_size(family), out->total,
                              out);
}

/* Whether in[0..n) begins by a whole signature: it is a header or a broken one, and nothing else. */
static inline int fe_proxy_is_signed(const unsigned char *in, size_t n)
{
    return (n >= 6 && memcmp(in, "PROXY ", 6) == 0) ||
           (n >= 12 && memcmp(in, fe_proxy_signature(), 12) == 0);
}

/* Reads the header at the start of in[0..n), all that has come of a stream; called again with
 * more of it, from its start. Result: enum fe_proxy_status. *out holds the header with
 * FE_PROXY_DONE, version and error with FE_PROXY_BAD, and zeros otherwise. */
static inline int fe_proxy_parse(const unsigned char *in, size_t n, fe_proxy *out)
{
    fe_proxy_line line = {in, n < FE_PROXY_LINE_MAX ? n : FE_PROXY_LINE_MAX, 6};
    uint8_t version;
    int error;

    memset(out, 0, sizeof(*out));
    if (n == 0)
        return FE_PROXY_NEED_INPUT;
    if (memcmp(in, "PROXY ", n < 6 ? n : 6) == 0) {
        if (n < 6)
            return FE_PROXY_NEED_INPUT;
        out->version = 1;
        error = fe_proxy_read_line(&line, out);
        if (error == FE_PROXY_RAN_OUT && n >= FE_PROXY_LINE_MAX)
            error = FE_PROXY_TOO_LONG;
    } else if (memcmp(in, fe_proxy_signature(), n < 12 ? n : 12) == 0) {
        if (n < 12)
            return FE_PROXY_NEED_INPUT;
        out->version = 2;
        error = fe_proxy_read_binary(in, n, out);
    } else {
        return FE_PROXY_ABSENT;
    }
    if (error == FE_PROXY_NO_ERROR)
        return FE_PROXY_DONE;
    version = out->version;
    memset(out, 0, sizeof(*out));
    if (error == FE_PROXY_RAN_OUT)
        return FE_PROXY_NEED_INPUT;
    out->version = version;
    out->error = (uint8_t)error;
    return FE_PROXY_BAD;
}

/* --- writing --- */

/* Writes the line. Result: one behind its last byte; at most FE_PROXY_LINE_MAX bytes. */
static inline unsigned char *fe_proxy_put_line(unsigned char *out, const fe_proxy *p)
{
    int is_ipv4 = p->family == FE_PROXY_INET;

    memcpy(out, "PROXY UNKNOWN\r\n", 15);
    if (p->is_local || p->is_datagram || !fe_proxy_has_ports(p->family))
        return out + 15;
    memcpy(out + 6, is_ipv4 ? "TCP4 " : "TCP6 ", 5);
    out += 11;
    out = is_ipv4 ? fe_write_ipv4(out, p->source) : fe_write_ipv6(out, p->source);
    *out++ = ' ';
    out = is_ipv4 ? fe_write_ipv4(out, p->destination) : fe_write_ipv6(out, p->destination);
    *out++ = ' ';
    out = fe_write_decimal(out, p->source_port);
    *out++ = ' ';
    out = fe_write_decimal(out, p->destination_port);
    *out++ = '\r';
    *out++ = '\n';
    return out;
}

/* Writes a TLV. Result: one behind it. */
static inline unsigned char *fe_proxy_put_tlv(unsigned char *out, int type,
                                              const unsigned char *value, size_t size)
{
    out[0] = (unsigned char)type;
    fe_proxy_put16(out + 1, size);
    memcpy(out + 3, value, size);
    return out + 3 + size;
}

/* Writes version 2's `total` bytes. */
static inline void fe_proxy_put_binary(unsigned char *out, size_t total, const fe_proxy *p,
                                       int family, const unsigned char *authority,
                                       const unsigned char *unique_id)
{
    size_t size = fe_proxy_address_size(family);
    unsigned char *at = out + FE_PROXY_FIXED;

    memcpy(out, fe_proxy_signature(), 12);
    out[12] = p->is_local ? 0x20 : 0x21;
    out[13] = (unsigned char)(family == FE_PROXY_UNKNOWN ? 0
                                                         : family << 4 | (p->is_datagram ? 2 : 1));
    fe_proxy_put16(out + 14, total - FE_PROXY_FIXED);
    memcpy(at, p->source, size);
    memcpy(at + size, p->destination, size);
    if (fe_proxy_has_ports(family)) {
        fe_proxy_put16(at + 2 * size, p->source_port);
        fe_proxy_put16(at + 2 * size + 2, p->destination_port);
    }
    at += fe_proxy_addresses_size(family);
    if (p->authority_size > 0)
        at = fe_proxy_put_tlv(at, FE_PROXY_TLV_AUTHORITY, authority, p->authority_size);
    if (p->unique_id_size > 0)
        at = fe_proxy_put_tlv(at, FE_PROXY_TLV_UNIQUE_ID, unique_id, p->unique_id_size);
    if (p->has_checksum) {
        uint32_t crc;
        at = fe_proxy_put_tlv(at, FE_PROXY_TLV_CRC32C, (const unsigned char *)"\0\0\0", 4);
        crc = fe_crc32c(0, out, total);
        fe_proxy_put16(at - 4, crc >> 16);
        fe_proxy_put16(at - 2, crc);
    }
}

/* Writes the header that fe_proxy_parse reads as *p. Of p count version, is_local, family,
 * is_datagram, addresses and ports; in version 2 also has_checksum, to add one, and
 * authority_size and unique_id_size, bytes at authority and unique_id (NULL with 0).
 *
 * What is LOCAL has no family: version 2's LOCAL is 16 bytes. Version 1 knows only TCP: anything
 * else, and what is LOCAL, becomes "PROXY UNKNOWN", as the specification has it.
 *
 * Result: bytes written to out, or 0 and none: more than room or FE_PROXY_MAX, a version or family
 * that there is not, a unique ID of more than 128 bytes, or a checksum, authority or unique ID in
 * version 1 or a LOCAL, which have no place for it. */
static inline size_t fe_proxy_write(const fe_proxy *p, const unsigned char *authority,
                                    const unsigned char *unique_id, unsigned char *out,
                                    size_t room)
{
    int family = p->is_local ? FE_PROXY_UNKNOWN : p->family;
    int has_tlvs = p->authority_size > 0 || p->unique_id_size > 0 || p->has_checksum;
    unsigned char line[FE_PROXY_LINE_MAX];
    size_t total;

    if (p->version < 1 || p->version > 2 || p->family > FE_PROXY_UNIX)
        return 0;
    if (has_tlvs && (p->version == 1 || p->is_local))
        return 0;
    if (p->authority_size > FE_PROXY_MAX || p->unique_id_size > FE_PROXY_UNIQUE_ID_MAX)
        return 0;
    if (p->version == 1) {
        total = (size_t)(fe_proxy_put_line(line, p) - line);
        if (total > room)
            return 0;
        memcpy(out, line, total);
        return total;
    }
    total = FE_PROXY_FIXED + fe_proxy_addresses_size(family);
    total += p->authority_size > 0 ? 3 + p->authority_size : 0;
    total += p->unique_id_size > 0 ? 3 + p->unique_id_size : 0;
    total += p->has_checksum ? 3 + 4 : 0;
    if (total > room || total > FE_PROXY_MAX)
        return 0;
    fe_proxy_put_binary(out, total, p, family, authority, unique_id);
    return total;
}

#endif
