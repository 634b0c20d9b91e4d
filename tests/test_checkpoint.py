import json
from dataclasses import replace

import pytest
import torch
from training_tools import (
    BATCH,
    CONFIG,
    assert_same,
    fresh_state,
    make_batches,
    make_callbacks,
    make_inputs,
    tensors,
)

from cbdm_scale.storage.folder import Storage
from cbdm_scale.storage.run_dir import RunDir
from cbdm_scale.training.checkpoint import (
    Progress,
    drop_old_checkpoints,
    load_newest,
    read_checkpoint,
    save_checkpoint,
)
from cbdm_scale.training.distributed import World
from cbdm_scale.training.loop import train
from cbdm_scale.training.power_ema import pack, start_averages


@pytest.fixture
def folder(tmp_path):
    return Storage(str(tmp_path / "run"))


def go_on(state, steps):
    """Train some steps further."""
    images = state.progress.num_seen
    config = replace(CONFIG, total_images=images + steps * BATCH)
    train(state, make_inputs(make_batches(images)), config, World(), make_callbacks())
    return state


def save_at(folder, *counts):
    state = fresh_state()
    for images in counts:
        state.progress.num_seen = images
        save_checkpoint(folder, state, {})
    return state


def names(*counts):
    return [f"checkpoints/{images:012d}" for images in counts]


def test_what_is_loaded_is_what_was_saved(folder):
    saved = go_on(fresh_state(), 3)
    saved.progress.substitutions = [1, 0, 2]
    name = save_checkpoint(folder, saved, {"seed": 7})
    loaded = fresh_state()
    assert load_newest(folder, loaded) == (name, [])
    assert loaded.progress == saved.progress
    assert_same(tensors(loaded), tensors(saved))
    assert read_checkpoint(folder, name)[0]["seed"] == 7


def test_training_goes_on_bit_for_bit_from_what_was_loaded(folder):
    """Values alone are not enough: a fused optimiser also reads their memory layout."""
    saved = go_on(fresh_state(), 3)
    save_checkpoint(folder, saved, {})
    loaded = fresh_state()
    load_newest(folder, loaded)
    assert_same(tensors(go_on(loaded, 3)), tensors(go_on(saved, 3)))


def test_an_optimizer_that_has_not_begun_is_restored_as_such(folder):
    save_checkpoint(folder, fresh_state(), {})
    loaded = fresh_state()
    load_newest(folder, loaded)
    assert_same(tensors(go_on(loaded, 2)), tensors(go_on(fresh_state(), 2)))


def test_a_checkpoint_is_plain_files_without_pickle(folder):
    name = save_checkpoint(folder, go_on(fresh_state(), 1), {})
    found = folder.child(name).list()
    assert found == [
        *("ema.safetensors", "model.safetensors", "optimizer.safetensors", "state.json")
    ]
    assert set(folder.read_json(f"{name}/state.json")["files"]) == set(found[:3])


def test_nothing_to_load_is_no_error(folder):
    state = fresh_state()
    assert load_newest(folder, state) == (None, [])
    assert state.progress == Progress(substitutions=[0, 0, 0])


