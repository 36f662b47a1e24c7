/* Fuzz target: the line by which a server says who answers is JSON in printable ASCII, no longer
 * than it may be, says exactly what is known of a connection, and is read by who expects it.
 *
 * The first byte says where the PROXY header comes from: none, bytes as they are behind a
 * signature, or written from decisions. What a header means is src_c/proxy.h's to say, and another
 * target's to compare.
 */
#define _DEFAULT_SOURCE
#include "input.h"
#include "json.h"

#include <arpa/inet.h>
#include <stdio.h>

#include "../c/proxies.h"
#include "identify.h"
#include "load_greeting.h"

static const char head[] = "{\"fastecho\":\"0\",\"instance\":\"web-1\",\"host\":\"\"";

/* --- a reader that wants certain things in a certain order --- */

typedef struct reader {
    const unsigned char *at;
    const unsigned char *end;
} reader;

static int starts(const reader *r, const char *text)
{
    return (size_t)(r->end - r->at) >= strlen(text) && memcmp(r->at, text, strlen(text)) == 0;
}

static void want(reader *r, const char *text)
{
    assert(starts(r, text));
    r->at += strlen(text);
}

static void want_number(reader *r, uint64_t number)
{
    char text[32];

    snprintf(text, sizeof(text), "%llu", (unsigned long long)number);
    want(r, text);
}

/* Bytes up to the quote that ends the string, escapes undone. */
static void want_bytes(reader *r, const unsigned char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char escape[8];

        snprintf(escape, sizeof(escape), "\\u%04x", bytes[i]);
        if (*r->at == '\\') {
            want(r, escape);
        } else {
            assert(*r->at == bytes[i] && *r->at != '"');
            r->at++;
        }
    }
    want(r, "\"");
}

/* HOST:PORT, the host as libc reads it. */
static void want_host(reader *r, const unsigned char *address, int is_ipv6, unsigned port)
{
    static const unsigned char mapped[12] = {[10] = 255, [11] = 255};
    int is_written_ipv6 = is_ipv6 && memcmp(address, mapped, 12) != 0;
    const char *stops = is_written_ipv6 ? "]" : ":";
    unsigned char back[16];
    char host[64];
    size_t n = 0;

    want(r, is_written_ipv6 ? "\"[" : "\"");
    while (*r->at != (unsigned char)*stops && n + 1 < sizeof(host))
        host[n++] = (char)*r->at++;
    host[n] = 0;
    assert(inet_pton(is_written_ipv6 ? AF_INET6 : AF_INET, host, back) == 1);
    if (is_written_ipv6)
        assert(memcmp(back, address, 16) == 0);
    else
        assert(memcmp(back, address + (is_ipv6 ? 12 : 0), 4) == 0);
    want(r, is_written_ipv6 ? "]:" : ":");
    want_number(r, port);
    want(r, "\"");
}

static void want_claimed(reader *r, const fe_proxy *p, const unsigned char *address, unsigned port)
{
    size_t n = 0;

    if (p->is_local || p->family == FE_PROXY_UNKNOWN) {
        want(r, "null");
    } else if (p->family == FE_PROXY_UNIX) {
        while (n < 108 && address[n] != 0)
            n++;
        want(r, "\"unix:");
        want_bytes(r, address, n);
    } else {
        want_host(r, address, p->family == FE_PROXY_INET6, port);
    }
}

static void want_proxy(reader *r, const fe_proxy *p, const unsigned char *header)
{
    want(r, p->version == 1 ? "{\"version\":1,\"command\":" : "{\"version\":2,\"command\":");
    want(r, p->is_local ? "\"LOCAL\",\"destination\":" : "\"PROXY\",\"destination\":");
    want_claimed(r, p, p->destination, p->destination_port);
    if (p->authority_size > 0) {
        want(r, ",\"authority\":\"");
        want_bytes(r, header + p->authority, p->authority_size < 255 ? p->authority_size : 255);
    }
    if (p->unique_id_size > 0) {
        want(r, ",\"unique_id\":\"");
        for (uint32_t i = 0; i < p->unique_id_size; i++) {
            char hex[4];
            snprintf(hex, sizeof(hex), "%02x", header[p->unique_id + i]);
            want(r, hex);
        }
        want(r, "\"");
    }
    if (p->has_checksum)
        want(r, ",\"checksum\":true");
    want(r, "}");
}

static void want_identity(reader *r, const fe_identity *of)
{
    char uptime[48];

    want(r, ",\"worker\":");
    want_number(r, of->worker);
    want(r, ",\"connection\":");
    want_number(r, of->number);
    want(r, ",\"seen\":");
    if (of->seen == NULL)
        want(r, "null");
    else
        want_host(r, of->seen, of->seen_is_ipv6, of->seen_port);
    want(r, ",\"claimed\":");
    if (of->proxy == NULL) {
        want(r, "null,\"proxy\":null");
    } else {
        want_claimed(r, of->proxy, of->proxy->source, of->proxy->source_port);
        want(r, ",\"proxy\":");
        want_proxy(r, of->proxy, of->header);
    }
    snprintf(uptime, sizeof(uptime), ",\"uptime_s\":%llu.%03u}\n",
             (unsigned long long)(of->uptime_ms / 1000), (unsigned)(of->uptime_ms % 1000));
    want(r, uptime);
    assert(r->at == r->end);
}

