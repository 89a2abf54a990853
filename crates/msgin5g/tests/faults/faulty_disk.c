/* A disk that misbehaves on demand, between a program and the system: loaded with LD_PRELOAD into a program that knows
 * nothing of it. Only regular files below FAULTY_DISK_FOLDER are touched.
 *
 * FAULTY_DISK_CONTROL names a file whose first word says what happens:
 *   pass          nothing (so, too, if there is no such file)
 *   sync-fails    the next sync of written octets fails with EIO, and these octets are gone: what a kernel does with pages
 *                 it cannot write; after it, "pass"
 *   write-fails   the next write writes half of what it should, and the one after it fails with ENOSPC, as on a disk that
 *                 is full; after it, "pass"
 *   sync-slow     every sync takes 200 milliseconds longer
 *   sync-waits    every sync waits until there is another word here
 *   write-waits   the same for a write
 *
 * FAULTY_DISK_RECORD names a file that outlives the program: which octets of which file are synced, so that whoever kills
 * the program can take away the rest, as a power loss would. Its form: struct record. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define FILES_MAX 4095

struct record {
    uint64_t failures;      /* failed calls */
    uint64_t octets_lost;   /* by failed syncs */
    struct {
        uint64_t inode;     /* 0 ends the list */
        uint64_t synced;    /* octets from the beginning that are on the disk */
    } files[FILES_MAX];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct record *record;
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);

static void die(const char *why) {
    fprintf(stderr, "faulty disk: %s\n", why);
    abort();
}

__attribute__((constructor)) static void begin(void) {
    real_write = dlsym(RTLD_NEXT, "write");
    real_writev = dlsym(RTLD_NEXT, "writev");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    const char *path = getenv("FAULTY_DISK_RECORD");
    int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (fd < 0 || ftruncate(fd, sizeof *record) != 0)
        die("no record");
    record = mmap(NULL, sizeof *record, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (record == MAP_FAILED)
        die("no record");
    close(fd);
}

/* The inode of a regular file below the folder, or 0. */
static uint64_t inode_of(int fd) {
    struct stat status;
    char link[64], path[4096];
    const char *folder = getenv("FAULTY_DISK_FOLDER");
    if (!folder || fstat(fd, &status) != 0 || !S_ISREG(status.st_mode))
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return strncmp(path, folder, strlen(folder)) == 0 ? status.st_ino : 0;
}

/* How many octets of a file are synced; a file not seen before is so up to where it is now. */
static uint64_t *synced_of(uint64_t inode, uint64_t here) {
    for (int index = 0; index < FILES_MAX; index++) {
        if (record->files[index].inode == 0) {
            record->files[index].synced = here;
            record->files[index].inode = inode;
        }
        if (record->files[index].inode == inode)
            return &record->files[index].synced;
    }
    die("too many files");
    return NULL;
}

/* Whether the control file says this word; if so and it is for once, it says "pass" from now on. */
static int told(const char *word, int once) {
    char said[32] = "";
    const char *path = getenv("FAULTY_DISK_CONTROL");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return 0;
    ssize_t length = read(fd, said, sizeof said - 1);
    int is_told = length > 0 && strncmp(said, word, strlen(word)) == 0;
    if (is_told && once && (ftruncate(fd, 0) != 0 || pwrite(fd, "pass", 4, 0) != 4))
        die("the control file cannot be written");
    close(fd);
    return is_told;
}

static void wait_while(const char *word) {
    while (told(word, 0))
        nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
}

/* The file that had half a write. */
static uint64_t is_full;

/* Before a write: how much of it to let through; nothing if it is to fail. */
static size_t allowed(int fd, size_t count) {
    uint64_t inode = inode_of(fd);
    if (!inode)
        return count;
    wait_while("write-waits");
    pthread_mutex_lock(&lock);
    uint64_t here = lseek(fd, 0, SEEK_CUR);
    uint64_t *synced = synced_of(inode, here);
    if (here == 0)
        *synced = 0; /* the number of a deleted file, given to a new one */
    if (is_full == inode) {
        is_full = 0;
        record->failures++;
        count = 0;
    } else if (told("write-fails", 1)) {
        is_full = inode;
        count = (count + 1) / 2;
    }
    pthread_mutex_unlock(&lock);
    return count;
}

ssize_t write(int fd, const void *octets, size_t count) {
    int error = errno;
    size_t let_through = allowed(fd, count);
    errno = error;
    if (let_through > 0 || count == 0)
        return real_write(fd, octets, let_through);
    errno = ENOSPC;
    return -1;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    int error = errno;
    size_t let_through = allowed(fd, count);
    errno = error;
    if (let_through > 0 || count == 0)
        return real_writev(fd, parts, let_through);
    errno = ENOSPC;
    return -1;
}

/* Takes away what was written since the last sync: it reads as what a file that was made longer holds there. */
static void lose(int fd, uint64_t from, uint64_t to) {
    static const char nothing[65536];
    int own = dup(fd);
    while (from < to) {
        size_t some = to - from < sizeof nothing ? to - from : sizeof nothing;
        if (pwrite(own, nothing, some, from) != (ssize_t)some)
            die("octets cannot be taken away");
        from += some;
    }
    close(own);
}

static int sync_with(int (*real)(int), int fd) {
    uint64_t inode = inode_of(fd);
    if (!inode)
        return real(fd);
    wait_while("sync-waits");
    if (told("sync-slow", 0))
        nanosleep(&(struct timespec){.tv_nsec = 200 * 1000 * 1000}, NULL);
    pthread_mutex_lock(&lock);
    uint64_t here = lseek(fd, 0, SEEK_CUR);
    uint64_t *synced = synced_of(inode, here);
    int outcome;
    if (*synced < here && told("sync-fails", 1)) {
        lose(fd, *synced, here);
        record->octets_lost += here - *synced;
        record->failures++;
        errno = EIO;
        outcome = -1;
    } else {
        outcome = real(fd);
        if (outcome == 0 && *synced < here)
            *synced = here;
    }
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return outcome;
}

int fsync(int fd) { return sync_with(real_fsync, fd); }
int fdatasync(int fd) { return sync_with(real_fdatasync, fd); }
