/* The payloads of msg.def. All little-endian, naturally aligned, no padding (asserted in msg.c).
 * Strings in fixed arrays are always terminated; the checks in msg.c enforce it on arrival.
 *
 * The life of a request, as the gateway sees it:
 *   GENERATE -> STARTED -> PREFILLED* -> (TOKEN* FINISH) per choice -> DONE
 *   or, at any moment, FAIL. DONE or FAIL is the one terminal event. After CANCEL the worker still
 *   sends its terminal event (FINISH with MSG_FINISH_CANCEL for choices that were going on, then
 *   DONE with what was made), after which the id is free.
 *   TEXT -> RESULT* (the last one flagged) or FAIL. Cancelled, it ends with an empty last RESULT.
 * PAUSE stops computing for one request (its reader is slow) and RESUME goes on. CANCEL, PAUSE and
 * RESUME of an id that is not (or no longer) known mean nothing: they may have crossed its end.
 *
 * Choices are numbered choice_base .. choice_base + n_choices - 1 in every message. The text of
 * TOKEN k of a choice depends on the choice's ids 0..k alone, so a replay (MSG_RESUME_IDS) goes on
 * exactly where the received TOKENs ended. The end-of-generation id is counted (n_tokens) but has
 * no TOKEN. */
#ifndef IPC_MSG_H
#define IPC_MSG_H

#include "shared/base.h"
#include "shared/limits.h"

enum msg_peer {
    MSG_SUPERVISOR = 1,
    MSG_GATEWAY = 2,
    MSG_WORKER = 4,
    MSG_PROBE = 8,
};

enum msg_state { /* of a channel, as its owner sees it */
    MSG_STATE_NEW = 1,     /* nothing said yet */
    MSG_STATE_GREETED = 2, /* HELLO seen */
    MSG_STATE_RUNNING = 4, /* attached to an epoch */
};

enum msg_way { MSG_CONTROL, MSG_RING };

enum msg_type {
#define MSG(name, type, way, from, to, payload, min_fds, max_fds, states) MSG_##name = type,
#include "ipc/msg.def"
#undef MSG
    MSG_TYPE_END = 64
};

enum {
    MSG_PROTOCOL_VERSION = 1,
    MSG_NAME_BYTES = 64,
    MSG_DETAIL_BYTES = 320,
    MSG_PIECE_BYTES = 128,
};

/* ---- control ---- */
/* DRAINED: what ran is finished. PING: the gateway's loop turns; it echoes the supervisor's. */
struct msg_empty {
    uint64_t reserved;
};

struct msg_hello {
    uint32_t protocol; /* MSG_PROTOCOL_VERSION */
    uint32_t pid;
    uint64_t epoch;    /* as given on the command line; 0 for the gateway */
    char version[32];  /* ROCMFORGE_VERSION */
};

/* fd 0: configuration (sealed memfd, config_decode); fd 1, if any: the API key file, open. */
struct msg_config {
    uint64_t generation; /* +1 at every reload */
};

/* fds: listening sockets, TCP first. */
struct msg_listen {
    uint32_t n_tcp;
    uint32_t n_unix;
};

/* fds: request ring, event ring, request bell, event bell, status page. The worker gets the status
 * page writable; the gateway read-only. */
struct msg_attach {
    uint64_t epoch;
    uint32_t ring_bytes; /* capacity of each */
    uint32_t flags;
};

/* The worker of that epoch is gone; its rings will bring nothing more (drain up to tail, then
 * drop). */
struct msg_detach {
    uint64_t epoch;
    int32_t err;              /* ERR_* for requests that now fail or wait */
    uint32_t retry_after_ms;  /* expected time to the next epoch's READY; 0: none is expected */
    uint32_t is_counted;      /* the worker died by its own fault: its requests are suspects */
    uint32_t reserved;
    char detail[MSG_DETAIL_BYTES];
};

/* fd: a const memfd of `bytes` holding a request's payload; announced on the ring by BULK_NOTE. The
 * supervisor passes it on unopened. */
struct msg_bulk {
    uint64_t request;
    uint64_t bytes;
};

/* The card's memory as the monitor measured it; the supervisor adds what holds because of it and
 * passes it on. total_bytes 0: nobody looks at the card any more. */
