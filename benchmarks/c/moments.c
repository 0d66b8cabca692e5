// What a loop is told of from outside, with the moment at which it happened: for `python -m benchmarks --latency`.
//
//   moments end FILE                        end as a process, which somebody waits for
//   moments signal FILE PID NUMBER SECONDS  send so many signals as are answered, one after the other; status 3
//                                           if one is not
//   moments upload PORT                     send as fast as the other end receives, until it is gone
//
// FILE holds two numbers of 8 bytes: the moment of the last event, in ns of CLOCK_MONOTONIC, and which event was
// answered last. An event is answered by writing its moment there.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = 1 << 16, ANSWER_LIMIT = 3, UNANSWERED = 3 };

static _Noreturn void
fail(const char *what)
{
    fprintf(stderr, "moments: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t
now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void
pause_us(long us)
{
    nanosleep(&(struct timespec){.tv_nsec = us * 1000}, NULL);
}

static volatile uint64_t *
map(const char *path)
{
    int fd = open(path, O_RDWR);
    void *words = fd < 0 ? MAP_FAILED : mmap(NULL, 16, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (words == MAP_FAILED)
        fail(path);
    return words;
}

static void
send_signals(volatile uint64_t *words, pid_t pid, int number, double seconds)
{
    uint64_t until = now_ns() + (uint64_t)(seconds * 1e9);
    uint32_t state = 1;
    for (uint64_t moment = now_ns(); moment < until;) {
        state = state * 1664525u + 1013904223u;
        pause_us(500 + (state >> 20) % 2500); // in no step with what the loop does
        words[0] = moment = now_ns();
        if (kill(pid, number))
            fail("kill");
        while (words[1] != moment) {
            if (now_ns() > moment + ANSWER_LIMIT * 1000000000ull)
                exit(UNANSWERED);
            pause_us(50);
        }
    }
}

static void
upload(uint16_t port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
    static char piece[PIECE];
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address))
        fail("connect");
    while (send(fd, piece, sizeof piece, MSG_NOSIGNAL) > 0)
        ;
}

int
main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "end")) {
        volatile uint64_t *words = map(argv[2]);
        pause_us(1000); // the loop waits for it by then
        words[0] = now_ns();
        _exit(0);
    }
    if (argc == 6 && !strcmp(argv[1], "signal"))
        send_signals(map(argv[2]), (pid_t)atol(argv[3]), atoi(argv[4]), atof(argv[5]));
    else if (argc == 3 && !strcmp(argv[1], "upload"))
        upload((uint16_t)atoi(argv[2]));
    else
        return 2;
    return 0;
}
