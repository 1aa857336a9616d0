"""Data sheets: the published rates come out, names are found, and users' files extend them or say what is wrong."""

from pathlib import Path

import pytest

from lapidist.hardware.gpu.data_sheet import data_sheet_names, load_data_sheet

# Dense peak in TFLOP/s or TOP/s as the makers publish it.
PUBLISHED = {
    ("a100", "bf16"): 312,
    ("a100", "int8"): 624,
    ("h100", "bf16"): 989.4,
    ("h100", "fp8"): 1979,
    ("h200", "bf16"): 989.4,
    ("b200", "bf16"): 2250,
    ("b200", "fp4"): 9000,
    ("l40s", "bf16"): 362,
    ("l40s", "fp8"): 733,
    ("l4", "bf16"): 121,
    ("a10", "bf16"): 125,
    ("a40", "bf16"): 149.7,
    ("rtx-3090", "bf16"): 71,
    ("rtx-4070", "fp32"): 29.1,
    ("rtx-4090", "bf16"): 165.2,
    ("t4", "fp16"): 65,
    ("v100", "fp16"): 125,
    ("p100", "fp32"): 9.3,
}


@pytest.mark.parametrize(("key", "teraflops"), PUBLISHED.items(), ids=str)
def test_peak_is_the_published_one(key: tuple[str, str], teraflops: float) -> None:
    gpu, compute = key
    rate = load_data_sheet(gpu).operations_per_second(compute)  # type: ignore[arg-type]
    assert rate / 1e12 == pytest.approx(teraflops, rel=0.015)


def test_every_sheet_is_complete() -> None:
    for name in data_sheet_names():
        sheet = load_data_sheet(name)
        assert sheet.name == name
        assert sheet.sources
        assert sheet.operations_per_second("fp32", "max") >= sheet.operations_per_second("fp32", "boost")


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("H200", "h200"),
        ("h200_sxm", "h200"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("rtx_pro_6000_server", "rtx-pro-6000"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("4090", "rtx-4090"),
        ("Tesla T4", "t4"),
    ],
)
def test_names_in_use_are_found(spelling: str, name: str) -> None:
    assert load_data_sheet(spelling).name == name


def test_users_file_extends_a_sheet(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "extends: l40s\nname: l40s-300w\ntdp_watts: 300\nlink: {bytes_per_second: 16.0e+9}\n"
        "price: {dollars_per_hour: 0.5, source: contract, date: 2026-01-01}\n"
    )
    mine, bundled = load_data_sheet(file), load_data_sheet("l40s")
    assert (mine.name, mine.tdp_watts, mine.sms) == ("l40s-300w", 300, bundled.sms)
    assert mine.link.name == bundled.link.name
    assert mine.link.bytes_per_second == 16e9
    assert mine.price is not None
    assert mine.price.dollars_per_hour == 0.5


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("extends: l40s\nname: x\nsms: many\n", "sms"),
        ("extends: l40s\nname: x\nsmss: 4\n", "smss"),
        ("extends: l40s\nname: x\nmax_mhz: 5\n", "max_mhz"),
        ("extends: l40s\nname: x\nmemory_bytes: -1\n", "memory_bytes"),
        ("extends: h900\nname: x\n", "h900"),
        ("extends: [a]\nname: x\n", "extends"),
        ("name: x\n", "title"),
        ("- a\n", "mapping"),
        ("a: [\n", "not YAML"),
    ],
)
def test_mistakes_name_file_and_key(tmp_path: Path, content: str, sentence: str) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(content)
    with pytest.raises(ValueError, match=sentence) as error:
        load_data_sheet(file)
    assert "wrong.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_gpu_and_absent_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="known are a10, a100"):
        load_data_sheet("h1000")
    with pytest.raises(ValueError, match="cannot be read"):
        load_data_sheet(tmp_path / "absent.yaml")


def test_missing_units_are_named() -> None:
    with pytest.raises(ValueError, match="a100 does not compute in fp8"):
        load_data_sheet("a100").operations_per_second("fp8")
