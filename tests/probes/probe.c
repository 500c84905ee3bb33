/* What a hostile guest would try, as one static program. Built by the harness with `gcc -static -no-pie`, so that
 * addresses fit the 32 bits of the i386 call gate.
 *
 *   probe call            reads lines "ABI NR A0 A1 A2 A3 A4 A5" (ABI: x86_64, x32, i386), prints "ABI NR ERRNO" each
 *   probe userns-owner P  prints the owner uid of the user namespace that the file P stands for
 *   probe inotify         takes inotify instances until refused, prints how many, and keeps them until stdin ends
 *   probe open PATH...    prints "PATH ERRNO" for opening each for reading
 *   probe fds             prints what each of its own descriptors is
 *   probe bind ADDR       sends one UDP datagram to argv[3] from the source address ADDR, bound with IP_FREEBIND
 *   probe resolve NAME... prints "NAME RESULT" of getaddrinfo(3) with AI_ADDRCONFIG: 0, or why not
 *   probe rings BYTES [n] opens packet sockets with a ring of this size until refused (n: each in a new network namespace,
 *                         in turns with a fanout group of the largest table), prints how many and the last error, and keeps
 *                         them until stdin ends
 *   probe captures N      makes a ring as libpcap does and gives it back, N times; prints how often that was refused
 *   probe sleep           waits for a signal
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/nsfs.h>
#include <netdb.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static long call64(long nr, const long *a) {
    long r;
    register long r10 __asm__("r10") = a[3];
    register long r8 __asm__("r8") = a[4];
    register long r9 __asm__("r9") = a[5];
    __asm__ volatile("syscall"
                     : "=a"(r)
                     : "a"(nr), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return r;
}

/* int 0x80: five arguments are enough for every row of the table (the sixth would need the frame pointer). */
static long call32(long nr, const long *a) {
    int r;
    __asm__ volatile("int $0x80"
                     : "=a"(r)
                     : "a"((int)nr), "b"((int)a[0]), "c"((int)a[1]), "d"((int)a[2]), "S"((int)a[3]), "D"((int)a[4])
                     : "r8", "r9", "r10", "r11", "memory");
    return r;
}

static int calls(void) {
    char line[256], abi[16];
    long nr, a[6];
    pid_t self = getpid();
    while (fgets(line, sizeof line, stdin)) {
        memset(a, 0, sizeof a);
        if (sscanf(line, "%15s %li %li %li %li %li %li %li", abi, &nr, a, a + 1, a + 2, a + 3, a + 4, a + 5) < 2)
            return 2;
        long r = 0;
        if (!strcmp(abi, "x86_64"))
            r = call64(nr, a);
        else if (!strcmp(abi, "x32"))
            r = call64(nr | 0x40000000, a);
        else if (!strcmp(abi, "i386"))
            r = call32(nr, a);
        else
            return 2;
        if (getpid() != self)
            _exit(0); /* a clone that should have been refused */
        printf("%s %ld %ld\n", abi, nr, r < 0 ? -r : 0);
        fflush(stdout);
    }
    return 0;
}

static int owner(const char *path) {
    uid_t uid = (uid_t)-1;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, NS_GET_OWNER_UID, &uid) < 0) {
        perror(path);
        return 1;
    }
    printf("%u\n", uid);
    return 0;
}

static int instances(void) {
    int n = 0;
    char c;
    while (n < 100000 && inotify_init1(IN_CLOEXEC) >= 0)
        n++;
    printf("%d %d\n", n, errno);
    fflush(stdout);
    while (read(0, &c, 1) > 0)
        ;
    return 0;
}

