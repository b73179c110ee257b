# ruff: noqa: E501 (programs, not prose)
"""Programs that try to get out of the sandbox, or to spoil something from inside.

Each prints ESCAPED when it has got what it wanted, and `end` as its last word. What can be seen
from outside only (a file, a contact, a process left) battery.py looks for after every one. Words
between @ are filled in there: @HOME@ a folder of the caller's, @TOKEN@ what must not be read
(@DEKOT@ backwards), @PORT@, @UDP@, @ABSTRACT@ and @UNIX@ listeners, @VICTIM@ a process.
"""

COMMON = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(*a):
    return libc.syscall(*[ctypes.c_long(x) if isinstance(x, int) else x for x in a])
def attempt(f, *a, **k):
    try:
        return f(*a, **k)
    except (OSError, RuntimeError, MemoryError, ImportError, AttributeError, ValueError):
        return None
def escaped(what=""):
    print("ESCAPED", what)
def read(path):
    try:
        with open(path, "rb") as f:
            return f.read(1 << 20)
    except OSError:
        return b""
"""

ATTEMPTS: dict[str, str] = {
    "X01 read a secret in home": """
for path in ("@HOME@/.secret", "@HOME@/../@HOME@/.secret", "/root/.bashrc", "/etc/passwd", "/etc/hostname"):
    if read(path): escaped(path)
if attempt(os.listdir, "@HOME@"): escaped("list")
fd = libc.open(b"@HOME@/.secret", 0)
if fd >= 0: escaped("libc")
""",
    "X02 write outside": """
for folder in ("@HOME@", "/", "/dev/shm", "/var/tmp", "/run", "/usr/lib", os.path.dirname(os.__file__),
               sys.prefix, sys.base_prefix):
    if attempt(open, folder + "/llmctl-escape", "w"): escaped(folder)
attempt(open, "/tmp/llmctl-escape", "w")
""",
    "X03 unlink by ctypes": """
for path in (b"@HOME@/.secret", os.__file__.encode(), b"/etc/hostname"):
    if libc.unlink(path) == 0 or libc.rename(path, path + b"x") == 0: escaped(path)
    if libc.truncate(path, ctypes.c_long(0)) == 0: escaped("truncate")
    if libc.chmod(path, 0o777) == 0 or libc.utimes(path, None) == 0: escaped("chmod")
fd = libc.open(os.__file__.encode(), 0o1000)
if fd >= 0 and not read(os.__file__): escaped("O_TRUNC")
""",
    "X04 secret in the environment": """
if any("@TOKEN@" in v for v in os.environ.values()): escaped()
libc.getenv.restype = ctypes.c_char_p
if libc.getenv(b"LLMCTL_TEST_SECRET"): escaped("getenv")
block = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, "environ")
n = 0
while block and block[n]:
    if b"@TOKEN@" in block[n]: escaped("environ")
    n += 1
""",
    "X05 environ of processes": """
for pid in ["self", os.getppid(), 1, @VICTIM@, *range(1, 400)]:
    for name in ("environ", "cmdline", "maps", "status"):
        if read(f"/proc/{pid}/{name}"): escaped(f"{pid}/{name}")
""",
    "X06 TCP to the host's loopback": """
import socket
def connect(host):
    s = socket.socket(); s.settimeout(1); s.connect((host, @PORT@)); escaped(host)
for host in ("127.0.0.1", "localhost", "0.0.0.0"): attempt(connect, host)
for family in (2, 10, 16, 17):
    for kind in (1, 2, 3):
        if call(41, family, kind, 0) >= 0: escaped(f"socket {family} {kind}")
""",
    "X07 @UDP@ to the host's loopback": """
import socket
def send():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b"x", ("127.0.0.1", @UDP@))
attempt(send)
""",
    "X08 abstract unix socket": """
import socket
def connect():
    s = socket.socket(socket.AF_UNIX); s.connect("\\0@ABSTRACT@"); escaped()
attempt(connect)
if attempt(socket.socketpair): escaped("socketpair")
""",
    "X09 unix socket at a path": """
import socket
def connect():
    s = socket.socket(socket.AF_UNIX); s.connect("@UNIX@"); escaped()
attempt(connect)
""",
    "X10 signal a process of the host": """
