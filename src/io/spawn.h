/* posix_spawn() of a child that inherits all (spawn.c). */

#ifndef CTASK_SPAWN_H
#define CTASK_SPAWN_H

#include "ctask.h"

/* What is the same for all of them: the signals (a list of ints) that the child has the default action of, and that it
   closes descriptors from 3 on.  None if that cannot be asked of this C library. */
PART PyObject *spawn_recipe(PyObject *signals);
/* os.posix_spawn(command[0], arguments, None, ...) with a recipe, `arguments` being the list of what is in `command`.
   NULL without an exception if os.posix_spawn() has to be called. */
PART PyObject *spawn_directly(PyObject *recipe, PyObject *command, PyObject *arguments);

#endif
