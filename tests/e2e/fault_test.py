"""Workers that die by a fault of their own, or hang, while eight answers are under way: every answer ends
as if nothing had happened, and nobody is convicted who is innocent. Prints, for each kind of fault, the
time to the next token of the first and of the last stream."""
import json
import os
import signal
import sys
import threading
import time

from server import Server, chat, check, check_equal, stream_text

FAULTS = [('SIGKILL', signal.SIGKILL), ('SIGSEGV', signal.SIGSEGV), ('SIGABRT', signal.SIGABRT),
          ('SIGBUS', signal.SIGBUS), ('SIGSTOP (a hang)', signal.SIGSTOP)]
N = 8


def body(i):
    more = {'temperature': 1.1, 'seed': 100 + i} if i % 2 else {}
    return chat('Tell me a story about a brave mouse.', max_tokens=400, logit_bias={'2047': -100},
                **more)


def client(server, i, results, times):
    events = []
    for e in server.stream('/v1/chat/completions', body(i)):
        times[i].append(time.monotonic())
        events.append(e)
    results[i] = stream_text(events)


with Server(sys.argv[1]) as server:
    alone = [stream_text(server.stream('/v1/chat/completions', body(i))) for i in range(N)]
    faults = list(FAULTS)
    for name, number in faults:
        results, times = [None] * N, [[] for _ in range(N)]
        threads = [threading.Thread(target=client, args=(server, i, results, times))
                   for i in range(N)]
        for t in threads:
            t.start()
        while not all(len(t) > 5 for t in times):
            time.sleep(0.001)
        worker = server.child('rocmforge-worker')
        start = time.monotonic()
        os.kill(worker, number)
        for t in threads:
            t.join()
        check_equal(results, alone, name)
        # On a busy machine some streams, or all, may have ended before the last one began.
        gaps = []
        for t in (t for t in times if t[-1] > start):
            gap, end = max((b - a, b) for a, b in zip(t, t[1:]) if b > start)
            gaps.append((end - start) * 1000)
        if not gaps:
            check(len(faults) < 50, f'{name} never met a stream')
            faults.append((name, number))
            continue
        print(f'  {name}: next token after {min(gaps):.0f} ms, of all {len(gaps)} streams after '
              f'{max(gaps):.0f} ms')
        while server.get('/ready')[0] != 200:
            time.sleep(0.01)
    metrics = server.get('/metrics')[1].decode()
    check('rocmforge_poison_requests 0' in metrics, 'nobody is convicted')
    check('rocmforge_requests_suspect 0' in metrics, 'nobody is suspected any more')
    check_equal(json.loads(server.get('/health')[1])['worker']['state'], 'ready', 'state')
print('ok')
