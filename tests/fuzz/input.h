/* What the fuzz targets share: an input that is read as decisions, and a sink for bytes.
 *
 * Lives here: how bytes of an input become numbers. Does not live here: what a target does with
 * them. An input that has ended gives zeros, so that every input means something.
 */
#ifndef FASTECHO_TESTS_FUZZ_INPUT_H
#define FASTECHO_TESTS_FUZZ_INPUT_H

#include "../c/support.h"

#include <stddef.h>
#include <string.h>

/* Longest input; `make fuzz` makes none that is longer. */
#define INPUT_MAX ((size_t)4096)

/* What libFuzzer calls, and replay.c. Result: always 0; a failed check aborts. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

typedef struct input {
    const uint8_t *bytes;
    /* Bytes that were not taken yet. */
    size_t left;
} input;

static inline uint8_t take(input *in)
{
    if (in->left == 0)
        return 0;
    in->left--;
    return *in->bytes++;
}

/* A number of up to n <= 8 bytes, little-endian. */
static inline uint64_t take_number(input *in, unsigned n)
{
    uint64_t number = 0;

    for (unsigned i = 0; i < n; i++)
        number |= (uint64_t)take(in) << (8 * i);
    return number;
}

#endif
