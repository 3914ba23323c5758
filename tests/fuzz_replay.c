/* Replays a fuzzer's corpus: each file given, or in a folder given, through
 * LLVMFuzzerTestOneInput. */
#include "tests/test.h"

#include <dirent.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static int replay_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    CHECK(f);
    fseek(f, 0, SEEK_END);
    long n = ftell(f);
    rewind(f);
    uint8_t *data = malloc((size_t)n + 1); /* exact size under ASan would be n; n may be 0 */
    CHECK(data && fread(data, 1, (size_t)n, f) == (size_t)n);
    fclose(f);
    uint8_t *exact = malloc((size_t)n ? (size_t)n : 1);
    CHECK(exact);
    memcpy(exact, data, (size_t)n);
    free(data);
    LLVMFuzzerTestOneInput(exact, (size_t)n);
    free(exact);
    return 1;
}

int main(int argc, char **argv)
{
    int n = 0;
    for (int i = 1; i < argc; i++) {
        struct stat st;
        CHECK(stat(argv[i], &st) == 0);
        if (!S_ISDIR(st.st_mode)) {
            n += replay_file(argv[i]);
            continue;
        }
        DIR *d = opendir(argv[i]);
        CHECK(d);
        for (struct dirent *e; (e = readdir(d));) {
            char path[4096];
            if (e->d_name[0] != '.') {
                snprintf(path, sizeof(path), "%s/%s", argv[i], e->d_name);
                n += replay_file(path);
            }
        }
        closedir(d);
    }
    CHECK(n > 0);
    printf("%d inputs replayed\n", n);
    return 0;
}
