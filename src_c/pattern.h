/* The bytes of messages and of the replies that are due for them.
 *
 * Lives here: which byte stands where, for every seed, connection and message.
 * Does not live here: sockets, progress of a connection, counting.
 *
 * All bodies are windows into one stretch of noise that the seed decides. A
 * message needs no generating and no copy, its reply is verified by memcmp, and
 * a window can be sent by sendfile from a memfd that holds the noise.
 *
 * A window starts at one of 65,536 offsets. The offset moves on by an odd step
 * with each message, so no two of 65,536 successive messages of a connection
 * share theirs: a stale, repeated or reordered reply of the same connection is
 * noticed (bodies of one to three bytes can be equal by chance). Connections
 * start at offsets of their own: a reply of another connection passes once in
 * 65,536.
 *
 * Around the body stand a head and a tail, which frames, prefix and suffix need:
 *
 *     raw     body                      reply: body
 *     line    body \n                   reply: prefix body suffix \n
 *     length  header body               reply: header prefix body suffix
 *
 * All messages have one size, or each draws its own from a table by its number and its
 * connection's first window: nothing has to be remembered. Then a length frame's header stands
 * with its size in the table, and is a stretch of its own.
 */
#ifndef FASTECHO_PATTERN_H
#define FASTECHO_PATTERN_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum fe_pattern_frame { FE_PATTERN_RAW = 0, FE_PATTERN_LINE, FE_PATTERN_LENGTH };
/* What is asked for: the message, or the reply that is due for it. */
enum fe_pattern_what { FE_REQUEST = 0, FE_REPLY };

/* Offsets at which a window may start. */
#define FE_PATTERN_WINDOWS ((uint32_t)65536)
/* Odd, and close to 65,536 times the golden ratio: neighbours lie far apart. */
#define FE_PATTERN_STEP ((uint32_t)40503)
/* Largest message, and largest prefix and suffix, in bytes. */
#define FE_PATTERN_MAX_SIZE ((uint64_t)64 * 1024 * 1024)
#define FE_PATTERN_MAX_AFFIX 4096
/* Sizes that a table may hold. */
#define FE_PATTERN_MAX_SIZES ((uint32_t)65536)

/* What follows from the size of a message. */
typedef struct fe_size {
    /* Bytes of the body; of the whole message and of the whole reply. */
    uint32_t body;
    uint32_t whole[2];
    /* The headers of both, if the frame has them. */
    unsigned char header[2][4];
} fe_size;

/* A message or a reply without its body: head, body, tail, in this order. */
typedef struct fe_shape {
    /* Bytes of the parts around the body. */
    uint32_t head_size;
    uint32_t tail_size;
    /* Bytes at the start of head that stand in fe_size instead; 0 while there is one size. */
    uint32_t header_size;
    unsigned char head[4 + FE_PATTERN_MAX_AFFIX];
    unsigned char tail[FE_PATTERN_MAX_AFFIX + 1];
} fe_shape;

typedef struct fe_pattern {
    /* fe_pattern_noise_size() bytes; the caller's. */
    const unsigned char *noise;
    uint64_t seed;
    int frame;
    /* A table of sizes, the caller's; NULL: all messages are of the size `one`. */
    const fe_size *sizes;
    uint32_t size_count;
    fe_size one;
    /* Of messages and of replies. */
    fe_shape shapes[2];
} fe_pattern;

