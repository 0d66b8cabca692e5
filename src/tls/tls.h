/* tls/: a protocol over any transport, and a transport over it, with Python's ssl in between, or its OpenSSL.  The
   topmost room: it may use all others, and none uses it.

   What the parts share, the lowest first: tls_session.c makes what tls_record.c encrypts and decrypts by, tls_call.c
   calls the application and the loop, tls_write.c and tls_read.c go between these, tls.c knows when, tls_transport.c is
   the transport that the application sees, tls_protocol.c the protocol over the transport below. */

#ifndef CTASK_TLS_H
#define CTASK_TLS_H

#include "tls/tls_parts.h"

/* ---- tls.c ---- */

PART PyObject *tls_state_object(TlsObj *self, int of_app);
PART int tls_do_read(TlsObj *self);
PART int tls_handshake_failed(TlsObj *self);
PART int tls_start_handshake(TlsObj *self);
PART int tls_do_shutdown(TlsObj *self);
PART int tls_do_flush(TlsObj *self);
PART int tls_start_shutdown(TlsObj *self);
PART int tls_abort(TlsObj *self, PyObject *exc);
PART int tls_go_on(TlsObj *self);
/* What the transport below has received, instead of buffer_updated(); `data` is the caller's again after. */
PART int tls_feed(PyObject *protocol, const char *data, Py_ssize_t n);

/* ---- tls_transport.c ---- */

PART int tls_transport_setup(PyObject *module, ctask_state *st);
PART PyObject *tls_transport_create(TlsObj *protocol);

/* ---- tls_protocol.c ---- */

PART int tls_setup(PyObject *module, ctask_state *st);

#endif
