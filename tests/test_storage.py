"""Equilibria in files: what is saved is what is loaded, and whatever else a file may hold is a ValueError."""

import contextlib
import copy
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import mfg_envs
from mfg_envs.envs import simulate
from mfg_envs.equilibrium import Equilibrium, Mixture, exploitability, load_equilibrium, save_equilibrium
from mfg_envs.games import FourRooms, LinearQuadratic
from mfg_envs.mean_field import Flow
from mfg_envs.policies import AveragePolicy, DeterministicPolicy

GAME = LinearQuadratic(dim=2, A=((0.9, 0.1), (0.0, 0.8)), B=((0.2,), (0.3,)), x_target=(1.0, -1.0), horizon=4)


@pytest.fixture(scope="module")
def learnt():
    """A policy and a flow with weights drawn at random, of shapes other than the default ones."""
    torch.manual_seed(0)
    policy = AveragePolicy(2, 1, 4, (0.5, -0.5), (1.0, 2.0), (10.0,), components=3, hidden=(8, 9), frequencies=2)
    flow = Flow(2, 4, action_dim=1, transforms=2, hidden=(8,), bins=5, frequencies=3)
    flow.standardise(np.random.default_rng(0).normal(2, 3, size=(5, 40, 2)), np.ones((4, 40, 1)))
    with torch.no_grad():
        for parameter in (*policy.parameters(), *flow.parameters()):
            parameter.add_(0.1 * torch.randn_like(parameter))
    return policy.eval(), flow.eval()


