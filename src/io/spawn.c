/* posix_spawn() of a child that inherits all, as os.posix_spawn() calls it: what is the same for all children is made
   ready once, and nothing is taken apart each time.

   Called by process.c, which has seen that os.posix_spawn is Python's own.  It knows of str arguments in ASCII only. */

#include "io/spawn.h"

#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>

enum { MAX_ARGUMENTS = 64 }; // on the stack

extern char **environ;

typedef struct {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
} spawn_ready;

static const char RECIPE[] = "ctask.spawn";

static void
recipe_free(PyObject *capsule)
{
    spawn_ready *ready = PyCapsule_GetPointer(capsule, RECIPE);
    if (ready != NULL) {
        (void)posix_spawn_file_actions_destroy(&ready->actions);
        (void)posix_spawnattr_destroy(&ready->attributes);
        PyMem_Free(ready);
    }
}

/* The set of these signals.  -1 if it cannot be made. */
static int
signals_of(PyObject *list, sigset_t *set)
{
    (void)sigemptyset(set);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        PyObject *item = PyList_GET_ITEM(list, i);
        int overflow = 0;
        long number = PyLong_CheckExact(item) ? PyLong_AsLongAndOverflow(item, &overflow) : 0;
        if (number <= 0 || number > INT_MAX || sigaddset(set, (int)number) < 0) {
            return -1;
        }
    }
    return 0;
}

PART PyObject *
spawn_recipe(PyObject *signals)
{
    /* glibc 2.34; the wheels are for older ones, too. */
    int (*close_from)(posix_spawn_file_actions_t *, int);
    *(void **)&close_from = dlsym(RTLD_DEFAULT, "posix_spawn_file_actions_addclosefrom_np");
    sigset_t defaults;
    if (close_from == NULL || !PyList_CheckExact(signals) || signals_of(signals, &defaults) < 0) {
        Py_RETURN_NONE;
    }
    spawn_ready *ready = PyMem_Malloc(sizeof(spawn_ready));
    if (ready == NULL) {
        return PyErr_NoMemory();
    }
    if (posix_spawn_file_actions_init(&ready->actions) != 0) {
        goto no_actions;
    }
    if (posix_spawnattr_init(&ready->attributes) != 0) {
        goto no_attributes;
    }
    if (close_from(&ready->actions, 3) == 0 &&
        posix_spawnattr_setsigdefault(&ready->attributes, &defaults) == 0 &&
        posix_spawnattr_setflags(&ready->attributes, POSIX_SPAWN_SETSIGDEF) == 0) {
        PyObject *capsule = PyCapsule_New(ready, RECIPE, recipe_free);
        if (capsule != NULL) {
            return capsule;
        }
    }
    (void)posix_spawnattr_destroy(&ready->attributes);
no_attributes:
    (void)posix_spawn_file_actions_destroy(&ready->actions);
no_actions:
    PyMem_Free(ready);
    return PyErr_Occurred() ? NULL : PyErr_NoMemory();
}

/* The text as the system has it; NULL if that is not just the same bytes. */
static char *
bytes_of(PyObject *text)
{
    if (!PyUnicode_CheckExact(text) || !PyUnicode_IS_COMPACT_ASCII(text)) {
        return NULL;
    }
    char *bytes = PyUnicode_DATA(text);
    return strlen(bytes) == (size_t)PyUnicode_GET_LENGTH(text) ? bytes : NULL;
}

PART PyObject *
spawn_directly(PyObject *recipe, PyObject *command, PyObject *arguments)
{
    char *argv[MAX_ARGUMENTS + 1];
    Py_ssize_t n = PyTuple_GET_SIZE(command);
    if (recipe == Py_None || n == 0 || n > MAX_ARGUMENTS || n != PyList_GET_SIZE(arguments)) {
        return NULL;
    }
    /* Audit hooks have the list, and may change it.  The tuple keeps the texts. */
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *argument = PyTuple_GET_ITEM(command, i);
        argv[i] = argument == PyList_GET_ITEM(arguments, i) ? bytes_of(argument) : NULL;
        if (argv[i] == NULL) {
            return NULL;
        }
    }
    argv[n] = NULL;
    PyObject *program = PyTuple_GET_ITEM(command, 0);
    if (PySys_Audit("os.posix_spawn", "OOO", program, arguments, Py_None) < 0) {
        return NULL;
    }
    spawn_ready *ready = PyCapsule_GetPointer(recipe, RECIPE);
    if (ready == NULL) {
        return NULL;
    }
    pid_t child;
    int error = posix_spawn(&child, argv[0], &ready->actions, &ready->attributes, argv, environ);
    if (UNLIKELY(error != 0)) {
        errno = error;
        return PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, program);
    }
    return PyLong_FromLong(child);
}
