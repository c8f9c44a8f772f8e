/* Stands before the C library and lets whoever opens the list of name servers wait while $SLOW_WHILE exists. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    const char *reason = getenv("SLOW_WHILE");
    while (reason != NULL && strcmp(path, "/etc/resolv.conf") == 0 && access(reason, F_OK) == 0)
        usleep(10000);
    int (*next)(const char *, int, ...) = dlsym(RTLD_NEXT, "open64");
    return next(path, flags, mode);
}