struct msg_vram {
    uint64_t total_bytes, used_bytes, ours_bytes;
    uint64_t gtt_bytes;     /* host memory that the worker uses through the card */
    uint64_t spilled_bytes; /* of the worker's, that the driver moved out of VRAM */
    uint64_t ceiling_bytes; /* the supervisor's: what the worker may have */
    uint64_t reserve_bytes; /* the supervisor's: --vram-reserve */
    /* The supervisor's: as the worker said last (msg_gave). */
    uint64_t held_bytes, given_bytes, left_bytes;
    uint32_t n_displays;
    uint32_t is_watched; /* the supervisor's: the monitor lives */
    int32_t busy_percent; /* -1: not known */
    int32_t celsius;      /* 0: not known */
    uint32_t n_resets, n_throttles; /* the supervisor's: seen since its start */
    char pci[16];
    char gfx[16];
};

enum msg_card_event {
    MSG_CARD_FAULT = 1,    /* a page fault of the process pid */
    MSG_CARD_THROTTLED,    /* it runs slower so as not to grow hotter */
    MSG_CARD_RESET_BEGINS, /* the driver resets it */
    MSG_CARD_RESET_ENDS,
    MSG_CARD_RECOVERED, /* a reset is over that the process pid caused, where that is known */
    MSG_CARD_WEDGED,    /* only a remedy from outside helps; detail names it */
    MSG_CARD_BACK,      /* the driver has it again */
    MSG_CARD_UNREAD,    /* its files cannot be read; instead of VRAM */
};

/* From the monitor: what happens to the card. */
struct msg_card {
    uint32_t event; /* enum msg_card_event */
    uint32_t pid;   /* 0: none, or not known */
    char detail[64];
};

/* How much of the card's memory the worker may have from now on; it gives back what is more, or
 * takes again what it gave. The last one holds. */
struct msg_budget {
    uint64_t round; /* counts them */
    uint64_t ceiling_bytes;
    uint64_t overhead_bytes; /* that it was measured to have beside what models took by its own
                                count: the runtime's */
};

/* The answer, when it is done. */
struct msg_gave {
    uint64_t round;
    uint64_t held_bytes;  /* of the card's memory, for models */
    uint64_t freed_bytes; /* in this round */
    uint64_t given_bytes; /* of KV caches, that are smaller than they were meant to be */
    uint64_t left_bytes;  /* that would have to be given back and cannot be had so */
    uint32_t n_unloaded;  /* idle models, in this round */
    uint32_t reserved;
};

/* From the monitor: the machine is about to sleep, or woke. From the supervisor: no worker holds
 * the card, the machine may sleep. */
struct msg_sleep {
    uint64_t begins;
};

struct msg_preflight {
    uint32_t device; /* index */
    uint32_t reserved;
};

struct msg_verdict {
    int32_t err; /* 0: the GPU may be used */
    uint32_t reserved;
    char detail[MSG_DETAIL_BYTES];
};

/* From the worker: its models stand and it takes requests. From the gateway: it has seen every
 * MODEL of the epoch and sends it requests. */
struct msg_ready {
    uint64_t epoch;
    uint64_t load_ns; /* from exec to here */
};

/* The worker of that epoch broke the ring's protocol: the gateway reads no more of it, its requests
 * wait or fail, and the supervisor ends that worker as for a crash of its own. */
struct msg_breach {
    uint64_t epoch;
    char detail[MSG_DETAIL_BYTES];
};

/* Digests of requests that are refused (ipc/poison.h). From the gateway: the list has one more, or
 * (until_ms 0) was cleared, which the supervisor answers with the same. To a new gateway: what the
 * last one had, a message each. */
struct msg_poison {
    uint8_t digest[32];
    int64_t since_unix_s;
    uint64_t until_ms; /* clock_ms() */
};

enum msg_crash_flags {
    MSG_CRASH_IS_OVER = 1, /* it has ended, this is all; else it is to be ended, more comes */
    MSG_CRASH_OOM = 2,     /* by the kernel, for want of memory */
    MSG_CRASH_STUCK = 4,   /* it does not end: the kernel holds it */
    MSG_CRASH_READY = 8,   /* it had been ready */
    MSG_CRASH_GPU = 16,    /* it held the GPU */
    MSG_CRASH_PAGE = 32,   /* the first fd is its status page */
    MSG_CRASH_STDERR = 64, /* the next fd is a const memfd: the end of its stderr */
};

