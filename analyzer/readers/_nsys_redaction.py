r"""A copy of an nsys SQLite export that can be shared: what identifies people and machines is taken out.

An export says much about its owner: nsys stores the environment of processes, command lines, program
output, host, user and path names. The copy keeps what an analysis needs. Its rules:

**Never altered.** Names of kernels and of API and operating-system functions, labels of `ENUM_*` tables,
names of GPUs and of metrics, and the columns and rows of all tables but those of the next paragraph. Every
number, except the GUIDs of network cards, which hold a hardware address: they become 1, 2, …. The UTC start
of the session stays, because power logs are aligned by it.

**Removed rows.** Of `META_DATA_CAPTURE`, `META_DATA_EXPORT` and `TARGET_INFO_SYSTEM_ENV` only keys known to
be harmless stay (options, versions, CPU, driver, operating system), so a key of a future nsys is removed at
first.

**Replaced values.** By `<removed>`: what a program printed, the content of files, NVTX binary payloads, the
local time, any text with a NUL inside (so nsys joins environments and command lines), and the strings of
`StringIds` that no table uses (environments are found there). By `<name>`: names of processes and threads,
which cover the whole machine, except those of well-known runtimes such as `python` or `cuda-EvtHandlr`. By
`<nic>`: network cards. By `<target>`: targets other than `Local (CLI)`. By `<gpu-1>`, `<gpu-2>`, …: GPU
UUIDs, the same for one GPU everywhere. By `<path>`: paths of files and of the modules of call stacks.

**Swept text.** Every other text of every table, known or not, NVTX messages among them. In it are replaced:

* absolute paths, by `<path>`. A path is one that starts at a usual root of a file system (`/home`, `/usr`,
  `/tmp`, …), begins like a path of the environment or the command line, or holds the name of a user or
  host. So layer names of TensorRT and ONNX (`/conv1/Conv + PWN(/blocks.0/attn)`) stay. A root that could
  name a layer as well (`/data`, `/work`, `/global`, …) counts unless the rest looks like a layer. `~/…`,
  `C:\…` and `\\server\…` are paths too. The base name of a shared library stays (`<path>/libcudart.so.12`)
  unless it holds such a name;
* names of users and hosts that the environment or the metadata tell, by `<user>` and `<host>`, in upper or
  lower case. One of fewer than eight letters must stand alone (`lee_model`, not `sleep`). Left are those of
  fewer than three letters and those that tell nothing (`root`, `user`, `nvidia`, `jetson`, `localhost`);
* e-mail, IP and hardware addresses, by `<email>`, `<ip>` and `<mac>`; tokens and passwords, by `<secret>`;
  settings such as `HOME=…`, by `HOME=<removed>`, and a text with two of these as a whole.

A BLOB in which any of this is found is emptied; one that is compressed or encrypted cannot be searched.
Words that only their owner knows to be private (a project, a model, a relative path) stay. `--drop-table`
leaves out whole tables.
"""

from __future__ import annotations

import ipaddress
import re
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from nitro.errors import InputError, UsageError

from ._sqlite_file import SqliteFile, quoted
from .nsys_sqlite import read

SUFFIXES = (".sqlite", ".sqlite.xz", ".sqlite.zst", ".sqlite.gz")
REMOVED = "<removed>"
_PATH = "<path>"


@dataclass(frozen=True, slots=True)
class Change:
    """How many values (or rows) of one kind were taken out of one table."""

    table: str
    what: str
    count: int


@dataclass(frozen=True, slots=True)
class RedactionSummary:
    """What `redact` did; `notes` are sentences about what it could not do or what was not read."""

    changes: tuple[Change, ...]
    notes: tuple[str, ...]
    source_bytes: int
    target_bytes: int


