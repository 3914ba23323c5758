/* `rocmforge doctor` on made-up machines: sysfs, device nodes and lock folder under a scratch root,
 * HIP and rocm-smi by doubles. The trees are written here after what amdgpu shows on real
 * machines. */
#include "safety/lock.h"
#include "shared/clock.h"
#include "tests/safety/tree.h"
#include "tests/shared/no_landlock.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static const char *program;
static char kernel_dir[256], smi_card[256], library_path[1024];
static char root[] = "/tmp/rocmforge-probe-XXXXXX";
static char output[65536];
static int landlock_error; /* what the kernel shall say of Landlock; 0: as this one does */

/* ---- the machine ---- */

static void put_node(int node, const char *properties)
{
    char path[128];
    snprintf(path, sizeof(path), "/sys/class/kfd/kfd/topology/nodes/%d/properties", node);
    tree_put(root, path, properties);
}

/* A desktop with a processor, its own graphics and an RX 7900 XT. */
static void put_machine(void)
{
    tree_remove(root);
    CHECK(mkdir(root, 0755) == 0);
    tree_put(root, "/proc/meminfo",
        "MemTotal:       32768000 kB\nMemFree: 1 kB\nMemAvailable:   16384000 kB\n");
    tree_put(root, "/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
    put_node(0, "cpu_cores_count 16\nsimd_count 0\ngfx_target_version 0\n");
    put_node(1, "cpu_cores_count 0\nsimd_count 4\nsimd_per_cu 2\ngfx_target_version 100306\n"
                "vendor_id 4098\nlocation_id 3584\ndomain 0\ndrm_render_minor 129\n");
    put_node(2, "cpu_cores_count 0\nsimd_count 168\nsimd_per_cu 2\ngfx_target_version 110000\n"
                "vendor_id 4098\nlocation_id 768\ndomain 0\ndrm_render_minor 128\n");
    tree_put(root, "/sys/class/drm/renderD128/device/mem_info_vram_total", "21458059264\n");
    tree_put(root, "/sys/class/drm/renderD128/device/mem_info_vram_used", "2147483648\n");
    tree_put(root, "/sys/class/drm/renderD129/device/mem_info_vram_total", "536870912\n");
    tree_put(root, "/sys/class/drm/renderD129/device/mem_info_vram_used", "0\n");
    tree_put(root, "/dev/kfd", "");
    tree_put(root, "/dev/dri/renderD128", "");
    tree_put(root, "/dev/dri/renderD129", "");
    tree_put(root, "/run/lock/keep", "");
    tree_put(root, "/kernels/rocmforge-gfx1100.co", "the double does not read it\n");
    snprintf(kernel_dir, sizeof(kernel_dir), "%s/kernels", root);
    setenv("ROCMFORGE_KERNEL_DIR", kernel_dir, 1);
    tree_put(root, "/smi/card", "total 21458059264\nused 2247483648\n");
    snprintf(smi_card, sizeof(smi_card), "%s/smi", root);
    setenv("HIP_DOUBLE", "", 1);
    setenv("SMI_DOUBLE", "", 1);
    setenv("SMI_DOUBLE_DIR", smi_card, 1);
    setenv("LD_LIBRARY_PATH", library_path, 1);
}

/* ---- running ---- */

static int doctor(const char *option, const char *value)
{
    int fds[2], status;
    CHECK(pipe2(fds, O_CLOEXEC) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fds[1], STDOUT_FILENO);
        /* root may open everything, unless it gave that up. */
        (void)prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE);
        (void)prctl(PR_CAPBSET_DROP, CAP_DAC_READ_SEARCH);
        if (landlock_error != 0) {
            no_landlock(landlock_error);
        }
        execl(program, program, "doctor", "--root", root, "--quiet-ms", "300", option, value, NULL);
        _exit(127);
    }
    close(fds[1]);
    size_t n = 0;
    for (ssize_t got; (got = read(fds[0], output + n, sizeof(output) - 1 - n)) > 0;) {
        n += (size_t)got;
    }
    output[n] = '\0';
    close(fds[0]);
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* A line of --json output must say this of this stage. */
static void check_stage(const char *stage, const char *result, const char *says)
{
    char want[64];
    snprintf(want, sizeof(want), "{\"stage\":\"%s\"", stage);
    char *line = strstr(output, want);
    if (!line) {
        TEST_FAIL("no stage %s in:\n%s", stage, output);
    }
    char copy[2048];
    snprintf(copy, sizeof(copy), "%.*s", (int)strcspn(line, "\n"), line);
    snprintf(want, sizeof(want), "\"result\":\"%s\"", result);
    if (!strstr(copy, want) || !strstr(copy, says)) {
        TEST_FAIL("%s is not %s, \"%s\":\n%s", stage, result, says, copy);
    }
}

