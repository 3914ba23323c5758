/* The arithmetic of the card's memory, and the measuring of it on a made-up sysfs. */
#include "safety/probe_vram.h"
#include "tests/safety/tree.h"
#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#define MIB ((uint64_t)1 << 20)

static char root[] = "/tmp/rocmforge-vram-XXXXXX";

static void the_ceiling_leaves_the_desktop_its_share(void)
{
    static const struct {
        uint64_t total, used, ours;
        unsigned displays;
        uint64_t reserve, want; /* all MiB */
    } rows[] = {
        {20480, 2048, 0, 1, 4096, 16384},      /* the desktop uses less than its reserve */
        {20480, 8192, 0, 1, 4096, 12032},      /* or more: what it uses, and a margin */
        {20480, 18000, 16000, 1, 4096, 16384}, /* ours is not theirs */
        {20480, 2048, 0, 0, 4096, 18176},      /* no display, no reserve */
        {20480, 0, 0, 0, 4096, 20224},
        {20480, 20480, 0, 1, 4096, 0},
        {20480, 30000, 0, 1, 4096, 0}, /* numbers that cannot be */
        {20480, 100, 5000, 1, 4096, 16384},
        {2048, 100, 0, 1, 4096, 0},
        {0, 0, 0, 0, 0, 0},
        {20480, 2048, 0, 1, 0, 18176},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct vram_sample s = {.total_bytes = rows[i].total * MIB,
                                .used_bytes = rows[i].used * MIB,
                                .ours_bytes = rows[i].ours * MIB,
                                .n_displays = rows[i].displays};
        CHECK_INT(vram_ceiling(&s, rows[i].reserve * MIB) / MIB, rows[i].want);
    }
}

static void it_falls_at_once_and_rises_when_it_is_calm(void)
{
    struct vram_watch w = {0};
    struct vram_sample s = {.total_bytes = 20480 * MIB, .n_displays = 1};
    uint64_t now = 1000;
    s.used_bytes = 8192 * MIB;
    CHECK_INT(vram_observe(&w, &s, 4096 * MIB, now, VRAM_CALM_MS) / MIB, 12032);
    s.used_bytes = 12288 * MIB; /* a game begins */
    CHECK_INT(vram_observe(&w, &s, 4096 * MIB, now += 1000, VRAM_CALM_MS) / MIB, 7936);
    s.used_bytes = 2048 * MIB; /* and ends */
    for (int i = 0; i < 29; i++) {
        CHECK_INT(vram_observe(&w, &s, 4096 * MIB, now += 1000, VRAM_CALM_MS) / MIB, 7936);
    }
    CHECK_INT(vram_observe(&w, &s, 4096 * MIB, now += 1000, VRAM_CALM_MS) / MIB, 16384);
    for (int i = 0; i < 100; i++) { /* one that comes and goes takes it once */
        s.used_bytes = (i % 10 == 0 ? 12288 : 2048) * MIB;
        CHECK_INT(vram_observe(&w, &s, 4096 * MIB, now += 1000, VRAM_CALM_MS) / MIB, 7936);
    }
}

static void what_was_spilled(void)
{
    struct vram_spill w = {0};
    struct vram_sample s = {
        .total_bytes = 20480 * MIB, .used_bytes = 8192 * MIB, .gtt_bytes = 300 * MIB};
    CHECK_INT(vram_spill(&w, &s), 0);
    s.gtt_bytes = 500 * MIB; /* buffers of the runtime's, while the card has room */
    CHECK_INT(vram_spill(&w, &s), 0);
    s.used_bytes = 20400 * MIB;
    s.gtt_bytes = 510 * MIB;
    CHECK_INT(vram_spill(&w, &s), 0);
    s.gtt_bytes = 1500 * MIB; /* it grows while the card is full */
    CHECK_INT(vram_spill(&w, &s) / MIB, 1000);
    s.spilled_bytes = 1200 * MIB; /* the driver knows better */
    CHECK_INT(vram_spill(&w, &s) / MIB, 1200);
    s.spilled_bytes = 0;
    s.gtt_bytes = 400 * MIB;
    CHECK_INT(vram_spill(&w, &s), 0);
    s.gtt_bytes = 450 * MIB;
    CHECK_INT(vram_spill(&w, &s) / MIB, 50);
    s.used_bytes = 4096 * MIB; /* the game is over: what is there now is ours by choice */
    CHECK_INT(vram_spill(&w, &s), 0);
    w = (struct vram_spill){0};
    s.total_bytes = s.used_bytes = s.gtt_bytes = 0;
    CHECK_INT(vram_spill(&w, &s), 0);
}

