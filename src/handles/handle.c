/* ctask.Handle and ctask.TimerHandle: what call_soon() and call_later() return.

   They derive from asyncio's classes and fill the very same slots, so asyncio's own methods (reprs,
   comparisons, _run()) work on them; here is how they are made, cancelled and let go, in C.  A timer knows
   its place in the loop's heap, so that cancelling takes it out at once.

   Most handles are dropped by whoever gets them.  When the next one is made that shows: only the loop refers to
   the one before.  Then its call stays with the loop without a handle, in a fifth of the memory (a timer's in a
   third), and the handle is taken for the next call. */

#include "handles/handles.h"

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

PART __attribute__((noinline)) void
timer_call_free(timer_call *call)
{
    PyObject *callback = call->callback, *args = call->args, *context = call->context;
    PyMem_Free(call);
    Py_DECREF(callback);
    Py_DECREF(args);
    Py_XDECREF(context);
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

/* The slots can be written from Python, and are empty until __init__. */
static int
is_true_slot(PyObject *value)
{
    if (value == Py_False || value == NULL) {
        return 0;
    }
    if (value == Py_True) {
        return 1;
    }
    Py_INCREF(value);
    int result = PyObject_IsTrue(value);
    Py_DECREF(value);
    return result;
}

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

static int
cancel_fields(HandleObj *handle, ctask_state *st)
{
    Py_XSETREF(handle->cancelled, Py_NewRef(Py_True));
    if (handle->loop != NULL && loop_plain(handle->loop) == NULL) {
        PyObject *loop = Py_NewRef(handle->loop);
        PyObject *res = PyObject_CallMethodNoArgs(loop, st->str.get_debug);
        Py_DECREF(loop);
        int debug = res == NULL ? -1 : PyObject_IsTrue(res);
        Py_XDECREF(res);
        if (debug < 0) {
            return -1;
        }
        if (debug) {
            /* The report of a slow callback still has to say which it was. */
            PyObject *repr = PyObject_Repr((PyObject *)handle);
            if (repr == NULL) {
                return -1;
            }
            Py_XSETREF(handle->repr, repr);
        }
    }
    Py_XSETREF(handle->callback, Py_NewRef(Py_None));
    Py_XSETREF(handle->args, Py_NewRef(Py_None));
    return 0;
}

/* Takes a timer out of the loop's; 1 if it was in this loop's, and the reference is the caller's then.  The
   handle's own word for its loop is not enough: anybody can write to it. */
PART int
timer_remove(PyObject *obj, TimerObj *timer)
{
    LoopObj *loop = obj == NULL || timer->node.place == 0 ? NULL : loop_cast(obj);
    if (loop == NULL || !timers_remove(&loop->timers, timer->when_seconds, &timer->node)) {
        return 0;
    }
    if (loop->last_timer == timer) {
        loop->last_timer = NULL;
    }
    return 1;
}

static int
cancel_timer(TimerObj *timer, ctask_state *st)
{
    int cancelled = is_true_slot(timer->cancelled);
    if (cancelled != 0) {
        return cancelled < 0 ? -1 : 0;
    }
    PyObject *ours = NULL;
    if (timer_remove(timer->loop, timer)) {
        ours = (PyObject *)timer; // the heap's reference, given up last
    }
    else if (timer->loop != NULL && loop_cast(timer->loop) == NULL) {
        PyObject *loop = Py_NewRef(timer->loop);
        PyObject *res = PyObject_CallMethodOneArg(loop, st->str._timer_handle_cancelled, (PyObject *)timer);
        Py_DECREF(loop);
        if (res == NULL) {
            return -1;
        }
        Py_DECREF(res);
    }
    int result = cancel_fields((HandleObj *)timer, st);
    Py_XDECREF(ours);
    return result;
}

/* handle.cancel(), of any object that the loop was given as a handle. */
PART int
handle_cancel(PyObject *handle, ctask_state *st)
{
    if (LIKELY(Py_TYPE(handle)->tp_dealloc == handle_dealloc)) {
        int cancelled = is_true_slot(((HandleObj *)handle)->cancelled);
        return cancelled != 0 ? (cancelled < 0 ? -1 : 0) : cancel_fields((HandleObj *)handle, st);
    }
    if (LIKELY(Py_TYPE(handle)->tp_dealloc == timer_dealloc)) {
        return cancel_timer((TimerObj *)handle, st);
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
        PyObject *run = PyObject_GetAttr((PyObject *)types[i], st->str._run);
        if (events != NULL && !is_stock_run(run, PyModule_GetDict(events))) {
            st->handles.runs_replaced = 1;
        }
        Py_XDECREF(run);
        st->handles.versions[i] = types[i]->tp_version_tag;
    }
    Py_XDECREF(events);
    PyErr_Clear();
    PyErr_SetRaisedException(raised);
    return st->handles.runs_replaced;
}

/* ---- life ---- */

static int
handle_traverse(PyObject *self, visitproc visit, void *arg)
{
    HandleObj *handle = (HandleObj *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(handle->args);
    Py_VISIT(handle->callback);
    Py_VISIT(handle->cancelled);
    Py_VISIT(handle->context);
    Py_VISIT(handle->loop);
    Py_VISIT(handle->repr);
    Py_VISIT(handle->source_traceback);
    return 0;
}

static int
handle_clear(PyObject *self)
{
    HandleObj *handle = (HandleObj *)self;
    Py_CLEAR(handle->args);
    Py_CLEAR(handle->callback);
    Py_CLEAR(handle->cancelled);
    Py_CLEAR(handle->context);
    Py_CLEAR(handle->loop);
    Py_CLEAR(handle->repr);
    Py_CLEAR(handle->source_traceback);
    return 0;
}

/* handle_clear() for an object that nobody sees any more. */
static inline void
handle_drop_fields(PyObject *self)
{
    HandleObj *handle = (HandleObj *)self;
    Py_XDECREF(handle->args);
    Py_XDECREF(handle->callback);
    Py_XDECREF(handle->cancelled);
    Py_XDECREF(handle->context);
    Py_XDECREF(handle->loop);
    Py_XDECREF(handle->repr);
    Py_XDECREF(handle->source_traceback);
}

/* The tp_dealloc (`own`) of each kind.  Anything can be put into the slots, so also another handle: a chain of any
   length.  Those that are freed while one is take the interpreter's trashcan.  (In any thread: more than need to.) */
static inline __attribute__((always_inline)) void
handle_free(PyObject *self, destructor own, inquiry clear, void (*drop_fields)(PyObject *), size_t list_offset)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    clear_weakrefs(self, type);
    if (UNLIKELY(type->tp_dealloc != own)) {
        (void)clear(self);
        type->tp_free(self);
        Py_DECREF(type);
        return;
    }
    ctask_state *st = PyType_GetModuleState(type);
    freelist *list = (freelist *)((char *)st + list_offset);
    if (PY_VERSION_HEX >= 0x030E0000 || LIKELY(!st->handles.freeing)) { // every tp_dealloc is called so there
        st->handles.freeing = 1;
        drop_fields(self);
        st->handles.freeing = 0;
        freelist_give(list, self, 0);
        return;
    }
    Py_TRASHCAN_BEGIN(self, own);
    drop_fields(self);
    freelist_give(list, self, 0);
    Py_TRASHCAN_END;
}

PART void
handle_dealloc(PyObject *self)
{
    handle_free(
        self, handle_dealloc, handle_clear, handle_drop_fields, offsetof(ctask_state, handles.free_handles));
}

#if THREADSAFE_HANDLES
static int
threadsafe_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(((ThreadSafeObj *)self)->lock);
    Py_VISIT(((ThreadSafeObj *)self)->gate);
    return handle_traverse(self, visit, arg);
}

