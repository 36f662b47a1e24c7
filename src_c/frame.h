/* Framing: how a byte stream is cut into messages, and what a reply looks like.
 *
 * Lives here: finding the next frame in bytes, writing its reply into bytes.
 * Does not live here: where bytes come from, where replies go.
 *
 *   recv    whatever one recv gave is a frame. Depends on TCP segmentation.
 *   line    ends with \n, which belongs to it and counts. \r\n is kept together.
 *           A rest without \n at the end of the stream is a frame as well.
 *   length  4 bytes big-endian, then that many bytes. The reply's header counts
 *           prefix, payload and suffix. An incomplete frame at the end of the
 *           stream is no frame.
 *
 * A frame is echoed whole or not at all. The reply is prefix, payload, suffix;
 * a line's suffix stands before its line end.
 */
#ifndef FASTECHO_FRAME_H
#define FASTECHO_FRAME_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum fe_frame_kind { FE_FRAME_RECV = 0, FE_FRAME_LINE = 1, FE_FRAME_LENGTH = 2 };

/* What fe_frame_next and fe_frame_replies found. */
enum fe_frame_status {
    /* A frame (next), or output is full and input is left (replies). */
    FE_FRAMES_MORE = 0,
    /* The bytes so far hold no (further) complete frame. */
    FE_FRAMES_NEED_INPUT = 1,
    /* The next frame is longer than max_frame. */
    FE_FRAMES_TOO_LONG = 2
};

#define FE_LENGTH_HEADER ((size_t)4)

/* How a server frames and answers. Shared and constant while it runs. */
typedef struct fe_framing {
    const unsigned char *prefix;
    const unsigned char *suffix;
    size_t prefix_size;
    size_t suffix_size;
    /* Longest frame: a line with its line end, a length frame's payload. */
    size_t max_frame;
    /* enum fe_frame_kind. */
    int kind;
} fe_framing;

/* One frame inside a byte range. */
typedef struct fe_frame {
    /* Offset of the payload. */
    size_t payload;
    /* Bytes of payload, without header and line end. */
    size_t size;
    /* Bytes of line end behind the payload: 0, 1 or 2. */
    size_t line_end;
    /* Bytes that the frame takes of the input, all in all. */
    size_t total;
} fe_frame;

/* Bytes of input that one frame can take at the most. */
static inline size_t fe_frame_max_input(const fe_framing *f)
{
    return f->max_frame + (f->kind == FE_FRAME_LENGTH ? FE_LENGTH_HEADER : 0);
}

static inline uint32_t fe_load_be32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline void fe_store_be32(unsigned char *p, uint32_t v)
{
    p[0] = (unsigned char)(v >> 24);
    p[1] = (unsigned char)(v >> 16);
    p[2] = (unsigned char)(v >> 8);
    p[3] = (unsigned char)v;
}

static inline int fe_line_next(const fe_framing *f, const unsigned char *in, size_t n,
                               size_t *scanned, int eof, fe_frame *frame)
{
    size_t limit = n < f->max_frame ? n : f->max_frame;
    size_t from = *scanned < limit ? *scanned : limit;
    const unsigned char *newline = memchr(in + from, '\n', limit - from);

    frame->payload = 0;
    if (newline != NULL) {
        frame->total = (size_t)(newline - in) + 1;
        frame->line_end = frame->total >= 2 && newline[-1] == '\r' ? 2 : 1;
        frame->size = frame->total - frame->line_end;
        *scanned = 0;
        return FE_FRAMES_MORE;
    }
    if (n > f->max_frame) /* not at n == max_frame: EOF may follow and make it a frame */
        return FE_FRAMES_TOO_LONG;
    if (eof && n > 0) {
        frame->total = frame->size = n;
        frame->line_end = 0;
        *scanned = 0;
        return FE_FRAMES_MORE;
    }
    *scanned = n;
    return FE_FRAMES_NEED_INPUT;
}

