/* The terminal front (see terminal.h). A chat keeps its messages here and sends them all with every
 * turn; the worker's prefix cache makes that cheap. */
#include "gateway/terminal.h"
#include "gateway/lineedit.h"
#include "shared/json.h"
#include "shared/options.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { PROMPT_BYTES = 16 * 1024 * 1024, EXIT_INTERRUPTED = 130 };

static struct settings { /* of the command line, read once at start */
    const char *prompt, *system, *stop;
    double temperature, top_p, min_p, repeat_penalty;
    int64_t top_k, max_tokens, seed; /* seed -1: drawn anew for every answer */
    bool is_chat, no_template, quiet;
} set = {
    .temperature = 0.8,
    .top_p = 0.95,
    .min_p = 0.05,
    .repeat_penalty = 1,
    .top_k = 40,
    .seed = -1,
};

struct terminal {
    struct link *link; /* borrowed */
    struct front_host host;
    struct lineedit *input; /* owned; of a chat */
    struct buf messages; /* JSON objects, comma-separated */
    struct buf answer;   /* the text of the running answer */
    uint64_t request;    /* live one; 0: none */
    uv_timer_t progress;
    uv_signal_t interrupt;
    int n_handles; /* that the loop still knows */
    bool is_waiting, is_tty, shows_progress, is_exiting;
};

static const char *const command_usage[] = {"run -m MODEL -p PROMPT [options]",
                                            "chat -m MODEL [options]"};

static void exit_with(struct terminal *t, int code)
{
    if (!t->is_exiting) {
        t->is_exiting = true;
        uv_timer_stop(&t->progress);
        t->host.end(t->host.arg, code);
    }
}

static void clear_progress(struct terminal *t)
{
    if (t->shows_progress) {
        fputs("\r\033[K", stderr);
        t->shows_progress = false;
    }
}

static void show_progress(struct terminal *t, const char *what, uint64_t done, uint64_t total)
{
    if (t->is_tty && !set.quiet && total > 0) {
        fprintf(stderr, "\r%s %3.0f %%\033[K", what, (double)done / (double)total * 100);
        t->shows_progress = true;
    }
}

static void ask(struct terminal *t)
{
    lineedit_ask(t->input);
}

/* The answer is over, well or not. */
static void end_answer(struct terminal *t, int code)
{
    t->request = 0;
    if (set.is_chat) {
        ask(t);
    } else {
        exit_with(t, code);
    }
}

static void fail(struct terminal *t, const struct err *e)
{
    char text[ERR_DETAIL_BYTES * 2];
    clear_progress(t);
    fprintf(stderr, "%srocmforge: %s\n", t->answer.len ? "\n" : "",
            err_format(e, text, sizeof(text)));
    end_answer(t, err_exit_code(e->code));
}

static void add_message(struct terminal *t, const char *role, const char *text, size_t n)
{
    if (t->messages.len) {
        buf_char(&t->messages, ',');
    }
    buf_printf(&t->messages, "{\"role\":\"%s\",\"content\":", role);
    json_put_string(&t->messages, text, n);
    buf_char(&t->messages, '}');
}

static void show_text(struct terminal *t, const char *text, size_t n)
{
    if (n == 0) {
        return;
    }
    clear_progress(t);
    fwrite(text, 1, n, stdout);
    fflush(stdout);
    buf_add(&t->answer, text, n);
}

static void show_timings(const struct msg_done *d)
{
    double prefill_s = (double)d->prefill_ns * 1e-9, decode_s = (double)d->decode_ns * 1e-9;
    uint32_t computed = d->n_prompt - d->n_cached;
    if (set.quiet) {
        return;
    }
    fprintf(stderr, "[%u prompt tokens", d->n_prompt);
    if (d->n_cached) {
        fprintf(stderr, " (%u from the cache)", d->n_cached);
    }
    if (prefill_s > 0) {
        fprintf(stderr, " at %.0f/s", computed / prefill_s);
    }
    fprintf(stderr, ", %u tokens", d->n_completion);
    if (decode_s > 0 && d->n_completion > 1) {
        fprintf(stderr, " at %.1f/s", (d->n_completion - 1) / decode_s);
    }
    fputs("]\n", stderr);
}

