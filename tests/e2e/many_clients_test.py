"""Sixteen clients stream at once, a quarter of them leaving mid-stream: nothing leaks, nobody waits
for anybody's leaving, and every stream equals the same request run alone. Arguments: bin, seconds."""
import json
import socket
import sys
import threading
import time

from server import Server, chat, check, fds_of, rss_kib, stream_text

N_CLIENTS = 16
QUESTIONS = ['What is rocmforge?', 'What is 17 + 25?', 'What is the capital of France?',
             'Tell me a story about a brave mouse.', 'What is the GPU lock?',
             'What happens when the GPU hangs?', 'Why do you keep some VRAM free?']


def request(i):
    body = chat(QUESTIONS[i % len(QUESTIONS)], max_tokens=48)
    if i % 2:
        body.update(temperature=1.1, seed=1000 + i % 23, top_p=0.95)
    return body


def leave_early(s, body, n_bytes):
    """Reads a little of a stream and goes."""
    data = json.dumps({**body, 'stream': True, 'max_tokens': 400}).encode()
    with socket.create_connection(('127.0.0.1', s.port), 30) as c:
        c.sendall(b'POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: '
                  b'application/json\r\nContent-Length: %d\r\n\r\n' % len(data) + data)
        got = 0
        while got < n_bytes:
            part = c.recv(4096)
            if not part:
                return
            got += len(part)


def client(s, number, end, alone, results):
    i = number
    while time.monotonic() < end:
        i += N_CLIENTS
        if number % 4 == 3:
            leave_early(s, request(i), 200 + i * 37 % 2000)
            results['left'] += 1
            continue
        start = time.monotonic()
        text, reason, done, error = stream_text(s.stream('/v1/chat/completions', request(i)))
        results['slowest'] = max(results['slowest'], time.monotonic() - start)
        key = json.dumps(request(i))
        results['done'] += 1
        if error or not done or text != alone[key]:
            results['wrong'].append((key, text, alone[key], error))


def quiet(s, seconds=120):
    """Waits until no request is active; returns the metrics lines."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        lines = s.get('/metrics')[1].decode().splitlines()
        active = [l for l in lines if l.startswith('rocmforge_requests_live ')]
        check(active, 'metric rocmforge_requests_live')
        if float(active[0].split()[1]) == 0:
            return lines
        time.sleep(0.05)
    check(False, 'requests stay active after every client has left')


with Server(sys.argv[1]) as server:
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 10
    alone = {}
    for i in range(N_CLIENTS * 50):
        body = request(i)
        key = json.dumps(body)
        if key not in alone:
            alone[key] = stream_text(server.stream('/v1/chat/completions', body))[0]
    pids = {n: server.child(n) for n in ('rocmforge-gateway', 'rocmforge-worker')}
    pids['rocmforge'] = server.process.pid

    def measure():
        return {n: (fds_of(p), rss_kib(p)) for n, p in pids.items()}

    results = {'done': 0, 'left': 0, 'slowest': 0.0, 'wrong': []}

    def storm(length):
        end = time.monotonic() + length
        threads = [threading.Thread(target=client, args=(server, i, end, alone, results))
                   for i in range(N_CLIENTS)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        quiet(server)

    storm(max(2.0, seconds / 10))  # memory pools reach their size
    before = measure()
    storm(seconds)
    after = measure()
    end = time.monotonic() + 120
    while time.monotonic() < end and any(after[n][0] > before[n][0] for n in pids):
        time.sleep(0.05)  # connections whose clients have gone are still being closed
        after = measure()
    print(f'{results["done"]} streams whole, {results["left"]} left early, slowest '
          f'{results["slowest"]:.2f} s')
    print('fds, RSS KiB before:', before)
    print('fds, RSS KiB after: ', after)
    check(not results['wrong'], f'streams that differ from being alone: {results["wrong"][:2]}')
    check(results['done'] > 20, 'enough streams')
    for name in pids:
        check(after[name][0] <= before[name][0], f'{name} leaks descriptors')
        check(after[name][1] <= before[name][1] + 2048, f'{name} grows')
print('ok')
