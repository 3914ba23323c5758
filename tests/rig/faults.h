/* Kernels with one fault each, to be caught, and their sound forms. */
#ifndef TESTS_RIG_FAULTS_H
#define TESTS_RIG_FAULTS_H

#include <stdint.h>

enum { FAULTS_THREADS = 64 };
struct fault_args {
    const float *x; /* 64 floats, plus what a kind says */
    float *y;       /* 64 floats */
    int32_t kind;
};
enum fault_kind {
    FAULT_NONE,
    FAULT_READ_PAST_END,
    FAULT_WRITE_BEFORE_START,
    FAULT_READ_WILD,
    FAULT_NULL,
    FAULT_READ_UNWRITTEN,
    FAULT_SHARED_UNWRITTEN,
    FAULT_SHARED_PAST_END,
    FAULT_SHARED_TOO_LARGE,
    FAULT_MISALIGNED_16,
    FAULT_MISALIGNED_4,
    FAULT_NO_BARRIER,
    FAULT_NO_SECOND_BARRIER,
    FAULT_NO_WAVE_SYNC,
    FAULT_BARRIER_ORDERS_NO_GLOBAL,
    FAULT_BLOCKS_MEET,
    FAULT_DIVIDED_WAVE,
    FAULT_DIVIDED_ENDED,
    FAULT_BARRIER_OF_SOME,
    FAULT_BARRIER_OTHERS_ENDED,
    FAULT_COUNT
};

#endif
