/* Statements, and what both halves of the parser share. Runs when a model is loaded, on the thread
 * that loads it. */
#include "worker/jinja/jinja_parse.h"
#include "shared/limits.h"
#include "worker/jinja/jinja_expr.h"
#include "worker/jinja/jinja_scope.h"

#include <stdio.h>
#include <string.h>

static struct jinja_body body(struct jinja_parser *p, const char *end, const char *other_end,
                              const char *third_end);

/* ---- tokens ---- */

static void describe(const struct jinja_token *t, char text[80])
{
    switch (t->kind) {
    case JINJA_WORD:
        snprintf(text, 80, "'%.*s'", (int)MIN(t->value.n, 60u), t->value.s);
        break;
    case JINJA_SIGN:
        if (t->sign > 0xFF) {
            snprintf(text, 80, "'%c%c'", t->sign >> 8, t->sign & 0xFF);
        } else {
            snprintf(text, 80, "'%c'", t->sign);
        }
        break;
    default: {
        static const char *const names[] = {
            [JINJA_END] = "the end of the template",
            [JINJA_TEXT] = "text",
            [JINJA_PRINT_BEGIN] = "'{{'",
            [JINJA_PRINT_END] = "'}}'",
            [JINJA_BLOCK_BEGIN] = "'{%'",
            [JINJA_BLOCK_END] = "'%}'",
            [JINJA_CONST] = "a constant",
        };
        snprintf(text, 80, "%s", names[t->kind]);
    }
    }
}

void jinja_parse_fail(struct jinja_parser *p, const char *what)
{
    char text[80];
    describe(&p->now, text);
    p->j->line = p->now.line;
    jinja_fail(p->j, "expected %s, found %s", what, text);
}

void jinja_parse_deeper(struct jinja_parser *p)
{
    if (++p->depth > LIMIT_TEMPLATE_DEPTH) {
        p->j->line = p->now.line;
        jinja_fail(p->j, "nested deeper than %d", LIMIT_TEMPLATE_DEPTH);
    }
}

struct jinja_token jinja_parse_take(struct jinja_parser *p)
{
    struct jinja_token t = p->now;
    p->now = p->next;
    p->next = jinja_lex_next(&p->lex);
    return t;
}

bool jinja_parse_is_sign(const struct jinja_parser *p, int sign)
{
    return p->now.kind == JINJA_SIGN && p->now.sign == sign;
}

bool jinja_parse_is_word(const struct jinja_parser *p, const char *word)
{
    return p->now.kind == JINJA_WORD && jinja_value_is_str(p->now.value, word, strlen(word));
}

bool jinja_parse_skip_sign(struct jinja_parser *p, int sign)
{
    if (!jinja_parse_is_sign(p, sign)) {
        return false;
    }
    jinja_parse_take(p);
    return true;
}

bool jinja_parse_skip_word(struct jinja_parser *p, const char *word)
{
    if (!jinja_parse_is_word(p, word)) {
        return false;
    }
    jinja_parse_take(p);
    return true;
}

void jinja_parse_expect_sign(struct jinja_parser *p, int sign)
{
    if (!jinja_parse_skip_sign(p, sign)) {
        char what[4] = {'\'', (char)sign, '\'', 0};
        jinja_parse_fail(p, what);
    }
}

struct jinja_value jinja_parse_expect_name(struct jinja_parser *p)
{
    if (p->now.kind != JINJA_WORD) {
        jinja_parse_fail(p, "a name");
    }
    return jinja_parse_take(p).value;
}

static void expect_kind(struct jinja_parser *p, enum jinja_token_kind kind)
{
    if (p->now.kind != kind) {
        jinja_parse_fail(p, kind == JINJA_BLOCK_END ? "'%}'" : "'}}'");
    }
    jinja_parse_take(p);
}

struct jinja_name jinja_parse_name(struct jinja_parser *p, struct jinja_value name)
{
    struct jinja_value *id = jinja_dict_get(p->j, p->names, name);
    uint32_t n = p->names->n;
    if (id) {
        n = (uint32_t)id->i;
    } else {
        jinja_dict_add(p->j, p->names, name, jinja_value_int(n));
    }
    return (struct jinja_name){.s = name.s, .n = name.n, .id = n};
}

