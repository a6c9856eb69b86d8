"""The linear-quadratic game against its equations, written out by hand, and the contract of every game."""

import copy
import json
import math
import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch

from mfg_envs.games import GAMES, Game, LinearQuadratic

GAME_CASES = {
    "default": LinearQuadratic(),
    "diagonal": LinearQuadratic(
        dim=2, A=(0.9, -0.5), B=(0.2, -0.4), A_bar=(0.1, -0.3), x_target=(1.0, -2.0), m0=(-1.0, 0.5), horizon=7
    ),
    "wide": LinearQuadratic(
        dim=2,
        A=((0.9, -0.4), (0.3, 0.7)),
        B=((0.2, 0.1, -0.3), (0.0, -0.5, 0.2)),
        A_bar=((0.1, -0.2), (0.05, 0.3)),
        x_target=0.4,
        m0=(2.0, -1.0),
        sigma=0.2,
        horizon=5,
    ),
    "tall": LinearQuadratic(
        dim=3,
        A=((0.5, -0.4, 0.1), (0.3, 0.7, 0.0), (-0.2, 0.0, -1.1)),
        B=((1.0,), (-0.5,), (0.25,)),
        A_bar=-0.2,
        c_x=0.7,
        c_a=0.3,
        c_m=0.9,
        horizon=4,
    ),
}
all_games = pytest.mark.parametrize("game", GAME_CASES.values(), ids=GAME_CASES)


class Only:
    """A crowd that knows its mean and nothing else."""

    def __init__(self, mean):
        self.mean = mean

    def __getattr__(self, name):
        raise AssertionError(f"the game read {name!r}, which it does not declare")


def draw(game, n=6, seed=0):
    """x, a (inside the box), z, and the crowd's mean."""
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=(2, n, game.dim))
    return x, rng.uniform(-9, 9, size=(n, game.action_dim)), z, rng.normal(size=game.dim)


def matrix(value, d):
    """s I, diag(v) or M, entry by entry."""
    value = np.asarray(value)
    if value.ndim == 2:
        return value
    return np.array([[(value if value.ndim == 0 else value[i]) if i == j else 0.0 for j in range(d)] for i in range(d)])


# --- the equations -------------------------------------------------------------------------------------------------


@all_games
def test_equations_by_hand(game):
    """x' = A x + B a + A_bar m + sigma z and r = -c_x|x - x*|^2 - c_a|a|^2 - c_m|x - m|^2, one agent at a time."""
    x, a, z, m = draw(game)
    mu, d = Only(m), game.dim
    A, B, A_bar = (matrix(M, d) for M in (game.A, game.B, game.A_bar))
    target, m0 = np.zeros(d) + game.x_target, np.zeros(d) + game.m0
    for t in range(game.horizon):
        following, reward = game.step(t, x, a, mu, z), game.reward(t, x, a, mu)
        for i in range(len(x)):
            np.testing.assert_allclose(following[i], A.dot(x[i]) + B.dot(a[i]) + A_bar.dot(m) + game.sigma * z[i])
            by_hand = sum(
                -game.c_x * (x[i, j] - target[j]) ** 2 - game.c_m * (x[i, j] - m[j]) ** 2 for j in range(d)
            ) - sum(game.c_a * a[i, j] ** 2 for j in range(game.action_dim))
            assert reward[i] == pytest.approx(by_hand, rel=1e-13)
    np.testing.assert_allclose(game.initial_state(z), m0 + game.s0 * z, rtol=1e-14)
    np.testing.assert_array_equal(game.terminal_reward(x, mu), np.zeros(len(x)))
    assert following.shape == x.shape
    assert reward.shape == game.terminal_reward(x, mu).shape == (len(x),)


