/* What a loop has done so far, as ctask.stats() shows it.  Who does it counts it, in the loop's `counters`:
   iterate.c, run.c and poll_epoll.c, the registry of tasks, and those who receive and send. */

#include "handles/clock.h"
#include "loop/loop.h"

#define COUNTERS(X)  \
    X(iterations)    \
    X(callbacks)     \
    X(polls)         \
    X(events)        \
    X(wakeups)       \
    X(tasks)         \
    X(tasks_pending) \
    X(bytes_in)      \
    X(bytes_out)

static int
set_number(PyObject *numbers, const char *name, PyObject *value)
{
    int status = value == NULL ? -1 : PyDict_SetItemString(numbers, name, value);
    Py_XDECREF(value);
    return status;
}

static size_t
open_transports(const poll_state *poll)
{
    size_t n = 0;
    for (int fd = 0; fd < poll->n_slots; fd++) {
        n += poll->slots[fd].owner != NULL;
    }
    return n;
}

PyDoc_STRVAR(counters_doc,
"_counters($self, /)\n--\n\n"
"Return a dictionary of what the loop has done since it was made, and of what waits in it now; times in nanoseconds.");

static PyObject *
Loop_counters(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    LoopObj *loop = (LoopObj *)self;
    loop_counters now = loop->counters; // making numbers may run a collection, and that anything
    size_t ready = ring_length(&loop->ready), timers = loop->timers.length;
    size_t transports = open_transports(&loop->poll);
    int64_t clock = clock_nanoseconds();
    if (now.waiting_since != 0) {
        now.waited += clock - now.waiting_since; // another thread asks
    }
    if (now.running_since != 0) {
        now.ran += clock - now.running_since;
    }
    PyObject *numbers = PyDict_New();
    if (numbers == NULL) {
        return NULL;
    }
#define X(name) || set_number(numbers, #name, PyLong_FromLongLong((long long)now.name)) < 0
    if (set_number(numbers, "ready", PyLong_FromSize_t(ready)) < 0 ||
        set_number(numbers, "timers", PyLong_FromSize_t(timers)) < 0 ||
        set_number(numbers, "transports", PyLong_FromSize_t(transports)) < 0 ||
        set_number(numbers, "ran", PyLong_FromLongLong(now.ran)) < 0 ||
        set_number(numbers, "waited", PyLong_FromLongLong(now.waited)) < 0 COUNTERS(X)) {
#undef X
        Py_DECREF(numbers);
        return NULL;
    }
    return numbers;
}

PyDoc_STRVAR(waits_since_doc,
"_waits_since($self, task, /)\n--\n\n"
"Return when a task of ctask's had its last step, in seconds of time.monotonic(), within a thirtieth of the time since\n"
"then; None if it had none.");

static PyObject *
Loop_waits_since(PyObject *self, PyObject *obj)
{
    LoopObj *loop = (LoopObj *)self;
    if (!PyObject_TypeCheck(obj, loop->st->TaskType) || ((TaskObj *)obj)->loop != self) {
        PyErr_SetString(PyExc_TypeError, "_waits_since() takes a task of this loop");
        return NULL;
    }
    TaskObj *task = (TaskObj *)obj;
    if (task->since == 0) {
        Py_RETURN_NONE;
    }
    return PyFloat_FromDouble((double)moments_find(loop, task->since, clock_nanoseconds()) / 1e9);
}

static PyMethodDef counters_methods[] = {
    {"_counters", Loop_counters, METH_NOARGS, counters_doc},
    {"_waits_since", Loop_waits_since, METH_O, waits_since_doc},
    {NULL, NULL, 0, NULL},
};

PART int
counters_setup(PyObject *Py_UNUSED(module), ctask_state *st)
{
    return add_methods(st->LoopType, counters_methods);
}
