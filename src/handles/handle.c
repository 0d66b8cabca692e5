/* Handles as the loop deals with them: how they are made, cancelled and let go, in C; and whether a program wants to
   see what runs.

   Most handles are dropped by whoever gets them.  When the next one is made that shows: only the loop refers to
   the one before.  Then its call stays with the loop without a handle, in a fifth of the memory (a timer's in a
   third), and the handle is taken for the next call.

   What Python sees of them is in handle_type.c, timer.c and threadsafe.c. */

#include "handles/handle.h"
#include "handles/handle_type.h"
#include "handles/threadsafe.h"
#include "handles/timer.h"

/* What differs from handle to handle; the rest is as in every new one. */
static inline int
handle_set_call(HandleObj *handle, ctask_state *st, PyObject *callback, PyObject *const *args, Py_ssize_t nargs,
                PyObject *context)
{
    handle->callback = Py_NewRef(callback);
    if (LIKELY(nargs == 0)) {
        handle->args = CONSTANT_REF(st->empty_tuple);
    }
    else {
        handle->args = PyTuple_New(nargs);
        if (handle->args == NULL) {
            return -1;
        }
        for (Py_ssize_t i = 0; i < nargs; i++) {
            PyTuple_SET_ITEM(handle->args, i, Py_NewRef(args[i]));
        }
    }
    handle->context = context == NULL || context == Py_None ? context_snapshot(&st->base.contexts)
                                                            : Py_NewRef(context);
    return handle->context == NULL ? -1 : 0;
}

static inline __attribute__((always_inline)) int
handle_fill(HandleObj *handle, ctask_state *st, PyObject *loop, PyObject *callback, PyObject *const *args,
            Py_ssize_t nargs, PyObject *context, int debug)
{
    handle->cancelled = CONSTANT_REF(Py_False);
    handle->repr = CONSTANT_REF(Py_None);
    handle->source_traceback = CONSTANT_REF(Py_None);
    handle->loop = Py_NewRef(loop);
    if (handle_set_call(handle, st, callback, args, nargs, context) < 0) {
        return -1;
    }
    PyObject *frame = UNLIKELY(debug) ? (PyObject *)PyEval_GetFrame() : NULL;
    if (LIKELY(frame == NULL)) {
        return 0;
    }
    PyObject *stack = PyObject_CallOneArg(st->extract_stack, frame);
    if (stack == NULL) {
        return -1;
    }
    Py_SETREF(handle->source_traceback, stack);
    return 0;
}

static __attribute__((noinline)) HandleObj *
handle_make(LoopObj *loop, PyTypeObject *type, freelist *list, size_t size, PyObject *callback,
            PyObject *const *args, Py_ssize_t nargs, PyObject *context, int debug)
{
    HandleObj *handle = (HandleObj *)freelist_take(list, type);
    if (handle == NULL) {
        return NULL;
    }
    memset((char *)handle + sizeof(PyObject), 0, size - sizeof(PyObject));
    PyObject_GC_Track(handle);
    if (handle_fill(handle, loop->st, (PyObject *)loop, callback, args, nargs, context, debug) < 0) {
        Py_DECREF(handle);
        return NULL;
    }
    return handle;
}

static inline HandleObj *
spare_take(LoopObj *loop, spare_list *spare, PyObject *callback, PyObject *const *args, Py_ssize_t nargs,
           PyObject *context)
{
    HandleObj *handle = spare->handles[--spare->length];
    handle->loop = Py_NewRef(loop);
    if (UNLIKELY(handle_set_call(handle, loop->st, callback, args, nargs, context) < 0)) {
        Py_DECREF(handle);
        return NULL;
    }
    return handle;
}

/* ---- handles that nobody kept ---- */

/* Does nobody but the loop refer to it, and did nobody do anything to it? */
static inline int
is_unkept(HandleObj *handle)
{
    return Py_REFCNT(handle) == 1 && handle->cancelled == Py_False && handle->repr == Py_None &&
           handle->source_traceback == Py_None &&
           *(PyObject **)((char *)handle + Py_TYPE(handle)->tp_weaklistoffset) == NULL;
}