void jinja_parse_push(struct jinja_parser *p, struct jinja_list *l, void *item)
{
    if ((l->n & (l->n - 1)) == 0) {
        void **items = jinja_array(p->j, l->n ? 2 * (size_t)l->n : 1, sizeof(*items));
        if (l->n) {
            memcpy(items, l->items, l->n * sizeof(*items));
        }
        l->items = items;
    }
    l->items[l->n++] = item;
}

/* ---- targets ---- */

static void check_assignable(struct jinja_parser *p, struct jinja_value name, bool is_param)
{
    static const char *const reserved[] = {"true", "false", "none", "True", "False", "None"};
    for (size_t i = 0; i < COUNT_OF(reserved); i++) {
        if (jinja_value_is_str(name, reserved[i], strlen(reserved[i]))) {
            jinja_parse_fail(p, "a name that may be set");
        }
    }
    if (p->n_fors && !is_param && jinja_value_is_str(name, "loop", 4)) {
        jinja_parse_fail(p, "another name than 'loop', which is the for statement's own");
    }
}

static struct jinja_target targets(struct jinja_parser *p, bool is_param, bool with_namespace,
                                   const char *stop);

static struct jinja_target one_target(struct jinja_parser *p, bool is_param, bool with_namespace)
{
    struct jinja_target t = {.line = p->now.line};
    if (jinja_parse_skip_sign(p, '(')) {
        jinja_parse_deeper(p);
        t = targets(p, is_param, false, NULL);
        p->depth--;
        jinja_parse_expect_sign(p, ')');
        return t;
    }
    struct jinja_value name = jinja_parse_expect_name(p);
    t.name = jinja_parse_name(p, name);
    if (with_namespace && jinja_parse_skip_sign(p, '.')) {
        t.attr = jinja_parse_expect_name(p);
    } else {
        check_assignable(p, name, is_param);
    }
    return t;
}

/* a or a, b or (a, b): several make a tuple. */
static struct jinja_target targets(struct jinja_parser *p, bool is_param, bool with_namespace,
                                   const char *stop)
{
    struct jinja_target first = one_target(p, is_param, with_namespace);
    if (!jinja_parse_is_sign(p, ',')) {
        return first;
    }
    struct jinja_list list = {0};
    struct jinja_target *item = jinja_alloc(p->j, sizeof(*item));
    *item = first;
    jinja_parse_push(p, &list, item);
    while (jinja_parse_skip_sign(p, ',')) {
        if (jinja_parse_is_sign(p, '=') || jinja_parse_is_sign(p, ')') ||
            p->now.kind == JINJA_BLOCK_END || (stop && jinja_parse_is_word(p, stop))) {
            break;
        }
        item = jinja_alloc(p->j, sizeof(*item));
        *item = one_target(p, is_param, with_namespace);
        jinja_parse_push(p, &list, item);
    }
    struct jinja_target t = {.line = first.line, .n = list.n};
    t.items = jinja_array(p->j, list.n, sizeof(*t.items));
    for (uint32_t i = 0; i < list.n; i++) {
        t.items[i] = *(struct jinja_target *)list.items[i];
    }
    return t;
}

/* ---- statements ---- */

static void parse_if(struct jinja_parser *p, struct jinja_stmt *s)
{
    struct jinja_list list = {0};
    bool has_test = true;
    for (;;) {
        struct jinja_branch *b = jinja_alloc(p->j, sizeof(*b));
        b->test = has_test ? jinja_expr_tuple(p, false, NULL) : NULL;
        b->body = has_test ? body(p, "elif", "else", "endif") : body(p, "endif", NULL, NULL);
        jinja_parse_push(p, &list, b);
        struct jinja_value end = jinja_parse_take(p).value;
        if (jinja_value_is_str(end, "endif", 5)) {
            break;
        }
        has_test = jinja_value_is_str(end, "elif", 4);
    }
    s->n_branches = list.n;
    s->branches = jinja_array(p->j, list.n, sizeof(*s->branches));
    for (uint32_t i = 0; i < list.n; i++) {
        s->branches[i] = *(struct jinja_branch *)list.items[i];
    }
}

static struct jinja_target copy_target(struct jinja_parser *p, const struct jinja_target *t)
{
    struct jinja_target copy = *t;
    if (t->items) {
        copy.items = jinja_array(p->j, t->n, sizeof(*copy.items));
        for (uint32_t i = 0; i < t->n; i++) {
            copy.items[i] = copy_target(p, &t->items[i]);
        }
    }
    return copy;
}

