/* The transport of a child process: what each child has done, from its start to connection_lost().

   The class is in Python (ctask/_process.py), over asyncio's own, and so are its attributes and what is out of the
   ordinary: a child with pipes is started there, debug mode is asyncio's.  Here are the methods that every child runs
   through, and the start of one that inherits all: for the loop's subprocess_exec(), and in one piece for asyncio's
   create_subprocess_exec(). */

#include "io/process.h"
#include "coro/coro.h"
#include "coro/standin.h"
#include "handles/work.h"
#include "io/spawn.h"
#include "io/subprocess.h"
#include "loop/child.h"
#include "loop/schedule.h"
#include "tasks/future.h"
#include "tasks/registry.h"

/* What _process.py has told of itself and of the standard library when it was imported. */
enum {
    PART_LOOP, // ctask.EventLoop
    PART_MAKE, // its _make_subprocess_transport
    PART_EXEC, // its subprocess_exec
    PART_CLASS, // of the transports
    PART_ABANDON, // (transport, exception) -> a coroutine that ends the child and raises
    PART_CHILD, // (loop, transport): waits for the exit where there is no pidfd
    PART_WATCHER_OF, // (loop) -> the child watcher that the program chose, or None
    PART_NO_WATCHER, // what shows quickly that it chose none: get_child_watcher() of asyncio's policy, or a class
    PART_ASYNCIO, // the module
    PART_SUBPROCESS, // the module
    PART_OS, // the module
    PART_POPEN, // subprocess.Popen
    PART_POSIX_SPAWN, // os.posix_spawn
    PART_LOOK, // () -> is Popen what it was?
    PART_RESTORED, // signals
    PART_CLOSE_FROM, // the action that closes descriptors
    N_PARTS
};

/* ---- attributes ---- */