def redact(source: Path, target: Path, *, drop_tables: Sequence[str] = ()) -> RedactionSummary:
    """Write a copy of the export `source` without private data to `target`; the module states the rules.

    The source is opened read-only. The copy is built beside `target` and takes its name, replacing what was
    there, only when it is complete. Pages are written anew, so no text of the source is left in free space.

    Args:
        source: an nsys SQLite export, plain or compressed.
        target: another file, whose suffix is one of `SUFFIXES` and decides the compression.
        drop_tables: tables to leave out as a whole, in any case of letters.

    Raises:
        InputError: `source` is no nsys export, is damaged, or holds a table that cannot be redacted.
        UsageError: `target` cannot be written or is `source`, or a table to drop does not exist.
    """
    if not target.name.endswith(SUFFIXES):
        raise UsageError(f"{target}: the suffix decides the compression; end the name in {', '.join(SUFFIXES)}.")
    read(source)
    if target.exists() and target.samefile(source):
        raise UsageError(f"{target}: this is the trace itself, which is never changed; give another name.")
    with _writing(target), tempfile.TemporaryDirectory(prefix=".nitro-redact-", dir=target.parent) as folder:
        working, clean = Path(folder, "working.sqlite"), Path(folder, "clean.sqlite")
        with SqliteFile(source) as file:
            dropped = _tables_to_drop(file, drop_tables)
            _check_space(target, file.size_bytes)
            # Unlike a copy of the file, this leaves free pages out and never opens the source for writing.
            file.rows("vacuum into ?", (str(working),))
            notes = list(file.notes)
        with closing(sqlite3.connect(working, isolation_level=None)) as database:
            redaction = _Redaction(source, database)
            redaction.run(dropped)
            database.execute("vacuum into ?", (str(clean),))
        working.unlink()
        packed = _compressed(clean, target.name)
        summary = RedactionSummary(
            changes=redaction.changes(),
            notes=(*notes, *redaction.notes),
            source_bytes=source.stat().st_size,
            target_bytes=packed.stat().st_size,
        )
        packed.replace(target)
    return summary


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Turn every failure to write into one sentence."""
    try:
        yield
    except FileNotFoundError:
        raise UsageError(f"{target}: the folder does not exist; create it or give another path.") from None
    except OSError as error:
        raise UsageError(f"{target}: cannot be written ({error.strerror}); give another path.") from None
    except sqlite3.OperationalError as error:
        if "disk" not in str(error) and "unable to open" not in str(error):
            raise
        raise UsageError(f"{target}: cannot be written ({error}); free some space or give another path.") from None


def _check_space(target: Path, size_bytes: int) -> None:
    free_bytes = shutil.disk_usage(target.parent).free
    if free_bytes < 2 * size_bytes:
        raise UsageError(
            f"{target}: {2 * size_bytes:,} bytes are needed there for the copy while it is made and "
            f"{free_bytes:,} are free; give a path on another disk."
        )


def _tables_to_drop(file: SqliteFile, asked: Sequence[str]) -> tuple[str, ...]:
    rows = file.rows("select name from sqlite_master where type = 'table' order by name")
    by_lower = {name.lower(): name for (name,) in rows if not name.startswith("sqlite_")}
    for name in asked:
        if name.lower() not in by_lower:
            known = ", ".join(table for table in by_lower.values() if not table.startswith("ENUM_"))
            raise UsageError(f"{file.path}: there is no table {name} to drop; the trace holds {known}.")
    return tuple(dict.fromkeys(by_lower[name.lower()] for name in asked))


def _compressed(plain: Path, name: str) -> Path:
    """Return `plain`, or a compressed file beside it, as the name of the target asks."""
    if name.endswith(".sqlite"):
        return plain
    packed = plain.with_name("packed")
    with packed.open("wb") as raw, _compressor(name, raw) as stream, plain.open("rb") as data:
        shutil.copyfileobj(data, stream, 1 << 20)
    return packed


def _compressor(name: str, raw: BinaryIO) -> Any:
    if name.endswith(".xz"):
        import lzma

        return lzma.LZMAFile(raw, "wb")
    if name.endswith(".gz"):
        import gzip

        # Without a name and a time, which the format would keep.
        return gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0)
    import zstandard

    return zstandard.ZstdCompressor(level=9).stream_writer(raw, closefd=False)


# ---- What the trace tells about its owner ----------------------------------------------------------------

_USER_KEY = re.compile(r"(?:^|_)(?:USER|USERNAME|LOGNAME|ACCOUNT|AUTHOR_NAME|COMMITTER_NAME)$")
_HOST_KEY = re.compile(r"(?:^|_)(?:HOST|HOSTNAME|HOST_NAME|NODENAME|NODELIST|COMPUTERNAME)$")
_HOME_KEYS = {"HOME", "USERPROFILE"}
_SECRET_WORD = r"(?:TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY|PRIVATE_KEY|CREDENTIALS?)"
_SECRET_KEY = re.compile(_SECRET_WORD + "(?!S|IZE)")
_HOST_NAME = re.compile(r"[^\W_][\w-]*(?:\.[\w-]+)*")
# Names of accounts, hosts, GPU families and tools that many machines share, and the words of our tokens.
_COMMON_NAME = re.compile(
    r"admin|administrator|app|aws|azureuser|build|builder|centos|container|debian|demo|desktop|dev"
    r"|docker|ec2-user|guest|home|host|jenkins|jetson|laptop|linux|local|localhost|localdomain|login"
    r"|model|name|nano|nobody|node|none|nvidia|orin|owner|pi|root|runner|server|service|system|tegra"
    r"|test|thor|tmp|ubuntu|unknown|user|vagrant|vscode|windows|work|worker|workstation|xavier|null"
    r"|true|false|ada|ampere|blackwell|hopper|kepler|lovelace|maxwell|pascal|turing|volta|geforce"
    r"|tesla|conda|cuda|cudnn|github|gitlab|gpu|jupyter|kaggle|nsight|nsys|python|pytorch|tensorrt"
    r"|torch|triton|email|gpu-\d+|ip|mac|nic|path|removed|secret|target"
)
_SHORTEST_NAME = 3
_STANDS_ALONE_BELOW = 8
_SHORTEST_IN_CAMEL_CASE = 5


@dataclass(frozen=True, slots=True)
class _Owner:
    """Names learned from the trace, each with its token; the keys of `names` are in lower case."""

    names: Mapping[str, str]
    literals: Mapping[str, str]
    spaced_homes: frozenset[str]
    folders: frozenset[tuple[str, str]]
    working_roots: frozenset[str]


class _Learning:
    """Collects an `_Owner` from settings (`KEY=VALUE`) and from single values of the metadata."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._literals: dict[str, str] = {}
        self._spaced_homes: set[str] = set()
        self._folders: set[tuple[str, str]] = set()
        self._working_roots: set[str] = set()
        self._owners_of_homes: set[str] = set()

    def owner(self) -> _Owner:
        """Return what was learned."""
        # `/home/grads/lee` names a group too, so these names serve only where no setting tells the user.
        if "<user>" not in self._names.values():
            for name in sorted(self._owners_of_homes):
                self.user(name)
        return _Owner(
            self._names,
            self._literals,
            frozenset(self._spaced_homes),
            frozenset(self._folders),
            frozenset(self._working_roots),
        )

    def setting(self, entry: str) -> None:
        """Learn from one setting of an environment."""
        key, separator, value = entry.partition("=")
        key, value = key.strip(), value.strip().strip('"')
        if not separator or not value:
            return
        upper = key.upper()
        if _SECRET_KEY.search(upper) and (len(value) >= 12 or (len(value) >= 6 and not value.isalpha())):
            self._literals[value] = "<secret>"
        if _USER_KEY.search(upper):
            self.user(value)
        if _HOST_KEY.search(upper):
            self.host(value)
        if upper in _HOME_KEYS:
            self.home(value)
        if upper == "PWD":
            self.working_folder(value)
        if upper == "SESSION_MANAGER":
            self.host(value.partition("/")[2].partition(":")[0])
        if upper.startswith("SSH_"):
            self._addresses(value)
        self.paths(value)

    def user(self, value: str) -> None:
        """Learn the name of a user, without the domain where there is one."""
        name = re.split(r"[\\/]", value)[-1].partition("@")[0].strip()
        if len(name) <= 64:
            self._name(name, "<user>")

    def host(self, value: str) -> None:
        """Learn the name of a host, and its first label where it is a full one; of `user@host` both."""
        user, at, name = value.strip().rpartition("@")
        if at:
            self.user(user)
        if _HOST_NAME.fullmatch(name) and "-linux-" not in name and not _is_address(name):
            self._name(name, "<host>")
            self._name(name.partition(".")[0], "<host>")

    def home(self, value: str) -> None:
        """Learn a home directory and the user whose it is."""
        parts = [part for part in re.split(r"[\\/]+", value) if part]
        if len(parts) >= 2:
            self.user(parts[-1])
            if " " in value:
                self._spaced_homes.add(value.rstrip("\\/"))

    def working_folder(self, value: str) -> None:
        """Learn the root of the folder in which the program ran."""
        parts = [part for part in value.split("/") if part]
        if value.startswith("/") and parts:
            self._working_roots.add(parts[0])

    def paths(self, value: str) -> None:
        """Learn how the absolute paths in a text begin."""
        for match in _POSIX_PATH.finditer(value):
            parts = _components(match[0])
            if len(parts) >= 2:
                self._folders.add((parts[0], parts[1]))
                if parts[0] in {"home", "Users"}:
                    self._owners_of_homes.add(parts[1])

    def gpus(self, uuids: Iterable[str]) -> None:
        """Learn the UUIDs of the GPUs, in their order."""
        known = dict.fromkeys(uuid for uuid in uuids if _UUID.fullmatch(uuid) and uuid.strip("0-"))
        self._literals.update({uuid: f"<gpu-{number}>" for number, uuid in enumerate(known, 1)})

    def _addresses(self, value: str) -> None:
        for word in value.split():
            if ":" in word and _is_address(word):
                self._literals[word] = "<ip>"

    def _name(self, name: str, token: str) -> None:
        lower = name.lower()
        if len(lower) >= _SHORTEST_NAME and not lower.isdigit() and not _COMMON_NAME.fullmatch(lower):
            self._names.setdefault(lower, token)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


