/* Fuzz target: the PROXY protocol is read as a reader of single bytes reads it, however it is
 * cut, and what was written is read back.
 *
 * The input's first byte says what the rest is: a stream as it is, one behind either signature, one
 * whose length and checksum are made right, or what a header is to be written from. The model
 * decides after each byte, knows nothing of what follows, and checks version 2's rest by a walk of
 * its own. After each byte both must say the same: none sooner, none later.
 */
#include "input.h"

#include "../c/proxies.h"

/* A signature and length of ours, and the input. */
enum { STREAM_MAX = 16 + 4096 };

typedef struct model {
    unsigned char bytes[STREAM_MAX];
    size_t size;
    /* enum fe_proxy_status. */
    int status;
    /* v1: 0 family, 1 and 2 addresses, 3 and 4 ports, 5 LF, 6 what UNKNOWN ignores. */
    int field;
    /* What has come of a field. */
    char text[64];
    size_t length;
    fe_proxy out;
} model;

static void decide(model *m, int error)
{
    uint8_t version = m->size > 0 && m->bytes[0] == 'P' ? 1 : 2;

    if (error == FE_PROXY_NO_ERROR) {
        m->status = FE_PROXY_DONE;
        m->out.version = version;
        m->out.total = (uint32_t)m->size;
        return;
    }
    memset(&m->out, 0, sizeof(m->out));
    m->status = FE_PROXY_BAD;
    m->out.version = version;
    m->out.error = (uint8_t)error;
}

/* --- texts, as a whole --- */

/* A number without a leading zero; -1: none. */
static long number_of(const char *text)
{
    size_t n = strlen(text);

    if (n == 0 || strspn(text, "0123456789") != n || (n > 1 && *text == '0'))
        return -1;
    return strtol(text, NULL, 10);
}

static int model_ipv4(const char *text, unsigned char *out)
{
    char part[64] = "";
    size_t n = 0;
    int parts = 0;

    for (;; text++) {
        if (*text != '.' && *text != 0) {
            part[n++] = *text;
            part[n] = 0;
            continue;
        }
        if (parts == 4 || number_of(part) < 0 || number_of(part) > 255)
            return 0;
        out[parts++] = (unsigned char)number_of(part);
        part[n = 0] = 0;
        if (*text == 0)
            return parts == 4;
    }
}

/* Groups with single colons between them, appended to out. Result: bytes in out, or -1. */
static int model_groups(const char *text, size_t n, unsigned char *out, int may_be_dotted)
{
    int at = 0;
    size_t start = 0;

    if (n == 0)
        return 0;
    for (size_t i = 0; i <= n; i++) {
        char group[64];

        if (i < n && text[i] != ':')
            continue;
        memcpy(group, text + start, i - start);
        group[i - start] = 0;
        start = i + 1;
        if (strchr(group, '.') != NULL) {
            if (i < n || !may_be_dotted || !model_ipv4(group, out + at))
                return -1;
            return at + 4;
        }
        if (strlen(group) < 1 || strlen(group) > 4 ||
            strspn(group, "0123456789abcdefABCDEF") != strlen(group))
            return -1;
        out[at++] = (unsigned char)(strtol(group, NULL, 16) / 256);
        out[at++] = (unsigned char)(strtol(group, NULL, 16) % 256);
    }
    return at;
}

static int model_ipv6(const char *text, unsigned char *out)
{
    unsigned char left[128], right[128];
    const char *gap = strstr(text, "::");
    int before, behind = 0;

    before = model_groups(text, gap ? (size_t)(gap - text) : strlen(text), left, gap == NULL);
    if (gap != NULL)
        behind = model_groups(gap + 2, strlen(gap + 2), right, 1);
    if (before < 0 || behind < 0 || (gap ? before + behind > 14 : before != 16))
        return 0;
    memset(out, 0, 16);
    memcpy(out, left, (size_t)before);
    memcpy(out + 16 - behind, right, (size_t)behind);
    return 1;
}

/* --- version 1: a byte --- */

