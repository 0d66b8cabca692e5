/* What puts work on the loop: call_soon(), call_later(), call_at(), create_task(), create_future().

   Signatures, messages and the order of checks are those of asyncio.BaseEventLoop.  In debug mode its own
   checks are called, so that they are made by whoever overrides them. */

#include "loop/poll.h"
#include "loop/schedule.h"
#include "tasks/tasks.h"
#include "handles/clock.h"

#include <math.h>

/* ---- arguments ---- */

PART int
schedule_parse(call_args *out, const char *method, const char *const *names, int n_lead, PyObject *const *args,
               Py_ssize_t nargs, PyObject *kwnames)
{
    int given = nargs < n_lead ? (int)nargs : n_lead;
    for (int i = 0; i < n_lead; i++) {
        out->lead[i] = i < given ? args[i] : NULL;
    }
    out->args = args + given;
    out->nargs = nargs - given;
    out->context = NULL;
    Py_ssize_t nkw = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    for (Py_ssize_t k = 0; k < nkw; k++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, k);
        PyObject **slot = NULL;
        if (PyUnicode_CompareWithASCIIString(name, "context") == 0) {
            slot = &out->context;
        }
        for (int i = 0; i < n_lead && slot == NULL; i++) {
            if (PyUnicode_CompareWithASCIIString(name, names[i]) == 0) {
                slot = &out->lead[i];
            }
        }
        if (slot == NULL) {
            PyErr_Format(
                PyExc_TypeError, "BaseEventLoop.%s() got an unexpected keyword argument '%U'", method, name);
            return -1;
        }
        if (*slot != NULL) {
            PyErr_Format(
                PyExc_TypeError, "BaseEventLoop.%s() got multiple values for argument '%U'", method, name);
            return -1;
        }
        *slot = args[nargs + k];
    }
    int missing = 0;
    for (int i = 0; i < n_lead; i++) {
        missing += out->lead[i] == NULL;
    }
    if (missing == 0) {
        return 0;
    }
    if (missing == 2) {
        PyErr_Format(PyExc_TypeError,
                     "BaseEventLoop.%s() missing 2 required positional arguments: '%s' and '%s'",
                     method,
                     names[0],
                     names[1]);
    }
    else {
        PyErr_Format(PyExc_TypeError,
                     "BaseEventLoop.%s() missing 1 required positional argument: '%s'",
                     method,
                     out->lead[0] == NULL ? names[0] : names[1]);
    }
    return -1;
}