# ---- Rules for one text ----------------------------------------------------------------------------------

_STOP = r"\s/\\\x00:;,'\"`()\[\]{}<>|*?&"
_PART = rf"(?:[^{_STOP}]|\\u[0-9a-fA-F]{{4}})+"
# JSON may write a slash as \/. Single blanks are taken into a path only where another slash follows.
_POSIX_PATH = re.compile(
    rf"(?:(?<![\w.~/\\])(?<!path>)|(?<=-[IL]))(?:\\?/){{1,3}}{_PART}(?:(?:\\?/)+{_PART})*"
    rf"(?:(?<=/)|(?<!\.)(?:[ ](?![-+])[^{_STOP}.]+){{1,3}}/{_PART}(?:\\?/{_PART})*)?(?:\\?/)?"
)
_HOME_PATH = re.compile(rf"(?<![\w~>])~[\w.-]*(?:/{_PART})+/?")
_WINDOWS_PATH = re.compile(
    r"(?<![A-Za-z0-9])(?:[A-Za-z]:\\{1,2}|[A-Z]:/|\\{2,4}(?=[\w.-]+\\{1,2}[\w$]))"
    r"(?:[^\\/:*?\"<>|\r\n\x00]+(?:\\{1,2}|/))*[^\\/:*?\"<>|\s\x00]+"
)
_CERTAIN_ROOT = re.compile(
    r"home\d*|Users|tmp|usr|opt|etc|mnt\d*|proc|sys|lib(?:32|64)|bin|sbin|boot|srv|snap|nix|private|Volumes"
    r"|Applications|Library|System|workspaces?|p?scratch\w*|lscratch|gpfs\w*|lustre\w*|nfs\w*|cvmfs|afs|beegfs\w*"
)
_POSSIBLE_ROOT = re.compile(
    r"root|var|run|dev|lib|media|data\d*|datasets?|work\d*|global|users?|projects?|apps?|code|content|src|local"
    r"|shared?|storage|exports?|soft|software|net|cluster|archive|cache|volume\d*|(?:disk|ssd|hdd|raid)\d*"
)
_LAYER_PART = re.compile(r"\w+\.\d+")
_OPERATOR = re.compile(
    r"(?:Add|Sub|Mul|Div|Pow|Sqrt|Exp|Log|Erf|Abs|Neg|Min|Max|Sum|Mean|Clip|Cast|Cos|Sin|Tanh|Sigmoid|Softmax"
    r"|Softplus|\w*Relu|Elu|Selu|Gelu|HardSwish|HardSigmoid|Mish|Conv\w*|MatMul\w*|Gemm|Einsum|Transpose|Reshape"
    r"|Flatten|Slice|Split|Squeeze|Unsqueeze|Concat|Gather\w*|Scatter\w*|Pad|Tile|Expand|Resize|Upsample|Reduce\w+"
    r"|\w*Pool|\w*Normalization|Shape|Size|Constant\w*|Identity|Where|Equal|Less\w*|Greater\w*|Not|And|Or|Xor"
    r"|TopK|ArgM\w+|NonZero|Range|CumSum|LSTM|GRU|RNN|\w*QuantizeLinear|Dropout|GridSample|Trilu|Mod|Floor|Ceil"
    r"|Round|Sign|Reciprocal|InstanceNorm\w*|DepthToSpace|SpaceToDepth|NonMaxSuppression|RoiAlign|If|Loop|Scan)"
    r"(?:_\d+)*(?:_output_\d+)?"
)
_FILE_NAME = re.compile(r".+\.[A-Za-z]\w{0,9}")
_SHARED_LIBRARY = re.compile(r"[\w.+-]+\.(?:so(?:\.[\w.-]+)?|dll|dylib|ko)", re.IGNORECASE)

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_PREFIXED_UUID = re.compile(r"\b(?:GPU|MIG)-" + _UUID.pattern)
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@<>]+@")
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}\b")
_REMOTE = re.compile(r"(?<![\w.+-])[\w.+-]+@[\w.-]+(?=:[/~])")
_OCTET = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
_IPV4 = re.compile(rf"(?:(?<![\w.+/-])|(?<=//)|(?<=@))(?!127\.|0\.0\.0\.0)(?:{_OCTET}\.){{3}}{_OCTET}(?![\w-]|\.\w)")
# Four numbers after one of these words are a version.
_VERSION_BEFORE = re.compile(
    r"(?:v|ver|version|release|rev|cuda|cudnn|cublas|cupti|tensorrt|trt|nccl|driver|toolkit|nsys|systems)"
    r"[\"']?[\s:=]{0,3}[\"']?$",
    re.IGNORECASE,
)
_IPV6 = re.compile(
    r"(?<![\w:])(?:(?:fe80|f[cd][0-9a-f]{2}):(?::?[0-9a-f]{1,4}){1,7}|(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4})"
    r"(?![\w:])",
    re.IGNORECASE,
)
_MAC = re.compile(r"(?<![\w:-])(?:[0-9a-f]{2}:){5}[0-9a-f]{2}(?![\w:-])", re.IGNORECASE)
_SECRET_SETTING = re.compile(rf"\b([A-Z0-9_]*{_SECRET_WORD})=(?!<)[^\s;]+")
_SECRET_OPTION = re.compile(
    r"(?<![\w-])(--?(?:[\w-]+-)?(?:api[-_]?key|password|passwd|secret|token))(?:=|\s+)(?![<-])\S+",
    re.IGNORECASE,
)
_SECRET_SHAPE = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|sk-[\w-]{20,}"
    r"|AKIA[A-Z0-9]{16}|xox[abp]-[\w-]{10,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)"
)
_SETTING = re.compile(
    r"(?<![\w-])(HOME|USER|LOGNAME|USERNAME|USERPROFILE|PATH|PWD|OLDPWD|SHELL|HOSTNAME|MAIL|LD_LIBRARY_PATH"
    r"|PYTHONPATH|SSH_CLIENT|SSH_CONNECTION|SSH_AUTH_SOCK|XDG_RUNTIME_DIR)=(?!<)(?:\"[^\"]*\"|[^\s;]*)"
)
_WELL_KNOWN_NAME = re.compile(
    r"|python[\d.]*|nsys(?:-launcher|-tee)?|\[NSys.*\]|NSys|cuda-EvtHandlr|cuda[0-9a-f]{8,}|CUPTI worker \w*"
    r"|\[DALI\].*|pt_[a-z_]+\d*|NCCL[ \w]*|MPI Rank \d+|trtexec|tritonserver|nvidia-smi|tegrastats"
)
_LOCAL_TARGET = "Local (CLI)"
_UNKNOWN_FILE = re.compile(r"Unknown file #\d+")


