/* Fuzz target: the line by which a server says who answers ends where a reader of single bytes
 * sees its end, however it is cut, and names the instance that a plain reader of JSON finds in it.
 *
 * The first byte says what the rest is: a stream as it is; one behind a brace, or behind the length
 * of a frame; or tokens of JSON, a byte each. Then come the sizes of the pieces. Each line of the
 * stream is taken as that of a connection, as fastecho/_load_greeting.pxd takes it, and what is
 * left behind it is the next connection's.
 */
#include "input.h"
#include "json.h"

#include "load_greeting.h"

enum { STREAM_MAX = 12000, CUTS_MAX = 16 };

static unsigned char stream[STREAM_MAX];
static size_t stream_size;

static void append(const void *bytes, size_t n)
{
    if (n > STREAM_MAX - stream_size)
        n = STREAM_MAX - stream_size;
    if (n > 0)
        memcpy(stream + stream_size, bytes, n);
    stream_size += n;
}

/* A token inside as many objects and arrays; which of them is which, the bits of `kinds` say. */
static void append_nested(const char *token, unsigned depth, unsigned kinds)
{
    for (unsigned i = 0; i < depth; i++)
        append(kinds >> i & 1 ? "[" : "{\"a\":", kinds >> i & 1 ? 1 : 5);
    append(token, strlen(token));
    while (depth-- > 0)
        append(kinds >> depth & 1 ? "]" : "}", 1);
}

/* A token for each byte, so that JSON is found soon. */
static void append_tokens(input *in)
{
    static const char *const tokens[] = {
        "{", "}", "[", "]", ",", ":", "\"instance\"", "\"a\"", "true", "false", "null", "0",
        "-12.5e+3", " ", "\n", "\"", "\\u00e4", "\\", "0.", "1E", "{\"a\":", "\"instance\":\"b\"",
        "{\"instance\":\"web-1\"", "\"\\\"\"", "tru", "-", "}\n", "\r\t",
    };
    const size_t count = sizeof(tokens) / sizeof(tokens[0]);

    while (in->left > 0) {
        size_t token = take(in) % (count + 4);
        unsigned char name[2];

        if (token < count) {
            append(tokens[token], strlen(tokens[token]));
        } else if (token == count) {
            name[0] = take(in);
            append(name, 1);
        } else if (token == count + 1) {
            size_t inside = take(in) % count;
            unsigned depth = take(in) % 20;
            append_nested(tokens[inside], depth, (unsigned)take_number(in, 3));
        } else if (token == count + 2) {
            for (unsigned n = take(in); n > 0; n--)
                append("0123456789abcdef", 16);
        } else {
            name[0] = 'a' + take(in) % 26;
            name[1] = 'a' + take(in) % 26;
            append("{\"instance\":\"", 13);
            append(name, 2);
            append("\"}\n", 3);
        }
    }
}

/* --- the end of a line, byte by byte --- */

/* As fe_greeting_size; *decided is how many bytes it takes to know. */
static int model_size(const unsigned char *bytes, size_t n, size_t *decided)
{
    size_t length = 0;

    for (size_t i = 0; i < n; i++) {
        *decided = i + 1;
        if (i == 0 && bytes[0] != '{' && bytes[0] != 0)
            return -1;
        if (bytes[0] == '{' && bytes[i] == '\n')
            return (int)i + 1;
        if (bytes[0] == '{' && i + 1 == 8192)
            return -1;
        if (bytes[0] == 0 && i < 4)
            length = length * 256 + bytes[i];
        if (bytes[0] == 0 && i == 3 && (length < 2 || length > 8192))
            return -1;
        if (bytes[0] == 0 && i >= 4 && i + 1 == 4 + length)
            return (int)i + 1;
    }
    *decided = n + 1;
    return 0;
}

static unsigned char *exact_copy(const unsigned char *bytes, size_t n)
{
    unsigned char *copy = malloc(n + 1);

    assert(copy != NULL);
    if (n > 0)
        memcpy(copy + 1, bytes, n);
    return copy + 1;
}

/* What the n bytes come to, whatever number of them is looked at: nothing before the byte that
 * decides, the same from there on. Result: size, or 0 or -1. */
static int size_everywhere(const unsigned char *bytes, size_t n)
{
    size_t decided;
    int size = model_size(bytes, n, &decided);

    for (size_t looked = 0; looked <= n; looked++) {
        unsigned char *copy;

        if (looked > 40 && looked + 2 < decided && looked % 509 != 0)
            continue;
        if (looked > decided + 2 && looked < n)
            looked = n;
        /* The end of a block of memory is the end of what may be read. */
        copy = exact_copy(bytes, looked);
        assert(fe_greeting_size(copy, looked) == (looked < decided ? 0 : size));
        free(copy - 1);
    }
    return size;
}

/* Whether n bytes are a whole line that names an instance; name lies in these bytes. */
static int named(const unsigned char *line, size_t n, fe_json_text *name)
{
    size_t head = line[0] == 0 ? 4 : 0, size;
    unsigned char *copy = exact_copy(line, n);
    const uint8_t *value;
    int is_line = json_object(line + head, n - head, "instance", &value, &size);

    is_line = is_line && value != NULL && *value == '"' && size > 2;
    assert(fe_greeting_name(copy, n, name) == is_line);
    if (is_line) {
        assert(name->size == size - 2);
        assert(name->bytes == copy + (value + 1 - line));
        name->bytes = value + 1;
    } else {
        *name = (fe_json_text){NULL, 0};
    }
    free(copy - 1);
    return is_line;
}

