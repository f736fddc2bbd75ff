import os

import pytest
import torch
from lightning_fabric.utilities.distributed import _set_num_threads_if_needed

from pipeline import world
from pipeline.train import configured
from pipeline.world import (
    RAY,
    SHARE,
    World,
    check_world,
    cores_shared_with,
    trainer_world,
    world_of,
)

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
LIGHTNING = {**TORCHRUN, "LT_CLI_USED": "1", "LT_DEVICES": "4", "LT_NUM_NODES": "2"}
ON_RAY = {RAY: "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
ALLOCATION = {"SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "4", "SLURM_NNODES": "2"}
SLURM = {**ALLOCATION, "SLURM_PROCID": "3", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "8"}
SHELL = {**ALLOCATION, "SLURM_JOB_NAME": "interactive"}
INTERACTIVE_STEP = {**SHELL, "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}  # salloc may use one


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, None),
        (TORCHRUN, World("torchrun", 8, 4, 2)),
        (LIGHTNING, World("lightning run", 8, 4, 2)),
        (ON_RAY, World("Ray", 8, 4, 2)),
        (SLURM, World("srun", 8, 4, 2)),
        ({**SLURM, "SLURM_JOB_NAME": "srdet"}, World("srun", 8, 4, 2)),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, World("srun", 1, 1, 1)),
        ({**SLURM, **TORCHRUN}, World("torchrun", 8, 4, 2)),  # torchrun inside an allocation
        ({**SLURM, **SHELL, **TORCHRUN}, World("torchrun", 8, 4, 2)),
        (SHELL, None),
        (INTERACTIVE_STEP, None),
        ({**SHELL, "SLURM_JOB_NAME": "bash"}, None),
        ({**ALLOCATION, "SLURM_PROCID": "0"}, None),  # sbatch without srun
        ({"SLURM_PROCID": "0", "SLURM_NNODES": "2"}, None),
    ],
)
def test_the_world_is_read_from_each_launchers_environment(env, expected):
    assert world_of(env) == expected


def test_the_trainer_takes_the_launchers_world_and_a_strategy_that_suits_it():
    fitted = trainer_world({"accelerator": "cpu", "devices": "auto", "num_nodes": 1}, TORCHRUN)
    assert (fitted["devices"], fitted["num_nodes"]) == (4, 2)
    assert fitted["strategy"] == "ddp_find_unused_parameters_true"
    assert trainer_world({"strategy": "fsdp", "devices": 4}, TORCHRUN)["strategy"] == "fsdp"
    assert trainer_world({"devices": 4}, TORCHRUN, whole_steps=True)["strategy"] == "ddp"


def test_ranks_look_for_unused_parameters_only_where_there_are_some(tiny):
    strategies = {
        name: configured(tiny("--trainer.devices", "2", *more, gan=gan)).trainer.strategy
        for name, gan, more in (
            ("psnr", False, []),
            ("gan", True, []),
            ("grows", False, ["--model.init_args.arch", "staged", *_STAGED]),
        )
    }
    looks = {
        name: strategy._ddp_kwargs.get("find_unused_parameters", False)
        for name, strategy in strategies.items()
    }
    assert looks == {"psnr": False, "gan": True, "grows": True}


_STAGED = ["--model.init_args.arch_args", "{features: 8, blocks: 1}"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"devices": 3}, "trainer.devices is 3, but torchrun started 4; leave it out"),
        ({"devices": 1}, "trainer.devices is 1, but torchrun started 4"),
        ({"devices": "2"}, "trainer.devices is 2, but torchrun started 4"),
        ({"num_nodes": 3}, "trainer.num_nodes is 3, but torchrun started 2"),
    ],
)
def test_another_world_than_the_launched_one_is_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        trainer_world(asked, TORCHRUN)