static int opens(char **paths) {
    for (; *paths; paths++) {
        int fd = open(*paths, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        printf("%s %d\n", *paths, fd < 0 ? errno : 0);
        if (fd >= 0)
            close(fd);
    }
    return 0;
}

static int descriptors(void) {
    DIR *d = opendir("/proc/self/fd");
    struct dirent *e;
    char path[64], target[4096];
    while (d && (e = readdir(d))) {
        if (e->d_name[0] == '.' || atoi(e->d_name) == dirfd(d))
            continue;
        snprintf(path, sizeof path, "/proc/self/fd/%.20s", e->d_name);
        ssize_t n = readlink(path, target, sizeof target - 1);
        target[n < 0 ? 0 : n] = 0;
        printf("%s %s\n", e->d_name, target);
    }
    return d ? 0 : 1;
}

static int send_from(const char *source, const char *target) {
    int one = 1, v6 = strchr(source, ':') != NULL;
    int fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in s4 = {.sin_family = AF_INET}, t4 = {.sin_family = AF_INET, .sin_port = htons(9)};
    struct sockaddr_in6 s6 = {.sin6_family = AF_INET6}, t6 = {.sin6_family = AF_INET6, .sin6_port = htons(9)};
    int bad = v6 ? inet_pton(AF_INET6, source, &s6.sin6_addr) != 1 || inet_pton(AF_INET6, target, &t6.sin6_addr) != 1
                 : inet_pton(AF_INET, source, &s4.sin_addr) != 1 || inet_pton(AF_INET, target, &t4.sin_addr) != 1;
    if (fd < 0 || bad)
        return 2;
    setsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_FREEBIND : IP_FREEBIND, &one, sizeof one);
    int r = v6 ? bind(fd, (void *)&s6, sizeof s6) : bind(fd, (void *)&s4, sizeof s4);
    if (r < 0) {
        perror("bind");
        return 1;
    }
    r = v6 ? sendto(fd, "spoof", 5, 0, (void *)&t6, sizeof t6) : sendto(fd, "spoof", 5, 0, (void *)&t4, sizeof t4);
    if (r < 0) {
        perror("sendto");
        return 1;
    }
    return 0;
}

static int resolve(char **names) {
    struct addrinfo hints = {.ai_flags = AI_ADDRCONFIG, .ai_socktype = SOCK_STREAM}, *found;
    for (; *names; names++) {
        int r = getaddrinfo(*names, "10023", &hints, &found);
        printf("%s %s\n", *names, r ? gai_strerror(r) : "0");
        if (!r)
            freeaddrinfo(found);
    }
    return 0;
}

static int ring(int fd, int option, unsigned block, unsigned blocks) {
    int version = option == PACKET_RX_RING ? TPACKET_V3 : TPACKET_V2;
    struct tpacket_req3 req = {.tp_block_size = block, .tp_block_nr = blocks, .tp_frame_size = 2048};
    req.tp_frame_nr = blocks * (block / 2048);
    setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version, sizeof version);
    return setsockopt(fd, SOL_PACKET, option, &req, version == TPACKET_V3 ? sizeof req : sizeof(struct tpacket_req));
}

static int rings(unsigned bytes, int apart) {
    int n = 0, fd, tries = 0, failed = 0;
    struct fanout_args group = {.type_flags = PACKET_FANOUT_HASH};
    char c;
    /* A refusal may be of one moment: it counts when nothing else works either. */
    while (tries < 20000 && failed < 5) {
        tries++;
        if (apart && tries <= 40 && unshare(CLONE_NEWNET) < 0)
            return perror("unshare"), 1;
        fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
        if (fd < 0)
            return perror("socket"), 1;
        int r;
        if (apart && tries % 3 == 0) {
            struct sockaddr_ll lo = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = 1};
            if (bind(fd, (void *)&lo, sizeof lo) < 0)
                return perror("bind"), 1;
            group.id = tries;
            group.max_num_members = 65536;
            r = setsockopt(fd, SOL_PACKET, PACKET_FANOUT, &group, sizeof group);
        } else
            r = ring(fd, tries % 2 ? PACKET_RX_RING : PACKET_TX_RING, 4096, bytes / 4096);
        if (r < 0)
            failed++, close(fd);
        else
            n++;
    }
    printf("%d %d\n", n, errno);
    fflush(stdout);
    while (read(0, &c, 1) > 0)
        ;
    return 0;
}

static int captures(int n) {
    int refused = 0;
    while (n--) {
        int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
        if (fd < 0)
            return perror("socket"), 1;
        if (ring(fd, PACKET_RX_RING, 262144, 8) < 0)
            refused++;
        poll(NULL, 0, 30); /* what a capture takes at the least */
        close(fd);
    }
    printf("%d\n", refused);
    return 0;
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "call"))
        return calls();
    if (!strcmp(what, "userns-owner") && argc == 3)
        return owner(argv[2]);
    if (!strcmp(what, "inotify"))
        return instances();
    if (!strcmp(what, "open"))
        return opens(argv + 2);
    if (!strcmp(what, "fds"))
        return descriptors();
    if (!strcmp(what, "bind") && argc == 4)
        return send_from(argv[2], argv[3]);
    if (!strcmp(what, "resolve"))
        return resolve(argv + 2);
    if (!strcmp(what, "rings") && argc >= 3)
        return rings(atoi(argv[2]), argc > 3);
    if (!strcmp(what, "captures") && argc == 3)
        return captures(atoi(argv[2]));
    if (!strcmp(what, "sleep"))
        return pause();
    fprintf(stderr, "probe: see the comment at the top of probe.c\n");
    return 2;
}
