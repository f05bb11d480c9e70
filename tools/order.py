#!/usr/bin/env python3
"""Which functions of a program run, each once, in the order in which they first do: what `tools/order.sh` makes its list of.

`tools/order.py PROGRAM COMMAND...`: COMMAND starts `PROGRAM agent`, maybe several times; all its descendants are watched. The
entry of each function has a breakpoint, which is taken away where it is hit: so the program runs at its own speed, with its kernel
programs and time-outs as ever. START seconds after it began all are set again: what
is hit then is steady work. First comes what only a start needs. For x86_64.
"""
import ctypes
import os
import signal
import struct
import subprocess
import sys
import time

START = 6.0
TICK = 0.25
# linux/ptrace.h
PEEKUSER, POKEUSER, CONT, SEIZE, LISTEN = 3, 6, 7, 0x4206, 0x4208
OPTIONS = 0x02 | 0x04 | 0x08 | 0x10 | 0x100000  # TRACEFORK, TRACEVFORK, TRACECLONE, TRACEEXEC, EXITKILL
EVENT_EXEC, EVENT_STOP = 4, 128
STOPS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
WALL = 0x40000000
RIP = 16 * 8  # sys/user.h, user_regs_struct
INT3 = 0xCC
PT_LOAD, PF_X = 1, 1

PTRACE = ctypes.CDLL(None, use_errno=True).ptrace
PTRACE.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
PTRACE.restype = ctypes.c_long


class Program:
    """Where an ELF file has which functions."""

    def __init__(self, path):
        self.path = os.path.realpath(path)
        with open(path, "rb") as file:
            data = file.read()
        (headers,) = struct.unpack_from("<Q", data, 32)
        size, count = struct.unpack_from("<HH", data, 54)
        for i in range(count):
            kind, flags, offset, address, _, length = struct.unpack_from("<IIQQQQ", data, headers + i * size)
            if kind == PT_LOAD and flags & PF_X:
                self.address, self.text = address, data[offset:offset + length]
        self.names = {}
        # Functions only: the assembler's tables are among the code.
        listed = subprocess.run(["readelf", "-sW", path], check=True, capture_output=True, text=True)
        for words in map(str.split, listed.stdout.splitlines()):
            if len(words) == 8 and words[3] == "FUNC" and words[6].isdigit():
                address = int(words[1], 16)
                if self.address <= address < self.address + len(self.text):
                    self.names.setdefault(address, words[7])
        armed = bytearray(self.text)
        for address in self.names:
            armed[address - self.address] = INT3
        self.armed = bytes(armed)


class Run:
    """One process of the program."""

    def __init__(self, program, pid):
        self.program, self.pid, self.begun = program, pid, time.monotonic()
        self.start, self.steady = {}, {}
        self.seen = self.start
        with open(f"/proc/{pid}/maps") as maps:
            self.base = min(int(line.split("-")[0], 16) for line in maps if line.rstrip().endswith(program.path))
        self.arm()

    def write(self, address, data):
        with open(f"/proc/{self.pid}/mem", "r+b", buffering=0) as memory:
            memory.seek(self.base + address)
            memory.write(data)

    def arm(self):
        self.write(self.program.address, self.program.armed)

    def settle(self):
        """Begins the second part, if it is time."""
        if self.seen is self.start and time.monotonic() - self.begun > START:
            self.seen = self.steady
            self.arm()

    def hit(self, at):
        """Takes a breakpoint away, if it is one."""
        address = at - self.base
        name = self.program.names.get(address)
        if name is not None:
            self.seen.setdefault(name)
            at = address - self.program.address
            self.write(address, self.program.text[at:at + 1])
        return name is not None


class Tracer:
    """Everything that descends from a command."""

    def __init__(self, program, command):
        self.program, self.runs, self.all = program, {}, []
        ready, go = os.pipe()
        child = os.fork()
        if child == 0:
            os.read(ready, 1)
            os.dup2(2, 1)  # what is printed here is the list
            os.execvp(command[0], command)
        if PTRACE(SEIZE, child, 0, OPTIONS) != 0:
            sys.exit(f"order: {command[0]} cannot be traced: {os.strerror(ctypes.get_errno())}")
        signal.signal(signal.SIGALRM, lambda *_: self.settle())
        signal.setitimer(signal.ITIMER_REAL, TICK, TICK)
        os.write(go, b"x")
        self.status = self.watch(child)

    def settle(self):
        for run in list(self.runs.values()):
            try:
                run.settle()
            except OSError:
                pass  # it has ended

    def watch(self, child):
        status = 1
        while True:
            try:
                tid, state = os.waitpid(-1, WALL)
            except ChildProcessError:
                signal.setitimer(signal.ITIMER_REAL, 0)
                return status
            if os.WIFSTOPPED(state):
                try:
                    self.stopped(tid, os.WSTOPSIG(state), state >> 16)
                except (OSError, ValueError):
                    PTRACE(CONT, tid, 0, 0)  # it was killed meanwhile
            else:
                self.runs.pop(tid, None)
                if tid == child:
                    status = os.waitstatus_to_exitcode(state)

    def stopped(self, tid, number, event):
        request, delivered = CONT, 0
        if event == EVENT_EXEC:
            self.runs.pop(tid, None)
            self.executed(tid)
        elif event == EVENT_STOP and number in STOPS:
            request = LISTEN
        elif event == 0 and not (number == signal.SIGTRAP and self.trapped(tid)):
            delivered = number
        PTRACE(request, tid, 0, delivered)

    def executed(self, pid):
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
        if os.path.realpath(f"/proc/{pid}/exe") == self.program.path and words[1:2] == [b"agent"]:
            self.runs[pid] = Run(self.program, pid)
            self.all.append(self.runs[pid])

    def trapped(self, tid):
        ctypes.set_errno(0)
        at = (PTRACE(PEEKUSER, tid, RIP, 0) & 0xFFFFFFFFFFFFFFFF) - 1
        with open(f"/proc/{tid}/status") as file:
            status = dict(line.split(":", 1) for line in file)
        # Of a thread; of a child that was forked and has not executed another program yet.
        run = self.runs.get(int(status["Tgid"])) or self.runs.get(int(status["PPid"]))
        if run is None or not run.hit(at):
            return False
        PTRACE(POKEUSER, tid, RIP, at)
        return True


def main():
    program, command = sys.argv[1], sys.argv[2:]
    tracer = Tracer(Program(program), command)
    if tracer.status != 0 or not tracer.all:
        sys.exit(f"order: {' '.join(command)} ended with {tracer.status}, {len(tracer.all)} agents seen")
    for number, run in enumerate(tracer.all, 1):
        for part, names in (("start", [name for name in run.start if name not in run.steady]), ("steady", run.steady)):
            print(f"# agent {number}, {part}")
            print("\n".join(names))


main()
