/* What a scenario costs whatever the loop: asyncio's names, of which nothing is left but that the scenario's
   own Python code runs as it does with them.

   Coroutines are made, stepped, suspended as often as with asyncio and run to their end; callbacks are called.
   Besides, nothing happens: one object is the loop and every future, task, handle and queue, no call looks at
   its arguments, nothing is kept but what has yet to be called.  Static and without cleaning up: the
   process does nothing else. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdlib.h>

static PyTypeObject Nothing_type, Once_type, Ready_type, Lock_type, Scope_type, Group_type;
static PyObject *nothing, *ready, *entered, *lock, *scope, *group, *cancelled_error, *str_throw;

typedef struct {
    PyObject *callable; // owned
    PyObject *arg;      // owned, or NULL
} call;

static struct {
    call *calls;
    size_t head, length, capacity;
} calls;

static struct {
    PyObject **coros; // owned
    size_t head, length, capacity;
} pending;

static PyObject *
new_reference(PyObject *obj)
{
    Py_INCREF(obj);
    return obj;
}

static int
call_push(PyObject *callable, PyObject *arg)
{
    if (calls.length == calls.capacity) {
        calls.capacity = calls.capacity ? calls.capacity * 2 : 4096;
        calls.calls = realloc(calls.calls, calls.capacity * sizeof(call));
        if (calls.calls == NULL) {
            abort();
        }
    }
    Py_INCREF(callable);
    Py_XINCREF(arg);
    calls.calls[calls.length++] = (call){callable, arg};
    return 0;
}

static int
calls_run(void)
{
    while (calls.head < calls.length) {
        call next = calls.calls[calls.head++];
        if (calls.head == calls.length) {
            calls.head = calls.length = 0;
        }
        PyObject *res = next.arg ? PyObject_CallOneArg(next.callable, next.arg) : PyObject_CallNoArgs(next.callable);
        Py_DECREF(next.callable);
        Py_XDECREF(next.arg);
        if (res == NULL) {
            return -1;
        }
        Py_DECREF(res);
    }
    return 0;
}

/* ---- what is awaited ---- */

typedef struct once {
    PyObject_HEAD
    union {
        int suspended;
        struct once *next;
    };
} Once; // suspends one time

static Once *free_once;

static PyObject *
once_new(void)
{
    Once *once = free_once;
    if (once != NULL) {
        free_once = once->next;
        PyObject_Init((PyObject *)once, &Once_type);
    }
    else {
        once = PyObject_New(Once, &Once_type);
        if (once == NULL) {
            return NULL;
        }
    }
    once->suspended = 0;
    return (PyObject *)once;
}

static void
once_dealloc(PyObject *self)
{
    ((Once *)self)->next = free_once;
    free_once = (Once *)self;
}

static PyObject *
once_next(PyObject *self)
{
    Once *once = (Once *)self;
    return once->suspended++ ? NULL : new_reference(Py_None);
}

static PyAsyncMethods once_async = {.am_await = new_reference};
static PyTypeObject Once_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "floor.Once",
    .tp_basicsize = sizeof(Once),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_dealloc = once_dealloc,
    .tp_as_async = &once_async,
    .tp_iter = new_reference,
    .tp_iternext = once_next,
};

static PyObject *
ready_next(PyObject *self)
{
    if (self == entered) {
        PyErr_SetObject(PyExc_StopIteration, group);
    }
    return NULL;
}

static PyTypeObject Ready_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "floor.Ready",
    .tp_basicsize = sizeof(PyObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_as_async = &once_async,
    .tp_iter = new_reference,
    .tp_iternext = ready_next,
};

/* ---- what is called ---- */

#define CALL(name) static PyObject *name(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
#define IGNORE (void)self, (void)args, (void)nargs

CALL(do_nothing)
{
    IGNORE;
    return new_reference(Py_None);
}

CALL(give_nothing)
{
    IGNORE;
    return new_reference(nothing);
}

CALL(suspend)
{
    IGNORE;
    return once_new();
}

CALL(pass)
{
    IGNORE;
    return new_reference(ready);
}

CALL(enter_group)
{
    IGNORE;
    return new_reference(entered);
}

CALL(give_lock)
{
    IGNORE;
    return new_reference(lock);
}

CALL(give_scope)
{
    IGNORE;
    return new_reference(scope);
}

CALL(give_group)
{
    IGNORE;
    return new_reference(group);
}

CALL(call_soon)
{
    (void)self;
    call_push(args[0], nargs > 1 ? args[1] : NULL);
    return new_reference(nothing);
}

CALL(call_later)
{
    (void)self;
    /* A minute ahead: nobody waits for it. */
    if (!PyLong_Check(args[0])) {
        call_push(args[1], nargs > 2 ? args[2] : NULL);
    }
    return new_reference(nothing);
}

CALL(add_done_callback)
{
    (void)nargs;
    call_push(args[0], self);
    return new_reference(Py_None);
}

/* 1 if it wants to go on. */
static int
step(PyObject *coro)
{
    PyObject *res;
    PySendResult status = PyIter_Send(coro, Py_None, &res);
    if (status == PYGEN_ERROR) {
        return -1;
    }
    Py_DECREF(res);
    return status == PYGEN_NEXT;
}

CALL(create_task)
{
    (void)self, (void)nargs;
    int more = step(args[0]);
    if (more < 0) {
        return NULL;
    }
    if (more) {
        if (pending.length == pending.capacity) {
            pending.capacity = pending.capacity ? pending.capacity * 2 : 4096;
            pending.coros = realloc(pending.coros, pending.capacity * sizeof(PyObject *));
            if (pending.coros == NULL) {
                abort();
            }
        }
        pending.coros[pending.length++] = new_reference(args[0]);
    }
    return new_reference(nothing);
}

