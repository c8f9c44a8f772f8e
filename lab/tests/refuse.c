/* Stands before the C library and refuses one kernel feature, as kernels and devices that lack it do. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define UDP_SEGMENT 103
#define UDP_GRO 104
#define TUNSETOFFLOAD 0x400454d0
#define TUN_F_USO (0x20 | 0x40)

static int refuses(const char *feature) {
    const char *refused = getenv("REFUSED_FEATURE");
    return refused != NULL && strcmp(refused, feature) == 0;
}

static int refuse(int error) {
    errno = error;
    return -1;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    struct msghdr *own = (struct msghdr *)message;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(own); part != NULL; part = CMSG_NXTHDR(own, part)) {
        /* What the kernel says of a device without checksum offload. */
        if (part->cmsg_level == IPPROTO_UDP && part->cmsg_type == UDP_SEGMENT && refuses("segmentation"))
            return refuse(EIO);
        /* What a kernel says that does not know the option. */
        if (part->cmsg_level == IPPROTO_UDP && part->cmsg_type == UDP_SEGMENT && refuses("segmentation-unknown"))
            return refuse(EINVAL);
    }
    ssize_t (*next)(int, const struct msghdr *, int) = dlsym(RTLD_NEXT, "sendmsg");
    return next(fd, message, flags);
}

int setsockopt(int fd, int level, int option, const void *value, socklen_t length) {
    if (level == IPPROTO_UDP && option == UDP_GRO && refuses("coalescing"))
        return refuse(ENOPROTOOPT);
    int (*next)(int, int, int, const void *, socklen_t) = dlsym(RTLD_NEXT, "setsockopt");
    return next(fd, level, option, value, length);
}

int ioctl(int fd, unsigned long request, ...) {
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    if (request == TUNSETOFFLOAD && ((unsigned long)argument & TUN_F_USO) != 0 && refuses("tun-segmentation"))
        return refuse(EINVAL);
    int (*next)(int, unsigned long, void *) = dlsym(RTLD_NEXT, "ioctl");
    return next(fd, request, argument);
}
