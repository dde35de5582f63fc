"""Laws of Muon: the singular values of updates, and equality with torch's optimizer."""

import pytest
import torch
from torch.testing import assert_close

from textdiff.training.muon import BAND, Muon, orthogonalize

SHAPES = [(24, 8), (8, 8), (32, 8), (8, 32), (16, 8), (12, 20)]
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


def matrices(seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def polynomial(matrix: torch.Tensor) -> torch.Tensor:
    """Five steps of the iteration applied to the singular values, in float64."""
    u, s, v = torch.linalg.svd(matrix.double() / matrix.double().norm(), full_matrices=False)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u @ s.diag() @ v


@pytest.mark.parametrize(("dtype", "slack"), [(torch.float32, 0.0), (torch.bfloat16, 0.03)])
@pytest.mark.parametrize("smallest", [0.004, 0.3, 1.0])
def test_singular_values_end_in_the_band(dtype, slack, smallest):
    """For well and badly conditioned matrices."""
    noise = torch.randn(32, 48, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(noise, full_matrices=False)
    values = torch.logspace(torch.tensor(smallest).log10(), 0, 32)
    matrix = u @ values.diag() @ v
    scaled = values / matrix.norm()
    (result,) = orthogonalize([matrix], dtype)
    found = torch.linalg.svdvals(result.float())
    assert found[: int((scaled > 0.003).sum())].max() <= BAND[1] + slack
    assert found.min() >= BAND[0] - slack if scaled.min() > 0.003 else True


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-4), (torch.bfloat16, 0.05)]
)
def test_batched_matrices_match_single_matrices(dtype, tolerance):
    given = [m.double() if dtype == torch.float64 else m for m in matrices()]
    for matrix, result in zip(given, orthogonalize(given, dtype), strict=True):
        assert result.shape == matrix.shape
        assert_close(result.double(), polynomial(matrix), atol=tolerance, rtol=0)


def test_zero_matrix_stays_zero():
    assert_close(orthogonalize([torch.zeros(3, 5)], torch.float32)[0], torch.zeros(3, 5))


@every_dtype
def test_muon_matches_torch_up_to_bfloat16(dtype):
    """Compares updates after three steps of changing gradients, and the state."""
    ours, theirs = ([torch.nn.Parameter(m.clone()) for m in matrices()] for _ in range(2))
    ours_muon = Muon(ours, lr=0.02, weight_decay=0.1, dtype=dtype)
    torch_muon = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(3):
        for params, optimizer in ((ours, ours_muon), (theirs, torch_muon)):
            for p, gradient in zip(params, matrices(seed=step + 1), strict=True):
                p.grad = gradient.clone()
            optimizer.step()
    for a, b, start in zip(ours, theirs, matrices(), strict=True):
        assert (a - b).norm() <= 0.03 * (b - start).norm()
    assert_close(
        ours_muon.state_dict()["state"], torch_muon.state_dict()["state"], atol=1e-6, rtol=0
    )


def test_state_of_torch_muon_can_be_loaded():
    ours, theirs = ([torch.nn.Parameter(m.clone()) for m in matrices()] for _ in range(2))
    torch_muon = torch.optim.Muon(theirs, lr=0.02, adjust_lr_fn="match_rms_adamw")
    for p, gradient in zip(theirs, matrices(seed=1), strict=True):
        p.grad = gradient
    torch_muon.step()
    ours_muon = Muon(ours, lr=0.02)
    ours_muon.load_state_dict(
        {
            "state": torch_muon.state_dict()["state"],
            "param_groups": ours_muon.state_dict()["param_groups"],
        }
    )
    assert_close(ours_muon.state_dict()["state"], torch_muon.state_dict()["state"])
