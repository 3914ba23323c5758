/* Expressions, by precedence: if, or, and, not, comparisons, + -, ~, * / // %, ** (which groups to
 * the left here, unlike in Python), signs, then subscripts, calls, filters and tests. */
#include "worker/jinja/jinja_expr.h"
#include "shared/limits.h"
#include "worker/jinja/jinja_attr.h"
#include "worker/jinja/jinja_filter.h"
#include "worker/jinja/jinja_test.h"

#include <string.h>

static struct jinja_expr *unary(struct jinja_parser *p, bool with_filters);

static struct jinja_expr *make(struct jinja_parser *p, enum jinja_expr_kind kind, uint32_t line)
{
    struct jinja_expr *e = jinja_alloc(p->j, sizeof(*e));
    e->kind = kind;
    e->line = line;
    return e;
}

static struct jinja_expr *make_constant(struct jinja_parser *p, struct jinja_value v)
{
    struct jinja_expr *e = make(p, JINJA_EXPR_CONSTANT, p->now.line);
    e->constant = v;
    return e;
}

static void set_items(struct jinja_expr *e, const struct jinja_list *l)
{
    e->n = l->n;
    e->items = (struct jinja_expr **)(void *)l->items;
}

/* ---- operators ---- */

struct level {
    enum jinja_expr_kind kind;
    struct {
        int sign; /* or 0 for a word */
        const char *word;
        uint8_t op;
    } ops[8];
};

/* From loose to tight. All group to the left, so each makes one flat node. */
static const struct level levels[] = {
    {JINJA_EXPR_OR, {{.word = "or"}}},
    {JINJA_EXPR_AND, {{.word = "and"}}},
    {JINJA_EXPR_NOT, {{0}}},
    {JINJA_EXPR_COMPARE,
     {{JINJA_SIGN2('=', '='), NULL, JINJA_EQ},
      {JINJA_SIGN2('!', '='), NULL, JINJA_NE},
      {'<', NULL, JINJA_LT},
      {JINJA_SIGN2('<', '='), NULL, JINJA_LE},
      {'>', NULL, JINJA_GT},
      {JINJA_SIGN2('>', '='), NULL, JINJA_GE},
      {0, "in", JINJA_IN},
      {0, "not", JINJA_NOT_IN}}},
    {JINJA_EXPR_MATH, {{'+', NULL, JINJA_ADD}, {'-', NULL, JINJA_SUB}}},
    {JINJA_EXPR_CONCAT, {{.sign = '~'}}},
    {JINJA_EXPR_MATH,
     {{'*', NULL, JINJA_MUL},
      {'/', NULL, JINJA_DIV},
      {JINJA_SIGN2('/', '/'), NULL, JINJA_FLOORDIV},
      {'%', NULL, JINJA_MOD}}},
    {JINJA_EXPR_MATH, {{JINJA_SIGN2('*', '*'), NULL, JINJA_POW}}},
};

/* Takes one of the level's operators. */
static bool take_op(struct jinja_parser *p, const struct level *l, uint8_t *ret_op)
{
    for (size_t i = 0; i < COUNT_OF(l->ops) && (l->ops[i].sign || l->ops[i].word); i++) {
        *ret_op = l->ops[i].op;
        if (l->ops[i].sign) {
            if (jinja_parse_skip_sign(p, l->ops[i].sign)) {
                return true;
            }
        } else if (jinja_parse_is_word(p, l->ops[i].word)) {
            bool two = l->kind == JINJA_EXPR_COMPARE && l->ops[i].op == JINJA_NOT_IN;
            if (two &&
                !(p->next.kind == JINJA_WORD && jinja_value_is_str(p->next.value, "in", 2))) {
                continue;
            }
            jinja_parse_take(p);
            if (two) {
                jinja_parse_take(p);
            }
            return true;
        }
    }
    return false;
}

