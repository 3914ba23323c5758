/* The architectures: one file each, and a line in arch.def for every name that files use. */
#ifndef WORKER_ARCH_ARCH_H
#define WORKER_ARCH_ARCH_H

#include "worker/model.h"

model_arch_fn arch_baichuan, arch_command_r, arch_deepseek2, arch_falcon, arch_gemma, arch_gemma2,
    arch_gemma3, arch_glm4, arch_gpt_oss, arch_granite, arch_lfm2, arch_llama, arch_mamba2,
    arch_olmoe, arch_phi2, arch_phi3, arch_qwen, arch_qwen2moe, arch_qwen35, arch_qwen3moe,
    arch_qwen3next, arch_stablelm, arch_starcoder2;

/* By the value of general.architecture; NULL when there is no such. */
model_arch_fn *arch_by_name(const char *name);

#endif