/* --- a connection, as a load holds it --- */

typedef struct connection {
    unsigned char *held;
    size_t used;
} connection;

/* As greeting_take of fastecho/_load_greeting.pxd, which counts by the name afterwards. */
static long take_piece(connection *c, const unsigned char *came, size_t n, fe_json_text *name)
{
    const unsigned char *begin = came;
    size_t before = c->used, have = n;
    int size;

    if (before > 0) {
        have = before + (n < FE_GREETING_MAX - before ? n : FE_GREETING_MAX - before);
        memcpy(c->held + before, came, have - before);
        begin = c->held;
    }
    size = fe_greeting_size(begin, have);
    if (size == 0) {
        assert(have == before + n && have < FE_GREETING_MAX);
        if (before == 0) {
            c->held = malloc(FE_GREETING_MAX);
            assert(c->held != NULL);
            if (n > 0)
                memcpy(c->held, came, n);
        }
        c->used = have;
        return (long)n;
    }
    if (size < 0 || !fe_greeting_name(begin, (size_t)size, name))
        return -1;
    return (long)((size_t)size - before);
}

/* Feeds a connection in pieces until its line is whole or none. Result: bytes of the line; 0: all
 * came and it is not whole; -1: none. A piece of no bytes does not come. */
static long take_in_pieces(const unsigned char *bytes, size_t n, const uint8_t *cuts, size_t count,
                           fe_json_text *name)
{
    connection c = {NULL, 0};
    size_t given = 0;
    long result = 0;

    for (size_t i = 0; given < n && result == 0; i++) {
        size_t piece = i < count && cuts[i] < n - given ? cuts[i] : n - given;
        unsigned char *copy;
        fe_json_text found = {NULL, 0};
        long taken;

        if (piece == 0)
            continue;
        copy = exact_copy(bytes + given, piece);
        taken = take_piece(&c, copy, piece, &found);
        assert(taken >= -1 && taken <= (long)piece);
        if (taken < 0) {
            result = -1;
        } else if (found.size > 0) {
            const unsigned char *line = c.used > 0 ? c.held : copy;
            result = (long)given + taken;
            name->bytes = bytes + (found.bytes - line);
            name->size = found.size;
            assert(memcmp(name->bytes, found.bytes, found.size) == 0);
        }
        given += piece;
        free(copy - 1);
    }
    free(c.held);
    return result;
}

/* --- instances --- */

static fe_instances all;

/* Counts as the load does, and compares with the names that were there before. */
static void count_name(const fe_json_text *name)
{
    static fe_json_text known[FE_INSTANCES];
    uint32_t model = 0, at = fe_instances_find(&all, name);

    while (model < all.used && !(known[model].size == name->size &&
                                 memcmp(known[model].bytes, name->bytes, name->size) == 0))
        model++;
    assert(at == model && at <= FE_INSTANCES);
    if (at == all.used && at < FE_INSTANCES) {
        known[at] = *name;
        all.each[at].name = (unsigned char *)name->bytes;
        all.each[at].size = name->size;
        all.used++;
    }
    all.each[at].connections++;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    input in = {bytes, size < INPUT_MAX ? size : INPUT_MAX};
    uint8_t cuts[CUTS_MAX];
    int mode = take(&in) % 4;
    size_t count = take(&in) % (CUTS_MAX + 1), begin = 0;

    for (size_t i = 0; i < count; i++)
        cuts[i] = take(&in); /* bytes of a piece */
    stream_size = 0;
    if (mode == 1)
        append("{", 1);
    if (mode == 2) {
        unsigned char head[4] = {0, 0, 0, 0};
        uint64_t length = take_number(&in, 2);

        head[2] = (unsigned char)(length >> 8);
        head[3] = (unsigned char)length;
        append(head, 4);
    }
    if (mode == 3)
        append_tokens(&in);
    append(in.bytes, in.left);

    memset(&all, 0, sizeof(all));
    for (uint64_t connections = 0;; connections++) {
        const unsigned char *line = stream + begin;
        size_t left = stream_size - begin;
        fe_json_text whole = {NULL, 0}, cut = {NULL, 0};
        int end = size_everywhere(line, left);
        long wanted = end > 0 && !named(line, (size_t)end, &whole) ? -1 : end;
        uint64_t counted = 0;

        assert(take_in_pieces(line, left, NULL, 0, &cut) == wanted);
        assert(cut.size == whole.size && cut.bytes == whole.bytes);
        assert(take_in_pieces(line, left, cuts, count, &cut) == wanted);
        assert(cut.size == whole.size && cut.bytes == whole.bytes);
        if (wanted <= 0) {
            for (uint32_t i = 0; i <= FE_INSTANCES; i++)
                counted += all.each[i].connections;
            assert(counted == connections);
            fe_instances_forget(&all);
            return 0;
        }
        count_name(&whole);
        begin += (size_t)wanted;
    }
}