static void model_family_byte(model *m, char byte)
{
    static const char *const names[] = {"UNKNOWN", "TCP4", "TCP6"};
    static const int families[] = {FE_PROXY_UNKNOWN, FE_PROXY_INET, FE_PROXY_INET6};
    int is_blank = byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n', is_begun = 0;

    for (int i = 0; i < 3; i++) {
        if (strcmp(m->text, names[i]) == 0) {
            m->out.family = (uint8_t)families[i];
            if (byte == ' ')
                m->field = i == 0 ? 6 : 1;
            else if (byte == '\r' && i == 0)
                m->field = 5;
            else
                decide(m, is_blank ? FE_PROXY_BAD_LINE : FE_PROXY_BAD_FAMILY);
            m->length = 0;
            return;
        }
    }
    m->text[m->length++] = byte;
    m->text[m->length] = 0;
    for (int i = 0; i < 3; i++)
        is_begun |= strncmp(names[i], m->text, m->length) == 0;
    if (is_blank && m->length == 1)
        decide(m, FE_PROXY_BAD_LINE);
    else if (!is_begun)
        decide(m, FE_PROXY_BAD_FAMILY);
}

static void model_field_ends(model *m)
{
    int is_port = m->field > 2, is_ipv6 = m->out.family == FE_PROXY_INET6;
    long port = number_of(m->text);

    m->length = 0;
    if (is_port) {
        *(m->field == 3 ? &m->out.source_port : &m->out.destination_port) = (uint16_t)port;
        if (port < 0 || port > 65535)
            decide(m, FE_PROXY_BAD_PORT);
    } else if (!(is_ipv6 ? model_ipv6 : model_ipv4)(
                   m->text, m->field == 1 ? m->out.source : m->out.destination)) {
        decide(m, FE_PROXY_BAD_ADDRESS);
    }
    m->field++;
}

