/* Differences between the supported CPython versions (3.11 to 3.15); a line that only one part needs is there.

   Two kinds of facts live here: functions that a version lacks, and the memory layout of `_asyncio`'s Future
   and Task, which ctask's own types share (docs/design.md, "One layout").  The layouts are those of
   Modules/_asynciomodule.c in each release; check_layout() in ctask.c compares them with the running
   interpreter before any type is made, so a release that moves a field is refused, never misread. */

#ifndef CTASK_COMPAT_H
#define CTASK_COMPAT_H

#define PY_SSIZE_T_CLEAN
#include "pyconfig.h"
#include "patchlevel.h"

/* Some things are only in internal headers.  From 3.14 on the running loop, the current task and the list of
   tasks are fields of the thread state (registry.c checks them against `_asyncio` at import); before, the
   current task is a dictionary's value, and putting another in its place is a pointer's store for who knows
   the entry.  The variables of a context (context.h) and whether an object has attributes (below) are a field
   away as well. */
#define Py_BUILD_CORE_MODULE 1

#include "Python.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wcast-function-type"
#include "internal/pycore_dict.h"
#if PY_VERSION_HEX >= 0x030E0000
#include "internal/pycore_tstate.h"
#define TASKS_IN_THREAD_STATE 1
#else
#define TASKS_IN_THREAD_STATE 0
#endif
#include "internal/pycore_context.h"
#include "internal/pycore_gc.h"
#if PY_VERSION_HEX >= 0x030E0000
#define CONTEXT_WATCHERS 1
#else
#define CONTEXT_WATCHERS 0
#endif
#if PY_VERSION_HEX >= 0x030E0000 || PY_VERSION_HEX < 0x030D0000
#include "internal/pycore_interp.h"
#endif
#if PY_VERSION_HEX >= 0x030D0000
#include "internal/pycore_object.h"
#endif
#pragma GCC diagnostic pop

#include "base/list.h"

/* Built as one translation unit (ctask.c includes the parts) the parts see each other's functions as
   static, and the compiler inlines across them.  With CTASK_SPLIT each part is compiled by itself. */
#ifdef CTASK_SPLIT
#define PART __attribute__((visibility("hidden")))
#else
#define PART static
#endif

#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

typedef enum { FUTURE_PENDING, FUTURE_CANCELLED, FUTURE_FINISHED } future_state;

/* ---- Future and Task: the fields, in `_asyncio`'s order ---- */

#define FUTURE_COMMON_FIELDS                                                                   \
    PyObject_HEAD                                                                              \
    PyObject *loop;             /* owned; NULL until __init__ */                               \
    PyObject *callback0;        /* owned; first callback, or the Task that waits (future.c) */ \
    PyObject *context0;         /* owned; None with a Task that waits */                       \
    PyObject *callbacks;        /* owned; list of (callback, context), or NULL */              \
    PyObject *exception;        /* owned */                                                    \
    PyObject *exception_tb;     /* owned */                                                    \
    PyObject *result;           /* owned */                                                    \
    PyObject *source_traceback; /* owned */                                                    \
    PyObject *cancel_msg;       /* owned */

#if PY_VERSION_HEX < 0x030D0000 /* 3.11, 3.12 */

#define FUTURE_FIELDS                                    \
    FUTURE_COMMON_FIELDS                                 \
    future_state state;                                  \
    int log_traceback;                                   \
    int blocking;                                        \
    PyObject *dict;             /* owned */              \
    PyObject *weakrefs;         /* managed by weakref */ \
    PyObject *cancelled_exc;    /* owned; handed out once */

#define TASK_FIELDS                                                                 \
    PyObject *fut_waiter;       /* owned; what the task waits for */                \
    PyObject *coro;             /* owned */                                         \
    PyObject *name;             /* owned; str, or an int that get_name() formats */ \
    PyObject *context;          /* owned */                                         \
    int must_cancel;                                                                \
    int log_destroy_pending;                                                        \
    int num_cancels_requested;

#else /* 3.13 and later */

#if PY_VERSION_HEX >= 0x030E0000
#define FUTURE_CALL_GRAPH 1
#define FUTURE_AWAITED_BY PyObject *awaited_by; /* owned; one waiter, or a set of them */
#define FUTURE_AWAITED_BY_KIND \
    char is_task;              \
    char awaited_by_is_set;
#else
#define FUTURE_AWAITED_BY
#define FUTURE_AWAITED_BY_KIND
#endif

