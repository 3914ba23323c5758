/* Hashes. crc32c guards records against torn or scribbled bytes; hash64 is for tables of data that
 * no attacker chooses; sha256 where an attacker may choose (digests of requests, fingerprints). */
#ifndef SHARED_HASH_H
#define SHARED_HASH_H

#include "shared/base.h"

/* CRC-32C (Castagnoli, RFC 3720 appendix B.4); start with crc = 0. */
uint32_t hash_crc32c(uint32_t crc, const void *data, size_t bytes);
/* The same without special instructions: what other machines use, and what tests compare with. */
uint32_t hash_crc32c_portable(uint32_t crc, const void *data, size_t bytes);
uint64_t hash64(const void *data, size_t bytes, uint64_t seed);

#define HASH_SHA256_BYTES 32
/* SHA-256 (FIPS 180-4). */
void hash_sha256(const void *data, size_t bytes, uint8_t ret[HASH_SHA256_BYTES]);

#endif