/* --- the input --- */

/* A header from decisions. Result: its size; 0: there is none like that. */
static size_t write_header(input *in, unsigned char *out)
{
    unsigned char texts[400 + 128];
    unsigned flags = take(in), authority = (unsigned)take_number(in, 2) % 400, unique_id = take(in);
    fe_proxy p;

    memset(&p, 0, sizeof(p));
    p.version = 1 + flags % 2;
    p.is_local = (flags & 12) == 12;
    p.family = flags >> 4 & 3;
    p.has_checksum = flags >> 6 & p.version >> 1 & !p.is_local & 1;
    if (p.version == 2 && !p.is_local) {
        p.authority_size = authority;
        p.unique_id_size = unique_id % 129;
    }
    p.source_port = (uint16_t)take_number(in, 2);
    p.destination_port = (uint16_t)take_number(in, 2);
    for (size_t i = 0; i < FE_PROXY_PATH_MAX; i++) {
        /* A zero would end a path, as would the input's end: half of all have none. */
        p.source[i] = in->left || flags & 128 ? take(in) | flags >> 7 : 0;
        p.destination[i] = in->left || flags & 128 ? take(in) | flags >> 7 : 0;
    }
    for (size_t i = 0; i < sizeof(texts); i++)
        texts[i] = take(in);
    return fe_proxy_write(&p, texts, texts + 400, out, FE_PROXY_MAX);
}

/* Bytes behind a signature; the length of version 2 is made that of what follows. */
static size_t raw_header(input *in, int version, unsigned char *out)
{
    size_t n = version == 1 ? 6 : 12;

    memcpy(out, version == 1 ? "PROXY " : SIGNATURE, n);
    while (in->left > 0 && n < FE_PROXY_MAX)
        out[n++] = take(in);
    if (version == 2 && n >= 16) {
        out[14] = (unsigned char)((n - 16) >> 8);
        out[15] = (unsigned char)(n - 16);
    }
    return n;
}

/* A number whose size is anything. */
static uint64_t take_any(input *in)
{
    return take_number(in, 1 + take(in) % 8);
}

static void write_and_read(const fe_identity *of)
{
    unsigned char *out = malloc(FE_IDENTIFY_MAX), line[sizeof(head) + FE_IDENTIFY_MAX];
    size_t n = fe_identify_write(of, out), whole = sizeof(head) - 1 + n, size;
    const uint8_t *value;
    fe_json_text name;
    reader r = {out, out + n};

    assert(out != NULL && n <= FE_IDENTIFY_MAX);
    want_identity(&r, of);
    for (size_t i = 0; i < n - 1; i++)
        assert(out[i] >= 0x20 && out[i] <= 0x7e);
    memcpy(line, head, sizeof(head) - 1);
    memcpy(line + sizeof(head) - 1, out, n);
    assert(json_object(line, whole, "instance", &value, &size));
    assert(size == 7 && memcmp(value, "\"web-1\"", 7) == 0);
    assert(fe_greeting_size(line, whole) == (int)whole);
    assert(fe_greeting_name(line, whole, &name));
    assert(name.size == 5 && memcmp(name.bytes, "web-1", 5) == 0);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    input in = {bytes, size < INPUT_MAX ? size : INPUT_MAX};
    unsigned how = take(&in);
    unsigned char seen[16], raw[FE_PROXY_MAX], *header;
    fe_identity of;
    fe_proxy proxy;
    size_t n = 0;

    memset(&of, 0, sizeof(of));
    of.number = take_any(&in);
    of.uptime_ms = take_any(&in);
    of.worker = (uint32_t)take_any(&in);
    of.seen_port = (uint16_t)take_any(&in);
    if (how & 4) {
        of.seen = seen;
        of.seen_is_ipv6 = how >> 3 & 1;
        for (int i = 0; i < 16; i++)
            seen[i] = how & 16 && i < 12 ? (i < 10 ? 0 : 255) : take(&in);
    }
    if (how % 4 == 1 || how % 4 == 2)
        n = raw_header(&in, how % 4, raw);
    else if (how % 4 == 3)
        n = write_header(&in, raw);
    header = malloc(n + 1);
    assert(header != NULL);
    memcpy(header + 1, raw, n);
    if (n > 0 && fe_proxy_parse(header + 1, n, &proxy) == FE_PROXY_DONE) {
        of.proxy = &proxy;
        of.header = header + 1;
    }
    write_and_read(&of);
    free(header);
    return 0;
}
