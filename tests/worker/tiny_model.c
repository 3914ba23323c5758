#include "tests/worker/tiny_model.h"

#include "kernels/quant.h"
#include "shared/ggufw.h"
#include "shared/hash.h"
#include "tests/test.h"

/* Key values: 12 is a u32, 1.5 an f32, true a bool, [1,0] an array of i32, anything else a string.
 * Common: width 32, 4 heads over 2 KV heads of 8, vocabulary 40. */
#define HEADS "attention.head_count=4 attention.head_count_kv=2 "
#define RMS "attention.layer_norm_rms_epsilon=0.00001 "
#define LAYER_NORM "attention.layer_norm_epsilon=0.00001 "
#define EXPERTS "expert_count=4 expert_used_count=2 expert_feed_forward_length=16 "
#define ENDS "/output_norm.weight:32 /output.weight:32,40 attn_norm.weight:32 "
#define ATTN                                                                                       \
    "attn_q.weight:32,32 attn_k.weight:32,16 attn_v.weight:32,16 attn_output.weight:32,32 "
#define FFN "ffn_norm.weight:32 ffn_gate.weight:32,48 ffn_up.weight:32,48 ffn_down.weight:48,32 "
#define MOE                                                                                        \
    "ffn_norm.weight:32 ffn_gate_inp.weight:32,4 ffn_gate_exps.weight:32,16,4 "                    \
    "ffn_up_exps.weight:32,16,4 ffn_down_exps.weight:16,32,4 "
#define MOE_WIDE                                                                                   \
    "ffn_norm.weight:32 ffn_gate_inp.weight:32,4 ffn_gate_exps.weight:32,48,4 "                    \
    "ffn_up_exps.weight:32,48,4 ffn_down_exps.weight:48,32,4 "
#define SHARED                                                                                     \
    "ffn_gate_shexp.weight:32,16 ffn_up_shexp.weight:32,16 ffn_down_shexp.weight:16,32 "
#define ROTATED "rope.dimension_count=8 rope.freq_base=10000.0 "
#define MLA_ATTN                                                                                   \
    "attn_q_a.weight:32,16 attn_q_a_norm.weight:16 attn_q_b.weight:16,64 "                         \
    "attn_kv_a_mqa.weight:32,24 attn_kv_a_norm.weight:16 attn_output.weight:32,32 "
#define DELTA                                                                                      \
    "ssm.conv_kernel=4 ssm.inner_size=64 ssm.state_size=16 ssm.time_step_rank=4 ssm.group_count=2 "\
    "attention.recurrent_layers=[1,0] attention.key_length=8 attention.value_length=8 "
#define DELTA_LAYERS                                                                               \
    "post_attention_norm.weight:32 0:attn_qkv.weight:32,128 0:attn_gate.weight:32,64 "             \
    "0:ssm_conv1d.weight:4,128 0:ssm_dt.bias:4 0:ssm_a:4 0:ssm_norm.weight:16 "                    \
    "0:ssm_out.weight:64,32 1:attn_q.weight:32,64 1:attn_k.weight:32,16 1:attn_v.weight:32,16 "    \
    "1:attn_q_norm.weight:8 1:attn_k_norm.weight:8 1:attn_output.weight:32,32 "