def _components(path: str) -> list[str]:
    return [part for part in re.split(r"[\\/]+", path) if part]


class _Rules:
    """Functions from a text to the text that may be shared. Each is idempotent."""

    def __init__(self, owner: _Owner, kept: frozenset[str]) -> None:
        """Rules for the texts of `owner`; `kept` are texts that are never altered."""
        self._owner = owner
        self._kept = kept
        self._names = _any_of(owner.names, flags=re.IGNORECASE)
        self._literals = _any_of(owner.literals)
        self._homes = _any_of(owner.spaced_homes, rf"(?:[\\/][^{_STOP}]*)*")

    def holds_name(self, text: str) -> bool:
        """Return whether a learned name stands in the text."""
        if self._literals is not None and self._literals.search(text):
            return True
        return self._names is not None and any(map(_is_whole_name, self._names.finditer(text)))

    def text(self, text: str) -> str:
        """Sweep a text of which nothing is known."""
        return text if text in self._kept else self.any_text(text)

    def any_text(self, text: str) -> str:
        """Sweep a text even if its value is one that is kept elsewhere."""
        if "\x00" in text.rstrip("\x00"):
            return REMOVED
        if len({match[1] for match in _SETTING.finditer(text)}) >= 2:
            return REMOVED
        text = _SETTING.sub(rf"\1={REMOVED}", text)
        text = _SECRET_SETTING.sub(r"\1=<secret>", text)
        text = _SECRET_OPTION.sub(r"\1=<secret>", text)
        text = _SECRET_SHAPE.sub("<secret>", text)
        if self._literals is not None:
            text = self._literals.sub(lambda match: self._owner.literals[match[0]], text)
        text = _PREFIXED_UUID.sub("<gpu>", text)
        if "@" in text:
            text = _CREDENTIALS.sub("<user>@", text)
            text = _EMAIL.sub("<email>", text)
            text = _REMOTE.sub("<user>@<host>", text)
        text = self._without_paths(text)
        text = _IPV4.sub(_address_or_version, text)
        if ":" in text:
            text = _MAC.sub("<mac>", _IPV6.sub("<ip>", text))
        if self._names is not None:
            text = self._names.sub(self._name_token, text)
        return text

    def path(self, text: str) -> str:
        """Redact a text that is a path: as a whole when it has a folder, else like any text."""
        if text.startswith(_PATH) or text in self._kept:
            return text
        if "/" in text or "\\" in text:
            return self._path_token(text)
        return self.text(text)

    def file(self, text: str) -> str:
        """Redact the name of a file, also one without a folder."""
        if not text or text.startswith(_PATH) or _UNKNOWN_FILE.fullmatch(text):
            return text
        return self._path_token(text)

    def name(self, text: str) -> str:
        """Redact the name of a process or thread."""
        return text if _WELL_KNOWN_NAME.fullmatch(text) else "<name>"

    def gpu(self, text: str) -> str:
        """Redact the UUID of a GPU."""
        return self._owner.literals.get(text, text)

    def blob_is_private(self, blob: bytes) -> bool:
        """Return whether any rule finds something in the bytes, read as UTF-8 or UTF-16."""
        readings = (
            blob.decode("utf-8", "replace"),
            *(blob[at:].decode("utf-16-le", "replace") for at in (0, 1)),
        )
        return any(self.any_text(text) != text for text in (reading.replace("\x00", "\n") for reading in readings))

    def _without_paths(self, text: str) -> str:
        if "\\" in text or ":/" in text:
            text = _WINDOWS_PATH.sub(lambda match: self._path_token(match[0]), text)
        if "/" not in text and "\\" not in text:
            return text
        if self._homes is not None:
            text = self._homes.sub(lambda match: self._path_token(match[0]), text)
        text = _HOME_PATH.sub(lambda match: self._path_token(match[0]), text)
        return _POSIX_PATH.sub(self._path_or_layer, text)

    def _name_token(self, match: re.Match[str]) -> str:
        return self._owner.names.get(match[0].lower(), "<user>") if _is_whole_name(match) else match[0]

    def _path_or_layer(self, match: re.Match[str]) -> str:
        # A full stop ends the sentence, not the name of a file.
        path = match[0].rstrip(".")
        return self._path_token(path) + match[0][len(path) :] if self._is_path(path) else match[0]

    def _is_path(self, text: str) -> bool:
        parts = _components(text)
        if len(parts) < 2:
            return False
        if _CERTAIN_ROOT.fullmatch(parts[0]) or (parts[0], parts[1]) in self._owner.folders:
            return True
        if self.holds_name(text):
            return True
        is_file = _FILE_NAME.fullmatch(parts[-1]) is not None
        if _POSSIBLE_ROOT.fullmatch(parts[0]):
            is_layer = _OPERATOR.fullmatch(parts[-1]) or any(map(_LAYER_PART.fullmatch, parts))
            return is_file or not is_layer
        return is_file and parts[0] in self._owner.working_roots

    def _path_token(self, path: str) -> str:
        base = (_components(path) or [""])[-1]
        lower = base.lower()
        if _SHARED_LIBRARY.fullmatch(base) and not any(name in lower for name in self._owner.names):
            return f"{_PATH}/{base}"
        return _PATH


