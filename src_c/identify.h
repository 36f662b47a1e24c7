/* The line by which a server says who answers.
 *
 * Lives here: one JSON object on one line, made of what is known of a connection. Does not live
 * here: when it is sent (fastecho/_greeting.pxd), what it begins with (fastecho/identity.py: the
 * instance and its host, made once).
 *
 * What a peer or a proxy has chosen is text of theirs in a line of ours: everything but printable
 * ASCII is written as \u00XX, a byte each, so that no byte of theirs ends the string or the line.
 */
#ifndef FASTECHO_IDENTIFY_H
#define FASTECHO_IDENTIFY_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "address_text.h"
#include "proxy.h"

enum {
    /* Bytes of an authority that are shown: as long as a name in the DNS. */
    FE_IDENTIFY_AUTHORITY_MAX = 255,
    /* Bytes of the line without its head, at the most: two addresses that may be paths (each byte
     * \u00XX), the authority, the unique id in hex, names and numbers. */
    FE_IDENTIFY_MAX = 2 * 6 * FE_PROXY_PATH_MAX + 6 * FE_IDENTIFY_AUTHORITY_MAX + 2 * 128 + 512
};

/* What is said of a connection. */
typedef struct fe_identity {
    /* Its number among all accepted. */
    uint64_t number;
    /* How long the server has run. */
    uint64_t uptime_ms;
    /* The socket's peer, 4 or 16 bytes; NULL: a Unix socket's. */
    const unsigned char *seen;
    /* Its PROXY header, parsed and as it came; NULL: none. */
    const fe_proxy *proxy;
    const unsigned char *header;
    /* Index of its worker. */
    uint32_t worker;
    uint16_t seen_port;
    uint8_t seen_is_ipv6;
} fe_identity;

static inline unsigned char *fe_identify_text(unsigned char *out, const char *text)
{
    size_t n = strlen(text);

    memcpy(out, text, n);
    return out + n;
}

static inline unsigned char *fe_identify_number(unsigned char *out, uint64_t number)
{
    unsigned char digits[20];
    size_t n = 0;

    do
        digits[n++] = (unsigned char)('0' + number % 10);
    while (number /= 10);
    while (n > 0)
        *out++ = digits[--n];
    return out;
}

static inline unsigned char *fe_identify_hex(unsigned char *out, unsigned char byte)
{
    *out++ = (unsigned char)"0123456789abcdef"[byte >> 4];
    *out++ = (unsigned char)"0123456789abcdef"[byte & 15];
    return out;
}

/* Bytes of others, inside a JSON string. */
static inline unsigned char *fe_identify_bytes(unsigned char *out, const unsigned char *bytes,
                                               size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] < 0x20 || bytes[i] > 0x7e || bytes[i] == '"' || bytes[i] == '\\')
            out = fe_identify_hex(fe_identify_text(out, "\\u00"), bytes[i]);
        else
            *out++ = bytes[i];
    }
    return out;
}

/* HOST:PORT as a JSON string. address: 4 or 16 bytes; IPv4 in IPv6 is written as IPv4. */
static inline unsigned char *fe_identify_host(unsigned char *out, const unsigned char *address,
                                              int is_ipv6, uint32_t port)
{
    static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

    if (is_ipv6 && memcmp(address, mapped, sizeof(mapped)) != 0) {
        out = fe_write_ipv6(fe_identify_text(out, "\"["), address);
        out = fe_identify_text(out, "]:");
    } else {
        out = fe_identify_text(out, "\"");
        out = fe_write_ipv4(out, is_ipv6 ? address + sizeof(mapped) : address);
        out = fe_identify_text(out, ":");
    }
    return fe_identify_text(fe_write_decimal(out, port), "\"");
}

/* An address of a PROXY header; null where it tells none. */
static inline unsigned char *fe_identify_claimed(unsigned char *out, const fe_proxy *p,
                                                 const unsigned char *address, uint32_t port)
{
    const unsigned char *end;

    if (p->is_local || p->family == FE_PROXY_UNKNOWN)
        return fe_identify_text(out, "null");
    if (p->family != FE_PROXY_UNIX)
        return fe_identify_host(out, address, p->family == FE_PROXY_INET6, port);
    end = memchr(address, 0, FE_PROXY_PATH_MAX);
    out = fe_identify_text(out, "\"unix:");
    out = fe_identify_bytes(out, address, end ? (size_t)(end - address) : FE_PROXY_PATH_MAX);
    return fe_identify_text(out, "\"");
}

static inline unsigned char *fe_identify_proxy(unsigned char *out, const fe_proxy *p,
                                               const unsigned char *header)
{
    size_t authority = p->authority_size;

    out = fe_identify_number(fe_identify_text(out, "{\"version\":"), p->version);
    out = fe_identify_text(out, ",\"command\":");
    out = fe_identify_text(out, p->is_local ? "\"LOCAL\"" : "\"PROXY\"");
    out = fe_identify_text(out, ",\"destination\":");
    out = fe_identify_claimed(out, p, p->destination, p->destination_port);
    if (authority > FE_IDENTIFY_AUTHORITY_MAX)
        authority = FE_IDENTIFY_AUTHORITY_MAX;
    if (authority > 0) {
        out = fe_identify_text(out, ",\"authority\":\"");
        out = fe_identify_bytes(out, header + p->authority, authority);
        out = fe_identify_text(out, "\"");
    }
    if (p->unique_id_size > 0) {
        out = fe_identify_text(out, ",\"unique_id\":\"");
        for (uint32_t i = 0; i < p->unique_id_size; i++)
            out = fe_identify_hex(out, header[p->unique_id + i]);
        out = fe_identify_text(out, "\"");
    }
    return fe_identify_text(out, p->has_checksum ? ",\"checksum\":true}" : "}");
}

/* Writes the line behind its head, which is an object without its last brace. out has room for
 * FE_IDENTIFY_MAX bytes. Result: bytes written, the line's end included. */
static inline size_t fe_identify_write(const fe_identity *of, unsigned char *out)
{
    uint32_t ms = (uint32_t)(of->uptime_ms % 1000);
    unsigned char *p = fe_identify_text(out, ",\"worker\":");

    p = fe_identify_number(p, of->worker);
    p = fe_identify_number(fe_identify_text(p, ",\"connection\":"), of->number);
    p = fe_identify_text(p, ",\"seen\":");
    if (of->seen == NULL)
        p = fe_identify_text(p, "null");
    else
        p = fe_identify_host(p, of->seen, of->seen_is_ipv6, of->seen_port);
    p = fe_identify_text(p, ",\"claimed\":");
    if (of->proxy == NULL) {
        p = fe_identify_text(p, "null,\"proxy\":null");
    } else {
        p = fe_identify_claimed(p, of->proxy, of->proxy->source, of->proxy->source_port);
        p = fe_identify_proxy(fe_identify_text(p, ",\"proxy\":"), of->proxy, of->header);
    }
    p = fe_identify_number(fe_identify_text(p, ",\"uptime_s\":"), of->uptime_ms / 1000);
    *p++ = '.';
    *p++ = (unsigned char)('0' + ms / 100);
    *p++ = (unsigned char)('0' + ms / 10 % 10);
    *p++ = (unsigned char)('0' + ms % 10);
    p = fe_identify_text(p, "}\n");
    return (size_t)(p - out);
}

#endif
