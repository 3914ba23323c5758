/* A preloaded open(): one file cannot be opened for now. OPEN_DOUBLE_PATH is how the file's name
 * ends, OPEN_DOUBLE_WHILE a file; while that exists the error is EAGAIN, as /dev/kfd has it while
 * the driver resets the GPU. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int open_fn(const char *path, int flags, ...);

__attribute__((visibility("default"))) int open(const char *path, int flags, ...)
{
    static open_fn *next;
    if (!next) {
        *(void **)&next = dlsym(RTLD_NEXT, "open");
    }
    const char *end = getenv("OPEN_DOUBLE_PATH"), *mark = getenv("OPEN_DOUBLE_WHILE");
    size_t n = strlen(path), n_end = end ? strlen(end) : 0;
    if (end && mark && n >= n_end && strcmp(path + n - n_end, end) == 0 &&
        access(mark, F_OK) == 0) {
        errno = EAGAIN;
        return -1;
    }
    va_list ap;
    va_start(ap, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    return next(path, flags, mode);
}
