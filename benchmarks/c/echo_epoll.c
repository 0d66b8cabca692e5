// The limit in C: an echo server of a single thread that does nothing but epoll_wait, recv and send, or with
// -DUSE_TLS SSL_read and SSL_write.
//
//   echo_epoll FD MODE [CERTIFICATE]
//
//   FD            an inherited, non-blocking socket that listens, or is bound for datagrams
//   MODE          e: echo; u: datagrams
//   CERTIFICATE   with the key, for TLS
//
// A connection with an answer that does not fit into the socket is not read until it does.
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#ifdef USE_TLS
#include <openssl/ssl.h>
#endif

typedef struct {
    int fd;
#ifdef USE_TLS
    SSL *tls;
#endif
    char *rest; // owned; NULL until an answer did not fit
    size_t offset, length;
} Connection;

#ifdef USE_TLS
#define HOLDS_MORE(c) \
    SSL_has_pending((c)->tls) // one call reads one record, and there may be more in its buffer
#else
#define HOLDS_MORE(c) ((void)(c), false)
#endif

enum { BUFFER = 256 * 1024, EVENTS = 1024, READ_AHEAD = 64 * 1024 };

static char buffer[BUFFER];
static int epoll_fd, listener;
#ifdef USE_TLS
static SSL_CTX *tls_context;
#endif

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
#ifdef USE_TLS
    SSL_shutdown(c->tls);
    SSL_free(c->tls);
#endif
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
#ifdef USE_TLS
        c->tls = SSL_new(tls_context);
        if (!c->tls || SSL_set_fd(c->tls, fd) != 1)
            abort();
        SSL_set_accept_state(c->tls);
#endif
        connection_watch(c, EPOLL_CTL_ADD, EPOLLIN);
    }
}

// Bytes moved; 0 if it would block; -1 at the end of the stream and on an error.
#ifdef USE_TLS
static ssize_t
connection_result(Connection *c, int n)
{
    if (n > 0)
        return n;
    int error = SSL_get_error(c->tls, n);
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

static ssize_t
connection_send(Connection *c, const char *data, size_t length)
{
    return connection_result(c, SSL_write(c->tls, data, (int)length));
}

static ssize_t
connection_receive(Connection *c)
{
    return connection_result(c, SSL_read(c->tls, buffer, BUFFER));
}
#else
static ssize_t
connection_send(Connection *c, const char *data, size_t length)
{
    ssize_t n = send(c->fd, data, length, MSG_NOSIGNAL);
    return n < 0 && errno == EAGAIN ? 0 : n;
}

static ssize_t
connection_receive(Connection *c)
{
    ssize_t n = recv(c->fd, buffer, BUFFER, 0);
    if (n < 0 && errno == EAGAIN)
        return 0;
    return n > 0 ? n : -1;
}
#endif

// As connection_answer.
static bool
connection_flush(Connection *c)
{
    ssize_t n = connection_send(c, c->rest + c->offset, c->length - c->offset);
    if (n < 0) {
        connection_close(c);
        return false;
    }
    c->offset += (size_t)n;
    if (c->offset < c->length)
        return false;
    c->offset = c->length = 0;
    connection_watch(c, EPOLL_CTL_MOD, EPOLLIN);
    return HOLDS_MORE(c);
}

// Whether there may be more to read that epoll does not tell of.
static bool
connection_answer(Connection *c)
{
    ssize_t length = connection_receive(c);
    if (length == 0)
        return false;
    ssize_t sent = length < 0 ? -1 : connection_send(c, buffer, (size_t)length);
    if (sent < 0) {
        connection_close(c);
        return false;
    }
    if (sent < length) {
        if (!c->rest && !(c->rest = malloc(BUFFER)))
            abort();
        c->offset = 0;
        c->length = (size_t)(length - sent);
        memcpy(c->rest, buffer + sent, c->length);
        connection_watch(c, EPOLL_CTL_MOD, EPOLLOUT);
        return false;
    }
    return HOLDS_MORE(c);
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
    if (argc < 3)
        return 2;
    listener = atoi(argv[1]);
    bool datagrams = *argv[2] == 'u';

    prctl(PR_SET_PDEATHSIG, SIGKILL);
#ifdef USE_TLS
    signal(SIGPIPE, SIG_IGN);
    tls_context = SSL_CTX_new(TLS_server_method());
    if (!tls_context || argc < 4 || SSL_CTX_use_certificate_chain_file(tls_context, argv[3]) != 1 ||
        SSL_CTX_use_PrivateKey_file(tls_context, argv[3], SSL_FILETYPE_PEM) != 1)
        return 1;
    SSL_CTX_set_read_ahead(tls_context, 1); // otherwise two recv for each record
    SSL_CTX_set_default_read_buffer_len(tls_context, READ_AHEAD);
    SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
#endif

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
            if (!c && datagrams) {
                datagrams_answer();
            }
            else if (!c) {
                connections_accept();
            }
            else {
                bool more = c->length ? connection_flush(c) : connection_answer(c);
                while (more)
                    more = connection_answer(c);
            }
        }
    }
}
