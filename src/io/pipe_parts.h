/* The transports over pipes and the like: what their parts offer each other, the lowest first.  They are made through
   the loop's own methods. */

#ifndef CTASK_PIPE_PARTS_H
#define CTASK_PIPE_PARTS_H

#include "io/transport.h"

typedef struct {
    TransportObj base; // `sock` is the file
    PyObject *waiter; // owned; a future to complete once connection_made() was called, or NULL
    int lost_writes; // write() calls that went nowhere
    char writes; // a WritePipeTransport
    char sees_hangup; // writing: the descriptor becomes readable when its reader is gone
    blocking_file file;
    char no_nowait; // the kernel has no RWF_NOWAIT for it
    char eof_due; // eof_received() is to be called
} PipeObj;

/* ---- pipe_file.c ---- */

PART int pipe_is_reading(PipeObj *p);
PART int pipe_fd(PipeObj *p);
PART ssize_t pipe_transfer(PipeObj *p, int fd, struct iovec *iov, int count, uint32_t side);
PART int pipe_log_hangup(PipeObj *p);

/* ---- pipe_write.c ---- */

PART int pipe_hung_up(PipeObj *p);
PART int pipe_write(PipeObj *p, PyObject *data);
PART int pipe_write_eof(PipeObj *p);
PART int pipe_send_waiting(TransportObj *t);

/* ---- pipe_read.c ---- */

PART int pipe_read_ready(LoopObj *loop, PyObject *self);

/* ---- pipe.c ---- */

PART int pipe_setup(PyObject *module, ctask_state *st);

#endif
