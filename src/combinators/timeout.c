/* Timeout, timeout() and timeout_at(): cancel the task at a deadline, and say TimeoutError instead.

   The C core has the attributes of asyncio's class and what happens when nothing times out: entering, the timer,
   leaving.  Once the timer has struck, which is rare and where versions differ, it is asyncio's own __aexit__()
   that uncancels the task and turns the exceptions; it works on our attributes.  So it does for subclasses that
   override what the core skips. */

#include "combinators/combinators.h"
#include "combinators/timeout.h"
#include "handles/clock.h"
#include "loop/poll.h"

static void timeout_dealloc(PyObject *self);

/* ---- overrides ---- */

/* May the core act for asyncio's methods?  What they call on the object, or look at, is as it was made. */
static int
timeout_look(TimeoutObj *timeout)
{
    ctask_state *st = timeout->st;
    PyTypeObject *type = Py_TYPE(timeout);
    PyObject *names[] = {st->str.reschedule, st->str._on_timeout};
    if (standin_overrides(type, st->TimeoutType, st->stock_Timeout, names, Py_ARRAY_LENGTH(names))) {
        return 0;
    }
    st->combinators.plain_timeout = type->tp_version_tag;
    return 1;
}

static inline int
timeout_is_plain(TimeoutObj *timeout)
{
    if (UNLIKELY(timeout->touched || timeout->state == NULL)) {
        return 0;
    }
    unsigned int version = Py_TYPE(timeout)->tp_version_tag;
    return LIKELY(version != 0 && version == timeout->st->combinators.plain_timeout) || timeout_look(timeout);
}

static int
timeout_setattro(PyObject *self, PyObject *name, PyObject *value)
{
    if (UNLIKELY(!core_is(self, timeout_dealloc))) {
        return PyObject_GenericSetAttr(self, name, value);
    }
    ((TimeoutObj *)self)->touched = 1;
    return PyObject_GenericSetAttr(self, name, value);
}

/* ---- the timer ---- */

/* A deadline that can be compared as a double. */
static inline int
is_number(PyObject *when)
{
    return PyFloat_CheckExact(when) || PyLong_CheckExact(when);
}

PART PyObject *
timeout_deadline(ctask_state *st, PyObject *loop, PyObject *delay)
{
    if (delay == Py_None) {
        return Py_NewRef(Py_None);
    }
    PyObject *now;
    if (LIKELY(loop_plain(loop) != NULL && clock_is_real(st))) {
        if (LIKELY(is_number(delay))) {
            double seconds = PyFloat_AsDouble(delay);
            if (seconds == -1.0 && PyErr_Occurred()) {
                return NULL;
            }
            return PyFloat_FromDouble(poll_clock() + seconds);
        }
        now = PyFloat_FromDouble(poll_clock());
    }
    else {
        now = PyObject_CallMethodNoArgs(loop, st->str.time);
    }
    PyObject *when = now == NULL ? NULL : PyNumber_Add(now, delay);
    Py_XDECREF(now);
    return when;
}

/* _on_timeout(): what the timer calls. */
static PyObject *
Timeout_on_timeout(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    TimeoutObj *timeout = (TimeoutObj *)self;
    ctask_state *st = timeout->st;
    if (timeout->state != st->timeout_entered) {
        PyErr_SetNone(PyExc_AssertionError);
        return NULL;
    }
    if (timeout->task == NULL) {
        PyErr_SetString(PyExc_AttributeError, "_task");
        return NULL;
    }
    PyObject *task = Py_NewRef(timeout->task);
    PyObject *res = PyObject_CallMethodNoArgs(task, st->str.cancel);
    Py_DECREF(task);
    if (res == NULL) {
        return NULL;
    }
    Py_DECREF(res);
    Py_XSETREF(timeout->state, Py_NewRef(st->timeout_expiring));
    Py_XSETREF(timeout->handler, Py_NewRef(Py_None));
    Py_RETURN_NONE;
}

