/* Preloaded into a process and its children: every connection and every datagram to another machine fails, and is
   written to the file that TCE_TEST_CONNECTIONS names. Addresses of the loopback and local sockets are let through. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int outside(const struct sockaddr *address, const char *call) {
    char text[128] = "", line[192];
    if (address == NULL) return 0;
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)address;
        if ((ntohl(in->sin_addr.s_addr) >> 24) == 127) return 0;
        inet_ntop(AF_INET, &in->sin_addr, text, sizeof text);
    } else if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)address;
        if (IN6_IS_ADDR_LOOPBACK(&in->sin6_addr)) return 0;
        inet_ntop(AF_INET6, &in->sin6_addr, text, sizeof text);
    } else {
        return 0;
    }
    const char *path = getenv("TCE_TEST_CONNECTIONS");
    int file = path ? open(path, O_WRONLY | O_APPEND | O_CREAT, 0600) : -1;
    if (file >= 0) {
        int length = snprintf(line, sizeof line, "%s %s\n", call, text);
        if (write(file, line, length) < 0) {}
        close(file);
    }
    errno = ENETUNREACH;
    return 1;
}

int connect(int socket, const struct sockaddr *address, socklen_t length) {
    static int (*real)(int, const struct sockaddr *, socklen_t);
    if (!real) real = dlsym(RTLD_NEXT, "connect");
    return outside(address, "connect") ? -1 : real(socket, address, length);
}

ssize_t sendto(int socket, const void *data, size_t size, int flags, const struct sockaddr *address, socklen_t length) {
    static ssize_t (*real)(int, const void *, size_t, int, const struct sockaddr *, socklen_t);
    if (!real) real = dlsym(RTLD_NEXT, "sendto");
    return outside(address, "sendto") ? -1 : real(socket, data, size, flags, address, length);
}
