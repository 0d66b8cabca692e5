/* Work from other threads and from signal handlers: call_soon_threadsafe() and its private relatives.

   All of them hold the interpreter lock, so the ring itself needs none; what is left is to end the wait of
   a loop that sleeps in the kernel, and a loop that does not sleep costs no system call. */

#include "loop/loop.h"
#include "loop/trace.h"

static void
wake_if_sleeping(LoopObj *loop)
{
    if (loop->sleeping) {
        loop->sleeping = 0; // one write is enough for all who come before it wakes
        poll_wake(&loop->poll);
    }
}

PyDoc_STRVAR(call_soon_threadsafe_doc,
"call_soon_threadsafe($self, callback, *args, context=None)\n--\n\n"
"Like call_soon(), and may be called from another thread or a signal handler; return a Handle.\n\n"
"Raises RuntimeError if the loop is closed.  (asyncio.loop.call_soon_threadsafe)");

static PyObject *
Loop_call_soon_threadsafe(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *handle = schedule_soon((LoopObj *)self, 1, args, nargs, kwnames);
    if (handle != NULL) {
        if (UNLIKELY(((LoopObj *)self)->observer != NULL)) {
            trace_thread((LoopObj *)self);
        }
        wake_if_sleeping((LoopObj *)self);
    }
    return handle;
}

PyDoc_STRVAR(write_to_self_doc,
"_write_to_self($self, /)\n--\n\n"
"Wake the loop if it waits.  (asyncio's selector loop has it under this name.)");

static PyObject *
Loop_write_to_self(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    poll_wake(&((LoopObj *)self)->poll);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(add_callback_doc,
"_add_callback($self, handle, /)\n--\n\n"
"Put a handle on the ready queue unless it was cancelled.  (asyncio's base loop has it under this name.)");

static PyObject *
Loop_add_callback(PyObject *self, PyObject *handle)
{
    int cancelled = handle_is_cancelled(handle);
    if (cancelled < 0) {
        return NULL;
    }
    if (!cancelled && loop_ready((LoopObj *)self, Py_NewRef(handle), READY_HANDLE, NULL, NULL) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Loop_add_callback_signalsafe(PyObject *self, PyObject *handle)
{
    PyObject *res = Loop_add_callback(self, handle);
    if (res != NULL) {
        wake_if_sleeping((LoopObj *)self);
    }
    return res;
}

static PyMethodDef wake_methods[] = {
    {"call_soon_threadsafe",
     (PyCFunction)(void (*)(void))Loop_call_soon_threadsafe,
     METH_FASTCALL | METH_KEYWORDS,
     call_soon_threadsafe_doc},
    {"_write_to_self", Loop_write_to_self, METH_NOARGS, write_to_self_doc},
    {"_add_callback", Loop_add_callback, METH_O, add_callback_doc},
    {"_add_callback_signalsafe", Loop_add_callback_signalsafe, METH_O, add_callback_doc},
    {NULL, NULL, 0, NULL},
};

PART int
wake_setup(PyObject *Py_UNUSED(module), ctask_state *st)
{
    return add_methods(st->LoopType, wake_methods);
}
