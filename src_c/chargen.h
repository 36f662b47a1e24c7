/* The bytes of the character generator of RFC 864, as a server sends them and a load expects them.
 *
 * Lives here: which byte stands where, how to fill a buffer, where a stream that somebody else
 * began stands, the first byte that differs. Does not live here: any socket, any count.
 *
 * The 95 printable characters of ASCII in their order, as a ring: line N has 72 of them from
 * number N on, then CR LF. So the pattern begins again after 95 lines, a period. The place in it is
 * all that is known of a connection: a short send only means that the next one begins elsewhere.
 *
 * xinetd sends another pattern, of the same shape: its ring is the 93 characters from "!" to "}", and
 * after 95 lines, so two after the ring's end, it begins again. Line 1 of the RFC and what follows it
 * is the same, until the first "~".
 */
#ifndef FASTECHO_CHARGEN_H
#define FASTECHO_CHARGEN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The first of the printable characters, and how many there are. */
#define FE_CHARGEN_FIRST ((uint32_t)' ')
#define FE_CHARGEN_RING ((uint32_t)95)
/* xinetd's. */
#define FE_CHARGEN_XINETD_FIRST ((uint32_t)'!')
#define FE_CHARGEN_XINETD_RING ((uint32_t)93)
/* Characters of a line, and its bytes with CR LF; bytes of a period. */
#define FE_CHARGEN_CHARACTERS ((uint32_t)72)
#define FE_CHARGEN_LINE ((uint32_t)74)
#define FE_CHARGEN_PERIOD ((uint32_t)7030)
/* Bytes that xinetd's pattern and line 1 of the RFC and the lines behind it have in common. */
#define FE_CHARGEN_FORK ((uint32_t)(22 * 74 + 71))
/* What one turn of a connection sends at the most: whole periods, close to what one read takes in
 * (_worker.pxd: READ_SIZE); and the buffer that holds so much from any place on. */
#define FE_CHARGEN_TURN ((uint32_t)(36 * 7030))
#define FE_CHARGEN_BUFFER (FE_CHARGEN_TURN + FE_CHARGEN_PERIOD)
/* No place in the pattern. */
#define FE_CHARGEN_NOWHERE UINT32_MAX

/* Whose pattern. */
enum fe_chargen_kind { FE_CHARGEN_RFC = 0, FE_CHARGEN_XINETD };

/* The byte at a place; at < FE_CHARGEN_PERIOD. */
static inline unsigned char fe_chargen_byte(uint32_t at, int kind)
{
    uint32_t first = kind == FE_CHARGEN_XINETD ? FE_CHARGEN_XINETD_FIRST : FE_CHARGEN_FIRST;
    uint32_t ring = kind == FE_CHARGEN_XINETD ? FE_CHARGEN_XINETD_RING : FE_CHARGEN_RING;
    uint32_t line = at / FE_CHARGEN_LINE, column = at % FE_CHARGEN_LINE;

    if (column == FE_CHARGEN_CHARACTERS)
        return '\r';
    if (column > FE_CHARGEN_CHARACTERS)
        return '\n';
    return (unsigned char)(first + (line + column) % ring);
}

/* The place that is n bytes after `at`. */
static inline uint32_t fe_chargen_after(uint32_t at, size_t n)
{
    return (uint32_t)((at + n) % FE_CHARGEN_PERIOD);
}

/* Fills a buffer with a pattern from its beginning. */
static inline void fe_chargen_fill(unsigned char *out, size_t n, int kind)
{
    for (size_t i = 0; i < n; i++)
        out[i] = i < FE_CHARGEN_PERIOD ? fe_chargen_byte((uint32_t)i, kind)
                                       : out[i - FE_CHARGEN_PERIOD];
}

/* Where a stream stands that begins by this byte, if it begins by a line of the pattern of the RFC:
 * a server may begin by any. FE_CHARGEN_NOWHERE: by none. */
static inline uint32_t fe_chargen_begin(unsigned char first)
{
    if (first < FE_CHARGEN_FIRST || first >= FE_CHARGEN_FIRST + FE_CHARGEN_RING)
        return FE_CHARGEN_NOWHERE;
    return (first - FE_CHARGEN_FIRST) * FE_CHARGEN_LINE;
}

/* How many of n bytes are those of the pattern from `at` on: the first that differs, or n. `period`
 * is filled with FE_CHARGEN_PERIOD bytes: it stays in the nearest cache. */
static inline size_t fe_chargen_same(const unsigned char *period, uint32_t at,
                                     const unsigned char *bytes, size_t n)
{
    size_t done = 0;

    while (done < n) {
        size_t run = FE_CHARGEN_PERIOD - at;

        if (run > n - done)
            run = n - done;
        if (memcmp(period + at, bytes + done, run) != 0) {
            while (period[at] == bytes[done]) {
                at++;
                done++;
            }
            return done;
        }
        done += run;
        at = fe_chargen_after(at, run);
    }
    return n;
}

#endif
