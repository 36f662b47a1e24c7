/*
 * A flood of datagrams of 64 bytes from one source, as fast as one core sends them; replies are
 * never read. While it is told to, it sends; how many it has sent it answers.
 *
 * Usage: flood --port PORT --source HOST --ready-fd N
 * Each line of its input is a number of seconds; the answer is {"sent": COUNT}.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, SIZE = 64 };

static char bytes[SIZE];
static struct iovec part = {bytes, SIZE};
static struct mmsghdr messages[BATCH];

static _Noreturn void die(const char *what)
{
    perror(what);
    exit(4);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    struct sockaddr_in target = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in source = {.sin_family = AF_INET};
    int ready_fd = -1, fd, sent;
    char line[64];

    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--port") == 0)
            target.sin_port = htons((uint16_t)atoi(argv[i + 1]));
        else if (strcmp(argv[i], "--source") == 0)
            inet_pton(AF_INET, argv[i + 1], &source.sin_addr);
        else if (strcmp(argv[i], "--ready-fd") == 0)
            ready_fd = atoi(argv[i + 1]);
    }
    fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&source, sizeof(source)) < 0 ||
        connect(fd, (struct sockaddr *)&target, sizeof(target)) < 0)
        die("socket");
    for (int i = 0; i < BATCH; i++)
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &part, .msg_iovlen = 1};
    if (write(ready_fd, "ready\n", 6) != 6)
        die("ready");
    close(ready_fd);
    while (fgets(line, sizeof(line), stdin) != NULL) {
        double end = now() + atof(line);
        unsigned long count = 0;
        while (now() < end) {
            sent = sendmmsg(fd, messages, BATCH, 0);
            count += sent > 0 ? (unsigned long)sent : 0;
        }
        printf("{\"sent\": %lu}\n", count);
        fflush(stdout);
    }
}
