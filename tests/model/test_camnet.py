"""CamNet: which networks have a CAM, and that theirs is exact."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from stream_cam.errors import ModelError, NoCamError, UsageError, WeightsError
from stream_cam.model.camnet import CamNet, build_network, load_parameters
from stream_cam.model.state_dicts import guess_model
from stream_cam.model.torchvision_models import model_names


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Pictures are tiny here: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


WITH_CAM = {
    "resnet18": 512,
    "resnet34": 512,
    "resnet50": 2048,
    "resnet101": 2048,
    "wide_resnet50_2": 2048,
    "resnext50_32x4d": 2048,
    "regnet_y_400mf": 440,
    "densenet121": 1024,
    "googlenet": 1024,
    "shufflenet_v2_x1_0": 1024,
    "mobilenet_v2": 1280,
    "efficientnet_b0": 1280,
    "mnasnet0_5": 1280,
}

OTHER_HEADS = {"mobilenet_v3_small": 576, "mobilenet_v3_large": 960, "convnext_tiny": 768}

WITHOUT_CAM = {
    "alexnet": "flatten of 256×6×6 features before classifier.1 (Linear)",
    "vgg11": "flatten of 512×7×7 features before classifier.0 (Linear)",
    "swin_t": "features come from features.7.1.mlp.3 (Linear), not from a convolution",
    "vit_b_16": "no convolutional features reach an average pooling before heads.head (Linear)",
}


def randomise_statistics(network: nn.Module) -> None:
    """Batch norms as training leaves them: fresh ones are near the identity."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.normal_(0.0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0.0, 0.1)


def assert_invariant(net: CamNet, batch: Tensor) -> tuple[Tensor, Tensor]:
    """mean(M_c) + b_c == logit_c; returns logits and features."""
    with torch.inference_mode():
        logits, features = net(batch)
    maps = torch.einsum("ck,nkhw->nchw", net.weight.double(), features.double())
    from_maps = maps.mean((2, 3)) + net.bias.double()
    # Float32 sums of up to 2048 terms: 1e-6 of the summed magnitudes, not of the sum.
    magnitude = features.abs().mean((2, 3)) @ net.weight.abs().T + net.bias.abs()
    assert ((logits.double() - from_maps).abs() <= 1e-6 * magnitude).all()
    return logits, features


@pytest.mark.parametrize("name", WITH_CAM)
def test_torchvision_network_keeps_its_logits_and_the_invariant(name: str) -> None:
    torch.manual_seed(0)
    network = build_network(name, n_classes=7)
    randomise_statistics(network)
    net = CamNet.from_module(network, name, probe_hw=(64, 64))
    assert (net.name, net.n_classes, net.n_channels) == (name, 7, WITH_CAM[name])

    batch = torch.randn(2, 3, 64, 96)
    logits, features = assert_invariant(net, batch)
    assert net.head is None
    with torch.inference_mode():
        own = network(batch)
    # The same features are pooled by the same mean; only its kernel may differ: 1e-5 relative.
    torch.testing.assert_close(logits, own, rtol=1e-5, atol=1e-5 * float(own.abs().max()))
    assert logits.shape == (2, 7)
    assert features.shape == (2, WITH_CAM[name], 2, 3)


def test_a_plane_for_each_class_needs_no_layer() -> None:
    net = CamNet.from_module(build_network("squeezenet1_0", 7), probe_hw=(64, 64))
    assert torch.equal(net.weight, torch.eye(7))
    logits, features = assert_invariant(net, torch.randn(2, 3, 64, 96))
    assert features.shape[1] == 7
    torch.testing.assert_close(logits, features.mean((2, 3)))


@pytest.mark.parametrize("name", WITHOUT_CAM)
def test_torchvision_network_without_cam_names_the_part(name: str) -> None:
    probe_hw = (224, 224) if name == "vit_b_16" else (64, 64)
    with pytest.raises(NoCamError) as caught:
        CamNet.from_module(build_network(name, 3), name, probe_hw)
    message = str(caught.value)
    assert message.startswith(f"{name} has no CAM: ")
    assert WITHOUT_CAM[name] in message
    assert "global average pooling (GAP) of its last convolution's features" in message
    assert "\n" not in message


