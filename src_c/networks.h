/* Networks: ranges of addresses, as a list that an address is in or not.
 *
 * Lives here: the range and the question. Does not live here: their text (Python's ipaddress reads
 * it), and what an address may do that is in one.
 *
 * An IPv4 address that came through an IPv6 socket (::ffff:a.b.c.d, as a dual-stack listener
 * reports it) is the IPv4 address, and a network below ::ffff:0:0/96 is one of IPv4. No other
 * network of IPv6 has IPv4 addresses: ::/0 is all of IPv6 and nothing else.
 */
#ifndef FASTECHO_NETWORKS_H
#define FASTECHO_NETWORKS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct fe_network {
    /* 4 or 16 bytes in network byte order. Those behind `bits` do not count. */
    unsigned char address[16];
    uint8_t is_ipv6;
    /* Leading bits that an address shares with it, at most 32 or 128; with more, it has nobody. */
    uint8_t bits;
} fe_network;

/* The first 12 bytes of an IPv4 address in an IPv6 address. */
static inline const unsigned char *fe_mapped_prefix(void)
{
    static const unsigned char prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    return prefix;
}

/* Whether n <= 128 leading bits are the same. */
static inline int fe_bits_agree(const unsigned char *a, const unsigned char *b, unsigned n)
{
    unsigned bytes = n / 8, rest = n % 8;

    return memcmp(a, b, bytes) == 0 && (rest == 0 || (a[bytes] ^ b[bytes]) >> (8 - rest) == 0);
}

/* Result: 1 if an address of 4 or 16 bytes, in network byte order, is in one of n networks. */
static inline int fe_networks_have(const fe_network *list, size_t n, const unsigned char *address,
                                   int is_ipv6)
{
    if (is_ipv6 && memcmp(address, fe_mapped_prefix(), 12) == 0) {
        address += 12;
        is_ipv6 = 0;
    }
    for (size_t i = 0; i < n; i++) {
        const unsigned char *network = list[i].address;
        unsigned bits = list[i].bits;
        int network_is_ipv6 = list[i].is_ipv6;

        if (network_is_ipv6 && bits >= 96 && memcmp(network, fe_mapped_prefix(), 12) == 0) {
            network += 12;
            bits -= 96;
            network_is_ipv6 = 0;
        }
        if (!network_is_ipv6 == !is_ipv6 && bits <= (is_ipv6 ? 128u : 32u) &&
            fe_bits_agree(address, network, bits))
            return 1;
    }
    return 0;
}

#endif
