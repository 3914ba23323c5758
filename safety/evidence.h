/* What there is to know of a crash outside the dead process: each kind collected by a process of
 * its own into a file, with a deadline, because sysfs of a GPU that hangs can hang, too.
 *
 *   process.txt      of a worker that still lives: state, stacks, what its threads wait for
 *   kernel.txt       lines of the kernel's log that may have to do with it, last ten minutes
 *   system.txt       kernel, driver, firmware, memory
 *   devcoredump.bin  the driver's dump of the GPU's state, where there is one
 *
 * What cannot be read (most of it needs no right but for the kernel's log) is named with the
 * reason. */
#ifndef SAFETY_EVIDENCE_H
#define SAFETY_EVIDENCE_H

#include "ipc/msg.h"
#include "shared/buf.h"

enum evidence_kind {
    EVIDENCE_PROCESS,
    EVIDENCE_KERNEL,
    EVIDENCE_SYSTEM,
    EVIDENCE_DUMP,
    EVIDENCE_KINDS
};

struct evidence_result {
    bool is_there;
    char why_not[96]; /* "", or why it is not */
};

struct evidence {
    const char *root; /* "" but in tests */
    pid_t pid;
    uint64_t life_ms;
};

/* Collects one kind into the report's folder. Blocks for at most the deadline of its kind (5 s),
 * and leaves behind a process that the kernel does not let go. */
void evidence_collect(const struct evidence *ev, enum evidence_kind kind, int report_fd,
                      struct evidence_result *ret);
const char *evidence_file(enum evidence_kind kind);

/* Appends the names of the troubles that stand in the text as a JSON object {"name":"meaning"}. */
void evidence_symptoms(const char *text, size_t n, struct buf *ret);
/* Is it a line that a reader of the report wants? */
bool evidence_is_telling(const char *line, size_t n);

#endif
