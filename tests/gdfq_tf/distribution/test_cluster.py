"""TF_CONFIG: what is taken, and what is told of mistakes."""

from __future__ import annotations

import json

import pytest

from gdfq_tf.distribution.cluster import this_task, writes
from gdfq_tf.errors import UserError

WORKERS = {"worker": ["a:1", "b:2"]}


def set_config(monkeypatch, cluster, job, index):
    config = {"cluster": cluster, "task": {"type": job, "index": index}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))


@pytest.mark.parametrize(
    ("cluster", "job", "index", "chief"),
    [
        (WORKERS, "worker", 0, True),
        (WORKERS, "worker", 1, False),
        ({"chief": ["[::1]:3"], **WORKERS}, "chief", 0, True),
        ({"chief": ["10.0.0.1:3"], **WORKERS}, "worker", 0, False),
    ],
)
def test_one_process_writes(monkeypatch, cluster, job, index, chief):
    set_config(monkeypatch, cluster, job, index)
    task = this_task()
    assert (task.job, task.index, task.is_chief) == (job, index, chief)
    assert task.num_workers == sum(map(len, cluster.values()))
    assert writes("multi_worker") is chief
    assert writes("none")


@pytest.mark.parametrize(
    ("cluster", "job", "index", "message"),
    [
        (None, "worker", 0, "has no cluster"),
        ({}, "worker", 0, "has no cluster"),
        ({"ps": ["a:1"], **WORKERS}, "worker", 0, "the job 'ps'"),
        ({"worker": []}, "worker", 0, "no list of addresses"),
        ({"worker": "a:1"}, "worker", 0, "no list of addresses"),
        ({"worker": ["a"]}, "worker", 0, "'a' is no host:port"),
        ({"worker": ["a:1", "a:1"]}, "worker", 0, "'a:1' is there twice"),
        ({"chief": ["c:1", "d:1"], **WORKERS}, "worker", 0, "several chiefs"),
        (WORKERS, "chief", 0, "task type 'chief' is none of its cluster's, worker"),
        (WORKERS, "worker", 2, "task index 2 is none of its 2 worker addresses"),
        (WORKERS, "worker", -1, "expected a number from 0 to 1"),
        (WORKERS, "worker", "0", "task index '0'"),
    ],
)
def test_clusters_that_are_none(monkeypatch, cluster, job, index, message):
    set_config(monkeypatch, cluster, job, index)
    with pytest.raises(UserError, match="TF_CONFIG such as") as refused:
        this_task()
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is not set"),
        ("", "is not set"),
        ("{", "is no JSON"),
        ("[1]", "is no JSON object"),
        (json.dumps({"cluster": WORKERS}), "has no task"),
        (json.dumps({"cluster": WORKERS, "task": {"type": "worker"}}), "has no task"),
    ],
)
def test_texts_that_are_no_tf_config(monkeypatch, text, message):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError) as refused:
        this_task()
    assert message in str(refused.value)
