/* Readers and writers: which handle runs when a descriptor is ready.

   add_reader() and its relatives are inherited from asyncio's selector loop, with their check for
   transports; what they stand on, the four methods below, is here.  The kernel is told of a change at once,
   so that a descriptor that cannot be polled is refused by the call that names it. */

#include "loop/poll.h"
#include "loop/schedule.h"
#include "loop/watch.h"
#include "tasks/futures.h"

#define NO_DESCRIPTOR (-2) // the number of none

/* The number behind a descriptor or an object with fileno(), with the messages of the selectors module.  -1 if there is
   none, with what was raised: ValueError or somebody's own; NO_DESCRIPTOR with ValueError or OverflowError. */
static int
descriptor_of(PyObject *obj, ctask_state *st)
{
    PyObject *number;
    if (PyLong_Check(obj)) {
        number = Py_NewRef(obj);
    }
    else {
        number = PyObject_CallMethodNoArgs(obj, st->str.fileno);
        if (number != NULL) {
            Py_SETREF(number, PyNumber_Long(number));
        }
        if (number == NULL) {
            if (PyErr_ExceptionMatches(PyExc_AttributeError) || PyErr_ExceptionMatches(PyExc_TypeError) ||
                PyErr_ExceptionMatches(PyExc_ValueError)) {
                PyErr_Format(PyExc_ValueError, "Invalid file object: %R", obj);
            }
            return -1;
        }
    }
    int overflow;
    long fd = PyLong_AsLongAndOverflow(number, &overflow);
    if (fd == -1 && PyErr_Occurred()) {
        Py_DECREF(number);
        return -1;
    }
    if (fd < 0 && !(overflow > 0)) {
        PyErr_Format(PyExc_ValueError, "Invalid file descriptor: %S", number);
        Py_DECREF(number);
        return NO_DESCRIPTOR;
    }
    if (overflow > 0 || fd > INT_MAX) {
        PyErr_SetString(PyExc_OverflowError, "Python int too large to convert to C int");
        Py_DECREF(number);
        return NO_DESCRIPTOR;
    }
    Py_DECREF(number);
    return (int)fd;
}

static PyObject **
slot_of(poll_slot *slot, uint32_t side)
{
    return side == POLL_READ ? &slot->reader : &slot->writer;
}

static int
slot_has_handle(const poll_slot *slot)
{
    return (slot->reader != NULL && slot->read_ready == NULL) ||
           (slot->writer != NULL && slot->write_ready == NULL);
}

/* Put a watcher, or NULL, into a slot that exists, and let the old one go.  A handle that no longer watches is
   cancelled, as it may be on the ring already; with the last one goes the object that was registered.  Anything
   may run here, so the slots are to be looked at anew. */
static int
slot_set(LoopObj *loop, int fd, uint32_t side, PyObject *watcher, io_ready ready, int once)
{
    poll_slot *slot = &loop->poll.slots[fd];
    PyObject **place = slot_of(slot, side), *old = *place, *file = NULL;
    io_ready *function = side == POLL_READ ? &slot->read_ready : &slot->write_ready;
    int was_handle = *function == NULL, status = 0;
    *place = Py_XNewRef(watcher);
    *function = ready;
    slot->once = (unsigned char)((slot->once & ~side) | (once ? side : 0));
    if (UNLIKELY(slot->file != NULL) && !slot_has_handle(slot)) {
        file = slot->file;
        slot->file = NULL;
    }
    if (old != NULL) {
        status = was_handle ? handle_cancel(old, loop->st) : 0;
        Py_DECREF(old);
    }
    Py_XDECREF(file);
    return status;
}

/* The same where nobody is to hear of an error. */
static void
slot_change(LoopObj *loop, int fd, uint32_t side, PyObject *watcher, io_ready ready, int once)
{
    if (UNLIKELY(slot_set(loop, fd, side, watcher, ready, once) < 0)) {
        PyErr_WriteUnraisable((PyObject *)loop);
    }
}

