/* ensure_future(): a future as it is, a coroutine as a new task; create_task().

   Other awaitables, other futures, and a coroutine without a loop that runs are left to asyncio's own. */

#include "coro/coro.h"
#include "tasks/done.h"
#include "combinators/ensure.h"
#include "loop/loop.h"
#include "coro/standin.h"

/* asyncio closes a coroutine of which it could make no task. */
static void
close_refused(ctask_state *st, PyObject *coro)
{
    if (!PyErr_ExceptionMatches(PyExc_RuntimeError)) {
        return;
    }
    PyObject *raised = PyErr_GetRaisedException();
    PyObject *res = PyObject_CallMethodNoArgs(coro, st->str.close);
    if (res == NULL) {
        raised_while(raised);
        return;
    }
    Py_DECREF(res);
    PyErr_SetRaisedException(raised);
}

PART PyObject *
ensure_future(ctask_state *st, PyObject *arg, PyObject *loop)
{
    if (LIKELY(loop != NULL)) {
        if (PyCoro_CheckExact(arg) || Py_IS_TYPE(arg, st->CoroType)) {
            PyObject *task = loop_new_task(st, loop, arg);
            if (UNLIKELY(task == NULL)) {
                close_refused(st, arg);
            }
            return task;
        }
        if (future_is_exact(arg) && ((FutureObj *)arg)->loop == loop) {
            return Py_NewRef(arg);
        }
    }
    PyObject *stack[] = {arg, loop};
    return PyObject_Vectorcall(st->stock_ensure_future, stack, 1, loop == NULL ? NULL : st->loop_kwnames);
}

/* asyncio._get_running_loop(): a new reference; NULL, with nothing set, if no loop runs in this thread. */
PART PyObject *
running_loop_or_null(ctask_state *st)
{
    PyObject *loop = running_loop(st);
    if (loop == NULL) {
        PyErr_Clear();
    }
    return loop;
}

#if FUTURE_CALL_GRAPH
PART PyObject *
task_for_call_graph(ctask_state *st, PyObject *loop)
{
    PyObject *task = current_task(st, loop);
    if (task != NULL && !PyObject_TypeCheck(task, (PyTypeObject *)st->stock_Future)) {
        Py_CLEAR(task);
    }
    return task;
}
#endif

/* ensure_future(coro_or_future, *, loop=None) */
static PyObject *
ensure_call(ctask_state *st, PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t nargs,
            PyObject *kwnames, PyObject *stock)
{
    PyObject *loop = NULL;
    int known = nargs == 1;
    if (kwnames != NULL && PyTuple_GET_SIZE(kwnames) > 0) {
        known = known && PyTuple_GET_SIZE(kwnames) == 1 &&
                PyUnicode_Compare(PyTuple_GET_ITEM(kwnames, 0), st->str.loop) == 0;
        loop = args[nargs];
    }
    if (UNLIKELY(!known)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    if (loop != NULL && loop != Py_None) {
        return ensure_future(st, args[0], loop);
    }
    if (future_is_exact(args[0])) {
        return Py_NewRef(args[0]);
    }
    loop = running_loop_or_null(st);
    PyObject *fut = ensure_future(st, args[0], loop);
    Py_XDECREF(loop);
    return fut;
}

/* create_task(coro, *, name=None, context=None): a coroutine by itself, on a loop of ours. */
static PyObject *
create_call(ctask_state *st, PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t nargs,
            PyObject *kwnames, PyObject *stock)
{
    PyObject *task = NULL, *running = NULL;
    if (LIKELY(nargs == 1 && (kwnames == NULL || PyTuple_GET_SIZE(kwnames) == 0))) {
        running = running_loop(st);
        if (UNLIKELY(running == NULL)) {
            return NULL;
        }
        LoopObj *loop = loop_plain(running);
        if (LIKELY(loop != NULL && schedule_creates_tasks(loop))) {
            task = task_create(st, running, args[0], NULL, NULL, 0);
            Py_DECREF(running);
            return task;
        }
    }
    task = PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    Py_XDECREF(running);
    return task;
}

PART int
ensure_setup(PyObject *module, ctask_state *st)
{
    if (standin_function(st, module, st->stock_ensure_future, "ensure_future", ensure_call) < 0) {
        return -1;
    }
    return standin_function(st, module, st->stock_create_task_function, "create_task", create_call);
}
