"""Crash reports: who gets one, what stands in it and what does not, that a worker that hangs is not
ended before it is written, how they are asked for, packed, and kept within bounds."""
import http.client
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time

from server import Server, chat, check, check_equal, stream_text

BIN = sys.argv[1]
TALE = chat('Tell me a story about a brave mouse.', max_tokens=300, logit_bias={'2047': -100})
SECRET = 'sk-nobody-may-read-this'


def crashes(server, headers=None):
    status, body = server.get('/crashes', headers)
    check_equal(status, 200, '/crashes')
    return json.loads(body)['crashes']


def wait_for_reports(server, n, headers=None):
    """Until there are n, and the newest is complete."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        found = crashes(server, headers)
        if len(found) >= n:
            body = json.loads(server.get('/crashes/' + found[0]['name'], headers)[1])
            if 'not yet' not in body['report']['evidence'].values():
                return found, body
        time.sleep(0.05)
    raise AssertionError(f'{n} reports do not come: {found}')


def strike(server, sig, expected):
    """A signal in the middle of an answer, which goes on as if nothing had happened. Returns what
    was known of the dead worker."""
    events, seen = [], 0
    for e in server.stream('/v1/chat/completions', TALE):
        events.append(e)
        seen += 1
        if seen == 20:
            worker = server.child('rocmforge-worker')
            os.kill(worker, sig)
    check_equal(stream_text(events), expected, f'answer under signal {sig}')
    return worker


def files_of(server, name):
    folder = os.path.join(server.state, 'crashes', name)
    return {f: open(os.path.join(folder, f), 'rb').read() for f in os.listdir(folder)}


with tempfile.NamedTemporaryFile('w') as keys:
    keys.write(f'{SECRET}\nadmin {SECRET}-too\n')
    keys.flush()
    with Server(BIN, '--api-key-file', keys.name, before=('--stall-ms', '2000')) as server:
        ask = {'Authorization': f'Bearer {SECRET}'}
        check_equal(server.get('/crashes', ask)[0], 200, 'the administrator, on the Unix socket')
        status = {}
        for key in (SECRET, SECRET + '-too'):
            c = http.client.HTTPConnection('127.0.0.1', server.port)
            c.request('GET', '/crashes', headers={'Authorization': f'Bearer {key}'})
            status[key] = c.getresponse().status
        check_equal(list(status.values()), [403, 200], 'a user key, an admin key')
        os.kill(server.child('rocmforge-worker'), signal.SIGABRT)
        _, got = wait_for_reports(server, 1, ask)
        check(SECRET not in json.dumps(got), 'no key in a report')

with Server(BIN, '--crash-reports', '3', before=('--stall-ms', '2000')) as server:
    expected = stream_text(server.stream('/v1/chat/completions', TALE))
    check_equal(crashes(server), [], 'no reports at first')

    worker = strike(server, signal.SIGSEGV, expected)
    found, got = wait_for_reports(server, 1)
    report = got['report']
    check_equal((report['pid'], report['signal'], report['whose_fault'], report['end']),
                (worker, signal.SIGSEGV, 'its own fault', 'killed by SIGSEGV'), 'SIGSEGV')
    check_equal(report['breadcrumb']['phase'], 'decode', 'breadcrumb')
    check(len(report['breadcrumb']['requests']) == 1 and report['breadcrumb']['step'] >= 20,
          f'breadcrumb {report["breadcrumb"]}')
    check(report['was_ready'] and report['next'].startswith('started again'), str(report))
    check('model forge-tiny' in got['stderr'] and 'log_level' in got['config'] and
          '== /proc/meminfo' in got['system'], 'stderr, configuration, system')
    check_equal(found[0]['name'], report['name'], 'the list and the report')
    whole = b''.join(files_of(server, report['name']).values())
    check(b'mouse' not in whole, 'no prompt in a report')

    # A hang: the report is there before the worker is touched.
    worker = strike(server, signal.SIGSTOP, expected)
    found, got = wait_for_reports(server, 2)
    report = got['report']
    check('no progress for' in report['reason'] and 'phase decode' in report['reason'],
          f'reason {report["reason"]}')
    check_equal((report['pid'], report['end']), (worker, 'killed by SIGKILL'), 'SIGSTOP')
    check('State:\tT (stopped)' in got['process'] and 'wchan' in got['process'],
          'the living process was looked at')
    lines = server.log_text().splitlines()
    written = [i for i, s in enumerate(lines) if 'crash report ' + report['name'] in s]
    died = [i for i, s in enumerate(lines) if f'worker (pid {worker}) was killed' in s]
    check(written and died and written[0] < died[0], 'written first, then killed')

    # Somebody else's kill: reported, and called so. Then the bounds: three are kept.
    server.settle()
    strike(server, signal.SIGKILL, expected)
    found, got = wait_for_reports(server, 3)
    check_equal(got['report']['whose_fault'], 'by somebody else', 'SIGKILL')
    first = found[-1]['name']
    server.settle()
    strike(server, signal.SIGFPE, expected)
    end = time.monotonic() + 120
    while (len(crashes(server)) != 3 or first in str(crashes(server))) and time.monotonic() < end:
        time.sleep(0.05)
    check_equal(len(crashes(server)), 3, 'reports kept')
    check(first not in [c['name'] for c in crashes(server)], f'the oldest, {first}, is gone: {crashes(server)}')
    for bad in ('nothing', '../../etc', '20260101T000000.000Z-worker-1', '%2e%2e', 'x' * 200):
        status, body = server.get('/crashes/' + bad)
        check_equal(status, 404, bad)
        check(len(bad) > 64 or bad in str(body), f'the answer names {bad}: {body}')

    # The gateway's own death.
    server.settle()
    os.kill(server.child('rocmforge-gateway'), signal.SIGSEGV)
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            if server.get('/ready')[0] == 200 and crashes(server)[0]['process'] == 'gateway':
                break
        except OSError:
            pass
        time.sleep(0.05)
    check_equal(crashes(server)[0]['process'], 'gateway', 'the newest report')
    metrics = server.get('/metrics')[1].decode()
    for line in ('rocmforge_worker_deaths_own_fault 3', 'rocmforge_worker_deaths_external 1',
                 'rocmforge_worker_deaths_condemned 1', 'rocmforge_crash_reports 5'):
        check(line in metrics, f'{line}: {[s for s in metrics.splitlines() if "death" in s or "crash" in s]}')

    # The command, with and without a server.
    command = [os.path.join(BIN, 'rocmforge'), 'report', '--state-dir', server.state]
    out = subprocess.run(command, capture_output=True, text=True)
    check(out.returncode == 0 and out.stdout.count('worker ') >= 2 and 'SIGFPE' in out.stdout,
          out.stdout + out.stderr)
    out = subprocess.run(command + ['last', '--out', '-'], capture_output=True)
    names = tarfile.open(fileobj=io.BytesIO(out.stdout)).getnames()
    check(any(n.endswith('/report.json') for n in names), f'{names}')
    out = subprocess.run(command + ['20260101T000000.000Z-worker-1'], capture_output=True, text=True)
    check(out.returncode == 1 and 'no such crash report' in out.stderr, out.stderr)

# A crash loop does not wear out the disk.
with Server(BIN) as server:
    for _ in range(14):
        worker = server.child('rocmforge-worker')
        while not worker or server.get('/ready')[0] != 200:
            time.sleep(0.01)
            worker = server.child('rocmforge-worker')
        os.kill(worker, signal.SIGKILL)
        time.sleep(0.05)
    while server.get('/ready')[0] != 200:
        time.sleep(0.01)
    time.sleep(0.5)
    check(len(crashes(server)) <= 10, 'not every death of a loop is reported')

# A folder that cannot be written is no trouble but for the reports.
with Server(BIN, '--state-dir', '/proc/nothing') as server:
    expected = stream_text(server.stream('/v1/chat/completions', TALE))
    strike(server, signal.SIGSEGV, expected)
    end = time.monotonic() + 120
    while 'no crash report could be written' not in server.log_text() and time.monotonic() < end:
        time.sleep(0.05)
    check('no crash report could be written' in server.log_text(), 'it is said')
    check_equal(json.loads(server.get('/crashes')[1])['crashes'], [], 'none')
print('ok')