static void parse_for(struct jinja_parser *p, struct jinja_stmt *s)
{
    p->n_fors++;
    s->loop = jinja_alloc(p->j, sizeof(*s->loop));
    s->loop->target = targets(p, false, false, "in");
    if (!jinja_parse_skip_word(p, "in")) {
        jinja_parse_fail(p, "'in'");
    }
    s->expr = jinja_expr_tuple(p, false, "recursive");
    if (jinja_parse_skip_word(p, "if")) {
        s->loop->test = jinja_expr_parse(p, true);
        s->loop->test_target = copy_target(p, &s->loop->target);
    }
    s->loop->is_recursive = jinja_parse_skip_word(p, "recursive");
    s->loop->name = jinja_parse_name(p, JINJA_LITERAL("loop"));
    unsigned outside = p->n_loops;
    p->n_loops = s->loop->is_recursive ? 1 : outside + 1;
    s->body = body(p, "endfor", "else", NULL);
    if (jinja_value_is_str(jinja_parse_take(p).value, "else", 4)) {
        p->n_loops--;
        s->loop->otherwise = body(p, "endfor", NULL, NULL);
        jinja_parse_take(p);
    }
    p->n_loops = outside;
    p->n_fors--;
}

static void parse_set(struct jinja_parser *p, struct jinja_stmt *s)
{
    s->target = targets(p, false, true, NULL);
    if (jinja_parse_skip_sign(p, '=')) {
        s->expr = jinja_expr_tuple(p, true, NULL);
        return;
    }
    s->kind = JINJA_STMT_SET_BLOCK;
    s->expr = jinja_expr_filters(p, false);
    s->body = body(p, "endset", NULL, NULL);
    jinja_parse_take(p);
}

static void parse_signature(struct jinja_parser *p, struct jinja_stmt *s)
{
    struct jinja_list list = {0};
    bool had_default = false;
    jinja_parse_expect_sign(p, '(');
    while (!jinja_parse_is_sign(p, ')')) {
        struct jinja_parameter *param = jinja_alloc(p->j, sizeof(*param));
        struct jinja_value name = jinja_parse_expect_name(p);
        check_assignable(p, name, true);
        param->name = jinja_parse_name(p, name);
        s->macro->has_caller_param |= jinja_value_is_str(name, "caller", 6);
        if (jinja_parse_skip_sign(p, '=')) {
            param->def = jinja_expr_parse(p, true);
            had_default = true;
        } else if (had_default) {
            jinja_parse_fail(p, "a default, as the parameters before it have one");
        }
        for (uint32_t i = 0; i < list.n; i++) {
            jinja_step(p->j, 1);
            if (((struct jinja_parameter *)list.items[i])->name.id == param->name.id) {
                jinja_parse_fail(p, "each parameter once");
            }
        }
        jinja_parse_push(p, &list, param);
        if (!jinja_parse_is_sign(p, ')')) {
            jinja_parse_expect_sign(p, ',');
        }
    }
    jinja_parse_take(p);
    s->macro->n_params = list.n;
    s->macro->params = jinja_array(p->j, list.n, sizeof(*s->macro->params));
    for (uint32_t i = 0; i < list.n; i++) {
        s->macro->params[i] = *(struct jinja_parameter *)list.items[i];
    }
}

static bool has_param(const struct jinja_stmt *s, const char *name)
{
    for (uint32_t i = 0; i < s->macro->n_params; i++) {
        const struct jinja_name *n = &s->macro->params[i].name;
        if (n->n == strlen(name) && memcmp(n->s, name, n->n) == 0) {
            return true;
        }
    }
    return false;
}

