/* The supervisor with dummy children that die, hang or break the protocol. */
#include "tests/safety/rig.h"
#include "shared/base.h"
#include "shared/clock.h"

#include <signal.h>

static struct rig r;

static void test_kill_restarts_at_once(void)
{
    rig_plan("", "");
    pid_t worker = rig_serve_ready(&r, NULL, NULL);
    for (int i = 2; i < 10; i++) {
        CHECK(kill(worker, SIGKILL) == 0);
        char want[64];
        rig_expect(&r, "was killed by SIGKILL in epoch");
        CHECK(strstr(r.line, "by somebody else; started again at once"));
        snprintf(want, sizeof(want), "@gateway detach %d worker_down", i - 1);
        rig_expect(&r, want);
        rig_expect(&r, "worker is ready: epoch ");
        CHECK_INT(rig_number(&r, "epoch "), i);
        worker = (pid_t)rig_number(&r, "pid ");
        snprintf(want, sizeof(want), "@gateway ready %d", i);
        rig_expect(&r, want);
    }
    rig_stop(&r);
}

static void test_no_descriptor_leaks(void)
{
    rig_plan("", "");
    rig_serve(&r, NULL, NULL);
    rig_expect(&r, "@gateway start");
    pid_t gateway = (pid_t)rig_number(&r, "pid ");
    rig_expect(&r, "worker is ready");
    pid_t worker = (pid_t)rig_number(&r, "pid ");
    rig_expect(&r, "@gateway ready");
    int before = rig_count_fds(r.pid);
    for (int i = 0; i < 50; i++) {
        CHECK(kill(worker, SIGKILL) == 0);
        rig_expect(&r, "worker is ready");
        worker = (pid_t)rig_number(&r, "pid ");
        rig_expect(&r, "@gateway ready");
    }
    CHECK_INT(rig_count_fds(r.pid), before);
    CHECK(kill(gateway, SIGKILL) == 0);
    rig_expect(&r, "@gateway ready");
    CHECK_INT(rig_count_fds(r.pid), before);
    rig_stop(&r);
}

static void test_crash_loop_before_ready_gives_up(void)
{
    rig_plan("", "segv");
    rig_serve(&r, NULL, NULL);
    for (int i = 0; i < 4; i++) {
        rig_expect(&r, "was killed by SIGSEGV in epoch");
        CHECK(strstr(r.line, "its own fault; started again"));
    }
    rig_expect(&r, "its own fault; not started again");
    CHECK_INT(rig_wait(&r), 1);
}

static void test_refusal_at_first_load(void)
{
    rig_plan("", "exit16");
    rig_serve(&r, NULL, NULL);
    rig_expect(&r, "could not start, it exited with 16; the server ends with exit code 16");
    CHECK_INT(rig_wait(&r), 16);
    rig_plan("", "exit16later");
    pid_t worker = rig_serve_ready(&r, NULL, NULL);
    CHECK(kill(worker, SIGKILL) == 0);
    rig_expect(&r, "exited with 16");
    CHECK(strstr(r.line, "started again in 1.0 s"));
    rig_stop(&r);
}

static void test_work_done_costs_nothing(void)
{
    rig_plan("", "worked");
    pid_t worker = rig_serve_ready(&r, NULL, NULL);
    for (int i = 0; i < 8; i++) { /* more than the budget */
        CHECK(kill(worker, SIGABRT) == 0);
        rig_expect(&r, "was killed by SIGABRT in epoch");
        CHECK(strstr(r.line, i == 0 ? "its own fault; started again at once"
                                    : "its own fault; started again in 0.2 s"));
        rig_expect(&r, "worker is ready");
        worker = (pid_t)rig_number(&r, "pid ");
        rig_expect(&r, "@gateway ready");
    }
    rig_stop(&r);
}

static void test_last_words(void)
{
    rig_plan("", "words");
    rig_serve(&r, NULL, NULL);
    rig_expect(&r, "exited with 20");
    CHECK(strstr(r.line, "last words: kernel matmul failed:??[2J 0xdead"));
    kill(r.pid, SIGKILL);
    CHECK_INT(rig_wait(&r), 128 + SIGKILL);
}

static void test_broken_protocol(void)
{
    static const char *const ways[] = {"garbage", "forge"};
    for (size_t i = 0; i < COUNT_OF(ways); i++) {
        rig_plan("", ways[i]);
        rig_serve(&r, NULL, NULL);
        rig_expect(&r, "its own fault: it broke the control protocol");
        kill(r.pid, SIGKILL);
        rig_wait(&r);
    }
    rig_plan("breach", "");
    rig_serve(&r, NULL, NULL);
    rig_expect(&r, "its own fault: it broke the protocol of the ring: tail beyond capacity");
    rig_expect(&r, "worker is ready: epoch 2");
    rig_stop(&r);
}

