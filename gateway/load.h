/* `rocmforge bench --server`: load on any OpenAI-compatible server, ours or another. Open or closed
 * loop, bursts, prompt and answer lengths from a range, shared prefixes, several choices, clients
 * that leave; throughput, time to the first token, time between tokens. */
#ifndef GATEWAY_LOAD_H
#define GATEWAY_LOAD_H

/* argv[0] is the command's name; returns the exit code. */
int load_main(int argc, char **argv);

#endif