static struct jinja_expr *binary(struct jinja_parser *p, size_t level)
{
    if (level == COUNT_OF(levels)) {
        return unary(p, true);
    }
    const struct level *l = &levels[level];
    uint32_t line = p->now.line;
    if (l->kind == JINJA_EXPR_NOT) {
        if (!jinja_parse_skip_word(p, "not")) {
            return binary(p, level + 1);
        }
        jinja_parse_deeper(p);
        struct jinja_list operand = {0};
        jinja_parse_push(p, &operand, binary(p, level));
        p->depth--;
        struct jinja_expr *e = make(p, l->kind, line);
        set_items(e, &operand);
        return e;
    }
    struct jinja_expr *first = binary(p, level + 1);
    uint8_t op;
    if (!take_op(p, l, &op)) {
        return first;
    }
    struct jinja_list items = {0};
    size_t mark = jinja_capture(p->j); /* the operators gather in the printed text */
    jinja_parse_push(p, &items, first);
    do {
        jinja_put(p->j, (const char *)&op, 1);
        jinja_parse_push(p, &items, binary(p, level + 1));
    } while (take_op(p, l, &op));
    struct jinja_expr *e = make(p, l->kind, line);
    set_items(e, &items);
    e->ops = jinja_alloc(p->j, items.n);
    memcpy(e->ops, p->j->out.data + mark, items.n - 1);
    p->j->out.len = mark;
    return e;
}

struct jinja_expr *jinja_expr_parse(struct jinja_parser *p, bool with_if)
{
    jinja_parse_deeper(p);
    uint32_t line = p->now.line;
    struct jinja_expr *e = binary(p, 0);
    unsigned depth = p->depth;
    while (with_if && jinja_parse_skip_word(p, "if")) {
        jinja_parse_deeper(p); /* without an else these nest to the left */
        struct jinja_list items = {0};
        jinja_parse_push(p, &items, e);
        jinja_parse_push(p, &items, binary(p, 0));
        jinja_parse_push(p, &items,
                         jinja_parse_skip_word(p, "else") ? jinja_expr_parse(p, true) : NULL);
        e = make(p, JINJA_EXPR_IF, line);
        set_items(e, &items);
    }
    p->depth = depth - 1;
    return e;
}

static bool is_tuple_end(const struct jinja_parser *p, const char *stop)
{
    return p->now.kind == JINJA_PRINT_END || p->now.kind == JINJA_BLOCK_END ||
           jinja_parse_is_sign(p, ')') || (stop && jinja_parse_is_word(p, stop));
}

static struct jinja_expr *tuple(struct jinja_parser *p, bool with_if, const char *stop,
                                bool may_be_empty)
{
    struct jinja_list items = {0};
    uint32_t line = p->now.line;
    bool is_tuple = false;
    while (!is_tuple_end(p, stop)) {
        jinja_parse_push(p, &items, jinja_expr_parse(p, with_if));
        if (!jinja_parse_skip_sign(p, ',')) {
            break;
        }
        is_tuple = true;
    }
    if (!is_tuple && items.n) {
        return items.items[0];
    }
    if (!is_tuple && !may_be_empty) {
        jinja_parse_fail(p, "an expression");
    }
    struct jinja_expr *e = make(p, JINJA_EXPR_TUPLE, line);
    set_items(e, &items);
    return e;
}

struct jinja_expr *jinja_expr_tuple(struct jinja_parser *p, bool with_if, const char *stop)
{
    return tuple(p, with_if, stop, false);
}

/* ---- what operators work on ---- */

/* The items of [...] or {...}, up to the closing sign. */
static struct jinja_expr *literal(struct jinja_parser *p, enum jinja_expr_kind kind, int close)
{
    struct jinja_expr *e = make(p, kind, p->now.line);
    struct jinja_list items = {0};
    jinja_parse_take(p);
    while (!jinja_parse_is_sign(p, close)) {
        jinja_parse_push(p, &items, jinja_expr_parse(p, true));
        if (kind == JINJA_EXPR_DICT) {
            jinja_parse_expect_sign(p, ':');
            jinja_parse_push(p, &items, jinja_expr_parse(p, true));
        }
        if (!jinja_parse_is_sign(p, close)) {
            jinja_parse_expect_sign(p, ',');
        }
    }
    jinja_parse_take(p);
    set_items(e, &items);
    return e;
}

static struct jinja_expr *text_constant(struct jinja_parser *p)
{
    struct jinja_expr *e = make_constant(p, jinja_parse_take(p).value);
    while (p->now.kind == JINJA_CONST && p->now.value.kind == JINJA_STR) {
        e->constant = jinja_value_concat(p->j, e->constant, jinja_parse_take(p).value);
    }
    return e;
}