def test_numbers_diagonals_and_matrices_are_the_same_game():
    """s, (s, s) and s I stand for one matrix; so do diagonals and their matrices."""
    numbers = LinearQuadratic(dim=2, A=0.8, B=0.3, A_bar=-0.2, x_target=0.5, m0=-0.5)
    vectors = LinearQuadratic(
        dim=2, A=[0.8, 0.8], B=[0.3, 0.3], A_bar=[-0.2] * 2, x_target=(0.5, 0.5), m0=np.full(2, -0.5)
    )
    matrices = LinearQuadratic(
        dim=2, A=0.8 * np.eye(2), B=0.3 * np.eye(2), A_bar=[[-0.2, 0.0], [0.0, -0.2]], x_target=0.5, m0=-0.5
    )
    x, a, z, m = draw(numbers)
    for other in (vectors, matrices):
        assert other.action_dim == 2
        np.testing.assert_allclose(other.step(0, x, a, Only(m), z), numbers.step(0, x, a, Only(m), z), rtol=1e-14)
        np.testing.assert_allclose(other.reward(0, x, a, Only(m)), numbers.reward(0, x, a, Only(m)), rtol=1e-14)
        np.testing.assert_allclose(other.initial_state(z), numbers.initial_state(z), rtol=1e-14)
        np.testing.assert_allclose(other.state_low, numbers.state_low, rtol=1e-13)
        np.testing.assert_allclose(other.state_high, numbers.state_high, rtol=1e-13)


@pytest.mark.parametrize(
    ("B", "dim", "action_dim"), [(0.2, 3, 3), ((1, 2), 2, 2), (np.ones((2, 5)), 2, 5), (np.ones((3, 1)), 3, 1)]
)
def test_sizes(B, dim, action_dim):
    game = LinearQuadratic(B=B, dim=dim)
    assert isinstance(game, Game)
    assert GAMES["LinearQuadratic"] is LinearQuadratic
    assert (game.dim, game.action_dim, game.horizon) == (dim, action_dim, 20)
    for low, high, size in ((game.state_low, game.state_high, dim), (game.action_low, game.action_high, action_dim)):
        assert low.shape == high.shape == (size,)
        assert np.all(np.isfinite(low) & np.isfinite(high) & (low < high))
    np.testing.assert_array_equal([game.action_low[0], game.action_high[0]], [-10, 10])


@pytest.mark.parametrize(
    ("changes", "affected"),
    [
        ({"A": 0.8}, {"step"}),
        ({"B": 0.3}, {"step"}),
        ({"A_bar": 0.2}, {"step"}),
        ({"sigma": 0.2}, {"step"}),
        ({"c_x": 0.6}, {"reward"}),
        ({"c_a": 0.2}, {"reward"}),
        ({"c_m": 0.6}, {"reward"}),
        ({"x_target": 0.9}, {"reward"}),
        ({"m0": -0.9}, {"initial_state"}),
        ({"s0": 0.4}, {"initial_state"}),
        ({"horizon": 21}, {"horizon"}),
    ],
    ids=lambda value: next(iter(value)),
)
def test_every_field_has_its_effect_and_no_other(changes, affected):
    def look(game):
        x, a, z, m = draw(game)
        return {
            "step": game.step(0, x, a, Only(m), z).tolist(),
            "reward": game.reward(0, x, a, Only(m)).tolist(),
            "initial_state": game.initial_state(z).tolist(),
            "horizon": game.horizon,
        }

    before, after = look(LinearQuadratic()), look(LinearQuadratic(**changes))
    assert {name for name in before if before[name] != after[name]} == affected
    assert LinearQuadratic(**changes) != LinearQuadratic()


@all_games
def test_actions_outside_the_box_are_projected(game):
    x, a, z, m = draw(game)
    wild = a * np.array([1, 2, 5, 1, 1, 1])[:, None]
    wild[3:] = [[np.inf], [-np.inf], [10.5]]
    clipped = np.where(wild > 10, 10, np.where(wild < -10, -10, wild))
    assert not np.array_equal(wild, clipped)
    np.testing.assert_array_equal(game.project_action(wild), clipped)
    np.testing.assert_array_equal(game.project_action(clipped), clipped)
    np.testing.assert_array_equal(game.step(0, x, wild, Only(m), z), game.step(0, x, clipped, Only(m), z))
    np.testing.assert_array_equal(game.reward(0, x, wild, Only(m)), game.reward(0, x, clipped, Only(m)))


