/* rocmforge-probe in the roles that have to do with crash reports. */
#ifndef SAFETY_REPORTER_H
#define SAFETY_REPORTER_H

/* `--report DIR`, child of the supervisor: writes one report. `--reports DIR`: answers one question
 * of the gateway's. Return exit codes. */
int reporter_write(const char *dir);
int reporter_answer(const char *dir);

/* `report DIR ...`: the command `rocmforge report`. argv begins behind DIR. */
int reporter_command(const char *dir, int argc, char **argv);

#endif
