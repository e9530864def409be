"""docs/encoders.md is what the yaml files say."""

from pathlib import Path

from mmlit.configuration.encoder_table import encoder_table

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_up_to_date():
    assert (ROOT / "docs" / "encoders.md").read_text() == encoder_table(ROOT / "conf"), "run `make docs`"


def test_every_encoder_has_its_row():
    page = encoder_table(ROOT / "conf")
    for axis in ("image_encoder", "text_encoder"):
        for file in (ROOT / "conf" / axis).glob("*.yaml"):
            assert page.count(f"| `{file.stem}` | ") in {1, 2}
    assert page.count("\n| `") - 2 == len([*(ROOT / "conf").glob("*_encoder/*.yaml")])
