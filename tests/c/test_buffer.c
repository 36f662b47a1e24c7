/* The buffer keeps bytes in order, whatever is appended and consumed, remembers what a parser
 * has searched, exists only while it holds something, and survives refused memory. */
#include "support.h"

#include "buffer.h"

static void an_empty_buffer_is_no_buffer(void)
{
    fe_buffer *b = NULL;

    assert(fe_buffer_size(b) == 0);
    assert(fe_buffer_append(&b, "", 0) == 0 && b == NULL);
    fe_buffer_consume(&b, 0);
    assert(b == NULL);
    fe_buffer_free(&b);
    assert(b == NULL);
}

static void a_small_rest_fits_a_page_with_its_headers(void)
{
    fe_buffer *b = NULL;

    assert(fe_buffer_append(&b, "x", 1) == 0);
    /* malloc's own header is 16 bytes at the most. */
    assert(sizeof(fe_buffer) + b->capacity + 16 <= 4096);
    fe_buffer_free(&b);
}

static void bytes_come_back_in_order_and_the_last_one_frees(void)
{
    fe_buffer *b = NULL;

    assert(fe_buffer_append(&b, "abc", 3) == 0);
    assert(fe_buffer_append(&b, "def", 3) == 0);
    assert(fe_buffer_size(b) == 6 && memcmp(fe_buffer_bytes(b), "abcdef", 6) == 0);
    fe_buffer_consume(&b, 2);
    assert(fe_buffer_size(b) == 4 && memcmp(fe_buffer_bytes(b), "cdef", 4) == 0);
    fe_buffer_consume(&b, 4);
    assert(b == NULL);
}

static void what_was_searched_of_the_rest_stays_searched(void)
{
    fe_buffer *b = NULL;

    assert(fe_buffer_append(&b, "0123456789", 10) == 0 && b->scanned == 0);
    b->scanned = 7;
    fe_buffer_consume(&b, 3);
    assert(b->scanned == 4);
    fe_buffer_consume(&b, 5);
    assert(b->scanned == 0 && fe_buffer_size(b) == 2);
    fe_buffer_free(&b);
}

static void room_in_front_is_used_before_memory(void)
{
    static const unsigned char bytes[4000];
    fe_buffer *b = NULL, *before;

    assert(fe_buffer_append(&b, bytes, FE_BUFFER_MIN) == 0);
    before = b;
    fe_buffer_consume(&b, FE_BUFFER_MIN - 100);
    b->scanned = 60;
    memory_is_refused = 1;
    assert(fe_buffer_append(&b, bytes, FE_BUFFER_MIN - 100) == 0);
    memory_is_refused = 0;
    assert(b == before && b->start == 0 && b->end == FE_BUFFER_MIN && b->scanned == 60);
    fe_buffer_free(&b);
}

static void room_is_used_to_the_last_byte(void)
{
    static const unsigned char bytes[4000];
    fe_buffer *b = NULL;

    assert(fe_buffer_append(&b, bytes, 1) == 0);
    memory_is_refused = 1;
    /* Behind the last byte. */
    assert(fe_buffer_reserve(&b, FE_BUFFER_MIN - 1) == 0);
    assert(fe_buffer_append(&b, bytes, FE_BUFFER_MIN - 1) == 0);
    /* In front, where half of it can slide without overlap. */
    fe_buffer_consume(&b, FE_BUFFER_MIN / 2);
    assert(fe_buffer_reserve(&b, FE_BUFFER_MIN / 2) == 0 && b->start == 0);
    assert(fe_buffer_reserve(&b, FE_BUFFER_MIN / 2 + 1) == -ENOMEM);
    memory_is_refused = 0;
    assert(fe_buffer_size(b) == FE_BUFFER_MIN / 2);
    fe_buffer_free(&b);
}

static void growing_keeps_bytes_and_search(void)
{
    static unsigned char bytes[50000];
    fe_buffer *b = NULL;

    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (unsigned char)(i * 7 + i / 256);
    assert(fe_buffer_append(&b, bytes, 3000) == 0);
    fe_buffer_consume(&b, 10);
    b->scanned = 2000;
    assert(fe_buffer_append(&b, bytes + 3000, sizeof(bytes) - 3000) == 0);
    assert(b->scanned == 2000 && fe_buffer_size(b) == sizeof(bytes) - 10);
    assert(memcmp(fe_buffer_bytes(b), bytes + 10, sizeof(bytes) - 10) == 0);
    fe_buffer_free(&b);
}

