/* A library that lets system calls and allocations fail, preloaded into an interpreter (LD_PRELOAD).

   It counts, by the name of a call, those that matter: made while a scenario is attacked, and by code that is attacked.
   That is ctask's extension, told by the return address; for some calls also the interpreter, which makes them on ctask's
   behalf; and for allocations whoever has ctask nearer on the stack than the interpreter's loop, so that what Python code
   allocates does not count.  One of them, the n-th of its name, fails as it was told.

   faults_arm() and the others are called by ctypes.  Nothing is locked: threads count by atomics. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include <unwind.h>

#define EXPORT __attribute__((visibility("default")))
#define NOTHING (-1)
#define SHORT 1000 // in place of an errno: one byte is transferred

/* ---- what is counted ---- */

#define CALLS(X)     \
    X(memory)        \
    X(malloc)        \
    X(epoll_create1) \
    X(epoll_ctl)     \
    X(epoll_wait)    \
    X(epoll_pwait2)  \
    X(eventfd)       \
    X(recv)          \
    X(recvfrom)      \
    X(recvmsg)       \
    X(send)          \
    X(sendto)        \
    X(sendmsg)       \
    X(read)          \
    X(write)         \
    X(readv)         \
    X(writev)        \
    X(preadv2)       \
    X(pwritev2)      \
    X(accept4)       \
    X(socket)        \
    X(socketpair)    \
    X(bind)          \
    X(listen)        \
    X(connect)       \
    X(getsockopt)    \
    X(setsockopt)    \
    X(getsockname)   \
    X(getpeername)   \
    X(ioctl)         \
    X(fcntl)         \
    X(shutdown)      \
    X(close)         \
    X(open)          \
    X(dup)           \
    X(pipe2)         \
    X(sendfile)      \
    X(pidfd_open)

enum call {
#define X(name) CALL_##name,
    CALLS(X)
#undef X
        N_CALLS
};

static const char *const names[] = {
#define X(name) #name,
    CALLS(X)
#undef X
};

/* Made by the interpreter where asyncio's Python code, which ctask inherits, asks for it. */
static const char by_anybody[N_CALLS] = {
    [CALL_socket] = 1,
    [CALL_socketpair] = 1,
    [CALL_bind] = 1,
    [CALL_listen] = 1,
    [CALL_connect] = 1,
    [CALL_setsockopt] = 1,
    [CALL_pipe2] = 1,
    [CALL_sendfile] = 1,
    [CALL_pidfd_open] = 1,
    [CALL_dup] = 1,
    [CALL_sendmsg] = 1,
    [CALL_recvmsg] = 1,
    [CALL_shutdown] = 1,
};

static atomic_int armed, all_callers;
static atomic_long counts[N_CALLS];
static int target = NOTHING, failing, fired; // what fails, how, how often it did
static long first, last;                     // which of them
static struct {
    int length;
    void *frames[32];
} *where; // from where the last that failed was called; shared with the parent, as this process may crash
static int wants[2];                         // whether memory, malloc are counted: that is slow

typedef struct {
    uintptr_t from, to;
} range;
static range ours, eval, vector, source;
static uintptr_t ours_at;
static atomic_uchar
    wake_fds[1024]; // eventfds: a write to one does not fail (it could if its counter were full)
static __thread int inside __attribute__((tls_model("initial-exec")));

static int
within(range *r, uintptr_t address)
{
    return address >= r->from && address < r->to;
}

/* The n-th call that counts: 0, or how it is to fail. */
static int
count(enum call call)
{
    long n = atomic_fetch_add(&counts[call], 1) + 1;
    if ((int)call != target || n < first || n > last) {
        return 0;
    }
    fired++;
    where->length = backtrace(where->frames, 32);
    return failing;
}

static int
is_next(enum call call, void *caller)
{
    if (!atomic_load(&armed)) {
        return 0;
    }
    if (!by_anybody[call] && !atomic_load(&all_callers) && !within(&ours, (uintptr_t)caller)) {
        return 0;
    }
    return count(call);
}

