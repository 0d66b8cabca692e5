// The load generator: a number of connections, each with one request in flight, over TCP, a Unix
// socket or UDP, and over TLS if compiled with -DUSE_TLS (one program for all, so that servers are
// compared under the same load).
//
//   client [-p port | -u path] [-U] [-m mode] [-c connections] [-i idle] [-s bytes] [-w warm-up] [-d seconds]
//          [-n requests] [-l] [-P pid]
//
//   -m echo      send a request, wait for the same bytes, again (the default)
//   -m connect   connect, one such request, close and wait for the other end to close, again
//   -m hold      one request on each connection, then print {} and stay connected until standard input ends
//   -U           datagrams; those not answered within 0.2 s are sent again
//   -i idle      so many connections more, with nothing on them but one request before the warm-up
//   -n requests  so many and no more, not fewer than connections, instead of a window of time
//   -l           tell all latencies: pairs of microseconds and how many took as long, to a sixteenth of an octave
//   -P pid       the server, whose CPU time is read at both ends of the measured window
//
// Prints one line of JSON. What comes back is compared with what was sent; a difference, an error or 10 s
// without an answer end it with status 1.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#ifdef USE_TLS
#include <openssl/ssl.h>
#endif

typedef enum { ECHO, CONNECT, HOLD } Mode;

typedef struct {
    int fd;
    bool write_watched; // EPOLLOUT is asked for
    bool closing; // our end is closed, the other end's close is awaited
    size_t sent, got; // bytes of the request in flight
    uint64_t started; // ns; 0 if no answer is awaited
#ifdef USE_TLS
    SSL *tls;
#endif
} Connection;

enum { LIMIT_MS = 10000, RESEND_MS = 200, RECEIVE_SIZE = 1 << 20, EVENTS = 512 };

static struct sockaddr_storage address;
static socklen_t address_length;
static bool datagrams;
static Mode mode = ECHO;
static size_t size = 1024;
static char *request, *received;
static int epoll_fd;
#ifdef USE_TLS
static SSL_CTX *tls_context;
#endif

static _Noreturn void
fail(const char *what)
{
    fprintf(stderr, "client: %s: %s\n", what, errno ? strerror(errno) : "failed");
    exit(1);
}

