/* JSON Schema (2020-12, and the older names of definitions) to GBNF (see schema.h). Pure. Every
 * subschema is a rule of its own; a $ref is a rule's name, so that recursive schemas need nothing
 * special. */
#include "worker/grammar/schema.h"
#include "shared/json.h"
#include "worker/grammar/grammar.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { PLACE_BYTES = 160, MOST_REFS = 256, MOST_ITEMS = 10000 };

struct writer {
    const json_t *root;
    struct buf *out;
    struct err *e;
    uint32_t n_rules;
    struct {
        const json_t *schema;
        uint32_t rule;
    } refs[MOST_REFS]; /* targets of $ref that have a rule */
    size_t n_refs;
    bool uses_value; /* the rules of any JSON value are wanted */
    int depth;
};

/* White space is bounded: a model left alone with it would go on for ever. */
static const char common[] =
    "space ::= ( \" \" | \"\\n\" [ \\t]{0,20} )?\n"
    "char ::= [^\"\\\\\\x00-\\x1F\\x7F] | \"\\\\\" ( [\"\\\\/bfnrt] | \"u\" [0-9a-fA-F]{4} )\n"
    "string ::= \"\\\"\" char* \"\\\"\"\n"
    "integer ::= \"-\"? ( \"0\" | [1-9] [0-9]{0,17} )\n"
    "number ::= integer ( \".\" [0-9]{1,17} )? ( [eE] [-+]? [0-9]{1,3} )?\n"
    "boolean ::= \"true\" | \"false\"\n"
    "null ::= \"null\"\n";
static const char any_value[] =
    "value ::= object | array | string | number | boolean | null\n"
    "member ::= string space \":\" space value\n"
    "object ::= \"{\" space ( member ( space \",\" space member )* space )? \"}\"\n"
    "array ::= \"[\" space ( value ( space \",\" space value )* space )? \"]\"\n";

static int refuse(struct writer *w, const char *place, const char *what)
{
    return err_set(w->e, ERR_GRAMMAR, "schema, at '%.120s': %.120s", place, what);
}

static int write_schema(struct writer *w, const json_t *s, const char *place, uint32_t rule);

/* A GBNF text that stands for these bytes. */
static void put_text(struct buf *b, const char *s, size_t n)
{
    buf_char(b, '"');
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c == '"' || c == '\\') {
            buf_printf(b, "\\%c", c);
        } else if (c < 0x20 || c == 0x7F) {
            buf_printf(b, "\\x%02X", c);
        } else {
            buf_char(b, (char)c);
        }
    }
    buf_char(b, '"');
}

/* The JSON of a value as a text. */
static void put_json(struct writer *w, const json_t *v)
{
    struct buf json;
    buf_init(&json, 0);
    json_put_value(&json, v);
    put_text(w->out, json.data ? json.data : "", json.len);
    w->out->failed |= json.failed;
    buf_finish(&json);
}

/* A subschema as a rule of its own, written behind what stands now; returns its number. */
static int sub(struct writer *w, struct buf *later, const json_t *s, const char *place,
               const char *key, uint32_t *ret)
{
    char at[PLACE_BYTES];
    struct buf *out = w->out;
    if (++w->depth > SCHEMA_DEPTH) {
        return refuse(w, place, "it is too deep");
    }
    snprintf(at, sizeof(at), "%.100s/%.50s", place, key);
    *ret = w->n_rules++;
    w->out = later;
    int rc = write_schema(w, s, at, *ret);
    w->out = out;
    w->depth--;
    return rc;
}

/* ---- keywords ---- */

static const char *const annotations[] = {
    "title",         "description", "default",          "examples",        "format",
    "$schema",       "$id",         "$comment",         "deprecated",      "readOnly",
    "writeOnly",     "$defs",       "definitions",      "nullable",        "strict",
    "discriminator", "$anchor",     "contentMediaType", "contentEncoding",
};

