/* Socket addresses between the kernel's structures and what Python shows: (host, port), (host, port, flowinfo,
   scope), a path.

   Sockets in asyncio are of these families nearly always.  All else, and whatever needs a look-up or a message
   about a mistake, stays with the socket module. */

#include "io/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/un.h>

/* As socket.getsockname() would give it.  NULL with no exception set if the family is another one. */
PART PyObject *
address_object(const struct sockaddr *address, socklen_t length)
{
    char host[INET6_ADDRSTRLEN];
    if (length < sizeof(sa_family_t)) {
        Py_RETURN_NONE;
    }
    switch (address->sa_family) {
    case AF_INET: {
        const struct sockaddr_in *in = (const struct sockaddr_in *)address;
        if (inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host)) == NULL) {
            return PyErr_SetFromErrno(PyExc_OSError);
        }
        PyObject *tuple = PyTuple_New(2);
        PyObject *text = tuple == NULL ? NULL : PyUnicode_FromString(host);
        PyObject *port = text == NULL ? NULL : PyLong_FromLong(ntohs(in->sin_port));
        if (port == NULL) {
            Py_XDECREF(text);
            Py_XDECREF(tuple);
            return NULL;
        }
        PyTuple_SET_ITEM(tuple, 0, text);
        PyTuple_SET_ITEM(tuple, 1, port);
        return tuple;
    }
    case AF_INET6: {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)address;
        if (inet_ntop(AF_INET6, &in->sin6_addr, host, sizeof(host)) == NULL) {
            return PyErr_SetFromErrno(PyExc_OSError);
        }
        return Py_BuildValue("(siII)",
                             host,
                             (int)ntohs(in->sin6_port),
                             (unsigned)ntohl(in->sin6_flowinfo),
                             (unsigned)in->sin6_scope_id);
    }
    case AF_UNIX: {
        const struct sockaddr_un *un = (const struct sockaddr_un *)address;
        size_t n = length - offsetof(struct sockaddr_un, sun_path);
        if (length <= offsetof(struct sockaddr_un, sun_path)) {
            return PyUnicode_FromStringAndSize(NULL, 0);
        }
        if (un->sun_path[0] == '\0') {
            return PyBytes_FromStringAndSize(un->sun_path, (Py_ssize_t)n);
        }
        return PyUnicode_DecodeFSDefaultAndSize(un->sun_path, (Py_ssize_t)strnlen(un->sun_path, n));
    }
    default:
        return NULL;
    }
}

PART int
address_family_known(int family)
{
    return family == AF_INET || family == AF_INET6 || family == AF_UNIX;
}

/* Where a datagram or a connection came from, on a socket of a family that is known. */
PART PyObject *
address_build(const socket_address *from)
{
    PyObject *result = address_object(&from->u.any, from->length);
    if (result == NULL && !PyErr_Occurred()) {
        PyErr_SetString(PyExc_OSError, "unexpected address family");
    }
    return result;
}

/* An int in a range: 1, or 0 for the socket module to complain of. */
static int
read_number(PyObject *obj, long max, long *value)
{
    int overflow;
    if (!PyLong_CheckExact(obj)) {
        return 0;
    }
    *value = PyLong_AsLongAndOverflow(obj, &overflow);
    return overflow == 0 && *value >= 0 && *value <= max;
}

/* A str of ASCII characters without zeros: 1, or 0 for the socket module, or -1. */
static int
read_text(PyObject *obj, const char **text, Py_ssize_t *length)
{
    if (!PyUnicode_CheckExact(obj) || !PyUnicode_IS_ASCII(obj)) {
        return 0;
    }
    *text = PyUnicode_AsUTF8AndSize(obj, length);
    return *text == NULL ? -1 : *length == (Py_ssize_t)strlen(*text);
}

/* A numeric host: no name is looked up. */
static int
read_host(int family, PyObject *obj, void *host)
{
    const char *text;
    Py_ssize_t length;
    int status = read_text(obj, &text, &length);
    return status <= 0 ? status : inet_pton(family, text, host) == 1;
}

static int
read_inet(socket_address *to, PyObject *obj)
{
    struct sockaddr_in *in = &to->u.in;
    long port;
    if (PyTuple_GET_SIZE(obj) != 2 || !read_number(PyTuple_GET_ITEM(obj, 1), 65535, &port)) {
        return 0;
    }
    memset(in, 0, sizeof(*in));
    in->sin_family = AF_INET;
    in->sin_port = htons((uint16_t)port);
    to->length = sizeof(*in);
    return read_host(AF_INET, PyTuple_GET_ITEM(obj, 0), &in->sin_addr);
}

static int
read_inet6(socket_address *to, PyObject *obj)
{
    struct sockaddr_in6 *in6 = &to->u.in6;
    Py_ssize_t n = PyTuple_GET_SIZE(obj);
    long port, flowinfo = 0, scope = 0;
    if (n < 2 || n > 4 || !read_number(PyTuple_GET_ITEM(obj, 1), 65535, &port) ||
        (n > 2 && !read_number(PyTuple_GET_ITEM(obj, 2), 0xfffff, &flowinfo)) ||
        (n > 3 && !read_number(PyTuple_GET_ITEM(obj, 3), UINT32_MAX, &scope))) {
        return 0;
    }
    memset(in6, 0, sizeof(*in6));
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons((uint16_t)port);
    in6->sin6_flowinfo = htonl((uint32_t)flowinfo);
    in6->sin6_scope_id = (uint32_t)scope;
    to->length = sizeof(*in6);
    return read_host(AF_INET6, PyTuple_GET_ITEM(obj, 0), &in6->sin6_addr);
}

/* A path of ASCII characters, which every file system encoding writes alike. */
static int
read_unix(socket_address *to, PyObject *obj)
{
    struct sockaddr_un *un = &to->u.un;
    const char *text;
    Py_ssize_t length;
    int status = read_text(obj, &text, &length);
    if (status <= 0 || length == 0 || (size_t)length >= sizeof(un->sun_path)) {
        return status < 0 ? -1 : 0;
    }
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, text, (size_t)length + 1);
    to->length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)length + 1);
    return 1;
}

PART int
address_read(socket_address *to, int family, PyObject *obj)
{
    if (family == AF_UNIX) {
        return read_unix(to, obj);
    }
    if (!PyTuple_CheckExact(obj)) {
        return 0;
    }
    return family == AF_INET ? read_inet(to, obj) : family == AF_INET6 ? read_inet6(to, obj) : 0;
}
