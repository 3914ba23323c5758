/* Crash reports on disk: DIR/crashes/NAME/, a folder of files each. NAME begins with the time
 * (20261120T112233.444Z-worker-12: of epoch 12), so that names sort by age. Used by the reporter
 * and by `rocmforge report`; blocks on disk. */
#ifndef SAFETY_REPORT_H
#define SAFETY_REPORT_H

#include "ipc/msg.h"
#include "shared/buf.h"
#include "shared/err.h"

enum { REPORT_FILE_BYTES = 32 * 1024 * 1024, REPORT_MAX = 1024 };

/* The folder DIR/crashes, made where it does not exist (mode 0700). Its descriptor or -errno. */
MUST_CHECK int report_open_dir(const char *dir);

/* A new folder in it; ret_name is filled in. Its descriptor or -errno. */
MUST_CHECK int report_create(int crashes_fd, int64_t unix_ms, const char *who, uint64_t epoch,
                             char ret_name[MSG_NAME_BYTES]);

/* Writes a file of a report so that it is there whole or not at all, and on disk: another name,
 * fsync, rename. 0 or -errno. */
MUST_CHECK int report_write(int report_fd, const char *file, const void *data, size_t n);

/* Removes the oldest until at most n_max are left, with at most bytes_max; never the newest. */
void report_prune(int crashes_fd, size_t n_max, uint64_t bytes_max);

/* JSON: of all, newest first, their summaries; of one, all that is text. 0, ERR_REPORT_NOT_FOUND
 * (also for a name that no report can have), ERR_NO_REPORTS (no folder), -errno. */
MUST_CHECK int report_list(const char *dir, struct buf *ret);
MUST_CHECK int report_show(const char *dir, const char *name, struct buf *ret);

/* Which report a name means: "" is the newest. 0, or errors as report_show. */
MUST_CHECK int report_find(const char *dir, const char *name, char ret_name[MSG_NAME_BYTES]);

/* Writes a tar archive of the report to out_fd. "" is the newest; ret_name says which it was.
 * Errors as report_show. */
MUST_CHECK int report_pack(const char *dir, const char *name, int out_fd,
                           char ret_name[MSG_NAME_BYTES]);

#endif