/* Every keyword of s is one of those, or an annotation. */
static int check_keywords(struct writer *w, const json_t *s, const char *place,
                          const char *const *known, size_t n)
{
    json_t *object = (json_t *)(uintptr_t)s; /* jansson's iterators know no const */
    for (void *it = json_object_iter(object); it; it = json_object_iter_next(object, it)) {
        const char *key = json_object_iter_key(it);
        bool ok = false;
        for (size_t i = 0; i < n + COUNT_OF(annotations) && !ok; i++) {
            ok = strcmp(key, i < n ? known[i] : annotations[i - n]) == 0;
        }
        if (!ok) {
            char what[96];
            snprintf(what, sizeof(what), "keyword '%.40s' is not supported", key);
            return refuse(w, place, what);
        }
    }
    return 0;
}

/* A whole number from 0 to `most`, or `absent`. */
static int read_count(struct writer *w, const json_t *s, const char *place, const char *key,
                      int64_t absent, int64_t *ret)
{
    const json_t *v = json_object_get(s, key);
    *ret = v ? json_integer_value(v) : absent;
    return v && (!json_is_integer(v) || *ret < 0 || *ret > MOST_ITEMS)
               ? refuse(w, place, "a length is not a whole number up to 10000")
               : 0;
}

static int write_enum(struct writer *w, const json_t *values, const char *place)
{
    if (!json_is_array(values) || json_array_size(values) == 0) {
        return refuse(w, place, "enum is not an array of values");
    }
    for (size_t i = 0; i < json_array_size(values); i++) {
        buf_str(w->out, i ? " | " : "");
        put_json(w, json_array_get(values, i));
    }
    buf_char(w->out, '\n');
    return 0;
}

static int write_any_of(struct writer *w, const json_t *list, const char *place, const char *key)
{
    struct buf later;
    int rc = json_is_array(list) && json_array_size(list) > 0
                 ? 0
                 : refuse(w, place, "it is not an array of schemas");
    buf_init(&later, 0);
    for (size_t i = 0; i < json_array_size(list) && rc == 0; i++) {
        uint32_t rule = 0;
        rc = sub(w, &later, json_array_get(list, i), place, key, &rule);
        buf_printf(w->out, i ? " | r%u" : "r%u", rule);
    }
    buf_char(w->out, '\n');
    buf_add(w->out, later.data, later.len);
    w->out->failed |= later.failed;
    buf_finish(&later);
    return rc;
}

/* What "#/a/b" names; NULL: nothing. */
static const json_t *resolve(const json_t *root, const char *ref)
{
    const json_t *at = root;
    if (*ref++ != '#') {
        return NULL;
    }
    while (at && *ref == '/') {
        char key[256];
        size_t n = 0;
        for (ref++; *ref && *ref != '/'; ref++) {
            if (n == sizeof(key) - 1) {
                return NULL;
            }
            bool is_escape = *ref == '~' && (ref[1] == '0' || ref[1] == '1');
            key[n++] = is_escape ? (ref[1] == '0' ? '~' : '/') : *ref;
            ref += is_escape;
        }
        key[n] = 0;
        at = json_is_object(at) ? json_object_get(at, key) : NULL;
    }
    return *ref ? NULL : at;
}

static int write_ref(struct writer *w, const json_t *ref, const char *place)
{
    const json_t *target = json_is_string(ref) ? resolve(w->root, json_string_value(ref)) : NULL;
    if (!target) {
        return refuse(w, place, "$ref names nothing within the schema");
    }
    for (size_t i = 0; i < w->n_refs; i++) {
        if (w->refs[i].schema == target) {
            buf_printf(w->out, "r%u\n", w->refs[i].rule);
            return 0;
        }
    }
    if (w->n_refs == MOST_REFS) {
        return refuse(w, place, "there are too many $refs");
    }
    struct buf later;
    uint32_t rule = w->n_rules; /* known before it is written: it may name itself */
    w->refs[w->n_refs].schema = target;
    w->refs[w->n_refs++].rule = rule;
    buf_init(&later, 0);
    int rc = sub(w, &later, target, place, "$ref", &rule);
    buf_printf(w->out, "r%u\n", rule);
    buf_add(w->out, later.data, later.len);
    w->out->failed |= later.failed;
    buf_finish(&later);
    return rc;
}

/* ---- types ---- */

