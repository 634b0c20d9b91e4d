"""Start and steps of a plan and its index, by the number of shards: CPU time and memory.

The index is synthetic (1,280 samples a shard, 1,000 classes, no images): shards.parquet is
whole, and of an index in parts those parts are made that the measured steps read. Every size
is measured in a process of its own that has opened a small data set before; its memory then
is subtracted. Mapped files count where the process has touched them.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.timing import Bench, arguments, in_new_process, markdown, memory_mb, timed
from cbdm_scale.data import index_files
from cbdm_scale.data.index import Index, open_index
from cbdm_scale.data.manifest import SIZES_LOOKED_AT, Manifest, read_manifest
from cbdm_scale.data.plan import SamplePlan, slots

SAMPLES = 1280
CLASSES = 1000
TAR_BYTES = 13_107_200
SHARDS_A_PART = index_files.ROWS_A_PART // SAMPLES
SEED = 0
STEPS = {256: 200, 4096: 20}
"""Steps that are timed, by batch size, one after the other from image 0 on."""


def far(num_samples: int) -> int:
    """A step in the middle of the third epoch."""
    return 2 * num_samples + num_samples // 2


def steps() -> Iterable[tuple[int, int]]:
    """(first image, batch size) of the timed steps."""
    image = 0
    for batch_size, count in STEPS.items():
        for _ in range(count):
            yield image, batch_size
            image += batch_size


# ----------------------------------------------------------------------------
# The synthetic data set.


def write(root: Path, num_shards: int) -> None:
    folder = root / "synthetic"
    (folder / "train").mkdir(parents=True)
    files = [f"train/{i:06d}.tar" for i in range(num_shards)]
    write_shards(folder, files)
    n = num_shards * SAMPLES
    manifest = Manifest(
        name="synthetic",
        class_names=tuple(map(str, range(CLASSES))),
        image_size=64,
        channels=3,
        counts={"train": (n // CLASSES,) * CLASSES},
        groups=("many",) * CLASSES,
        shards_sha256=hashlib.sha256((folder / "shards.parquet").read_bytes()).hexdigest(),
        source="benchmarks/scale.py",
    )
    (folder / "dataset.json").write_bytes(manifest.to_json())
    partitioned = num_shards > index_files.MOST_GROUPS
    step = max(1, (num_shards - 1) // (SIZES_LOOKED_AT - 1)) if partitioned else 1
    for file in files[::step]:
        with open(folder / file, "wb") as tar:
            tar.truncate(TAR_BYTES)  # a hole: it takes no space
    if not partitioned:
        write_index(folder / "index.parquet", range(num_shards))
        return
    (folder / "index.parquet").mkdir()
    last = (num_shards - 1) // SHARDS_A_PART
    for part in sorted(parts_of_steps(num_shards) | {0, last}):
        end = min((part + 1) * SHARDS_A_PART, num_shards)
        path = folder / index_files.part_name(part)
        write_index(path, range(part * SHARDS_A_PART, end))


def write_shards(folder: Path, files: list[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    b, partitioned = len(files), len(files) > index_files.MOST_GROUPS
    columns = {
        "file": files,
        "samples": np.full(b, SAMPLES),
        "bytes": np.full(b, TAR_BYTES),
        "sha256": [hashlib.sha256(f.encode()).hexdigest() for f in files],
    }
    if partitioned:
        columns["part"] = np.arange(b, dtype=np.int32) // SHARDS_A_PART
        columns["label_min"] = np.zeros(b, np.int64)
        columns["label_max"] = np.full(b, CLASSES - 1)
    table = pa.table(columns, index_files.shards_schema(partitioned))
    pq.write_table(table, folder / "shards.parquet")


def parts_of_steps(num_shards: int) -> set[int]:
    plan = SamplePlan(np.full(num_shards, SAMPLES), SEED)
    wanted = [*steps(), (far(plan.num_samples), 256)]
    rows = [plan.rows(np.arange(first, first + size)) for first, size in wanted]
    return set((np.concatenate(rows) // SAMPLES // SHARDS_A_PART).tolist())


def write_index(path: Path, shards: range) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = index_files.index_schema()
    with pq.ParquetWriter(path, schema, write_page_checksum=True) as file:
        for shard in shards:
            rows = np.arange(shard * SAMPLES, (shard + 1) * SAMPLES)
            columns = {
                "split": ["train"] * SAMPLES,
                "shard": [f"train/{shard:06d}.tar"] * SAMPLES,
                "key": [f"{row:012d}" for row in rows.tolist()],
                "label": rows * 7919 % CLASSES,
                "offset": (rows % SAMPLES) * 10_240 + 1536,
                "length": 8000 + rows * 31 % 500,
                "crc32": (rows * 2_654_435_761 % 2**32).astype(np.uint32),
            }
            file.write_table(pa.table(columns, schema), row_group_size=SAMPLES)


# ----------------------------------------------------------------------------
# What is measured, in a process of its own.


def measure(root: str) -> dict[str, str]:
    """CPU seconds, and megabytes above what the imports take, by row of the table."""
    with tempfile.TemporaryDirectory() as small:  # imports, first calls
        write(Path(small), 25)
        SamplePlan(open_index(small, "synthetic", "train").shard_sizes, SEED).rows(np.arange(9))
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory_mb("VmRSS")
    manifest = cpu(lambda: read_manifest(root, "synthetic"))
    cold = cpu(lambda: open_index(root, "synthetic", "train"))
    warm = cpu(lambda: open_index(root, "synthetic", "train"))
    index = open_index(root, "synthetic", "train")
    first_image = slots(0, 1, 0, 1).numpy()
    planned = cpu(lambda: SamplePlan(index.shard_sizes, SEED).rows(first_image))
    plan = SamplePlan(index.shard_sizes, SEED)
    start_peak, start_mb = memory_mb("VmHWM"), memory_mb("VmRSS")

    def step(first: int, size: int) -> None:
        rows = plan.rows(slots(first, size, 0, 1).numpy())
        for column in (index.labels, index.shard_of, index.offsets, index.lengths, index.crc32):
            column[rows]

    first_step = cpu(lambda: step(0, 256))
    times: dict[int, list[float]] = {size: [] for size in STEPS}
    for first, size in steps():
        times[size].append(cpu(lambda first=first, size=size: step(first, size)))
    some = plan.rows(np.arange(1000)).tolist()
    row = cpu(lambda: [read_one(index, row) for row in some]) / len(some)
    far_step = cpu(lambda: step(far(plan.num_samples), 256))
    at_start, at_end = start_mb - before, memory_mb("VmRSS") - before
    return {
        "check of the manifest, s": f"{manifest:.2f}",
        "index opened (and checked again), nothing kept on the node, s": f"{cold:.2f}",
        "index opened (and checked again), kept on the node, s": f"{warm:.2f}",
        "plan, with the order of the shards, s": f"{planned:.2f}",
        "memory of the start at its peak, MB": f"{start_peak - before:.0f}",
        "memory after the start, MB": f"{at_start:.0f}",
        "first step of 256, which fetches its parts, s": f"{first_step:.2f}",
        "a step of 256 of the third epoch, at once, s": f"{far_step:.2f}",
        "step of 256: rows and look-up, ms": f"{median(times[256]) * 1e3:.2f}",
        "step of 4,096: rows and look-up, ms": f"{median(times[4096]) * 1e3:.2f}",
        "look-up of one image, microseconds": f"{row * 1e6:.1f}",
        "memory after all steps, MB": f"{at_end:.0f}",
    }


def cpu(call: Callable[[], object]) -> float:
    """CPU seconds of this process: others use the machine too."""
    return timed(call).cpu


def read_one(index: Index, row: int) -> None:
    """What the reader of shards asks for one image."""
    index.shard_name(index.shard_of[row])
    int(index.offsets[row]), int(index.lengths[row]), int(index.crc32[row])


def main() -> None:
    args = arguments(__doc__, repetitions=0, shards=[10**3, 10**5, 10**6])
    bench, figures = Bench(args), {}
    for num_shards in args.shards:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), num_shards)
            cache = {"CBDM_SCALE_CACHE": f"{folder}/cache"}
            figures[num_shards] = in_new_process(measure, folder, env=cache)
        bench.keep({f"{num_shards} shards": figures[num_shards]})
        print(num_shards, figures[num_shards], flush=True)
    head = ["shards", *(f"{n:,}" for n in figures)]
    rows = [["samples", *(f"{n * SAMPLES:,}" for n in figures)]]
    rows += [[name, *(f[name] for f in figures.values())] for name in figures[args.shards[0]]]
    bench.finish(markdown(head, rows))


if __name__ == "__main__":
    main()
