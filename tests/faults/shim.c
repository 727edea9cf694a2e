/* Makes the calls that write the journal fail while a file says so: $MAYFLY_FAULTS/sync (EIO), $MAYFLY_FAULTS/full (ENOSPC)
 * or $MAYFLY_FAULTS/quota (EDQUOT).
 * While there is $MAYFLY_FAULTS/hang, a sync of the journal waits, and while there is $MAYFLY_FAULTS/slow, as many milliseconds as
 * that says. The system's clock is ahead by as many seconds as $MAYFLY_FAULTS/clock says, which may be below 0. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static int fails(int fd, const char *what) {
    const char *dir = getenv("MAYFLY_FAULTS");
    char flag[4096], link[64], path[4096];
    if (!dir) return 0;
    snprintf(flag, sizeof flag, "%s/%s", dir, what);
    if (access(flag, F_OK)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return strstr(path, "journal.db") != NULL;
}

/* Waits while $MAYFLY_FAULTS/hang is there, and says so in $MAYFLY_FAULTS/hanging. */
static void hang(int fd, const char *flag) {
    char path[4096];
    if (strcmp(flag, "sync") || !fails(fd, "hang")) return;
    snprintf(path, sizeof path, "%s/hanging", getenv("MAYFLY_FAULTS"));
    FILE *says = fopen(path, "w");
    if (says) fclose(says);
    while (fails(fd, "hang")) usleep(5000);
}

static void slow(int fd, const char *flag) {
    char path[4096];
    int milliseconds = 0;
    if (strcmp(flag, "sync") || !fails(fd, "slow")) return;
    snprintf(path, sizeof path, "%s/slow", getenv("MAYFLY_FAULTS"));
    FILE *says = fopen(path, "r");
    if (!says) return;
    if (fscanf(says, "%d", &milliseconds) == 1) usleep(1000 * milliseconds);
    fclose(says);
}

#define FAULTY(type, name, flag, error, params, args)                         \
    type name params {                                                        \
        static type(*real) params;                                            \
        if (!real) real = (type(*) params)dlsym(RTLD_NEXT, #name);            \
        hang(fd, flag);                                                       \
        slow(fd, flag);                                                       \
        if (fails(fd, flag)) { errno = error; return -1; }                    \
        if (!strcmp(flag, "full") && fails(fd, "quota")) { errno = EDQUOT; return -1; } \
        return real args;                                                     \
    }

FAULTY(int, fsync, "sync", EIO, (int fd), (fd))
FAULTY(int, fdatasync, "sync", EIO, (int fd), (fd))
FAULTY(ssize_t, write, "full", ENOSPC, (int fd, const void *b, size_t n), (fd, b, n))
FAULTY(ssize_t, pwrite, "full", ENOSPC, (int fd, const void *b, size_t n, off_t o), (fd, b, n, o))
FAULTY(ssize_t, pwrite64, "full", ENOSPC, (int fd, const void *b, size_t n, off64_t o), (fd, b, n, o))
FAULTY(int, ftruncate, "full", ENOSPC, (int fd, off_t n), (fd, n))
FAULTY(int, ftruncate64, "full", ENOSPC, (int fd, off64_t n), (fd, n))
FAULTY(int, posix_fallocate, "full", ENOSPC, (int fd, off_t o, off_t n), (fd, o, n))

/* Looked up every 20 ms: a process reads its clock many times a second. */
int clock_gettime(clockid_t id, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    static long ahead, looked;
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int done = real(id, at);
    const char *dir = getenv("MAYFLY_FAULTS");
    if (done || id != CLOCK_REALTIME || !dir) return done;
    struct timespec now;
    real(CLOCK_MONOTONIC, &now);
    long ticks = now.tv_sec * 50 + now.tv_nsec / 20000000;
    if (__atomic_exchange_n(&looked, ticks, __ATOMIC_RELAXED) != ticks) {
        char path[4096];
        long seconds = 0;
        snprintf(path, sizeof path, "%s/clock", dir);
        FILE *says = fopen(path, "r");
        if (says) {
            if (fscanf(says, "%ld", &seconds) != 1) seconds = 0;
            fclose(says);
        }
        __atomic_store_n(&ahead, seconds, __ATOMIC_RELAXED);
    }
    at->tv_sec += __atomic_load_n(&ahead, __ATOMIC_RELAXED);
    return 0;
}
