"""An idle server: no CPU time, at most five wake-ups a second of all its processes together; before the
first request, and after some with what they left in the caches. Arguments: bin, seconds."""
import os
import sys
import time

from server import Server, chat, check


def switches(pid):
    """Context switches of all threads: every wake-up ends in one."""
    n = 0
    for task in os.listdir(f'/proc/{pid}/task'):
        with open(f'/proc/{pid}/task/{task}/status') as f:
            n += sum(int(line.split()[1]) for line in f if 'ctxt_switches' in line)
    return n


def cpu_ms(pid):
    """Of all threads, as the scheduler counts it (in nanoseconds)."""
    total = 0
    for task in os.listdir(f'/proc/{pid}/task'):
        with open(f'/proc/{pid}/task/{task}/schedstat') as f:
            total += int(f.read().split()[0])
    return total / 1e6


def measure(s, what, seconds):
    """Of three looks one must see nothing: a slow machine may still be ending what a request began."""
    for k in range(3):
        if look(s, what, seconds):
            return
    check(False, 'five wake-ups a second, no CPU time')


def look(s, what, seconds):
    pids = {n: s.child('rocmforge-' + n) for n in ('gateway', 'worker')}
    pids['supervisor'] = s.process.pid
    time.sleep(1.5)  # what a request started has ended
    before = {n: (switches(p), cpu_ms(p)) for n, p in pids.items()}
    time.sleep(seconds)
    after = {n: (switches(p), cpu_ms(p)) for n, p in pids.items()}
    rates = {n: (after[n][0] - before[n][0]) / seconds for n in pids}
    load = {n: (after[n][1] - before[n][1]) / (seconds * 10) for n in pids}
    print(f'  {what}: wake-ups a second: ' + ', '.join(f'{n} {v:.2f}' for n, v in rates.items()) +
          '; CPU: ' + ', '.join(f'{n} {v:.4f} %' for n, v in load.items()))
    return sum(rates.values()) <= 5 and sum(load.values()) < 0.1


duration = float(sys.argv[2]) if len(sys.argv) > 2 else 4
with Server(sys.argv[1]) as server:
    measure(server, 'fresh', duration)
    for k in range(4):
        server.post('/v1/chat/completions', chat('What is rocmforge?', n=4, temperature=1, seed=k))
    kept = server.connect()  # an open connection costs nothing either
    kept.request('GET', '/health')
    kept.getresponse().read()
    measure(server, 'used', duration)
print('ok')
