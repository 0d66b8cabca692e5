/* The loops of an interpreter that are open, for those who look at all of them: exporters of metrics.

   They are in a list that is embedded in them, in the order of their numbers.  A number is free again once its loop is
   closed, so there are never more of them than loops were open at once, however many a program opens. */

#include "loop/loops.h"
#include "loop/trace.h"
#include "tasks/registry.h"

PART void
loops_enter(LoopObj *loop)
{
    struct list_node *all = &loop->st->loop.open, *after = all->next;
    unsigned number = 0;
    while (after != all && list_entry(after, LoopObj, open)->number == number) {
        after = after->next;
        number++;
    }
    loop->number = number;
    list_append(after, &loop->open); // in front of it
    trace_enter(loop);
}

PART void
loops_leave(LoopObj *loop)
{
    if (list_is_linked(&loop->open)) {
        trace_leave(loop);
        list_remove(&loop->open);
    }
}

PART uint64_t
loops_running_task(ctask_state *st)
{
    PyThreadState *ts = PyThreadState_Get();
    struct list_node *all = &st->loop.open;
    for (struct list_node *node = all->next; node != all; node = node->next) {
        LoopObj *loop = list_entry(node, LoopObj, open);
        if (loop->draining == ts) {
            PyObject *task = current_known(st, loop);
            return task != NULL && PyObject_TypeCheck(task, st->TaskType) ? ((TaskObj *)task)->serial : 0;
        }
    }
    return 0;
}

PyDoc_STRVAR(open_loops_doc,
"_open_loops($module, /)\n--\n\n"
"Return the loops of this interpreter that are not closed, as a list of (number, loop); a number is one loop's as long\n"
"as it is open, and then may be another's.");

static PyObject *
open_loops(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    struct list_node *all = &((ctask_state *)PyModule_GetState(module))->loop.open;
    PyObject *loops = PyList_New(0), *tuples = NULL;
    /* To make a tuple may run a collection, and that anything: first those in the list. */
    for (struct list_node *node = all->next; loops != NULL && node != all; node = node->next) {
        LoopObj *loop = list_entry(node, LoopObj, open);
        /* What is freed just now, and runs Python code while it is, is nobody's any more. */
        if (Py_REFCNT(loop) > 0 && PyList_Append(loops, (PyObject *)loop) < 0) {
            Py_CLEAR(loops);
        }
    }
    Py_ssize_t length = loops == NULL ? -1 : PyList_GET_SIZE(loops);
    if (length >= 0) {
        tuples = PyList_New(length);
    }
    for (Py_ssize_t i = 0; tuples != NULL && i < length; i++) {
        PyObject *loop = PyList_GET_ITEM(loops, i);
        PyObject *tuple = Py_BuildValue("IO", ((LoopObj *)loop)->number, loop);
        if (tuple == NULL) {
            Py_CLEAR(tuples);
            break;
        }
        PyList_SET_ITEM(tuples, i, tuple);
    }
    Py_XDECREF(loops);
    return tuples;
}

static PyMethodDef loops_functions[] = {
    {"_open_loops", open_loops, METH_NOARGS, open_loops_doc},
    {NULL, NULL, 0, NULL},
};

PART int
loops_setup(PyObject *module, ctask_state *Py_UNUSED(st))
{
    return PyModule_AddFunctions(module, loops_functions);
}