static inline int fe_length_next(const fe_framing *f, const unsigned char *in, size_t n,
                                 fe_frame *frame)
{
    size_t size;

    if (n < FE_LENGTH_HEADER)
        return FE_FRAMES_NEED_INPUT;
    size = fe_load_be32(in);
    if (size > f->max_frame)
        return FE_FRAMES_TOO_LONG;
    if (n - FE_LENGTH_HEADER < size)
        return FE_FRAMES_NEED_INPUT;
    frame->payload = FE_LENGTH_HEADER;
    frame->size = size;
    frame->line_end = 0;
    frame->total = FE_LENGTH_HEADER + size;
    return FE_FRAMES_MORE;
}

/* Finds the first frame of in[0..n).
 * scanned: bytes that an earlier call has searched (line only); kept up to date.
 * eof: no byte will follow. Result: enum fe_frame_status; *frame is set only
 * with FE_FRAMES_MORE. */
static inline int fe_frame_next(const fe_framing *f, const unsigned char *in, size_t n,
                                size_t *scanned, int eof, fe_frame *frame)
{
    if (f->kind == FE_FRAME_LINE)
        return fe_line_next(f, in, n, scanned, eof, frame);
    if (f->kind == FE_FRAME_LENGTH)
        return fe_length_next(f, in, n, frame);
    if (n == 0)
        return FE_FRAMES_NEED_INPUT;
    frame->payload = 0;
    frame->size = frame->total = n;
    frame->line_end = 0;
    return FE_FRAMES_MORE;
}

/* Bytes of the reply to a frame. */
static inline size_t fe_reply_size(const fe_framing *f, const fe_frame *frame)
{
    size_t header = f->kind == FE_FRAME_LENGTH ? FE_LENGTH_HEADER : 0;
    return header + f->prefix_size + frame->size + f->suffix_size + frame->line_end;
}

/* Bytes of the longest reply to a frame of at most n input bytes. */
static inline size_t fe_reply_max(const fe_framing *f, size_t n)
{
    return FE_LENGTH_HEADER + f->prefix_size + n + f->suffix_size;
}

/* Writes the reply to the frame that stands at in. out has room for
 * fe_reply_size bytes. Result: one behind the last byte written. */
static inline unsigned char *fe_reply_write(const fe_framing *f, const unsigned char *in,
                                            const fe_frame *frame, unsigned char *out)
{
    if (f->kind == FE_FRAME_LENGTH) {
        fe_store_be32(out, (uint32_t)(f->prefix_size + frame->size + f->suffix_size));
        out += FE_LENGTH_HEADER;
    }
    if (f->prefix_size) {
        memcpy(out, f->prefix, f->prefix_size);
        out += f->prefix_size;
    }
    if (f->suffix_size == 0) {
        /* Payload and line end are neighbours: one copy. */
        memcpy(out, in + frame->payload, frame->size + frame->line_end);
        return out + frame->size + frame->line_end;
    }
    memcpy(out, in + frame->payload, frame->size);
    out += frame->size;
    memcpy(out, f->suffix, f->suffix_size);
    out += f->suffix_size;
    memcpy(out, in + frame->payload + frame->size, frame->line_end);
    return out + frame->line_end;
}

/* What fe_frame_replies did. */
typedef struct fe_replies {
    /* Bytes of input that became replies. */
    size_t consumed;
    /* Bytes written to out. */
    size_t produced;
    /* Frames answered. */
    size_t frames;
    /* enum fe_frame_status: why it stopped. */
    int status;
} fe_replies;

/* Answers frame after frame of in[0..n) into out while less than room bytes are
 * written. So out must hold room - 1 bytes and the longest reply.
 * scanned and eof as in fe_frame_next. */
static inline fe_replies fe_frame_replies(const fe_framing *f, const unsigned char *in, size_t n,
                                          size_t *scanned, int eof, unsigned char *out,
                                          size_t room)
{
    fe_replies r = {0, 0, 0, FE_FRAMES_MORE};
    fe_frame frame;

    while (r.produced < room) {
        unsigned char *end;
        r.status = fe_frame_next(f, in + r.consumed, n - r.consumed, scanned, eof, &frame);
        if (r.status != FE_FRAMES_MORE)
            return r;
        end = fe_reply_write(f, in + r.consumed, &frame, out + r.produced);
        r.produced = (size_t)(end - out);
        r.consumed += frame.total;
        r.frames++;
    }
    if (r.consumed == n)
        r.status = FE_FRAMES_NEED_INPUT;
    return r;
}

#endif
