/* A disk that fails once, on purpose: preloaded before the C library, it counts what is done to files and folders
 * under a prefix, and at the N-th such operation kills the process or returns an error.
 *
 *     gcc -shared -fPIC -O1 -o faulty_disk.so faulty_disk.c -ldl
 *     FAULTY_PREFIX=/runs/a FAULTY_LOG=/tmp/operations LD_PRELOAD=./faulty_disk.so python ...
 *     FAULTY_PREFIX=/runs/a FAULTY_AT=17 FAULTY_MODE=enospc LD_PRELOAD=./faulty_disk.so python ...
 *
 * FAULTY_PREFIX  Only paths in this folder whose first part below it speaks of a checkpoint, an adapter or "latest".
 * FAULTY_AT      Number of the operation that fails, from 1; without it nothing fails.
 * FAULTY_MODE    kill    SIGKILL instead of the operation
 *                eio     the operation fails with EIO, once
 *                enospc  it fails with ENOSPC, and so does everything afterwards that needs room
 *                short   a write takes half of its bytes, once
 * FAULTY_LOG     Every operation is appended: "number kind path".
 *
 * The variables are read when they are needed, for a process that is forked later sets them by itself. They hold for
 * the process that has them in its environment with FAULTY_RANK equal to RANK, or with no FAULTY_RANK.
 * Counted: open and creat for writing, write, pwrite, writev, ftruncate, fsync, fdatasync, rename, mkdir, unlink,
 * rmdir, and sendfile and copy_file_range into a file, with their variants. Writes through a memory map are not seen.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PASS, FAIL, SHORT };

static int counter;
static int full;  /* whether the disk has become full */
static __thread int inside;

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name) {
    return dlsym(RTLD_NEXT, name);
}

static int is_watched(const char *path) {
    const char *prefix = getenv("FAULTY_PREFIX");
    size_t length = prefix ? strlen(prefix) : 0;
    if (!length || strncmp(path, prefix, length) || path[length] != '/')
        return 0;
    char part[NAME_MAX + 1] = "";
    sscanf(path + length + 1, "%255[^/]", part);
    return strstr(part, "checkpoint") || strstr(part, "adapter") || strstr(part, "latest");
}

static int is_meant(void) {
    const char *wanted = getenv("FAULTY_RANK"), *own = getenv("RANK");
    return !wanted || (own && !strcmp(wanted, own));
}

static void note(const char *kind, const char *path) {
    const char *log = getenv("FAULTY_LOG");
    char line[PATH_MAX + 64];
    if (!log)
        return;
    int file = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND, 0644);
    int length = snprintf(line, sizeof line, "%d %s %s\n", counter, kind, path);
    if (syscall(SYS_write, file, line, length) < 0)
        _exit(99);
    syscall(SYS_close, file);
}

/* Count one operation on a path; what is to happen to it. errno is set where it fails. */
static int judge(const char *kind, const char *path, int needs_room, int can_be_short) {
    if (inside || !is_watched(path) || !is_meant())
        return PASS;
    int kept = errno;
    inside = 1;
    int number = __sync_add_and_fetch(&counter, 1);
    note(kind, path);
    const char *at = getenv("FAULTY_AT"), *mode = getenv("FAULTY_MODE");
    int verdict = PASS, wanted = at && mode && atoi(at) == number;
    if (wanted && !strcmp(mode, "kill")) {
        kill(getpid(), SIGKILL);
    } else if (wanted && !strcmp(mode, "eio")) {
        verdict = FAIL;
        kept = EIO;
    } else if (wanted && !strcmp(mode, "short") && can_be_short) {
        verdict = SHORT;
    } else if (mode && !strcmp(mode, "enospc") && (wanted || (full && needs_room))) {
        full = 1;
        verdict = FAIL;
        kept = ENOSPC;
    }
    inside = 0;
    errno = kept;
    return verdict;
}

static int judge_file(const char *kind, int file, int needs_room, int can_be_short) {
    char link[64], path[PATH_MAX];
    if (inside || !getenv("FAULTY_PREFIX"))
        return PASS;
    int kept = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = kept;
    if (length < 0)
        return PASS;
    path[length] = 0;
    return judge(kind, path, needs_room, can_be_short);
}

