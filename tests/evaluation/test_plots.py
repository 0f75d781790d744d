"""What plots show, read off their axes."""

import math

import pytest

from vistok.evaluation.plots import draw_codebook_use, draw_rate_distortion
from vistok.evaluation.tables import measured_rows, published_rows

from .test_report import codebook
from .test_tables import result


def test_points_are_at_their_rates_and_seeds_have_bars():
    rows = measured_rows([result("a", 20.0), result("b-0", 21.0, "b"), result("b-1", 23.0, "b")])
    (panel,) = draw_rate_distortion([*rows, *published_rows()]).axes
    points = {
        container.get_label(): (container[0].get_xdata()[0], container[0].get_ydata()[0])
        for container in panel.containers
    }
    assert points == {"a": (0.625, 20.0), "b (2 seeds)": (0.625, 22.0)}
    assert panel.containers[1].has_yerr and not panel.containers[0].has_yerr
    assert panel.get_title("left") == "PSNR (dB), higher is better"
    assert not len(panel.collections[0].get_offsets())  # nothing is published of 64 pixels


def test_published_figures_stand_beside_pictures_of_their_size():
    rows = measured_rows([result("a", 20.0, resolution=128)])
    (panel,) = draw_rate_distortion([*rows, *published_rows()]).axes
    expected = [row for row in published_rows() if row.values["resolution"] == 128 and "psnr" in row.values]
    assert len(panel.collections[0].get_offsets()) == len(expected) > 0


def test_what_is_infinite_is_no_reason_for_a_panel():
    rows = measured_rows([result("a", math.inf)])
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_rate_distortion(rows)


def test_each_codebook_has_a_panel_whose_bars_are_its_histogram():
    one, two = result("a", 20.0), result("b", 20.0)
    one["codebooks"], two["codebooks"] = [codebook(1024)], [codebook(8)] * 2
    panels = draw_codebook_use([one, two]).axes
    assert [panel.get_title("left") for panel in panels] == ["a", "b, codebook 1 of 2", "b, codebook 2 of 2"]
    assert [bar.get_height() for bar in panels[0].patches] == [25, 25, 0, 0, 50, 0, 0, 0, 0]
    assert panels[0].texts[-1].get_text() == "1,024 entries, 75.0% used, perplexity 3"
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_codebook_use([result("c", 20.0)])
