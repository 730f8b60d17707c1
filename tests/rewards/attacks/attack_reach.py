"""Programs that want to see, change or talk to what lies outside."""

from attack import CALLING, Attack, breakout

_SECRET = 'SECRET = "oneloop" + "-secret-"\n'
"""How the secrets begin that `world.py` lays out; in two parts, for a program holds its own text."""

REACH: list[Attack] = [
    breakout(
        "the caller's environment",
        _SECRET
        + """
import os
def escaped():
    return any(SECRET in value for value in os.environ.values()) or len(os.environ) > 4
""",
    ),
    breakout(
        "the environment in memory",
        _SECRET
        + """
import ctypes
def escaped():
    environ = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
    place = 0
    while environ[place]:
        if SECRET.encode() in environ[place]:
            return True
        place += 1
    return False
""",
    ),
    breakout(
        "environments of others",
        _SECRET
        + """
import os
def escaped():
    for name in [
        *filter(str.isdigit, os.listdir("/proc")),
        "1",
        "@CALLER@",
        str(os.getppid()),
        "self",
        "thread-self",
    ]:
        try:
            if SECRET.encode() in open(f"/proc/{name}/environ", "rb").read():
                return True
        except OSError:
            pass
    return False
""",
    ),
    breakout(
        "a guessed process in /proc",
        """
import os
def escaped():
    return "@VICTIM@" in os.listdir("/proc") or bool(open("/proc/@VICTIM@/cmdline", "rb").read())
""",
    ),
    breakout(
        "the caller's command line",
        """
def escaped():
    return len(open("/proc/@CALLER@/cmdline", "rb").read()) > 0
""",
    ),
    breakout(
        "the caller's descriptors",
        """
import os
def escaped():
    return len(os.listdir("/proc/@CALLER@/fd")) > 0
""",
    ),
    breakout(
        "the caller's root folder",
        """
import os
def escaped():
    for pid in ("@CALLER@", "1", "self", str(os.getppid())):
        try:
            if open(f"/proc/{pid}/root/etc/passwd").read():
                return True
        except OSError:
            pass
    return False
""",
    ),
    breakout(
        "own memory map of the machine",
        """
def escaped():
    return len(open("/proc/kcore", "rb").read(64)) > 0 or len(open("/proc/kallsyms").read()) > 0
""",
    ),
    breakout(
        "list processes",
        """
import os
def escaped():
    return len(set(filter(str.isdigit, os.listdir("/proc"))) - {str(os.getpid())}) > 0
""",
    ),
    breakout("accounts", "def escaped():\n    return 'root' in open('/etc/passwd').read()\n"),
    breakout("passwords", "def escaped():\n    return len(open('/etc/shadow').read()) > 0\n"),
    breakout(
        "name servers and names of the machine",
        """
def escaped():
    for path in ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/etc/machine-id"):
        try:
            if open(path).read().strip():
                return True
        except OSError:
            pass
    return False
""",
    ),
    breakout(
        "homes",
        """
import os
def escaped():
    for folder in ("/root", "/home", "/root/.ssh", "/var/log", "/mnt", "/srv", "/opt", "/boot"):
        try:
            if os.listdir(folder):
                return True
        except OSError:
            pass
    return False
""",
    ),
    breakout(
        "the home of the account",
        """
import os, pwd
def escaped():
    return bool(os.listdir(pwd.getpwuid(os.getuid()).pw_dir))
""",
    ),
    breakout(
        "a file that everybody may read",
        _SECRET + "def escaped():\n    return SECRET in open('@OUTSIDE@/secret').read()\n",
    ),
    breakout(
        "the same through the scratch folder",
        _SECRET
        + """
import os
def escaped():
    up = "/".join([".."] * 12)
    for path in (
        up + "@OUTSIDE@/secret",
        "/proc/self/cwd/" + up + "@OUTSIDE@/secret",
        "/proc/self/root@OUTSIDE@/secret",
    ):
        try:
            if SECRET in open(path).read():
                return True
        except OSError:
            pass
    return False
""",
    ),
    breakout(
        "the same through a link",
        _SECRET
        + """
import os
def escaped():
    os.symlink("@OUTSIDE@/secret", "link")
    return SECRET in open("link").read()
""",
    ),
    breakout(
        "the same through a hard link",
        _SECRET
        + """
import os
def escaped():
    os.link("@OUTSIDE@/secret", "link")
    return SECRET in open("link").read()
""",
    ),
    breakout("list a folder outside", "import os\ndef escaped():\n    return 'secret' in os.listdir('@OUTSIDE@')\n"),
    breakout(
        "temporary files of others",
        """
import os
def escaped():
    for folder in ("/tmp", "/var/tmp", "/dev/shm", "/run", "/run/user"):
        try:
            if os.listdir(folder) and not os.path.samefile(folder, "."):
                return True
        except OSError:
            pass
    return False
""",
    ),
    breakout(
        "scratch folders of others",
        """
import os
def escaped():
    return bool(set(os.listdir("..")) - {os.path.basename(os.getcwd())})
""",
    ),
    breakout(
        "the source of the caller",
        """
def escaped():
    return len(open("@SOURCE@").read()) > 0
""",
    ),
    breakout("write a file outside", "def escaped():\n    open('@OUTSIDE@/new', 'w').close()\n    return True\n"),
    breakout(
        "write into temporary folders",
        """
import os
def escaped():
    wrote = 0
    for folder in (
        "/tmp",
        "/var/tmp",
        "/dev/shm",
        "/dev",
        "/run",
        "/",
        "/proc",
        "/sys",
        "/usr",
        "..",
        os.path.dirname(os.__file__),
    ):
        try:
            if os.path.samefile(folder, "."):
                continue
            path = f"{folder}/oneloop-attack-wrote-this"
            open(path, "w").close()
            wrote += 1
            os.unlink(path)
        except OSError:
            pass
    return wrote > 0
""",
    ),
    breakout(
        "write through a link",
        """
import os
def escaped():
    os.symlink("@OUTSIDE@/new", "link")
    open("link", "w").close()
    return True
""",
    ),
    breakout("change a file outside", "def escaped():\n    open('@OUTSIDE@/open', 'a').write('x')\n    return True\n"),
    breakout(
        "empty a file outside", "import os\ndef escaped():\n    os.truncate('@OUTSIDE@/open', 0)\n    return True\n"
    ),
    breakout("remove a file outside", "import os\ndef escaped():\n    os.unlink('@OUTSIDE@/open')\n    return True\n"),
    breakout(
        "rename a file outside",
        "import os\ndef escaped():\n    os.rename('@OUTSIDE@/open', '@OUTSIDE@/new')\n    return True\n",
    ),
    breakout(
        "move a file outside in",
        "import os\ndef escaped():\n    os.rename('@OUTSIDE@/open', 'mine')\n    return True\n",
    ),
    breakout("make a folder outside", "import os\ndef escaped():\n    os.mkdir('@OUTSIDE@/new')\n    return True\n"),
    breakout(
        "close a file outside to its owner",
        """
import os
def escaped():
    before = os.stat("@OUTSIDE@/own").st_mode
    os.chmod("@OUTSIDE@/own", 0)
    return os.stat("@OUTSIDE@/own").st_mode != before
""",
    ),
    breakout(
        "another time for a file outside",
        """
import os
def escaped():
    os.utime("@OUTSIDE@/open", (1, 1))
    return os.stat("@OUTSIDE@/open").st_mtime == 1
""",
    ),
    breakout(
        "another owner for a file outside",
        """
import os
def escaped():
    before = os.stat("@OUTSIDE@/own").st_uid
    os.chown("@OUTSIDE@/own", os.getuid(), os.getgid())
    return os.stat("@OUTSIDE@/own").st_uid != before
""",
    ),
    breakout(
        "an attribute for a file outside",
        """
import os
def escaped():
    os.setxattr("@OUTSIDE@/open", "user.mine", b"x")
    return os.getxattr("@OUTSIDE@/open", "user.mine") == b"x"
""",
    ),
    breakout(
        "watch files outside",
        CALLING
        + """
def escaped():
    descriptor = call(294, 26, 0)
    return descriptor >= 0 and call(254, 27, descriptor, b"@OUTSIDE@", 0xFFF) >= 0
""",
    ),
    breakout(
        "lock a file outside",
        """
import fcntl
def escaped():
    fcntl.flock(open("@OUTSIDE@/open"), fcntl.LOCK_EX | fcntl.LOCK_NB)
    return True
""",
    ),
    breakout(
        "change the library",
        """
import json, os
def escaped():
    folder = os.path.dirname(json.__file__)
    for path in (json.__file__, folder + "/new.py", folder + "/../sitecustomize.py", folder + "/__pycache__/new"):
        try:
            open(path, "a").close()
            return True
        except OSError:
            pass
    return False
""",
    ),
    breakout(
        "what is installed beside Python",
        """
def escaped():
    for name in ("torch", "numpy", "pytest", "pip", "setuptools", "oneloop", "_virtualenv"):
        try:
            __import__(name)
            return True
        except ImportError:
            pass
    return False
""",
    ),
    breakout(
        "site-packages by path",
        """
import os, sys
def escaped():
    for folder in [
        os.path.join(folder, name)
        for folder in sys.path
        for name in ("site-packages", "dist-packages")
    ]:
        for path in (
            folder + "/README.txt",
            folder + "/pip/__init__.py",
            folder + "/_virtualenv.py",
            folder + "/torch/__init__.py",
        ):
            try:
                open(path).close()
                return True
            except OSError:
                pass
    return False
""",
    ),
    breakout(
        "a connection over TCP",
        """
import socket
def escaped():
    for host in ("127.0.0.1", "localhost", "0.0.0.0", "@HOST@"):
        try:
            socket.create_connection((host, @TCP@), 1).sendall(b"x")
            return True
        except OSError:
            pass
    return False
""",
    ),
    breakout(
        "a connection over TCP by system call",
        CALLING
        + """
import socket, struct
def escaped():
    address = struct.pack("=H", 2) + struct.pack(">H", @TCP@) + socket.inet_aton("127.0.0.1") + bytes(8)
    descriptor = call(41, 198, 2, 1, 0)
    return descriptor >= 0 and call(42, 203, descriptor, address, 16) == 0
""",
    ),
    breakout(
        "TCP that opens as it sends",
        """
import socket
def escaped():
    one = socket.socket()
    one.sendto(b"x", 0x20000000, ("127.0.0.1", @TCP@))
    return True
""",
    ),
    breakout(
        "a listener",
        """
import socket
def escaped():
    one = socket.socket()
    one.bind(("0.0.0.0", 0))
    one.listen()
    return True
""",
    ),
    breakout(
        "UDP",
        """
import socket
def escaped():
    socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", @UDP@))
    return True
""",
    ),
    breakout(
        "UDP over IPv6",
        """
import socket
def escaped():
    socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(b"x", ("::1", @UDP@))
    return True
""",
    ),
    breakout(
        "a unix socket by path",
        """
import socket
def escaped():
    one = socket.socket(socket.AF_UNIX)
    one.connect("@OUTSIDE@/socket")
    one.sendall(b"x")
    return True
""",
    ),
    breakout(
        "an abstract unix socket",
        """
import socket
def escaped():
    one = socket.socket(socket.AF_UNIX)
    one.connect("\\0@ABSTRACT@")
    one.sendall(b"x")
    return True
""",
    ),
    breakout(
        "a pair of sockets that sends elsewhere",
        """
import socket
def escaped():
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for address in ("@OUTSIDE@/datagrams", "\\0@ABSTRACT@-datagrams"):
        try:
            one.sendto(b"x", address)
            return True
        except OSError:
            pass
    return False
""",
    ),
    breakout(
        "a pair of sockets that connects elsewhere",
        """
import socket
def escaped():
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    one.connect("@OUTSIDE@/datagrams")
    one.send(b"x")
    return True
""",
    ),
    breakout(
        "names of the network",
        """
import socket
def escaped():
    return bool(socket.getaddrinfo("example.org", 80))
""",
    ),
    breakout(
        "the metadata of a cloud",
        """
import socket
def escaped():
    socket.create_connection(("169.254.169.254", 80), 1)
    return True
""",
    ),
    breakout(
        "sockets of every family",
        """
import socket
def escaped():
    for family in range(2, 46):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
            try:
                socket.socket(family, kind).close()
                return True
            except OSError:
                pass
    return False
""",
    ),
    breakout(
        "signal the caller",
        """
import os, signal
def escaped():
    sent = 0
    for pid in (@CALLER@, @VICTIM@):
        for number in (0, signal.SIGCONT, signal.SIGUSR1):
            try:
                os.kill(pid, number)
                sent += pid != os.getpid()
            except OSError:
                pass
    return sent > 0
""",
    ),
    breakout(
        "kill everybody",
        """
import os, signal
def escaped():
    try:
        os.kill(-1, 0)
    except OSError:
        os.kill(@VICTIM@, signal.SIGKILL)
    return True
""",
    ),
    breakout("kill the group", "import os, signal\ndef escaped():\n    os.killpg(0, signal.SIGKILL)\n"),
    breakout(
        "kill the parent",
        """
import os, signal
def escaped():
    parent = os.getppid()
    if parent > 0:
        os.kill(parent, signal.SIGKILL)
        return True
    return False
""",
    ),
    breakout(
        "signal by other calls",
        CALLING
        + """
def escaped():
    tries = ((200, 130, (@VICTIM@, 9)), (234, 131, (@VICTIM@, @VICTIM@, 9)), (129, 138, (@VICTIM@, 9, zeros)),
             (297, 240, (@VICTIM@, @VICTIM@, 9, zeros)))
    if any(call(x86, arm, *arguments) >= 0 for x86, arm, arguments in tries):
        return True
    descriptor = call(434, 434, @VICTIM@, 0)
    return descriptor >= 0 and call(424, 424, descriptor, 9, None, 0) >= 0
""",
    ),
    breakout(
        "signals sent by a descriptor",
        """
import fcntl, os, signal, socket
def escaped():
    one, other = socket.socketpair()
    fcntl.fcntl(one, fcntl.F_SETOWN, @VICTIM@)
    fcntl.fcntl(one, 10, signal.SIGKILL)
    fcntl.fcntl(one, fcntl.F_SETFL, fcntl.fcntl(one, fcntl.F_GETFL) | 0o20000)
    other.send(b"x")
    return True
""",
    ),
    breakout(
        "trace a process",
        CALLING
        + """
def escaped():
    return call(101, 117, 16, @VICTIM@, 0, 0) == 0 or call(101, 117, 0x4206, @VICTIM@, 0, 0) == 0
""",
    ),
    breakout(
        "read a process's memory",
        CALLING
        + """
import struct
def escaped():
    there = struct.pack("QQ", 0x400000, 8)
    here = struct.pack("QQ", ctypes.addressof(zeros), 8)
    return call(310, 270, @VICTIM@, here, 1, there, 1, 0) >= 0 or len(open("/proc/@VICTIM@/maps").read()) > 0
""",
    ),
    breakout(
        "take another process's descriptor",
        CALLING
        + """
def escaped():
    descriptor = call(434, 434, @CALLER@, 0)
    return descriptor >= 0 and any(call(438, 438, descriptor, number, 0) >= 0 for number in range(32))
""",
    ),
    breakout(
        "another process's schedule",
        CALLING
        + """
import os
def escaped():
    tries = (
        (203, 122, (@VICTIM@, 128, b"\\1" * 128)),
        (141, 140, (0, @VICTIM@, 19)),
        (144, 119, (@VICTIM@, 3, zeros)),
        (251, 30, (1, @VICTIM@, 0x6000)),
        (302, 261, (@VICTIM@, 7, None, zeros)),
        (256, 238, (@VICTIM@, 64, zeros, zeros)),
    )
    return any(call(x86, arm, *arguments) >= 0 for x86, arm, arguments in tries)
""",
    ),
    breakout(
        "descriptors that were left open",
        """
import os
def escaped():
    for descriptor in range(4, 4096):
        try:
            name = os.readlink(f"/proc/self/fd/{descriptor}") if os.path.isdir("/proc/self/fd") else ""
            os.fstat(descriptor)
        except OSError:
            continue
        if not os.path.isdir(f"/proc/self/fd/{descriptor}"):
            return True
    return False
""",
    ),
    breakout(
        "a file that the caller has open",
        _SECRET
        + """
import os
def escaped():
    for descriptor in range(3, 4096):
        try:
            if SECRET.encode() in os.pread(descriptor, 4096, 0):
                return True
        except OSError:
            pass
    return False
""",
    ),
    breakout(
        "out through an open folder",
        _SECRET
        + """
import os
def escaped():
    for descriptor in range(3, 256):
        for path in (
            "../" * 12 + "etc/passwd",
            "../" * 12 + "@OUTSIDE@/secret",
            "../site-packages",
            "site-packages/torch",
        ):
            try:
                os.open(path, os.O_RDONLY, dir_fd=descriptor)
                return True
            except OSError:
                pass
    return False
""",
    ),
    breakout(
        "type into the terminal",
        """
import fcntl, os, termios
def escaped():
    for descriptor in (0, 1, 2, os.open("/dev/tty", os.O_RDWR)):
        try:
            fcntl.ioctl(descriptor, termios.TIOCSTI, b"x")
            return True
        except OSError:
            pass
    return False
""",
    ),
    breakout(
        "devices",
        """
import os
def escaped():
    for name in (
        "mem",
        "kmsg",
        "sda",
        "vda",
        "nvme0n1",
        "dri/card0",
        "nvidia0",
        "nvidiactl",
        "fuse",
        "kvm",
        "ptmx",
        "tty",
        "tty0",
        "console",
        "full",
        "loop0",
        "loop-control",
        "net/tun",
        "vsock",
        "vhost-net",
        "hpet",
        "snapshot",
        "port",
        "autofs",
    ):
        try:
            os.open("/dev/" + name, os.O_RDONLY)
            return True
        except OSError:
            pass
    return False
""",
    ),
    breakout(
        "list devices",
        """
import os
def escaped():
    return bool(set(os.listdir("/dev")) - {"null", "zero", "urandom"})
""",
    ),
    breakout(
        "what /sys says",
        """
import os
def escaped():
    return bool(os.listdir("/sys")) or bool(open("/sys/kernel/mm/transparent_hugepage/enabled").read())
""",
    ),
    breakout(
        "control groups",
        """
import glob
def escaped():
    for path in glob.glob("/sys/fs/cgroup/**/cgroup.procs", recursive=True) + glob.glob("/proc/*/cgroup"):
        try:
            if open(path, "r+").writable():
                return True
        except OSError:
            pass
    return False
""",
    ),
    breakout(
        "settings of the kernel",
        """
def escaped():
    for path in (
        "kernel/core_pattern",
        "kernel/modprobe",
        "kernel/hostname",
        "vm/drop_caches",
        "kernel/randomize_va_space",
    ):
        try:
            with open("/proc/sys/" + path, "r+") as file:
                text = file.read()
                file.seek(0)
                file.write(text)
                return True
        except OSError:
            pass
    return False
""",
    ),
    breakout(
        "the key for emergencies",
        """
def escaped():
    with open("/proc/sysrq-trigger", "w") as file:
        file.write("h")
    return True
""",
    ),
    breakout(
        "a shared memory segment of the caller",
        CALLING
        + """
def escaped():
    return call(30, 196, @SEGMENT@, None, 0o10000) != -1
""",
    ),
    breakout(
        "a message queue",
        CALLING
        + """
def escaped():
    return call(240, 180, b"queue", 0o102, 0o600, None) >= 0 or call(68, 186, 0, 0o1600) >= 0
""",
    ),
    breakout(
        "who and where",
        """
import os
def escaped():
    return (
        os.uname().nodename == "@NODE@"
        and "@NODE@" != "sandbox"
        and bool(open("/proc/sys/kernel/hostname").read())
    )
""",
    ),
]