static void refused_memory_leaves_the_buffer_as_it_was(void)
{
    static const unsigned char bytes[10000];
    fe_buffer *b = NULL, *before;

    memory_is_refused = 1;
    assert(fe_buffer_append(&b, "abc", 3) == -ENOMEM && b == NULL);
    assert(fe_buffer_reserve(&b, 1) == -ENOMEM && b == NULL);
    memory_is_refused = 0;
    assert(fe_buffer_append(&b, "abc", 3) == 0);
    before = b;
    memory_is_refused = 1;
    assert(fe_buffer_append(&b, bytes, sizeof(bytes)) == -ENOMEM);
    memory_is_refused = 0;
    assert(b == before && fe_buffer_size(b) == 3 && memcmp(fe_buffer_bytes(b), "abc", 3) == 0);
    fe_buffer_free(&b);
}

static void a_size_that_would_overflow_is_refused(void)
{
    fe_buffer *b = NULL;

    assert(fe_buffer_reserve(&b, SIZE_MAX) == -ENOMEM && b == NULL);
    assert(fe_buffer_append(&b, "abc", 3) == 0);
    assert(fe_buffer_reserve(&b, SIZE_MAX) == -ENOMEM);
    assert(fe_buffer_reserve(&b, SIZE_MAX / 4 - 2) == -ENOMEM);
    assert(fe_buffer_size(b) == 3 && memcmp(fe_buffer_bytes(b), "abc", 3) == 0);
    fe_buffer_free(&b);
}

static void reserved_room_needs_no_memory_later(void)
{
    fe_buffer *b = NULL;
    static const unsigned char bytes[9000];

    assert(fe_buffer_reserve(&b, sizeof(bytes)) == 0 && fe_buffer_size(b) == 0);
    memory_is_refused = 1;
    assert(fe_buffer_append(&b, bytes, sizeof(bytes)) == 0);
    memory_is_refused = 0;
    fe_buffer_consume(&b, sizeof(bytes));
    assert(b == NULL);
}

/* Byte number i of the stream. */
static unsigned char stream_byte(uint64_t i)
{
    return (unsigned char)(i * 131 + (i >> 8) * 31 + (i >> 16));
}

/* The model: two positions in an endless stream. */
static void any_appends_and_consumes_give_the_stream(void)
{
    static unsigned char piece[20000];
    fe_buffer *b = NULL;
    uint64_t state = 7, written = 0, read = 0, searched = 0;

    for (int round = 0; round < 40000; round++) {
        uint64_t most = random_below(&state, 50) == 0 ? sizeof(piece) : 300;
        uint64_t n = random_below(&state, most + 1);

        memory_is_refused = random_below(&state, 10) == 0;
        if (random_below(&state, 2)) {
            for (uint64_t i = 0; i < n; i++)
                piece[i] = stream_byte(written + i);
            if (fe_buffer_append(&b, piece, n) == 0)
                written += n;
            else
                assert(memory_is_refused);
        } else {
            if (random_below(&state, 3) == 0)
                n = fe_buffer_size(b);
            if (n > written - read)
                n = written - read;
            fe_buffer_consume(&b, n);
            read += n;
            searched = searched > n ? searched - n : 0;
        }
        assert(fe_buffer_size(b) == written - read);
        assert((b == NULL) == (written == read));
        if (b == NULL)
            continue;
        assert(b->scanned == searched);
        for (uint64_t i = 0; i < written - read; i += 1 + (written - read) / 64)
            assert(fe_buffer_bytes(b)[i] == stream_byte(read + i));
        assert(fe_buffer_bytes(b)[written - read - 1] == stream_byte(written - 1));
        if (random_below(&state, 4) == 0)
            searched = b->scanned = random_below(&state, written - read + 1);
    }
    assert(written > 1000000 && read > 1000000);
    memory_is_refused = 0;
    fe_buffer_free(&b);
}

int main(void)
{
    an_empty_buffer_is_no_buffer();
    a_small_rest_fits_a_page_with_its_headers();
    bytes_come_back_in_order_and_the_last_one_frees();
    what_was_searched_of_the_rest_stays_searched();
    room_in_front_is_used_before_memory();
    room_is_used_to_the_last_byte();
    growing_keeps_bytes_and_search();
    refused_memory_leaves_the_buffer_as_it_was();
    a_size_that_would_overflow_is_refused();
    reserved_room_needs_no_memory_later();
    any_appends_and_consumes_give_the_stream();
    return 0;
}