static PyMethodDef on_timeout_def = {"_on_timeout", Timeout_on_timeout, METH_NOARGS, NULL};

/* Have the loop call _on_timeout() at `when`: a handle. */
static PyObject *
timeout_schedule(TimeoutObj *timeout, PyObject *loop, PyObject *when)
{
    ctask_state *st = timeout->st;
    int due;
    if (LIKELY(loop_plain(loop) != NULL && is_number(when) && clock_is_real(st))) {
        double seconds = PyFloat_AsDouble(when);
        if (seconds == -1.0 && PyErr_Occurred()) {
            return NULL;
        }
        due = seconds <= poll_clock();
    }
    else {
        PyObject *now = PyObject_CallMethodNoArgs(loop, st->str.time);
        due = now == NULL ? -1 : PyObject_RichCompareBool(when, now, Py_LE);
        Py_XDECREF(now);
    }
    /* The bound method in C, without looking it up: nobody has overridden it. */
    PyObject *callback = due < 0 ? NULL : PyCFunction_New(&on_timeout_def, (PyObject *)timeout);
    if (callback == NULL) {
        return NULL;
    }
    PyObject *handle;
    if (due) {
        PyObject *stack[] = {loop, callback};
        handle = PyObject_VectorcallMethod(st->str.call_soon, stack, 2, NULL);
    }
    else {
        PyObject *stack[] = {loop, when, callback};
        handle = PyObject_VectorcallMethod(st->str.call_at, stack, 3, NULL);
    }
    Py_DECREF(callback);
    return handle;
}

/* self._timeout_handler.cancel(), None being in its place afterwards.  If it raises, the handle is still there,
   as with asyncio. */
static int
timeout_cancel_timer(TimeoutObj *timeout)
{
    PyObject *handler = timeout->handler;
    if (!is_set(handler)) {
        return 0;
    }
    timeout->handler = CONSTANT_REF(Py_None);
    int status = handle_cancel(handler, timeout->st);
    if (UNLIKELY(status < 0)) {
        Py_XSETREF(timeout->handler, Py_NewRef(handler));
    }
    Py_DECREF(handler);
    return status;
}

/* ---- entering and leaving ---- */

/* `_when`, a new reference, or AttributeError. */
static PyObject *
timeout_when(TimeoutObj *timeout)
{
    if (timeout->when == NULL) {
        PyErr_SetString(PyExc_AttributeError, "_when");
        return NULL;
    }
    return Py_NewRef(timeout->when);
}

PART int
timeout_enter(TimeoutObj *timeout, PyObject *loop)
{
    ctask_state *st = timeout->st;
    if (UNLIKELY(!timeout_is_plain(timeout) || timeout->state != st->timeout_created)) {
        return 1;
    }
    PyObject *task = current_task(st, loop);
    if (task == NULL) {
        return -1;
    }
    if (UNLIKELY(task == Py_None)) {
        Py_DECREF(task);
        return 1;
    }
    Py_XSETREF(timeout->state, Py_NewRef(st->timeout_entered));
    Py_XSETREF(timeout->task, Py_NewRef(task));
    PyObject *cancelling = task_is_exact(task) ? PyLong_FromLong(((TaskObj *)task)->num_cancels_requested)
                                               : PyObject_CallMethodNoArgs(task, st->str.cancelling);
    Py_DECREF(task);
    if (cancelling == NULL) {
        return -1;
    }
    Py_XSETREF(timeout->cancelling, cancelling);
    if (timeout->when == Py_None) {
        return 0;
    }
    /* The task's cancelling() may be anybody's, and have deleted it. */
    PyObject *when = timeout_when(timeout);
    if (when == NULL) {
        return -1;
    }
    PyObject *handle = timeout_schedule(timeout, loop, when);
    Py_DECREF(when);
    if (handle == NULL) {
        return -1;
    }
    Py_XSETREF(timeout->handler, handle);
    return 0;
}

