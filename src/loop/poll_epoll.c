/* Readiness by epoll, waking by eventfd.

   Each registration carries a generation, so that an event of a descriptor that was closed and opened anew
   is not taken for the new one's.  The eventfd is edge-triggered and never read: each write is an edge.

   Descriptors are watched by level: what is not dealt with is told again, so no event can be lost.  (The one
   exception is POLL_ONCE, for who asks again each time it waits.)

   A set can be made anew from the slots: in a forked child, which shares the old one with its parent, and
   when the kernel tells of a descriptor that cannot be taken out of it any more, because it was closed here
   while a duplicate is open. */

#include "handles/clock.h"
#include "handles/work.h"
#include "loop/moments.h"
#include "loop/poll.h"
#include "loop/trace.h"
#include "loop/watchdog.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_AT_FIRST 256
#define WAKE_MARK UINT64_MAX

static int
control(int set, int op, int fd, uint32_t generation, uint32_t events)
{
    struct epoll_event event = {
        .events = (events & POLL_READ ? EPOLLIN : 0) | (events & POLL_WRITE ? EPOLLOUT : 0) |
                  (events & POLL_ONCE ? EPOLLONESHOT : 0),
        .data.u64 = (uint64_t)generation << 32 | (uint32_t)fd,
    };
    return epoll_ctl(set, op, fd, &event) < 0 ? -errno : 0;
}

/* A new set gets what the slots say.  What was closed meanwhile is no longer in them; any other refusal is an
   error, as nobody would ever hear of that descriptor. */
static int
fill_set(poll_state *poll, int set)
{
    for (int fd = 0; fd < poll->n_slots; fd++) {
        poll_slot *slot = &poll->slots[fd];
        if ((slot->events & POLL_SIDES) == 0) {
            slot->events = 0; // told once, or nothing: in the new set it is not
            continue;
        }
        int err = control(set, EPOLL_CTL_ADD, fd, slot->generation, slot->events);
        if (err == -EBADF || err == -EPERM) {
            slot->events = 0;
            poll->watched--;
        }
        else if (err < 0) {
            return err;
        }
    }
    return 0;
}

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
        err = -errno;
        goto close_fd;
    }
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = WAKE_MARK};
    if (epoll_ctl(fd, EPOLL_CTL_ADD, wake_fd, &event) < 0) {
        err = -errno;
        goto close_wake_fd;
    }
    err = fill_set(poll, fd);
    if (err < 0) {
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
    close(wake_fd);
close_fd:
    close(fd);
    return err;
}

PART int
poll_open(poll_state *poll, const unsigned *forks)
{
    *poll = (poll_state){.fd = -1, .wake_fd = -1, .forks = forks};
    poll->events = malloc(EVENTS_AT_FIRST * sizeof(struct epoll_event));
    poll->n_events = EVENTS_AT_FIRST;
    int err = poll->events == NULL ? POLL_NO_MEMORY : open_set(poll);
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
    int64_t n = poll->n_slots < 64 ? 64 : poll->n_slots;
    while (n <= fd) {
        n *= 2;
    }
    if (n > INT_MAX) {
        return POLL_NO_MEMORY;
    }
    poll_slot *slots = realloc(poll->slots, (size_t)n * sizeof(poll_slot));
    if (slots == NULL) {
        return POLL_NO_MEMORY;
    }
    memset(slots + poll->n_slots, 0, (size_t)(n - poll->n_slots) * sizeof(poll_slot));
    poll->slots = slots;
    poll->n_slots = (int)n;
    return 0;
}

PART int
poll_reserve(poll_state *poll, int fd)
{
    return fd < poll->n_slots ? 0 : grow_slots(poll, fd);
}

/* A slot of its own for a descriptor, once the kernel has said that it is one: a number that somebody made up
   must not take memory. */
static int
make_slot(poll_state *poll, int fd, uint32_t events)
{
    int err = control(poll->fd, EPOLL_CTL_ADD, fd, 1, events);
    if (err < 0) {
        return err;
    }
    err = grow_slots(poll, fd);
    if (err < 0) {
        (void)control(poll->fd, EPOLL_CTL_DEL, fd, 0, 0);
        return err;
    }
    poll->slots[fd].generation = 1;
    return 0;
}

