/* A load in one direction: a byte of an upload counts once, when it is acknowledged, in the window;
 * a download is the pattern from any line on, in pieces of any size, up to the first wrong byte. */
#include "loads.h"

#include "load_life.h"
#include "load_oneway.h"

static unsigned char periods[FE_LOAD_PERIODS];

static fe_load *new_stream(void)
{
    fe_load *l = new_load(1, 1, FE_PATTERN_RAW, 64, "", "");

    fe_load_make_stream(&l->connections[0]);
    return l;
}

static void what_is_acknowledged_counts_once(void)
{
    fe_load *l = new_stream();
    fe_load_connection *c = &l->connections[0];

    c->sent_at = 1000;
    assert(!fe_load_acknowledged(l, c, 1000, 1));
    assert(!fe_load_acknowledged(l, c, 1001, 1)); /* our FIN counts as a byte */
    assert(c->since_ns == 0);
    assert(fe_load_acknowledged(l, c, 400, 2) && counted(l, FE_LOAD_BYTES) == 600);
    assert(!fe_load_acknowledged(l, c, 400, 3) && c->since_ns == 2);
    c->sent_at += 500;
    assert(!fe_load_acknowledged(l, c, 900, 4));
    assert(fe_load_acknowledged(l, c, 0, 5) && counted(l, FE_LOAD_BYTES) == 1500);
    c->sent_at += 500;
    fe_load_not_open(l, c, FE_LOAD_ENDING);
    assert(fe_load_acknowledged(l, c, 1, 6) && counted(l, FE_LOAD_BYTES) == 1500);
    assert(c->since_ns == 6);
    fe_load_gone(l, c, -1, 0, 7);
    assert(c->sent_at == 0 && c->done_at == 0 && c->due == FE_LOAD_STREAM);
    free_load(l);
}

/* The byte at a place of one of the patterns. */
static unsigned char due(size_t at, int kind)
{
    return periods[(size_t)kind * FE_CHARGEN_PERIOD + at % FE_CHARGEN_PERIOD];
}

static void any_first_line_is_followed_in_any_pieces(void)
{
    static unsigned char bytes[40000];
    uint64_t seed = 3;

    /* The last is xinetd's. */
    for (uint32_t line = 0; line <= FE_CHARGEN_RING; line++) {
        fe_load *l = new_stream();
        fe_load_connection *c = &l->connections[0];
        int kind = line == FE_CHARGEN_RING ? FE_CHARGEN_XINETD : FE_CHARGEN_RFC;
        size_t start = line % FE_CHARGEN_RING * FE_CHARGEN_LINE, done = 0;

        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = due(start + i, kind);
        while (done < sizeof(bytes)) {
            size_t n = 1 + (size_t)random_below(&seed, line % 2 ? 90 : 9000);

            if (n > sizeof(bytes) - done)
                n = sizeof(bytes) - done;
            assert(fe_load_downloaded(l, c, periods, bytes + done, n, done + 1) == 0);
            done += n;
        }
        assert(counted(l, FE_LOAD_BYTES) == sizeof(bytes) && l->counts.described == 0);
        free_load(l);
    }
}

/* Line 1 of the RFC and xinetd's first begin by "!": they part at one byte, and at no other. */
static void a_stream_that_begins_as_both_is_either(void)
{
    static unsigned char bytes[FE_CHARGEN_FORK + 3000];

    assert(memcmp(periods + FE_CHARGEN_LINE, periods + FE_CHARGEN_PERIOD, FE_CHARGEN_FORK) == 0);
    for (size_t cut = 0; cut <= sizeof(bytes); cut += cut == FE_CHARGEN_FORK - 1 ? 1 : 83) {
        for (int kind = 0; kind < 2; kind++) {
            for (size_t wrong = FE_CHARGEN_FORK - 2; wrong < FE_CHARGEN_FORK + 3; wrong++) {
                size_t start = kind == FE_CHARGEN_RFC ? FE_CHARGEN_LINE : 0;
                fe_load *l = new_stream();
                fe_load_connection *c = &l->connections[0];
                int rc;

                for (size_t i = 0; i < sizeof(bytes); i++)
                    bytes[i] = due(start + i, kind);
                bytes[wrong] = 0x80;
                rc = cut == 0 ? 0 : fe_load_downloaded(l, c, periods, bytes, cut, 1);
                assert(rc == (cut > wrong ? -1 : 0));
                if (rc == 0 && cut < sizeof(bytes))
                    assert(fe_load_downloaded(l, c, periods, bytes + cut, sizeof(bytes) - cut, 2)
                           == -1);
                assert(counted(l, FE_LOAD_BYTES) == wrong && counted(l, FE_LOAD_CORRUPT) == 1);
                assert(l->counts.failures[0].offset == wrong);
                assert(wrong == FE_CHARGEN_FORK
                       || l->counts.failures[0].expected == due(start + wrong, kind));
                free_load(l);
            }
        }
    }
}

