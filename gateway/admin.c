/* A question to a running server (see admin.h): one request on one connection, waited for. Where
 * the server is and which key it takes come from the settings that it was started with, so that on
 * its own machine the command needs no arguments. What it answers is checked as strangers' bytes
 * are. */
#include "gateway/admin.h"
#include "gateway/auth.h"
#include "gateway/peer.h"
#include "shared/json.h"
#include "shared/options.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <llhttp.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_S = 10, ANSWER_BYTES = 1 << 20 };

/* What the command line says of where the server is; else the settings do. */
struct named {
    const char *url, *unix_path, *host;
    int64_t port; /* 0: not said */
};

struct question {
    const char *method, *path;
    struct peer peer;
    char place[256]; /* of the server, for errors */
    char key[512];   /* empty: none */
};

struct answer {
    int status;
    struct buf body;
    bool is_complete;
};

/* ---- the server ---- */

/* The first key that may administer, or else the first. */
static int read_key(const char *path, struct question *q, struct err *e)
{
    static char text[AUTH_FILE_BYTES + 1];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (n < 0) {
        err_set(e, -errno, "the API key file '%s'", path);
    }
    if (fd >= 0) {
        close(fd);
    }
    if (n < 0) {
        return e->code;
    }
    bool has_admin = false;
    for (char *line = text, *end; *line && !has_admin; line = end + (*end == '\n')) {
        const char *key;
        bool is_admin;
        end = line + strcspn(line, "\n");
        size_t n_key = auth_line(line, (size_t)(end - line), &key, &is_admin);
        if (n_key > 0 && n_key < sizeof(q->key) && (is_admin || !*q->key)) {
            snprintf(q->key, sizeof(q->key), "%.*s", (int)n_key, key);
            has_admin = is_admin;
        }
    }
    explicit_bzero(text, sizeof(text));
    return 0;
}

/* What is named, else the Unix socket, where administration needs no admin key. A key of this
 * machine's server is shown to no other. */
static int find_server(const struct config *c, const struct named *n, struct question *q,
                       struct err *e)
{
    const char *unix_path = n->unix_path ? n->unix_path : c->v[CONFIG_unix].str;
    const char *host = n->host ? n->host : c->v[CONFIG_host].str;
    const char *key_file = c->v[CONFIG_api_key_file].str, *url = n->url;
    int64_t port = n->port ? n->port : c->v[CONFIG_port].i;
    bool is_tcp = !n->unix_path && (n->host || n->port);
    char made[256];
    int err;
    if (!url && *unix_path && !is_tcp) {
        snprintf(q->place, sizeof(q->place), "%s", unix_path);
        err = peer_unix(unix_path, &q->peer, e);
    } else if (!url && port == 0) {
        return err_set(e, ERR_USAGE,
                       "the setting 'port' is 0; name the server with --server, --unix or --port");
    } else {
        if (!url) {
            snprintf(made, sizeof(made), strchr(host, ':') ? "[%s]:%d" : "%s:%d", host, (int)port);
        }
        snprintf(q->place, sizeof(q->place), "%s", url ? url : made);
        err = peer_parse(q->place, &q->peer, e);
    }
    if (err == 0 && *key_file && (!url || c->v[CONFIG_api_key_file].origin == CONFIG_FROM_FLAG)) {
        err = read_key(key_file, q, e);
    }
    return err;
}

/* ---- the exchange ---- */

static int on_body(llhttp_t *p, const char *at, size_t n)
{
    struct answer *a = p->data;
    buf_add(&a->body, at, n);
    return a->body.failed ? HPE_USER : HPE_OK;
}

static int on_complete(llhttp_t *p)
{
    struct answer *a = p->data;
    a->status = p->status_code;
    a->is_complete = true;
    return HPE_PAUSED;
}

static int fail_transfer(const struct question *q, int code, struct err *e)
{
    if (code == -EAGAIN || code == -EINPROGRESS) {
        return err_set(e, ERR_NO_SERVER, "%s: nothing within %d s; its log tells more", q->place,
                       PATIENCE_S);
    }
    return err_set(e, ERR_NO_SERVER, "%s: %s", q->place, strerror(-code));
}

