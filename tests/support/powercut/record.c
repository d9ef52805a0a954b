/* Records what a process does to the files whose path begins with POWERCUT_FILES, in order, into POWERCUT_LOG.
 *
 * One record each: stamp (ns, CLOCK_MONOTONIC; of a sync: when it was done), kind, offset or size, length of
 * the path, length of the data; then path and data. A lock is held over the call, so that the order in the
 * log is the order on the disk. Memory-mapped files (SQLite's -shm, which a crash loses anyway) are not seen. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum kind { WRITE = 1, TRUNCATE = 2, SYNC = 3, UNLINK = 4 };

struct record {
    uint64_t stamp_ns;
    uint64_t kind;
    uint64_t offset;
    uint64_t path_length;
    uint64_t data_length;
};

static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;
static int log_file = -1;
static const char *prefix;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("POWERCUT_LOG");
    prefix = getenv("POWERCUT_FILES");
    if (path && prefix)
        log_file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int is_ours(const char *path) { return log_file >= 0 && strncmp(path, prefix, strlen(prefix)) == 0; }

static int path_of(int file, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return is_ours(path);
}

static void record(enum kind kind, const char *path, uint64_t offset, const void *data, uint64_t length) {
    int before = errno;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    struct record head = {now.tv_sec * 1000000000ull + now.tv_nsec, kind, offset, strlen(path), length};
    struct iovec parts[] = {{&head, sizeof head}, {(void *)path, head.path_length}, {(void *)data, length}};
    if (writev(log_file, parts, 3) != (ssize_t)(sizeof head + head.path_length + length))
        abort(); /* a log with a gap would prove nothing */
    errno = before;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define IN_ORDER(call, worked, what)           \
    do {                                       \
        pthread_mutex_lock(&order);            \
        __typeof__(call) result = (call);      \
        if (worked)                            \
            what;                              \
        pthread_mutex_unlock(&order);          \
        return result;                         \
    } while (0)

static ssize_t write_at(ssize_t (*real)(int, const void *, size_t, off64_t), int file, const void *data,
                        size_t length, off64_t offset) {
    char path[PATH_MAX];
    if (!path_of(file, path))
        return real(file, data, length, offset);
    IN_ORDER(real(file, data, length, offset), result > 0, record(WRITE, path, offset, data, result));
}

ssize_t pwrite64(int file, const void *data, size_t length, off64_t offset) {
    return write_at(REAL(pwrite64), file, data, length, offset);
}

ssize_t pwrite(int file, const void *data, size_t length, off_t offset) {
    return write_at(REAL(pwrite64), file, data, length, offset);
}

ssize_t write(int file, const void *data, size_t length) {
    char path[PATH_MAX];
    if (!path_of(file, path))
        return REAL(write)(file, data, length);
    off64_t offset = lseek64(file, 0, SEEK_CUR);
    IN_ORDER(REAL(write)(file, data, length), result > 0, record(WRITE, path, offset, data, result));
}

static int cut_to(int (*real)(int, off64_t), int file, off64_t size) {
    char path[PATH_MAX];
    if (!path_of(file, path))
        return real(file, size);
    IN_ORDER(real(file, size), result == 0, record(TRUNCATE, path, size, NULL, 0));
}

int ftruncate64(int file, off64_t size) { return cut_to(REAL(ftruncate64), file, size); }

int ftruncate(int file, off_t size) { return cut_to(REAL(ftruncate64), file, size); }

static int sync_file(int (*real)(int), int file) {
    char path[PATH_MAX];
    if (!path_of(file, path))
        return real(file);
    IN_ORDER(real(file), result == 0, record(SYNC, path, 0, NULL, 0));
}

int fsync(int file) { return sync_file(REAL(fsync), file); }

int fdatasync(int file) { return sync_file(REAL(fdatasync), file); }

int unlink(const char *path) {
    if (!is_ours(path))
        return REAL(unlink)(path);
    IN_ORDER(REAL(unlink)(path), result == 0, record(UNLINK, path, 0, NULL, 0));
}