static int
call_checked(PyObject *self, PyObject *name, PyObject *arg, const char *method)
{
    PyObject *res = arg == NULL ? PyObject_CallMethodNoArgs(self, name)
                                : PyObject_CallMethod(self, PyUnicode_AsUTF8(name), "Os", arg, method);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

/* ---- soon ---- */

/* Is this `_asyncio`, which has ended one of our futures and takes the Task that waits for it (future_add_waiter())
   for a callback? */
static int
is_stored_waiter(PyObject *callback, const call_args *call)
{
    return task_is_exact(callback) && call->context == Py_None && call->nargs == 1 &&
           future_is_exact(call->args[0]) && ((FutureObj *)call->args[0])->state != FUTURE_PENDING;
}

static __attribute__((noinline)) PyObject *
soon_waiter(LoopObj *loop, TaskObj *task, PyObject *fut)
{
    PyObject *context, *wakeup = task_wakeup_in_context(task, loop->st, &context);
    PyObject *stack[] = {wakeup, fut, context};
    PyObject *handle = wakeup == NULL ? NULL : schedule_soon(loop, 0, stack, 2, loop->st->context_kwnames);
    Py_XDECREF(wakeup);
    Py_XDECREF(context);
    return handle;
}

/* call_soon() and call_soon_threadsafe(), which only differ in the check of the thread. */
PART PyObject *
schedule_soon(LoopObj *loop, int threadsafe, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"callback"};
    call_args call = {.args = args + 1, .nargs = nargs - 1};
    if (UNLIKELY(kwnames != NULL || nargs < 1) &&
        schedule_parse(
            &call, threadsafe ? "call_soon_threadsafe" : "call_soon", names, 1, args, nargs, kwnames) < 0) {
        return NULL;
    }
    PyObject *callback = call.lead[0] == NULL ? args[0] : call.lead[0];
    if (UNLIKELY(kwnames != NULL) && is_stored_waiter(callback, &call)) {
        return soon_waiter(loop, (TaskObj *)callback, call.args[0]);
    }
    if (loop_check_open(loop) < 0) {
        return NULL;
    }
    if (UNLIKELY(loop->debug)) {
        if (!threadsafe && call_checked((PyObject *)loop, loop->st->str._check_thread, NULL, NULL) < 0) {
            return NULL;
        }
        if (call_checked((PyObject *)loop,
                         loop->st->str._check_callback,
                         callback,
                         threadsafe ? "call_soon_threadsafe" : "call_soon") < 0) {
            return NULL;
        }
    }
    HandleObj *handle = threadsafe
                            ? handle_create_threadsafe(
                                  loop, callback, call.args, call.nargs, call.context, loop->debug)
                            : handle_create(loop, callback, call.args, call.nargs, call.context, loop->debug);
    if (handle == NULL || loop_ready(loop, Py_NewRef(handle), READY_HANDLE, NULL, NULL) < 0) {
        Py_XDECREF(handle);
        return NULL;
    }
    return (PyObject *)handle;
}

PyDoc_STRVAR(call_soon_doc,
"call_soon($self, callback, *args, context=None)\n--\n\n"
"Have `callback(*args)` called in the next iteration, in `context` or a copy of the current one; return a\n"
"Handle.\n\n"
"Raises RuntimeError if the loop is closed.  (asyncio.loop.call_soon)");

static PyObject *
Loop_call_soon(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return schedule_soon((LoopObj *)self, 0, args, nargs, kwnames);
}

/* ---- the time ---- */

/* ---- an iteration ---- */

PART int
loop_now(LoopObj *loop, double *now)
{
    if (LIKELY(!loop_check_overrides(loop) && clock_is_real(loop->st))) {
        *now = poll_clock();
        return 0;
    }
    PyObject *res = PyObject_CallMethodNoArgs((PyObject *)loop, loop->st->str.time);
    if (res == NULL) {
        return -1;
    }
    *now = PyFloat_AsDouble(res);
    Py_DECREF(res);
    return *now == -1.0 && PyErr_Occurred() ? -1 : 0;
}

/* ---- timers ---- */

/* `when` (NULL if it is just the float `seconds`) is what timer.when() returns. */
static PyObject *
schedule_at(LoopObj *loop, double seconds, PyObject *when, const call_args *call)
{
    if (loop_check_open(loop) < 0) {
        return NULL;
    }
    PyObject *callback = call->lead[1];
    if (UNLIKELY(loop->debug)) {
        if (call_checked((PyObject *)loop, loop->st->str._check_thread, NULL, NULL) < 0 ||
            call_checked((PyObject *)loop, loop->st->str._check_callback, callback, "call_at") < 0) {
            return NULL;
        }
    }
    TimerObj *timer = timer_new(
        loop, seconds, when, callback, call->args, call->nargs, call->context, loop->debug);
    if (timer == NULL) {
        return NULL;
    }
    /* asyncio's comparison lets a NaN through as due; so do the timers. */
    if (timers_push(&loop->timers, seconds, &timer->node) < 0) {
        Py_DECREF(timer);
        return PyErr_NoMemory();
    }
    loop->last_timer = timer;
    return Py_NewRef(timer);
}

static const char *const call_later_names[] = {"delay", "callback"};
static const char *const call_at_names[] = {"when", "callback"};

