"""Random templates from a grammar, with a context each. The same seed gives the same template. Most
render; some fail, as templates do. What they use is what the interpreter promises: nothing whose text
Python makes from addresses, no integers beyond 64 bits."""
import random

TEXTS = ["", "a", "Hello World", "  padded\t", "line one\nline two\n", "ünï çødé ß", "<b>&\"'</b>",
         "42", "3.5", "-7", "x,y,,z", "日本語テスト", "a-b_c d", "ALL CAPS", "{{ x }}", "true",
         "éa\u0301 ǆ", "tab\there", "a\r\nb\x0bc", "\u2028sep", "%s is %d", "{} and {0}", "0x1F",
         "don't \"stop\"", "Σίσυφος ΣΑΣ", "1_000", "🙂🙃", "a\\b"]
NAMES = {"str": ["s1", "s2", "sx", "sy"], "int": ["n1", "n2", "nx"], "float": ["f1"],
         "bool": ["b1"], "ints": ["li", "lx"], "strs": ["ls"], "dicts": ["ld"], "dict": ["d1"],
         "any": ["nothing", "missing", "mixed"]}
STRIPS = ["a", "ab", " \n"]
FILTERS = ["upper", "trim", "replace('a', 'é')", "indent(2)|upper"]
STORES = {"str": ["sx", "sy"], "int": ["nx"], "ints": ["lx"]}


