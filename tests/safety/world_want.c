/* What a request is and what its answer has to be, from its number alone (see world.h). */
#include "tests/safety/world.h"

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t z = (a * 0x9e3779b97f4a7c15u) ^ (b + 0x632be59bd9b4e019u) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 29)) * 0x94d049bb133111ebu;
    return z ^ (z >> 32);
}

/* Numbers of poisons end in 1 .. 3; those that end alike are the same request sent again. */
uint64_t want_key(uint64_t number)
{
    return number % N_POISONS ? mix(w.seed, number % N_POISONS) : number;
}

void want_of(uint64_t number, struct want *ret)
{
    uint64_t key = want_key(number);
    bool is_poison = number % N_POISONS != 0;
    *ret = (struct want){.n_vocab = N_VOCAB,
                         .n_choices = 1 + (uint32_t)(mix(key, 1) % MAX_CHOICES),
                         .base = (uint32_t)(mix(key, 2) % 3),
                         .is_text = !is_poison && mix(key, 3) % 6 == 0,
                         .is_poison = is_poison,
                         .is_flaky = number % N_POISONS == 3};
    ret->poison_at = (uint32_t)(mix(key, 4) % (want_length(number, 0) + 1));
    if (ret->is_text) {
        ret->n_choices = 0;
        ret->text_bytes = (uint32_t)(mix(key, 5) % 200);
    }
}

int32_t want_id(uint64_t number, uint32_t choice, uint32_t position)
{
    return (int32_t)(mix(number, (uint64_t)choice << 32 | position) % N_VOCAB);
}

uint32_t want_length(uint64_t number, uint32_t choice)
{
    return 1 + (uint32_t)(mix(want_key(number), 100 + choice) % 8);
}

bool want_is_stopped(uint64_t number, uint32_t choice)
{
    return mix(want_key(number), 200 + choice) % 2;
}

char want_byte(uint64_t number, uint64_t at)
{
    return (char)mix(number, at);
}
