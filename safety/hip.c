/* Loading the HIP runtime (see hip.h). Blocks as long as its constructors like. */
#include "safety/hip.h"
#include "safety/dynamic.h"
#include "shared/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { /* of hipDeviceProp_t: room for any version's, and where gcnArchName stands */
    PROPERTIES_BYTES = 4096,
    ARCH_R0000 = 396,
    ARCH_R0600 = 1160,
};

static const struct dynamic_symbol symbols[] = {
#define HIP(need, name, type, params) {"hip" #name, offsetof(struct hip, name), DYNAMIC_##need},
#include "safety/hip.def"
#undef HIP
};

int hip_load(struct hip *ret, struct err *e)
{
    static const char *const names[] = {"libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5"};
    *ret = (struct hip){0};
    int err = dynamic_load(names, COUNT_OF(names), symbols, COUNT_OF(symbols), ret, &ret->handle,
                           &ret->soname, e);
    if (!ret->handle) {
        return err_set(e, ERR_NO_GPU,
                       "no libamdhip64.so.7, .6 or .5: the ROCm HIP runtime is missing");
    }
    if (err < 0) {
        return err;
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

/* --- code objects ----------------------------------------------------------------------------- */

/* The whole file in memory of its own: HIP wants to open the file again if it sees a mapping. */
static int read_object(const char *path, void **ret, size_t *ret_bytes, struct err *e)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0 || st.st_size <= 0) {
        int err = fd < 0 ? errno : EIO;
        if (fd >= 0) {
            close(fd);
        }
        return err_set(e, ERR_NO_GPU, "%s: %s", path, strerror(err));
    }
    size_t bytes = (size_t)st.st_size, done = 0;
    char *data = malloc(bytes);
    ssize_t n = 1;
    while (data && done < bytes && n > 0) {
        n = read(fd, data + done, bytes - done);
        done += n > 0 ? (size_t)n : 0;
    }
    close(fd);
    if (!data || done < bytes) {
        free(data);
        return err_set(e, ERR_NO_GPU, "%s cannot be read", path);
    }
    *ret = data;
    *ret_bytes = bytes;
    return 0;
}

void hip_object_path(const char *dir, const char *arch, char ret[HIP_PATH_BYTES])
{
    static const char *const places[] = {"../kernels", "../lib/rocmforge",
                                         "../lib/x86_64-linux-gnu/rocmforge", "../lib64/rocmforge"};
    char self[HIP_PATH_BYTES / 2] = "";
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = 0;
    char *slash = strrchr(self, '/');
    self[slash ? slash - self : 0] = 0;
    if (*dir) {
        snprintf(ret, HIP_PATH_BYTES, "%s/rocmforge-%s.co", dir, arch);
        return;
    }
    for (size_t i = 0; i < COUNT_OF(places); i++) {
        snprintf(ret, HIP_PATH_BYTES, "%s/%s/rocmforge-%s.co", self, places[i], arch);
        if (access(ret, R_OK) == 0) {
            return;
        }
    }
}

int hip_object_load(const struct hip *h, const char *path, void **ret_module, uint64_t *ret_digest,
                    struct err *e)
{
    void *image = NULL;
    size_t bytes = 0;
    int err = read_object(path, &image, &bytes, e);
    if (err < 0) {
        return err;
    }
    *ret_digest = hash64(image, bytes, 0);
    int error = h->ModuleLoadData(ret_module, image);
    free(image);
    return error == HIP_SUCCESS
               ? 0
               : err_set(e, ERR_NO_GPU, "%s: error %d, %s", path, error, h->GetErrorString(error));
}
