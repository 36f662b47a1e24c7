/* An open loop keeps its schedule and its depth, and skips no message. */
#include "loads.h"

#include "load_open.h"

static void an_open_loop_sends_on_time_to_each_in_turn(void)
{
    fe_load *l = new_load(3, 1, FE_PATTERN_RAW, 64, "", "");
    const fe_load_connection *c;

    l->schedule.interval_ns = 100;
    fe_schedule_start(&l->schedule, 1000);
    for (uint32_t i = 0; i < 3; i++)
        fe_load_offer(l, &l->connections[i], 1000);
    fe_load_offer(l, &l->connections[0], 1000);
    assert(l->ring_used == 3);
    assert(fe_load_give(l, 999, 16) == 0);
    assert(fe_load_give(l, 1000, 16) == 1);
    c = fe_load_given(l);
    assert(c == &l->connections[0] && c->due == 1 && fe_load_given(l) == NULL);
    assert(l->schedule.next_ns == 1100);
    /* Two are due: the next two connections get them. */
    assert(fe_load_give(l, 1250, 16) == 2);
    assert(l->connections[1].due == 1 && l->connections[2].due == 1);
    assert(l->times[fe_load_place(l, &l->connections[2], 0)] == 1200);
    assert(l->lateness->count == 3 && l->lateness->max == 150);
    while (fe_load_given(l) != NULL)
        ;
    /* Nobody is free: the message waits, and counts from when it was due. */
    assert(fe_load_give(l, 2000, 16) == 0 && l->schedule.next_ns == 1300);
    {
        unsigned char reply[64];

        right_reply(l, &l->connections[1], 0, reply);
        fe_load_received(l, &l->connections[1], reply, 64, 2100);
        fe_load_offer(l, &l->connections[1], 2100);
        assert(fe_load_give(l, 2110, 16) == 1);
        assert(counted(l, FE_LOAD_HELD) == 1 && l->lateness->count == 3);
        assert(l->times[fe_load_place(l, &l->connections[1], 1)] == 1300);
        right_reply(l, &l->connections[1], 1, reply);
        fe_load_received(l, &l->connections[1], reply, 64, 2200);
        assert(l->latency->max == 1000 && l->latency->min == 900);
    }
    free_load(l);
}

static void an_open_loop_ends_with_its_window_and_counts_what_it_could_not_send(void)
{
    fe_load *l = new_load(2, 1, FE_PATTERN_RAW, 64, "", "");
    unsigned char reply[64];

    l->schedule.interval_ns = 100;
    fe_load_set_window(l, 0, 2000);
    fe_schedule_start(&l->schedule, 1000);
    fe_load_offer(l, &l->connections[0], 1000);
    fe_load_offer(l, &l->connections[1], 1000);
    /* A dead connection is not given anything. */
    fe_load_gone(l, &l->connections[0], FE_LOAD_RESET, 0, 5);
    assert(fe_load_give(l, 5000, 16) == 1 && l->connections[1].due == 1);
    fe_load_give_up(l);
    assert(counted(l, FE_LOAD_SENT) == 1 && counted(l, FE_LOAD_UNSENT) == 9);
    fe_load_give_up(l);
    assert(counted(l, FE_LOAD_UNSENT) == 9);
    /* A connection that is free changes nothing: the window is over. */
    right_reply(l, &l->connections[1], 0, reply);
    fe_load_received(l, &l->connections[1], reply, 64, 6000);
    fe_load_offer(l, &l->connections[1], 6000);
    assert(l->ring_used == 1 && fe_load_give(l, 7000, 16) == 0 && counted(l, FE_LOAD_SENT) == 1);
    free_load(l);
}

