"""The system calls that a sandboxed program may not make, as a seccomp filter.

Namespaces hide what is outside; the filter closes what they leave open: new namespaces and mounts, other
processes' memory, sockets that no network namespace holds (vsock), memory that belongs to no process (memfd,
System V), and large parts of the kernel that no solution of a task needs (bpf, io_uring, keys). It is written
by hand as classic BPF: libseccomp would be a dependency for a page. Source: seccomp(2) and linux/filter.h.
"""

import errno
import platform
import struct
from functools import lru_cache

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # operations of linux/bpf_common.h
_NUMBER, _ARCHITECTURE, _FIRST, _SECOND = (
    0,
    4,
    16,
    24,
)  # offsets in struct seccomp_data; arguments' low halves
_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000  # SECCOMP_RET_ALLOW, _KILL_PROCESS, _ERRNO

_NEW_NAMESPACE = 0x7E020000  # every CLONE_NEW* flag of clone
_SOCKETS = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6
_SET_DEATH_SIGNAL, _SIGKILL = 1, 9
_X32 = 0x40000000  # numbers from here on are a third set of x86-64

# machine -> (column of the tables below, AUDIT_ARCH_*)
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_JUDGED = {"clone": (56, 220), "clone3": (435, 435), "socket": (41, 198), "prctl": (157, 167)}
_REFUSED = {
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    # mounts and namespaces
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    # memory that is no process's
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    # parts of the kernel
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "perf_event_open": (298, 241),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}


@lru_cache(maxsize=1)
def program() -> bytes:
    """The filter of this machine, an array of struct sock_filter; empty where its numbers are not known."""
    if platform.machine() not in _MACHINES:
        return b""
    column, architecture = _MACHINES[platform.machine()]
    judged = {name: numbers[column] for name, numbers in _JUDGED.items()}
    allow = _step(_RETURN, _ALLOW)
    steps = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_EQUAL, architecture, 1, 0),
        _step(_RETURN, _KILL),  # the calls of another architecture have other numbers
        _step(_LOAD, _NUMBER),
        _step(_AT_LEAST, _X32, 0, 1),
        _fail(errno.ENOSYS),
        *(_on(numbers[column], _fail(errno.EPERM)) for numbers in _REFUSED.values()),
        # its flags lie in memory, where no filter can look; the C library then takes clone
        _on(judged["clone3"], _fail(errno.ENOSYS)),
        _on(
            judged["clone"],
            _step(_LOAD, _FIRST),
            _step(_ANY_BIT, _NEW_NAMESPACE, 0, 1),
            _fail(errno.EPERM),
            allow,
        ),
        _on(
            judged["socket"],
            _step(_LOAD, _FIRST),
            *(_step(_EQUAL, family, len(_SOCKETS) - index, 0) for index, family in enumerate(_SOCKETS)),
            _fail(errno.EAFNOSUPPORT),
            allow,
        ),
        # a program that unset the signal would outlive this process
        _on(
            judged["prctl"],
            _step(_LOAD, _FIRST),
            _step(_EQUAL, _SET_DEATH_SIGNAL, 0, 3),
            _step(_LOAD, _SECOND),
            _step(_EQUAL, _SIGKILL, 1, 0),
            _fail(errno.EPERM),
            allow,
        ),
        allow,
    ]
    return b"".join(steps)


def _step(operation: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    """One struct sock_filter; `yes` and `no` are instructions to skip."""
    return struct.pack("=HBBI", operation, yes, no, value)


def _fail(error: int) -> bytes:
    return _step(_RETURN, _FAIL | error)


def _on(number: int, *steps: bytes) -> bytes:
    """Steps for one call, which must end in a return; for another call they are skipped."""
    return _step(_EQUAL, number, 0, len(steps)) + b"".join(steps)