const struct tiny_model tiny_models[] = {
    {"llama", "llama", 2, HEADS RMS ROTATED, ENDS ATTN FFN},
    {"llama-yarn", "llama", 2,
     HEADS RMS ROTATED "rope.scaling.type=yarn rope.scaling.factor=4.0 "
                       "rope.scaling.original_context_length=16",
     ENDS ATTN FFN},
    {"llama-linear", "llama", 2,
     HEADS RMS ROTATED "rope.scaling.type=linear rope.scaling.factor=4.0",
     ENDS ATTN FFN "/rope_freqs.weight:4 attn_q.bias:32 attn_k.bias:16 attn_v.bias:16 "},
    {"internlm2", "internlm2", 2, HEADS RMS ROTATED, ENDS ATTN FFN},
    {"olmoe", "olmoe", 2, "attention.head_count=4 attention.head_count_kv=4 " RMS ROTATED EXPERTS,
     ENDS "attn_q.weight:32,32 attn_k.weight:32,32 attn_v.weight:32,32 attn_output.weight:32,32 "
          "attn_q_norm.weight:32 attn_k_norm.weight:32 " MOE_WIDE},
    {"baichuan-7b", "baichuan", 32, "attention.head_count=4 attention.head_count_kv=4 " RMS ROTATED,
     ENDS
     "attn_q.weight:32,32 attn_k.weight:32,32 attn_v.weight:32,32 attn_output.weight:32,32 " FFN},
    {"baichuan-13b", "baichuan", 40,
     "attention.head_count=4 attention.head_count_kv=4 " RMS ROTATED,
     ENDS
     "attn_q.weight:32,32 attn_k.weight:32,32 attn_v.weight:32,32 attn_output.weight:32,32 " FFN},
    {"starcoder2", "starcoder2", 2, HEADS LAYER_NORM ROTATED,
     ENDS ATTN
     "/output_norm.bias:32 attn_norm.bias:32 attn_q.bias:32 attn_k.bias:16 attn_v.bias:16 "
     "attn_output.bias:32 ffn_norm.weight:32 ffn_norm.bias:32 ffn_up.weight:32,48 "
     "ffn_up.bias:48 ffn_down.weight:48,32 ffn_down.bias:32 "},
    {"stablelm", "stablelm", 2,
     HEADS LAYER_NORM "rope.dimension_count=4 rope.freq_base=10000.0 use_parallel_residual=false",
     ENDS ATTN FFN "/output_norm.bias:32 attn_norm.bias:32 ffn_norm.bias:32 "},
    {"stablelm-parallel", "stablelm", 2,
     HEADS LAYER_NORM "rope.dimension_count=4 rope.freq_base=10000.0 use_parallel_residual=true",
     ENDS ATTN
     "/output_norm.bias:32 attn_norm.bias:32 attn_q_norm.weight:8,4 attn_k_norm.weight:8,2 "
     "ffn_gate.weight:32,48 ffn_up.weight:32,48 ffn_down.weight:48,32 "},
    {"command-r", "command-r", 2, HEADS LAYER_NORM ROTATED "logit_scale=0.25",
     "/output_norm.weight:32 attn_norm.weight:32 " ATTN
     "ffn_gate.weight:32,48 ffn_up.weight:32,48 ffn_down.weight:48,32 "},
    {"gemma3", "gemma3", 4,
     HEADS RMS "rope.dimension_count=8 rope.freq_base=1000000.0 rope.scaling.type=linear "
               "rope.scaling.factor=8.0 attention.sliding_window=6 "
               "attention.sliding_window_pattern=2 attention.key_length=8 attention.value_length=8",
     "/output_norm.weight:32 attn_norm.weight:32 attn_q_norm.weight:8 attn_k_norm.weight:8 "
     "post_attention_norm.weight:32 post_ffw_norm.weight:32 " ATTN FFN},
    {"granitemoe", "granitemoe", 2,
     HEADS RMS ROTATED EXPERTS "expert_shared_feed_forward_length=16 logit_scale=2.0 "
                               "residual_scale=0.5 embedding_scale=3.0 attention.scale=0.25",
     ENDS ATTN MOE_WIDE SHARED},
    {"lfm2moe", "lfm2moe", 3,
     "attention.head_count=4 attention.head_count_kv=[0,2,0] " RMS ROTATED EXPERTS
     "shortconv.l_cache=3 leading_dense_block_count=1 expert_gating_func=2",
     "/token_embd_norm.weight:32 attn_norm.weight:32 ffn_norm.weight:32 "
     "0:shortconv.in_proj.weight:32,96 0:shortconv.conv.weight:3,32 "
     "0:shortconv.out_proj.weight:32,32 "
     "2:shortconv.in_proj.weight:32,96 2:shortconv.conv.weight:3,32 "
     "2:shortconv.out_proj.weight:32,32 "
     "1:attn_q.weight:32,32 1:attn_k.weight:32,16 1:attn_v.weight:32,16 1:attn_output.weight:32,32 "
     "1:attn_q_norm.weight:8 1:attn_k_norm.weight:8 "
     "0:ffn_gate.weight:32,48 0:ffn_up.weight:32,48 0:ffn_down.weight:48,32 "
     "1:ffn_gate_inp.weight:32,4 1:ffn_gate_exps.weight:32,16,4 1:ffn_up_exps.weight:32,16,4 "
     "1:ffn_down_exps.weight:16,32,4 1:exp_probs_b.bias:4 "
     "2:ffn_gate_inp.weight:32,4 2:ffn_gate_exps.weight:32,16,4 2:ffn_up_exps.weight:32,16,4 "
     "2:ffn_down_exps.weight:16,32,4 2:exp_probs_b.bias:4 "},
    {"deepseek2", "deepseek2", 2,
     "attention.head_count=4 attention.head_count_kv=1 " RMS EXPERTS
     "leading_dense_block_count=1 expert_shared_count=1 attention.q_lora_rank=16 "
     "attention.kv_lora_rank=16 attention.key_length=24 attention.value_length=16 "
     "attention.key_length_mla=16 attention.value_length_mla=8 rope.dimension_count=8 "
     "rope.freq_base=10000.0 rope.scaling.type=yarn rope.scaling.factor=4.0 "
     "rope.scaling.original_context_length=16 rope.scaling.yarn_log_multiplier=0.0707 "
     "expert_weights_scale=1.5 expert_weights_norm=true expert_gating_func=2",
     ENDS MLA_ATTN
     "attn_k_b.weight:8,16,4 attn_v_b.weight:16,8,4 ffn_norm.weight:32 "
     "0:ffn_gate.weight:32,48 0:ffn_up.weight:32,48 0:ffn_down.weight:48,32 "
     "1:ffn_gate_inp.weight:32,4 1:ffn_gate_exps.weight:32,16,4 "
     "1:ffn_up_exps.weight:32,16,4 1:ffn_down_exps.weight:16,32,4 1:exp_probs_b.bias:4 "
     "1:ffn_gate_shexp.weight:32,16 1:ffn_up_shexp.weight:32,16 "
     "1:ffn_down_shexp.weight:16,32 "},
    {"deepseek2-unfolded", "deepseek2", 2,
     "attention.head_count=4 attention.head_count_kv=4 " RMS
     "expert_count=8 expert_used_count=2 expert_feed_forward_length=16 expert_group_count=4 "
     "expert_group_used_count=2 leading_dense_block_count=0 expert_shared_count=1 "
     "attention.q_lora_rank=16 attention.kv_lora_rank=16 attention.key_length=16 "
     "attention.value_length=8 rope.dimension_count=8 rope.freq_base=10000.0 expert_gating_func=1",
     ENDS MLA_ATTN "attn_kv_b.weight:16,64 ffn_norm.weight:32 ffn_gate_inp.weight:32,8 "
                   "ffn_gate_exps.weight:32,16,8 ffn_up_exps.weight:32,16,8 "
                   "ffn_down_exps.weight:16,32,8 " SHARED},
    {"gpt-oss-yarn", "gpt-oss", 2,
     HEADS RMS ROTATED EXPERTS "attention.sliding_window=6 rope.scaling.type=yarn "
                               "rope.scaling.factor=8.0 rope.scaling.original_context_length=16 "
                               "attention.key_length=8 attention.value_length=8",
     ENDS ATTN
     "attn_q.bias:32 attn_k.bias:16 attn_v.bias:16 attn_output.bias:32 attn_sinks.weight:4 "
     "post_attention_norm.weight:32 ffn_gate_inp.weight:32,4 ffn_gate_inp.bias:4 "
     "ffn_gate_exps.weight:32,16,4 ffn_gate_exps.bias:16,4 ffn_up_exps.weight:32,16,4 "
     "ffn_up_exps.bias:16,4 ffn_down_exps.weight:16,32,4 ffn_down_exps.bias:32,4 "},
    {"phi3-long", "phi3", 2,
     HEADS RMS ROTATED "rope.scaling.original_context_length=32 rope.scaling.attn_factor=1.2",
     ENDS "attn_qkv.weight:32,64 attn_output.weight:32,32 ffn_norm.weight:32 ffn_up.weight:32,96 "
          "ffn_down.weight:48,32 /rope_factors_long.weight:4 /rope_factors_short.weight:4 "},
    {"qwen35", "qwen35", 2,
     "attention.head_count=4 attention.head_count_kv=2 " RMS
     "rope.dimension_count=8 rope.freq_base=10000.0 rope.dimension_sections=[1,1,1,1] " DELTA,
     ENDS DELTA_LAYERS "ffn_gate.weight:32,48 ffn_up.weight:32,48 ffn_down.weight:48,32 "
                       "0:ssm_alpha.weight:32,4 0:ssm_beta.weight:32,4 "},
    {"qwen3next", "qwen3next", 2,
     "attention.head_count=4 attention.head_count_kv=2 expert_shared_feed_forward_length=16 " RMS
         ROTATED EXPERTS DELTA,
     ENDS DELTA_LAYERS "0:ssm_ba.weight:32,8 ffn_gate_inp.weight:32,4 ffn_gate_exps.weight:32,16,4 "
                       "ffn_up_exps.weight:32,16,4 ffn_down_exps.weight:16,32,4 "
                       "ffn_gate_inp_shexp.weight:32 " SHARED},
    {"mamba2", "mamba2", 2,
     RMS "ssm.conv_kernel=4 ssm.inner_size=64 ssm.state_size=16 ssm.time_step_rank=4 "
         "ssm.group_count=2",
     ENDS
     "ssm_in.weight:32,196 ssm_conv1d.weight:4,128 ssm_conv1d.bias:128 ssm_dt.bias:4 ssm_a:1,4 "
     "ssm_d:1,4 ssm_norm.weight:32,2 ssm_out.weight:64,32 "},
};
const size_t tiny_n_models = sizeof tiny_models / sizeof *tiny_models;

