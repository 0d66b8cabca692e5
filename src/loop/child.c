/* The exit of child processes: a pidfd that is watched, and what is done once it is ready.

   What a Child does is that of `_Child` in ctask/_process.py, which stays for loops with methods of their own and for
   where there is no pidfd.  It knows of transports only that they have _process_exited() and _status_taken(). */

#include "loop/child.h"
#include "handles/work.h"
#include "loop/watch.h"

#include <sys/syscall.h>
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

/* The process number, if the system can be called at once: os.`name` is posix's own.  0 if not. */
static pid_t
direct_pid(ctask_state *st, PyObject *pid, PyObject *name, PyObject *posixs)
{
    int overflow = 0;
    long number = PyLong_CheckExact(pid) ? PyLong_AsLongAndOverflow(pid, &overflow) : 0;
    if (number <= 0 || number > INT_MAX || posixs == NULL) {
        return 0;
    }
    PyObject *function = PyObject_GetAttr(st->os_module, name);
    Py_XDECREF(function);
    if (function == NULL) {
        PyErr_Clear(); // who calls it says so
    }
    return function == posixs ? (pid_t)number : 0;
}

/* os.waitpid(pid, 0), also if a program has put its own in its place.  NULL with an exception. */
static PyObject *
child_reap(ctask_state *st, PyObject *pid)
{
    pid_t direct = direct_pid(st, pid, st->str.waitpid, st->posix_waitpid);
    int ended;
    if (LIKELY(direct > 0 && waitpid(direct, &ended, WNOHANG) == direct)) {
        return PyLong_FromLong(returncode_of(ended));
    }
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
    pid_t direct = direct_pid(st, pid, st->str.pidfd_open, st->posix_pidfd_open);
    int fd = direct > 0 ? (int)syscall(SYS_pidfd_open, direct, 0) : -1;
    if (LIKELY(fd >= 0)) {
        return fd;
    }
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

PART int
child_watch(LoopObj *loop, PyObject *transport, PyObject *pid)
{
    if (loop_check_open(loop) < 0) {
        return -1;
    }
    ChildObj *child = PyObject_GC_New(ChildObj, loop->st->ChildType);
    if (child == NULL) {
        return -1;
    }
    child->loop = (LoopObj *)Py_NewRef(loop);
    child->transport = Py_NewRef(transport);
    child->pid = Py_NewRef(pid);
    child->pidfd = open_pidfd(loop->st, pid);
    PyObject_GC_Track(child);
    int status = -1;
    if (child->pidfd >= 0) {
        status = watch_callback(loop, child->pidfd, (PyObject *)child) < 0 ? -1 : 1;
    }
    else if (PyErr_ExceptionMatches(PyExc_OSError)) {
        PyErr_Clear();
        status = 0;
    }
    Py_DECREF(child);
    return status;
}

PyDoc_STRVAR(watch_child_doc,
"_watch_child($self, transport, pid, /)\n--\n\n"
"Have transport._process_exited(returncode) called when the child ends; return False if there is no pidfd of it.\n\n"
"Raises OSError if the pidfd cannot be polled.");

static PyObject *
Loop_watch_child(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "_watch_child() takes a transport and a process number");
        return NULL;
    }
    int status = child_watch((LoopObj *)self, args[0], args[1]);
    return status < 0 ? NULL : PyBool_FromLong(status);
}

static PyMethodDef child_methods[] = {
    {"_watch_child", (PyCFunction)(void (*)(void))Loop_watch_child, METH_FASTCALL, watch_child_doc},
    {NULL, NULL, 0, NULL},
};

/* os.`name`, if it is the system's. */
static int
find_posixs(ctask_state *st, PyObject **slot, const char *name)
{
    PyObject *found = PyObject_GetAttrString(st->os_module, name);
    if (found == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
            return -1;
        }
        PyErr_Clear();
        return 0;
    }
    if (PyCFunction_CheckExact(found) && strcmp(((PyCFunctionObject *)found)->m_ml->ml_name, name) == 0) {
        *slot = Py_NewRef(found);
    }
    Py_DECREF(found);
    return 0;
}

PART int
child_setup(PyObject *module, ctask_state *st)
{
    if (add_type(module, NULL, &st->ChildType, &Child_spec, NULL) < 0 ||
        find_posixs(st, &st->posix_waitpid, "waitpid") < 0 ||
        find_posixs(st, &st->posix_pidfd_open, "pidfd_open") < 0) {
        return -1;
    }
    return add_methods(st->LoopType, child_methods);
}
