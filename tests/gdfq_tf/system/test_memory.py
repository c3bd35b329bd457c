"""Tests of gdfq_tf.system.memory and gdfq_tf.memory_needs."""

from __future__ import annotations

import gc
import re
import weakref

import pytest

from gdfq_tf import memory_needs
from gdfq_tf.config import BitWidths, get_recipe
from gdfq_tf.errors import UserError
from gdfq_tf.keras_compat import keras
from gdfq_tf.memory_needs import (
    require_memory_for_any_run,
    require_memory_for_run,
)
from gdfq_tf.system import memory
from gdfq_tf.system.memory import available_memory, give_back, require_memory

W8A8, W4A4 = BitWidths(8, 8), BitWidths(4, 4, "paper")
GIB = 2**30


@pytest.fixture
def kernel(tmp_path):
    """Writes files of a kernel with 10 GiB; gives (proc, cgroups)."""

    def write(files: dict[str, str]):
        for name, content in {
            "proc/meminfo": "MemTotal: 1 kB\nMemAvailable:   10485760 kB\n",
            "proc/self/status": "VmPeak: 9 kB\nVmSize:\t    1024 kB\n",
            **files,
        }.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return tmp_path / "proc", tmp_path / "cgroup"

    return write


def test_the_machine_limits(kernel):
    assert available_memory(*kernel({})) == 10 * GIB


@pytest.mark.parametrize(
    ("group", "folder"),
    [
        ("0::/a/b", "a/b"),
        ("0::/a/b", "a"),  # limits of those above count as well
        ("0::/a/b", ""),  # seen from inside a container
        ("0::/", ""),
    ],
)
def test_control_groups_limit(kernel, group, folder):
    files = {
        "proc/self/cgroup": f"1:cpu:/elsewhere\n{group}\n",
        f"cgroup/{folder}/memory.max": f"{4 * GIB}\n",
        f"cgroup/{folder}/memory.current": f"{3 * GIB}\n",
        f"cgroup/{folder}/memory.stat": f"anon 5\ninactive_file {GIB}\n",
    }
    assert available_memory(*kernel(files)) == 2 * GIB


def test_groups_without_limit_do_not(kernel):
    files = {
        "proc/self/cgroup": "0::/a\n",
        "cgroup/a/memory.max": "max\n",
        "cgroup/a/memory.current": f"{3 * GIB}\n",
    }
    assert available_memory(*kernel(files)) == 10 * GIB


def test_control_groups_of_version_1_limit(kernel):
    files = {
        "proc/self/cgroup": "4:cpu,memory:/job\n0::/\n",
        "cgroup/memory/job/memory.limit_in_bytes": f"{4 * GIB}\n",
        "cgroup/memory/job/memory.usage_in_bytes": f"{3 * GIB}\n",
        "cgroup/memory/job/memory.stat": f"total_inactive_file {GIB // 2}\n",
    }
    assert available_memory(*kernel(files)) == 1.5 * GIB


def test_the_process_limit_counts(kernel, monkeypatch):
    monkeypatch.setattr(memory.resource, "getrlimit", lambda _: (GIB, GIB))
    assert available_memory(*kernel({})) == GIB - 2**20


def test_systems_that_show_nothing_are_asked_for_their_memory(tmp_path, monkeypatch):
    found = {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(memory.os, "sysconf", found.__getitem__)
    assert available_memory(tmp_path, tmp_path) == 4_096_000


def test_what_takes_more_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 3 * GIB)
    require_memory(3 * GIB, "reading it", "drop it")
    with pytest.raises(
        UserError,
        match=r"^reading it takes about 3\.5 GiB of memory, and 3\.0 GiB are "
        r"available; drop it$",
    ):
        require_memory(3.5 * GIB, "reading it", "drop it")


def test_what_only_refers_to_itself_is_given_back():
    class Circle:
        pass

    circle = Circle()
    circle.itself = circle
    alive = weakref.ref(circle)
    gc.disable()
    try:
        del circle
        assert alive() is not None
        give_back()
        assert alive() is None
    finally:
        gc.enable()


# ---- what a run takes


def network(size: int, filters: int = 8) -> keras.Model:
    image = keras.Input((size, size, 3))
    x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(image)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    return keras.Model(
        image, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x))
    )


