/* What a chat model writes, taken apart while it comes: reasoning (<think> at the beginning), text,
 * and calls of tools, as the common templates teach them: <tool_call>{"name": ..., "arguments":
 * {...}}</tool_call>   anywhere (Hermes, Qwen, ...)
 *   {"name": ..., "parameters": {...}}, or an array of those   alone (Llama 3, Mistral, ...)
 * What looks like a call and is none stays text. A function of the whole text: how it is cut into
 * pieces does not matter. Pure. */
#ifndef GATEWAY_SPLITTER_H
#define GATEWAY_SPLITTER_H

#include "shared/buf.h"

enum splitter_state {
    SPLITTER_START,
    SPLITTER_REASONING,
    SPLITTER_TEXT,
    SPLITTER_CALL,
    SPLITTER_JSON
};

struct splitter {
    bool finds_reasoning, finds_calls;
    bool drops_space; /* that comes next */
    enum splitter_state state;
    struct buf held;   /* owned: what is not decided yet */
    size_t n_searched; /* of it, for the end of a call */
};

enum splitter_part { SPLITTER_PART_REASONING, SPLITTER_PART_TEXT, SPLITTER_PART_CALL };

/* CALL: text is the tool's name, arguments the JSON of its arguments. */
typedef void splitter_fn(void *arg, enum splitter_part part, const char *text, size_t n,
                         const char *arguments, size_t n_arguments);

void splitter_init(struct splitter *s, bool finds_reasoning, bool finds_calls);
void splitter_finish(struct splitter *s);
/* Further text; is_end: there is no more. fn gets what is decided. False: no memory. */
MUST_CHECK bool splitter_feed(struct splitter *s, const char *text, size_t n, bool is_end,
                              splitter_fn *fn, void *arg);

#endif