# --- pure functions of arrays of any library -----------------------------------------------------------------------


@all_games
def test_pure(game):
    """Inputs are not written to, and the same inputs give the same bits."""
    arrays = x, a, z, m = draw(game)
    for array in arrays:
        array.setflags(write=False)
    for call in (
        lambda: game.initial_state(z),
        lambda: game.step(0, x, a, Only(m), z),
        lambda: game.reward(0, x, a, Only(m)),
        lambda: game.terminal_reward(x, Only(m)),
        lambda: game.project_action(a),
    ):
        first = call()
        kept = first.copy()
        first += 1  # what is returned is the caller's own
        np.testing.assert_array_equal(call(), kept)


@all_games
@pytest.mark.parametrize("mean_as", [np.asarray, torch.as_tensor])
def test_numpy_and_torch_agree(game, mean_as):
    x, a, z, m = draw(game)
    a = 2 * a  # some of them outside the box
    mu = Only(mean_as(m))
    X, A, Z = map(torch.as_tensor, (x, a, z))
    for of_numpy, of_torch in (
        (game.initial_state(z), game.initial_state(Z)),
        (game.step(1, x, a, mu, z), game.step(1, X, A, mu, Z)),
        (game.reward(1, x, a, mu), game.reward(1, X, A, mu)),
        (game.terminal_reward(x, mu), game.terminal_reward(X, mu)),
        (game.project_action(a), game.project_action(A)),
        (game.contains(100 * x), game.contains(100 * X)),
    ):
        assert isinstance(of_numpy, np.ndarray)
        assert isinstance(of_torch, torch.Tensor)
        np.testing.assert_allclose(of_torch.numpy(), of_numpy, rtol=1e-12, atol=1e-12)


@all_games
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_float32_stays_float32(game, library):
    x, a, z, m = draw(game)
    single = [v.astype(np.float32) if library == "numpy" else torch.as_tensor(v).float() for v in (x, a, z)]
    X, A, Z = single
    wanted = np.float32 if library == "numpy" else torch.float32
    for out in (game.initial_state(Z), game.step(0, X, A, Only(m), Z), game.reward(0, X, A, Only(m))):
        assert out.dtype == wanted
    np.testing.assert_allclose(np.asarray(game.reward(0, X, A, Only(m))), game.reward(0, x, a, Only(m)), rtol=1e-4)


@all_games
def test_gradients_are_finite_differences(game):
    """In x, a, z and the crowd's mean, with the actions inside the box."""
    inputs = [torch.as_tensor(v).requires_grad_() for v in draw(game, n=3)]
    assert torch.autograd.gradcheck(lambda x, a, z, m: game.step(0, x, a, Only(m), z), inputs)
    assert torch.autograd.gradcheck(lambda x, a, z, m: game.reward(0, x, a, Only(m)), inputs)
    assert torch.autograd.gradcheck(game.initial_state, inputs[2])


def test_gradient_of_an_action_outside_the_box_is_zero():
    a = torch.full((1, 1), 11.0, requires_grad=True)
    game, x = LinearQuadratic(), torch.zeros(1, 1)
    (game.step(0, x, a, Only(np.zeros(1)), x).sum() + game.reward(0, x, a, Only(np.zeros(1))).sum()).backward()
    assert a.grad.item() == 0


def test_declarations():
    assert LinearQuadratic.reward_reads == LinearQuadratic.dynamics_reads == frozenset({"mean"})


# --- a value like any other ----------------------------------------------------------------------------------------


