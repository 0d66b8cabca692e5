// The second limit: what remains if an event loop costs nothing but its system calls and the calls of a Protocol
// that is written in Python. Not an event loop: no flow control, no errors, no callbacks, one protocol method.
//
//   echo_protocol.run(factory, fd)     fd: a listening, non-blocking socket; never returns
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct {
    PyObject_HEAD
    int fd;
    PyObject *data_received; // owned, a bound method
    PyObject *context; // owned
    PyObject *rest; // owned; what did not fit into the socket, or NULL
    Py_ssize_t offset; // into rest
} Transport;

enum { BUFFER = 256 * 1024, EVENTS = 1024 };

static char buffer[BUFFER];
static int epoll_fd;

static int
transport_watch(Transport *self, int operation, unsigned events)
{
    struct epoll_event event = {.events = events, .data.ptr = self};
    if (epoll_ctl(epoll_fd, operation, self->fd, &event)) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

static PyObject *
transport_write(PyObject *op, PyObject *data)
{
    Transport *self = (Transport *)op;
    if (!PyBytes_Check(data)) {
        PyErr_SetString(PyExc_TypeError, "bytes expected");
        return NULL;
    }
    if (self->rest) {
        PyBytes_Concat(&self->rest, data);
        return self->rest ? Py_NewRef(Py_None) : NULL;
    }
    ssize_t length = PyBytes_GET_SIZE(data),
            n = send(self->fd, PyBytes_AS_STRING(data), (size_t)length, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN)
        Py_RETURN_NONE; // the connection is lost: recv tells
    if (n < 0)
        n = 0;
    if (n < length) {
        self->rest = Py_NewRef(data);
        self->offset = n;
        if (transport_watch(self, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT))
            return NULL;
    }
    Py_RETURN_NONE;
}

static int
transport_flush(Transport *self)
{
    ssize_t length = PyBytes_GET_SIZE(self->rest) - self->offset;
    ssize_t n = send(self->fd, PyBytes_AS_STRING(self->rest) + self->offset, (size_t)length, MSG_NOSIGNAL);
    self->offset += n > 0 ? n : 0;
    if (n < length)
        return 0;
    Py_CLEAR(self->rest);
    return transport_watch(self, EPOLL_CTL_MOD, EPOLLIN);
}

static void
transport_dealloc(PyObject *op)
{
    Transport *self = (Transport *)op;
    PyTypeObject *type = Py_TYPE(op);
    close(self->fd);
    Py_XDECREF(self->data_received);
    Py_XDECREF(self->context);
    Py_XDECREF(self->rest);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef transport_methods[] = {
    {"write", transport_write, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot transport_slots[] = {
    {Py_tp_methods, transport_methods},
    {Py_tp_dealloc, transport_dealloc},
    {0, NULL},
};

static PyType_Spec transport_spec = {
    .name = "echo_protocol.Transport",
    .basicsize = sizeof(Transport),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = transport_slots,
};

static int
transport_start(PyTypeObject *type, PyObject *factory, int fd)
{
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); // fails on a Unix socket
    Transport *self = (Transport *)type->tp_alloc(type, 0);
    if (!self)
        return -1;
    self->fd = fd;
    self->context = PyContext_CopyCurrent();
    PyObject *protocol = self->context ? PyObject_CallNoArgs(factory) : NULL;
    PyObject *result = protocol ? PyObject_CallMethod(protocol, "connection_made", "O", self) : NULL;
    self->data_received = result ? PyObject_GetAttrString(protocol, "data_received") : NULL;
    Py_XDECREF(result);
    Py_XDECREF(protocol);
    // This reference is epoll's from here on.
    return self->data_received ? transport_watch(self, EPOLL_CTL_ADD, EPOLLIN) : -1;
}

static int
transport_receive(Transport *self)
{
    ssize_t n = recv(self->fd, buffer, sizeof buffer, 0);
    if (n <= 0) {
        if (n < 0 && errno == EAGAIN)
            return 0;
        Py_CLEAR(self->data_received); // and with it the protocol, which owns this
        Py_DECREF(self);
        return 0;
    }
    PyObject *data = PyBytes_FromStringAndSize(buffer, n);
    if (!data || PyContext_Enter(self->context))
        return -1;
    PyObject *result = PyObject_CallOneArg(self->data_received, data);
    Py_DECREF(data);
    if (PyContext_Exit(self->context) || !result)
        return -1;
    Py_DECREF(result);
    return 0;
}

static PyObject *
protocol_run(PyObject *module, PyObject *arguments)
{
    PyObject *factory;
    int listener;
    if (!PyArg_ParseTuple(arguments, "Oi", &factory, &listener))
        return NULL;
    PyTypeObject *type = PyModule_GetState(module) ? *(PyTypeObject **)PyModule_GetState(module) : NULL;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[EVENTS];
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event))
        return PyErr_SetFromErrno(PyExc_OSError);
    for (;;) {
        int n;
        Py_BEGIN_ALLOW_THREADS n = epoll_wait(epoll_fd, events, EVENTS, -1);
        Py_END_ALLOW_THREADS if (n < 0 && PyErr_CheckSignals()) return NULL;
        for (int i = 0; i < n; i++) {
            Transport *transport = events[i].data.ptr;
            if (!transport) {
                int fd;
                while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
                    if (transport_start(type, factory, fd))
                        return NULL;
                continue;
            }
            if (transport->rest && events[i].events & EPOLLOUT && transport_flush(transport))
                return NULL;
            if (events[i].events & ~(unsigned)EPOLLOUT && transport_receive(transport))
                return NULL;
        }
    }
}

static PyMethodDef module_methods[] = {
    {"run", protocol_run, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static int
module_exec(PyObject *module)
{
    PyTypeObject **type = PyModule_GetState(module);
    *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &transport_spec, NULL);
    return *type ? 0 : -1;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "echo_protocol",
    .m_size = sizeof(PyTypeObject *),
    .m_methods = module_methods,
    .m_slots = module_slots,
};

PyMODINIT_FUNC
PyInit_echo_protocol(void)
{
    return PyModuleDef_Init(&module);
}
