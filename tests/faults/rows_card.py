"""Rows about what happens to the card beside our work: resets, throttling, a driver that gives it up, a desktop
that comes and goes. What announces it are doubles: rocm-smi (tests/rig/smi_double.c), the kernel's uevents."""
import os
import signal
import time

from matrix import row
from rig import Skip, Stream, check, check_equal, expect_whole
from rows_gpu import STORY, machine, served, vram, wait_vram
from machine import GIB



def preload(bin_dir, name):
    path = os.path.join(os.path.dirname(os.path.abspath(bin_dir)), 'tests', name)
    if not os.path.exists(path):
        raise Skip(f'{name} is not built here')
    return path


def listener(s):
    """pid of the process that asks rocm-smi: the monitor's child."""
    monitor = s.child('rocmforge-probe')
    try:
        with open(f'/proc/{monitor}/task/{monitor}/children') as f:
            return f.read().split()
    except OSError:
        return []


def wait_listener(s, is_there, seconds=60):
    end = time.monotonic() + seconds
    while bool(listener(s)) != is_there:
        check(time.monotonic() < end, f'rocm-smi is {"not " if is_there else "still "}asked')
        time.sleep(0.02)


def wait_monitor(s, old, seconds=60):
    """Until another monitor has begun to look."""
    end, m = time.monotonic() + seconds, None
    while m in (None, old):
        check(time.monotonic() < end, 'no other monitor')
        time.sleep(0.02)
        m = s.child('rocmforge-probe')
    wait_vram(s, lambda v: v[0]['is_watched'], seconds)


def hears(s):
    """Until the monitor is subscribed to the driver's events."""
    wait_vram(s, lambda v: v and v[0].get('temperature_celsius') == 54)


@row('23', 'the driver says EAGAIN: a reset runs', '/dev/kfd by a preloaded open(), for 1 s', 5, slow=True)
def kfd_again(bin_dir):
    m = machine(bin_dir)
    m.put('busy', '')
    env = {'LD_PRELOAD': preload(bin_dir, 'open_double.so'), 'OPEN_DOUBLE_PATH': '/dev/kfd',
           'OPEN_DOUBLE_WHILE': f'{m.root}/busy'}
    with served(bin_dir, m, env=env, ready=False) as s:
        s.wait_log('preflight stage card passed')
        time.sleep(1)
        check('nodes' not in s.log_text(), 'it waits')
        at = time.monotonic()
        os.unlink(f'{m.root}/busy')
        s.wait_ready()
        took = time.monotonic() - at
        s.wait_log('preflight stage nodes passed')
        s.settle()
        return took


@row('26', 'another program resets the GPU', 'PRE_RESET, abort() in a kernel, POST_RESET', 3, slow=True)
def foreign_reset(bin_dir):
    for _ in range(5):
        took = try_foreign_reset(bin_dir)
        if took is not None:
            return took
    check(False, 'the worker was found standing still again and again')


def try_foreign_reset(bin_dir):
    """None: the machine kept the worker waiting for so long that the reset may have been its doing."""
    m = machine(bin_dir)
    with served(bin_dir, m) as s:
        whole = Stream(s, STORY, '/v1/completions').end().text
        hears(s)
        stream = Stream(s, STORY, '/v1/completions').seen(3)
        worker = s.worker()
        m.event(3, '1 ring gfx_0.0.0 timeout')
        says = s.wait_log(r'the driver resets the GPU \(1 ring gfx_0.0.0 timeout\); our worker (.*)')
        if 'may have caused it' in says.group(1):
            m.event(4, '1')
            expect_whole(stream, whole)
            return None
        check('did not cause it' in says.group(1), says.group(1))
        m.fault('abort@gemv_one_q8_0')
        s.wait_log('by somebody else: the GPU was reset because of another program')
        time.sleep(0.5)
        check(s.worker() is None, 'no worker is started in a reset')
        m.event(4, '1')
        at = time.monotonic()
        expect_whole(stream, whole)
        took = min(t for t in stream.times if t > at) - at
        check(s.worker() != worker, 'another worker')
        check_equal([s.metric(n) for n in ('worker_deaths_own_fault', 'worker_deaths_external', 'requests_suspect',
                                           'degrade_rung', 'gpu_resets')], [0, 1, 0, 0, 1], 'counted')
        return took


@row('26a', 'our work makes the driver reset the GPU', 'a fault of ours, PRE_RESET, abort(), POST_RESET', slow=True)
def own_reset(bin_dir):
    m = machine(bin_dir)
    with served(bin_dir, m) as s:
        whole = Stream(s, STORY, '/v1/completions').end().text
        hears(s)
        stream = Stream(s, STORY, '/v1/completions').seen(3)
        m.event(1, f'{s.worker():x}:rocmforge-worke')
        m.event(3, '2')
        s.wait_log('our worker may have caused it')
        m.fault('abort@gemv_one_q8_0')
        s.wait_log('its own fault')
        m.event(4, '2')
        expect_whole(stream, whole)
        check_equal(s.metric('worker_deaths_own_fault'), 1, 'counted')