/* Have the kernel watch one more side.  What it has of a descriptor that nobody owns may be out of date,
   as the descriptor may have been closed since. */
static int
watch_side(LoopObj *loop, int fd, uint32_t side)
{
    poll_state *poll = &loop->poll;
    uint32_t wanted = side;
    if (fd < poll->n_slots) {
        poll_slot *slot = &poll->slots[fd];
        if (slot->owner != NULL && slot->events & side) {
            return 0;
        }
        wanted |= poll_wanted(slot) & POLL_SIDES;
    }
    return poll_watch(poll, fd, wanted);
}

/* The same for a side that is told of once. */
static int
watch_side_once(LoopObj *loop, int fd, uint32_t side)
{
    poll_state *poll = &loop->poll;
    uint32_t wanted = side | POLL_ONCE;
    if (fd < poll->n_slots) {
        poll_slot *slot = &poll->slots[fd];
        uint32_t other = poll_wanted(slot) & ~(side | POLL_ONCE);
        wanted |= other;
        if (other & ~(uint32_t)slot->once) {
            wanted &= ~POLL_ONCE;
        }
    }
    return poll_watch(poll, fd, wanted);
}

static inline int
watch_any(LoopObj *loop, int fd, uint32_t side, PyObject *owner, io_ready ready, int once)
{
    (void)watch_owner(loop, fd);
    int err = once ? watch_side_once(loop, fd, side) : watch_side(loop, fd, side);
    if (err < 0) {
        return err;
    }
    slot_change(loop, fd, side, owner, ready, once);
    return 0;
}

PART int
watch_object(LoopObj *loop, int fd, uint32_t side, PyObject *owner, io_ready ready)
{
    return watch_any(loop, fd, side, owner, ready, 0);
}

PART int
watch_once(LoopObj *loop, int fd, uint32_t side, PyObject *owner, io_ready ready)
{
    return watch_any(loop, fd, side, owner, ready, 1);
}

PART void
watch_forget(LoopObj *loop, int fd, uint32_t side, PyObject *owner)
{
    if (fd < loop->poll.n_slots && *slot_of(&loop->poll.slots[fd], side) == owner) {
        slot_change(loop, fd, side, NULL, NULL, 0);
    }
}

PART void
watch_stop(LoopObj *loop, int fd, uint32_t side, PyObject *owner)
{
    poll_state *poll = &loop->poll;
    if (fd < 0 || fd >= poll->n_slots) {
        return;
    }
    watch_forget(loop, fd, side, owner);
    if (fd >= poll->n_slots) {
        return;
    }
    poll_slot *slot = &poll->slots[fd];
    uint32_t wanted = poll_wanted(slot);
    if (slot->owner == NULL && (slot->events & ~wanted) != 0) {
        (void)poll_watch(poll, fd, wanted);
    }
}

/* Nobody watches it any more. */
static void
watch_evict(LoopObj *loop, int fd)
{
    if (fd < loop->poll.n_slots) {
        (void)poll_watch(&loop->poll, fd, 0);
        loop->poll.slots[fd].owner = NULL;
        slot_change(loop, fd, POLL_READ, NULL, NULL, 0);
    }
    if (fd < loop->poll.n_slots) { // the loop may have been closed
        slot_change(loop, fd, POLL_WRITE, NULL, NULL, 0);
    }
}

PART void
watch_claim(LoopObj *loop, int fd, PyObject *owner)
{
    (void)watch_owner(loop, fd);
    if (poll_reserve(&loop->poll, fd) == 0) {
        loop->poll.slots[fd].owner = owner;
    }
}

PART int
watch_own(LoopObj *loop, int fd, PyObject *owner, io_ready read_ready)
{
    watch_evict(loop, fd); // what is left of an earlier one of this number
    int err = poll_watch(&loop->poll, fd, POLL_READ);
    if (err < 0) {
        return err;
    }
    loop->poll.slots[fd].owner = owner;
    slot_change(loop, fd, POLL_READ, owner, read_ready, 0);
    return 0;
}