#define FUTURE_FIELDS                                        \
    FUTURE_COMMON_FIELDS                                     \
    PyObject *cancelled_exc;    /* owned; handed out once */ \
    FUTURE_AWAITED_BY                                        \
    future_state state;                                      \
    FUTURE_AWAITED_BY_KIND                                   \
    unsigned log_traceback : 1;                              \
    unsigned blocking : 1;

#define TASK_FIELDS                                                                 \
    unsigned must_cancel : 1;                                                       \
    unsigned log_destroy_pending : 1;                                               \
    int num_cancels_requested;                                                      \
    PyObject *fut_waiter;       /* owned; what the task waits for */                \
    PyObject *coro;             /* owned */                                         \
    PyObject *name;             /* owned; str, or an int that get_name() formats */ \
    PyObject *context;          /* owned */

#endif

#ifndef FUTURE_CALL_GRAPH
#define FUTURE_CALL_GRAPH 0
#endif

typedef struct {
    FUTURE_FIELDS
} FutureObj;

/* `node` links the task into the list of tasks.  From 3.14 on it is `_asyncio`'s own field and list; before,
   it is ours (registry.c), in place of a WeakSet entry. */
typedef struct {
    FUTURE_FIELDS
    TASK_FIELDS
    struct list_node node;
    uint64_t serial; // no other task of this interpreter has it; 0 until the task is listed
    size_t since; // how far its loop's ready queue had come when it waited last
} TaskObj;

#define STOCK_FUTURE_SIZE ((Py_ssize_t)sizeof(FutureObj))
#if TASKS_IN_THREAD_STATE
#define STOCK_TASK_SIZE ((Py_ssize_t)offsetof(TaskObj, serial))
#else
#define STOCK_TASK_SIZE ((Py_ssize_t)offsetof(TaskObj, node))
#endif

/* ---- asyncio.Handle: the slots of a Python class, in the order in which type() lays them out ---- */

#if PY_VERSION_HEX < 0x030C0000
#define HANDLE_WEAKREFS PyObject *weakrefs; /* managed by weakref */
#else
#define HANDLE_WEAKREFS
#endif

/* From 3.14 on call_soon_threadsafe() returns an asyncio.events._ThreadSafeHandle. */
#define THREADSAFE_HANDLES (PY_VERSION_HEX >= 0x030E0000)

/* ---- the instance dictionary of a Future ---- */

#if PY_VERSION_HEX < 0x030D0000
#define FUTURE_VISIT_DICT(fut) Py_VISIT((fut)->dict)
#define FUTURE_CLEAR_DICT(fut) Py_CLEAR((fut)->dict)
#define FUTURE_HAS_ATTRIBUTES(fut) 0 /* once it is cleared */
#define FUTURE_HAS_DICT(fut) ((fut)->dict != NULL)
#else
#define FUTURE_VISIT_DICT(fut)                                                  \
    do {                                                                        \
        int visited = PyObject_VisitManagedDict((PyObject *)(fut), visit, arg); \
        if (visited) {                                                          \
            return visited;                                                     \
        }                                                                       \
    } while (0)
#define FUTURE_CLEAR_DICT(fut)                            \
    do {                                                  \
        if (FUTURE_HAS_ATTRIBUTES(fut)) {                 \
            PyObject_ClearManagedDict((PyObject *)(fut)); \
        }                                                 \
    } while (0)
#define FUTURE_HAS_ATTRIBUTES(fut) object_has_attributes((PyObject *)(fut))
#define FUTURE_HAS_DICT(fut) FUTURE_HAS_ATTRIBUTES(fut)

/* Most have none, in a dictionary or in the values that 3.14 lays behind the object.  One that had some does
   not look like new again. */
static inline int
object_has_attributes(PyObject *obj)
{
    if (*(PyObject **)((char *)obj + MANAGED_DICT_OFFSET) != NULL) {
        return 1;
    }
    if (!PyType_HasFeature(Py_TYPE(obj), Py_TPFLAGS_INLINE_VALUES)) {
        return 0;
    }
    PyDictValues *values = _PyObject_InlineValues(obj);
    return !values->valid || values->size != 0;
}
#endif

/* ---- constants that are never freed ---- */

/* None, True, False and the empty tuple are immortal from 3.12 on: a new reference is a pointer. */
#if PY_VERSION_HEX >= 0x030C0000
#define CONSTANT_REF(obj) (obj)
#define CONSTANT_DROP(obj) ((void)(obj))
#else
#define CONSTANT_REF(obj) Py_NewRef(obj)
#define CONSTANT_DROP(obj) Py_DECREF(obj)
#endif

