/*
 * What carries the bytes of a connection: a unix socket, or the ring of a guest.
 *
 *                  send          receive       ready again
 *      socket      send()        recv()        epoll
 *      ring        copy, kick    copy          a notification in the mailbox
 *
 * Neither call blocks. A ring behaves like a guest's kernel: it kicks when it has put something
 * in, and when it has taken something out of a ring that was full. A sparing guest puts a request
 * in piece by piece, header first, and kicks only if the daemon had taken all that was there
 * before, as Linux does since 4.11: who is still at it is expected to look again.
 */
#ifndef BENCH_TRANSPORT_H
#define BENCH_TRANSPORT_H

#include "host.h"

struct transport {
    int fd; /* -1: a ring */
    struct host *host;
    struct fakexen_ring *ring;
    uint32_t domid; /* 0 for a socket */
    bool sparing;
};

/* A blocking socket whose calls give up after STALL_S seconds. */
int socket_connect(const char *path);

void transport_socket(struct transport *t, const char *path);
void transport_ring(struct transport *t, struct host *host, uint32_t domid, bool sparing);

/* Bytes taken; 0 when there is no room at present. */
size_t transport_send(struct transport *t, const uint8_t *bytes, size_t n);

/* Bytes got; 0 when there are none at present. A socket that was closed is a failure. */
size_t transport_receive(struct transport *t, uint8_t *bytes, size_t cap);

void transport_close(struct transport *t);

#endif
