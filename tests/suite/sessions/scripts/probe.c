// Tries a name from the directory of claims that it runs in, and prints what each call comes to:
// `done`, or the name of its errno. `probe others NAME` makes the calls that only a holder may
// make; `probe take NAME` takes the name once.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void say(int result) {
    printf("%s ", result < 0 ? strerrorname_np(errno) : "done");
    if (result > 2)
        close(result);
}

int main(int count, char **words) {
    if (count != 3)
        return 2;
    const char *name = words[2];
    if (!strcmp(words[1], "take")) {
        int fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0644);
        say(fd);
        if (fd >= 0)
            say(unlink(name));
        return 0;
    }
    struct stat stat;
    if (lstat(name, &stat))
        return 1;
    int is_directory = S_ISDIR(stat.st_mode);
    char own[300];
    snprintf(own, sizeof own, "%s.own", name);
    if (is_directory ? mkdir(own, 0755) : mknod(own, S_IFREG | 0644, 0))
        return 1;
    say(open(name, O_WRONLY | O_CREAT | O_EXCL, 0644));
    say(open(name, O_WRONLY));
    say(is_directory ? rmdir(name) : unlink(name));
    say(rename(own, name));
    return is_directory ? rmdir(own) : unlink(own);
}