@all_games
def test_hashable_comparable_picklable_and_json(game):
    assert np.all(game.state_low < game.state_high)  # what is cached here must be no part of the value
    twins = [
        type(game)(**game.constants),
        type(game)(**json.loads(json.dumps(game.constants))),
        pickle.loads(pickle.dumps(game)),
        copy.deepcopy(game),
    ]
    assert all(twin == game and hash(twin) == hash(game) and twin.constants == game.constants for twin in twins)
    assert len({game, *twins}) == 1
    other = type(game)(**{**game.constants, "c_x": 0.123})
    assert other != game
    with pytest.raises(FrozenInstanceError):
        game.c_x = 2.0


def test_fields_are_stored_plainly():
    """Arrays, lists, NumPy numbers and ints give the same game as floats and tuples."""
    plain = LinearQuadratic(dim=2, A=((1.0, 2.0), (3.0, 4.0)), m0=(1.0, 2.0), c_x=1.0, horizon=3)
    fancy = LinearQuadratic(
        dim=np.int64(2),
        A=np.array([[1, 2], [3, 4]]),
        m0=torch.tensor([1.0, 2.0]),
        c_x=np.float32(1),
        horizon=np.int32(3),
    )
    assert fancy == plain
    assert hash(fancy) == hash(plain)
    assert json.dumps(fancy.constants) == json.dumps(plain.constants)


def test_bounds_belong_to_the_caller():
    game = LinearQuadratic()
    for name in ("state_low", "state_high", "action_low", "action_high"):
        kept = getattr(game, name).copy()
        getattr(game, name)[:] = 7
        np.testing.assert_array_equal(getattr(game, name), kept)


NOT_NUMBERS = (math.nan, math.inf, "0.5", "a", None, 1j, 10**400)
BAD_FIELDS = [
    *((name, value) for name in ("c_x", "c_a", "c_m", "sigma", "s0") for value in (*NOT_NUMBERS, -0.1, [0.5], {})),
    ("c_a", 0),
    *((name, value) for name in ("horizon", "dim") for value in (0, -1, True, 2.5, 2.0, "2", None, math.nan, [2])),
    *(
        (name, value)
        for name in ("A", "B", "A_bar", "m0", "x_target")
        for value in (*NOT_NUMBERS, [], [1.0, 2.0], ["1"], [math.nan], [[1.0, 2.0], [3.0, 4.0]], np.ones((1, 1, 1)))
    ),
    *((name, value) for name in ("A", "A_bar") for value in ([[1.0, 2.0]], [[1.0], [2.0]], [[1.0], [2.0, 3.0]])),
    ("B", [[1.0], [2.0]]),
    ("B", np.ones((1, 0))),
    ("m0", [[1.0]]),
    ("x_target", [[1.0]]),
]


@pytest.mark.parametrize(("name", "value"), BAD_FIELDS, ids=lambda value: str(value).replace("\n", "")[:25])
def test_bad_fields_are_named(name, value):
    with pytest.raises(ValueError, match=rf"LinearQuadratic: {name} must be "):
        LinearQuadratic(**{name: value})


@pytest.mark.parametrize("name", ["A", "A_bar", "B", "m0", "x_target"])
def test_shapes_follow_dim(name):
    for value in (np.ones(2), np.ones((2, 2)))[: 2 if name in ("A", "A_bar", "B") else 1]:
        LinearQuadratic(dim=2, **{name: value})
        with pytest.raises(ValueError, match=rf"{name} .*dim is 3"):
            LinearQuadratic(dim=3, **{name: value})


