// The clock of one process: the machine's, set by as many seconds as the file CLOCK_SET_BY says.
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long long set_by(void) {
  const char *path = getenv("CLOCK_SET_BY");
  FILE *file = path ? fopen(path, "re") : NULL;
  long long seconds = 0;
  if (file && fscanf(file, "%lld", &seconds) != 1)
    seconds = 0;
  if (file)
    fclose(file);
  return seconds;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
  int status = (int)syscall(SYS_clock_gettime, clock, at);
  if (status == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
    at->tv_sec += set_by();
  return status;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
  int status = (int)syscall(SYS_gettimeofday, at, zone);
  if (status == 0)
    at->tv_sec += set_by();
  return status;
}

time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at)
    *at = now.tv_sec;
  return now.tv_sec;
}
