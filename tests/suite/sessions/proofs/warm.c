// A process that the server knows well changes who it is, and claims again.
//
//   warm exec        runs itself anew, in the session w2
//   warm shared      the same, while another process still has the memory of before
//   warm thread      the same, by another thread than the one that has called
//   warm setsid      becomes a POSIX session of its own
//
// It claims x before, and y after; then it says so, and ends with its standard input.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static void claim(const char *path) {
    int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0644);
    if (fd < 0) abort();
    close(fd);
}

static void warm(void) {
    claim("claims/x");
    for (int i = 0; i < 20; i++) {
        claim("claims/w");
        if (unlink("claims/w")) abort();
    }
}

static void wait_for_end(void) {
    char byte;
    while (read(0, &byte, 1) > 0) {}
}

static void after(void) {
    claim("claims/y");
    puts("done");
    fflush(stdout);
    wait_for_end();
    exit(0);
}

static void *anew(void *program) {
    setenv("CLAIMFS_SESSION", "w2", 1);
    execl(program, program, "after", NULL);
    abort();
}

static volatile int is_kept;

static int keep(void *nothing) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    is_kept = 1;
    for (;;) pause();
    return 0;
}

int main(int count, char **words) {
    const char *how = count == 2 ? words[1] : "";
    if (!strcmp(how, "after")) after();
    if (!strcmp(how, "setsid")) {
        // The leader of a process group cannot.
        if (fork()) {
            wait_for_end();
            return 0;
        }
        warm();
        if (setsid() < 0) abort();
        after();
    }
    warm();
    if (!strcmp(how, "shared")) {
        static char stack[65536];
        if (clone(keep, stack + sizeof stack, CLONE_VM | SIGCHLD, NULL) < 0) abort();
        // Before that, the death of this process would not end the other.
        while (!is_kept) sched_yield();
    }
    if (!strcmp(how, "thread")) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, anew, words[0])) abort();
        pthread_join(thread, NULL);
    }
    anew(words[0]);
}