static void on_event(void *owner, uint64_t id, const struct link_event *ev)
{
    struct terminal *t = owner;
    (void)id;
    switch (ev->type) {
    case MSG_PREFILLED:
        show_progress(t, "reading the prompt", ev->m.prefilled.n_done, ev->m.prefilled.n_prompt);
        break;
    case MSG_TOKEN:
    case MSG_FINISH:
        show_text(t, ev->text, ev->n_text);
        break;
    case MSG_DONE:
        clear_progress(t);
        if (t->answer.len && t->answer.data[t->answer.len - 1] != '\n') {
            putchar('\n');
            fflush(stdout);
        }
        add_message(t, "assistant", t->answer.data ? t->answer.data : "", t->answer.len);
        show_timings(&ev->m.done);
        end_answer(t, EXIT_OK);
        break;
    case MSG_FAIL:
        fail(t, &ev->err);
        break;
    default:
        break;
    }
}

static uint64_t draw_seed(void)
{
    uint64_t seed = (uint64_t)set.seed;
    if (set.seed < 0 && getrandom(&seed, sizeof(seed), 0) != sizeof(seed)) {
        seed = uv_hrtime();
    }
    return seed;
}

/* Asks the worker: the messages so far, or with --no-template (or a model without one) plain
 * text. */
static int submit(struct terminal *t, const char *text, size_t n, struct err *e)
{
    const struct msg_model *model = link_model(t->link, NULL, 0);
    if (!model) {
        return err_set(e, ERR_MODEL_NOT_FOUND, "no model is loaded");
    }
    bool is_plain = set.no_template || !model->has_template;
    struct msg_generate g = {
        .seed = draw_seed(),
        .model = model->index,
        .flags = is_plain ? 0 : MSG_CHAT,
        .max_tokens = (uint32_t)set.max_tokens,
        .n_choices = 1,
        .top_k = (int32_t)set.top_k,
        .temperature = (float)set.temperature,
        .top_p = (float)set.top_p,
        .min_p = (float)set.min_p,
        .typical_p = 1,
        .repeat_penalty = (float)set.repeat_penalty,
        .repeat_last_n = 64,
        .n_sections = set.stop ? 2 : 1,
    };
    struct buf payload;
    buf_init(&payload, 0);
    buf_add(&payload, &g, sizeof(g));
    if (is_plain) {
        msg_put_section(&payload, MSG_PROMPT_TEXT, 0, text, n);
    } else {
        struct buf list;
        buf_init(&list, 0);
        buf_char(&list, '[');
        buf_add(&list, t->messages.data, t->messages.len);
        buf_char(&list, ']');
        msg_put_section(&payload, MSG_MESSAGES, 0, list.data, list.len);
        payload.failed |= list.failed;
        buf_finish(&list);
    }
    if (set.stop) {
        msg_put_section(&payload, MSG_STOP, 0, set.stop, strlen(set.stop));
    }
    buf_clear(&t->answer);
    int err = payload.failed || t->messages.failed
                  ? -ENOMEM
                  : link_submit(t->link, MSG_GENERATE, &payload, model, on_event, t, &t->request);
    buf_finish(&payload);
    return err < 0 ? err_set(e, err, "%s", "") : 0;
}

static void say(struct terminal *t, const char *text, size_t n)
{
    struct err e;
    add_message(t, "user", text, n);
    if (submit(t, text, n, &e) < 0) {
        fail(t, &e);
    }
}

static void forget(struct terminal *t)
{
    buf_clear(&t->messages);
    if (set.system) {
        add_message(t, "system", set.system, strlen(set.system));
    }
}

static void on_line(void *arg, const char *line)
{
    struct terminal *t = arg;
    if (!line || strcmp(line, "/exit") == 0 || strcmp(line, "/quit") == 0) {
        exit_with(t, EXIT_OK);
    } else if (strcmp(line, "/reset") == 0) {
        forget(t);
        fputs("The conversation starts anew.\n", stderr);
        ask(t);
    } else if (strcmp(line, "/help") == 0) {
        fputs("/reset forgets the conversation, /exit or Ctrl-D ends it, Ctrl-C stops an answer\n",
              stderr);
        ask(t);
    } else if (!*line) {
        ask(t);
    } else {
        say(t, line, strlen(line));
    }
}

