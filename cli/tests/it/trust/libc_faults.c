/*
 * System calls that fail: loaded into the command by LD_PRELOAD, for `libc_faults.rs`, which explains the faults.
 *
 * Wrapping the functions of libc would not do, because some calls (the rename that publishes a file) are made without it.
 * So a seccomp filter turns every call of interest, whoever makes it, into SIGSYS; the handler counts it, lets one fail, and
 * makes the others itself. The filter lets the handler's own calls through by the address that they come from.
 *
 * Only calls on files below the folder TREERING_FAULT_FOLDER count, which must be the working folder too.
 * TREERING_FAULT_LOG: file to append to. Without TREERING_FAULT it gets a line per call: its class.
 * TREERING_FAULT: "CLASS NTH TIMES WHAT ERRNO". The NTH call of the class (from 0) and the TIMES - 1 that follow meet
 * WHAT, and the log gets a line each time:
 *   E  it fails with ERRNO, and nothing has happened      L  it happens, and then fails with ERRNO
 *   S  it reads or writes half of the bytes, and says so  H  it writes half of the bytes, and then fails with ERRNO
 *   B  SIGKILL before it     M  SIGKILL in the middle of it: half is written     A  SIGKILL after it
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

/* raw_call(number, a, b, c, d, e, f): what the kernel returns, errors as negative numbers. */
long raw_call(long number, long a, long b, long c, long d, long e, long f);
extern char raw_call_returns[];
__asm__(".text\n"
        ".globl raw_call\n.hidden raw_call\n.type raw_call, @function\n"
        "raw_call:\n"
        "  mov %rdi, %rax\n  mov %rsi, %rdi\n  mov %rdx, %rsi\n  mov %rcx, %rdx\n"
        "  mov %r8, %r10\n  mov %r9, %r8\n  mov 8(%rsp), %r9\n"
        "  syscall\n"
        ".globl raw_call_returns\n.hidden raw_call_returns\n"
        "raw_call_returns:\n"
        "  ret\n");

/* Where a call says which file it is about. */
enum where { FIRST_FD, MAPPED_FD, PATH, PATH_AT, NEW_PATH, NEW_PATH_AT, STAT, ADVICE };

static const struct call {
    int number;
    const char *class;
    enum where where;
} CALLS[] = {
    {SYS_open, "open", PATH},           {SYS_openat, "open", PATH_AT},
    {SYS_read, "read", FIRST_FD},       {SYS_readv, "read", FIRST_FD},
    {SYS_pread64, "pread", FIRST_FD},   {SYS_preadv, "pread", FIRST_FD},
    {SYS_write, "write", FIRST_FD},     {SYS_writev, "write", FIRST_FD},
    {SYS_pwrite64, "pwrite", FIRST_FD}, {SYS_pwritev, "pwrite", FIRST_FD},
    {SYS_fsync, "sync", FIRST_FD},      {SYS_fdatasync, "sync", FIRST_FD},
    {SYS_ftruncate, "truncate", FIRST_FD}, {SYS_fallocate, "allocate", FIRST_FD},
    {SYS_fcntl, "lock", FIRST_FD},      {SYS_close, "close", FIRST_FD},
    {SYS_lseek, "seek", FIRST_FD},      {SYS_fstat, "stat", FIRST_FD},
    {SYS_mmap, "map", MAPPED_FD},       {SYS_madvise, "advise", ADVICE},
    {SYS_msync, "advise", ADVICE},      {SYS_fadvise64, "advise", FIRST_FD},
    {SYS_statx, "stat", STAT},          {SYS_newfstatat, "stat", STAT},
    {SYS_rename, "rename", NEW_PATH},   {SYS_renameat, "rename", NEW_PATH_AT},
    {SYS_renameat2, "rename", NEW_PATH_AT}, {SYS_link, "link", NEW_PATH},
    {SYS_linkat, "link", NEW_PATH_AT},  {SYS_unlink, "unlink", PATH},
    {SYS_unlinkat, "unlink", PATH_AT},  {SYS_fchmod, "mode", FIRST_FD},
    {SYS_copy_file_range, "copy", FIRST_FD}, {SYS_sendfile, "copy", FIRST_FD},
};
#define CALLS_LEN (sizeof CALLS / sizeof *CALLS)
#define FDS 1024

