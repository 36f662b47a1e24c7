/* Fuzz target: a download is right up to the byte at which a reader of single bytes stops.
 *
 * The input says by which line of which pattern a stream begins, in what pieces it comes, and which
 * bytes are changed, left out, or come from the input itself.
 */
#include "input.h"

#include "load_oneway.h"

enum { STREAM_MAX = 3 * FE_CHARGEN_PERIOD };

/* --- the model: what RFC 864 says, and what xinetd does, a byte at a time --- */

static unsigned char model_byte(int is_xinetd, unsigned line, unsigned column)
{
    if (column >= 72)
        return column == 72 ? '\r' : '\n';
    return (unsigned char)(is_xinetd ? '!' + (line % 95 + column) % 93 : ' ' + (line + column) % 95);
}

/* How many bytes are right; *due is what the one behind them should have been. */
static size_t model_right(const unsigned char *bytes, size_t n, unsigned char *due)
{
    int is_xinetd = bytes[0] == '!';
    unsigned line = is_xinetd || bytes[0] < ' ' || bytes[0] > '~' ? 0 : bytes[0] - (unsigned)' ';

    /* Line 1 of the RFC has the same until its first "~", at byte 71 of the 23rd line. */
    if (is_xinetd && n > 22 * 74 + 71 && bytes[22 * 74 + 71] == '~') {
        is_xinetd = 0;
        line = 1;
    }
    for (size_t i = 0; i < n; i++) {
        *due = model_byte(is_xinetd, line + (unsigned)(i / 74), (unsigned)(i % 74));
        if (bytes[i] != *due)
            return i;
    }
    return n;
}

/* --- the input --- */

static size_t make_stream(input *in, unsigned char *stream)
{
    unsigned start = take(in) % 128, changes;
    int is_xinetd = start >= 95;
    size_t n = 1 + (size_t)(take_number(in, 2) % STREAM_MAX);

    for (size_t i = 0; i < n; i++)
        stream[i] = model_byte(is_xinetd, (is_xinetd ? 0 : start) + (unsigned)(i / 74),
                               (unsigned)(i % 74));
    changes = take(in) % 4;
    for (unsigned i = 0; i < changes; i++) {
        size_t at = (size_t)take_number(in, 2) % n;
        unsigned how = take(in);

        if (how % 2)
            stream[at] = take(in);
        else
            memmove(stream + at, stream + at + 1, n - at - 1);
    }
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    input in = {bytes, size < INPUT_MAX ? size : INPUT_MAX};
    static unsigned char periods[FE_LOAD_PERIODS], stream[STREAM_MAX];
    size_t n = make_stream(&in, stream), done = 0, right;
    unsigned char due = 0;
    fe_load *l = calloc(1, sizeof(*l));
    fe_load_connection *c = calloc(1, sizeof(*c));

    uint64_t early = take_number(&in, 2), uncounted = early;

    assert(l != NULL && c != NULL);
    l->times = &early;
    fe_load_fill_periods(periods);
    l->connections = c;
    l->count = 1;
    c->state = FE_LOAD_OPEN;
    fe_load_make_stream(c);
    right = model_right(stream, n, &due);
    while (done < n) {
        size_t most = n - done, piece = 1 + (size_t)(take_number(&in, 2) % n);
        /* A block of the exact size: a sanitizer sees what is read behind it. */
        unsigned char *exact;
        int rc;

        if (in.left == 0 || piece > most)
            piece = most;
        exact = malloc(piece);
        assert(exact != NULL);
        memcpy(exact, stream + done, piece);
        rc = fe_load_downloaded(l, c, periods, exact, piece, 1);
        free(exact);
        done += piece;
        assert((rc < 0) == (done > right));
        if (rc < 0)
            break;
    }
    if (uncounted > right)
        uncounted = right;
    assert(l->counts.n[FE_LOAD_BYTES] == right - uncounted);
    assert(l->counts.n[FE_LOAD_BYTES_RECEIVED] == done);
    assert(l->counts.n[FE_LOAD_CORRUPT] == (right < n));
    if (right < n) {
        const fe_load_failure *f = &l->counts.failures[0];

        assert(f->offset == right && f->expected == due && f->got == stream[right]);
    }
    free(c);
    free(l);
    return 0;
}
