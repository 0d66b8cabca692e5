/* The bytes that a StreamReader has received and nobody has read yet.

   They are in a bytes object that nobody else sees, from `start` on.  What comes into an empty buffer is one
   such object of just that size; when it is read as a whole it is the very object that is handed out.  So a
   message costs one allocation and one copy, and an idle reader holds no memory.  What comes while there is
   something left is appended behind it, with room to spare; what was read is only skipped.

   Python code that asks for `_buffer` gets a bytearray, as in asyncio.  From then on the bytes are in that
   bytearray, until it is empty and nobody else has it. */

#ifndef CTASK_STREAMBUF_H
#define CTASK_STREAMBUF_H

#include "base/compat.h"

typedef struct {
    PyObject *store;   // owned; bytes, NULL when there are none
    PyObject *shared;  // owned; the bytearray that Python code has seen, in place of `store`, or NULL
    Py_ssize_t start;  // in store: what is before was read
    Py_ssize_t length; // in store, from start on
    char writable;     // store is ours alone, and may be written to beyond the end
} streambuf;

/* From this size on, giving a block of memory back in part is cheaper than copying what is in it. */
#define STREAMBUF_RESIZE_MIN 8192

/* Up to this size, a block that is given away is not missed: malloc() has another.  A larger one it would fetch
   from the kernel, page by page. */
#define STREAMBUF_GIVE_MAX (256 * 1024)

/* So much is allocated at once for who waits for that many bytes; for more the first of them have to come, so
   that a number that a peer sent costs no memory. */
#define STREAMBUF_AHEAD (1024 * 1024)

static inline Py_ssize_t
streambuf_length(const streambuf *buf)
{
    return __builtin_expect(buf->shared == NULL, 1) ? buf->length : PyByteArray_GET_SIZE(buf->shared);
}

static inline const char *
streambuf_data(const streambuf *buf)
{
    if (buf->shared != NULL) {
        return PyByteArray_AS_STRING(buf->shared);
    }
    return buf->store == NULL ? "" : PyBytes_AS_STRING(buf->store) + buf->start;
}

static inline void
streambuf_drop_store(streambuf *buf)
{
    PyObject *store = buf->store;
    buf->store = NULL;
    buf->start = buf->length = 0;
    buf->writable = 0;
    Py_XDECREF(store);
}

static inline void
streambuf_clear(streambuf *buf)
{
    streambuf_drop_store(buf);
    Py_CLEAR(buf->shared);
}

/* Make room for n more bytes behind the others.  `wanted`: how many there shall be before anybody reads,
   0 if that is not known. */
static __attribute__((noinline, unused)) int
streambuf_grow(streambuf *buf, Py_ssize_t n, Py_ssize_t wanted)
{
    if (n > PY_SSIZE_T_MAX / 4 - buf->length) {
        PyErr_NoMemory();
        return -1;
    }
    Py_ssize_t needed = buf->length + n;
    Py_ssize_t size = buf->store == NULL ? needed : needed + needed / 2;
    if (wanted > needed) {
        Py_ssize_t room = 2 * needed > STREAMBUF_AHEAD ? 2 * needed : STREAMBUF_AHEAD;
        size = wanted < room ? wanted : room;
    }
    if (buf->start == 0 && buf->writable) {
        if (_PyBytes_Resize(&buf->store, size) < 0) {
            buf->start = buf->length = 0; /* the bytes are gone with the object */
            buf->writable = 0;
            return -1;
        }
        return 0;
    }
    PyObject *store = PyBytes_FromStringAndSize(NULL, size);
    if (store == NULL) {
        return -1;
    }
    Py_ssize_t length = buf->length;
    if (length > 0) {
        memcpy(PyBytes_AS_STRING(store), PyBytes_AS_STRING(buf->store) + buf->start, (size_t)length);
    }
    streambuf_drop_store(buf);
    buf->store = store;
    buf->length = length;
    buf->writable = size > 1; /* a single byte is an object that everybody shares */
    return 0;
}

static inline int
streambuf_append_shared(streambuf *buf, const char *data, Py_ssize_t n)
{
    Py_ssize_t length = PyByteArray_GET_SIZE(buf->shared);
    if (n > PY_SSIZE_T_MAX - 1 - length) {
        PyErr_NoMemory();
        return -1;
    }
    if (PyByteArray_Resize(buf->shared, length + n) < 0) {
        return -1;
    }
    memcpy(PyByteArray_AS_STRING(buf->shared) + length, data, (size_t)n);
    return 0;
}