def _address_or_version(match: re.Match[str]) -> str:
    before = match.string[max(0, match.start() - 16) : match.start()]
    return match[0] if _VERSION_BEFORE.search(before) else "<ip>"


def _is_whole_name(match: re.Match[str]) -> bool:
    """Return whether a learned name that was found is one, and no part of another word."""
    name, text = match[0], match.string
    if len(name) >= _STANDS_ALONE_BELOW:
        return True
    prefix, after = text[max(0, match.start() - 3) : match.start()], text[match.end() : match.end() + 1]
    before = prefix[-1:]
    is_hump = len(name) >= _SHORTEST_IN_CAMEL_CASE
    starts = not _is_letter(before) or prefix.lower() == "lib" or (is_hump and before.islower() and name[0].isupper())
    ends = not _is_letter(after) or (is_hump and name[-1].islower() and after.isupper())
    return starts and ends


def _is_letter(character: str) -> bool:
    # Only Latin letters: a Korean particle follows a name without a blank.
    return character.isascii() and character.isalpha()


def _any_of(literals: Iterable[str], tail: str = "", flags: int = 0) -> re.Pattern[str] | None:
    longest_first = sorted(literals, key=lambda literal: (-len(literal), literal))
    if not longest_first:
        return None
    return re.compile(f"(?:{'|'.join(map(re.escape, longest_first))}){tail}", flags)


# ---- Rules for tables ------------------------------------------------------------------------------------

_METADATA_TABLES = ("META_DATA_CAPTURE", "META_DATA_EXPORT", "EXPORT_META_DATA")
_SYSTEM_TABLE = "TARGET_INFO_SYSTEM_ENV"
_PLAIN_VALUE = re.compile(r"|true|false|[-+]?\d+(?:\.\d+)?", re.IGNORECASE)
_PRIVATE_OPTION = re.compile(r"ENVIRONMENT|ARGUMENT|COMMAND|WORKING_DIR|USER|HOST|SESSION|DISPLAY_NAME|PACKAGE")
_TEXT_OPTION = re.compile(
    r"(?:.*:)?(?:CAPTURE_EVENT_TYPE|HOW_TO_ATTACH|DEVICE_TYPE|(?:\w+_)?(?:MODE|TRIGGER|TRIGGER_TYPE|SCOPE))"
    r"|EXPORT_(?:ARCH|PLATFORM|TIME|TIME_UTC|PARAM_EXPORT_TYPE|PRODUCT_\w+|SCHEMA_VERSION\w*)"
)
_WORDS = re.compile(r"[\w .:+-]{1,80}")
# nameEnum of what describes the CPU, the driver, the operating system and the sampling options.
_SYSTEM_TEXTS = {3, 5, 7, 13, 14, 205, 600, 601, 605, 611, 617, 618, 882, 902, 905, 911, 912, 921, 923}
_SYSTEM_PRIVATE = {610, 619, 721, 722}
_SYSTEM_ENVIRONMENT, _SYSTEM_HOST = 610, 619

