/* What reading and writing pipes do with their file: waiting for it, its descriptor, the end of it.

   A pipe is told by level and watches only its side: the other one may be another transport's. */

#include "io/pipe_parts.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef RWF_NOWAIT
#define RWF_NOWAIT 8
#endif

PART int
pipe_is_reading(PipeObj *p)
{
    return !p->base.paused && !p->base.closing;
}

/* ---- the descriptor ---- */

/* The descriptor; -1, with which system calls fail with EBADF, if the file was closed behind the transport and
   another one has the number.  (A file object that says it is closed may have left its descriptor open, and
   another may have been put in its place on purpose.)  May run anything. */
PART int
pipe_fd(PipeObj *p)
{
    TransportObj *t = &p->base;
    if (LIKELY(t->sock != NULL)) {
        PyObject *file = Py_NewRef(t->sock);
        PyObject *number = PyObject_CallMethodNoArgs(file, t->st->str.fileno);
        long fd = number == NULL ? -1 : PyLong_AsLong(number);
        Py_XDECREF(number);
        Py_DECREF(file);
        if (LIKELY(fd == t->fd)) {
            return t->fd;
        }
        PyErr_Clear();
    }
    return blocking_has_file(&p->file) ? t->fd : -1;
}

/* readv() or writev() that fails with EAGAIN where it would wait, also when somebody who shares the file has made
   it a blocking one. */
static ssize_t
transfer(PipeObj *p, int fd, struct iovec *iov, int count, uint32_t side)
{
    ssize_t n;
    int writes = side == POLL_WRITE;
#if defined(SYS_preadv2) && defined(SYS_pwritev2)
    if (LIKELY(!p->no_nowait)) {
        n = syscall(writes ? SYS_pwritev2 : SYS_preadv2, fd, iov, (long)count, -1L, -1L, RWF_NOWAIT);
        if (LIKELY(n >= 0) || (errno != EOPNOTSUPP && errno != ENOSYS && errno != EPERM && errno != EINVAL)) {
            return n;
        }
        p->no_nowait = 1;
    }
#endif
    int flags = fcntl(fd, F_GETFL), err;
    if (LIKELY(flags < 0 || flags & O_NONBLOCK)) {
        return writes ? writev(fd, iov, count) : readv(fd, iov, count);
    }
    struct pollfd asked = {.fd = fd, .events = writes ? POLLOUT : POLLIN};
    if (poll(&asked, 1, 0) == 0) {
        errno = EAGAIN;
        return -1;
    }
    size_t size = writes && iov->iov_len > PIPE_BUF ? PIPE_BUF : iov->iov_len; // so much is room for
    Py_BEGIN_ALLOW_THREADS n = writes ? write(fd, iov->iov_base, size) : read(fd, iov->iov_base, size);
    err = errno;
    Py_END_ALLOW_THREADS errno = err;
    return n;
}

PART ssize_t
pipe_transfer(PipeObj *p, int fd, struct iovec *iov, int count, uint32_t side)
{
    ssize_t n = transfer(p, fd, iov, count, side);
    if (side == POLL_WRITE) {
        count_sent(p->base.loop, n);
    }
    else {
        count_received(p->base.loop, n);
    }
    return n;
}

/* ---- the end ---- */

PART int
pipe_log_hangup(PipeObj *p)
{
    if (!p->base.loop->debug) {
        return 0;
    }
    PyObject *res = PyObject_CallMethod(p->base.st->logger, "info", "sO", "%r was closed by peer", p);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}
