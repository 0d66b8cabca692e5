/* sock_recv() and its relatives: the coroutine of an operation, and what its parts offer each other, the lowest
   first. */

#ifndef CTASK_SOCK_PARTS_H
#define CTASK_SOCK_PARTS_H

#include "coro/coroobj.h"
#include "io/transport.h"

/* Of the coroutine of an operation, `owner` is the loop, `subject` the socket, `arg` what else the method was given
   (a tuple where that is several), `waiter` the future while it waits, and `n` the bytes that sendall has sent, or
   that a connection is under way. */
typedef enum {
    OP_RECV,
    OP_RECV_INTO,
    OP_RECVFROM,
    OP_RECVFROM_INTO,
    OP_SENDALL,
    OP_SENDTO,
    OP_CONNECT,
    OP_ACCEPT,
    OP_KINDS,
} op_kind;

/* What a try comes to. */
enum { TRY_FAILED = -1, TRY_WAIT, TRY_DONE, TRY_OTHER, TRY_TURN };

/* ---- the parts of an operation ---- */

/* `offset` is its kind and the number of the descriptor that it waits for. */

static inline op_kind
op_kind_of(const CoroObj *op)
{
    return (op_kind)(op->offset & 15);
}

static inline int
op_watched_fd(const CoroObj *op)
{
    return (int)(op->offset >> 4);
}

static inline void
op_set_watched_fd(CoroObj *op, int fd)
{
    op->offset = ((Py_ssize_t)fd << 4) | op_kind_of(op);
}

static inline LoopObj *
op_loop(const CoroObj *op)
{
    return (LoopObj *)op->owner;
}

static inline int
op_has_tuple(op_kind kind)
{
    return kind == OP_SENDTO || kind == OP_RECVFROM_INTO;
}

static inline int
op_fd(const CoroObj *op)
{
    return socket_int(op->subject, op->st->io.sockets.fd);
}

static inline int
op_family(const CoroObj *op)
{
    return socket_int(op->subject, op->st->io.sockets.family);
}

/* ---- sock_try.c ---- */

static inline int
op_failed(void)
{
    PyErr_SetFromErrno(PyExc_OSError);
    return TRY_FAILED;
}

/* Make the system call: one of TRY_..., with *result if it is TRY_DONE. */
PART int op_try(CoroObj *op, PyObject **result);

/* ---- sock.c ---- */

PART int sock_setup(PyObject *module, ctask_state *st);

#endif