PART void
watch_disown(LoopObj *loop, int fd, PyObject *owner)
{
    if (fd < loop->poll.n_slots && loop->poll.slots[fd].owner == owner) {
        watch_evict(loop, fd);
    }
}

PART PyObject *
watch_owner(LoopObj *loop, int fd)
{
    PyObject *owner = fd >= 0 && fd < loop->poll.n_slots ? loop->poll.slots[fd].owner : NULL;
    if (UNLIKELY(owner != NULL && loop->st->loop.descriptor_of_owner(owner) != fd)) {
        watch_evict(loop, fd);
        owner = NULL;
    }
    return owner;
}

PART int
watch_wake(LoopObj *loop, PyObject *fut)
{
    return future_wake(loop->st, fut, Py_None) < 0 ? -1 : 0;
}

/* Have a handle run whenever the descriptor is ready on that side.  `file`: what it was registered by, or NULL. */
static int
add_handle(LoopObj *loop, int fd, uint32_t side, PyObject *file, HandleObj *handle)
{
    if (fd < loop->poll.n_slots && loop->poll.slots[fd].owner != NULL) {
        watch_evict(loop, fd); // its transport is closing, or has lost it
    }
    int err = watch_side(loop, fd, side);
    if (err < 0) {
        (void)poll_raise(err);
        return -1;
    }
    PyObject *before = NULL;
    if (file != NULL) {
        before = loop->poll.slots[fd].file;
        loop->poll.slots[fd].file = Py_NewRef(file);
    }
    int status = slot_set(loop, fd, side, (PyObject *)handle, NULL, 0);
    Py_XDECREF(before);
    return status;
}

static PyObject *
watch_add(LoopObj *loop, const char *method, uint32_t side, PyObject *const *args, Py_ssize_t nargs,
          PyObject *kwnames)
{
    static const char *const names[] = {"fd", "callback"};
    call_args call;
    if (schedule_parse(&call, method, names, 2, args, nargs, kwnames) < 0 || loop_check_open(loop) < 0) {
        return NULL;
    }
    int fd = descriptor_of(call.lead[0], loop->st);
    if (fd < 0) {
        return NULL;
    }
    HandleObj *handle = handle_create(loop, call.lead[1], call.args, call.nargs, call.context, loop->debug);
    if (handle == NULL) {
        return NULL;
    }
    if (add_handle(loop, fd, side, PyLong_Check(call.lead[0]) ? NULL : call.lead[0], handle) < 0) {
        Py_DECREF(handle);
        return NULL;
    }
    return (PyObject *)handle;
}

PART int
watch_callback(LoopObj *loop, int fd, PyObject *callback)
{
    HandleObj *handle = handle_create(loop, callback, NULL, 0, NULL, loop->debug);
    if (handle == NULL) {
        return -1;
    }
    int status = add_handle(loop, fd, POLL_READ, NULL, handle);
    Py_DECREF(handle);
    return status;
}

/* The number under which an object is registered, also if it has been closed since and has none any more; of one
   that is not registered what descriptor_of() says. */
static int
registered_fd(LoopObj *loop, PyObject *obj)
{
    int found = descriptor_of(obj, loop->st);
    if (LIKELY(found >= 0) || !PyErr_ExceptionMatches(PyExc_ValueError) || PyLong_Check(obj)) {
        return found;
    }
    for (int fd = 0; fd < loop->poll.n_slots; fd++) {
        if (loop->poll.slots[fd].file == obj) {
            PyErr_Clear();
            return fd;
        }
    }
    return found;
}

/* Whether such a number is too large for a descriptor: then there was nothing to find, and that is no error. */
static int
is_too_large(int fd)
{
    if (fd != NO_DESCRIPTOR || !PyErr_ExceptionMatches(PyExc_OverflowError)) {
        return 0;
    }
    PyErr_Clear();
    return 1;
}

