/* The text of values: str(), repr(), JSON, HTML escapes. The put functions print. */
#ifndef WORKER_JINJA_JINJA_TEXT_H
#define WORKER_JINJA_JINJA_TEXT_H

#include "worker/jinja/jinja_value.h"

/* str(v): a text is itself (without its markup), undefined is empty. */
void jinja_text_put(struct jinja *j, struct jinja_value v);
struct jinja_value jinja_text_str(struct jinja *j, struct jinja_value v);
/* The same, but a safe text stays safe. */
struct jinja_value jinja_text_soft(struct jinja *j, struct jinja_value v);
void jinja_text_put_repr(struct jinja *j, struct jinja_value v);
struct jinja_value jinja_text_repr(struct jinja *j, struct jinja_value v);

struct jinja_json {               /* as json.dumps takes it */
    bool ascii;                   /* escape everything else */
    bool sort;                    /* by key */
    struct jinja_value indent;    /* none, a number of spaces, or a text */
    struct jinja_value item, key; /* separators: "," and ":" with their spaces */
};
void jinja_text_put_json(struct jinja *j, struct jinja_value v, const struct jinja_json *how);

/* & < > ' " as entities, in text that is not marked safe; the result is marked. */
struct jinja_value jinja_text_escape(struct jinja *j, struct jinja_value v);

#endif
