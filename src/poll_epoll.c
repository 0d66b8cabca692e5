/* Readiness by epoll, waking by eventfd.

   Each registration carries a generation, so that an event of a descriptor that was closed and opened anew
   is not taken for the new one's.  The eventfd is edge-triggered and never read: each write is an edge.

   A set can be made anew from the slots: in a forked child, which shares the old one with its parent, and
   when the kernel tells of a descriptor that cannot be taken out of it any more, because it was closed here
   while a duplicate is open. */

#include "poll.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_AT_ONCE 256
#define WAKE_MARK UINT64_MAX

/* An epoll set with an eventfd in it, in place of those that `poll` has; those stay if it fails. */
static int
open_set(poll_state *poll)
{
    int wake_fd = -1, err;
    int fd = epoll_create1(EPOLL_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake_fd < 0) {
        goto close_fd;
    }
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = WAKE_MARK};
    if (epoll_ctl(fd, EPOLL_CTL_ADD, wake_fd, &event) < 0) {
        goto close_wake_fd;
    }
    if (poll->fd >= 0) {
        close(poll->fd);
        close(poll->wake_fd);
    }
    poll->fd = fd;
    poll->wake_fd = wake_fd;
    poll->forks_known = *poll->forks;
    return 0;

close_wake_fd:
    err = -errno;
    close(wake_fd);
    close(fd);
    return err;
close_fd:
    err = -errno;
    close(fd);
    return err;
}

PART int
poll_open(poll_state *poll, const unsigned *forks)
{
    *poll = (poll_state){.fd = -1, .wake_fd = -1, .forks = forks};
    poll->events = malloc(EVENTS_AT_ONCE * sizeof(struct epoll_event));
    int err = poll->events == NULL ? -ENOMEM : open_set(poll);
    if (err < 0) {
        poll_close(poll);
    }
    return err;
}

static inline int
is_parents(poll_state *poll)
{
    return UNLIKELY(poll->fd >= 0 && poll->forks_known != *poll->forks);
}

/* The handles in the slots are the caller's to drop beforehand. */
PART void
poll_close(poll_state *poll)
{
    if (poll->fd >= 0) {
        close(poll->fd);
    }
    if (poll->wake_fd >= 0) {
        close(poll->wake_fd);
    }
    free(poll->events);
    free(poll->slots);
    *poll = (poll_state){.fd = -1, .wake_fd = -1};
}

PART void
poll_wake(poll_state *poll)
{
    uint64_t one = 1;
    if (poll->wake_fd >= 0 && !is_parents(poll)) {
        /* It can only fail when the counter is full, and then the edge has been seen 2^64 times. */
        ssize_t n = write(poll->wake_fd, &one, sizeof(one));
        (void)n;
    }
}

static int
grow_slots(poll_state *poll, int fd)
{
    int n = poll->n_slots < 64 ? 64 : poll->n_slots;
    while (n <= fd) {
        n *= 2;
    }
    poll_slot *slots = realloc(poll->slots, (size_t)n * sizeof(poll_slot));
    if (slots == NULL) {
        return -ENOMEM;
    }
    memset(slots + poll->n_slots, 0, (size_t)(n - poll->n_slots) * sizeof(poll_slot));
    poll->slots = slots;
    poll->n_slots = n;
    return 0;
}

static int
control(poll_state *poll, int op, int fd, uint32_t events)
{
    struct epoll_event event = {
        .events = (events & POLL_READ ? EPOLLIN : 0) | (events & POLL_WRITE ? EPOLLOUT : 0) |
                  (events & POLL_EDGE ? EPOLLET | EPOLLRDHUP : 0),
        .data.u64 = (uint64_t)poll->slots[fd].generation << 32 | (uint32_t)fd,
    };
    return epoll_ctl(poll->fd, op, fd, &event) < 0 ? -errno : 0;
}

/* Have the kernel know what the slots say, and nothing else. */
static __attribute__((noinline)) int
make_anew(poll_state *poll)
{
    int err = open_set(poll);
    if (err < 0) {
        return err;
    }
    for (int fd = 0; fd < poll->n_slots; fd++) {
        poll_slot *slot = &poll->slots[fd];
        if (slot->events != 0 && control(poll, EPOLL_CTL_ADD, fd, slot->events) < 0) {
            slot->events = 0; // it was closed
            poll->watched--;
        }
    }
    return 0;
}