static int
threadsafe_clear(PyObject *self)
{
    Py_CLEAR(((ThreadSafeObj *)self)->lock);
    Py_CLEAR(((ThreadSafeObj *)self)->gate);
    return handle_clear(self);
}

static inline void
threadsafe_drop_fields(PyObject *self)
{
    Py_XDECREF(((ThreadSafeObj *)self)->lock);
    Py_XDECREF(((ThreadSafeObj *)self)->gate);
    handle_drop_fields(self);
}

PART void
threadsafe_dealloc(PyObject *self)
{
    handle_free(self,
                threadsafe_dealloc,
                threadsafe_clear,
                threadsafe_drop_fields,
                offsetof(ctask_state, handles.free_threadsafe));
}
#endif

static int
timer_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(((TimerObj *)self)->scheduled);
    Py_VISIT(((TimerObj *)self)->when);
    return handle_traverse(self, visit, arg);
}

static int
timer_clear(PyObject *self)
{
    Py_CLEAR(((TimerObj *)self)->when);
    Py_CLEAR(((TimerObj *)self)->scheduled);
    return handle_clear(self);
}

static inline void
timer_drop_fields(PyObject *self)
{
    Py_XDECREF(((TimerObj *)self)->scheduled);
    Py_XDECREF(((TimerObj *)self)->when);
    handle_drop_fields(self);
}

