"""The system calls that a confined process may use: an allow-list. What is not on it does not exist (ENOSYS).

See seccomp(2). The numbers are those of x86_64 and of aarch64, `-` where a machine has no such call.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable, Sequence
from errno import EINVAL, ENOSYS, ENOTTY, EOPNOTSUPP, EPERM

from oneloop.sandbox.inside import kernel

_FILES = """
read 0 63  write 1 64  readv 19 65  writev 20 66  pread64 17 67  pwrite64 18 68  preadv 295 69  pwritev 296 70
preadv2 327 286  pwritev2 328 287  lseek 8 62  open 2 -  openat 257 56  openat2 437 437  creat 85 -  close 3 57
dup 32 23  dup2 33 -  dup3 292 24  pipe 22 -  pipe2 293 59  fsync 74 82  fdatasync 75 83
ftruncate 77 46  fadvise64 221 223  copy_file_range 326 285  stat 4 -  fstat 5 80
lstat 6 -  newfstatat 262 79  statx 332 291  access 21 -  faccessat 269 48  faccessat2 439 439  readlink 89 -
readlinkat 267 78  getdents 78 -  getdents64 217 61  getcwd 79 17  chdir 80 49  fchdir 81 50  mkdir 83 -
mkdirat 258 34  rmdir 84 -  unlink 87 -  unlinkat 263 35  rename 82 -  renameat 264 38  renameat2 316 276  link 86 -
linkat 265 37  symlink 88 -  symlinkat 266 36  umask 95 166  flock 73 32
"""
"""No `sendfile`: a socket would hold whole pages of a file for a byte of each, also when the file is gone."""
_WAITING = """
poll 7 -  ppoll 271 73  select 23 -  pselect6 270 72  epoll_create 213 -  epoll_create1 291 20  epoll_ctl 233 21
epoll_wait 232 -  epoll_pwait 281 22  epoll_pwait2 441 441  eventfd 284 -  eventfd2 290 19  timerfd_create 283 85
timerfd_settime 286 86  timerfd_gettime 287 87  nanosleep 35 101  gettimeofday 96 169  time 201 -  pause 34 -
alarm 37 -  getitimer 36 102  setitimer 38 103  rt_sigaction 13 134  rt_sigprocmask 14 135  rt_sigreturn 15 139
rt_sigpending 127 136  rt_sigsuspend 130 133  rt_sigtimedwait 128 137  sigaltstack 131 132
"""
_ITSELF = """
mmap 9 222  munmap 11 215  mprotect 10 226  mremap 25 216  madvise 28 233  brk 12 214  msync 26 227
membarrier 324 283  exit 60 93  exit_group 231 94  futex 202 98  set_robust_list 273 99  rseq 334 293
set_tid_address 218 96  gettid 186 178  sched_yield 24 124  getcpu 309 168  restart_syscall 219 128  getpid 39 172
getppid 110 173  getpgrp 111 -  getuid 102 174  geteuid 107 175  getgid 104 176  getegid 108 177  getresuid 118 148
getresgid 120 150  getgroups 115 158  getrusage 98 165  getrlimit 97 163  setrlimit 160 164  times 100 153
sysinfo 99 179  uname 63 160  wait4 61 260  waitid 247 95  getrandom 318 278
"""
_SOCKET_PAIRS = "shutdown 48 210  getsockname 51 204  getpeername 52 205"
"""The two ends of a pair. `sendmsg` and `recvmsg`, which pass descriptors, are not among them."""
_ATTRIBUTES = """
chmod 90 -  fchmod 91 52  fchmodat 268 53  fchmodat2 452 452  utime 132 -  utimes 235 -  futimesat 261 -
utimensat 280 88
"""
"""Landlock does not look at these: where it alone guards the files of the user, they do nothing and say 0."""
_TRUNCATE = "truncate 76 45"
"""Landlock looks at this one from its third version on only."""
_RESERVE = "fallocate 285 47"
"""Room beyond the end of a file no limit of its size counts; and a disk gives gigabytes of it in the time of a call,
also to files without a name, which no look at a folder sees: there none is set aside.
"""
_EXTENDED = """
listxattr 194 11  llistxattr 195 12  flistxattr 196 13  getxattr 191 8  lgetxattr 192 9  fgetxattr 193 10
setxattr 188 5  lsetxattr 189 6  fsetxattr 190 7  removexattr 197 14  lremovexattr 198 15  fremovexattr 199 16
"""
_PROCESSES = "fork 57 -  vfork 58 -  execve 59 221  execveat 322 281  tkill 200 130  socket 41 198"
_CLONE, _SENDTO, _RECVFROM = "clone 56 220", "sendto 44 206", "recvfrom 45 207"
_OF_ITSELF = (
    "kill 62 129  tgkill 234 131  prlimit64 302 261  sched_getaffinity 204 123  getpgid 121 155  getsid 124 156"
)
"""Their first argument names a process."""
_CLOCKS = "clock_gettime 228 113  clock_getres 229 114  clock_nanosleep 230 115"
"""Large clock numbers are clocks of a process."""
_BY_ARGUMENT = {
    # duplicates, flags, locks; not the owner and signal of a descriptor, nor leases and notices about other files
    "fcntl 72 25": (1, (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1032, 1034), EPERM),
    # close on exec, blocking, bytes that wait, whether it is a terminal, and its size; never TIOCSTI
    "ioctl 16 29": (1, (0x5450, 0x5451, 0x5421, 0x541B, 0x5401, 0x5413), ENOTTY),
    # closing, and closing on exec; never in a copy of the table of descriptors, whose number is limited in each
    "close_range 436 436": (2, (0, 4), EINVAL),
    # the name of a thread and of memory
    "prctl 157 167": (0, (15, 16, 0x53564D41), EPERM),
    # type, error, sizes of buffers, listening, protocol, family; not who is at the other end
    "getsockopt 55 209": (2, (3, 4, 7, 8, 30, 38, 39), EPERM),
}
_SOCKETPAIR = "socketpair 53 199"
_UNIX, _STREAM, _KIND = 1, 1, 0xF
_OUT_OF_BAND = 1
"""A corner of unix sockets that nobody needs, and that has been broken before."""
_CLONE_THREAD, _CLONE_FILES, _CLONE_NEW = 0x10000, 0x400, 0x7E020000

_LOAD, _AND, _RETURN, _EQUAL, _AT_LEAST, _ANY_BIT = 0x20, 0x54, 0x06, 0x15, 0x35, 0x45
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCHITECTURE = 0, 4
_OURS = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32 = 0x40000000
_SET_MODE_FILTER = 1

_Code = list[tuple[int, int, int, int]]
"""Instructions: code, how many to leap where it holds and where not, constant."""


def compiled(pid: int, guarded: bool) -> bytes:
    """The filter of this machine for a process.

    Args:
        pid: its own, the only one that its calls may name.
        guarded: whether the files of others are out of reach by their name, and not by Landlock alone.
    """
    return b"".join(struct.pack("=HBBI", *each) for each in program(os.uname().machine, pid, guarded))


def install(code: bytes) -> None:
    """Hold this process to a filter, for good. It must have given up new privileges."""
    buffer = ctypes.create_string_buffer(code, len(code))
    head = struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))
    kernel.syscall("seccomp", kernel.SECCOMP, _SET_MODE_FILTER, 0, head)


def program(machine: str, pid: int, guarded: bool) -> _Code:
    """The instructions of `compiled`."""
    column = kernel.MACHINES.index(machine)
    code: _Code = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, _OURS[machine]), (_RETURN, 0, 0, _KILL)]
    code.append((_LOAD, 0, 0, _NUMBER))
    if machine == "x86_64":
        code += (_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _KILL)

    def rule(calls: str, then: _Code) -> None:
        for number in _numbers(calls, column):
            code.extend([(_EQUAL, 0, len(then), number), *then])

    for calls in (_FILES, _WAITING, _ITSELF, _SOCKET_PAIRS):
        rule(calls, [_answer()])
    rule(_ATTRIBUTES, [_answer() if guarded else _answer(0)])
    rule(_TRUNCATE, [_answer() if guarded else _answer(EPERM)])
    as_long = [*_only(_argument(1), (0,), EOPNOTSUPP), _answer()]
    rule(_RESERVE, as_long if guarded else [_answer(EOPNOTSUPP)])
    rule(_EXTENDED, [_answer(EOPNOTSUPP)])
    rule(_PROCESSES, [_answer(EPERM)])
    new = [_argument(0), (_ANY_BIT, 0, 1, _CLONE_NEW), _answer(EPERM)]
    thread = _CLONE_THREAD | _CLONE_FILES  # one table of descriptors for all threads
    rule(_CLONE, [*new, (_AND, 0, 0, thread), *_only(None, (thread,), EPERM), _answer()])
    in_band = [_argument(3), (_ANY_BIT, 0, 1, _OUT_OF_BAND), _answer(EPERM)]
    rule(_RECVFROM, [*in_band, _answer()])
    nobody = [*_only(_argument(4), (0,), EPERM), *_only(_argument(4, high=True), (0,), EPERM)]
    rule(_SENDTO, [*in_band, *nobody, _answer()])
    rule(_OF_ITSELF, [*_only(_argument(0), (0, pid), EPERM), _answer()])
    rule(_CLOCKS, [_argument(0), (_AT_LEAST, 0, 1, 16), _answer(EPERM), _answer()])
    for calls, (place, values, error) in _BY_ARGUMENT.items():
        rule(calls, [*_only(_argument(place), values, error), _answer()])
    kind = [_argument(1), (_AND, 0, 0, _KIND), *_only(None, (_STREAM,), EPERM)]
    rule(_SOCKETPAIR, [*_only(_argument(0), (_UNIX,), EPERM), *kind, _answer()])
    return [*code, _answer(ENOSYS)]


def _numbers(calls: str, column: int) -> Iterable[int]:
    words = calls.split()
    return [int(word) for word in words[1 + column :: 3] if word != "-"]


def _argument(place: int, high: bool = False) -> tuple[int, int, int, int]:
    """Load the lower or upper half of an argument."""
    return (_LOAD, 0, 0, 16 + 8 * place + 4 * high)


def _answer(error: int | None = None) -> tuple[int, int, int, int]:
    return (_RETURN, 0, 0, _ALLOW if error is None else _ERROR | error)


def _only(load: tuple[int, int, int, int] | None, values: Sequence[int], error: int) -> _Code:
    """Go on where the loaded word is one of the values, else refuse."""
    count = len(values)
    tests = [(_EQUAL, count - place, 0, value) for place, value in enumerate(values)]
    return [*([load] if load else []), *tests, _answer(error)]
