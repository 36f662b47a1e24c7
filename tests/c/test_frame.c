/* Framing: each rule by itself, then against a naive reading of the whole stream. However the
 * stream is cut into pieces and however little room a round has, the replies are the same. */
#include "support.h"

#include "frame.h"

#define BYTES(text) ((const unsigned char *)(text))

static fe_framing framing(int kind, const char *prefix, const char *suffix, size_t max_frame)
{
    fe_framing f = {BYTES(prefix), BYTES(suffix), strlen(prefix), strlen(suffix), max_frame, kind};

    return f;
}

/* Answers one text with plenty of room; the replies are compared with a text. */
static fe_replies answer(const fe_framing *f, const char *in, size_t n, int eof, const char *out,
                         size_t out_size)
{
    static unsigned char replies[4096];
    size_t scanned = 0;
    fe_replies r = fe_frame_replies(f, BYTES(in), n, &scanned, eof, replies, 2048);

    assert(r.produced == out_size && memcmp(replies, out, out_size) == 0);
    assert(r.consumed <= n);
    return r;
}

#define ANSWERS(f, in, eof, out) answer(f, in, sizeof(in) - 1, eof, out, sizeof(out) - 1)

static void a_recv_is_a_frame(void)
{
    fe_framing f = framing(FE_FRAME_RECV, "<", ">", 0);
    fe_replies r = ANSWERS(&f, "a\nb", 0, "<a\nb>");

    assert(r.frames == 1 && r.consumed == 3 && r.status == FE_FRAMES_NEED_INPUT);
    r = ANSWERS(&f, "", 1, "");
    assert(r.frames == 0 && r.status == FE_FRAMES_NEED_INPUT);
}

static void a_line_keeps_its_end_and_the_suffix_stands_before_it(void)
{
    fe_framing f = framing(FE_FRAME_LINE, "got ", "!", 100);
    fe_replies r = ANSWERS(&f, "a\n\nbc\r\n\r\nd\re\n", 0,
                           "got a!\ngot !\ngot bc!\r\ngot !\r\ngot d\re!\n");

    assert(r.frames == 5 && r.status == FE_FRAMES_NEED_INPUT);
    f = framing(FE_FRAME_LINE, "", "", 100);
    r = ANSWERS(&f, "a\r\nb\n", 0, "a\r\nb\n");
    assert(r.frames == 2);
}

static void a_line_without_end_waits_and_is_a_frame_at_eof(void)
{
    fe_framing f = framing(FE_FRAME_LINE, "<", ">", 100);
    fe_replies r = ANSWERS(&f, "a\nrest\r", 0, "<a>\n");

    assert(r.frames == 1 && r.consumed == 2 && r.status == FE_FRAMES_NEED_INPUT);
    r = ANSWERS(&f, "a\nrest\r", 1, "<a>\n<rest\r>");
    assert(r.frames == 2 && r.consumed == 7 && r.status == FE_FRAMES_NEED_INPUT);
    r = ANSWERS(&f, "a\n", 1, "<a>\n");
    assert(r.frames == 1 && r.status == FE_FRAMES_NEED_INPUT);
    r = ANSWERS(&f, "", 1, "");
    assert(r.frames == 0 && r.status == FE_FRAMES_NEED_INPUT);
}

static void a_line_counts_with_its_end_against_max_frame(void)
{
    fe_framing f = framing(FE_FRAME_LINE, "", "", 4);
    fe_replies r = ANSWERS(&f, "abc\n", 0, "abc\n");

    assert(r.status == FE_FRAMES_NEED_INPUT);
    r = ANSWERS(&f, "abcd", 0, "");
    assert(r.status == FE_FRAMES_NEED_INPUT);
    r = ANSWERS(&f, "abcd", 1, "abcd");
    assert(r.frames == 1);
    r = ANSWERS(&f, "abcd\n", 0, "");
    assert(r.status == FE_FRAMES_TOO_LONG && r.consumed == 0);
    r = ANSWERS(&f, "abcde", 1, "");
    assert(r.status == FE_FRAMES_TOO_LONG);
    r = ANSWERS(&f, "ok\nabcde", 0, "ok\n");
    assert(r.status == FE_FRAMES_TOO_LONG && r.consumed == 3 && r.frames == 1);
}

