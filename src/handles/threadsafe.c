/* The handles of call_soon_threadsafe(), from 3.14 on: cancel() and cancelled() of any thread wait while another runs
   the callback.  The loop calls threadsafe_enter() before it runs one. */

#include "handles/handle_type.h"
#include "handles/threadsafe.h"

#if THREADSAFE_HANDLES
/* ---- life ---- */

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

/* ---- running and waiting ---- */

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

PART int
threadsafe_setup(PyObject *module, ctask_state *st)
{
#if THREADSAFE_HANDLES
    return handle_add_derived(module,
                              "_ThreadSafeHandle",
                              &st->ThreadSafeHandleType,
                              &ThreadSafe_spec,
                              st->stock_ThreadSafeHandle,
                              st);
#else
    (void)module, (void)st;
    return 0;
#endif
}