@pytest.fixture(scope="module")
def file(learnt, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "equilibrium.pt"
    save_equilibrium(path, GAME, *learnt, value=-1.25, exploitability=0.125)
    return path


@pytest.fixture
def content(file):
    return torch.load(file, weights_only=True)


def put(tmp_path, data, name="other.pt"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


# --- there and back ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_path", [Path, str])
def test_round_trip(learnt, file, as_path):
    policy, flow = learnt
    found = load_equilibrium(as_path(file))
    assert isinstance(found, Equilibrium)
    assert found.game == GAME
    assert (found.value, found.exploitability) == (-1.25, 0.125)
    assert not found.value_is_upper_bound
    x = np.random.default_rng(0).normal(size=(30, 2))
    for t in range(4):
        for stochastic in (policy, found.policy):
            stochastic.reset(30, np.random.default_rng(t))
        np.testing.assert_array_equal(found.policy(t, x), policy(t, x))
        np.testing.assert_array_equal(found.policy.mean_action(t, x), policy.mean_action(t, x))
        np.testing.assert_array_equal(found.mean_field.at(t).mean_action, flow.at(t).mean_action)
    for t in range(5):
        of_file, of_flow = found.mean_field.at(t), flow.at(t)
        np.testing.assert_array_equal(of_file.log_density(x), of_flow.log_density(x))
        np.testing.assert_array_equal(of_file.mean, of_flow.mean)
        samples = [mu.sample(9, np.random.default_rng(1)) for mu in (of_file, of_flow)]
        np.testing.assert_array_equal(*samples)
    assert exploitability(GAME, found.policy, 40) == exploitability(GAME, policy, 40)
    assert not found.policy.training
    assert not found.mean_field.training


def test_saving_replaces_the_file_whole(learnt, tmp_path):
    path = put(tmp_path, b"something old")
    save_equilibrium(path, GAME, *learnt, value=1, exploitability=np.float64(2))
    assert (load_equilibrium(path).value, load_equilibrium(path).exploitability) == (1.0, 2.0)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_mixture_and_its_trajectories(tmp_path):
    """As fictitious play without an average policy leaves them."""
    torch.manual_seed(0)
    game, sizes = FourRooms(horizon=4), (2, 2, 4, (0.0, 0.0), (1.0, 1.0), (2.0, 2.0))
    policies = [DeterministicPolicy(*sizes, hidden=(8,), waves=waves) for waves in (0, 2)]
    with torch.no_grad():
        for parameter in (parameter for policy in policies for parameter in policy.parameters()):
            parameter.add_(0.3 * torch.randn_like(parameter))
    mixture = Mixture(policies, [1, 3])
    crowd = simulate(game, mixture, num_agents=50, seed=0).mean_field(game, bandwidth=0.3)
    save_equilibrium(tmp_path / "e.pt", game, mixture, crowd, 1.5, 0.5)
    found = load_equilibrium(tmp_path / "e.pt")
    assert found.game == game
    np.testing.assert_array_equal(found.policy.weights, [0.25, 0.75])
    again = simulate(game, found.policy, num_agents=50, seed=0)
    np.testing.assert_array_equal(again.states, crowd.states)
    np.testing.assert_array_equal(again.actions, crowd.actions)
    points = crowd.states[2]
    for t in range(5):
        of_file, of_crowd = found.mean_field.at(t), crowd.at(t)
        np.testing.assert_array_equal(of_file.log_density(points), of_crowd.log_density(points))
    assert not np.array_equal(crowd.at(2).log_density(points), again.mean_field(game).at(2).log_density(points))
    with pytest.raises(ValueError, match="floor"):
        save_equilibrium(tmp_path / "e.pt", FourRooms(horizon=4, door=0.3), mixture, crowd, 1.5, 0.5)
    content = torch.load(tmp_path / "e.pt", weights_only=True)
    for part, key, value in [
        ("mean_field", "states", torch.zeros(5, 50, 3)),
        ("mean_field", "states", torch.zeros(4, 50, 2)),
        ("mean_field", "states", [1.0]),
        ("mean_field", "actions", torch.zeros(4, 50, 1)),
        ("mean_field", "actions", torch.zeros(5, 50, 2)),
        ("policy", "weights", [1.0]),
        ("policy", "weights", [1.0, -1.0]),
        ("policy", "policies", [{"kind": "DeterministicPolicy"}] * 2),
    ]:
        path = put(tmp_path, saved({**content, part: {**content[part], key: value}}, tmp_path))
        with pytest.raises(ValueError, match=r"other\.pt"):
            load_equilibrium(path)


def test_load_is_at_hand():
    assert mfg_envs.load_equilibrium is load_equilibrium


def test_loads_without_the_solvers(file, tmp_path):
    """In a fresh process, elsewhere, in which importing `solvers` or what only a solver needs is an error."""
    program = f"""
import sys
for name in ("solvers", "solvers.dedafp_ppo", "dedafp_ppo", "tyro", "tqdm", "tensorboard", "matplotlib", "pygame"):
    sys.modules[name] = None
import numpy as np
import mfg_envs
found = mfg_envs.load_equilibrium({str(file)!r})
print(found.policy(0, np.zeros((3, 2))).shape, found.mean_field.at(4).log_density(np.zeros((3, 2))).shape)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "(3, 1) (3,)", done.stderr


# --- files that are none -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["missing", "folder", "in a missing folder"])
def test_no_file(tmp_path, kind):
    path = {"missing": tmp_path / "no.pt", "folder": tmp_path, "in a missing folder": tmp_path / "a" / "b.pt"}[kind]
    with pytest.raises(FileNotFoundError, match=path.name):
        load_equilibrium(path)


@pytest.mark.parametrize("share", [0, 1e-9, 0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 0.99, 0.999, 0.99999])
def test_truncated_files(file, tmp_path, share):
    whole = file.read_bytes()
    path = put(tmp_path, whole[: min(int(np.ceil(share * len(whole))), len(whole) - 1)])
    with pytest.raises(ValueError, match=r"other\.pt"):
        load_equilibrium(path)


class Code:
    """What would write a file if it were unpickled without care."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.write_text, (self.path, "ran"))


def archive(tmp_path):
    path = tmp_path / "archive.zip"
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("data.pkl", "no pickle")
    return path.read_bytes()


def saved(value, tmp_path, **kwargs):
    torch.save(value, tmp_path / "saved.pt", **kwargs)
    return (tmp_path / "saved.pt").read_bytes()


FOREIGN = {
    "text": lambda tmp_path: b"exploitability,0.1\n" * 40,
    "one letter": lambda tmp_path: b"x",
    "a full stop": lambda tmp_path: b".",
    "zeros": lambda tmp_path: bytes(1000),
    "picture": lambda tmp_path: b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "zip": archive,
    "zip, cut": lambda tmp_path: archive(tmp_path)[:40],
    "tensor": lambda tmp_path: saved(torch.ones(3), tmp_path),
    "other dict": lambda tmp_path: saved({"agent": {}, "history": []}, tmp_path),
    "list": lambda tmp_path: saved([1, 2], tmp_path),
    "old format of torch": lambda tmp_path: saved({"a": 1}, tmp_path, _use_new_zipfile_serialization=False),
    "pickle": lambda tmp_path: pickle.dumps({"format": "mfg-envs equilibrium", "version": 1}),
    "pickle, protocol 2": lambda tmp_path: pickle.dumps({"format": "mfg-envs equilibrium", "version": 1}, protocol=2),
    "pickle with code": lambda tmp_path: pickle.dumps(Code(tmp_path / "ran.txt")),
    "pickle with code, protocol 2": lambda tmp_path: pickle.dumps(Code(tmp_path / "ran.txt"), protocol=2),
    "torch with code": lambda tmp_path: saved(Code(tmp_path / "ran.txt"), tmp_path),
    "array": lambda tmp_path: saved(np.ones(3), tmp_path),
}


@pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
def test_foreign_files(tmp_path, make):
    path = put(tmp_path, make(tmp_path))
    with pytest.raises(ValueError, match=r"other\.pt"):
        load_equilibrium(path)
    assert not (tmp_path / "ran.txt").exists()


@pytest.mark.parametrize("seed", range(20))
def test_flipped_bytes_never_raise_anything_else(file, tmp_path, seed):
    """Where the damage is in a number, the file may load."""
    data, rng = bytearray(file.read_bytes()), np.random.default_rng(seed)
    for position in rng.integers(len(data), size=30):
        data[position] = rng.integers(256)
    with contextlib.suppress(ValueError):
        assert isinstance(load_equilibrium(put(tmp_path, bytes(data))), Equilibrium)


# --- files of this format that make no sense -----------------------------------------------------------------------


def test_other_versions(content, tmp_path):
    for version in (1, 3, 0, None, "2"):
        path = put(tmp_path, saved({**content, "version": version}, tmp_path))
        with pytest.raises(ValueError, match=f"version {version!r}"):
            load_equilibrium(path)


@pytest.mark.parametrize("game", ["PlanetQuadratic", None, 3, ["LinearQuadratic"], "Game"])
def test_unknown_games(content, tmp_path, game):
    path = put(tmp_path, saved({**content, "game": game}, tmp_path))
    with pytest.raises(ValueError, match=r"other\.pt.*game"):
        load_equilibrium(path)


SPOILT = {
    ("constants",): [{"horizon": -1}, {"gravity": 9.81}, None, [1, 2]],
    ("constants", "horizon"): [5, "4", None],  # of another horizon than policy and flow
    ("constants", "dim"): [3],
    ("policy",): [None, {}, []],
    ("policy", "arguments"): [None, {}, {"dim": 1}],
    ("policy", "arguments", "dim"): [1, -1, "2", None, 0.5],
    ("policy", "arguments", "hidden"): [None, (0,), 8, ("8",)],
    ("policy", "arguments", "horizon"): [3, 0],
    ("policy", "arguments", "scale"): [(1.0,), None, ("a", "b")],
    ("policy", "arguments", "components"): [0, -1, 2, None],
    ("policy", "state"): [None, {}, [1], {"net.0.weight": 3}],
    ("policy", "kind"): ["Mixture", "Flow", "Policy", None],
    ("mean_field", "kind"): ["EmpiricalPath", "AveragePolicy", "MeanField", None],
    ("mean_field",): [None, {}],
    ("mean_field", "arguments"): [None, {}],
    ("mean_field", "arguments", "dim"): [1, 0, -1, "2", None],
    ("mean_field", "arguments", "horizon"): [3, -1, -5, "4", None],
    ("mean_field", "arguments", "transforms"): [0, 3, 2.5],
    ("mean_field", "arguments", "waves"): [-1, 1, None],
    ("mean_field", "arguments", "bins"): [0, -1, None, 6],
    ("mean_field", "state"): [None, {}, [1], {"location": "here"}],
    ("value",): [None, "a", [1.0], {}],
    ("exploitability",): [None, "a", [1.0]],
}


@pytest.mark.parametrize(
    ("where", "value"),
    [(where, value) for where, values in SPOILT.items() for value in values],
    ids=lambda v: ".".join(v) if isinstance(v, tuple) and v and isinstance(v[0], str) and len(v[0]) > 1 else repr(v),
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning")
def test_senseless_files(content, tmp_path, where, value):
    spoilt = copy.deepcopy(content)
    *path, last = where
    inner = spoilt
    for key in path:
        inner = inner[key]
    inner[last] = value
    with pytest.raises(ValueError, match=r"other\.pt"):
        load_equilibrium(put(tmp_path, saved(spoilt, tmp_path)))


@pytest.mark.parametrize(
    "key", ["game", "constants", "policy", "mean_field", "value", "exploitability", "format", "version"]
)
def test_files_without_a_part(content, tmp_path, key):
    del content[key]
    with pytest.raises(ValueError, match=r"other\.pt"):
        load_equilibrium(put(tmp_path, saved(content, tmp_path)))
