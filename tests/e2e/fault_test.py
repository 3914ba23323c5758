"""Workers that die by a fault of their own, or hang, while eight answers are under way: every answer ends
as if nothing had happened, and nobody is convicted who is innocent. Prints, for each kind of fault, the
time to the next token of the first and of the last stream."""
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
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


def poison(bin_dir, *args, code=0, says=''):
    """What `rocmforge poison` prints; a failure says what to do."""
    r = subprocess.run([os.path.join(bin_dir, 'rocmforge'), 'poison', *args],
                       stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
                       env={**os.environ, 'XDG_CONFIG_HOME': '/nonexistent'})
    check_equal(r.returncode, code, f'poison {args}: {r.stdout} {r.stderr}')
    check(says in r.stderr and (code == 0 or r.stdout == ''), f'poison {args}: {r.stderr}')
    return r.stdout


def poison_commands(bin_dir, server):
    tcp = f'http://127.0.0.1:{server.port}'
    check_equal(poison(bin_dir, '--unix', server.unix), '0 refused, 0 suspected\n', 'the list')
    check_equal(poison(bin_dir, '--unix', server.unix, '--clear'), '0 refused, 0 suspected\n',
                'cleared')
    check_equal(poison(bin_dir, '--unix', server.unix, '--json').encode(),
                server.get('/poison')[1] + b'\n', 'the JSON')
    poison(bin_dir, '--server', tcp, code=1, says="or a key on a line 'admin KEY'")
    poison(bin_dir, '--unix', server.unix + '.none', code=1, says="start one ('rocmforge serve')")
    with socket.socket() as unused:  # bound, and nobody listens
        unused.bind(('127.0.0.1', 0))
        port = str(unused.getsockname()[1])
        poison(bin_dir, '--port', port, code=1, says="start one ('rocmforge serve')")
    poison(bin_dir, '--server', 'https://x', code=2, says='is not http://HOST:PORT')
    poison(bin_dir, '--port', '0', code=2, says='allowed 1 to 65535')
    with tempfile.NamedTemporaryFile('w', suffix='.conf') as conf:
        conf.write('port = 0\n')
        conf.flush()
        poison(bin_dir, '--config', conf.name, code=2, says='name the server with --server')


def poison_commands_of_strangers(bin_dir):
    """What answers is no server of ours, or means harm."""
    ok = b'HTTP/1.1 200 OK\r\nContent-Length: '
    for answer in (b'', b'\0\xff' * 99, ok + b'2\r\n\r\n[]', ok + b'9\r\n\r\n{"poison"',
                   ok + b'99\r\n\r\n{"poison":[]}', ok + b'2000000\r\n\r\n' + b' ' * 2000000,
                   b'HTTP/1.1 500 No\r\nContent-Length: 36\r\n\r\n'
                   b'{"error":{"message":"\\u001b[2J 22"}}'):
        with socket.create_server(('127.0.0.1', 0)) as listener:
            t = threading.Thread(target=answer_once, args=(listener, answer))
            t.start()
            poison(bin_dir, '--port', str(listener.getsockname()[1]), code=1,
                   says='no rocmforge server answers: 127.0.0.1:')
            t.join()


def answer_once(listener, answer):
    with listener.accept()[0] as s:
        try:
            s.recv(65536)
            s.sendall(answer)
            s.shutdown(socket.SHUT_WR)
            s.recv(1)
        except OSError:  # it has seen enough
            pass


def poison_commands_with_keys(bin_dir, folder):
    keys = {'server': '# keys\nuser\nadmin boss\n', 'user': 'user', 'wrong': 'admin nobody\n'}
    for name, text in keys.items():
        with open(os.path.join(folder, name), 'w') as f:
            f.write(text)
    keys = {name: ['--api-key-file', os.path.join(folder, name)] for name in keys}
    with Server(bin_dir, *keys['server']) as server:
        port, url = ['--port', str(server.port)], ['--server', f'127.0.0.1:{server.port}']
        for place in port, url, ['--unix', server.unix]:
            check_equal(poison(bin_dir, *place, *keys['server']), '0 refused, 0 suspected\n', place)
            poison(bin_dir, *place, *keys['wrong'], code=1, says='the API key is missing or wrong')
            poison(bin_dir, *place, code=1, says="a line 'admin KEY' that the server knows")
        poison(bin_dir, *port, *keys['user'], code=1, says="a key on a line 'admin KEY'")
        with open(os.path.join(folder, 'conf'), 'w') as f:
            f.write(f'port = {server.port}\napi_key_file = {keys["server"][1]}\n')
        conf = ['--config', os.path.join(folder, 'conf')]
        check_equal(poison(bin_dir, *conf), '0 refused, 0 suspected\n', 'the settings say where')
        # A stranger's server does not get our key.
        poison(bin_dir, *conf, *url, code=1, says='the API key is missing')


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
    poison_commands(sys.argv[1], server)
poison_commands_of_strangers(sys.argv[1])
with tempfile.TemporaryDirectory() as folder:
    poison_commands_with_keys(sys.argv[1], folder)
print('ok')