static void a_length_frame_is_counted_anew_with_prefix_and_suffix(void)
{
    fe_framing f = framing(FE_FRAME_LENGTH, "ab", "c", 300);
    fe_replies r = ANSWERS(&f, "\0\0\0\2xy\0\0\0\0", 0, "\0\0\0\5abxyc\0\0\0\3abc");
    static char in[4 + 300] = "\0\0\1\x2c", out[4 + 303] = "\0\0\1\x2f";

    assert(r.frames == 2 && r.consumed == 10 && r.status == FE_FRAMES_NEED_INPUT);
    memset(in + 4, 'z', 300);
    memcpy(out + 4, "ab", 2);
    memset(out + 6, 'z', 300);
    out[306] = 'c';
    r = answer(&f, in, sizeof(in), 0, out, sizeof(out));
    assert(r.frames == 1 && r.status == FE_FRAMES_NEED_INPUT);
}

static void a_length_frame_is_whole_or_none(void)
{
    fe_framing f = framing(FE_FRAME_LENGTH, "", "", 300);

    for (int eof = 0; eof < 2; eof++) {
        fe_replies r = ANSWERS(&f, "\0\0\0", eof, "");

        assert(r.consumed == 0 && r.status == FE_FRAMES_NEED_INPUT);
        r = ANSWERS(&f, "\0\0\0\3ab", eof, "");
        assert(r.consumed == 0 && r.status == FE_FRAMES_NEED_INPUT);
        r = ANSWERS(&f, "\0\0\0\1a\0\0\0\3ab", eof, "\0\0\0\1a");
        assert(r.consumed == 5 && r.status == FE_FRAMES_NEED_INPUT);
    }
}

static void a_length_above_max_frame_is_too_long_at_once(void)
{
    fe_framing f = framing(FE_FRAME_LENGTH, "", "", 5);
    fe_replies r = ANSWERS(&f, "\0\0\0\5", 0, "");

    assert(r.status == FE_FRAMES_NEED_INPUT);
    r = ANSWERS(&f, "\0\0\0\6", 0, "");
    assert(r.status == FE_FRAMES_TOO_LONG);
    r = ANSWERS(&f, "\xff\xff\xff\xff", 0, "");
    assert(r.status == FE_FRAMES_TOO_LONG);
    /* Nothing but the header's highest bit. */
    r = ANSWERS(&f, "\0\0\0\1x\x80\0\0\0", 0, "\0\0\0\1x");
    assert(r.status == FE_FRAMES_TOO_LONG && r.frames == 1);
}

static void sizes_hold_for_the_longest_frame(void)
{
    fe_framing line = framing(FE_FRAME_LINE, "abc", "de", 10);
    fe_framing length = framing(FE_FRAME_LENGTH, "abc", "de", 10);
    fe_frame frame = {4, 10, 0, 14};

    assert(fe_frame_max_input(&line) == 10 && fe_frame_max_input(&length) == 14);
    assert(fe_reply_size(&length, &frame) == 4 + 3 + 10 + 2);
    frame = (fe_frame){0, 8, 2, 10};
    assert(fe_reply_size(&line, &frame) == 3 + 8 + 2 + 2);
    assert(fe_reply_max(&line, 10) >= 15 && fe_reply_max(&length, 10) >= 19);
}

