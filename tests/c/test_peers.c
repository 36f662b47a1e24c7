/* The book of max_per_ip: each address has its own count, an address without connections leaves
 * no trace, an IPv6 network counts as one, and no memory means no place and no harm. */
#include "support.h"

#include "peers.h"

static fe_peer_key key_of(uint32_t number)
{
    uint8_t address[4] = {(uint8_t)(number >> 24), (uint8_t)(number >> 16),
                          (uint8_t)(number >> 8), (uint8_t)number};
    return fe_peer_key_4(address);
}

static int same(fe_peer_key a, fe_peer_key b)
{
    return memcmp(&a, &b, sizeof(a)) == 0;
}

static void an_address_gets_as_many_places_as_it_may(void)
{
    fe_peers book;
    fe_peer_key a = key_of(1), b = key_of(2);
    uint32_t first, second, other;

    fe_peers_init(&book, 7);
    assert(fe_peers_take(&book, &a, 2, &first) == 0);
    assert(fe_peers_take(&book, &a, 2, &second) == 0);
    assert(first == second);
    assert(fe_peers_take(&book, &a, 2, &other) == -EAGAIN);
    assert(fe_peers_take(&book, &b, 2, &other) == 0 && other != first);
    fe_peers_give(&book, first);
    assert(fe_peers_take(&book, &a, 2, &second) == 0);
    assert(fe_peers_take(&book, &a, 2, &other) == -EAGAIN);
    fe_peers_free(&book);
}

static void a_limit_of_none_gives_none(void)
{
    fe_peers book;
    fe_peer_key a = key_of(1);
    uint32_t node = 5;

    fe_peers_init(&book, 7);
    assert(fe_peers_take(&book, &a, 0, &node) == -EAGAIN && node == 5);
    assert(book.used == 0);
    fe_peers_give(&book, FE_NO_PEER);
    fe_peers_free(&book);
}

/* A plain array says what the counts are. */
static void many_addresses_that_come_and_go_keep_their_counts(void)
{
    enum { ADDRESSES = 700, STEPS = 200000, MOST = 3 };
    static uint32_t counts[ADDRESSES], nodes[ADDRESSES];
    fe_peers book;
    uint64_t dice = 1;
    uint32_t i, total = 0;
    int step;

    fe_peers_init(&book, 99);
    for (step = 0; step < STEPS; step++) {
        uint32_t which, node;
        fe_peer_key key;

        which = (uint32_t)random_below(&dice, ADDRESSES);
        key = key_of(which * 65537);
        /* Half of the time most addresses have nobody: chains shrink as well as grow. */
        if (random_below(&dice, 4) < (step / 20000 % 2 ? 1u : 3u)) {
            int rc = fe_peers_take(&book, &key, MOST, &node);

            assert(rc == (counts[which] < MOST ? 0 : -EAGAIN));
            if (rc == 0) {
                assert(counts[which] == 0 || nodes[which] == node);
                nodes[which] = node;
                counts[which]++;
                total++;
            }
        } else if (counts[which] > 0) {
            fe_peers_give(&book, nodes[which]);
            counts[which]--;
            total--;
        }
    }
    assert(total > 0 && book.used <= ADDRESSES);
    for (i = 0; i < ADDRESSES; i++)
        while (counts[i]-- > 0)
            fe_peers_give(&book, nodes[i]);
    for (i = 0; i < book.capacity; i++)
        assert(book.heads[i] == FE_NO_PEER);
    fe_peers_free(&book);
}

static void an_ipv6_network_counts_as_one(void)
{
    uint8_t one[16] = {0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1};
    uint8_t two[16] = {0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 2, 9, 9, 9, 9, 9, 9, 9, 9};
    uint8_t far[16] = {0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1};

    assert(same(fe_peer_key_6(one, 64), fe_peer_key_6(two, 64)));
    assert(!same(fe_peer_key_6(one, 64), fe_peer_key_6(far, 64)));
    /* 2 and 3 differ in the last of 64 bits. */
    assert(same(fe_peer_key_6(one, 63), fe_peer_key_6(far, 63)));
    assert(!same(fe_peer_key_6(one, 128), fe_peer_key_6(two, 128)));
    assert(same(fe_peer_key_6(one, 0), fe_peer_key_6(far, 0)));
}

static void an_ipv4_address_is_the_same_through_an_ipv6_socket(void)
{
    uint8_t four[4] = {192, 0, 2, 1};
    uint8_t mapped[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1};
    uint8_t other[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 2};

    assert(same(fe_peer_key_4(four), fe_peer_key_6(mapped, 64)));
    assert(!same(fe_peer_key_4(four), fe_peer_key_6(other, 64)));
}

static void no_memory_means_no_place_and_no_harm(void)
{
    fe_peers book;
    uint32_t i, node;
    int fails;

    for (fails = 0; fails < 2; fails++) { /* the heads, the nodes */
        fe_peer_key key = key_of(1000);

        fe_peers_init(&book, 3);
        for (i = 0; i < FE_PEERS_MIN; i++) {
            fe_peer_key mine = key_of(i);
            assert(fe_peers_take(&book, &mine, 1, &node) == 0 && node == i);
        }
        memory_is_refused = 1;
        memory_spare = fails;
        assert(fe_peers_take(&book, &key, 1, &node) == -ENOMEM);
        memory_is_refused = 0;
        for (i = 0; i < FE_PEERS_MIN; i++) {
            fe_peer_key mine = key_of(i);
            assert(fe_peers_take(&book, &mine, 1, &node) == -EAGAIN);
        }
        assert(fe_peers_take(&book, &key, 1, &node) == 0);
        fe_peers_free(&book);
    }
}

int main(void)
{
    an_address_gets_as_many_places_as_it_may();
    a_limit_of_none_gives_none();
    many_addresses_that_come_and_go_keep_their_counts();
    an_ipv6_network_counts_as_one();
    an_ipv4_address_is_the_same_through_an_ipv6_socket();
    no_memory_means_no_place_and_no_harm();
    return 0;
}
