// A daemon, in the working directory of a mount: claims `before`, calls daemon(3), claims `after`,
// and has two workers, of which it kills the first. It prints what came of each step, and lives on.
#define _DEFAULT_SOURCE
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *take(const char *name) {
    int fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0644);
    if (fd >= 0)
        close(fd);
    return fd < 0 ? strerrorname_np(errno) : "done";
}

static const char *drop(const char *name) { return unlink(name) ? strerrorname_np(errno) : "done"; }

// A worker that claims `worker`, says what came of it and waits: its pid.
static pid_t worker(void) {
    int ends[2];
    char word[32] = "";
    if (pipe(ends))
        return -1;
    pid_t pid = fork();
    if (pid == 0) {
        dprintf(ends[1], "%s", take("claims/worker"));
        pause();
    }
    close(ends[1]);
    if (read(ends[0], word, sizeof word - 1) < 0)
        return -1;
    printf("worker %s\n", word);
    return pid;
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("starter %s\n", take("claims/before"));
    pid_t starter = getpid();
    if (daemon(1, 1))
        return 1;
    // Its starter exits by itself, and is waited for by the script.
    while (!kill(starter, 0)) {
    }
    printf("daemon %d\n", getpid());
    printf("daemon %s\n", drop("claims/before"));
    printf("daemon %s\n", take("claims/after"));
    pid_t first = worker(), second = worker();
    printf("daemon %s\n", drop("claims/worker"));
    kill(first, SIGKILL);
    waitpid(first, NULL, 0);
    pid_t third = worker();
    kill(second, SIGKILL);
    waitpid(second, NULL, 0);
    printf("daemon %s\n", take("claims/worker"));
    kill(third, SIGKILL);
    waitpid(third, NULL, 0);
    printf("daemon %s\n", take("claims/worker"));
    printf("ready\n");
    for (;;)
        pause();
}
