/* What the loop asks of a poller: watch descriptors, wait, be woken by another thread.

   poll_epoll.c is the one for Linux.  Functions return -errno; only poll_wait() gives up the interpreter
   lock, and none of them runs Python code, except that dropping a handle may. */

#ifndef CTASK_POLL_H
#define CTASK_POLL_H

#include "ctask.h"

#define POLL_READ 1u
#define POLL_WRITE 2u
#define POLL_EDGE 4u // tell of changes only: for who owns the descriptor and remembers what it was told

/* `forks` counts the forks up to this process.  Once it changes, the poller's descriptors are the parent's:
   it makes new ones before it asks the kernel for anything, and never touches the old ones but to close them. */
PART int poll_open(poll_state *poll, const unsigned *forks);
PART void poll_close(poll_state *poll);

/* Ask the kernel for exactly these events of `fd` (0: for none any more). */
PART int poll_watch(poll_state *poll, int fd, uint32_t events);

/* Wait for events, up to `timeout` nanoseconds (negative: without end), and push the handles of those that
   came on the loop's ring.  With a timeout of 0 the interpreter lock is kept.  Returns -1 with an exception
   set if a signal handler raised. */
PART int poll_wait(LoopObj *loop, int64_t timeout);

/* End a poll_wait() that another thread is in. */
PART void poll_wake(poll_state *poll);

/* CLOCK_MONOTONIC in seconds, the same number that time.monotonic() gives. */
PART double poll_clock(void);

#endif
