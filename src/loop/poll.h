/* What the loop asks of a poller: watch descriptors, wait, be woken by another thread.

   poll_epoll.c is the one for Linux.  Functions return -errno; only poll_wait() gives up the interpreter
   lock, and none of them runs Python code, except that dropping a handle may. */

#ifndef CTASK_POLL_H
#define CTASK_POLL_H

#include "handles/objects.h"

#define POLL_READ 1u
#define POLL_WRITE 2u
#define POLL_ONCE 4u // tell once, of either side; then nothing until poll_watch() is called again
#define POLL_SIDES (POLL_READ | POLL_WRITE)

/* Not an errno: our own memory was short, where -ENOMEM is the kernel's word. */
#define POLL_NO_MEMORY (-4096)

/* `forks` counts the forks up to this process.  Once it changes, the poller's descriptors are the parent's:
   it makes new ones before it asks the kernel for anything, and never touches the old ones but to close them. */
PART int poll_open(poll_state *poll, const unsigned *forks);
PART void poll_close(poll_state *poll);

/* Ask the kernel for exactly these events of `fd` (0: for none any more).  -errno or POLL_NO_MEMORY. */
PART int poll_watch(poll_state *poll, int fd, uint32_t events);
/* Have a slot for `fd`, which is a descriptor.  0 or POLL_NO_MEMORY. */
PART int poll_reserve(poll_state *poll, int fd);
/* Raise what poll_watch() returned: OSError, or MemoryError.  Returns NULL. */
PART PyObject *poll_raise(int err);

/* What the kernel is to be asked for, as the watchers of a slot have it. */
static inline uint32_t
poll_wanted(const poll_slot *slot)
{
    uint32_t sides = (slot->reader != NULL ? POLL_READ : 0) | (slot->writer != NULL ? POLL_WRITE : 0);
    return sides != 0 && (sides & ~(uint32_t)slot->once) == 0 ? sides | POLL_ONCE : sides;
}

/* Wait for events, up to `timeout` nanoseconds (negative: without end), and push the handles of those that
   came on the loop's ring.  With a timeout of 0 the interpreter lock is kept.  Returns -1 with an exception
   set if a signal handler raised: what the kernel told is on the ring all the same. */
PART int poll_wait(LoopObj *loop, int64_t timeout);

/* End a poll_wait() that another thread is in. */
PART void poll_wake(poll_state *poll);

/* CLOCK_MONOTONIC in seconds, the same number that time.monotonic() gives. */
PART double poll_clock(void);

#endif