static PyObject *
schedule_at_object(LoopObj *loop, PyObject *when, const call_args *call)
{
    double seconds = PyFloat_AsDouble(when);
    if (seconds == -1.0 && PyErr_Occurred()) {
        return NULL;
    }
    return schedule_at(loop, seconds, PyFloat_CheckExact(when) ? NULL : when, call);
}

PyDoc_STRVAR(call_later_doc,
"call_later($self, delay, callback, *args, context=None)\n--\n\n"
"Have `callback(*args)` called after `delay` seconds; return a TimerHandle.\n\n"
"Raises RuntimeError if the loop is closed, TypeError if `delay` is no number.  (asyncio.loop.call_later)");

static PyObject *
Loop_call_later(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    LoopObj *loop = (LoopObj *)self;
    call_args call;
    if (schedule_parse(&call, "call_later", call_later_names, 2, args, nargs, kwnames) < 0) {
        return NULL;
    }
    PyObject *delay = call.lead[0];
    if (delay == Py_None) {
        PyErr_SetString(PyExc_TypeError, "delay must not be None");
        return NULL;
    }
    int overridden = loop_check_overrides(loop);
    double now;
    if (loop_now(loop, &now) < 0) {
        return NULL;
    }
    if (LIKELY(!overridden && (PyFloat_CheckExact(delay) || PyLong_CheckExact(delay)))) {
        double seconds = PyFloat_AsDouble(delay);
        if (seconds == -1.0 && PyErr_Occurred()) {
            return NULL;
        }
        return schedule_at(loop, now + seconds, NULL, &call);
    }
    PyObject *when = NULL, *result = NULL;
    PyObject *start = PyFloat_FromDouble(now);
    if (start != NULL) {
        when = PyNumber_Add(start, delay);
        Py_DECREF(start);
    }
    if (when == NULL) {
        return NULL;
    }
    if (!overridden) {
        result = schedule_at_object(loop, when, &call);
    }
    else {
        /* self.call_at(when, callback, *args, context=context) */
        PyObject *method = PyObject_GetAttr(self, loop->st->str.call_at);
        PyObject *positional = PyTuple_New(2 + call.nargs);
        PyObject *keywords = PyDict_New();
        if (method != NULL && positional != NULL && keywords != NULL &&
            PyDict_SetItem(keywords, loop->st->str.context, call.context == NULL ? Py_None : call.context) ==
                0) {
            PyTuple_SET_ITEM(positional, 0, Py_NewRef(when));
            PyTuple_SET_ITEM(positional, 1, Py_NewRef(call.lead[1]));
            for (Py_ssize_t i = 0; i < call.nargs; i++) {
                PyTuple_SET_ITEM(positional, 2 + i, Py_NewRef(call.args[i]));
            }
            result = PyObject_Call(method, positional, keywords);
        }
        Py_XDECREF(keywords);
        Py_XDECREF(positional);
        Py_XDECREF(method);
    }
    Py_DECREF(when);
    return result;
}

PyDoc_STRVAR(call_at_doc,
"call_at($self, when, callback, *args, context=None)\n--\n\n"
"Have `callback(*args)` called at the time `when` (seconds, by loop.time()); return a TimerHandle.\n\n"
"Callbacks of the same time are called in the order of their registration.  Raises RuntimeError if the loop\n"
"is closed, TypeError if `when` is no number.  (asyncio.loop.call_at)");

static PyObject *
Loop_call_at(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    call_args call;
    if (schedule_parse(&call, "call_at", call_at_names, 2, args, nargs, kwnames) < 0) {
        return NULL;
    }
    if (call.lead[0] == Py_None) {
        PyErr_SetString(PyExc_TypeError, "when cannot be None");
        return NULL;
    }
    return schedule_at_object((LoopObj *)self, call.lead[0], &call);
}

PyDoc_STRVAR(time_doc,
"time($self, /)\n--\n\n"
"Return the loop's time in seconds, a float from the monotonic clock.  (asyncio.loop.time)");

