/* What is known of a stream's connection: its socket, the addresses of both ends, get_extra_info().

   Addresses are kept as the kernel gave them, and the socket of an accepted connection is made when somebody asks
   for it. */

#include "io/stream_parts.h"

/* The dictionary, which whoever is called from now on may take from the transport. */
static PyObject *
stream_extra_dict(StreamObj *s)
{
    TransportObj *t = &s->base;
    PyObject *extra = LIKELY(t->extra != NULL) ? Py_NewRef(t->extra) : keep_first(&t->extra, PyDict_New());
    if (extra != NULL && !PyDict_Check(extra)) {
        PyErr_SetString(PyExc_TypeError, "the transport's _extra is no dict");
        Py_CLEAR(extra);
    }
    return extra;
}

/* ---- addresses ---- */

/* A long address is kept as Python shows it. */
PART int
stream_remember(StreamObj *s, short_address *to, PyObject *key, const struct sockaddr *address,
                socklen_t length)
{
    if (LIKELY(length <= sizeof(to->u))) {
        to->length = length;
        memcpy(&to->u, address, length);
        return 0;
    }
    PyObject *shown = address_object(address, length);
    if (shown == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    PyObject *extra = stream_extra_dict(s);
    int status = extra == NULL || PyDict_SetDefault(extra, key, shown) == NULL ? -1 : 0;
    Py_XDECREF(extra);
    Py_DECREF(shown);
    return status;
}

/* The own address, before the descriptor goes. */
PART void
stream_remember_own_address(StreamObj *s)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof(address);
    if (s->own.length == 0 &&
        getsockname(transport_descriptor(&s->base), (struct sockaddr *)&address, &length) == 0 &&
        stream_remember(s, &s->own, s->base.st->str.sockname, (struct sockaddr *)&address, length) < 0) {
        PyErr_WriteUnraisable((PyObject *)s);
    }
}

/* ---- extra information ---- */

PART PyObject *
stream_socket(StreamObj *s)
{
    TransportObj *t = &s->base;
    if (t->sock != NULL) {
        return Py_NewRef(t->sock);
    }
    PyObject *sock;
    char was_open = t->open;
    if (was_open) {
        sock = PyObject_CallFunction(t->st->socket_type, "iiii", s->family, s->type, s->proto, t->fd);
    }
    else {
        sock = PyObject_CallFunction(t->st->socket_type, "iii", s->family, s->type, s->proto);
    }
    if (sock == NULL) {
        return NULL;
    }
    if (!Py_IS_TYPE(sock, (PyTypeObject *)t->st->socket_type)) { // its descriptor is read as a field
        PyErr_Format(PyExc_TypeError, "socket.socket() returned a %.100s", Py_TYPE(sock)->tp_name);
        Py_DECREF(sock);
        return NULL;
    }
    if (t->sock != NULL || t->open != was_open) {
        /* Somebody else has made it meanwhile, or the connection was lost: the number is not this object's. */
        PyObject *res = PyObject_CallMethod(sock, "detach", NULL);
        Py_XDECREF(res);
        if (t->sock != NULL || res == NULL) {
            Py_SETREF(sock, res == NULL ? NULL : Py_NewRef(t->sock));
        }
        return sock;
    }
    if (t->open) {
        t->sock = Py_NewRef(sock);
        PyObject *res = PyObject_CallMethod(sock, "setblocking", "O", Py_False);
        Py_XDECREF(res);
        if (res == NULL) {
            Py_CLEAR(sock);
        }
        return sock;
    }
    PyObject *res = PyObject_CallMethod(sock, "close", NULL);
    Py_XDECREF(res);
    if (res == NULL) {
        Py_CLEAR(sock);
    }
    return sock;
}

/* An address: as it was remembered, or as the socket says; None if neither knows. */
static PyObject *
stream_address(StreamObj *s, const short_address *known, int own)
{
    PyObject *address = NULL;
    struct sockaddr_storage storage;
    if (known->length > 0) {
        address = address_object(&known->u.any, known->length);
    }
    else if (s->base.open) {
        socklen_t length = sizeof(storage);
        struct sockaddr *any = (struct sockaddr *)&storage;
        int fd = transport_descriptor(&s->base);
        int status = own ? getsockname(fd, any, &length) : getpeername(fd, any, &length);
        if (status == 0) {
            address = address_object(any, length);
        }
        else {
            Py_RETURN_NONE;
        }
    }
    else {
        Py_RETURN_NONE;
    }
    if (address == NULL && !PyErr_Occurred()) {
        PyObject *sock = stream_socket(s);
        address = sock == NULL ? NULL : socketobj_address(sock, own ? "getsockname" : "getpeername");
        Py_XDECREF(sock);
    }
    return address;
}

