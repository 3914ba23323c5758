"""Rows about the GPU. The whole server computes on a made-up card: sysfs in a folder, the HIP runtime by a
double that fails as it is told (tests/rig/hip_double.h), the kernels on the emulator."""
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time

from matrix import row
from rig import Rig, Skip, Stream, check, check_equal, expect_whole
from machine import GIB, Machine

SMALL = ['--ctx-size', '256', '--parallel', '2', '--chunk-size', '64']
STORY = {'prompt': 'One day', 'max_tokens': 12, 'temperature': 0, 'ignore_eos': True}


def machine(bin_dir):
    m = Machine(os.path.abspath(bin_dir))
    if not os.path.exists(m.double):
        raise Skip('the double of the HIP runtime is not built here (it wants clang 19)')
    return m


def served(bin_dir, m, *args, device='gpu', **more):
    return Rig(bin_dir, '--device', device, *SMALL, *args, env={**m.env, **(more.pop('env', None) or {})}, **more)


def faulty(bin_dir, rule, *args):
    """The fault strikes in mid-stream, some launches on: the answer goes on as if nothing had happened. Seconds from the
    last token before it to the first one after, log."""
    m = machine(bin_dir)
    with served(bin_dir, m, *args) as s:
        whole = Stream(s, STORY, '/v1/completions').end().text
        stream = Stream(s, STORY, '/v1/completions').seen(3)
        at = time.monotonic()
        m.fault(rule)
        expect_whole(stream, whole)
        check(not os.path.exists(m.faults), f'{rule} has not happened')
        return stream.silence(at), s.log_text()


def names_kernel(log, kernel='gemv_one_q8_0'):
    """The report of the death does: last words, or what the watchdog was told."""
    lines = [line for line in log.splitlines() if 'its own fault' in line]
    check(lines and f'kernel: {kernel}' in lines[-1], f'{kernel} is not named: {lines}')


@row('6', "abort() with ROCm's text of a GPU fault", 'the runtime aborts in a kernel', 3,
     slow=True)
def aborted(bin_dir):
    took, log = faulty(bin_dir, 'abort@gemv_one_q8_0:20')
    check('Memory access fault by GPU' in log, "the runtime's text is kept")
    names_kernel(log)
    return took


@row('7', 'every HIP call fails from one on', 'error 700 from a kernel on, as ROCm 7', 3, slow=True)
def sticky(bin_dir):
    took, log = faulty(bin_dir, 'sticky@gemv_one_q8_0:20')
    check('last words: GPU' in log, f'last words')
    names_kernel(log)
    return took


@row('8', 'a launch fails', 'error 719 from a kernel on', 3, slow=True)
def failed(bin_dir):
    took, log = faulty(bin_dir, 'failure@gemv_one_q8_0:20')
    names_kernel(log)
    return took


@row('11', 'the GPU never finishes', 'nothing is ever finished again', 13, slow=True)
def hung(bin_dir):
    took, log = faulty(bin_dir, 'hang@gemv_one_q8_0:20')
    names_kernel(log)
    return took


@row('11a', 'the GPU never finishes another kernel', 'attention hangs, in a step that is replayed', 13, slow=True)
def hung_attention(bin_dir):
    took, log = faulty(bin_dir, 'hang@attention_split_one:20')
    names_kernel(log, 'attention_split_one')
    return took


@row('11b', 'a copy to the card hangs', 'nothing is ever finished from a copy on', 13, slow=True)
def hung_copy(bin_dir):
    return faulty(bin_dir, 'hang@MemcpyAsync:5')[0]


@row('12b', 'steps cannot be recorded', 'the runtime refuses to make graphs', slow=True)
def no_graphs(bin_dir):
    m = machine(bin_dir)
    with served(bin_dir, m) as s:
        whole = Stream(s, STORY, '/v1/completions').end().text
    with served(bin_dir, m, env={'HIP_DOUBLE': 'error=801@GraphInstantiate*0'}) as s:
        expect_whole(Stream(s, STORY, '/v1/completions'), whole)
        check("'replay'" in s.log_text() and 'is off from here on' in s.log_text(), 'the log says so')


@row('12a', 'a kernel is slow, but not hung', 'one kernel takes 700 ms more, 3 times', slow=True)
def slow(bin_dir):
    took, log = faulty(bin_dir, 'slow=700@gemv_one_q8_0:20*3')
    check('its own fault' not in log, 'nobody is killed')


@row('28a', 'a kernel computes NaN', 'the first number of a kernel', 3, slow=True)
def nan(bin_dir):
    took, log = faulty(bin_dir, 'nan@gemv_one_q8_0:20')
    check('is off from here on: it gave NaN' in log, 'the step was computed again, and how it was computed is off')
    check('its own fault' not in log, 'nobody is killed')
    return took


