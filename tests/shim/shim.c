/* Stands between a process and the kernel (LD_PRELOAD): fails and shortens socket calls by rule,
 * and keeps a log of them.
 *
 * Lives here: recv, send, recvmmsg, sendmmsg, accept4, epoll_ctl, epoll_wait and the rules for them. Does not live
 * here: which rules a test wants (tests/served.py passes them on, through ctypes); failing calls
 * by seed or by number (campaign.c), which is asked where no rule fits.
 *
 * Build: cc -shared -fPIC -O2 -Wall -Wextra -o shim.so *.c -ldl -pthread
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "shim.h"

typedef struct shim_rule {
    /* enum shim_call. */
    int call;
    /* Port of the peer that it is about; 0: any descriptor. */
    int port;
    /* EPOLL_CTL_ADD, MOD or DEL; 0: any. */
    int op;
    /* Calls that still pass before it applies. */
    int skip;
    /* Calls that it still applies to; -1: all. */
    int times;
    /* The errno that the call fails with; 0: it is only shortened. */
    int error;
    /* Bytes that recv and send, messages that recvmmsg and sendmmsg may move at the most; negative: 1 to -limit, as dice say. */
    int limit;
    /* The call is made, and returns only after shim_clear(). */
    int hold;
} shim_rule;

typedef struct shim_entry {
    /* enum shim_call. */
    int32_t call;
    /* Port of the peer; 0: none. */
    int32_t port;
    /* The operation of epoll_ctl. */
    int32_t op;
    /* What the caller was given: >= 0, or -errno. */
    int32_t result;
} shim_entry;

#define RULES_MAX 32
#define LOG_MAX (1 << 18)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cleared = PTHREAD_COND_INITIALIZER;
static int clears;
static shim_rule rules[RULES_MAX];
static int rule_count;
static int applied;
static uint32_t dice = 1;
static shim_entry entries[LOG_MAX];
static int entry_count;
static int is_logging;

static int (*next_accept4)(int, struct sockaddr *, socklen_t *, int);
static int (*next_epoll_ctl)(int, int, int, struct epoll_event *);
static int (*next_epoll_wait)(int, struct epoll_event *, int, int);
static ssize_t (*next_recv)(int, void *, size_t, int);
static int (*next_recvmmsg)(int, struct mmsghdr *, unsigned, int, struct timespec *);
static int (*next_sendmmsg)(int, struct mmsghdr *, unsigned, int);
static ssize_t (*next_send)(int, const void *, size_t, int);

__attribute__((constructor)) static void shim_find_next(void)
{
    /* Through void ** because ISO C knows no cast from void * to a function. */
    *(void **)&next_accept4 = dlsym(RTLD_NEXT, "accept4");
    *(void **)&next_epoll_ctl = dlsym(RTLD_NEXT, "epoll_ctl");
    *(void **)&next_epoll_wait = dlsym(RTLD_NEXT, "epoll_wait");
    *(void **)&next_recv = dlsym(RTLD_NEXT, "recv");
    *(void **)&next_recvmmsg = dlsym(RTLD_NEXT, "recvmmsg");
    *(void **)&next_sendmmsg = dlsym(RTLD_NEXT, "sendmmsg");
    *(void **)&next_send = dlsym(RTLD_NEXT, "send");
}

/* --- what a test calls ------------------------------------------------------------------- */

/* Adds a rule; the first that fits a call is applied. Result: 0, or -1: too many. */
int shim_add(int call, int port, int op, int skip, int times, int error, int limit, int hold)
{
    int rc = -1;
    pthread_mutex_lock(&lock);
    if (rule_count < RULES_MAX) {
        rules[rule_count++] = (shim_rule){call, port, op, skip, times, error, limit, hold};
        rc = 0;
    }
    pthread_mutex_unlock(&lock);
    return rc;
}

/* Forgets all rules and lets go of the calls that are held.
 * Result: how many calls were changed since the last time. */
