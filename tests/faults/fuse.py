"""A file system that fails as it is told. Without files: it does not answer who asks it for a name, who so waits in
the kernel, where no signal reaches it (state D), until it is told to answer. With files: their content, of which
some cannot be read (EIO), from the start or from some moment on, or not before it is told to answer. Needs root and
/dev/fuse."""
import ctypes
import os
import signal
import struct
import tempfile

LOOKUP, FORGET, GETATTR, OPEN, READ, RELEASE, FLUSH, INIT, INTERRUPT = 1, 2, 3, 14, 15, 18, 25, 26, 36
ENOENT, EIO, ENOSYS = -2, -5, -38
FORGET_PAGES, HOUR = 2, 3600


class Fuse:
    """with Fuse() as f: stat(f.path + '/x') waits; f.answer() ends every wait, and every fault.
    files: {name: bytes}; fails, stalls, breaks: from this byte on every file does, the last after f.destroy()."""

    def __init__(self, files=None, **faults):
        self.files, self.faults = files, faults

    def __enter__(self):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.path = tempfile.mkdtemp(prefix='rocmforge-fuse-')
        try:
            fd = os.open('/dev/fuse', os.O_RDWR | os.O_CLOEXEC)
        except OSError as e:
            raise unavailable(self.path, e)
        options = f'fd={fd},rootmode=40000,user_id=0,group_id=0'.encode()
        if self.libc.mount(b'test', self.path.encode(), b'fuse', 6, options) != 0:
            os.close(fd)
            raise unavailable(self.path, OSError(ctypes.get_errno(), 'mount'))
        self.pid = os.fork()
        if self.pid == 0:
            try:
                FileSystem(fd, self.files, **self.faults).serve()
            finally:
                os._exit(0)
        os.close(fd)
        return self

    def answer(self):
        os.kill(self.pid, signal.SIGUSR1)

    def destroy(self):
        os.kill(self.pid, signal.SIGUSR2)

    def __exit__(self, kind, value, trace):
        os.kill(self.pid, signal.SIGKILL)  # closes /dev/fuse, which ends every wait
        os.waitpid(self.pid, 0)
        self.libc.umount2(self.path.encode(), 2)
        os.rmdir(self.path)


def unavailable(path, error):
    from rig import Skip
    os.rmdir(path)
    return Skip(f'cannot mount FUSE ({error}); this needs root and /dev/fuse')


class FileSystem:
    def __init__(self, fd, files, fails=None, stalls=None, breaks=None):
        self.fd, self.fails, self.stalls, self.breaks = fd, fails, stalls, breaks
        self.has_files, self.names, self.data = files is not None, list(files or ()), list((files or {}).values())
        self.waiting, self.may_answer = [], False  # what is to be called when it may be answered

    def on_signal(self, number, frame):
        self.may_answer, self.fails = number == signal.SIGUSR1, None
        if number == signal.SIGUSR2:
            self.fails = self.breaks
            for node in range(2, 2 + len(self.data)):  # the kernel forgets what it has read
                os.write(self.fd, struct.pack('<IiQQqq', 40, FORGET_PAGES, 0, node, 0, 0))
            return
        for answer in self.waiting:
            answer()
        self.waiting.clear()

    def later(self, answer):
        if self.may_answer:
            answer()
        else:
            self.waiting.append(answer)

    def serve(self):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        signal.signal(signal.SIGUSR1, self.on_signal)
        signal.signal(signal.SIGUSR2, self.on_signal)
        while True:
            data = os.read(self.fd, 1 << 17)
            _, opcode, unique, node = struct.unpack_from('<IIQQ', data)
            if opcode == INIT:
                self.reply(unique, 0, struct.pack('<IIIIHHI', 7, 31, 0, 0, 0, 0, 4096) + bytes(40))
            elif opcode == GETATTR:
                self.reply(unique, 0, struct.pack('<QII', HOUR if node > 1 else 0, 0, 0) + self.attributes(node))
            elif opcode == LOOKUP:
                self.look_up(unique, data[40:].split(b'\0')[0].decode())
            elif opcode == OPEN:
                self.reply(unique, 0, struct.pack('<QII', 0, 0, 0))
            elif opcode == READ:
                self.read(unique, node, *struct.unpack_from('<QI', data, 48))
            elif opcode in (RELEASE, FLUSH):
                self.reply(unique, 0, b'')
            elif opcode not in (FORGET, INTERRUPT):
                self.reply(unique, ENOSYS, b'')

    def attributes(self, node):
        """Node 1 is the folder, those after it the files."""
        size, mode = (0, 0o40755) if node == 1 else (len(self.data[node - 2]), 0o100644)
        return (struct.pack('<6Q', node, size, (size + 511) // 512, 1, 1, 1) +
                struct.pack('<10I', 0, 0, 0, mode, 2, 0, 0, 0, 4096, 0))

    def look_up(self, unique, name):
        if not self.has_files:
            self.later(lambda: self.reply(unique, ENOENT, b''))
        elif name in self.names:
            node = self.names.index(name) + 2
            self.reply(unique, 0, struct.pack('<QQQQII', node, 0, HOUR, HOUR, 0, 0) + self.attributes(node))
        else:
            self.reply(unique, ENOENT, b'')

    def read(self, unique, node, offset, size):
        end = offset + size
        data = self.data[node - 2][offset:end]
        if self.fails is not None and end > self.fails:
            self.reply(unique, EIO, b'')
        elif self.stalls is not None and end > self.stalls:
            self.later(lambda: self.reply(unique, 0, data))
        else:
            self.reply(unique, 0, data)

    def reply(self, unique, error, data):
        os.write(self.fd, struct.pack('<IiQ', 16 + len(data), error, unique) + data)
