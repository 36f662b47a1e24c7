/* What it costs to record a latency: prints nanoseconds for each, a line for each batch.
 *
 *     record BATCHES
 *
 * The latencies are those of a run: most between 16 and 48 us, one of 64 up to 2 ms, so that the
 * slots that are touched do not all stay in the first cache. They are drawn before the clock
 * starts; reading them, which costs about as much as an addition, is part of the figure.
 */
#include "histogram.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { COUNT = 1 << 20 };

static double now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
    int batches = argc == 2 ? atoi(argv[1]) : 0;
    fe_histogram *h = malloc(sizeof(*h));
    uint32_t *drawn = malloc(COUNT * sizeof(*drawn));
    uint64_t state = 42;

    if (batches < 1 || h == NULL || drawn == NULL)
        return 2;
    for (int i = 0; i < COUNT; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        drawn[i] = 16000 + (uint32_t)(state >> 32) % (state % 64 == 0 ? 2000000 : 32000);
    }
    fe_histogram_reset(h);
    for (int batch = 0; batch < batches; batch++) {
        double start = now_ns();

        for (int i = 0; i < COUNT; i++)
            fe_histogram_record(h, drawn[i]);
        printf("%.3f\n", (now_ns() - start) / COUNT);
    }
    return h->count == (uint64_t)batches * COUNT ? 0 : 1;
}
