/* A connection's bytes that wait: pending replies, unparsed input.
 *
 * Lives here: one growable buffer, a single allocation with its header.
 * Does not live here: who owns it, when it is sent (fastecho/_stream.pxd).
 *
 * A buffer exists only while it holds bytes: the owner keeps a NULL pointer
 * otherwise, so that an idle connection costs nothing beyond its record.
 */
#ifndef FASTECHO_BUFFER_H
#define FASTECHO_BUFFER_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct fe_buffer {
    /* Offset of the first byte that is still wanted. */
    size_t start;
    /* Offset behind the last byte. */
    size_t end;
    /* Bytes allocated in data. */
    size_t capacity;
    /* Bytes behind start that a parser has already searched in vain. */
    size_t scanned;
    unsigned char data[];
} fe_buffer;

/* Smallest allocation: a page less malloc's own header, so that one small
 * leftover does not take two pages. */
#define FE_BUFFER_MIN ((size_t)4000)

/* Bytes held; 0 for NULL. */
static inline size_t fe_buffer_size(const fe_buffer *b)
{
    return b == NULL ? 0 : b->end - b->start;
}

/* First byte held. The buffer must not be NULL. */
static inline unsigned char *fe_buffer_bytes(fe_buffer *b)
{
    return b->data + b->start;
}

/* Makes room for n more bytes behind the last one.
 * Result: 0, or -ENOMEM with *slot as it was. *slot may be NULL before and may
 * move: the caller keeps only the pointer in *slot. */
static inline int fe_buffer_reserve(fe_buffer **slot, size_t n)
{
    fe_buffer *b = *slot;
    size_t held = fe_buffer_size(b);
    size_t wanted, capacity;

    if (b != NULL && b->capacity - b->end >= n)
        return 0;
    if (n > SIZE_MAX / 4 - held)
        return -ENOMEM;
    wanted = held + n;
    if (b != NULL && b->capacity >= wanted && b->start >= held) {
        /* Room in front, and no byte moves twice: slide down. */
        memcpy(b->data, b->data + b->start, held);
        b->start = 0;
        b->end = held;
        return 0;
    }
    capacity = b == NULL ? FE_BUFFER_MIN : b->capacity;
    while (capacity < wanted)
        capacity *= 2;
    b = malloc(sizeof(fe_buffer) + capacity);
    if (b == NULL)
        return -ENOMEM;
    b->start = 0;
    b->end = held;
    b->capacity = capacity;
    b->scanned = 0;
    if (*slot != NULL) {
        memcpy(b->data, fe_buffer_bytes(*slot), held);
        b->scanned = (*slot)->scanned;
        free(*slot);
    }
    *slot = b;
    return 0;
}

/* Copies n bytes behind the last one. Result as fe_buffer_reserve. */
static inline int fe_buffer_append(fe_buffer **slot, const void *bytes, size_t n)
{
    int rc;

    if (n == 0)
        return 0;
    rc = fe_buffer_reserve(slot, n);
    if (rc < 0)
        return rc;
    memcpy((*slot)->data + (*slot)->end, bytes, n);
    (*slot)->end += n;
    return 0;
}

/* Frees the buffer and sets *slot to NULL. */
static inline void fe_buffer_free(fe_buffer **slot)
{
    free(*slot);
    *slot = NULL;
}

/* Drops the first n bytes (n <= size); frees the buffer when none is left.
 * What was scanned of the bytes that stay is still scanned. */
static inline void fe_buffer_consume(fe_buffer **slot, size_t n)
{
    fe_buffer *b = *slot;

    if (b == NULL)
        return;
    b->start += n;
    b->scanned = b->scanned > n ? b->scanned - n : 0;
    if (b->start == b->end)
        fe_buffer_free(slot);
}

#endif
