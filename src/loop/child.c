/* The exit of child processes: a pidfd that is watched, and what is done once it is ready.

   What a Child does is that of `_Child` in ctask/_process.py, which stays for loops with methods of their own and for
   where there is no pidfd.  It knows of transports only that they have _process_exited() and _status_taken(). */

#include "loop/child.h"
#include "handles/work.h"
#include "loop/watch.h"

#include <sys/wait.h>
#include <unistd.h>

/* Called by the loop when the child has ended. */
typedef struct {
    PyObject_HEAD
    LoopObj *loop; // owned; NULL once it was collected
    PyObject *transport; // owned
    PyObject *pid; // owned
    int pidfd; // closed with this object: also when the loop was closed before the child's end
} ChildObj;

/* The status of waitpid(), as Process.returncode has it. */
static int
returncode_of(int status)
{
    return WIFEXITED(status) ? WEXITSTATUS(status) : WIFSIGNALED(status) ? -WTERMSIG(status) : status;
}

/* os.waitpid(pid, 0), for programs that have put their own in its place.  NULL with an exception. */
static PyObject *
child_reap(ctask_state *st, PyObject *pid)
{
    PyObject *zero = PyLong_FromLong(0), *args[] = {st->os_module, pid, zero};
    PyObject *waited = zero == NULL ? NULL : PyObject_VectorcallMethod(st->str.waitpid, args, 3, NULL);
    PyObject *status = waited == NULL ? NULL : PySequence_GetItem(waited, 1);
    Py_XDECREF(waited);
    Py_XDECREF(zero);
    long number = status == NULL ? -1 : PyLong_AsLong(status);
    Py_XDECREF(status);
    return number == -1 && PyErr_Occurred() ? NULL : PyLong_FromLong(returncode_of((int)number));
}

static PyObject *
Child_call(PyObject *self, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    ChildObj *child = (ChildObj *)self;
    if (child->loop == NULL) {
        Py_RETURN_NONE;
    }
    LoopObj *loop = (LoopObj *)Py_NewRef(child->loop);
    ctask_state *st = loop->st;
    PyObject *transport = Py_NewRef(child->transport), *pid = Py_NewRef(child->pid), *result = NULL;
    PyObject *returncode = watch_end_callback(loop, child->pidfd) < 0 ? NULL : child_reap(st, pid);
    if (UNLIKELY(returncode == NULL) && PyErr_ExceptionMatches(PyExc_ChildProcessError)) {
        PyErr_Clear();
        returncode = PyObject_CallMethodNoArgs(transport, st->str._status_taken);
    }
    if (returncode != NULL) {
        /* At once: the process number is free from now on, and nobody may send a signal to whoever gets it next. */
        result = PyObject_CallMethodOneArg(transport, st->str._process_exited, returncode);
        Py_DECREF(returncode);
    }
    Py_DECREF(pid);
    Py_DECREF(transport);
    Py_DECREF(loop);
    return result;
}

static int
Child_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((ChildObj *)self)->loop);
    Py_VISIT(((ChildObj *)self)->transport);
    return 0;
}

static int
Child_clear(PyObject *self)
{
    Py_CLEAR(((ChildObj *)self)->loop);
    Py_CLEAR(((ChildObj *)self)->transport);
    return 0;
}

static void
Child_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)Child_clear(self);
    Py_CLEAR(((ChildObj *)self)->pid);
    if (((ChildObj *)self)->pidfd >= 0) {
        (void)close(((ChildObj *)self)->pidfd);
    }
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot Child_slots[] = {
    {Py_tp_call, Child_call},
    {Py_tp_traverse, Child_traverse},
    {Py_tp_clear, Child_clear},
    {Py_tp_dealloc, Child_dealloc},
    {0, NULL},
};

static PyType_Spec Child_spec = {
    .name = "ctask._Child",
    .basicsize = sizeof(ChildObj),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Child_slots,
};

/* os.pidfd_open(pid).  -1 with an exception. */
static int
open_pidfd(ctask_state *st, PyObject *pid)
{
    PyObject *opened = PyObject_CallMethodOneArg(st->os_module, st->str.pidfd_open, pid);
    long pidfd = opened == NULL ? -1 : PyLong_AsLong(opened);
    Py_XDECREF(opened);
    if (pidfd >= 0 && pidfd <= INT_MAX) {
        return (int)pidfd;
    }
    if (!PyErr_Occurred()) { // a program's own function gave it
        PyErr_Format(PyExc_ValueError, "Invalid file descriptor: %ld", pidfd);
    }
    return -1;
}

PyDoc_STRVAR(watch_child_doc,
"_watch_child($self, transport, pid, /)\n--\n\n"
"Have transport._process_exited(returncode) called when the child ends; return False if there is no pidfd of it.\n\n"
"Raises OSError if the pidfd cannot be polled.");

static PyObject *
Loop_watch_child(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    LoopObj *loop = (LoopObj *)self;
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "_watch_child() takes a transport and a process number");
        return NULL;
    }
    if (loop_check_open(loop) < 0) {
        return NULL;
    }
    ChildObj *child = PyObject_GC_New(ChildObj, loop->st->ChildType);
    if (child == NULL) {
        return NULL;
    }
    child->loop = (LoopObj *)Py_NewRef(loop);
    child->transport = Py_NewRef(args[0]);
    child->pid = Py_NewRef(args[1]);
    child->pidfd = open_pidfd(loop->st, args[1]);
    PyObject_GC_Track(child);
    PyObject *result = NULL;
    if (child->pidfd >= 0) {
        result = watch_callback(loop, child->pidfd, (PyObject *)child) < 0 ? NULL : Py_NewRef(Py_True);
    }
    else if (PyErr_ExceptionMatches(PyExc_OSError)) {
        PyErr_Clear();
        result = Py_NewRef(Py_False);
    }
    Py_DECREF(child);
    return result;
}

static PyMethodDef child_methods[] = {
    {"_watch_child", (PyCFunction)(void (*)(void))Loop_watch_child, METH_FASTCALL, watch_child_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(type_version_doc,
"_type_version($module, cls, /)\n--\n\n"
"A number that a class has as long as nobody changes it; 0 if it has none just now.");

static PyObject *
type_version(PyObject *Py_UNUSED(module), PyObject *cls)
{
    if (!PyType_Check(cls)) {
        PyErr_SetString(PyExc_TypeError, "a class is needed");
        return NULL;
    }
    return PyLong_FromUnsignedLong(((PyTypeObject *)cls)->tp_version_tag);
}

static PyMethodDef child_functions[] = {
    {"_type_version", type_version, METH_O, type_version_doc},
    {NULL, NULL, 0, NULL},
};

PART int
child_setup(PyObject *module, ctask_state *st)
{
    if (PyModule_AddFunctions(module, child_functions) < 0 ||
        add_type(module, NULL, &st->ChildType, &Child_spec, NULL) < 0) {
        return -1;
    }
    return add_methods(st->LoopType, child_methods);
}