int shim_clear(void)
{
    int n;
    pthread_mutex_lock(&lock);
    n = applied;
    applied = rule_count = 0;
    clears++;
    pthread_cond_broadcast(&cleared);
    pthread_mutex_unlock(&lock);
    return n;
}

/* Starts an empty log. */
void shim_log(void)
{
    pthread_mutex_lock(&lock);
    entry_count = 0;
    is_logging = 1;
    pthread_mutex_unlock(&lock);
}

/* Ends the log and copies at most n entries of it. Result: how many were written, or -1: the log
 * was too short for all of them. */
int shim_log_take(shim_entry *out, int n)
{
    int count;
    pthread_mutex_lock(&lock);
    is_logging = 0;
    count = entry_count < n ? entry_count : n;
    memcpy(out, entries, (size_t)count * sizeof(shim_entry));
    if (entry_count == LOG_MAX)
        count = -1;
    pthread_mutex_unlock(&lock);
    return count;
}

/* --- between caller and kernel ----------------------------------------------------------- */

static int peer_port(int fd)
{
    struct sockaddr_storage address;
    socklen_t size = sizeof(address);
    int saved = errno;
    int port = 0;

    if (getpeername(fd, (struct sockaddr *)&address, &size) == 0) {
        if (address.ss_family == AF_INET)
            port = ntohs(((struct sockaddr_in *)&address)->sin_port);
        else if (address.ss_family == AF_INET6)
            port = ntohs(((struct sockaddr_in6 *)&address)->sin6_port);
    }
    errno = saved;
    return port;
}

/* Applies the rules to a call. *n is shortened; *hold is 0, or what to call shim_hold with after.
 * Result: the errno to fail with, or 0. */
static int rules_judge(int call, int fd, int op, size_t *n, int *hold)
{
    int i, port = -1, error = 0;

    *hold = 0;
    pthread_mutex_lock(&lock);
    for (i = 0; i < rule_count; i++) {
        shim_rule *r = &rules[i];
        if (r->call != call || r->times == 0 || (r->op != 0 && r->op != op))
            continue;
        if (r->port != 0) {
            if (port < 0)
                port = peer_port(fd);
            if (r->port != port)
                continue;
        }
        if (r->skip > 0) {
            r->skip--;
            break;
        }
        if (r->times > 0)
            r->times--;
        applied++;
        error = r->error;
        *hold = r->hold ? clears + 1 : 0;
        if (n != NULL && r->limit != 0) {
            size_t most = (size_t)r->limit;
            if (r->limit < 0) {
                dice = dice * 1103515245u + 12345u;
                most = 1 + (dice >> 8) % (uint32_t)-r->limit;
            }
            if (*n > most)
                *n = most;
        }
        break;
    }
    pthread_mutex_unlock(&lock);
    return error;
}

/* Asks the rules, and then the campaign: the errno to fail with, or 0. A DEL cannot fail. */
static int shim_judge(int call, const void *caller, int fd, int op, size_t *n, int *hold)
{
    int error = rules_judge(call, fd, op, n, hold);

    if (error == 0 && op != EPOLL_CTL_DEL)
        error = campaign_judge(call, caller, fd, n);
    return error;
}

/* Waits until the rules are forgotten for the `next`th time. */
static void shim_hold(int next)
{
    int saved = errno;

    pthread_mutex_lock(&lock);
    while (clears < next)
        pthread_cond_wait(&cleared, &lock);
    pthread_mutex_unlock(&lock);
    errno = saved;
}