PART int
poll_watch(poll_state *poll, int fd, uint32_t events)
{
    if (fd >= poll->n_slots) {
        int err = grow_slots(poll, fd);
        if (err < 0) {
            return err;
        }
    }
    poll_slot *slot = &poll->slots[fd];
    int err = 0;
    if (is_parents(poll) && events != 0) {
        err = make_anew(poll);
        if (err < 0) {
            return err;
        }
    }
    if (events == 0) {
        if (slot->events != 0) {
            if (!is_parents(poll)) {
                (void)control(poll, EPOLL_CTL_DEL, fd, 0); // it may have been closed, which removed it
            }
            slot->events = 0;
            poll->watched--;
        }
        return 0;
    }
    if (slot->events == 0) {
        slot->generation++;
        err = control(poll, EPOLL_CTL_ADD, fd, events);
        if (err == -EEXIST) {
            /* The kernel still has it: a duplicate kept the old description open. */
            err = control(poll, EPOLL_CTL_MOD, fd, events);
        }
    }
    else {
        err = control(poll, EPOLL_CTL_MOD, fd, events);
        if (err == -ENOENT) {
            /* Closed without being removed here, and opened anew. */
            slot->generation++;
            err = control(poll, EPOLL_CTL_ADD, fd, events);
        }
    }
    if (err < 0) {
        return err;
    }
    poll->watched += slot->events == 0;
    slot->events = events;
    return 0;
}

PART double
poll_clock(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)((int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec) / 1e9;
}

/* epoll_wait() counts in milliseconds; epoll_pwait2() (Linux 5.11) does not. */
static int
wait_for_events(poll_state *poll, int64_t timeout)
{
#ifdef SYS_epoll_pwait2
    if (timeout > 0 && !poll->no_pwait2) {
        struct timespec ts = {.tv_sec = timeout / 1000000000, .tv_nsec = timeout % 1000000000};
        int n = (int)syscall(SYS_epoll_pwait2, poll->fd, poll->events, EVENTS_AT_ONCE, &ts, NULL, 0);
        if (n >= 0 || (errno != ENOSYS && errno != EPERM)) {
            return n;
        }
        poll->no_pwait2 = 1;
    }
#endif
    int milliseconds = timeout < 0 ? -1 : (int)((timeout + 999999) / 1000000);
    return epoll_wait(poll->fd, poll->events, EVENTS_AT_ONCE, milliseconds);
}

static inline int
push_side(LoopObj *loop, PyObject *obj, io_ready ready, unsigned kind)
{
    return loop_ready(
        loop, Py_NewRef(obj), ready == NULL ? READY_HANDLE : kind, (PyObject *)(void *)ready, NULL);
}

PART int
poll_wait(LoopObj *loop, int64_t timeout)
{
    poll_state *poll = &loop->poll;
    int n = 0, err = 0, stale = 0;
    if (is_parents(poll) && (err = make_anew(poll)) < 0) {
        errno = -err;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (timeout == 0) {
        if (poll->watched > 0) {
            n = wait_for_events(poll, 0);
            err = errno;
        }
    }
    else {
        loop->sleeping = 1;
        Py_BEGIN_ALLOW_THREADS n = wait_for_events(poll, timeout);
        err = errno;
        Py_END_ALLOW_THREADS loop->sleeping = 0;
    }
    if (PyErr_CheckSignals() < 0) {
        return -1;
    }
    if (n < 0) {
        if (err == EINTR) {
            return 0;
        }
        errno = err;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    /* Signal handlers ran above: each event is checked against the slots as they are now. */
    struct epoll_event *events = poll->events;
    for (int i = 0; i < n && poll->fd >= 0; i++) {
        uint64_t mark = events[i].data.u64;
        int fd = (int)(uint32_t)mark;
        if (mark == WAKE_MARK) {
            continue;
        }
        if (fd >= poll->n_slots || poll->slots[fd].generation != mark >> 32 || poll->slots[fd].events == 0) {
            stale = 1;
            continue;
        }
        /* An error or a hang-up wakes both sides, as with selectors.EpollSelector. */
        poll_slot *slot = &poll->slots[fd];
        slot->hung_up |= (events[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
        int read = (events[i].events & ~(uint32_t)EPOLLOUT) != 0;
        int write = (events[i].events & ~(uint32_t)(EPOLLIN | EPOLLRDHUP)) != 0;
        if (read && slot->reader != NULL && push_side(loop, slot->reader, slot->read_ready, READY_READ) < 0) {
            return -1;
        }
        if (write && slot->writer != NULL &&
            push_side(loop, slot->writer, slot->write_ready, READY_WRITE) < 0) {
            return -1;
        }
        /* What nobody waits for any more is taken from the kernel when it first tells of it. */
        uint32_t wanted = (slot->reader != NULL ? POLL_READ : 0) | (slot->writer != NULL ? POLL_WRITE : 0);
        if (UNLIKELY((slot->events & ~wanted) != 0) && !(slot->events & POLL_EDGE)) {
            (void)poll_watch(poll, fd, wanted);
        }
        else if (UNLIKELY(write && !read && slot->writer == NULL && slot->sock != NULL)) {
            /* A datagram or Unix socket can be written after each write: this would be told every time. */
            (void)poll_watch(poll, fd, slot->events & ~POLL_WRITE);
        }
    }
    /* It would be told again and again.  (If there is no descriptor for a new set now, the next time.) */
    if (UNLIKELY(stale) && poll->fd >= 0) {
        (void)make_anew(poll);
    }
    return 0;
}