/* The body of a macro or call block: a function of its own, which may use three special names. */
static void parse_function(struct jinja_parser *p, struct jinja_stmt *s, const char *end)
{
    struct jinja_uses uses = {.outer = p->uses};
    unsigned outside = p->n_loops;
    p->uses = &uses;
    p->n_loops = 0;
    s->body = body(p, end, NULL, NULL);
    jinja_parse_take(p);
    p->uses = uses.outer;
    p->n_loops = outside;
    if (uses.caller) {
        for (uint32_t i = 0; i < s->macro->n_params; i++) {
            if (!s->macro->params[i].def && s->macro->params[i].name.n == 6 &&
                memcmp(s->macro->params[i].name.s, "caller", 6) == 0) {
                jinja_parse_fail(p, "a default for the parameter 'caller'");
            }
        }
        s->macro->caller = jinja_parse_name(p, JINJA_LITERAL("caller"));
    }
    if (uses.kwargs && !has_param(s, "kwargs")) {
        s->macro->kwargs = jinja_parse_name(p, JINJA_LITERAL("kwargs"));
    }
    if (uses.varargs && !has_param(s, "varargs")) {
        s->macro->varargs = jinja_parse_name(p, JINJA_LITERAL("varargs"));
    }
}

static void parse_macro(struct jinja_parser *p, struct jinja_stmt *s)
{
    struct jinja_value name = jinja_parse_expect_name(p);
    check_assignable(p, name, true);
    s->macro = jinja_alloc(p->j, sizeof(*s->macro));
    s->macro->name = jinja_parse_name(p, name);
    parse_signature(p, s);
    parse_function(p, s, "endmacro");
}

static void parse_call(struct jinja_parser *p, struct jinja_stmt *s)
{
    s->macro = jinja_alloc(p->j, sizeof(*s->macro));
    if (jinja_parse_is_sign(p, '(')) {
        parse_signature(p, s);
    }
    s->expr = jinja_expr_parse(p, true);
    if (s->expr->kind != JINJA_EXPR_CHAIN ||
        s->expr->links[s->expr->n_links - 1].kind != JINJA_LINK_CALL) {
        jinja_parse_fail(p, "a call before it");
    }
    parse_function(p, s, "endcall");
}

static void parse_with(struct jinja_parser *p, struct jinja_stmt *s)
{
    struct jinja_list list = {0}, values = {0};
    s->with = jinja_alloc(p->j, sizeof(*s->with));
    while (p->now.kind != JINJA_BLOCK_END) {
        if (list.n) {
            jinja_parse_expect_sign(p, ',');
        }
        struct jinja_target *t = jinja_alloc(p->j, sizeof(*t));
        *t = targets(p, true, false, NULL);
        jinja_parse_push(p, &list, t);
        jinja_parse_expect_sign(p, '=');
        jinja_parse_push(p, &values, jinja_expr_parse(p, true));
    }
    s->with->n = list.n;
    s->with->values = (struct jinja_expr **)(void *)values.items;
    s->with->targets = jinja_array(p->j, list.n, sizeof(*s->with->targets));
    for (uint32_t i = 0; i < list.n; i++) {
        s->with->targets[i] = *(struct jinja_target *)list.items[i];
    }
    s->body = body(p, "endwith", NULL, NULL);
    jinja_parse_take(p);
}

static void parse_jump(struct jinja_parser *p, struct jinja_stmt *s)
{
    (void)s;
    if (p->n_loops == 0) {
        jinja_parse_fail(p, "a for statement around break and continue");
    }
}

static void parse_filter(struct jinja_parser *p, struct jinja_stmt *s)
{
    s->expr = jinja_expr_filters(p, true);
    s->body = body(p, "endfilter", NULL, NULL);
    jinja_parse_take(p);
}

static void parse_generation(struct jinja_parser *p, struct jinja_stmt *s)
{
    s->macro = jinja_alloc(p->j, sizeof(*s->macro));
    parse_function(p, s, "endgeneration");
}

static const struct {
    const char *word;
    enum jinja_stmt_kind kind;
    void (*parse)(struct jinja_parser *p, struct jinja_stmt *s);
} tags[] = {
    {"if", JINJA_STMT_IF, parse_if},
    {"for", JINJA_STMT_FOR, parse_for},
    {"set", JINJA_STMT_SET, parse_set},
    {"macro", JINJA_STMT_MACRO, parse_macro},
    {"call", JINJA_STMT_CALL, parse_call},
    {"generation", JINJA_STMT_CALL, parse_generation},
    {"filter", JINJA_STMT_FILTER, parse_filter},
    {"with", JINJA_STMT_WITH, parse_with},
    {"break", JINJA_STMT_BREAK, parse_jump},
    {"continue", JINJA_STMT_CONTINUE, parse_jump},
};