/* What the supervisor knows of a child's death, for the report. fds: as the flags say. */
struct msg_crash {
    uint64_t epoch;
    int64_t unix_ms;    /* when */
    uint64_t life_ms;
    uint32_t pid;
    int32_t exit_code;  /* -1: none */
    int32_t signal;     /* 0: none */
    uint32_t flags;     /* enum msg_crash_flags */
    uint32_t n_skipped; /* deaths since the last report that got none */
    uint32_t rung;      /* of the degrade ladder that it ran on */
    char who[16];       /* "worker" */
    char blame[24];     /* "its own fault" */
    char next[64];      /* "started again at once"; "" while it lives */
    char reason[MSG_DETAIL_BYTES]; /* why we ended it; "" if we did not */
};

/* The reporter: what can be lost is on disk. */
struct msg_crashed {
    int32_t err; /* 0, or why there is no report */
    uint32_t reserved;
    char name[MSG_NAME_BYTES]; /* of the report */
};

/* The gateway asks about crash reports; the supervisor has it answered by a process that may touch
 * the disk. */
struct msg_ask {
    uint64_t ask;              /* the gateway's number for it */
    char name[MSG_NAME_BYTES]; /* of a report; "" lists them */
};

/* fd: a const memfd with JSON; none with an error. */
struct msg_told {
    uint64_t ask;
    int32_t err;
    uint32_t reserved;
};

/* What the supervisor has counted since its start, whenever it changed. */
struct msg_tally {
    uint64_t n_own, n_external, n_ordered; /* deaths of workers, by whose fault */
    uint64_t n_oom, n_condemned;           /* of n_own: for want of memory; ended by us */
    uint64_t n_reports, n_unreported;      /* crash reports; deaths that got none */
    uint32_t rung;                         /* of the degrade ladder, 0 is the full speed */
    uint32_t reserved;
};

struct msg_drain {
    uint64_t deadline_ms; /* from now */
};

/* One preflight stage's result. */
struct msg_stage {
    uint32_t stage;
    int32_t status; /* 0 ok, 1 skipped, negative ERR_* or -errno */
    uint64_t ns;
    char name[16];
    char detail[MSG_DETAIL_BYTES];
    char remedy[MSG_DETAIL_BYTES];
};

/* STORE, fd: its memfd, sealed as its kind demands (ipc/store.h). From a worker: keep this for
 * those that come after me, in place of one of the same kind and key. From the supervisor, before
 * ATTACH: this was kept. DROP: nobody will want it. */
struct msg_store {
    uint32_t kind; /* enum store_kind */
    uint32_t reserved;
    uint64_t bytes;
    uint8_t key[32]; /* what it holds and in which form; the supervisor only compares it */
};

/* ---- ring ---- */

/* One per served model, index counts from 0, when the worker begins to serve; then again whenever
 * one was loaded or unloaded. Of one that was not loaded yet, sizes are estimates. */
struct msg_model {
    uint32_t index;
    uint32_t n_models; /* how many there will be */
    uint32_t n_vocab;
    uint32_t n_ctx;       /* tokens a request may have */
    uint32_t n_ctx_train;
    uint16_t has_template;
    uint16_t is_loaded; /* else it is loaded when a request asks for it */
    uint64_t n_params;
    uint64_t bytes;     /* of tensors */
    int64_t created;    /* unix time: the file's mtime */
    char name[MSG_NAME_BYTES * 2];
    char arch[32];
    char quant[32];     /* "Q4_K - Medium", ... as the file says */
    char device[64];    /* "cpu avx512, 2 threads" */
    char profile[64];   /* numeric profile: equal ones compute equal bits. "cpu avx512, kv f16" */
    uint8_t fingerprint[32]; /* of the file's metadata and tensor table */
};

struct msg_request {
    uint64_t request;
};

enum msg_generate_flags {
    MSG_CHAT = 1,     /* MESSAGES through the template, with a generation prompt */
    MSG_LOGPROBS = 2, /* n_top = 1 + top_logprobs: the chosen token, then the best */
    MSG_ECHO = 4,     /* (completions) every choice begins with the prompt's ids, text, logprobs */
    MSG_PARSE_SPECIAL = 8, /* special tokens in PROMPT_TEXT become their ids */
    MSG_IGNORE_EOS = 16,
    MSG_RANK = 32,    /* FINISH tells logprob_sum */
    MSG_VERIFY = 64,  /* RESUME_IDS that are computed again must come out the same */
    MSG_PROMPT_ONLY = 256, /* no token is drawn: choices end by length behind the prompt */
    MSG_AGAIN = 128,  /* (also of TEXT) an earlier worker had it: the queue's limit is not for it */
};

