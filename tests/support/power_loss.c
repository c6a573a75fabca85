// Power that fails: with this library in LD_PRELOAD, a program and its children write down what they do to files below
// a folder, and the n-th of these calls ends them all by SIGKILL before it happens. From the log a test then undoes what
// a disk may forget (tests/support/power_loss.h). glibc's own buffered writes (fwrite) cannot be seen from here.
//   POWER_DIRECTORY  absolute path without links; calls on what is below it count
//   POWER_COUNTER    a file of 8 zero bytes: the number of counted calls, shared by all processes
//   POWER_LOG        a line for each call: C path (made), W path (written), S path (fsynced), R number from TAB to
//   POWER_SAVED      a folder on the same disk: what a rename replaced is linked there under its number
//   POWER_AT         the n of the call that does not happen; 0: none
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static char directory[PATH_MAX], saved[PATH_MAX];
static _Atomic unsigned long long* counter;
static unsigned long long power_at;
static int log_descriptor = -1;

// Plain system calls: the functions of this library must not be called from within.
static int raw_open(const char* path, int flags) { return (int)syscall(SYS_openat, AT_FDCWD, path, flags, 0644); }

__attribute__((constructor)) static void start(void) {
  const char* place = getenv("POWER_DIRECTORY");
  const char* shared = getenv("POWER_COUNTER");
  const char* log = getenv("POWER_LOG");
  const char* keep = getenv("POWER_SAVED");
  if (place == NULL || shared == NULL || log == NULL || keep == NULL) return;
  if (getenv("POWER_AT") != NULL) power_at = strtoull(getenv("POWER_AT"), NULL, 10);
  const int descriptor = raw_open(shared, O_RDWR | O_CLOEXEC);
  log_descriptor = raw_open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC);
  if (descriptor < 0 || log_descriptor < 0) return;
  void* map = mmap(NULL, sizeof *counter, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  syscall(SYS_close, descriptor);
  if (map == MAP_FAILED) return;
  snprintf(saved, sizeof saved, "%s", keep);
  snprintf(directory, sizeof directory, "%s", place);
  counter = map;
}

