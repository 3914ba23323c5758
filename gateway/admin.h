/* `rocmforge poison`: asks a running server what only its administrator may ask, and prints it. */
#ifndef GATEWAY_ADMIN_H
#define GATEWAY_ADMIN_H

/* argv[0] is the command's name; returns the exit code. */
int admin_main(int argc, char **argv);

#endif