static void check_absent(const char *stage)
{
    char want[64];
    snprintf(want, sizeof(want), "{\"stage\":\"%s\"", stage);
    CHECK(!strstr(output, want));
}

/* ---- cases ---- */

static void test_healthy(void)
{
    put_machine();
    CHECK_INT(doctor("--json", NULL), 0);
    check_stage("cpu", "ok", "15.6 of 31.2 GiB of memory available; huge pages: madvise");
    check_stage("environment", "ok", "");
    check_stage("card", "ok", "gfx1100 at 0000:03:00.0, 84 compute units, 20.0 GiB");
    check_stage("lock", "ok", "rocmforge-0000:03:00.0.lock is free");
    check_stage("nodes", "ok", "renderD128 open");
    check_stage("quiet", "ok", "2.0 of 20.0 GiB of VRAM in use; 0 other");
    check_stage("smi", "ok",
                "librocm_smi64.so.7: 2.1 of 20.0 GiB of VRAM in use, 37 % busy, 54 degrees; "
                "sysfs agrees");
    check_stage("runtime", "ok", "libamdhip64.so.6, HIP 6.3");
    check_stage("see", "ok", "HIP device 1, 15360 of 20480 MiB free");
    check_stage("copy", "ok", "4 MiB");
    check_stage("kernel", "ok", "gives the right numbers");
    CHECK_INT(doctor("--device", "0"),
              EXIT_GPU_DEVICE); /* the double has only the card's address */
    CHECK(strstr(output, "gfx1036 at 0000:0e:00.0, 2 compute units"));
    CHECK_INT(doctor("--device", "2"), EXIT_GPU_DEVICE);
    CHECK(strstr(output, "there is no GPU 2, only 2"));
}

static void test_no_gpu(void)
{
    put_machine();
    tree_remove(root);
    CHECK(mkdir(root, 0755) == 0);
    CHECK_INT(doctor("--json", NULL), 0);
    check_stage("card", "skipped", "no AMD GPU");
    check_stage("copy", "skipped", "no AMD GPU");
    /* An AMD card that nothing drives. */
    tree_put(root, "/sys/bus/pci/devices/0000:03:00.0/vendor", "0x1002\n");
    tree_put(root, "/sys/bus/pci/devices/0000:03:00.0/class", "0x030000\n");
    tree_put(root, "/sys/bus/pci/devices/0000:03:00.1/vendor", "0x1002\n");
    tree_put(root, "/sys/bus/pci/devices/0000:03:00.1/class", "0x040300\n");
    CHECK_INT(doctor("--json", NULL), EXIT_GPU_DEVICE);
    check_stage("card", "FAILED", "the AMD GPU at 0000:03:00.0 has no compute driver");
    check_absent("lock");
    CHECK_INT(doctor(NULL, NULL), EXIT_GPU_DEVICE);
    CHECK(strstr(output, "-> sudo modprobe amdgpu"));
    CHECK(strstr(output, "--device cpu serves without it"));
}

static void test_unsupported_card(void)
{
    put_machine();
    put_node(2, "simd_count 240\nsimd_per_cu 4\ngfx_target_version 90006\nlocation_id 768\n"
                "drm_render_minor 128\n");
    CHECK_INT(doctor("--json", NULL), EXIT_GPU_DEVICE);
    check_stage("card", "FAILED", "gfx906 at 0000:03:00.0");
    put_node(2, "simd_count");
    put_node(1, "\x01\xff garbage without sense\n\n\n");
    CHECK_INT(doctor("--json", NULL), 0);
    check_stage("card", "skipped", "no AMD GPU");
}

static void test_environment(void)
{
    put_machine();
    setenv("HSA_ENABLE_INTERRUPT", "0", 1);
    CHECK_INT(doctor("--json", NULL), EXIT_CONFIG);
    check_stage("environment", "FAILED", "unset HSA_ENABLE_INTERRUPT");
    setenv("HSA_ENABLE_INTERRUPT", "1", 1);
    setenv("HSA_OVERRIDE_GFX_VERSION", "10.3.0", 1);
    CHECK_INT(doctor("--json", NULL), EXIT_CONFIG);
    check_stage("environment", "FAILED", "HSA_OVERRIDE_GFX_VERSION=10.3.0");
    unsetenv("HSA_OVERRIDE_GFX_VERSION");
    setenv("HIP_LAUNCH_BLOCKING", "1", 1);
    CHECK_INT(doctor("--json", NULL), 0);
    check_stage("environment", "ok", "HIP_LAUNCH_BLOCKING=1 is set");
    unsetenv("HIP_LAUNCH_BLOCKING");
}

