/* The front door of the extension module ctask._ctask.

   The parts are in rooms, folders of src/, each of which uses itself and those above it in this list, and none
   below; tools/rooms holds them to that.  Each part opens with what it owns and who calls it.

       base/         Python's versions and layouts, contexts, free lists: no idea of a loop
       handles/      what waits for its turn: the ready queue, timers, and the handles of both
       tasks/        futures, tasks, which of them exist
       loop/         iterations, the kernel, readers and writers, what comes from other threads
       coro/         coroutines and objects in C that pass for asyncio's in Python
       sync/         locks, events, semaphores, conditions, queues
       combinators/  the functions and context managers over several tasks, or over a task and a timer
       io/           transports over a descriptor, sockets by themselves
       streams/      StreamReader and StreamWriter
       tls/          OpenSSL, and the transport over a transport

   A room's header, named as the room (transport.h in io/), opens with what lives there and what may never come
   in.  src/ctask.h composes the module's state of what each room has for it.
   docs/design.md ("The house") goes through the rooms part by part.

   They are compiled as one translation unit.  With CTASK_SPLIT each is compiled by itself instead. */

#include "ctask.h"

#include "handles/clock.h"
#include "tasks/done.h"
#include "loop/blocking.h"
#include "loop/child.h"
#include "loop/loop.h"
#include "loop/loops.h"
#include "loop/observer.h"
#include "loop/trace.h"
#include "loop/watchdog.h"
#include "coro/coroframe.h"
#include "sync/sync.h"
#include "combinators/combinators.h"
#include "combinators/ensure.h"
#include "io/datagram_parts.h"
#include "io/pipe_parts.h"
#include "io/process.h"
#include "io/sock_parts.h"
#include "io/stream.h"
#include "io/subprocess.h"
#include "streams/streams.h"
#include "tls/tls.h"

#ifndef CTASK_SPLIT
#include "handles/work.c"
#include "handles/handle_type.c"
#include "handles/timer.c"
#include "handles/threadsafe.c"
#include "handles/handle.c"
#include "handles/clock.c"
#include "tasks/registry.c"
#include "tasks/life.c"
#include "tasks/callable.c"
#include "tasks/future.c"
#include "tasks/future_iter.c"
#include "tasks/future_type.c"
#include "tasks/cancel.c"
#include "tasks/task.c"
#include "tasks/task_type.c"
#include "tasks/done.c"
#include "loop/poll_epoll.c"
#include "loop/blocking.c"
#include "loop/fork.c"
#include "loop/report.c"
#include "loop/run.c"
#include "loop/memory.c"
#include "loop/iterate.c"
#include "loop/loop.c"
#include "loop/loops.c"
#include "loop/ready.c"
#include "loop/schedule.c"
#include "loop/watch.c"
#include "loop/child.c"
#include "loop/wake.c"
#include "loop/counters.c"
#include "loop/moments.c"
#include "loop/watchdog.c"
#include "loop/observer.c"
#include "loop/labels.c"
#include "loop/trace.c"
#include "coro/coroframe.c"
#include "coro/coro.c"
#include "coro/standin.c"
#include "coro/core.c"
#include "sync/queues_core.c"
#include "sync/queues.c"
#include "sync/waiters.c"
#include "sync/sync.c"
#include "sync/lock.c"
#include "sync/event.c"
#include "sync/semaphore.c"
#include "sync/condition.c"
#include "combinators/sleep.c"
#include "combinators/ensure.c"
#include "combinators/gather.c"
#include "combinators/timeout.c"
#include "combinators/waitfor.c"
#include "combinators/wait.c"
#include "combinators/taskgroup.c"
#include "combinators/shield.c"
#include "combinators/ascompleted_iterator.c"
#include "combinators/ascompleted.c"
#include "io/address.c"
#include "io/socketobj.c"
#include "io/transport.c"
#include "io/transport_methods.c"
#include "io/stream_info.c"
#include "io/stream_write.c"
#include "io/stream_read.c"
#include "io/stream.c"
#include "io/pipe_file.c"
#include "io/pipe_write.c"
#include "io/pipe_read.c"
#include "io/pipe.c"
#include "io/spawn.c"
#include "io/subprocess.c"
#include "io/process.c"
#include "io/server.c"
#include "io/datagram_send.c"
#include "io/datagram_receive.c"
#include "io/datagram.c"
#include "io/sock_try.c"
#include "io/sock.c"
#include "streams/streamreader_core.c"
#include "streams/streamreader.c"
#include "streams/streamprotocol.c"
#include "streams/streamwriter.c"
#include "tls/openssl.c"
#include "tls/tls_session.c"
#include "tls/tls_record.c"
#include "tls/tls_call.c"
#include "tls/tls_write.c"
#include "tls/tls_read.c"
#include "tls/tls.c"
#include "tls/tls_transport.c"
#include "tls/tls_protocol.c"
#endif