static const char *folder;
static size_t folder_len;
static int log_fd = -1;
static char fault_class[16], fault_what;
static long fault_nth, fault_times, fault_errno;
static long seen;
/* Descriptors of files below the folder. */
static char ours[FDS];

static void tell(const char *text) {
    char line[64];
    int len = snprintf(line, sizeof line, "%s\n", text);
    raw_call(SYS_write, log_fd, (long)line, len, 0, 0, 0);
}

static int is_our_path(const char *path) {
    if (path == NULL || path[0] == 0) return 0;
    return path[0] != '/' || strncmp(path, folder, folder_len) == 0;
}

static int is_our_fd(long fd) { return fd >= 0 && fd < FDS && ours[fd]; }

/* What a descriptor that has just been made is about. */
static void note_fd(long fd) {
    char link[32], path[4096];
    if (fd < 0 || fd >= FDS) return;
    snprintf(link, sizeof link, "/proc/self/fd/%ld", fd);
    long len = raw_call(SYS_readlink, (long)link, (long)path, sizeof path - 1, 0, 0, 0);
    path[len < 0 ? 0 : len] = 0;
    ours[fd] = len > 0 && path[0] == '/' && is_our_path(path);
}

static int is_ours(const struct call *call, const long *args) {
    switch (call->where) {
    case FIRST_FD: return is_our_fd(args[0]);
    case MAPPED_FD: return is_our_fd(args[4]);
    case PATH: return is_our_path((const char *)args[0]);
    case PATH_AT: return is_our_path((const char *)args[1]);
    case NEW_PATH: return is_our_path((const char *)args[1]);
    case NEW_PATH_AT: return is_our_path((const char *)args[3]);
    case STAT: return is_our_fd(args[0]) || is_our_path((const char *)args[1]);
    case ADVICE: return 1;
    }
    return 0;
}

static long make(long number, const long *args) {
    long result = raw_call(number, args[0], args[1], args[2], args[3], args[4], args[5]);
    if (number == SYS_open || number == SYS_openat) note_fd(result);
    if (number == SYS_close && args[0] >= 0 && args[0] < FDS) ours[args[0]] = 0;
    if (number == SYS_fcntl && (args[1] == F_DUPFD || args[1] == F_DUPFD_CLOEXEC)) note_fd(result);
    return result;
}

/* Half of a call that moves bytes; a whole one of any other. */
static long half(long number, const long *args) {
    long less[6];
    memcpy(less, args, sizeof less);
    switch (number) {
    case SYS_readv: case SYS_writev: case SYS_preadv: case SYS_pwritev: {
        struct iovec first = *(const struct iovec *)args[1];
        first.iov_len = (first.iov_len + 1) / 2;
        less[1] = (long)&first;
        less[2] = 1;
        return make(number, less);
    }
    case SYS_read: case SYS_write: case SYS_pread64: case SYS_pwrite64:
        less[2] = (args[2] + 1) / 2;
        return make(number, less);
    default: return make(number, less);
    }
}

static void kill_self(void) {
    raw_call(SYS_kill, getpid(), SIGKILL, 0, 0, 0, 0);
    for (;;) pause();
}

static long fail(long number, const long *args) {
    char line[48];
    snprintf(line, sizeof line, "! %s", fault_class);
    tell(line);
    /* A descriptor is closed even if closing it fails. */
    int is_late = fault_what == 'L' || number == SYS_close;
    switch (fault_what) {
    case 'S': return half(number, args);
    case 'H': half(number, args); return -fault_errno;
    case 'M': half(number, args); kill_self(); break;
    case 'B': kill_self(); break;
    case 'A': make(number, args); kill_self(); break;
    }
    long result = is_late ? make(number, args) : 0;
    return result < 0 ? result : -fault_errno;
}