static int send_all(int fd, const char *data, size_t n)
{
    while (n > 0) {
        ssize_t sent = send(fd, data, n, MSG_NOSIGNAL);
        if (sent < 0 && errno != EINTR) {
            return -errno;
        }
        size_t took = sent > 0 ? (size_t)sent : 0;
        data += took;
        n -= took;
    }
    return 0;
}

static int receive(int fd, const struct question *q, struct answer *a, struct err *e)
{
    llhttp_settings_t settings;
    llhttp_t parser;
    llhttp_settings_init(&settings);
    settings.on_body = on_body;
    settings.on_message_complete = on_complete;
    llhttp_init(&parser, HTTP_RESPONSE, &settings);
    parser.data = a;
    uint64_t n_total = 0;
    bool is_valid = true;
    while (!a->is_complete && is_valid) {
        char in[16384];
        ssize_t n = recv(fd, in, sizeof(in), 0);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return fail_transfer(q, -errno, e);
        }
        llhttp_errno_t rc = n > 0 ? llhttp_execute(&parser, in, (size_t)n) : llhttp_finish(&parser);
        n_total += (uint64_t)n;
        is_valid = a->is_complete || (rc == HPE_OK && n > 0 && n_total <= ANSWER_BYTES);
    }
    if (!a->is_complete) {
        return err_set(e, ERR_NO_SERVER, "%s: something else does", q->place);
    }
    return 0;
}