static struct jinja_expr *word(struct jinja_parser *p)
{
    struct jinja_token t = jinja_parse_take(p);
    static const struct {
        const char *word;
        struct jinja_value value;
    } constants[] = {
        {"true", {.kind = JINJA_BOOL, .b = true}},
        {"True", {.kind = JINJA_BOOL, .b = true}},
        {"false", {.kind = JINJA_BOOL, .b = false}},
        {"False", {.kind = JINJA_BOOL, .b = false}},
        {"none", {.kind = JINJA_NONE}},
        {"None", {.kind = JINJA_NONE}},
    };
    for (size_t i = 0; i < COUNT_OF(constants); i++) {
        if (jinja_value_is_str(t.value, constants[i].word, strlen(constants[i].word))) {
            return make_constant(p, constants[i].value);
        }
    }
    struct jinja_expr *e = make(p, JINJA_EXPR_NAME, t.line);
    e->name = jinja_parse_name(p, t.value);
    for (struct jinja_uses *u = p->uses; u; u = u->outer) {
        u->caller = u->caller || jinja_value_is_str(t.value, "caller", 6);
        u->kwargs = u->kwargs || jinja_value_is_str(t.value, "kwargs", 6);
        u->varargs = u->varargs || jinja_value_is_str(t.value, "varargs", 7);
    }
    return e;
}

static struct jinja_expr *primary(struct jinja_parser *p)
{
    if (p->now.kind == JINJA_WORD) {
        return word(p);
    }
    if (p->now.kind == JINJA_CONST) {
        return p->now.value.kind == JINJA_STR ? text_constant(p)
                                              : make_constant(p, jinja_parse_take(p).value);
    }
    if (jinja_parse_is_sign(p, '[')) {
        return literal(p, JINJA_EXPR_LIST, ']');
    }
    if (jinja_parse_is_sign(p, '{')) {
        return literal(p, JINJA_EXPR_DICT, '}');
    }
    if (!jinja_parse_skip_sign(p, '(')) {
        jinja_parse_fail(p, "an expression");
    }
    struct jinja_expr *e = tuple(p, true, NULL, true);
    jinja_parse_expect_sign(p, ')');
    return e;
}

/* Another link at the end of a chain; e becomes one if it is none. */
static struct jinja_link *add_link(struct jinja_parser *p, struct jinja_expr **e,
                                   enum jinja_link_kind kind)
{
    struct jinja_expr *chain = *e;
    if (!chain || chain->kind != JINJA_EXPR_CHAIN) {
        chain = make(p, JINJA_EXPR_CHAIN, p->now.line);
        chain->n = 1;
        chain->items = jinja_alloc(p->j, sizeof(struct jinja_expr *));
        chain->items[0] = *e;
        *e = chain;
    }
    uint32_t n = chain->n_links;
    if ((n & (n - 1)) == 0) {
        struct jinja_link *links = jinja_array(p->j, n ? 2 * (size_t)n : 1, sizeof(*links));
        if (n) {
            memcpy(links, chain->links, n * sizeof(*links));
        }
        chain->links = links;
    }
    struct jinja_link *l = &chain->links[chain->n_links++];
    *l = (struct jinja_link){.kind = kind, .line = p->now.line};
    return l;
}

static void keep_constant(struct jinja_parser *p, struct jinja_arguments *a)
{
    bool constant = !a->star && !a->star_star;
    for (uint32_t i = 0; i < a->n_pos; i++) {
        constant = constant && a->pos[i]->kind == JINJA_EXPR_CONSTANT;
    }
    for (uint32_t i = 0; i < a->n_kw; i++) {
        constant = constant && a->kw[i].value->kind == JINJA_EXPR_CONSTANT;
    }
    if (!constant) {
        return;
    }
    struct jinja_args *args = jinja_alloc(p->j, sizeof(*args));
    struct jinja_value *pos = jinja_array(p->j, a->n_pos, sizeof(*pos));
    struct jinja_keyword *kw = jinja_array(p->j, a->n_kw, sizeof(*kw));
    for (uint32_t i = 0; i < a->n_pos; i++) {
        pos[i] = a->pos[i]->constant;
    }
    for (uint32_t i = 0; i < a->n_kw; i++) {
        kw[i] = (struct jinja_keyword){a->kw[i].name, a->kw[i].value->constant};
    }
    *args = (struct jinja_args){.n_pos = a->n_pos, .n_kw = a->n_kw, .pos = pos, .kw = kw};
    a->constant = args;
}