# --- the box of states ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize("strategy", ["inside", "corners", "one corner", "two camps", "to and fro"])
def test_box_contains_what_can_be_reached(seed, d, strategy):
    """Box actions and |z| <= 10 keep every agent, and so the crowd's mean, in [state_low, state_high]."""
    rng, n = np.random.default_rng([seed, d]), 40
    game = LinearQuadratic(
        dim=d,
        A=rng.normal(0, 0.8, size=(d, d)),
        B=rng.normal(size=(d, 2)),
        A_bar=rng.normal(0, 0.5, size=(d, d)),
        m0=rng.normal(0, 3, size=d),
        horizon=6,
        sigma=0.3,
    )

    def choose(width, t):
        """(n, width) with entries in [-10, 10]."""
        if strategy in ("inside", "corners"):
            return rng.uniform(-10, 10, (n, width)) if strategy == "inside" else rng.choice([-10.0, 10.0], (n, width))
        signs = {
            "one corner": np.ones(n),
            "two camps": np.repeat([1, -1], [1, n - 1]),  # one against the rest, so that x and the mean part
            "to and fro": np.full(n, (-1) ** t),
        }[strategy]
        return 10.0 * signs[:, None] * np.where(np.arange(width) < seed % (width + 1), 1, -1)

    x, rounding = game.initial_state(choose(d, 0)), 1e-12 * (game.state_high - game.state_low)
    for t in range(game.horizon):
        x = game.step(t, x, choose(2, t), Only(x.mean(axis=0)), choose(d, t))
        assert np.all((x >= game.state_low - rounding) & (x <= game.state_high + rounding))


def test_contains():
    """Which states are in the box, its faces included."""
    game = GAME_CASES["diagonal"]
    low, high = game.state_low, game.state_high
    inside = np.stack([low, high, np.where([True, False], low, high), game.initial_state(np.zeros((1, 2)))[0]])
    outside = np.stack([low - np.array([1e-6, 0]), high + np.array([0, 1e-6]), [np.nan, 0.0], [0.0, np.inf]])
    np.testing.assert_array_equal(game.contains(np.concatenate([inside, outside])), [True] * 4 + [False] * 4)


@pytest.mark.parametrize(("A", "A_bar"), [(0.9, 0.1), (1.3, 0.0), (-0.8, -0.1), (0.0, 0.7), (0.5, 0.0)])
@pytest.mark.parametrize("m0", [-4.0, 4.0])
def test_box_is_attained_in_one_dimension(A, A_bar, m0):
    """|x_t - c_t| = |A + A_bar| r + |B| 10 + 10 sigma when all go for the same corner: the box is their hull."""
    game = LinearQuadratic(A=A, A_bar=A_bar, m0=m0, horizon=9)
    reached = []
    for side in (1.0, -1.0):
        for last in range(game.horizon + 1):  # aim at the corner of time `last`
            signs = side * np.sign(A + A_bar) ** (last - np.arange(last + 1))
            x = game.initial_state(np.full((1, 1), 10 * signs[0]))
            for t in range(last):
                z = np.full((1, 1), 10 * signs[t + 1])
                x = game.step(t, x, z, Only(x[0]), z)
            reached.append(x.item())
    assert min(reached) == pytest.approx(game.state_low.item(), rel=1e-12)
    assert max(reached) == pytest.approx(game.state_high.item(), rel=1e-12)


def test_box_of_a_rotation_does_not_explode():
    """A rotation keeps |x|: after T steps |x| <= |x_0| + T |B a + sigma z|, which no box needs to exceed far."""
    c = math.sqrt(0.5)
    game = LinearQuadratic(dim=2, A=((c, -c), (c, c)), A_bar=0.0, horizon=20)
    longest = math.sqrt(2) * (1 + 10 * 0.3 + 20 * (0.2 * 10 + 10 * 0.1))
    assert np.all(game.state_high >= longest / 2)
    assert np.all(np.maximum(game.state_high, -game.state_low) <= 2 * longest)


@pytest.mark.parametrize("constants", [{"A": 10.0, "horizon": 60}, {"A": 1e200}, {"A": -1e200, "horizon": 3}])
def test_bounds_stay_finite_in_float32(constants):
    game = LinearQuadratic(**constants)
    for bound in (game.state_low, game.state_high):
        assert np.all(np.isfinite(bound.astype(np.float32)))
    assert np.all(game.state_low < game.state_high)
