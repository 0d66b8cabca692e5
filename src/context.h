/* Copies of the current context, made of used ones.

   asyncio copies the context for every callback and every task, and nearly always the copy is dropped as it
   was.  A context that only we refer to, that is not entered and holds the very same variables is such a
   copy already; nobody can tell.  (The fields are those of internal/pycore_context.h; what a context holds
   is immutable, so equal pointers are equal variables.)

   Only contexts with the variables that the thread had when its loop began to run are kept, and only while
   it runs, so that no value lives longer for it. */

#ifndef CTASK_CONTEXT_H
#define CTASK_CONTEXT_H

#include "compat.h"

#define CONTEXT_POOL 32

typedef struct {
    PyObject *contexts[CONTEXT_POOL]; // owned; all with the variables of `base`
    int length;
    PyContext *base; // owned; what was entered when a loop began to run, NULL while none does
    char checked;    // the fields of a context are where the header says
} context_pool;

/* Watch a context being entered; where its fields do not change as they should, the pool is not used. */
static inline int
context_pool_check(context_pool *pool)
{
    PyObject *obj = PyContext_New();
    PyContext *context = (PyContext *)obj;
    if (obj == NULL || PyContext_Enter(obj) < 0) {
        Py_XDECREF(obj);
        return -1;
    }
    PyObject *copy = PyContext_CopyCurrent();
    pool->checked = copy != NULL && context->ctx_entered == 1 && context->ctx_weakreflist == NULL &&
                    PyThreadState_Get()->context == obj && context->ctx_vars != NULL &&
                    ((PyContext *)copy)->ctx_vars == context->ctx_vars && !((PyContext *)copy)->ctx_entered;
    Py_XDECREF(copy);
    int status = PyContext_Exit(obj);
    pool->checked = pool->checked && !context->ctx_entered;
    Py_DECREF(obj);
    return status < 0 || copy == NULL ? -1 : 0;
}

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

static __attribute__((noinline, unused)) void
context_pool_empty(context_pool *pool)
{
    while (pool->length > 0) {
        Py_DECREF(pool->contexts[--pool->length]);
    }
}

/* Py_DECREF() of a context that was used; any object is accepted, and NULL. */
static inline void
context_drop(context_pool *pool, PyObject *obj)
{
    if (obj != NULL && Py_REFCNT(obj) == 1 && pool->base != NULL && PyContext_CheckExact(obj)) {
        PyContext *context = (PyContext *)obj;
        PyHamtObject *vars = pool->base->ctx_vars;
        if (context->ctx_vars == vars && !context->ctx_entered && context->ctx_weakreflist == NULL) {
            if (pool->length > 0 && ((PyContext *)pool->contexts[pool->length - 1])->ctx_vars != vars) {
                context_pool_empty(pool); /* the base has changed since */
            }
            if (pool->length < CONTEXT_POOL) {
                pool->contexts[pool->length++] = obj;
                return;
            }
        }
    }
    Py_XDECREF(obj);
}

static inline void
context_pool_clear(context_pool *pool)
{
    context_pool_empty(pool);
    Py_CLEAR(pool->base);
}

/* A loop begins to run in this thread; -1 with an exception set. */
static inline int
context_pool_open(context_pool *pool)
{
    if (!pool->checked) {
        return 0;
    }
    PyObject *copy = PyContext_CopyCurrent(); /* which makes the thread's own, if it has none yet */
    if (copy == NULL) {
        return -1;
    }
    Py_DECREF(copy);
    context_pool_clear(pool);
    pool->base = (PyContext *)Py_NewRef(PyThreadState_Get()->context);
    return 0;
}

#endif
