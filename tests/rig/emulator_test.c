/* The emulator catches every kind of planted fault, says which it is, and finds nothing in the
 * sound form, in any order; waves and matrices compute what they should. */
#include "tests/rig/emulator.h"

#include "tests/rig/faults.h"
#include "tests/rig/words.h"
#include "tests/test.h"

extern const struct gpu_host_kernel fault_kernel, words_kernel;

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

/* Small integers, so that every order of a sum gives the same number. */
static void test_words(int matrix)
{
    uint16_t a16[256], b16[256];
    int8_t a8[256], b8[256];
    uint64_t seed = 3;
    for (int i = 0; i < 256; i++) {
        a16[i] = half_from_f32((float)((int)(test_random(&seed) % 65) - 32));
        b16[i] = half_from_f32((float)((int)(test_random(&seed) % 65) - 32));
        a8[i] = (int8_t)test_random(&seed);
        b8[i] = (int8_t)test_random(&seed);
    }
    float d16[256], lanes[128];
    int32_t d8[256], d32[256], few[128], numbers[96];
    uint32_t words[128];
    int32_t places[128];
    const struct {
        void *host;
        size_t n;
        bool is_in;
    } parts[] = {{a16, sizeof a16, true},      {b16, sizeof b16, true},
                 {a8, sizeof a8, true},        {b8, sizeof b8, true},
                 {d16, sizeof d16, false},     {d8, sizeof d8, false},
                 {d32, sizeof d32, false},     {words, sizeof words, false},
                 {places, sizeof places, false}, {few, sizeof few, false},
                 {lanes, sizeof lanes, false}, {numbers, sizeof numbers, false}};
    void *device[COUNT_OF(parts)];
    for (size_t i = 0; i < COUNT_OF(parts); i++) {
        device[i] = emulator_alloc(parts[i].n, 0);
        if (parts[i].is_in) {
            emulator_upload(device[i], parts[i].host, parts[i].n);
        }
    }
    struct words_args a = {device[0], device[1], device[2], device[3], device[4], device[5],
                           device[6], device[7], device[8], device[9], device[10], device[11]};
    struct emulator_grid grid = {.x = 1, .y = 1, .z = 1, .matrix = matrix};
    if (!emulator_launch(&words_kernel, &grid, &a, sizeof a)) {
        TEST_FAIL("%s", emulator_fault());
    }
    for (size_t i = 0; i < COUNT_OF(parts); i++) {
        if (!parts[i].is_in) {
            emulator_download(parts[i].host, device[i], parts[i].n);
        }
        emulator_free(device[i]);
    }
    float sum = 0, largest = -1e9f;
    for (int i = 0; i < 256; i++) {
        float exact = 0;
        int32_t whole = 0, both = 7;
        for (int k = 0; k < 16; k++) {
            exact += half_to_f32(a16[i / 16 * 16 + k]) * half_to_f32(b16[i % 16 * 16 + k]);
            whole += a8[i / 16 * 16 + k] * b8[i % 16 * 16 + k];
            both += a8[i / 16 * 16 + k] * b8[i % 16 * 16 + k] +
                    b8[i / 16 * 16 + k] * a8[i % 16 * 16 + k];
        }
        CHECK(d16[i] == exact);
        CHECK_INT(d8[i], whole);
        CHECK_INT(d32[i], both);
        CHECK_INT(few[i % 128], few[i % 128 / 16 * 16]); /* the whole row of D, ... */
    }
    for (int i = 0; i < 128; i++) {
        CHECK(places[i] < 0 || memcmp(&words[i], a8 + 4 * places[i], 4) == 0);
    }
    for (int i = 1; i < 8; i++) {
        CHECK(few[16 * i] > few[16 * i - 16] && few[16 * i] < 16); /* eight of the 16 */
    }
    for (int i = 0; i < 32; i++) {
        sum += half_to_f32(a16[i]);
        largest = fmaxf(largest, half_to_f32(a16[i]));
    }
    for (int i = 0; i < 32; i++) {
        int32_t dot = i;
        uint32_t pick = 0;
        for (int k = 0; k < 4; k++) {
            dot += a8[4 * i + k] * b8[4 * i + k];
            pick |= (uint32_t)(uint8_t)a8[4 * i + (b8[4 * i + k] & 7)] << 8 * k;
        }
        CHECK(lanes[i] == sum && lanes[32 + i] == largest);
        CHECK(lanes[64 + i] == half_to_f32(a16[i * 5 % 32]));
        CHECK(lanes[96 + i] == half_to_f32(a16[i ^ 12]));
        CHECK(numbers[i] == 31 * 32 * 63 / 6 && numbers[32 + i] == dot &&
              numbers[64 + i] == (int32_t)pick);
    }
}

int main(void)
{
    test_words(11);
    test_words(12);
    test_sound();
    test_faults();
    return 0;
}