/* Tell the kernel what is to hold from now on, whatever it still knows under this number. */
static int
change_slot(poll_state *poll, int fd, uint32_t events)
{
    poll_slot *slot = &poll->slots[fd];
    if (slot->events == 0) {
        slot->generation++;
        int err = control(poll->fd, EPOLL_CTL_ADD, fd, slot->generation, events);
        /* The kernel may have it still: a duplicate kept the old description open. */
        return err == -EEXIST ? control(poll->fd, EPOLL_CTL_MOD, fd, slot->generation, events) : err;
    }
    int err = control(poll->fd, EPOLL_CTL_MOD, fd, slot->generation, events);
    if (err == -ENOENT) {
        /* Closed without being removed here, and opened anew. */
        slot->generation++;
        err = control(poll->fd, EPOLL_CTL_ADD, fd, slot->generation, events);
    }
    return err;
}

static void
note_events(poll_state *poll, poll_slot *slot, uint32_t events)
{
    poll->watched += ((events & POLL_SIDES) != 0) - ((slot->events & POLL_SIDES) != 0);
    slot->events = events;
}

PART int
poll_watch(poll_state *poll, int fd, uint32_t events)
{
    int err = 0;
    if (events == 0) {
        if (fd < poll->n_slots && poll->slots[fd].events != 0) {
            if (!is_parents(poll)) {
                (void)control(poll->fd, EPOLL_CTL_DEL, fd, 0, 0); // it may have been closed, which removed it
            }
            note_events(poll, &poll->slots[fd], 0);
        }
        return 0;
    }
    if (is_parents(poll) && (err = open_set(poll)) < 0) {
        return err;
    }
    err = fd < poll->n_slots ? change_slot(poll, fd, events) : make_slot(poll, fd, events);
    if (err == 0) {
        note_events(poll, &poll->slots[fd], events);
    }
    return err;
}

PART PyObject *
poll_raise(int err)
{
    if (err == POLL_NO_MEMORY) {
        return PyErr_NoMemory();
    }
    errno = -err;
    return PyErr_SetFromErrno(PyExc_OSError);
}

PART double
poll_clock(void)
{
    return (double)clock_nanoseconds() / 1e9;
}

/* epoll_wait() counts in milliseconds; epoll_pwait2() (Linux 5.11) does not. */
static int
wait_for_events(poll_state *poll, int64_t timeout)
{
#ifdef SYS_epoll_pwait2
    if (timeout > 0 && !poll->no_pwait2) {
        struct timespec ts = {.tv_sec = timeout / 1000000000, .tv_nsec = timeout % 1000000000};
        int n = (int)syscall(SYS_epoll_pwait2, poll->fd, poll->events, poll->n_events, &ts, NULL, 0);
        if (n >= 0 || (errno != ENOSYS && errno != EPERM)) {
            return n;
        }
        poll->no_pwait2 = 1;
    }
#endif
    int milliseconds = timeout < 0 ? -1 : (int)((timeout + 999999) / 1000000);
    return epoll_wait(poll->fd, poll->events, poll->n_events, milliseconds);
}

/* One side of a descriptor is ready.  A watcher that is told once goes from its slot to the ring. */
static inline int
push_side(LoopObj *loop, poll_slot *slot, uint32_t side)
{
    int reads = side == POLL_READ;
    PyObject **place = reads ? &slot->reader : &slot->writer, *watcher = *place;
    io_ready ready = reads ? slot->read_ready : slot->write_ready;
    unsigned kind = ready == NULL ? READY_HANDLE : reads ? READY_READ : READY_WRITE;
    if (loop_ready(loop, Py_NewRef(watcher), kind, (PyObject *)(void *)ready, NULL) < 0) {
        return -1;
    }
    if (slot->once & side) {
        *place = NULL;
        Py_DECREF(watcher); // the ring has it
    }
    return 0;
}

/* What the kernel tells of a descriptor.  An error or a hang-up wakes both sides, as with
   selectors.EpollSelector. */
