/* What a forked child must know: that it is one.

   An epoll set and an eventfd are shared with the parent after a fork; a child that changes or uses them
   changes the parent's loop.  Each fork that Python knows of is counted in the child, and a poller whose
   count is out of date makes its own descriptors before it next talks to the kernel (poll_epoll.c).  So are files with
   what was set on them: whether they block again is the parent's matter (blocking.c). */

#include "loop/blocking.h"
#include "loop/poll.h"

PyDoc_STRVAR(after_fork_doc, "_after_fork($module, /)\n--\n\nCount a fork; os.fork() calls it in the child.");

static PyObject *
after_fork(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    ctask_state *st = PyModule_GetState(module);
    st->loop.forks++;
    blocking_leave_to_parent(st);
#if PY_VERSION_HEX < 0x030C0000
    /* The socket that signals are written to is the parent's as well.  asyncio does this from 3.12 on. */
    PyObject *signal = PyImport_ImportModule("signal");
    PyObject *res = signal == NULL ? NULL : PyObject_CallMethod(signal, "set_wakeup_fd", "i", -1);
    Py_XDECREF(signal);
    if (res == NULL) {
        return NULL;
    }
    Py_DECREF(res);
#endif
    Py_RETURN_NONE;
}

static PyMethodDef fork_functions[] = {
    {"_after_fork", after_fork, METH_NOARGS, after_fork_doc},
    {NULL, NULL, 0, NULL},
};

PART int
fork_setup(PyObject *module, ctask_state *Py_UNUSED(st))
{
    int result = -1;
    PyObject *os = NULL, *function = NULL, *kwargs = NULL, *args = NULL, *method = NULL, *res = NULL;
    if (PyModule_AddFunctions(module, fork_functions) < 0 || (os = PyImport_ImportModule("os")) == NULL ||
        (function = PyObject_GetAttrString(os, "register_at_fork")) == NULL ||
        (method = PyObject_GetAttrString(module, "_after_fork")) == NULL ||
        (kwargs = Py_BuildValue("{sO}", "after_in_child", method)) == NULL || (args = PyTuple_New(0)) == NULL) {
        goto finally;
    }
    res = PyObject_Call(function, args, kwargs);
    result = res == NULL ? -1 : 0;
finally:
    Py_XDECREF(res);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    Py_XDECREF(method);
    Py_XDECREF(function);
    Py_XDECREF(os);
    return result;
}
