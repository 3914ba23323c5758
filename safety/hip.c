/* Loading the HIP runtime (see hip.h). Blocks as long as its constructors like. */
#include "safety/hip.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

enum { /* of hipDeviceProp_t: room for any version's, and where gcnArchName stands */
    PROPERTIES_BYTES = 4096,
    ARCH_R0000 = 396,
    ARCH_R0600 = 1160,
};

enum need { MUST, MAY };

static const struct {
    const char *name;
    size_t offset;
    enum need need;
} symbols[] = {
#define HIP(need, name, type, params) {"hip" #name, offsetof(struct hip, name), need},
#include "safety/hip.def"
#undef HIP
};

int hip_load(struct hip *ret, struct err *e)
{
    static const char *const names[] = {"libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5"};
    *ret = (struct hip){0};
    for (size_t i = 0; !ret->library && i < COUNT_OF(names); i++) {
        snprintf(ret->library_name, sizeof(ret->library_name), "%s", names[i]);
        ret->library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    }
    if (!ret->library) {
        return err_set(e, ERR_NO_GPU,
                       "no libamdhip64.so.7, .6 or .5: the ROCm HIP runtime is missing");
    }
    for (size_t i = 0; i < COUNT_OF(symbols); i++) {
        void *symbol = dlsym(ret->library, symbols[i].name);
        if (!symbol && symbols[i].need == MUST) {
            return err_set(e, ERR_NO_GPU, "%s has no %s", ret->library_name, symbols[i].name);
        }
        memcpy((char *)ret + symbols[i].offset, &symbol, sizeof(symbol));
    }
    (void)ret->RuntimeGetVersion(&ret->version);
    return 0;
}

int hip_find(const struct hip *h, const char *pci, int n_devices)
{
    for (int i = 0; i < n_devices; i++) {
        int bus, device, domain;
        char text[32];
        if (h->DeviceGetAttribute(&bus, HIP_ATTRIBUTE_PCI_BUS, i) == 0 &&
            h->DeviceGetAttribute(&device, HIP_ATTRIBUTE_PCI_DEVICE, i) == 0 &&
            h->DeviceGetAttribute(&domain, HIP_ATTRIBUTE_PCI_DOMAIN, i) == 0) {
            snprintf(text, sizeof(text), "%04x:%02x:%02x.", (unsigned)domain & 0xffff,
                     (unsigned)bus & 0xff, (unsigned)device & 0xff);
            if (strncmp(text, pci, strlen(text)) == 0) {
                return i;
            }
        }
    }
    return -1;
}

int hip_arch(const struct hip *h, int device, char ret[32])
{
    char properties[PROPERTIES_BYTES] = {0};
    /* The plain name fills the layout of 5.x in every version. */
    int error = h->GetDevicePropertiesR0600 ? h->GetDevicePropertiesR0600(properties, device)
                                            : h->GetDeviceProperties(properties, device);
    if (error == HIP_SUCCESS) {
        const char *arch = properties + (h->GetDevicePropertiesR0600 ? ARCH_R0600 : ARCH_R0000);
        snprintf(ret, 32, "%.*s", (int)strcspn(arch, ":"), arch);
    }
    return error;
}
