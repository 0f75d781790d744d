"""Tables: seeds become mean and deviation, numbers have protocols, published rows are as published."""

import csv
import io
import math

import pytest

from vistok.evaluation.tables import measured_rows, published_rows, to_csv, to_latex, to_markdown

PROTOCOL = {
    "dataset": "org/pictures",
    "split": "validation",
    "pictures": 5000,
    "unreadable_pictures": 1,
    "resolution": 64,
    "crop": "center_crop",
    "rounding": "clamped to [-1, 1], rounded to uint8",
    "dtype": "float32",
    "device": "cpu",
}


def result(name: str, psnr: float, group: str | None = None, **protocol) -> dict:
    metrics = {"psnr": psnr, "codebook_usage": 0.5, "bits_per_pixel": 0.625, "tokens_per_picture": 256}
    return {
        "name": name,
        "group": group or name,
        "metrics": metrics,
        "codebooks": [],
        "protocol": PROTOCOL | protocol,
    }


def test_seeds_give_mean_and_deviation():
    seeds = [result(f"fsq-{i}", psnr, "fsq") for i, psnr in enumerate([20.0, 21.0, 25.0])]
    (row,) = measured_rows(seeds)
    assert row.name == "fsq (3 seeds)"
    assert row.values["psnr"] == 22
    assert row.spread["psnr"] == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert "22.00 ± 2.65" in to_markdown([row])
    assert r"22.00 $\pm$ 2.65" in to_latex([row])


def test_models_of_other_names_or_protocols_are_rows_of_their_own():
    results = [result("a", 20), result("b", 20), result("a", 19, crop="adm_crop")]
    rows = measured_rows(results)
    assert [row.name for row in rows] == ["a", "b", "a"]
    assert "adm crop" in rows[2].protocol


def test_the_same_result_twice_is_no_second_seed():
    with pytest.raises(ValueError, match="two results are those of a by the same protocol"):
        measured_rows([result("a", 20), result("a", 20)])


def test_models_of_one_group_that_differ_are_never_averaged():
    results = [result(f"fsq-{i}", 20.0 + i, "fsq") for i in range(3)]
    results[2]["metrics"]["bits_per_pixel"] = 1.0
    assert [row.name for row in measured_rows(results)] == ["fsq-0 (2 seeds)", "fsq-2"]
    results[1]["metrics"]["parameters"] = 7
    assert [row.values["psnr"] for row in measured_rows(results)] == [20, 21, 22]


def test_other_data_and_other_weights_are_other_protocols():
    seeds = [result(f"fsq-{i}", 20.0, "fsq", dataset_fingerprint=f"{i}" * 16) for i in range(2)]
    rows = measured_rows(seeds)
    assert [row.protocol[-15:] for row in rows] == ["; data 00000000", "; data 11111111"]
    assert "[1]" in to_markdown(rows) and "[2]" in to_markdown(rows)
    weights = [result(n, 20.0, inception=f"TensorFlow's; SHA-256 {d * 64}") for n, d in ("ab", "cd")]
    assert [row.protocol[-20:] for row in measured_rows(weights)] == [
        "; Inception bbbbbbbb",
        "; Inception dddddddd",
    ]
    alike = [result(n, 20.0, dataset_fingerprint="0" * 16) for n in "ab"]
    assert (
        len({row.protocol for row in measured_rows([*alike, result("c", 20.0, **alike[0]["protocol"])])}) == 1
    )
    assert "data" not in measured_rows(alike)[0].protocol


def test_the_protocol_of_each_row_is_below_the_table():
    text = to_markdown([*measured_rows([result("a", 20), result("b", 21)]), *published_rows()])
    lines = text.splitlines()
    said = (
        "1. org/pictures validation, 5,000 pictures (1 more cannot be read), 64 px; center crop; rounded to "
    )
    assert [line for line in lines if line.startswith(said)]
    assert sum(line.endswith("| [1] |") for line in lines) == 2
    numbers = {line.rsplit("[", 1)[1].rstrip("] |") for line in lines if line.endswith("] |")}
    assert numbers == {line.split(".")[0] for line in lines if line[:1].isdigit()}


def test_every_markdown_line_has_as_many_cells_as_its_head():
    text = to_markdown([*measured_rows([result("a", 20)]), *published_rows()])
    tables = [part.splitlines() for part in text.split("\n\n") if part.startswith("|")]
    assert len(tables) == 2
    for table in tables:
        assert len({line.count("|") for line in table}) == 1


def test_latex_is_balanced_and_escaped():
    text = to_latex([*measured_rows([result("a_b", 20)]), *published_rows()])
    assert r"a\_b" in text and "50.0\\%" in text
    assert text.count(r"\begin{") == text.count(r"\end{") == 6
    for table in text.split(r"\begin{tabular}")[1:]:
        columns = table[1 : table.index("}")]
        rows = [line for line in table.split(r"\end{tabular}")[0].splitlines() if line.endswith(r"\\")]
        assert {line.count("&") for line in rows} == {len(columns) - 1}


def test_csv_holds_all_digits_and_whose_they_are():
    rows = measured_rows([result("a", 20.123456789), result("b-0", 1.0, "b"), result("b-1", 2.0, "b")])
    lines = list(csv.DictReader(io.StringIO(to_csv([*rows, *published_rows()]))))
    assert (lines[0]["psnr"], lines[0]["published"], lines[0]["psnr_spread"]) == ("20.123456789", "False", "")
    assert float(lines[1]["psnr_spread"]) == pytest.approx(math.sqrt(0.5))
    assert lines[-1]["published"] == "True"
    assert all(line["protocol"] for line in lines)


def test_infinite_numbers_are_written():
    (row,) = measured_rows([result("a", 20)])
    row.values["psnr"] = math.inf
    assert "| inf |" in to_markdown([row])
    (row,) = measured_rows([result("a-0", math.inf, "a"), result("a-1", math.inf, "a")])
    assert row.spread["psnr"] == 0


def test_published_rows_are_complete_and_as_published():
    rows = {row.name: row for row in published_rows()}
    assert len(rows) == len(published_rows()) >= 50
    for row in rows.values():
        assert row.published
        assert {"resolution", "tokens_per_picture", "bits_per_pixel"} < row.values.keys()
        assert row.protocol.endswith(")")
    # 1,024 symbols of 14 bits at 256 x 256, and PSNR of the luminance, which is no PSNR.
    optvq = rows["OptVQ 16x16x4"]
    assert optvq.values["bits_per_pixel"] == pytest.approx(0.21875)
    assert "psnr" not in optvq.values and optvq.values["psnr_y"] == 26.59
    assert rows["LlamaGen ds16"].values["bits_per_pixel"] == pytest.approx(0.0546875)
    text = to_markdown(published_rows())
    assert "| 7.94 |" in text and "| 0.52 |" in text and "| 37.5% |" in text  # no digit more
