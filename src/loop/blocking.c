/* Files that do not block while a transport has them, and do again afterwards.

   That a file does not block holds for all who have it, as for the shell whose terminal it is.  So what was set
   is taken back when the last transport lets go of it, when the loop is closed and when the program ends. */

#include "loop/blocking.h"

#include <fcntl.h>

PART int
blocking_has_file(const blocking_file *file)
{
    struct stat status;
    return fstat(file->fd, &status) == 0 && status.st_dev == file->device && status.st_ino == file->inode;
}

PART int
blocking_take(blocking_file *file, const LoopObj *loop, int fd, const struct stat *status)
{
    int flags = fcntl(fd, F_GETFL);
    int blocks = flags >= 0 && !(flags & O_NONBLOCK);
    if (flags < 0 || (blocks && fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    file->loop = loop;
    file->device = status->st_dev;
    file->inode = status->st_ino;
    file->fd = fd;
    file->restores = (char)blocks;
    return 0;
}

PART void
blocking_keep(ctask_state *st, blocking_file *file)
{
    list_append(&st->loop.blocking_files, &file->open);
}

/* It blocks again, unless another transport has it: that one takes this over.  There is no other way to see whether
   two descriptors are of one such file than to change it by one and look by the other.  `closing` is a loop whose
   transports do not count any more. */
static void
restore(ctask_state *st, blocking_file *file, const LoopObj *closing)
{
    struct list_node *all = &st->loop.blocking_files;
    if (!file->restores) {
        return;
    }
    file->restores = 0;
    int flags = fcntl(file->fd, F_GETFL);
    if (flags < 0 || !(flags & O_NONBLOCK) || !blocking_has_file(file) ||
        fcntl(file->fd, F_SETFL, flags & ~O_NONBLOCK) < 0) {
        return; // closed by somebody else, or changed
    }
    for (struct list_node *node = all->next; node != all; node = node->next) {
        blocking_file *other = list_entry(node, blocking_file, open);
        if (other == file || other->device != file->device || other->inode != file->inode ||
            (closing != NULL && other->loop == closing) || !blocking_has_file(other)) {
            continue;
        }
        flags = fcntl(other->fd, F_GETFL);
        if (flags >= 0 && !(flags & O_NONBLOCK) && fcntl(other->fd, F_SETFL, flags | O_NONBLOCK) == 0) {
            other->restores = 1;
            return;
        }
    }
}

PART void
blocking_let_go(ctask_state *st, blocking_file *file)
{
    if (list_is_linked(&file->open)) {
        list_remove(&file->open);
    }
    restore(st, file, NULL);
}

PART void
blocking_leave_to_parent(ctask_state *st)
{
    struct list_node *all = &st->loop.blocking_files;
    for (struct list_node *node = all->next; node != all; node = node->next) {
        list_entry(node, blocking_file, open)->restores = 0;
    }
}

PART void
blocking_let_all_go(ctask_state *st, const LoopObj *loop)
{
    struct list_node *node = st->loop.blocking_files.next;
    while (node != &st->loop.blocking_files) {
        blocking_file *file = list_entry(node, blocking_file, open);
        node = node->next;
        if (loop == NULL) {
            list_remove(&file->open);
        }
        if (loop == NULL || file->loop == loop) {
            restore(st, file, loop);
        }
    }
}

/* ---- the end of the program ---- */

PyDoc_STRVAR(restore_files_doc,
"_restore_files($module, /)\n--\n\n"
"Have the files that transports made non-blocking block as they did before; atexit calls it.");

static PyObject *
restore_files(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    blocking_let_all_go(PyModule_GetState(module), NULL);
    Py_RETURN_NONE;
}

static PyMethodDef blocking_functions[] = {
    {"_restore_files", restore_files, METH_NOARGS, restore_files_doc},
    {NULL, NULL, 0, NULL},
};

static int
register_exit(PyObject *module)
{
    PyObject *atexit = PyImport_ImportModule("atexit");
    PyObject *function = atexit == NULL ? NULL : PyObject_GetAttrString(module, "_restore_files");
    PyObject *res = function == NULL ? NULL : PyObject_CallMethod(atexit, "register", "O", function);
    Py_XDECREF(function);
    Py_XDECREF(atexit);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

PART int
blocking_setup(PyObject *module, ctask_state *Py_UNUSED(st))
{
    return PyModule_AddFunctions(module, blocking_functions) < 0 ? -1 : register_exit(module);
}
