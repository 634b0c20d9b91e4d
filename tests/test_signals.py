"""What a command does when it is asked to stop, in processes that are really asked."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ray_tools import ROOT, is_group, wait_for
from sampling_tools import make_run

WAIT = """
import sys, time
from cbdm_scale.cli.command import main_of

@main_of
def main(words):
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        time.sleep(0.2)
        print("put away", flush=True)

sys.exit(main())
"""


def waiting(script: str = WAIT, **options: object) -> subprocess.Popen[str]:
    """A command that has begun, in a group of its own."""
    child = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
        **options,
    )
    assert child.stdout and child.stdout.readline() == "ready\n"
    return child


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_command_that_is_asked_to_stop_puts_away_and_says_how_to_go_on(number) -> None:
    """The request comes twice, as `timeout` sends it: to the process, and to its group."""
    child = waiting()
    child.send_signal(number)
    time.sleep(0.05)
    os.killpg(child.pid, number)
    out, said = child.communicate(timeout=20)
    assert out == "put away\n"
    assert said == "\nstopped: the same command goes on from what is kept\n"
    assert child.returncode == 128 + number


def test_a_reader_that_is_gone_keeps_nothing_from_being_put_away() -> None:
    """As `| tee`, which the same Ctrl-C ends; or a terminal that was closed."""
    child = waiting(WAIT.replace('print("put away"', 'print("put away" + "." * 99'))
    assert child.stdout and child.stderr
    child.stdout.close()
    child.stderr.close()
    child.send_signal(signal.SIGHUP)
    assert child.wait(20) == 128 + signal.SIGHUP


def test_what_the_process_was_told_to_ignore_stays_ignored() -> None:
    """By nohup."""
    child = waiting(
        WAIT.replace("sleep(60)", "sleep(1)"),
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    child.send_signal(signal.SIGHUP)
    assert child.communicate(timeout=20)[0] == "put away\n"
    assert child.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_images_that_are_made_as_the_group_is_asked_are_kept_and_nothing_is_left(
    command, tmp_path, digits_root, random_classifier
) -> None:
    """As `timeout`, systemd and Slurm ask."""
    run = make_run(tmp_path, digits_root)
    words = [sys.executable, "-m", f"cbdm_scale.{command}", "--run", run]
    words += ["--num-images", "100000", "--cluster.workers", "0", "--chunk-size", "20"]
    words += ["--extractor", random_classifier] if command == "evaluate" else []
    child = subprocess.Popen(
        words, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True
    )
    made = Path(run, "samples")
    wait_for(lambda: len(list(made.rglob("*-*.safetensors"))) > 1)
    os.killpg(child.pid, signal.SIGTERM)
    _, said = child.communicate(timeout=30)
    assert said.endswith("\nstopped: the same command goes on from what is kept\n"), said
    assert child.returncode == 128 + signal.SIGTERM
    left = [p.name for p in Path(run).rglob("*") if p.name == "lease.json" or "tmp" in p.name]
    assert not left
    assert not is_group(child.pid)