/* Steps a splitmix64 generator: every 64-bit state gives another value. */
static inline uint64_t fe_pattern_mix(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline void fe_shape_append(unsigned char *part, uint32_t *size, const void *bytes,
                                   size_t n)
{
    if (n > 0)
        memcpy(part + *size, bytes, n);
    *size += (uint32_t)n;
}

/* Writes a length frame's header. */
static inline void fe_pattern_header(unsigned char header[4], uint64_t payload)
{
    header[0] = (unsigned char)(payload >> 24);
    header[1] = (unsigned char)(payload >> 16);
    header[2] = (unsigned char)(payload >> 8);
    header[3] = (unsigned char)payload;
}

/* Fills in what follows from a size. */
static inline void fe_pattern_measure(const fe_pattern *p, uint64_t size, fe_size *out)
{
    out->body = (uint32_t)(p->frame == FE_PATTERN_LINE ? size - 1 : size);
    for (int what = FE_REQUEST; what <= FE_REPLY; what++) {
        out->whole[what] = p->shapes[what].head_size + out->body + p->shapes[what].tail_size;
        fe_pattern_header(out->header[what], (uint64_t)out->whole[what] - 4);
    }
}

/* Describes messages of `size` bytes: a line's newline is one of them, a length frame's
 * header is not. The prefix and suffix are what the server is expected to add.
 * Result: 0, or -EINVAL: a size or affix out of range, an affix with raw messages. */
static inline int fe_pattern_init(fe_pattern *p, int frame, uint64_t size, uint64_t seed,
                                  const void *prefix, size_t prefix_size, const void *suffix,
                                  size_t suffix_size)
{
    fe_shape *reply = &p->shapes[FE_REPLY];

    if (size < 1 || size > FE_PATTERN_MAX_SIZE || prefix_size > FE_PATTERN_MAX_AFFIX ||
        suffix_size > FE_PATTERN_MAX_AFFIX)
        return -EINVAL;
    if (frame == FE_PATTERN_RAW && prefix_size + suffix_size > 0)
        return -EINVAL;
    memset(p, 0, sizeof(*p));
    p->seed = seed;
    p->frame = frame;
    if (frame == FE_PATTERN_LENGTH)
        p->shapes[FE_REQUEST].head_size = reply->head_size = 4;
    fe_shape_append(reply->head, &reply->head_size, prefix, prefix_size);
    fe_shape_append(reply->tail, &reply->tail_size, suffix, suffix_size);
    if (frame == FE_PATTERN_LINE) {
        fe_shape_append(p->shapes[FE_REQUEST].tail, &p->shapes[FE_REQUEST].tail_size, "\n", 1);
        fe_shape_append(reply->tail, &reply->tail_size, "\n", 1);
    }
    fe_pattern_measure(p, size, &p->one);
    if (frame == FE_PATTERN_LENGTH)
        for (int what = FE_REQUEST; what <= FE_REPLY; what++)
            memcpy(p->shapes[what].head, p->one.header[what], 4);
    return 0;
}

/* From now on each message draws its size from `sizes`, each in the range that fe_pattern_init
 * checks; what follows from them is written to table, `count` entries, which must outlive p. */
static inline void fe_pattern_vary(fe_pattern *p, const uint32_t *sizes, fe_size *table,
                                   uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        fe_pattern_measure(p, sizes[i], &table[i]);
    p->sizes = table;
    p->size_count = count;
    if (p->frame == FE_PATTERN_LENGTH)
        p->shapes[FE_REQUEST].header_size = p->shapes[FE_REPLY].header_size = 4;
}

/* Bytes of noise that messages of `size` bytes need. */
static inline size_t fe_pattern_noise_size(uint64_t size)
{
    return (size_t)size + FE_PATTERN_WINDOWS;
}

/* Fills the noise. For lines it holds neither \n nor \r: they would end a line early, or
 * make a CRLF of its end. */
static inline void fe_pattern_fill(unsigned char *noise, size_t n, uint64_t seed, int frame)
{
    uint64_t state = seed, word = 0;

    for (size_t i = 0; i < n; i++) {
        if (i % 8 == 0)
            word = fe_pattern_mix(&state);
        noise[i] = (unsigned char)word;
        word >>= 8;
        if (frame == FE_PATTERN_LINE && (noise[i] == '\n' || noise[i] == '\r'))
            noise[i] ^= 0x80;
    }
}

/* The window of a connection's first message. */
static inline uint32_t fe_pattern_first(const fe_pattern *p, uint32_t connection)
{
    uint64_t state = p->seed ^ ((uint64_t)connection << 32);

    return (uint32_t)fe_pattern_mix(&state) % FE_PATTERN_WINDOWS;
}

/* The body of message `number` of the connection whose first window is `first`. */
static inline const unsigned char *fe_pattern_body(const fe_pattern *p, uint32_t first,
                                                   uint64_t number)
{
    return p->noise + (first + (uint32_t)number * FE_PATTERN_STEP) % FE_PATTERN_WINDOWS;
}

/* The size of message `number` of the connection whose first window is `first`. */
static inline const fe_size *fe_pattern_size(const fe_pattern *p, uint32_t first, uint64_t number)
{
    uint64_t state;

    if (__builtin_expect(p->sizes == NULL, 1))
        return &p->one;
    state = p->seed ^ ((uint64_t)first << 48) ^ number;
    return &p->sizes[(fe_pattern_mix(&state) >> 32) * p->size_count >> 32];
}

/* Where byte `at` of a message or reply stands, at < size->whole[what].
 * Result: how many bytes follow it without a gap, itself included; *bytes points at them. */
static inline size_t fe_pattern_run(const fe_pattern *p, int what, const fe_size *size,
                                    const unsigned char *body, uint64_t at,
                                    const unsigned char **bytes)
{
    const fe_shape *shape = &p->shapes[what];

    if (at < shape->head_size) {
        int apart = at < shape->header_size;

        *bytes = (apart ? size->header[what] : shape->head) + at;
        return (size_t)((apart ? shape->header_size : shape->head_size) - at);
    }
    at -= shape->head_size;
    if (__builtin_expect(at < size->body, 1)) {
        *bytes = body + at;
        return (size_t)(size->body - at);
    }
    at -= size->body;
    *bytes = shape->tail + at;
    return (size_t)(shape->tail_size - at);
}

/* Index of the first byte at which a and b differ, or n. */
static inline size_t fe_pattern_difference(const unsigned char *a, const unsigned char *b,
                                           size_t n)
{
    size_t i = 0;

    while (i < n && a[i] == b[i])
        i++;
    return i;
}

#endif
