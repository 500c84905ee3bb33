/* A heartbeat: every PERIOD milliseconds a number and the time, as a line of FILE and as a datagram to ADDRESS:PORT.
   Called with FILE ADDRESS PORT ID PERIOD. Ends when either cannot be written. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc != 6)
		return 2;
	int file = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	int net = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[3]))};
	long period = atol(argv[5]) * 1000000;
	struct timespec next;
	if (file < 0 || net < 0 || inet_pton(AF_INET, argv[2], &to.sin_addr) != 1 || period <= 0)
		return 2;
	clock_gettime(CLOCK_MONOTONIC, &next);
	for (uint64_t n = 0;; n++) {
		struct timespec now;
		char line[96];
		clock_gettime(CLOCK_MONOTONIC, &now);
		int size = snprintf(line, sizeof(line), "%s %llu %llu\n", argv[4], (unsigned long long)n,
				    now.tv_sec * 1000000ull + now.tv_nsec / 1000);
		if (write(file, line, size) != size)
			return 3;
		if (sendto(net, line, size, 0, (struct sockaddr *)&to, sizeof(to)) != size)
			return 4;
		/* A beat that came late is not made up for: the gap is what is looked for. */
		clock_gettime(CLOCK_MONOTONIC, &now);
		do {
			next.tv_nsec += period;
			next.tv_sec += next.tv_nsec / 1000000000;
			next.tv_nsec %= 1000000000;
		} while (next.tv_sec < now.tv_sec || (next.tv_sec == now.tv_sec && next.tv_nsec <= now.tv_nsec));
		while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, 0) == EINTR)
			;
	}
}
