/* Copies of the current context, made when they are needed, of used ones.

   asyncio copies the context for every callback and every task.  A context is little more than a reference
   to its variables, which are immutable.  So what waits, a Handle or a Task, keeps only the variables
   (context_snapshot); it gets a context (context_make) when it runs or when somebody asks for it, and a task
   which nobody has asked gives it back when it waits again (context_rest).  A million tasks that wait need
   no million contexts, and the one which all of them use stays in the processor's cache.

   A context that only we refer to, that is not entered and not weakly referenced can be any other: nobody
   can tell.  Such are kept for the next.  They hold the variables which the thread had when its loop began
   to run, and only while it runs, so that no value lives longer for it.

   Entering and leaving one is a few stores, but costs two calls into the interpreter, which each look for
   the thread state; the loop knows it already.  (The fields are those of internal/pycore_context.h and of the
   thread state, the watchers' that of internal/pycore_interp_structs.h: context_pool_check().) */

#ifndef CTASK_CONTEXT_H
#define CTASK_CONTEXT_H

#include "base/compat.h"

#define CONTEXT_POOL 32

typedef struct {
    PyObject *contexts[CONTEXT_POOL]; // owned; all with the variables of `base`
    int length;
    PyContext *base;         // owned; what was entered when a loop began to run, NULL while none does
    PyTypeObject *vars_type; // borrowed, lives as long as the interpreter; NULL unless the fields of a
                             // context are where the header says
#if CONTEXT_WATCHERS
    const uint8_t *watchers; // borrowed from the interpreter: a bit for each that is active
#endif
} context_pool;

#if CONTEXT_WATCHERS
static int
context_watch_nothing(PyContextEvent Py_UNUSED(event), PyObject *Py_UNUSED(obj))
{
    return 0;
}

/* Is the interpreter's word for who watches where the header says? */
static inline int
context_watchers_check(context_pool *pool)
{
    pool->watchers = &PyInterpreterState_Get()->active_context_watchers;
    uint8_t before = *pool->watchers;
    int id = PyContext_AddWatcher(context_watch_nothing);
    if (id < 0) {
        PyErr_Clear(); /* all are in use */
        return 0;
    }
    int found = *pool->watchers == (before | 1 << id);
    return PyContext_ClearWatcher(id) == 0 && found && *pool->watchers == before;
}
#endif

