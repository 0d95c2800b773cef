"""The limits that the core keeps to: of archives and wheels, of disk and memory, of what servers may send.

``machine.require_room`` and ``machine.require_memory`` are what asks whether there is enough.
"""

MIB = 2**20
GIB = 2**30

CHUNK_BYTES = MIB
"""How much of a stream is held in memory at a time."""

UNPACKED_BYTES = 4 * GIB
"""Most that an archive or a wheel may unpack to: vLLM 0.33.0 unpacks to 0.2 GiB, its largest wheel for CPUs to 0.5."""

WHEEL_IN_MEMORY_BYTES = 256 * MIB
"""Most that a wheel may unpack to that is verified in memory; ours of 0.32.0 unpack to 130 MB."""

MEMBERS = 50_000
"""Most members of an archive; the source of vLLM 0.33.0 has 8,522 files."""

PATH_DEPTH = 100
"""Most folders that one member lies in; recursion of Python's ends at a thousand."""

WHEEL_BYTES = GIB
WHEEL_MEMBER_BYTES = 384 * MIB
"""The largest wheel of vLLM ever published for CPUs has 133 MB, and its largest member 0.2 GiB. A member is held in
memory once at most, and verification stays below 1 GB."""

WHEEL_TEXT_BYTES = 4 * MIB
"""Of METADATA, WHEEL and RECORD, and of any other text that is read whole; the largest RECORD of vLLM has 0.4 MB."""

WHEEL_SOURCE_BYTES = MIB
WHEEL_PYTHON_BYTES = 128 * MIB
WHEEL_TREES_BYTES = 16 * MIB
"""Of one Python file that is parsed, of all that are held, and of all that are parsed at once, which takes some forty
times as much memory: vLLM 0.32.0 has 25 MB in files of 0.3 at most, and 8 MB of it are parsed."""

WHEEL_MEMBERS = 50_000
"""The largest wheel of vLLM has 3,306."""

READ_AGAIN_FILES = 64
"""Most files of a stored artifact that are all read each time it is used: a wheel with its papers has 5, a torch
environment 20,000."""

HARMLESS_BYTES = 64 * MIB
DEFLATED_RATIO = 100
"""Compiled code deflates to a third, text to a fifth; only what was made to burst deflates to less than a hundredth,
and below ``HARMLESS_BYTES`` nobody is hurt."""

WISHED_WHEEL_BYTES = 25_000_000
"""A CPU wheel of vLLM without debug information fits into it."""

BUILD_DISK_GIGABYTES = 12.0
"""Disk of one real build: torch environment, source, oneDNN, build folder and results of vLLM 0.32.0."""

BUILD_FOLDER_GIGABYTES = 4.0
"""Disk of one compile alone."""

TORCH_ENV_GIGABYTES = 1.0
"""Disk of an environment with CPU torch (measured: 840 MB for vLLM 0.32.0)."""

BUILD_MEMORY_GIGABYTES = 3.0
"""Memory of one real build with a single job: the compiler, ninja and the linking of ``_C``."""

TRIAL_MEMORY_GIGABYTES = 3.0
"""Memory of trying a wheel: a tiny model in torch takes 2 GiB."""

TRIAL_DISK_GIGABYTES = 4.0
"""Disk of trying a wheel: vLLM 0.32.0 and all that it requires take 2.6 GB, and models some more."""

COMPILER_CACHE_GIGABYTES = 5.0 * 1.024**3
"""Size at which ccache and sccache begin to remove what was used longest ago: 5 GiB, in GB of 10^9 bytes."""

LISTING_BYTES = 64 * MIB
"""Most that a page of an index may have; the largest of the public index has some ten MB."""

LISTING_SECONDS = 180.0
"""For a page of an index, with all attempts and pauses."""

FILE_BYTES = 4 * GIB
FILE_SECONDS = 2 * 3600.0
"""For one file that is downloaded or uploaded, with all attempts and pauses."""

MANIFEST_BYTES = 16 * MIB
"""Most of an artifact's manifest in a remote store; that of a torch environment has some 20 kB."""

MESSAGE_BYTES = MIB
MESSAGE_SECONDS = 120.0
"""For an answer to a notification or an upload; and for a notification, with all attempts and pauses."""

SLOW_BYTES_PER_SECOND = 1000.0
SLOW_SECONDS = 20.0
"""A server that sends less than this in so many seconds is given up."""

LONGEST_PAUSE_SECONDS = 120.0
"""Between two attempts, where the server asks for no other."""

SANDBOX_MEMORY_BYTES = 16 * GIB
SANDBOX_PROCESSES = 2048
SANDBOX_FILE_BYTES = 4 * GIB
"""Of foreign code: memory of a process, threads of all its processes, and one file. A tiny model takes 2 GiB and, with
torch's threads, some 200 on 32 cores."""