/* ---- who allocates ---- */

static _Unwind_Reason_Code
look_at_frame(struct _Unwind_Context *context, void *result)
{
    uintptr_t address = _Unwind_GetIP(context);
    if (within(&ours, address)) {
        *(int *)result = 1;
        return _URC_NORMAL_STOP;
    }
    if (within(&eval, address) || within(&vector, address)) {
        return _URC_NORMAL_STOP;
    }
    return _URC_NO_REASON;
}

static int
is_ours(void)
{
    int result = 0;
    if (atomic_load(&all_callers)) {
        return 1;
    }
    _Unwind_Backtrace(look_at_frame, &result);
    return result;
}

static int
allocation_fails(enum call call)
{
    if (!atomic_load(&armed) || !wants[call] || inside) {
        return 0;
    }
    inside = 1;
    int result = is_ours() && count(call);
    inside = 0;
    return result;
}

/* The interpreter's allocators; the structure is PyMemAllocatorEx, the same on all versions. */
typedef struct {
    void *context;
    void *(*malloc)(void *, size_t);
    void *(*calloc)(void *, size_t, size_t);
    void *(*realloc)(void *, void *, size_t);
    void (*free)(void *, void *);
} allocator;
static allocator before[3];

static void *
hook_malloc(void *context, size_t size)
{
    allocator *a = context;
    if (allocation_fails(CALL_memory)) {
        return NULL;
    }
    inside++; // what it takes from malloc() is counted here already
    void *p = a->malloc(a->context, size);
    inside--;
    return p;
}

static void *
hook_calloc(void *context, size_t n, size_t size)
{
    allocator *a = context;
    if (allocation_fails(CALL_memory)) {
        return NULL;
    }
    inside++;
    void *p = a->calloc(a->context, n, size);
    inside--;
    return p;
}

static void *
hook_realloc(void *context, void *old, size_t size)
{
    allocator *a = context;
    if (allocation_fails(CALL_memory)) {
        return NULL;
    }
    inside++;
    void *p = a->realloc(a->context, old, size);
    inside--;
    return p;
}

static void
hook_free(void *context, void *p)
{
    allocator *a = context;
    a->free(a->context, p);
}

static void
hook_allocators(void)
{
    void (*get)(int, allocator *) = (void (*)(int, allocator *))dlsym(RTLD_DEFAULT, "PyMem_GetAllocator");
    void (*set)(int, allocator *) = (void (*)(int, allocator *))dlsym(RTLD_DEFAULT, "PyMem_SetAllocator");
    for (int domain = 0; domain < 3; domain++) {
        get(domain, &before[domain]);
        allocator hook = {&before[domain], hook_malloc, hook_calloc, hook_realloc, hook_free};
        set(domain, &hook);
    }
}

/* ---- what Python calls ---- */

static range
function_range(const char *name)
{
    Dl_info info;
    ElfW(Sym) *symbol = NULL;
    void *function = dlsym(RTLD_DEFAULT, name);
    range r = {0, 0};
    if (function != NULL && dladdr1(function, &info, (void **)&symbol, RTLD_DL_SYMENT) && symbol != NULL) {
        r.from = (uintptr_t)function;
        r.to = r.from + symbol->st_size;
    }
    return r;
}

static int
find_ours(struct dl_phdr_info *info, size_t size, void *part)
{
    (void)size;
    if (info->dlpi_name == NULL || strstr(info->dlpi_name, (const char *)part) == NULL) {
        return 0;
    }
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        if (segment->p_type == PT_LOAD && segment->p_flags & PF_X) {
            ours_at = info->dlpi_addr;
            ours.from = info->dlpi_addr + segment->p_vaddr;
            ours.to = ours.from + segment->p_memsz;
        }
    }
    return 1;
}