static long answer(long number, const long *args) {
    const struct call *call = CALLS;
    while (call < CALLS + CALLS_LEN && call->number != number) call++;
    if (call == CALLS + CALLS_LEN || !is_ours(call, args)) return make(number, args);
    const char *class = call->class;
    if (number == SYS_fcntl && args[1] != F_OFD_SETLK && args[1] != F_OFD_SETLKW && args[1] != F_OFD_GETLK)
        class = "fcntl";
    if (number == SYS_fallocate && args[1] != 0) class = "punch";
    if (fault_class[0] == 0) {
        tell(class);
    } else if (strcmp(class, fault_class) == 0) {
        long nth = __atomic_fetch_add(&seen, 1, __ATOMIC_SEQ_CST);
        if (nth >= fault_nth && nth - fault_nth < fault_times) return fail(number, args);
    }
    return make(number, args);
}

static void on_call(int signal, siginfo_t *info, void *context) {
    (void)signal;
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    long args[6] = {registers[REG_RDI], registers[REG_RSI], registers[REG_RDX],
                    registers[REG_R10], registers[REG_R8],  registers[REG_R9]};
    registers[REG_RAX] = answer(info->si_syscall, args);
}

/* Traps the calls of the table. Not maps of no file, nor the advice that libc gives about stacks, because both are made
 * with every signal blocked. */
static int install(void) {
    struct sigaction action = {.sa_sigaction = on_call, .sa_flags = SA_SIGINFO | SA_NODEFER};
    unsigned long returns = (unsigned long)raw_call_returns;
    struct sock_filter filter[24 + CALLS_LEN];
    /* The statements before the last two, which are the verdicts. */
    int n = 0, allow = 12 + CALLS_LEN;
#define DATA(field) offsetof(struct seccomp_data, field)
#define LOAD(at) (struct sock_filter) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, at)
#define JUMP(value, yes, no) (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, yes, no)
#define ALLOW (allow - n - 1)
#define TRAP (allow - n)
    filter[n++] = LOAD(DATA(instruction_pointer));
    filter[n] = JUMP((unsigned)returns, 0, 2), n++;
    filter[n++] = LOAD(DATA(instruction_pointer) + 4);
    filter[n] = JUMP((unsigned)(returns >> 32), ALLOW, 0), n++;
    filter[n++] = LOAD(DATA(nr));
    filter[n] = JUMP(SYS_mmap, 0, 2), n++;
    filter[n++] = LOAD(DATA(args[4]));
    filter[n] = JUMP((unsigned)-1, ALLOW, TRAP), n++;
    filter[n] = JUMP(SYS_madvise, 0, 3), n++;
    filter[n++] = LOAD(DATA(args[2]));
    filter[n] = JUMP(MADV_RANDOM, TRAP, 0), n++;
    filter[n] = JUMP(MADV_WILLNEED, TRAP, ALLOW), n++;
    for (size_t i = 0; i < CALLS_LEN; i++) filter[n] = JUMP((unsigned)CALLS[i].number, TRAP, 0), n++;
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
    struct sock_fprog program = {.len = n, .filter = filter};
    return sigaction(SIGSYS, &action, NULL) == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

__attribute__((constructor)) static void begin(void) {
    const char *log = getenv("TREERING_FAULT_LOG"), *fault = getenv("TREERING_FAULT");
    folder = getenv("TREERING_FAULT_FOLDER");
    if (folder == NULL || log == NULL) return;
    folder_len = strlen(folder);
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    log_fd = fcntl(fd, F_DUPFD_CLOEXEC, 200);
    close(fd);
    if (fault != NULL) {
        if (sscanf(fault, "%15s %ld %ld %c %ld", fault_class, &fault_nth, &fault_times, &fault_what, &fault_errno) != 5) {
            tell("unavailable: TREERING_FAULT makes no sense");
            _exit(99);
        }
    }
    if (!install()) tell("unavailable: no seccomp filter");
}