PART int
timeout_leave(TimeoutObj *timeout)
{
    ctask_state *st = timeout->st;
    if (UNLIKELY(timeout->touched || timeout->state != st->timeout_entered)) {
        return 1;
    }
    if (timeout_cancel_timer(timeout) < 0) {
        return -1;
    }
    if (UNLIKELY(timeout->state != st->timeout_entered)) {
        return 1; /* a handle's cancel() may be anybody's */
    }
    Py_XSETREF(timeout->state, Py_NewRef(st->timeout_exited));
    return 0;
}

/* ---- the coroutines ---- */

static int
enter_step(CoroObj *coro, PyObject **result)
{
    PyObject *loop = running_loop(coro->st);
    if (loop == NULL) {
        PyErr_Clear(); /* asyncio's method looks at the state first */
    }
    int status = loop == NULL ? 1 : timeout_enter((TimeoutObj *)coro->owner, loop);
    Py_XDECREF(loop);
    if (LIKELY(status == 0)) {
        *result = Py_NewRef(coro->owner);
        return CORO_RETURN;
    }
    if (status < 0) {
        return CORO_ERROR;
    }
    return coro_await(coro, PyObject_CallOneArg(coro->st->stock_timeout_aenter, coro->owner), NULL);
}

static int
leave_step(CoroObj *coro, PyObject **result)
{
    int status = timeout_leave((TimeoutObj *)coro->owner);
    if (LIKELY(status == 0)) {
        *result = CONSTANT_REF(Py_None);
        return CORO_RETURN;
    }
    if (status < 0) {
        return CORO_ERROR;
    }
    PyObject *stack[] = {coro->owner, Py_None, Py_None, Py_None};
    for (Py_ssize_t i = 0; coro->arg != NULL && i < 3; i++) {
        stack[i + 1] = PyTuple_GET_ITEM(coro->arg, i);
    }
    stack[1] = cancellation_or(coro->st, stack[1]);
    return coro_await(coro, PyObject_Vectorcall(coro->st->stock_timeout_aexit, stack, 4, NULL), NULL);
}

