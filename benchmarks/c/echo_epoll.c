// The first limit: an echo server of a single thread that does nothing but epoll_wait, recv and send.
//
//   echo_epoll FD [t|u]     FD: a listening socket, or with `u` a bound datagram socket, inherited and non-blocking
//
// With `t` it answers in two pieces. A connection with an answer that does not fit into the socket is not read
// until it does.
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct {
    int fd;
    char *rest; // owned; NULL until an answer did not fit
    size_t offset, length;
} Connection;

enum { BUFFER = 256 * 1024, EVENTS = 1024, HEAD = 128 };

static char buffer[BUFFER];
static int epoll_fd, listener;
static bool two_pieces;

static void
connection_watch(Connection *c, int operation, unsigned events)
{
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(epoll_fd, operation, c->fd, &event))
        abort();
}

static void
connection_close(Connection *c)
{
    close(c->fd);
    free(c->rest);
    free(c);
}

static void
connections_accept(void)
{
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); // fails on a Unix socket
        Connection *c = calloc(1, sizeof *c);
        if (!c)
            abort();
        c->fd = fd;
        connection_watch(c, EPOLL_CTL_ADD, EPOLLIN);
    }
}

// Bytes sent, 0 if it would block, or -1.
static ssize_t
connection_send(Connection *c, const char *data, size_t length)
{
    ssize_t n = send(c->fd, data, length, MSG_NOSIGNAL);
    return n < 0 && errno == EAGAIN ? 0 : n;
}

static void
connection_flush(Connection *c)
{
    ssize_t n = connection_send(c, c->rest + c->offset, c->length - c->offset);
    if (n < 0) {
        connection_close(c);
        return;
    }
    c->offset += (size_t)n;
    if (c->offset == c->length) {
        c->offset = c->length = 0;
        connection_watch(c, EPOLL_CTL_MOD, EPOLLIN);
    }
}

static void
connection_answer(Connection *c)
{
    ssize_t length = recv(c->fd, buffer, BUFFER, 0);
    if (length <= 0) {
        if (length == 0 || errno != EAGAIN)
            connection_close(c);
        return;
    }
    ssize_t sent = 0, n;
    if (two_pieces && length > HEAD) {
        sent = connection_send(c, buffer, HEAD);
    }
    n = sent < 0 ? -1 : connection_send(c, buffer + sent, (size_t)(length - sent));
    if (n < 0) {
        connection_close(c);
        return;
    }
    sent += n;
    if (sent < length) {
        if (!c->rest && !(c->rest = malloc(BUFFER)))
            abort();
        c->offset = 0;
        c->length = (size_t)(length - sent);
        memcpy(c->rest, buffer + sent, c->length);
        connection_watch(c, EPOLL_CTL_MOD, EPOLLOUT);
    }
}

static void
datagrams_answer(void)
{
    struct sockaddr_storage from;
    socklen_t from_length = sizeof from;
    ssize_t n;
    while ((n = recvfrom(listener, buffer, BUFFER, 0, (struct sockaddr *)&from, &from_length)) >= 0) {
        sendto(listener, buffer, (size_t)n, 0, (struct sockaddr *)&from, from_length);
        from_length = sizeof from;
    }
}

int
main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    listener = atoi(argv[1]);
    two_pieces = argc > 2 && *argv[2] == 't';
    bool datagrams = argc > 2 && *argv[2] == 'u';

    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[EVENTS];
    if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event))
        return 1;
    for (;;) {
        int n = epoll_wait(epoll_fd, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            Connection *c = events[i].data.ptr;
            if (!c && datagrams)
                datagrams_answer();
            else if (!c)
                connections_accept();
            else if (c->length)
                connection_flush(c);
            else
                connection_answer(c);
        }
    }
}