static void shim_note(int call, int fd, int op, int64_t result)
{
    int saved = errno;

    pthread_mutex_lock(&lock);
    if (is_logging && entry_count < LOG_MAX) {
        int32_t given = (int32_t)(result < 0 ? -saved : result);
        entries[entry_count++] = (shim_entry){call, fd < 0 ? 0 : peer_port(fd), op, given};
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
}

static ssize_t judged_recv(int fd, void *data, size_t n, int flags, const void *caller)
{
    int hold, error = shim_judge(SHIM_RECV, caller, fd, 0, &n, &hold);
    ssize_t rc = -1;

    if (error == 0)
        rc = next_recv(fd, data, n, flags);
    else
        errno = error;
    shim_note(SHIM_RECV, fd, 0, rc);
    if (hold)
        shim_hold(hold);
    return rc;
}

ssize_t recv(int fd, void *data, size_t n, int flags)
{
    return judged_recv(fd, data, n, flags, __builtin_return_address(0));
}

/* What recv becomes under _FORTIFY_SOURCE. */
ssize_t __recv_chk(int fd, void *data, size_t n, size_t room, int flags);
ssize_t __recv_chk(int fd, void *data, size_t n, size_t room, int flags)
{
    (void)room;
    return judged_recv(fd, data, n, flags, __builtin_return_address(0));
}

ssize_t send(int fd, const void *data, size_t n, int flags)
{
    int hold, error = shim_judge(SHIM_SEND, __builtin_return_address(0), fd, 0, &n, &hold);
    ssize_t rc = -1;

    if (error == 0)
        rc = next_send(fd, data, n, flags);
    else
        errno = error;
    shim_note(SHIM_SEND, fd, 0, rc);
    if (hold)
        shim_hold(hold);
    return rc;
}

int recvmmsg(int fd, struct mmsghdr *messages, unsigned n, int flags, struct timespec *timeout)
{
    size_t most = n;
    const void *caller = __builtin_return_address(0);
    int hold, error = shim_judge(SHIM_RECVMMSG, caller, fd, 0, &most, &hold);
    int rc = -1;

    if (error == 0)
        rc = next_recvmmsg(fd, messages, (unsigned)most, flags, timeout);
    else
        errno = error;
    shim_note(SHIM_RECVMMSG, fd, 0, rc);
    if (hold)
        shim_hold(hold);
    return rc;
}

int sendmmsg(int fd, struct mmsghdr *messages, unsigned n, int flags)
{
    size_t most = n;
    const void *caller = __builtin_return_address(0);
    int hold, error = shim_judge(SHIM_SENDMMSG, caller, fd, 0, &most, &hold);
    int rc = -1;

    if (error == 0)
        rc = next_sendmmsg(fd, messages, (unsigned)most, flags);
    else
        errno = error;
    shim_note(SHIM_SENDMMSG, fd, 0, rc);
    if (hold)
        shim_hold(hold);
    return rc;
}

int accept4(int fd, struct sockaddr *address, socklen_t *size, int flags)
{
    int hold, error = shim_judge(SHIM_ACCEPT, __builtin_return_address(0), fd, 0, NULL, &hold);
    int rc = -1;

    if (error == 0)
        rc = next_accept4(fd, address, size, flags);
    else
        errno = error;
    shim_note(SHIM_ACCEPT, rc, 0, rc);
    if (hold)
        shim_hold(hold);
    return rc;
}

int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    int hold, error = shim_judge(SHIM_EPOLL_CTL, __builtin_return_address(0), fd, op, NULL, &hold);
    int rc = -1;

    if (error == 0)
        rc = next_epoll_ctl(epfd, op, fd, event);
    else
        errno = error;
    shim_note(SHIM_EPOLL_CTL, fd, op, rc);
    if (hold)
        shim_hold(hold);
    return rc;
}

int epoll_wait(int epfd, struct epoll_event *events, int n, int timeout)
{
    size_t most = (size_t)n;
    const void *caller = __builtin_return_address(0);
    int hold, error = shim_judge(SHIM_EPOLL_WAIT, caller, -1, 0, &most, &hold);
    int rc = -1;

    if (error == 0)
        rc = next_epoll_wait(epfd, events, (int)most, timeout);
    else
        errno = error;
    shim_note(SHIM_EPOLL_WAIT, -1, 0, rc);
    if (hold)
        shim_hold(hold);
    return rc;
}