/* End what add_handle() began.  1, or 0 if nobody's handle waits for that side; -1 with an exception. */
static int
remove_handle(LoopObj *loop, int fd, uint32_t side)
{
    poll_state *poll = &loop->poll;
    if (fd >= poll->n_slots || *slot_of(&poll->slots[fd], side) == NULL || watch_owner(loop, fd) != NULL) {
        return 0; // a transport's own watching is not for others to end
    }
    if (fd >= poll->n_slots) {
        return 0; // closed by what watch_owner() let go of
    }
    /* A descriptor that the kernel no longer knows has nothing left to change. */
    (void)poll_watch(poll, fd, poll->slots[fd].events & ~side);
    return slot_set(loop, fd, side, NULL, NULL, 0) < 0 ? -1 : 1;
}

PART int
watch_end_callback(LoopObj *loop, int fd)
{
    return loop->is_open ? remove_handle(loop, fd, POLL_READ) : 0;
}

static PyObject *
watch_remove(LoopObj *loop, uint32_t side, PyObject *obj)
{
    if (!loop->is_open) {
        Py_RETURN_FALSE;
    }
    int fd = registered_fd(loop, obj);
    if (fd < 0) {
        return is_too_large(fd) ? Py_NewRef(Py_False) : NULL;
    }
    int removed = remove_handle(loop, fd, side);
    return removed < 0 ? NULL : PyBool_FromLong(removed);
}

PyDoc_STRVAR(owner_doc,
"_owner($self, fd, /)\n--\n\n"
"The transport that a descriptor belongs to, None if it belongs to none.");

static PyObject *
Loop_owner(PyObject *self, PyObject *obj)
{
    LoopObj *loop = (LoopObj *)self;
    int fd = descriptor_of(obj, loop->st);
    if (fd < 0) {
        if (fd != NO_DESCRIPTOR) {
            return NULL;
        }
        PyErr_Clear();
        Py_RETURN_NONE; // a closed one belongs to none
    }
    PyObject *owner = watch_owner(loop, fd);
    return Py_NewRef(owner == NULL ? Py_None : owner);
}

PyDoc_STRVAR(watched_doc,
"_watched($self, fileobj, /)\n--\n\n"
"What is watched of a descriptor or of an object that has or had one: (the object it was registered by, the\n"
"descriptor, its reader, its writer), None if nothing is.  Raises ValueError as the selectors module does.");

static PyObject *
Loop_watched(PyObject *self, PyObject *obj)
{
    LoopObj *loop = (LoopObj *)self;
    int fd = registered_fd(loop, obj);
    if (fd < 0) {
        return is_too_large(fd) ? Py_NewRef(Py_None) : NULL;
    }
    poll_slot none = {0};
    poll_slot *slot = fd < loop->poll.n_slots ? &loop->poll.slots[fd] : &none;
    if (slot->reader == NULL && slot->writer == NULL) {
        Py_RETURN_NONE;
    }
    PyObject *number = PyLong_FromLong(fd);
    if (number == NULL) {
        return NULL;
    }
    int collects = PyGC_Disable(); // up to 3.11 a collection may come, and anything with it
    PyObject *result = PyTuple_Pack(4,
                                    slot->file == NULL ? number : slot->file,
                                    number,
                                    slot->reader == NULL ? Py_None : slot->reader,
                                    slot->writer == NULL ? Py_None : slot->writer);
    if (collects) {
        PyGC_Enable();
    }
    Py_DECREF(number);
    return result;
}

PyDoc_STRVAR(descriptors_doc,
"_descriptors($self, /)\n--\n\n"
"A list of the descriptors of which something is watched.");