def cut(data):
    return data[: len(data) // 2]


def flip_a_bit(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("damage", [cut, flip_a_bit, None])
@pytest.mark.parametrize("file", ["model", "ema", "optimizer"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(folder, file, damage):
    save_at(folder, 10, 20)
    path = f"checkpoints/{20:012d}/{file}.safetensors"
    whole = folder.read_bytes(path)
    if damage:
        folder.write_bytes(path, damage(whole))
    else:
        folder.remove(path)
    state = fresh_state()
    name, (line,) = load_newest(folder, state)
    assert [name] == names(10) and state.progress.num_seen == 10
    assert folder.path(names(20)[0]) in line and f"{file}.safetensors" in line


@pytest.mark.parametrize("text", [b"", b'{"format', b"{}", b"[]", b'{"format_version": 99}'])
def test_a_damaged_state_json_is_named_and_the_one_before_is_used(folder, text):
    save_at(folder, 10, 20)
    folder.write_bytes(f"{names(20)[0]}/state.json", text)
    name, (line,) = load_newest(folder, fresh_state())
    assert [name] == names(10)
    assert "is damaged" in line and names(20)[0] in line


def test_a_checkpoint_that_lists_a_file_of_elsewhere_is_damaged(folder):
    save_at(folder, 10, 20)
    place = f"{names(20)[0]}/state.json"
    about = folder.read_json(place)
    about["files"]["../../secret"] = {"bytes": 1, "sha256": ""}
    folder.write_json(place, about)
    name, (line,) = load_newest(folder, fresh_state())
    assert [name] == names(10) and "is damaged" in line


def test_a_checkpoint_of_a_newer_version_is_not_guessed_at(folder):
    (name,) = names(10)
    save_at(folder, 10)
    about = folder.read_json(f"{name}/state.json") | {"format_version": 2}
    folder.write_bytes(f"{name}/state.json", json.dumps(about).encode())
    with pytest.raises(ValueError, match="format version 2 is newer"):
        read_checkpoint(folder, name)


def test_a_checkpoint_of_another_network_is_refused(folder):
    save_checkpoint(folder, fresh_state(), {})
    state = fresh_state(width=8)
    before = [p.clone() for p in state.net.parameters()]
    told = r"another network.* 4 tensors .*first.bias \(\(4,\) there, \(8,\) here\).*--name"
    with pytest.raises(ValueError, match=told):
        load_newest(folder, state)
    assert all(map(torch.equal, state.net.parameters(), before))


def test_an_error_while_writing_leaves_nothing(folder):
    save_at(folder, 10)
    state = fresh_state()
    state.progress.num_seen = 20
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_checkpoint(folder, state, {"no JSON": object()})
    assert folder.child("checkpoints").list() == [f"{10:012d}"]


def test_what_a_kill_left_behind_is_no_checkpoint(folder):
    save_at(folder, 10)
    folder.write_bytes(f"checkpoints/.{20:012d}.partial/model.safetensors", b"half of")
    assert RunDir(folder).checkpoints() == names(10)
    save_at(folder, 20)
    assert folder.child("checkpoints").list() == [f"{10:012d}", f"{20:012d}"]


def test_saving_again_replaces_what_is_there(folder):
    state = save_at(folder, 10)
    with torch.no_grad():
        state.net.last.bias.fill_(7)
    save_checkpoint(folder, state, {})
    loaded = fresh_state()
    load_newest(folder, loaded)
    assert loaded.net.last.bias.item() == 7


def test_the_newest_and_the_needed_are_kept(folder):
    save_at(folder, 10, 20, 30, 40)
    drop_old_checkpoints(folder, keep=2, needed={10, 15})
    assert RunDir(folder).checkpoints() == names(10, 30, 40)
    drop_old_checkpoints(folder, keep=1, needed=())
    assert RunDir(folder).checkpoints() == names(40)
    drop_old_checkpoints(folder, keep=5, needed=())
    assert RunDir(folder).checkpoints() == names(40)


def test_checkpoints_are_ordered_by_images_not_by_digits(folder):
    save_at(folder, 9, 10, 10**9)
    assert RunDir(folder).checkpoints() == names(9, 10, 10**9)


def test_a_store_without_rename_is_served_too():
    folder = Storage("memory://test_checkpoint/run")
    saved = go_on(fresh_state(), 1)
    name = save_checkpoint(folder, saved, {})
    loaded = fresh_state()
    assert load_newest(folder, loaded) == (name, [])
    assert_same(tensors(loaded), tensors(saved))
    folder.remove(f"{name}/state.json")  # written last: without it the checkpoint is not whole
    assert load_newest(folder, fresh_state())[0] is None


# ----------------------------------------------------------------------------
# Averages from which others are found.


def with_averages():
    state = fresh_state()
    return replace(state, posthoc=start_averages(state.net, wanted=True))


def test_a_resumed_run_carries_the_same_averages_of_two_widths(folder):
    unbroken = go_on(with_averages(), 6)
    save_checkpoint(folder, go_on(with_averages(), 3), {})
    resumed = with_averages()
    load_newest(folder, resumed)
    go_on(resumed, 3)
    assert_same(pack(unbroken.posthoc), pack(resumed.posthoc))
    assert_same(tensors(unbroken), tensors(resumed))


def test_averages_that_begin_in_the_middle_of_a_run_are_refused(folder):
    save_checkpoint(folder, go_on(fresh_state(), 1), {})
    with pytest.raises(ValueError, match=r"without train\.posthoc_every, .* Leave it at 0"):
        load_newest(folder, with_averages())


def test_the_loop_asks_for_averages_at_every_multiple():
    asked = []
    config = replace(CONFIG, total_images=6 * BATCH, posthoc_every=2 * BATCH)
    callbacks = make_callbacks(
        keep_averages=lambda state: asked.append(state.progress.num_seen)
    )
    train(with_averages(), make_inputs(), config, World(), callbacks)
    assert asked == [2 * BATCH, 4 * BATCH, 6 * BATCH]
