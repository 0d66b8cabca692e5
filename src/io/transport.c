/* What the transports share: flow control, the end of a connection, reports, the descriptor's life.

   The order of events and the messages are those of asyncio's selector transports.  A transport calls its
   protocol in one context, a copy of the one in which it was made; asyncio makes a copy for each kind of
   callback. */

#include "io/transport.h"

#include "tasks/futures.h"

/* ---- calling the protocol ---- */

/* Callbacks from the loop run in the transport's context; within one it is entered already. */
PART int
transport_enter(TransportObj *t, int *entered)
{
    *entered = 0;
    if (((PyContext *)t->context)->ctx_entered) {
        return 0;
    }
    if (PyContext_Enter(t->context) < 0) {
        return -1;
    }
    *entered = 1;
    return 0;
}

/* Keeps an exception that is set. */
PART void
transport_exit(TransportObj *t, int entered)
{
    if (entered) {
        PyObject *raised = PyErr_GetRaisedException();
        if (PyContext_Exit(t->context) < 0) {
            PyErr_WriteUnraisable((PyObject *)t);
        }
        PyErr_SetRaisedException(raised);
    }
}

/* Tell the loop's exception handler; -1 only if that raises. */
PART int
transport_report(TransportObj *t, const char *message, PyObject *exc)
{
    ctask_state *st = t->st;
    PyObject *text = PyUnicode_FromString(message), *report = PyDict_New(), *res = NULL;
    if (text != NULL && report != NULL && PyDict_SetItem(report, st->str.message, text) == 0 &&
        PyDict_SetItem(report, st->str.exception, exc) == 0 &&
        PyDict_SetItem(report, st->str.transport, (PyObject *)t) == 0 &&
        PyDict_SetItem(report, st->str.protocol, t->protocol == NULL ? Py_None : t->protocol) == 0 &&
        t->loop != NULL) {
        PyObject *loop = Py_NewRef((PyObject *)t->loop);
        res = loop_tell_handler(st, loop, report, exc);
        Py_DECREF(loop);
    }
    Py_XDECREF(report);
    Py_XDECREF(text);
    Py_XDECREF(res);
    return res == NULL && PyErr_Occurred() ? -1 : 0;
}

