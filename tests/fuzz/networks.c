/* Fuzz target: an address is in a list of networks when a reader of single bits finds it there.
 *
 * Networks and addresses are made near one another: each is a copy of one before it, some of whose
 * bits are turned, so that many leading bits are the same.
 */
#include "input.h"

#include "networks.h"

enum { NETWORKS_MAX = 8, ADDRESSES_MAX = 16 };

/* --- the model: an address is its family and its bits --- */

typedef struct bits {
    int is_ipv6;
    int count;
    unsigned char bit[128];
} bits;

/* is_plain: ::ffff:a.b.c.d is not a.b.c.d. */
static bits bits_of(const unsigned char *address, int is_ipv6, int is_plain)
{
    bits b = {is_ipv6, is_ipv6 ? 128 : 32, {0}};
    int first = 0;

    if (!is_plain && is_ipv6 && address[10] == 255 && address[11] == 255) {
        first = 96;
        for (int i = 0; i < 10; i++)
            first = address[i] == 0 ? first : 0;
        b.is_ipv6 = first == 0;
        b.count -= first;
    }
    for (int i = 0; i < b.count; i++)
        b.bit[i] = address[(first + i) / 8] >> (7 - (first + i) % 8) & 1;
    return b;
}

static int model_has(const fe_network *network, const unsigned char *address, int is_ipv6)
{
    /* A range that is larger than ::ffff:0:0/96 is one of IPv6. */
    bits wanted = bits_of(network->address, network->is_ipv6, network->bits < 96);
    bits is = bits_of(address, is_ipv6, 0);
    int shared = network->bits - (network->is_ipv6 && !wanted.is_ipv6 ? 96 : 0);

    if (wanted.is_ipv6 != is.is_ipv6 || shared > wanted.count)
        return 0;
    for (int i = 0; i < shared; i++)
        if (wanted.bit[i] != is.bit[i])
            return 0;
    return 1;
}

/* --- the input --- */

static void make_address(input *in, unsigned char *address)
{
    unsigned how = take(in);

    if (how & 1) {
        memset(address, 0, 16);
        if (how & 2)
            memset(address + 10, 255, 2);
        for (int i = 12; i < 16; i++)
            address[i] = take(in);
    }
    for (unsigned n = how >> 2 & 3; n > 0; n--) {
        unsigned bit = take(in) % 128;
        address[bit / 8] ^= (unsigned char)(128 >> bit % 8);
    }
    if (how & 128)
        for (int i = 0; i < 16; i++)
            address[i] = take(in);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    input in = {bytes, size < INPUT_MAX ? size : INPUT_MAX};
    unsigned char address[16] = {0};
    size_t n = take(&in) % (NETWORKS_MAX + 1);
    /* Blocks of the exact size: a sanitizer sees what is read behind them. */
    fe_network *list = malloc(n * sizeof(fe_network) + 1);

    assert(list != NULL);
    for (size_t i = 0; i < n; i++) {
        make_address(&in, address);
        memcpy(list[i].address, address, 16);
        list[i].is_ipv6 = take(&in) % 2;
        list[i].bits = take(&in);
    }
    for (int i = 0; i < ADDRESSES_MAX && (i == 0 || in.left > 0); i++) {
        int is_ipv6, has = 0;
        unsigned char *exact;

        make_address(&in, address);
        is_ipv6 = take(&in) % 2;
        exact = malloc(is_ipv6 ? 16 : 4);
        assert(exact != NULL);
        memcpy(exact, address, is_ipv6 ? 16 : 4);
        for (size_t each = 0; each < n; each++)
            has |= model_has(&list[each], exact, is_ipv6);
        assert(fe_networks_have(list, n, exact, is_ipv6) == has);
        free(exact);
    }
    free(list);
    return 0;
}
