/* Server-sent events (HTML standard 9.2), as the OpenAI API uses them: "data: JSON" and an empty
 * line; the JSON holds no line break. */
#ifndef GATEWAY_SSE_H
#define GATEWAY_SSE_H

#include "shared/buf.h"

/* A line that readers ignore: keeps the connection alive. */
#define SSE_COMMENT ": waiting\n\n"
#define SSE_DONE "data: [DONE]\n\n"

/* Around the JSON of one event. */
static inline void sse_begin(struct buf *b)
{
    buf_str(b, "data: ");
}
static inline void sse_end(struct buf *b)
{
    buf_str(b, "\n\n");
}

#endif