/* Followed by sections (msg_section). Exactly one of PROMPT_TEXT, PROMPT_IDS, MESSAGES. */
struct msg_generate {
    uint64_t request;
    uint64_t seed;      /* always given: the gateway draws one where the client does not */
    uint64_t client;    /* who asks, for fairness: a digest, 0 unknown */
    uint32_t model;     /* index of msg_model */
    uint32_t flags;     /* enum msg_generate_flags */
    uint32_t max_tokens; /* 0: to the end of the context, or MSG_PROMPT_ONLY */
    uint32_t n_choices;
    uint32_t choice_base; /* number of the first choice in the client's answer and in Philox keys */
    uint32_t top_logprobs;
    int32_t top_k; /* 0: off */
    float temperature;
    float top_p;
    float min_p;
    float typical_p;
    float presence_penalty;
    float frequency_penalty;
    float repeat_penalty;
    int32_t repeat_last_n; /* -1: whole context */
    uint32_t n_sections;
    /* Time limits from the worker's receipt, 0 none: until computing begins, until the first token
     * (then FAIL), until the end (then FINISH with MSG_FINISH_TIMEOUT; FAIL before any token). */
    uint32_t queue_ms, first_ms, total_ms;
    uint32_t reserved;
};

enum msg_section_kind {
    MSG_PROMPT_TEXT = 1,   /* UTF-8 */
    MSG_PROMPT_IDS = 2,    /* int32[] */
    MSG_MESSAGES = 3,      /* JSON array, validated by the gateway */
    MSG_TEMPLATE_ARGS = 4, /* JSON object: add_generation_prompt, tools, chat_template_kwargs */
    MSG_STOP = 5,          /* one stop sequence; repeated */
    MSG_LOGIT_BIAS = 6,    /* struct msg_logit_bias[] */
    /* int32[]: ids already sent for choice `index` (replay): they are fed, not drawn, and neither
     * they nor an ECHO are sent again. With MSG_VERIFY those that are computed again are drawn as
     * well, and another id is ERR_REPLAY_DIVERGENCE. */
    MSG_RESUME_IDS = 7,
    /* struct msg_resume_end: choice `index` had ended (replay). Nothing of it is computed or sent;
     * DONE counts its tokens. */
    MSG_RESUME_END = 8,
    MSG_GRAMMAR = 9, /* GBNF that the answer has to match; or */
    MSG_SCHEMA = 10, /* JSON: the schema that it has to keep to */
};

struct msg_section {
    uint32_t kind;
    uint32_t index;
    uint64_t bytes; /* what follows, padded with zeros to 8 */
};

struct msg_resume_end {
    uint32_t n_tokens; /* as FINISH said */
    uint32_t reserved;
};

struct msg_logit_bias {
    int32_t id;
    float bias;
};

/* A GENERATE or TEXT whose payload travels in a memfd on the control channel. */
struct msg_bulk_note {
    uint64_t request;
    uint64_t bytes;
    uint32_t type; /* MSG_GENERATE or MSG_TEXT */
    uint32_t reserved;
};

enum msg_text_op {
    MSG_TOKENIZE = 1,       /* section PROMPT_TEXT -> RESULT: int32[] */
    MSG_DETOKENIZE = 2,     /* section PROMPT_IDS -> RESULT: UTF-8 text */
    MSG_APPLY_TEMPLATE = 3, /* sections MESSAGES, TEMPLATE_ARGS -> RESULT: UTF-8 text */
    /* Without sections; RESULT: JSON. */
    MSG_SLOTS = 4,  /* of all models, in the form of llama-server's /slots */
    MSG_PROPS = 5,  /* of the model, in the form of its /props */
    MSG_TRACES = 6, /* the newest spans, in the form of OTLP/JSON */
    /* RESULT: JSON objects, one a record: progress of loading, at last the model's state. */
    MSG_LOAD = 7,
    MSG_UNLOAD = 8,
    MSG_TEXT_OP_END
};

