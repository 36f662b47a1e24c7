/* The line by which a server says who answers, as a load reads it; and what each instance answered.
 *
 * Lives here: where the line ends, the name in it, counting by name. Does not live here: the bytes
 * of a line that comes in pieces, and the memory of names (fastecho/_load_greeting.pxd); what a
 * server writes (identify.h).
 *
 * The line is one JSON object in ASCII. All of it has to be JSON, as its name alone would also be
 * found in bytes that only look like it. A name is kept as it stands between its quotes, escapes
 * and all: the same name by other escapes is another one here, and whoever unescapes them adds
 * the two up.
 */
#ifndef FASTECHO_LOAD_GREETING_H
#define FASTECHO_LOAD_GREETING_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    /* Bytes of the line, with its newline or without the length before it, at the most. */
    FE_GREETING_LINE_MAX = 8192,
    FE_GREETING_MAX = FE_GREETING_LINE_MAX + 4,
    /* Objects and arrays in one another, at the most. */
    FE_GREETING_DEPTH = 16,
    /* So many instances are counted by name, all others together at this place. */
    FE_INSTANCES = 256
};

/* --- the JSON of a line ------------------------------------------------------------------- */

typedef struct fe_json {
    const unsigned char *at;
    const unsigned char *end;
} fe_json;

/* A string as it stands between its quotes. */
typedef struct fe_json_text {
    const unsigned char *bytes;
    size_t size;
} fe_json_text;

static inline int fe_json_take(fe_json *j, unsigned char byte)
{
    if (j->at == j->end || *j->at != byte)
        return 0;
    j->at++;
    return 1;
}

static inline void fe_json_space(fe_json *j)
{
    while (j->at < j->end && memchr(" \t\r\n", *j->at, 4) != NULL)
        j->at++;
}

/* Digits, or with hex also letters: as many as there are, `most` at the most. */
static inline size_t fe_json_digits(fe_json *j, int hex, size_t most)
{
    size_t n = 0;

    while (n < most && j->at < j->end &&
           memchr("0123456789abcdefABCDEF", *j->at, hex ? 22 : 10) != NULL) {
        j->at++;
        n++;
    }
    return n;
}

static inline int fe_json_string(fe_json *j, fe_json_text *text)
{
    if (!fe_json_take(j, '"'))
        return 0;
    text->bytes = j->at;
    while (j->at < j->end && *j->at >= 0x20 && *j->at < 0x80) {
        unsigned char byte = *j->at++;

        if (byte == '"') {
            text->size = (size_t)(j->at - 1 - text->bytes);
            return 1;
        }
        if (byte != '\\')
            continue;
        if (fe_json_take(j, 'u')) {
            if (fe_json_digits(j, 1, 4) < 4)
                return 0;
        } else if (j->at == j->end || memchr("\"\\/bfnrt", *j->at++, 8) == NULL) {
            return 0;
        }
    }
    return 0;
}

static inline int fe_json_number(fe_json *j)
{
    fe_json_take(j, '-');
    if (!fe_json_take(j, '0') && fe_json_digits(j, 0, SIZE_MAX) == 0)
        return 0;
    if (fe_json_take(j, '.') && fe_json_digits(j, 0, SIZE_MAX) == 0)
        return 0;
    if (!fe_json_take(j, 'e') && !fe_json_take(j, 'E'))
        return 1;
    if (!fe_json_take(j, '+'))
        fe_json_take(j, '-');
    return fe_json_digits(j, 0, SIZE_MAX) > 0;
}

static inline int fe_json_word(fe_json *j, const char *word)
{
    size_t n = strlen(word);

    if ((size_t)(j->end - j->at) < n || memcmp(j->at, word, n) != 0)
        return 0;
    j->at += n;
    return 1;
}

static inline int fe_json_members(fe_json *j, int depth, fe_json_text *instance);

/* Any value, and the space before it; depth: how many more objects and arrays may stand in one
 * another. */
