/* The handlers of route.def: misc.c (state and models), crashes.c, text.c (tokenizing), api_chat.c
 * and api_completions.c. */
#ifndef GATEWAY_API_H
#define GATEWAY_API_H

#include "gateway/route.h"

#define ROUTE(NAME, path, methods, flags, handler) route_fn handler;
#include "gateway/route.def"
#undef ROUTE

#endif
