import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from nlden.encoders import UNet
from nlden.models import (
    ImageDenoiser,
    image_denoiser_base,
    image_denoiser_fast,
    video_denoiser_fast,
)
from nlden.models.pretrained import (
    Description,
    WeightsError,
    find,
    load,
    load_weights,
    read,
    save,
    shipped,
)


@pytest.fixture(scope="module")
def base():
    torch.manual_seed(0)
    return image_denoiser_base()


@pytest.fixture
def refused(tmp_path):
    """Return a function that writes a file and returns the message with which it is refused."""

    def message(tensors, metadata, call=load):
        path = tmp_path / "file.safetensors"
        save_file(tensors, path, metadata)
        with pytest.raises(WeightsError) as caught:
            call(path)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400
        return str(caught.value)

    return message


def test_a_network_comes_back_in_half_precision_and_ready(tmp_path, base):
    path = tmp_path / "w.safetensors"
    save(base, path, Description("image_denoiser_base", facts={"use": "a test"}))
    network = load(path)
    assert not network.training
    for (name, ours), parameter in zip(
        base.state_dict().items(), network.parameters(), strict=True
    ):
        assert parameter.dtype == torch.float32
        assert not parameter.requires_grad
        # Half precision has 11 bits, and fewer below 6e-5.
        assert torch.allclose(parameter, ours, rtol=2**-11, atol=6e-8), name
    kernel = network.body.encoder[0][0].conv1.weight
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    assert {t.dtype for t in load_file(path).values()} == {torch.float16}


def test_the_description_comes_back(tmp_path):
    written = Description(
        "image_denoiser_base", {"a": [1, 2]}, "# Karte\nmit Umlaut: ü", {"x": "y"}
    )
    path = tmp_path / "w.safetensors"
    save(ImageDenoiser(UNet((4,), (1,))), path, written)
    assert read(path)[0] == written


def test_a_description_needs_no_more_than_the_network(tmp_path, base):
    path = tmp_path / "w.safetensors"
    metadata = {"architecture": "image_denoiser_base", "arguments": "{}"}
    save_file({k: v.contiguous() for k, v in base.state_dict().items()}, path, metadata)
    assert read(path)[0] == Description("image_denoiser_base")
    assert isinstance(load(path), ImageDenoiser)


def test_shipped_weights_are_found_by_name_and_load():
    names = shipped()
    assert names["image-base"] == find("image-base")
    for name, path in names.items():
        for network in (load(name), load(path), load(str(path))):
            assert all(p.isfinite().all() and p.any() for p in network.parameters())


@pytest.mark.parametrize("name", ["image-fast", "video-fast"])
def test_formats_that_the_network_does_not_take_are_passed_over(name):
    build = {"image-fast": image_denoiser_fast, "video-fast": video_denoiser_fast}[name]
    network = build(formats=("yuv420",))
    load_weights(network, name)
    whole = load(name).state_dict()
    assert all(torch.allclose(v, whole[k].to(v)) for k, v in network.state_dict().items())


def test_a_missing_name_tells_those_that_there_are(tmp_path):
    for weights in ("image-bse", tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(WeightsError, match=r"no weights of this name or file.*image-base"):
            load(weights)


@pytest.mark.parametrize("content", [b"", b"not weights", b"\xff" * 64])
def test_a_damaged_file_is_told(tmp_path, content):
    path = tmp_path / "file.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"file\.safetensors: not a readable") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_told(tmp_path):
    path = tmp_path / "file.safetensors"
    path.write_bytes(find("image-base").read_bytes()[:100_000])
    with pytest.raises(WeightsError, match="not a readable"):
        load(path)


def test_nothing_is_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    path = tmp_path / "w.safetensors"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(WeightsError):
        load(path)
    torch.save(Trap(), path)
    with pytest.raises(WeightsError):
        load(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"format": "pt"},
        {"architecture": "image_denoiser_base"},
        {"architecture": "image_denoiser_base", "arguments": "{"},
        {"architecture": "image_denoiser_base", "arguments": "{}", "facts": "no JSON"},
    ],
)
def test_a_file_of_another_program_is_told(refused, metadata):
    assert "not written by nlden" in refused({"x": torch.zeros(1)}, metadata)


@pytest.mark.parametrize(
    "name", ["video_denoiser_huge", "pretrained", "json", "__doc__", "UNet", ""]
)
def test_only_networks_of_nlden_are_built(refused, name):
    metadata = {"architecture": name, "arguments": "{}"}
    assert "unknown architecture" in refused({"x": torch.zeros(1)}, metadata)


@pytest.mark.parametrize("arguments", [{"depth": 3}, [1], None, 5])
def test_arguments_that_do_not_fit_are_told(refused, arguments):
    metadata = {"architecture": "image_denoiser_base", "arguments": json.dumps(arguments)}
    refused({"x": torch.zeros(1)}, metadata)


def test_an_architecture_without_its_arguments_is_told(refused):
    refused({"x": torch.zeros(1)}, {"architecture": "ImageDenoiser", "arguments": "{}"})


@pytest.mark.parametrize("change", ["missing", "more", "shape"])
def test_tensors_that_do_not_fit_are_told(refused, base, change):
    tensors = {k: v.half().contiguous() for k, v in base.state_dict().items()}
    if change == "missing":
        tensors = {"body.up.0.weight": tensors["body.up.0.weight"]}  # a long list is missing
    elif change == "more":
        tensors["body.extra"] = torch.zeros(1)
    else:
        tensors["stems.rgb.weight"] = torch.zeros(64, 15, 3, 3)
    metadata = {"architecture": "image_denoiser_base", "arguments": "{}"}
    assert "does not fit" in refused(tensors, metadata)
    assert "does not fit" in refused(tensors, metadata, lambda path: load_weights(base, path))