static PyObject *
Timeout_aenter(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
               PyObject *stock)
{
    if (UNLIKELY(nargs != 1 || kwnames != NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return coro_new(st, self, enter_step, "Timeout.__aenter__", 0, NULL);
}

static PyObject *
Timeout_aexit(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
              PyObject *stock)
{
    if (UNLIKELY(nargs != 4 || kwnames != NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    PyObject *exc = NULL;
    if (args[1] != Py_None || args[2] != Py_None) {
        exc = PyTuple_Pack(3, args[1], args[2], args[3]);
        if (exc == NULL) {
            return NULL;
        }
    }
    PyObject *coro = coro_new(st, self, leave_step, "Timeout.__aexit__", 0, exc);
    Py_XDECREF(exc);
    return coro;
}

/* ---- methods ---- */

static PyObject *
Timeout_when(ctask_state *Py_UNUSED(st), PyObject *self, PyObject *const *args, Py_ssize_t nargs,
             PyObject *kwnames, PyObject *stock)
{
    if (UNLIKELY(nargs != 1 || kwnames != NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return timeout_when((TimeoutObj *)self);
}

static PyObject *
Timeout_expired(ctask_state *Py_UNUSED(st), PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                PyObject *kwnames, PyObject *stock)
{
    if (UNLIKELY(nargs != 1 || kwnames != NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    TimeoutObj *timeout = (TimeoutObj *)self;
    if (timeout->state == NULL) {
        PyErr_SetString(PyExc_AttributeError, "_state");
        return NULL;
    }
    ctask_state *st = timeout->st;
    return PyBool_FromLong(timeout->state == st->timeout_expiring || timeout->state == st->timeout_expired);
}

static PyObject *
Timeout_reschedule(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                   PyObject *stock)
{
    TimeoutObj *timeout = (TimeoutObj *)self;
    if (UNLIKELY(nargs != 2 || kwnames != NULL || timeout->state != st->timeout_entered ||
                 !timeout_is_plain(timeout))) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    PyObject *when = args[1];
    Py_XSETREF(timeout->when, Py_NewRef(when));
    if (timeout_cancel_timer(timeout) < 0) {
        return NULL;
    }
    if (when != Py_None) {
        PyObject *loop = running_loop(st);
        PyObject *handle = loop == NULL ? NULL : timeout_schedule(timeout, loop, when);
        Py_XDECREF(loop);
        if (handle == NULL) {
            return NULL;
        }
        Py_XSETREF(timeout->handler, handle);
    }
    Py_RETURN_NONE;
}

static PyObject *
Timeout_on_timeout_method(ctask_state *Py_UNUSED(st), PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                          PyObject *kwnames, PyObject *stock)
{
    if (UNLIKELY(nargs != 1 || kwnames != NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return Timeout_on_timeout(self, NULL);
}

static PyMemberDef Timeout_members[] = {
    {"_state", T_OBJECT_EX, offsetof(TimeoutObj, state), 0, NULL},
    {"_timeout_handler", T_OBJECT_EX, offsetof(TimeoutObj, handler), 0, NULL},
    {"_task", T_OBJECT_EX, offsetof(TimeoutObj, task), 0, NULL},
    {"_when", T_OBJECT_EX, offsetof(TimeoutObj, when), 0, NULL},
    {"_cancelling", T_OBJECT_EX, offsetof(TimeoutObj, cancelling), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

/* ---- life ---- */

/* A new object as __init__() leaves it; steals `when`. */
static void
timeout_fill(TimeoutObj *timeout, ctask_state *st, PyObject *when)
{
    PyObject *before[] = {timeout->state, timeout->handler, timeout->task, timeout->when, timeout->cancelling};
    timeout->st = st;
    timeout->state = Py_NewRef(st->timeout_created);
    timeout->handler = Py_NewRef(Py_None);
    timeout->task = Py_NewRef(Py_None);
    timeout->when = when;
    timeout->cancelling = NULL;
    for (size_t i = 0; i < Py_ARRAY_LENGTH(before); i++) {
        Py_XDECREF(before[i]);
    }
}

PART PyObject *
timeout_new(ctask_state *st, PyObject *when)
{
    if (when == NULL) {
        return NULL;
    }
    PyTypeObject *type = core_class(&st->timeout_class, "ctask._timeouts", "Timeout", st->TimeoutType);
    PyObject *self = type == NULL ? NULL : core_make(st, type, sizeof(TimeoutObj));
    if (self == NULL) {
        Py_DECREF(when);
        return NULL;
    }
    timeout_fill((TimeoutObj *)self, st, when);
    return self;
}

static PyObject *
Timeout___new__(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    return core_new(type, timeout_dealloc, sizeof(TimeoutObj));
}

static int
Timeout___init__(PyObject *self, PyObject *args, PyObject *kwargs)
{
    TimeoutObj *timeout = (TimeoutObj *)self;
    PyObject *when = NULL;
    if (kwargs == NULL && PyTuple_GET_SIZE(args) == 1) {
        when = Py_NewRef(PyTuple_GET_ITEM(args, 0));
    }
    else {
        static char *keywords[] = {"when", NULL};
        if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:Timeout.__init__", keywords, &when)) {
            PyErr_Clear();
            return core_init_stock(self, args, kwargs, timeout->st->stock_Timeout);
        }
        Py_INCREF(when);
    }
    timeout_fill(timeout, timeout->st, when);
    return 0;
}

static int
timeout_visit(PyObject *self, visitproc visit, void *arg)
{
    TimeoutObj *timeout = (TimeoutObj *)self;
    Py_VISIT(timeout->state);
    Py_VISIT(timeout->handler);
    Py_VISIT(timeout->task);
    Py_VISIT(timeout->when);
    Py_VISIT(timeout->cancelling);
    return 0;
}

static int
timeout_drop(PyObject *self)
{
    TimeoutObj *timeout = (TimeoutObj *)self;
    Py_CLEAR(timeout->state);
    Py_CLEAR(timeout->handler);
    Py_CLEAR(timeout->task);
    Py_CLEAR(timeout->when);
    Py_CLEAR(timeout->cancelling);
    return 0;
}

CORE_LIFE(static, timeout)

static PyType_Slot Timeout_slots[] = {
    {Py_tp_new, Timeout___new__},
    {Py_tp_init, Timeout___init__},
    {Py_tp_dealloc, timeout_dealloc},
    {Py_tp_traverse, timeout_traverse},
    {Py_tp_clear, timeout_clear},
    {Py_tp_setattro, timeout_setattro},
    {Py_tp_members, Timeout_members},
    {0, NULL},
};

static PyType_Spec Timeout_spec = {
    .name = "ctask._ctask.Timeout",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = Timeout_slots,
};

/* ---- the functions ---- */

/* The only argument, given by position or as `name`; NULL if that is not what was given. */
static PyObject *
only_argument(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, PyObject *name)
{
    if (LIKELY(nargs == 1 && kwnames == NULL)) {
        return args[0];
    }
    if (nargs == 0 && kwnames != NULL && PyTuple_GET_SIZE(kwnames) == 1 &&
        PyUnicode_Compare(PyTuple_GET_ITEM(kwnames, 0), name) == 0) {
        return args[0];
    }
    return NULL;
}

/* timeout(delay) */
static PyObject *
timeout_call(ctask_state *st, PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t nargs,
             PyObject *kwnames, PyObject *stock)
{
    PyObject *delay = only_argument(args, nargs, kwnames, st->str.delay);
    if (UNLIKELY(delay == NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    PyObject *loop = running_loop(st);
    if (loop == NULL) {
        return NULL;
    }
    PyObject *timeout = timeout_new(st, timeout_deadline(st, loop, delay));
    Py_DECREF(loop);
    return timeout;
}

/* timeout_at(when) */
static PyObject *
timeout_at_call(ctask_state *st, PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t nargs,
                PyObject *kwnames, PyObject *stock)
{
    PyObject *when = only_argument(args, nargs, kwnames, st->str.when);
    if (UNLIKELY(when == NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return timeout_new(st, Py_NewRef(when));
}

PART int
timeout_setup(PyObject *module, ctask_state *st)
{
    const struct {
        PyObject **slot;
        PyObject *of;
        const char *name;
    } wanted[] = {
        {&st->timeout_created, st->stock_timeout_State, "CREATED"},
        {&st->timeout_entered, st->stock_timeout_State, "ENTERED"},
        {&st->timeout_expiring, st->stock_timeout_State, "EXPIRING"},
        {&st->timeout_expired, st->stock_timeout_State, "EXPIRED"},
        {&st->timeout_exited, st->stock_timeout_State, "EXITED"},
        {&st->stock_timeout_aenter, st->stock_Timeout, "__aenter__"},
        {&st->stock_timeout_aexit, st->stock_Timeout, "__aexit__"},
    };
    for (size_t i = 0; i < Py_ARRAY_LENGTH(wanted); i++) {
        if ((*wanted[i].slot = PyObject_GetAttrString(wanted[i].of, wanted[i].name)) == NULL) {
            return -1;
        }
    }
    static const core_method methods[] = {
        {"__aenter__", Timeout_aenter},
        {"__aexit__", Timeout_aexit},
        {"_on_timeout", Timeout_on_timeout_method},
        {"expired", Timeout_expired},
        {"reschedule", Timeout_reschedule},
        {"when", Timeout_when},
    };
    if (core_add(module,
                 st,
                 "Timeout",
                 &st->TimeoutType,
                 &Timeout_spec,
                 NULL,
                 st->stock_Timeout,
                 methods,
                 Py_ARRAY_LENGTH(methods)) < 0 ||
        standin_function(st, module, st->stock_timeout, "timeout", timeout_call) < 0) {
        return -1;
    }
    return standin_function(st, module, st->stock_timeout_at, "timeout_at", timeout_at_call);
}