static void argument(struct jinja_parser *p, struct jinja_arguments *a, struct jinja_list *pos,
                     struct jinja_list *kw)
{
    if (!a->star && !a->star_star && jinja_parse_skip_sign(p, '*')) {
        a->star = jinja_expr_parse(p, true);
    } else if (!a->star_star && jinja_parse_skip_sign(p, JINJA_SIGN2('*', '*'))) {
        a->star_star = jinja_expr_parse(p, true);
    } else if (!a->star_star && p->now.kind == JINJA_WORD && p->next.kind == JINJA_SIGN &&
               p->next.sign == '=') {
        struct jinja_argument *named = jinja_alloc(p->j, sizeof(*named));
        named->name = jinja_parse_take(p).value;
        jinja_parse_take(p);
        named->value = jinja_expr_parse(p, true);
        for (uint32_t i = 0; i < kw->n; i++) {
            const struct jinja_argument *other = kw->items[i];
            if (jinja_value_is_str(other->name, named->name.s, named->name.n)) {
                jinja_parse_fail(p, "each argument once");
            }
            jinja_step(p->j, 1);
        }
        jinja_parse_push(p, kw, named);
    } else {
        if (a->star || a->star_star || kw->n) {
            jinja_parse_fail(p, "no positional argument behind named ones");
        }
        jinja_parse_push(p, pos, jinja_expr_parse(p, true));
    }
}

static struct jinja_arguments *arguments(struct jinja_parser *p)
{
    struct jinja_arguments *a = jinja_alloc(p->j, sizeof(*a));
    struct jinja_list pos = {0}, kw = {0};
    jinja_parse_expect_sign(p, '(');
    while (!jinja_parse_is_sign(p, ')')) {
        argument(p, a, &pos, &kw);
        if (!jinja_parse_is_sign(p, ')')) {
            jinja_parse_expect_sign(p, ',');
        }
    }
    jinja_parse_take(p);
    a->n_pos = pos.n;
    a->pos = (struct jinja_expr **)(void *)pos.items;
    a->n_kw = kw.n;
    a->kw = jinja_array(p->j, kw.n, sizeof(*a->kw));
    for (uint32_t i = 0; i < kw.n; i++) {
        a->kw[i] = *(struct jinja_argument *)kw.items[i];
    }
    keep_constant(p, a);
    return a;
}

static struct jinja_arguments *no_arguments(struct jinja_parser *p)
{
    struct jinja_arguments *a = jinja_alloc(p->j, sizeof(*a));
    keep_constant(p, a);
    return a;
}

/* One of "a", ":", "a:b", "a:b:c" and so on, within brackets. */
static bool subscript_part(struct jinja_parser *p, struct jinja_expr *part[3])
{
    bool is_slice = false;
    for (int i = 0; i < 3; i++) {
        if (!jinja_parse_is_sign(p, ':') && !jinja_parse_is_sign(p, ']') &&
            !jinja_parse_is_sign(p, ',')) {
            part[i] = jinja_expr_parse(p, true);
        }
        if (i == 2 || !jinja_parse_skip_sign(p, ':')) {
            break;
        }
        is_slice = true;
    }
    return is_slice;
}

static void subscript(struct jinja_parser *p, struct jinja_expr **e)
{
    struct jinja_link *l = add_link(p, e, JINJA_LINK_ITEM);
    jinja_parse_take(p);
    struct jinja_expr *part[3] = {NULL, NULL, NULL};
    uint32_t line = p->now.line;
    if (subscript_part(p, part)) {
        l->kind = JINJA_LINK_SLICE;
        if (!jinja_parse_is_sign(p, ']')) {
            jinja_parse_fail(p, "']'");
        }
    } else if (!part[0] || jinja_parse_is_sign(p, ',')) {
        struct jinja_list items = {0}; /* x[a, b] has a tuple for its key */
        if (part[0]) {
            jinja_parse_push(p, &items, part[0]);
        }
        while (jinja_parse_skip_sign(p, ',')) {
            jinja_parse_push(p, &items, jinja_expr_parse(p, true));
        }
        part[0] = make(p, JINJA_EXPR_TUPLE, line);
        set_items(part[0], &items);
    }
    jinja_parse_expect_sign(p, ']');
    memcpy(l->part, part, sizeof(part));
}

static void attribute(struct jinja_parser *p, struct jinja_expr **e)
{
    jinja_parse_take(p);
    struct jinja_link *l = add_link(p, e, JINJA_LINK_ATTR);
    if (p->now.kind == JINJA_CONST && p->now.value.kind == JINJA_INT) {
        l->kind = JINJA_LINK_ITEM;
        l->part[0] = make_constant(p, jinja_parse_take(p).value);
        return;
    }
    l->name = jinja_parse_expect_name(p);
    const enum jinja_kind kinds[] = {JINJA_STR, JINJA_LIST, JINJA_DICT};
    for (int i = 0; i < 3; i++) {
        l->method[i] = jinja_attr_method(kinds[i], l->name.s, l->name.n);
    }
}