class Small(nn.Module):
    """Two convolutions, then the layers of a test."""

    def __init__(self, pooling: str = "module", n_classes: int = 5, bias: bool = True) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=4, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 16, 3, padding=1),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(16, n_classes, bias=bias)
        self.conv_head = nn.Conv2d(16, n_classes, 1, bias=bias)
        self.pooling = pooling

    def forward(self, x: Tensor, scale: float = 1.0, verbose: bool = False) -> Tensor:
        # Optional arguments and branches on them are common in people's networks.
        if verbose or scale != 1.0:
            x = x * scale
        return self.head(self.features(x))

    def head(self, f: Tensor) -> Tensor:
        pooling = self.pooling
        if pooling == "conv after":
            return torch.flatten(self.conv_head(self.pool(f)), 1)
        if pooling == "conv before":
            return torch.flatten(self.pool(self.dropout(self.conv_head(f))), 1)
        if pooling == "relu":
            f = F.relu(f, inplace=True)
        if pooling == "functional":
            return F.linear(self.pooled(f), self.fc.weight, bias=self.fc.bias)
        return self.classified(self.pooled(f))

    def classified(self, pooled: Tensor) -> Tensor:
        logits: Tensor = self.fc(pooled)
        return logits

    def pooled(self, f: Tensor) -> Tensor:
        pooling = self.pooling
        if pooling == "functional":
            return F.adaptive_avg_pool2d(f, (1, 1)).view(f.size(0), -1)
        if pooling == "mean 2 3":
            return f.mean((2, 3))
        if pooling == "mean -2 -1":
            return torch.mean(f, dim=(-2, -1), keepdim=True).squeeze(-1).squeeze(-1)
        if pooling == "mean twice":
            return f.mean(3).mean(2)
        if pooling == "flat mean":
            return f.flatten(2).mean(-1)
        if pooling == "window":
            return F.avg_pool2d(f, f.shape[2:])[:, :, 0, 0]
        if pooling == "functional dropout":
            return F.dropout(f.mean([2, 3]), 0.5, self.training)
        return torch.flatten(self.dropout(self.pool(f)), 1)


POOLINGS = (
    *("module", "functional", "mean 2 3", "mean -2 -1", "mean twice", "flat mean", "window"),
    *("functional dropout", "relu", "conv after", "conv before"),
)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_own_network_with_any_way_of_pooling(pooling: str, bias: bool) -> None:
    torch.manual_seed(1)
    module = Small(pooling, bias=bias)
    randomise_statistics(module)
    net = CamNet.from_module(module, probe_hw=(32, 32))
    assert net.name == "Small"
    batch = torch.randn(3, 3, 36, 52)
    logits, features = assert_invariant(net, batch)
    assert features.shape == (3, 16, 9, 13)
    assert (features.min() < 0) == (pooling != "relu")
    assert bool(net.bias.any()) == bias
    with torch.inference_mode():
        own = module.eval()(batch)
    torch.testing.assert_close(logits, own, rtol=1e-5, atol=1e-6)


