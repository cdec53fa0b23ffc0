/* The UML kernel keeps 2696 bytes of a process's extended registers and can't set them on a CPU with more (Intel AMX):
   "ptrace set fp regs failed".  This preloaded ptrace pads each of its writes with what the process has. */
#include <dlfcn.h>
#include <sys/uio.h>
long ptrace(int request, int pid, void *what, struct iovec *part) {
    static long (*next)(int, ...);
    static char full[65536];
    struct iovec whole = { full, sizeof full };
    if (!next) next = (long (*)(int, ...))dlsym(RTLD_NEXT, "ptrace");
    if ((request != 0x4204 && request != 0x4205) || what != (void *)0x202) return next(request, pid, what, part);
    if (next(0x4204, pid, what, &whole)) return -1;
    if (part->iov_len > whole.iov_len) part->iov_len = whole.iov_len;
    if (request == 0x4204) { __builtin_memcpy(part->iov_base, full, part->iov_len); return 0; }
    __builtin_memcpy(full, part->iov_base, part->iov_len);
    return next(0x4205, pid, what, &whole);
}
