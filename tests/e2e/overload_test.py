"""Far more requests than the KV cache has blocks for: all finish, each with what it says alone, in about
the order in which they came; who asks once is served before those who flood."""
import os
import signal
import statistics
import sys
import threading
import time

from server import DEMO, Server, check, check_equal

N = 42  # requests of some seven blocks each at once; the cache has 21 blocks


def body(i):
    return {'prompt': f'Story number {i}: once upon a time, far away from here, there was a mouse. ' +
            'It lived in a small house. ' * (i % 3), 'max_tokens': 40 + i * 7 % 40, 'ignore_eos': True,
            'temperature': i % 2, 'seed': 100 + i, 'logprobs': 2}


def answer(s, i, user=None):
    status, r = s.post('/v1/completions', {**body(i), **({'user': user} if user else {})})
    check_equal(status, 200, r)
    return r['choices']


def metric(s, name):
    lines = s.get('/metrics')[1].decode().splitlines()
    return float([l for l in lines if l.startswith(f'rocmforge_{name} ')][0].split()[1])


def run_all(s, jobs):
    """Asks all while the worker stands still, so that they are queued in this order; then it goes on. So does the
    supervisor, whose watchdog would end it where that takes more than 2 s. Each job is called in a thread of its own; [(result, seconds from the going on to its end)]."""
    out, begin = [None] * len(jobs), [0.0]

    def run(k):
        result = jobs[k]()
        out[k] = (result, time.monotonic() - begin[0])

    threads = [threading.Thread(target=run, args=(k,)) for k in range(len(jobs))]
    worker = s.child('worker')
    os.kill(s.process.pid, signal.SIGSTOP)
    os.kill(worker, signal.SIGSTOP)
    try:
        for k, t in enumerate(threads):
            t.start()
            end = time.monotonic() + 120
            while metric(s, 'requests_live') <= k:
                check(time.monotonic() < end, f'request {k} is not queued')
    finally:
        begin[0] = time.monotonic()
        os.kill(worker, signal.SIGCONT)
        os.kill(s.process.pid, signal.SIGCONT)
    for t in threads:
        t.join()
    check(all(out), 'every request was answered')
    return out


def overload(s, alone):
    check_equal(metric(s, 'kv_blocks'), 21, 'blocks')
    out = run_all(s, [lambda i=i: answer(s, i) for i in range(N)])
    for i, (choices, _) in enumerate(out):
        check_equal(choices, alone[i], f'request {i} among {N}')
    waits = [seconds for _, seconds in out]
    print(f'  {N} requests: median {statistics.median(waits):.2f} s, max {max(waits):.2f} s; '
          f'{metric(s, "worker_preemptions"):.0f} times put back')
    check(metric(s, 'worker_preemptions') > 0, 'blocks ran out')
    late = statistics.median(waits[N * 3 // 4:]) / statistics.median(waits[:N // 4])
    check(late > 1, 'those who came last are not served first')
    end = time.monotonic() + 120
    while metric(s, 'kv_blocks_used') > 0:  # an answer may be here before the worker's figures are
        check(time.monotonic() < end, 'blocks are in use at the end')
        time.sleep(0.01)


def fairness(s, alone):
    jobs = [lambda i=i: answer(s, i, 'flood') for i in range(N)]
    jobs.append(lambda: answer(s, 0, 'one'))
    out = run_all(s, jobs)
    flood, one = sorted(seconds for _, seconds in out[:N]), out[N][1]
    check_equal(out[N][0], alone[0], 'the answer of the one')
    print(f'  beside {N} requests of another client: {one:.2f} s; those: median '
          f'{statistics.median(flood):.2f} s, max {flood[-1]:.2f} s')
    check(one < statistics.median(flood), 'who asks once is served before most of the flood')


with Server(sys.argv[1], '--parallel', '8', '--ctx-size', '256', '--kv-memory', '1',
            models=['forge-tiny=' + DEMO]) as server:
    expected = [answer(server, i) for i in range(N)]
    for test in (overload, fairness):
        print(test.__name__)
        test(server, expected)
print('ok')
