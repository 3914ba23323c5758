/* Which build this program is. */
#ifndef WORKER_BUILD_ID_H
#define WORKER_BUILD_ID_H

#include "shared/base.h"

/* The linker's digest of the program (the note GNU_BUILD_ID): another build has another one.
 * Static. Where it was linked without: the version's text. */
const void *build_id(size_t *ret_bytes);

#endif