/* `part` of the path of the library that is attacked, or NULL: whatever calls is. */
EXPORT int
faults_prepare(const char *part, int memory)
{
    void *frames[4];
    backtrace(frames, 4); // loads what it needs
    where = mmap(NULL, sizeof(*where), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (where == MAP_FAILED) {
        return -1;
    }
    eval = function_range("_PyEval_EvalFrameDefault");
    vector = function_range("_PyEval_Vector");
    source = function_range("PyRun_StringFlags");
    atomic_store(&all_callers, part == NULL);
    if (part != NULL && !dl_iterate_phdr(find_ours, (void *)part)) {
        return -1;
    }
    if (memory && before[0].malloc == NULL) {
        hook_allocators();
    }
    return 0;
}

EXPORT int
faults_call(const char *name)
{
    for (int call = 0; call < N_CALLS; call++) {
        if (strcmp(names[call], name) == 0) {
            return call;
        }
    }
    return NOTHING;
}

/* From the n-th call on, `times` of that name fail; `call` may be NOTHING: all are counted, none fails. */
EXPORT void
faults_plan(int call, long n, long times, int how, int memory, int direct)
{
    for (int i = 0; i < N_CALLS; i++) {
        atomic_store(&counts[i], 0);
    }
    target = call;
    first = n;
    last = n + times - 1;
    failing = how;
    fired = 0;
    where->length = 0;
    wants[CALL_memory] = memory;
    wants[CALL_malloc] = direct;
}

EXPORT void
faults_arm(int on)
{
    atomic_store(&armed, on);
}

EXPORT long
faults_count(int call)
{
    return atomic_load(&counts[call]);
}

EXPORT int
faults_fired(void)
{
    return fired;
}

/* The offsets in the attacked library of who called what failed, innermost first. */
EXPORT int
faults_where(uintptr_t *offsets, int room)
{
    int n = 0;
    for (int i = 0; i < where->length && n < room; i++) {
        if (within(&ours, (uintptr_t)where->frames[i])) {
            offsets[n++] = (uintptr_t)where->frames[i] - ours_at;
        }
    }
    return n;
}

/* Was it within PyRun_String(), which the library called? */
EXPORT int
faults_compiled(void)
{
    for (int i = 0; i < where->length && !within(&ours, (uintptr_t)where->frames[i]); i++) {
        if (within(&source, (uintptr_t)where->frames[i])) {
            return 1;
        }
    }
    return 0;
}

/* ---- the calls ---- */

#define CALLER __builtin_return_address(0)
#define REAL(name)                                         \
    static __typeof__(&name) real;                         \
    if (real == NULL) {                                    \
        real = (__typeof__(&name))dlsym(RTLD_NEXT, #name); \
    }
/* Fails without having done anything, or goes on. */
#define MAY_FAIL(name)                      \
    REAL(name)                              \
    int how = is_next(CALL_##name, CALLER); \
    if (how != 0 && how != SHORT) {         \
        errno = how;                        \
        return -1;                          \
    }
#define FEWER(size) (how == SHORT && (size) > 1 ? 1 : (size))

EXPORT int
epoll_create1(int flags)
{
    MAY_FAIL(epoll_create1)
    return real(flags);
}

EXPORT int
epoll_ctl(int set, int op, int fd, struct epoll_event *event)
{
    MAY_FAIL(epoll_ctl)
    return real(set, op, fd, event);
}

EXPORT int
epoll_wait(int set, struct epoll_event *events, int max, int timeout)
{
    MAY_FAIL(epoll_wait)
    return real(set, events, FEWER(max), timeout);
}

EXPORT int
eventfd(unsigned value, int flags)
{
    MAY_FAIL(eventfd)
    int fd = real(value, flags);
    if (fd >= 0 && fd < (int)sizeof(wake_fds)) {
        atomic_store(&wake_fds[fd], 1);
    }
    return fd;
}

EXPORT ssize_t
recv(int fd, void *buffer, size_t size, int flags)
{
    MAY_FAIL(recv)
    return real(fd, buffer, FEWER(size), flags);
}

EXPORT ssize_t
recvfrom(int fd, void *buffer, size_t size, int flags, struct sockaddr *from, socklen_t *length)
{
    MAY_FAIL(recvfrom)
    return real(fd, buffer, size, flags, from, length);
}

EXPORT ssize_t
recvmsg(int fd, struct msghdr *message, int flags)
{
    MAY_FAIL(recvmsg)
    return real(fd, message, flags);
}

EXPORT ssize_t
send(int fd, const void *buffer, size_t size, int flags)
{
    MAY_FAIL(send)
    return real(fd, buffer, FEWER(size), flags);
}

EXPORT ssize_t
sendto(int fd, const void *buffer, size_t size, int flags, const struct sockaddr *to, socklen_t length)
{
    MAY_FAIL(sendto)
    return real(fd, buffer, size, flags, to, length);
}

static struct iovec
one_byte(const struct iovec *iov, size_t count)
{
    struct iovec result = {NULL, 0};
    for (size_t i = 0; i < count && result.iov_len == 0; i++) {
        result.iov_base = iov[i].iov_base;
        result.iov_len = iov[i].iov_len > 0;
    }
    return result;
}

EXPORT ssize_t
sendmsg(int fd, const struct msghdr *message, int flags)
{
    MAY_FAIL(sendmsg)
    if (how == SHORT && message->msg_iovlen > 0) {
        struct iovec iov = one_byte(message->msg_iov, message->msg_iovlen);
        struct msghdr shorter = *message;
        shorter.msg_iov = &iov;
        shorter.msg_iovlen = 1;
        return real(fd, &shorter, flags);
    }
    return real(fd, message, flags);
}

EXPORT ssize_t
read(int fd, void *buffer, size_t size)
{
    MAY_FAIL(read)
    return real(fd, buffer, FEWER(size));
}

EXPORT ssize_t
write(int fd, const void *buffer, size_t size)
{
    if (fd >= 0 && fd < (int)sizeof(wake_fds) && atomic_load(&wake_fds[fd])) {
        return syscall(SYS_write, fd, buffer, size);
    }
    MAY_FAIL(write)
    return real(fd, buffer, FEWER(size));
}

EXPORT ssize_t
readv(int fd, const struct iovec *iov, int n)
{
    MAY_FAIL(readv)
    struct iovec one = one_byte(iov, (size_t)n);
    return how == SHORT ? real(fd, &one, 1) : real(fd, iov, n);
}

EXPORT ssize_t
writev(int fd, const struct iovec *iov, int n)
{
    MAY_FAIL(writev)
    struct iovec one = one_byte(iov, (size_t)n);
    return how == SHORT ? real(fd, &one, 1) : real(fd, iov, n);
}

EXPORT int
accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
    MAY_FAIL(accept4)
    return real(fd, address, length, flags);
}

EXPORT int
socket(int family, int type, int protocol)
{
    MAY_FAIL(socket)
    return real(family, type, protocol);
}

EXPORT int
socketpair(int family, int type, int protocol, int pair[2])
{
    MAY_FAIL(socketpair)
    return real(family, type, protocol, pair);
}

EXPORT int
bind(int fd, const struct sockaddr *address, socklen_t length)
{
    MAY_FAIL(bind)
    return real(fd, address, length);
}

EXPORT int
listen(int fd, int backlog)
{
    MAY_FAIL(listen)
    return real(fd, backlog);
}

/* Interrupted, it goes on in the kernel. */
EXPORT int
connect(int fd, const struct sockaddr *address, socklen_t length)
{
    REAL(connect)
    int how = is_next(CALL_connect, CALLER);
    int result = how == 0 || how == EINTR ? real(fd, address, length) : -1;
    if (how != 0) {
        errno = how;
        return -1;
    }
    return result;
}

EXPORT int
getsockopt(int fd, int level, int name, void *value, socklen_t *length)
{
    MAY_FAIL(getsockopt)
    return real(fd, level, name, value, length);
}

EXPORT int
setsockopt(int fd, int level, int name, const void *value, socklen_t length)
{
    MAY_FAIL(setsockopt)
    return real(fd, level, name, value, length);
}

EXPORT int
getsockname(int fd, struct sockaddr *address, socklen_t *length)
{
    MAY_FAIL(getsockname)
    return real(fd, address, length);
}

EXPORT int
getpeername(int fd, struct sockaddr *address, socklen_t *length)
{
    MAY_FAIL(getpeername)
    return real(fd, address, length);
}

#define LAST_ARGUMENT(type, after)      \
    va_list list;                       \
    va_start(list, after);              \
    type argument = va_arg(list, type); \
    va_end(list);

EXPORT int
ioctl(int fd, unsigned long request, ...)
{
    LAST_ARGUMENT(void *, request)
    MAY_FAIL(ioctl)
    return real(fd, request, argument);
}

EXPORT int
fcntl(int fd, int command, ...)
{
    LAST_ARGUMENT(void *, command)
    MAY_FAIL(fcntl)
    return real(fd, command, argument);
}

EXPORT int
fcntl64(int fd, int command, ...)
{
    LAST_ARGUMENT(void *, command)
    MAY_FAIL(fcntl)
    return real(fd, command, argument);
}

EXPORT int
shutdown(int fd, int side)
{
    MAY_FAIL(shutdown)
    return real(fd, side);
}

/* Linux has closed it whatever close() says. */
EXPORT int
close(int fd)
{
    REAL(close)
    int how = is_next(CALL_close, CALLER);
    if (fd >= 0 && fd < (int)sizeof(wake_fds)) {
        atomic_store(&wake_fds[fd], 0);
    }
    int result = real(fd);
    if (how != 0) {
        errno = how;
        return -1;
    }
    return result;
}

EXPORT int
open(const char *path, int flags, ...)
{
    LAST_ARGUMENT(int, flags)
    MAY_FAIL(open)
    return real(path, flags, argument);
}

EXPORT int
open64(const char *path, int flags, ...)
{
    LAST_ARGUMENT(int, flags)
    MAY_FAIL(open)
    return real(path, flags, argument);
}

EXPORT int
dup(int fd)
{
    MAY_FAIL(dup)
    return real(fd);
}

EXPORT int
pipe2(int pair[2], int flags)
{
    MAY_FAIL(pipe2)
    return real(pair, flags);
}

EXPORT ssize_t
sendfile(int out, int in, off_t *offset, size_t size)
{
    MAY_FAIL(sendfile)
    return real(out, in, offset, FEWER(size));
}

EXPORT ssize_t
sendfile64(int out, int in, off64_t *offset, size_t size)
{
    MAY_FAIL(sendfile)
    return real(out, in, (off_t *)offset, FEWER(size));
}

/* What has no function in an older C library. */
EXPORT long
syscall(long number, ...)
{
    va_list list;
    long a[6];
    va_start(list, number);
    for (int i = 0; i < 6; i++) {
        a[i] = va_arg(list, long);
    }
    va_end(list);
    REAL(syscall)
    enum call call = number == SYS_epoll_pwait2 ? CALL_epoll_pwait2
                     : number == SYS_preadv2    ? CALL_preadv2
                     : number == SYS_pwritev2   ? CALL_pwritev2
                     : number == SYS_pidfd_open ? CALL_pidfd_open
                                                : N_CALLS;
    int how = call == N_CALLS ? 0 : is_next(call, CALLER);
    if (how == SHORT && call == CALL_epoll_pwait2) {
        a[2] = 1;
    }
    else if (how == SHORT) {
        struct iovec one = one_byte((struct iovec *)a[1], (size_t)a[2]);
        return real(number, a[0], &one, 1L, a[3], a[4], a[5]);
    }
    else if (how != 0) {
        errno = how;
        return -1;
    }
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* ---- malloc ---- */

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t size);

EXPORT void *
malloc(size_t size)
{
    if (allocation_fails(CALL_malloc)) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_malloc(size);
}

EXPORT void *
calloc(size_t n, size_t size)
{
    if (allocation_fails(CALL_malloc)) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_calloc(n, size);
}

EXPORT void *
realloc(void *old, size_t size)
{
    if (allocation_fails(CALL_malloc)) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_realloc(old, size);
}
