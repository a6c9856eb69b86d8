"""What importing the package does, and does not do."""

import importlib
import re
import subprocess
import sys
from importlib import metadata, resources
from pathlib import Path

import gymnasium
import pettingzoo
import pytest

import mfg_envs

HEAVY = ("torch", "zuko", "pygame", "matplotlib", "tyro", "tqdm", "tensorboard", "imageio_ffmpeg")


def run(program, *options):
    command = [sys.executable, *options, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "statement",
    [
        "import mfg_envs",
        "from mfg_envs import lq_v0; lq_v0.env(); lq_v0.vector_env(num_envs=3).reset()",
        "from mfg_envs.equilibrium import solve; from mfg_envs.games import LinearQuadratic; solve(LinearQuadratic())",
        "from mfg_envs import interop; from mfg_envs.equilibrium import finite",
        "import gymnasium, mfg_envs; gymnasium.make_vec('mfg_envs/lq-v0', num_envs=2).close()",
    ],
)
def test_nothing_heavy_is_imported(statement):
    """With warnings as errors, and silently."""
    done = run(f"{statement}\nimport sys\nprint(*sorted(set({HEAVY!r}) & set(sys.modules)))", "-W", "error")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
    assert done.stderr == ""


@pytest.mark.parametrize("module", ["mfg_envs.mean_field.flow", "mfg_envs.policies", "mfg_envs.equilibrium"])
def test_every_module_can_come_first(module):
    done = run(f"import {module}", "-W", "error")
    assert (done.returncode, done.stderr) == (0, "")


def test_it_works_without_torch():
    """Without the extra `solvers`: only what needs it says so."""
    done = run(
        """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "zuko"):
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Missing())
from mfg_envs import lq_v0
from mfg_envs.equilibrium import exploitability, solve
from mfg_envs.games import LinearQuadratic
game = LinearQuadratic(horizon=3)
print(exploitability(game, solve(game).policy, num_agents=4).value < 1e-9, len(lq_v0.parallel_env().reset()[0]))
try:
    from mfg_envs.mean_field import Flow
except ImportError as error:
    print("torch" in str(error))
"""
    )
    assert done.stdout.split() == ["True", "100", "True"], done.stderr


def test_reloading_registers_nothing_twice():
    """Registering an id again would warn, and warnings are errors here."""
    before = set(gymnasium.registry)
    importlib.reload(mfg_envs)
    assert set(gymnasium.registry) == before
    assert {name for name in before if name.startswith("mfg_envs/")} == set(mfg_envs.ENVIRONMENTS)


@pytest.mark.parametrize(("name", "module"), mfg_envs.ENVIRONMENTS.items())
def test_conformance_of_every_environment(name, module):
    """Ids, modules and metadata go by one name: mfg_envs/lq-v0, mfg_envs.lq_v0, "lq_v0"."""
    assert re.fullmatch(r"mfg_envs/[a-z0-9_]+-v\d+", name)
    short = name.removeprefix("mfg_envs/").replace("-v", "_v")
    assert module == f"mfg_envs.{short}"
    functions = importlib.import_module(module)
    assert set(functions.__all__) == {"env", "parallel_env", "raw_env", "vector_env"}
    for made in (
        functions.parallel_env(num_agents=3),
        functions.raw_env(num_agents=3),
        functions.env(num_agents=3),
        pettingzoo.make("parallel", name, num_agents=3),
        pettingzoo.make("aec", name, num_agents=3),
    ):
        assert made.metadata["name"] == short
        assert made.metadata["is_parallelizable"] is True
        assert isinstance(made.metadata["render_modes"], list)
        assert made.metadata["render_fps"] > 0
        assert made.possible_agents == ["agent_0", "agent_1", "agent_2"]
        assert all(re.fullmatch(r"[a-z]+_[0-9]+", agent) for agent in made.possible_agents)
    assert gymnasium.make_vec(name, num_envs=3).unwrapped.num_envs == 3


def test_version_and_types():
    assert mfg_envs.__version__ == metadata.version("mfg-envs")
    assert re.fullmatch(r"\d+\.\d+\.\d+", mfg_envs.__version__)
    assert resources.files("mfg_envs").joinpath("py.typed").is_file()
    assert all(hasattr(mfg_envs, name) for name in mfg_envs.__all__)


@pytest.mark.parametrize("page", ["README.md", "docs/density.md"])
def test_code_on_pages_runs(page):
    """Blocks of one page are one session. The one that loads a run is left out, as there is none."""
    text = (Path(__file__).parent.parent / page).read_text()
    blocks = [block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "load_equilibrium" not in block]
    assert blocks
    exec("\n".join(blocks), {})