static int judge_at(const char *kind, int folder, const char *name, int needs_room) {
    char link[64], path[2 * PATH_MAX];
    if (inside || !getenv("FAULTY_PREFIX"))
        return PASS;
    if (name[0] == '/')
        return judge(kind, name, needs_room, 0);
    int kept = errno;
    snprintf(link, sizeof link, folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", folder);
    ssize_t length = readlink(link, path, PATH_MAX);
    errno = kept;
    if (length < 0)
        return PASS;
    snprintf(path + length, sizeof path - length, "/%s", name);
    return judge(kind, path, needs_room, 0);
}

static int judge_open(int folder, const char *name, int flags) {
    if ((flags & O_ACCMODE) == O_RDONLY && !(flags & O_CREAT))
        return PASS;
    return judge_at("open", folder, name, 1);
}

#define OPEN(name)                                                                     \
    int name(const char *path, int flags, ...) {                                       \
        va_list rest;                                                                  \
        va_start(rest, flags);                                                         \
        mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(rest, mode_t) : 0;      \
        va_end(rest);                                                                  \
        return judge_open(AT_FDCWD, path, flags) == FAIL ? -1 : REAL(name)(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                   \
    int name(int folder, const char *path, int flags, ...) {                           \
        va_list rest;                                                                  \
        va_start(rest, flags);                                                         \
        mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(rest, mode_t) : 0;      \
        va_end(rest);                                                                  \
        return judge_open(folder, path, flags) == FAIL ? -1 : REAL(name)(folder, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

#define CREAT(name)                                                                    \
    int name(const char *path, mode_t mode) {                                          \
        return judge_at("open", AT_FDCWD, path, 1) == FAIL ? -1 : REAL(name)(path, mode); \
    }
CREAT(creat)
CREAT(creat64)

/* glibc opens a stream inside itself, where open cannot be replaced. */
#define FOPEN(name)                                                                    \
    FILE *name(const char *path, const char *mode) {                                   \
        int writes = mode[0] != 'r' || strchr(mode, '+');                              \
        if (writes && judge_at("open", AT_FDCWD, path, 1) == FAIL)                     \
            return NULL;                                                               \
        return REAL(name)(path, mode);                                                 \
    }
FOPEN(fopen)
FOPEN(fopen64)

ssize_t write(int file, const void *data, size_t size) {
    int verdict = judge_file("write", file, 1, size > 1);
    return verdict == FAIL ? -1 : REAL(write)(file, data, verdict == SHORT ? size / 2 : size);
}

#define PWRITE(name, type)                                                             \
    ssize_t name(int file, const void *data, size_t size, type offset) {               \
        int verdict = judge_file("write", file, 1, size > 1);                          \
        return verdict == FAIL ? -1 : REAL(name)(file, data, verdict == SHORT ? size / 2 : size, offset); \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t writev(int file, const struct iovec *parts, int num_parts) {
    int verdict = judge_file("write", file, 1, parts[0].iov_len > 1);
    if (verdict == SHORT)
        return REAL(write)(file, parts[0].iov_base, parts[0].iov_len / 2);
    return verdict == FAIL ? -1 : REAL(writev)(file, parts, num_parts);
}

#define SENDFILE(name, type)                                                           \
    ssize_t name(int out, int in, type *offset, size_t size) {                         \
        int verdict = judge_file("write", out, 1, size > 1);                           \
        return verdict == FAIL ? -1 : REAL(name)(out, in, offset, verdict == SHORT ? size / 2 : size); \
    }
ssize_t sendfile(int, int, off_t *, size_t);
ssize_t sendfile64(int, int, off64_t *, size_t);
SENDFILE(sendfile, off_t)
SENDFILE(sendfile64, off64_t)

ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags) {
    int verdict = judge_file("write", out, 1, size > 1);
    return verdict == FAIL ? -1 : REAL(copy_file_range)(in, from, out, to, verdict == SHORT ? size / 2 : size, flags);
}

#define ON_FILE(name, kind, needs_room, declared, passed)                              \
    int name declared {                                                                \
        return judge_file(kind, file, needs_room, 0) == FAIL ? -1 : REAL(name) passed; \
    }
ON_FILE(fsync, "fsync", 0, (int file), (file))
ON_FILE(fdatasync, "fsync", 0, (int file), (file))
ON_FILE(ftruncate, "truncate", 1, (int file, off_t size), (file, size))
ON_FILE(ftruncate64, "truncate", 1, (int file, off64_t size), (file, size))

#define ON_PATH(name, kind, folder, needs_room, declared, passed)                      \
    int name declared {                                                                \
        return judge_at(kind, folder, path, needs_room) == FAIL ? -1 : REAL(name) passed; \
    }
ON_PATH(rename, "rename", AT_FDCWD, 0, (const char *path, const char *new), (path, new))
ON_PATH(renameat, "rename", from, 0, (int from, const char *path, int to, const char *new), (from, path, to, new))
ON_PATH(renameat2, "rename", from, 0, (int from, const char *path, int to, const char *new, unsigned flags),
        (from, path, to, new, flags))
ON_PATH(link, "link", AT_FDCWD, 1, (const char *path, const char *new), (path, new))
ON_PATH(mkdir, "mkdir", AT_FDCWD, 1, (const char *path, mode_t mode), (path, mode))
ON_PATH(mkdirat, "mkdir", folder, 1, (int folder, const char *path, mode_t mode), (folder, path, mode))
ON_PATH(unlink, "unlink", AT_FDCWD, 0, (const char *path), (path))
ON_PATH(unlinkat, "unlink", folder, 0, (int folder, const char *path, int flags), (folder, path, flags))
ON_PATH(rmdir, "unlink", AT_FDCWD, 0, (const char *path), (path))
