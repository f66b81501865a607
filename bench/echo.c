/*
 * echo: the floor. A server on a unix socket, and on the rings of a fake Xen if it is preloaded,
 * that does nothing but its input and output.
 *
 * Each wake-up of a connection costs one read and one write; in between, every request frame is
 * answered with a frame of the shape that a xenstored would send: K bytes for READ, 32 names for
 * DIRECTORY, one permission, a transaction id, a domain's path, "OK" for the rest. INTRODUCE has
 * that domain's ring served, and no domain is said to be introduced: who asks does so to hear that
 * it is gone. The distance
 * between a daemon and this is the daemon's own cost; nobody who answers frame by frame with
 * epoll can be below.
 *
 *     echo SOCKET [K]        prints "echo is ready" on stderr; ends with its parent or SIGTERM
 *
 * Bounds: a connection whose frame is longer than the protocol allows is closed. One that does not
 * read its replies holds up all the others: this is a yardstick, not a server.
 */
#define _GNU_SOURCE
#include "echo.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    INPUT_BYTES = 32 << 10,
    /* The shortest request is a header alone, and each may need the longest reply. */
    OUTPUT_BYTES = INPUT_BYTES / HEADER_BYTES * REPLY_BYTES_MAX,
    EVENTS = 256,
};

struct client {
    int fd;
    size_t in_bytes;
    size_t out_start;
    size_t out_end;
    uint8_t in[INPUT_BYTES];
};

/* Replies are made here and, unless the client is slow, gone before the next client's turn. */
static uint8_t output[OUTPUT_BYTES];

void die(const char *what)
{
    fprintf(stderr, "echo: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void answers_make(struct answers *a, size_t value_bytes)
{
    memset(a->value, 'x', sizeof(a->value));
    a->value_bytes = value_bytes < sizeof(a->value) ? value_bytes : sizeof(a->value);
    a->names_bytes = 0;
    for (int i = 0; i < 32; i++) {
        int n = snprintf(a->names + a->names_bytes, sizeof(a->names) - a->names_bytes, "%d", i);

        a->names_bytes += (size_t)n + 1;
    }
}

size_t answer(uint8_t *out, const struct answers *a, struct header h)
{
    const char *text = "OK";
    size_t n = 3;

    switch (h.type) {
    case MSG_READ:
        text = a->value;
        n = a->value_bytes;
        break;
    case MSG_DIRECTORY:
        text = a->names;
        n = a->names_bytes;
        break;
    case MSG_GET_PERMS:
        text = "n0";
        break;
    case MSG_TRANSACTION_START:
        text = "1";
        n = 2;
        break;
    case MSG_IS_DOMAIN_INTRODUCED:
        text = "F";
        n = 2;
        break;
    case MSG_GET_DOMAIN_PATH:
        text = "/local/domain/0";
        n = 16;
        break;
    default:
        break;
    }
    h.len = (uint32_t)n;
    memcpy(out, &h, HEADER_BYTES);
    memcpy(out + HEADER_BYTES, text, n);
    return HEADER_BYTES + n;
}

/* Answers all whole frames in the input; returns the bytes of output, or -1 for a bad frame. */
static ssize_t client_answer(struct client *c, const struct answers *a)
{
    size_t at = 0;
    size_t out = 0;

    while (c->in_bytes - at >= HEADER_BYTES) {
        struct header h;

        memcpy(&h, c->in + at, HEADER_BYTES);
        if (h.len > PAYLOAD_BYTES_MAX) {
            return -1;
        }
        if (c->in_bytes - at - HEADER_BYTES < h.len) {
            break;
        }
        if (h.type == MSG_INTRODUCE) {
            rings_introduce((const char *)c->in + at + HEADER_BYTES, h.len);
        }
        out += answer(output + out, a, h);
        at += HEADER_BYTES + h.len;
    }
    c->in_bytes -= at;
    memmove(c->in, c->in + at, c->in_bytes);
    return (ssize_t)out;
}

/* Writes all of it, however long the client takes to read. */
static bool client_write(const struct client *c, size_t n)
{
    size_t at = 0;

    while (at < n) {
        ssize_t done = send(c->fd, output + at, n - at, MSG_NOSIGNAL);

        if (done <= 0) {
            return false;
        }
        at += (size_t)done;
    }
    return true;
}

static bool client_serve(struct client *c, const struct answers *a)
{
    ssize_t n = recv(c->fd, c->in + c->in_bytes, sizeof(c->in) - c->in_bytes, MSG_DONTWAIT);

    if (n < 0 && errno == EAGAIN) {
        return true;
    }
    if (n <= 0) {
        return false;
    }
    c->in_bytes += (size_t)n;
    n = client_answer(c, a);
    return n >= 0 && client_write(c, (size_t)n);
}

static void client_accept(int epoll, int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    struct client *c = fd < 0 ? NULL : calloc(1, sizeof(*c));
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};

    if (c == NULL) {
        return;
    }
    c->fd = fd;
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
        die("epoll_ctl");
    }
}

static int listener_open(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || strlen(path) >= sizeof(address.sun_path)) {
        die(path);
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    (void)unlink(path);
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(fd, 128) != 0) {
        die(path);
    }
    return fd;
}

int main(int argc, char **argv)
{
    static struct answers answers;
    struct epoll_event events[EVENTS];
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    struct epoll_event rings = {.events = EPOLLIN, .data.ptr = &answers};
    struct rlimit files;
    int listener;
    int epoll;
    int channels;

    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: echo SOCKET [VALUE-BYTES]\n");
        return 2;
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    answers_make(&answers, argc == 3 ? strtoul(argv[2], NULL, 10) : 16);
    listener = listener_open(argv[1]);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) != 0) {
        die("epoll");
    }
    channels = rings_open();
    if (channels >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, channels, &rings) != 0) {
        die("epoll");
    }
    fprintf(stderr, "echo is ready\n");
    for (;;) {
        int n = epoll_wait(epoll, events, EVENTS, -1);

        for (int i = 0; i < n; i++) {
            struct client *c = events[i].data.ptr;

            if (c == NULL) {
                client_accept(epoll, listener);
            } else if (events[i].data.ptr == &answers) {
                rings_serve(&answers);
            } else if (!client_serve(c, &answers)) {
                (void)close(c->fd);
                free(c);
            }
        }
    }
}
