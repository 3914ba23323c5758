"""A made-up machine with a Radeon card: sysfs and device nodes in a folder, the HIP runtime and rocm-smi by the
doubles of tests/rig (hip_double.h and smi_double.c say how they can be made to fail), the kernel's announcements."""
import os
import socket
import tempfile

from server import chat, check_equal

GIB = 1 << 30
NODES = 'sys/class/kfd/kfd/topology/nodes'

# What the tests of the emulated card run and ask; the demo model answers.
SMALL = ['--ctx-size', '256', '--parallel', '2', '--chunk-size', '64']
QUESTIONS = ['What is rocmforge?', 'What is 17 + 25?']
STORY = chat('Tell me a story about a brave mouse.', max_tokens=14, logit_bias={'2047': -100})


def ask(server, text):
    status, r = server.post('/v1/chat/completions', chat(text, max_tokens=12))
    check_equal(status, 200, text)
    return r['choices'][0]['message']['content']


class Machine:
    """env: what a server needs to see it. With checked, every memory access of every kernel is judged (slow)."""

    def __init__(self, bin_dir, checked=False):
        self.folder = tempfile.TemporaryDirectory(prefix='rocmforge-machine-')
        self.root = self.folder.name
        self.put('proc/meminfo', 'MemTotal: 32768000 kB\nMemAvailable: 16384000 kB\n')
        self.put(NODES + '/0/properties', 'cpu_cores_count 16\nsimd_count 0\n')
        self.put(NODES + '/1/properties',
                 'cpu_cores_count 0\nsimd_count 168\nsimd_per_cu 2\ngfx_target_version 110000\n'
                 'vendor_id 4098\nlocation_id 768\ndomain 0\ndrm_render_minor 128\n')
        self.put('smi/events', '')
        self.set_vram(20 * GIB, 2 * GIB)
        for name in ('dev/kfd', 'dev/dri/renderD128', 'run/lock/keep'):
            self.put(name, '')
        self.put('kernels/rocmforge-gfx1100.co', 'the double does not read it\n')
        tests = os.path.join(os.path.dirname(bin_dir), 'tests')
        self.double = os.path.join(tests, 'hip_double_checked' if checked else 'hip_double')
        self.faults = os.path.join(self.root, 'faults')
        self.log = os.path.join(self.root, 'hip.log')
        self.env = {
            'ROCMFORGE_MACHINE_ROOT': self.root,
            'ROCMFORGE_KERNEL_DIR': os.path.join(self.root, 'kernels'),
            'LD_LIBRARY_PATH': f'{self.double}:{tests}/smi_double',
            'SMI_DOUBLE_DIR': os.path.join(self.root, 'smi'),
            'HIP_DOUBLE_FILE': self.faults,
            'HIP_DOUBLE_LOG': self.log,
        }

    def put(self, name, text):
        """Whoever reads it meanwhile finds the old text or the new one."""
        path = os.path.join(self.root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(os.path.join(self.root, '.new'), 'w') as f:
            f.write(text)
        os.rename(f.name, path)

    def set_vram(self, total, used):
        device = 'sys/class/drm/renderD128/device/'
        self.put(device + 'mem_info_vram_total', f'{total}\n')
        self.put(device + 'mem_info_vram_used', f'{used}\n')
        self.put('smi/card', f'total {total}\nused {used}\n')

    def event(self, kind, message):
        """The driver tells it, by way of rocm-smi: 1 fault, 2 throttled, 3 and 4 a reset begins and ends."""
        with open(os.path.join(self.root, 'smi/events'), 'a') as f:
            f.write(f'{kind} {message}\n')

    def uevent(self, action, path, **values):
        """The kernel announces it of the card, or of what is below it: path '' or '/drm/card0'."""
        path = '/devices/pci0000:00/0000:00:01.1/0000:03:00.0' + path
        lines = [f'{action}@{path}', f'ACTION={action}', f'DEVPATH={path}'] + [f'{k}={v}' for k, v in values.items()]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.sendto(''.join(line + '\0' for line in lines).encode(), os.path.join(self.root, 'run/uevents'))

    def fault(self, rules):
        """From the next launch on, in whatever process."""
        with open(self.faults + '.new', 'w') as f:
            f.write(rules)
        os.rename(self.faults + '.new', self.faults)

    def calls(self, name):
        """How often the double was asked to 'malloc', 'free', 'load', 'capture', 'instantiate', 'graph', 'fetch'; or
        to 'fetch 8192', so many bytes."""
        try:
            with open(self.log) as f:
                return sum((line.split()[0], line.strip()).count(name) for line in f)
        except FileNotFoundError:
            return 0
