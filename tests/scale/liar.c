/* Makes an echo server lie (LD_PRELOAD): what `make scale` is there to find out.
 *
 * Lives here: one wrong byte, one lost connection; LIAR names which. Does not live here: errors
 * that a server has to bear (shim/).
 *
 * Build: cc -shared -fPIC -O2 -Wall -Wextra -o liar.so liar.c -ldl -pthread
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

/* The call that lies, the first being 1; test_scale.py has so many for a server, not for a peer. */
#define LIES_AT 150

static atomic_int calls;

/* Whether it is time for a lie of that name. */
static int lies(const char *name)
{
    const char *chosen = getenv("LIAR");

    return chosen != NULL && strcmp(chosen, name) == 0 && atomic_fetch_add(&calls, 1) + 1 == LIES_AT;
}

static ssize_t lying_recv(int fd, void *data, size_t n, int flags)
{
    ssize_t (*next)(int, void *, size_t, int);
    ssize_t rc;

    *(void **)&next = dlsym(RTLD_NEXT, "recv");
    rc = next(fd, data, n, flags);
    if (rc > 0 && lies("byte"))
        ((unsigned char *)data)[rc - 1] ^= 1;
    return rc;
}

ssize_t recv(int fd, void *data, size_t n, int flags)
{
    return lying_recv(fd, data, n, flags);
}

/* What recv becomes under _FORTIFY_SOURCE. */
ssize_t __recv_chk(int fd, void *data, size_t n, size_t room, int flags);
ssize_t __recv_chk(int fd, void *data, size_t n, size_t room, int flags)
{
    (void)room;
    return lying_recv(fd, data, n, flags);
}

int accept4(int fd, struct sockaddr *address, socklen_t *size, int flags)
{
    int (*next)(int, struct sockaddr *, socklen_t *, int);
    int rc;

    *(void **)&next = dlsym(RTLD_NEXT, "accept4");
    rc = next(fd, address, size, flags);
    if (rc >= 0 && lies("connection")) {
        close(rc);
        errno = EAGAIN;
        rc = -1;
    }
    return rc;
}