def refuses(bin_dir, m, code, *says, env=None, args=()):
    """--device gpu ends with this code and says so; --device auto serves on the CPU, if it is the card
    that cannot be used."""
    at = time.monotonic()
    out = subprocess.run([f'{bin_dir}/rocmforge', 'serve', '--port', '0', '-m',
                          'deploy/demo/forge-tiny-Q8_0.gguf', '--device', 'gpu', *SMALL, *args],
                         capture_output=True, text=True, timeout=120,
                         env={**os.environ, **m.env, **(env or {})})
    took = time.monotonic() - at
    check_equal(out.returncode, code, out.stderr[-1500:])
    for words in says:
        check(words in out.stderr, f'{words!r} is not in:\n{out.stderr[-1500:]}')
    with served(bin_dir, m, *args, device='auto', env=env) as s:
        check('computing on the CPU' in s.log_text(), 'auto computes on the CPU')
    return took


@row('9', 'no VRAM at load', 'a card of 20 GB of which others use 19.993', 5)
def no_vram(bin_dir):
    m = machine(bin_dir)
    return refuses(bin_dir, m, 18, 'MiB', env={'HIP_DOUBLE_USED': '20473'})


@row('10', 'no VRAM in a request', 'device memory is asked for at load only: counted', slow=True)
def no_vram_later(bin_dir):
    m = machine(bin_dir)
    with served(bin_dir, m) as s:
        n = m.calls('malloc')
        for _ in range(2):
            Stream(s, STORY, '/v1/completions').end()
        check_equal(m.calls('malloc'), n, 'allocations')


@row('18', 'the GPU lock is held by another program', 'flock by the test', 3)
def lock_held(bin_dir):
    m = machine(bin_dir)
    path = os.path.join(m.root, 'run/lock/rocmforge-0000:03:00.0.lock')
    with open(path, 'w') as f:
        os.chmod(path, 0o666)
        fcntl.flock(f, fcntl.LOCK_EX)
        f.write(f'{os.getpid()} fault matrix\n')
        f.flush()
        took = refuses(bin_dir, m, 10, str(os.getpid()), args=('--gpu-lock-timeout', '0.5'))
    with served(bin_dir, m):
        pass
    return took


@row('21', 'VRAM is not returned after an exit', 'the driver keeps an ended process', 8,
     slow=True)
def leftover(bin_dir):
    m = machine(bin_dir)
    m.put('sys/class/kfd/kfd/proc/4999999/pasid', '32770\n')
    return refuses(bin_dir, m, 13, 'process 4999999 has ended')


@row('22', 'the device nodes cannot be opened', '/dev/kfd is missing', 1)
def no_node(bin_dir):
    m = machine(bin_dir)
    os.unlink(os.path.join(m.root, 'dev/kfd'))
    return refuses(bin_dir, m, 12, 'modprobe amdgpu')


@row('24', 'a copy to the card comes back wrong', 'one bit of what is copied back', 5)
def corrupt(bin_dir):
    return refuses(bin_dir, machine(bin_dir), 14, 'came back as',
                   env={'HIP_DOUBLE': 'corrupt@Memcpy*0;corrupt@MemcpyAsync*0'})


@row('25', 'the kernel of the preflight hangs', 'nothing is ever finished', 6, slow=True)
def preflight_hangs(bin_dir):
    return refuses(bin_dir, machine(bin_dir), 13, 'no answer within', env={'HIP_DOUBLE': 'hang@probe*0'})


@row('25a', 'the kernel of the preflight computes wrongly', 'one number of 4096', 3)
def preflight_wrong(bin_dir):
    return refuses(bin_dir, machine(bin_dir), 15, 'numbers are wrong',
                   env={'HIP_DOUBLE': 'wrong@probe*0'})


@row('25b', 'the runtime crashes when it is loaded', 'abort() in its constructor', 2)
def runtime_crashes(bin_dir):
    return refuses(bin_dir, machine(bin_dir), 13, 'SIGABRT', env={'HIP_DOUBLE': 'abort-load'})


@row('25c', 'the environment turns faults into hangs', 'HSA_ENABLE_INTERRUPT=0', 1)
def bad_environment(bin_dir):
    return refuses(bin_dir, machine(bin_dir), 11, 'unset HSA_ENABLE_INTERRUPT',
                   env={'HSA_ENABLE_INTERRUPT': '0'})


def vram(s):
    return json.loads(s.get('/v1/vram')[1])['data']


def put_memory(m, s, used, ours, spilled=0):
    m.set_vram(20 * GIB, used)
    m.put(f'proc/{s.worker()}/fdinfo/5',
          f'drm-client-id:\t1\ndrm-pdev:\t0000:03:00.0\ndrm-memory-vram:\t{ours >> 10} KiB\n'
          f'amd-evicted-vram:\t{spilled >> 10} KiB\n')


def wait_vram(s, want, seconds=60):
    at = time.monotonic()
    while not want(vram(s)):
        check(time.monotonic() - at < seconds, f'/v1/vram says {vram(s)}')
        time.sleep(0.02)
    return time.monotonic() - at