class Headed(Small):
    """Small with another head."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.tail = head

    def head(self, f: Tensor) -> Tensor:
        logits: Tensor = self.tail(f)
        return logits


class Maximum(nn.Module):
    def forward(self, f: Tensor) -> Tensor:
        return f.amax((2, 3))


GAP = (nn.AdaptiveAvgPool2d(1), nn.Flatten())


class BothPoolings(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.average, self.maximum = nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)
        self.fc = nn.Linear(32, 5)

    def forward(self, f: Tensor) -> Tensor:
        both = torch.cat([self.average(f), self.maximum(f)], 1)
        logits: Tensor = self.fc(both.flatten(1))
        return logits


class SideWay(nn.Module):
    """Adds something to the head that the mean does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 5)

    def forward(self, f: Tensor) -> Tensor:
        logits: Tensor = self.fc(f.mean((2, 3)).tanh()) + f[:, :5, 0, 0]
        return logits


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (
            nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(16, 5)),
            "tail.0 (AdaptiveMaxPool2d), maxima where averages should be",
        ),
        (
            nn.Sequential(Maximum(), nn.Linear(16, 5)),
            "tail.0 (Maximum), maxima where averages should be",
        ),
        (
            nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 5)),
            "flatten of 16×4×4 features before tail.2 (Linear)",
        ),
        (
            nn.Sequential(nn.Flatten(2), nn.Tanh(), nn.AdaptiveAvgPool1d(1), nn.Flatten()),
            "tail.1 (Tanh) between the features and their mean",
        ),
        (
            nn.Sequential(nn.AdaptiveAvgPool2d((1, 4)), nn.Flatten(), nn.Linear(64, 5)),
            "flatten of 16×1×4 features before tail.2 (Linear)",
        ),
        (
            BothPoolings(),
            "tail.maximum (AdaptiveMaxPool2d) takes the values of features.3 (Conv2d)",
        ),
        (SideWay(), "tail (SideWay) takes the values of features.3 (Conv2d)"),
        (nn.Sequential(nn.Conv2d(16, 5, 1)), "does not return (N, n_classes)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_own_network_without_cam_names_the_part(head: nn.Module, part: str) -> None:
    with pytest.raises(NoCamError) as caught:
        CamNet.from_module(Headed(head), "mine", probe_hw=(32, 32))
    assert part in str(caught.value)


class Branching(Small):
    def head(self, f: Tensor) -> Tensor:
        return self.classified(f.mean((2, 3)) if f.sum() > 0 else f.amax((2, 3)))


class Several(Small):
    def forward(self, x: Tensor, scale: float = 1.0, verbose: bool = False) -> Tensor:
        return {"logits": super().forward(x), "other": x}  # type: ignore[return-value]


class WrongAxes(Small):
    """Pools over channels and rows; with as many columns as channels the shapes agree."""

    def head(self, f: Tensor) -> Tensor:
        return self.classified(f.mean((1, 2)))


class Swapped(Small):
    """Averages in another order of axes."""

    def __init__(self, average: Callable[[Tensor], Tensor], n_inputs: int = 16) -> None:
        super().__init__()
        self.average = average
        self.fc = nn.Linear(n_inputs, 5)

    def head(self, f: Tensor) -> Tensor:
        return self.classified(self.average(f))


@pytest.mark.parametrize(
    "average",
    [
        lambda f: f.permute(0, 2, 3, 1).mean((1, 2)),
        lambda f: torch.permute(f, (0, 3, 2, 1)).mean(dim=(1, 2)),
        lambda f: f.permute(0, 2, 3, 1).flatten(1, 2).mean(1),
        lambda f: f.flatten(2).transpose(1, 2).mean(1),
        lambda f: f.movedim(1, -1).mean((1, 2)),
        lambda f: f.swapaxes(2, 3).mean((2, 3)),
    ],
)
def test_axes_may_be_swapped_before_the_mean(average: Callable[[Tensor], Tensor]) -> None:
    module = Swapped(average).eval()
    net = CamNet.from_module(module, probe_hw=(32, 64))
    batch = torch.randn(2, 3, 32, 64, generator=torch.Generator().manual_seed(1))
    logits, features = assert_invariant(net, batch)
    torch.testing.assert_close(logits, module(batch))
    assert features.shape == (2, 16, 8, 16)


def test_a_mean_over_other_axes_is_refused() -> None:
    module = Swapped(lambda f: f.permute(0, 2, 3, 1).mean((2, 3)), n_inputs=8)
    with pytest.raises(NoCamError, match=r"takes 8 values, .* 16×8×8 features .* has 16"):
        CamNet.from_module(module, probe_hw=(32, 32))
    module = Swapped(lambda f: f.permute(0, 2, 3, 1).mean((2, 3)), n_inputs=16)
    with pytest.raises(NoCamError, match="not simply averaged"):
        CamNet.from_module(module, probe_hw=(64, 64))


def test_lazy_layers_are_named() -> None:
    module = Headed(nn.Sequential(*GAP, nn.LazyLinear(5)))
    with pytest.raises(ModelError, match="has lazy layers that have no parameters yet; run it"):
        CamNet.from_module(module, probe_hw=(32, 32))
    module(torch.zeros(2, 3, 32, 32))
    assert CamNet.from_module(module, probe_hw=(32, 32)).n_classes == 5


@pytest.mark.parametrize("place", ["features.3", "fc"])
@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
@pytest.mark.parametrize("parametrized", [True, False])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
def test_normalised_weights_are_taken_as_they_are(
    place: str, norm: str, parametrized: bool
) -> None:
    module = Small()
    home = nn.utils.parametrizations if parametrized else nn.utils
    getattr(home, norm)(module.get_submodule(place))
    batch = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    module(batch)  # runs everything that is computed before a pass
    module.eval()
    logits, _ = CamNet.from_module(module, probe_hw=(32, 32))(batch)
    torch.testing.assert_close(logits, module(batch))


def test_one_logit_becomes_a_class_and_its_opposite() -> None:
    module = Small(n_classes=1).eval()
    net = CamNet.from_module(module, probe_hw=(32, 32))
    assert (net.n_logits, net.n_classes) == (1, 2)
    batch = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    logits, _ = assert_invariant(net, batch)
    probabilities = logits.softmax(1)
    torch.testing.assert_close(probabilities[:, 1:], module(batch).sigmoid())
    torch.testing.assert_close(net.weight[1:], module.fc.weight / 2)
    torch.testing.assert_close(net.weight[0], -net.weight[1])


class Noisy(Small):
    def head(self, f: Tensor) -> Tensor:
        return self.classified(F.dropout(f.mean((2, 3)), 0.5, training=True))


def test_branching_network_is_refused_with_the_reason() -> None:
    with pytest.raises(NoCamError, match="must not branch on a tensor's values"):
        CamNet.from_module(Branching(), probe_hw=(32, 32))


def test_several_outputs_are_named() -> None:
    with pytest.raises(UsageError, match=r"returns 2 outputs .*: give --output-name"):
        CamNet.from_module(Several(), probe_hw=(32, 32))


@pytest.mark.parametrize("module", [WrongAxes(), Noisy()], ids=["wrong axes", "noise"])
def test_numerical_check_catches_disguised_heads(module: nn.Module) -> None:
    with pytest.raises(NoCamError, match=r"mean\(M_c\) \+ b_c is .* not simply averaged"):
        CamNet.from_module(module, probe_hw=(64, 64))


def test_features_of_one_cell_are_refused_with_a_hint() -> None:
    with pytest.raises(NoCamError, match="input too small"):
        CamNet.from_module(Small(), probe_hw=(4, 4))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_finite_weights_name_the_tensor(value: float) -> None:
    module = Small()
    with torch.no_grad():
        module.fc.weight[1, 2] = value
    with pytest.raises(WeightsError, match=r"fc\.weight holds NaN or infinity \(1 of 80 values\)"):
        CamNet.from_module(module, probe_hw=(32, 32))


def test_finite_weights_whose_sum_overflows_pass_the_finite_check() -> None:
    module = Small()
    with torch.no_grad():
        module.conv_head.weight.fill_(3e38)
    CamNet.from_module(module, probe_hw=(32, 32))


def test_features_that_overflow_are_named() -> None:
    module = Small()
    with torch.no_grad():
        module.get_parameter("features.3.weight").fill_(3e38)
    with pytest.raises(ModelError, match="infinite or NaN features"):
        CamNet.from_module(module, probe_hw=(32, 32))


def test_network_for_other_inputs_is_a_model_error() -> None:
    module = nn.Sequential(nn.Conv2d(2, 4, 3), *GAP, nn.Linear(4, 2))
    with pytest.raises(ModelError, match="does not take a 3×32×32 picture") as caught:
        CamNet.from_module(module, probe_hw=(32, 32))
    assert "\n" not in str(caught.value)


def test_users_module_is_left_as_it_was() -> None:
    module = Small().double().train()
    before = copy.deepcopy(module.state_dict())
    net = CamNet.from_module(module, probe_hw=(32, 32))
    assert module.training
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    with torch.no_grad():
        module.fc.weight.zero_()
    assert net.weight.dtype == torch.float32
    assert net.weight.abs().sum() > 0


def test_camnet_never_trains_and_holds_no_gradients() -> None:
    net = CamNet.from_module(Small(), probe_hw=(32, 32)).train()
    assert not any(layer.training for layer in net.modules())
    assert not any(parameter.requires_grad for parameter in net.parameters())
    batch = torch.randn(1, 3, 32, 32)
    assert torch.equal(net(batch)[0], net(batch)[0])


def test_camnet_holds_the_head_once() -> None:
    net = CamNet.from_module(build_network("resnet18", 3), probe_hw=(64, 64))
    assert {key for key in net.state_dict() if "fc" in key} == set()
    assert not any(layer._forward_hooks for layer in net.modules())


def test_camnet_is_copied_and_pickled() -> None:
    net = CamNet.from_module(Small(), probe_hw=(32, 32))
    batch = torch.randn(1, 3, 32, 32)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(twin(batch)[0], net(batch)[0])
        assert twin.fingerprint() == net.fingerprint()


def test_fingerprint_changes_with_parameters_and_with_operations() -> None:
    torch.manual_seed(2)
    module = Small("module")
    known = CamNet.from_module(module, probe_hw=(32, 32)).fingerprint()
    assert CamNet.from_module(copy.deepcopy(module), probe_hw=(32, 32)).fingerprint() == known
    module.pooling = "relu"
    other = CamNet.from_module(module, probe_hw=(32, 32)).fingerprint()
    with torch.no_grad():
        module.fc.bias[0] += 1
    assert len({known, other, CamNet.from_module(module, probe_hw=(32, 32)).fingerprint()}) == 3


class Pooled(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.convolution, self.layer, self.fc = nn.Conv2d(3, 4, 3), layer, nn.Linear(4, 2)

    def forward(self, batch: Tensor) -> Tensor:
        features = self.convolution(self.layer(batch))
        logits: Tensor = self.fc(features.mean((2, 3)))
        return logits


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            nn.AvgPool2d(3, 2, 1, count_include_pad=True),
            nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        ),
        (nn.AvgPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(3, 2, ceil_mode=False)),
        (
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
        ),
    ],
)
def test_fingerprint_changes_with_settings_that_a_repr_leaves_out(
    one: nn.Module, other: nn.Module
) -> None:
    assert repr(one) == repr(other)
    nets = [CamNet.from_module(Pooled(layer), probe_hw=(32, 32)) for layer in (one, other, one)]
    first, second, again = (net.fingerprint() for net in nets)
    assert first == again != second


