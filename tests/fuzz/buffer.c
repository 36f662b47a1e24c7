/* Fuzz target: a buffer holds what a plain array holds, whatever is done to it.
 *
 * Each byte of the input is an operation, with its operands behind it. Memory can be refused in
 * any of them: then nothing may have changed.
 */
#include "input.h"

#include "buffer.h"

enum { HELD_MAX = 1 << 17 };

static unsigned char held[HELD_MAX];
/* Bytes in `held`, those of them that were scanned, and the most that was ever wanted at once. */
static size_t size, scanned, wanted;

static void agree(fe_buffer *b)
{
    assert(fe_buffer_size(b) == size);
    if (b == NULL)
        return;
    assert(b->end <= b->capacity && b->scanned == scanned);
    assert(memcmp(fe_buffer_bytes(b), held, size) == 0);
    /* Bounded: never twice what was wanted, nor less than the smallest. */
    assert(b->capacity == FE_BUFFER_MIN || b->capacity < 2 * wanted);
    /* All of it is there: a sanitizer sees if it is not. */
    if (b->end < b->capacity)
        b->data[b->capacity - 1] = 0;
}

static void append(fe_buffer **slot, size_t n)
{
    static unsigned char next;
    fe_buffer *before = *slot;

    if (n > HELD_MAX - size)
        n = HELD_MAX - size;
    for (size_t i = 0; i < n; i++)
        held[size + i] = next++;
    if (fe_buffer_append(slot, held + size, n) < 0) {
        assert(memory_is_refused && *slot == before);
        return;
    }
    size += n;
    wanted = size > wanted ? size : wanted;
}

static void reserve(fe_buffer **slot, size_t n)
{
    fe_buffer *before = *slot;
    int rc = fe_buffer_reserve(slot, n);

    if (rc < 0) {
        assert(rc == -ENOMEM && *slot == before);
        assert(memory_is_refused);
        return;
    }
    assert((*slot)->capacity - (*slot)->end >= n);
    wanted = size + n > wanted ? size + n : wanted;
}

static void consume(fe_buffer **slot, size_t n)
{
    if (*slot == NULL)
        return;
    n = n < size ? n : size;
    fe_buffer_consume(slot, n);
    memmove(held, held + n, size - n);
    size -= n;
    scanned = scanned > n ? scanned - n : 0;
    assert((*slot == NULL) == (size == 0));
    if (*slot == NULL)
        wanted = scanned = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    input in = {bytes, n};
    fe_buffer *b = NULL;

    size = scanned = wanted = 0;
    while (in.left > 0) {
        uint8_t what = take(&in);

        memory_is_refused = (what & 0x80) != 0;
        switch (what % 7) {
        case 0:
            append(&b, take(&in));
            break;
        case 1:
            append(&b, (size_t)take_number(&in, 2));
            break;
        case 2:
            consume(&b, take(&in));
            break;
        case 3:
            consume(&b, (size_t)take_number(&in, 2));
            break;
        case 4:
            reserve(&b, (size_t)take_number(&in, 2));
            break;
        case 5: /* more than can be counted, and the most that can */
            memory_is_refused = 1;
            reserve(&b, (SIZE_MAX >> (take(&in) % 3)) - take(&in));
            break;
        default:
            if (b != NULL)
                b->scanned = scanned = (size_t)take_number(&in, 2) % (size + 1);
        }
        memory_is_refused = 0;
        agree(b);
    }
    fe_buffer_free(&b);
    assert(b == NULL && fe_buffer_size(b) == 0);
    return 0;
}