const struct tiny_model *tiny_model_find(const char *name)
{
    for (size_t i = 0; i < tiny_n_models; i++) {
        if (strcmp(tiny_models[i].name, name) == 0) {
            return &tiny_models[i];
        }
    }
    return NULL;
}

/* --- keys --------------------------------------------------------------------------------------*/

static void put_key(struct ggufw *w, const char *arch, char *pair)
{
    char key[128], *value = strchr(pair, '='), *end;
    CHECK(value);
    *value++ = 0;
    snprintf(key, sizeof key, "%s.%s", arch, pair);
    if (*value == '[') {
        int32_t items[16];
        uint64_t n = 0;
        for (char *p = value + 1; *p && *p != ']'; p = *end == ',' ? end + 1 : end) {
            items[n++] = (int32_t)strtol(p, &end, 10);
        }
        ggufw_put_array(w, key, GGUF_I32, items, n);
    } else if (strcmp(value, "true") == 0 || strcmp(value, "false") == 0) {
        ggufw_put_bool(w, key, *value == 't');
    } else if (*value < '0' || *value > '9') {
        ggufw_put_str(w, key, value, strlen(value));
    } else if (strchr(value, '.')) {
        ggufw_put_f32(w, key, strtof(value, NULL));
    } else {
        ggufw_put_u32(w, key, (uint32_t)strtoul(value, NULL, 10));
    }
}

