/* Reading: records are decrypted and given to the application, as its protocol takes its data; what it has not taken
   pauses the transport below.

   tls.c says when, and is told that the peer has ended.  TLS over this one is what takes raw bytes (io/sink.h). */

#include "io/sink.h"
#include "streams/streams.h"
#include "tls/tls_parts.h"

#define OWN_PLAIN (64 * 1024)

PART int
tls_set_app_protocol(TlsObj *self, PyObject *protocol)
{
    app_kind kind = APP_DATA;
    const sink_kind *sink = sink_of(self->st, protocol);
    if (sink != NULL && !streamreader_protocol_check(protocol)) {
        kind = APP_TLS; // what else takes bytes as they were read
    }
    else {
        int buffered = PyObject_IsInstance(protocol, self->st->BufferedProtocol);
        if (buffered == 0) { // by its methods: it has get_buffer() and no data_received()
            PyObject *method = NULL, *other = NULL;
            if (PyObject_GetOptionalAttr(protocol, self->st->str.get_buffer, &method) < 0 ||
                PyObject_GetOptionalAttr(protocol, self->st->str.data_received, &other) < 0) {
                buffered = -1;
            }
            else {
                buffered = method != NULL && other == NULL;
            }
            Py_XDECREF(method);
            Py_XDECREF(other);
        }
        if (buffered < 0) {
            return -1;
        }
        kind = buffered ? APP_BUFFERED : streamreader_protocol_check(protocol) ? APP_STREAMS : APP_DATA;
    }
    self->app_kind = kind;
    self->app_sink = sink;
    Py_XSETREF(self->app_protocol, Py_NewRef(protocol));
    return 0;
}

PART struct tls_buffers *
tls_buffers_of(ctask_state *st)
{
    if (UNLIKELY(st->tls.buffers == NULL)) {
        struct tls_buffers *buffers = malloc(sizeof(*buffers));
        if (buffers == NULL) {
            return NULL;
        }
        buffers->plain_used = buffers->out_used = 0;
        st->tls.buffers = buffers;
    }
    return st->tls.buffers;
}

/* ---- flow control ---- */

PART int
tls_control_reading(TlsObj *self)
{
    Py_ssize_t size = tls_incoming_size(self);
    PyObject *transport = self->transport, *method;
    if (size < 0) {
        return -1;
    }
    if (UNLIKELY(size >= self->incoming_high && !self->reading_paused)) {
        self->reading_paused = 1;
        method = self->st->str.pause_reading;
    }
    else if (UNLIKELY(size <= self->incoming_low && self->reading_paused)) {
        self->reading_paused = 0;
        method = self->st->str.resume_reading;
    }
    else {
        return 0;
    }
    if (transport == NULL) {
        return 0;
    }
    Py_INCREF(transport);
    int result = tls_drop(PyObject_CallMethodNoArgs(transport, method));
    Py_DECREF(transport);
    return result;
}

/* Below is called on the next turn by the loop: TlsObj._resume(). */
PART int
tls_resume_reading(TlsObj *self)
{
    if (!self->app_reading_paused) {
        return 0;
    }
    self->app_reading_paused = 0;
    return tls_call_method_soon(self, (PyObject *)self, self->st->str._resume, NULL);
}

/* ---- reading ---- */

/* To TLS over this one, with any number of them above it: nothing else on the way looks at the depth of the stack. */
static int
tls_deliver_tls(const sink_kind *sink, PyObject *protocol, PyObject *data)
{
    if (Py_EnterRecursiveCall(" in TLS over TLS")) {
        return -1;
    }
    int result = sink->feed(protocol, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data));
    Py_LeaveRecursiveCall();
    return result;
}

static int
tls_deliver(TlsObj *self, PyObject *data)
{
    PyObject *protocol = self->app_protocol;
    if (protocol == NULL) {
        return 0;
    }
    Py_INCREF(protocol);
    int result = self->app_kind == APP_TLS
                     ? tls_deliver_tls(self->app_sink, protocol, data)
                     : tls_drop(tls_call_app(self, protocol, self->st->str.data_received, data));
    Py_DECREF(protocol);
    return result;
}

/* To a StreamReader, which takes the bytes where they are. */
static int
tls_deliver_streams(TlsObj *self, const char *data, Py_ssize_t n)
{
    PyObject *protocol = self->app_protocol;
    if (protocol == NULL) {
        return 0;
    }
    PyObject *entered;
    if (tls_context_enter(self, &entered) < 0) {
        return -1;
    }
    Py_INCREF(protocol);
    int result = streamreader_feed(protocol, data, n);
    Py_DECREF(protocol);
    return UNLIKELY(tls_context_exit(entered) < 0) ? -1 : result;
}

