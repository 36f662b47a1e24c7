/* The rule for every errno: the lists of the documents are repeated here by hand, and every
 * other number that exists or does not must get the rule for the unforeseen. */
#include "support.h"

#include "errors.h"

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

static int holds(const int *list, size_t n, int error)
{
    for (size_t i = 0; i < n; i++)
        if (list[i] == error)
            return 1;
    return 0;
}

static const int nothing_there[] = {EAGAIN, EWOULDBLOCK};
/* accept(2): "already-pending network errors ... treat them like EAGAIN by retrying", and a
 * newcomer that is gone already, and a firewall's no. */
static const int this_newcomer[] = {ENETDOWN, EPROTO,       ENOPROTOOPT, EHOSTDOWN,
                                    ENONET,   EHOSTUNREACH, EOPNOTSUPP,  ENETUNREACH,
                                    EPERM,    ECONNABORTED, ETIMEDOUT};
static const int no_descriptor[] = {EMFILE, ENFILE};
static const int no_memory[] = {ENOBUFS, ENOMEM};

static void an_errno_of_accept_has_its_rule(void)
{
    for (int error = -1; error < 600; error++) {
        int rule = fe_accept_rule_for(error);

        if (holds(nothing_there, COUNT(nothing_there), error))
            assert(rule == FE_ACCEPT_DONE);
        else if (holds(this_newcomer, COUNT(this_newcomer), error))
            assert(rule == FE_ACCEPT_NEXT);
        else if (holds(no_descriptor, COUNT(no_descriptor), error))
            assert(rule == FE_ACCEPT_SHED);
        else if (error == EINVAL)
            assert(rule == FE_ACCEPT_OVER);
        else
            assert(rule == FE_ACCEPT_PAUSE);
    }
}

static void the_rules_of_accept_differ(void)
{
    const int rules[] = {FE_ACCEPT_DONE, FE_ACCEPT_NEXT, FE_ACCEPT_SHED, FE_ACCEPT_PAUSE,
                         FE_ACCEPT_OVER};

    for (size_t i = 0; i < COUNT(rules); i++)
        assert(!holds(rules, i, rules[i]));
}

static void an_errno_of_recv_and_send_has_its_rule(void)
{
    for (int error = -1; error < 600; error++) {
        int rule = fe_io_rule_for(error);

        if (holds(nothing_there, COUNT(nothing_there), error))
            assert(rule == FE_IO_WAIT);
        else if (holds(no_memory, COUNT(no_memory), error))
            assert(rule == FE_IO_REFUSED);
        else
            assert(rule == FE_IO_LOST);
    }
    assert(FE_IO_WAIT != FE_IO_REFUSED && FE_IO_REFUSED != FE_IO_LOST && FE_IO_LOST != FE_IO_WAIT);
}

int main(void)
{
    an_errno_of_accept_has_its_rule();
    the_rules_of_accept_differ();
    an_errno_of_recv_and_send_has_its_rule();
    return 0;
}