/* No byte is searched twice: what was searched is hidden behind it. */
static void a_search_goes_on_where_it_ended(void)
{
    fe_framing f = framing(FE_FRAME_LINE, "", "", 100);
    unsigned char in[] = "abcdef\nx";
    size_t scanned = 0;
    fe_frame frame;

    assert(fe_frame_next(&f, in, 4, &scanned, 0, &frame) == FE_FRAMES_NEED_INPUT && scanned == 4);
    in[1] = '\n';
    assert(fe_frame_next(&f, in, 6, &scanned, 0, &frame) == FE_FRAMES_NEED_INPUT && scanned == 6);
    in[1] = 'b';
    assert(fe_frame_next(&f, in, 8, &scanned, 0, &frame) == FE_FRAMES_MORE && scanned == 0);
    assert(frame.total == 7 && frame.size == 6 && frame.line_end == 1);
    scanned = 6;
    assert(fe_frame_next(&f, in, 6, &scanned, 1, &frame) == FE_FRAMES_MORE && scanned == 0);
    assert(frame.total == 6 && frame.size == 6 && frame.line_end == 0);
    /* More was searched than a frame may hold: too long, and nothing is read behind it. */
    f.max_frame = 5;
    scanned = 6;
    assert(fe_frame_next(&f, in, 8, &scanned, 0, &frame) == FE_FRAMES_TOO_LONG);
}

static void a_round_ends_when_its_room_is_used(void)
{
    fe_framing f = framing(FE_FRAME_LINE, "", "", 100);
    unsigned char out[64];
    size_t scanned = 0;
    fe_replies r = fe_frame_replies(&f, BYTES("ab\ncd\nef\n"), 9, &scanned, 0, out, 4);

    assert(r.frames == 2 && r.consumed == 6 && r.produced == 6 && r.status == FE_FRAMES_MORE);
    r = fe_frame_replies(&f, BYTES("ab\ncd\nef"), 8, &scanned, 0, out, 4);
    /* Whether more is a frame is not known yet: it is looked at in the next round. */
    assert(r.frames == 2 && r.consumed == 6 && r.status == FE_FRAMES_MORE);
    r = fe_frame_replies(&f, BYTES("ab\ncd\n"), 6, &scanned, 0, out, 6);
    assert(r.frames == 2 && r.consumed == 6 && r.status == FE_FRAMES_NEED_INPUT);
    r = fe_frame_replies(&f, BYTES("ab\n"), 3, &scanned, 0, out, 0);
    assert(r.frames == 0 && r.consumed == 0 && r.status == FE_FRAMES_MORE);
}

/* --- against the naive reading --- */

typedef struct text {
    unsigned char bytes[60000];
    size_t size;
} text;

static void put(text *t, const void *bytes, size_t n)
{
    assert(t->size + n <= sizeof(t->bytes));
    if (n > 0)
        memcpy(t->bytes + t->size, bytes, n);
    t->size += n;
}

static void put_reply(text *t, const fe_framing *f, const unsigned char *payload, size_t n,
                      size_t line_end)
{
    if (f->kind == FE_FRAME_LENGTH) {
        size_t size = f->prefix_size + n + f->suffix_size;
        unsigned char header[4] = {0, (unsigned char)(size / 65536),
                                   (unsigned char)(size / 256 % 256), (unsigned char)(size % 256)};
        put(t, header, 4);
    }
    put(t, f->prefix, f->prefix_size);
    put(t, payload, n);
    put(t, f->suffix, f->suffix_size);
    put(t, payload + n, line_end);
}

/* Byte by byte over the whole stream: the replies, and whether it ends as too long. */
static int read_naively(const fe_framing *f, const text *in, text *out)
{
    size_t start = 0;

    while (start < in->size) {
        size_t n = 0, left = in->size - start, ends;
        const unsigned char *p = in->bytes + start;

        if (f->kind == FE_FRAME_LENGTH) {
            if (left < 4)
                return 0;
            n = ((size_t)p[0] * 256 * 256 + (size_t)p[1] * 256 + p[2]) * 256 + p[3];
            if (n > f->max_frame)
                return 1;
            if (left < 4 + n)
                return 0;
            put_reply(out, f, p + 4, n, 0);
            start += 4 + n;
            continue;
        }
        while (n < left && p[n] != '\n')
            n++;
        ends = n == left ? 0 : n > 0 && p[n - 1] == '\r' ? 2 : 1;
        if (n + (n < left) > f->max_frame)
            return 1;
        n += n < left;
        put_reply(out, f, p, n - ends, ends);
        start += n;
    }
    return 0;
}

