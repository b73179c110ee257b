"""The process that renders templates of others. Run as a script; knows nothing of llmctl.

A template is a program by somebody else. It runs in Jinja's immutable sandbox, which keeps it from
Python's objects, and in this process, whose kernel limits bound the CPU time and memory that the
sandbox does not: 'a' * 500000000 is a legal template. Killed, it takes one conversation with it.

stdin: messages of 4 bytes (length, little endian) and JSON. The first is {template, tokens, memory,
seconds}; each later one a list of jobs {messages, generation, spans, tools, chars}. stdout: for
each job {text, spans: [[start, end, loose], …]} or {error}, in the same framing, at once.
"""

import json
import os
import resource
import signal
import struct
import sys

MAX_TEXT = 1 << 26  # characters of one rendering
DATE = "26 Jul 2024"  # for templates that ask the clock: a conversation is the same on every day


def read(stream):
    """The next message; None at the end of the stream."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    return json.loads(stream.read(struct.unpack("<I", head)[0]))


def write(stream, value):
    """Send one message."""
    raw = json.dumps(value).encode()
    stream.write(struct.pack("<I", len(raw)) + raw)
    stream.flush()


def limit(memory):
    """From here on: `memory` bytes more than now, no writing, no new processes, no core."""
    import ctypes

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    try:
        with open("/proc/self/statm") as f:
            held = int(f.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + memory, held + memory))
    except OSError:
        pass  # no Linux: the clock remains
    for kind in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC):
        resource.setrlimit(kind, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS


def environment(mark, asks_clock):
    """Jinja as chat templates expect it; what {% generation %} holds goes through `mark`.

    Also a list that is not empty once a template with such blocks was read.
    """
    import jinja2
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    tagged = []

    class Generation(Extension):
        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            tagged.append(line)
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            call = self.call_method("marked")
            return nodes.CallBlock(call, [], [], body).set_lineno(line)

        def marked(self, caller):
            return mark(caller())

    def refuse(message):
        raise jinja2.TemplateError(message)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = refuse
    if asks_clock:
        made.globals["strftime_now"] = lambda format: DATE
    return made, tagged


class Renderer:
    """One template, and where in its output the assistant speaks."""

    def __init__(self, setup):
        self.chars = "\ufdd0\ufdd1\ufdd2"  # OPEN, CLOSE, HOLE: in no text, not in the template
        source = setup["template"]
        clock = "strftime_now" in source and "strftime_now is defined" not in source
        made, tagged = environment(lambda text: self.chars[0] + text + self.chars[1], clock)
        self.template = made.from_string(source)
        self.tokens = setup["tokens"]
        self.tagged = bool(tagged)

    def text(self, messages, generation, tools):
        """One rendering, with marks."""
        values = {**self.tokens, "tools": tools, "documents": None}
        done = self.template.render(messages=messages, add_generation_prompt=generation, **values)
        if len(done) > MAX_TEXT:
            raise ValueError("the rendering is too long")
        return done

    def answer(self, job):
        """The reply to a job: the text without marks, the spans of the assistant's turns."""
        messages, tools, self.chars = job["messages"], job["tools"], job["chars"]
        full, spans = self.unmarked(self.text(messages, job["generation"], tools))
        if not job["spans"]:
            return {"text": full, "spans": []}
        turns = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
        if not self.tagged:
            spans = [self.span(full, messages, i, job["generation"], tools) for i in turns]
        if len(spans) != len(turns):
            return {"error": f"{len(spans)} generation blocks for {len(turns)} assistant turns"}
        return {"text": full, "spans": spans}

    def unmarked(self, text):
        """(text, spans) of a text with marks."""
        spans, parts, at = [], [], 0
        for piece in text.split(self.chars[0]):
            inner, mark, after = piece.partition(self.chars[1])
            if mark:
                spans.append([at, at + len(inner), False])
            parts += [inner, after]
            at += len(inner) + len(after)
        return "".join(parts), spans

    def span(self, full, messages, i, generation, tools):
        """Where turn i stands in the rendering of all: between what comes before and after it.

        Some templates write a turn in another way once others follow (they drop its reasoning):
        then the end is loose: it is the next control token that ends a turn. Where not even what
        comes before is the same, the content is found by a hole put in its place.
        """
        before, through = self.tried(messages[:i], True, tools), None
        last = i + 1 == len(messages) and not generation
        through = full if last else self.tried(messages[: i + 1], False, tools)
        start = end = None
        if before is not None and full.startswith(before):
            start = len(before)
        if through is not None and full.startswith(through):
            end = len(through)
        if start is not None and end is not None and start <= end:
            return [start, end, False]
        if start is not None:
            return [start, start, True]
        holed = [*messages[:i], {**messages[i], "content": self.chars[2]}, *messages[i + 1 :]]
        text = self.tried(holed, generation, tools) or ""
        head, hole, tail = text.partition(self.chars[2])
        if not hole or not full.startswith(head) or not full.endswith(tail):
            raise ValueError("the template writes a turn differently each time")
        inner = len(full) - len(tail)
        if inner < len(head) or full[len(head) : inner].strip() != messages[i]["content"].strip():
            raise ValueError("the template does not write a turn's content as it is")
        return [len(head), inner, True]

    def tried(self, messages, generation, tools):
        """A rendering; None where the template refuses it."""
        try:
            return self.unmarked(self.text(messages, generation, tools))[0]
        except MemoryError:
            raise
        except Exception:
            return None


def main():
    """Serve jobs until stdin ends."""
    sys.path.append(sys.argv[1])
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    setup = read(stdin)
    environment(str, True)  # its modules are not the template's memory
    limit(setup["memory"])
    signal.setitimer(signal.ITIMER_PROF, setup["seconds"])
    try:
        renderer = Renderer(setup)
    except MemoryError:
        os._exit(3)
    except Exception as error:
        write(stdout, {"error": f"{type(error).__name__}: {error}"[:500]})
        return
    write(stdout, {"tagged": renderer.tagged})
    while (jobs := read(stdin)) is not None:
        for job in jobs:
            signal.setitimer(signal.ITIMER_PROF, setup["seconds"])
            try:
                reply = renderer.answer(job)
            except MemoryError:
                os._exit(3)  # the heap may be in any state
            except Exception as error:
                reply = {"error": str(error)[:500] or type(error).__name__}
            signal.setitimer(signal.ITIMER_PROF, 0)
            write(stdout, reply)


if __name__ == "__main__":
    main()
