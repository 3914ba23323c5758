/* Every limit of the product, named, in one table. */
#ifndef SHARED_LIMITS_H
#define SHARED_LIMITS_H

enum {
    /* HTTP */
    LIMIT_URI_BYTES = 8 * 1024,
    LIMIT_HEADER_BYTES = 32 * 1024,
    LIMIT_HEADERS = 100,
    LIMIT_BODY_BYTES = 16 * 1024 * 1024,
    LIMIT_CHUNK_EXTENSION_BYTES = 256,
    LIMIT_CONNECTIONS = 8192,
    LIMIT_HEADER_TIMEOUT_MS = 10 * 1000,
    LIMIT_BODY_TIMEOUT_MS = 30 * 1000,
    LIMIT_IDLE_TIMEOUT_MS = 75 * 1000,
    LIMIT_STREAM_BUFFER_BYTES = 64 * 1024, /* unsent bytes after which a request pauses */
    LIMIT_SLOW_READER_MS = 30 * 1000,      /* paused this long without progress: closed */
    LIMIT_KEEPALIVE_MS = 5 * 1000,         /* SSE comment line while nothing is said */
    LIMIT_HOLD_MS = 5 * 1000,              /* a request waits this long for a worker to come back */
    LIMIT_BODIES_BYTES = 256 * 1024 * 1024, /* request bodies in memory at once */
    LIMIT_ANSWER_BYTES = 64 * 1024 * 1024,  /* an answer that is not streamed */
    LIMIT_API_KEYS = 256,
    /* JSON */
    LIMIT_JSON_DEPTH = 64,
    LIMIT_JSON_ITEMS = 1000 * 1000,
    /* requests */
    LIMIT_PROMPTS = 64,
    LIMIT_MESSAGES = 4096,
    LIMIT_CHOICES = 16,
    LIMIT_STOPS = 16,
    LIMIT_STOP_BYTES = 256,
    LIMIT_LOGIT_BIAS = 1024,
    LIMIT_GRAMMAR_BYTES = 512 * 1024,
    LIMIT_TOP_LOGPROBS = 20,
    LIMIT_DEADLINE_S = 24 * 60 * 60, /* of a request: queue, first token, total */
    LIMIT_QUEUE = 512, /* requests waiting in the worker */
    LIMIT_LIVE_REQUESTS = 1024, /* of the gateway, queued and running */
    LIMIT_POISON = 64,          /* digests of requests that are refused */
    LIMIT_POISON_S = 60 * 60,   /* so long */
    LIMIT_JOURNAL_BYTES = 256 * 1024 * 1024, /* their payloads */
    /* rings and messages */
    LIMIT_RING_BYTES = 1024 * 1024,
    LIMIT_RECORD_BYTES = 16 * 1024, /* larger requests travel in a memfd */
    LIMIT_BULK_BYTES = 64 * 1024 * 1024,
    LIMIT_CHANNEL_BYTES = 4096,
    LIMIT_CHANNEL_FDS = 8,
    LIMIT_BELL_POLL_MS = 50, /* guards a lost bell while a request is in flight */
    /* models */
    LIMIT_MODELS = 16,
    LIMIT_STORES = 4 * LIMIT_MODELS, /* kept for the next worker */
    LIMIT_GGUF_STRING_BYTES = 16 * 1024 * 1024,
    LIMIT_GGUF_KEY_BYTES = 64 * 1024 - 1, /* of the format */
    LIMIT_GGUF_NAME_BYTES = 64,           /* of the format */
    LIMIT_GGUF_STRINGS = 4 * 1024 * 1024, /* in all arrays of a file */
    LIMIT_GGUF_TENSORS = 1024 * 1024,
    LIMIT_GGUF_KEYS = 64 * 1024,
    LIMIT_GGUF_SPLITS = 1024,
    LIMIT_VOCAB = 1024 * 1024,
    LIMIT_CONTEXT_TOKENS = 4 * 1024 * 1024, /* of a request; ctx_size */
    LIMIT_TOKEN_BYTES = 64 * 1024,
    LIMIT_VOCAB_BYTES = 16 * 1024 * 1024, /* of all tokens' texts */
    LIMIT_MERGES = 4 * 1024 * 1024,
    LIMIT_LAYERS = 4096,
    /* templates */
    LIMIT_TEMPLATE_BYTES = 256 * 1024,
    LIMIT_TEMPLATE_STEPS = 2 * 1000 * 1000,
    LIMIT_TEMPLATE_DEPTH = 64,   /* brackets and blocks within each other in the source */
    LIMIT_TEMPLATE_NESTED = 800, /* evaluations within each other, over all macros */
    LIMIT_TEMPLATE_MEMORY_BYTES = 32 * 1024 * 1024,
    LIMIT_TEMPLATE_OUTPUT_BYTES = 16 * 1024 * 1024,
    /* compute */
    LIMIT_SLOTS = 64, /* sequences computed together */
};

#endif
