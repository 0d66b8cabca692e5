/* Python's ssl, and the SSLObject of a connection: made by the context, with our BIO in the place of its MemoryBIOs
   where that can be. */

#include "tls/tls_parts.h"

PART int
tls_load_ssl(ctask_state *st)
{
    if (LIKELY(st->ssl_again != NULL)) {
        return 0;
    }
    PyObject *module = PyImport_ImportModule("ssl");
    if (module == NULL) {
        if (PyErr_ExceptionMatches(PyExc_ImportError)) {
            PyErr_SetString(PyExc_RuntimeError, "stdlib ssl module not available");
        }
        return -1;
    }
    PyObject *read = PyObject_GetAttrString(module, "SSLWantReadError");
    PyObject *sys = read == NULL ? NULL : PyObject_GetAttrString(module, "SSLSyscallError");
    PyObject *again = sys == NULL ? NULL : PyTuple_Pack(2, read, sys);
    Py_XDECREF(sys);
    Py_XDECREF(read);
    if (again != NULL) {
        Py_XSETREF(st->ssl_names, Py_NewRef(PyModule_Check(module) ? PyModule_GetDict(module) : Py_None));
        struct {
            const char *name;
            PyObject **place;
        } names[] = {
            {"SSLError", &st->ssl_SSLError},
            {"CertificateError", &st->ssl_CertificateError},
            {"SSLZeroReturnError", &st->ssl_SSLZeroReturnError},
            {"MemoryBIO", &st->ssl_MemoryBIO},
            {"SSLObject", &st->ssl_SSLObject},
        };
        for (size_t i = 0; i < Py_ARRAY_LENGTH(names) && again != NULL; i++) {
            PyObject *value = PyObject_GetAttrString(module, names[i].name);
            Py_XSETREF(*names[i].place, value);
            if (value == NULL) {
                Py_CLEAR(again);
            }
        }
    }
    Py_DECREF(module);
    if (again == NULL) {
        return -1;
    }
    st->ssl_again = again;
    return 0;
}

/* ssl.create_default_context() for a client that gave none; checking the name only if there is one. */
PART PyObject *
tls_default_context(int server_side, PyObject *server_hostname)
{
    if (server_side) {
        PyErr_SetString(PyExc_ValueError, "Server side SSL needs a valid SSLContext");
        return NULL;
    }
    PyObject *module = PyImport_ImportModule("ssl");
    PyObject *context = module == NULL ? NULL : PyObject_CallMethod(module, "create_default_context", NULL);
    Py_XDECREF(module);
    int named = context == NULL ? -1 : PyObject_IsTrue(server_hostname);
    if (named < 0 || (named == 0 && PyObject_SetAttrString(context, "check_hostname", Py_False) < 0)) {
        Py_CLEAR(context);
    }
    return context;
}

PART int
tls_make_session(TlsObj *self)
{
    ctask_state *st = self->st;
    self->incoming = PyObject_CallNoArgs(st->ssl_MemoryBIO);
    self->outgoing = self->incoming == NULL ? NULL : PyObject_CallNoArgs(st->ssl_MemoryBIO);
    PyObject *wrap = self->outgoing == NULL ? NULL : PyObject_GetAttr(self->sslcontext, st->str.wrap_bio);
    PyObject *args = wrap == NULL ? NULL : PyTuple_Pack(2, self->incoming, self->outgoing);
    PyObject *kwargs = args == NULL ? NULL
                                    : Py_BuildValue("{s:O,s:O}",
                                                    "server_side",
                                                    self->server_side ? Py_True : Py_False,
                                                    "server_hostname",
                                                    self->server_hostname);
    self->sslobj = kwargs == NULL ? NULL : PyObject_Call(wrap, args, kwargs);
    Py_XDECREF(kwargs);
    Py_XDECREF(args);
    Py_XDECREF(wrap);
    if (self->sslobj == NULL) {
        return -1;
    }
    self->ssl = openssl_attach(
        st, self->sslobj, self->incoming, self->outgoing, &self->pipe, &self->bio, &self->sslsocket);
    if (self->ssl != NULL) {
        self->direct = 1;
        Py_CLEAR(self->incoming);
        Py_CLEAR(self->outgoing);
    }
    return 0;
}