@pytest.mark.parametrize(
    ("env", "launcher"),
    [(TORCHRUN, "torchrun"), (LIGHTNING, "lightning run"), (SLURM, "srun"), (ON_RAY, "Ray")],
)
def test_under_no_launcher_do_processes_train_alone_without_a_word(env, launcher):
    with pytest.raises(ValueError, match=f"trainer.devices is 1, but {launcher} started 4"):
        trainer_world({"devices": 1}, env)
    with pytest.raises(ValueError, match=f"{launcher} started 8 processes, the trainer sees 1"):
        check_world(1, env)
    fitted = trainer_world({"accelerator": "cpu", "devices": "auto"}, env)
    assert (fitted["devices"], fitted["num_nodes"]) == (4, 2)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({**SLURM, **SHELL}, "srun started 8 tasks, .* 'interactive'.* SLURM_JOB_NAME=srdet srun"),
        ({**SLURM, "SLURM_JOB_NAME": "bash"}, "srun started 8 tasks, .* 'bash'"),
        (ALLOCATION, "SLURM has 8 tasks for this job, .* `srun ...`"),
        ({**INTERACTIVE_STEP, "SLURM_JOB_NAME": "mine"}, "SLURM has 8 tasks for this job"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, "WORLD_SIZE is 2, .* `lightning run --devices 2 ...`"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "OMPI_COMM_WORLD_SIZE is 2"),
        ({"PMI_SIZE": "4", "PMI_RANK": "0"}, "PMI_SIZE is 4"),
        ({"MV2_COMM_WORLD_SIZE": "2"}, "MV2_COMM_WORLD_SIZE is 2"),
        ({"JSM_NAMESPACE_SIZE": "6"}, "JSM_NAMESPACE_SIZE is 6"),
    ],
)
@pytest.mark.parametrize("devices", ["auto", 1, 2])
def test_one_of_several_processes_that_nothing_joins_does_not_train_alone(env, message, devices):
    with pytest.raises(ValueError, match=message):
        trainer_world({"accelerator": "cpu", "devices": devices}, env)


@pytest.mark.parametrize(
    "env",
    [
        SHELL,
        INTERACTIVE_STEP,
        {"SLURM_JOB_NAME": "bash", "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1"},  # srun --pty
        {"WORLD_SIZE": "1", "RANK": "0"},
        {"OMPI_COMM_WORLD_SIZE": "1", "PMI_SIZE": "1"},
    ],
)
def test_an_allocations_shell_and_a_world_of_one_may_train_alone(env):
    fitted = trainer_world({"accelerator": "cpu", "devices": 1}, env)
    assert (fitted["devices"], fitted.get("strategy", "auto")) == (1, "auto")


def test_processes_that_lightning_itself_started_are_joined():
    child = {"WORLD_SIZE": "2", "LOCAL_RANK": "1", "NODE_RANK": "0"}
    assert trainer_world({"accelerator": "cpu", "devices": 2}, child)["devices"] == 2
    with pytest.raises(ValueError, match="WORLD_SIZE is 2"):
        trainer_world({"accelerator": "cpu", "devices": 1}, child)


def test_tasks_that_srun_spread_as_it_liked_are_refused_before_lightning_does():
    env = {key: value for key, value in SLURM.items() if key != "SLURM_NTASKS_PER_NODE"}
    with pytest.raises(ValueError, match=r"srun started 8 tasks .* --ntasks-per-node=4"):
        trainer_world({"accelerator": "cpu"}, env)


@pytest.mark.parametrize("asked", [{}, {"devices": 4, "num_nodes": 2}, {"devices": "-1"}])
def test_the_same_world_or_none_is_accepted(asked):
    assert trainer_world(asked, TORCHRUN)["devices"] == 4


def test_lightning_runs_options_reach_the_trainer():
    env = {**LIGHTNING, "LT_ACCELERATOR": "cpu", "LT_STRATEGY": "ddp", "LT_PRECISION": "32-true"}
    fitted = trainer_world({"accelerator": "auto", "precision": "bf16-mixed"}, env)
    assert fitted["accelerator"] == "cpu"
    assert fitted["precision"] == "32-true"
    assert fitted["strategy"] == "ddp_find_unused_parameters_true"