/* --- tensors -----------------------------------------------------------------------------------*/

struct tensor {
    char name[96];
    uint32_t n_dims;
    uint64_t ne[4], n;
};

struct list {
    struct tensor t[1024];
    size_t n;
};

/* "name:ne0,ne1,ne2" */
static void add_tensor(struct list *l, const char *prefix, const char *text)
{
    struct tensor *t = &l->t[l->n++];
    const char *colon = strrchr(text, ':');
    CHECK(colon && l->n < sizeof l->t / sizeof *l->t);
    *t = (struct tensor){.ne = {1, 1, 1, 1}, .n = 1};
    snprintf(t->name, sizeof t->name, "%s%.*s", prefix, (int)(colon - text), text);
    for (char *p = (char *)(uintptr_t)colon; p && *p; p = strchr(p + 1, ',')) {
        t->ne[t->n_dims] = strtoul(p + 1, NULL, 10);
        t->n *= t->ne[t->n_dims++];
    }
}

static void list_tensors(const struct tiny_model *m, struct list *l)
{
    char prefix[32], *copy, *at;
    l->n = 0;
    add_tensor(l, "", "token_embd.weight:32,40");
    for (int layer = -1; layer < m->n_layers; layer++) {
        copy = strdup(m->tensors);
        snprintf(prefix, sizeof prefix, "blk.%d.", layer);
        for (char *word = strtok_r(copy, " ", &at); word; word = strtok_r(NULL, " ", &at)) {
            if (*word == '/') {
                if (layer < 0) {
                    add_tensor(l, "", word + 1);
                }
            } else if (layer >= 0 && word[1] == ':') { /* of one layer only */
                if (*word - '0' == layer) {
                    add_tensor(l, prefix, word + 2);
                }
            } else if (layer >= 0) {
                add_tensor(l, prefix, word);
            }
        }
        free(copy);
    }
}

/* Values such that the logits depend on every tensor: norms around 1, decays below 0, matrices that
 * keep the size of what they multiply. */