/* Watch a context being entered; where its fields do not change as they should, the pool is not used. */
static inline int
context_pool_check(context_pool *pool)
{
    PyThreadState *ts = PyThreadState_Get();
    PyObject *before = ts->context;
    uint64_t version = ts->context_ver;
    PyObject *obj = PyContext_New();
    PyContext *context = (PyContext *)obj;
    if (obj == NULL || PyContext_Enter(obj) < 0) {
        Py_XDECREF(obj);
        return -1;
    }
    PyObject *copy = PyContext_CopyCurrent();
    int as_declared = copy != NULL && context->ctx_entered == 1 && context->ctx_weakreflist == NULL &&
                      ts->context == obj && ts->context_ver == version + 1 &&
                      (PyObject *)context->ctx_prev == before && context->ctx_vars != NULL &&
                      ((PyContext *)copy)->ctx_vars == context->ctx_vars && !((PyContext *)copy)->ctx_entered;
    Py_XDECREF(copy);
    int status = PyContext_Exit(obj);
    as_declared = as_declared && !context->ctx_entered && context->ctx_prev == NULL && ts->context == before &&
                  ts->context_ver == version + 2;
#if CONTEXT_WATCHERS
    as_declared = as_declared && context_watchers_check(pool);
#endif
    pool->vars_type = as_declared ? Py_TYPE(context->ctx_vars) : NULL;
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

/* The variables of the current context, to be kept where a copy of it is asked for: see context_make(). */
static inline PyObject *
context_snapshot(context_pool *pool)
{
    PyContext *current = (PyContext *)PyThreadState_Get()->context;
    if (__builtin_expect(current == NULL || pool->vars_type == NULL, 0)) {
        return PyContext_CopyCurrent();
    }
    return Py_NewRef((PyObject *)current->ctx_vars);
}

/* Is it a context, or the variables of one? */
static inline int
context_is(const context_pool *pool, PyObject *obj)
{
    return Py_TYPE(obj) == pool->vars_type || PyContext_CheckExact(obj);
}

static __attribute__((noinline, unused)) int
context_make_new(context_pool *pool, PyObject **kept)
{
    PyObject *obj = pool->length > 0 ? pool->contexts[--pool->length] : PyContext_New();
    if (obj == NULL) {
        return -1;
    }
    PyObject *vars = *kept;
    if (vars != NULL && Py_TYPE(vars) == pool->vars_type) {
        PyContext *context = (PyContext *)obj;
        *kept = obj;
        obj = (PyObject *)context->ctx_vars;
        context->ctx_vars = (PyHamtObject *)vars;
    }
    Py_DECREF(obj);
    return 0;
}

/* What is kept becomes a context if it is only the variables of one; -1 with MemoryError set.  Anything else
   stays as it is. */
static inline int
context_make(context_pool *pool, PyObject **kept)
{
    PyObject *vars = *kept;
    if (vars == NULL || Py_TYPE(vars) != pool->vars_type) {
        return 0;
    }
    if (__builtin_expect(pool->length > 0, 1)) {
        PyObject *used = pool->contexts[pool->length - 1];
        if (__builtin_expect((PyObject *)((PyContext *)used)->ctx_vars == vars, 1)) {
            pool->length--;
            *kept = used;
            Py_DECREF(vars);
            return 0;
        }
    }
    return context_make_new(pool, kept);
}

/* Can nobody tell this context from another with the same variables? */
static inline int
context_is_anyones(context_pool *pool, PyObject *obj)
{
    return obj != NULL && Py_REFCNT(obj) == 1 && pool->base != NULL && PyContext_CheckExact(obj) &&
           !((PyContext *)obj)->ctx_entered && ((PyContext *)obj)->ctx_weakreflist == NULL;
}

/* Room for one more with these variables?  If the base has changed there is none this time: emptying the pool may
   run anything. */
static inline int
context_pool_room(context_pool *pool, PyHamtObject *vars)
{
    if (pool->length > 0 && ((PyContext *)pool->contexts[pool->length - 1])->ctx_vars != vars) {
        context_pool_empty(pool);
        return 0;
    }
    return pool->length < CONTEXT_POOL;
}

/* Py_DECREF() of a context that was used; any object is accepted, and NULL.  Not for what a dying object refers to:
   the collector may have the context on its list of garbage as well, and would empty it in the pool. */
static inline __attribute__((always_inline)) void
context_drop(context_pool *pool, PyObject *obj)
{
    if (context_is_anyones(pool, obj)) {
        PyHamtObject *vars = pool->base->ctx_vars;
        if (((PyContext *)obj)->ctx_vars == vars && context_pool_room(pool, vars)) {
            pool->contexts[pool->length++] = obj;
            return;
        }
    }
    Py_XDECREF(obj);
}

/* The opposite of context_make(), where nobody can tell. */
static inline void
context_rest(context_pool *pool, PyObject **kept)
{
    PyObject *obj = *kept;
    if (!context_is_anyones(pool, obj)) {
        return;
    }
    PyHamtObject *vars = pool->base->ctx_vars;
    if (context_pool_room(pool, vars)) {
        *kept = (PyObject *)((PyContext *)obj)->ctx_vars;
        ((PyContext *)obj)->ctx_vars = (PyHamtObject *)Py_NewRef((PyObject *)vars);
        pool->contexts[pool->length++] = obj;
    }
}

static inline int
context_is_watched(const context_pool *pool)
{
#if CONTEXT_WATCHERS
    return *pool->watchers != 0;
#else
    (void)pool;
    return 0;
#endif
}

/* PyContext_Enter() in this thread, whose state is `ts`; any object is accepted. */
static inline int
context_enter(context_pool *pool, PyThreadState *ts, PyObject *obj)
{
    PyContext *context = (PyContext *)obj;
    if (__builtin_expect(pool->vars_type == NULL || !PyContext_CheckExact(obj) || context->ctx_entered ||
                             context_is_watched(pool),
                         0)) {
        return PyContext_Enter(obj);
    }
    context->ctx_prev = (PyContext *)ts->context; /* with the thread's reference */
    context->ctx_entered = 1;
    ts->context = Py_NewRef(obj);
    ts->context_ver++;
    return 0;
}

/* PyContext_Exit(); the caller has a reference, or the thread the last one. */
static inline int
context_exit(context_pool *pool, PyThreadState *ts, PyObject *obj)
{
    PyContext *context = (PyContext *)obj;
    if (__builtin_expect(pool->vars_type == NULL || ts->context != obj || context_is_watched(pool), 0)) {
        return PyContext_Exit(obj);
    }
    ts->context = (PyObject *)context->ctx_prev;
    context->ctx_prev = NULL;
    context->ctx_entered = 0;
    ts->context_ver++;
    Py_DECREF(obj);
    return 0;
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
    if (pool->vars_type == NULL) {
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
