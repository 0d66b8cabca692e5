/* The type ctask.Task: how a task is made, and its methods.

   As with Future, what is cold (names of states, get_stack(), reprs, uncancel(), the report of a destroyed pending
   task) is inherited from `_asyncio.Task`. */

#include "tasks/cancel.h"
#include "tasks/future.h"
#include "tasks/future_iter.h"
#include "tasks/future_type.h"
#include "tasks/life.h"
#include "tasks/registry.h"
#include "tasks/task.h"
#include "tasks/task_type.h"

/* ---- making them ---- */

static int
is_coroutine(ctask_state *st, PyObject *obj)
{
    if (PyCoro_CheckExact(obj) || Py_IS_TYPE(obj, st->CoroType)) {
        return 1;
    }
    PyObject *res = PyObject_CallOneArg(st->iscoroutine, obj);
    if (res == NULL) {
        return -1;
    }
    int result = PyObject_IsTrue(res);
    Py_DECREF(res);
    return result;
}

/* The name of a task that was given none: a number, which get_name() formats. */
static PyObject *
task_number(ctask_state *st)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyLong_FromUnsignedLongLong(++st->tasks.counter);
#else /* `_asyncio.Task.get_name()`, which may be called with our tasks, does not */
    return PyUnicode_FromFormat("Task-%llu", (unsigned long long)++st->tasks.counter);
#endif
}

/* The collector finalizes what it finds in the order in which it came to know it.  In debug mode a coroutine goes behind
   its task: then it is not closed yet when the task says that it was destroyed, and where it waits can be told. */
static void
coro_goes_after(PyObject *coro)
{
    if (PyCoro_CheckExact(coro) && PyObject_GC_IsTracked(coro)) {
        PyObject_GC_UnTrack(coro);
        PyObject_GC_Track(coro);
    }
}

static int
task_init(TaskObj *task, ctask_state *st, PyObject *coro, PyObject *loop, PyObject *name, PyObject *context,
          int eager)
{
    int listed = list_is_linked(&task->node); // __init__() again: it may become another loop's
    registry_remove(task);
    int status = future_init((FutureObj *)task, st, loop);
    if (UNLIKELY(listed)) {
        PyObject *raised = PyErr_GetRaisedException();
        if (registry_add(st, task) < 0) {
            PyErr_Clear();
        }
        PyErr_SetRaisedException(raised);
    }
    if (status < 0) {
        return -1;
    }
#if FUTURE_CALL_GRAPH
    task->is_task = 1;
#endif
    int is_coro = is_coroutine(st, coro);
    if (is_coro <= 0) {
        if (is_coro == 0) {
            task->log_destroy_pending = 0;
            PyErr_Format(PyExc_TypeError, "a coroutine was expected, got %R", coro);
        }
        return -1;
    }
#if PY_VERSION_HEX >= 0x030F0000
    if (context != NULL && context != Py_None && !PyContext_CheckExact(context)) {
        task->log_destroy_pending = 0;
        PyErr_Format(PyExc_TypeError, "a contextvars.Context was expected, got %T", context);
        return -1;
    }
#endif
    context = context == NULL || context == Py_None ? context_snapshot(&st->base.contexts) : Py_NewRef(context);
    if (context == NULL) {
        return -1;
    }
    Py_XSETREF(task->context, context);
    Py_CLEAR(task->fut_waiter);
    task->must_cancel = 0;
    task->log_destroy_pending = 1;
    task->num_cancels_requested = 0;
    Py_XSETREF(task->coro, Py_NewRef(coro));
    if (name == NULL || name == Py_None) {
        name = task_number(st);
    }
    else {
        name = PyUnicode_CheckExact(name) ? Py_NewRef(name) : PyObject_Str(name);
    }
    if (name == NULL) {
        return -1;
    }
    Py_XSETREF(task->name, name);
    if (UNLIKELY(task->source_traceback != NULL)) {
        coro_goes_after(coro);
    }

    if (eager && task->loop != NULL) { /* str(name) may have taken it away */
        PyObject *own_loop = Py_NewRef(task->loop);
        int running = call_predicate(own_loop, st->str.is_running);
        Py_DECREF(own_loop);
        if (running != 0) {
            return running < 0 ? -1 : task_start_eagerly(task, st);
        }
    }
    if (task_schedule_step(task, st, NULL) < 0) {
        return -1;
    }
    return registry_add(st, task);
}

