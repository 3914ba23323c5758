"""The real Jinja2 with the settings that the transformers library gives it: what the tests of
worker/template.c are compared with. Needs python3-jinja2."""
import datetime
import json
import sys

try:
    import jinja2
    import jinja2.ext
    import jinja2.sandbox
except ImportError:
    print("skipped: no python3-jinja2")
    sys.exit(77)


class Generation(jinja2.ext.Extension):
    """{% generation %}...{% endgeneration %}: the body is printed, from a scope of its own."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("run")
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def run(self, caller):
        return caller()


class Raised(Exception):
    """The template's own raise_exception."""


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                      sort_keys=sort_keys)


def raise_exception(message):
    raise Raised(message)


def render(source, context, now=0):
    """("output", text), ("raised", text of raise_exception) or ("error", any other message)."""

    def strftime_now(form):
        return datetime.datetime.fromtimestamp(now, datetime.timezone.utc).replace(
            tzinfo=None).strftime(form)

    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True,
        extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = strftime_now
    try:
        text = env.from_string(source).render(**context)
        text.encode("utf-8")
        return "output", text
    except Raised as e:
        return "raised", str(e)
    except Exception as e:  # whatever Python raises is the template's error
        return "error", f"{type(e).__name__}: {e}"