static void model_field_byte(model *m, char byte)
{
    int is_port = m->field > 2, is_ipv6 = m->out.family == FE_PROXY_INET6;
    size_t most = is_port ? 5 : is_ipv6 ? 45 : 15;
    const char *letters = is_port ? "0123456789" : is_ipv6 ? "0123456789abcdefABCDEF.:"
                                                           : "0123456789.";

    if (m->length > 0 && byte == (m->field == 4 ? '\r' : ' '))
        model_field_ends(m);
    else if (byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n')
        decide(m, FE_PROXY_BAD_LINE);
    else if (byte == 0 || strchr(letters, byte) == NULL || m->length == most)
        decide(m, is_port ? FE_PROXY_BAD_PORT : FE_PROXY_BAD_ADDRESS);
    else
        m->text[m->length++] = byte;
    m->text[m->length] = 0;
}

static void model_line_byte(model *m, char byte)
{
    if (m->field == 0)
        model_family_byte(m, byte);
    else if (m->field < 5)
        model_field_byte(m, byte);
    else if (m->field == 5)
        decide(m, byte == '\n' ? FE_PROXY_NO_ERROR : FE_PROXY_BAD_LINE);
    else if (byte == '\n' && m->bytes[m->size - 2] == '\r')
        decide(m, FE_PROXY_NO_ERROR);
    if (m->status == FE_PROXY_NEED_INPUT && m->size == 107)
        decide(m, FE_PROXY_TOO_LONG);
}

/* --- version 2: a byte --- */

/* CRC32c bit by bit, of a header whose checksum stands at `field`. */
static uint32_t model_checksum(const unsigned char *bytes, size_t size, size_t field)
{
    uint32_t sum = 0xffffffff;

    for (size_t i = 0; i < size; i++) {
        sum ^= i >= field && i < field + 4 ? 0 : bytes[i];
        for (int bit = 0; bit < 8; bit++)
            sum = sum & 1 ? sum >> 1 ^ 0x82f63b78 : sum >> 1;
    }
    return sum ^ 0xffffffff;
}

/* The value of the first TLV of a type, from offset at. Result: its offset, 0: none, or -1: not
 * all is TLVs. How many of that type there are goes to *count. */
static long model_find(const model *m, size_t at, int type, size_t *size, int *count)
{
    long found = 0;

    *count = 0;
    *size = 0;
    while (at != m->size) {
        size_t value = 0;

        if (at + 3 > m->size)
            return -1;
        value = (size_t)m->bytes[at + 1] * 256 + m->bytes[at + 2];
        if (at + 3 + value > m->size)
            return -1;
        if (m->bytes[at] == type && (*count)++ == 0) {
            found = (long)at + 3;
            *size = value;
        }
        at += 3 + value;
    }
    return found;
}

static int model_tlvs(model *m, size_t at)
{
    size_t size;
    int count;
    long found = model_find(m, at, 2, &size, &count);

    if (found < 0 || count > 1)
        return FE_PROXY_BAD_TLV;
    m->out.authority = (uint32_t)found;
    m->out.authority_size = (uint32_t)size;
    found = model_find(m, at, 5, &size, &count);
    if (count > 1 || size > 128)
        return FE_PROXY_BAD_TLV;
    m->out.unique_id = (uint32_t)found;
    m->out.unique_id_size = (uint32_t)size;
    found = model_find(m, at, 3, &size, &count);
    if (count > 1 || (count == 1 && size != 4))
        return FE_PROXY_BAD_TLV;
    if (count == 1) {
        uint32_t sum = model_checksum(m->bytes, m->size, (size_t)found);

        m->out.has_checksum = 1;
        for (int i = 0; i < 4; i++)
            if (m->bytes[found + i] != (sum >> (24 - 8 * i) & 255))
                return FE_PROXY_BAD_CHECKSUM;
    }
    return FE_PROXY_NO_ERROR;
}

static const size_t block_sizes[] = {0, 12, 36, 216}, address_sizes[] = {0, 4, 16, 108};

static void model_whole(model *m)
{
    const unsigned char *p = m->bytes + 16;
    size_t size = address_sizes[m->out.family];

    if (m->out.is_local) {
        decide(m, FE_PROXY_NO_ERROR);
        return;
    }
    for (size_t i = 0; i < size; i++) {
        m->out.source[i] = p[i];
        m->out.destination[i] = p[size + i];
    }
    p += 2 * size;
    if (size == 4 || size == 16) {
        m->out.source_port = (uint16_t)(p[0] * 256 + p[1]);
        m->out.destination_port = (uint16_t)(p[2] * 256 + p[3]);
    }
    decide(m, model_tlvs(m, 16 + block_sizes[m->out.family]));
}

static void model_binary_byte(model *m, unsigned char byte)
{
    static const unsigned char pairs[] = {0, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32};
    size_t length = m->size < 16 ? 0 : (size_t)m->bytes[14] * 256 + m->bytes[15];

    if (m->size == 13 && byte / 16 != 2)
        decide(m, FE_PROXY_BAD_VERSION);
    else if (m->size == 13 && byte != 0x20 && byte != 0x21)
        decide(m, FE_PROXY_BAD_COMMAND);
    else if (m->size == 13)
        m->out.is_local = byte == 0x20;
    else if (m->size == 14 && !m->out.is_local) {
        if (memchr(pairs, byte, sizeof(pairs)) == NULL) {
            decide(m, FE_PROXY_BAD_FAMILY);
            return;
        }
        m->out.family = byte / 16;
        m->out.is_datagram = byte % 16 == 2;
    } else if (m->size == 16 && length + 16 > 4096)
        decide(m, FE_PROXY_TOO_LONG);
    else if (m->size == 16 && length < block_sizes[m->out.family])
        decide(m, FE_PROXY_TOO_SHORT);
    else if (m->size >= 16 && m->size == 16 + length)
        model_whole(m);
}

static void model_byte(model *m, unsigned char byte)
{
    const char *signature = m->size > 0 && m->bytes[0] == 'P' ? "PROXY " : SIGNATURE;
    size_t n = *signature == 'P' ? 6 : 12;

    if (m->status != FE_PROXY_NEED_INPUT)
        return;
    if (m->size == 0 && byte == 'P')
        signature = "PROXY ";
    m->bytes[m->size++] = byte;
    if (m->size <= n && byte != (unsigned char)signature[m->size - 1])
        m->status = FE_PROXY_ABSENT;
    else if (m->size > n && n == 6)
        model_line_byte(m, (char)byte);
    else if (m->size > n)
        model_binary_byte(m, byte);
}

/* --- both of them --- */

static model m;

/* What a header says that is not decided yet, or is none: nothing. */
static const fe_proxy *model_says(void)
{
    static const fe_proxy nothing;

    return m.status == FE_PROXY_DONE || m.status == FE_PROXY_BAD ? &m.out : &nothing;
}

/* Feeds both byte by byte. Prefixes end where a block of memory ends: a sanitizer sees what is read
 * behind them. Few of the long ones are read, but all that can decide something. */
static void read_both(const unsigned char *bytes, size_t size)
{
    unsigned char *block = malloc(size + 1);

    assert(block != NULL);
    memset(&m, 0, sizeof(m));
    m.status = FE_PROXY_NEED_INPUT;
    for (size_t n = 0; n <= size; n++) {
        int before = m.status;
        unsigned char *copy = block + size + 1 - n;
        fe_proxy out;

        if (n > 0)
            model_byte(&m, bytes[n - 1]);
        if (n > 260 && n < size && m.status == before && n % 191 != 0)
            continue;
        if (n > 0)
            memcpy(copy, bytes, n);
        memset(&out, 0x5a, sizeof(out));
        assert(fe_proxy_parse(copy, n, &out) == m.status);
        assert(same_header(&out, model_says()));
    }
    free(block);
}

/* Makes a header's length what follows it, and its first checksum right. */
static void make_right(unsigned char *bytes, size_t size)
{
    static model whole;
    int family = bytes[13] >> 4, count;
    size_t n, length = size - 16;
    long found;

    bytes[14] = (unsigned char)(length / 256);
    bytes[15] = (unsigned char)length;
    if (family > 3 || 16 + block_sizes[family] > size)
        return;
    memcpy(whole.bytes, bytes, whole.size = size);
    found = model_find(&whole, 16 + block_sizes[family], 3, &n, &count);
    if (found > 0 && n == 4) {
        uint32_t sum = model_checksum(bytes, size, (size_t)found);
        for (int i = 0; i < 4; i++)
            bytes[found + i] = (unsigned char)(sum >> (24 - 8 * i));
    }
}

/* What is written from the input has the size that it must have, and is read as what it is. */
static void write_and_read(input *in)
{
    static unsigned char texts[5000];
    fe_proxy p, back;
    unsigned char *out;
    size_t room, wanted, written;
    int flags;

    memset(&p, 0, sizeof(p));
    memset(texts, 'a', sizeof(texts));
    p.version = take(in) % 4;
    flags = take(in);
    p.is_local = flags & 1;
    p.is_datagram = flags >> 1 & 1;
    p.has_checksum = flags >> 2 & 1;
    p.family = (uint8_t)(flags >> 3 & 7);
    p.authority_size = (uint32_t)take_number(in, 2) % 4500;
    p.unique_id_size = take(in);
    p.source_port = (uint16_t)take_number(in, 2);
    p.destination_port = (uint16_t)take_number(in, 2);
    room = (size_t)take_number(in, 2) % 6000;
    for (size_t i = 0; p.family < 4 && i < address_sizes[p.family]; i++) {
        p.source[i] = take(in);
        p.destination[i] = take(in);
    }
    out = malloc(room + 1);
    assert(out != NULL);
    out++;
    written = fe_proxy_write(&p, texts, texts + 500, out, room);
    assert(written <= room && written <= FE_PROXY_MAX);
    if (p.is_local || p.family > 3 || (p.version == 1 && (p.is_datagram || p.family == 3)))
        p.family = p.family > 3 ? 4 : FE_PROXY_UNKNOWN;
    if (p.version == 1)
        p.is_local = 0;
    wanted = 16 + (p.family > 3 ? 0 : block_sizes[p.family]) + (p.has_checksum ? 7 : 0);
    wanted += p.authority_size ? p.authority_size + 3 : 0;
    wanted += p.unique_id_size ? p.unique_id_size + 3 : 0;
    if (written == 0) {
        int has_tlvs = p.authority_size || p.unique_id_size || p.has_checksum;
        assert(p.version < 1 || p.version > 2 || p.family > 3 || p.unique_id_size > 128 ||
               (has_tlvs && (p.version == 1 || p.is_local)) ||
               (p.version == 2 ? wanted > room || wanted > 4096 : room < 104));
    } else {
        assert(p.version == 1 || written == wanted);
        read_both(out, written);
        assert(fe_proxy_parse(out, written, &back) == FE_PROXY_DONE && back.total == written);
        if (p.family == FE_PROXY_UNKNOWN) {
            p.is_datagram = 0;
            p.source_port = p.destination_port = 0;
            memset(p.source, 0, sizeof(p.source));
            memset(p.destination, 0, sizeof(p.destination));
        }
        if (p.family == FE_PROXY_UNIX)
            p.source_port = p.destination_port = 0;
        p.authority = back.authority;
        p.unique_id = back.unique_id;
        p.total = back.total;
        assert(same_header(&p, &back));
        assert(memcmp(out + p.authority, texts, p.authority_size) == 0);
        assert(memcmp(out + p.unique_id, texts + 500, p.unique_id_size) == 0);
    }
    free(out - 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static unsigned char stream[STREAM_MAX];
    input in = {bytes, size < INPUT_MAX ? size : INPUT_MAX};
    int mode = take(&in) % 5;
    size_t n = mode == 1 ? 6 : mode == 2 || mode == 3 ? 12 : 0;

    if (mode == 4) {
        write_and_read(&in);
        return 0;
    }
    memcpy(stream, mode == 1 ? "PROXY " : SIGNATURE, n);
    while (in.left > 0)
        stream[n++] = take(&in);
    if (mode == 3 && n >= 16)
        make_right(stream, n);
    read_both(stream, n);
    return 0;
}
