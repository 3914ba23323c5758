/* From configuration to an engine: what every tool with a model, and the worker itself, reads. */
#ifndef WORKER_SETUP_H
#define WORKER_SETUP_H

#include "shared/config.h"
#include "worker/engine.h"

/* The settings that every tool with a model takes. */
extern const enum config_key setup_keys[];
extern const size_t setup_n_keys;

/* The one model of the configuration (strings owned by the caller); ERR_USAGE when there is none or
 * more than one. */
MUST_CHECK int setup_model(const struct config *c, char **ret_name, char **ret_path, struct err *e);

/* Engine options from the configuration. ERR_NO_GPU for --device gpu (the worker has no GPU engine
 * in this build), ERR_CONFIG for an instruction set this CPU has not. */
MUST_CHECK int setup_engine(const struct config *c, struct engine_options *ret, struct err *e);

#endif
