/* Descriptors are watched (watch.c). */

#ifndef CTASK_WATCH_H
#define CTASK_WATCH_H

#include "handles/objects.h"

PART int watch_setup(PyObject *module, ctask_state *st);
/* Have `ready(loop, owner)` called when `fd` is ready on that side (POLL_READ or POLL_WRITE), each time as
   long as it is; in place of an earlier watcher.  -errno if the kernel refuses the descriptor. */
PART int watch_object(LoopObj *loop, int fd, uint32_t side, PyObject *owner, io_ready ready);
/* End that, if it is `owner` that watches: the number may be another's by now.  No system call: the kernel hears of
   it when it next tells of the descriptor. */
PART void watch_forget(LoopObj *loop, int fd, uint32_t side, PyObject *owner);
/* From now until watch_disown() a transport that is about to call watch_own() has `fd` to itself. */
PART void watch_claim(LoopObj *loop, int fd, PyObject *owner);
/* For an object that owns `fd` until watch_disown(), and has `read_ready` called each time there is something to
   read.  -errno if the kernel refuses the descriptor. */
PART int watch_own(LoopObj *loop, int fd, PyObject *owner, io_ready read_ready);
/* To be called before `fd` is closed. */
PART void watch_disown(LoopObj *loop, int fd, PyObject *owner);
/* The transport that has `fd` to itself, borrowed; NULL if none does.  One whose socket was closed behind it has
   lost it, and is forgotten. */
PART PyObject *watch_owner(LoopObj *loop, int fd);
/* watch_object() for who is told once and asks again each time it waits.  One system call, and nothing is taken
   for granted of the descriptor: it may be another file than the last time. */
PART int watch_once(LoopObj *loop, int fd, uint32_t side, PyObject *owner, io_ready ready);
/* What to have called if the owner is a future: it is completed.  loop._sock_ready(fut) does the same. */
PART int watch_wake(LoopObj *loop, PyObject *fut);
/* End what `owner` watches on that side, and tell the kernel: before the descriptor is closed. */
PART void watch_stop(LoopObj *loop, int fd, uint32_t side, PyObject *owner);
/* add_reader(fd, callback) and remove_reader(fd) for a descriptor that is nobody else's.  -1 with an exception. */
PART int watch_callback(LoopObj *loop, int fd, PyObject *callback);
PART int watch_end_callback(LoopObj *loop, int fd);
PART int watch_traverse(LoopObj *loop, visitproc visit, void *arg);
PART void watch_clear(LoopObj *loop);

#endif
