/* Between the emulator's two files: who runs, and the memory that kernels see. */
#ifndef TESTS_RIG_EMULATOR_MEMORY_H
#define TESTS_RIG_EMULATOR_MEMORY_H

#include "shared/base.h"

/* Gives up the running thread's block; does not return. */
__attribute__((noreturn, format(printf, 1, 2))) void emulator_thread_fault(const char *format, ...);
bool emulator_is_running(void);
bool emulator_on_stack(const void *p); /* of the running thread */

void emulator_memory_launch(void);
void emulator_memory_block(int n_threads);
void emulator_memory_barrier(int thread);
void emulator_memory_wave_sync(int thread);

#endif