static void a_connection_that_cannot_take_a_message_is_passed_over(void)
{
    fe_load *l = new_load(3, 1, FE_PATTERN_RAW, 64, "", "");

    l->schedule.interval_ns = 1;
    fe_schedule_start(&l->schedule, 0);
    /* Closed: it is not queued. Filled while it was queued: its turn goes to the next. */
    fe_load_gone(l, &l->connections[0], FE_LOAD_RESET, 0, 5);
    for (int i = 0; i < 3; i++)
        fe_load_offer(l, &l->connections[i], 0);
    assert(l->ring_used == 2);
    fe_load_release(l, &l->connections[1], 1, 0, 0);
    assert(fe_load_give(l, 10, 16) == 1 && fe_load_given(l) == &l->connections[2]);
    assert(l->connections[0].due == 0 && l->connections[1].due == 1 && l->ring_used == 0);
    free_load(l);
}

static void depth_and_batch_limit_what_is_given_at_once(void)
{
    fe_load *l = new_load(1, 5, FE_PATTERN_RAW, 64, "", "");

    l->schedule.interval_ns = 1;
    fe_schedule_start(&l->schedule, 0);
    fe_load_offer(l, &l->connections[0], 0);
    assert(fe_load_give(l, 500, 3) == 3);
    assert(fe_load_given(l) == &l->connections[0] && fe_load_given(l) == NULL);
    assert(fe_load_give(l, 500, 3) == 2);
    assert(fe_load_give(l, 500, 3) == 0 && fe_load_room(l, &l->connections[0]) == 0);
    /* It had room all the time: the lateness is the caller's. */
    assert(counted(l, FE_LOAD_HELD) == 0 && l->lateness->count == 5);
    free_load(l);
}

static void what_is_due_while_nobody_is_connected_is_lost_and_the_schedule_goes_on(void)
{
    fe_load *l = new_load(2, 4, FE_PATTERN_RAW, 64, "", "");

    l->schedule.interval_ns = 100;
    fe_schedule_start(&l->schedule, 0);
    fe_load_gone(l, &l->connections[0], FE_LOAD_RESET, 0, 0);
    fe_load_offer(l, &l->connections[1], 0);
    assert(fe_load_give(l, 299, 16) == 3 && counted(l, FE_LOAD_LOST) == 0);
    while (fe_load_given(l) != NULL)
        ;
    fe_load_gone(l, &l->connections[1], FE_LOAD_RESET, 0, 299);
    assert(counted(l, FE_LOAD_LOST) == 3);
    assert(fe_load_give(l, 999, 16) == 0 && counted(l, FE_LOAD_LOST) == 10);
    fe_load_opened(l, &l->connections[1], 1000);
    fe_load_offer(l, &l->connections[1], 1000);
    assert(fe_load_give(l, 1000, 16) == 1 && counted(l, FE_LOAD_HELD) == 0);
    assert(counted(l, FE_LOAD_SENT) == 4);
    /* At the end, too. */
    fe_load_set_window(l, 0, 1500);
    fe_load_gone(l, &l->connections[1], FE_LOAD_RESET, 0, 1100);
    fe_load_give_up(l);
    assert(counted(l, FE_LOAD_LOST) == 15 && counted(l, FE_LOAD_UNSENT) == 0);
    free_load(l);
}

static void while_the_first_connections_are_still_coming_messages_wait(void)
{
    fe_load *l = new_load(2, 4, FE_PATTERN_RAW, 64, "", "");

    fe_load_gone(l, &l->connections[0], -1, 0, 0);
    fe_load_gone(l, &l->connections[1], -1, 0, 0);
    l->schedule.interval_ns = 100;
    fe_schedule_start(&l->schedule, 0);
    assert(fe_load_give(l, 250, 16) == 0 && counted(l, FE_LOAD_LOST) == 0);
    fe_load_opened(l, &l->connections[0], 260);
    fe_load_offer(l, &l->connections[0], 260);
    assert(fe_load_give(l, 300, 16) == 4 && counted(l, FE_LOAD_HELD) == 3);
    free_load(l);
}

