/* HTTP/1.1 byte discipline. Pure; runs on the gateway's loop. Invariant: a byte is passed on only
 * after it was accepted here, and CR is accepted only when LF follows. */
#include "gateway/framing.h"
#include "shared/limits.h"

#include <string.h>

enum {
    BEFORE, /* empty lines before the request line */
    BEFORE_LF,
    REQUEST_LINE,
    REQUEST_LF,
    LINE_START, /* of a field line, or the empty line that ends the head */
    NAME,
    VALUE,
    VALUE_LF,
    END_LF,
    CHUNK_SIZE,
    CHUNK_EXTENSION,
    CHUNK_SIZE_LF,
    CHUNK_DATA,
    CHUNK_DATA_CR,
    CHUNK_DATA_LF,
};

enum { METHOD_BYTES = 32, CHUNK_DIGITS = 16 };

void framing_begin_head(struct framing *f)
{
    *f = (struct framing){.state = BEFORE};
}

void framing_begin_chunks(struct framing *f)
{
    *f = (struct framing){.state = CHUNK_SIZE};
}

bool framing_is_token(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
           (c && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

/* Field values and chunk extensions: printable ASCII, space, tab, and obs-text. */
static bool is_text(unsigned char c)
{
    return c == '\t' || (c >= 0x20 && c != 0x7f);
}

static int bad(struct err *e, const char *what)
{
    return err_set(e, ERR_BAD_REQUEST, "%s", what);
}

static int request_line(struct framing *f, unsigned char c, struct err *e)
{
    if (c == '\r') {
        if (f->n_spaces != 2 || f->line_bytes == 0) {
            return bad(e, "the request line is not 'METHOD target HTTP/1.1'");
        }
        f->state = REQUEST_LF;
        return 0;
    }
    if (c == ' ') {
        if (f->line_bytes == 0 || ++f->n_spaces > 2) {
            return bad(e, "the request line has too many spaces");
        }
        f->line_bytes = 0;
        return 0;
    }
    if (c < 0x21 || c > 0x7e) {
        return bad(e, "the request line holds a byte that is not printable ASCII");
    }
    f->line_bytes++;
    if (f->n_spaces == 1 && f->line_bytes > LIMIT_URI_BYTES) {
        return err_set(e, ERR_URI_TOO_LONG, "allowed are %d bytes", LIMIT_URI_BYTES);
    }
    if (f->n_spaces != 1 && f->line_bytes > METHOD_BYTES) {
        return bad(e, "the request line is not 'METHOD target HTTP/1.1'");
    }
    return 0;
}

/* One byte of field lines. Returns 1 at the end of the empty line. */
static int field_line(struct framing *f, unsigned char c, struct err *e)
{
    switch (f->state) {
    case LINE_START:
        if (c == '\r') {
            f->state = END_LF;
            return 0;
        }
        if (c == ' ' || c == '\t') {
            return bad(e, f->n_fields ? "a header is folded over lines (obs-fold)"
                                      : "white space stands before the first header");
        }
        if (++f->n_fields > LIMIT_HEADERS) {
            return err_set(e, ERR_HEADERS_TOO_LARGE, "allowed are %d headers", LIMIT_HEADERS);
        }
        f->state = NAME;
        f->line_bytes = 0;
        /* fall through */
    case NAME:
        if (c == ':' && f->line_bytes > 0) {
            f->state = VALUE;
            return 0;
        }
        f->line_bytes++;
        return framing_is_token(c) ? 0 : bad(e, "a header's name is empty or not a token");
    case VALUE:
        if (c == '\r') {
            f->state = VALUE_LF;
            return 0;
        }
        return is_text(c) ? 0 : bad(e, "a header's value holds a control byte");
    case VALUE_LF:
        f->state = LINE_START;
        return c == '\n' ? 0 : bad(e, "CR without LF in a header");
    default: /* END_LF */
        return c == '\n' ? 1 : bad(e, "CR without LF after the headers");
    }
}

/* A byte of a head or trailer, with its limit. */
static int count_head(struct framing *f, struct err *e)
{
    if (++f->head_bytes > LIMIT_HEADER_BYTES) {
        return err_set(e, ERR_HEADERS_TOO_LARGE, "allowed are %d bytes", LIMIT_HEADER_BYTES);
    }
    return 0;
}

int framing_head(struct framing *f, const char *p, size_t n, size_t *ret_used, size_t *ret_skip,
                 struct err *e)
{
    *ret_skip = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        int r = 0;
        /* The request line has a limit and an error of its own. */
        if (f->state != REQUEST_LINE) {
            r = count_head(f, e);
        }
        if (r < 0) {
            return r;
        }
        switch (f->state) {
        case BEFORE:
            if (c == '\r') {
                f->state = BEFORE_LF;
                *ret_skip = i + 1;
                break;
            }
            f->state = REQUEST_LINE;
            r = c == ' ' ? bad(e, "white space stands before the request line")
                         : request_line(f, c, e);
            break;
        case BEFORE_LF:
            f->state = BEFORE;
            *ret_skip = i + 1;
            r = c == '\n' ? 0 : bad(e, "CR without LF before the request line");
            break;
        case REQUEST_LINE:
            r = request_line(f, c, e);
            break;
        case REQUEST_LF:
            f->state = LINE_START;
            r = c == '\n' ? 0 : bad(e, "CR without LF in the request line");
            break;
        default:
            r = field_line(f, c, e);
        }
        if (r < 0) {
            return r;
        }
        if (r == 1) {
            *ret_used = i + 1;
            return 1;
        }
    }
    *ret_used = n;
    return 0;
}

static int chunk_size(struct framing *f, unsigned char c, struct err *e)
{
    if (c == '\r' || c == ';') {
        if (f->n_digits == 0) {
            return bad(e, "a chunk has no size");
        }
        f->state = c == ';' ? CHUNK_EXTENSION : CHUNK_SIZE_LF;
        return 0;
    }
    unsigned digit = c >= '0' && c <= '9'   ? c - (unsigned)'0'
                     : c >= 'a' && c <= 'f' ? c - (unsigned)'a' + 10
                     : c >= 'A' && c <= 'F' ? c - (unsigned)'A' + 10
                                            : 16;
    if (digit == 16 || ++f->n_digits > CHUNK_DIGITS) {
        return bad(e, "a chunk's size is not a hexadecimal number");
    }
    f->chunk_left = f->chunk_left << 4 | digit;
    if (f->chunk_left > LIMIT_BODY_BYTES) {
        return err_set(e, ERR_TOO_LARGE, "allowed are %d bytes", LIMIT_BODY_BYTES);
    }
    return 0;
}

static int chunk_byte(struct framing *f, unsigned char c, struct err *e)
{
    switch (f->state) {
    case CHUNK_SIZE:
        return chunk_size(f, c, e);
    case CHUNK_EXTENSION:
        if (c == '\r') {
            f->state = CHUNK_SIZE_LF;
            return 0;
        }
        if (!is_text(c)) {
            return bad(e, "a chunk extension holds a control byte");
        }
        return ++f->extension_bytes > LIMIT_CHUNK_EXTENSION_BYTES
                   ? bad(e, "the chunk extensions are too long")
                   : 0;
    case CHUNK_SIZE_LF:
        if (c != '\n') {
            return bad(e, "CR without LF after a chunk's size");
        }
        f->n_digits = 0;
        f->state = f->chunk_left ? CHUNK_DATA : LINE_START;
        return 0;
    case CHUNK_DATA_CR:
        f->state = CHUNK_DATA_LF;
        return c == '\r' ? 0 : bad(e, "a chunk is longer than its size");
    default: /* CHUNK_DATA_LF */
        f->state = CHUNK_SIZE;
        return c == '\n' ? 0 : bad(e, "CR without LF after a chunk");
    }
}

int framing_chunks(struct framing *f, const char *p, size_t n, size_t *ret_used, struct err *e)
{
    for (size_t i = 0; i < n;) {
        int r = 0;
        if (f->state == CHUNK_DATA) {
            size_t take = MIN((uint64_t)(n - i), f->chunk_left);
            f->chunk_left -= take;
            i += take;
            if (f->chunk_left == 0) {
                f->state = CHUNK_DATA_CR;
            }
            continue;
        }
        if (f->state >= CHUNK_SIZE) {
            r = chunk_byte(f, (unsigned char)p[i], e);
        } else {
            r = count_head(f, e);
            r = r < 0 ? r : field_line(f, (unsigned char)p[i], e);
        }
        if (r < 0) {
            *ret_used = i;
            return r;
        }
        i++;
        if (r == 1) {
            *ret_used = i;
            return 1;
        }
    }
    *ret_used = n;
    return 0;
}
