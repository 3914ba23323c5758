/* The degrade ladder (see ladder.h). Pure; used by the supervisor. */
#include "safety/ladder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct rung {
    const char *name, *setting, *value, *meaning;
} rungs[LADDER_RUNGS] = {
    [LADDER_FULL] = {"full", "", "", ""},
#define RUNG(name, setting, value, meaning) [LADDER_##name] = {#name, #setting, value, meaning},
#include "safety/ladder.def"
#undef RUNG
};

void ladder_init(struct ladder *l, uint32_t rung, uint32_t n_doublings, uint64_t now_ms)
{
    bool is_valid = rung < LADDER_RUNGS && n_doublings <= LADDER_MAX_DOUBLINGS;
    *l = (struct ladder){.rung = is_valid ? rung : LADDER_FULL,
                         .n_doublings = is_valid ? n_doublings : 0,
                         .quiet_since_ms = now_ms};
}

uint64_t ladder_quiet_ms(const struct ladder *l)
{
    return (uint64_t)LADDER_QUIET_MS << l->n_doublings;
}

static void note(struct ladder *l, bool was_ready, uint64_t now_ms)
{
    for (uint32_t i = LADDER_DEATHS - 1; i > 0; i--) {
        l->deaths_ms[i] = l->deaths_ms[i - 1];
        l->is_loading[i] = l->is_loading[i - 1];
    }
    l->deaths_ms[0] = now_ms;
    l->is_loading[0] = !was_ready;
    l->n_deaths = MIN(l->n_deaths + 1, (uint32_t)LADDER_DEATHS);
    l->quiet_since_ms = now_ms;
}

static bool is_enough(const struct ladder *l, uint64_t now_ms)
{
    uint32_t n = 0, n_loading = 0;
    for (uint32_t i = 0; i < l->n_deaths && now_ms - l->deaths_ms[i] < LADDER_WINDOW_MS; i++) {
        n++;
        n_loading += l->is_loading[i];
    }
    return l->is_on_trial || n >= LADDER_DEATHS || n_loading >= LADDER_LOAD_DEATHS;
}

bool ladder_died(struct ladder *l, bool was_ready, uint32_t max, uint64_t now_ms)
{
    note(l, was_ready, now_ms);
    if (l->rung >= max || !is_enough(l, now_ms)) {
        return false;
    }
    if (l->is_on_trial) {
        l->n_doublings = MIN(l->n_doublings + 1, (uint32_t)LADDER_MAX_DOUBLINGS);
    }
    l->rung++;
    l->is_on_trial = false;
    l->n_deaths = 0;
    return true;
}

bool ladder_lose(struct ladder *l, uint32_t max, uint64_t now_ms)
{
    bool is_change = l->rung < max;
    l->quiet_since_ms = now_ms;
    l->n_deaths = 0;
    l->is_on_trial = l->is_on_trial && !is_change;
    l->rung = MAX(l->rung, max);
    return is_change;
}

void ladder_pardon(struct ladder *l)
{
    l->n_deaths = 0;
}

void ladder_forgive(struct ladder *l, uint64_t now_ms)
{
    ladder_init(l, LADDER_FULL, 0, now_ms);
}

bool ladder_tick(struct ladder *l, uint64_t now_ms)
{
    if (now_ms - l->quiet_since_ms < ladder_quiet_ms(l)) {
        return false;
    }
    l->quiet_since_ms = now_ms;
    l->n_deaths = 0;
    if (l->rung == LADDER_FULL) { /* the trial is over, and passed */
        bool was_on_trial = l->is_on_trial || l->n_doublings > 0;
        l->is_on_trial = false;
        l->n_doublings = 0;
        return was_on_trial;
    }
    l->rung--;
    l->is_on_trial = true;
    return true;
}

const char *ladder_name(uint32_t rung)
{
    return rung < LADDER_RUNGS ? rungs[rung].name : "?";
}

const char *ladder_meaning(uint32_t rung)
{
    return rung < LADDER_RUNGS ? rungs[rung].meaning : "";
}

int ladder_apply(uint32_t rung, struct config *c, struct err *e)
{
    int rc = 0;
    for (uint32_t i = 1; rc == 0 && i <= rung && i < LADDER_RUNGS; i++) {
        int key = config_find(rungs[i].setting, strlen(rungs[i].setting));
        ASSERT(key >= 0);
        if (config_rows[key].kind == CONFIG_INT && c->v[key].i <= atoll(rungs[i].value)) {
            continue;
        }
        char value[64];
        bool is_behind = *rungs[i].value == '/';
        snprintf(value, sizeof(value), "%.40s%s", is_behind ? c->v[key].str : "", rungs[i].value);
        rc = config_set(c, rungs[i].setting, value, CONFIG_FROM_FLAG, e);
    }
    return rc;
}
