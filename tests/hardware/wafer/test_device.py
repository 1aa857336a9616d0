from pathlib import Path

import pytest

from lapidist.hardware.wafer.device import device_names, load_device


@pytest.mark.parametrize("name", device_names())
def test_every_value_of_a_device_has_a_source(name: str) -> None:
    device = load_device(name)
    stated = set(device.model_dump()) - {"name", "title", "sources"}
    assert set(device.sources) == stated
    assert device.name == name


def test_known_devices() -> None:
    assert set(device_names()) == {"wse-2", "wse-3", "blackhole", "dojo"}
    wafer = load_device("WSE_2")
    assert (wafer.rows, wafer.cols, wafer.colours, wafer.memory_bytes_per_core) == (994, 750, 24, 48 * 1024)
    assert load_device("blackhole").colours is None


def test_a_users_file_extends_a_device(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: wse-2\nname: slow\nclock_hz: {value: 0.85e+9, source: my bench}\n")
    device = load_device(path)
    assert (device.name, device.clock_hz, device.rows) == ("slow", 0.85e9, 994)
    assert device.sources["clock_hz"] == "my bench"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: wse-9\nname: a\n", "no wafer device named 'wse-9'"),
        ("extends: wse-2\nname: a\nclock_hz: 3\n", "clock_hz needs"),
        ("extends: wse-2\nname: a\nrows: {value: 0, source: s}\n", "rows: "),
        ("extends: wse-2\nname: a\nrow: {value: 3, source: s}\n", "row: "),
        ("extends: wse-2\nname: a\nreserved_bytes_per_core: {value: 49152, source: s}\n", "leave nothing"),
        ("extends: wse-2\nname: a\nrows: {value: 3, source: 4}\n", "rows.source must be a text"),
        ("name: a\n", "Field required"),
        ("- 1\n", "expected keys and values"),
        ("a: [\n", "not a YAML file"),
    ],
)
def test_wrong_files_are_refused_in_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(ValueError) as refused:
        load_device(str(path))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        load_device(tmp_path / "none.yaml")


def test_values_are_replaced_with_their_source() -> None:
    device = load_device("wse-2").with_values("a what-if", colours=32)
    assert device.colours == 32
    assert device.sources["colours"] == "a what-if"
    with pytest.raises(ValueError, match="a what-if: colours"):
        device.with_values("a what-if", colours=0)
