/* State as JSON (see report.h). Token loop; never blocks. */
#include "worker/report.h"
#include "shared/json.h"

#include <stdio.h>
#include <string.h>

static void put_number(struct buf *b, const char *key, double v)
{
    buf_printf(b, "\"%s\":", key);
    json_put_number(b, v);
    buf_char(b, ',');
}

static void put_params(const struct msg_generate *g, struct buf *b)
{
    buf_printf(b, "\"params\":{\"seed\":%llu,", (unsigned long long)g->seed);
    put_number(b, "temperature", (double)g->temperature);
    put_number(b, "top_p", (double)g->top_p);
    put_number(b, "min_p", (double)g->min_p);
    put_number(b, "typical_p", (double)g->typical_p);
    put_number(b, "repeat_penalty", (double)g->repeat_penalty);
    put_number(b, "presence_penalty", (double)g->presence_penalty);
    put_number(b, "frequency_penalty", (double)g->frequency_penalty);
    buf_printf(b, "\"top_k\":%d,\"repeat_last_n\":%d,\"n_predict\":%lld,\"ignore_eos\":%s}",
               g->top_k, g->repeat_last_n,
               g->max_tokens || (g->flags & MSG_PROMPT_ONLY) ? (long long)g->max_tokens : -1ll,
               g->flags & MSG_IGNORE_EOS ? "true" : "false");
}

static void put_work(const struct choice *c, struct buf *b)
{
    const struct request *r = c->request;
    int64_t n_stands = engine_seq_length(c->seq);
    int64_t n_prompt_done = MIN(n_stands, r->n_prompt);
    buf_printf(b, ",\"id_task\":%llu,\"choice\":%u,\"n_prompt_tokens\":%lld,",
               (unsigned long long)r->id, c->number, (long long)r->n_prompt);
    buf_printf(b, "\"n_prompt_tokens_processed\":%lld,\"n_prompt_tokens_cache\":%lld,",
               (long long)MAX(n_prompt_done - r->n_cached, 0), (long long)r->n_cached);
    put_params(&r->generate, b);
    buf_printf(b,
               ",\"next_token\":[{\"has_next_token\":true,\"n_remain\":%lld,\"n_decoded\":%lld}]",
               (long long)(c->n_max - c->n_ids), (long long)c->n_ids);
}

void report_slots(const struct model *m, const struct scheduler *s, int64_t n_seqs,
                  int64_t first_id, struct buf *b)
{
    int n_running = scheduler_n_running(s);
    for (int64_t i = 0; i < n_seqs; i++) {
        buf_printf(b, "%s{\"id\":%lld,\"model\":", first_id + i ? "," : "",
                   (long long)(first_id + i));
        json_put_string(b, m->name, strlen(m->name));
        buf_printf(b, ",\"n_ctx\":%lld,\"speculative\":false,\"is_processing\":%s",
                   (long long)m->n_ctx, i < n_running ? "true" : "false");
        if (i < n_running) {
            put_work(scheduler_running(s, (int)i), b);
        }
        buf_char(b, '}');
    }
}

static void put_text(struct buf *b, const char *key, const char *text, size_t n)
{
    buf_printf(b, ",\"%s\":", key);
    json_put_string(b, text ? text : "", text ? n : 0);
}

void report_devices(const struct models *m, char *ret, size_t n)
{
    size_t used = 0;
    *ret = 0;
    for (size_t i = 0; i < m->n && used < n; i++) {
        if (m->v[i].engine) {
            used += (size_t)snprintf(ret + used, n - used, "%s%s: %s", used > 0 ? "; " : "",
                                     m->v[i].name, engine_info(m->v[i].engine)->device);
        }
    }
}

void report_props(const struct model *m, int64_t n_seqs, struct buf *b)
{
    const struct engine_info *info = m->engine ? engine_info(m->engine) : NULL;
    struct gguf_str template = {0};
    struct err e;
    buf_printf(b, "{\"default_generation_settings\":{\"n_ctx\":%lld},\"total_slots\":%lld",
               (long long)m->n_ctx, (long long)n_seqs);
    put_text(b, "model_alias", m->name, strlen(m->name));
    put_text(b, "model_path", m->path, strlen(m->path));
    put_text(b, "model_ftype", m->card.quant, strlen(m->card.quant));
    buf_printf(b, ",\"is_sleeping\":%s", info ? "false" : "true"); /* loaded when asked for */
    put_text(b, "bos_token", m->bos_text, m->bos_text ? strlen(m->bos_text) : 0);
    put_text(b, "eos_token", m->eos_text, m->eos_text ? strlen(m->eos_text) : 0);
    const struct gguf *g = info ? engine_gguf(m->engine) : NULL;
    if (g && gguf_get_str(g, "tokenizer.chat_template", &template, &e) == 0) {
        put_text(b, "chat_template", template.data, template.len);
    }
    buf_str(b, ",\"endpoint_slots\":true,\"endpoint_props\":false,\"endpoint_metrics\":true,"
               "\"modalities\":{\"vision\":false,\"video\":false,\"audio\":false},\"build_info\":"
               "\"rocmforge " ROCMFORGE_VERSION "\"");
    if (info) {
        buf_printf(b,
                   ",\"kv_cache\":{\"blocks\":%lld,\"free_blocks\":%lld,\"block_tokens\":%d,"
                   "\"bytes\":%llu}",
                   (long long)info->n_blocks, (long long)engine_free_blocks(m->engine),
                   ENGINE_BLOCK_TOKENS, (unsigned long long)info->kv_bytes);
        put_text(b, "device", info->device, strlen(info->device));
        buf_str(b, ",\"placement\":");
        engine_put_placement(m->engine, b);
        buf_str(b, ",\"gpu_ways\":");
        engine_put_ways(m->engine, b);
        buf_str(b, ",\"op_profile\":");
        engine_put_profile(m->engine, b);
    }
    buf_char(b, '}');
}
