// A number that is used again: a thread of one process claims and ends, and another process gets
// its number at once.
//
//   number MOUNT set      by clone3(2), which lets root choose the number of a child
//   number MOUNT round    by making children until the numbers have gone round (with a small pid_max)
//
// Prints what the other process is told: the errno of unlink(2), and that of an exclusive open(2).
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char claim[4096];

static int create(void) {
    int fd = open(claim, O_CREAT | O_EXCL | O_WRONLY, 0644);
    if (fd < 0) return errno;
    close(fd);
    return 0;
}

// In a sandbox all are of one session, unless they say otherwise.
static void enter(const char *mount) {
    char path[4096];
    snprintf(path, sizeof path, "%s/sessions/holder", mount);
    FILE *session = fopen(path, "w");
    if (!session || fprintf(session, "%d", getpid()) < 0 || fclose(session)) abort();
}

static void *claims(void *number) {
    if (create() != 0) abort();
    *(pid_t *)number = syscall(SYS_gettid);
    return NULL;
}

static void other(void) {
    int removed = unlink(claim) ? errno : 0;
    printf("%d %d\n", removed, create());
    fflush(stdout);
    _exit(0);
}

int main(int count, char **words) {
    int numbers[2];
    pid_t number = 0;
    if (count != 3 || pipe(numbers)) return 2;
    snprintf(claim, sizeof claim, "%s/claims/x", words[1]);
    int rounds = strcmp(words[2], "set") != 0;
    // Numbers below 300 are given once.
    while (rounds) {
        pid_t child = vfork();
        if (child == 0) _exit(0);
        waitpid(child, NULL, 0);
        if (child > 310) break;
    }
    pid_t holder = fork();
    if (holder == 0) {
        setsid();
        if (rounds) enter(words[1]);
        pthread_t thread;
        pthread_create(&thread, NULL, claims, &number);
        pthread_join(thread, NULL);
        if (write(numbers[1], &number, sizeof number) < 0) abort();
        pause();
    }
    if (read(numbers[0], &number, sizeof number) != sizeof number) return 2;
    int done = 1;
    if (!rounds) {
        uint64_t set = number;
        struct clone_args how = {.exit_signal = SIGCHLD, .set_tid = (uintptr_t)&set, .set_tid_size = 1};
        pid_t child;
        // The thread may be joined a moment before its number is free.
        while ((child = syscall(SYS_clone3, &how, sizeof how)) < 0 && errno == EEXIST) {}
        if (child == 0) {
            setsid();
            other();
        }
        if (child > 0) done = waitpid(child, NULL, 0) < 0;
    } else {
        for (int tries = 0; done && tries < 100000; tries++) {
            pid_t child = fork();
            if (child == 0) {
                if (getpid() != number) _exit(0);
                setsid();
                other();
            }
            waitpid(child, NULL, 0);
            done = child != number;
        }
    }
    kill(holder, SIGKILL);
    waitpid(holder, NULL, 0);
    return done;
}