/* ---- chains of objects ---- */

/* An object that refers to one of these may be the first of a chain of any length: its tp_dealloc takes the
   interpreter's trashcan (Py_TRASHCAN_BEGIN).  From 3.14 on every tp_dealloc is called so. */
static inline int
may_go_on(PyObject *obj)
{
    return PY_VERSION_HEX < 0x030E0000 && obj != NULL && PyType_HasFeature(Py_TYPE(obj), Py_TPFLAGS_HAVE_GC);
}

/* ---- functions that a version lacks ---- */

#if PY_VERSION_HEX < 0x030C0000
static inline PyObject *
PyErr_GetRaisedException(void)
{
    PyObject *type, *value, *tb;
    PyErr_Fetch(&type, &value, &tb);
    if (type == NULL) {
        return NULL;
    }
    PyErr_NormalizeException(&type, &value, &tb);
    if (tb != NULL) {
        PyException_SetTraceback(value, tb);
    }
    Py_DECREF(type);
    Py_XDECREF(tb);
    return value;
}

static inline void
PyErr_SetRaisedException(PyObject *exc)
{
    if (exc == NULL) {
        PyErr_Clear();
        return;
    }
    PyErr_Restore(Py_NewRef(Py_TYPE(exc)), exc, PyException_GetTraceback(exc));
}
#endif

#if PY_VERSION_HEX >= 0x030D0000
/* Exported for _asyncio, but its header needs more of CPython's insides than it is worth. */
extern int _PyGen_FetchStopIterationValue(PyObject **);
#endif

/* StopIteration(value).  What _PyGen_SetStopIterationValue() does by calling the type, at a quarter of the price. */
static inline PyStopIterationObject *
new_stop_iteration(PyObject *value)
{
    PyTypeObject *type = (PyTypeObject *)PyExc_StopIteration;
    PyObject *args = PyTuple_Pack(1, value);
    PyStopIterationObject *stop = args == NULL ? NULL : (PyStopIterationObject *)type->tp_alloc(type, 0);
    if (stop == NULL) {
        Py_XDECREF(args);
        return NULL;
    }
    stop->args = args;
    stop->value = Py_NewRef(value);
    return stop;
}

/* Set StopIteration(value), as an iterator or coroutine ends; -1 with MemoryError instead.  `await` on an object in
   C costs one of these for each result that is not None (see coro_set_stop(), too). */
static inline int
set_stop_iteration(PyObject *value)
{
    PyStopIterationObject *stop = new_stop_iteration(value);
    if (stop == NULL) {
        return -1;
    }
    PyErr_SetRaisedException((PyObject *)stop);
    return 0;
}

#if PY_VERSION_HEX < 0x030D0000
static inline int
PyObject_GetOptionalAttr(PyObject *obj, PyObject *name, PyObject **value)
{
    return _PyObject_LookupAttr(obj, name, value);
}

/* A weak reference's object as a new reference; 0 and NULL if it is gone. */
static inline int
PyWeakref_GetRef(PyObject *ref, PyObject **obj)
{
    PyObject *borrowed = PyWeakref_GetObject(ref);
    *obj = borrowed == NULL || borrowed == Py_None ? NULL : Py_NewRef(borrowed);
    return borrowed == NULL ? -1 : *obj != NULL;
}

static inline int
Py_IsFinalizing(void)
{
    return _Py_IsFinalizing();
}
#endif

/* Offsets of weak references and attributes, named as from 3.12 on. */
#if PY_VERSION_HEX < 0x030C0000
#include <structmember.h>
#define Py_T_PYSSIZET T_PYSSIZET
#define Py_READONLY READONLY
#endif

/* Does anybody wait for the interpreter to breathe()? */
static inline int
must_breathe(PyThreadState *ts)
{
#if PY_VERSION_HEX >= 0x030D0000
    return (__atomic_load_n(&ts->eval_breaker, __ATOMIC_RELAXED) & 0xFF) != 0; // above are a monitor's
#else
    return __atomic_load_n(&ts->interp->ceval.eval_breaker._value, __ATOMIC_RELAXED) != 0;
#endif
}

/* What the interpreter does between two instructions of Python code, for turns of the loop that run none: let another
   thread have the lock if one asks for it, and call signal handlers.  -1 if one of these raised. */
static inline int
breathe(PyThreadState *ts)
{
    if (LIKELY(!must_breathe(ts))) {
        return 0;
    }
    Py_BEGIN_ALLOW_THREADS Py_END_ALLOW_THREADS return PyErr_CheckSignals();
}

#endif