static inline int fe_json_value(fe_json *j, int depth)
{
    fe_json_text text;

    fe_json_space(j);
    if (j->at == j->end)
        return 0;
    switch (*j->at) {
    case '"':
        return fe_json_string(j, &text);
    case '{':
        return depth > 0 && fe_json_members(j, depth, NULL);
    case '[':
        if (depth == 0)
            return 0;
        j->at++;
        fe_json_space(j);
        if (fe_json_take(j, ']'))
            return 1;
        do {
            if (!fe_json_value(j, depth - 1))
                return 0;
            fe_json_space(j);
        } while (fe_json_take(j, ','));
        return fe_json_take(j, ']');
    case 't':
        return fe_json_word(j, "true");
    case 'f':
        return fe_json_word(j, "false");
    case 'n':
        return fe_json_word(j, "null");
    default:
        return fe_json_number(j);
    }
}

/* An object. instance, unless NULL: becomes the last text of that name; size 0 without one. */
static inline int fe_json_members(fe_json *j, int depth, fe_json_text *instance)
{
    if (!fe_json_take(j, '{'))
        return 0;
    fe_json_space(j);
    if (fe_json_take(j, '}'))
        return 1;
    do {
        fe_json_text key, ignored, *into;

        fe_json_space(j);
        if (!fe_json_string(j, &key))
            return 0;
        fe_json_space(j);
        if (!fe_json_take(j, ':'))
            return 0;
        fe_json_space(j);
        into = instance != NULL && key.size == 8 && memcmp(key.bytes, "instance", 8) == 0
                   ? instance
                   : &ignored;
        into->size = 0;
        if (j->at < j->end && *j->at == '"') {
            if (!fe_json_string(j, into))
                return 0;
        } else if (!fe_json_value(j, depth - 1)) {
            return 0;
        }
        fe_json_space(j);
    } while (fe_json_take(j, ','));
    return fe_json_take(j, '}');
}

/* --- the line ----------------------------------------------------------------------------- */

/* How many of the n first bytes of a connection are the line. 0: more must come; -1: they cannot
 * become one. A line begins with a brace, the length of a frame with 0. */
static inline int fe_greeting_size(const unsigned char *bytes, size_t n)
{
    const unsigned char *end;
    size_t size;

    if (n == 0)
        return 0;
    if (bytes[0] == '{') {
        end = memchr(bytes, '\n', n < FE_GREETING_LINE_MAX ? n : FE_GREETING_LINE_MAX);
        if (end != NULL)
            return (int)(end - bytes) + 1;
        return n < FE_GREETING_LINE_MAX ? 0 : -1;
    }
    if (bytes[0] != 0)
        return -1;
    if (n < 4)
        return 0;
    size = (size_t)bytes[1] << 16 | (size_t)bytes[2] << 8 | bytes[3];
    if (size < 2 || size > FE_GREETING_LINE_MAX)
        return -1;
    return n < 4 + size ? 0 : (int)(4 + size);
}

/* The instance's name in the n bytes of a whole line. Result: whether it is such a line. */
static inline int fe_greeting_name(const unsigned char *bytes, size_t n, fe_json_text *name)
{
    size_t head = bytes[0] == 0 ? 4 : 0;
    fe_json j = {bytes + head, bytes + n};

    name->size = 0;
    fe_json_space(&j);
    if (!fe_json_members(&j, FE_GREETING_DEPTH, name))
        return 0;
    fe_json_space(&j);
    return j.at == j.end && name->size > 0;
}

/* --- instances ---------------------------------------------------------------------------- */

typedef struct fe_instance {
    /* Its name and how long it is; NULL: of all others. */
    unsigned char *name;
    size_t size;
    uint64_t connections;
    /* Right replies in time to messages of the window. */
    uint64_t messages;
} fe_instance;

typedef struct fe_instances {
    uint32_t used;
    /* The last place is that of all others. */
    fe_instance each[FE_INSTANCES + 1];
} fe_instances;

/* Where a name is counted. `used`, below FE_INSTANCES: nowhere yet, the caller gives it that
 * place; FE_INSTANCES: with the others. */
static inline uint32_t fe_instances_find(const fe_instances *all, const fe_json_text *name)
{
    for (uint32_t i = 0; i < all->used; i++)
        if (all->each[i].size == name->size &&
            memcmp(all->each[i].name, name->bytes, name->size) == 0)
            return i;
    return all->used;
}

/* Counting starts anew; the names stay, as connections do. */
static inline void fe_instances_forget(fe_instances *all)
{
    for (uint32_t i = 0; i <= FE_INSTANCES; i++)
        all->each[i].connections = all->each[i].messages = 0;
}

#endif
