// The limit in C for child processes: posix_spawn (which stops its caller until exec, instead of copying it)
// and waitpid, one after the other.
//
//   spawn PROGRAM WARM-UP SECONDS
//
//   PROGRAM   wait: /bin/true; three_pipes: the same with a pipe each for its stdin, stdout and stderr;
//             communicate: /bin/cat, given 1 KiB, which it writes to a pipe
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 1024 };

extern char **environ;
static char message[SIZE];

static double
clock_seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double
children_seconds(void)
{
    struct rusage used;
    getrusage(RUSAGE_CHILDREN, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static bool
child_run(bool communicate, bool three)
{
    char *arguments[] = {communicate ? "/bin/cat" : "/bin/true", NULL};
    int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1}, status;
    size_t got = 0;
    pid_t child;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    if (communicate || three) {
        if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC))
            return false;
        posix_spawn_file_actions_adddup2(&actions, in[0], 0);
        posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    }
    if (three) {
        if (pipe2(err, O_CLOEXEC))
            return false;
        posix_spawn_file_actions_adddup2(&actions, err[1], 2);
    }
    if (posix_spawn(&child, arguments[0], &actions, NULL, arguments, environ))
        return false;
    posix_spawn_file_actions_destroy(&actions);
    char buffer[2 * SIZE];
    if (communicate || three) {
        close(in[0]);
        close(out[1]);
        if (communicate && write(in[1], message, SIZE) != SIZE)
            return false;
        close(in[1]);
        for (ssize_t n; (n = read(out[0], buffer, sizeof buffer)) > 0;)
            got += (size_t)n;
        close(out[0]);
    }
    if (three) {
        close(err[1]);
        for (ssize_t n; (n = read(err[0], buffer, sizeof buffer)) > 0;)
            got += (size_t)n;
        close(err[0]);
    }
    return waitpid(child, &status, 0) == child && status == 0 && got == (communicate ? SIZE : 0);
}

int
main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    bool communicate = *argv[1] == 'c', three = *argv[1] == 't';
    double began = 0, cpu = 0, children = 0;
    unsigned long count = 0;
    memset(message, 'x', SIZE);
    for (int i = 2; i < 4; i++) {
        double end = clock_seconds(CLOCK_MONOTONIC) + atof(argv[i]);
        count = 0;
        began = clock_seconds(CLOCK_MONOTONIC);
        cpu = clock_seconds(CLOCK_PROCESS_CPUTIME_ID);
        children = children_seconds();
        for (; clock_seconds(CLOCK_MONOTONIC) < end; count++)
            if (!child_run(communicate, three)) {
                perror("spawn");
                return 1;
            }
    }
    cpu = clock_seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    double elapsed = clock_seconds(CLOCK_MONOTONIC) - began;
    children = children_seconds() - children;
    printf("{\"requests\": %lu, \"seconds\": %.6f, \"server_cpu\": %.9f, \"children_cpu\": %.9f}\n", count, elapsed,
           cpu, children);
    return 0;
}