static void test_sandbox(void)
{
    put_machine();
    long abi = syscall(LANDLOCK_CREATE, NULL, 0, 1); /* 1: only ask for the version */
    char want[64] = "no Landlock (";
    if (abi > 0) {
        snprintf(want, sizeof(want), "Landlock (ABI %ld)", abi);
    }
    CHECK_INT(doctor("--json", NULL), 0);
    check_stage("sandbox", "ok", want);
    CHECK_INT(doctor(NULL, NULL), 0);
    CHECK(strstr(output, want));
    static const struct {
        int error;
        const char *says;
    } cases[] = {{ENOSYS, "was built without it"},
                 {EOPNOTSUPP, "add landlock to the kernel's parameter lsm="},
                 {EPERM, "forbids it"}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        landlock_error = cases[i].error;
        CHECK_INT(doctor("--json", NULL), 0);
        check_stage("sandbox", "ok", "no Landlock (");
        check_stage("sandbox", "ok", cases[i].says);
        check_stage("kernel", "ok", "");
    }
    landlock_error = 0;
}

static void test_lock_is_busy(void)
{
    put_machine();
    char dir[128], want[64];
    struct lock l;
    lock_init(&l);
    snprintf(dir, sizeof(dir), "%s/run/lock", root);
    CHECK_INT(lock_take(&l, dir, "0000:03:00.0", "worker, epoch 3", 0, NULL), 0);
    CHECK_INT(doctor("--json", NULL), EXIT_GPU_LOCK);
    snprintf(want, sizeof(want), "held by pid %d (worker, epoch 3)", (int)getpid());
    check_stage("lock", "FAILED", want);
    check_absent("nodes"); /* somebody else's card is left alone */
    lock_release(&l);
    CHECK_INT(doctor("--json", NULL), 0);
}

static void test_access(void)
{
    char path[128], want[128];
    put_machine();
    snprintf(path, sizeof(path), "%s/dev/kfd", root);
    CHECK(chmod(path, 0060) == 0);
    struct group *own = getgrgid(getegid());
    CHECK_INT(doctor("--json", NULL), EXIT_GPU_ACCESS);
    snprintf(want, sizeof(want), "permission denied; it belongs to the group '%s'",
             own ? own->gr_name : "");
    check_stage("nodes", "FAILED", own ? want : "permission denied");
    check_stage("nodes", "FAILED", "log in again");
    struct group *render = getgrnam("render") ? getgrnam("render") : getgrnam("video");
    if (geteuid() == 0 && render) {
        CHECK(chown(path, 0, render->gr_gid) == 0);
        CHECK_INT(doctor("--json", NULL), EXIT_GPU_ACCESS);
        snprintf(want, sizeof(want), "sudo usermod -aG %s root", render->gr_name);
        check_stage("nodes", "FAILED", want);
    }
    CHECK(chmod(path, 0) == 0);
    CHECK_INT(doctor("--json", NULL), EXIT_GPU_ACCESS);
    check_stage("nodes", "FAILED", "for its group as well");
    CHECK(unlink(path) == 0);
    CHECK_INT(doctor("--json", NULL), EXIT_GPU_ACCESS);
    check_stage("nodes", "FAILED", "/dev/kfd: No such file");
    check_stage("nodes", "FAILED", "modprobe amdgpu");
}

static void test_leftover_process(void)
{
    put_machine();
    tree_put(root, "/sys/class/kfd/kfd/proc/4242/pasid", "32769\n");
    tree_put(root, "/proc/4242/comm", "game\n");
    CHECK_INT(doctor("--json", NULL), 0);
    check_stage("quiet", "ok", "1 other compute processes");
    tree_put(root, "/sys/class/kfd/kfd/proc/4141/pasid", "32768\n");
    tree_put(root, "/proc/4141/comm", "rocmforge-probe\n");
    CHECK_INT(doctor("--json", NULL), 0);
    check_stage("quiet", "ok", "1 other compute processes");
    tree_put(root, "/sys/class/kfd/kfd/proc/4343/pasid", "32770\n");
    CHECK_INT(doctor("--json", NULL), EXIT_GPU_DEVICE);
    check_stage("quiet", "FAILED", "process 4343 has ended");
    tree_put(root, "/sys/class/drm/renderD128/device/mem_info_vram_used", "20458059264\n");
    tree_put(root, "/proc/4343/comm", "compositor\n");
    CHECK_INT(doctor("--json", NULL), 0);
    check_stage("quiet", "ok", "the desktop stutters");
}

