/* `rocmforge-probe`: looks at the machine in a process that may hang or crash.
 *
 * Two processes: the runner (probe.c), which touches nothing and keeps the time, and its child,
 * which runs the stages one after the other and reports each through a pipe. A stage that misses
 * its deadline or brings the child down is a failed stage; the runner always lives to say so. The
 * first failure ends the run.
 *
 * In other roles the same program reads and writes crash reports (reporter.h).
 *
 *   probe.c          runner; `rocmforge doctor` table; dialog with the supervisor
 *   probe_machine.c  stages that ask the kernel: cpu, environment, sandbox, card, lock, nodes,
 *                    quiet
 *   probe_smi.c      stage that asks rocm-smi, in a child of its own: smi
 *   probe_hip.c      stages that load and call HIP: runtime, see, copy, kernel */
#ifndef SAFETY_PROBE_H
#define SAFETY_PROBE_H

#include "ipc/msg.h"
#include "safety/lock.h"
#include "safety/topology.h"

struct hip;

/* What the stages hand on to each other; lives in the child. */
struct probe {
    const char *root;  /* topology_root(), or as --root says */
    int device;        /* index of topology_read; -1: topology_choose */
    uint64_t quiet_ms; /* how long the driver may take to free what an ended process held */
    struct lock lock;
    struct gpu gpu;                /* the chosen one; pci is "" when there is none */
    char no_gpu[MSG_DETAIL_BYTES]; /* why later stages have nothing to look at; "" otherwise */
    const char *kernel_dir;        /* NULL: by the environment */
    struct hip *hip;               /* probe_hip.c's; never freed: unloading HIP can hang */
};

enum { PROBE_OK = 0, PROBE_SKIPPED = 1 };

/* PROBE_OK, PROBE_SKIPPED or a negative ERR_*; fills out->detail, and out->remedy where it helps.
 */
typedef int probe_stage_fn(struct probe *p, struct msg_stage *out);

probe_stage_fn probe_machine_cpu, probe_machine_environment, probe_machine_sandbox,
    probe_machine_card, probe_machine_lock, probe_machine_nodes, probe_machine_quiet;
probe_stage_fn probe_hip_runtime, probe_hip_see, probe_hip_copy, probe_hip_kernel;

/* out->detail or out->remedy. */
void probe_say(char text[MSG_DETAIL_BYTES], const char *fmt, ...) PRINTF_LIKE(2, 3);
/* When an earlier stage found nothing to look at: says so and returns PROBE_SKIPPED; else PROBE_OK.
 */
int probe_skip(const struct probe *p, struct msg_stage *out);

#endif
