/* A connection, and what the parts below tls.c offer each other, the lowest first. */

#ifndef CTASK_TLS_PARTS_H
#define CTASK_TLS_PARTS_H

#include "io/sink.h"
#include "tls/openssl.h"

/* asyncio.sslproto.SSLProtocolState and AppProtocolState. */
typedef enum { TLS_UNWRAPPED, TLS_HANDSHAKE, TLS_WRAPPED, TLS_FLUSHING, TLS_SHUTDOWN } tls_state;
typedef enum { APP_INIT, APP_CONNECTED, APP_EOF, APP_LOST } app_state;
/* How the application's protocol takes its data. */
typedef enum { APP_DATA, APP_BUFFERED, APP_TLS, APP_STREAMS } app_kind;

typedef struct {
    PyObject_HEAD
    ctask_state *st; // borrowed from the type's module
    PyObject *loop; // owned
    PyObject *app_protocol; // owned; NULL once the connection is lost
    PyObject *app_transport; // owned until the connection is lost; it holds us as well
    PyObject *transport; // owned; NULL before the connection is made and once it is lost
    PyObject *waiter; // owned; NULL if none, or once it was told
    PyObject *sslcontext; // owned
    PyObject *server_hostname; // owned; None for a server
    PyObject *sslobj; // owned; the SSLObject
    PyObject *context; // owned; in which the application is called, the transport's if it is ours
    PyObject *extra; // owned; a dict, what get_extra_info() knows beside what the transport below does
    PyObject *handshake_timeout; // owned; number, seconds
    PyObject *shutdown_timeout; // owned; number, seconds
    PyObject *handshake_timer; // owned; handle or NULL
    PyObject *shutdown_timer; // owned; handle or NULL
    PyObject *incoming; // owned; MemoryBIO, NULL when `pipe` is used
    PyObject *outgoing; // owned; MemoryBIO, NULL when `pipe` is used
    PyObject *buffer; // owned; bytearray that get_buffer() gave away, or NULL
    PyObject *sslsocket; // owned; it owns `ssl`, or NULL
    SSL *ssl; // borrowed from sslsocket; NULL when Python's MemoryBIOs are used
    BIO *bio; // owned; what `ssl` reads and writes
    openssl_pipe pipe;
    PyObject *weakrefs; // managed by weakref
    PyObject **backlog; // owned; bytes that wait to be encrypted, from backlog_start on
    Py_ssize_t backlog_start;
    Py_ssize_t backlog_end;
    Py_ssize_t backlog_size;
    Py_ssize_t backlog_offset; // how much of the first is gone
    Py_ssize_t backlog_bytes; // not yet encrypted
    Py_ssize_t incoming_high;
    Py_ssize_t incoming_low;
    Py_ssize_t outgoing_high;
    Py_ssize_t outgoing_low;
    double handshake_start; // loop.time() in debug mode
    int lost_writes; // writes since the connection was lost
    tls_state state;
    app_state app_state;
    app_kind app_kind;
    const sink_kind *app_sink; // of app_protocol: takes bytes as they were read; or NULL
    char direct; // SSL_read() and SSL_write() are called, not the methods of the SSLObject
    char busy; // in a call of OpenSSL
    char encrypting; // in encrypt(), which may call the transport below
    char over_stream; // `transport` is a ctask.StreamTransport
    char lending; // `pipe` has, or has outgrown, the interpreter's buffer
    char server_side;
    char eof_received; // from the transport below
    char app_reading_paused; // by the application
    char app_writing_paused; // by us
    char reading_paused; // the transport below, by us
    char writing_paused; // by the transport below
    char discarding; // the application has closed
    char timed_handshake; // handshake_start is set
} TlsObj;

typedef struct {
    PyObject_HEAD
    PyObject *slots[5]; // owned; those of asyncio's _FlowControlMixin, not used
    PyObject *loop; // owned
    TlsObj *protocol; // owned; NULL once it was closed twice
    PyObject *dict; // owned; NULL until an attribute is set
    PyObject *weakrefs; // managed by weakref
    char closed;
} TlsTransportObj;

enum { AGAIN = -1, FAILED = -2 }; // of what reads and writes records, beside numbers of bytes

/* Buffers of the whole interpreter, for the length of a call. */
struct tls_buffers {
    char plain_used; // by whom decrypts just now
    char out_used; // lent to a pipe
    char out[160 * 1024];
    char plain[256 * 1024];
};