/* The prompt of `run`; "-" is standard input to its end. */
static int read_prompt(struct buf *ret, const char *prompt, struct err *e)
{
    if (strcmp(prompt, "-") != 0) {
        buf_str(ret, prompt);
        return ret->failed ? -ENOMEM : 0;
    }
    char part[65536];
    for (ssize_t n; (n = read(STDIN_FILENO, part, sizeof(part))) != 0;) {
        if (n < 0 && errno != EINTR) {
            return err_set(e, -errno, "reading the prompt from standard input");
        }
        buf_add(ret, part, n > 0 ? (size_t)n : 0);
    }
    return ret->failed ? err_set(e, ERR_TOO_LARGE, "the prompt is above %d bytes", PROMPT_BYTES)
                       : 0;
}

static void start(struct terminal *t)
{
    t->is_waiting = false;
    clear_progress(t);
    if (set.is_chat) {
        if (lineedit_is_terminal(t->input) && !set.quiet) {
            fprintf(stderr, "%s on %s. /help lists the commands.\n",
                    link_model(t->link, NULL, 0)->name, link_model(t->link, NULL, 0)->device);
        }
        ask(t);
        return;
    }
    struct buf prompt;
    struct err e;
    buf_init(&prompt, PROMPT_BYTES);
    int err = read_prompt(&prompt, set.prompt, &e);
    if (err < 0) {
        e.code = err;
        fail(t, &e);
    } else {
        say(t, prompt.data ? prompt.data : "", prompt.len);
    }
    buf_finish(&prompt);
}

static void worker_changed(void *front)
{
    struct terminal *t = front;
    if (t->is_waiting && t->link->state == LINK_READY) {
        start(t);
    }
}

static void on_progress(uv_timer_t *timer)
{
    struct terminal *t = timer->data;
    struct link_status s;
    if (!t->is_waiting) {
        uv_timer_stop(timer);
        return;
    }
    link_status(t->link, &s);
    if (s.state == LINK_LOADING) {
        show_progress(t, "loading the model", s.load_done_bytes, s.load_total_bytes);
    }
}

/* Ctrl-C stops the answer; at the prompt of a chat it throws the line away; it ends a run. */
static void on_interrupt(uv_signal_t *h, int number)
{
    struct terminal *t = h->data;
    (void)number;
    if (!set.is_chat || t->is_waiting) {
        clear_progress(t);
        exit_with(t, EXIT_INTERRUPTED);
    } else if (t->request) {
        link_cancel(t->link, t->request);
        fputs("\n[stopped]\n", stderr);
        add_message(t, "assistant", t->answer.data ? t->answer.data : "", t->answer.len);
        end_answer(t, EXIT_INTERRUPTED);
    } else {
        lineedit_interrupt(t->input);
    }
}

