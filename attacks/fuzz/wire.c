/* What stands between the fuzzed interpreter and the world; linked with libFuzzer into the library that is preloaded.

   The calls on one descriptor, that of the socket under attack, go to a function of the target's: what it says has been
   sent or received, or which error it was.  Nothing is really sent anywhere.  Names are never looked up: getaddrinfo()
   answers for numbers only, and counts what it would have had to ask for.  And OpenSSL's random bytes are the same in
   each run, so that the same case is. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#define EXPORT __attribute__((visibility("default")))

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Data and its size, an address and its size; how many bytes, or an errno below zero. */
typedef ssize_t (*wire_function)(int sending, void *data, size_t n, void *address, socklen_t *length);

static int attacked = -1;
static wire_function function;
static int lookups;
static uint64_t state;

EXPORT void
fuzz_wire(int fd, wire_function told)
{
    attacked = fd;
    function = told;
}

/* How many names would have been looked up since it was last asked. */
EXPORT int
fuzz_lookups(void)
{
    int n = lookups;
    lookups = 0;
    return n;
}

EXPORT void
fuzz_seed(uint64_t seed)
{
    state = seed | 1;
}

/* A RAND_METHOD's bytes(). */
EXPORT int
fuzz_random(unsigned char *to, int n)
{
    for (int i = 0; i < n; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        to[i] = (unsigned char)(state >> 32);
    }
    return 1;
}

static ssize_t
pass(int sending, const void *data, size_t n, const void *address, socklen_t *length)
{
    ssize_t told = function(sending, (void *)data, n, (void *)address, length);
    if (told < 0) {
        errno = (int)-told;
        return -1;
    }
    return told;
}

EXPORT ssize_t
send(int fd, const void *data, size_t n, int flags)
{
    socklen_t none = 0;
    return fd == attacked ? pass(1, data, n, NULL, &none) : NEXT(send)(fd, data, n, flags);
}

EXPORT ssize_t
sendto(int fd, const void *data, size_t n, int flags, const struct sockaddr *to, socklen_t length)
{
    return fd == attacked ? pass(1, data, n, to, &length) : NEXT(sendto)(fd, data, n, flags, to, length);
}

EXPORT int
sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags)
{
    if (fd != attacked) {
        return NEXT(sendmmsg)(fd, messages, count, flags);
    }
    for (unsigned i = 0; i < count; i++) {
        struct msghdr *header = &messages[i].msg_hdr;
        socklen_t length = header->msg_namelen;
        /* As the kernel: who fails behind others is told of when it is the first. */
        ssize_t n = header->msg_iovlen == 1 && header->msg_control == NULL ? pass(i == 0 ? 1 : 2,
                                                                                  header->msg_iov->iov_base,
                                                                                  header->msg_iov->iov_len,
                                                                                  header->msg_name,
                                                                                  &length)
                                                                           : (errno = EINVAL, -1);
        if (n < 0) {
            return i == 0 ? -1 : (int)i;
        }
        messages[i].msg_len = (unsigned)n;
    }
    return (int)count;
}

EXPORT ssize_t
recvfrom(int fd, void *data, size_t n, int flags, struct sockaddr *from, socklen_t *length)
{
    return fd == attacked ? pass(0, data, n, from, length) : NEXT(recvfrom)(fd, data, n, flags, from, length);
}

EXPORT int
getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **found)
{
    struct addrinfo numbers = {.ai_flags = AI_V4MAPPED | AI_ADDRCONFIG};
    if (hints != NULL) {
        numbers = *hints;
    }
    int wanted = numbers.ai_flags;
    numbers.ai_flags |= AI_NUMERICHOST;
    int status = NEXT(getaddrinfo)(host, port, &numbers, found);
    /* The C library itself refuses an address with a zone that does not exist. */
    lookups += status == EAI_NONAME && !(wanted & AI_NUMERICHOST) && host != NULL && strchr(host, ':') == NULL;
    return status;
}
