/* What happens to the card beside our work, as the monitor hears it: a reset, throttling, that it
 * is wedged; and what follows from it for workers. In the supervisor's loop; never blocks.
 *
 * A reset ends every program on the card, guilty or not. The driver resets a card when some work on
 * it has not ended for CARD_HANG_MS at least: a worker that made progress a moment before, and had
 * no fault (nor may have had one: in a container nobody knows whose it was), did not cause it, and
 * its death by it is nobody's fault here: no request is suspected, no rung is lost, and the next
 * worker starts when the reset is over. */
#ifndef SAFETY_CARD_H
#define SAFETY_CARD_H

#include "safety/supervisor.h"

enum {
    CARD_HANG_MS = 1500,        /* newer drivers wait 2 s, older ones 10 s */
    CARD_RESET_MS = 10 * 1000,  /* a reset that takes longer is the preflight's to wait for */
    CARD_EXCUSE_MS = 30 * 1000, /* between a reset and the death that it explains */
    CARD_WEDGED_MS = 5 * 60 * 1000, /* then a preflight looks whether it was repaired unheard */
};

void card_saw(struct supervisor *s, const struct channel_msg *m, uint64_t now_ms);
/* In every turn. */
void card_tick(struct supervisor *s, uint64_t now_ms);
/* The worker died while it held the card: was it a reset that another program caused? Once for
 * each. */
bool card_explains(struct supervisor *s, uint64_t now_ms);
/* May a worker be started that wants the card? */
bool card_is_usable(const struct supervisor *s, uint64_t now_ms);
/* Something is going on that the monitor has to hear the end of. */
bool card_is_watched(const struct supervisor *s, uint64_t now_ms);
/* Its files were read: of one that was gone, that it is there again. */
void card_was_read(struct supervisor *s, uint64_t now_ms);
/* The monitor ended because there is no card. */
void card_is_missing(struct supervisor *s);
/* The user says that it was repaired (SIGHUP). */
void card_forgive(struct supervisor *s);

#endif