/* Followed by sections. */
struct msg_text {
    uint64_t request;
    uint32_t model;
    uint32_t op;         /* enum msg_text_op */
    uint32_t add_special; /* add BOS/EOS as the model wants */
    uint32_t parse_special;
    uint32_t n_sections;
    uint32_t flags; /* MSG_AGAIN */
};

struct msg_started {
    uint64_t request;
    uint32_t n_prompt; /* prompt tokens after tokenizing */
    uint32_t n_cached; /* of these, taken from the prefix cache */
    uint64_t queue_ns; /* time waited */
};

struct msg_prefilled { /* progress of a long prompt */
    uint64_t request;
    uint32_t n_done;
    uint32_t n_prompt;
};

/* One sampled token (or, with ECHO, one prompt token). Followed by n_top struct msg_logprob (the
 * chosen token first when n_top > 0; the first prompt token has none), then text_bytes of text that
 * may be shown now: complete UTF-8, nothing that could still become part of a stop sequence.
 * text_bytes may be 0 and may cover earlier tokens. Then, when n_top > 0, the pieces' bytes, in
 * order: raw, so perhaps not UTF-8, and cut at MSG_PIECE_BYTES. */
struct msg_token {
    uint64_t request;
    uint32_t choice;
    uint32_t position; /* index among the choice's sampled tokens; prompt tokens with is_prompt */
    int32_t id;
    uint16_t n_top;
    uint16_t is_prompt;
    uint32_t text_bytes;
    uint32_t reserved;
};

struct msg_logprob {
    int32_t id;
    float logprob; /* natural log; of the distribution before sampling filters */
    uint32_t piece_bytes; /* its text's length */
};

enum msg_finish_reason {
    MSG_FINISH_STOP = 1,
    MSG_FINISH_LENGTH = 2,
    MSG_FINISH_CANCEL = 3,
    MSG_FINISH_TIMEOUT = 4,
};

/* A choice ended; followed by text_bytes of text that was held back and may be shown. */
struct msg_finish {
    uint64_t request;
    uint32_t choice;
    uint32_t reason;     /* enum msg_finish_reason */
    uint32_t n_tokens;   /* sampled, the end-of-generation id included */
    int32_t stop_index;  /* which stop sequence matched, -1 none (eos, length) */
    uint32_t text_bytes;
    float logprob_sum; /* with MSG_RANK: of the sampled tokens, before sampling filters */
};

struct msg_done {
    uint64_t request;
    uint32_t n_prompt;
    uint32_t n_cached;
    uint32_t n_completion; /* over all choices */
    uint32_t reserved;
    uint64_t queue_ns;
    uint64_t prefill_ns;
    uint64_t decode_ns; /* from first to last token */
};

struct msg_fail {
    uint64_t request;
    int32_t err; /* ERR_* */
    uint32_t reserved;
    char detail[MSG_DETAIL_BYTES];
};

/* Followed by bytes of the answer. */
struct msg_result {
    uint64_t request;
    uint32_t is_last;
    uint32_t bytes;
};

/* ---- the table ---- */
struct msg_info {
    const char *name; /* NULL: no such type */
    enum msg_way way;
    unsigned from, to;   /* bits of enum msg_peer */
    size_t fixed_bytes;  /* of the payload struct */
    int min_fds, max_fds;
    unsigned states;
};

const struct msg_info *msg_info(uint32_t type); /* never NULL */

/* May a message of this type, size and number of fds go this way in this state, and are its fixed
 * fields sane (strings terminated, counts within limits, variable parts inside len)? On a private
 * copy. 0 or ERR_PROTOCOL. */
MUST_CHECK int msg_check(uint32_t type, enum msg_way way, unsigned from, unsigned to,
                         unsigned state, const void *payload, size_t len, int n_fds);

/* Writing sections into a growing payload; reading them back. */
struct buf;
void msg_put_section(struct buf *b, enum msg_section_kind kind, uint32_t index, const void *data,
                     size_t n);

struct msg_cursor {
    const uint8_t *at, *end;
};
/* payload + fixed struct -> cursor over what follows. */
struct msg_cursor msg_sections(const void *payload, size_t len, size_t fixed_bytes);
/* 1 and the next section, 0 at the end, ERR_PROTOCOL. data is borrowed, aligned to 8. */
MUST_CHECK int msg_next_section(struct msg_cursor *c, struct msg_section *ret,
                                const void **ret_data);

#endif
