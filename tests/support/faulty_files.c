// A full disk for a program and its children: with this library in LD_PRELOAD, the k-th call that changes files below a
// folder fails. Which calls count: opening to create or truncate, write, pwrite, writev, ftruncate, fallocate, fsync,
// fdatasync, close of a file that was written, rename, mkdir, sendfile and copy_file_range. glibc's own buffered writes
// (fwrite) cannot be seen from here; libstdc++ and Python call write.
//   FAULT_DIRECTORY  absolute path without links; calls on what is below it count
//   FAULT_COUNTER    a file of 8 zero bytes: the number of counted calls, shared by all processes
//   FAULT_AT         the k of the call that fails; 0 or absent: none, they are only counted
//   FAULT_ONCE       1: that call alone fails; else all from then on, and a first write is cut short as a full disk does
//   FAULT_ERRNO      28 (ENOSPC) if absent
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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

static char directory[PATH_MAX];
static _Atomic unsigned long long* counter;
static unsigned long long fault_at;
static int once, fault_errno = ENOSPC;

// Plain system calls: the functions of this library must not be called while it starts.
static int raw_open(const char* path, int flags) { return (int)syscall(SYS_openat, AT_FDCWD, path, flags, 0); }

__attribute__((constructor)) static void start(void) {
  const char* place = getenv("FAULT_DIRECTORY");
  const char* shared = getenv("FAULT_COUNTER");
  if (place == NULL || shared == NULL || strlen(place) >= sizeof directory) return;
  if (getenv("FAULT_AT") != NULL) fault_at = strtoull(getenv("FAULT_AT"), NULL, 10);
  if (getenv("FAULT_ERRNO") != NULL) fault_errno = atoi(getenv("FAULT_ERRNO"));
  once = getenv("FAULT_ONCE") != NULL && strcmp(getenv("FAULT_ONCE"), "1") == 0;
  const int descriptor = raw_open(shared, O_RDWR | O_CLOEXEC);
  if (descriptor < 0) return;
  void* map = mmap(NULL, sizeof *counter, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  syscall(SYS_close, descriptor);
  if (map == MAP_FAILED) return;
  counter = map;
  strcpy(directory, place);
}

static int below(const char* path) {
  const size_t n = strlen(directory);
  return n > 0 && strncmp(path, directory, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

static int descriptor_below(int descriptor) {
  if (counter == NULL) return 0;
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  const ssize_t n = readlink(link, path, sizeof path - 1);
  if (n <= 0) return 0;
  path[n] = '\0';
  return below(path);
}

// A path that may be relative to an open folder.
static int path_below(int at, const char* path) {
  if (counter == NULL || path == NULL) return 0;
  if (path[0] == '/') return below(path);
  char link[64], whole[2 * PATH_MAX];
  if (at == AT_FDCWD) {
    strcpy(link, "/proc/self/cwd");
  } else {
    snprintf(link, sizeof link, "/proc/self/fd/%d", at);
  }
  const ssize_t n = readlink(link, whole, PATH_MAX);
  if (n <= 0) return 0;
  snprintf(whole + n, sizeof whole - (size_t)n, "/%s", path);
  return below(whole);
}

// Counts a call. 0: it happens; 1: it is the first to fail; 2: a later one. errno is set.
static int fails(void) {
  const unsigned long long now = atomic_fetch_add(counter, 1) + 1;
  if (fault_at == 0 || now < fault_at || (once && now > fault_at)) return 0;
  errno = fault_errno;
  return now == fault_at ? 1 : 2;
}

#define REAL(name) \
  static __typeof__(name)* real; \
  if (real == NULL) real = (__typeof__(name)*)dlsym(RTLD_NEXT, #name)

static int may_create(int flags) { return (flags & (O_CREAT | O_TRUNC)) != 0; }

#define OPEN(name) \
  int name(const char* path, int flags, ...) { \
    REAL(name); \
    va_list rest; \
    va_start(rest, flags); \
    const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(rest, mode_t) : 0; \
    va_end(rest); \
    if (may_create(flags) && path_below(AT_FDCWD, path) && fails()) return -1; \
    return real(path, flags, mode); \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
  int name(int at, const char* path, int flags, ...) { \
    REAL(name); \
    va_list rest; \
    va_start(rest, flags); \
    const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(rest, mode_t) : 0; \
    va_end(rest); \
    if (may_create(flags) && path_below(at, path) && fails()) return -1; \
    return real(at, path, flags, mode); \
  }
OPENAT(openat)
OPENAT(openat64)

int creat(const char* path, mode_t mode) { return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

#define FOPEN(name) \
  FILE* name(const char* path, const char* mode) { \
    REAL(name); \
    if (strpbrk(mode, "wa+") != NULL && path_below(AT_FDCWD, path) && fails()) return NULL; \
    return real(path, mode); \
  }
FOPEN(fopen)
FOPEN(fopen64)

// The bytes that a failing write still takes: half of them where the disk fills up under it.
static size_t cut(int failed, size_t count) { return failed == 1 && !once ? count / 2 : 0; }

ssize_t write(int descriptor, const void* bytes, size_t count) {
  REAL(write);
  const int failed = descriptor_below(descriptor) ? fails() : 0;
  if (failed && cut(failed, count) == 0) return -1;
  return real(descriptor, bytes, failed ? cut(failed, count) : count);
}

#define PWRITE(name, offset_type) \
  ssize_t name(int descriptor, const void* bytes, size_t count, offset_type offset) { \
    REAL(name); \
    const int failed = descriptor_below(descriptor) ? fails() : 0; \
    if (failed && cut(failed, count) == 0) return -1; \
    return real(descriptor, bytes, failed ? cut(failed, count) : count, offset); \
  }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t writev(int descriptor, const struct iovec* pieces, int count) {
  REAL(writev);
  if (descriptor_below(descriptor) && fails()) return -1;
  return real(descriptor, pieces, count);
}

#define ON_DESCRIPTOR(type, name, parameters, arguments, descriptor) \
  type name parameters { \
    REAL(name); \
    if (descriptor_below(descriptor) && fails()) return -1; \
    return real arguments; \
  }
ON_DESCRIPTOR(ssize_t, pwritev, (int d, const struct iovec* p, int n, off_t o), (d, p, n, o), d)
ON_DESCRIPTOR(int, ftruncate, (int d, off_t n), (d, n), d)
ON_DESCRIPTOR(int, ftruncate64, (int d, off64_t n), (d, n), d)
ON_DESCRIPTOR(int, fallocate, (int d, int mode, off_t o, off_t n), (d, mode, o, n), d)
ON_DESCRIPTOR(int, fsync, (int d), (d), d)
ON_DESCRIPTOR(int, fdatasync, (int d), (d), d)
ON_DESCRIPTOR(ssize_t, sendfile, (int out, int in, off_t* o, size_t n), (out, in, o, n), out)
ON_DESCRIPTOR(ssize_t, sendfile64, (int out, int in, off64_t* o, size_t n), (out, in, o, n), out)
ON_DESCRIPTOR(ssize_t, copy_file_range, (int in, off64_t* i, int out, off64_t* o, size_t n, unsigned f), (in, i, out, o, n, f), out)

// The file is closed all the same, as Linux does.
int close(int descriptor) {
  REAL(close);
  const int flags = counter == NULL ? -1 : fcntl(descriptor, F_GETFL);
  const int written = flags >= 0 && (flags & O_ACCMODE) != O_RDONLY;
  const int failed = written && descriptor_below(descriptor) ? fails() : 0;
  const int result = real(descriptor);
  if (failed) errno = fault_errno;
  return failed ? -1 : result;
}

int rename(const char* from, const char* to) {
  REAL(rename);
  if (path_below(AT_FDCWD, to) && fails()) return -1;
  return real(from, to);
}
int renameat(int from_at, const char* from, int to_at, const char* to) {
  REAL(renameat);
  if (path_below(to_at, to) && fails()) return -1;
  return real(from_at, from, to_at, to);
}
int renameat2(int from_at, const char* from, int to_at, const char* to, unsigned flags) {
  REAL(renameat2);
  if (path_below(to_at, to) && fails()) return -1;
  return real(from_at, from, to_at, to, flags);
}
int mkdir(const char* path, mode_t mode) {
  REAL(mkdir);
  if (path_below(AT_FDCWD, path) && fails()) return -1;
  return real(path, mode);
}
int mkdirat(int at, const char* path, mode_t mode) {
  REAL(mkdirat);
  if (path_below(at, path) && fails()) return -1;
  return real(at, path, mode);
}