WEDGED = dict(SUBSYSTEM='drm', WEDGED='rebind,bus-reset', DEVNAME='dri/card0')


@row('27', 'the card is wedged', 'uevent WEDGED=rebind, cpu_fallback never; later bind', 1, slow=True)
def wedged(bin_dir):
    m = machine(bin_dir)
    with served(bin_dir, m, '--cpu-fallback', 'never') as s:
        wait_vram(s, lambda v: v)
        at = time.monotonic()
        m.uevent('change', '/drm/card0', **WEDGED)
        s.wait_log('the GPU is wedged: nothing runs on it until .rebind,bus-reset')
        while True:
            status, r = s.post('/v1/completions', {'prompt': 'x', 'max_tokens': 1})
            if status != 200:
                break
            check(time.monotonic() - at < 30, 'it computes on a wedged card')
        took = time.monotonic() - at
        check_equal((status, r['error']['code']), (503, 'gpu_wedged'), 'the answer')
        wait_listener(s, False)
        monitor = s.child('rocmforge-probe')
        os.kill(monitor, signal.SIGKILL)
        wait_monitor(s, monitor)  # which must know of it, too
        time.sleep(1.5)
        check(s.worker() is None, 'no worker is started')
        check(not listener(s), 'nothing of ours holds the card')
        check_equal(s.get('/ready')[0], 503, '/ready')
        m.uevent('bind', '', SUBSYSTEM='pci', DRIVER='amdgpu')
        s.wait_ok()
        wait_listener(s, True)
        check_equal(s.metric('worker_deaths_own_fault'), 0, 'nobody is blamed')
        return took


@row('27a', 'the same, where the CPU may take over', 'WEDGED=bus-reset in mid-stream', 5, slow=True)
def wedged_on_cpu(bin_dir):
    m = machine(bin_dir)
    with served(bin_dir, m, device='auto') as s:
        whole = Stream(s, STORY, '/v1/completions').end().text
        wait_vram(s, lambda v: v)
        stream = Stream(s, STORY, '/v1/completions').seen(3)
        at = time.monotonic()
        m.uevent('change', '/drm/card0', **{**WEDGED, 'WEDGED': 'bus-reset'})
        stream.end()
        check_equal((stream.ends, stream.error), (['done'], None), 'the end')
        check(stream.text[:8] == whole[:8], 'the text goes on')
        s.wait_log('worker is ready: epoch 2')
        took, cpu = stream.resumed(at), s.worker()
        m.uevent('bind', '', SUBSYSTEM='pci', DRIVER='amdgpu')
        s.wait_log("the idle worker makes room for one on rung 'full'")
        s.wait_new_worker(cpu)  # which computes on the GPU
        s.wait_ok()
        return took


@row('68', 'the card throttles', 'two events THERMAL_THROTTLE, kernels 200 ms slower', slow=True)
def throttled(bin_dir):
    m = machine(bin_dir)
    with served(bin_dir, m) as s:
        whole = Stream(s, STORY, '/v1/completions').end().text
        hears(s)
        worker = s.worker()
        stream = Stream(s, STORY, '/v1/completions').seen(3)
        m.event(2, '10:1')
        m.event(2, '10:2')
        m.fault('slow=200@gemv_one_q8_0*8')
        expect_whole(stream, whole)
        s.wait_log(r'the GPU slows down to stay cool \(10:1\)')
        wait_vram(s, lambda v: v[0]['throttles'] == 2)
        check_equal((s.worker(), s.metric('gpu_throttles')), (worker, 2), 'the same worker, counted')
        check(s.log_text().count('slows down') == 1, 'the log says it once')


@row('70', 'the compositor restarts', 'displays and its VRAM go and come back, hotplug uevents', slow=True)
def compositor(bin_dir):
    m = machine(bin_dir)
    m.put('sys/class/drm/card0/device/drm/renderD128/dev', '226:128\n')
    m.put('sys/class/drm/card0-DP-1/status', 'connected\n')
    with served(bin_dir, m) as s:
        whole = Stream(s, STORY, '/v1/completions').end().text
        wait_vram(s, lambda v: v and v[0]['ceiling_bytes'] == 16 * GIB)
        worker, logged = s.worker(), s.log_text().count('warn')
        stream = Stream(s, STORY, '/v1/completions').seen(3)
        for status, used in (('disconnected', GIB // 4), ('connected', 3 * GIB)):
            m.put('sys/class/drm/card0-DP-1/status', status + '\n')
            m.set_vram(20 * GIB, used)
            m.uevent('change', '/drm/card0', SUBSYSTEM='drm', HOTPLUG=1, CONNECTOR=92)
            m.uevent('change', '/drm/card0', SUBSYSTEM='drm', LEASE=1)
            wait_vram(s, lambda v: v[0]['used_bytes'] == used)
            check_equal(vram(s)[0]['ceiling_bytes'], 16 * GIB, 'ceiling')
        expect_whole(stream, whole)
        check_equal((s.worker(), s.log_text().count('warn')), (worker, logged), 'nothing happens')