/* The application is called once a turn; what is left goes on in the next, whatever it raises. */
static int
read_on_later(TlsObj *self)
{
    return tls_call_method_soon(self, (PyObject *)self, self->st->str._resume, NULL);
}

/* Decrypt what came, as much as there is room for, into `*length` bytes.  Returns as tls_record_read() does: more than 0
   if there may be more, 0 if the peer has ended. */
static inline int
read_records(TlsObj *self, char *data, Py_ssize_t size, Py_ssize_t *length)
{
    int n = AGAIN;
    *length = 0;
    while (*length < size) {
        n = tls_record_read(self, data + *length, (int)Py_MIN(size - *length, 1 << 20));
        if (n <= 0) {
            break;
        }
        *length += n;
        if (tls_read_all(self)) {
            return AGAIN;
        }
    }
    return n;
}

/* Decrypt and give it to data_received(), all of it in one piece unless it is more than a buffer. */
PART int
tls_read_copied(TlsObj *self)
{
    struct tls_buffers *buffers = tls_buffers_of(self->st);
    char *own = NULL, *plain = NULL;
    Py_ssize_t size = OWN_PLAIN, length;
    if (LIKELY(buffers != NULL && !buffers->plain_used)) {
        buffers->plain_used = 1;
        plain = buffers->plain;
        size = sizeof(buffers->plain);
    }
    else {
        plain = own = malloc(OWN_PLAIN);
        if (own == NULL) {
            PyErr_NoMemory();
            return -1;
        }
    }
    int n = read_records(self, plain, size, &length);
    if (n > 0 && read_on_later(self) < 0) {
        n = FAILED;
    }
    PyObject *data = NULL;
    if (self->app_kind == APP_STREAMS && n != FAILED && length > 0) {
        int result = tls_deliver_streams(self, plain, length);
        if (result < 0) {
            n = FAILED;
        }
        length = 0;
    }
    if (n != FAILED && length > 0) {
        data = PyBytes_FromStringAndSize(plain, length);
    }
    if (own == NULL) {
        buffers->plain_used = 0;
    }
    free(own);
    if (n == FAILED || (length > 0 && data == NULL)) {
        return -1;
    }
    if (length > 0) {
        int result = tls_deliver(self, data);
        Py_DECREF(data);
        if (result < 0) {
            return -1;
        }
    }
    return n == 0;
}

/* Decrypt into the application's own buffer. */
PART int
tls_read_buffered(TlsObj *self)
{
    Py_ssize_t hint = tls_incoming_size(self);
    if (hint < 0) {
        return -1;
    }
    PyObject *protocol = self->app_protocol;
    if (protocol == NULL) {
        return 0;
    }
    Py_INCREF(protocol);
    int result = -1;
    PyObject *number = PyLong_FromSsize_t(hint);
    PyObject *buffer = number == NULL ? NULL : tls_call_app(self, protocol, self->st->str.get_buffer, number);
    Py_XDECREF(number);
    Py_buffer view;
    if (buffer == NULL || PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE) < 0) {
        goto done;
    }
    if (view.len == 0) {
        PyErr_SetString(PyExc_RuntimeError, "get_buffer() returned an empty buffer");
        PyBuffer_Release(&view);
        goto done;
    }
    Py_ssize_t length;
    int n = read_records(self, view.buf, view.len, &length);
    PyBuffer_Release(&view);
    if (n == FAILED) {
        goto done;
    }
    if (n > 0 && read_on_later(self) < 0) {
        goto done;
    }
    result = 0;
    if (length > 0) {
        number = PyLong_FromSsize_t(length);
        result = number == NULL ? -1
                                : tls_drop(tls_call_app(self, protocol, self->st->str.buffer_updated, number));
        Py_XDECREF(number);
    }
    if (result == 0) {
        result = n == 0;
    }
done:
    Py_XDECREF(buffer);
    Py_DECREF(protocol);
    return result;
}

/* What comes after the application has closed is no longer for it. */
PART int
tls_read_discarded(TlsObj *self)
{
    char nowhere[TLS_RECORD];
    int n;
    while ((n = tls_record_read(self, nowhere, sizeof(nowhere))) > 0) {
    }
    return n == FAILED ? -1 : n == 0;
}

/* Is there something that the application is still to be given? */
PART int
tls_has_unread(TlsObj *self)
{
    if (self->discarding || self->app_state != APP_CONNECTED || self->app_protocol == NULL) {
        return 0;
    }
    if (self->ssl != NULL) {
        return !tls_read_all(self);
    }
    Py_ssize_t size = tls_incoming_size(self);
    if (size != 0) {
        return size < 0 ? -1 : 1;
    }
    PyObject *pending = tls_call_sslobj(self, self->st->str.pending, NULL);
    int result = pending == NULL ? -1 : PyObject_IsTrue(pending);
    Py_XDECREF(pending);
    return result;
}