int terminal_parse(int argc, char **argv, struct err *e)
{
    const struct option_spec specs[] = {
        {"prompt", 'p', OPTION_STR, &set.prompt, 0, 0, "what to say; - reads standard input"},
        {"system", 0, OPTION_STR, &set.system, 0, 0, "system message"},
        {"max-tokens", 'n', OPTION_INT, &set.max_tokens, 0, 1e9,
         "longest answer; 0: to the end of the context (0)"},
        {"temperature", 0, OPTION_NUM, &set.temperature, 0, 2, "0 takes the likeliest token (0.8)"},
        {"temp", 0, OPTION_NUM, &set.temperature, 0, 2, "the same"},
        {"top-k", 0, OPTION_INT, &set.top_k, 0, 1e9, "of the K likeliest; 0: all (40)"},
        {"top-p", 0, OPTION_NUM, &set.top_p, 0, 1, "of the likeliest with this share (0.95)"},
        {"min-p", 0, OPTION_NUM, &set.min_p, 0, 1, "least probability, of the best's (0.05)"},
        {"repeat-penalty", 0, OPTION_NUM, &set.repeat_penalty, 0.1, 10, "1: none (1)"},
        {"seed", 0, OPTION_INT, &set.seed, -1, 9e18, "-1 draws one (-1)"},
        {"stop", 0, OPTION_STR, &set.stop, 0, 0, "text that ends the answer"},
        {"no-template", 0, OPTION_FLAG, &set.no_template, 0, 0, "send the prompt as it is"},
        {"quiet", 'q', OPTION_FLAG, &set.quiet, 0, 0, "no progress, no timings"},
    };
    static const enum config_key keys[] = {
        CONFIG_model,
        CONFIG_device,
        CONFIG_isa,
        CONFIG_threads,
        CONFIG_ctx_size,
        CONFIG_kv_type,
        CONFIG_chunk_size,
        CONFIG_chat_template,
        CONFIG_log_level,
        CONFIG_kv_memory,
        CONFIG_kv_memory_share,
        CONFIG_cpu_fallback,
        CONFIG_vram_reserve,
        CONFIG_kernel_dir,
        CONFIG_safe_mode,
        CONFIG_gpu_lock_timeout,
        CONFIG_gpu_timeout,
    };
    set.is_chat = strcmp(argv[0], "chat") == 0;
    struct options o = {.usage = command_usage[set.is_chat],
                        .summary = set.is_chat ? "A conversation in the terminal."
                                               : "One answer in the terminal.",
                        .specs = specs + set.is_chat, /* a chat reads its lines */
                        .n_specs = COUNT_OF(specs) - set.is_chat,
                        .keys = keys,
                        .n_keys = COUNT_OF(keys)};
    struct config c; /* the settings among them are the supervisor's, which has read them */
    config_init(&c);
    int err = options_parse(&o, argc, argv, &c, e);
    config_finish(&c);
    if (err == 1 && !set.is_chat && !set.prompt) {
        return err_set(e, ERR_USAGE, "no prompt given (-p TEXT); usage: rocmforge %s", o.usage);
    }
    return err;
}

/* ---- the front ---- */

static void *open_terminal(uv_loop_t *loop, struct link *link, size_t n_files,
                           const struct front_host *host)
{
    struct terminal *t = base_alloc(sizeof(*t));
    (void)n_files;
    *t = (struct terminal){
        .link = link,
        .host = *host,
        .is_waiting = true,
        .is_tty = isatty(STDERR_FILENO),
        .n_handles = 2,
    };
    buf_init(&t->messages, PROMPT_BYTES);
    buf_init(&t->answer, PROMPT_BYTES);
    forget(t);
    uv_timer_init(loop, &t->progress);
    uv_signal_init(loop, &t->interrupt);
    t->progress.data = t->interrupt.data = t;
    uv_timer_start(&t->progress, on_progress, 300, 100);
    uv_signal_start(&t->interrupt, on_interrupt, SIGINT);
    return t;
}

static void on_closed(uv_handle_t *h)
{
    struct terminal *t = h->data;
    if (--t->n_handles == 0) {
        buf_finish(&t->messages);
        buf_finish(&t->answer);
        free(t);
    }
}

static void close_terminal(void *front)
{
    struct terminal *t = front;
    clear_progress(t);
    lineedit_close(&t->input);
    uv_close((uv_handle_t *)&t->progress, on_closed);
    uv_close((uv_handle_t *)&t->interrupt, on_closed);
}

/* A chat reads lines from now on. */
static int configure(void *front, const struct config *c, int key_fd, struct err *e)
{
    struct terminal *t = front;
    (void)key_fd;
    t->link->resume_ms = (uint64_t)(c->v[CONFIG_resume_timeout].num * 1000);
    if (!set.is_chat || t->input) {
        return 0;
    }
    int err = lineedit_open(&t->input, t->link->loop, "> ", on_line, t);
    return err < 0 ? err_set(e, err, "standard input cannot be read") : 0;
}

static void drain(void *front, uint64_t deadline_ms)
{
    struct terminal *t = front;
    (void)deadline_ms;
    t->host.drained(t->host.arg);
}

const struct front terminal_front = {
    .role = "terminal",
    .open = open_terminal,
    .close = close_terminal,
    .configure = configure,
    .worker_changed = worker_changed,
    .drain = drain,
};
