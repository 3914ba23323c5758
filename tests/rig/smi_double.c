/* A stand-in for rocm-smi: a library by its name, found through LD_LIBRARY_PATH. Device 0 is a
 * processor's own graphics (0000:0e:00.0), device 1 the card at 0000:03:00.0. The environment says
 * what it tells and what goes wrong:
 *   SMI_DOUBLE      rules, separated by ';': FAULT@FUNCTION, FUNCTION without "rsmi_"
 *                     abort     the process aborts
 *                     hang      the function never returns
 *                     error=N   it returns this status
 *                   and alone: abort-load, the library aborts when it is loaded
 *   SMI_DOUBLE_DIR  a folder; in it
 *     card          lines "total BYTES", "used BYTES", "busy PERCENT", "heat MILLIDEGREES" of the
 *     card, read at every
 *                   call; without them 20 GiB, 2 GiB, 37, 54000
 *     rules         rules as above, read at every call: a fault that begins later
 *     events        lines "NUMBER MESSAGE", as the driver tells them: those that come after the
 *     subscription */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 2, INPUT_OUT_OF_BOUNDS = 7, INIT_ERROR = 8, NO_DATA = 14 };
enum { CARD = 1, DEVICES = 2, MESSAGE_BYTES = 64 };

struct event {
    uint32_t device;
    int32_t kind;
    char message[MESSAGE_BYTES];
};

static int is_open;
static uint64_t subscribed[DEVICES];
static long events_at = -1;

static FILE *file_of(const char *name)
{
    char path[512];
    const char *dir = getenv("SMI_DOUBLE_DIR");
    snprintf(path, sizeof path, "%s/%s", dir ? dir : "/nonexistent", name);
    return fopen(path, "re");
}

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

/* What the rules say of this function: a status, if it returns at all. */
static int obey(const char *rules, const char *function)
{
    for (const char *at = rules; at && *at; at = strchr(at, ';')) {
        char fault[32] = "", of[64] = "";
        at += *at == ';';
        if (sscanf(at, "%31[^@;\n]@%63[^;\n]", fault, of) != 2 || strcmp(of, function) != 0) {
            continue;
        }
        if (strcmp(fault, "abort") == 0) {
            abort();
        }
        while (strcmp(fault, "hang") == 0) {
            sleep_ms(1000);
        }
        if (strncmp(fault, "error=", 6) == 0) {
            return atoi(fault + 6);
        }
    }
    return SUCCESS;
}

static int begin(const char *function, uint32_t device)
{
    char text[512] = "";
    FILE *f = file_of("rules");
    if (f) {
        (void)!fgets(text, sizeof text, f);
        fclose(f);
    }
    int status = obey(getenv("SMI_DOUBLE"), function);
    status = status == SUCCESS ? obey(text, function) : status;
    return status != SUCCESS   ? status
           : !is_open          ? INIT_ERROR
           : device >= DEVICES ? INPUT_OUT_OF_BOUNDS
                               : SUCCESS;
}

static uint64_t number_of_card(const char *name, uint64_t without)
{
    FILE *f = file_of("card");
    char word[16];
    unsigned long long n;
    while (f && fscanf(f, "%15s %llu", word, &n) == 2) {
        if (strcmp(word, name) == 0) {
            without = n;
        }
    }
    if (f) {
        fclose(f);
    }
    return without;
}

__attribute__((constructor)) static void load(void)
{
    const char *rules = getenv("SMI_DOUBLE");
    if (rules && strstr(rules, "abort-load")) {
        abort();
    }
}

#define EXPORT __attribute__((visibility("default")))

int rsmi_init(uint64_t flags);
int rsmi_num_monitor_devices(uint32_t *ret);
int rsmi_dev_pci_id_get(uint32_t device, uint64_t *ret);
int rsmi_dev_memory_total_get(uint32_t device, int kind, uint64_t *ret);
int rsmi_dev_memory_usage_get(uint32_t device, int kind, uint64_t *ret);
int rsmi_dev_busy_percent_get(uint32_t device, uint32_t *ret);
int rsmi_dev_temp_metric_get(uint32_t device, uint32_t sensor, int metric, int64_t *ret);
int rsmi_status_string(int status, const char **ret);
int rsmi_event_notification_init(uint32_t device);
int rsmi_event_notification_mask_set(uint32_t device, uint64_t mask);
int rsmi_event_notification_get(int timeout_ms, uint32_t *n, struct event *ret);

