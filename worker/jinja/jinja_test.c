/* The tests. Pure. */
#include "worker/jinja/jinja_test.h"
#include "worker/jinja/jinja_filter.h"
#include "worker/jinja/jinja_iter.h"
#include "worker/jinja/jinja_op.h"
#include "worker/jinja/jinja_strform.h"
#include "worker/jinja/jinja_text.h"

#define TEST(name, condition)                                                                      \
    static struct jinja_value name(struct jinja *j, struct jinja_value self,                       \
                                   const struct jinja_value *arg, const struct jinja_args *args)   \
    {                                                                                              \
        (void)j, (void)self, (void)arg, (void)args;                                                \
        return jinja_value_bool(condition);                                                        \
    }

static bool leaves(struct jinja *j, struct jinja_value v, struct jinja_value by, int64_t rest)
{
    struct jinja_value mod = jinja_op_binary(j, JINJA_MOD, v, by);
    return jinja_value_equal(j, mod, jinja_value_int(rest));
}

static bool is_sequence(struct jinja_value v)
{
    return v.kind == JINJA_STR || v.kind == JINJA_LIST || v.kind == JINJA_TUPLE ||
           v.kind == JINJA_DICT || v.kind == JINJA_RANGE || v.kind == JINJA_UNDEFINED;
}

static bool is_iterable(struct jinja_value v)
{
    return is_sequence(v) || v.kind == JINJA_VIEW || v.kind == JINJA_ITER || v.kind == JINJA_LOOP;
}

static bool is_callable(struct jinja_value v)
{
    return v.kind == JINJA_METHOD || v.kind == JINJA_FUNCTION || v.kind == JINJA_MACRO ||
           v.kind == JINJA_JOINER || v.kind == JINJA_LOOP || v.kind == JINJA_UNDEFINED;
}

/* Scalars have no identity here: the same value is the same object. */
static bool is_same(struct jinja *j, struct jinja_value a, struct jinja_value b)
{
    if (a.kind != b.kind) {
        return false;
    }
    if (a.kind == JINJA_STR || a.kind == JINJA_NONE || jinja_value_is_number(a)) {
        return jinja_value_equal(j, a, b);
    }
    return a.p == b.p && a.n == b.n;
}

static bool is_ordered(struct jinja *j, struct jinja_value a, struct jinja_value b, const char *op,
                       int order, bool or_equal)
{
    int found = jinja_value_compare(j, a, b, op);
    return found == order || (or_equal && found == 0);
}

TEST(test_defined, self.kind != JINJA_UNDEFINED)
TEST(test_undefined, self.kind == JINJA_UNDEFINED)
TEST(test_none, self.kind == JINJA_NONE)
TEST(test_boolean, self.kind == JINJA_BOOL)
TEST(test_true, self.kind == JINJA_BOOL && self.b)
TEST(test_false, self.kind == JINJA_BOOL && !self.b)
TEST(test_integer, self.kind == JINJA_INT)
TEST(test_float, self.kind == JINJA_FLOAT)
TEST(test_number, jinja_value_is_number(self))
TEST(test_string, self.kind == JINJA_STR)
TEST(test_mapping, self.kind == JINJA_DICT)
TEST(test_sequence, is_sequence(self))
TEST(test_iterable, is_iterable(self))
TEST(test_callable, is_callable(self))
TEST(test_escaped, jinja_value_is_markup(self))
TEST(test_odd, leaves(j, self, jinja_value_int(2), 1))
TEST(test_even, leaves(j, self, jinja_value_int(2), 0))
TEST(test_divisibleby, leaves(j, self, arg[0], 0))
TEST(test_lower, jinja_strform_is_lower(j, jinja_text_str(j, self)))
TEST(test_upper, jinja_strform_is_upper(j, jinja_text_str(j, self)))
TEST(test_sameas, is_same(j, self, arg[0]))
TEST(test_in, jinja_value_contains(j, arg[0], self))
TEST(test_eq, jinja_value_equal(j, self, arg[0]))
TEST(test_ne, !jinja_value_equal(j, self, arg[0]))
TEST(test_lt, is_ordered(j, self, arg[0], "<", -1, false))
TEST(test_le, is_ordered(j, self, arg[0], "<=", -1, true))
TEST(test_gt, is_ordered(j, self, arg[0], ">", 1, false))
TEST(test_ge, is_ordered(j, self, arg[0], ">=", 1, true))
TEST(test_filter, self.kind == JINJA_STR && jinja_filter_find(self.s, self.n))
TEST(test_test, self.kind == JINJA_STR && jinja_test_find(self.s, self.n))

static const struct jinja_builtin tests[] = {
    {"defined", "", test_defined},    {"undefined", "", test_undefined},
    {"none", "", test_none},          {"boolean", "", test_boolean},
    {"true", "", test_true},          {"false", "", test_false},
    {"integer", "", test_integer},    {"float", "", test_float},
    {"number", "", test_number},      {"string", "", test_string},
    {"mapping", "", test_mapping},    {"sequence", "", test_sequence},
    {"iterable", "", test_iterable},  {"callable", "", test_callable},
    {"escaped", "", test_escaped},    {"odd", "", test_odd},
    {"even", "", test_even},          {"divisibleby", "num", test_divisibleby},
    {"lower", "", test_lower},        {"upper", "", test_upper},
    {"sameas", "other", test_sameas}, {"in", "seq", test_in},
    {"eq", "other", test_eq},         {"equalto", "other", test_eq},
    {"==", "other", test_eq},         {"ne", "other", test_ne},
    {"!=", "other", test_ne},         {"lt", "other", test_lt},
    {"lessthan", "other", test_lt},   {"<", "other", test_lt},
    {"le", "other", test_le},         {"<=", "other", test_le},
    {"gt", "other", test_gt},         {"greaterthan", "other", test_gt},
    {">", "other", test_gt},          {"ge", "other", test_ge},
    {">=", "other", test_ge},         {"filter", "", test_filter},
    {"test", "", test_test},
};

const struct jinja_builtin *jinja_test_find(const char *name, size_t n)
{
    return jinja_call_find(tests, COUNT_OF(tests), name, n);
}
