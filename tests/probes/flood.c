/* What a container does to its limits, and what its neighbour notices of it, as one static program.
 *
 *   flood beat SECONDS FILE PORT   once a second: fork and exec, write and fsync, TCP echo through the loopback; adds a
 *                                  line "FORK WRITE ECHO LATE" in milliseconds to FILE, LATE being how much later than
 *                                  a second after the last this beat was done
 *   flood memory MB SECONDS        takes memory and goes on touching all of it; says how much it got in that time, and
 *                                  exits with 3 where that is not all
 *   flood hold MB SECONDS          takes memory, says so, and leaves it alone
 *   flood KIND MOST SECONDS        takes one more until refused or MOST, prints "TAKEN ERRNO", and keeps them for
 *                                  SECONDS: tcp, udp, unix, pty, file, signals (queued to itself), lock (KiB of mlock)
 *   flood listen PORT              accepts TCP connections and keeps each until its other side ends it
 *   flood nothing
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void wait_ms(long ms) {
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    while (ms > 0 && nanosleep(&t, &t) && errno == EINTR)
        ;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int listener(int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    int s = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    if (s < 0)
        fail("socket");
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(s, (struct sockaddr *)&a, sizeof a) || listen(s, 64))
        fail("listen");
    return s;
}

static int listening(int port) {
    struct pollfd p[512] = {{.fd = listener(port), .events = POLLIN}};
    nfds_t n = 1;
    char c;
    for (;;) {
        if (poll(p, n, -1) < 0)
            return 1;
        for (nfds_t i = n - 1; i > 0; i--)
            if (p[i].revents && read(p[i].fd, &c, 1) <= 0) {
                close(p[i].fd);
                p[i] = p[--n];
            }
        if (p[0].revents && n < 512) {
            int got = accept(p[0].fd, NULL, NULL);
            if (got >= 0)
                p[n++] = (struct pollfd){.fd = got, .events = POLLIN};
        }
    }
}

static void echoing(int s) {
    char text[64];
    for (;;) {
        int c = accept(s, NULL, NULL);
        if (c < 0)
            continue;
        ssize_t n = read(c, text, sizeof text);
        if (n > 0 && write(c, text, (size_t)n) != n)
            perror("echo");
        close(c);
    }
}

static void echo(int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    char text[8];
    int s = socket(AF_INET, SOCK_STREAM, 0);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (s < 0 || connect(s, (struct sockaddr *)&a, sizeof a) || write(s, "beat", 4) != 4 || read(s, text, 8) != 4)
        fail("tcp");
    close(s);
}

static int beat(const char *self, int seconds, const char *file, int port) {
    char data[256];
    int s = listener(port), log, d;
    if (fork() == 0)
        echoing(s);
    snprintf(data, sizeof data, "%s.data", file);
    log = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    d = open(data, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (log < 0 || d < 0)
        fail(file);
    long last = now_ms();
    for (int i = 0; i < seconds; i++) {
        wait_ms(last + 1000 - now_ms());
        long t0 = now_ms();
        pid_t child = fork();
        if (child == 0) {
            execl(self, self, "nothing", (char *)NULL);
            _exit(1);
        }
        int status = 1;
        if (child < 0 || waitpid(child, &status, 0) != child || status)
            fail("fork");
        long t1 = now_ms();
        if (pwrite(d, &t1, sizeof t1, (i % 1024) * 4096L) != sizeof t1 || fsync(d))
            fail("fsync");
        long t2 = now_ms();
        echo(port);
        long t3 = now_ms();
        dprintf(log, "%ld %ld %ld %ld\n", t1 - t0, t2 - t1, t3 - t2, t3 - last - 1000);
        last = last + 1000 > t3 - 1000 ? last + 1000 : t3;
    }
    kill(0, SIGTERM);
    return 0;
}

static int memory(size_t mb, int seconds, int hold) {
    size_t size = mb << 20;
    char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        fail("mmap");
    long end = now_ms() + seconds * 1000L;
    size_t most = 0;
    unsigned seed = 1;
    do {
        for (size_t at = 0; at < size && now_ms() < end; at += 4096) {
            seed = seed * 1103515245 + 12345;
            /* Pages that compress to nothing are no memory to zswap. */
            for (int i = 0; i < 4096; i += 64)
                *(unsigned *)(p + at + i) = seed += 77777;
            most = at + 4096 > most ? at + 4096 : most;
        }
        if (hold) {
            printf("held\n");
            fflush(stdout);
            wait_ms(end - now_ms());
        }
    } while (now_ms() < end);
    printf("%zu MB\n", most >> 20);
    return most < size ? 3 : 0;
}

static int one(const char *kind, long n, void **lock) {
    static int first = 1;
    if (!strcmp(kind, "tcp"))
        return socket(AF_INET, SOCK_STREAM, 0);
    if (!strcmp(kind, "udp"))
        return socket(AF_INET, SOCK_DGRAM, 0);
    if (!strcmp(kind, "unix"))
        return socket(AF_UNIX, SOCK_STREAM, 0);
    if (!strcmp(kind, "pty"))
        return open("/dev/ptmx", O_RDWR | O_NOCTTY);
    if (!strcmp(kind, "file"))
        return open("/dev/null", O_RDONLY);
    if (!strcmp(kind, "lock"))
        return *lock == MAP_FAILED ? -1 : mlock((char *)*lock + n * 4096, 4096);
    if (!strcmp(kind, "signals")) {
        union sigval v = {0};
        sigset_t set;
        sigfillset(&set);
        if (first)
            sigprocmask(SIG_BLOCK, &set, NULL);
        first = 0;
        return sigqueue(getpid(), SIGRTMIN + 1, v);
    }
    errno = EINVAL;
    return -1;
}

static int flood(const char *kind, long most, int seconds) {
    struct rlimit files = {1 << 20, 1 << 20};
    void *lock = MAP_FAILED;
    long n = 0, step = !strcmp(kind, "lock") ? 4 : 1;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    if (step == 4)
        lock = mmap(NULL, (size_t)most * 1024, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    errno = 0;
    while (n * step < most && one(kind, n, &lock) >= 0)
        n++;
    printf("%ld %d\n", n * step, n * step < most ? errno : 0);
    fflush(stdout);
    close(1);
    wait_ms(seconds * 1000L);
    return 0;
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "nothing"))
        return 0;
    if (!strcmp(what, "beat") && argc == 5) {
        setpgid(0, 0);
        return beat(argv[0], atoi(argv[2]), argv[3], atoi(argv[4]));
    }
    if ((!strcmp(what, "memory") || !strcmp(what, "hold")) && argc == 4)
        return memory((size_t)atol(argv[2]), atoi(argv[3]), *what == 'h');
    if (!strcmp(what, "listen") && argc == 3)
        return listening(atoi(argv[2]));
    if (argc == 4)
        return flood(what, atol(argv[2]), atoi(argv[3]));
    fprintf(stderr, "flood: what?\n");
    return 2;
}
