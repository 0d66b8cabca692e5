/* What the parts of the stream transport offer each other, the lowest first. */

#ifndef CTASK_STREAM_PARTS_H
#define CTASK_STREAM_PARTS_H

#include "io/stream.h"

/* ---- stream_info.c ---- */

PART int stream_remember(StreamObj *s, short_address *to, PyObject *key, const struct sockaddr *address,
                         socklen_t length);
PART void stream_remember_own_address(StreamObj *s);
PART PyObject *stream_socket(StreamObj *s);
PART PyObject *Stream_get_extra_info(PyObject *self, PyObject *args, PyObject *kwargs);
PART PyObject *Stream_get_extra(PyObject *self, void *closure);
PART PyObject *Stream_get_sock(PyObject *self, void *closure);

/* ---- stream_write.c ---- */

PART int stream_send_waiting(TransportObj *t);
PART int stream_call_lost(TransportObj *t);
PART PyObject *Stream_write(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PART PyObject *Stream_writelines(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PART PyObject *Stream_write_eof(PyObject *self, PyObject *ignored);
PART PyObject *Stream_can_write_eof(PyObject *self, PyObject *ignored);

/* ---- stream_read.c ---- */

PART int stream_is_reading(StreamObj *s);
PART int stream_read_ready(LoopObj *loop, PyObject *self);

#endif