def quote(text):
    out = "".join({"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "'": "\\'"}.get(c, c)
                  for c in text)
    return f"'{out}'"


class Generator:
    def __init__(self, seed):
        self.r = random.Random(seed)
        self.depth = 0
        self.loops = 0
        self.macros = []
        self.namespaces = 0

    def one(self, *options):
        return self.r.choice(options)()

    def maybe(self, share):
        return self.r.random() < share

    # ---- expressions, by the type of their value ----

    def expr(self, kind):
        if self.maybe(0.01):  # the wrong type now and then
            kind = self.r.choice(["str", "int", "float", "bool", "ints", "strs", "dict", "any"])
        self.depth += 1
        leaf = self.depth > 4 or self.maybe(0.25)
        text = self.leaf(kind) if leaf else getattr(self, "make_" + kind)()
        self.depth -= 1
        return f"({text})" if self.maybe(0.1) else text

    def base(self, kind):
        """Before a dot or a bracket; what binds less tightly needs parentheses, mostly."""
        text = self.expr(kind)
        return text if text.isidentifier() or self.maybe(0.05) else f"({text})"

    def piped(self, kind):
        """Before a filter, which binds more tightly than operators."""
        return self.expr(kind) if self.maybe(0.35) else self.base(kind)

    def leaf(self, kind):
        r = self.r
        if self.maybe(0.5):
            return r.choice(NAMES[kind])
        if kind == "str":
            return quote(r.choice(TEXTS))
        if kind == "int":
            return str(r.choice([0, 1, 2, 3, 5, 7, 10, 42, 100, 12345]))
        if kind == "float":
            return r.choice(["0.0", "1.5", "2.25", "3.14159", "1e3", "1e-7", "2.5e16", "0.1", "100.0"])
        if kind == "bool":
            return r.choice(["true", "false", "True", "False"])
        if kind == "ints":
            return "[" + ", ".join(str(r.randint(-3, 9)) for _ in range(r.randint(0, 5))) + "]"
        if kind == "strs":
            return "[" + ", ".join(quote(r.choice(TEXTS)) for _ in range(r.randint(0, 4))) + "]"
        if kind == "dict":
            return "{" + ", ".join(f"{quote(k)}: {r.randint(0, 9)}"
                                   for k in r.sample("abcXYZ", r.randint(0, 4))) + "}"
        if kind == "dicts":
            return "ld"
        return r.choice(["none", "missing", "mixed", "()", "(1, 'b')", "nothing"])

    def make_str(self):
        e, p, b, r = self.expr, self.piped, self.base, self.r
        return self.one(
            lambda: f"{e('str')} ~ {e('any')}",
            lambda: f"{e('str')} ~ {e('int')} ~ {e('str')}",
            lambda: f"{e('str')} + {e('str')}",
            lambda: f"{e('str')} * {r.randint(-1, 3)}",
            lambda: f"{p('str')}|{r.choice('upper lower title capitalize trim string e safe'.split())}",
            lambda: f"{p('str')}|trim({quote(r.choice(['a', 'ab ', ' x', 'é']))})",
            lambda: f"{p('str')}|replace({quote(r.choice(['a', 'l', '', ' ', 'one']))}, {e('str')}"
                    + r.choice(["", ", 1", ", count=2"]) + ")",
            lambda: f"{p('str')}|default({e('str')}" + r.choice(["", ", true"]) + ")",
            lambda: f"{p('strs')}|join" + r.choice(["", f"({e('str')})", "(', ')"]),
            lambda: f"{p('ints')}|join('-')",
            lambda: f"{p('dicts')}|join(', ', attribute='name')",
            lambda: f"{p('str')}|truncate({r.randint(3, 12)}"
                    + r.choice(["", ", true", ", false, '…'", ", leeway=0"]) + ")",
            lambda: f"{p('str')}|indent" + r.choice(["", "(2)", "(width=3, first=true)",
                                                     "('> ', blank=true)"]),
            lambda: f"{p('str')}|center({r.randint(0, 20)})",
            lambda: f"{p('any')}|string",
            lambda: f"{self.any_value()}|tojson" + r.choice(
                ["", "", "(indent=2)", "(ensure_ascii=true)", "(sort_keys=true)",
                 "(separators=(',', ':'))", "(indent=1, sort_keys=True)"]),
            lambda: f"{b('str')}.{self.method()}",
            lambda: f"{b('str')}.{self.method()}.{self.method()}",
            lambda: f"{b('str')}[{self.subscript()}]",
            lambda: f"{b('strs')}[{r.randint(-3, 3)}]",
            lambda: f"{p('strs')}|{r.choice(['first', 'last'])}",
            lambda: f"{b('dicts')}[{r.randint(0, 2)}].name",
            lambda: f"{e('str')} if {e('bool')} else {e('str')}",
            lambda: f"({e('str')} if {e('bool')})",
            lambda: f"{e('str')} or {e('str')}",
            lambda: f"{e('str')} and {e('str')}",
            lambda: f"{quote(r.choice(['%s!', '%5s|%-5s|', '%r', '%%', '%s %s', '%.2s']))} % "
                    + r.choice([f"({e('str')}, {e('str')})", f"({e('str')},)", e("str")]),
            lambda: f"{quote(r.choice(['%d', '%5d', '%-5d|', '%05d', '%x', '%+d', '%o', '%c', '% d']))}"
                    f" % {e('int')}",
            lambda: f"{quote(r.choice(['%f', '%.2f', '%8.3f', '%e', '%g', '%.3g', '%08.2f']))}"
                    f" % {e('float')}",
            lambda: f"{quote(r.choice(['{}', '{0}-{0}', '{:>8}', '{:^9}|', '{!r}', '{:*<6}', '{{}}']))}"
                    f".format({e('str')})",
            lambda: f"{quote(r.choice(['{:d}', '{:5}', '{:<5}|', '{:05d}', '{:,}', '{:x}', '{:+}']))}"
                    f".format({e('int')})",
            lambda: f"{quote(r.choice(['{:.2f}', '{:8.3f}', '{:e}', '{:g}', '{:.3}', '{:%}', '{}']))}"
                    f".format({e('float')})",
            lambda: f"'{{a}}/{{b.name}}/{{c[0]}}'.format(a={e('str')}, b=ld[0], c={e('strs')})",
            lambda: f"'%s-%s'|format({e('str')}, {e('int')})",
            lambda: f"{p('str')}|reverse",
            lambda: f"{p('str')}|urlencode",
            lambda: f"{quote('a')} {quote('b')}",
        )

    def method(self):
        e, p, b, r = self.expr, self.piped, self.base, self.r
        return self.one(
            lambda: r.choice("upper lower title capitalize swapcase casefold strip lstrip rstrip"
                             .split()) + "()",
            lambda: f"{r.choice(['strip', 'lstrip', 'rstrip'])}({quote(r.choice(STRIPS))})",
            lambda: f"replace({quote(r.choice(['a', 'b', '', 'l']))}, {quote(r.choice(TEXTS))})",
            lambda: f"{r.choice(['center', 'ljust', 'rjust'])}({r.randint(0, 9)}, '*')",
            lambda: f"zfill({r.randint(0, 6)})",
            lambda: f"{r.choice(['removeprefix', 'removesuffix'])}({quote(r.choice(['a', 'He', 'd']))})",
            lambda: f"join({e('strs')})",
            lambda: "expandtabs(4)",
        )

    def subscript(self):
        r = self.r
        part = lambda: r.choice(["", str(r.randint(-4, 6))])
        return r.choice([str(r.randint(-3, 4)), f"{part()}:{part()}",
                         f"{part()}:{part()}:{r.choice(['', '1', '2', '-1', '-2'])}"])

    def make_int(self):
        e, p, b, r = self.expr, self.piped, self.base, self.r
        return self.one(
            lambda: f"{e('int')} {r.choice(['+', '-', '*'])} {r.randint(0, 9)}",
            lambda: f"{e('int')} {r.choice(['//', '%'])} {r.choice([1, 2, 3, -2, 7])}",
            lambda: f"-({e('int')})",
            lambda: f"{r.randint(0, 3)} ** {r.randint(0, 4)}",
            lambda: f"{r.randint(2, 3)} ** {r.randint(0, 2)} ** {r.randint(0, 2)}",
            lambda: f"{p(r.choice(['str', 'strs', 'ints', 'dict', 'dicts']))}|"
                    + r.choice(["length", "count"]),
            lambda: f"{p('str')}|int" + r.choice(["", "(-1)", "(default=5)", "(0, 16)", "(base=2)"]),
            lambda: f"{p('float')}|int",
            lambda: f"{p('ints')}|{r.choice(['sum', 'min', 'max', 'first', 'last'])}",
            lambda: f"{p('ints')}|sum(start={r.randint(0, 3)})",
            lambda: f"{p('dicts')}|sum(attribute='n')",
            lambda: f"{p('int')}|abs",
            lambda: f"{p('int')}|round({r.choice([0, 1, -1, -2])})",
            lambda: f"{b('str')}.{r.choice(['find', 'rfind', 'count'])}"
                    f"({quote(r.choice(['a', 'l', '', 'o', 'é']))}"
                    + r.choice(["", ", 1", ", 2, 5", ", -3"]) + ")",
            lambda: f"{p('str')}|wordcount",
            lambda: f"{b('dict')}.get({quote(r.choice('abcq'))}, {r.randint(0, 9)})",
            lambda: f"{b('ints')}.count({r.randint(0, 5)})",
            lambda: f"{b('ints')}[{r.randint(-2, 3)}]",
            lambda: f"{e('int')} if {e('bool')} else {e('int')}",
            lambda: "loop.index" if self.loops else "1",
            lambda: f"{e('bool')} + {e('bool')}",
        )

    def make_float(self):
        e, p, b, r = self.expr, self.piped, self.base, self.r
        return self.one(
            lambda: f"{e('float')} {r.choice(['+', '-', '*'])} {e('float')}",
            lambda: f"{e('int')} / {r.choice([1, 2, 3, 7, 10, -4])}",
            lambda: f"{e('float')} {r.choice(['//', '%'])} {r.choice(['2', '0.5', '-3', '1.5'])}",
            lambda: f"{p('str')}|float" + r.choice(["", "(1.5)"]),
            lambda: f"{p('float')}|round({r.choice(['', '1', '2', '3', '-1'])}"
                    .replace("round()", "round") + ")",
            lambda: f"{p('float')}|round({r.randint(0, 2)}, {quote(r.choice(['ceil', 'floor', 'common']))})",
            lambda: f"{p('int')}|float",
            lambda: f"-({e('float')})",
            lambda: f"{p('float')}|abs",
            lambda: f"{r.choice(['2', '2.0', '9'])} ** {r.choice(['0.5', '-1', '-2', '3'])}",
        )

    def make_bool(self):
        e, p, b, r = self.expr, self.piped, self.base, self.r
        compare = lambda: r.choice(["==", "!=", "<", "<=", ">", ">="])
        return self.one(
            lambda: f"{e('int')} {compare()} {e('int')}",
            lambda: f"{e('float')} {compare()} {e('int')}",
            lambda: f"{e('str')} {compare()} {e('str')}",
            lambda: f"{e('ints')} {compare()} {e('ints')}",
            lambda: f"{e('int')} {compare()} {e('int')} {compare()} {e('int')}",
            lambda: f"{e('any')} {r.choice(['==', '!='])} {e('any')}",
            lambda: f"not {e('bool')}",
            lambda: f"{e('bool')} {r.choice(['and', 'or'])} {e('bool')}",
            lambda: f"{e('str')} {r.choice(['in', 'not in'])} {e('str')}",
            lambda: f"{e('str')} {r.choice(['in', 'not in'])} {e('strs')}",
            lambda: f"{e('int')} {r.choice(['in', 'not in'])} {e('ints')}",
            lambda: f"{quote(r.choice('abq'))} in {e('dict')}",
            lambda: f"{self.any_value()} is {r.choice(['', 'not '])}" + r.choice(
                "defined undefined none string number integer float boolean mapping sequence"
                " iterable callable true false".split()),
            lambda: f"{e('int')} is {r.choice(['odd', 'even', 'divisibleby 3', 'divisibleby(2)'])}",
            lambda: f"{e('int')} is {r.choice('eq equalto ne lt le gt ge lessthan greaterthan'.split())}"
                    f" {r.randint(0, 9)}",
            lambda: f"{e('str')} is {r.choice(['lower', 'upper', 'escaped'])}",
            lambda: f"{e('int')} is in {e('ints')}",
            lambda: f"{b('str')}.{r.choice(['startswith', 'endswith'])}"
                    f"({quote(r.choice(['a', 'He', '', 'd', 'z']))}" + r.choice(["", ", 1"]) + ")",
            lambda: f"{b('str')}.startswith(('a', 'H'))",
            lambda: f"{b('str')}." + r.choice(
                "isdigit isalpha isalnum isspace isupper islower istitle isnumeric isdecimal isascii"
                " isprintable isidentifier".split()) + "()",
            lambda: f"{quote(r.choice(['upper', 'nosuch', 'map']))} is filter",
        )

    def make_ints(self):
        e, p, b, r = self.expr, self.piped, self.base, self.r
        return self.one(
            lambda: f"{e('ints')} + {e('ints')}",
            lambda: f"{e('ints')} * {r.randint(0, 2)}",
            lambda: f"{p('ints')}|{r.choice(['sort', 'unique|list', 'reverse|list', 'list', 'sort(reverse=true)'])}",
            lambda: f"{b('ints')}[{self.subscript()}]",
            lambda: f"range({r.randint(0, 6)})|list",
            lambda: f"range({r.randint(-2, 3)}, {r.randint(-2, 8)}, {r.choice([1, 2, -1])})|list",
            lambda: f"{p('ints')}|{r.choice(['select', 'reject'])}({quote(r.choice(['odd', 'even']))})|list",
            lambda: f"{p('ints')}|select({quote(r.choice(['gt', '<', 'divisibleby', 'ne']))}, 2)|list",
            lambda: f"{p('strs')}|map('length')|list",
            lambda: f"{p('dicts')}|map(attribute='n')|list",
            lambda: f"{p('ints')}|map('abs')|map('string')|map('int')|list",
            lambda: f"[{e('int')}, {e('int')}]",
            lambda: f"{b('dict')}.values()|list",
            lambda: f"({e('int')}, {e('int')})|list",
        )

    def make_strs(self):
        e, p, b, r = self.expr, self.piped, self.base, self.r
        return self.one(
            lambda: f"{b('str')}.split(" + r.choice(["", "','", "' ', 1", "none, 1", "'\\n'", "sep='a'"])
                    + ")",
            lambda: f"{b('str')}.{r.choice(['rsplit', 'split'])}('a', {r.randint(0, 2)})",
            lambda: f"{b('str')}.splitlines(" + r.choice(["", "true"]) + ")",
            lambda: f"{b('str')}.{r.choice(['partition', 'rpartition'])}({quote(r.choice(['a', ' ', ',']))})|list",
            lambda: f"{p('strs')}|map({quote(r.choice(['upper', 'trim', 'title', 'e']))})|list",
            lambda: f"{p('strs')}|map('replace', 'a', 'b')|list",
            lambda: f"{p('strs')}|sort" + r.choice(["", "(case_sensitive=true)", "(true)"]),
            lambda: f"{p('strs')}|{r.choice(['unique', 'reverse', 'select', 'reject'])}|list",
            lambda: f"{p('strs')}|select('in', {e('strs')})|list",
            lambda: f"{p('dicts')}|map(attribute={quote(r.choice(['name', 'tags.0', 'sub.x']))}"
                    + r.choice(["", ", default='none'"]) + ")|list",
            lambda: f"{p('dicts')}|{r.choice(['selectattr', 'rejectattr'])}({quote(r.choice(['n', 'name', 'no']))}"
                    + r.choice(["", ", 'defined'", ", 'equalto', 'two'", ", 'in', ['one', 2]"])
                    + ")|map(attribute='name')|list",
            lambda: f"{b('dict')}.keys()|list",
            lambda: f"{p('dict')}|list",
            lambda: f"{p('str')}|list",
            lambda: f"{b('strs')}[{self.subscript()}]",
            lambda: f"[{e('str')}, {e('str')}]",
            lambda: f"{p('dicts')}|sort(attribute={quote(r.choice(['name', 'n', 'n,name']))})"
                    "|map(attribute='name')|list",
        )

    def make_dict(self):
        e, p, b, r = self.expr, self.piped, self.base, self.r
        return self.one(
            lambda: f"{{'a': {e('int')}, {e('str')}: {e('int')}}}",
            lambda: f"dict(a={e('int')}, b=2)",
            lambda: f"dict({e('dict')}, c=3)",
            lambda: f"dict({p('strs')}|map('list')|list)" if self.maybe(0.2) else "d1",
            lambda: f"{b('dict')}.copy()",
            lambda: f"{{1: {e('int')}, true: 5, 2.0: 'x', none: 3}}",
        )

    def make_dicts(self):
        e, p, b, r = self.expr, self.piped, self.base, self.r
        return self.one(
            lambda: "ld",
            lambda: f"ld[{self.subscript()}]" if self.maybe(0.3) else "ld[1:]",
            lambda: f"{p('dicts')}|sort(attribute={quote(r.choice(['n', 'name']))}"
                    + r.choice(["", ", reverse=true"]) + ")",
            lambda: f"{p('dicts')}|selectattr('n', 'gt', 1)|list",
            lambda: f"{e('dicts')} + [{{'name': {e('str')}, 'n': {e('int')}}}]",
        )

    def make_any(self):
        e, p, b, r = self.expr, self.piped, self.base, self.r
        return self.one(
            lambda: self.any_value(),
            lambda: f"{b('dict')}.items()|list",
            lambda: f"{p('dict')}|items|list",
            lambda: f"{p('dict')}|dictsort" + r.choice(["", "(true)", "(by='value')", "(reverse=true)"]),
            lambda: f"{p('ints')}|batch({r.randint(1, 3)}" + r.choice(["", ", 0"]) + ")|list",
            lambda: f"{p('ints')}|slice({r.randint(1, 3)}" + r.choice(["", ", 'f'"]) + ")|list",
            lambda: f"{p('dicts')}|groupby({quote(r.choice(['name', 'n']))})",
            lambda: f"d1.{r.choice(['a', 'b', 'items', 'nope', 'sub'])} is defined",
            lambda: f"d1.{r.choice(['a', 'sub', 'nope'])}",
            lambda: f"d1[{quote(r.choice(['a', 'sub', 'nope']))}]",
            lambda: f"d1.sub.{r.choice(['x', 'y', 'z.w'])}",
            lambda: f"mixed[{r.randint(-2, 8)}]",
            lambda: f"({e('int')}, {e('str')})",
            lambda: f"[{e('any')}, {{'k': {e('any')}}}]",
            lambda: f"{p('any')}|default({e('str')})",
            lambda: f"d1|attr({quote(r.choice(['nope', 'a']))})",
            lambda: f"{e('any')} if {e('bool')}",
            lambda: f"range({r.randint(0, 3)}, {r.randint(3, 9)}, {r.randint(1, 2)})",
        )

    def any_value(self):
        return self.expr(self.r.choice(list(NAMES)))

    # ---- statements ----

    def tag(self, text):
        r = self.r
        left = r.choice(["", "", "", "-", "+"]) if self.maybe(0.6) else ""
        right = r.choice(["", "", "", "-", "+"]) if self.maybe(0.6) else ""
        return f"{{%{left} {text} {right}%}}"

    def text(self):
        return self.r.choice(["", " ", "\n", "\n\n", "  \n  ", "text", " word ", "\nline\n", "a b\n  ",
                              "\t", "é\n", "{ % }", "\n    "])

    def body(self, size=3):
        self.depth += 1
        parts = []
        for _ in range(self.r.randint(1, size)):
            parts.append(self.text())
            parts.append(self.statement())
        parts.append(self.text())
        self.depth -= 1
        return "".join(parts)

    def statement(self):
        r = self.r
        if self.depth > 3 or self.maybe(0.45):
            left, right = r.choice([("{{", "}}"), ("{{", "}}"), ("{{-", "}}"), ("{{", "-}}")])
            return f"{left} {self.any_value()} {right}"
        return self.one(self.st_if, self.st_for, self.st_set, self.st_set, self.st_set_block,
                        self.st_macro, self.st_call, self.st_namespace, self.st_other)

    def st_if(self):
        text = self.tag(f"if {self.any_value()}") + self.body(2)
        if self.maybe(0.3):
            text += self.tag(f"elif {self.expr('bool')}") + self.body(2)
        if self.maybe(0.5):
            text += self.tag("else") + self.body(2)
        return text + self.tag("endif")

    def st_for(self):
        r, kind = self.r, self.r.choice(["ints", "strs", "dicts", "dict", "str", "any", "pairs"])
        target = {"ints": "nx", "strs": "sx", "dicts": "row", "str": "sy", "dict": "key",
                  "any": "v", "pairs": "key, value"}[kind]
        over = {"pairs": lambda: r.choice(["d1.items()", "d1|dictsort", "d1|items"])}.get(
            kind, lambda: self.expr(kind))()
        test = f" if {self.expr('bool')}" if self.maybe(0.2) else ""
        self.loops += 1
        body = self.body(3)
        shown = r.choice(["loop.index", "loop.index0", "loop.first", "loop.last", "loop.length",
                          "loop.revindex", "loop.revindex0", "loop.previtem", "loop.nextitem",
                          "loop.cycle('a', 'b')", "loop.changed(nx)", "loop.depth", target.split(",")[0]])
        body += f"{{{{ {shown} }}}}"
        if self.maybe(0.15):
            body += (self.tag(f"if loop.index {r.choice(['>', '=='])} {r.randint(1, 3)}")
                     + self.tag(r.choice(["break", "continue"])) + self.tag("endif") + self.text())
        self.loops -= 1
        text = self.tag(f"for {target} in {over}{test}") + body
        if self.maybe(0.25):
            text += self.tag("else") + self.body(1)
        return text + self.tag("endfor")

    def st_set(self):
        kind = self.r.choice(list(STORES))
        if self.maybe(0.1):
            return self.tag(f"set sx, nx = {self.expr('str')}, {self.expr('int')}")
        return self.tag(f"set {self.r.choice(STORES[kind])} = {self.expr(kind)}")

    def st_set_block(self):
        filters = self.r.choice(["", "", " | upper", " | trim | length", "|replace('a', 'b')"])
        return self.tag(f"set sx{filters}") + self.body(2) + self.tag("endset")

    def st_macro(self):
        r, name = self.r, f"m{len(self.macros)}"
        params = r.choice(["", "p", "p, q='dq'", "p=1, q=p", "sx, nx=n1"])
        loops, self.loops = self.loops, 0
        body = self.body(2)
        self.loops = loops
        body += r.choice(["", "{{ p }}", "{{ sx }}", "{{ q }}", "{{ varargs }}", "{{ kwargs }}",
                          "{{ caller() }}", "{{ caller is defined }}"])
        self.macros.append(name)
        return self.tag(f"macro {name}({params})") + body + self.tag("endmacro")

    def arguments(self):
        r = self.r
        return r.choice(["", self.any_value(), f"{self.any_value()}, {self.any_value()}",
                         f"p={self.any_value()}", f"q={self.any_value()}", "1, 2, 3", "*li", "**d1",
                         "1, z=2"])

    def st_call(self):
        if not self.macros:
            return self.st_set()
        name = self.r.choice(self.macros)
        if self.maybe(0.6):
            return f"{{{{ {name}({self.arguments()}) }}}}"
        params = self.r.choice(["", "", "(u)", "(u, w=2)"])
        loops, self.loops = self.loops, 0
        body = self.body(2)
        self.loops = loops
        return self.tag(f"call{params} {name}({self.arguments()})") + body + self.tag("endcall")

    def st_namespace(self):
        if not self.namespaces or self.maybe(0.2):
            self.namespaces = 1
            return self.tag("set ns = namespace(" + self.r.choice(
                ["n=0, s=''", "n=n1", "{'n': 1, 's': 'q'}", ""]) + ")")
        return self.one(
            lambda: self.tag(f"set ns.n = {self.expr('int')}"),
            lambda: self.tag("set ns.n = ns.n + 1"),
            lambda: self.tag(f"set ns.s = ns.s ~ {self.expr('str')}"),
            lambda: "{{ ns.n }}{{ ns.s }}")

    def st_other(self):
        r = self.r
        return self.one(
            lambda: "{#" + r.choice(["", "-"]) + " a comment {{ x }} " + r.choice(["", "-", "+"]) + "#}",
            lambda: "{%" + r.choice(["", "-"]) + " raw " + r.choice(["", "-"])
                    + "%}" + self.text() + "{{ raw }} {% x %}" + self.text()
                    + self.tag("endraw"),
            lambda: self.tag(f"filter {r.choice(FILTERS)}")
                    + self.body(2) + self.tag("endfilter"),
            lambda: self.tag(f"with sx = {self.expr('str')}, w = {self.expr('int')}")
                    + self.body(2) + "{{ sx }}{{ w }}" + self.tag("endwith"),
            lambda: self.tag("generation") + self.body(2) + self.tag("endgeneration"),
            lambda: self.tag(f"print {self.any_value()}, {self.any_value()}"),
            lambda: self.tag("set cyc = cycler('x', 'y')") + "{{ cyc.next() }}{{ cyc.next() }}{{ cyc.current }}",
            lambda: self.tag("set j = joiner('|')") + "{{ j() }}a{{ j() }}b{{ j() }}",
            lambda: self.tag("for t in tree recursive") + "{{ t.v }}{{ loop.depth }}("
                    "{{ loop(t.kids) if t.kids }})" + self.tag("endfor"),
            lambda: "{{ strftime_now('%Y-%m-%d %H:%M %A %d %B %j') }}",
            lambda: self.tag(f"if {self.expr('bool')}") + "{{ raise_exception('no: ' ~ "
                    + self.expr("str") + ") }}" + self.tag("endif"))

    def template(self):
        return self.body(6)


def context(seed):
    r = random.Random(seed ^ 0x5EED)
    text = lambda: r.choice(TEXTS)
    return {
        "s1": text(), "s2": text(), "n1": r.randint(-5, 50), "n2": r.choice([0, 1, 2, 1000000]),
        "f1": r.choice([0.5, -2.75, 1e17, 123456.789, 3.0]), "b1": r.random() < 0.5,
        "li": [r.randint(-3, 9) for _ in range(r.randint(0, 6))],
        "ls": [text() for _ in range(r.randint(0, 5))],
        "ld": [{"name": r.choice(["one", "two", "Three", "four"]), "n": r.randint(0, 5),
                "tags": [text()], "sub": {"x": text()}} for _ in range(r.randint(1, 4))],
        "d1": {"a": r.randint(0, 9), "b": text(), "C": [1, 2], "sub": {"x": 1, "y": None}},
        "nothing": None, "mixed": [1, "a", None, 2.5, True, [1, [2]], {"k": "v"}],
        **{name: value for name, value in (("sx", text()), ("sy", "ctx"), ("nx", 3), ("lx", [3, 1]))
           if r.random() < 0.8},
        "tree": [{"v": 1, "kids": [{"v": 2, "kids": []}, {"v": 3, "kids": [{"v": 4, "kids": []}]}]},
                 {"v": 5, "kids": []}],
    }


def case(seed):
    """The template and context of a seed."""
    return {"template": Generator(seed).template(), "context": context(seed), "now": 1700000000 + seed}
