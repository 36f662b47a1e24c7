/* Fuzz target: the heap of deadlines gives what a search through a plain array gives.
 *
 * Each byte of the input is an operation, with its operands behind it. The first SPARE timers are
 * those whose setting must not fail; the others may be refused memory.
 */
#include "input.h"

#include "timers.h"

enum { MANY = 256, SPARE_MAX = 8 };

static fe_timers heap;
static fe_timer timers[MANY];
/* What the heap should know: whether each timer is set, and for when. */
static int is_set[MANY];
static uint64_t at[MANY];
static uint64_t now_ms;

static int earliest(void)
{
    int first = -1;

    for (int i = 0; i < MANY; i++)
        if (is_set[i] && (first < 0 || at[i] < at[first]))
            first = i;
    return first;
}

static void agree(void)
{
    uint32_t count = 0;

    for (int i = 0; i < MANY; i++) {
        assert(fe_timer_is_set(&timers[i]) == is_set[i]);
        if (!is_set[i])
            continue;
        count++;
        assert(timers[i].place <= heap.count);
        assert(heap.heap[timers[i].place - 1].timer == &timers[i]);
        assert(heap.heap[timers[i].place - 1].at_ms == at[i]);
    }
    assert(count == heap.count && heap.count <= heap.capacity);
    for (uint32_t i = 1; i < heap.count; i++)
        assert(heap.heap[(i - 1) / FE_TIMERS_ARITY].at_ms <= heap.heap[i].at_ms);
}

static void set(int i, uint64_t at_ms)
{
    if ((uint32_t)i < heap.spare) {
        fe_timers_set_spare(&heap, &timers[i], at_ms);
    } else if (fe_timers_set(&heap, &timers[i], at_ms) < 0) {
        assert(memory_is_refused && !is_set[i]);
        return;
    }
    is_set[i] = 1;
    at[i] = at_ms;
}

static void clear(int i)
{
    fe_timers_clear(&heap, &timers[i]);
    is_set[i] = 0;
}

static void expire(void)
{
    fe_timer *timer;

    while ((timer = fe_timers_expired(&heap, now_ms)) != NULL) {
        int i = (int)(timer - timers), first = earliest();
        /* Which of several equal ones comes first is not promised. */
        assert(first >= 0 && is_set[i] && at[i] == at[first] && at[i] <= now_ms);
        is_set[i] = 0;
    }
    assert(earliest() < 0 || at[earliest()] > now_ms);
}

static void look_how_long(int cap_ms)
{
    int first = earliest(), wait_ms = fe_timers_wait_ms(&heap, now_ms, cap_ms);

    if (first < 0)
        assert(wait_ms == -1);
    else if (at[first] <= now_ms)
        assert(wait_ms == 0);
    else if (at[first] - now_ms >= (uint64_t)cap_ms)
        assert(wait_ms == cap_ms);
    else
        assert((uint64_t)wait_ms == at[first] - now_ms);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    input in = {bytes, size};

    memset(timers, 0, sizeof(timers));
    memset(is_set, 0, sizeof(is_set));
    now_ms = 0;
    assert(fe_timers_init(&heap, take(&in) % (SPARE_MAX + 1)) == 0);
    while (in.left > 0) {
        uint8_t what = take(&in);
        int from, to;

        memory_is_refused = (what & 0x80) != 0;
        switch (what % 7) {
        case 0:
            from = take(&in);
            set(from, now_ms + take(&in));
            break;
        case 1:
            from = take(&in);
            set(from, take_number(&in, 8));
            break;
        case 2:
            clear(take(&in));
            break;
        case 3: /* many, rising, falling or equal */
            from = take(&in);
            to = from + take(&in);
            what = take(&in);
            for (int i = from; i < to && i < MANY; i++)
                set(i, now_ms + (what % 3 == 0 ? 9 : what % 3 == 1 ? i : MANY - i));
            break;
        case 4:
            now_ms += take(&in); /* may wrap: time is any number here */
            expire();
            break;
        case 5:
            now_ms = take_number(&in, 8);
            expire();
            break;
        default:
            look_how_long((int)(take_number(&in, 4) & INT32_MAX));
        }
        memory_is_refused = 0;
        agree();
    }
    now_ms = UINT64_MAX;
    expire();
    assert(heap.count == 0);
    fe_timers_free(&heap);
    return 0;
}