/* Which task does not matter: the first that was made. */
CALL(cancel)
{
    IGNORE;
    if (pending.head == pending.length) {
        return new_reference(Py_False); // a timer
    }
    PyObject *coro = pending.coros[pending.head++];
    PyObject *res = PyObject_CallMethodOneArg(coro, str_throw, cancelled_error);
    Py_DECREF(coro);
    if (res != NULL || !PyErr_ExceptionMatches(cancelled_error)) {
        PyErr_SetString(PyExc_RuntimeError, "not cancelled");
        return NULL;
    }
    PyErr_Clear();
    return new_reference(Py_True);
}

/* Coroutines are run to their end in turns, and so are the tasks that are left. */
CALL(gather)
{
    for (Py_ssize_t i = 0; i < nargs; i++) {
        if (PyCoro_CheckExact(args[i])) {
            PyObject *task = create_task(self, args + i, 1);
            if (task == NULL) {
                return NULL;
            }
            Py_DECREF(task);
        }
    }
    size_t left = pending.length;
    while (left > pending.head) {
        size_t kept = pending.head;
        for (size_t i = pending.head; i < left; i++) {
            PyObject *coro = pending.coros[i];
            int more = step(coro);
            if (more < 0) {
                return NULL;
            }
            if (more) {
                pending.coros[kept++] = coro;
            }
            else {
                Py_DECREF(coro);
            }
        }
        left = kept;
    }
    pending.head = pending.length = 0;
    return once_new();
}

static PyObject *
gather_with_keywords(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    (void)names;
    return gather(self, args, nargs);
}

#define METHOD(name, function) {name, (PyCFunction)(void (*)(void))(function), METH_FASTCALL, NULL}

static PyMethodDef nothing_methods[] = {
    METHOD("create_future", give_nothing),
    METHOD("create_task", create_task),
    METHOD("call_soon", call_soon),
    METHOD("call_soon_threadsafe", do_nothing),
    METHOD("call_later", call_later),
    METHOD("set_result", do_nothing),
    METHOD("add_done_callback", add_done_callback),
    METHOD("cancel", cancel),
    METHOD("put", pass),
    METHOD("get", pass),
    METHOD("wait", suspend),
    METHOD("set", do_nothing),
    {NULL, NULL, 0, NULL},
};

static PyObject *
nothing_await(PyObject *self)
{
    (void)self;
    return once_new();
}

static PyAsyncMethods nothing_async = {.am_await = nothing_await};
static PyTypeObject Nothing_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "floor.Nothing",
    .tp_basicsize = sizeof(PyObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_as_async = &nothing_async,
    .tp_methods = nothing_methods,
};

#define SCOPE(name, ...)                                                    \
    static PyMethodDef name##_methods[] = {__VA_ARGS__, {NULL, NULL, 0, NULL}}; \
    static PyTypeObject name##_type = {                                     \
        PyVarObject_HEAD_INIT(NULL, 0).tp_name = "floor." #name,            \
        .tp_basicsize = sizeof(PyObject),                                   \
        .tp_flags = Py_TPFLAGS_DEFAULT,                                     \
        .tp_methods = name##_methods,                                       \
    }

SCOPE(Lock, METHOD("__aenter__", suspend), METHOD("__aexit__", pass));
SCOPE(Scope, METHOD("__aenter__", pass), METHOD("__aexit__", pass));
SCOPE(Group, METHOD("__aenter__", enter_group), METHOD("__aexit__", suspend), METHOD("create_task", create_task));

static PyObject *
run(PyObject *self, PyObject *coro)
{
    (void)self;
    int more;
    while ((more = step(coro)) > 0) {
        if (calls_run() < 0) {
            return NULL;
        }
    }
    return more < 0 ? NULL : new_reference(Py_None);
}

static PyMethodDef module_methods[] = {
    {"run", run, METH_O, NULL},
    METHOD("get_running_loop", give_nothing),
    METHOD("current_task", give_nothing),
    METHOD("create_task", create_task),
    {"gather", (PyCFunction)(void (*)(void))gather_with_keywords, METH_FASTCALL | METH_KEYWORDS, NULL},
    METHOD("sleep", suspend),
    METHOD("wait_for", suspend),
    METHOD("timeout", give_scope),
    METHOD("TaskGroup", give_group),
    METHOD("Queue", give_nothing),
    METHOD("Event", give_nothing),
    METHOD("Lock", give_lock),
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "floor",
    .m_size = -1,
    .m_methods = module_methods,
};

PyMODINIT_FUNC
PyInit_floor(void)
{
    struct {
        PyTypeObject *type;
        PyObject **instance;
    } made[] = {
        {&Nothing_type, &nothing},
        {&Ready_type, &ready},
        {&Ready_type, &entered},
        {&Lock_type, &lock},
        {&Scope_type, &scope},
        {&Group_type, &group},
    };
    if (PyType_Ready(&Once_type) < 0) {
        return NULL;
    }
    for (size_t i = 0; i < sizeof made / sizeof *made; i++) {
        if (PyType_Ready(made[i].type) < 0 || !(*made[i].instance = PyObject_New(PyObject, made[i].type))) {
            return NULL;
        }
    }
    PyObject *exceptions = PyImport_ImportModule("asyncio.exceptions");
    if (exceptions == NULL) {
        return NULL;
    }
    cancelled_error = PyObject_GetAttrString(exceptions, "CancelledError");
    Py_DECREF(exceptions);
    str_throw = PyUnicode_InternFromString("throw");
    return cancelled_error && str_throw ? PyModule_Create(&module) : NULL;
}