/* Can its call do without it?  Anybody may have written to its slots. */
static inline int
has_plain_call(LoopObj *loop, HandleObj *handle)
{
    return handle->loop == (PyObject *)loop && handle->callback != NULL && handle->args != NULL &&
           PyTuple_CheckExact(handle->args) && handle->context != NULL &&
           context_is(&loop->st->base.contexts, handle->context);
}

/* The handle at the end of the ready queue, if nobody kept it: without its call, which stays there. */
static inline HandleObj *
take_last_handle(LoopObj *loop)
{
    ring_entry *last = ring_last(&loop->ready);
    HandleObj *handle = ring_subject(last);
    if (ring_kind(last) != READY_HANDLE || Py_TYPE(handle)->tp_dealloc != handle_dealloc ||
        !is_unkept(handle) || !has_plain_call(loop, handle)) {
        return NULL;
    }
    *last = ring_make(handle->callback, READY_APPLY, handle->args, handle->context);
    handle->callback = handle->args = handle->context = NULL;
    return handle;
}

/* The same of timers. */
static inline TimerObj *
take_last_timer(LoopObj *loop)
{
    TimerObj *timer = loop->last_timer;
    if (!is_unkept((HandleObj *)timer) || timer->when != NULL || timer->scheduled != NULL ||
        !has_plain_call(loop, (HandleObj *)timer)) {
        return NULL;
    }
    timer_call *call = PyMem_Malloc(sizeof(timer_call));
    if (call == NULL) {
        return NULL;
    }
    timers_replace(&loop->timers, timer->when_seconds, &timer->node, &call->node);
    call->node.order |= 1;
    call->callback = timer->callback;
    call->args = timer->args;
    call->context = timer->context;
    timer->callback = timer->args = timer->context = NULL;
    loop->last_timer = NULL;
    return timer;
}

/* ---- making them ---- */

static inline HandleObj *
handle_create_fresh(LoopObj *loop, PyObject *callback, PyObject *const *args, Py_ssize_t nargs,
                    PyObject *context, int debug)
{
    if (UNLIKELY(loop->spare.length == 0 || debug)) {
        ctask_state *st = loop->st;
        return handle_make(loop,
                           st->HandleType,
                           &st->handles.free_handles,
                           sizeof(HandleObj),
                           callback,
                           args,
                           nargs,
                           context,
                           debug);
    }
    return spare_take(loop, &loop->spare, callback, args, nargs, context);
}

/* handle_create() when others are ready, too.  (Apart from it, as both tests and calls cost those that come alone.) */
static __attribute__((noinline)) HandleObj *
handle_create_behind(LoopObj *loop, PyObject *callback, PyObject *const *args, Py_ssize_t nargs,
                     PyObject *context, int debug)
{
    HandleObj *handle = UNLIKELY(debug) ? NULL : take_last_handle(loop);
    if (handle == NULL) {
        return handle_create_fresh(loop, callback, args, nargs, context, debug);
    }
    if (UNLIKELY(handle_set_call(handle, loop->st, callback, args, nargs, context) < 0)) {
        Py_CLEAR(handle);
    }
    return handle;
}

/* A new ctask.Handle, or a used one.  `context` may be NULL for a copy of the current one. */
PART HandleObj *
handle_create(LoopObj *loop, PyObject *callback, PyObject *const *args, Py_ssize_t nargs, PyObject *context,
              int debug)
{
    if (ring_length(&loop->ready) > 0) {
        return handle_create_behind(loop, callback, args, nargs, context, debug);
    }
    return handle_create_fresh(loop, callback, args, nargs, context, debug);
}

/* The same for call_soon_threadsafe().  Its handles are not taken from the call before: other threads, each as fast as
   the loop, would fill the ready queue faster than it is emptied. */
PART HandleObj *
handle_create_threadsafe(LoopObj *loop, PyObject *callback, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *context, int debug)
{
#if THREADSAFE_HANDLES
    if (UNLIKELY(loop->spare_threadsafe.length == 0 || debug)) {
        ctask_state *st = loop->st;
        return handle_make(loop,
                           st->ThreadSafeHandleType,
                           &st->handles.free_threadsafe,
                           sizeof(ThreadSafeObj),
                           callback,
                           args,
                           nargs,
                           context,
                           debug);
    }
    return spare_take(loop, &loop->spare_threadsafe, callback, args, nargs, context);
#else
    return handle_create_fresh(loop, callback, args, nargs, context, debug);
#endif
}