def test_data_parallel_is_taken_off() -> None:
    module = Small()
    net = CamNet.from_module(nn.DataParallel(module), probe_hw=(32, 32))
    assert torch.equal(net.weight, module.fc.weight)


def test_camnet_exports_with_a_dynamic_batch_and_both_outputs() -> None:
    net = CamNet.from_module(build_network("resnet18", 10), probe_hw=(64, 64))
    batch = torch.randn(2, 3, 64, 64)
    program = torch.export.export(
        net, (batch,), dynamic_shapes={"batch_nchw": {0: torch.export.Dim("n", min=1, max=8)}}
    )
    wanted, got = net(batch[:1].repeat(3, 1, 1, 1)), program.module()(batch[:1].repeat(3, 1, 1, 1))
    assert len(got) == 2
    for ours, exported in zip(wanted, got, strict=True):
        torch.testing.assert_close(exported, ours)


@given(
    height=st.integers(5, 70),
    width=st.integers(5, 70),
    n_classes=st.integers(1, 40),
    pooling=st.sampled_from(POOLINGS),
    gain=st.floats(1e-3, 1e3),
)
@settings(max_examples=40, deadline=None)
def test_invariant_holds_for_any_size_and_scale(
    height: int, width: int, n_classes: int, pooling: str, gain: float
) -> None:
    torch.manual_seed(3)
    net = CamNet.from_module(Small(pooling, n_classes), probe_hw=(24, 32))
    assert_invariant(net, gain * torch.randn(1, 3, height, width))