#define TLS_RECORD (16 * 1024)
#define TLS_READ_HIGH (256 * 1024)
#define TLS_WRITE_HIGH (512 * 1024)

static inline int
tls_backlog_empty(TlsObj *self)
{
    return self->backlog_start == self->backlog_end;
}

/* Before the application has closed. */
static inline int
tls_takes_writes(TlsObj *self)
{
    return self->state == TLS_HANDSHAKE || self->state == TLS_WRAPPED;
}

/* Has the call that returned this, which is not needed, failed? */
static inline int
tls_drop(PyObject *result)
{
    if (result == NULL) {
        return -1;
    }
    Py_DECREF(result);
    return 0;
}

static inline void
tls_transport_set_closed(PyObject *transport)
{
    ((TlsTransportObj *)transport)->closed = 1;
}

/* ---- tls_session.c ---- */

PART int tls_load_ssl(ctask_state *st);
PART PyObject *tls_default_context(int server_side, PyObject *server_hostname);
PART int tls_make_session(TlsObj *self);

/* ---- tls_record.c ---- */

PART PyObject *tls_call_sslobj(TlsObj *self, PyObject *name, PyObject *arg);
/* Bytes of one record, 0 at its end (close_notify), AGAIN or FAILED. */
PART int tls_record_read(TlsObj *self, char *buffer, int size);
/* Bytes that were encrypted, AGAIN or FAILED. */
PART int tls_record_write(TlsObj *self, const char *data, int size);
/* Has everything that came been read?  Then asking OpenSSL once more would tell nothing new. */
PART int tls_read_all(TlsObj *self);
PART Py_ssize_t tls_bio_size(TlsObj *self, PyObject *bio);
PART Py_ssize_t tls_incoming_size(TlsObj *self);
PART int tls_incoming_feed(TlsObj *self, const char *data, Py_ssize_t n);

/* ---- tls_call.c ---- */

PART int tls_call_method_soon(TlsObj *self, PyObject *object, PyObject *name, PyObject *arg);
PART int tls_in_debug(TlsObj *self);
PART int tls_loop_time(TlsObj *self, double *now);
PART PyObject *tls_call_later(TlsObj *self, PyObject *delay, PyObject *name);
PART int tls_timer_cancel(TlsObj *self, PyObject **timer);
PART int tls_debug_log(TlsObj *self, const char *format, PyObject *arg);
PART int tls_wakeup_waiter(TlsObj *self, PyObject *exc);
PART int tls_fatal_error(TlsObj *self, PyObject *exc, const char *message);
PART int tls_fatal_raised(TlsObj *self, const char *message);
PART void tls_interrupted(TlsObj *self);
PART int tls_context_enter(TlsObj *self, PyObject **entered);
PART int tls_context_exit(PyObject *entered);
PART PyObject *tls_call_app(TlsObj *self, PyObject *protocol, PyObject *name, PyObject *arg);
PART int tls_tell_app(TlsObj *self, PyObject *method, const char *failure);
PART int tls_call_eof_received(TlsObj *self);

/* ---- tls_write.c ---- */

PART int tls_write(TlsObj *self, PyObject *data);
PART int tls_writelines(TlsObj *self, PyObject *items);
PART int tls_backlog_append(TlsObj *self, PyObject *data);
PART void tls_backlog_clear(TlsObj *self);
PART Py_ssize_t tls_outgoing_size(TlsObj *self);
PART void tls_output_release(TlsObj *self);
PART int tls_process_outgoing(TlsObj *self);
PART int tls_control_writing(TlsObj *self);
PART int tls_do_write(TlsObj *self);

/* ---- tls_read.c ---- */

PART int tls_set_app_protocol(TlsObj *self, PyObject *protocol);
PART struct tls_buffers *tls_buffers_of(ctask_state *st);
PART int tls_control_reading(TlsObj *self);
PART int tls_resume_reading(TlsObj *self);
/* By the kind of the application's protocol: 1 if the peer has ended, -1 with an exception. */
PART int tls_read_copied(TlsObj *self);
PART int tls_read_buffered(TlsObj *self);
PART int tls_read_discarded(TlsObj *self);
PART int tls_has_unread(TlsObj *self);

#endif