static int write_string(struct writer *w, const json_t *s, const char *place)
{
    int64_t min = 0, max = -1;
    int rc = read_count(w, s, place, "minLength", 0, &min);
    rc = rc < 0 ? rc : read_count(w, s, place, "maxLength", -1, &max);
    if (rc < 0) {
        return rc;
    }
    if (max >= 0 && max < min) {
        return refuse(w, place, "maxLength is less than minLength");
    }
    if (max >= 0) {
        buf_printf(w->out, "\"\\\"\" char{%lld,%lld} \"\\\"\"\n", (long long)min, (long long)max);
    } else if (min > 0) {
        buf_printf(w->out, "\"\\\"\" char{%lld,} \"\\\"\"\n", (long long)min);
    } else {
        buf_str(w->out, "string\n");
    }
    return 0;
}

static int write_array(struct writer *w, const json_t *s, const char *place)
{
    const json_t *items = json_object_get(s, "items"), *prefix = json_object_get(s, "prefixItems");
    struct buf later;
    int64_t min = 0, max = -1;
    uint32_t rule = 0;
    bool has_items = !json_is_false(items);
    size_t n_prefix = json_array_size(prefix);
    int rc = read_count(w, s, place, "minItems", 0, &min);
    rc = rc < 0 ? rc : read_count(w, s, place, "maxItems", -1, &max);
    if (rc == 0 && ((max >= 0 && max < min) || (prefix && !json_is_array(prefix)))) {
        rc = refuse(w, place, "minItems, maxItems or prefixItems are not well-formed");
    }
    buf_init(&later, 0);
    buf_str(w->out, "\"[\" space");
    /* A prefix is given whole: so is every tuple that people write. */
    for (size_t i = 0; i < n_prefix && rc == 0; i++) {
        rc = sub(w, &later, json_array_get(prefix, i), place, "prefixItems", &rule);
        buf_printf(w->out, i ? " \",\" space r%u space" : " r%u space", rule);
    }
    min = MAX(min - (int64_t)n_prefix, 0);
    max = max < 0 ? -1 : MAX(max - (int64_t)n_prefix, 0);
    if (rc == 0 && has_items && max != 0) {
        if (items && !json_is_true(items)) {
            rc = sub(w, &later, items, place, "items", &rule);
            buf_printf(&later, "i%u ::= r%u\n", rule, rule);
        } else {
            w->uses_value = true;
            rule = w->n_rules++;
            buf_printf(&later, "i%u ::= value\n", rule);
        }
        if (n_prefix > 0) {
            buf_printf(w->out, " ( \",\" space i%u space ){%lld,", rule, (long long)min);
        } else {
            buf_printf(w->out,
                       min > 0 ? " i%u space ( \",\" space i%u space ){%lld,"
                               : " ( i%u space ( \",\" space i%u space ){%lld,",
                       rule, rule, (long long)MAX(min - 1, 0));
            max = max < 0 ? -1 : max - 1;
        }
        if (max >= 0) {
            buf_printf(w->out, "%lld", (long long)max);
        }
        buf_str(w->out, n_prefix > 0 || min > 0 ? "}" : "} )?");
    }
    buf_str(w->out, " \"]\"\n");
    buf_add(w->out, later.data, later.len);
    w->out->failed |= later.failed;
    buf_finish(&later);
    return rc;
}

static bool is_required(const json_t *required, const char *key)
{
    for (size_t i = 0; i < json_array_size(required); i++) {
        const char *s = json_string_value(json_array_get(required, i));
        if (s && strcmp(s, key) == 0) {
            return true;
        }
    }
    return false;
}

/* Property after property, in two rows of rules: fK where nothing stands yet, cK behind a member.
 */