static uint64_t
clock_ns(clockid_t clock)
{
    struct timespec t;
    if (clock_gettime(clock, &t))
        fail("clock_gettime");
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

// ---- latencies: buckets a sixteenth of an octave wide ----

enum { BUCKETS = 64 * 16 };
static uint64_t buckets[BUCKETS], worst;
static bool tell_latencies;

static void
latency_add(uint64_t ns)
{
    if (ns < 16)
        ns = 16;
    if (ns > worst)
        worst = ns;
    int octave = 63 - __builtin_clzll(ns);
    buckets[octave * 16 + (int)((ns >> (octave - 4)) & 15)]++;
}

static double
bucket_us(int i)
{
    return (double)((uint64_t)(16 + i % 16) << (i / 16) >> 4) / 1000.0;
}

// Microseconds, or 0 without any.
static double
latency_quantile(double share, uint64_t total)
{
    uint64_t below = 0, wanted = (uint64_t)(share * (double)total);
    for (int i = 0; i < BUCKETS; i++) {
        below += buckets[i];
        if (below > wanted)
            return bucket_us(i);
    }
    return 0;
}

static void
latencies_tell(void)
{
    const char *separator = "";
    printf(", \"worst\": %.1f, \"latencies\": [", (double)worst / 1000.0);
    for (int i = 0; i < BUCKETS; i++) {
        if (buckets[i]) {
            printf("%s[%.3f, %llu]", separator, bucket_us(i), (unsigned long long)buckets[i]);
            separator = ", ";
        }
    }
    printf("]");
}

// ---- one connection ----

// Bytes moved; 0 if it would block; -1 at the end of the stream and on an error.
#ifdef USE_TLS
static ssize_t
connection_send(Connection *c, const char *data, size_t length, bool *want_write)
{
    int n = SSL_write(c->tls, data, length > INT32_MAX ? INT32_MAX : (int)length);
    if (n > 0)
        return n;
    int error = SSL_get_error(c->tls, n);
    *want_write = error == SSL_ERROR_WANT_WRITE;
    return error == SSL_ERROR_WANT_WRITE || error == SSL_ERROR_WANT_READ ? 0 : -1;
}

static ssize_t
connection_receive(Connection *c)
{
    int n = SSL_read(c->tls, received, RECEIVE_SIZE);
    if (n > 0)
        return n;
    int error = SSL_get_error(c->tls, n);
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0 : -1;
}
#else
static ssize_t
connection_send(Connection *c, const char *data, size_t length, bool *want_write)
{
    ssize_t n = send(c->fd, data, length, MSG_NOSIGNAL);
    *want_write = n < 0 && (errno == EAGAIN || errno == EINTR);
    return *want_write ? 0 : n;
}

static ssize_t
connection_receive(Connection *c)
{
    ssize_t n = recv(c->fd, received, RECEIVE_SIZE, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    return n > 0 ? n : -1;
}
#endif

static void
connection_watch(Connection *c, int operation, bool write)
{
    struct epoll_event event = {.events = EPOLLIN | (write ? EPOLLOUT : 0u), .data.ptr = c};
    if (epoll_ctl(epoll_fd, operation, c->fd, &event))
        fail("epoll_ctl");
    c->write_watched = write;
}

// Leaves the socket blocking until it is connected: on one machine that takes no time.
static void
connection_open(Connection *c, bool handshake)
{
    *c = (Connection){.fd = socket(address.ss_family, datagrams ? SOCK_DGRAM : SOCK_STREAM, 0)};
    if (c->fd < 0)
        fail("socket");
    if (connect(c->fd, (struct sockaddr *)&address, address_length))
        fail("connect");
    if (address.ss_family == AF_INET && !datagrams) {
        int one = 1;
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
#ifdef USE_TLS
    c->tls = SSL_new(tls_context);
    if (!c->tls || SSL_set_fd(c->tls, c->fd) != 1)
        fail("SSL_new");
    SSL_set_connect_state(c->tls);
    if (handshake && SSL_do_handshake(c->tls) != 1)
        fail("handshake");
#else
    (void)handshake;
#endif
    if (fcntl(c->fd, F_SETFL, O_NONBLOCK))
        fail("fcntl");
    connection_watch(c, EPOLL_CTL_ADD, false);
}

// Our end only; the other end's is seen by connection_receive.
static void
connection_shut(Connection *c)
{
#ifdef USE_TLS
    SSL_shutdown(c->tls);
#else
    if (shutdown(c->fd, SHUT_WR))
        fail("shutdown");
#endif
    c->closing = true;
}

static void
connection_close(Connection *c)
{
#ifdef USE_TLS
    SSL_free(c->tls);
#endif
    close(c->fd); // and so out of epoll
}

static void
connection_push(Connection *c)
{
    bool want_write = false;
    while (c->sent < size) {
        ssize_t n = connection_send(c, request + c->sent, size - c->sent, &want_write);
        if (n < 0)
            fail("send");
        if (!n)
            break;
        c->sent += (size_t)n;
    }
    want_write = want_write && c->sent < size;
    if (want_write != c->write_watched)
        connection_watch(c, EPOLL_CTL_MOD, want_write);
}

static void
connection_ask(Connection *c, uint64_t now)
{
    c->sent = c->got = 0;
    c->started = now;
    connection_push(c);
}

// One request and its answer, waiting for it.
static void
connection_ask_and_wait(Connection *c)
{
    connection_ask(c, 0);
    while (c->got < size) {
        struct pollfd polled = {.fd = c->fd, .events = POLLIN | (c->write_watched ? POLLOUT : 0)};
        if (poll(&polled, 1, LIMIT_MS) == 0)
            errno = ETIMEDOUT, fail("first answer");
        if (c->sent < size)
            connection_push(c);
        ssize_t n = connection_receive(c);
        if (n < 0)
            fail("first answer");
        c->got += (size_t)n;
    }
    c->sent = c->got = 0;
}

// Whether a request was answered in full (and, where connections are closed, the other end has closed).
static bool
connection_ready(Connection *c)
{
    if (c->sent < size)
        connection_push(c);
    for (;;) {
        ssize_t n = connection_receive(c);
        if (n == 0)
            return false;
        if (n < 0) {
            if (c->closing)
                return true;
            fail("the server closed a connection");
        }
        if (c->got + (size_t)n > size || memcmp(request + c->got, received, (size_t)n))
            errno = 0, fail("other bytes than those sent");
        c->got += (size_t)n;
        if (c->got == size) {
            if (mode != CONNECT)
                return true;
            connection_shut(c);
            return false;
        }
#ifndef USE_TLS
        return false; // more is told by epoll; with TLS it may be in the library's buffer
#endif
    }
}

// ---- the run ----

// Waits for the answers on their way, so that no server sees a connection that breaks, and closes in order.
static void
connections_finish(Connection *connections, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        Connection *c = &connections[i];
        while (!datagrams && c->started && !connection_ready(c)) {
            struct pollfd polled = {.fd = c->fd, .events = POLLIN | (c->write_watched ? POLLOUT : 0)};
            if (poll(&polled, 1, LIMIT_MS) == 0)
                errno = ETIMEDOUT, fail("last answer");
        }
        if (!datagrams && !c->closing)
            connection_shut(c);
        connection_close(c);
    }
}

static void
run(Connection *connections, size_t count, double warm_up, double seconds, uint64_t limit,
    clockid_t server_clock)
{
    uint64_t now = clock_ns(CLOCK_MONOTONIC), begin = now + (uint64_t)(warm_up * 1e9);
    uint64_t end = 0, window = 0, server_cpu = 0, own_cpu = 0, last = now;
    uint64_t requests = 0, asked = count, resent = 0;
    struct epoll_event events[EVENTS];

    for (size_t i = 0; i < count; i++)
        connection_ask(&connections[i], now);
    // On a busy machine the window is longer: until there is a request for each connection in it.
    while (requests < (limit ? limit : count) || (!limit && now < end)) {
        int n = epoll_wait(epoll_fd, events, EVENTS, RESEND_MS);
        now = clock_ns(CLOCK_MONOTONIC);
        if (!window && now >= begin) {
            window = now;
            end = now + (uint64_t)(seconds * 1e9);
            server_cpu = clock_ns(server_clock);
            own_cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
        }
        if (n > 0)
            last = now;
        else if (now - last > LIMIT_MS * 1000000ull)
            errno = ETIMEDOUT, fail("no answer");
        for (int i = 0; i < n; i++) {
            Connection *c = events[i].data.ptr;
            if (!connection_ready(c))
                continue;
            if (window) {
                requests++;
                latency_add(now - c->started);
            }
            if (limit && asked == limit) {
                c->started = 0;
                if (epoll_ctl(epoll_fd, EPOLL_CTL_DEL, c->fd, NULL))
                    fail("epoll_ctl");
                continue;
            }
            if (mode == CONNECT) {
                connection_close(c);
                connection_open(c, false);
            }
            connection_ask(c, now);
            asked++;
        }
        for (size_t i = 0; datagrams && n == 0 && i < count; i++) {
            resent++;
            connection_ask(&connections[i], now);
        }
    }
    server_cpu = clock_ns(server_clock) - server_cpu;
    own_cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - own_cpu;
    double elapsed = (double)(now - window) / 1e9;
    printf("{\"requests\": %llu, \"seconds\": %.6f, \"server_cpu\": %.9f, \"client_cpu\": %.9f, "
           "\"p50\": %.1f, \"p99\": %.1f, \"resent\": %llu",
           (unsigned long long)requests,
           elapsed,
           (double)server_cpu / 1e9,
           (double)own_cpu / 1e9,
           latency_quantile(.5, requests),
           latency_quantile(.99, requests),
           (unsigned long long)resent);
    if (tell_latencies)
        latencies_tell();
    puts("}");
}

// Not the same at any two offsets that matter, without a newline but the last: servers may read lines.
static void
request_fill(void)
{
    uint32_t state = 1;
    for (size_t i = 0; i < size; i++) {
        state = state * 1664525u + 1013904223u;
        request[i] = (char)('!' + (state >> 24) % 90);
    }
    request[size - 1] = '\n';
}

int
main(int argc, char **argv)
{
    size_t count = 1, idle = 0;
    double warm_up = .3, seconds = 1;
    uint64_t limit = 0;
    clockid_t server_clock = CLOCK_PROCESS_CPUTIME_ID;
    struct sockaddr_in *inet = (struct sockaddr_in *)&address;
    struct sockaddr_un *local = (struct sockaddr_un *)&address;

    *inet = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    address_length = sizeof *inet;
    for (int option; (option = getopt(argc, argv, "p:u:Um:c:i:s:w:d:n:lP:")) != -1;) {
        switch (option) {
        case 'p':
            inet->sin_port = htons((uint16_t)atoi(optarg));
            break;
        case 'u':
            *local = (struct sockaddr_un){.sun_family = AF_UNIX};
            strncpy(local->sun_path, optarg, sizeof local->sun_path - 1);
            address_length = sizeof *local;
            break;
        case 'U':
            datagrams = true;
            break;
        case 'm':
            mode = *optarg == 'c' ? CONNECT : *optarg == 'h' ? HOLD : ECHO;
            break;
        case 'c':
            count = (size_t)atol(optarg);
            break;
        case 'i':
            idle = (size_t)atol(optarg);
            break;
        case 's':
            size = (size_t)atol(optarg);
            break;
        case 'w':
            warm_up = atof(optarg);
            break;
        case 'd':
            seconds = atof(optarg);
            break;
        case 'n':
            limit = (uint64_t)atoll(optarg);
            break;
        case 'l':
            tell_latencies = true;
            break;
        case 'P':
            if (clock_getcpuclockid(atoi(optarg), &server_clock))
                fail("-P");
            break;
        default:
            return 2;
        }
    }
    if (!size || size > RECEIVE_SIZE || !count || (limit && limit < count))
        return 2;

    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    request = malloc(size);
    received = malloc(RECEIVE_SIZE);
    Connection *connections = calloc(count + idle, sizeof *connections);
    epoll_fd = epoll_create1(0);
    if (!request || !received || !connections || epoll_fd < 0)
        fail("set-up");
    request_fill();
#ifdef USE_TLS
    tls_context = SSL_CTX_new(TLS_client_method());
    if (!tls_context)
        fail("SSL_CTX_new");
    SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(tls_context, SSL_SESS_CACHE_OFF);
#endif
    size_t first = mode == CONNECT ? count : 0; // these begin with their connection
    for (size_t i = 0; i < count + idle; i++) {
        connection_open(&connections[i], i >= first);
        if (mode == HOLD || i >= count)
            connection_ask_and_wait(&connections[i]);
    }
    if (mode == HOLD) {
        puts("{}");
        fflush(stdout);
        while (getchar() != EOF)
            ;
    }
    else {
        run(connections, count, limit ? 0 : warm_up, seconds, limit, server_clock);
    }
    connections_finish(connections, count + idle);
    return 0;
}
