/* Copies of the current context, made of used ones.

   asyncio copies the context for every callback and every task, and nearly always the copy is dropped as it
   was.  A context that only we refer to, that is not entered and holds the very same variables is such a
   copy already; nobody can tell.  (The fields are those of internal/pycore_context.h; what a context holds
   is immutable, so equal pointers are equal variables.)

   Only contexts with the variables of the thread's own context are kept, and only while a loop runs, so
   that no value lives longer for it. */

#ifndef CTASK_CONTEXT_H
#define CTASK_CONTEXT_H

#include "compat.h"

#define CONTEXT_POOL 32

typedef struct {
    PyObject *contexts[CONTEXT_POOL]; // owned
    int length;
    int limit; // 0 while no loop runs
} context_pool;

/* PyContext_CopyCurrent() */
static inline PyObject *
context_copy(context_pool *pool)
{
    if (pool->length > 0) {
        PyContext *current = (PyContext *)PyThreadState_Get()->context;
        PyContext *used = (PyContext *)pool->contexts[pool->length - 1];
        if (__builtin_expect(current != NULL && used->ctx_vars == current->ctx_vars, 1)) {
            pool->length--;
            return (PyObject *)used;
        }
    }
    return PyContext_CopyCurrent();
}

/* Py_DECREF() of a context that was used; any object is accepted, and NULL. */
static inline void
context_drop(context_pool *pool, PyObject *obj)
{
    if (obj != NULL && Py_REFCNT(obj) == 1 && pool->length < pool->limit && PyContext_CheckExact(obj)) {
        PyContext *context = (PyContext *)obj;
        PyContext *current = (PyContext *)PyThreadState_Get()->context;
        if (current != NULL && context->ctx_vars == current->ctx_vars && !context->ctx_entered &&
            context->ctx_weakreflist == NULL) {
            pool->contexts[pool->length++] = obj;
            return;
        }
    }
    Py_XDECREF(obj);
}

static inline void
context_pool_clear(context_pool *pool)
{
    pool->limit = 0;
    while (pool->length > 0) {
        Py_DECREF(pool->contexts[--pool->length]);
    }
}

#endif
