"""Pure planning: nothing is lost, nothing is done twice, shards and parts cover everything once."""

from hypothesis import given
from hypothesis import strategies as st

from neuromill.records import Digest, FailureCode, PartId, Recording, RecordingId, SourceFile
from neuromill.stages.outcomes import ShardResult, Stage, WorkItem
from neuromill.stages.planning import FailedItem, PastWork, StagePlan, cut_shards, plan_items, share_of
from neuromill.stages.settings import ShardSettings

FINAL = FailureCode.TRUNCATED
TRANSIENT = FailureCode.UNREACHABLE_UPSTREAM


def recording(number: int, size: int = 10) -> Recording:
    path = f"sub-{number:03d}_meg.fif"
    member = SourceFile(path, size, Digest.of(path.encode()))
    return Recording(RecordingId("ds000001", "1.0.0", f"sub-{number:03d}_meg"), path, (member,))


def item(number: int, size: int = 10) -> WorkItem:
    made = recording(number, size)
    return WorkItem(Stage.PREPARE, "0123456789abcdef", made, made.input_digest)


def past_of(work: WorkItem, *, done: bool = False, code: FailureCode | None = None, same: bool = True) -> PastWork:
    return PastWork(done, code, work.input_digest if same else "another")


pasts = st.sampled_from(
    [
        None,
        {"done": True},
        {"done": True, "same": False},
        {"code": FINAL},
        {"code": FINAL, "same": False},
        {"code": TRANSIENT},
        {},
    ]
)


@given(known=st.lists(st.tuples(pasts, st.booleans()), max_size=30))
def test_every_item_is_done_failed_or_to_do(known: list[tuple[dict[str, object] | None, bool]]) -> None:
    items = [item(number) for number in range(len(known))]
    past = {
        work.recording.id: past_of(work, **about)
        for work, (about, _) in zip(items, known, strict=True)
        if about is not None
    }
    there = {work.recording.id for work, (_, is_there) in zip(items, known, strict=True) if is_there}
    todo, done, failed = plan_items(items, past, is_there=lambda work: work.recording.id in there)
    plan = StagePlan(Stage.PREPARE, "0123456789abcdef", tuple(todo), tuple(done), tuple(failed))
    assert plan.found == len(items)
    names = [w.recording.id for w in todo] + done + [f.recording for f in failed]
    assert sorted(names, key=str) == sorted((w.recording.id for w in items), key=str)
    assert set(done) <= there
    assert [w.recording.id for w in todo] == sorted((w.recording.id for w in todo), key=str)  # order is kept


def plan_one(about: dict[str, object] | None, *, is_there: bool = True) -> str:
    work = item(1)
    past = {} if about is None else {work.recording.id: past_of(work, **about)}
    todo, done, failed = plan_items([work], past, is_there=lambda _: is_there)
    assert len(todo) + len(done) + len(failed) == 1
    return "todo" if todo else "done" if done else "failed"


def test_what_becomes_of_an_item() -> None:
    table = [
        (None, True, "todo"),
        ({}, True, "todo"),  # waiting, or left running by a killed worker
        ({"done": True}, True, "done"),
        ({"done": True}, False, "todo"),  # its store was deleted
        ({"done": True, "same": False}, True, "todo"),  # its input changed
        ({"code": FINAL}, True, "failed"),
        ({"code": FINAL, "same": False}, True, "todo"),
        *(({"code": code}, True, "todo" if code.transient else "failed") for code in FailureCode),
    ]
    assert [plan_one(about, is_there=is_there) for about, is_there, _ in table] == [want for *_, want in table]


def test_a_plan_says_bytes_and_reasons() -> None:
    failed = (FailedItem(recording(2).id, FINAL), FailedItem(recording(3).id, FINAL))
    plan = StagePlan(Stage.INGEST, "raw", (item(0, 5), item(1, 7)), (recording(4).id,), failed)
    assert (plan.found, plan.bytes_to_do, plan.failures_by_code) == (5, 12, {"truncated": 2})


sizes = st.lists(st.integers(0, 60), max_size=40)


@given(sizes=sizes, max_recordings=st.integers(1, 7), max_bytes=st.integers(1, 100))
def test_shards_hold_every_item_once_in_order_and_respect_both_bounds(
    sizes: list[int], max_recordings: int, max_bytes: int
) -> None:
    items = [item(number, size) for number, size in enumerate(sizes)]
    shards = cut_shards(items, ShardSettings(max_recordings=max_recordings, max_bytes=max_bytes))
    assert [work for shard in shards for work in shard.items] == items
    assert [shard.index for shard in shards] == list(range(len(shards)))
    for shard in shards:
        assert 1 <= len(shard.items) <= max_recordings
        assert len(shard.items) == 1 or sum(work.recording.size for work in shard.items) <= max_bytes


def test_a_shard_is_full_before_the_next_begins() -> None:
    shards = cut_shards([item(n, 10) for n in range(5)], ShardSettings(max_recordings=2, max_bytes=1000))
    assert [len(shard.items) for shard in shards] == [2, 2, 1]
    shards = cut_shards([item(n, 10) for n in range(5)], ShardSettings(max_recordings=9, max_bytes=30))
    assert [len(shard.items) for shard in shards] == [3, 2]


@given(n=st.integers(0, 30), count=st.integers(1, 6))
def test_parts_share_the_recordings_whatever_their_order(n: int, count: int) -> None:
    recordings = [recording(number) for number in range(n)]
    parts = [share_of(list(reversed(recordings)), PartId(index, count)) for index in range(1, count + 1)]
    assert sorted((r for part in parts for r in part), key=lambda r: r.id.name) == recordings
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert share_of(recordings, None) == tuple(recordings)


def test_results_of_shards_add_up() -> None:
    assert ShardResult(1, 2, 3) + ShardResult(10, 20, 30) == ShardResult(11, 22, 33)
