/* A disk that hangs: while the file $HUNG_DISK exists, no sync to disk returns. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

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