def need(size: int, recipe: str, bit_widths=W4A4, **kwargs) -> float:
    needs = memory_needs.memory_needs(
        network(size, **kwargs), get_recipe(recipe), [bit_widths]
    )
    return max(needs.values()) / 2**20


@pytest.mark.parametrize(
    ("size", "recipe", "measured"),
    # Peak of resident memory less that before the run, MiB.
    [(256, "balanced", 3212), (512, "calibrate", 4284)],
)
def test_needs_are_near_what_was_measured(size, recipe, measured):
    assert measured / 1.5 < need(size, recipe) < 1.5 * measured


def test_needs_grow_with_images_and_activations():
    # Not all of it grows with the images.
    assert need(1024, "calibrate") > 2.5 * need(512, "calibrate")
    assert need(64, "balanced", filters=64) > 1.5 * need(64, "balanced", filters=8)


def dense_network(inputs: int) -> keras.Model:
    image = keras.Input((1, 1, inputs))
    return keras.Model(image, keras.layers.Dense(1)(keras.layers.Flatten()(image)))


def test_products_of_wide_layers_count():
    needs = [
        memory_needs.memory_needs(dense_network(n), get_recipe("calibrate"), [W8A8])
        for n in (4096, 8192)
    ]
    few, many = (x["reconstruction"] for x in needs)
    # X^T X of 8192 inputs has 2**26 values, of 4096 a quarter of them; 40 bytes each.
    assert many - few > 40 * (2**26 - 2**24)


def test_each_replica_has_graphs_and_weights_of_its_own():
    model = network(32)
    one, three = (
        memory_needs.memory_needs(model, get_recipe("fast"), [W8A8], num_replicas)
        for num_replicas in (1, 3)
    )
    for stage, needed in one.items():
        assert three[stage] - needed == 2 * (2**27 + 20 * model.count_params())


def test_widths_of_8_bits_train_no_student():
    stage = "the student's training"
    for bit_widths, expected in ((W8A8, False), (W4A4, True)):
        needs = memory_needs.memory_needs(
            network(32), get_recipe("balanced"), [bit_widths]
        )
        assert (stage in needs) is expected


def refusal(available, call, *args, monkeypatch):
    for module in (memory, memory_needs):
        monkeypatch.setattr(module, "available_memory", lambda: available)
    with pytest.raises(UserError) as error:
        call(*args)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_run_too_large_names_what_fits(monkeypatch):
    args = (network(256, 64), "net", get_recipe("balanced"), [W4A4])
    text = refusal(2 * GIB, require_memory_for_run, *args, monkeypatch=monkeypatch)
    found = re.match(
        r"quantizing 'net' by recipe 'balanced', with images of 256x256, takes about "
        r"(\S+) GiB of memory, and 2\.0 GiB are available; most is for "
        "reconstruction: take ",
        text,
    )
    assert found, text
    assert float(found[1]) == pytest.approx(
        need(256, "balanced", filters=64) / 1024, abs=0.05
    )


def test_calibrate_is_offered_where_it_fits(monkeypatch):
    args = (network(64, 64), "net", get_recipe("best"), [W4A4])
    best, calibrate = (need(64, x, filters=64) for x in ("best", "calibrate"))
    between = (best + calibrate) / 2 * 2**20
    text = refusal(between, require_memory_for_run, *args, monkeypatch=monkeypatch)
    assert f"take recipe 'calibrate', which takes {calibrate / 1024:.1f} GiB" in text
    below = (calibrate - 1) * 2**20
    text = refusal(below, require_memory_for_run, *args, monkeypatch=monkeypatch)
    assert "take a machine with more memory" in text


def test_a_classifier_too_large_for_every_recipe(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 64 * GIB)
    require_memory_for_any_run(network(512), "net")
    text = refusal(
        64 * GIB,
        require_memory_for_any_run,
        network(4096),
        "net",
        monkeypatch=monkeypatch,
    )
    assert re.match("quantizing 'net' even by recipe .* images of 4096x4096, ", text)


def test_teachers_are_cut_where_a_step_takes_several_gib():
    # 3 layers of 8 values for each of 512x512 pixels, and two small ones.
    of_image = 4 * (3 * 8 * 512 * 512 + 8 + 3)
    model = network(512)
    fitting = 3 * GIB // of_image
    assert memory_needs.teacher_parts(model, fitting) == 1
    assert memory_needs.teacher_parts(model, fitting + 1) == 4
    assert memory_needs.teacher_parts(model, 2 * fitting) == 6