/* Where a handle of this kind is kept, NULL if it is not. */
static inline spare_list *
spare_for(LoopObj *loop, HandleObj *handle)
{
    destructor dealloc = Py_TYPE(handle)->tp_dealloc;
    if (LIKELY(dealloc == handle_dealloc)) {
        return &loop->spare;
    }
#if THREADSAFE_HANDLES
    if (dealloc == threadsafe_dealloc && ((ThreadSafeObj *)handle)->lock == NULL &&
        ((ThreadSafeObj *)handle)->depth == 0) {
        return &loop->spare_threadsafe;
    }
#endif
    return NULL;
}

/* One that is not kept still gives its context back. */
static __attribute__((noinline)) void
handle_let_go(LoopObj *loop, HandleObj *handle)
{
    destructor dealloc = Py_TYPE(handle)->tp_dealloc;
    if (LIKELY(dealloc == timer_dealloc || dealloc == handle_dealloc)) {
        context_rest(&loop->st->base.contexts, &handle->context);
    }
    Py_DECREF(handle);
}

/* Py_XDECREF(), which gcc does not inline here. */
static inline __attribute__((always_inline)) void
drop(PyObject *obj)
{
    if (obj != NULL) {
        Py_DECREF(obj);
    }
}

/* Drop the loop's reference to a handle that has run.  One that nobody else holds and nothing was done to
   is kept for the next call_soon(), tracked as it is: that is half of what a callback costs otherwise. */
PART void
handle_retire(LoopObj *loop, HandleObj *handle)
{
    spare_list *spare = spare_for(loop, handle);
    if (spare == NULL || !is_unkept(handle)) {
        handle_let_go(loop, handle);
        return;
    }
    PyObject *callback = handle->callback, *args = handle->args, *context = handle->context;
    PyObject *loop_obj = handle->loop;
    handle->callback = handle->args = handle->context = handle->loop = NULL;
    /* Dropping these may run anything; the handle is out of everybody's reach. */
    drop(callback);
    drop(args);
    context_drop(&loop->st->base.contexts, context);
    drop(loop_obj);
    if (UNLIKELY(spare->length == SPARE_HANDLES || !loop->is_open)) {
        Py_DECREF(handle);
        return;
    }
    spare->handles[spare->length++] = handle;
}

static inline __attribute__((always_inline)) TimerObj *
timer_new_fresh(LoopObj *loop, double seconds, PyObject *when, PyObject *callback, PyObject *const *args,
                Py_ssize_t nargs, PyObject *context, int debug)
{
    ctask_state *st = loop->st;
    TimerObj *timer = (TimerObj *)freelist_take(&st->handles.free_timers, st->TimerHandleType);
    if (timer == NULL) {
        return NULL;
    }
    /* In two pieces: of the whole gcc would make a `rep stos`, which takes longer. */
    char *fields = (char *)timer + sizeof(PyObject);
    size_t half = (sizeof(TimerObj) - sizeof(PyObject)) / 2;
    memset(fields, 0, half);
    memset(fields + half, 0, sizeof(TimerObj) - sizeof(PyObject) - half);
    timer->when_seconds = seconds;
    timer->when = Py_XNewRef(when);
    PyObject_GC_Track(timer);
    if (handle_fill((HandleObj *)timer, st, (PyObject *)loop, callback, args, nargs, context, debug) < 0) {
        Py_DECREF(timer);
        return NULL;
    }
    return timer;
}

/* timer_new() when nobody but the loop refers to the one before. */
static __attribute__((noinline)) TimerObj *
timer_new_behind(LoopObj *loop, double seconds, PyObject *when, PyObject *callback, PyObject *const *args,
                 Py_ssize_t nargs, PyObject *context, int debug)
{
    TimerObj *timer = loop->last_timer == NULL || debug ? NULL : take_last_timer(loop);
    if (timer == NULL) {
        return timer_new_fresh(loop, seconds, when, callback, args, nargs, context, debug);
    }
    timer->when_seconds = seconds;
    timer->when = Py_XNewRef(when);
    if (UNLIKELY(handle_set_call((HandleObj *)timer, loop->st, callback, args, nargs, context) < 0)) {
        Py_CLEAR(timer);
    }
    return timer;
}