PART PyObject *
task_create(ctask_state *st, PyObject *loop, PyObject *coro, PyObject *name, PyObject *context, int eager)
{
    TaskObj *task = (TaskObj *)freelist_take(&st->tasks.free_tasks, st->TaskType);
    if (task == NULL) {
        return NULL;
    }
    memset((char *)task + sizeof(PyObject), 0, sizeof(TaskObj) - sizeof(PyObject));
    PyObject_GC_Track(task);
    if (task_init(task, st, coro, loop, name, context, eager) < 0) {
        Py_DECREF(task);
        return NULL;
    }
    return (PyObject *)task;
}

/* ---- life ---- */

static void
task_finalize(PyObject *self)
{
    TaskObj *task = (TaskObj *)self;
#if !TASKS_IN_THREAD_STATE
    /* asyncio's WeakSet forgets a task before its finalizer runs, so that one which the report of its own
       destruction brings back to life is not listed any more. */
    registry_remove(task);
#endif
    if (UNLIKELY(task->loop == NULL)) {
        task->log_destroy_pending = 0; /* there is nobody to report to */
    }
    ((PyTypeObject *)state_of(self)->stock_Task)->tp_finalize(self);
}

/* ---- the type ---- */

static int
Task___init__(PyObject *self, PyObject *args, PyObject *kwargs)
{
#if PY_VERSION_HEX >= 0x030C0000
    static char *keywords[] = {"coro", "loop", "name", "context", "eager_start", NULL};
    const char *format = "O|$OOOp:Task";
#else
    static char *keywords[] = {"coro", "loop", "name", "context", NULL};
    const char *format = "O|$OOO:Task";
#endif
    PyObject *coro, *loop = Py_None, *name = Py_None, *context = Py_None;
    int eager = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, format, keywords, &coro, &loop, &name, &context, &eager)) {
        return -1;
    }
    if (refuse_second_init((FutureObj *)self) < 0) {
        return -1;
    }
    ctask_state *st = state_of(self);
    state_keep(st);
    return task_init((TaskObj *)self, st, coro, loop, name, context, eager);
}

PyDoc_STRVAR(Task_cancel_doc,
"cancel($self, /, msg=None)\n--\n\n"
"Have CancelledError(msg) thrown into the coroutine; return False if the task is done.\n\n"
"(asyncio.Task.cancel)");

static PyObject *
Task_cancel(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    ctask_state *st = state_of(self);
    Py_ssize_t nkw = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    if (UNLIKELY(nargs + nkw > 1 ||
                 (nkw == 1 && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, 0), "msg") != 0))) {
        PyObject *stack[4] = {self};
        if (nargs + nkw > 3) {
            PyErr_SetString(PyExc_TypeError, "cancel() takes at most 1 argument");
            return NULL;
        }
        memcpy(stack + 1, args, (size_t)(nargs + nkw) * sizeof(PyObject *));
        return PyObject_Vectorcall(st->stock_task_cancel, stack, (size_t)nargs + 1, kwnames);
    }
    int result = task_cancel((TaskObj *)self, st, nargs + nkw == 1 ? args[0] : Py_None);
    return result < 0 ? NULL : PyBool_FromLong(result);
}

PyDoc_STRVAR(Task_get_name_doc,
"get_name($self, /)\n--\n\n"
"Return the name of the task, a str.  (asyncio.Task.get_name)");

static PyObject *
Task_get_name(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    TaskObj *task = (TaskObj *)self;
    if (task->name == NULL) {
        Py_RETURN_NONE;
    }
    if (PyLong_CheckExact(task->name)) {
        PyObject *name = PyUnicode_FromFormat("Task-%S", task->name);
        if (name == NULL) {
            return NULL;
        }
        Py_SETREF(task->name, name);
    }
    return Py_NewRef(task->name);
}

PyDoc_STRVAR(Task_get_coro_doc,
"get_coro($self, /)\n--\n\n"
"Return the coroutine that the task runs; None once a task that was started eagerly has ended.\n\n"
"(asyncio.Task.get_coro)");

static PyObject *
Task_get_coro(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *coro = ((TaskObj *)self)->coro;
    return Py_NewRef(coro == NULL ? Py_None : coro);
}

#if PY_VERSION_HEX >= 0x030C0000
#define TASK_SIGNATURE "Task(coro, *, loop=None, name=None, context=None, eager_start=False)\n--\n\n"

PyDoc_STRVAR(Task_get_context_doc,
"get_context($self, /)\n--\n\n"
"Return the contextvars.Context in which the coroutine runs.  (asyncio.Task.get_context)");

static PyObject *
Task_get_context(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    TaskObj *task = (TaskObj *)self;
    return task->context == NULL ? Py_NewRef(Py_None) : Py_XNewRef(task_context(task, state_of(self)));
}

