/* Makes the calls that write the journal fail while a file says so: $MAYFLY_FAULTS/sync (EIO), $MAYFLY_FAULTS/full (ENOSPC)
 * or $MAYFLY_FAULTS/quota (EDQUOT).
 * While there is $MAYFLY_FAULTS/hang, a sync of the journal waits. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
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

#define FAULTY(type, name, flag, error, params, args)                         \
    type name params {                                                        \
        static type(*real) params;                                            \
        if (!real) real = (type(*) params)dlsym(RTLD_NEXT, #name);            \
        hang(fd, flag);                                                       \
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