static inline int
tell(LoopObj *loop, int fd, uint32_t events)
{
    poll_state *poll = &loop->poll;
    poll_slot *slot = &poll->slots[fd];
    int status = 0;
    if (slot->events & POLL_ONCE) {
        note_events(poll, slot, POLL_ONCE); // the kernel has it, and is silent
    }
    if ((events & ~(uint32_t)EPOLLOUT) != 0 && slot->reader != NULL) {
        status = push_side(loop, slot, POLL_READ);
    }
    if ((events & ~(uint32_t)EPOLLIN) != 0 && slot->writer != NULL && status == 0) {
        status = push_side(loop, slot, POLL_WRITE);
    }
    /* What nobody waits for any more is taken from the kernel when it first tells of it. */
    uint32_t wanted = poll_wanted(slot);
    if (UNLIKELY(slot->events & POLL_ONCE ? wanted != 0 : (slot->events & ~wanted) != 0) &&
        poll_watch(poll, fd, wanted) < 0) {
        /* Whoever still waits tries for itself, and meets the error when it asks again. */
        if (slot->once & POLL_READ && slot->reader != NULL) {
            status |= push_side(loop, slot, POLL_READ);
        }
        if (slot->once & POLL_WRITE && slot->writer != NULL) {
            status |= push_side(loop, slot, POLL_WRITE);
        }
    }
    return status;
}

/* Push what the kernel told of.  All of it is gone through, also when memory is short: what was told once would not
   be told again. */
static int
tell_all(LoopObj *loop, int n)
{
    poll_state *poll = &loop->poll;
    int status = 0, stale = 0;
    struct epoll_event *events = poll->events;
    for (int i = 0; i < n; i++) {
        uint64_t mark = events[i].data.u64;
        int fd = (int)(uint32_t)mark;
        if (mark == WAKE_MARK) {
            loop->counters.wakeups++;
            continue;
        }
        if (fd >= poll->n_slots || poll->slots[fd].generation != mark >> 32 || poll->slots[fd].events == 0) {
            stale = 1;
            continue;
        }
        loop->counters.events++;
        if (UNLIKELY(tell(loop, fd, events[i].events) < 0)) {
            status = -1;
        }
    }
    /* It would be told again and again.  (If there is no descriptor for a new set now, the next time.) */
    if (UNLIKELY(stale)) {
        (void)open_set(poll);
    }
    if (UNLIKELY(n == poll->n_events && poll->watched > n)) {
        /* More may be ready than were asked for. */
        struct epoll_event *more = realloc(events, 2 * (size_t)n * sizeof(struct epoll_event));
        if (more != NULL) {
            poll->events = more;
            poll->n_events = 2 * n;
        }
    }
    return status;
}

PART int
poll_wait(LoopObj *loop, int64_t timeout)
{
    poll_state *poll = &loop->poll;
    int n = 0, err = 0;
    if (UNLIKELY(poll->asking)) {
        PyErr_SetString(PyExc_RuntimeError, "another thread waits for this loop's events");
        return -1;
    }
    if (is_parents(poll) && (err = open_set(poll)) < 0) {
        poll_raise(err);
        return -1;
    }
    uint64_t ended_at = 0; // in the trace
    if (UNLIKELY(loop->observer != NULL)) {
        trace_poll(loop);
    }
    if (timeout == 0) {
        if (poll->watched > 0) {
            loop->counters.polls++;
            n = wait_for_events(poll, 0);
            err = errno;
        }
    }
    else {
        loop_counters *counters = &loop->counters;
        int64_t began = clock_nanoseconds(), ended;
        counters->polls++;
        counters->waiting_since = began;
        moments_note(loop, began);
        loop->sleeping = 1;
        poll->asking = 1;
        Py_BEGIN_ALLOW_THREADS n = wait_for_events(poll, timeout);
        err = errno;
        ended = clock_nanoseconds(); // to wait for the interpreter lock is not to have nothing to do
        Py_END_ALLOW_THREADS poll->asking = 0;
        loop->sleeping = 0;
        counters->waiting_since = 0;
        watchdog_loop_works(loop);
        counters->waited += ended - began;
        if (UNLIKELY(loop->observer != NULL)) {
            ended_at = trace_now(loop);
        }
    }
    /* Before signal handlers run: they may raise, and what was told once is not told again. */
    int told = n > 0 ? tell_all(loop, n) : 0;
    if (UNLIKELY(loop->observer != NULL)) {
        trace_polled(loop, ended_at, n);
    }
    if (UNLIKELY(told < 0)) {
        return -1;
    }
    if (breathe(PyThreadState_Get()) < 0) {
        return -1;
    }
    if (n < 0 && err != EINTR) {
        poll_raise(-err);
        return -1;
    }
    return 0;
}
