/*
 * push QUEUE COUNT THREADS BYTES
 *
 * The floor of a durable Maildir push: O_EXCL create in tmp/, write, fsync, rename to new/, fsync of new/.
 * With several threads the directory sync is shared (group commit): one fsync of new/ serves
 * every thread whose rename was done when it began.
 *
 * Says "ready", begins at a line on stdin, prints the nanoseconds that COUNT pushes took.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int new_fd, bytes, each;
static char *content;
static pthread_barrier_t gate;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t done = PTHREAD_COND_INITIALIZER;
static uint64_t begun, finished; /* directory syncs, numbered from 1 */
static int syncing;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* A sync covers who asked before it began: wait for the next one to begin, or lead it. */
static void commit(void)
{
    pthread_mutex_lock(&lock);
    uint64_t mine = begun + 1;
    while (finished < mine) {
        if (syncing) {
            pthread_cond_wait(&done, &lock);
            continue;
        }
        syncing = 1;
        uint64_t led = ++begun;
        pthread_mutex_unlock(&lock);
        if (fsync(new_fd) < 0)
            die("fsync new");
        pthread_mutex_lock(&lock);
        syncing = 0;
        finished = led;
        pthread_cond_broadcast(&done);
    }
    pthread_mutex_unlock(&lock);
}

static void push(long thread, int count)
{
    char key[200], written[256], pushed[256];
    struct timeval now;
    int fd;

    gettimeofday(&now, NULL);
    snprintf(key, sizeof key, "%ld.M%06ldP%dQ%dR%08lx.bench,S=%d", (long)now.tv_sec, (long)now.tv_usec, getpid(),
             count, thread, bytes);
    snprintf(written, sizeof written, "tmp/%s", key);
    snprintf(pushed, sizeof pushed, "new/%s", key);
    if ((fd = open(written, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600)) < 0)
        die("create");
    if (write(fd, content, (size_t)bytes) != bytes)
        die("write");
    if (fsync(fd) < 0)
        die("fsync");
    close(fd);
    if (rename(written, pushed) < 0)
        die("rename");
    commit();
}

static void *writer(void *argument)
{
    pthread_barrier_wait(&gate);
    for (int i = 0; i < each; i++)
        push((long)argument, i);
    return NULL;
}

int main(int argc, char **argv)
{
    struct timespec start, end;
    int threads;

    if (argc != 5 || (threads = atoi(argv[3])) < 1 || (bytes = atoi(argv[4])) < 1 || chdir(argv[1]) < 0)
        die("usage: push QUEUE COUNT THREADS BYTES");
    each = atoi(argv[2]) / threads;
    content = malloc((size_t)bytes);
    memset(content, 'x', (size_t)bytes);
    if ((new_fd = open("new", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        die("open new");
    pthread_t *ids = calloc((size_t)threads, sizeof *ids);
    pthread_barrier_init(&gate, NULL, (unsigned)threads + 1);
    for (long i = 0; i < threads; i++)
        if (pthread_create(&ids[i], NULL, writer, (void *)i))
            die("pthread_create");
    puts("ready");
    fflush(stdout);
    getchar();
    clock_gettime(CLOCK_MONOTONIC, &start);
    pthread_barrier_wait(&gate);
    for (int i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%lld\n", (end.tv_sec - start.tv_sec) * 1000000000LL + (end.tv_nsec - start.tv_nsec));
    return 0;
}