/* ---- helpers of every part ---- */

PART ctask_state *
state_of(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    destructor dealloc = type->tp_dealloc;
    if (LIKELY(dealloc == future_dealloc || dealloc == task_dealloc || dealloc == handle_dealloc ||
               dealloc == timer_dealloc || dealloc == future_derived_dealloc)) {
        return PyType_GetModuleState(type);
    }
#if THREADSAFE_HANDLES
    if (dealloc == threadsafe_dealloc) {
        return PyType_GetModuleState(type);
    }
#endif
    return PyModule_GetState(PyType_GetModuleByDef(type, &ctask_module));
}

PART __attribute__((noinline)) PyObject *
freelist_more(PyTypeObject *type)
{
    state_keep(PyType_GetModuleState(type));
    return (PyObject *)_PyObject_GC_New(type);
}

PART PyObject *
instance_alloc(PyTypeObject *type, Py_ssize_t n)
{
    PyObject *module = PyType_GetModuleByDef(type, &ctask_module);
    if (module == NULL) {
        return NULL;
    }
    state_keep(PyModule_GetState(module));
    return PyType_GenericAlloc(type, n);
}

/* The argument of a method that takes one, by position or by name; borrowed. */
PART PyObject *
single_argument(PyObject *self, const char *method, const char *name, PyObject *const *args, Py_ssize_t nargs,
                PyObject *kwnames)
{
    Py_ssize_t nkw = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    if (LIKELY(nargs == 1 && nkw == 0)) {
        return args[0];
    }
    if (nargs == 0 && nkw == 1 && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, 0), name) == 0) {
        return args[0];
    }
    const char *type = _PyType_Name(Py_TYPE(self));
    if (nargs <= 0 && nkw == 0) {
        PyErr_Format(
            PyExc_TypeError, "%s.%s() missing 1 required positional argument: '%s'", type, method, name);
    }
    else if (nargs > 1) {
        PyErr_Format(PyExc_TypeError,
                     "%s.%s() takes 2 positional arguments but %zd were given",
                     type,
                     method,
                     nargs + 1);
    }
    else {
        PyErr_Format(PyExc_TypeError,
                     nargs == 0 ? "%s.%s() got an unexpected keyword argument '%U'"
                                : "%s.%s() got multiple values for argument '%U'",
                     type,
                     method,
                     PyTuple_GET_ITEM(kwnames, 0));
    }
    return NULL;
}

/* `base` is a type, a tuple of types or NULL; `name` is NULL for a type that the module does not show. */
PART int
add_type(PyObject *module, const char *name, PyTypeObject **slot, PyType_Spec *spec, PyObject *base)
{
    *slot = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, base);
    if (*slot == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_NoMemory(); // CPython has none where it copies the name
        }
        return -1;
    }
    (*slot)->tp_alloc = instance_alloc;
    return name == NULL ? 0 : PyModule_AddObjectRef(module, name, (PyObject *)*slot);
}