static int ask(const struct question *q, struct answer *a, struct err *e)
{
    struct buf head;
    buf_init(&head, 0);
    buf_printf(&head, "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n", q->method, q->path,
               q->peer.host);
    if (*q->key) {
        buf_printf(&head, "Authorization: Bearer %s\r\n", q->key);
    }
    buf_str(&head, "\r\n");
    int fd = socket(q->peer.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int err = fd < 0 ? -errno : head.failed ? -ENOMEM : 0;
    const struct timeval patience = {.tv_sec = PATIENCE_S};
    if (err == 0 &&
        (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0 ||
         setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0 ||
         connect(fd, (const struct sockaddr *)&q->peer.address, q->peer.n_address) < 0)) {
        err = -errno;
    }
    if (err == 0) {
        err = send_all(fd, head.data, head.len);
    }
    err = err < 0 ? fail_transfer(q, err, e) : receive(fd, q, a, e);
    if (fd >= 0) {
        close(fd);
    }
    if (head.data) {
        explicit_bzero(head.data, head.len);
    }
    buf_finish(&head);
    return err;
}

/* ---- what it answered ---- */

/* Other bytes would speak to the terminal. */
static bool is_plain(const char *text)
{
    while (*text && (unsigned char)*text >= 0x20 && *text != 0x7f) {
        text++;
    }
    return !*text;
}

static int refuse(const struct question *q, const struct answer *a, const json_t *root,
                  struct err *e)
{
    const json_t *error = json_object_get(root, "error");
    const char *said = json_string_value(json_object_get(error, "message"));
    const char *code = json_string_value(json_object_get(error, "code"));
    if (a->status == 401) {
        return err_set(
            e, -EACCES,
            "%s: the API key is missing or wrong; name with --api-key-file a file with a "
            "line 'admin KEY' that the server knows, too",
            q->place);
    }
    if (code && strcmp(code, err_code(ERR_ADMIN_ONLY)) == 0) {
        return err_set(e, ERR_ADMIN_ONLY, "%s refuses", q->place);
    }
    bool is_ours = said && is_plain(said);
    return err_set(e, is_ours ? -EPROTO : ERR_NO_SERVER, "%s: HTTP status %d%s%.160s", q->place,
                   a->status, is_ours ? ": " : "", is_ours ? said : "");
}

static const char *format_time(int64_t unix_s, char ret[32])
{
    time_t t = (time_t)unix_s;
    struct tm tm;
    if (!localtime_r(&t, &tm) || strftime(ret, 32, "%F %T", &tm) == 0) {
        snprintf(ret, 32, "?");
    }
    return ret;
}

static int64_t number(const json_t *row, const char *key)
{
    return json_integer_value(json_object_get(row, key));
}

static void print_poison(const json_t *root)
{
    const json_t *list = json_object_get(root, "poison");
    size_t n = json_array_size(list);
    printf("%zu refused, %" PRId64 " suspected\n", n, number(root, "suspects"));
    if (n > 0) {
        printf("%-64s  %-19s  %-19s  %s\n", "sha256", "since", "until", "refused");
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *row = json_array_get(list, i);
        const char *digest = json_string_value(json_object_get(row, "sha256"));
        bool is_hex = digest && strspn(digest, "0123456789abcdef") == strlen(digest);
        int64_t left = MIN(MAX(number(row, "seconds_left"), 0), INT32_MAX);
        char since[32], until[32];
        printf("%-64.64s  %-19s  %-19s  %" PRId64 "\n", is_hex ? digest : "?",
               format_time(number(row, "since"), since),
               format_time((int64_t)time(NULL) + left, until), number(row, "refused"));
    }
}

static int run(const struct question *q, bool is_json, struct err *e)
{
    struct answer a = {0};
    json_t *root = NULL;
    buf_init(&a.body, ANSWER_BYTES);
    int err = ask(q, &a, e);
    bool is_parsed =
        err == 0 && json_parse(a.body.data ? a.body.data : "", a.body.len, &root, NULL) == 0;
    if (err == 0 && (a.status != 200 || !is_parsed || !json_object_get(root, "poison"))) {
        err = refuse(q, &a, root, e);
    } else if (err == 0 && is_json) {
        fwrite(a.body.data, 1, a.body.len, stdout);
        putchar('\n');
    } else if (err == 0) {
        print_poison(root);
    }
    if (err == 0 && fflush(stdout) != 0) {
        err = err_set(e, -errno, "standard output");
    }
    json_decref(root);
    buf_finish(&a.body);
    return err;
}

int admin_main(int argc, char **argv)
{
    const char *file = NULL;
    struct named named = {0};
    bool is_clear = false, is_json = false;
    const struct option_spec specs[] = {
        {"clear", 0, OPTION_FLAG, &is_clear, 0, 0, "forget them: they may be sent again"},
        {"json", 0, OPTION_FLAG, &is_json, 0, 0, "print the server's JSON"},
        {"unix", 0, OPTION_STR, &named.unix_path, 0, 0, "the Unix socket the server listens on"},
        {"host", 0, OPTION_STR, &named.host, 0, 0, "the address the server listens on"},
        {"port", 0, OPTION_INT, &named.port, 1, 65535, "its TCP port"},
        {"server", 0, OPTION_STR, &named.url, 0, 0, "the same as http://HOST:PORT"},
        {"config", 0, OPTION_STR, &file, 0, 0, "read settings from this file"},
    };
    static const enum config_key keys[] = {CONFIG_api_key_file};
    struct options o = {
        .usage = "poison [--clear] [--server URL | --unix PATH] [options]",
        .summary =
            "Lists the requests that a running server refuses because they brought its worker "
            "down twice.\nIt listens where the settings say, unless named here. With --server, a "
            "key is sent only from\nthe --api-key-file named beside it. Over TCP it takes a line "
            "'admin KEY' there.",
        .specs = specs,
        .n_specs = COUNT_OF(specs),
        .keys = keys,
        .n_keys = COUNT_OF(keys)};
    struct config c;
    struct err e = {0};
    config_init(&c);
    int err = options_parse(&o, argc, argv, &c, &e);
    if (err == 1) {
        err = config_load(&c, file, &e);
        struct question q = {.method = is_clear ? "DELETE" : "GET", .path = "/poison"};
        if (err >= 0) {
            err = find_server(&c, &named, &q, &e);
        }
        if (err >= 0) {
            err = run(&q, is_json, &e);
        }
        explicit_bzero(q.key, sizeof(q.key));
    }
    config_finish(&c);
    return err < 0 ? options_fail(argv[0], &e) : EXIT_OK;
}