@pytest.mark.parametrize(
    ("asked", "gpus", "strategy"),
    [
        ({"accelerator": "cpu", "devices": 1}, 0, "auto"),
        ({"accelerator": "cpu", "devices": 2}, 0, "ddp_find_unused_parameters_true"),
        ({"accelerator": "cpu", "devices": "auto"}, 8, "auto"),
        ({"accelerator": "auto", "devices": "auto"}, 0, "auto"),
        ({"accelerator": "auto", "devices": "auto"}, 1, "auto"),
        ({"accelerator": "auto", "devices": "auto"}, 2, "ddp_find_unused_parameters_true"),
        ({"accelerator": "gpu", "devices": -1}, 2, "ddp_find_unused_parameters_true"),
        ({"accelerator": "gpu", "devices": [1]}, 4, "auto"),
        ({"accelerator": "gpu", "devices": [1, 3]}, 4, "ddp_find_unused_parameters_true"),
        ({"accelerator": "gpu", "devices": "0,2"}, 4, "ddp_find_unused_parameters_true"),
        (
            {"accelerator": "gpu", "devices": 1, "num_nodes": 2},
            4,
            "ddp_find_unused_parameters_true",
        ),
    ],
)
def test_without_a_launcher_several_devices_need_the_same_strategy(
    monkeypatch, asked, gpus, strategy
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert trainer_world({**asked, "strategy": "auto"}, {})["strategy"] == strategy


def test_synchronised_batchnorm_without_gpus_is_refused_before_the_run(monkeypatch):
    asked = {"accelerator": "cpu", "devices": 2, "sync_batchnorm": True}
    with pytest.raises(ValueError, match=r"trainer\.sync_batchnorm is true, .* leave it out"):
        trainer_world(asked, {})
    assert trainer_world({**asked, "devices": 1}, {})["sync_batchnorm"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert trainer_world({**asked, "accelerator": "gpu"}, {})["sync_batchnorm"]


def test_precision_is_bf16_where_the_hardware_has_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for native, expected in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(world, "cpu_has_bf16", lambda native=native: native)
        assert trainer_world({}, {})["precision"] == expected
        assert trainer_world({"precision": "16-mixed"}, {})["precision"] == "16-mixed"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert trainer_world({}, {})["precision"] == "32-true"


def test_a_trainer_that_sees_fewer_processes_than_were_started_is_refused():
    check_world(8, TORCHRUN)
    check_world(1, {})
    with pytest.raises(ValueError, match="torchrun started 8 processes, the trainer sees 1"):
        check_world(1, TORCHRUN)


def test_a_config_that_contradicts_the_launcher_is_refused_before_anything_starts(
    tiny, monkeypatch
):
    for key, value in TORCHRUN.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(ValueError, match=r"trainer.devices is 1, but torchrun started 4"):
        configured(tiny())


@pytest.fixture
def taken(monkeypatch) -> list[int]:
    """The numbers of threads that torch is given, one after another, where it had 8 and no GPU."""
    given: list[int] = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: given[-1] if given else 8)
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    return given


def test_training_leaves_a_core_to_each_reader_and_takes_them_back(taken):
    for readers in (0, 1, 2, 20):
        with cores_shared_with(readers):
            pass
    assert taken == [8, 7, 8, 6, 8, 6, 8]
    assert "OMP_NUM_THREADS" not in os.environ


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 2), (3, 3), (4, 3)])
def test_few_cores_are_not_given_away_to_a_reader_that_is_mostly_idle(taken, cores, threads):
    taken.append(cores)
    with cores_shared_with(1):
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == cores


@pytest.mark.parametrize(
    ("given", "share", "expected"),
    [
        (None, None, 6),
        ("8", "8", 6),  # of our launcher
        ("8", None, 8),  # of the user
        ("8", "4", 8),  # of the user, in a launcher's shell
    ],
)
def test_the_launchers_share_of_cores_is_shared_with_readers_and_the_users_number_is_not(
    monkeypatch, taken, given, share, expected
):
    for name, value in (("OMP_NUM_THREADS", given), (SHARE, share)):
        monkeypatch.delenv(name, raising=False)
        if value:
            monkeypatch.setenv(name, value)
    with cores_shared_with(2):
        assert torch.get_num_threads() == expected
    assert taken[-1] == 8
    assert os.environ.get("OMP_NUM_THREADS") == given


def test_lightnings_own_processes_share_the_cores_and_leave_some_to_readers(taken):
    with cores_shared_with(1, processes=2):
        _set_num_threads_if_needed(2)  # as Lightning does when it starts processes
        assert taken == [3]
        assert os.environ["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize(("there", "device"), [(True, "cuda"), (False, "cpu")])
def test_where_nobody_says_a_gpu_computes_if_there_is_one(monkeypatch, there, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert world.best_device() == device