PART void
timer_dealloc(PyObject *self)
{
    handle_free(
        self, timer_dealloc, timer_clear, timer_drop_fields, offsetof(ctask_state, handles.free_timers));
}

/* ---- the types ---- */

PyDoc_STRVAR(Handle_cancel_doc,
"cancel($self, /)\n--\n\n"
"Cancel the callback; harmless if it has run or was cancelled.  (asyncio.Handle.cancel)");

static PyObject *
Handle_cancel(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    HandleObj *handle = (HandleObj *)self;
    int cancelled = is_true_slot(handle->cancelled);
    if (cancelled < 0 || (cancelled == 0 && cancel_fields(handle, state_of(self)) < 0)) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(Handle_cancelled_doc,
"cancelled($self, /)\n--\n\n"
"Return True if the callback was cancelled.  (asyncio.Handle.cancelled)");

static PyObject *
Handle_cancelled(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *cancelled = ((HandleObj *)self)->cancelled;
    if (cancelled == NULL) {
        PyErr_SetString(PyExc_AttributeError, "_cancelled");
        return NULL;
    }
    return Py_NewRef(cancelled);
}

static PyObject *
no_context(PyObject *self)
{
    return PyErr_Format(
        PyExc_AttributeError, "'%.200s' object has no attribute '_context'", Py_TYPE(self)->tp_name);
}

static PyObject *
Handle_get_context(PyObject *self, void *Py_UNUSED(closure))
{
    HandleObj *handle = (HandleObj *)self;
    if (context_make(&state_of(self)->base.contexts, &handle->context) < 0) {
        return NULL;
    }
    return handle->context == NULL ? no_context(self) : Py_NewRef(handle->context);
}

static int
Handle_set_context(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    HandleObj *handle = (HandleObj *)self;
    if (value == NULL && handle->context == NULL) {
        (void)no_context(self);
        return -1;
    }
    Py_XSETREF(handle->context, Py_XNewRef(value));
    return 0;
}

static PyGetSetDef Handle_getset[] = {
    {"_context", Handle_get_context, Handle_set_context, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef Handle_methods[] = {
    {"cancel", Handle_cancel, METH_NOARGS, Handle_cancel_doc},
    {"cancelled", Handle_cancelled, METH_NOARGS, Handle_cancelled_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(Handle_doc,
"A callback that loop.call_soon() has scheduled; it can be cancelled.\n\n"
"Stands for asyncio.Handle, which it derives from.");

static PyType_Slot Handle_slots[] = {
    {Py_tp_doc, (void *)Handle_doc},
    {Py_tp_dealloc, handle_dealloc},
    {Py_tp_traverse, handle_traverse},
    {Py_tp_clear, handle_clear},
    {Py_tp_methods, Handle_methods},
    {Py_tp_getset, Handle_getset},
    {0, NULL},
};

static PyType_Spec Handle_spec = {
    .name = "ctask.Handle",
    .basicsize = sizeof(HandleObj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = Handle_slots,
};

/* ---- handles of call_soon_threadsafe() ---- */

#if THREADSAFE_HANDLES
static int
threadsafe_set_gate(ThreadSafeObj *handle, ctask_state *st)
{
    PyObject *gate = PyObject_CallNoArgs(st->allocate_lock);
    PyObject *res = gate == NULL ? NULL : PyObject_CallMethodNoArgs(gate, st->str.acquire);
    Py_XDECREF(res);
    if (res != NULL && handle->gate == NULL && handle->depth > 0) {
        handle->gate = Py_NewRef(gate);
    }
    Py_XDECREF(gate); // making it may have run a collection, and so anything: the caller looks again
    return res == NULL ? -1 : 0;
}

/* Wait until no other thread runs the handle.  A signal's handler that raises ends the wait (-1). */
static int
threadsafe_wait(ThreadSafeObj *handle, ctask_state *st)
{
    while (UNLIKELY(handle->depth > 0) && handle->runner != PyThread_get_thread_ident()) {
        if (handle->gate == NULL) {
            if (threadsafe_set_gate(handle, st) < 0) {
                return -1;
            }
            continue;
        }
        PyObject *gate = Py_NewRef(handle->gate);
        PyObject *res = PyObject_CallMethodNoArgs(gate, st->str.acquire);
        if (res != NULL) {
            Py_DECREF(res);
            res = PyObject_CallMethodNoArgs(gate, st->str.release); // for the next who waits
        }
        Py_DECREF(gate);
        if (res == NULL) {
            return -1;
        }
        Py_DECREF(res);
    }
    return 0;
}

/* To be called before the handle is run, and threadsafe_leave() by the same thread afterwards. */
PART int
threadsafe_enter(PyObject *obj, ctask_state *st)
{
    ThreadSafeObj *handle = (ThreadSafeObj *)obj;
    if (threadsafe_wait(handle, st) < 0) {
        return -1;
    }
    handle->runner = PyThread_get_thread_ident();
    handle->depth++;
    return 0;
}

/* Also with an exception set, which stays. */
PART void
threadsafe_leave(PyObject *obj, ctask_state *st)
{
    ThreadSafeObj *handle = (ThreadSafeObj *)obj;
    handle->depth--;
    if (LIKELY(handle->depth > 0 || handle->gate == NULL)) {
        return;
    }
    PyObject *raised = PyErr_GetRaisedException();
    PyObject *gate = handle->gate;
    handle->gate = NULL;
    PyObject *res = PyObject_CallMethodNoArgs(gate, st->str.release);
    if (res == NULL) {
        PyErr_WriteUnraisable(gate);
    }
    Py_XDECREF(res);
    Py_DECREF(gate);
    PyErr_SetRaisedException(raised);
}

PyDoc_STRVAR(ThreadSafe_cancel_doc,
"cancel($self, /)\n--\n\n"
"Cancel the callback; harmless if it has run or was cancelled.\n\n"
"While it runs in another thread, wait for its end.  (asyncio.Handle.cancel)");

static PyObject *
ThreadSafe_cancel(PyObject *self, PyObject *ignored)
{
    return threadsafe_wait((ThreadSafeObj *)self, state_of(self)) < 0 ? NULL : Handle_cancel(self, ignored);
}

PyDoc_STRVAR(ThreadSafe_cancelled_doc,
"cancelled($self, /)\n--\n\n"
"Return True if the callback was cancelled.\n\n"
"While it runs in another thread, wait for its end.  (asyncio.Handle.cancelled)");

static PyObject *
ThreadSafe_cancelled(PyObject *self, PyObject *ignored)
{
    return threadsafe_wait((ThreadSafeObj *)self, state_of(self)) < 0 ? NULL : Handle_cancelled(self, ignored);
}

PyDoc_STRVAR(ThreadSafe_run_doc,
"_run($self, /)\n--\n\n"
"Call the callback unless it was cancelled.  (asyncio's handles have it under this name.)");

static PyObject *
ThreadSafe_run(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    ctask_state *st = state_of(self);
    if (threadsafe_enter(self, st) < 0) {
        return NULL;
    }
    PyObject *res = NULL;
    int cancelled = is_true_slot(((HandleObj *)self)->cancelled);
    if (cancelled == 0) {
        res = PyObject_CallMethodOneArg(st->stock_Handle, st->str._run, self);
    }
    else if (cancelled > 0) {
        res = Py_NewRef(Py_None);
    }
    threadsafe_leave(self, st);
    return res;
}

static PyMethodDef ThreadSafe_methods[] = {
    {"cancel", ThreadSafe_cancel, METH_NOARGS, ThreadSafe_cancel_doc},
    {"cancelled", ThreadSafe_cancelled, METH_NOARGS, ThreadSafe_cancelled_doc},
    {"_run", ThreadSafe_run, METH_NOARGS, ThreadSafe_run_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(ThreadSafe_doc,
"A callback that loop.call_soon_threadsafe() has scheduled; any thread can cancel it.\n\n"
"Stands for asyncio's class of this name, which it derives from.");

static PyType_Slot ThreadSafe_slots[] = {
    {Py_tp_doc, (void *)ThreadSafe_doc},
    {Py_tp_dealloc, threadsafe_dealloc},
    {Py_tp_traverse, threadsafe_traverse},
    {Py_tp_clear, threadsafe_clear},
    {Py_tp_methods, ThreadSafe_methods},
    {0, NULL},
};

static PyType_Spec ThreadSafe_spec = {
    .name = "ctask._ctask._ThreadSafeHandle",
    .basicsize = sizeof(ThreadSafeObj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = ThreadSafe_slots,
};
#endif

/* ---- timers ---- */

static PyObject *
Timer_cancel(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (cancel_timer((TimerObj *)self, state_of(self)) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Timer_get_when(PyObject *self, void *Py_UNUSED(closure))
{
    TimerObj *timer = (TimerObj *)self;
    return timer->when != NULL ? Py_NewRef(timer->when) : PyFloat_FromDouble(timer->when_seconds);
}

static int
Timer_set_when(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "cannot delete attribute");
        return -1;
    }
    Py_XSETREF(((TimerObj *)self)->when, Py_NewRef(value));
    return 0;
}

PyDoc_STRVAR(Timer_when_doc,
"when($self, /)\n--\n\n"
"Return the time of the call in seconds, by loop.time().  (asyncio.TimerHandle.when)");

static PyObject *
Timer_when(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return Timer_get_when(self, NULL);
}

static PyObject *
Timer_get_scheduled(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((TimerObj *)self)->node.place != 0);
}

/* asyncio's __init__ says False; where a timer is, its place in the heap knows. */
static int
Timer_set_scheduled(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(value), void *Py_UNUSED(closure))
{
    return 0;
}

static PyMethodDef Timer_methods[] = {
    {"cancel", Timer_cancel, METH_NOARGS, Handle_cancel_doc},
    {"cancelled", Handle_cancelled, METH_NOARGS, Handle_cancelled_doc},
    {"when", Timer_when, METH_NOARGS, Timer_when_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef Timer_getset[] = {
    {"_when", Timer_get_when, Timer_set_when, NULL, NULL},
    {"_scheduled", Timer_get_scheduled, Timer_set_scheduled, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(Timer_doc,
"A callback that loop.call_later() or call_at() has scheduled; it can be cancelled.\n\n"
"Stands for asyncio.TimerHandle, which it derives from.");

static PyType_Slot Timer_slots[] = {
    {Py_tp_doc, (void *)Timer_doc},
    {Py_tp_dealloc, timer_dealloc},
    {Py_tp_traverse, timer_traverse},
    {Py_tp_clear, timer_clear},
    {Py_tp_methods, Timer_methods},
    {Py_tp_getset, Timer_getset},
    {0, NULL},
};

static PyType_Spec Timer_spec = {
    .name = "ctask.TimerHandle",
    .basicsize = sizeof(TimerObj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = Timer_slots,
};

/* A type over asyncio's of this name and our Handle. */
static int
add_derived(PyObject *module, const char *name, PyTypeObject **slot, PyType_Spec *spec, PyObject *stock,
            ctask_state *st)
{
    PyObject *bases = PyTuple_Pack(2, stock, (PyObject *)st->HandleType);
    if (bases == NULL) {
        return -1;
    }
    int result = add_type(module, name, slot, spec, bases);
    Py_DECREF(bases);
    return result;
}

PART int
handle_setup(PyObject *module, ctask_state *st)
{
    if (add_type(module, "Handle", &st->HandleType, &Handle_spec, st->stock_Handle) < 0 ||
        add_derived(module, "TimerHandle", &st->TimerHandleType, &Timer_spec, st->stock_TimerHandle, st) < 0) {
        return -1;
    }
#if THREADSAFE_HANDLES
    return add_derived(module,
                       "_ThreadSafeHandle",
                       &st->ThreadSafeHandleType,
                       &ThreadSafe_spec,
                       st->stock_ThreadSafeHandle,
                       st);
#else
    return 0;
#endif
}