static void what_was_there_before_the_window_does_not_count(void)
{
    fe_load *l = new_stream();
    fe_load_connection *c = &l->connections[0];

    l->times[0] = 150;
    assert(fe_load_downloaded(l, c, periods, periods, 100, 1) == 0);
    assert(counted(l, FE_LOAD_BYTES) == 0 && l->times[0] == 50 && c->done_at == 100);
    assert(fe_load_downloaded(l, c, periods, periods + 100, 100, 2) == 0);
    assert(counted(l, FE_LOAD_BYTES) == 50 && l->times[0] == 0);
    assert(fe_load_downloaded(l, c, periods, periods + 200, 100, 3) == 0);
    assert(counted(l, FE_LOAD_BYTES) == 150);
    free_load(l);
}

static void the_first_wrong_byte_is_told_by_its_offset(void)
{
    static unsigned char bytes[20000];

    for (size_t at = 0; at < sizeof(bytes); at += at < 200 ? 1 : 997) {
        fe_load *l = new_stream();
        fe_load_connection *c = &l->connections[0];
        const fe_load_failure *f = &l->counts.failures[0];
        size_t first = at / 2;

        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = due(i, FE_CHARGEN_RFC);
        bytes[at] = 0x80;
        assert(first == 0 || fe_load_downloaded(l, c, periods, bytes, first, 1) == 0);
        assert(fe_load_downloaded(l, c, periods, bytes + first, sizeof(bytes) - first, 2) == -1);
        assert(counted(l, FE_LOAD_BYTES) == at && counted(l, FE_LOAD_CORRUPT) == 1);
        assert(counted(l, FE_LOAD_BYTES_RECEIVED) == sizeof(bytes));
        assert(f->kind == FE_LOAD_CORRUPT && f->offset == at && f->number == FE_LOAD_STREAM);
        assert(f->got == 0x80 && f->expected == due(at, FE_CHARGEN_RFC));
        free_load(l);
    }
}

static void no_more_are_described_than_there_is_room_for(void)
{
    fe_load *l = new_stream();
    fe_load_connection *c = &l->connections[0];

    for (uint64_t n = 1; n <= FE_LOAD_DESCRIBED + 1; n++) {
        assert(fe_load_downloaded(l, c, periods, (const unsigned char *)"\n", 1, n) == -1);
        assert(counted(l, FE_LOAD_CORRUPT) == n);
    }
    assert(l->counts.described == FE_LOAD_DESCRIBED);
    free_load(l);
}

static void a_gap_is_over_when_bytes_move_again(void)
{
    fe_load *l = new_stream();
    fe_load_connection *c = &l->connections[0];

    fe_load_gone(l, c, FE_LOAD_RESET, 104, 100);
    assert(counted(l, FE_LOAD_RESET) == 1 && counted(l, FE_LOAD_LOST) == 0);
    fe_load_opened(l, c, 200);
    assert(counted(l, FE_LOAD_REOPENED) == 0);
    assert(fe_load_downloaded(l, c, periods, periods, 10, 300) == 0);
    assert(counted(l, FE_LOAD_REOPENED) == 1 && counted(l, FE_LOAD_GAP_NS) == 200);
    free_load(l);
}

static void who_moves_nothing_stands_still(void)
{
    fe_load *l = new_stream();
    fe_load_connection *c = &l->connections[0];

    c->since_ns = 500;
    assert(!fe_load_stands_still(l, c, 400));
    assert(!fe_load_stands_still(l, c, 500 + l->timeout_ns));
    assert(fe_load_stands_still(l, c, 501 + l->timeout_ns));
    assert(!fe_load_silent(l, c, 501 + 2 * l->timeout_ns)); /* no reply is awaited */
    free_load(l);
}

int main(void)
{
    fe_load_fill_periods(periods);
    what_is_acknowledged_counts_once();
    any_first_line_is_followed_in_any_pieces();
    a_stream_that_begins_as_both_is_either();
    what_was_there_before_the_window_does_not_count();
    the_first_wrong_byte_is_told_by_its_offset();
    no_more_are_described_than_there_is_room_for();
    a_gap_is_over_when_bytes_move_again();
    who_moves_nothing_stands_still();
    return 0;
}