static struct jinja_expr *postfix(struct jinja_parser *p, struct jinja_expr *e)
{
    for (;;) {
        if (jinja_parse_is_sign(p, '.')) {
            attribute(p, &e);
        } else if (jinja_parse_is_sign(p, '[')) {
            subscript(p, &e);
        } else if (jinja_parse_is_sign(p, '(')) {
            struct jinja_link *l = add_link(p, &e, JINJA_LINK_CALL);
            l->arguments = arguments(p);
        } else {
            return e;
        }
    }
}

/* The name of a filter or test; dots may be in it. */
static struct jinja_value dotted_name(struct jinja_parser *p)
{
    struct jinja_value name = jinja_parse_expect_name(p);
    while (jinja_parse_skip_sign(p, '.')) {
        name = jinja_value_concat(p->j, name, JINJA_LITERAL("."));
        name = jinja_value_concat(p->j, name, jinja_parse_expect_name(p));
    }
    return name;
}

static void filter(struct jinja_parser *p, struct jinja_expr **e)
{
    struct jinja_link *l = add_link(p, e, JINJA_LINK_FILTER);
    l->name = dotted_name(p);
    l->builtin = jinja_filter_find(l->name.s, l->name.n);
    l->arguments = jinja_parse_is_sign(p, '(') ? arguments(p) : no_arguments(p);
}

/* The argument of a test may stand without brackets: "x is divisibleby 3". */
static struct jinja_arguments *bare_argument(struct jinja_parser *p)
{
    bool begins = p->now.kind == JINJA_CONST || jinja_parse_is_sign(p, '[') ||
                  jinja_parse_is_sign(p, '{') || p->now.kind == JINJA_WORD;
    if (!begins || jinja_parse_is_word(p, "else") || jinja_parse_is_word(p, "or") ||
        jinja_parse_is_word(p, "and")) {
        return no_arguments(p);
    }
    if (jinja_parse_is_word(p, "is")) {
        jinja_parse_fail(p, "no second test (tests cannot be chained)");
    }
    struct jinja_arguments *a = jinja_alloc(p->j, sizeof(*a));
    a->n_pos = 1;
    a->pos = jinja_alloc(p->j, sizeof(*a->pos));
    jinja_parse_deeper(p);
    a->pos[0] = postfix(p, primary(p));
    p->depth--;
    keep_constant(p, a);
    return a;
}

static void test(struct jinja_parser *p, struct jinja_expr **e)
{
    jinja_parse_take(p);
    struct jinja_link *l = add_link(p, e, JINJA_LINK_TEST);
    l->is_negated = jinja_parse_skip_word(p, "not");
    l->name = dotted_name(p);
    l->builtin = jinja_test_find(l->name.s, l->name.n);
    l->arguments = jinja_parse_is_sign(p, '(') ? arguments(p) : bare_argument(p);
}

static struct jinja_expr *unary(struct jinja_parser *p, bool with_filters)
{
    struct jinja_expr *e;
    uint32_t line = p->now.line;
    bool minus = jinja_parse_is_sign(p, '-');
    if (minus || jinja_parse_is_sign(p, '+')) {
        jinja_parse_take(p);
        jinja_parse_deeper(p);
        struct jinja_expr *operand = unary(p, false);
        p->depth--;
        if (operand->kind == JINJA_EXPR_CONSTANT &&
            (operand->constant.kind == JINJA_INT || operand->constant.kind == JINJA_FLOAT)) {
            e = make_constant(p, minus ? jinja_number_negate(p->j, operand->constant)
                                       : operand->constant);
        } else {
            struct jinja_list items = {0};
            jinja_parse_push(p, &items, operand);
            e = make(p, JINJA_EXPR_SIGN, line);
            set_items(e, &items);
            e->ops = jinja_alloc(p->j, 1);
            e->ops[0] = minus;
        }
    } else {
        e = primary(p);
    }
    e = postfix(p, e);
    while (with_filters) {
        if (jinja_parse_skip_sign(p, '|')) {
            filter(p, &e);
        } else if (jinja_parse_is_word(p, "is")) {
            test(p, &e);
        } else if (jinja_parse_is_sign(p, '(')) {
            struct jinja_link *l = add_link(p, &e, JINJA_LINK_CALL);
            l->arguments = arguments(p);
        } else {
            break;
        }
    }
    return e;
}

struct jinja_expr *jinja_expr_filters(struct jinja_parser *p, bool begun)
{
    struct jinja_expr *e = NULL;
    while (begun || jinja_parse_skip_sign(p, '|')) {
        begun = false;
        filter(p, &e);
    }
    return e;
}
