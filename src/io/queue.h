/* What a transport has yet to send: chunks in order, each held by the object whose memory it is.

   Nothing is joined; the chunks go to the kernel as they are (writev, sendmsg).  Who drops an owner may run
   anything, so each step leaves the queue whole before it lets go. */

#ifndef CTASK_QUEUE_H
#define CTASK_QUEUE_H

#include <Python.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

typedef struct {
    PyObject *owner; // owned; bytes, or a memoryview of what was given
    const char *data;
    size_t size;
} queue_chunk;

typedef struct {
    queue_chunk *chunks; // NULL until something had to wait
    size_t head;         // first chunk
    size_t length;       // chunks
    size_t capacity;
    size_t size;         // bytes
} write_queue;

/* More room than this is not kept while nothing waits. */
#define QUEUE_KEPT 64

/* Nothing waits any more. */
static inline void
queue_rewind(write_queue *q)
{
    q->head = 0;
    if (q->capacity > QUEUE_KEPT) {
        free(q->chunks);
        q->chunks = NULL;
        q->capacity = 0;
    }
}

/* Takes the reference, also when it fails with -ENOMEM. */
static inline int
queue_push(write_queue *q, PyObject *owner, const char *data, size_t size)
{
    if (q->head + q->length == q->capacity) {
        if (q->head >= q->length && q->head > 0) {
            memcpy(q->chunks, q->chunks + q->head, q->length * sizeof(queue_chunk));
            q->head = 0;
        }
        else {
            size_t capacity = q->capacity == 0 ? 4 : q->capacity * 2;
            queue_chunk *chunks = realloc(q->chunks, capacity * sizeof(queue_chunk));
            if (chunks == NULL) {
                Py_DECREF(owner);
                return -ENOMEM;
            }
            q->chunks = chunks;
            q->capacity = capacity;
        }
    }
    q->chunks[q->head + q->length++] = (queue_chunk){owner, data, size};
    q->size += size;
    return 0;
}

/* The first chunks as the kernel wants them; returns how many, of *size bytes. */
static inline int
queue_iovec(const write_queue *q, struct iovec *iov, int most, size_t *size)
{
    int n = q->length < (size_t)most ? (int)q->length : most;
    *size = 0;
    for (int i = 0; i < n; i++) {
        const queue_chunk *chunk = &q->chunks[q->head + (size_t)i];
        iov[i] = (struct iovec){(void *)chunk->data, chunk->size};
        *size += chunk->size;
    }
    return n;
}

/* The first chunk is done with, all of it. */
static inline void
queue_pop(write_queue *q)
{
    queue_chunk *chunk = &q->chunks[q->head];
    PyObject *owner = chunk->owner;
    q->size -= chunk->size;
    q->head++;
    if (--q->length == 0) {
        queue_rewind(q);
    }
    Py_DECREF(owner);
}

/* `n` bytes were sent. */
static inline void
queue_advance(write_queue *q, size_t n)
{
    while (n > 0 && q->length > 0) {
        queue_chunk *chunk = &q->chunks[q->head];
        if (n < chunk->size) {
            chunk->data += n;
            chunk->size -= n;
            q->size -= n;
            return;
        }
        n -= chunk->size;
        queue_pop(q);
    }
}

/* Forget everything, and give the memory back. */
static inline void
queue_clear(write_queue *q)
{
    write_queue old = *q;
    *q = (write_queue){0};
    for (size_t i = 0; i < old.length; i++) {
        Py_DECREF(old.chunks[old.head + i].owner);
    }
    free(old.chunks);
}

#endif