/* One of asyncio's three keys: made when it is first asked for.  NULL without an exception for any other. */
static PyObject *
stream_make_extra(StreamObj *s, PyObject *key)
{
    ctask_state *st = s->base.st;
    if (PyUnicode_Compare(key, st->str.peername) == 0) {
        return stream_address(s, &s->peer, 0);
    }
    if (PyUnicode_Compare(key, st->str.sockname) == 0) {
        return stream_address(s, &s->own, 1);
    }
    if (PyUnicode_Compare(key, st->str.socket) == 0) {
        PyObject *sock = stream_socket(s);
        PyObject *shown = sock == NULL ? NULL : PyObject_CallOneArg(st->TransportSocket, sock);
        Py_XDECREF(sock);
        return shown;
    }
    return NULL;
}

/* NULL without an exception if there is none. */
static PyObject *
stream_extra(StreamObj *s, PyObject *extra, PyObject *key)
{
    PyObject *value = Py_XNewRef(PyDict_GetItemWithError(extra, key));
    if (value != NULL || PyErr_Occurred() || !PyUnicode_Check(key)) {
        return value;
    }
    value = stream_make_extra(s, key);
    if (value != NULL && PyDict_SetItem(extra, key, value) < 0) {
        Py_CLEAR(value);
    }
    return value;
}

/* Tests put a function of theirs into asyncio.BaseTransport, where asyncio has the only one. */
static PyObject *
stream_get_extra_info_patched(StreamObj *s, PyObject *args, PyObject *kwargs)
{
    ctask_state *st = s->base.st;
    PyObject *super = PyObject_CallFunctionObjArgs((PyObject *)&PySuper_Type, st->StreamType, s, NULL);
    PyObject *found = super == NULL ? NULL : PyObject_GetAttr(super, st->str.get_extra_info);
    PyObject *value = found == NULL ? NULL : PyObject_Call(found, args, kwargs);
    Py_XDECREF(super);
    Py_XDECREF(found);
    return value;
}

PART PyObject *
Stream_get_extra_info(PyObject *self, PyObject *args, PyObject *kwargs)
{
    ctask_state *st = ((StreamObj *)self)->base.st;
    if (UNLIKELY(_PyType_Lookup((PyTypeObject *)st->stock_Transport, st->str.get_extra_info) !=
                 st->stock_get_extra_info)) {
        return stream_get_extra_info_patched((StreamObj *)self, args, kwargs);
    }
    static char *names[] = {"name", "default", NULL};
    PyObject *name, *fallback = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:get_extra_info", names, &name, &fallback)) {
        return NULL;
    }
    LoopObj *loop = ((StreamObj *)self)->base.loop;
    if (UNLIKELY(loop != NULL && loop->corked == self)) {
        loop->uncork(loop); // whoever has the socket may wait for the answer
    }
    PyObject *extra = stream_extra_dict((StreamObj *)self);
    PyObject *value = extra == NULL ? NULL : stream_extra((StreamObj *)self, extra, name);
    Py_XDECREF(extra);
    return value != NULL || PyErr_Occurred() ? value : Py_NewRef(fallback);
}

PART PyObject *
Stream_get_extra(PyObject *self, void *Py_UNUSED(closure))
{
    StreamObj *s = (StreamObj *)self;
    PyObject *keys[] = {s->base.st->str.peername, s->base.st->str.sockname, s->base.st->str.socket};
    PyObject *extra = stream_extra_dict(s);
    for (int i = 0; extra != NULL && i < 3; i++) {
        Py_XDECREF(stream_extra(s, extra, keys[i]));
        if (PyErr_Occurred()) {
            Py_CLEAR(extra);
        }
    }
    return extra;
}

PART PyObject *
Stream_get_sock(PyObject *self, void *Py_UNUSED(closure))
{
    StreamObj *s = (StreamObj *)self;
    if (!s->base.open) {
        Py_RETURN_NONE;
    }
    return stream_socket(s);
}
