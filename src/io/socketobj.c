/* What is known of Python's socket objects: where their fields are, and whether their methods are the socket
   module's own, so that a system call on the descriptor does what the method would.

   Who works on sockets without asking them (sock.c, server.c) asks here first, each time, and reads the
   descriptor from the object before each system call: a number that was kept may be another file's by then. */

#include "handles/objects.h"
#include "io/socketobj.h"

#include <fcntl.h>
#include <structmember.h>
#include <poll.h>
#include <unistd.h>

/* Where a C structure's member is, as the class itself says; 0 if it does not. */
static Py_ssize_t
member_offset(PyObject *type, const char *name, int kind)
{
    Py_ssize_t offset = 0;
    PyObject *descriptor = PyObject_GetAttrString(type, name);
    if (descriptor != NULL && Py_IS_TYPE(descriptor, &PyMemberDescr_Type) &&
        ((PyMemberDescrObject *)descriptor)->d_member->type == kind) {
        offset = ((PyMemberDescrObject *)descriptor)->d_member->offset;
    }
    Py_XDECREF(descriptor);
    PyErr_Clear();
    return offset;
}

/* Is it a method of `socket.socket` that the socket module defines? */
static int
is_modules_own(ctask_state *st, const char *name)
{
    PyObject *function = PyObject_GetAttrString(st->socket_type, name);
    int own = function != NULL && PyFunction_Check(function) &&
              PyFunction_GET_GLOBALS(function) == st->socket_names;
    Py_XDECREF(function);
    return own;
}

/* Is it the method of `_socket.socket`? */
static int
is_inherited(ctask_state *st, const char *name)
{
    PyObject *theirs = PyObject_GetAttrString(st->socket_type, name);
    PyObject *base = theirs == NULL ? NULL : PyObject_GetAttrString(st->base_socket_type, name);
    int own = base != NULL && theirs == base;
    Py_XDECREF(theirs);
    Py_XDECREF(base);
    return own;
}

PART __attribute__((noinline)) int
socketobj_check(ctask_state *st, PyObject *sock)
{
    static const char *const inherited[] = {"_accept",
                                            "connect",
                                            "fileno",
                                            "getpeername",
                                            "getsockname",
                                            "getsockopt",
                                            "gettimeout",
                                            "recv",
                                            "recv_into",
                                            "recvfrom",
                                            "recvfrom_into",
                                            "send",
                                            "sendmsg",
                                            "sendto",
                                            "setblocking",
                                            "setsockopt",
                                            "settimeout",
                                            "shutdown"};
    static const char *const defined[] = {"__init__", "_real_close", "accept", "close", "detach"};
    socket_layout *known = &st->io.sockets;
    int own = known->fd != 0;
    for (size_t i = 0; own && i < Py_ARRAY_LENGTH(inherited); i++) {
        own = is_inherited(st, inherited[i]);
    }
    for (size_t i = 0; own && i < Py_ARRAY_LENGTH(defined); i++) {
        own = is_modules_own(st, defined[i]);
    }
    if (own) {
        PyObject *number = PyObject_CallMethodNoArgs(sock, st->str.fileno);
        own = number != NULL && PyLong_AsLong(number) == socket_int(sock, known->fd);
        Py_XDECREF(number);
    }
    PyErr_Clear();
    known->version = own ? ((PyTypeObject *)st->socket_type)->tp_version_tag : 0;
    return own;
}

PART int
socketobj_is_replaced(ctask_state *st)
{
    PyObject *current = PyDict_GetItemWithError(st->socket_names, st->str.socket);
    PyErr_Clear();
    return current != st->socket_type;
}

PART int
socketobj_accept(int fd, socket_address *from)
{
    int flags = fcntl(fd, F_GETFL), accepted, err;
    from->length = sizeof(from->u);
    if (LIKELY(flags < 0 || flags & O_NONBLOCK)) {
        return accept4(fd, &from->u.any, &from->length, SOCK_CLOEXEC | SOCK_NONBLOCK);
    }
    /* Another process can take the connection in between. */
    struct pollfd asked = {.fd = fd, .events = POLLIN};
    if (poll(&asked, 1, 0) == 0) {
        errno = EAGAIN;
        return -1;
    }
    Py_BEGIN_ALLOW_THREADS accepted = accept4(fd, &from->u.any, &from->length, SOCK_CLOEXEC | SOCK_NONBLOCK);
    err = errno;
    Py_END_ALLOW_THREADS errno = err;
    return accepted;
}

