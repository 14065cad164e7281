"""A deck: the netlist of one ngspice run, and the hash of everything that determines its result."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from aimcard.models.errors import InputError

if TYPE_CHECKING:  # PySpice is GPL-3 and slow to import; the adapter needs only its text
    from PySpice.Spice.Netlist import Circuit

ACCURATE = "reltol=1e-4 chgtol=1e-16"
"""Options for every deck: with the default chgtol (1e-14 C) the step control ignores device charges."""
TIGHT = "reltol=1e-5 chgtol=1e-17 abstol=1e-14"
"""Options of the run that measures the reference's own numerical floor."""

# `.lib file section` includes a file; `.lib section` inside a library only opens a section.
_INCLUDE = re.compile(
    r"""^(?P<head>[ \t]*\.inc(?:lude)?[ \t]+)(?P<path>"[^"\n]+"|'[^'\n]+'|\S+)(?P<tail>[^\n]*)$
      | ^(?P<lhead>[ \t]*\.lib[ \t]+)(?P<lpath>"[^"\n]+"|'[^'\n]+'|\S+)(?P<ltail>[ \t]+[^\s;$*][^\n]*)$""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
_ANALYSES = (".tran", ".dc", ".ac", ".op", ".noise")
_OTHER_ANALYSES = (".tf", ".sens", ".disto", ".pz", ".four", ".sp", ".pss")
_NUMBER = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)(meg|mil|[tgkmunpfa])?[a-z]*", re.IGNORECASE)
_SCALE = {"t": 1e12, "g": 1e9, "meg": 1e6, "k": 1e3, "mil": 25.4e-6, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_SCALE |= {"p": 1e-12, "f": 1e-15, "a": 1e-18, "": 1.0}


class ModelLibrary(Protocol):
    """What a deck needs of a technology."""

    @property
    def name(self) -> str:
        """The technology's name."""
        ...

    def model_lines(self, corner: str, netlist: str) -> str:
        """The lines that bring a corner's models of the netlist's transistors into a deck."""
        ...


@dataclass(frozen=True)
class Deck:
    """One netlist with one analysis.

    name: for people (progress, kept failures); it does not enter the hash.
    text: from the first element to `.end`, *without* a title line (the adapter writes it).
    includes: absolute paths of the files that `text` includes, all of them.
    expected_cpu_s: expected run time [s]; it sets the order, the time estimate and the time limit.
    """

    name: str
    text: str
    includes: tuple[Path, ...] = ()
    expected_cpu_s: float = 10.0

    def __post_init__(self) -> None:
        where = f"deck '{self.name}'"
        lines = self.lines()
        if not lines or lines[-1].lower() != ".end":
            raise InputError(f"{where}: expected '.end' as the last line; got '{lines[-1] if lines else ''}'")
        words = [line.split()[0].lower() for line in lines]
        for banned in (".title", ".control", *_OTHER_ANALYSES):
            if banned in words:
                raise InputError(f"{where}: '{banned}' is not taken here; leave it out")
        analyses = [word for word in words if word in _ANALYSES]
        if len(analyses) != 1:
            raise InputError(f"{where}: expected one analysis of {', '.join(_ANALYSES)}; got {len(analyses)}")
        if not (self.expected_cpu_s > 0 and math.isfinite(self.expected_cpu_s)):
            raise InputError(f"{where}: expected_cpu_s must be positive; got {self.expected_cpu_s}")
        if ".noise" in analyses and any(not name.startswith("onoise") for name in self.saved()):
            # ngspice would write a second plot, of integrated noise, for them; densities alone make one plot.
            raise InputError(
                f"{where}: a .noise deck saves densities at the output, 'onoise_spectrum' and 'onoise.<element>'; "
                f"got {', '.join(self.saved())}"
            )
        self.stop_time_s()
        found = set(_included_files(self.text))
        if found != set(self.includes):
            wrong = ", ".join(sorted(str(path) for path in found ^ set(self.includes)))
            raise InputError(
                f"{where}: `includes` must be the files that the text includes; differing: {wrong}"
            )
        for path in self.includes:
            if not path.is_absolute():
                raise InputError(f"{where}: expected absolute include paths; got '{path}'")

    def lines(self) -> list[str]:
        """The text's lines with continuations ('+') joined, without comments and blank lines."""
        joined: list[str] = []
        for line in (raw.strip() for raw in self.text.splitlines()):
            if line.startswith("+") and joined:
                joined[-1] += " " + line[1:]
            elif line and not line.startswith("*"):
                joined.append(line)
        return joined

    def stop_time_s(self) -> float | None:
        """The end of the `.tran` analysis [s]; None for another analysis."""
        for line in self.lines():
            words = line.split()
            if words[0].lower() == ".tran":
                match = _NUMBER.fullmatch(words[2]) if len(words) > 2 else None
                if match is None:
                    raise InputError(
                        f"deck '{self.name}': expected '.tran step stop' in numbers; got '{line}'"
                    )
                return float(match[1]) * _SCALE[(match[2] or "").lower()]
        return None

    def saved(self) -> tuple[str, ...]:
        """Names on the `.save` lines, lower case."""
        saves = [line.lower().split() for line in self.lines()]
        return tuple(word for words in saves if words[0] == ".save" for word in words[1:])


def make_deck(
    circuit: Circuit,
    name: str,
    technology: ModelLibrary,
    corner: str,
    temperature_c: float,
    analysis: str,
    save: tuple[str, ...] | list[str],
    options: str = ACCURATE,
    expected_cpu_s: float = 10.0,
) -> Deck:
    """A deck of a PySpice circuit with a corner's models, a temperature [°C], options and one analysis.

    `analysis` is ngspice's own line (".tran 1n 130n"; a small step there caps ngspice's step and costs time),
    `save` names what is recorded ("v(bl)", "i(vclamp)"). Raises `InputError` for what ngspice would not take.
    """
    if isinstance(save, str) or not save:
        raise InputError(f"save: expected one or more names in a tuple; got {save!r}")
    if not math.isfinite(temperature_c):
        raise InputError(f"temperature_c: expected a finite temperature; got {temperature_c}")
    body = [line for line in str(circuit).splitlines() if not line.lower().startswith((".title", ".end "))]
    body = [line for line in body if line.strip() and line.strip().lower() != ".end"]
    text = "\n".join(
        [
            *body,
            technology.model_lines(corner, "\n".join(body)).rstrip("\n"),
            f".temp {temperature_c:.10g}",
            *([f".options {options}"] if options else []),
            f".save {' '.join(save)}",
            analysis,
            ".end",
            "",
        ]
    )
    return Deck(name, text, tuple(dict.fromkeys(_included_files(text))), expected_cpu_s)


def deck_hash(deck: Deck, simulator: str, memo: dict[Path, str] | None = None) -> str:
    """sha256 (hex) of what determines a deck's result: text, *content* of included files, simulator.

    Where the included files lie, and the deck's name, do not matter. `memo` keeps file hashes between calls.
    """
    memo = {} if memo is None else memo
    text = _hash_includes(deck.text, None, memo, depth=0)
    return hashlib.sha256(f"aimcard deck 1\n{simulator}\n{text}".encode()).hexdigest()


def _included_files(text: str) -> list[Path]:
    return [Path((match["path"] or match["lpath"]).strip("\"'")) for match in _INCLUDE.finditer(text)]


def _hash_includes(text: str, folder: Path | None, memo: dict[Path, str], depth: int) -> str:
    """`text` with the path on each .include or .lib line replaced by the hash of the file's content."""

    def replace(match: re.Match[str]) -> str:
        path = Path((match["path"] or match["lpath"]).strip("\"'"))
        path = path if folder is None else folder / path
        head, tail = match["head"] or match["lhead"], match["tail"] or match["ltail"] or ""
        return f"{head}sha256:{_file_hash(path, memo, depth)}{tail}"

    return _INCLUDE.sub(replace, text)


def _file_hash(path: Path, memo: dict[Path, str], depth: int) -> str:
    if path not in memo:
        if depth > 20:
            raise InputError(f"{path}: included files include each other in a circle")
        try:
            # latin-1 maps each byte to one character, so no content is lost or refused.
            content = path.read_text(encoding="latin-1")
        except OSError as error:
            raise InputError(f"{path}: expected a file to include; {error.strerror}") from None
        content = _hash_includes(content, path.parent, memo, depth + 1)
        memo[path] = hashlib.sha256(content.encode("utf-8")).hexdigest()
    return memo[path]
