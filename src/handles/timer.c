/* ctask.TimerHandle: what call_later() and call_at() return.

   It knows its place in the loop's timers, so that cancelling takes it out at once. */

#include "handles/handle_type.h"
#include "handles/timer.h"
#include "handles/work.h"

/* ---- cancelling ---- */

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

PART int
timer_cancel(TimerObj *timer, ctask_state *st)
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
    int result = handle_cancel_fields((HandleObj *)timer, st);
    Py_XDECREF(ours);
    return result;
}

/* ---- life ---- */

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

/* ---- the type ---- */

static PyObject *
Timer_cancel(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (timer_cancel((TimerObj *)self, state_of(self)) < 0) {
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

PART int
timer_setup(PyObject *module, ctask_state *st)
{
    return handle_add_derived(
        module, "TimerHandle", &st->TimerHandleType, &Timer_spec, st->stock_TimerHandle, st);
}
