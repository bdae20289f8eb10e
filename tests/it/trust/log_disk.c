/*
 * A disk that remembers every write and every flush, for `block_layer.rs`: what dm-log-writes is, where there is no device
 * mapper. A file system in user space with one file, `disk`; a loop device on that file is the block device. The
 * protocol is spoken by hand, so that no library is needed.
 *
 * log_disk FOLDER BYTES LOG: mounts at FOLDER and serves until it is unmounted. LOG gets a record per event, before the
 * event is answered: kind (0 write, 1 flush), length, offset (32, 32, 64 bits), and the bytes written.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define MOST (128 * 1024)
#define DISK_NODE 2

static int device, log_file;
static char *disk;
static uint64_t disk_bytes;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void note(uint32_t kind, uint32_t len, uint64_t offset, const void *bytes) {
    struct { uint32_t kind, len; uint64_t offset; } head = {kind, len, offset};
    struct iovec parts[] = {{&head, sizeof head}, {(void *)bytes, bytes == NULL ? 0 : len}};
    if (writev(log_file, parts, 2) != (ssize_t)(sizeof head + parts[1].iov_len)) die("log");
}

static void answer(uint64_t request, int error, const void *bytes, size_t len) {
    struct fuse_out_header head = {.len = sizeof head + len, .error = -error, .unique = request};
    struct iovec parts[] = {{&head, sizeof head}, {(void *)bytes, len}};
    /* ENOENT: whoever asked has gone. */
    if (writev(device, parts, 2) < 0 && errno != ENOENT) die("answer");
}

static struct fuse_attr attributes(uint64_t node) {
    struct fuse_attr attr = {.ino = node, .nlink = 1, .mode = S_IFDIR | 0755, .blksize = 4096};
    if (node == DISK_NODE) {
        attr.mode = S_IFREG | 0600;
        attr.size = disk_bytes;
        attr.blocks = disk_bytes / 512;
    }
    return attr;
}

static void serve(const struct fuse_in_header *head, const char *body) {
    uint64_t request = head->unique;
    switch (head->opcode) {
    case FUSE_INIT: {
        const struct fuse_init_in *in = (const void *)body;
        struct fuse_init_out out = {
            .major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION, .max_readahead = in->max_readahead,
            .flags = in->flags & (FUSE_BIG_WRITES | FUSE_MAX_PAGES | FUSE_ASYNC_READ), .max_background = 64,
            .congestion_threshold = 48, .max_write = MOST, .time_gran = 1, .max_pages = MOST / 4096};
        return answer(request, 0, &out, sizeof out);
    }
    case FUSE_LOOKUP: {
        if (strcmp(body, "disk") != 0) return answer(request, ENOENT, NULL, 0);
        struct fuse_entry_out out = {.nodeid = DISK_NODE, .attr_valid = 3600, .entry_valid = 3600,
                                     .attr = attributes(DISK_NODE)};
        return answer(request, 0, &out, sizeof out);
    }
    case FUSE_GETATTR: case FUSE_SETATTR: {
        struct fuse_attr_out out = {.attr_valid = 3600, .attr = attributes(head->nodeid)};
        return answer(request, 0, &out, sizeof out);
    }
    case FUSE_OPEN: case FUSE_OPENDIR: {
        struct fuse_open_out out = {.fh = head->nodeid, .open_flags = FOPEN_KEEP_CACHE};
        return answer(request, 0, &out, sizeof out);
    }
    case FUSE_READ: {
        const struct fuse_read_in *in = (const void *)body;
        uint64_t left = in->offset < disk_bytes ? disk_bytes - in->offset : 0;
        return answer(request, 0, disk + in->offset, in->size < left ? in->size : left);
    }
    case FUSE_WRITE: {
        const struct fuse_write_in *in = (const void *)body;
        if (in->offset + in->size > disk_bytes) return answer(request, ENOSPC, NULL, 0);
        const char *bytes = body + sizeof *in;
        memcpy(disk + in->offset, bytes, in->size);
        note(0, in->size, in->offset, bytes);
        struct fuse_write_out out = {.size = in->size};
        return answer(request, 0, &out, sizeof out);
    }
    case FUSE_FSYNC: note(1, 0, 0, NULL); return answer(request, 0, NULL, 0);
    case FUSE_STATFS: {
        struct fuse_statfs_out out = {.st = {.bsize = 4096, .frsize = 4096, .namelen = 255}};
        return answer(request, 0, &out, sizeof out);
    }
    case FUSE_FLUSH: case FUSE_RELEASE: case FUSE_RELEASEDIR: case FUSE_READDIR:
        return answer(request, 0, NULL, 0);
    case FUSE_FORGET: case FUSE_BATCH_FORGET: case FUSE_INTERRUPT: return;
    default: return answer(request, ENOSYS, NULL, 0);
    }
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    disk_bytes = strtoull(argv[2], NULL, 10);
    disk = mmap(NULL, disk_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    log_file = open(argv[3], O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (disk == MAP_FAILED || log_file < 0 || device < 0) die("begin");
    char options[96];
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0", device);
    if (mount("log_disk", argv[1], "fuse", MS_NOSUID | MS_NODEV, options) != 0) die("mount");
    static char buffer[MOST + 65536];
    for (;;) {
        ssize_t got = read(device, buffer, sizeof buffer);
        if (got < 0 && errno == ENODEV) return 0;
        if (got < 0 && errno != EINTR && errno != EAGAIN && errno != ENOENT) die("read");
        if (got >= (ssize_t)sizeof(struct fuse_in_header))
            serve((const void *)buffer, buffer + sizeof(struct fuse_in_header));
    }
}