PART void
socketobj_close(int fd)
{
    struct linger linger = {0};
    socklen_t size = sizeof(linger);
    if (LIKELY(getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &size) < 0 || !linger.l_onoff)) {
        close(fd);
        return;
    }
    Py_BEGIN_ALLOW_THREADS close(fd);
    Py_END_ALLOW_THREADS
}

/* The descriptor of a socket that a transport is made of; -1 with an exception. */
PART int
socketobj_take(ctask_state *st, PyObject *sock)
{
    if (!socketobj_is_plain(st, sock)) {
        PyErr_SetString(PyExc_TypeError, "a plain socket.socket is expected");
        return -1;
    }
    return PyObject_AsFileDescriptor(sock);
}

/* sock.getsockname() or sock.getpeername(), None if it has no such address. */
PART PyObject *
socketobj_address(PyObject *sock, const char *method)
{
    PyObject *address = PyObject_CallMethod(sock, method, NULL);
    if (address == NULL && PyErr_ExceptionMatches(PyExc_OSError)) {
        PyErr_Clear();
        address = Py_NewRef(Py_None);
    }
    return address;
}

/* The socket module's class: a program may have put something else in its place before we were imported. */
static PyObject *
find_class(ctask_state *st)
{
    PyObject *current = PyObject_GetItem(st->socket_names, st->str.socket);
    PyObject *classes = current == NULL ? NULL
                                        : PyObject_CallMethod(st->base_socket_type, "__subclasses__", NULL);
    PyObject *found = NULL;
    for (Py_ssize_t i = 0; classes != NULL && i < PyList_GET_SIZE(classes) && found != current; i++) {
        PyObject *class = PyList_GET_ITEM(classes, i);
        PyObject *init = PyObject_GetAttrString(class, "__init__");
        if (init != NULL && PyFunction_Check(init) && PyFunction_GET_GLOBALS(init) == st->socket_names) {
            Py_XSETREF(found, Py_NewRef(class));
        }
        Py_XDECREF(init);
        PyErr_Clear();
    }
    if (classes != NULL && found == NULL) {
        found = Py_NewRef(current);
    }
    Py_XDECREF(classes);
    Py_XDECREF(current);
    return found;
}

PyDoc_STRVAR(is_plain_doc,
"_is_plain_socket($self, sock, /)\n--\n\n"
"Is it exactly a socket.socket whose methods nobody has replaced?");

static PyObject *
Loop_is_plain_socket(PyObject *self, PyObject *sock)
{
    return PyBool_FromLong(socketobj_is_plain(((LoopObj *)self)->st, sock));
}

static PyMethodDef socketobj_methods[] = {
    {"_is_plain_socket", Loop_is_plain_socket, METH_O, is_plain_doc},
    {NULL, NULL, 0, NULL},
};

PART int
socketobj_setup(PyObject *Py_UNUSED(module), ctask_state *st)
{
    PyObject *sockets = PyImport_ImportModule("socket");
    if (sockets == NULL) {
        return -1;
    }
    st->socket_names = Py_NewRef(PyModule_GetDict(sockets));
    Py_DECREF(sockets);
    st->socket_type = find_class(st);
    if (st->socket_type == NULL) {
        return -1;
    }
    socket_layout *known = &st->io.sockets;
    known->family = member_offset(st->base_socket_type, "family", T_INT);
    known->type = member_offset(st->base_socket_type, "type", T_INT);
    known->proto = member_offset(st->base_socket_type, "proto", T_INT);
    /* The descriptor is the first member, before the family; socketobj_check() compares it with fileno(). */
    int as_known = known->family == (Py_ssize_t)(sizeof(PyObject) + sizeof(int)) && known->type > 0 &&
                   known->proto > 0;
    known->fd = as_known ? (Py_ssize_t)sizeof(PyObject) : 0;
    return add_methods(st->LoopType, socketobj_methods);
}
