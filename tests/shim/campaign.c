/* Decides by seed, or by number, which calls of fastecho's extensions fail.
 *
 * Lives here: the plan of a campaign, its decision, and the counters of calls and hits. Does not
 * live here: the rules of single tests (shim.c), the functions that ask (shim.c, memory.c), what
 * a campaign expects of the server (tests/faults).
 *
 * A decision depends on the seed, on the function and on how often it was called before, and on
 * nothing else: with one thread the same seed gives the same faults. Only calls that return into
 * _core or _load are counted and failed; Python's own pass.
 *
 * Connections from 127.0.0.2 are spared: their calls are cut short, interrupted and told to come
 * again, which must not hurt anybody, and never fail for good. So whoever comes from there has to
 * be served exactly, whatever happens to the others.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <link.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include "shim.h"

#define SPARED_HOST 0x7f000002u
#define RANGES_MAX 16
#define CHOICES_MAX 8
/* One hit in so many is for good, where a call has milder ones. */
#define HARD_ONE_IN 8

/* What a hit can be. CUT: fewer bytes or events than asked for; 0 ends the list. */
enum { CUT = -1 };
typedef struct faults {
    /* What costs nobody anything but time. */
    int soft[CHOICES_MAX];
    /* What ends a connection, sheds a newcomer or makes accepting rest. */
    int hard[CHOICES_MAX];
} faults;

/* The errnos are those that the kernel gives for the call. epoll_wait's ENOMEM is not, but it
 * has a rule. A write to an eventfd that is not full never fails otherwise, nor does a DEL. */
static const faults faults_of[SHIM_CALLS] = {
    [SHIM_RECV] = {{CUT, CUT, CUT, EAGAIN, EINTR},
                   {ECONNRESET, ETIMEDOUT, EHOSTUNREACH, ENETUNREACH, ENOMEM, ENOBUFS}},
    [SHIM_SEND] = {{CUT, CUT, CUT, EAGAIN, EINTR},
                   {ECONNRESET, EPIPE, ETIMEDOUT, EHOSTUNREACH, ENOMEM, ENOBUFS}},
    [SHIM_ACCEPT] = {{EAGAIN, EINTR, ECONNABORTED, EPROTO, EPERM, ENETDOWN},
                     {EMFILE, EMFILE, EMFILE, ENFILE, ENFILE, ENFILE, ENOBUFS, ENOMEM}},
    [SHIM_EPOLL_CTL] = {{0}, {ENOMEM, ENOSPC}},
    [SHIM_EPOLL_WAIT] = {{CUT, CUT, EINTR, ENOMEM}, {0}},
    [SHIM_READ] = {{EINTR, EAGAIN}, {0}},
    [SHIM_WRITE] = {{EINTR}, {0}},
    [SHIM_CLOSE] = {{EINTR, EIO}, {0}},
    [SHIM_MALLOC] = {{0}, {ENOMEM}},
    [SHIM_CALLOC] = {{0}, {ENOMEM}},
    [SHIM_REALLOC] = {{0}, {ENOMEM}},
    [SHIM_ALIGNED_ALLOC] = {{0}, {ENOMEM}},
    [SHIM_RECVMMSG] = {{CUT, EINTR, EAGAIN}, {ENOMEM, ENOBUFS}},
    [SHIM_SENDMMSG] = {{CUT, EINTR}, {EAGAIN, ENOBUFS, ENOMEM, EPERM, EHOSTUNREACH}},
};

typedef struct plan {
    uint64_t seed;
    /* Calls in a thousand that are hit, for each function. */
    int per_mille[SHIM_CALLS];
    /* The one call that fails, from 1; 0: the seed decides. */
    int64_t number;
    /* enum shim_call of that call. */
    int call;
    /* What it fails with. */
    int error;
    /* All later ones fail as well. */
    int is_lasting;
} plan;

typedef struct range {
    uintptr_t start;
    uintptr_t end;
} range;

static plan current;
static int is_running;
static range ranges[RANGES_MAX];
static int range_count;
static int64_t calls[SHIM_CALLS];
static int64_t hits[SHIM_CALLS];

/* --- what a test calls ------------------------------------------------------------------- */

static int note_ranges(struct dl_phdr_info *object, size_t size, void *unused)
{
    const char *slash = strrchr(object->dlpi_name, '/');
    const char *name = slash == NULL ? object->dlpi_name : slash + 1;
    int i;

    (void)size;
    (void)unused;
    if (strncmp(name, "_core.", 6) != 0 && strncmp(name, "_load.", 6) != 0)
        return 0;
    for (i = 0; i < object->dlpi_phnum && range_count < RANGES_MAX; i++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
        if (segment->p_type == PT_LOAD && segment->p_flags & PF_X) {
            uintptr_t start = object->dlpi_addr + segment->p_vaddr;
            ranges[range_count++] = (range){start, start + segment->p_memsz};
        }
    }
    return 0;
}