static void fill(const struct tensor *t, float *x)
{
    uint64_t seed = hash64(t->name, strlen(t->name), 1);
    double scale = t->n_dims > 1 ? 2 / sqrt((double)t->ne[0]) : 0.3, center = 0;
    if (strstr(t->name, "norm") && !strstr(t->name, "bias")) {
        center = 1;
        scale = 0.3;
    } else if (strstr(t->name, "rope_f")) { /* frequency divisors, 1 to 4 */
        center = 2.5;
        scale = 1.5;
    } else if (strstr(t->name, "ssm_a") && !strstr(t->name, "alpha")) {
        center = -1;
        scale = 0.8;
    } else if (strstr(t->name, "token_embd")) {
        scale = 1;
    }
    for (uint64_t i = 0; i < t->n; i++) {
        x[i] = (float)(center + scale * test_uniform(&seed));
    }
}

static enum type type_of(const struct tensor *t, enum type matrix)
{
    /* A vector in two dimensions, and what the format keeps in F32. */
    bool is_small = t->ne[0] < 8 || strstr(t->name, "norm") || strstr(t->name, "conv") ||
                    strstr(t->name, "bias") || strstr(t->name, "ssm_a") || strstr(t->name, "ssm_d");
    bool fits = t->ne[0] % type_info((uint32_t)matrix)->block_elems == 0;
    return t->n_dims < 2 || is_small || !fits ? TYPE_F32 : matrix;
}

void tiny_model_write(const struct tiny_model *m, const char *path, enum type matrix)
{
    struct err e = {0};
    struct ggufw *w;
    struct list *l = malloc(sizeof *l);
    char *copy = strdup(m->keys), *at;
    char number[160];
    CHECK(l && copy);
    list_tensors(m, l);
    if (ggufw_create(path, &w, &e) < 0) {
        TEST_FAIL("%s: %s", path, e.detail);
    }
    ggufw_put_str(w, "general.architecture", m->arch, strlen(m->arch));
    ggufw_put_str(w, "general.name", m->name, strlen(m->name));
    ggufw_put_str(w, "tokenizer.ggml.model", "no_vocab", 8);
    snprintf(number, sizeof number,
             "vocab_size=%d embedding_length=%d feed_forward_length=48 block_count=%d "
             "context_length=%d",
             TINY_VOCAB, TINY_EMBD, m->n_layers, TINY_CTX);
    for (char *word = strtok_r(number, " ", &at); word; word = strtok_r(NULL, " ", &at)) {
        put_key(w, m->arch, word);
    }
    for (char *word = strtok_r(copy, " ", &at); word; word = strtok_r(NULL, " ", &at)) {
        put_key(w, m->arch, word);
    }
    for (size_t i = 0; i < l->n; i++) {
        ggufw_declare(w, l->t[i].name, type_of(&l->t[i], matrix), l->t[i].n_dims, l->t[i].ne);
    }
    if (ggufw_begin_data(w, &e) < 0) {
        TEST_FAIL("%s: %s", path, e.detail);
    }
    for (size_t i = 0; i < l->n; i++) {
        const struct tensor *t = &l->t[i];
        enum type type = type_of(t, matrix);
        size_t bytes = type_row_bytes(type, t->n);
        float *x = malloc(t->n * sizeof *x);
        void *coded = malloc(bytes);
        CHECK(x && coded);
        fill(t, x);
        if (type == TYPE_F32) {
            memcpy(coded, x, bytes);
        } else {
            quant_encoder(type)(x, coded, (int64_t)t->n, NULL);
        }
        CHECK(ggufw_write(w, coded, bytes, &e) == 0);
        free(x);
        free(coded);
    }
    if (ggufw_commit(w, &e) < 0) {
        TEST_FAIL("%s: %s", path, e.detail);
    }
    ggufw_destroy(&w);
    free(l);
    free(copy);
}

static char file_path[64];

static void remove_file(void)
{
    unlink(file_path);
}

const char *tiny_model_file(const struct tiny_model *t, enum type matrix)
{
    static bool is_made;
    if (!is_made) {
        bool has_shm = access("/dev/shm", W_OK) == 0; /* thousands of files: not to the disk */
        snprintf(file_path, sizeof file_path, "%s/rocmforge-tiny-XXXXXX",
                 has_shm ? "/dev/shm" : "/tmp");
        int fd = mkstemp(file_path);
        CHECK(fd >= 0);
        close(fd);
        atexit(remove_file);
        is_made = true;
    }
    tiny_model_write(t, file_path, matrix);
    return file_path;
}