static void messages_of_the_warm_up_are_given_and_not_counted(void)
{
    fe_load *l = new_load(1, 9, FE_PATTERN_RAW, 64, "", "");

    fe_load_set_window(l, 500, 10000);
    l->left = 2;
    l->schedule.interval_ns = 100;
    fe_schedule_start(&l->schedule, 0);
    fe_load_offer(l, &l->connections[0], 50);
    assert(fe_load_give(l, 499, 16) == 5);
    assert(counted(l, FE_LOAD_SENT) + counted(l, FE_LOAD_HELD) + l->lateness->count == 0);
    /* The number of messages is one of the window. */
    assert(fe_load_has_next(l) && fe_load_give(l, 5000, 16) == 2 && !fe_load_has_next(l));
    assert(counted(l, FE_LOAD_SENT) == 2 && l->lateness->count == 2);
    fe_load_give_up(l);
    assert(counted(l, FE_LOAD_UNSENT) == 0);
    free_load(l);
}

static void a_number_of_messages_is_due_and_no_more_whatever_becomes_of_them(void)
{
    fe_load *l = new_load(1, 3, FE_PATTERN_RAW, 64, "", "");

    fe_load_set_window(l, 250, UINT64_MAX);
    l->left = 9;
    l->schedule.interval_ns = 100;
    l->schedule.phase = 0.5;
    fe_schedule_start(&l->schedule, 0);
    fe_load_offer(l, &l->connections[0], 0);
    /* Two of the warm-up, one of the window; then nobody is connected, in the window only. */
    assert(fe_load_give(l, 250, 16) == 3 && l->left == 8);
    fe_load_gone(l, &l->connections[0], FE_LOAD_RESET, 0, 250);
    assert(fe_load_give(l, 650, 16) == 0 && l->left == 4);
    assert(counted(l, FE_LOAD_LOST) == 3 + 4 && l->counts.last_ns == 0);
    fe_load_give_up(l);
    assert(l->left == 0 && counted(l, FE_LOAD_LOST) == 3 + 8);
    fe_load_give_up(l);
    assert(fe_load_give(l, 9999, 16) == 0 && counted(l, FE_LOAD_LOST) == 3 + 8);
    free_load(l);
}

static void what_is_missed_in_the_warm_up_is_none_of_the_number(void)
{
    fe_load *l = new_load(1, 1, FE_PATTERN_RAW, 64, "", "");

    fe_load_set_window(l, 250, 450);
    l->left = 9;
    l->schedule.interval_ns = 100;
    fe_schedule_start(&l->schedule, 0);
    fe_load_give_up(l);
    assert(counted(l, FE_LOAD_UNSENT) == 5 && counted(l, FE_LOAD_HELD) == 2 && l->left == 7);
    free_load(l);
}

static void the_last_of_a_number_of_messages_has_its_interval_too(void)
{
    fe_load *l = new_load(1, 9, FE_PATTERN_RAW, 64, "", "");

    fe_load_set_window(l, 1000, UINT64_MAX);
    l->left = 4;
    l->schedule.interval_ns = 100;
    l->schedule.phase = 0.25;
    fe_schedule_start(&l->schedule, 1000);
    fe_load_offer(l, &l->connections[0], 1000);
    assert(fe_load_give(l, 1324, 16) == 3 && l->counts.last_ns == 0);
    assert(fe_load_give(l, 1325, 16) == 1 && !fe_load_has_next(l));
    assert(fe_load_elapsed_ns(&l->counts, 9999) == 400);
    fe_load_spent(l, 1350);
    assert(fe_load_elapsed_ns(&l->counts, 9999) == 400);
    /* A reply that came later. */
    fe_load_spent(l, 1777);
    assert(fe_load_elapsed_ns(&l->counts, 9999) == 777);
    free_load(l);
}

int main(void)
{
    an_open_loop_sends_on_time_to_each_in_turn();
    an_open_loop_ends_with_its_window_and_counts_what_it_could_not_send();
    a_connection_that_cannot_take_a_message_is_passed_over();
    depth_and_batch_limit_what_is_given_at_once();
    what_is_due_while_nobody_is_connected_is_lost_and_the_schedule_goes_on();
    while_the_first_connections_are_still_coming_messages_wait();
    messages_of_the_warm_up_are_given_and_not_counted();
    a_number_of_messages_is_due_and_no_more_whatever_becomes_of_them();
    what_is_missed_in_the_warm_up_is_none_of_the_number();
    the_last_of_a_number_of_messages_has_its_interval_too();
    return 0;
}
