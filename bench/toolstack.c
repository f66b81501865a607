#define _GNU_SOURCE
#include "toolstack.h"

#include "transport.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void whole(int fd, void *bytes, size_t n, bool sending)
{
    uint8_t *at = bytes;

    while (n > 0) {
        ssize_t done = sending ? send(fd, at, n, MSG_NOSIGNAL) : recv(fd, at, n, 0);

        if (done <= 0) {
            fail("a synchronous client: %s", done < 0 ? strerror(errno) : "closed");
        }
        at += done;
        n -= (size_t)done;
    }
}

void toolstack_open(struct toolstack *t, const char *socket, uint32_t req_id)
{
    t->fd = socket_connect(socket);
    t->req_id = req_id;
}

void toolstack_ask(struct toolstack *t, uint32_t type, const char *payload, size_t n,
                   struct answer *answer)
{
    uint8_t frame[HEADER_BYTES + PAYLOAD_BYTES_MAX];
    struct header *h = &answer->header;
    struct header asked = {.type = type, .req_id = t->req_id++, .len = (uint32_t)n};

    memcpy(frame, &asked, HEADER_BYTES);
    memcpy(frame + HEADER_BYTES, payload, n);
    whole(t->fd, frame, HEADER_BYTES + n, true);
    do {
        whole(t->fd, h, HEADER_BYTES, false);
        if (h->len > PAYLOAD_BYTES_MAX) {
            fail("a synchronous client got %u bytes", h->len);
        }
        whole(t->fd, answer->payload, h->len, false);
        answer->payload[h->len] = '\0';
    } while (h->type == MSG_WATCH_EVENT);
    if (h->req_id != asked.req_id || (h->type != type && h->type != MSG_ERROR)) {
        fail("a synchronous client asked %u and got type %u, req_id %u", type, h->type,
             h->req_id);
    }
}

void toolstack_close(struct toolstack *t)
{
    (void)close(t->fd);
}