/* A line for the log in debug mode; `format` has one place, for the transport. */
PART int
transport_debug(TransportObj *t, const char *format)
{
    if (LIKELY(t->loop == NULL || !t->loop->debug)) {
        return 0;
    }
    PyObject *res = PyObject_CallMethod(t->st->logger, "debug", "sO", format, t);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

/* An exception is set: KeyboardInterrupt and SystemExit go on (-1); with any other the connection is lost. */
PART int
transport_fatal_error(TransportObj *t, const char *message)
{
    if (raised_is_exit()) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    int status = 0;
    if (!PyErr_GivenExceptionMatches(exc, PyExc_OSError)) {
        status = transport_report(t, message, exc);
    }
    else if (t->loop != NULL && t->loop->debug) {
        PyObject *keywords = PyTuple_Pack(1, t->st->str.exc_info);
        PyObject *debug = PyObject_GetAttr(t->st->logger, t->st->str.debug);
        PyObject *stack[] = {PyUnicode_FromString("%r: %s"), (PyObject *)t, PyUnicode_FromString(message), exc};
        PyObject *res = NULL;
        if (keywords != NULL && debug != NULL && stack[0] != NULL && stack[2] != NULL) {
            res = PyObject_Vectorcall(debug, stack, 3, keywords);
        }
        Py_XDECREF(stack[0]);
        Py_XDECREF(stack[2]);
        Py_XDECREF(debug);
        Py_XDECREF(keywords);
        Py_XDECREF(res);
        status = res == NULL ? -1 : 0;
    }
    if (transport_force_close(t, exc) < 0) {
        status = -1;
    }
    Py_DECREF(exc);
    return status;
}

/* As asyncio's transports do, look for connection_made() first: what lacks it, as None does, gets no transport. */
PART int
transport_check_protocol(ctask_state *st, PyObject *protocol)
{
    PyObject *made = PyObject_GetAttr(protocol, st->str.connection_made);
    Py_XDECREF(made);
    return made == NULL ? -1 : 0;
}

/* protocol.connection_made(); what it raises is reported, unless it ends the loop: then it is set. */
PART void
transport_call_made(TransportObj *t)
{
    PyObject *protocol = Py_XNewRef(t->protocol);
    PyObject *res = protocol == NULL
                        ? Py_NewRef(Py_None)
                        : PyObject_CallMethodOneArg(protocol, t->st->str.connection_made, (PyObject *)t);
    if (res == NULL) {
        (void)transport_report_callback(t, protocol, t->st->str.connection_made, (PyObject *)t);
    }
    Py_XDECREF(res);
    Py_XDECREF(protocol);
}

/* The end of what a transport begins with.  `raised` is what connection_made() ends the loop with, NULL if nothing; an
   exception that is set came since.  Whoever waits for the connection is told in any case, as the loop may run again.
   Takes `waiter`, which may be NULL, and `raised`. */
PART int
transport_connected(PyObject *self, PyObject *waiter, PyObject *raised)
{
    if (raised == NULL) {
        raised = PyErr_GetRaisedException();
    }
    else if (PyErr_Occurred()) {
        PyErr_WriteUnraisable(self);
    }
    if (waiter != NULL && future_wake(((TransportObj *)self)->st, waiter, Py_None) < 0) {
        if (raised == NULL) {
            raised = PyErr_GetRaisedException();
        }
        else {
            PyErr_WriteUnraisable(self);
        }
    }
    Py_XDECREF(waiter);
    PyErr_SetRaisedException(raised);
    return PyErr_Occurred() ? -1 : 0;
}

static int
report_callback(LoopObj *loop, PyObject *owner, PyObject *name, PyObject *arg)
{
    PyObject *raised = PyErr_GetRaisedException();
    PyObject *callback = PyObject_GetAttr(owner, name);
    if (callback == NULL) {
        PyErr_Clear();
        callback = Py_NewRef(owner);
    }
    PyErr_SetRaisedException(raised);
    int status = loop_report(loop, callback, arg);
    Py_DECREF(callback);
    return status;
}

/* Report what a callback of the protocol raised as asyncio reports it of a handle; -1 if it is still set. */
PART int
transport_report_callback(TransportObj *t, PyObject *owner, PyObject *name, PyObject *arg)
{
    if (UNLIKELY(t->loop == NULL)) {
        return -1; // lost in a nested run of the loop, or by hand
    }
    LoopObj *loop = (LoopObj *)Py_NewRef((PyObject *)t->loop);
    int status = report_callback(loop, owner, name, arg);
    Py_DECREF(loop);
    return status;
}

/* ---- flow control ---- */

static int
call_flow(TransportObj *t, PyObject *name, const char *failed)
{
    if (t->protocol == NULL) {
        return 0;
    }
    int entered;
    if (transport_enter(t, &entered) < 0) {
        return -1;
    }
    PyObject *protocol = Py_NewRef(t->protocol);
    PyObject *res = PyObject_CallMethodNoArgs(protocol, name);
    Py_DECREF(protocol);
    transport_exit(t, entered);
    if (LIKELY(res != NULL)) {
        Py_DECREF(res);
        return 0;
    }
    if (raised_is_exit()) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    int status = transport_report(t, failed, exc);
    Py_DECREF(exc);
    return status;
}

/* After the queue has grown. */
PART int
transport_pause_protocol(TransportObj *t)
{
    if (LIKELY((Py_ssize_t)t->queue.size <= t->high_water) || t->protocol_paused) {
        return 0;
    }
    t->protocol_paused = 1;
    return call_flow(t, t->st->str.pause_writing, "protocol.pause_writing() failed");
}

/* After it has shrunk. */
PART int
transport_resume_protocol(TransportObj *t)
{
    if (LIKELY(!t->protocol_paused) || (Py_ssize_t)t->queue.size > t->low_water) {
        return 0;
    }
    t->protocol_paused = 0;
    return call_flow(t, t->st->str.resume_writing, "protocol.resume_writing() failed");
}

/* Any real number, infinity too; beyond the range it is the end of the range. */
static int
limit_of(PyObject *limit, Py_ssize_t *value)
{
    if (PyIndex_Check(limit)) {
        PyObject *whole = PyNumber_Index(limit);
        *value = whole == NULL ? -1 : PyNumber_AsSsize_t(whole, NULL);
        Py_XDECREF(whole);
        return whole == NULL ? -1 : 0;
    }
    double real = PyFloat_AsDouble(limit);
    if (real == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    if (real != real) {
        PyErr_SetString(PyExc_ValueError, "a limit is not a number");
        return -1;
    }
    *value = real >= (double)PY_SSIZE_T_MAX   ? PY_SSIZE_T_MAX
             : real <= (double)PY_SSIZE_T_MIN ? PY_SSIZE_T_MIN
                                              : (Py_ssize_t)real;
    return 0;
}

/* What set_write_buffer_limits() makes of its arguments; NULL or None: not given.  `usual` is `high` without both. */
PART int
transport_limits(PyObject *high, PyObject *low, Py_ssize_t usual, Py_ssize_t *high_water, Py_ssize_t *low_water)
{
    int has_high = high != NULL && high != Py_None, has_low = low != NULL && low != Py_None;
    Py_ssize_t most = usual, least = 0;
    if ((has_high && limit_of(high, &most) < 0) || (has_low && limit_of(low, &least) < 0)) {
        return -1;
    }
    if (has_low && !has_high) {
        most = least > PY_SSIZE_T_MAX / 4   ? PY_SSIZE_T_MAX
               : least < PY_SSIZE_T_MIN / 4 ? PY_SSIZE_T_MIN
                                            : 4 * least;
    }
    if (!has_low) {
        least = most / 4 - (most % 4 < 0);
    }
    if (most < least || least < 0) {
        PyErr_Format(PyExc_ValueError, "high (%zd) must be >= low (%zd) must be >= 0", most, least);
        return -1;
    }
    *high_water = most;
    *low_water = least;
    return 0;
}

#define HIGH_WATER (64 * 1024) // bytes, as asyncio's

PART int
transport_set_limits(TransportObj *t, PyObject *high, PyObject *low)
{
    return transport_limits(high, low, HIGH_WATER, &t->high_water, &t->low_water);
}

/* What write() and sendto() accept; TypeError, in asyncio's words with these kinds, for anything else. */
PART int
transport_check_data(PyObject *data, const char *kinds)
{
    if (LIKELY(PyBytes_Check(data)) || PyByteArray_Check(data) || PyMemoryView_Check(data)) {
        return 0;
    }
    PyObject *name = PyType_GetName(Py_TYPE(data));
    if (name != NULL) {
        PyErr_Format(PyExc_TypeError, "data argument must be a %s object, not %R", kinds, name);
        Py_DECREF(name);
    }
    return -1;
}

#define LOG_LOST_WRITES 5

/* From so many writes to a lost connection on, each is logged; as asyncio's. */
PART int
transport_log_lost(TransportObj *t, int writes, const char *text)
{
    if (writes < LOG_LOST_WRITES) {
        return 0;
    }
    PyObject *res = PyObject_CallMethod(t->st->logger, "warning", "s", text);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

/* What is written to a socket whose connection is lost goes nowhere. */
PART int
transport_write_lost(TransportObj *t)
{
    return transport_log_lost(t, t->conn_lost++, "socket.send() raised exception.");
}

/* ---- what the loop calls ---- */

PART int
transport_watch(TransportObj *t, uint32_t side)
{
    int fd = t->shared == NULL ? transport_descriptor(t) : t->fd;
    io_ready ready = side == POLL_READ ? t->kind->read_ready : transport_write_ready;
    return fd < 0 ? -EBADF : watch_object(t->loop, fd, side, (PyObject *)t, ready);
}

PART int
transport_wait(TransportObj *t, uint32_t side)
{
    if (loop_check_open(t->loop) < 0) {
        return -1;
    }
    int err = transport_watch(t, side);
    if (err < 0) {
        poll_raise(err);
        return -1;
    }
    return 0;
}

/* Of a file that others have as well, the kernel hears at once. */
PART void
transport_unwatch(TransportObj *t, uint32_t side)
{
    if (UNLIKELY(t->shared != NULL)) {
        watch_stop(t->loop, t->fd, side, (PyObject *)t);
    }
    else if (LIKELY(t->fd >= 0)) {
        watch_forget(t->loop, t->fd, side, (PyObject *)t);
    }
}

PART int
transport_own(TransportObj *t)
{
    int fd = transport_descriptor(t);
    int err = fd < 0 ? -EBADF : watch_own(t->loop, fd, (PyObject *)t, t->kind->read_ready);
    if (err == 0 && (t->closing || t->paused)) {
        transport_unwatch(t, POLL_READ);
    }
    if (err == 0 && t->queue.length > 0) {
        err = transport_watch(t, POLL_WRITE);
    }
    return err;
}

static int
schedule(TransportObj *t, unsigned kind, io_ready ready, PyObject *mark)
{
    if (loop_check_open(t->loop) < 0) {
        return -1;
    }
    return loop_ready(t->loop, Py_NewRef((PyObject *)t), kind, (PyObject *)(void *)ready, Py_XNewRef(mark));
}

PART int
transport_schedule(TransportObj *t)
{
    return schedule(t, READY_READ, t->kind->read_ready, NULL);
}

PART int
transport_write_ready(LoopObj *Py_UNUSED(loop), PyObject *self)
{
    TransportObj *t = (TransportObj *)self;
    int entered;
    if (t->loop == NULL || t->conn_lost) {
        return 0;
    }
    if (transport_enter(t, &entered) < 0) {
        return -1;
    }
    int status = t->kind->send_waiting(t);
    transport_exit(t, entered);
    return status;
}

/* What transport_lose() has scheduled. */
PART int
transport_lost_ready(LoopObj *Py_UNUSED(loop), PyObject *self)
{
    TransportObj *t = (TransportObj *)self;
    int entered;
    if (t->loop == NULL || transport_enter(t, &entered) < 0) {
        return t->loop == NULL ? 0 : -1;
    }
    int status = t->kind->call_lost(t);
    transport_exit(t, entered);
    return status;
}

/* ---- the end ---- */

/* Have connection_lost(exc) called in the next iteration. */
PART int
transport_lose(TransportObj *t, PyObject *exc)
{
    t->conn_lost++;
    Py_XSETREF(t->lost_exc, Py_XNewRef(exc));
    transport_unwatch(t, POLL_READ);
    transport_unwatch(t, POLL_WRITE);
    /* Not the function for a descriptor that can be written: that one may be on the ring for this iteration. */
    return schedule(t, READY_WRITE, transport_lost_ready, Py_None);
}

PART int
transport_force_close(TransportObj *t, PyObject *exc)
{
    if (t->conn_lost || t->loop == NULL) {
        return 0;
    }
    t->closing = 1;
    int status = transport_lose(t, exc);
    PyObject *raised = PyErr_GetRaisedException();
    queue_clear(&t->queue); // last, as who is let go of may end the connection
    PyErr_SetRaisedException(raised);
    return status;
}

/* Send what waits, then have connection_lost(None) called. */
PART int
transport_close(TransportObj *t)
{
    if (t->closing) {
        return 0;
    }
    t->closing = 1;
    if (t->begun) {
        transport_unwatch(t, POLL_READ);
    }
    return t->queue.length == 0 ? transport_lose(t, NULL) : 0;
}

/* -1 with what the socket's close() raised.  (The address may still be asked for when the descriptor is gone.) */
static int
close_descriptor(TransportObj *t)
{
    if (!t->open) {
        return 0;
    }
    int status = 0;
    t->open = 0;
    if (t->loop != NULL) {
        if (t->shared != NULL) {
            transport_unwatch(t, POLL_READ);
            transport_unwatch(t, POLL_WRITE);
        }
        else {
            watch_disown(t->loop, t->fd, (PyObject *)t);
        }
    }
    if (t->shared != NULL) {
        blocking_let_go(t->st, t->shared);
    }
    PyObject *sock = t->sock;
    if (sock == NULL) {
        socketobj_close(t->fd);
    }
    else {
        t->sock = NULL;
        PyObject *res = PyObject_CallMethod(sock, "close", NULL);
        status = res == NULL ? -1 : 0;
        Py_XDECREF(res);
        Py_DECREF(sock);
    }
    return status;
}

PART void
transport_close_descriptor(TransportObj *t)
{
    PyObject *raised = PyErr_GetRaisedException();
    if (close_descriptor(t) < 0) {
        PyErr_WriteUnraisable((PyObject *)t);
    }
    PyErr_SetRaisedException(raised);
}

/* -1 with what the server raised. */
static int
leave_server(TransportObj *t)
{
    PyObject *server = t->server;
    if (server == NULL) {
        return 0;
    }
    t->server = NULL;
    PyObject *res = t->st->io.server_knows_clients
                        ? PyObject_CallMethodOneArg(server, t->st->str._detach, (PyObject *)t)
                        : PyObject_CallMethodNoArgs(server, t->st->str._detach);
    Py_DECREF(server);
    if (res == NULL) {
        return -1;
    }
    Py_DECREF(res);
    return 0;
}

/* The exception that is set, which came on top of `before` (stolen, NULL: of none). */
static PyObject *
raised_after(PyObject *before)
{
    if (before != NULL) {
        raised_while(before);
    }
    return PyErr_GetRaisedException();
}

/* Call connection_lost() and let go of everything; -1 with what it raised. */
PART int
transport_call_lost(TransportObj *t)
{
    if (t->lost) {
        return 0;
    }
    t->lost = 1;
    t->closing = 1;
    t->conn_lost += t->conn_lost == 0; // from Python it can be called without transport_lose()
    PyObject *exc = t->lost_exc == NULL ? Py_NewRef(Py_None) : t->lost_exc;
    t->lost_exc = NULL;
    PyObject *protocol = Py_XNewRef(t->protocol);
    PyObject *res = protocol == NULL ? Py_NewRef(Py_None)
                                     : PyObject_CallMethodOneArg(protocol, t->st->str.connection_lost, exc);
    PyObject *raised = PyErr_GetRaisedException();
    Py_XDECREF(res);
    Py_XDECREF(protocol);
    queue_clear(&t->queue);
    if (UNLIKELY(close_descriptor(t) < 0)) {
        raised = raised_after(raised);
    }
    if (UNLIKELY(leave_server(t) < 0)) {
        raised = raised_after(raised);
    }
    Py_CLEAR(t->loop); // first: who has a loop has a protocol, and to drop that may run anything
    Py_CLEAR(t->protocol);
    Py_DECREF(exc);
    PyErr_SetRaisedException(raised);
    return raised == NULL ? 0 : -1;
}

/* The same, and what it raised is reported, as asyncio does of the handle that called it. */
PART int
transport_end(TransportObj *t)
{
    LoopObj *loop = (LoopObj *)Py_XNewRef((PyObject *)t->loop); // NULL: it was called already
    int status = transport_call_lost(t);
    if (UNLIKELY(status < 0)) {
        status = report_callback(loop, (PyObject *)t, t->st->str._call_connection_lost, Py_None);
    }
    Py_XDECREF(loop);
    return status;
}

/* ---- life ---- */

PART int
transport_traverse(PyObject *self, visitproc visit, void *arg)
{
    TransportObj *t = (TransportObj *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(t->extra);
    for (size_t i = 0; i < Py_ARRAY_LENGTH(t->slots); i++) {
        Py_VISIT(t->slots[i]);
    }
    Py_VISIT(t->dict);
    Py_VISIT(t->loop);
    Py_VISIT(t->protocol);
    Py_VISIT(t->server);
    Py_VISIT(t->sock);
    Py_VISIT(t->context);
    Py_VISIT(t->lost_exc);
    for (size_t i = 0; i < t->queue.length; i++) {
        Py_VISIT(t->queue.chunks[t->queue.head + i].owner);
    }
    return 0;
}

PART void
transport_clear(TransportObj *t)
{
    /* Whoever finds it through the collector finds a lost connection: nothing below is asked for. */
    t->closing = 1;
    t->lost = 1;
    t->conn_lost += t->conn_lost == 0;
    transport_close_descriptor(t);
    queue_clear(&t->queue);
    Py_CLEAR(t->extra);
    for (size_t i = 0; i < Py_ARRAY_LENGTH(t->slots); i++) {
        Py_CLEAR(t->slots[i]);
    }
    Py_CLEAR(t->dict);
    Py_CLEAR(t->loop);
    Py_CLEAR(t->protocol);
    Py_CLEAR(t->server);
    Py_CLEAR(t->sock);
    Py_CLEAR(t->lost_exc);
    Py_CLEAR(t->context);
}

/* What tp_dealloc does; each kind has one of its own, by whose address it is known. */
PART void
transport_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (PyObject_CallFinalizerFromDealloc(self) < 0) {
        return;
    }
    PyObject_GC_UnTrack(self);
    clear_weakrefs(self, type);
    Py_TRASHCAN_BEGIN(self, type->tp_dealloc); /* anything may be its protocol: another transport */
    (void)type->tp_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
    Py_TRASHCAN_END;
}

/* A dictionary for get_extra_info(), of what the maker of a transport has given. */
PART PyObject *
transport_copy_extra(PyObject *given)
{
    if (!PyDict_Check(given)) {
        PyErr_Format(PyExc_TypeError, "extra must be a dict, not %.200s", Py_TYPE(given)->tp_name);
        return NULL;
    }
    return PyDict_Copy(given);
}

/* The fields with which each begins. */
PART void
transport_init(TransportObj *t, LoopObj *loop, const transport_kind *kind)
{
    PyObject_GC_UnTrack(t); // nobody finds it before it is whole
    t->st = loop->st;
    t->loop = (LoopObj *)Py_NewRef((PyObject *)loop);
    t->kind = kind;
    (void)transport_set_limits(t, NULL, NULL);
}

/* Give up one that could not be made.  A finalizer is called of what the collector knows. */
PART void
transport_discard(TransportObj *t)
{
    if (!PyObject_GC_IsTracked((PyObject *)t)) {
        PyObject_GC_Track(t);
    }
    Py_DECREF(t);
}

/* A transport that nobody closed: say so, and close it. */
PART void
transport_finalize(PyObject *self)
{
    TransportObj *t = (TransportObj *)self;
    if (!t->open) {
        return;
    }
    PyObject *raised = PyErr_GetRaisedException();
    if (PyErr_ResourceWarning(self, 1, "unclosed transport %R", self) < 0) {
        PyErr_WriteUnraisable(self);
    }
    transport_close_descriptor(t);
    if (leave_server(t) < 0) {
        PyErr_WriteUnraisable(self);
    }
    PyErr_SetRaisedException(raised);
}

/* ---- for the loop ---- */

static int
descriptor_of_owner(PyObject *owner)
{
    return transport_descriptor((TransportObj *)owner);
}

PART int
transport_setup(PyObject *Py_UNUSED(module), ctask_state *st)
{
    st->loop.descriptor_of_owner = descriptor_of_owner;
    return 0;
}