import signal
for pid in (@VICTIM@, os.getppid(), 1, -1, 0):
    for number in (0, 10, 15, 9):
        if attempt(lambda: (os.kill(pid, number), True)[1]): escaped(f"kill {pid}")
    if pid > 0 and (call(234, pid, pid, 15) == 0 or call(200, pid, 15) == 0): escaped("tkill")
    if pid > 0 and attempt(os.pidfd_open, pid): escaped("pidfd")
if call(72, 1, 8, @VICTIM@) == 0: escaped("F_SETOWN")
""",
    "X11 trace a process": """
for pid in (@VICTIM@, os.getppid(), 1):
    if call(101, 16, pid, 0, 0) == 0 or call(101, 0x4206, pid, 0, 0) == 0: escaped(pid)
if call(101, 0, 0, 0, 0) == 0: escaped("traceme")
""",
    "X12 memory of a process": """
for pid in (@VICTIM@, os.getppid(), 1, "self"):
    if attempt(open, f"/proc/{pid}/mem", "rb"): escaped(pid)
buffer = ctypes.create_string_buffer(64)
vector = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 8)
for pid in (@VICTIM@, os.getppid(), 1):
    if call(310, pid, vector, 1, vector, 1, 0) > 0 or call(311, pid, vector, 1, vector, 1, 0) > 0:
        escaped(pid)
""",
    "X13 fork bomb": """
import time
made = 0
for _ in range(400):
    pid = attempt(os.fork)
    if pid == 0: time.sleep(30); os._exit(0)
    made += pid is not None
for number in (56, 57, 58, 435):
    made += call(number, 0, 0, 0, 0, 0) > 0
if made: escaped(made)
""",
    "X14 3 GiB in one process": """
kept = []
for _ in range(48):
    block = attempt(bytearray, 64 << 20)
    if block: kept.append(block)
if sum(map(len, kept)) > 1 << 30: escaped(len(kept))
kept = None
import mmap
if attempt(mmap.mmap, -1, 3 << 30): escaped("mmap")
if call(319, b"x", 0) >= 0: escaped("memfd")
""",
    "X15 2.4 GiB over 12 children": """
for _ in range(12):
    pid = attempt(os.fork)
    if pid == 0: x = bytearray(200 << 20); import time; time.sleep(5); os._exit(0)
    if pid: escaped()
""",
    "X17 a daemon that survives": """
pid = attempt(os.fork)
if pid == 0:
    os.setsid()
    if os.fork(): os._exit(0)
    import time; time.sleep(60); os._exit(0)
if pid: escaped()
if attempt(os.setsid) or call(112) >= 0 or call(109, 0, 0) == 0: escaped("setsid")
import threading
def forever():
    while True: pass
if attempt(lambda: (threading.Thread(target=forever, daemon=True).start(), 1)[1]): escaped("thread")
""",
    "X19 fill the disk": """
written = 0
def fill(path):
    global written
    with open(path, "wb", buffering=0) as f:
        for _ in range(256):
            written += f.write(b"x" * (4 << 20))
for path in ("/tmp/llmctl-escape", "/dev/shm/llmctl-escape", "@HOME@/llmctl-escape"): attempt(fill, path)
if written > 64 << 20: escaped(written)
""",
    "X20 inherited descriptor": """
for fd in range(3, 1100):
    try:
        os.lseek(fd, 0, 0)
        if b"@TOKEN@" in os.read(fd, 1000): escaped(fd)
    except OSError: pass
    if fd > 4 and attempt(os.fstat, fd): escaped(f"open {fd}")
""",
    "X21 spawn a shell": """
import subprocess
for run in (lambda: subprocess.run(["/bin/sh", "-c", "true"]), lambda: os.posix_spawn("/bin/true", ["true"], {}),
            lambda: subprocess.run([sys.executable, "-c", "1"]), lambda: os.popen("id").read()):
    try:
        if run() is not None: escaped()
    except (OSError, subprocess.SubprocessError): pass
if os.system("true") == 0: escaped("system")
""",
    "X22 new namespaces, mounts, roots": """
for flags in (0x10000000, 0x00020000, 0x10020000, 0x40000000, 0x20000000, 0x02000000):
    if libc.unshare(flags) == 0: escaped(hex(flags))
if libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 0, None) == 0: escaped("mount")
if libc.umount2(b"/tmp", 2) == 0 or libc.chroot(b"/tmp") == 0: escaped("chroot")
if call(155, b".", b".") == 0 or call(428, -100, b"/", 1) >= 0 or call(430, b"tmpfs", 0) >= 0: escaped("pivot")
if call(308, 3, 0) == 0: escaped("setns")
""",
    "X23 kernel surface": """