/* For a type whose methods are in several parts. */
PART int
add_methods(PyTypeObject *type, PyMethodDef *methods)
{
    for (; methods->ml_name != NULL; methods++) {
        PyObject *method = PyDescr_NewMethod(type, methods);
        int result = method == NULL ? -1 : PyObject_SetAttrString((PyObject *)type, methods->ml_name, method);
        Py_XDECREF(method);
        if (result < 0) {
            return -1;
        }
    }
    return 0;
}

/* ---- what comes from the standard library ---- */

static PyObject *
import_attribute(const char *module_name, const char *attribute)
{
    PyObject *module = PyImport_ImportModule(module_name);
    if (module == NULL) {
        return NULL;
    }
    PyObject *value = PyObject_GetAttrString(module, attribute);
    Py_DECREF(module);
    return value;
}

static int
import_all(ctask_state *st)
{
    /* First asyncio: `_asyncio` imported before it would not be complete when asyncio looks into it, which
       would then use its pure-Python functions. */
    PyObject *asyncio = PyImport_ImportModule("asyncio");
    if (asyncio == NULL) {
        return -1;
    }
    Py_DECREF(asyncio);
#define X(name, module, attribute)                                  \
    if ((st->name = import_attribute(module, attribute)) == NULL) { \
        return -1;                                                  \
    }
    CTASK_IMPORTS(X)
#undef X
#define X(name)                                                       \
    if ((st->str.name = PyUnicode_InternFromString(#name)) == NULL) { \
        return -1;                                                    \
    }
    CTASK_NAMES(X)
#undef X
    if ((st->stock_set_exception = PyObject_GetAttrString(st->stock_Future, "set_exception")) == NULL ||
        (st->stock_result = PyObject_GetAttrString(st->stock_Future, "result")) == NULL ||
        (st->stock_create_task = PyObject_GetAttrString(st->stock_Loop, "create_task")) == NULL ||
        (st->stock_task_cancel = PyObject_GetAttrString(st->stock_Task, "cancel")) == NULL) {
        return -1;
    }
    st->context_kwnames = PyTuple_Pack(1, st->str.context);
    st->msg_kwnames = PyTuple_Pack(1, st->str.msg);
    st->empty_tuple = PyTuple_New(0);
    if (st->context_kwnames == NULL || st->msg_kwnames == NULL || st->empty_tuple == NULL) {
        return -1;
    }
#if PY_VERSION_HEX >= 0x030C0000
    st->swap_current_task = import_attribute("_asyncio", "_swap_current_task");
    if (st->swap_current_task == NULL) {
        return -1;
    }
#endif
#if FUTURE_CALL_GRAPH
    if ((st->stock_current_task = import_attribute("_asyncio", "current_task")) == NULL ||
        (st->stock_awaited_by_add = import_attribute("_asyncio", "future_add_to_awaited_by")) == NULL ||
        (st->stock_awaited_by_discard = import_attribute("_asyncio", "future_discard_from_awaited_by")) ==
            NULL) {
        return -1;
    }
#endif
#if !TASKS_IN_THREAD_STATE
    st->current_tasks = import_attribute("_asyncio", "_current_tasks");
    if (st->current_tasks == NULL) {
        return -1;
    }
    if (!PyDict_Check(st->current_tasks)) {
        PyErr_SetString(PyExc_ImportError, "ctask: _asyncio._current_tasks is not a dictionary");
        return -1;
    }
#endif
    return 0;
}

/* Do `_asyncio`'s objects look as compat.h says?  Give a future and a task of its own known values and see
   whether each is where we would look for it.  Returns 1 if so. */
static int
probe_layout(ctask_state *st)
{
    int ok = 0;
    PyObject *globals = PyDict_New(), *res = NULL;
    if (globals == NULL) {
        return -1;
    }
    if (PyDict_SetItemString(globals, "Future", st->stock_Future) == 0 &&
        PyDict_SetItemString(globals, "Task", st->stock_Task) == 0 &&
        PyDict_SetItemString(globals, "__builtins__", PyEval_GetBuiltins()) == 0) {
        res = PyRun_String("import contextvars\n"
                           "class Loop:\n"
                           "    def get_debug(self): return False\n"
                           "    def call_soon(self, *args, context=None): pass\n"
                           "async def coroutine(): pass\n"
                           "loop, context, coro = Loop(), contextvars.copy_context(), coroutine()\n"
                           "fut, waiting, task = Future(loop=loop), Future(loop=loop), "
                           "Task(coro, loop=loop, name='probe')\n"
                           "waiting.add_done_callback(len, context=context)\n"
                           "waiting.add_done_callback(repr, context=context)\n"
                           "waiting._asyncio_future_blocking = True\n"
                           "fut.set_result('result')\n"
                           "cancelled = Future(loop=loop)\n"
                           "cancelled.cancel('message')\n"
                           "failed = Future(loop=loop)\n"
                           "failed.set_exception(ValueError())\n"
                           "exception = failed._exception\n"
                           "message = cancelled._cancel_message\n"
                           "length = len\n"
                           "task._log_destroy_pending = False\n"
                           "task.cancel()\n"
                           "coro.close()\n",
                           Py_file_input,
                           globals,
                           globals);
        if (res == NULL && !PyErr_Occurred()) {
            PyErr_NoMemory(); // CPython's compiler has none now and then
        }
    }
    enum { FUT, WAITING, CANCELLED, FAILED, TASK, LOOP, CONTEXT, CORO, LENGTH, MESSAGE, EXCEPTION, NAMES };
    static const char *const names[NAMES] = {"fut",
                                             "waiting",
                                             "cancelled",
                                             "failed",
                                             "task",
                                             "loop",
                                             "context",
                                             "coro",
                                             "length",
                                             "message",
                                             "exception"};
    PyObject *made[NAMES]; // borrowed from the dictionary
    int found = res != NULL;
    Py_XDECREF(res);
    for (int i = 0; i < NAMES && found; i++) {
        made[i] = PyMapping_GetItemString(globals, names[i]);
        Py_XDECREF(made[i]);
        found = made[i] != NULL;
    }
    if (found) {
        FutureObj *fut = (FutureObj *)made[FUT], *waiting = (FutureObj *)made[WAITING];
        FutureObj *cancelled = (FutureObj *)made[CANCELLED], *failed = (FutureObj *)made[FAILED];
        TaskObj *task = (TaskObj *)made[TASK];
        PyObject *name = task->name, *result = fut->result;
        ok = fut->loop == made[LOOP] && fut->state == FUTURE_FINISHED && !fut->blocking &&
             !fut->log_traceback && result != NULL && PyUnicode_Check(result) &&
             waiting->state == FUTURE_PENDING && waiting->blocking && waiting->callback0 == made[LENGTH] &&
             waiting->context0 == made[CONTEXT] && waiting->callbacks != NULL &&
             PyList_CheckExact(waiting->callbacks) && cancelled->state == FUTURE_CANCELLED &&
             cancelled->cancel_msg == made[MESSAGE] && failed->exception == made[EXCEPTION] &&
             failed->log_traceback && task->loop == made[LOOP] && task->coro == made[CORO] &&
             task->context != NULL && PyContext_CheckExact(task->context) && name != NULL &&
             PyUnicode_Check(name) && task->must_cancel && !task->log_destroy_pending &&
             task->num_cancels_requested == 1 && task->fut_waiter == NULL;
        failed->log_traceback = 0;
    }
    else {
        ok = -1;
    }
    PyDict_Clear(globals);
    Py_DECREF(globals);
    return ok;
}

static int
check_layout(ctask_state *st)
{
    PyTypeObject *future = (PyTypeObject *)st->stock_Future, *task = (PyTypeObject *)st->stock_Task;
    int ok = PyType_Check(future) && PyType_Check(task) && future->tp_basicsize == STOCK_FUTURE_SIZE &&
             task->tp_basicsize == STOCK_TASK_SIZE;
    if (ok) {
        ok = probe_layout(st);
    }
    if (ok == 0) {
        PyErr_Format(
            PyExc_ImportError,
            "ctask was built for Python %s, and _asyncio.Future or Task of this one, %d.%d.%d, has other "
            "fields: build it anew, by pip install --force-reinstall --no-cache-dir --no-binary ctask ctask, "
            "or pip install . in a checkout",
            PY_VERSION,
            PY_MAJOR_VERSION,
            PY_MINOR_VERSION,
            (int)(Py_Version >> 8 & 0xff));
    }
    return ok == 1 ? 0 : -1;
}

/* ---- the module ---- */

/* Objects of one kind, about 150 KB of them. */
#define FREELIST_LIMIT 1024

/* The rest of what `_asyncio` exports, so that this module can stand in its place.  The functions are
   `_asyncio`'s own on purpose: the running loop, the current task and the list of tasks exist once, and who
   imported a function from asyncio before ctask was there must see the same. */
static int
export_the_rest(PyObject *module)
{
    PyObject *stock = PyImport_ImportModule("_asyncio");
    PyObject *names = stock == NULL ? NULL : PyObject_Dir(stock);
    int result = names == NULL ? -1 : 0;
    for (Py_ssize_t i = 0; result == 0 && i < PyList_GET_SIZE(names); i++) {
        PyObject *name = PyList_GET_ITEM(names, i);
        if (PyObject_HasAttr(module, name)) {
            continue;
        }
        PyObject *value = PyObject_GetAttr(stock, name);
        result = value == NULL ? -1 : PyObject_SetAttr(module, name, value);
        Py_XDECREF(value);
    }
    Py_XDECREF(names);
    Py_XDECREF(stock);
    return result;
}

static void
free_all(ctask_state *st)
{
#define X(list) freelist_close(&st->list);
    CTASK_FREELISTS(X)
#undef X
}

/* A collection clears types, module and instances in any order, while a coroutine's `finally` may still call
   our methods, and our objects use the state.  So module and types have to outlive all of them.  The module
   keeps itself until the interpreter gives up its dictionary, which is after all modules were cleared and
   just before its last collection; if one of our objects is alive even then, for good.  It is the interpreter
   which holds the reference, by a capsule: nothing that a program can reach. */

#if PY_VERSION_HEX >= 0x030C0000
struct census {
    PyObject *module;
    ctask_state *st;
    int instances;
};

static int
census_visit(PyObject *obj, void *arg)
{
    struct census *census = arg;
    ctask_state *st = census->st;
    PyTypeObject *type = Py_TYPE(obj);
    if (type == st->StandinType || type == st->CoreAttrType || obj == st->wait_release) {
        return 1; /* the module's own, and its types' */
    }
    /* A class with our fields has ours in its line of `tp_base`, whatever else it is derived from. */
    for (; type != NULL; type = type->tp_base) {
        if (type->tp_flags & Py_TPFLAGS_HEAPTYPE && ((PyHeapTypeObject *)type)->ht_module == census->module) {
            census->instances = 1;
            return 0;
        }
    }
    return 1;
}

static void
module_unpin(PyObject *capsule)
{
    PyObject *module = PyCapsule_GetPointer(capsule, NULL);
    struct census census = {module, PyModule_GetState(module), 0};
    PyUnstable_GC_VisitObjects(census_visit, &census);
    if (!census.instances) {
        /* They are not tracked: a collection would not know whose the references to their types are. */
        free_all(census.st);
        census.st->base.given_up = module;
        Py_DECREF(module);
    }
}
#endif

static int
module_pin(PyObject *module)
{
#if PY_VERSION_HEX >= 0x030C0000
    PyObject *dict = PyInterpreterState_GetDict(PyInterpreterState_Get()); // borrowed
    if (dict == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    PyObject *key = PyUnicode_FromFormat("ctask._ctask %p", (void *)module); // it may be imported anew
    PyObject *capsule = key == NULL ? NULL : PyCapsule_New(module, NULL, NULL);
    int result = capsule == NULL ? -1 : PyDict_SetItem(dict, key, capsule);
    if (result == 0) {
        Py_INCREF(module);
        result = PyCapsule_SetDestructor(capsule, module_unpin);
    }
    Py_XDECREF(capsule);
    Py_XDECREF(key);
    return result;
#else
    Py_INCREF(module); // for good: nobody tells what is alive
    return 0;
#endif
}

static int
module_exec(PyObject *module)
{
    ctask_state *st = PyModule_GetState(module);
    list_init(&st->tasks.pending);
    list_init(&st->loop.blocking_files);
    list_init(&st->loop.open);
#define X(list) st->list.limit = FREELIST_LIMIT;
    CTASK_FREELISTS(X)
#undef X
    if (import_all(st) < 0 || check_layout(st) < 0 || context_pool_check(&st->base.contexts) < 0) {
        return -1;
    }
    // clang-format off: one a line, in the order in which they depend on each other
    static int (*const setups[])(PyObject *, ctask_state *) = {
        registry_setup,
        future_iter_setup,
        future_setup,
        callable_setup,
        task_setup,
        handle_setup,
        timer_setup,
        threadsafe_setup,
        loop_setup,
        loops_setup,
        iterate_setup,
        schedule_setup,
        watch_setup,
        child_setup,
        wake_setup,
        counters_setup,
        watchdog_setup,
        observer_setup,
        trace_setup,
        ready_setup,
        clock_setup,
        blocking_setup,
        fork_setup,
        transport_setup,
        stream_setup,
        server_setup,
        datagram_setup,
        pipe_setup,
        tls_setup,
        coro_setup,
        coroframe_setup,
        standin_setup,
        core_setup,
        socketobj_setup,
        sock_setup,
        subprocess_setup,
        process_setup,
        sleep_setup,
        queues_setup,
        lock_setup,
        event_setup,
        semaphore_setup,
        condition_setup,
        done_setup,
        ensure_setup,
        gather_setup,
        timeout_setup,
        waitfor_setup,
        wait_setup,
        taskgroup_setup,
        shield_setup,
        ascompleted_setup,
        streamreader_setup,
        streamprotocol_setup,
        streamwriter_setup,
    };
    // clang-format on
    for (size_t i = 0; i < Py_ARRAY_LENGTH(setups); i++) {
        if (setups[i](module, st) < 0) {
            return -1;
        }
    }
    if (core_seal(st) < 0 || export_the_rest(module) < 0) {
        return -1;
    }
    return module_pin(module);
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    ctask_state *st = PyModule_GetState(module);
#define X(name, ...) Py_VISIT(st->name);
    CTASK_TYPES(X)
    CTASK_IMPORTS(X)
    CTASK_OBJECTS(X)
#undef X
#define X(name) Py_VISIT(st->str.name);
    CTASK_NAMES(X)
#undef X
    for (int i = 0; i < st->base.contexts.length; i++) {
        Py_VISIT(st->base.contexts.contexts[i]);
    }
    Py_VISIT(st->base.contexts.base);
    return 0;
}

/* No collection clears the state (`m_clear`): it goes with the last reference to the module, which somebody who
   uses it still has. */
static void
module_free(void *module)
{
    ctask_state *st = PyModule_GetState(module);
    if (st == NULL) {
        return; /* it was not executed */
    }
    trace_forget(st);
    context_pool_clear(&st->base.contexts);
    free_all(st);
    free(st->tls.buffers);
#define X(name, ...) Py_CLEAR(st->name);
    CTASK_TYPES(X)
    CTASK_IMPORTS(X)
    CTASK_OBJECTS(X)
#undef X
#define X(name) Py_CLEAR(st->str.name);
    CTASK_NAMES(X)
#undef X
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

PyDoc_STRVAR(module_doc, "asyncio's Task, Future, handles and event loop in C; use it through the package ctask.");

struct PyModuleDef ctask_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "ctask._ctask",
    .m_doc = module_doc,
    .m_size = sizeof(ctask_state),
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__ctask(void)
{
    return PyModuleDef_Init(&ctask_module);
}
