"""Networks fused pixel by pixel: against NumPy and SciPy, whatever way an image is turned."""

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter

from gpnas_trainers.fusion import MEASURES, Fusion, Gate, Table, fusion_of, measured
from gpnas_trainers.infer import dihedral, undo_dihedral

SHARES = torch.tensor([0.5, 0.3, 0.2])


def outputs(batch: int = 2, height: int = 12, width: int = 18) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    common = torch.rand(batch, 3, height, width, generator=generator)
    return [
        (common + 0.1 * torch.randn(common.shape, generator=generator)).clamp(0, 1)
        for _ in range(len(SHARES))
    ]


def table(seed: int = 0) -> Table:
    generator = torch.Generator().manual_seed(seed)
    edges = [torch.tensor([0.3, 0.6]), torch.tensor([0.4]), torch.tensor([0.02, 0.04, 0.05])]
    rows = torch.rand(24, 3, generator=generator)
    return Table(SHARES, edges, rows / rows.sum(dim=1, keepdim=True))


def gate(seed: int = 0) -> Gate:
    made = Gate(SHARES, 2)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return made.eval().requires_grad_(False)


def test_a_table_is_what_numpy_makes_of_it() -> None:
    given, fusion = outputs(), table()
    for image in range(2):
        arrays = np.stack([each[image].double().numpy() for each in given])
        shares = SHARES.double().numpy()
        greys = arrays.mean(axis=1)
        mean = np.tensordot(shares, greys, 1)
        around = np.pad(mean, 1, mode="edge")
        slope = np.abs(around[1:-1, 2:] - around[1:-1, :-2]) + np.abs(around[2:, 1:-1] - around[:-2, 1:-1])
        apart = np.tensordot(shares, np.abs(greys - mean), 1)
        values = [mean, *(uniform_filter(each, 3, mode="nearest") for each in (slope, apart))]
        for found, expected in zip(measured(given, SHARES), values, strict=True):
            np.testing.assert_allclose(found[image, 0].numpy(), expected, atol=1e-6)
        bins = [
            np.digitize(each, getattr(fusion, name).numpy())
            for name, each in zip(MEASURES, values, strict=True)
        ]
        cell = np.ravel_multi_index(tuple(bins), (3, 2, 4))
        weights = fusion.table.double().numpy()[cell]  # (y, x, K)
        expected = np.einsum("kcyx,yxk->cyx", arrays, weights)
        np.testing.assert_allclose(fusion(given)[image].numpy(), expected, atol=1e-6)
        assert len(np.unique(cell)) > 8


def test_equal_rows_are_an_average() -> None:
    given = outputs()
    fusion = Table(SHARES, [torch.tensor([0.5]), torch.empty(0), torch.empty(0)], SHARES.repeat(2, 1))
    expected = sum(share * each for share, each in zip(SHARES.tolist(), given, strict=True))
    torch.testing.assert_close(fusion(given), expected)
    torch.testing.assert_close(Gate(SHARES, 3)(given), expected)  # as does a gate that has learned nothing


@pytest.mark.parametrize("transform", range(8))
def test_a_table_turns_with_the_image(transform: int) -> None:
    given, fusion = outputs(), table()
    turned = [dihedral(each, transform) for each in given]
    torch.testing.assert_close(undo_dihedral(fusion(turned), transform), fusion(given))


@pytest.mark.parametrize("fusion", [table(), gate()], ids=["table", "gate"])
def test_weights_sum_to_one_and_are_those_that_fuse(fusion: Fusion) -> None:
    given = outputs()
    weights = fusion.weights(given)
    assert weights.shape == (3, 2, 1, 12, 18)
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(2, 1, 12, 18))
    assert float(weights.min()) >= 0
    assert weights.flatten(1).std(dim=1).min() > 0.01  # they differ from pixel to pixel
    torch.testing.assert_close(fusion(given), (torch.stack(given) * weights).sum(dim=0))


@pytest.mark.parametrize("fusion", [table(), gate()], ids=["table", "gate"])
def test_a_state_is_the_whole_fusion(fusion: Fusion) -> None:
    given = outputs()
    again = fusion_of(fusion.kind, fusion.state_dict(), 3, 2)
    assert torch.equal(again(given), fusion(given))
    with pytest.raises(ValueError, match="its shares must be 2 numbers above 0, but are"):
        fusion_of(fusion.kind, fusion.state_dict(), 2, 2)
    lacking = dict(fusion.state_dict())
    lacking.popitem()
    with pytest.raises(ValueError, match=f"its tensors must be those of a {fusion.kind}, but"):
        fusion_of(fusion.kind, lacking, 3, 2)


def test_a_state_of_another_form_is_refused() -> None:
    state = table().state_dict()
    with pytest.raises(ValueError, match="it must be a table or a gate, but is 'median'"):
        fusion_of("median", state, 3, 2)
    with pytest.raises(ValueError, match="a row for each of its 24 cells"):
        fusion_of("table", state | {"table": state["table"][:-1]}, 3, 2)
    with pytest.raises(ValueError, match="must ascend, but do not"):
        fusion_of("table", state | {"distance": torch.tensor([0.2, 0.1, 0.3])}, 3, 2)
    with pytest.raises(ValueError, match="its tensors must be those of a gate, but"):
        fusion_of("gate", gate().state_dict(), 3, 4)