static struct jinja_stmt *add_stmt(struct jinja_parser *p, struct jinja_list *l,
                                   enum jinja_stmt_kind kind, uint32_t line)
{
    struct jinja_stmt *s = jinja_alloc(p->j, sizeof(*s));
    s->kind = kind;
    s->line = line;
    jinja_parse_push(p, l, s);
    return s;
}

/* {% print a, b %} */
static void parse_print(struct jinja_parser *p, struct jinja_list *l)
{
    uint32_t line = jinja_parse_take(p).line;
    while (p->now.kind != JINJA_BLOCK_END) {
        add_stmt(p, l, JINJA_STMT_PRINT, line)->expr = jinja_expr_parse(p, true);
        if (p->now.kind != JINJA_BLOCK_END) {
            jinja_parse_expect_sign(p, ',');
        }
    }
}

static void parse_tag(struct jinja_parser *p, struct jinja_list *l, const char *end)
{
    if (p->now.kind != JINJA_WORD) {
        jinja_parse_fail(p, "the name of a tag");
    }
    if (jinja_parse_is_word(p, "print")) {
        parse_print(p, l);
        return;
    }
    for (size_t i = 0; i < COUNT_OF(tags); i++) {
        if (jinja_parse_is_word(p, tags[i].word)) {
            struct jinja_stmt *s = add_stmt(p, l, tags[i].kind, p->now.line);
            jinja_parse_take(p);
            jinja_parse_deeper(p);
            tags[i].parse(p, s);
            p->depth--;
            return;
        }
    }
    char what[64] = "a tag that is known";
    if (end) {
        snprintf(what, sizeof(what), "a tag that is known, or '%s'", end);
    }
    jinja_parse_fail(p, what);
}

/* Statements up to one of the words; the word is the token at hand then. At the top level there is
 * no word, and the end of the template ends it. */
static struct jinja_body statements(struct jinja_parser *p, const char *end, const char *other_end,
                                    const char *third_end)
{
    struct jinja_list l = {0};
    for (;;) {
        struct jinja_token t = p->now;
        if (t.kind == JINJA_END) {
            if (end) {
                char what[32];
                snprintf(what, sizeof(what), "'%s'", end);
                jinja_parse_fail(p, what);
            }
            break;
        }
        jinja_parse_take(p);
        if (t.kind == JINJA_TEXT) {
            add_stmt(p, &l, JINJA_STMT_TEXT, t.line)->text = t.value;
        } else if (t.kind == JINJA_PRINT_BEGIN) {
            add_stmt(p, &l, JINJA_STMT_PRINT, t.line)->expr = jinja_expr_tuple(p, true, NULL);
            expect_kind(p, JINJA_PRINT_END);
        } else if ((end && jinja_parse_is_word(p, end)) ||
                   (other_end && jinja_parse_is_word(p, other_end)) ||
                   (third_end && jinja_parse_is_word(p, third_end))) {
            break;
        } else {
            parse_tag(p, &l, end);
            expect_kind(p, JINJA_BLOCK_END);
        }
    }
    return (struct jinja_body){l.n, (struct jinja_stmt **)(void *)l.items};
}

static struct jinja_body body(struct jinja_parser *p, const char *end, const char *other_end,
                              const char *third_end)
{
    jinja_parse_skip_sign(p, ':');
    expect_kind(p, JINJA_BLOCK_END);
    return statements(p, end, other_end, third_end);
}

struct jinja_template *jinja_parse(struct jinja *j, const char *source, size_t n)
{
    struct jinja_parser *p = jinja_alloc(j, sizeof(*p));
    p->j = j;
    p->names = jinja_dict_create(j, 0);
    jinja_lex_init(&p->lex, j, source, n);
    p->now = jinja_lex_next(&p->lex);
    p->next = jinja_lex_next(&p->lex);
    struct jinja_template *t = jinja_alloc(j, sizeof(*t));
    t->body = statements(p, NULL, NULL, NULL);
    j->line = 0;
    struct jinja_value *names = jinja_value_room(j, p->names->n);
    for (uint32_t i = 0; i < p->names->n; i++) {
        names[i] = p->names->entries[i].key;
    }
    t->n_names = p->names->n;
    t->names = names;
    jinja_scope_resolve(j, t);
    return t;
}