_KEPT_TABLE = re.compile(r"ENUM_.*|TARGET_INFO_(?:GPU|SOC)_METRICS")
_KEPT_LABELS = {"name", "label", "typeName", "metricName"}
_KEPT_COLUMNS = {
    ("TARGET_INFO_GPU", "name"),
    ("TARGET_INFO_GPU", "chipName"),
    ("TARGET_INFO_CUDA_GPU", "name"),
}
_TEXT_RULES: dict[tuple[str, str], tuple[str, str]] = {
    ("ANALYSIS_FILE", "content"): ("removed", "contents of files"),
    ("ANALYSIS_FILE", "filename"): ("file", "paths"),
    ("NET_IB_DEVICE_INFO", "des"): ("nic", "network devices"),
    ("NET_IB_DEVICE_INFO", "name"): ("nic", "network devices"),
    ("NET_IB_DEVICE_PORT_INFO", "portLabel"): ("nic", "network devices"),
    ("NVTX_EVENTS", "binaryData"): ("removed", "binary payloads"),
    ("OSRT_FILE_ACCESS_DESCRIPTORS", "filePath"): ("file", "paths"),
    ("OSRT_FILE_ACCESS_EVENTS", "context"): ("removed", "details of file accesses"),
    ("PROCESSES", "name"): ("name", "names of processes"),
    ("TARGET_INFO_CUDA_DEVICE", "uuid"): ("gpu", "GPU UUIDs"),
    ("TARGET_INFO_GPU", "uuid"): ("gpu", "GPU UUIDs"),
    ("TARGET_INFO_NIC_INFO", "name"): ("nic", "network devices"),
    ("TARGET_INFO_NIC_INFO", "stateName"): ("target", "names of targets"),
    ("TARGET_INFO_SESSION_START_TIME", "localTime"): ("removed", "local time"),
    ("TARGET_INFO_SYSTEM_ENV", "devStateName"): ("target", "names of targets"),
}
_GUID_COLUMN = "guid"

_STRING_COLUMN = re.compile(
    r"(?:name|text|content|filename|apiCall|\w*(?:Name|Text|String|Content))Id"
    r"|(?:demangled|short|mangled|kernel|func|var|provider|task)Name"
    r"|symbol|module|srcFile|CpuInstruction|description"
)
_DECLARED_STRING = re.compile(r'^\s*"?(\w+)"?\s[^\n]*REFERENCES\s+"?StringIds\b', re.MULTILINE)
_FUNCTION_COLUMNS = {"demangledName", "shortName", "mangledName", "kernelName", "funcName", "apiCallId"}
_FUNCTION_IDS = {"nameId", "endNameId"}
# Tables whose nameId is the name of something else than a function.
_OTHER_NAMES = re.compile(r"GENERIC_.*|.*OVERHEAD|TARGET_INFO_.*|NVTX_.*")


class _Role(IntEnum):
    """What a string of StringIds is used as. Where it is used as several, the lowest decides."""

    FUNCTION = 0
    PATH = 1
    TEXT = 2
    NAME = 3
    OUTPUT = 4
    UNUSED = 5


_ROLE_TEXT = {
    _Role.PATH: "paths of modules",
    _Role.TEXT: "private parts of texts",
    _Role.NAME: "names of processes and threads",
    _Role.OUTPUT: "program output",
    _Role.UNUSED: "unused strings, environments among them",
}


def _has_strings(tables: Mapping[str, Sequence[str]]) -> bool:
    return set(tables.get("StringIds", ())) >= {"id", "value"}


def _role(table: str, column: str) -> _Role:
    if (table, column) in {("ThreadNames", "nameId"), ("TARGET_INFO_PROCESS", "nameId")}:
        return _Role.NAME
    if table == "ProcessStreams" or (table, column) == ("ANALYSIS_FILE", "contentId"):
        return _Role.OUTPUT
    if column in {"module", "srcFile"}:
        return _Role.PATH
    if column in _FUNCTION_COLUMNS or (column in _FUNCTION_IDS and not _OTHER_NAMES.fullmatch(table)):
        return _Role.FUNCTION
    return _Role.TEXT


