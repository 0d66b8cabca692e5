/* The ready queue as asyncio's attribute `_ready` shows it, and a turn of the poller as `_selector.select()`: for
   those who run a loop's iterations by themselves (nest_asyncio), or look at what will run.

   ctask/_ready.py makes a deque's methods of what is here.  An entry of the ring that anybody looks at becomes the
   handle that asyncio would have made, and stays it: whoever cancels that handle cancels the call. */

#include "loop/loop.h"

#include <math.h>

static PyObject *
ready_length(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromSize_t(ring_length(&((LoopObj *)self)->ready));
}

static void
set_mutated(void)
{
    PyErr_SetString(PyExc_RuntimeError, "deque mutated during iteration");
}

/* The handle of an entry, which it is from now on; owned. */
static PyObject *
ready_show(LoopObj *loop, size_t i)
{
    ring_entry shown = *ring_at(&loop->ready, i);
    if (ring_kind(&shown) == READY_HANDLE) {
        return Py_NewRef(ring_subject(&shown));
    }
    /* Of these a method is looked up, which may be anybody's. */
    PyObject *subject = ring_kind(&shown) == READY_READ || ring_kind(&shown) == READY_WRITE
                            ? Py_NewRef(ring_subject(&shown))
                            : NULL;
    int collects = PyGC_Disable(); // a collection may run anything, and the ring would be another
    PyObject *handle = entry_as_handle(loop, &shown);
    if (handle != NULL &&
        (i >= ring_length(&loop->ready) || memcmp(ring_at(&loop->ready, i), &shown, sizeof(shown)) != 0)) {
        set_mutated();
        Py_CLEAR(handle);
    }
    if (handle != NULL) {
        *ring_at(&loop->ready, i) = ring_make(Py_NewRef(handle), READY_HANDLE, NULL, NULL);
    }
    if (collects) {
        PyGC_Enable();
    }
    if (handle != NULL) {
        entry_forget(&shown);
    }
    Py_XDECREF(subject);
    return handle;
}

static int
ready_index(LoopObj *loop, PyObject *obj, size_t *index)
{
    *index = PyLong_AsSize_t(obj);
    if (*index == (size_t)-1 && PyErr_Occurred()) {
        return -1;
    }
    if (*index >= ring_length(&loop->ready)) {
        PyErr_SetString(PyExc_IndexError, "deque index out of range");
        return -1;
    }
    return 0;
}

PyDoc_STRVAR(ready_at_doc, "_ready_at($self, index, /)\n--\n\nReturn the handle that is ready at this place.");

static PyObject *
ready_at(PyObject *self, PyObject *arg)
{
    size_t i;
    return ready_index((LoopObj *)self, arg, &i) < 0 ? NULL : ready_show((LoopObj *)self, i);
}

PyDoc_STRVAR(ready_take_doc,
             "_ready_take($self, index, /)\n--\n\nTake the handle at this place out of the ready queue.");

static PyObject *
ready_take(PyObject *self, PyObject *arg)
{
    LoopObj *loop = (LoopObj *)self;
    ring *ready = &loop->ready;
    size_t i;
    if (ready_index(loop, arg, &i) < 0) {
        return NULL;
    }
    PyObject *handle = ready_show(loop, i);
    if (handle == NULL) {
        return NULL;
    }
    if (i >= ring_length(ready) || ring_subject(ring_at(ready, i)) != handle) {
        set_mutated(); // by what dropping the entry ran
        Py_DECREF(handle);
        return NULL;
    }
    /* What is on its shorter side moves up: taking from either end is quick. */
    size_t behind = ring_length(ready) - 1 - i;
    if (i <= behind) {
        for (; i > 0; i--) {
            *ring_at(ready, i) = *ring_at(ready, i - 1);
        }
        (void)ring_pop(ready);
    }
    else {
        for (; behind > 0; behind--, i++) {
            *ring_at(ready, i) = *ring_at(ready, i + 1);
        }
        ready->tail--;
    }
    Py_DECREF(handle); // the ring's reference is the caller's now, and this one is too many
    return handle;
}

PyDoc_STRVAR(ready_put_doc,
"_ready_put($self, index, handle, /)\n--\n\n"
"Put a handle into the ready queue before the one at this place.\n\n"
"A timer that is not due yet is taken from where it waits.");

static PyObject *
ready_put(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    LoopObj *loop = (LoopObj *)self;
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "_ready_put() takes a place and a handle");
        return NULL;
    }
    size_t i = PyLong_AsSize_t(args[0]);
    if (i == (size_t)-1 && PyErr_Occurred()) {
        return NULL;
    }
    PyObject *handle = args[1];
    if (loop_ready(loop, Py_NewRef(handle), READY_HANDLE, NULL, NULL) < 0) {
        return NULL;
    }
    size_t last = ring_length(&loop->ready) - 1;
    ring_entry entry = *ring_at(&loop->ready, last);
    for (; last > i; last--) {
        *ring_at(&loop->ready, last) = *ring_at(&loop->ready, last - 1);
    }
    *ring_at(&loop->ready, last) = entry;
    if (Py_TYPE(handle)->tp_dealloc == timer_dealloc && timer_remove(self, (TimerObj *)handle)) {
        Py_DECREF(handle);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(ready_clear_doc, "_ready_clear($self, /)\n--\n\nForget all that is ready.");

static PyObject *
ready_clear(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    loop_forget_ready((LoopObj *)self);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(poll_doc,
"_poll($self, timeout, /)\n--\n\n"
"Wait for descriptors, up to `timeout` seconds (None: without end), and make ready who watches those that are.");

static PyObject *
ready_poll(PyObject *self, PyObject *timeout)
{
    LoopObj *loop = (LoopObj *)self;
    int64_t nanoseconds = -1;
    if (timeout != Py_None) {
        double seconds = PyFloat_AsDouble(timeout);
        if (seconds == -1.0 && PyErr_Occurred()) {
            return NULL;
        }
        nanoseconds = seconds > 0 ? (int64_t)ceil(fmin(seconds, MAXIMUM_WAIT) * 1e9) : 0;
    }
    if (ring_length(&loop->ready) > 0) {
        nanoseconds = 0; // a thread that found nobody asleep has not woken us
    }
    if (loop_check_open(loop) < 0 || poll_wait(loop, nanoseconds) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef ready_methods[] = {
    {"_ready_length", ready_length, METH_NOARGS, NULL},
    {"_ready_at", ready_at, METH_O, ready_at_doc},
    {"_ready_take", ready_take, METH_O, ready_take_doc},
    {"_ready_clear", ready_clear, METH_NOARGS, ready_clear_doc},
    {"_ready_put", (PyCFunction)(void (*)(void))ready_put, METH_FASTCALL, ready_put_doc},
    {"_poll", ready_poll, METH_O, poll_doc},
    {NULL, NULL, 0, NULL},
};

PART int
ready_setup(PyObject *Py_UNUSED(module), ctask_state *st)
{
    return add_methods(st->LoopType, ready_methods);
}