static int below(const char* path) {
  const size_t n = strlen(directory);
  return counter != NULL && strncmp(path, directory, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

// The path of an open file in `whole`; whether it is below the folder.
static int descriptor_below(int descriptor, char* whole) {
  if (counter == NULL) return 0;
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  const ssize_t n = readlink(link, whole, PATH_MAX - 1);
  if (n <= 0) return 0;
  whole[n] = '\0';
  return below(whole);
}

// The same of a path that may be relative to an open folder; "." and ".." are left in it.
static int path_below(int at, const char* path, char* whole) {
  if (counter == NULL || path == NULL) return 0;
  if (path[0] == '/') {
    snprintf(whole, PATH_MAX, "%s", path);
    return below(whole);
  }
  char link[64];
  if (at == AT_FDCWD) {
    strcpy(link, "/proc/self/cwd");
  } else {
    snprintf(link, sizeof link, "/proc/self/fd/%d", at);
  }
  const ssize_t n = readlink(link, whole, PATH_MAX / 2);
  if (n <= 0) return 0;
  snprintf(whole + n, (size_t)(PATH_MAX - n), "/%s", path);
  return below(whole);
}

static unsigned long long count(void) {
  const unsigned long long now = atomic_fetch_add(counter, 1) + 1;
  if (now == power_at) {
    kill(0, SIGKILL);
    for (;;) pause();
  }
  return now;
}

static void note(char kind, const char* text) {
  char line[2 * PATH_MAX + 64];
  const int n = snprintf(line, sizeof line, "%c %s\n", kind, text);
  syscall(SYS_write, log_descriptor, line, (size_t)n);
}

#define REAL(name) \
  static __typeof__(name)* real; \
  if (real == NULL) real = (__typeof__(name)*)dlsym(RTLD_NEXT, #name)

static void opening(int at, const char* path, int flags) {
  char whole[PATH_MAX];
  if ((flags & (O_CREAT | O_TRUNC)) == 0 || !path_below(at, path, whole)) return;
  count();
  struct stat s;
  if (syscall(SYS_newfstatat, AT_FDCWD, whole, &s, 0) != 0) {
    note('C', whole);
  } else if ((flags & O_TRUNC) != 0) {
    note('W', whole);
  }
}

#define MODE(flags, mode) \
  va_list rest; \
  va_start(rest, flags); \
  const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(rest, mode_t) : 0; \
  va_end(rest)

#define OPEN(name) \
  int name(const char* path, int flags, ...) { \
    REAL(name); \
    MODE(flags, mode); \
    opening(AT_FDCWD, path, flags); \
    return real(path, flags, mode); \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
  int name(int at, const char* path, int flags, ...) { \
    REAL(name); \
    MODE(flags, mode); \
    opening(at, path, flags); \
    return real(at, path, flags, mode); \
  }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name) \
  FILE* name(const char* path, const char* mode) { \
    REAL(name); \
    if (strpbrk(mode, "wa+") != NULL) opening(AT_FDCWD, path, mode[0] == 'w' ? O_CREAT | O_TRUNC : O_CREAT); \
    return real(path, mode); \
  }
FOPEN(fopen)
FOPEN(fopen64)

static void writing(int descriptor) {
  char whole[PATH_MAX];
  if (descriptor_below(descriptor, whole)) {
    count();
    note('W', whole);
  }
}

#define WRITES(type, name, parameters, arguments) \
  type name parameters { \
    REAL(name); \
    writing(d); \
    return real arguments; \
  }
WRITES(ssize_t, write, (int d, const void* b, size_t n), (d, b, n))
WRITES(ssize_t, pwrite, (int d, const void* b, size_t n, off_t o), (d, b, n, o))
WRITES(ssize_t, pwrite64, (int d, const void* b, size_t n, off64_t o), (d, b, n, o))
WRITES(ssize_t, writev, (int d, const struct iovec* p, int n), (d, p, n))
WRITES(ssize_t, pwritev, (int d, const struct iovec* p, int n, off_t o), (d, p, n, o))
WRITES(int, ftruncate, (int d, off_t n), (d, n))
WRITES(int, ftruncate64, (int d, off64_t n), (d, n))
WRITES(int, fallocate, (int d, int mode, off_t o, off_t n), (d, mode, o, n))

// What was fsynced is durable from the moment the call returns.
#define SYNCS(name) \
  int name(int d) { \
    REAL(name); \
    char whole[PATH_MAX]; \
    const int counted = descriptor_below(d, whole); \
    if (counted) count(); \
    const int result = real(d); \
    if (counted && result == 0) note('S', whole); \
    return result; \
  }
SYNCS(fsync)
SYNCS(fdatasync)

static void renaming(int from_at, const char* from, int to_at, const char* to) {
  char source[PATH_MAX], target[PATH_MAX], text[2 * PATH_MAX + 32], keep[PATH_MAX + 32];
  if (!path_below(to_at, to, target) || !path_below(from_at, from, source)) return;
  const unsigned long long number = count();
  snprintf(keep, sizeof keep, "%s/%llu", saved, number);
  syscall(SYS_linkat, AT_FDCWD, target, AT_FDCWD, keep, 0);
  snprintf(text, sizeof text, "%llu %s\t%s", number, source, target);
  note('R', text);
}

int rename(const char* from, const char* to) {
  REAL(rename);
  renaming(AT_FDCWD, from, AT_FDCWD, to);
  return real(from, to);
}
int renameat(int from_at, const char* from, int to_at, const char* to) {
  REAL(renameat);
  renaming(from_at, from, to_at, to);
  return real(from_at, from, to_at, to);
}
int renameat2(int from_at, const char* from, int to_at, const char* to, unsigned flags) {
  REAL(renameat2);
  renaming(from_at, from, to_at, to);
  return real(from_at, from, to_at, to, flags);
}

static void making(int at, const char* path) {
  char whole[PATH_MAX];
  struct stat s;
  if (!path_below(at, path, whole)) return;
  count();
  if (syscall(SYS_newfstatat, AT_FDCWD, whole, &s, 0) != 0) note('C', whole);
}
int mkdir(const char* path, mode_t mode) {
  REAL(mkdir);
  making(AT_FDCWD, path);
  return real(path, mode);
}
int mkdirat(int at, const char* path, mode_t mode) {
  REAL(mkdirat);
  making(at, path);
  return real(at, path, mode);
}
