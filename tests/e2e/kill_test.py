"""SIGKILL of the worker mid-stream: the same response goes on and ends as if nothing had happened, the
gateway lives, the next request works. Without patience (--resume-timeout 0) the client is told in-band.
Prints the time from kill to ready."""
import json
import statistics
import sys
import time

from server import Server, chat, check, check_equal, fds_of, kill, stream_text

N_KILLS = int(sys.argv[2]) if len(sys.argv) > 2 else 10
STORY = chat('Tell me a story about a brave mouse.', max_tokens=400, logit_bias={'2047': -100})


def epoch(server):
    return json.loads(server.get('/health')[1])['worker']['epoch']


def wait_ready(server, old_epoch):
    """A worker of a later epoch serves."""
    start = time.monotonic()
    while server.get('/ready')[0] != 200 or epoch(server) == old_epoch:
        check(time.monotonic() - start < 120, 'ready again within 120 s')
        time.sleep(0.002)
    return time.monotonic()


with Server(sys.argv[1]) as server:
    expected = server.post('/v1/chat/completions', chat('What is 17 + 25?'))[1]
    expected = expected['choices'][0]['message']['content']
    story = stream_text(server.stream('/v1/chat/completions', STORY))
    gateway = server.child('rocmforge-gateway')
    supervisor_fds = fds_of(server.process.pid)
    times = []
    for i in range(N_KILLS):
        worker = server.child('rocmforge-worker')
        events = server.stream('/v1/chat/completions', STORY)
        seen = [next(events) for _ in range(3 + i)]
        before = epoch(server)
        start = time.monotonic()
        kill(worker)
        times.append((wait_ready(server, before) - start) * 1000)
        check(server.child('rocmforge-worker') not in (None, worker), 'a new worker')
        check_equal(stream_text(seen + list(events)), story, 'the story that was interrupted')
        check_equal(server.child('rocmforge-gateway'), gateway, 'the gateway lives')
        r = server.post('/v1/chat/completions', chat('What is 17 + 25?'))[1]
        check_equal(r['choices'][0]['message']['content'], expected, 'the next answer')
    end = time.monotonic() + 120
    while fds_of(server.process.pid) > supervisor_fds and time.monotonic() < end:
        time.sleep(0.05)  # the last crash report is being written
    check_equal(fds_of(server.process.pid), supervisor_fds, 'descriptors of the supervisor')
    print(f'kill to ready: median {statistics.median(times):.0f} ms, max {max(times):.0f} ms '
          f'({N_KILLS} kills)')

with Server(sys.argv[1], '--resume-timeout', '0') as server:
    events = server.stream('/v1/chat/completions', STORY)
    next(events)
    before = epoch(server)
    kill(server.child('rocmforge-worker'))
    text, reason, done, error = stream_text(events)
    check(error and not done, f'an in-band error, got {reason!r} {done!r}')
    check_equal(error['code'], 'worker_down', 'code')
    wait_ready(server, before)
print('ok')