/* A stream of frames of all sizes, with a wrong or unfinished one now and then. */
static void make_stream(const fe_framing *f, uint64_t *state, text *in)
{
    static const unsigned char letters[] = "ab\r\r\n";
    uint64_t frames = random_below(state, 40);

    in->size = 0;
    while (frames-- > 0) {
        uint64_t most = random_below(state, 8) == 0 ? f->max_frame * 5 / 4 + 2 : 12;
        size_t n = random_below(state, most);

        if (f->kind == FE_FRAME_LENGTH) {
            unsigned char header[4] = {0, 0, (unsigned char)(n / 256), (unsigned char)(n % 256)};
            put(in, header, 4);
        }
        for (size_t i = 0; i < n; i++)
            put(in, &letters[random_below(state, f->kind == FE_FRAME_LINE ? 4 : 5)], 1);
        if (f->kind == FE_FRAME_LINE)
            put(in, "\n", 1);
    }
    if (in->size > 0 && random_below(state, 2))
        in->size -= random_below(state, in->size < 9 ? in->size : 9);
}

/* As a connection does it: what is no frame yet is kept and given again with what follows. A
 * copy of the exact size shows the sanitizer every byte that is read behind it. */
static int read_in_pieces(const fe_framing *f, const text *in, uint64_t *state, text *out)
{
    size_t start = 0, given = 0, scanned = 0;

    for (;;) {
        int eof;
        size_t n;

        given += random_below(state, random_below(state, 3) ? 5 : 2000);
        if (given > in->size)
            given = in->size;
        eof = given == in->size && random_below(state, 2);
        n = given - start;
        for (;;) {
            size_t room = 1 + random_below(state, random_below(state, 2) ? 8 : 3000);
            size_t longest = fe_reply_max(f, fe_frame_max_input(f));
            unsigned char *copy = malloc(n + 1), *replies = malloc(room - 1 + longest);
            fe_replies r;

            assert(copy != NULL && replies != NULL);
            memcpy(copy + 1, in->bytes + start, n);
            r = fe_frame_replies(f, copy + 1, n, &scanned, eof, replies, room);
            assert(r.consumed <= n && (r.frames > 0) == (r.consumed > 0));
            put(out, replies, r.produced);
            free(copy);
            free(replies);
            start += r.consumed;
            n -= r.consumed;
            if (r.status == FE_FRAMES_TOO_LONG)
                return 1;
            if (r.status == FE_FRAMES_NEED_INPUT)
                break;
            assert(n > 0);
        }
        if (eof)
            return 0;
    }
}

static void any_cut_of_the_stream_gives_the_same_replies(int kind, uint64_t seed)
{
    static const char *const affixes[] = {"", "p", "a longer one\n"};
    static text in, naive, pieces;
    uint64_t state = seed, too_long = 0, whole = 0;

    for (int round = 0; round < 3000; round++) {
        fe_framing f = framing(kind, affixes[random_below(&state, 3)],
                               affixes[random_below(&state, 3)], 1 + random_below(&state, 600));
        int ended;

        make_stream(&f, &state, &in);
        naive.size = pieces.size = 0;
        ended = read_naively(&f, &in, &naive);
        assert(read_in_pieces(&f, &in, &state, &pieces) == ended);
        assert(pieces.size == naive.size && memcmp(pieces.bytes, naive.bytes, naive.size) == 0);
        too_long += ended != 0;
        whole += !ended && naive.size > 0;
    }
    assert(too_long > 300 && whole > 300);
}

int main(void)
{
    a_recv_is_a_frame();
    a_line_keeps_its_end_and_the_suffix_stands_before_it();
    a_line_without_end_waits_and_is_a_frame_at_eof();
    a_line_counts_with_its_end_against_max_frame();
    a_length_frame_is_counted_anew_with_prefix_and_suffix();
    a_length_frame_is_whole_or_none();
    a_length_above_max_frame_is_too_long_at_once();
    sizes_hold_for_the_longest_frame();
    a_search_goes_on_where_it_ended();
    a_round_ends_when_its_room_is_used();
    any_cut_of_the_stream_gives_the_same_replies(FE_FRAME_LINE, 1);
    any_cut_of_the_stream_gives_the_same_replies(FE_FRAME_LENGTH, 2);
    return 0;
}
