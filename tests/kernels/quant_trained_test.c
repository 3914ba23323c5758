/* Decoding a trained model's quantized files gives what its 16-bit file holds, but for the error
 * that a format of so many bits makes: an oracle that no reading of a format's description went
 * into. */
#include "kernels/quant.h"

#include "shared/gguf.h"
#include "tests/test.h"

#include <dirent.h>

/* What a format of so many bits leaves of a trained matrix: RMS error over RMS. Types that were
 * forced on the model without training for them (1 and 2 bits) keep little. */
static const struct {
    enum type type;
    double error;
} expected[] = {
    {TYPE_BF16, 0.002},  {TYPE_Q8_0, 0.007},   {TYPE_Q6_K, 0.021},   {TYPE_Q5_0, 0.052},
    {TYPE_Q5_1, 0.046},  {TYPE_Q5_K, 0.044},   {TYPE_Q4_0, 0.105},   {TYPE_Q4_1, 0.095},
    {TYPE_Q4_K, 0.087},  {TYPE_IQ4_NL, 0.092}, {TYPE_IQ4_XS, 0.092}, {TYPE_Q3_K, 0.18},
    {TYPE_IQ3_S, 0.20},  {TYPE_IQ3_XXS, 0.22}, {TYPE_Q2_K, 0.34},    {TYPE_IQ2_S, 0.29},
    {TYPE_IQ2_XS, 0.36}, {TYPE_IQ2_XXS, 0.42}, {TYPE_IQ1_S, 0.60},   {TYPE_IQ1_M, 0.55},
    {TYPE_TQ1_0, 0.95},  {TYPE_TQ2_0, 0.95},   {TYPE_Q1_0, 0.95},    {TYPE_Q2_0, 0.95},
};

static void decode_tensor(const struct gguf_tensor *t, float *y, int64_t n)
{
    quant_decoder(t->type)(t->data, y, n);
}

int main(void)
{
    const char *dir = test_data_dir();
    char path[512];
    struct gguf truth, file;
    struct err e;
    snprintf(path, sizeof path, "%s/quants/stories260K-x256-F16.gguf", dir);
    CHECK_INT(gguf_open(path, &truth, &e), 0);
    snprintf(path, sizeof path, "%s/quants", dir);
    DIR *d = opendir(path);
    CHECK(d);
    int n_files = 0;
    double worst[TYPE_ID_END] = {0};
    for (struct dirent *entry; (entry = readdir(d)) != NULL;) {
        if (!strstr(entry->d_name, "-x256-") || !strstr(entry->d_name, ".gguf") ||
            strncmp(entry->d_name, "stories260K", 11) != 0) {
            continue;
        }
        snprintf(path, sizeof path, "%s/quants/%s", dir, entry->d_name);
        CHECK_INT(gguf_open(path, &file, &e), 0);
        for (size_t i = 0; i < file.n_tensors; i++) {
            const struct gguf_tensor *t = &file.tensors[i], *o = gguf_find_tensor(&truth, t->name);
            int64_t n = (int64_t)(t->ne[0] * t->ne[1]);
            CHECK(o && (int64_t)(o->ne[0] * o->ne[1]) == n);
            float *a = malloc((size_t)n * sizeof *a), *b = malloc((size_t)n * sizeof *b);
            decode_tensor(t, a, n);
            decode_tensor(o, b, n);
            double error = 0, square = 0;
            for (int64_t k = 0; k < n; k++) {
                error += pow((double)a[k] - (double)b[k], 2);
                square += pow((double)b[k], 2);
            }
            worst[t->type] = fmax(worst[t->type], sqrt(error / square));
            free(a);
            free(b);
        }
        gguf_close(&file);
        n_files++;
    }
    closedir(d);
    gguf_close(&truth);
    CHECK(n_files > 20);
    for (size_t i = 0; i < COUNT_OF(expected); i++) {
        double error = worst[expected[i].type];
        printf("%-8s %.5f (below %.3f)\n", type_info(expected[i].type)->name, error,
               expected[i].error);
        if (error == 0 || error > expected[i].error) {
            TEST_FAIL("%s is too far from the weights it was made of",
                      type_info(expected[i].type)->name);
        }
    }
    return 0;
}
