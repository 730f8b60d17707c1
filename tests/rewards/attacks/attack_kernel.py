"""Programs that want new rights, other programs, or calls of the kernel that nobody inside needs."""

from attack import CALLING, Attack, breakout, kernel_call

_NEW = {
    "user": 0x10000000,
    "mount": 0x20000,
    "pid": 0x20000000,
    "network": 0x40000000,
    "ipc": 0x8000000,
    "cgroup": 0x2000000,
}

KERNEL: list[Attack] = [
    *(kernel_call(f"a new {name} namespace", 272, 97, str(flag)) for name, flag in _NEW.items()),
    breakout(
        "a child in a new user namespace",
        CALLING
        + """
def escaped():
    pid = call(56, 220, 0x10000000 | 17, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    return pid > 0
""",
    ),
    breakout(
        "into another namespace",
        CALLING
        + """
def escaped():
    found = False
    for pid in ("1", "self", "@CALLER@"):
        for name in ("user", "mnt", "net", "pid"):
            try:
                descriptor = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY)
            except OSError:
                continue
            found = found or call(308, 268, descriptor, 0) == 0
    return found
""",
    ),
    breakout(
        "mount",
        CALLING
        + """
def escaped():
    os.mkdir("here")
    kinds = (
        (b"none", b"tmpfs", 0),
        (b"none", b"proc", 0),
        (b"/", None, 4096),
        (b"none", b"cgroup2", 0),
        (None, None, 32 | 4096),
    )
    return any(
        call(165, 40, source, b"here", kind, flags, None) == 0 for source, kind, flags in kinds
    )
""",
    ),
    breakout(
        "mount what may only be read for writing",
        CALLING
        + """
def escaped():
    return any(
        call(165, 40, None, path, None, 32 | 4096, None) == 0
        for path in (b"/", b"/usr", b"/proc", b"/dev", b"/lib")
    )
""",
    ),
    kernel_call("unmount", 166, 39, 'b"missing", 0'),
    kernel_call("another root by pivot", 155, 41, 'b".", b"."'),
    kernel_call("another root by chroot", 161, 51, 'b"."'),
    kernel_call("a file system opened", 430, 430, 'b"tmpfs", 0'),
    kernel_call("a mount copied", 428, 428, '-100, b"/", 1'),
    kernel_call("a mount's attributes", 442, 442, '-100, b"/", 0, zeros, 32'),
    breakout(
        "out of a chroot by an open folder",
        CALLING
        + """
def escaped():
    os.mkdir("jail")
    top = os.open("/", os.O_RDONLY)
    if call(161, 51, b"jail") != 0:
        return False
    os.fchdir(top)
    os.chdir("/".join([".."] * 20))
    return True
""",
    ),
    breakout(
        "a device node",
        """
import os, stat
def escaped():
    for kind, numbers in (
        (stat.S_IFBLK, (8, 0)),
        (stat.S_IFCHR, (1, 1)),
        (stat.S_IFCHR, (1, 11)),
        (stat.S_IFBLK, (254, 0)),
    ):
        try:
            os.mknod("node", kind | 0o666, os.makedev(*numbers))
            return True
        except OSError:
            pass
    return False
""",
    ),
    breakout(
        "root again",
        """
import os
def escaped():
    for attempt in (
        lambda: os.setuid(0),
        lambda: os.setresuid(0, 0, 0),
        lambda: os.setgid(0),
        lambda: os.setgroups([0]),
        lambda: os.seteuid(0),
        lambda: os.setreuid(0, 0),
    ):
        try:
            attempt()
            return True
        except OSError:
            pass
    return 0 in (*os.getresuid(), *os.getresgid(), *os.getgroups())
""",
    ),
    breakout(
        "rights that were kept",
        """
def escaped():
    told = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
    held = any(int(told["Cap" + kind], 16) for kind in ("Inh", "Prm", "Eff", "Amb"))
    return held or told["NoNewPrivs"].strip() != "1" or told["Seccomp"].strip() != "2"
""",
    ),
    breakout(
        "rights asked for",
        CALLING
        + """
import struct
def escaped():
    head, wanted = struct.pack("Ii", 0x20080522, 0), struct.pack("6I", *[0xFFFFFFFF] * 6)
    return (
        call(126, 91, head, wanted) == 0
        or call(157, 167, 47, 2, 21, 0, 0) == 0
        or call(157, 167, 28, 0, 0, 0, 0) == 0
    )
""",
    ),
    breakout(
        "a mapping of users",
        """
def escaped():
    for name in ("uid_map", "gid_map", "setgroups"):
        try:
            with open("/proc/self/" + name, "w") as file:
                file.write("deny" if name == "setgroups" else "0 0 1")
            return True
        except OSError:
            pass
    return False
""",
    ),
    breakout(
        "a program that changes users",
        """
import os
def escaped():
    open("set", "w").close()
    os.chmod("set", 0o6755)
    os.execv("/bin/su", ["su", "-c", "true"])
""",
    ),
    breakout(
        "a shell",
        """
import os
def escaped():
    return os.system("true") == 0
""",
    ),
    breakout(
        "a shell by subprocess",
        """
import subprocess
def escaped():
    return subprocess.run("echo x", shell=True, capture_output=True).stdout == b"x\\n"
""",
    ),
    breakout(
        "a program in the place of this one",
        """
import os
def escaped():
    a, b = 1, 2
    os.execv("/bin/sh", ["sh", "-c", "read a b; echo $((a+b))"])
""",
    ),
    breakout(
        "Python in the place of this one",
        """
import os, sys
def escaped():
    for path in (sys.executable, os.path.realpath(sys.executable), "/proc/self/exe", "/usr/bin/python3"):
        try:
            os.execv(path, [path, "-c", "print(sum(map(int, input().split())))"])
        except OSError:
            pass
    return False
""",
    ),
    breakout(
        "a program by spawn",
        """
import os
def escaped():
    for path in ("/bin/true", "/usr/bin/env", "/bin/sh", "/proc/self/exe"):
        try:
            return os.posix_spawn(path, [path, "-c", "exit"], {}) > 0
        except OSError:
            pass
    return False
""",
    ),
    breakout(
        "a program written here",
        """
import os
def escaped():
    with open("mine", "w") as file:
        file.write("#!/bin/sh\\nread a b\\necho $((a+b))\\n")
    os.chmod("mine", 0o755)
    os.execv("./mine", ["mine"])
""",
    ),
    breakout(
        "a program in a nameless file",
        CALLING
        + """
def escaped():
    descriptor = call(319, 279, b"mine", 0)
    if descriptor < 0:
        return False
    os.write(descriptor, open("/bin/true", "rb").read())
    return call(322, 281, descriptor, b"", zeros, zeros, 0x1000) == 0
""",
    ),
    breakout(
        "a program by its loader",
        """
import glob, os
def escaped():
    for loader in [*glob.glob("/lib*/ld-linux*"), *glob.glob("/lib/*/ld-linux*")]:
        try:
            os.execv(loader, [loader, "/bin/sh", "-c", "read a b; echo $((a+b))"])
        except OSError:
            pass
    return False
""",
    ),
    kernel_call("a nameless file", 319, 279, 'b"x", 0'),
    kernel_call("a secret nameless file", 447, 447, "0"),
    kernel_call("io_uring", 425, 425, "4, zeros"),
    kernel_call("bpf", 321, 280, "0, zeros, 64"),
    kernel_call("perf events", 298, 241, "zeros, 0, -1, -1, 0"),
    kernel_call("faults in user space", 323, 282, "1"),
    kernel_call("a key ring", 250, 219, "1, b'ring'"),
    kernel_call("a key", 248, 217, 'b"user", b"name", b"x", 1, -3'),
    kernel_call("the session's keys", 250, 219, "0, -3, 1"),
    kernel_call("a handle of a file", 303, 264, '-100, b"/", zeros, zeros, 0'),
    kernel_call("a file by its handle", 304, 265, "-100, zeros, 0"),
    kernel_call("fanotify", 300, 262, "0, 0"),
    kernel_call("a kernel module", 175, 105, 'zeros, 64, b""'),
    kernel_call("another kernel", 246, 104, "0, 0, zeros, 0"),
    kernel_call("swap", 167, 224, 'b"swap", 0'),
    kernel_call("a restart", 169, 142, "0xfee1dead, 672274793, 0, zeros"),
    kernel_call("the name of the machine", 170, 161, 'b"mine", -1'),
    kernel_call("the domain of the machine", 171, 162, 'b"mine", -1'),
    kernel_call("the time of day", 164, 170, "1, 1"),
    kernel_call("a clock", 227, 112, "9999, zeros"),
    kernel_call("accounting", 163, 89, "None"),
    kernel_call("quotas", 179, 60, "0x800001, None, 0, zeros"),
    kernel_call("the kernel's log", 103, 116, "3, zeros, 4096"),
    kernel_call("ports of devices", 172, -1, "3"),
    kernel_call("the table of segments", 154, -1, "1, zeros, 16"),
    kernel_call("another personality", 135, 92, "0x0400000"),
    kernel_call("two processes compared", 312, 272, "@CALLER@, @VICTIM@, 0, 0, 0"),
    kernel_call("pages of another process", 279, 239, "@VICTIM@, 0, zeros, zeros, zeros, 0"),
    kernel_call("advice for another process", 440, 440, "3, zeros, 1, 4, 0"),
    breakout(
        "another filter in front",
        CALLING
        + """
import struct
def escaped():
    allow = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000), 8)
    head = struct.pack("@HP", 1, ctypes.addressof(allow))
    call(317, 277, 1, 0, head)
    call(157, 167, 22, 2, head, 0, 0)
    return call(272, 97, 0x10000000) == 0
""",
    ),
    breakout(
        "calls of 32 bit",
        """
import ctypes, mmap, os
def escaped():
    if os.uname().machine != "x86_64":
        return False
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3")  # mov eax, getpid; int 0x80; ret
    start = ctypes.addressof(ctypes.c_char.from_buffer(code))
    return ctypes.CFUNCTYPE(ctypes.c_int)(start)() > 0
""",
    ),
    breakout(
        "calls of the x32 kind",
        CALLING
        + """
def escaped():
    return call(0x40000000 + 39, -1) > 0 or call(0x40000000 + 520, -1, b"/bin/true", zeros, zeros) == 0
""",
    ),
    breakout(
        "a number that wraps",
        CALLING
        + """
def escaped():
    return (
        _libc.syscall(ctypes.c_long((1 << 32) + 57)) > 0
        or _libc.syscall(ctypes.c_long((1 << 32) + 272), ctypes.c_long(0x10000000)) == 0
    )
""",
    ),
    breakout(
        "a clone whose flags hide in the upper half",
        CALLING
        + """
def escaped():
    pid = call(56, 220, (1 << 32) | 17, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    return pid > 0
""",
    ),
    breakout(
        "a thread with its own tables",
        CALLING
        + """
def escaped():
    return call(272, 97, 0x400) == 0 or call(272, 97, 0x200) == 0
""",
    ),
    breakout(
        "words that a filter reads twice",
        CALLING
        + """
import threading
def escaped():
    got = []
    def change():
        for _ in range(20000):
            zeros[0:8] = (0x10000000).to_bytes(8, "little")
            zeros[0:8] = (0x10f00).to_bytes(8, "little")
    one = threading.Thread(target=change)
    one.start()
    for _ in range(2000):
        got.append(call(435, 435, zeros, 64))
    one.join()
    return any(result >= 0 for result in got)
""",
    ),
]