static int
set_all(PyObject *self, PyObject *value, PyObject *const *names, int n)
{
    for (int i = 0; i < n; i++) {
        if (PyObject_SetAttr(self, names[i], value) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
attribute_is_true(PyObject *self, PyObject *name)
{
    PyObject *value = PyObject_GetAttr(self, name);
    int truth = value == NULL ? -1 : PyObject_IsTrue(value);
    Py_XDECREF(value);
    return truth;
}

/* Has the child no pipes?  -1 with an exception. */
static int
process_is_without_pipes(ctask_state *st, PyObject *self)
{
    PyObject *pipes = PyObject_GetAttr(self, st->str._pipes);
    int without = pipes == NULL ? -1 : PyDict_CheckExact(pipes) && PyDict_GET_SIZE(pipes) == 0;
    Py_XDECREF(pipes);
    return without;
}

/* loop.call_soon(obj.name, *arg) */
static int
call_method_soon(ctask_state *st, PyObject *loop, PyObject *obj, PyObject *name, PyObject *arg)
{
    PyObject *method = PyObject_GetAttr(obj, name);
    if (method == NULL) {
        return -1;
    }
    PyObject *args[] = {loop, method, arg};
    PyObject *handle = PyObject_VectorcallMethod(st->str.call_soon, args, arg == NULL ? 2 : 3, NULL);
    Py_DECREF(method);
    Py_XDECREF(handle);
    return handle == NULL ? -1 : 0;
}

/* ---- the end ---- */

/* Tell who waits in _wait(). */
static int
process_tell_waiting(ctask_state *st, PyObject *self, PyObject *returncode)
{
    PyObject *waiting = PyObject_GetAttr(self, st->str._waiting);
    int status = waiting == NULL ? -1 : 0;
    while (status == 0 && PyList_CheckExact(waiting) && PyList_GET_SIZE(waiting) > 0) {
        PyObject *fut = Py_NewRef(PyList_GET_ITEM(waiting, 0));
        status = PyList_SetSlice(waiting, 0, 1, NULL);
        int done = status < 0 ? -1 : call_predicate(fut, st->str.done);
        if (done == 0) {
            PyObject *res = PyObject_CallMethodOneArg(fut, st->str.set_result, returncode);
            done = res == NULL ? -1 : 1;
            Py_XDECREF(res);
        }
        status = done < 0 ? -1 : 0;
        Py_DECREF(fut);
    }
    Py_XDECREF(waiting);
    return status;
}

/* Are all pipes connected and at their end?  -1 with an exception. */
static int
process_is_disconnected(ctask_state *st, PyObject *self)
{
    PyObject *pipes = PyObject_GetAttr(self, st->str._pipes);
    if (pipes != NULL && PyDict_CheckExact(pipes) && PyDict_GET_SIZE(pipes) == 0) {
        Py_DECREF(pipes);
        return 1;
    }
    PyObject *values = pipes == NULL ? NULL : PyMapping_Values(pipes);
    int all = values == NULL ? -1 : 1;
    for (Py_ssize_t i = 0; all == 1 && i < PyList_GET_SIZE(values); i++) {
        PyObject *proto = PyList_GET_ITEM(values, i);
        all = proto == Py_None ? 0 : attribute_is_true(proto, st->str.disconnected);
    }
    Py_XDECREF(values);
    Py_XDECREF(pipes);
    return all;
}

/* What comes when the child has ended, or one of its pipes.

   wait() ends here, as this comes behind process_exited() and before connection_lost(), which up to 3.13.0 had to come
   first: it never does when the pipes were not all connected, nor as long as a grandchild has them. */
static int
process_finish(ctask_state *st, PyObject *self)
{
    PyObject *returncode = PyObject_GetAttr(self, st->str._returncode), *loop = NULL, *res = NULL;
    int status = returncode == NULL ? -1 : 0, done = 0;
    if (status == 0 && returncode != Py_None) {
        status = process_tell_waiting(st, self, returncode);
        done = status < 0 ? -1 : process_is_disconnected(st, self);
    }
    if (done == 1) {
        int connected = -1;
        if (PyObject_SetAttr(self, st->str._finished, Py_True) == 0) {
            connected = attribute_is(self, st->str._pending_calls, Py_None);
        }
        if (connected == 1 && (loop = PyObject_GetAttr(self, st->str._loop)) != NULL) {
            status = call_method_soon(st, loop, self, st->str._call_connection_lost, Py_None);
        }
        else if (connected == 0) {
            PyObject *lost = PyObject_GetAttr(self, st->str._call_connection_lost);
            PyObject *args[] = {self, lost, Py_None};
            res = lost == NULL ? NULL : PyObject_VectorcallMethod(st->str._call, args, 3, NULL);
            status = res == NULL ? -1 : 0;
            Py_XDECREF(res);
            Py_XDECREF(lost);
        }
        else {
            status = -1;
        }
    }
    Py_XDECREF(loop);
    Py_XDECREF(returncode);
    return done < 0 ? -1 : status;
}

/* _try_finish() */
static PyObject *
process_try_finish(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                   PyObject *stock)
{
    if (UNLIKELY(nargs != 1 || kwnames != NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return process_finish(st, self) < 0 ? NULL : Py_NewRef(Py_None);
}

/* Popen.returncode, if there is a Popen that does not know it. */
static int
process_tell_popen(ctask_state *st, PyObject *self, PyObject *returncode)
{
    PyObject *popen = PyObject_GetAttr(self, st->str._made);
    int unknown = popen == NULL ? -1 : popen == Py_None ? 0 : attribute_is(popen, st->str.returncode, Py_None);
    int status = unknown == 1 ? PyObject_SetAttr(popen, st->str.returncode, returncode) : unknown;
    Py_XDECREF(popen);
    return status;
}

/* protocol.process_exited(), in the next turn; at once where nobody could tell. */
static int
process_tell_protocol(ctask_state *st, PyObject *self, PyObject *loop, PyObject *protocol)
{
    int told = process_is_without_pipes(st, self);
    if (told == 1) {
        told = subprocess_exited(st, protocol, self);
    }
    if (told == 0) {
        return call_method_soon(st, loop, protocol, st->str.process_exited, NULL);
    }
    return told < 0 ? -1 : 0;
}

/* _process_exited(returncode) */
static PyObject *
process_exited(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
               PyObject *stock)
{
    PyObject *loop = PyObject_GetAttr(self, st->str._loop), *protocol = NULL, *result = NULL;
    if (loop == NULL) {
        return NULL;
    }
    LoopObj *ours = loop_cast(loop);
    int plain = nargs == 2 && kwnames == NULL && ours != NULL && !ours->debug;
    if (plain) {
        plain = attribute_is(self, st->str._pending_calls, Py_None);
    }
    if (plain == 1) {
        plain = attribute_is(self, st->str._returncode, Py_None);
    }
    if (UNLIKELY(plain == 0)) {
        result = PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    else if (plain > 0 && PyObject_SetAttr(self, st->str._returncode, args[1]) == 0 &&
             process_tell_popen(st, self, args[1]) == 0 &&
             (protocol = PyObject_GetAttr(self, st->str._protocol)) != NULL &&
             process_tell_protocol(st, self, loop, protocol) == 0 && process_finish(st, self) == 0) {
        result = Py_NewRef(Py_None);
    }
    Py_XDECREF(protocol);
    Py_DECREF(loop);
    return result;
}

/* _call_connection_lost(exc) */
static PyObject *
process_call_connection_lost(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *kwnames, PyObject *stock)
{
    /* asyncio's own _wait(), in debug mode, has waiters there. */
    int plain = nargs == 2 && kwnames == NULL ? attribute_is(self, st->str._exit_waiters, st->empty_tuple) : 0;
    if (UNLIKELY(plain <= 0)) {
        return plain < 0 ? NULL : PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    PyObject *protocol = PyObject_GetAttr(self, st->str._protocol);
    PyObject *result = protocol == NULL ? NULL : subprocess_lost(st, protocol, args[1]);
    PyObject *raised = PyErr_GetRaisedException();
    PyObject *const names[] = {st->str._exit_waiters, st->str._loop, st->str._proc, st->str._protocol};
    int status = set_all(self, Py_None, names, 4);
    Py_XDECREF(protocol);
    if (UNLIKELY(raised != NULL)) {
        PyErr_SetRaisedException(raised);
    }
    if (UNLIKELY(status < 0 || result == NULL)) {
        Py_XDECREF(result);
        return NULL;
    }
    Py_DECREF(result);
    Py_RETURN_NONE;
}

/* ---- wait ---- */

/* Who was cancelled waits no more. */
static void
process_wait_over(CoroObj *coro)
{
    PyObject *raised = PyErr_GetRaisedException();
    PyObject *fut = coro->waiter, *waiting = coro->subject;
    coro->waiter = coro->subject = NULL;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(waiting); i++) {
        if (PyList_GET_ITEM(waiting, i) == fut) {
            (void)PyList_SetSlice(waiting, i, i + 1, NULL);
            break;
        }
    }
    PyErr_Clear();
    Py_DECREF(waiting);
    Py_DECREF(fut);
    PyErr_SetRaisedException(raised);
}

static int
process_wait_told(CoroObj *coro, PyObject **result)
{
    *result = PyObject_GetAttr(coro->owner, coro->st->str._returncode);
    return *result == NULL ? CORO_ERROR : CORO_RETURN;
}

/* The list of who waits: a new reference. */
static PyObject *
process_list_of_waiting(ctask_state *st, PyObject *self)
{
    PyObject *waiting = PyObject_GetAttr(self, st->str._waiting);
    if (waiting == NULL || PyList_CheckExact(waiting)) {
        return waiting;
    }
    Py_DECREF(waiting);
    waiting = PyList_New(0);
    if (waiting != NULL && PyObject_SetAttr(self, st->str._waiting, waiting) < 0) {
        Py_CLEAR(waiting);
    }
    return waiting;
}

static int
process_wait_begin(CoroObj *coro, PyObject **result)
{
    ctask_state *st = coro->st;
    int running = attribute_is(coro->owner, st->str._returncode, Py_None);
    if (running <= 0) {
        return running < 0 ? CORO_ERROR : process_wait_told(coro, result);
    }
    PyObject *loop = PyObject_GetAttr(coro->owner, st->str._loop);
    PyObject *fut = loop == NULL ? NULL : loop_new_future(st, loop);
    PyObject *waiting = fut == NULL ? NULL : process_list_of_waiting(st, coro->owner);
    int status = CORO_ERROR;
    if (waiting != NULL && PyList_Append(waiting, fut) == 0) {
        coro->waiter = Py_NewRef(fut);
        coro->subject = Py_NewRef(waiting);
        coro->unwait = process_wait_over;
        status = coro_await(coro, Py_NewRef(fut), process_wait_told);
    }
    Py_XDECREF(waiting);
    Py_XDECREF(fut);
    Py_XDECREF(loop);
    return status;
}

/* _wait() */
static PyObject *
process_wait(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
             PyObject *stock)
{
    if (UNLIKELY(nargs != 1 || kwnames != NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return coro_new(st, self, process_wait_begin, "BaseSubprocessTransport._wait", 0, NULL);
}

/* ---- what protocols ask, and close() ---- */

/* get_pid() */
static PyObject *
process_get_pid(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                PyObject *stock)
{
    if (UNLIKELY(nargs != 1 || kwnames != NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    return PyObject_GetAttr(self, st->str._pid);
}

/* get_pipe_transport(fd) */
static PyObject *
process_get_pipe_transport(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                           PyObject *kwnames, PyObject *stock)
{
    PyObject *pipes = nargs == 2 && kwnames == NULL ? PyObject_GetAttr(self, st->str._pipes) : NULL;
    PyObject *result = NULL;
    if (UNLIKELY(pipes == NULL && PyErr_Occurred())) {
        return NULL;
    }
    if (UNLIKELY(pipes == NULL || !PyDict_CheckExact(pipes) || !PyLong_CheckExact(args[1]))) {
        result = PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    else {
        PyObject *proto = Py_XNewRef(PyDict_GetItemWithError(pipes, args[1]));
        if (proto != NULL) {
            result = PyObject_GetAttr(proto, st->str.pipe);
            Py_DECREF(proto);
        }
        else if (!PyErr_Occurred()) {
            result = Py_NewRef(Py_None);
        }
    }
    Py_XDECREF(pipes);
    return result;
}

/* close() */
static PyObject *
process_close(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
              PyObject *stock)
{
    if (UNLIKELY(nargs != 1 || kwnames != NULL)) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    int closed = attribute_is_true(self, st->str._closed);
    if (closed == 0) {
        int ended = -1;
        if (PyObject_SetAttr(self, st->str._closed, Py_True) == 0) {
            ended = attribute_is(self, st->str._returncode, Py_None);
        }
        if (ended >= 0) {
            ended = ended ? 0 : process_is_without_pipes(st, self);
        }
        if (ended == 0) {
            return PyObject_CallMethodNoArgs(self, st->str._close_running);
        }
        closed = ended;
    }
    return closed < 0 ? NULL : Py_NewRef(Py_None);
}

/* __del__() */
static PyObject *
process_del(ctask_state *st, PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
            PyObject *stock)
{
    int closed = attribute_is_true(self, st->str._closed);
    if (closed > 0 && nargs == 1 && kwnames == NULL) {
        Py_RETURN_NONE;
    }
    return closed < 0 ? NULL : PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
}

/* ---- the start ---- */

/* Would Popen() use posix_spawn() for this command, and is all that it calls the standard library's?  -1 with an
   exception. */
static int
process_may_spawn(ctask_state *st, PyObject *parts, PyObject *executable)
{
    PyTypeObject *popen = (PyTypeObject *)PyTuple_GET_ITEM(parts, PART_POPEN);
    PyObject *module = PyTuple_GET_ITEM(parts, PART_SUBPROCESS), *os = PyTuple_GET_ITEM(parts, PART_OS);
    if (!PyUnicode_CheckExact(executable) ||
        PyUnicode_FindChar(executable, '/', 0, PyUnicode_GET_LENGTH(executable), 1) < 0) {
        return 0;
    }
    int may = attribute_is(module, st->str.Popen, (PyObject *)popen);
    if (may == 1 && UNLIKELY(popen->tp_version_tag != st->io.popen_version || popen->tp_version_tag == 0)) {
        PyObject *same = PyObject_CallNoArgs(PyTuple_GET_ITEM(parts, PART_LOOK));
        may = same == NULL ? -1 : PyObject_IsTrue(same);
        Py_XDECREF(same);
        st->io.popen_version = may == 1 ? popen->tp_version_tag : 0;
    }
    if (may == 1) {
        may = attribute_is(os, st->str.posix_spawn, PyTuple_GET_ITEM(parts, PART_POSIX_SPAWN));
    }
    if (may == 1) {
        may = attribute_is_true(module, st->str._USE_POSIX_SPAWN);
    }
    if (may == 1) {
        may = attribute_is_true(module, st->str._HAVE_POSIX_SPAWN_CLOSEFROM);
    }
    return may;
}

/* Popen(command), without the object.  The process number; NULL with what Popen() raises. */
static PyObject *
process_spawn(ctask_state *st, PyObject *parts, PyObject *command)
{
    PyObject *module = PyTuple_GET_ITEM(parts, PART_SUBPROCESS);
    int left = attribute_is_true(module, st->str._active); // children whose Popen has gone
    if (left > 0) {
        PyObject *cleaned = PyObject_CallMethodNoArgs(module, st->str._cleanup);
        left = cleaned == NULL ? -1 : 0;
        Py_XDECREF(cleaned);
    }
    PyObject *arguments = left < 0 ? NULL : PySequence_List(command), *pid = NULL;
    if (arguments != NULL) {
        PyObject *executable = PyTuple_GET_ITEM(command, 0);
        if (PySys_Audit("subprocess.Popen", "OOOO", executable, arguments, Py_None, Py_None) < 0) {
            Py_DECREF(arguments);
            return NULL;
        }
        PyObject *recipe = Py_NewRef(st->spawn_recipe);
        pid = spawn_directly(recipe, command, arguments);
        Py_DECREF(recipe);
        if (pid == NULL && !PyErr_Occurred()) {
            PyObject *args[] = {executable,
                                arguments,
                                Py_None,
                                PyTuple_GET_ITEM(parts, PART_RESTORED),
                                PyTuple_GET_ITEM(parts, PART_CLOSE_FROM)};
            pid = PyObject_Vectorcall(PyTuple_GET_ITEM(parts, PART_POSIX_SPAWN), args, 3, st->spawn_kwnames);
        }
        Py_DECREF(arguments);
    }
    return pid;
}

/* Has the program chosen a child watcher?  -1 with an exception. */
static int
process_is_watched(ctask_state *st, PyObject *parts, PyObject *loop)
{
    PyObject *none = PyTuple_GET_ITEM(parts, PART_NO_WATCHER);
#if PY_VERSION_HEX >= 0x030E0000
    PyObject *given = PyObject_GetAttr(loop, st->str._watcher);
    int chosen = given == NULL ? -1 : (PyObject *)Py_TYPE(given) != none;
    Py_XDECREF(given);
#else
    PyObject *policy = PyObject_CallMethodNoArgs(PyTuple_GET_ITEM(parts, PART_ASYNCIO),
                                                 st->str.get_event_loop_policy);
    int plain = policy == NULL ? -1
                               : attribute_is((PyObject *)Py_TYPE(policy), st->str.get_child_watcher, none);
    if (plain == 1) {
        plain = attribute_is(policy, st->str._watcher, Py_None);
    }
    int chosen = plain < 0 ? -1 : !plain;
    Py_XDECREF(policy);
#endif
    if (UNLIKELY(chosen == 1)) {
        PyObject *watcher = PyObject_CallOneArg(PyTuple_GET_ITEM(parts, PART_WATCHER_OF), loop);
        chosen = watcher == NULL ? -1 : watcher != Py_None;
        Py_XDECREF(watcher);
    }
    return chosen;
}

/* Does the loop make transports as ours do, without a child watcher of the program's?  -1 with an exception. */
static int
process_starts_as_ours(ctask_state *st, PyObject *parts, PyObject *loop)
{
    if ((PyObject *)Py_TYPE(loop) != PyTuple_GET_ITEM(parts, PART_LOOP) || loop_plain(loop) == NULL ||
        !schedule_creates_tasks((LoopObj *)loop)) {
        return 0;
    }
    int ours = method_is(loop, st->str._make_subprocess_transport, PyTuple_GET_ITEM(parts, PART_MAKE));
    if (ours == 1) {
        int watched = process_is_watched(st, parts, loop);
        ours = watched < 0 ? -1 : !watched;
    }
    return ours;
}

/* Close the transport of a child that did not start, for the reason that is set. */
static void
process_give_up(ctask_state *st, PyObject *transport)
{
    PyObject *raised = PyErr_GetRaisedException();
    PyObject *closed = PyObject_CallMethodNoArgs(transport, st->str.close);
    if (closed == NULL) {
        PyErr_WriteUnraisable(transport);
    }
    Py_XDECREF(closed);
    PyErr_SetRaisedException(raised);
}

/* May the child of this command be started here?  -1 with an exception. */
static int
process_may_start(ctask_state *st, PyObject *parts, PyObject *loop, PyObject *command)
{
    int may = process_starts_as_ours(st, parts, loop);
    return may == 1 ? process_may_spawn(st, parts, PyTuple_GET_ITEM(command, 0)) : may;
}

/* A transport whose child runs, and which is watched next, or given up. */
static PyObject *
process_start(ctask_state *st, PyObject *parts, PyObject *loop, PyObject *command)
{
    PyTypeObject *cls = (PyTypeObject *)PyTuple_GET_ITEM(parts, PART_CLASS);
    PyObject *transport = PyBaseObject_Type.tp_new(cls, st->empty_tuple, NULL);
    PyObject *pipes = transport == NULL ? NULL : PyDict_New(), *pid = NULL;
    if (pipes == NULL || PyObject_SetAttr(transport, st->str._loop, loop) < 0 ||
        PyObject_SetAttr(transport, st->str._args, command) < 0 ||
        PyObject_SetAttr(transport, st->str._pipes, pipes) < 0 ||
        (pid = process_spawn(st, parts, command)) == NULL ||
        PyObject_SetAttr(transport, st->str._pid, pid) < 0) {
        if (transport != NULL) {
            process_give_up(st, transport);
        }
        Py_CLEAR(transport);
    }
    Py_XDECREF(pid);
    Py_XDECREF(pipes);
    return transport;
}

/* Have the transport, and then its protocol, told of the child's end. */
static int
process_watch(ctask_state *st, PyObject *parts, PyObject *loop, PyObject *protocol, PyObject *transport)
{
    PyObject *pid = PyObject_GetAttr(transport, st->str._pid);
    int status = pid == NULL || PyObject_SetAttr(transport, st->str._protocol, protocol) < 0
                     ? -1
                     : child_watch((LoopObj *)loop, transport, pid);
    if (status == 0) {
        PyObject *args[] = {loop, transport};
        PyObject *child = PyObject_Vectorcall(PyTuple_GET_ITEM(parts, PART_CHILD), args, 2, NULL);
        status = child == NULL ? -1 : 0;
        Py_XDECREF(child);
    }
    Py_XDECREF(pid);
    return status;
}

PyDoc_STRVAR(start_child_doc,
"_start_child($self, protocol_factory, command, /)\n--\n\n"
"Start a child that inherits all; return its transport and its protocol, None if it cannot be done so.\n\n"
"Raises what subprocess.Popen() raises.");

static PyObject *
Loop_start_child(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    ctask_state *st = ((LoopObj *)self)->st;
    if (nargs != 2 || !PyTuple_CheckExact(args[1]) || PyTuple_GET_SIZE(args[1]) == 0) {
        PyErr_SetString(PyExc_TypeError, "_start_child() takes a function and a tuple");
        return NULL;
    }
    if (st->child_parts == NULL) {
        Py_RETURN_NONE;
    }
    PyObject *parts = Py_NewRef(st->child_parts), *protocol = NULL, *transport = NULL, *both = NULL;
    int may = process_may_start(st, parts, self, args[1]);
    if (may == 1 && (protocol = PyObject_CallNoArgs(args[0])) != NULL &&
        (transport = process_start(st, parts, self, args[1])) != NULL) {
        if (call_method_soon(st, self, protocol, st->str.connection_made, transport) < 0 ||
            process_watch(st, parts, self, protocol, transport) < 0 ||
            (both = PyTuple_Pack(2, transport, protocol)) == NULL) {
            process_give_up(st, transport);
        }
        Py_DECREF(transport);
    }
    Py_XDECREF(protocol);
    Py_DECREF(parts);
    return may == 0 ? Py_NewRef(Py_None) : both;
}

/* ---- create_subprocess_exec() ---- */

/* coro->subject is the transport, coro->waiter the protocol, coro->arg the loop. */
static int
process_begun(CoroObj *coro, PyObject **result)
{
    *result = subprocess_process(coro->st, coro->subject, coro->waiter, coro->arg);
    return *result == NULL ? CORO_ERROR : CORO_RETURN;
}

/* It was cancelled, or closed. */
static int
process_not_begun(CoroObj *coro, PyObject **Py_UNUSED(result))
{
    PyObject *raised = PyErr_GetRaisedException(), *parts = Py_NewRef(coro->st->child_parts);
    PyObject *args[] = {coro->subject, raised};
    PyObject *rest = PyObject_Vectorcall(PyTuple_GET_ITEM(parts, PART_ABANDON), args, 2, NULL);
    Py_DECREF(parts);
    Py_DECREF(raised);
    return coro_await(coro, rest, NULL);
}

/* The protocol is made behind its connection_made(), which asyncio calls in the next turn: nobody has it before. */
static int
process_begin(CoroObj *coro, PyObject **Py_UNUSED(result))
{
    ctask_state *st = coro->st;
    PyObject *command = Py_NewRef(coro->arg), *parts = Py_NewRef(st->child_parts);
    PyObject *loop = running_loop(st), *protocol = NULL, *transport = NULL;
    int may = loop == NULL ? -1 : process_may_start(st, parts, loop, command);
    if (may == 1) {
        may = method_is(loop, st->str.subprocess_exec, PyTuple_GET_ITEM(parts, PART_EXEC));
    }
    if (may == 1) {
        may = subprocess_may(st);
    }
    int status = CORO_ERROR;
    if (may == 0) {
        status = coro_await(coro, PyObject_Call(st->stock_create_subprocess_exec, command, NULL), NULL);
    }
    else if (may == 1 && (transport = process_start(st, parts, loop, command)) != NULL) {
        if ((protocol = subprocess_protocol(st, loop, transport)) == NULL ||
            process_watch(st, parts, loop, protocol, transport) < 0) {
            process_give_up(st, transport);
        }
        else {
            Py_XSETREF(coro->arg, Py_NewRef(loop));
            coro->subject = Py_NewRef(transport);
            coro->waiter = Py_NewRef(protocol);
            coro->step = process_begun;
            coro->failed = process_not_begun;
            status = CORO_YIELD;
        }
    }
    Py_XDECREF(transport);
    Py_XDECREF(protocol);
    Py_XDECREF(loop);
    Py_DECREF(parts);
    Py_DECREF(command);
    return status;
}

/* create_subprocess_exec(program, *args) */
static PyObject *
process_create(ctask_state *st, PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t nargs,
               PyObject *kwnames, PyObject *stock)
{
    if (nargs == 0 || kwnames != NULL || st->child_parts == NULL) {
        return PyObject_Vectorcall(stock, args, (size_t)nargs, kwnames);
    }
    PyObject *command = PyTuple_New(nargs);
    if (command == NULL) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < nargs; i++) {
        PyTuple_SET_ITEM(command, i, Py_NewRef(args[i]));
    }
    PyObject *coro = coro_new(st, NULL, process_begin, "create_subprocess_exec", 0, command);
    Py_DECREF(command);
    return coro;
}

PyDoc_STRVAR(set_child_parts_doc,
"_set_child_parts($module, /, *parts)\n--\n\n"
"What ctask/_process.py gives to EventLoop._start_child().");

static PyObject *
set_child_parts(PyObject *module, PyObject *args)
{
    ctask_state *st = PyModule_GetState(module);
    PyObject *cls = PyTuple_GET_SIZE(args) == N_PARTS ? PyTuple_GET_ITEM(args, PART_CLASS) : NULL;
    if (cls == NULL || !PyType_Check(cls) || !PyType_IsSubtype((PyTypeObject *)cls, st->ProcessType) ||
        ((PyTypeObject *)cls)->tp_new != PyBaseObject_Type.tp_new ||
        !PyType_Check(PyTuple_GET_ITEM(args, PART_POPEN))) {
        PyErr_SetString(PyExc_TypeError, "_set_child_parts() is called by ctask alone");
        return NULL;
    }
    PyObject *recipe = spawn_recipe(PyTuple_GET_ITEM(args, PART_RESTORED));
    if (recipe == NULL) {
        return NULL;
    }
    Py_XSETREF(st->spawn_recipe, recipe);
    Py_XSETREF(st->child_parts, Py_NewRef(args));
    st->io.popen_version = 0;
    Py_RETURN_NONE;
}

/* ---- the type ---- */

static PyType_Slot process_slots[] = {
    {0, NULL},
};

/* Without fields: the class has asyncio's layout. */
static PyType_Spec process_spec = {
    .name = "ctask._ctask._ChildTransport",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = process_slots,
};

static const struct {
    const char *name;
    standin_call function;
} process_methods[] = {
    {"_process_exited", process_exited},
    {"_try_finish", process_try_finish},
    {"_call_connection_lost", process_call_connection_lost},
    {"_wait", process_wait},
    {"get_pid", process_get_pid},
    {"get_pipe_transport", process_get_pipe_transport},
    {"close", process_close},
    {"__del__", process_del},
};

static PyMethodDef process_loop_methods[] = {
    {"_start_child", (PyCFunction)(void (*)(void))Loop_start_child, METH_FASTCALL, start_child_doc},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef process_functions[] = {
    {"_set_child_parts", set_child_parts, METH_VARARGS, set_child_parts_doc},
    {NULL, NULL, 0, NULL},
};

PART int
process_setup(PyObject *module, ctask_state *st)
{
    if (add_type(module, "_ChildTransport", &st->ProcessType, &process_spec, NULL) < 0 ||
        PyModule_AddFunctions(module, process_functions) < 0) {
        return -1;
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(process_methods); i++) {
        if (standin_method(st,
                           st->ProcessType,
                           st->stock_ChildTransport,
                           process_methods[i].name,
                           process_methods[i].function) < 0) {
            return -1;
        }
    }
    st->spawn_kwnames = PyTuple_Pack(2, st->str.setsigdef, st->str.file_actions);
    if (st->spawn_kwnames == NULL || add_methods(st->LoopType, process_loop_methods) < 0) {
        return -1;
    }
    return standin_function(
        st, module, st->stock_create_subprocess_exec, "create_subprocess_exec", process_create);
}
