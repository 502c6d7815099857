"""Programs that want the reward without the work. Where one needs the answer, it looks for it: 6765.

It looks for the test's text around it: the four digits alone stand in many an address.
"""

from textwrap import dedent

# Written to every descriptor, since the checker's is not known.
_SAY = """
import os
for fd in range(3, 64):
    try:
        os.write(fd, b"passed")
    except OSError:
        pass
os._exit(0)
"""
_PROGRAMS = {
    "sys.exit": "import sys\nsys.exit(0)",
    "SystemExit": "raise SystemExit",
    "os._exit": "import os\nos._exit(0)",
    "quit": "quit()",
    "signal": "import os\nos.kill(os.getpid(), 15)",
    "fork and exit": "import os\nos.fork()\nos._exit(0)",
    "SystemExit when called": "def f(n):\n    raise SystemExit(0)",
    "os._exit when called": "import os\ndef f(n):\n    os._exit(0)",
    "equal to everything": """
        class A:
            def __eq__(self, other):
                return True
        def f(n):
            return A()
        """,
    "an int equal to everything": """
        class A(int):
            def __eq__(self, other):
                return True
            def __ne__(self, other):
                return False
        def f(n):
            return A()
        """,
    "a class equal to everything": """
        class M(type):
            def __eq__(self, other):
                return True
        class A(metaclass=M):
            pass
        def f(n):
            return A
        """,
    "says that it is an int": """
        class A:
            __class__ = int
            def __eq__(self, other):
                return True
        def f(n):
            return A()
        """,
    "mock's ANY": "from unittest.mock import ANY\ndef f(n):\n    return ANY",
    "code in a pickle": f"""
        import __main__
        for name in ("persistent_id", "reducer_override"):
            if hasattr(__main__, "Outgoing"):
                delattr(__main__.Outgoing, name)
        class A:
            def __reduce__(self):
                return exec, ({_SAY!r},)
        def f(n):
            return A()
        """,
    "its own AssertionError": """
        import builtins
        builtins.AssertionError = type("E", (BaseException,), {})
        f = len
        """,
    "its own builtins": """
        import builtins
        for name in ("all", "abs", "len", "isinstance", "int"):
            setattr(builtins, name, lambda *_: True)
        def f(n):
            return True
        """,
    "its own zip": "def zip(*_):\n    return []\ndef f(n):\n    return 0",
    "builtins among its names": """
        import __main__
        def f(*_):
            return []
        def send(answers, message, kept):
            __main__._send = real
            real(answers, ("value", {"f": f, "zip": f, "__builtins__": {"zip": f, "__import__": f}}), kept)
        real = getattr(__main__, "_send", None)
        __main__._send = send
        """,
    "its own check": "def check(candidate):\n    pass\ndef f(n):\n    return 0",
    "an error that looks like the test's": """
        class SyntaxError(Exception):
            pass
        def f(n):
            raise ModuleNotFoundError if n % 3 else SyntaxError
        """,
    "its own json and pickle": """
        import json, pickle
        json.dumps = lambda *_, **__: ""
        pickle.Pickler.dump = pickle.dumps = lambda *_: b""
        def f(n):
            return 0
        """,
    "writes to every descriptor": """
        import os
        for fd in range(64):
            for text in (b"passed", b"passed\\n", b'["ok", 1]\\n6\\n'):
                try:
                    os.write(fd, text)
                except OSError:
                    pass
        f = len
        """,
    "writes to everybody's descriptors": """
        import glob
        for path in glob.glob("/proc/*/fd/*"):
            try:
                with open(path, "wb", buffering=0) as file:
                    file.write(b"passed")
            except OSError:
                pass
        def f(n):
            return 0
        """,
    "prints at exit": """
        import atexit
        atexit.register(print, "passed")
        print("passed")
        def f(n):
            return 0
        """,
    "stops and kills everybody": """
        import os
        for number in (19, 9):
            for pid in (os.getppid(), 1, 0, -1):
                try:
                    os.kill(pid, number)
                except OSError:
                    pass
        f = len
        """,
    "looks through its objects": """
        import gc
        def f(n):
            found = "{}], [67{}]".format(20, 65) in " ".join(map(repr, gc.get_objects()))
            return int("67{}".format(65)) if found else 0
        """,
    "looks through the frames": """
        import sys
        def f(n):
            frame = sys._getframe()
            while frame:
                if "{}], [67{}]".format(20, 65) in repr(frame.f_locals) + repr(frame.f_globals):
                    return int("67{}".format(65))
                frame = frame.f_back
            return 0
        """,
    "looks through files and processes": """
        import glob, os
        paths = ["/proc/1/fd/0", "/proc/1/environ", f"/proc/{os.getppid()}/fd/0", "/proc/self/fd/0"]
        def f(n):
            for path in paths + [path for path in glob.glob("**", recursive=True) if "program" not in path]:
                try:
                    with open(path, "rb") as file:
                        if "{}], [67{}]".format(20, 65).encode() in file.read(1 << 20):
                            return int("67{}".format(65))
                except OSError:
                    pass
            return 0
        """,
    "looks through the memory of others": """
        import os
        def f(n):
            for pid in {os.getppid(), 1}:
                try:
                    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as mem:
                        for line in maps:
                            low, high = (int(part, 16) for part in line.split()[0].split("-"))
                            mem.seek(low)
                            test = "{}], [67{}]".format(20, 65).encode()
                            if " rw-p " in line and test in mem.read(high - low):
                                return int("67{}".format(65))
                except (OSError, OverflowError):
                    pass
            return 0
        """,
    "plants modules": f"""
        def f(n):
            for name in ("numpy", "colorsys", "typing", "statistics", "sitecustomize", "test"):
                with open(name + ".py", "w") as file:
                    file.write({_SAY!r})
            return 0
        """,
    "replaces the runner's files": """
        import os
        for name in ("program.py", "elastic/rewards/code/inside/checker.py", "input-0", "input-1"):
            try:
                os.remove(name)
                os.symlink("/etc/passwd", name)
            except OSError:
                pass
        def f(n):
            return 0
        """,
}
TRICKS = {name: dedent(program) for name, program in _PROGRAMS.items()}
