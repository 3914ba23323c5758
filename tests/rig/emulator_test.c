/* The emulator catches every kind of planted fault, says which it is, and finds nothing in the sound form, in any order;
 * waves and matrices compute what they should. */
#include "tests/rig/emulator.h"

#include "tests/rig/faults.h"
#include "tests/test.h"

extern const struct gpu_host_kernel fault_kernel;

static bool run(enum fault_kind kind, int n_blocks, uint64_t seed, float *y)
{
    float x[FAULTS_THREADS];
    for (int i = 0; i < FAULTS_THREADS; i++) {
        x[i] = (float)i;
    }
    struct fault_args a = {.kind = (int32_t)kind};
    size_t y_bytes = (size_t)n_blocks * sizeof x;
    void *device_x = emulator_alloc(sizeof x, 0), *device_y = emulator_alloc(y_bytes, 0);
    emulator_upload(device_x, x, sizeof x);
    a.x = device_x;
    a.y = device_y;
    struct emulator_grid grid = {.x = n_blocks, .y = 1, .z = 1, .seed = seed};
    bool is_sound = emulator_launch(&fault_kernel, &grid, &a, sizeof a);
    if (is_sound && y) {
        emulator_download(y, device_y, y_bytes);
    }
    emulator_free(device_x);
    emulator_free(device_y);
    return is_sound;
}

static void test_sound(void)
{
    for (uint64_t seed = 0; seed < 8; seed++) {
        float y[3 * FAULTS_THREADS];
        if (!run(FAULT_NONE, 3, seed, y)) {
            TEST_FAIL("seed %d: %s", (int)seed, emulator_fault());
        }
        for (int i = 0; i < 3 * FAULTS_THREADS; i++) {
            CHECK(y[i] == (float)(FAULTS_THREADS - 1 - (i % FAULTS_THREADS ^ 1)));
        }
    }
}

static void test_faults(void)
{
    static const struct {
        enum fault_kind kind;
        bool by_checker; /* needs the checker */
        const char *text;
    } faults[] = {
        {FAULT_READ_PAST_END, true, "thread 63: reads 4 bytes outside every buffer"},
        {FAULT_WRITE_BEFORE_START, true, "thread 0: writes 4 bytes outside every buffer"},
        {FAULT_READ_WILD, true, "reads 4 bytes outside"},
        {FAULT_NULL, true, "thread 5: reads 4 bytes outside"},
        {FAULT_READ_UNWRITTEN, true, "reads what nobody wrote"},
        {FAULT_SHARED_UNWRITTEN, true, "reads what nobody wrote"},
        {FAULT_SHARED_PAST_END, true, "writes 4 bytes outside every buffer"},
        {FAULT_SHARED_TOO_LARGE, false, "large: more than 65536 bytes of shared memory"},
        {FAULT_MISALIGNED_16, true, "reads 16 bytes misaligned"},
        {FAULT_MISALIGNED_4, true, "reads 4 bytes misaligned"},
        {FAULT_NO_BARRIER, true, "nobody wrote"},
        {FAULT_NO_SECOND_BARRIER, true, "another thread wrote without a barrier"},
        {FAULT_NO_WAVE_SYNC, true, "another thread read without a barrier"},
        {FAULT_BARRIER_ORDERS_NO_GLOBAL, true, "another thread wrote without a barrier"},
        {FAULT_BLOCKS_MEET, true, "another thread wrote without a barrier"},
        {FAULT_DIVIDED_WAVE, false, "the wave is divided"},
        {FAULT_DIVIDED_ENDED, false, "the wave is divided: this lane is at its end"},
        {FAULT_BARRIER_OF_SOME, false, "the barrier is not for all"},
        {FAULT_BARRIER_OTHERS_ENDED, false, "the barrier is not for all"},
    };
    _Static_assert(COUNT_OF(faults) == FAULT_COUNT - 1, "every fault");
    for (size_t i = 0; i < COUNT_OF(faults); i++) {
        if (faults[i].by_checker && !emulator_has_checker()) {
            continue; /* under AddressSanitizer some of these end the program, as they should */
        }
        if (run(faults[i].kind, 2, 0, NULL)) {
            TEST_FAIL("fault %d was not caught", (int)faults[i].kind);
        }
        if (!strstr(emulator_fault(), faults[i].text)) {
            TEST_FAIL("fault %d: %s", (int)faults[i].kind, emulator_fault());
        }
        CHECK(strstr(emulator_fault(), "fault: block (") == emulator_fault());
    }
    CHECK(run(FAULT_NONE, 1, 0, NULL)); /* sound after all that */
}

int main(void)
{
    test_sound();
    test_faults();
    return 0;
}
