/*
 * drain QUEUE PROCESSES
 *
 * The floor of a Maildir drain: each process lists new/ and, for every name, does just
 * rename new/X -> cur/X.PID, open, read, close, unlink, until a listing is empty.
 * No lease, no log, no routing, no crash safety.
 *
 * Says "ready" when all processes are forked and wait, begins at a line on stdin,
 * exits when the queue is empty.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char content[1 << 20];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void handle(const char *name, int pid)
{
    char waiting[512], claimed[512];
    int fd;

    snprintf(waiting, sizeof waiting, "new/%s", name);
    snprintf(claimed, sizeof claimed, "cur/%s.%d", name, pid);
    if (rename(waiting, claimed) < 0) {
        if (errno == ENOENT) /* another process was first */
            return;
        die("rename");
    }
    if ((fd = open(claimed, O_RDONLY)) < 0)
        die("open");
    if (read(fd, content, sizeof content) < 0)
        die("read");
    close(fd);
    if (unlink(claimed) < 0)
        die("unlink");
}

struct list {
    char **names;
    size_t count, room;
};

static void list_new(struct list *list)
{
    struct dirent *entry;
    DIR *dir = opendir("new");

    if (!dir)
        die("opendir new");
    list->count = 0;
    while ((entry = readdir(dir))) {
        if (entry->d_name[0] == '.')
            continue;
        if (list->count == list->room) {
            list->room = list->room ? 2 * list->room : 1024;
            if (!(list->names = realloc(list->names, list->room * sizeof *list->names)))
                die("realloc");
        }
        list->names[list->count++] = strdup(entry->d_name);
    }
    closedir(dir);
}

/* Each process begins at its own place in the list: beginning all at the first name costs a lost race a name. */
static void drain(int index, int processes)
{
    struct list list = {0};
    int pid = getpid();

    for (;;) {
        list_new(&list);
        if (!list.count)
            return;
        size_t first = list.count * (size_t)index / (size_t)processes;
        for (size_t i = 0; i < list.count; i++)
            handle(list.names[(first + i) % list.count], pid);
        for (size_t i = 0; i < list.count; i++)
            free(list.names[i]);
    }
}

int main(int argc, char **argv)
{
    int gate[2], processes, status, failed = 0;
    char byte;

    if (argc != 3 || (processes = atoi(argv[2])) < 1 || chdir(argv[1]) < 0 || pipe(gate) < 0)
        die("usage: drain QUEUE PROCESSES");
    for (int i = 0; i < processes; i++) {
        pid_t child = fork();
        if (child < 0)
            die("fork");
        if (child == 0) {
            close(gate[1]);
            if (read(gate[0], &byte, 1) < 0)
                die("read gate");
            drain(i, processes);
            _exit(0);
        }
    }
    puts("ready");
    fflush(stdout);
    getchar();
    close(gate[1]); /* end of file for all of them at once */
    while (wait(&status) > 0)
        failed |= status;
    return failed != 0;
}
