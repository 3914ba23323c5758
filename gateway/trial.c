/* Suspects and the one on trial (see trial.h). Pure; runs on the gateway's loop. Invariant: while
 * there is a suspect, every entry but the one on trial is held. */
#include "gateway/trial.h"

struct journal_entry *trial_death(struct trial *t, const struct journal *j, bool is_counted,
                                  bool had_read)
{
    struct journal_entry *accused = journal_find(j, t->id);
    t->id = 0;
    if (!is_counted) {
        return NULL;
    }
    if (accused && accused->is_sent && had_read) { /* the others were held: theirs it was not */
        return accused;
    }
    /* One that has just got through may have killed it, before it read that it was to wait. */
    for (struct journal_entry *en = j->oldest; en; en = en->newer) {
        if (en->is_sent && !en->is_suspect) {
            en->is_suspect = true;
            t->n_suspects++;
        }
    }
    return NULL;
}

static void acquit(struct trial *t, struct journal_entry *en)
{
    if (en->is_suspect) {
        en->is_suspect = false;
        t->n_suspects--;
    }
    t->id = t->id == en->id ? 0 : t->id;
}

bool trial_note(struct trial *t, struct journal_entry *en, uint32_t type)
{
    bool is_over = type == 0;
    if (t->n_suspects == 0 || (!is_over && t->id != en->id)) {
        return false;
    }
    bool got_on = type == MSG_RESULT || type == MSG_TOKEN || type == MSG_FINISH;
    for (uint32_t i = 0; i < en->n_choices && got_on; i++) {
        const struct journal_choice *c = &en->choices[i];
        got_on = c->is_finished || c->n > c->n_trial;
    }
    if (!is_over && !got_on) {
        return false;
    }
    bool was_on_trial = t->id == en->id;
    acquit(t, en);
    return was_on_trial || t->n_suspects == 0;
}

static struct journal_entry *next_suspect(const struct journal *j)
{
    struct journal_entry *en = j->oldest;
    while (en && !en->is_suspect) {
        en = en->newer;
    }
    return en;
}

void trial_arrange(struct trial *t, const struct journal *j)
{
    if (t->id == 0 && t->n_suspects > 0) {
        struct journal_entry *next = next_suspect(j);
        ASSERT(next);
        t->id = next->id;
        for (uint32_t i = 0; i < next->n_choices; i++) {
            next->choices[i].n_trial = next->choices[i].n;
        }
    }
    for (struct journal_entry *en = j->oldest; en; en = en->newer) {
        en->is_held = t->id && en->id != t->id;
    }
}
