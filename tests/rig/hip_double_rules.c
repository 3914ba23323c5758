/* What goes wrong in the double of the HIP runtime (see hip_double.h). Called under its lock. */
#include "tests/rig/hip_double.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct rule {
    struct hip_double_fault fault;
    char place[40]; /* "": any kernel */
    long first, n;  /* n 0: always */
    long seen;
};
struct rules {
    struct rule v[HIP_DOUBLE_MAX_RULES];
    int n;
};

static struct rules of_environment, of_file;
static struct stat file_stat;

static const struct {
    const char *name;
    int kind;
} kinds[] = {
    {"abort-load", HIP_DOUBLE_ABORT_LOAD}, {"abort", HIP_DOUBLE_ABORT},
    {"sticky", HIP_DOUBLE_STICKY},         {"failure", HIP_DOUBLE_FAILURE},
    {"hang", HIP_DOUBLE_HANG},             {"slow", HIP_DOUBLE_SLOW},
    {"nan", HIP_DOUBLE_NAN},               {"wrong", HIP_DOUBLE_WRONG},
    {"oom", HIP_DOUBLE_OOM},               {"error", HIP_DOUBLE_ERROR},
    {"corrupt", HIP_DOUBLE_CORRUPT},       {"hidden", HIP_DOUBLE_HIDDEN},
};

/* A rule that nobody understands is a test that tests nothing. */
static void refuse(const char *text)
{
    fprintf(stderr, "hip_double: the rule '%s' is not one\n", text);
    exit(2);
}

static struct rule read_rule(const char *text)
{
    struct rule r = {.first = 1, .n = 1};
    size_t n = strcspn(text, "@:*="), k = 0;
    char *p = (char *)(uintptr_t)text + n;
    while (k < sizeof kinds / sizeof *kinds &&
           (strlen(kinds[k].name) != n || strncmp(kinds[k].name, text, n) != 0)) {
        k++;
    }
    if (k == sizeof kinds / sizeof *kinds) {
        refuse(text);
    }
    r.fault.kind = kinds[k].kind;
    if (*p == '=') {
        r.fault.number = strtol(p + 1, &p, 10);
    }
    if (*p == '@') {
        n = strcspn(p + 1, ":*");
        snprintf(r.place, sizeof r.place, "%.*s", (int)n, p + 1);
        p += 1 + n;
    }
    if (*p == ':') {
        r.first = strtol(p + 1, &p, 10);
    }
    if (*p == '*') {
        r.n = strtol(p + 1, &p, 10);
    }
    if (*p || r.first < 1) {
        refuse(text);
    }
    return r;
}

static void read_rules(const char *text, struct rules *ret)
{
    ret->n = 0;
    while (text && *text && *text != '\n' && ret->n < HIP_DOUBLE_MAX_RULES) {
        char one[128];
        size_t n = strcspn(text, ";\n");
        snprintf(one, sizeof one, "%.*s", (int)n, text);
        ret->v[ret->n++] = read_rule(one);
        text += n + (text[n] == ';');
    }
}

static void look_at_file(void)
{
    const char *path = getenv("HIP_DOUBLE_FILE");
    struct stat st;
    if (!path || stat(path, &st) != 0) {
        of_file.n = 0;
        file_stat = (struct stat){0};
        return;
    }
    if (st.st_ino == file_stat.st_ino && st.st_size == file_stat.st_size &&
        st.st_mtim.tv_sec == file_stat.st_mtim.tv_sec &&
        st.st_mtim.tv_nsec == file_stat.st_mtim.tv_nsec) {
        return;
    }
    char text[1024] = "";
    FILE *f = fopen(path, "re");
    if (f) {
        text[fread(text, 1, sizeof text - 1, f)] = 0;
        fclose(f);
    }
    file_stat = st;
    read_rules(text, &of_file);
}

static const struct hip_double_fault *match(struct rules *rules, const char *place, int is_kernel)
{
    for (int i = 0; i < rules->n; i++) {
        struct rule *r = &rules->v[i];
        if (*r->place ? strcmp(r->place, place) == 0 : is_kernel) {
            r->seen++;
            if (r->seen >= r->first && (r->n == 0 || r->seen < r->first + r->n)) {
                return &r->fault;
            }
        }
    }
    return NULL;
}

static int is_used_up(const struct rules *rules)
{
    for (int i = 0; i < rules->n; i++) {
        const struct rule *r = &rules->v[i];
        if (r->n == 0 || r->seen < r->first + r->n - 1) {
            return 0;
        }
    }
    return 1;
}

const struct hip_double_fault *hip_double_at(const char *place, int is_kernel)
{
    static int is_read;
    static struct hip_double_fault found;
    if (!is_read) {
        is_read = 1;
        read_rules(getenv("HIP_DOUBLE"), &of_environment);
    }
    look_at_file();
    const struct hip_double_fault *fault = match(&of_environment, place, is_kernel);
    const struct hip_double_fault *other = match(&of_file, place, is_kernel);
    if (other) {
        found = *other;
        if (is_used_up(&of_file)) {
            unlink(getenv("HIP_DOUBLE_FILE"));
        }
        return &found;
    }
    return fault;
}