def test_build_network_gives_eval_mode_and_any_class_count() -> None:
    network = build_network("ResNet18", 4)
    assert not network.training
    assert network.get_parameter("fc.weight").shape == (4, 512)


@pytest.mark.parametrize("name", ["resnet81", "fasterrcnn_resnet50_fpn", "", "deeplabv3_resnet50"])
def test_build_network_unknown_name_names_others(name: str) -> None:
    with pytest.raises(UsageError, match="unknown model"):
        build_network(name, 4)


def test_build_network_needs_a_class() -> None:
    with pytest.raises(ValueError, match="from 1"):
        build_network("resnet18", 0)


def test_model_names_are_classifiers() -> None:
    assert set(WITH_CAM) | set(WITHOUT_CAM) <= set(model_names())
    assert "fcn_resnet50" not in model_names()


def test_load_parameters_loads_all() -> None:
    source, target = build_network("resnet18", 3), build_network("resnet18", 3)
    load_parameters(target, source.state_dict(), "source")
    for key, value in target.state_dict().items():
        assert torch.equal(value, source.state_dict()[key])


def test_load_parameters_does_without_training_counters() -> None:
    source = build_network("resnet18", 3).state_dict()
    slim = {key: value for key, value in source.items() if not key.endswith("tracked")}
    load_parameters(build_network("resnet18", 3), slim, "old.pth")


