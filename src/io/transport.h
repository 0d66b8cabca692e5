/* io/: transports over a descriptor (stream.c, pipe.c, datagram.c), servers, and sockets by themselves (sock.c).

   They use the loop and below.  What becomes of the bytes is the protocol's: those of ours, which take them as they
   were read, make themselves known by sink.h, so neither streams nor TLS ever come in.

   Here is what all transports have in common, and what the parts offer each other. */

#ifndef CTASK_TRANSPORT_H
#define CTASK_TRANSPORT_H

#include "loop/blocking.h"
#include "loop/loop.h"
#include "io/address.h"
#include "io/queue.h"
#include "io/socketobj.h"

typedef struct TransportObj TransportObj;

/* What the loop has done by a kind of transport, each in the transport's context.  They see from the state which of
   their work there is to do: so an entry of the ring that comes late does no harm. */
typedef struct {
    io_ready read_ready; // connection_made() the first time, then what there is to be read
    int (*send_waiting)(TransportObj *t);
    int (*call_lost)(TransportObj *t); // connection_lost(), in the iteration after transport_lose()
} transport_kind;

struct TransportObj {
    PyObject_HEAD
    PyObject *extra; // owned; the slot of asyncio.BaseTransport: a dict, NULL until there is something in it
    PyObject *slots[4]; // owned; those of asyncio's _FlowControlMixin, which only somebody odd would fill
    PyObject *dict; // owned; attributes that a program sets, or NULL
    LoopObj *loop; // owned; NULL once connection_lost() was called
    PyObject *protocol; // owned; the same
    PyObject *server; // owned; which accepted the connection, or NULL
    PyObject *weakrefs; // borrowed
    PyObject *sock; // owned; NULL while nobody has asked for it (accepted connections), and when closed
    PyObject *context; // owned; in which the protocol is called
    PyObject *lost_exc; // owned; what connection_lost() is going to be given, or NULL
    ctask_state *st; // borrowed from the type's module
    const transport_kind *kind;
    blocking_file *shared; // of a pipe, whose other side another transport may watch; NULL of sockets
    write_queue queue;
    Py_ssize_t high_water; // bytes
    Py_ssize_t low_water;
    int fd; // stays for the repr when closed
    int conn_lost; // connection_lost() is scheduled, plus the writes since
    char open; // we own the descriptor, and it is not closed
    char closing;
    char paused; // reading is
    char protocol_paused;
    char begun; // connection_made() was called
    char lost; // connection_lost() was
};

/* ---- transport.c ---- */

PART int transport_setup(PyObject *module, ctask_state *st);

/* The transport's descriptor; -1, with which system calls fail with EBADF, if its socket was closed or detached
   behind it.  The number it had may be another connection's by then, so it is asked for before each system call. */
static inline int
transport_descriptor(const TransportObj *t)
{
    if (t->sock == NULL) {
        return t->open ? t->fd : -1;
    }
    return LIKELY(socket_int(t->sock, t->st->io.sockets.fd) == t->fd) ? t->fd : -1;
}

