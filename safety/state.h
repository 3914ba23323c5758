/* The folder where we keep what outlives us: crash reports. */
#ifndef SAFETY_STATE_H
#define SAFETY_STATE_H

#include "shared/base.h"

/* The setting where there is one; else the first that the environment gives: $STATE_DIRECTORY (of a
 * system service), $XDG_STATE_HOME/rocmforge, $HOME/.local/state/rocmforge. "" where there is none,
 * or its path is longer than ret. Makes nothing. */
void state_dir(const char *setting, char *ret, size_t bytes);

#endif
