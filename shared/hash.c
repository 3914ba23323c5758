/* Hashes. Pure. CRC-32C uses the SSE4.2 instruction where there is one. */
#include "shared/hash.h"

#include <string.h>

#if defined(__x86_64__)
#include <nmmintrin.h>

__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const uint8_t *p,
                                                               size_t n)
{
    uint64_t c = crc;
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t v;
        memcpy(&v, p, 8);
        c = _mm_crc32_u64(c, v);
    }
    crc = (uint32_t)c;
    for (; n; n--, p++) {
        crc = _mm_crc32_u8(crc, *p);
    }
    return crc;
}
#endif

uint32_t hash_crc32c_portable(uint32_t crc, const void *data, size_t bytes)
{
    crc = ~crc;
    for (const uint8_t *p = data; bytes; bytes--, p++) {
        crc ^= *p;
        for (int i = 0; i < 8; i++) {
            crc = crc >> 1 ^ (0x82F63B78u & (0u - (crc & 1u)));
        }
    }
    return ~crc;
}

uint32_t hash_crc32c(uint32_t crc, const void *data, size_t bytes)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2")) {
        return ~crc32c_sse42(~crc, data, bytes);
    }
#endif
    return hash_crc32c_portable(crc, data, bytes);
}

static uint64_t mix(uint64_t h)
{
    /* The 64-bit finalizer of MurmurHash3: full avalanche. */
    h ^= h >> 33;
    h *= 0xff51afd7ed558ccdu;
    h ^= h >> 33;
    h *= 0xc4ceb9fe1a85ec53u;
    return h ^ h >> 33;
}

uint64_t hash64(const void *data, size_t bytes, uint64_t seed)
{
    const uint8_t *p = data;
    uint64_t h = mix(seed ^ bytes * 0x9e3779b97f4a7c15u);
    for (; bytes >= 8; bytes -= 8, p += 8) {
        uint64_t v;
        memcpy(&v, p, 8);
        h = mix(h ^ v) + 0x9e3779b97f4a7c15u;
    }
    if (bytes) {
        uint64_t v = 0;
        memcpy(&v, p, bytes);
        h = mix(h ^ v);
    }
    return mix(h);
}

static uint32_t rotr(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

static void sha256_block(uint32_t state[8], const uint8_t *p)
{
    /* Fractional parts of the cube roots of the first 64 primes (FIPS 180-4, 4.2.2). */
    static const uint32_t k[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
        0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
        0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
        0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
        0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
        0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
        0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
        0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
        0xc67178f2};
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++) {
        w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 |
               (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
    }
    for (int i = 16; i < 64; i++) {
        uint32_t s0 = rotr(w[i - 15], 7) ^ rotr(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t s1 = rotr(w[i - 2], 17) ^ rotr(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    memcpy(s, state, sizeof(s));
    for (int i = 0; i < 64; i++) {
        uint32_t e1 = rotr(s[4], 6) ^ rotr(s[4], 11) ^ rotr(s[4], 25);
        uint32_t ch = (s[4] & s[5]) ^ (~s[4] & s[6]);
        uint32_t t1 = s[7] + e1 + ch + k[i] + w[i];
        uint32_t e0 = rotr(s[0], 2) ^ rotr(s[0], 13) ^ rotr(s[0], 22);
        uint32_t maj = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);
        memmove(s + 1, s, 7 * sizeof(s[0]));
        s[4] += t1;
        s[0] = t1 + e0 + maj;
    }
    for (int i = 0; i < 8; i++) {
        state[i] += s[i];
    }
}

void hash_sha256(const void *data, size_t bytes, uint8_t ret[HASH_SHA256_BYTES])
{
    uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    const uint8_t *p = data;
    size_t n = bytes;
    for (; n >= 64; n -= 64, p += 64) {
        sha256_block(state, p);
    }
    uint8_t last[128] = {0};
    if (n) {
        memcpy(last, p, n);
    }
    last[n] = 0x80;
    size_t last_bytes = n < 56 ? 64 : 128;
    for (int i = 0; i < 8; i++) {
        last[last_bytes - 1 - (size_t)i] = (uint8_t)((uint64_t)bytes * 8 >> 8 * i);
    }
    for (size_t i = 0; i < last_bytes; i += 64) {
        sha256_block(state, last + i);
    }
    for (int i = 0; i < 8; i++) {
        for (int j = 0; j < 4; j++) {
            ret[4 * i + j] = (uint8_t)(state[i] >> (24 - 8 * j));
        }
    }
}
