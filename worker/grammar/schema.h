/* JSON Schema to GBNF: what an answer that keeps to the schema may look like. Objects give their
 * properties in the schema's order, and others only where additionalProperties says so. Understood:
 * type, properties, required, additionalProperties, items, prefixItems, minItems, maxItems, enum,
 * const, anyOf, oneOf, allOf of one, minLength, maxLength, $ref into the schema itself, true, and
 * annotations (title, description, default, examples, format, ...). A keyword that would narrow the
 * answer and is not understood is refused: what is promised holds. */
#ifndef WORKER_GRAMMAR_SCHEMA_H
#define WORKER_GRAMMAR_SCHEMA_H

#include "shared/buf.h"
#include "shared/err.h"
#include <jansson.h>

enum { SCHEMA_DEPTH = 48 };

/* Appends the grammar. Errors: ERR_GRAMMAR with the place and the keyword; -ENOMEM. */
MUST_CHECK int schema_to_gbnf(const json_t *schema, struct buf *ret, struct err *e);

#endif
