"""SIGKILL of the worker mid-stream: the gateway lives, the client is told in-band, the next request
works. Prints the time from kill to ready."""
import statistics
import sys
import time

from server import Server, chat, check, check_equal, fds_of, kill, stream_text

N_KILLS = int(sys.argv[2]) if len(sys.argv) > 2 else 10

with Server(sys.argv[1]) as server:
    expected = server.post('/v1/chat/completions', chat('What is 17 + 25?'))[1]
    expected = expected['choices'][0]['message']['content']
    gateway = server.child('rocmforge-gateway')
    supervisor_fds = fds_of(server.process.pid)
    times = []
    for i in range(N_KILLS):
        worker = server.child('rocmforge-worker')
        events = server.stream('/v1/chat/completions',
                               chat('Tell me a story about a brave mouse.', max_tokens=400,
                                    logit_bias={'2047': -100}))
        seen = [next(events) for _ in range(3 + i)]
        check(all('error' not in e for e in seen), 'text before the kill')
        start = time.monotonic()
        kill(worker)
        text, reason, done, error = stream_text(events)
        check(error, f'an in-band error, got {reason!r} {done!r}')
        check_equal(error['code'], 'worker_down', 'code')
        while server.get('/ready')[0] != 200:
            check(time.monotonic() - start < 10, 'ready again within 10 s')
            time.sleep(0.002)
        times.append((time.monotonic() - start) * 1000)
        check(server.child('rocmforge-worker') not in (None, worker), 'a new worker')
        check_equal(server.child('rocmforge-gateway'), gateway, 'the gateway lives')
        r = server.post('/v1/chat/completions', chat('What is 17 + 25?'))[1]
        check_equal(r['choices'][0]['message']['content'], expected, 'the next answer')
    check_equal(fds_of(server.process.pid), supervisor_fds, 'descriptors of the supervisor')
    print(f'kill to ready: median {statistics.median(times):.0f} ms, max {max(times):.0f} ms '
          f'({N_KILLS} kills)')
print('ok')