static PyObject *
Loop_time(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    ctask_state *st = ((LoopObj *)self)->st;
    if (UNLIKELY(!clock_is_real(st))) {
        return PyObject_CallMethodOneArg(st->stock_Loop, st->str.time, self);
    }
    return PyFloat_FromDouble(poll_clock());
}

/* ---- tasks and futures ---- */

PyDoc_STRVAR(create_future_doc,
"create_future($self, /)\n--\n\n"
"Return a new ctask.Future of this loop.  (asyncio.loop.create_future)");

static PyObject *
Loop_create_future(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return future_create(((LoopObj *)self)->st, self);
}

/* Tracers give asyncio's function other code, of which theirs is a constant; none of a compiler's can be called. */
static __attribute__((noinline)) int
look_at_create_task(ctask_state *st, PyObject *code)
{
    PyObject *constants = ((PyCodeObject *)code)->co_consts;
    int wrapped = 0;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(constants); i++) {
        wrapped |= PyCallable_Check(PyTuple_GET_ITEM(constants, i));
    }
    st->loop.create_task_is_wrapped = (char)wrapped;
    Py_XSETREF(st->create_task_code, Py_NewRef(code));
    return wrapped;
}

static inline int
create_task_is_wrapped(ctask_state *st)
{
    if (UNLIKELY(!PyFunction_Check(st->stock_create_task))) {
        return 0;
    }
    PyObject *code = PyFunction_GET_CODE(st->stock_create_task);
    return LIKELY(code == st->create_task_code) ? st->loop.create_task_is_wrapped
                                                : look_at_create_task(st, code);
}

static __attribute__((noinline)) PyObject *
look_for_task_class(ctask_state *st)
{
    st->loop.task_keys = NULL;
    PyObject *cls = PyDict_GetItemWithError(st->tasks_names, st->str.Task);
    if (cls == NULL) {
        PyErr_Clear(); // asyncio's own code looks, too
        return NULL;
    }
    PyDictObject *names = (PyDictObject *)st->tasks_names;
    PyDictKeysObject *keys = names->ma_keys;
    if (names->ma_values == NULL && DK_IS_UNICODE(keys)) {
        for (Py_ssize_t i = 0; i < keys->dk_nentries; i++) {
            if (DK_UNICODE_ENTRIES(keys)[i].me_key == st->str.Task) {
                st->loop.task_keys = keys;
                st->loop.task_index = i;
                break;
            }
        }
    }
    return cls;
}

/* asyncio.tasks.Task, borrowed, where it was found last; NULL if there is none.  As in handles/clock.c the table of
   keys is compared as an address only: another one that got it has this name in that place, or is searched. */
static inline PyObject *
task_class(ctask_state *st)
{
    PyDictKeysObject *keys = ((PyDictObject *)st->tasks_names)->ma_keys;
    if (LIKELY(keys == st->loop.task_keys && st->loop.task_index < keys->dk_nentries &&
               DK_UNICODE_ENTRIES(keys)[st->loop.task_index].me_key == st->str.Task)) {
        return DK_UNICODE_ENTRIES(keys)[st->loop.task_index].me_value;
    }
    return look_for_task_class(st);
}

/* Has a program put a class of its own in the place of asyncio.tasks.Task, or code of its own into asyncio's
   create_task()?  Then tasks are to be of it, and to be made by that. */
static inline int
tasks_are_foreign(ctask_state *st)
{
    if (UNLIKELY(create_task_is_wrapped(st))) {
        return 1;
    }
    PyObject *cls = task_class(st);
    return cls != st->stock_Task && cls != (PyObject *)st->TaskType;
}

PART int
schedule_creates_tasks(LoopObj *loop)
{
    return !loop->tasks_overridden && loop->task_factory == Py_None && !tasks_are_foreign(loop->st);
}