static PyObject *
Loop_descriptors(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    poll_state *poll = &((LoopObj *)self)->poll;
    PyObject *list = PyList_New(0);
    for (int fd = 0; list != NULL && fd < poll->n_slots; fd++) {
        if (poll->slots[fd].reader == NULL && poll->slots[fd].writer == NULL) {
            continue;
        }
        PyObject *number = PyLong_FromLong(fd);
        if (number == NULL || PyList_Append(list, number) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(number);
    }
    return list;
}

PART int
watch_traverse(LoopObj *loop, visitproc visit, void *arg)
{
    for (int fd = 0; fd < loop->poll.n_slots; fd++) {
        Py_VISIT(loop->poll.slots[fd].reader);
        Py_VISIT(loop->poll.slots[fd].writer);
        Py_VISIT(loop->poll.slots[fd].file);
    }
    return 0;
}

PART void
watch_clear(LoopObj *loop)
{
    /* Dropping a handle may run anything, so the table is looked at anew each time. */
    for (int fd = 0; fd < loop->poll.n_slots; fd++) {
        Py_CLEAR(loop->poll.slots[fd].reader);
        if (fd < loop->poll.n_slots) {
            Py_CLEAR(loop->poll.slots[fd].writer);
        }
        if (fd < loop->poll.n_slots) {
            Py_CLEAR(loop->poll.slots[fd].file);
        }
    }
}

PyDoc_STRVAR(add_reader_doc,
"_add_reader($self, fd, callback, *args, context=None)\n--\n\n"
"Have `callback(*args)` called whenever `fd` can be read, in place of an earlier one; return its Handle.\n\n"
"Raises OSError if the descriptor cannot be polled.  (What asyncio.loop.add_reader stands on.)");

static PyObject *
Loop_add_reader(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return watch_add((LoopObj *)self, "_add_reader", POLL_READ, args, nargs, kwnames);
}

PyDoc_STRVAR(add_writer_doc,
"_add_writer($self, fd, callback, *args, context=None)\n--\n\n"
"Have `callback(*args)` called whenever `fd` can be written, in place of an earlier one; return its Handle.\n\n"
"Raises OSError if the descriptor cannot be polled.  (What asyncio.loop.add_writer stands on.)");

static PyObject *
Loop_add_writer(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return watch_add((LoopObj *)self, "_add_writer", POLL_WRITE, args, nargs, kwnames);
}

PyDoc_STRVAR(remove_doc,
"Stop watching one side of a descriptor; return True if it was watched.");

static PyObject *
Loop_remove_reader(PyObject *self, PyObject *fd)
{
    return watch_remove((LoopObj *)self, POLL_READ, fd);
}

static PyObject *
Loop_remove_writer(PyObject *self, PyObject *fd)
{
    return watch_remove((LoopObj *)self, POLL_WRITE, fd);
}

PyDoc_STRVAR(sock_ready_doc,
"_sock_ready($self, fut, /)\n--\n\n"
"What a sock_*() method waits for has come.");

static PyObject *
Loop_sock_ready(PyObject *self, PyObject *fut)
{
    if (watch_wake((LoopObj *)self, fut) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef watch_methods[] = {
    {"_add_reader",
     (PyCFunction)(void (*)(void))Loop_add_reader,
     METH_FASTCALL | METH_KEYWORDS,
     add_reader_doc},
    {"_add_writer",
     (PyCFunction)(void (*)(void))Loop_add_writer,
     METH_FASTCALL | METH_KEYWORDS,
     add_writer_doc},
    {"_remove_reader", Loop_remove_reader, METH_O, remove_doc},
    {"_remove_writer", Loop_remove_writer, METH_O, remove_doc},
    {"_sock_ready", Loop_sock_ready, METH_O, sock_ready_doc},
    {"_owner", Loop_owner, METH_O, owner_doc},
    {"_watched", Loop_watched, METH_O, watched_doc},
    {"_descriptors", Loop_descriptors, METH_NOARGS, descriptors_doc},
    {NULL, NULL, 0, NULL},
};

PART int
watch_setup(PyObject *Py_UNUSED(module), ctask_state *st)
{
    return add_methods(st->LoopType, watch_methods);
}
