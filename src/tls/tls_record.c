/* Records: what is asked of OpenSSL, and of the SSLObject where that cannot be, for one connection.

   OpenSSL is never entered twice at a time for one connection: `busy` is set while it is, as callbacks of ssl
   (SNI, messages) are Python code. */

#include "tls/tls_parts.h"

/* What a MemoryBIO says it has; ssl's may have been replaced, and this one say anything. */
PART Py_ssize_t
tls_bio_size(TlsObj *self, PyObject *bio)
{
    PyObject *pending = PyObject_GetAttr(bio, self->st->str.pending);
    Py_ssize_t n = pending == NULL ? -1 : PyLong_AsSsize_t(pending);
    Py_XDECREF(pending);
    if (UNLIKELY(n < 0)) {
        return PyErr_Occurred() ? -1 : 0;
    }
    return Py_MIN(n, PY_SSIZE_T_MAX / 2); // something is added to it
}

/* ---- records ---- */

/* Stale errors of others' calls would be taken for ours. */
static inline void
errors_clear(const openssl_api *api)
{
    if (UNLIKELY(api->ERR_peek_error() != 0)) {
        api->ERR_clear_error();
    }
}

/* After a failed call of a method of the SSLObject. */
static int
again_or_failed(TlsObj *self)
{
    if (PyErr_ExceptionMatches(self->st->ssl_again)) {
        PyErr_Clear();
        return AGAIN;
    }
    return FAILED;
}

PART PyObject *
tls_call_sslobj(TlsObj *self, PyObject *name, PyObject *arg)
{
    char busy = self->busy;
    self->busy = 1;
    PyObject *stack[] = {self->sslobj, arg};
    PyObject *result = PyObject_VectorcallMethod(name, stack, arg == NULL ? 1 : 2, NULL);
    self->busy = busy;
    if (UNLIKELY(self->pipe.no_memory)) {
        self->pipe.no_memory = 0;
        Py_XDECREF(result);
        PyErr_Clear();
        return PyErr_NoMemory();
    }
    return result;
}

/* Through the SSLObject: where OpenSSL cannot be called directly, and where it has failed, so that ssl makes
   the exception (OpenSSL fails the same way again, and the queue of its errors was left as it is). */
static int
read_by_python(TlsObj *self, char *buffer, int size)
{
    PyObject *number = PyLong_FromLong(size);
    PyObject *data = number == NULL ? NULL : tls_call_sslobj(self, self->st->str.read, number);
    Py_XDECREF(number);
    if (data == NULL) {
        return again_or_failed(self);
    }
    Py_buffer view;
    int n = FAILED;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) == 0) {
        n = (int)Py_MIN(view.len, size);
        memcpy(buffer, view.buf, (size_t)n);
        PyBuffer_Release(&view);
    }
    Py_DECREF(data);
    return n;
}

static int
write_by_python(TlsObj *self, const char *data, int size)
{
    PyObject *bytes = PyBytes_FromStringAndSize(data, size);
    PyObject *number = bytes == NULL ? NULL : tls_call_sslobj(self, self->st->str.write, bytes);
    Py_XDECREF(bytes);
    if (number == NULL) {
        return again_or_failed(self);
    }
    Py_ssize_t n = PyLong_AsSsize_t(number);
    Py_DECREF(number);
    if (n == -1 && PyErr_Occurred()) {
        return FAILED;
    }
    return n <= 0 ? AGAIN : (int)Py_MIN(n, size);
}

PART int
tls_record_read(TlsObj *self, char *buffer, int size)
{
    const openssl_api *api = self->st->tls.openssl;
    if (UNLIKELY(!self->direct)) {
        return read_by_python(self, buffer, size);
    }
    errors_clear(api);
    self->busy = 1;
    int n = api->SSL_read(self->ssl, buffer, size);
    self->busy = 0;
    if (LIKELY(n > 0)) {
        return n;
    }
    int error = api->SSL_get_error(self->ssl, n);
    if (LIKELY(error == SSL_ERROR_WANT_READ)) {
        return AGAIN;
    }
    if (error == SSL_ERROR_ZERO_RETURN && api->SSL_get_shutdown(self->ssl) == SSL_RECEIVED_SHUTDOWN) {
        return 0;
    }
    return read_by_python(self, buffer, size);
}

PART int
tls_record_write(TlsObj *self, const char *data, int size)
{
    const openssl_api *api = self->st->tls.openssl;
    if (UNLIKELY(!self->direct)) {
        return write_by_python(self, data, size);
    }
    errors_clear(api);
    self->busy = 1;
    int n = api->SSL_write(self->ssl, data, size);
    self->busy = 0;
    if (LIKELY(n > 0)) {
        return n;
    }
    if (UNLIKELY(self->pipe.no_memory)) {
        self->pipe.no_memory = 0;
        PyErr_NoMemory();
        return FAILED;
    }
    int error = api->SSL_get_error(self->ssl, n);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        return AGAIN;
    }
    return write_by_python(self, data, size);
}

PART int
tls_read_all(TlsObj *self)
{
    return self->ssl != NULL && self->pipe.in_len == 0 && self->st->tls.openssl->SSL_pending(self->ssl) == 0;
}

PART Py_ssize_t
tls_incoming_size(TlsObj *self)
{
    if (LIKELY(self->ssl != NULL || self->incoming == NULL)) {
        return (Py_ssize_t)self->pipe.in_len;
    }
    return tls_bio_size(self, self->incoming);
}

PART int
tls_incoming_feed(TlsObj *self, const char *data, Py_ssize_t n)
{
    if (self->ssl != NULL) {
        if (openssl_feed(&self->pipe, data, (size_t)n) < 0) {
            PyErr_NoMemory();
            return -1;
        }
        return 0;
    }
    PyObject *bytes = PyBytes_FromStringAndSize(data, n);
    int result = bytes == NULL
                     ? -1
                     : tls_drop(PyObject_CallMethodOneArg(self->incoming, self->st->str.write, bytes));
    Py_XDECREF(bytes);
    return result;
}