static int write_members(struct writer *w, const json_t *s, const char *place, uint32_t id,
                         struct buf *later, uint32_t *ret_n)
{
    json_t *properties = json_object_get(s, "properties");
    const json_t *required = json_object_get(s, "required");
    uint32_t k = 0;
    for (void *it = json_object_iter(properties); it; it = json_object_iter_next(properties, it)) {
        const char *key = json_object_iter_key(it);
        uint32_t rule = 0;
        int rc = sub(w, later, json_object_iter_value(it), place, key, &rule);
        if (rc < 0) {
            return rc;
        }
        json_t *name = json_string(key);
        struct buf *out = w->out;
        w->out = later;
        buf_printf(later, "m%u-%u ::= ", id, k);
        put_json(w, name);
        buf_printf(later, " space \":\" space r%u space\n", rule);
        w->out = out;
        json_decref(name);
        bool must = is_required(required, key);
        buf_printf(later, "f%u-%u ::= m%u-%u c%u-%u", id, k, id, k, id, k + 1);
        if (!must) {
            buf_printf(later, " | f%u-%u", id, k + 1);
        }
        buf_printf(later, "\nc%u-%u ::= \",\" space m%u-%u c%u-%u", id, k, id, k, id, k + 1);
        if (!must) {
            buf_printf(later, " | c%u-%u", id, k + 1);
        }
        buf_char(later, '\n');
        k++;
    }
    *ret_n = k;
    return 0;
}

static int write_object(struct writer *w, const json_t *s, const char *place, uint32_t id)
{
    const json_t *more = json_object_get(s, "additionalProperties");
    const json_t *properties = json_object_get(s, "properties");
    const json_t *required = json_object_get(s, "required");
    if ((properties && !json_is_object(properties)) || (required && !json_is_array(required))) {
        return refuse(w, place, "properties or required are not well-formed");
    }
    for (size_t i = 0; i < json_array_size(required); i++) {
        const char *key = json_string_value(json_array_get(required, i));
        if (!key || !json_object_get(properties, key)) {
            return refuse(w, place, "required names what properties does not");
        }
    }
    if (!properties && (!more || json_is_true(more))) {
        w->uses_value = true;
        buf_str(w->out, "object\n");
        return 0;
    }
    struct buf later;
    uint32_t n = 0, rule = 0;
    buf_init(&later, 0);
    buf_printf(w->out, "\"{\" space f%u-0 \"}\"\n", id);
    int rc = write_members(w, s, place, id, &later, &n);
    if (rc == 0 && more && !json_is_false(more)) {
        if (json_is_true(more)) {
            w->uses_value = true;
            buf_printf(&later, "a%u ::= member space\n", id);
        } else {
            rc = sub(w, &later, more, place, "additionalProperties", &rule);
            buf_printf(&later, "a%u ::= string space \":\" space r%u space\n", id, rule);
        }
        buf_printf(&later, "c%u-%u ::= ( \",\" space a%u )*\n", id, n, id);
        buf_printf(&later, "f%u-%u ::= ( a%u c%u-%u )?\n", id, n, id, id, n);
    } else {
        buf_printf(&later, "c%u-%u ::= \"\"\nf%u-%u ::= \"\"\n", id, n, id, n);
    }
    buf_add(w->out, later.data, later.len);
    w->out->failed |= later.failed;
    buf_finish(&later);
    return rc;
}

static int write_type(struct writer *w, const json_t *s, const char *type, const char *place,
                      uint32_t rule)
{
    static const char *const of_string[] = {"type", "minLength", "maxLength"};
    static const char *const of_array[] = {"type", "items", "prefixItems", "minItems", "maxItems"};
    static const char *const of_object[] = {"type", "properties", "required",
                                            "additionalProperties"};
    int rc;
    if (strcmp(type, "object") == 0) {
        rc = check_keywords(w, s, place, of_object, COUNT_OF(of_object));
        return rc < 0 ? rc : write_object(w, s, place, rule);
    }
    if (strcmp(type, "array") == 0) {
        rc = check_keywords(w, s, place, of_array, COUNT_OF(of_array));
        return rc < 0 ? rc : write_array(w, s, place);
    }
    if (strcmp(type, "string") == 0) {
        rc = check_keywords(w, s, place, of_string, COUNT_OF(of_string));
        return rc < 0 ? rc : write_string(w, s, place);
    }
    static const char *const plain[] = {"integer", "number", "boolean", "null"};
    for (size_t i = 0; i < COUNT_OF(plain); i++) {
        if (strcmp(type, plain[i]) == 0) {
            buf_printf(w->out, "%s\n", type);
            return check_keywords(w, s, place, of_string, 1);
        }
    }
    return refuse(w, place, "type is none of JSON's");
}

