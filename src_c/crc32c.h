/* CRC32c: the checksum of the PROXY protocol, of SCTP and of iSCSI (RFC 3720, 12.1).
 *
 * Lives here: the sum over bytes, in as many pieces as they come. Does not live here: where it
 * stands in a header.
 */
#ifndef FASTECHO_CRC32C_H
#define FASTECHO_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* CRC32c (Castagnoli) of n bytes behind those that gave crc; 0 before the first. */
static inline uint32_t fe_crc32c(uint32_t crc, const unsigned char *p, size_t n)
{
    /* What four bits become; two look-ups a byte. */
    static const uint32_t table[16] = {
        0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
        0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
        0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};

    crc = ~crc;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

#endif
