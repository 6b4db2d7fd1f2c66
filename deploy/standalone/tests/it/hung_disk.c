/* A disk that hangs: while the file $HUNG_DISK exists, no sync to disk returns.
   A disk that is full: while the file $FULL_DISK exists, no write to the database's files succeeds. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is_full(int file) {
    const char *full = getenv("FULL_DISK");
    char link[64], path[4096];
    if (!full || access(full, F_OK) != 0) {
        return 0;
    }
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) {
        return 0;
    }
    path[length] = 0;
    return strstr(path, "/parley.db") != NULL;
}

ssize_t write(int file, const void *data, size_t size) {
    ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    if (is_full(file)) {
        errno = ENOSPC;
        return -1;
    }
    return real(file, data, size);
}

ssize_t pwrite64(int file, const void *data, size_t size, off64_t at) {
    ssize_t (*real)(int, const void *, size_t, off64_t) = dlsym(RTLD_NEXT, "pwrite64");
    if (is_full(file)) {
        errno = ENOSPC;
        return -1;
    }
    return real(file, data, size, at);
}

ssize_t pwrite(int file, const void *data, size_t size, off_t at) {
    return pwrite64(file, data, size, at);
}

static void wait_for_disk(void) {
    const char *hung = getenv("HUNG_DISK");
    while (hung && access(hung, F_OK) == 0) {
        usleep(10000);
    }
}

int fsync(int file) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    wait_for_disk();
    return real(file);
}

int fdatasync(int file) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    wait_for_disk();
    return real(file);
}
