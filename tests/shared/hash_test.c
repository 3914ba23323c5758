/* Hashes against published vectors: RFC 3720 appendix B.4 and FIPS 180-4 with NIST's examples. */
#include "tests/test.h"
#include "shared/hash.h"

static void check_crc(const void *data, size_t n, uint32_t expected)
{
    CHECK_INT(hash_crc32c(0, data, n), expected);
    CHECK_INT(hash_crc32c_portable(0, data, n), expected);
}

static void crc32c_vectors(void)
{
    uint8_t b[32];
    memset(b, 0, sizeof(b));
    check_crc(b, 32, 0x8a9136aa);
    memset(b, 0xff, sizeof(b));
    check_crc(b, 32, 0x62a8ab43);
    for (size_t i = 0; i < 32; i++) {
        b[i] = (uint8_t)i;
    }
    check_crc(b, 32, 0x46dd794e);
    for (size_t i = 0; i < 32; i++) {
        b[i] = (uint8_t)(31 - i);
    }
    check_crc(b, 32, 0x113fdb5c);
    static const uint8_t iscsi_read[48] = {
        0x01, 0xc0, [16] = 0x14, [22] = 0x04, [27] = 0x14, [31] = 0x18, [32] = 0x28, [40] = 0x02};
    check_crc(iscsi_read, 48, 0xd9963a56);
    check_crc("123456789", 9, 0xe3069283);
    check_crc("", 0, 0);
}

/* Any split of the data, any alignment, both forms. */
static void crc32c_goes_on(void)
{
    uint8_t b[257 + 8];
    uint64_t seed = 1;
    for (size_t i = 0; i < sizeof(b); i++) {
        b[i] = (uint8_t)test_random(&seed);
    }
    for (size_t n = 0; n <= 257; n++) {
        const uint8_t *p = b + n % 8;
        uint32_t whole = hash_crc32c(0, p, n);
        CHECK_INT(hash_crc32c_portable(0, p, n), whole);
        size_t cut = n ? test_random(&seed) % n : 0;
        CHECK_INT(hash_crc32c(hash_crc32c(0, p, cut), p + cut, n - cut), whole);
    }
}

static void check_sha256(const void *data, size_t n, const char *expected)
{
    uint8_t digest[HASH_SHA256_BYTES];
    char hex[2 * HASH_SHA256_BYTES + 1];
    hash_sha256(data, n, digest);
    for (size_t i = 0; i < sizeof(digest); i++) {
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    }
    CHECK_STR(hex, expected);
}

static void sha256_vectors(void)
{
    check_sha256("", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    check_sha256("abc", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    static const char two_blocks[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    check_sha256(two_blocks, 56,
                 "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    char *million = malloc(1000000);
    CHECK(million);
    memset(million, 'a', 1000000);
    check_sha256(million, 1000000,
                 "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    free(million);
}

/* Every length around the padding's borders: the digest of 200 digests, computed with Python. */
static void sha256_lengths(void)
{
    uint8_t message[200], digests[200 * HASH_SHA256_BYTES];
    for (size_t i = 0; i < sizeof(message); i++) {
        message[i] = (uint8_t)i;
    }
    for (size_t n = 0; n < 200; n++) {
        hash_sha256(message, n, digests + n * HASH_SHA256_BYTES);
    }
    check_sha256(digests, sizeof(digests),
                 "ba7b0fcea7d10c06b855b43d2b4dce1e3e842fff6be0acefb0faf4f2dd05bb47");
}

/* A table hash must spread: every input bit changes about half of the output, and length counts. */
static void hash64_spreads(void)
{
    uint8_t b[40] = {0};
    uint64_t flips = 0, n = 0;
    for (size_t len = 1; len <= sizeof(b); len++) {
        uint64_t h = hash64(b, len, 7);
        CHECK(h != hash64(b, len - 1, 7));
        CHECK(h != hash64(b, len, 8));
        for (size_t bit = 0; bit < len * 8; bit++) {
            b[bit / 8] ^= (uint8_t)(1u << bit % 8);
            int d = __builtin_popcountll(h ^ hash64(b, len, 7));
            CHECK(d >= 8 && d <= 56);
            flips += (uint64_t)d;
            n++;
            b[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
    }
    double mean = (double)flips / (double)n;
    CHECK(mean > 31.5 && mean < 32.5);
}

int main(void)
{
    crc32c_vectors();
    crc32c_goes_on();
    sha256_vectors();
    sha256_lengths();
    hash64_spreads();
    return 0;
}