for name, number, *a in (("bpf", 321, 0, 0, 0), ("perf", 298, 0, 0, -1, -1, 0), ("io_uring", 425, 8, 0),
        ("userfaultfd", 323, 0), ("keyctl", 250, 0, -3, 0), ("add_key", 248, b"user", b"a", b"b", 1, -3),
        ("request_key", 249, b"user", b"a", 0, 0), ("init_module", 175, 0, 0, b""), ("kexec", 246, 0, 0, 0, 0),
        ("handle", 304, 0, 0, 0), ("fanotify", 300, 0, 0), ("quotactl", 179, 0, 0, 0, 0), ("acct", 163, 0),
        ("landlock", 444, 0, 0, 1), ("ptrace", 101, 0, 0, 0, 0), ("personality", 135, 0), ("vmsplice", 278, 0, 0, 0, 0),
        ("shmget", 29, 0, 4096, 0o1600), ("msgget", 68, 0, 0o1600), ("mq", 240, b"x", 0o102, 0o600, 0),
        ("setuid", 105, 0), ("setgid", 106, 0), ("capset", 126, 0, 0), ("x32", 0x40000000 + 39)):
    if call(number, *a) >= 0: escaped(name)
""",
    "X24 raw disk and memory": """
for path in ("/dev/vda", "/dev/sda", "/dev/nvme0n1", "/dev/mem", "/dev/kmem", "/dev/kvm", "/dev/fuse", "/dev/tty"):
    if attempt(open, path, "rb"): escaped(path)
if libc.mknod(b"/tmp/disk", 0o60666, 0xFE00) == 0 or attempt(os.mknod, "/tmp/n", 0o20666, 0x501): escaped("mknod")
""",
    "X25 core_pattern": """
for path in ("/proc/sys/kernel/core_pattern", "/sys/kernel/uevent_helper", "/proc/sysrq-trigger"):
    if attempt(open, path, "r+b", buffering=0) or libc.open(path.encode(), 1) >= 0: escaped(path)
""",
    "X26 persistence in a shell's files": """
for path in ("@HOME@/.bashrc", "@HOME@/.profile", "/root/.bashrc", "/etc/profile", "/etc/cron.d/x"):
    if attempt(open, path, "a"): escaped(path)
""",
    "X27 links out": """
for target in ("/", "@HOME@/.secret", "/etc"):
    attempt(os.symlink, target, "/tmp/l"); attempt(os.link, target, "/tmp/h")
    for path in ("/tmp/l/etc/passwd", "/tmp/l", "/tmp/h", "/tmp/l/passwd", "../etc/passwd", "/tmp/../etc/passwd"):
        if read(path): escaped(path)
    attempt(os.unlink, "/tmp/l")
""",
    "X28 set-user-id programs": """
for path in (b"/bin/su", b"/usr/bin/sudo", b"/bin/mount", b"/usr/bin/passwd"):
    argv = (ctypes.c_char_p * 2)(path, None)
    libc.execve(path, argv, None)
    call(322, -100, path, argv, None, 0)
if os.geteuid() == 0 or os.getuid() == 0: escaped("root")
if attempt(os.setuid, 0) or attempt(lambda: (os.setresuid(0, 0, 0), 1)[1]): escaped("setuid")
""",
    "X29 TIOCSTI": """
import fcntl
for fd in range(5):
    for request in (0x5412, 0x541C, 0x5414, 0x541D):
        try:
            fcntl.ioctl(fd, request, b"x" * 16); escaped(fd)
        except OSError: pass
if attempt(open, "/dev/tty", "r+"): escaped("tty")
""",
    "X31 files left behind": """
import tempfile
for folder in ("/dev/shm", "/tmp", "/var/tmp", "/run/shm", "@HOME@"):
    attempt(open, folder + "/llmctl-escape-2", "w")
attempt(tempfile.mkdtemp, prefix="llmctl-escape-")
""",
    "X32 see processes of the host": """
if attempt(os.listdir, "/proc"): escaped("proc")
seen = [pid for pid in range(1, 70000, 7) if attempt(os.getpgid, pid) is not None and pid > 9]
if len(seen) > 1 and "@MODE@" == "namespaces": escaped(len(seen))
""",
    "X33 many small files": """