/* "type": ["string", "null"]: each for itself, with the keywords that are for it. */
static int write_types(struct writer *w, const json_t *s, const char *place)
{
    const json_t *types = json_object_get(s, "type");
    json_t *list = json_array();
    int rc = list ? 0 : -ENOMEM;
    for (size_t i = 0; i < json_array_size(types) && rc == 0; i++) {
        const char *type = json_string_value(json_array_get(types, i));
        bool is_plain = type && (strcmp(type, "null") == 0 || strcmp(type, "boolean") == 0 ||
                                 strcmp(type, "integer") == 0 || strcmp(type, "number") == 0);
        json_t *one = !type ? NULL : is_plain ? json_object() : json_copy((json_t *)(uintptr_t)s);
        rc = !type ? refuse(w, place, "type is none of JSON's") : one ? 0 : -ENOMEM;
        if (rc == 0) {
            json_object_set(one, "type", json_array_get(types, i));
            rc = json_array_append_new(list, one);
        }
    }
    rc = rc < 0 ? rc : write_any_of(w, list, place, "type");
    json_decref(list);
    return rc;
}

/* The type that a schema without one means. */
static const char *implied_type(const json_t *s)
{
    return json_object_get(s, "properties") || json_object_get(s, "additionalProperties") ? "object"
           : json_object_get(s, "items") || json_object_get(s, "prefixItems")             ? "array"
           : json_object_get(s, "minLength") || json_object_get(s, "maxLength")           ? "string"
                                                                                          : NULL;
}

static int write_body(struct writer *w, const json_t *s, const char *place, uint32_t rule)
{
    static const char *const of_choice[] = {"type",  "enum",  "const", "anyOf",
                                            "oneOf", "allOf", "$ref"};
    const json_t *v;
    const char *type = json_string_value(json_object_get(s, "type"));
    if (json_is_true(s)) {
        w->uses_value = true;
        buf_str(w->out, "value\n");
        return 0;
    }
    if (!json_is_object(s)) {
        return refuse(w, place, "it is no schema");
    }
    for (size_t i = 1; i < COUNT_OF(of_choice); i++) {
        if (!(v = json_object_get(s, of_choice[i]))) {
            continue;
        }
        const char *const alone[] = {"type", of_choice[i]};
        int rc = check_keywords(w, s, place, alone, COUNT_OF(alone));
        if (rc < 0) {
            return rc;
        }
        switch (i) {
        case 1:
            return write_enum(w, v, place);
        case 2:
            put_json(w, v);
            buf_char(w->out, '\n');
            return 0;
        case 3:
        case 4:
            return write_any_of(w, v, place, of_choice[i]);
        case 5:
            return json_array_size(v) == 1 ? write_any_of(w, v, place, "allOf")
                                           : refuse(w, place, "allOf of several is not supported");
        default:
            return write_ref(w, v, place);
        }
    }
    if (json_is_array(json_object_get(s, "type"))) {
        return write_types(w, s, place);
    }
    type = type ? type : implied_type(s);
    if (type) {
        return write_type(w, s, type, place, rule);
    }
    w->uses_value = true;
    buf_str(w->out, "value\n");
    return check_keywords(w, s, place, NULL, 0);
}

static int write_schema(struct writer *w, const json_t *s, const char *place, uint32_t rule)
{
    if (w->out->len > LIMIT_GRAMMAR_BYTES) {
        return refuse(w, place, "it is too large");
    }
    buf_printf(w->out, "r%u ::= ", rule);
    return write_body(w, s, place, rule);
}

int schema_to_gbnf(const json_t *schema, struct buf *ret, struct err *e)
{
    struct writer w = {.root = schema, .out = ret, .e = e, .n_rules = 1};
    buf_str(ret, "root ::= r0 space\n");
    int rc = write_schema(&w, schema, "", 0);
    buf_str(ret, common);
    buf_str(ret, w.uses_value ? any_value : "");
    return rc < 0 ? rc : ret->failed ? -ENOMEM : 0;
}
