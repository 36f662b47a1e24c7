/* Headers of the PROXY protocol at every cut, for the tests of src_c/proxy.h. */
#ifndef FASTECHO_TESTS_PROXIES_H
#define FASTECHO_TESTS_PROXIES_H

#include "support.h"

#include "proxy.h"

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define BYTES(text) ((const unsigned char *)(text))
#define COUNT(array) (sizeof(array) / sizeof(array[0]))

/* What parsing gave, and how many bytes it took to know. */
typedef struct verdict {
    int status;
    size_t decided;
    fe_proxy header;
} verdict;

/* Whether two headers say the same, whatever is between their fields. */
static inline int same_header(const fe_proxy *a, const fe_proxy *b)
{
    const size_t first = offsetof(fe_proxy, destination) + sizeof(a->destination);
    const size_t then = offsetof(fe_proxy, total);

    return memcmp(a, b, first) == 0 &&
           memcmp((const char *)a + then, (const char *)b + then, sizeof(*a) - then) == 0;
}

/* From memory of the exact size, so that a sanitizer sees what is read behind it. */
static inline int parse_exactly(const unsigned char *in, size_t n, fe_proxy *out)
{
    unsigned char *copy = malloc(n + 1);
    int status;

    assert(copy != NULL);
    memcpy(copy + 1, in, n);
    memset(out, 0xa5, sizeof(*out));
    status = fe_proxy_parse(copy + 1, n, out);
    free(copy);
    return status;
}

/* Until the byte that decides it is NEED_INPUT; from there on it is always the same. */
static inline verdict parse(const unsigned char *in, size_t n)
{
    static const fe_proxy nothing;
    verdict v = {FE_PROXY_NEED_INPUT, n + 1, nothing};

    for (size_t cut = 0; cut <= n; cut++) {
        fe_proxy header;
        int status = parse_exactly(in, cut, &header);

        if (v.status == FE_PROXY_NEED_INPUT && status != FE_PROXY_NEED_INPUT)
            v = (verdict){status, cut, header};
        assert(status == v.status && same_header(&header, &v.header));
    }
    assert((v.status == FE_PROXY_BAD) == (v.header.error != FE_PROXY_NO_ERROR));
    if (v.status == FE_PROXY_DONE)
        assert(v.header.total == v.decided && v.header.total <= FE_PROXY_MAX);
    else
        assert(v.header.total == 0 && v.header.family == 0 && v.header.source_port == 0);
    return v;
}

#endif