class _Redaction:
    """Redacts one working copy in place."""

    def __init__(self, source: Path, database: sqlite3.Connection) -> None:
        self._source = source
        self._database = database
        self._counts: Counter[tuple[str, str]] = Counter()
        self.notes: list[str] = []
        # Bytes that are no UTF-8 survive the way through Python.
        database.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        for pragma in (
            "trusted_schema = off",
            "journal_mode = off",
            "synchronous = off",
            "secure_delete = on",
        ):
            database.execute(f"pragma {pragma}")

    def changes(self) -> tuple[Change, ...]:
        """Return what was done so far, by table."""
        return tuple(Change(table, what, count) for (table, what), count in sorted(self._counts.items()) if count)

    def run(self, dropped: Sequence[str]) -> None:
        """Apply every rule; `dropped` are tables to leave out."""
        if self._database.execute("pragma encoding").fetchone()[0] != "UTF-8":
            raise InputError(f"{self._source}: the text is not UTF-8 as nsys writes it; export the report again.")
        self._drop_triggers_and_statistics()
        learning = self._learn()
        for table in dropped:
            self._count(table, "rows (table left out)", self._value(f"select count(*) from {quoted(table)}"))
            self._database.execute(f"drop table {quoted(table)}")
        tables = self._tables()
        self._refuse_virtual_tables()
        self._database.execute("begin")
        roles = self._roles(tables)
        strings = self._strings(tables)
        functions = {text for _, key, text in strings if roles.get(key) is _Role.FUNCTION}
        rules = _Rules(learning.owner(), frozenset(functions | self._kept_texts(tables)))
        self._remove_rows(tables)
        self._replace_strings(strings, roles, rules)
        self._replace_guids(tables)
        for table, columns in tables.items():
            self._sweep(table, columns, rules)
        self._database.execute("commit")
        self._note_what_stays(functions, rules)

    # -- learning

    def _learn(self) -> _Learning:
        learning, tables = _Learning(), self._tables()
        for table in _METADATA_TABLES:
            if {"name", "value"} <= set(tables.get(table, ())):
                for key, value in self._database.execute(f"select name, value from {table} where value is not null"):
                    _learn_option(learning, str(key), str(value))
        if {"nameEnum", "value"} <= set(tables.get(_SYSTEM_TABLE, ())):
            for key, value in self._database.execute(f"select nameEnum, value from {_SYSTEM_TABLE}"):
                if key == _SYSTEM_ENVIRONMENT:
                    _learn_environment(learning, re.split(r"[\x00;]", str(value)))
                elif key == _SYSTEM_HOST:
                    learning.host(str(value))
        if _has_strings(tables):
            joined = "select value from StringIds where instr(cast(value as blob), x'00') > 0"
            for (value,) in self._database.execute(joined):
                _learn_environment(learning, str(value).split("\x00"))
        for table in ("TARGET_INFO_GPU", "TARGET_INFO_CUDA_DEVICE"):
            if "uuid" in tables.get(table, ()):
                rows = self._database.execute(f"select uuid from {table} where typeof(uuid) = 'text'")
                learning.gpus(row[0] for row in rows)
        return learning

    def _kept_texts(self, tables: Mapping[str, tuple[str, ...]]) -> set[str]:
        """Texts of nsys itself: labels, names of GPUs and of metrics."""
        return {
            row[0]
            for table, columns in tables.items()
            for column in columns
            if (_KEPT_TABLE.fullmatch(table) and column in _KEPT_LABELS) or (table, column) in _KEPT_COLUMNS
            for row in self._database.execute(f"select distinct {quoted(column)} from {quoted(table)}")
            if isinstance(row[0], str)
        }

    # -- rows and strings

    def _remove_rows(self, tables: Mapping[str, tuple[str, ...]]) -> None:
        for table in _METADATA_TABLES:
            if {"name", "value"} <= set(tables.get(table, ())):
                self._delete(table, "name", _keeps_option, "rows: environment, command, host, user, paths")
        if "value" in tables.get(_SYSTEM_TABLE, ()):
            key = "nameEnum" if "nameEnum" in tables[_SYSTEM_TABLE] else "null"
            self._delete(_SYSTEM_TABLE, key, _keeps_system_fact, "rows: environment, host, install paths")

    def _delete(self, table: str, key: str, keeps: Callable[[Any, str], bool], what: str) -> None:
        rows = self._database.execute(f"select rowid, {key}, value from {table}").fetchall()
        gone = [(rowid,) for rowid, name, value in rows if not keeps(name, "" if value is None else str(value))]
        self._database.executemany(f"delete from {table} where rowid = ?", gone)
        self._count(table, what, len(gone))

    def _strings(self, tables: Mapping[str, tuple[str, ...]]) -> list[tuple[int, int | None, str]]:
        """Return row id, id and text of the strings; none where the table is not as nsys writes it."""
        if not _has_strings(tables):
            return []
        sql = "select rowid, id, value from StringIds where typeof(value) = 'text'"
        return self._database.execute(sql).fetchall()

    def _roles(self, tables: Mapping[str, tuple[str, ...]]) -> dict[int | None, _Role]:
        """Return what each string is used as, for the strings that are used."""
        roles: dict[int | None, _Role] = {}
        for table, columns in tables.items():
            declaration = self._value("select sql from sqlite_master where type = 'table' and name = ?", (table,))
            declared = set(_DECLARED_STRING.findall(declaration or ""))
            for column in columns:
                if table != "StringIds" and (column in declared or _STRING_COLUMN.fullmatch(column)):
                    name, role = quoted(column), _role(table, column)
                    sql = f"select distinct {name} from {quoted(table)} where typeof({name}) = 'integer'"
                    for (key,) in self._database.execute(sql):
                        roles[key] = min(role, roles.get(key, _Role.UNUSED))
        return roles

    def _replace_strings(
        self, strings: Iterable[tuple[int, int | None, str]], roles: Mapping[int | None, _Role], rules: _Rules
    ) -> None:
        replace: dict[_Role, Callable[[str], str]] = {
            _Role.FUNCTION: lambda text: text,
            _Role.PATH: rules.path,
            _Role.TEXT: rules.text,
            _Role.NAME: rules.name,
            _Role.OUTPUT: _removed,
            _Role.UNUSED: _removed,
        }
        for rowid, key, text in strings:
            role = roles.get(key, _Role.UNUSED)
            shared = replace[role](text)
            if shared != text:
                self._database.execute(
                    "update StringIds set value = cast(? as text) where rowid = ?",
                    (shared.encode("utf-8", "surrogateescape"), rowid),
                )
                self._count("StringIds", _ROLE_TEXT[role], 1)

    def _replace_guids(self, tables: Mapping[str, tuple[str, ...]]) -> None:
        """Give every GUID of a network device a number, the same one in every table."""
        columns = [(table, name) for table, names in tables.items() for name in names if name.lower() == _GUID_COLUMN]
        found: set[int] = set()
        for table, column in columns:
            name = quoted(column)
            sql = f"select distinct {name} from {quoted(table)} where typeof({name}) = 'integer'"
            found.update(row[0] for row in self._database.execute(sql) if row[0])
        numbers = {guid: number for number, guid in enumerate(sorted(found), 1)}
        self._database.create_function("numbered", 1, lambda guid: numbers.get(guid, guid), deterministic=True)
        for table, column in columns:
            name = quoted(column)
            self._update(
                table,
                f"set {name} = numbered({name}) where typeof({name}) = 'integer' and {name} != numbered({name})",
                "GUIDs of network devices",
            )

    # -- every other text

    def _sweep(self, table: str, columns: Sequence[str], rules: _Rules) -> None:
        for column, kinds in self._columns_with_text(table, columns).items():
            name = quoted(column)
            rule, what = _TEXT_RULES.get((table, column), ("text", "private parts of texts"))
            is_done = (table, column) == ("StringIds", "value") and "id" in columns
            if "text" in kinds and not is_done:
                self._register(_function(rule, rules))
                # As bytes, because Python refuses a text argument that is no UTF-8.
                self._update(
                    table,
                    f"set {name} = cast(redacted(cast({name} as blob)) as text) "
                    f"where typeof({name}) = 'text' and is_private(cast({name} as blob))",
                    what,
                )
            if "blob" in kinds:
                self._database.create_function("blob_is_private", 1, rules.blob_is_private, deterministic=True)
                self._update(
                    table,
                    f"set {name} = x'' where typeof({name}) = 'blob' and blob_is_private({name})",
                    "BLOBs emptied",
                )

    def _columns_with_text(self, table: str, columns: Sequence[str]) -> dict[str, set[str]]:
        """Return the columns that hold text or BLOBs whatever type they declare, and which of the two."""
        sums = ", ".join(f"max(typeof({quoted(column)}) = '{kind}')" for column in columns for kind in ("text", "blob"))
        row = self._database.execute(f"select {sums} from {quoted(table)}").fetchone()
        flags = iter(row)
        found = {column: {kind for kind in ("text", "blob") if next(flags)} for column in columns}
        return {column: kinds for column, kinds in found.items() if kinds}

    def _register(self, rule: Callable[[str], str]) -> None:
        @lru_cache(maxsize=100_000)
        def redacted(raw: bytes) -> bytes:
            return rule(raw.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")

        self._database.create_function("redacted", 1, redacted, deterministic=True)
        self._database.create_function("is_private", 1, lambda raw: redacted(raw) != raw, deterministic=True)

    # -- small things

    def _drop_triggers_and_statistics(self) -> None:
        # A trigger could copy old values aside, and sqlite_stat4 holds samples of indexed ones.
        sql = "select type, name from sqlite_master where type = 'trigger' or name like 'sqlite_stat%'"
        for kind, name in self._database.execute(sql).fetchall():
            self._database.execute(f"drop {kind} {quoted(name)}")

    def _refuse_virtual_tables(self) -> None:
        sql = "select name from sqlite_master where type = 'table' and sql like 'create virtual%'"
        for (name,) in self._database.execute(sql):
            raise InputError(
                f"{self._source}: {name} is a virtual table, whose content cannot be checked; "
                f"leave it out with --drop-table {name}."
            )

    def _tables(self) -> dict[str, tuple[str, ...]]:
        """Return the columns of every table."""
        rows = self._database.execute("select name from sqlite_master where type = 'table' order by name")
        names = [name for (name,) in rows if not name.startswith("sqlite_")]
        return {
            name: tuple(row[1] for row in self._database.execute(f"pragma table_info({quoted(name)})"))
            for name in names
        }

    def _update(self, table: str, rest: str, what: str) -> None:
        try:
            count = self._database.execute(f"update {quoted(table)} {rest}").rowcount
        except sqlite3.IntegrityError as error:
            raise InputError(
                f"{self._source}: table {table} does not take redacted values ({error}); "
                f"leave it out with --drop-table {table}."
            ) from None
        self._count(table, what, count)

    def _count(self, table: str, what: str, count: int) -> None:
        self._counts[table, what] += count

    def _value(self, sql: str, parameters: Sequence[object] = ()) -> Any:
        return self._database.execute(sql, parameters).fetchone()[0]

    def _note_what_stays(self, functions: Iterable[str], rules: _Rules) -> None:
        named = sorted(text for text in functions if rules.holds_name(text))
        if named:
            self.notes.append(
                f"{len(named)} name(s) of kernels or functions hold the name of a user or host and were left, since "
                f"these are never altered (first: {named[0][:80]})."
            )
        schema = self._database.execute("select name, sql from sqlite_master").fetchall()
        hidden = sorted(name for name, sql in schema if rules.holds_name(f"{name} {sql or ''}"))
        if hidden:
            self.notes.append(
                f"the definition of {', '.join(hidden)} holds the name of a user or host and was left; "
                "leave the table out with --drop-table if it must not be shared."
            )


def _learn_option(learning: _Learning, key: str, value: str) -> None:
    value = value.strip().strip('"')
    if "ENVIRONMENT" in key:
        learning.setting(value)
    elif key.endswith(("USER", "USER_NAME")):
        learning.user(value)
    elif key.endswith(("HOST", "DISPLAY_NAME")):
        learning.host(value)
    elif key.endswith("WORKING_DIR"):
        learning.working_folder(value)
    if not _keeps_option(key, value):
        learning.paths(value)


def _learn_environment(learning: _Learning, entries: Iterable[str]) -> None:
    for entry in entries:
        learning.setting(entry)


def _keeps_option(key: Any, value: str) -> bool:
    name = str(key)
    if _PRIVATE_OPTION.search(name):
        return False
    if _PLAIN_VALUE.fullmatch(value):
        return True
    return _TEXT_OPTION.fullmatch(name) is not None and _WORDS.fullmatch(value) is not None


def _keeps_system_fact(key: Any, value: str) -> bool:
    if key in _SYSTEM_PRIVATE:
        return False
    return key in _SYSTEM_TEXTS or _PLAIN_VALUE.fullmatch(value) is not None


def _removed(text: str) -> str:
    return REMOVED if text else text


def _function(rule: str, rules: _Rules) -> Callable[[str], str]:
    """Return the function of a rule that `_TEXT_RULES` names."""
    functions: dict[str, Callable[[str], str]] = {
        "file": rules.file,
        "gpu": rules.gpu,
        "name": rules.name,
        "nic": lambda text: "<nic>" if text else text,
        "removed": _removed,
        "target": lambda text: text if text in {"", _LOCAL_TARGET} else "<target>",
        "text": rules.text,
    }
    return functions[rule]
