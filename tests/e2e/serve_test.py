"""How a server begins and ends: mistakes in its settings, who may ask, an address that is taken, a
Unix socket, settings read again, and a shutdown that finishes what runs and takes nothing new."""
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from server import DEMO, Server, chat, check, check_equal, stream_text

BIN = sys.argv[1]


def write(path, text):
    with open(path, 'w', opener=lambda p, flags: os.open(p, flags, 0o600)) as f:
        f.write(text)


def mistakes(folder):
    def expect(code, text, *args):
        r = subprocess.run([os.path.join(BIN, 'rocmforge'), 'serve', '--port', '0', *args],
                           stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
        check_equal(r.returncode, code, f'exit code of {args}:\n{r.stderr}')
        check(text in r.stderr, f'{text!r} in:\n{r.stderr}')
        return r.stderr
    write(folder + '/empty', '\n')
    said = expect(11, 'the API key file holds no key', '-m', DEMO, '--api-key-file',
                  folder + '/empty')
    check('broke the protocol' not in said, said)
    expect(11, 'No such file', '-m', DEMO, '--api-key-file', folder + '/none')
    expect(16, 'No such file', '-m', folder + '/none.gguf')
    expect(16, 'not a GGUF file', '-m', __file__)
    expect(11, "two models have the name 'a'", '-m', 'a=' + DEMO, '-m', 'a=' + DEMO)
    expect(11, "no setting 'prot'", '-m', DEMO, '--config', write_config(folder, 'prot = 1'))


def write_config(folder, text):
    write(folder + '/conf', text + '\n')
    return folder + '/conf'


def address_taken(folder):
    path = folder + '/socket'
    with Server(BIN, '--unix', path) as s:
        for args in (['--port', str(s.port)], ['--port', '0', '--unix', path]):
            r = subprocess.run([os.path.join(BIN, 'rocmforge'), 'serve', '-m', DEMO, *args],
                               capture_output=True, text=True, timeout=30)
            check_equal(r.returncode, 75, f'the address is taken:\n{r.stderr}')
        c = http.client.HTTPConnection('a.name.that.nobody.knows')
        c.sock = socket.socket(socket.AF_UNIX)
        c.sock.connect(path)
        c.request('GET', '/health')
        check_equal(c.getresponse().status, 200, 'the Unix socket takes any Host')
        c.close()
    check(not os.path.exists(path), 'the socket file is gone')


def who_may_ask(folder):
    keys = folder + '/keys'
    write(keys, 'first\n')
    with Server(BIN, '--api-key-file', keys, '--cors-origin', 'http://good.example') as s:
        def status(**headers):
            return s.get('/v1/models', {k.replace('_', '-'): v for k, v in headers.items()})[0]
        check_equal(status(), 401, 'no key')
        check_equal(status(Authorization='Bearer second'), 401, 'a wrong key')
        check_equal(status(Authorization='Bearer first'), 200, 'the key')
        check_equal(status(x_api_key='first'), 200, 'the key, the other way')
        check_equal(status(x_api_key='first', Origin='http://good.example'), 200, 'an origin')
        check_equal(status(x_api_key='first', Origin='http://evil.example'), 403, 'a stranger')
        check_equal(status(x_api_key='first', Host='evil.example'), 403, 'a rebound name')
        write(keys, 'second\n')
        s.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 120
        while status(Authorization='Bearer second') != 200:
            check(time.monotonic() < end, 'SIGHUP brings the new key')
            time.sleep(0.02)
        check_equal(status(Authorization='Bearer first'), 401, 'the old key')


def shutdown(folder):
    """What runs is finished; who comes is refused at once, and not kept waiting."""
    with Server(BIN) as s:
        body = chat('Tell me a story about a brave mouse.', max_tokens=900,
                    ignore_eos=True)
        results = []
        streams = [threading.Thread(target=lambda: results.append(
            stream_text(s.stream('/v1/chat/completions', body)))) for _ in range(8)]
        for t in streams:
            t.start()
        while b'rocmforge_requests_live 8' not in s.get('/metrics')[1]:
            time.sleep(0.002)
        s.process.send_signal(signal.SIGTERM)
        while any(t.is_alive() for t in streams):
            start = time.monotonic()
            try:
                socket.create_connection(('127.0.0.1', s.port), 10).close()
            except ConnectionRefusedError:
                break
            except ConnectionResetError:
                pass
            check(time.monotonic() - start < 5, 'a connection is refused or taken at once')
        check(any(t.is_alive() for t in streams), 'refused while the streams run')
        for t in streams:
            t.join()
        for text, reason, done, error in results:
            check_equal((reason, done, error), ('length', True, None), 'a stream is finished')
        check_equal(s.process.wait(120), 0, 'exit code')


with tempfile.TemporaryDirectory() as scratch:
    for test in (mistakes, address_taken, who_may_ask, shutdown):
        print(test.__name__)
        test(scratch)
print('ok')