static void test_gateway_death(void)
{
    rig_plan("", "");
    rig_serve(&r, NULL, NULL);
    rig_expect(&r, "listening on http://127.0.0.1:");
    int port = rig_port(&r);
    rig_expect(&r, "@gateway start");
    pid_t gateway = (pid_t)rig_number(&r, "pid ");
    rig_expect(&r, "@gateway ready 1");
    rig_expect(&r, "worker is ready");
    pid_t worker = (pid_t)rig_number(&r, "pid ");
    CHECK(kill(gateway, SIGSTOP) == 0);
    int waiting = rig_dial(port); /* nobody accepts it; the socket outlives the gateway */
    CHECK(kill(gateway, SIGKILL) == 0);
    rig_expect(&r, "gateway (pid ");
    CHECK(strstr(r.line, "was killed by SIGKILL"));
    rig_check_answer(waiting);
    rig_expect(&r, "worker goes on with the new gateway: epoch 2");
    rig_expect(&r, "@worker ready 2");
    CHECK_INT(rig_number(&r, "pid "), worker); /* the same one, with its models */
    rig_expect(&r, "@gateway ready 2");
    rig_stop(&r);

    rig_plan("poison diesonce", "");
    rig_serve(&r, NULL, NULL);
    rig_expect(&r, "gateway (pid ");
    CHECK(strstr(r.line, "was killed by SIGSEGV") && strstr(r.line, "its own fault"));
    rig_expect(&r, "@gateway poison 7 since 5 in time");
    rig_expect(&r, "@gateway ready 2");
    rig_stop(&r);

    /* The worker is still loading when the second gateway comes: it is paired when it is done. */
    rig_plan("", "slowload");
    rig_serve(&r, NULL, NULL);
    rig_expect(&r, "@gateway ready 1");
    gateway = (pid_t)rig_number(&r, "pid ");
    CHECK(kill(gateway, SIGKILL) == 0);
    rig_expect(&r, "@worker ready 1");
    rig_expect(&r, "worker goes on with the new gateway: epoch 2");
    rig_expect(&r, "@gateway ready 2");
    rig_expect(&r, "@worker ready 2");
    rig_stop(&r);
}

static void test_hang_is_found(void)
{
    rig_plan("", "hangonce workedonce");
    const char *args[] = {"--stall-ms", "500", "serve", "--port", "0", "-m", "x", NULL};
    rig_start(&r, args);
    rig_expect(&r, "@worker hanging");
    uint64_t t0 = clock_ms();
    rig_expect(&r, "its own fault: no progress for ");
    CHECK(strstr(r.line, "phase decode, step 5"));
    CHECK(clock_ms() - t0 < 5000);
    rig_expect(&r, "worker is ready: epoch 2");
    rig_stop(&r);
}

static void test_hang_in_load_is_found(void)
{
    rig_plan("", "hangload");
    const char *args[] = {"--stall-ms", "100", "serve", "--port", "0", "-m", "x", NULL};
    rig_start(&r, args);
    rig_expect(&r, "its own fault: no progress");
    CHECK(strstr(r.line, "phase loading"));
    kill(r.pid, SIGKILL);
    rig_wait(&r);
}

static void test_unheard_bell_is_found(void)
{
    rig_plan("ring", "idle");
    const char *args[] = {"--stall-ms", "200", "serve", "--port", "0", "-m", "x", NULL};
    rig_start(&r, args);
    rig_expect(&r, "@gateway rang 0");
    rig_expect(&r, "its own fault: no progress");
    CHECK(strstr(r.line, "phase idle"));
    rig_expect(&r, "worker is ready: epoch 2");
    usleep(500 * 1000); /* epoch 2 sleeps, nobody rings: left alone */
    CHECK(kill(r.pid, SIGTERM) == 0);
    rig_expect(&r, "stopping:");
    CHECK_INT(rig_wait(&r), 0);
}

static void test_hung_gateway_is_replaced(void)
{
    rig_plan("", "");
    const char *args[] = {"--stall-ms", "300", "serve", "--port", "0", "-m", "x", NULL};
    rig_start(&r, args);
    rig_expect(&r, "@gateway ready 1");
    pid_t gateway = (pid_t)rig_number(&r, "pid ");
    rig_expect(&r, "worker is ready");
    pid_t worker = (pid_t)rig_number(&r, "pid ");
    usleep(1200 * 1000); /* answers, and is left alone */
    CHECK(kill(gateway, SIGSTOP) == 0);
    rig_expect(&r, "its own fault: its loop did not turn for ");
    CHECK_INT(rig_number(&r, "gateway (pid "), gateway);
    rig_expect(&r, "@worker ready 2");
    CHECK_INT(rig_number(&r, "pid "), worker);
    rig_expect(&r, "@gateway ready 2");
    rig_stop(&r);
}

static void test_stubborn_worker_is_killed(void)
{
    rig_plan("", "ignoreterm");
    pid_t worker = rig_serve_ready(&r, NULL, NULL);
    CHECK(kill(worker, SIGSTOP) == 0); /* and deaf to everything */
    CHECK(kill(r.pid, SIGTERM) == 0);
    rig_expect(&r, "stopping:");
    CHECK(kill(r.pid, SIGINT) == 0); /* once more: at once */
    CHECK_INT(rig_wait(&r), 1);
    CHECK(!rig_is_alive(worker));
}

static void test_supervisor_killed(void)
{
    rig_plan("", "");
    rig_serve(&r, NULL, NULL);
    rig_expect(&r, "@gateway start");
    pid_t gateway = (pid_t)rig_number(&r, "pid ");
    rig_expect(&r, "worker is ready");
    pid_t worker = (pid_t)rig_number(&r, "pid ");
    CHECK(kill(r.pid, SIGKILL) == 0);
    CHECK_INT(rig_wait(&r), 128 + SIGKILL);
    for (int i = 0; i < 1000 && (rig_is_alive(worker) || rig_is_alive(gateway)); i++) {
        usleep(1000);
    }
    CHECK(!rig_is_alive(worker) && !rig_is_alive(gateway));
}

int main(int argc, char **argv)
{
    rig_init(argc, argv);
    test_kill_restarts_at_once();
    test_no_descriptor_leaks();
    test_crash_loop_before_ready_gives_up();
    test_refusal_at_first_load();
    test_work_done_costs_nothing();
    test_last_words();
    test_broken_protocol();
    test_gateway_death();
    test_hang_is_found();
    test_hang_in_load_is_found();
    test_unheard_bell_is_found();
    test_hung_gateway_is_replaced();
    test_stubborn_worker_is_killed();
    test_supervisor_killed();
    rig_clean();
    return 0;
}