@row('69', 'a game takes the VRAM while we compute', 'sysfs: others grow from 2 to 14 GiB', 2)
def game(bin_dir):
    m = machine(bin_dir)
    m.put('sys/class/drm/card0/device/drm/renderD128/dev', '226:128\n')
    m.put('sys/class/drm/card0-DP-1/status', 'connected\n')
    with served(bin_dir, m) as s:
        wait_vram(s, lambda v: v and v[0]['ceiling_bytes'] == 16 * GIB)
        put_memory(m, s, 14 * GIB, 12 * GIB)
        wait_vram(s, lambda v: v[0]['ours_bytes'] == 12 * GIB)
        check(vram(s)[0]['excess_bytes'] == 0, 'nothing is too much yet')
        at = time.monotonic()
        put_memory(m, s, 20 * GIB, 8 * GIB, 1 * GIB)
        wait_vram(s, lambda v: v[0]['others_bytes'] == 12 * GIB)
        took, v = time.monotonic() - at, vram(s)[0]
        check_equal(v['ceiling_bytes'], 8 * GIB - (256 << 20), 'ceiling')
        check_equal((v['excess_bytes'], v['spilled_bytes']), (256 << 20, GIB), 'excess, spilled')
        check_equal((v['displays'], v['is_watched']), (1, True), 'displays, watched')
        s.wait_log('VRAM: others use 12288 MiB')
        s.wait_log('VRAM: the driver moved 1024 MiB of ours')
        s.wait_log('VRAM: the worker gave back')
        check(s.metric('vram_spilled_bytes') == GIB, 'a metric tells what was spilled')
        put_memory(m, s, 3 * GIB, 1 * GIB)
        wait_vram(s, lambda v: v[0]['others_bytes'] == 2 * GIB)
        check_equal(vram(s)[0]['ceiling_bytes'], 8 * GIB - (256 << 20), 'it does not rise at once')
        return took


@row('69a', 'looking at the card hangs', 'SIGSTOP of the monitor; requests go on', 7, slow=True)
def monitor_hangs(bin_dir):
    m = machine(bin_dir)
    with served(bin_dir, m) as s:
        wait_vram(s, lambda v: v)
        monitor, worker = s.child('rocmforge-probe'), s.worker()
        at = time.monotonic()
        os.kill(monitor, signal.SIGSTOP)
        took = wait_vram(s, lambda v: not v[0]['is_watched'])
        check_equal(s.worker(), worker, 'the worker computes on')
        wait_vram(s, lambda v: v[0]['is_watched'])
        return took


class Bus:
    """A system bus with a logind of our own."""

    def __init__(self, bin_dir, folder):
        logind = os.path.join(os.path.dirname(os.path.abspath(bin_dir)), 'tests', 'fake_logind')
        if not shutil.which('dbus-daemon') or not os.path.exists(logind):
            raise Skip('needs dbus-daemon and libsystemd')
        config = os.path.join(folder, 'bus.conf')
        with open(config, 'w') as f:
            f.write(f'<busconfig><type>session</type><listen>unix:path={folder}/bus</listen>'
                    '<policy context="default"><allow send_destination="*"/><allow own="*"/>'
                    '<allow send_type="signal"/><allow receive_sender="*"/></policy></busconfig>')
        self.env = {'DBUS_SYSTEM_BUS_ADDRESS': f'unix:path={folder}/bus'}
        self.daemon = subprocess.Popen(['dbus-daemon', f'--config-file={config}', '--nofork'],
                                       stderr=subprocess.DEVNULL)
        while not os.path.exists(f'{folder}/bus'):
            time.sleep(0.01)
        self.logind = subprocess.Popen([logind], stdout=subprocess.PIPE, text=True,
                                       env={**os.environ, **self.env})
        self.expect('ready')

    def expect(self, word):
        check_equal(self.logind.stdout.readline().strip(), word, 'logind says')

    def close(self):
        for process in (self.logind, self.daemon):
            process.kill()
            process.wait()


@row('65a', 'the machine is put to sleep', 'PrepareForSleep from a logind of our own', 5)
def put_to_sleep(bin_dir):
    m = machine(bin_dir)
    bus = Bus(bin_dir, m.root)
    try:
        with served(bin_dir, m, env=bus.env) as s:
            bus.expect('inhibited')
            worker, at = s.worker(), time.monotonic()
            os.kill(bus.logind.pid, signal.SIGUSR1)
            bus.expect('released')
            took = time.monotonic() - at
            check(s.worker() is None, 'no worker holds the card when the machine sleeps')
            time.sleep(0.5)
            check(s.worker() is None, 'and none is started')
            os.kill(bus.logind.pid, signal.SIGUSR2)
            s.wait_ok()
            check(s.worker() not in (None, worker), 'another worker')
            check(s.log_text().count('preflight stage kernel passed') >= 2, 'with its own preflight')
            status, _ = s.post('/v1/completions', {'prompt': 'x', 'max_tokens': 1})
            check_equal(status, 200, 'an answer')
            s.before = None  # the monitor of the new worker is on its way
            return took
    finally:
        bus.close()