def test_load_parameters_leaves_out_auxiliary_heads() -> None:
    network = build_network("googlenet", 3)
    state = {**network.state_dict(), "aux1.fc2.weight": torch.ones(3, 1024)}
    load_parameters(network, state, "googlenet.pth")


def test_load_parameters_knows_the_old_names_of_densenet() -> None:
    network = build_network("densenet121", 3)
    old = {
        key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): value
        for key, value in network.state_dict().items()
    }
    assert old.keys() != network.state_dict().keys()
    load_parameters(network, old, "densenet121.pth")


def test_load_parameters_names_the_right_model_and_loads_nothing() -> None:
    target = build_network("resnet18", 3)
    before = copy.deepcopy(target.state_dict())
    with pytest.raises(WeightsError) as caught:
        load_parameters(target, build_network("resnet34", 3).state_dict(), "it.pth")
    message = str(caught.value)
    assert message.startswith("it.pth does not fit ResNet: ")
    assert "96 unexpected (layer1.2.conv1.weight, layer1.2.bn1.weight, …)" in message
    assert message.endswith("it is a resnet34: give --model resnet34")
    assert "\n" not in message
    assert all(torch.equal(before[key], value) for key, value in target.state_dict().items())


def test_load_parameters_of_another_class_count_names_the_shapes() -> None:
    target = build_network("resnet18", 3)
    before = copy.deepcopy(target.state_dict())
    other = build_network("resnet18", 4).state_dict()
    with pytest.raises(WeightsError, match=r"fc\.weight 4×512 instead of 3×512, fc\.bias 4"):
        load_parameters(target, other, "it.pth")
    assert all(torch.equal(before[key], value) for key, value in target.state_dict().items())


def test_load_parameters_missing_tensor_is_named() -> None:
    state = build_network("resnet18", 3).state_dict()
    del state["layer4.1.bn2.weight"]
    with pytest.raises(WeightsError, match=r"1 missing \(layer4\.1\.bn2\.weight\)"):
        load_parameters(build_network("resnet18", 3), state, "it.pth")


@pytest.mark.parametrize("name", ["resnet50", "wide_resnet50_2", "resnext50_32x4d", "mobilenet_v2"])
def test_guess_model_tells_families_apart(name: str) -> None:
    assert guess_model(build_network(name, 12).state_dict()) == name


def test_guess_model_is_silent_about_strangers() -> None:
    assert guess_model({"some.weight": torch.ones(3, 3)}) is None
