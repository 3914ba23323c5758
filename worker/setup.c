/* From configuration to an engine. Pure. */
#include "worker/setup.h"

#include "shared/num.h"

#include <stdio.h>
#include <string.h>

const enum config_key setup_keys[] = {
    CONFIG_model,       CONFIG_device,    CONFIG_gpu_layers,      CONFIG_isa,
    CONFIG_threads,     CONFIG_ctx_size,  CONFIG_kv_type,         CONFIG_parallel,
    CONFIG_chunk_size,  CONFIG_kv_memory, CONFIG_kv_memory_share, CONFIG_vram_reserve,
    CONFIG_kernel_dir,  CONFIG_safe_mode, CONFIG_gpu_fusion,      CONFIG_gpu_lock_timeout,
    CONFIG_gpu_timeout,
};
const size_t setup_n_keys = COUNT_OF(setup_keys);

int setup_model(const struct config *c, char **ret_name, char **ret_path, struct err *e)
{
    const struct config_list *models = &c->v[CONFIG_model].list;
    if (models->n != 1) {
        return err_set(e, ERR_USAGE, "%zu models given, one is needed (-m FILE)", models->n);
    }
    return config_model(models->items[0], ret_name, ret_path, e);
}

int setup_engine(const struct config *c, struct engine_options *ret, struct err *e)
{
    static const enum type kv_types[] = {TYPE_F32, TYPE_F16, TYPE_BF16,
                                         TYPE_Q8_0}; /* order of config.def */
    int isa = isa_by_name(c->v[CONFIG_isa].str);
    if (isa < 0 || isa > (int)isa_detect()) {
        return err_set(e, ERR_CONFIG, "isa is '%s', but this CPU goes up to '%s'",
                       c->v[CONFIG_isa].str, isa_name(isa_detect()));
    }
    const char *layers = c->v[CONFIG_gpu_layers].str;
    size_t n = strlen(layers);
    bool is_halved = n > 2 && strcmp(layers + n - 2, "/2") == 0;
    char number[24];
    snprintf(number, sizeof number, "%.*s", (int)MIN(is_halved ? n - 2 : n, sizeof number), layers);
    uint64_t n_layers = UINT64_MAX;
    if (strcmp(number, "auto") != 0 &&
        (!num_parse_u64(number, &n_layers) || n_layers > INT32_MAX)) {
        return err_set(e, ERR_CONFIG, "gpu_layers is '%s', which is neither a number nor 'auto'",
                       layers);
    }
    *ret = (struct engine_options){
        .gpu_layers = n_layers <= INT32_MAX ? (int64_t)n_layers : -1,
        .is_gpu_halved = is_halved,
        .n_threads = (int)c->v[CONFIG_threads].i,
        .isa = (enum isa)isa,
        .kv_type = kv_types[c->v[CONFIG_kv_type].i],
        .n_ctx = c->v[CONFIG_ctx_size].i,
        .n_seqs = c->v[CONFIG_parallel].i,
        .max_rows = c->v[CONFIG_chunk_size].i,
        .max_logits = c->v[CONFIG_parallel].i,
        .kv_memory_bytes = (uint64_t)c->v[CONFIG_kv_memory].i << 20,
        .kv_memory_share = c->v[CONFIG_kv_memory_share].num,
        .profile_every = c->v[CONFIG_profile_every].i,
        .is_unfused = strcmp(c->v[CONFIG_gpu_fusion].str, "off") == 0,
        .is_safe = strcmp(c->v[CONFIG_safe_mode].str, "on") == 0,
    };
    return 0;
}