total = 0
for i in range(64):
    try:
        with open(f"/tmp/{i}", "wb", buffering=0) as f:
            for _ in range(15): total += f.write(b"x" * (1 << 20))
    except OSError: pass
if total > 32 << 20: escaped(total)
n = 0
for i in range(100_000):
    try: open(f"/tmp/a{i}", "w").close()
    except OSError: break
    n += 1
if n > 1000: escaped(f"{n} inodes")
""",
    "X36 read what the caller knows": """
import gc
secret = "@DEKOT@"[::-1]
for o in gc.get_objects():
    if o is globals() or not isinstance(o, (dict, list, tuple)): continue
    parts = list(o.values()) if isinstance(o, dict) else o
    if any(isinstance(x, str) and secret in x for x in parts): escaped(type(o))
if secret in " ".join(sys.argv + sys.orig_argv): escaped("argv")
""",
    "X37 aliases of the root": """
for base in ("/proc/self/root", "/proc/1/root", "/proc/self/cwd/..", "/dev/fd/3/..", "/tmp/../../..", "//", "/./.."):
    for path in ("/etc/passwd", "/etc/hostname", "@HOME@/.secret"):
        if read(base + path): escaped(base)
fd = attempt(os.open, "/", os.O_RDONLY | os.O_DIRECTORY)
if fd:
    for path in ("../etc/passwd", "../../etc/passwd", "etc/passwd", "../@HOME@/.secret"):
        if attempt(os.open, path, os.O_RDONLY, dir_fd=fd): escaped(path)
""",
    "X38 start a program by the loader": """
for loader in ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"):
    argv = (ctypes.c_char_p * 3)(loader.encode(), b"/bin/true", None)
    libc.execve(loader.encode(), argv, None)
    fd = libc.open(loader.encode(), 0)
    if fd >= 0: libc.fexecve(fd, argv, (ctypes.c_char_p * 1)(None))
""",
    "X40 a sandbox inside": """
sys.path.insert(0, "@SRC@")
if attempt(os.listdir, "@SRC@"): escaped("source")
libc.prctl(38, 1, 0, 0, 0)
if libc.prctl(22, 1, 0, 0, 0) == 0 or call(317, 1, 0, None) == 0: escaped("seccomp")
import subprocess
for program in ("/usr/bin/bwrap", "/usr/bin/unshare"):
    try: subprocess.run([program, "true"]); escaped(program)
    except OSError: pass
""",
    "X41 kill or reach the keeper": """
os.dup2(1, 5) if attempt(os.fstat, 5) else None
for fd in range(5, 64):
    if attempt(os.write, fd, b"\\x00\\x00\\x00\\x02{}"): escaped(fd)
for number in (9, 15, 2):
    if call(62, os.getppid(), number) == 0: escaped("kill")
import resource
for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE):
    try: resource.setrlimit(kind, (resource.RLIM_INFINITY,) * 2); escaped(kind)
    except (OSError, ValueError): pass
""",
    "X42 what is known of a file without opening it": """
for path in ("@HOME@/.secret", "@HOME@", "/etc/passwd", "/etc/shadow", "/etc", "/proc/1"):
    seen = [attempt(os.stat, path), attempt(os.lstat, path), os.access(path, os.F_OK)]
    seen.append(attempt(lambda: (os.chdir(path), 1)[1]))
    if any(seen) and "@MODE@" == "namespaces": escaped(path)  # Landlock covers none of these
    if not seen[0] and "@MODE@" == "landlock" and path == "/etc/passwd": escaped("nothing, though jail.py says it is seen")
""",
}

# These do not end by themselves, or end badly: what counts is that they end in time
ENDED: dict[str, str] = {
    "X16 endless loop, signals ignored": """
import signal
for n in range(1, 65):
    try: signal.signal(n, signal.SIG_IGN)
    except (OSError, ValueError): pass
while True: pass
""",
    "X18 flood of output": """
while True: os.write(1, b"x" * 65536)
""",
    "X18b flood of answers": """
while True: os.write(3, b'{"error": null}\\n' * 4000)
""",
    "X30 segmentation fault": """
ctypes.string_at(0)
""",
    "X39 sleep with the pipe held": """
import time
attempt(os.fork)
time.sleep(60)
""",
    "X39b a long computation in C": """
sum(range(10 ** 12))
""",
}
