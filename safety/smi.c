/* Loading and asking rocm-smi (see smi.h). Blocks as it likes. */
#include "safety/smi.h"
#include "safety/dynamic.h"

#include <stdio.h>
#include <string.h>

static const struct dynamic_symbol symbols[] = {
#define SMI(need, name, params) {"rsmi_" #name, offsetof(struct smi, name), DYNAMIC_##need},
#include "safety/smi.def"
#undef SMI
};

int smi_load(struct smi *ret, struct err *e)
{
    /* Debian's package of 5.2 calls its version 1, AMD's are numbered as ROCm is. */
    static const char *const names[] = {"librocm_smi64.so.7", "librocm_smi64.so.6",
                                        "librocm_smi64.so.5", "librocm_smi64.so.1"};
    *ret = (struct smi){0};
    int err = dynamic_load(names, COUNT_OF(names), symbols, COUNT_OF(symbols), ret, &ret->handle,
                           &ret->soname, e);
    if (!ret->handle) {
        return err_set(e, ERR_NO_GPU, "no librocm_smi64.so");
    }
    return err;
}

static int fail(const struct smi *h, const char *call, int status, struct err *e)
{
    const char *text = NULL;
    if (!h->status_string || h->status_string(status, &text) != SMI_SUCCESS || !text) {
        text = "no text";
    }
    return err_set(e, ERR_NO_GPU, "%s: status %d, %.120s", call, status, text);
}

/* Domain in the upper half, then bus, device and function as on the bus; between them, in newer
 * versions, a partition. */
static void write_pci(uint64_t id, char ret[16])
{
    snprintf(ret, 16, "%04x:%02x:%02x.%x", (unsigned)(id >> 32) & 0xffff,
             (unsigned)(id >> 8) & 0xff, (unsigned)(id >> 3) & 0x1f, (unsigned)id & 7);
}

int smi_open(const struct smi *h, const char *pci, uint32_t *ret_device, struct err *e)
{
    uint32_t n = 0;
    int status = h->init(SMI_OWN_MUTEX);
    if (status != SMI_SUCCESS) {
        return fail(h, "rsmi_init", status, e);
    }
    status = h->num_monitor_devices(&n);
    if (status != SMI_SUCCESS) {
        return fail(h, "rsmi_num_monitor_devices", status, e);
    }
    for (uint32_t i = 0; i < n; i++) {
        uint64_t id = 0;
        char text[16];
        if (h->dev_pci_id_get(i, &id) != SMI_SUCCESS) {
            continue;
        }
        write_pci(id, text);
        if (strcmp(text, pci) == 0) {
            *ret_device = i;
            return 0;
        }
    }
    return err_set(e, ERR_NO_GPU, "it sees %u devices, but not %s", (unsigned)n, pci);
}

int smi_read(const struct smi *h, uint32_t device, struct smi_reading *ret, struct err *e)
{
    struct smi_reading r = {.device = device, .busy_percent = -1};
    int status = h->dev_memory_total_get(device, SMI_MEMORY_VRAM, &r.total_bytes);
    if (status != SMI_SUCCESS) {
        return fail(h, "rsmi_dev_memory_total_get", status, e);
    }
    status = h->dev_memory_usage_get(device, SMI_MEMORY_VRAM, &r.used_bytes);
    if (status != SMI_SUCCESS) {
        return fail(h, "rsmi_dev_memory_usage_get", status, e);
    }
    uint32_t busy = 0;
    int64_t millidegrees = 0;
    if (h->dev_busy_percent_get && h->dev_busy_percent_get(device, &busy) == SMI_SUCCESS) {
        r.busy_percent = (int32_t)MIN(busy, 100u);
    }
    if (h->dev_temp_metric_get &&
        h->dev_temp_metric_get(device, SMI_TEMPERATURE_EDGE, SMI_TEMPERATURE_NOW, &millidegrees) ==
            SMI_SUCCESS &&
        millidegrees > 0 && millidegrees < 1000 * 1000) {
        r.celsius = (int32_t)(millidegrees / 1000);
    }
    *ret = r;
    return 0;
}

int smi_listen(const struct smi *h, uint32_t device, struct err *e)
{
    static const enum smi_event_kind wanted[] = {SMI_VM_FAULT, SMI_THROTTLE, SMI_PRE_RESET,
                                                 SMI_POST_RESET};
    if (!h->event_notification_init || !h->event_notification_mask_set ||
        !h->event_notification_get) {
        return err_set(e, ERR_NO_GPU, "%s tells no events", h->soname);
    }
    uint64_t mask = 0;
    for (size_t i = 0; i < COUNT_OF(wanted); i++) {
        mask |= (uint64_t)1 << (wanted[i] - 1);
    }
    int status = h->event_notification_init(device);
    if (status != SMI_SUCCESS) {
        return fail(h, "rsmi_event_notification_init", status, e);
    }
    status = h->event_notification_mask_set(device, mask);
    return status == SMI_SUCCESS ? 0 : fail(h, "rsmi_event_notification_mask_set", status, e);
}

int smi_wait(const struct smi *h, int timeout_ms, struct smi_event *ret, struct err *e)
{
    struct smi_event one = {0};
    uint32_t n = 1;
    int status = h->event_notification_get(timeout_ms, &n, &one);
    if (status == SMI_NO_DATA || (status == SMI_SUCCESS && n == 0)) {
        return 0;
    }
    if (status != SMI_SUCCESS) {
        return fail(h, "rsmi_event_notification_get", status, e);
    }
    one.message[SMI_MESSAGE_BYTES - 1] = '\0';
    *ret = one;
    return 1;
}
