/* Event: all who wait go on when it is set, and nobody waits while it is. */

#include "coro/coro.h"
#include "sync/sync.h"

#define EVENT_UNSET 2

typedef struct {
    SYNC_FIELDS
    char value; // 0, 1, or EVENT_UNSET before __init__
} EventObj;

static void event_dealloc(PyObject *self);

/* ---- overrides ---- */

static sync_methods
event_methods(ctask_state *st)
{
    return (sync_methods){.names = {st->str._get_loop}, .n_internals = 1, .n = 1};
}

static int
event_look(SyncObj *sync)
{
    sync_methods methods = event_methods(sync->st);
    return sync_look(sync, SYNC_EVENT, &methods, sync->st->EventType, sync->st->stock_Event);
}

static int
event_setattro(PyObject *self, PyObject *name, PyObject *value)
{
    if (UNLIKELY(!core_is(self, event_dealloc))) {
        return PyObject_GenericSetAttr(self, name, value);
    }
    sync_methods methods = event_methods(((SyncObj *)self)->st);
    return sync_setattro(self, name, value, &methods);
}

/* ---- wait ---- */

static int
event_woken(CoroObj *Py_UNUSED(coro), PyObject **result)
{
    *result = Py_NewRef(Py_True);
    return CORO_RETURN;
}

static int
event_wait_start(CoroObj *coro, PyObject **result)
{
    EventObj *event = (EventObj *)coro->owner;
    return event->value ? event_woken(coro, result)
                        : sync_wait(coro, (SyncObj *)event, event_woken, NULL, sync_unwait);
}

static PyObject *
Event_wait(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
           PyObject *stock)
{
    if (UNLIKELY(sync_overridden((SyncObj *)self, event_look) || kwnames != NULL || nargs != 1)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return coro_new(st, self, event_wait_start, "Event.wait", 0, NULL);
}

/* ---- the other methods ---- */

static PyObject *
Event_get_value(PyObject *self, void *Py_UNUSED(closure))
{
    EventObj *event = (EventObj *)self;
    if (event->value == EVENT_UNSET) {
        PyErr_SetString(PyExc_AttributeError, "_value");
        return NULL;
    }
    return PyBool_FromLong(event->value);
}

static int
Event_set_value(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    int is_set = value == NULL ? EVENT_UNSET : PyObject_IsTrue(value);
    if (is_set < 0) {
        return -1;
    }
    ((EventObj *)self)->value = (char)is_set;
    return 0;
}

static PyObject *
Event_is_set(ctask_state *Py_UNUSED(st), PyObject *self, PyObject *const *args, Py_ssize_t nargs,
             PyObject *kwnames, PyObject *stock)
{
    if (UNLIKELY(nargs != 1 || kwnames != NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return Event_get_value(self, NULL);
}

static PyObject *
Event_set(ctask_state *Py_UNUSED(st), PyObject *self, PyObject *const *args, Py_ssize_t nargs,
          PyObject *kwnames, PyObject *stock)
{
    if (UNLIKELY(nargs != 1 || kwnames != NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    EventObj *event = (EventObj *)self;
    if (event->value) {
        return event->value == EVENT_UNSET ? Event_get_value(self, NULL) : Py_NewRef(Py_None);
    }
    event->value = 1;
    return waiters_wake(&event->waiters, event->st, PY_SSIZE_T_MAX, Py_True) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
Event_clear(ctask_state *Py_UNUSED(st), PyObject *self, PyObject *const *args, Py_ssize_t nargs,
            PyObject *kwnames, PyObject *stock)
{
    if (UNLIKELY(nargs != 1 || kwnames != NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    ((EventObj *)self)->value = 0;
    Py_RETURN_NONE;
}

static int
Event___init__(PyObject *self, PyObject *args, PyObject *kwargs)
{
    EventObj *event = (EventObj *)self;
    if (PyTuple_GET_SIZE(args) != 0 || (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0)) {
        return core_init_stock(self, args, kwargs, event->st->stock_Event);
    }
    if (waiters_set(&event->waiters, event->st, NULL) < 0) {
        return -1;
    }
    event->waiters.kind = WAITERS_DEQUE;
    event->value = 0;
    event->ready = 1;
    return 0;
}

static PyObject *
Event___new__(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    SyncObj *self = sync_new(type, event_dealloc, sizeof(EventObj));
    if (self != NULL && core_is((PyObject *)self, event_dealloc)) {
        ((EventObj *)self)->value = EVENT_UNSET;
    }
    return (PyObject *)self;
}

static int
event_visit(PyObject *self, visitproc visit, void *arg)
{
    return sync_visit(self, visit, arg);
}

static int
event_drop(PyObject *self)
{
    return sync_drop(self);
}

CORE_LIFE(static, event)

static PyGetSetDef Event_getset[] = {
    {"_waiters", Sync_get_waiters, Sync_set_waiters, NULL, NULL},
    {"_value", Event_get_value, Event_set_value, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef Event_members[] = {
    {"_loop", T_OBJECT, offsetof(EventObj, loop), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot Event_slots[] = {
    {Py_tp_new, Event___new__},
    {Py_tp_init, Event___init__},
    {Py_tp_dealloc, event_dealloc},
    {Py_tp_traverse, event_traverse},
    {Py_tp_clear, event_clear},
    {Py_tp_setattro, event_setattro},
    {Py_tp_members, Event_members},
    {Py_tp_getset, Event_getset},
    {0, NULL},
};

static PyType_Spec Event_spec = {
    .name = "ctask._ctask.Event",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = Event_slots,
};

PART int
event_setup(PyObject *module, ctask_state *st)
{
    static const core_method methods[] = {
        {"clear", Event_clear},
        {"is_set", Event_is_set},
        {"set", Event_set},
        {"wait", Event_wait},
    };
    return core_add(module,
                    st,
                    "Event",
                    &st->EventType,
                    &Event_spec,
                    NULL,
                    st->stock_Event,
                    methods,
                    Py_ARRAY_LENGTH(methods));
}
