/* Whether bytes are JSON, as a plain reader of tokens sees it: the model of the targets that read
 * or write JSON.
 *
 * Lives here: tokens, the order in which they may come, a stack for what is open. Does not live
 * here: what a text has to say. Only ASCII is JSON here, as in src_c/load_greeting.h.
 */
#ifndef FASTECHO_TESTS_FUZZ_JSON_H
#define FASTECHO_TESTS_FUZZ_JSON_H

#include <ctype.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Objects and arrays in one another, at the most. */
enum { JSON_DEPTH = 16 };

/* What may come next. */
enum json_state {
    JSON_VALUE,
    JSON_VALUE_OR_END,
    JSON_KEY,
    JSON_KEY_OR_END,
    JSON_COLON,
    JSON_COMMA_OR_END
};

/* Bytes of the string that begins at p; 0: it is none, or has no end. */
static inline size_t json_string(const uint8_t *p, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        if (p[i] == '"')
            return i + 1;
        if (p[i] < 0x20 || p[i] >= 0x80)
            return 0;
        if (p[i] != '\\')
            continue;
        if (++i == n || p[i] == 0 || strchr("\"\\/bfnrtu", p[i]) == NULL)
            return 0;
        for (int digits = p[i] == 'u' ? 4 : 0; digits > 0; digits--)
            if (++i == n || !isxdigit(p[i]))
                return 0;
    }
    return 0;
}

/* Bytes of the number that begins at p; 0: it is none. Rows: what has come; columns: a zero,
 * another digit, minus, plus, full stop, an e. */
static inline size_t json_number(const uint8_t *p, size_t n)
{
    static const int next[9][6] = {
        {2, 3, 1, 0, 0, 0}, /* nothing */
        {2, 3, 0, 0, 0, 0}, /* minus */
        {0, 0, 0, 0, 4, 6}, /* zero */
        {3, 3, 0, 0, 4, 6}, /* digits */
        {5, 5, 0, 0, 0, 0}, /* the full stop */
        {5, 5, 0, 0, 0, 6}, /* digits behind it */
        {8, 8, 7, 7, 0, 0}, /* the e */
        {8, 8, 0, 0, 0, 0}, /* its sign */
        {8, 8, 0, 0, 0, 0}, /* its digits */
    };
    int state = 0;
    size_t i = 0;

    for (; i < n && p[i] != 0 && strchr("0123456789-+.eE", p[i]) != NULL; i++) {
        int kind = p[i] == '0'   ? 0
                   : isdigit(p[i]) ? 1
                   : p[i] == '-' ? 2
                   : p[i] == '+' ? 3
                   : p[i] == '.' ? 4
                                 : 5;
        state = next[state][kind];
        if (state == 0)
            return 0;
    }
    return state == 2 || state == 3 || state == 5 || state == 8 ? i : 0;
}

/* Bytes of the token that begins at p; 0: it is none. */
static inline size_t json_token(const uint8_t *p, size_t n)
{
    static const char *const words[] = {"true", "false", "null"};

    if (*p != 0 && strchr("{}[],:", *p) != NULL)
        return 1;
    if (*p == '"')
        return json_string(p, n);
    for (int i = 0; i < 3; i++)
        if (n >= strlen(words[i]) && memcmp(p, words[i], strlen(words[i])) == 0)
            return strlen(words[i]);
    return json_number(p, n);
}

/* The state behind a token; -1: it may not come here. stack: one of '{' and '[' for each that is
 * open, *depth of them. */
static inline int json_next(int state, char token, char *stack, int *depth)
{
    int may_be_value = state == JSON_VALUE || state == JSON_VALUE_OR_END;
    int may_be_key = state == JSON_KEY || state == JSON_KEY_OR_END;
    char open = *depth > 0 ? stack[*depth - 1] : 0;

    switch (token) {
    case '{':
    case '[':
        if (!may_be_value || *depth == JSON_DEPTH)
            return -1;
        stack[(*depth)++] = token;
        return token == '{' ? JSON_KEY_OR_END : JSON_VALUE_OR_END;
    case '}':
    case ']':
        if (open != (token == '}' ? '{' : '[') ||
            (state != JSON_COMMA_OR_END &&
             state != (token == '}' ? JSON_KEY_OR_END : JSON_VALUE_OR_END)))
            return -1;
        --*depth;
        return JSON_COMMA_OR_END;
    case ':':
        return state == JSON_COLON ? JSON_VALUE : -1;
    case ',':
        if (state != JSON_COMMA_OR_END || open == 0)
            return -1;
        return open == '{' ? JSON_KEY : JSON_VALUE;
    case '"':
        if (may_be_key)
            return JSON_COLON;
        break;
    default:
        break;
    }
    return may_be_value ? JSON_COMMA_OR_END : -1;
}

/* Whether the bytes are one object, with space around it. The last value of the object's member
 * `key`, as it stands, goes to *value and *size; NULL and 0: it has none. */
static inline int json_object(const uint8_t *p, size_t n, const char *key, const uint8_t **value,
                              size_t *size)
{
    char stack[JSON_DEPTH];
    int state = JSON_VALUE, depth = 0, is_key = 0, has_begun = 0;

    *value = NULL;
    *size = 0;
    for (size_t i = 0, length; i < n; i += length) {
        length = 1;
        if (p[i] == ' ' || p[i] == '\t' || p[i] == '\r' || p[i] == '\n')
            continue;
        if (depth == 0 && (has_begun || p[i] != '{'))
            return 0;
        has_begun = 1;
        length = json_token(p + i, n - i);
        if (length == 0)
            return 0;
        if (depth == 1 && is_key && state == JSON_VALUE) {
            *value = p + i;
            *size = length;
            is_key = 0;
        }
        if (depth == 1 && (state == JSON_KEY || state == JSON_KEY_OR_END))
            is_key = length == strlen(key) + 2 && memcmp(p + i + 1, key, length - 2) == 0;
        state = json_next(state, (char)p[i], stack, &depth);
        if (state < 0)
            return 0;
    }
    return has_begun && depth == 0;
}

#endif
