/* Fuzz target: framing gives the replies that a reader of single bytes gives, however it is cut.
 *
 * The input holds the form of the frames, max_frame, prefix, suffix, whether the stream ends, the
 * cuts, and the stream. The model reads byte after byte and keeps no more than the frame that it
 * is in. After each segment both must have answered the same frames: none sooner, none later.
 */
#include "input.h"

#include "frame.h"

enum { AFFIX_MAX = 15, CUTS_MAX = 32 };

/* Each byte of the stream can be a line with both affixes. */
#define REPLIES_MAX (INPUT_MAX * (2 * AFFIX_MAX + 1) + 2 * AFFIX_MAX)

typedef struct replies {
    unsigned char bytes[REPLIES_MAX];
    size_t size;
} replies;

static void put(replies *out, const void *bytes, size_t n)
{
    assert(n <= REPLIES_MAX - out->size);
    if (n > 0)
        memcpy(out->bytes + out->size, bytes, n);
    out->size += n;
}

/* --- the model: one byte at a time --- */

typedef struct model {
    const fe_framing *framing;
    unsigned char frame[INPUT_MAX + 1];
    /* Bytes of the frame so far, header and line end included. */
    size_t size;
    int too_long;
    replies out;
} model;

static void model_reply(model *m, const unsigned char *payload, size_t n, const char *end)
{
    const fe_framing *f = m->framing;

    if (f->kind == FE_FRAME_LENGTH) {
        size_t size = f->prefix_size + n + f->suffix_size;
        for (int shift = 24; shift >= 0; shift -= 8) {
            unsigned char byte = (unsigned char)(size >> shift & 255);
            put(&m->out, &byte, 1);
        }
    }
    put(&m->out, f->prefix, f->prefix_size);
    put(&m->out, payload, n);
    put(&m->out, f->suffix, f->suffix_size);
    put(&m->out, end, strlen(end));
    m->size = 0;
}

static void model_line_byte(model *m)
{
    size_t n = m->size;

    if (n > m->framing->max_frame)
        m->too_long = 1;
    else if (m->frame[n - 1] == '\n' && n > 1 && m->frame[n - 2] == '\r')
        model_reply(m, m->frame, n - 2, "\r\n");
    else if (m->frame[n - 1] == '\n')
        model_reply(m, m->frame, n - 1, "\n");
}

static void model_length_byte(model *m)
{
    const unsigned char *p = m->frame;
    uint64_t payload;

    if (m->size < 4)
        return;
    payload = p[0] * UINT64_C(16777216) + p[1] * UINT64_C(65536) + p[2] * UINT64_C(256) + p[3];
    if (payload > m->framing->max_frame)
        m->too_long = 1;
    else if (m->size == 4 + payload)
        model_reply(m, p + 4, payload, "");
}

static void model_segment(model *m, const unsigned char *bytes, size_t n)
{
    if (m->framing->kind == FE_FRAME_RECV) {
        if (n > 0)
            model_reply(m, bytes, n, "");
        return;
    }
    for (size_t i = 0; i < n && !m->too_long; i++) {
        m->frame[m->size++] = bytes[i];
        if (m->framing->kind == FE_FRAME_LINE)
            model_line_byte(m);
        else
            model_length_byte(m);
    }
}

static void model_end(model *m)
{
    if (m->framing->kind == FE_FRAME_LINE && m->size > 0 && !m->too_long)
        model_reply(m, m->frame, m->size, "");
}

/* --- the header, used as a connection uses it --- */

typedef struct reader {
    const fe_framing *framing;
    /* The stream. */
    const unsigned char *bytes;
    /* Bytes that were answered, and bytes that have come. */
    size_t start, given;
    size_t scanned;
    int too_long;
    replies out;
} reader;

/* Answers what has come, at most about room bytes at a time. A copy of the exact size shows the
 * sanitizer every byte that is read or written beyond it. */
static void read_on(reader *r, size_t room, int eof)
{
    size_t n = r->given - r->start;
    unsigned char *in = malloc(n + 1), *copy = in + 1;
    unsigned char *out = malloc(room - 1 + fe_reply_max(r->framing, n));
    fe_replies said;

    assert(in != NULL && out != NULL);
    if (n > 0)
        memcpy(copy, r->bytes + r->start, n);
    do {
        size_t left = r->given - r->start;
        said = fe_frame_replies(r->framing, copy + n - left, left, &r->scanned, eof, out, room);
        assert(said.consumed <= left && (said.frames > 0) == (said.consumed > 0));
        assert(said.status != FE_FRAMES_MORE || (said.frames > 0 && said.produced >= room));
        assert(said.status != FE_FRAMES_NEED_INPUT || r->scanned <= left - said.consumed);
        put(&r->out, out, said.produced);
        r->start += said.consumed;
    } while (said.status == FE_FRAMES_MORE);
    r->too_long = said.status == FE_FRAMES_TOO_LONG;
    free(in);
    free(out);
}

static void agree(const reader *r, const model *m)
{
    assert(r->too_long == m->too_long);
    assert(r->out.size == m->out.size);
    assert(memcmp(r->out.bytes, m->out.bytes, m->out.size) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const unsigned char prefix[] = "<prefix \n\r\0 ok>", suffix[] = "[\r suffix \n 12]";
    static const size_t rooms[] = {1, 2, 7, 64, 1000, 100000};
    static model m;
    static reader r;
    input in = {bytes, size < INPUT_MAX ? size : INPUT_MAX};
    size_t cuts[CUTS_MAX], count, room;
    fe_framing f;
    int eof;

    f.kind = take(&in) % 3;
    f.max_frame = 1 + (size_t)take_number(&in, 2) % (INPUT_MAX + 100);
    f.prefix = prefix;
    f.prefix_size = take(&in) % (AFFIX_MAX + 1);
    f.suffix = suffix;
    f.suffix_size = take(&in) % (AFFIX_MAX + 1);
    eof = take(&in) % 2;
    room = rooms[take(&in) % (sizeof(rooms) / sizeof(rooms[0]))];
    count = take(&in) % CUTS_MAX;
    for (size_t i = 0; i < count; i++)
        cuts[i] = take(&in); /* bytes of a segment */
    r.framing = m.framing = &f;
    r.bytes = in.bytes;
    r.start = r.given = r.scanned = r.out.size = 0;
    m.size = m.out.size = 0;
    r.too_long = m.too_long = 0;

    for (size_t i = 0; i <= count && !r.too_long; i++) {
        size_t n = i < count && cuts[i] < in.left ? cuts[i] : in.left;
        model_segment(&m, r.bytes + r.given, n);
        r.given += n;
        in.left -= n;
        read_on(&r, room, 0);
        agree(&r, &m);
        if (i < count && in.left == 0)
            break;
    }
    if (eof && !r.too_long) {
        model_end(&m);
        read_on(&r, room, 1);
        agree(&r, &m);
    }
    return 0;
}