/* `_asyncio.Task.get_context()`, called with any task: ours may have only the variables of its context. */
static PyObject *
stock_get_context(PyObject *self, PyObject *ignored)
{
    PyObject *mro = Py_TYPE(self)->tp_mro;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(mro); i++) {
        if (((PyTypeObject *)PyTuple_GET_ITEM(mro, i))->tp_dealloc == task_dealloc) {
            return Task_get_context(self, ignored);
        }
    }
    PyObject *context = ((TaskObj *)self)->context;
    return Py_NewRef(context == NULL ? Py_None : context);
}

static PyMethodDef stock_get_context_def = {
    "get_context", stock_get_context, METH_NOARGS, PyDoc_STR("get_context($self, /)\n--\n\n")};

/* It gives what is in the field, which is not always a context, and nothing else is asked on the way.  So it is the one
   method of asyncio's own type in whose place there is another; for asyncio's tasks it answers as before. */
static int
replace_get_context(PyTypeObject *type)
{
    PyObject *method = PyDescr_NewMethod(type, &stock_get_context_def);
    int result = method == NULL ? -1 : PyDict_SetItemString(type->tp_dict, "get_context", method);
    Py_XDECREF(method);
    PyType_Modified(type);
    return result;
}
#else
#define TASK_SIGNATURE "Task(coro, *, loop=None, name=None, context=None)\n--\n\n"
#endif

PyDoc_STRVAR(Task_doc,
TASK_SIGNATURE
"A coroutine that the event loop runs; awaiting the task gives its result.\n\n"
"Stands for asyncio.Task, which it derives from.  Raises TypeError if `coro` is no\n"
"coroutine.  Use loop.create_task() or asyncio.create_task() to make one.");

PyDoc_STRVAR(Task_add_done_callback_doc,
"add_done_callback($self, fn, /, *, context=<unrepresentable>)\n--\n\n"
"As ctask.Future.add_done_callback().");

PyDoc_STRVAR(Task_remove_done_callback_doc,
"remove_done_callback($self, fn, /)\n--\n\n"
"As ctask.Future.remove_done_callback().");

PyDoc_STRVAR(Task___await___doc,
"__await__($self, /)\n--\n\n"
"As ctask.Future.__await__().");

/* ctask.Future has what is about callbacks, but `_asyncio.Task` has them a second time, and it comes first in
   the order of bases (for its cancel() and set_result()). */
static PyMethodDef Task_methods[] = {
    {"add_done_callback",
     (PyCFunction)(void (*)(void))Future_add_done_callback,
     METH_FASTCALL | METH_KEYWORDS,
     Task_add_done_callback_doc},
    {"remove_done_callback", Future_remove_done_callback, METH_O, Task_remove_done_callback_doc},
    {"cancel", (PyCFunction)(void (*)(void))Task_cancel, METH_FASTCALL | METH_KEYWORDS, Task_cancel_doc},
    {"get_name", Task_get_name, METH_NOARGS, Task_get_name_doc},
    /* `_asyncio`'s of some versions crash on a task without __init__. */
    {"get_coro", Task_get_coro, METH_NOARGS, Task_get_coro_doc},
#if PY_VERSION_HEX >= 0x030C0000
    {"get_context", Task_get_context, METH_NOARGS, Task_get_context_doc},
#endif
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef Task_getset[] = {
    {"_callbacks", Future_get_callbacks, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot Task_slots[] = {
    {Py_tp_doc, (void *)Task_doc},
    {Py_tp_init, Task___init__},
    {Py_tp_dealloc, task_dealloc},
    {Py_tp_traverse, task_traverse},
    {Py_tp_clear, task_clear},
    {Py_tp_iter, future_iter},
    {Py_am_await, future_iter}, /* for __await__(); see future_become_iterator() */
    {Py_tp_finalize, task_finalize},
    {Py_tp_methods, Task_methods},
    {Py_tp_getset, Task_getset},
    {0, NULL},
};

static PyType_Spec Task_spec = {
    .name = "ctask.Task",
    .basicsize = sizeof(TaskObj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Task_slots,
};

PART int
task_setup(PyObject *module, ctask_state *st)
{
    PyObject *bases = PyTuple_Pack(2, st->stock_Task, (PyObject *)st->FutureType);
    if (bases == NULL) {
        return -1;
    }
    int result = add_type(module, "Task", &st->TaskType, &Task_spec, bases);
    Py_DECREF(bases);
    if (result < 0) {
        return -1;
    }
    future_become_iterator(st->TaskType);
#if PY_VERSION_HEX >= 0x030C0000
    if (replace_get_context((PyTypeObject *)st->stock_Task) < 0) {
        return -1;
    }
#endif
    st->tasks.run_as_callback = task_run_as_callback;
    return 0;
}
