/* The life of a connection: the whole table is repeated here in another form, as sentences of
 * "in this state, on this event", and then walked: every way ends, and ends once. */
#include "support.h"

#include "connection.h"

#include <string.h>

typedef struct rule {
    int state;
    int event;
    int next;
    int actions;
} rule;

/* Whatever is not listed here changes nothing. */
static const rule rules[] = {
    /* Served once it is admitted; before that nothing is read, so nothing else can happen. */
    {FE_ADMIT, FE_ON_ADMITTED, FE_OPEN, FE_DO_SERVE},
    {FE_ADMIT, FE_ON_ABORT, FE_REAP, FE_DO_RESET | FE_DO_CLOSE},
    /* The peer's FIN is answered by the last frames. Ending starts with what is pending. */
    {FE_OPEN, FE_ON_EOF, FE_PEER_EOF, FE_DO_LAST_FRAMES},
    {FE_OPEN, FE_ON_END, FE_ENDING, FE_DO_LINGER_TIMER},
    {FE_OPEN, FE_ON_ABORT, FE_REAP, FE_DO_RESET | FE_DO_CLOSE},
    /* Everything echoed: our FIN, and nothing to linger for. */
    {FE_PEER_EOF, FE_ON_FLUSHED, FE_REAP, FE_DO_FIN | FE_DO_CLOSE},
    {FE_PEER_EOF, FE_ON_ABORT, FE_REAP, FE_DO_RESET | FE_DO_CLOSE},
    /* We end first: FIN only after the last reply, close only after the peer's FIN. */
    {FE_ENDING, FE_ON_FLUSHED, FE_LINGER, FE_DO_FIN | FE_DO_LINGER_TIMER},
    {FE_ENDING, FE_ON_ABORT, FE_REAP, FE_DO_RESET | FE_DO_CLOSE},
    {FE_ENDING, FE_ON_OVERDUE, FE_REAP, FE_DO_RESET | FE_DO_CLOSE},
    {FE_LINGER, FE_ON_EOF, FE_REAP, FE_DO_CLOSE},
    {FE_LINGER, FE_ON_ABORT, FE_REAP, FE_DO_RESET | FE_DO_CLOSE},
    /* Our FIN is out: what the kernel still holds is delivered after a plain close. */
    {FE_LINGER, FE_ON_OVERDUE, FE_REAP, FE_DO_CLOSE},
};

static rule expected(int state, int event)
{
    rule found = {state, event, state, 0};

    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
        if (rules[i].state == state && rules[i].event == event)
            found = rules[i];
    return found;
}

static void every_state_on_every_event_does_what_is_written(void)
{
    for (int state = 0; state < FE_STATES; state++)
        for (int event = 0; event < FE_EVENTS; event++) {
            fe_transition t = fe_transition_for(state, event);
            rule wanted = expected(state, event);

            assert(t.next == wanted.next && t.actions == wanted.actions);
        }
}

static void closing_and_reaping_are_one_step(void)
{
    for (int state = 0; state < FE_STATES; state++)
        for (int event = 0; event < FE_EVENTS; event++) {
            fe_transition t = fe_transition_for(state, event);

            assert(!!(t.actions & FE_DO_CLOSE) == (t.next == FE_REAP && state != FE_REAP));
            if (t.actions & FE_DO_RESET)
                assert(t.actions & FE_DO_CLOSE && !(t.actions & FE_DO_FIN));
        }
}

static void a_live_connection_can_always_be_aborted(void)
{
    for (int state = FE_ADMIT; state < FE_REAP; state++)
        assert(fe_transition_for(state, FE_ON_ABORT).next == FE_REAP);
}

/* Random walks: a connection never comes back from REAP, sends FIN at most once, closes once,
 * and sends no FIN and no reply before it is served. */
static void every_walk_closes_once_and_sends_one_fin(void)
{
    uint64_t random = 11;

    for (int walk = 0; walk < 20000; walk++) {
        int state = FE_ADMIT, fins = 0, closes = 0, served = 0;

        for (int step = 0; step < 60; step++) {
            fe_transition t = fe_transition_for(state, (int)random_below(&random, FE_EVENTS));

            served += !!(t.actions & FE_DO_SERVE);
            fins += !!(t.actions & FE_DO_FIN);
            closes += !!(t.actions & FE_DO_CLOSE);
            assert(served || !(t.actions & (FE_DO_FIN | FE_DO_LAST_FRAMES | FE_DO_LINGER_TIMER)));
            assert(state != FE_REAP || (t.next == FE_REAP && t.actions == 0));
            assert(t.next != FE_FREE);
            state = t.next;
        }
        assert(served <= 1 && fins <= 1 && closes == (state == FE_REAP));
    }
}

static void a_record_is_one_cache_line_and_is_found_from_its_timer(void)
{
    fe_connection connections[3];

    assert(sizeof(fe_connection) == 64);
    for (int i = 0; i < 3; i++)
        assert(fe_connection_of(&connections[i].timer) == &connections[i]);
}

static void names_of_one_kind_do_not_collide(void)
{
    const int flags[] = {FE_IS_REGISTERED, FE_IS_READY,    FE_IS_PAUSED, FE_HAS_FRAMES,
                         FE_HAS_HUNG_UP,   FE_WAS_REFUSED, FE_HAS_EOF};
    const int actions[] = {FE_DO_SERVE, FE_DO_LAST_FRAMES, FE_DO_LINGER_TIMER,
                           FE_DO_FIN,   FE_DO_RESET,       FE_DO_CLOSE};
    int seen = 0;

    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        assert((seen & flags[i]) == 0 && flags[i] <= UINT8_MAX);
        seen |= flags[i];
    }
    seen = 0;
    for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); i++) {
        assert((seen & actions[i]) == 0 && actions[i] <= UINT8_MAX);
        seen |= actions[i];
    }
    assert(FE_REASONS <= UINT8_MAX && FE_STATES <= UINT8_MAX && FE_FREE == 0);
}

int main(void)
{
    every_state_on_every_event_does_what_is_written();
    closing_and_reaping_are_one_step();
    a_live_connection_can_always_be_aborted();
    every_walk_closes_once_and_sends_one_fin();
    a_record_is_one_cache_line_and_is_found_from_its_timer();
    names_of_one_kind_do_not_collide();
    return 0;
}