/* Forgets what was counted and takes a new plan; it does not run yet.
 * Result: how many pieces of code of the extensions were found. */
static int begin(const plan *next)
{
    __atomic_store_n(&is_running, 0, __ATOMIC_SEQ_CST);
    range_count = 0;
    dl_iterate_phdr(note_ranges, NULL);
    memset(calls, 0, sizeof(calls));
    memset(hits, 0, sizeof(hits));
    current = *next;
    return range_count;
}

/* A plan in which the seed decides, and each function has its own probability. */
int shim_plan_seed(uint64_t seed, const int per_mille[SHIM_CALLS])
{
    plan next = {.seed = seed};

    memcpy(next.per_mille, per_mille, sizeof(next.per_mille));
    return begin(&next);
}

/* A plan in which one call fails, or that call and all later ones of its function. */
int shim_plan_number(int call, int64_t number, int error, int is_lasting)
{
    plan next = {.call = call, .number = number, .error = error, .is_lasting = is_lasting};

    return begin(&next);
}

/* Lets the plan run, or rest: what rests does not count. */
void shim_run(int on)
{
    __atomic_store_n(&is_running, on, __ATOMIC_SEQ_CST);
}

/* Copies the counters of the plan. */
void shim_counts(int64_t calls_out[SHIM_CALLS], int64_t hits_out[SHIM_CALLS])
{
    int i;

    for (i = 0; i < SHIM_CALLS; i++) {
        calls_out[i] = __atomic_load_n(&calls[i], __ATOMIC_RELAXED);
        hits_out[i] = __atomic_load_n(&hits[i], __ATOMIC_RELAXED);
    }
}

/* --- the decision ------------------------------------------------------------------------ */

int campaign_is_ours(const void *caller)
{
    uintptr_t at = (uintptr_t)caller;
    int i;

    for (i = 0; i < range_count; i++)
        if (at >= ranges[i].start && at < ranges[i].end)
            return 1;
    return 0;
}

static int is_spared(int fd)
{
    struct sockaddr_in peer;
    socklen_t size = sizeof(peer);
    int saved = errno;
    int rc = fd >= 0 && getpeername(fd, (struct sockaddr *)&peer, &size) == 0 &&
             peer.sin_family == AF_INET && ntohl(peer.sin_addr.s_addr) == SPARED_HOST;

    errno = saved;
    return rc;
}

/* splitmix64's mixing step: every bit of the result depends on every bit of x. */
static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static int choose(const int *choices, uint64_t dice)
{
    unsigned n = 0;

    while (n < CHOICES_MAX && choices[n] != 0)
        n++;
    return n == 0 ? 0 : choices[dice % n];
}

static int judge_by_seed(enum shim_call call, int64_t number, int fd, size_t *n)
{
    const faults *f = &faults_of[call];
    uint64_t dice = mix(mix(current.seed ^ (uint64_t)call << 56) + (uint64_t)number);
    int chosen, is_hard;

    if ((int)(dice % 1000) >= current.per_mille[call])
        return 0;
    dice = mix(dice);
    is_hard = f->soft[0] == 0 || (f->hard[0] != 0 && dice % HARD_ONE_IN == 0);
    if (is_hard && is_spared(fd))
        is_hard = 0;
    dice = mix(dice);
    chosen = choose(is_hard ? f->hard : f->soft, dice);
    if (chosen != CUT)
        return chosen;
    if (n == NULL || *n <= 1)
        return EINTR;
    *n = 1 + mix(dice) % (*n - 1);
    return CUT;
}

int campaign_judge(enum shim_call call, const void *caller, int fd, size_t *n)
{
    int64_t number;
    int chosen;

    if (!__atomic_load_n(&is_running, __ATOMIC_ACQUIRE) || !campaign_is_ours(caller))
        return 0;
    number = __atomic_add_fetch(&calls[call], 1, __ATOMIC_RELAXED);
    if (current.number == 0)
        chosen = judge_by_seed(call, number, fd, n);
    else if ((int)call == current.call &&
             (number == current.number || (current.is_lasting && number > current.number)))
        chosen = current.error;
    else
        chosen = 0;
    if (chosen != 0)
        __atomic_add_fetch(&hits[call], 1, __ATOMIC_RELAXED);
    return chosen == CUT ? 0 : chosen;
}