static inline int
streambuf_append(streambuf *buf, const char *data, Py_ssize_t n, Py_ssize_t wanted)
{
    if (buf->shared != NULL) {
        return streambuf_append_shared(buf, data, n);
    }
    if (buf->store == NULL && n >= wanted) {
        buf->store = PyBytes_FromStringAndSize(data, n);
        if (buf->store == NULL) {
            return -1;
        }
        buf->length = n;
        buf->writable = n > 1;
        return 0;
    }
    if (buf->store == NULL || !buf->writable || n > PyBytes_GET_SIZE(buf->store) - buf->start - buf->length) {
        if (buf->writable && buf->start >= buf->length && n <= PyBytes_GET_SIZE(buf->store) - buf->length) {
            /* More than half was read: moving the rest is paid for by what was. */
            char *base = PyBytes_AS_STRING(buf->store);
            memcpy(base, base + buf->start, (size_t)buf->length);
            buf->start = 0;
        }
        else if (streambuf_grow(buf, n, wanted) < 0) {
            return -1;
        }
    }
    memcpy(PyBytes_AS_STRING(buf->store) + buf->start + buf->length, data, (size_t)n);
    buf->length += n;
    return 0;
}

/* A bytes object that somebody else has: in an empty buffer it is kept as it is. */
static inline int
streambuf_append_bytes(streambuf *buf, PyObject *bytes, Py_ssize_t wanted)
{
    Py_ssize_t n = PyBytes_GET_SIZE(bytes);
    if (buf->shared == NULL && buf->store == NULL && n >= wanted) {
        buf->store = Py_NewRef(bytes);
        buf->length = n;
        return 0;
    }
    return streambuf_append(buf, PyBytes_AS_STRING(bytes), n, wanted);
}

static inline int
streambuf_skip(streambuf *buf, Py_ssize_t n)
{
    if (buf->shared != NULL) {
        PyObject *shared = Py_NewRef(buf->shared); /* of a class whose __delitem__() may put another there */
        int status = n > 0 ? PySequence_DelSlice(shared, 0, n) : 0;
        if (status == 0 && PyByteArray_GET_SIZE(shared) == 0 && Py_REFCNT(shared) == 2 &&
            shared == buf->shared) {
            buf->shared = NULL;
            Py_DECREF(shared);
        }
        Py_DECREF(shared);
        return status;
    }
    buf->start += n;
    buf->length -= n;
    if (buf->length == 0) {
        streambuf_drop_store(buf);
    }
    return 0;
}

/* The store's first n bytes as the store itself, where that is cheaper than copying them: what is behind them is
   less, and is copied instead.  0 if it is not, otherwise 1 and the bytes, NULL with an exception. */
static inline int
streambuf_take_store(streambuf *buf, Py_ssize_t n, PyObject **bytes)
{
    Py_ssize_t rest = buf->length - n, size = buf->store == NULL ? 0 : PyBytes_GET_SIZE(buf->store);
    if (buf->start != 0 || rest >= n || (size != n && (!buf->writable || n < STREAMBUF_RESIZE_MIN)) ||
        (rest > 0 && n > STREAMBUF_GIVE_MAX)) {
        return 0;
    }
    PyObject *behind = NULL;
    if (rest > 0) {
        behind = PyBytes_FromStringAndSize(PyBytes_AS_STRING(buf->store) + n, rest);
        if (behind == NULL) {
            *bytes = NULL;
            return 1;
        }
    }
    *bytes = buf->store;
    buf->store = behind;
    buf->length = rest;
    buf->writable = rest > 1;
    if (size != n) {
        (void)_PyBytes_Resize(bytes, n); /* which sets it to NULL if it fails */
    }
    return 1;
}

/* The first n bytes (there are as many), which leave the buffer. */
static inline PyObject *
streambuf_take(streambuf *buf, Py_ssize_t n)
{
    PyObject *bytes;
    if (buf->shared == NULL && streambuf_take_store(buf, n, &bytes)) {
        return bytes;
    }
    bytes = PyBytes_FromStringAndSize(streambuf_data(buf), n);
    if (bytes != NULL && streambuf_skip(buf, n) < 0) {
        Py_CLEAR(bytes);
    }
    return bytes;
}

/* What `_buffer` is to Python code; borrowed. */
static inline PyObject *
streambuf_share(streambuf *buf)
{
    if (buf->shared == NULL) {
        buf->shared = PyByteArray_FromStringAndSize(streambuf_data(buf), buf->length);
        if (buf->shared != NULL) {
            streambuf_drop_store(buf);
        }
    }
    return buf->shared;
}

#endif