EXPORT int rsmi_init(uint64_t flags)
{
    (void)flags;
    is_open = 1;
    return begin("init", 0);
}

EXPORT int rsmi_num_monitor_devices(uint32_t *ret)
{
    *ret = DEVICES;
    return begin("num_monitor_devices", 0);
}

EXPORT int rsmi_dev_pci_id_get(uint32_t device, uint64_t *ret)
{
    *ret = device == CARD ? 0x0300 | (uint64_t)1 << 28 /* a partition's number, as new ones have */ : 0x0e00;
    return begin("dev_pci_id_get", device);
}

EXPORT int rsmi_dev_memory_total_get(uint32_t device, int kind, uint64_t *ret)
{
    *ret = device == CARD ? number_of_card("total", (uint64_t)20 << 30) : (uint64_t)512 << 20;
    int status = begin("dev_memory_total_get", device);
    return status == SUCCESS && kind != 0 ? NOT_SUPPORTED : status;
}

EXPORT int rsmi_dev_memory_usage_get(uint32_t device, int kind, uint64_t *ret)
{
    *ret = device == CARD ? number_of_card("used", (uint64_t)2 << 30) : 0;
    int status = begin("dev_memory_usage_get", device);
    return status == SUCCESS && kind != 0 ? NOT_SUPPORTED : status;
}

EXPORT int rsmi_dev_busy_percent_get(uint32_t device, uint32_t *ret)
{
    *ret = (uint32_t)number_of_card("busy", 37);
    return begin("dev_busy_percent_get", device);
}

EXPORT int rsmi_dev_temp_metric_get(uint32_t device, uint32_t sensor, int metric, int64_t *ret)
{
    *ret = (int64_t)number_of_card("heat", 54000);
    int status = begin("dev_temp_metric_get", device);
    return status == SUCCESS && (sensor != 0 || metric != 0) ? NOT_SUPPORTED : status;
}

EXPORT int rsmi_status_string(int status, const char **ret)
{
    *ret = status == SUCCESS ? "success" : "a failure that was ordered";
    return SUCCESS;
}

EXPORT int rsmi_event_notification_init(uint32_t device)
{
    int status = begin("event_notification_init", device);
    if (status == SUCCESS && events_at < 0) {
        FILE *f = file_of("events");
        events_at = f && fseek(f, 0, SEEK_END) == 0 ? ftell(f) : 0;
        if (f) {
            fclose(f);
        }
    }
    return status;
}

EXPORT int rsmi_event_notification_mask_set(uint32_t device, uint64_t mask)
{
    int status = begin("event_notification_mask_set", device);
    if (status == SUCCESS) {
        subscribed[device] = mask;
    }
    return status;
}

/* The card's events of the file that are new and complete. */
static uint32_t read_events(uint32_t room, struct event *ret)
{
    char line[256];
    uint32_t n = 0;
    FILE *f = file_of("events");
    if (f && fseek(f, events_at, SEEK_SET) == 0) {
        while (n < room && fgets(line, sizeof line, f) && strchr(line, '\n')) {
            struct event e = {.device = CARD};
            events_at = ftell(f);
            if (sscanf(line, "%d %63[^\n]", &e.kind, e.message) >= 1 && e.kind >= 1 &&
                e.kind <= 64 && (subscribed[CARD] >> (e.kind - 1) & 1)) {
                ret[n++] = e;
            }
        }
    }
    if (f) {
        fclose(f);
    }
    return n;
}

EXPORT int rsmi_event_notification_get(int timeout_ms, uint32_t *n, struct event *ret)
{
    uint32_t room = *n;
    *n = 0;
    int status = begin("event_notification_get", 0);
    for (long waited = 0; status == SUCCESS; waited += 10) {
        *n = read_events(room, ret);
        if (*n > 0) {
            return SUCCESS;
        }
        if (waited >= timeout_ms) {
            return NO_DATA;
        }
        sleep_ms(10);
    }
    return status;
}
