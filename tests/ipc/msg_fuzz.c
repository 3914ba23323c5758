/* Any bytes as any ring or control message: the check and the section reader hold. The first bytes
 * choose type, direction and state. */
#include "ipc/msg.h"
#include "tests/test.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 4) {
        return 0;
    }
    uint32_t type = data[0] % (MSG_TYPE_END + 4);
    const struct msg_info *info = msg_info(type);
    enum msg_way way = info->way;
    size_t len = n - 4;
    _Alignas(16) static uint8_t copy[1 << 20];
    len = MIN(len, sizeof(copy));
    memcpy(copy, data + 4, len);
    int ok = msg_check(type, way, 15, 15, 7, copy, len, data[1] % 8);
    if (ok == 0 && (type == MSG_GENERATE || type == MSG_TEXT)) {
        struct msg_cursor c = msg_sections(copy, len, info->fixed_bytes);
        struct msg_section s;
        const void *section;
        volatile uint8_t last = 0; /* every byte is read, so that a sanitizer sees it */
        int r;
        while ((r = msg_next_section(&c, &s, &section)) == 1) {
            for (uint64_t i = 0; i < s.bytes; i++) {
                last = ((const uint8_t *)section)[i];
            }
        }
        (void)last;
        if (r != 0) {
            abort(); /* msg_check promised well-formed sections */
        }
    }
    return 0;
}