/* A new ctask.TimerHandle, not yet in the heap, or a used one.  `when` is what the caller gave if that is not a
   float. */
PART TimerObj *
timer_new(LoopObj *loop, double seconds, PyObject *when, PyObject *callback, PyObject *const *args,
          Py_ssize_t nargs, PyObject *context, int debug)
{
    if (loop->last_timer != NULL && Py_REFCNT(loop->last_timer) == 1) {
        return timer_new_behind(loop, seconds, when, callback, args, nargs, context, debug);
    }
    return timer_new_fresh(loop, seconds, when, callback, args, nargs, context, debug);
}

/* The handle for a call that has none, for those who ask. */
PART TimerObj *
timer_of_call(LoopObj *loop, double seconds, const timer_call *call)
{
    return timer_new_behind(loop,
                            seconds,
                            NULL,
                            call->callback,
                            &PyTuple_GET_ITEM(call->args, 0),
                            PyTuple_GET_SIZE(call->args),
                            call->context,
                            0);
}

/* ---- cancelling ---- */

/* 1, 0 or -1, of any object that the loop was given as a handle. */
PART int
handle_is_cancelled(PyObject *handle)
{
    destructor dealloc = Py_TYPE(handle)->tp_dealloc;
    if (LIKELY(dealloc == handle_dealloc || dealloc == timer_dealloc)) {
        return is_true_slot(((HandleObj *)handle)->cancelled);
    }
#if THREADSAFE_HANDLES
    if (LIKELY(dealloc == threadsafe_dealloc)) {
        return is_true_slot(((HandleObj *)handle)->cancelled); // asyncio's loop does not wait here either
    }
#endif
    PyObject *value = PyObject_GetAttrString(handle, "_cancelled");
    if (value == NULL) {
        return -1;
    }
    int result = PyObject_IsTrue(value);
    Py_DECREF(value);
    return result;
}

/* handle.cancel(), of any object that the loop was given as a handle. */
PART int
handle_cancel(PyObject *handle, ctask_state *st)
{
    if (LIKELY(Py_TYPE(handle)->tp_dealloc == handle_dealloc)) {
        int cancelled = is_true_slot(((HandleObj *)handle)->cancelled);
        return cancelled != 0 ? (cancelled < 0 ? -1 : 0) : handle_cancel_fields((HandleObj *)handle, st);
    }
    if (LIKELY(Py_TYPE(handle)->tp_dealloc == timer_dealloc)) {
        return timer_cancel((TimerObj *)handle, st);
    }
    PyObject *res = PyObject_CallMethodNoArgs(handle, st->str.cancel);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

/* ---- what runs them ---- */

/* asyncio's own, as it was compiled; whoever wraps it copies its name at most. */
static int
is_stock_run(PyObject *run, PyObject *events)
{
    if (run == NULL || !PyFunction_Check(run) || PyFunction_GET_GLOBALS(run) != events) {
        return 0;
    }
    PyObject *qualname = ((PyCodeObject *)PyFunction_GET_CODE(run))->co_qualname;
    return PyUnicode_CompareWithASCIIString(qualname, "Handle._run") == 0;
}

PART __attribute__((noinline)) int
handle_look_at_run(ctask_state *st)
{
    PyTypeObject *types[] = {st->HandleType, st->TimerHandleType};
    PyObject *raised = PyErr_GetRaisedException();
    PyObject *events = PyImport_ImportModule("asyncio.events");
    st->handles.runs_replaced = 0;
    for (int i = 0; i < 2; i++) {
        PyErr_Clear();
        PyObject *run = PyObject_GetAttr((PyObject *)types[i], st->str._run);
        if (events != NULL && !is_stock_run(run, PyModule_GetDict(events))) {
            st->handles.runs_replaced = 1;
        }
        Py_XDECREF(run);
        /* Without memory for the look it is taken again in the next iteration. */
        st->handles.versions[i] = events == NULL ? 0 : types[i]->tp_version_tag;
    }
    Py_XDECREF(events);
    PyErr_Clear();
    PyErr_SetRaisedException(raised);
    return st->handles.runs_replaced;
}