static void test_hip(void)
{
    put_machine();
    setenv("LD_LIBRARY_PATH", root, 1);
    CHECK_INT(doctor("--json", NULL), 0);
    check_stage("runtime", "skipped", "the ROCm HIP runtime is missing");
    check_stage("see", "skipped", "no HIP runtime");
    static const struct {
        const char *plan, *stage, *says;
        int code;
    } cases[] = {
        {"abort-load", "runtime", "ended by SIGABRT", EXIT_GPU_DEVICE},
        {"abort@Init", "see", "ended by SIGABRT", EXIT_GPU_DEVICE},
        {"error=100@Init", "see", "hipInit: error 100, no ROCm-capable device", EXIT_GPU_DEVICE},
        {"hidden@GetDeviceCount", "see", "HIP sees 1 devices, but not 0000:03:00.0",
         EXIT_GPU_DEVICE},
        {"oom@Malloc", "copy", "hipMalloc: error 2, out of memory", EXIT_GPU_DEVICE},
        {"corrupt@Memcpy*0", "copy", "byte 1234564 came back as", EXIT_GPU_MEMORY},
        {"sticky@probe", "kernel", "hipMemcpy from the card: error 700", EXIT_GPU_KERNEL},
        {"wrong@probe", "kernel", "1 of 4096 numbers are wrong", EXIT_GPU_KERNEL},
        {"hang@Memcpy", "copy", "no answer within 2.0 s; it was ended by SIGKILL", EXIT_GPU_DEVICE},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        put_machine();
        setenv("HIP_DOUBLE", cases[i].plan, 1);
        CHECK_INT(doctor("--json", NULL), cases[i].code);
        check_stage(cases[i].stage, "FAILED", cases[i].says);
        if (strcmp(cases[i].stage, "kernel") != 0) {
            check_absent("kernel");
        }
    }
}

/* Whatever rocm-smi does, the card is as usable as before. */
static void test_smi(void)
{
    static const struct {
        const char *plan, *card, *result, *says;
    } cases[] = {
        {"", "used 9663676416\n", "ok", "sysfs says another size"},
        {"", "total 21458059264\nused 9663676416\n", "ok",
         "sysfs says otherwise of what is in use"},
        {"error=2@dev_busy_percent_get;error=2@dev_temp_metric_get", "total 21458059264\n", "ok",
         "VRAM in use; sysfs agrees"},
        {"abort-load", "", "skipped", "it was ended by SIGABRT"},
        {"abort@dev_memory_usage_get", "", "skipped", "it was ended by SIGABRT"},
        {"hang@init", "", "skipped", "no answer within 3.0 s"},
        {"error=16@init", "", "skipped", "rsmi_init: status 16, a failure that was ordered"},
        {"error=1@dev_pci_id_get", "", "skipped", "it sees 2 devices, but not 0000:03:00.0"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        put_machine();
        tree_put(root, "/smi/card", cases[i].card);
        setenv("SMI_DOUBLE", cases[i].plan, 1);
        CHECK_INT(doctor("--json", NULL), 0);
        check_stage("smi", cases[i].result, cases[i].says);
        check_stage("kernel", "ok", "");
    }
    put_machine();
    char without[1024];
    snprintf(without, sizeof(without), "%.*s", (int)(strchr(library_path, ':') - library_path),
             library_path);
    setenv("LD_LIBRARY_PATH", without, 1);
    CHECK_INT(doctor(NULL, NULL), 0);
    CHECK(strstr(output, "no librocm_smi64.so"));
    CHECK(strstr(output, "The GPU can be used."));
}

static void test_usage(void)
{
    CHECK_INT(doctor("--help", NULL), 0);
    CHECK(strstr(output, "usage: rocmforge doctor"));
    CHECK_INT(doctor("--nonsense", NULL), EXIT_USAGE);
    CHECK_INT(doctor("--device", "99"), EXIT_USAGE);
}

int main(int argc, char **argv)
{
    CHECK(argc == 4);
    program = argv[1];
    snprintf(library_path, sizeof(library_path), "%s:%s", argv[2], argv[3]);
    CHECK(mkdtemp(root));
    test_healthy();
    test_no_gpu();
    test_unsupported_card();
    test_environment();
    test_sandbox();
    test_lock_is_busy();
    test_access();
    test_leftover_process();
    test_hip();
    test_smi();
    test_usage();
    tree_remove(root);
    return 0;
}