PyDoc_STRVAR(create_task_doc,
"create_task($self, coro, **kwargs)\n--\n\n"
"Schedule a coroutine and return its task: a ctask.Task, or what the task factory makes.\n\n"
"Keywords are those of asyncio.Task (`name`, `context`, ...).  Raises RuntimeError if the loop is closed,\n"
"TypeError if `coro` is no coroutine.  (asyncio.loop.create_task)");

static PyObject *
Loop_create_task(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    LoopObj *loop = (LoopObj *)self;
    ctask_state *st = loop->st;
    PyObject *coro = nargs == 1 ? args[0] : NULL;
    PyObject *name = NULL, *context = NULL;
    int eager = 0, known = nargs <= 1 && loop->task_factory == Py_None;
    Py_ssize_t nkw = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    for (Py_ssize_t k = 0; k < nkw && known; k++) {
        PyObject *key = PyTuple_GET_ITEM(kwnames, k);
        PyObject *value = args[nargs + k];
        if (PyUnicode_Compare(key, st->str.name) == 0) {
            name = value;
        }
        else if (PyUnicode_Compare(key, st->str.context) == 0) {
            context = value;
        }
#if PY_VERSION_HEX >= 0x030E0000
        else if (PyUnicode_Compare(key, st->str.eager_start) == 0) {
            eager = PyObject_IsTrue(value);
            if (eager < 0) {
                return NULL;
            }
        }
#endif
        else if (PyUnicode_Compare(key, st->str.coro) == 0 && coro == NULL) {
            coro = value;
        }
        else {
            known = 0;
        }
    }
    if (LIKELY(known && coro != NULL && !tasks_are_foreign(st))) {
        return loop_check_open(loop) < 0 ? NULL : task_create(st, self, coro, name, context, eager);
    }
    /* A task factory, whose calling convention differs between versions, another class, a tracer, or a mistake:
       asyncio's own. */
    PyObject *stack[8];
    Py_ssize_t total = nargs + nkw;
    if (total > 7) {
        PyErr_SetString(PyExc_TypeError, "create_task() got too many arguments");
        return NULL;
    }
    stack[0] = self;
    memcpy(stack + 1, args, (size_t)total * sizeof(PyObject *));
    return PyObject_Vectorcall(st->stock_create_task, stack, (size_t)nargs + 1, kwnames);
}

/* loop.create_task(coro), of any loop. */
PART PyObject *
loop_new_task(ctask_state *st, PyObject *obj, PyObject *coro)
{
    LoopObj *loop = loop_plain(obj);
    if (LIKELY(loop != NULL && schedule_creates_tasks(loop))) {
        return task_create(st, obj, coro, NULL, NULL, 0);
    }
    return PyObject_CallMethodOneArg(obj, st->str.create_task, coro);
}

static PyMethodDef schedule_methods[] = {
    {"call_soon", (PyCFunction)(void (*)(void))Loop_call_soon, METH_FASTCALL | METH_KEYWORDS, call_soon_doc},
    {"call_later", (PyCFunction)(void (*)(void))Loop_call_later, METH_FASTCALL | METH_KEYWORDS, call_later_doc},
    {"call_at", (PyCFunction)(void (*)(void))Loop_call_at, METH_FASTCALL | METH_KEYWORDS, call_at_doc},
    {"time", Loop_time, METH_NOARGS, time_doc},
    {"create_future", Loop_create_future, METH_NOARGS, create_future_doc},
    {"create_task",
     (PyCFunction)(void (*)(void))Loop_create_task,
     METH_FASTCALL | METH_KEYWORDS,
     create_task_doc},
    {NULL, NULL, 0, NULL},
};

PART int
schedule_setup(PyObject *Py_UNUSED(module), ctask_state *st)
{
    if (PyModule_Check(st->tasks_module)) {
        st->tasks_names = Py_NewRef(PyModule_GetDict(st->tasks_module));
    }
    else if ((st->tasks_names = PyDict_New()) == NULL) { // of somebody's own: it is asked by asyncio's code
        return -1;
    }
    return add_methods(st->LoopType, schedule_methods);
}