PART int transport_enter(TransportObj *t, int *entered);
PART void transport_exit(TransportObj *t, int entered);
PART int transport_check_protocol(ctask_state *st, PyObject *protocol);
PART void transport_call_made(TransportObj *t);
PART int transport_connected(PyObject *self, PyObject *waiter, PyObject *raised);
PART int transport_report_callback(TransportObj *t, PyObject *owner, PyObject *name, PyObject *arg);
PART int transport_fatal_error(TransportObj *t, const char *message);
PART int transport_close(TransportObj *t);
PART int transport_force_close(TransportObj *t, PyObject *exc);
PART int transport_lose(TransportObj *t, PyObject *exc);
PART int transport_call_lost(TransportObj *t);
PART int transport_end(TransportObj *t);
PART int transport_report(TransportObj *t, const char *message, PyObject *exc);
PART int transport_pause_protocol(TransportObj *t);
PART int transport_resume_protocol(TransportObj *t);
PART void transport_close_descriptor(TransportObj *t);
/* watch_own(), watch_object() and watch_forget() of the transport's descriptor. */
PART int transport_own(TransportObj *t); // and what waits to be sent
PART int transport_watch(TransportObj *t, uint32_t side);
PART void transport_unwatch(TransportObj *t, uint32_t side);
/* transport_watch() for who is called by the program: -1 with an exception, also if the loop is closed. */
PART int transport_wait(TransportObj *t, uint32_t side);
/* Have read_ready() called in the next iteration. */
PART int transport_schedule(TransportObj *t);
/* What the loop calls besides read_ready(). */
PART int transport_write_ready(LoopObj *loop, PyObject *self);
PART int transport_lost_ready(LoopObj *loop, PyObject *self);
PART int transport_limits(PyObject *high, PyObject *low, Py_ssize_t usual, Py_ssize_t *high_water,
                          Py_ssize_t *low_water);
PART int transport_set_limits(TransportObj *t, PyObject *high, PyObject *low);
PART int transport_traverse(PyObject *self, visitproc visit, void *arg);
PART void transport_clear(TransportObj *t);
PART void transport_dealloc(PyObject *self);
PART PyObject *transport_copy_extra(PyObject *given);
PART void transport_init(TransportObj *t, LoopObj *loop, const transport_kind *kind);
PART void transport_discard(TransportObj *t);
PART void transport_finalize(PyObject *self);
PART int transport_check_data(PyObject *data, const char *kinds);
PART int transport_log_lost(TransportObj *t, int writes, const char *text);
PART int transport_write_lost(TransportObj *t);
PART int transport_debug(TransportObj *t, const char *format);

/* ---- transport_methods.c ---- */

/* Add the methods and attributes that all have in the same words. */
PART int transport_add_methods(PyTypeObject *type, int writes);

/* Those of which each type has its own words, or not all have them. */
PART PyObject *Transport_is_reading(PyObject *self, PyObject *ignored);
PART PyObject *Transport_pause_reading(PyObject *self, PyObject *ignored);
PART PyObject *Transport_resume_reading(PyObject *self, PyObject *ignored);
PART PyObject *Transport_get_write_buffer_size(PyObject *self, PyObject *ignored);
PART PyObject *Transport_set_limits(PyObject *self, PyObject *args, PyObject *kwargs);
PART PyObject *Transport_set_protocol(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                                      PyObject *kwnames);
PART PyObject *Transport_close(PyObject *self, PyObject *ignored);
PART PyObject *Transport_abort(PyObject *self, PyObject *ignored);

/* "<name state fd=number" + rest + ">"; takes `rest`, which is NULL if it could not be made. */
PART PyObject *transport_repr(PyObject *self, PyObject *rest);
/* That of sockets: does the loop wait for either side? */
PART PyObject *transport_repr_sides(PyObject *self, int reads, int writes);

/* Attributes: `offset` is that of the field. */
PART PyObject *Transport_get_object(PyObject *self, void *offset);
PART PyObject *Transport_get_flag(PyObject *self, void *offset);
PART PyObject *Transport_get_size(PyObject *self, void *offset);
PART PyObject *Transport_get_int(PyObject *self, void *offset);

/* The offset of a field that all have, as they begin with it. */
#define TRANSPORT_FIELD(field) (void *)offsetof(TransportObj, field)

/* What a type's members begin with. */
#define TRANSPORT_MEMBERS                                                                       \
    {"__weaklistoffset__", Py_T_PYSSIZET, offsetof(TransportObj, weakrefs), Py_READONLY, NULL}, \
    {                                                                                           \
        "__dictoffset__", Py_T_PYSSIZET, offsetof(TransportObj, dict), Py_READONLY, NULL        \
    }

/* ---- server.c ---- */

PART int server_setup(PyObject *module, ctask_state *st);

#endif