static void the_ladder(void)
{
    struct vram_holdings h = {
        .kv_bytes = 1000,
        .kv_least_bytes = 400,
        .n_models = 4,
        .models = {{500, 30, true}, {700, 10, true}, {900, 5, false}, {100, 20, true}}};
    struct vram_plan p = vram_give_back(&h, 0);
    CHECK(p.kv_bytes == 0 && p.left_bytes == 0 && !p.unloads[1]);
    p = vram_give_back(&h, 600);
    CHECK(p.kv_bytes == 600 && !p.unloads[1] && p.left_bytes == 0);
    p = vram_give_back(&h, 601); /* then the idle model that was unused longest */
    CHECK(p.kv_bytes == 600 && p.unloads[1] && !p.unloads[3] && !p.unloads[0]);
    p = vram_give_back(&h, 600 + 700 + 100 + 1);
    CHECK(p.unloads[1] && p.unloads[3] && p.unloads[0] && !p.unloads[2] && p.left_bytes == 0);
    p = vram_give_back(&h, 600 + 1300 + 5);
    CHECK_INT(p.left_bytes, 5);
    h.kv_least_bytes = 5000; /* sequences cannot hold more than there is, but say so */
    CHECK_INT(vram_give_back(&h, 1).kv_bytes, 0);
}

static void a_look(void)
{
    struct gpu g = {.pci = "0000:03:00.0", .render_minor = 128};
    struct vram_sample s;
    CHECK(probe_vram_read(root, &g, 7, &s) == -ENOENT);
    tree_put(root, "/sys/class/drm/renderD128/device/mem_info_vram_total", "21474836480\n");
    CHECK(probe_vram_read(root, &g, 7, &s) == -ENOENT);
    tree_put(root, "/sys/class/drm/renderD128/device/mem_info_vram_used", "nonsense\n");
    CHECK(probe_vram_read(root, &g, 7, &s) == -EINVAL);
    tree_put(root, "/sys/class/drm/renderD128/device/mem_info_vram_used", "8589934592\n");
    CHECK_INT(probe_vram_read(root, &g, 7, &s), 0);
    CHECK(s.total_bytes == 20480 * MIB && s.used_bytes == 8192 * MIB && s.ours_bytes == 0);
    CHECK_INT(s.n_displays, 0);
    CHECK_INT(s.busy_percent, -1);
    tree_put(root, "/sys/class/drm/renderD128/device/gpu_busy_percent", "42\n");
    tree_put(root, "/sys/class/drm/card0/device/drm/renderD129/dev", "226:129\n");
    tree_put(root, "/sys/class/drm/card0-DP-1/status", "connected\n");
    tree_put(root, "/sys/class/drm/card1/device/drm/renderD128/dev", "226:128\n");
    tree_put(root, "/sys/class/drm/card1-DP-1/status", "connected\n");
    tree_put(root, "/sys/class/drm/card1-HDMI-A-1/status", "disconnected\n");
    tree_put(root, "/sys/class/drm/card1-DP-2/status", "connected\n");
    tree_put(root, "/sys/class/drm/card10-DP-2/status", "connected\n");
    tree_put(root, "/proc/7/fdinfo/0", "pos:\t0\n");
    tree_put(root, "/proc/7/fdinfo/5",
             "drm-driver:\tamdgpu\ndrm-client-id:\t12\ndrm-pdev:\t0000:03:00.0\n"
             "drm-memory-vram:\t3145728 KiB\ndrm-memory-gtt: \t2048 KiB\n"
             "amd-evicted-vram:\t0 KiB\n");
    tree_put(root, "/proc/7/fdinfo/6", "drm-client-id:\t12\ndrm-pdev:\t0000:03:00.0\n"
                            "drm-memory-vram:\t3145728 KiB\n"); /* the same client once more */
    tree_put(root, "/proc/7/fdinfo/7", "drm-client-id:\t13\ndrm-pdev:\t0000:03:00.0\n"
                            "drm-memory-vram:\t1 MiB\namd-evicted-vram:\t512 KiB\n");
    tree_put(root, "/proc/7/fdinfo/8", "drm-client-id:\t14\ndrm-pdev:\t0000:0e:00.0\n"
                            "drm-memory-vram:\t999 MiB\n"); /* another card */
    CHECK_INT(probe_vram_read(root, &g, 7, &s), 0);
    CHECK_INT(s.ours_bytes / MIB, 3073);
    CHECK_INT(s.gtt_bytes, 2 * MIB);
    CHECK_INT(s.spilled_bytes, 512 * 1024);
    CHECK_INT(s.n_displays, 2);
    CHECK_INT(s.busy_percent, 42);
    tree_put(root, "/proc/7/fdinfo/9",
             "drm-client-id:\t15\ndrm-pdev:\t0000:03:00.0\n"
             "drm-resident-vram:\t8 MiB\ndrm-resident-gtt:\t4096\n"); /* newer names */
    CHECK_INT(probe_vram_read(root, &g, 7, &s), 0);
    CHECK_INT(s.ours_bytes / MIB, 3081);
    CHECK_INT(s.gtt_bytes, 2 * MIB + 4096);
    CHECK_INT(vram_others(&s) / MIB, 8192 - 3081);
}

int main(void)
{
    CHECK(mkdtemp(root));
    the_ceiling_leaves_the_desktop_its_share();
    it_falls_at_once_and_rises_when_it_is_calm();
    what_was_spilled();
    the_ladder();
    a_look();
    tree_remove(root);
    return 0;
}
