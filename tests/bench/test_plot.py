import re
from functools import cache
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from bench.commands.plot import plot
from bench.plot import draw_charts
from bench.plots import svg
from bench.plots.scale import (
    Scale,
    linear_scale,
    log_scale,
    spread_labels,
    write_ms,
    write_number,
)
from bench.plots.svg import NOTE_SIZE, TEXT_SIZE, TITLE_SIZE, fit, text_width
from bench.report import Report, Second, ServerSecond, write_json
from tests.bench.reports import PEERS, at, beside_peers, latencies, report

HOSTILE = "<script>alert('&')</script>\x00\x1b[31m ]]> \ud800"
NAMESPACE = "{http://www.w3.org/2000/svg}"


def elements(chart: str, tag: str) -> list[ET.Element]:
    return [each for each in ET.fromstring(chart).iter() if each.tag == NAMESPACE + tag]


def texts(chart: str) -> list[str]:
    return [each.text or "" for each in elements(chart, "text")]


def number(element: ET.Element, name: str) -> float:
    return float(element.attrib[name])


def box(element: ET.Element) -> tuple[float, float, float, float]:
    """Return the left, top, right and bottom of a text, if its letters are of the mean width."""
    classes = element.attrib.get("class", "").split()
    size = TITLE_SIZE if "title" in classes else NOTE_SIZE if "note" in classes else TEXT_SIZE
    width = text_width(element.text or "", size)
    x, y = number(element, "x"), number(element, "y")
    left = (
        x
        - width
        * {"start": 0.0, "middle": 0.5, "end": 1.0}[element.attrib.get("text-anchor", "start")]
    )
    return left, y - size * 0.8, left + width, y + size * 0.2


def many_reports() -> dict[str, Report]:
    """Return six runs that end at nearly the same place, one of them with a long name."""
    names = ("a", "b", "c", "d", "e", "a run with a name that is longer than its room")
    return {name: report((14_000, 14_100, 14_200)) for name in names}


@cache
def every_chart() -> dict[str, str]:
    kinds = ("ack", "delivery", "replay")
    return {
        **draw_charts({"peers": beside_peers()}),
        **{
            f"kinds {name}": chart
            for name, chart in draw_charts({"k": report(kinds=kinds)}).items()
        },
        **draw_charts({"a": watched(), "b": watched(grows=0.0), HOSTILE: watched()}),
        **{f"many {name}": chart for name, chart in draw_charts(many_reports()).items()},
        **{f"hostile {name}": chart for name, chart in draw_charts({HOSTILE: hostile()}).items()},
    }


def watched(grows: float = 1.0) -> Report:
    """Return a run that knows what its server was like."""
    made = report()
    made.server_timeline = [
        ServerSecond(second=n, memory_mib=100 + grows * (n - 1), flush_lag_seconds=n / 100)
        for n in range(1, 21)
    ]
    return made


def hostile() -> Report:
    return report(
        scenario=HOSTILE,
        kinds=("ack", HOSTILE),
        environment=at(cpu=HOSTILE * 5, commit=HOSTILE),
        beside=[report(scenario=HOSTILE * 2, verdict={})],
    )


def test_a_report_alone_has_a_line_for_each_kind_of_waiting_and_its_peers() -> None:
    assert set(draw_charts({"one": beside_peers()})) == {
        "append-rate.svg",
        "append-latency.svg",
        "append-beside.svg",
    }


def test_reports_of_one_scenario_share_their_charts_and_others_do_not() -> None:
    kinds = ("ack", "delivery")
    charts = draw_charts(
        {
            "before": report(kinds=kinds),
            "after": report(kinds=kinds),
            "storm": report(scenario="Storm 2"),
        }
    )
    assert set(charts) == {
        "append-rate.svg",
        "append-latency-ack.svg",
        "append-latency-delivery.svg",
        "storm-2-rate.svg",
        "storm-2-latency.svg",
    }
    for name in ("append-rate.svg", "append-latency-ack.svg"):
        assert {"before", "after"} <= set(texts(charts[name]))
        assert "storm" not in texts(charts[name])


@pytest.mark.parametrize("name", every_chart())
def test_a_chart_is_a_document_for_every_reader(name: str) -> None:
    chart = every_chart()[name]
    root = ET.fromstring(chart)
    assert root.tag == f"{NAMESPACE}svg"
    assert root.attrib["role"] == "img"
    assert root.attrib["viewBox"] == f"0 0 {root.attrib['width']} {root.attrib['height']}"
    identified = {each.attrib["id"]: each.text for each in root.iter() if "id" in each.attrib}
    assert list(identified) == root.attrib["aria-labelledby"].split()
    assert all(identified.values())
    assert "prefers-color-scheme:dark" in chart


@pytest.mark.parametrize("name", every_chart())
def test_no_text_leaves_the_picture_or_lies_on_another(name: str) -> None:
    chart = every_chart()[name]
    height = number(ET.fromstring(chart), "height")
    boxes = [(box(each), each.text) for each in elements(chart, "text")]
    for (left, top, right, bottom), text in boxes:
        assert 0 <= left < right <= svg.WIDTH, text
        assert 0 <= top < bottom <= height, text
    for place, ((left, top, right, bottom), text) in enumerate(boxes):
        for (left2, top2, right2, bottom2), text2 in boxes[place + 1 :]:
            apart = right <= left2 or right2 <= left or bottom <= top2 or bottom2 <= top
            assert apart, (text, text2)


def test_the_same_reports_give_the_same_files() -> None:
    assert every_chart.__wrapped__() == every_chart()


def test_names_from_a_file_are_text_and_choose_no_path() -> None:
    charts = draw_charts({HOSTILE: hostile()})
    assert len(charts) == 3
    for name, chart in charts.items():
        assert re.fullmatch(r"[a-z0-9-]+\.svg", name)
        assert elements(chart, "script") == []
        assert any(text.startswith("<script>alert('&')</script>") for text in texts(chart))
    assert list(draw_charts({"x": report(scenario="../../etc")})) == [
        "etc-rate.svg",
        "etc-latency.svg",
    ]


def test_whatever_is_written_a_drawing_is_a_document() -> None:
    drawing = svg.Drawing(100, HOSTILE, HOSTILE, HOSTILE)
    drawing.text(0, 0, HOSTILE)
    written = drawing.encode()
    assert texts(written)[-1] == "<script>alert('&')</script>\ufffd\ufffd[31m ]]> \ufffd"
    assert written.encode()


def test_a_report_without_figures_has_no_chart() -> None:
    assert draw_charts({"failed": report(verdict={"lost": 1, "ok": False})}) == {}
    assert draw_charts({"silent": report(kinds=(), seconds=0)}) == {}
    assert draw_charts({}) == {}


# Latencies


def test_each_latency_is_named_with_its_p99_and_its_longest() -> None:
    made = report(kinds=("ack", "delivery"))
    shown = texts(draw_charts({"one": made})["append-latency.svg"])
    for kind, latency in made.latencies.items():
        assert kind in shown
        waits = dict(latency.curve)
        assert f"p99 {write_ms(waits[99])} · max {write_ms(waits[100])}" in shown


def test_each_tenth_of_the_waits_has_the_same_room() -> None:
    acks = [latencies(1, median_ms=4, count=100_000)]
    chart = draw_charts({"one": report((14_000,), acks=acks)})["append-latency.svg"]
    places = {each.text: number(each, "x") for each in elements(chart, "text")}
    steps = [
        places[f"{b} %"] - places[f"{a} %"] for a, b in pairwise(("90", "99", "99.9", "99.99"))
    ]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.2)
    assert steps[0] > 50


@pytest.mark.parametrize(("waits", "last"), [(100, "90 %"), (1_000, "99 %"), (10_000, "99.9 %")])
def test_a_line_ends_where_ten_waits_are_left(waits: int, last: str) -> None:
    acks = [latencies(1, median_ms=4, count=waits)]
    chart = draw_charts({"one": report((14_000,), acks=acks)})["append-latency.svg"]
    marks = [text for text in texts(chart) if text.endswith(" %")]
    assert marks[-1] == last
    (line,) = (each for each in elements(chart, "polyline") if "thin" not in each.attrib["class"])
    end = float(line.attrib["points"].split()[-1].split(",")[0])
    assert end == next(number(e, "x") for e in elements(chart, "text") if e.text == last)


def test_a_handful_of_waits_has_no_line() -> None:
    acks = [latencies(1, median_ms=4, count=15)]
    assert "append-latency.svg" not in draw_charts({"one": report((14_000,), acks=acks)})


# Seconds


def test_a_single_second_is_a_dot() -> None:
    chart = draw_charts({"one": report(seconds=1)})["append-rate.svg"]
    assert len(elements(chart, "circle")) == 2


def test_a_second_without_an_acknowledgement_interrupts_the_p99_and_not_the_rate() -> None:
    made = report()
    made.timeline = [
        Second(second=n, rate_per_second=0 if n == 5 else 100, ack_p99_ms=0 if n == 5 else 10)
        for n in range(10)
    ]
    lines = elements(draw_charts({"one": made})["append-rate.svg"], "polyline")
    points = [
        len(each.attrib["points"].split()) for each in lines if "thin" not in each.attrib["class"]
    ]
    assert points == [10, 5, 4]


def test_a_second_that_is_missing_interrupts_the_line() -> None:
    made = report(seconds=10)
    del made.timeline[5]
    lines = elements(draw_charts({"one": made})["append-rate.svg"], "polyline")
    points = [
        len(each.attrib["points"].split()) for each in lines if "thin" not in each.attrib["class"]
    ]
    assert points == [5, 4, 5, 4]


def test_a_rate_of_zero_and_a_run_without_acknowledgements_can_be_drawn() -> None:
    made = report()
    made.timeline = [Second(second=n, rate_per_second=0) for n in range(3)]
    shown = texts(draw_charts({"one": made})["append-rate.svg"])
    assert "median 0, min 0" in shown
    assert "ack p99 in that second" not in shown


def test_memory_and_lag_are_drawn_second_by_second_where_they_are_known() -> None:
    chart = draw_charts({"one": watched()})["append-server.svg"]
    points = [
        len(each.attrib["points"].split())
        for each in elements(chart, "polyline")
        if "thin" not in each.attrib["class"]
    ]
    assert points == [20, 20]
    assert "from 100 to 119" in texts(chart)
    assert "longest flush lag in that second, s" in texts(chart)
    silent = watched()
    for second in silent.server_timeline:
        second.flush_lag_seconds = None
    shown = texts(draw_charts({"one": silent})["append-server.svg"])
    assert "memory of the server, MiB" in shown
    assert "longest flush lag in that second, s" not in shown
    assert "append-server.svg" not in draw_charts({"one": report()})


def test_a_report_has_one_colour_in_both_halves() -> None:
    without, with_p99 = report(), report()
    for second in without.timeline:
        second.ack_p99_ms = 0
    chart = draw_charts({"without": without, "with": with_p99})["append-rate.svg"]
    lines = [each.attrib["class"] for each in elements(chart, "polyline")]
    assert [each for each in lines if "thin" not in each] == ["line s0", "line s1", "line s1"]


# Peers


def test_bars_are_as_long_as_their_rates_and_the_fastest_is_first() -> None:
    chart = draw_charts({"one": beside_peers()})["append-beside.svg"]
    bars = [each for each in elements(chart, "rect") if "fill" in each.attrib["class"]]
    rates = sorted([*PEERS.values(), 14_000], reverse=True)
    widths = [number(bar, "width") for bar in bars]
    assert widths == pytest.approx([widths[0] * rate / rates[0] for rate in rates], abs=0.1)
    assert [bar.attrib["class"] for bar in bars].index("fill s0") == rates.index(14_000)
    assert [bar.attrib["class"] for bar in bars].count("fill s0") == 1


def test_each_server_has_its_name_its_rate_and_its_p99() -> None:
    made = beside_peers()
    shown = texts(draw_charts({"one": made})["append-beside.svg"])
    for name, one in [("Ringlog", made), *((other.scenario, other) for other in made.beside)]:
        assert name in shown
        assert write_number(one.rate_per_second or 0) in shown
        assert write_ms((one.ack_ms or {})["p99"]) in shown


def test_a_server_that_failed_has_no_bar_and_says_so() -> None:
    failed = report(scenario="loser", verdict={"lost": 1, "ok": False})
    chart = draw_charts({"one": report(beside=[failed])})["append-beside.svg"]
    assert len([each for each in elements(chart, "rect") if "fill" in each.attrib["class"]]) == 1
    assert {"loser", "failed its check: no rate", "–"} <= set(texts(chart))


def test_where_it_was_measured_is_said_once_if_it_is_one_place() -> None:
    here, there = report(), report(environment=at(cores=8, commit="def5678"), sync_p50=0.2)
    same = texts(draw_charts({"a": here, "b": report()})["append-rate.svg"])
    assert "commit abc1234 · fdatasync 0.11 ms · 2 cores, AMD EPYC 7B13, ext4" in same
    mixed = texts(draw_charts({"a": here, "b": there})["append-rate.svg"])
    assert "commit abc1234, def5678 · fdatasync 0.11–0.2 ms · several machines" in mixed


# Scales, numbers, colours


@given(st.floats(1e-6, 1e9), st.floats(1e-6, 1e9))
def test_a_logarithmic_scale_holds_its_values_between_round_numbers(a: float, b: float) -> None:
    scale = log_scale((a, b), 300, 100)
    assert scale.low <= min(a, b) <= max(a, b) <= scale.high
    assert scale.low < scale.high
    assert scale.ticks
    assert all(f"{tick:e}"[0] in "125" for tick in (scale.low, scale.high, *scale.ticks))
    assert 100 <= scale.place(a) <= 300


def test_few_decades_are_divided_and_many_are_not() -> None:
    assert log_scale((3, 60), 0, 1).ticks == (2, 5, 10, 20, 50, 100)
    assert log_scale((0.003, 60), 0, 1).ticks == (0.01, 0.1, 1, 10, 100)
    assert log_scale((5, 5), 0, 1).ticks == (2, 5, 10)


@given(st.floats(0, 1e9))
def test_a_linear_scale_begins_at_zero_and_has_few_round_steps(high: float) -> None:
    scale = linear_scale(high, 300, 100)
    assert scale.low == 0
    assert scale.high >= high * (1 - 1e-6)
    assert 2 <= len(scale.ticks) <= 6


def test_a_linear_scale_has_steps_that_people_count_in() -> None:
    assert linear_scale(14_300, 0, 1).ticks == (0, 5_000, 10_000, 15_000)
    assert linear_scale(0, 0, 1).ticks == (0, 1)


def test_a_value_beyond_a_scale_is_drawn_at_its_end() -> None:
    scale = Scale(0, 10, 100, 200)
    assert [scale.place(value) for value in (-5, 0, 5, 10, 99)] == [100, 100, 150, 200, 200]


@given(st.lists(st.floats(0, 200), max_size=6))
def test_labels_keep_their_distance_and_their_order(wanted: list[float]) -> None:
    places = spread_labels(wanted, 30, 0, 200)
    assert all(0 <= place <= 200 for place in places)
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    for above, below in pairwise(order):
        assert places[below] - places[above] >= 30 - 1e-9


def test_a_label_that_is_alone_stays_where_it_belongs() -> None:
    assert spread_labels([10, 90, 95], 30, 0, 200) == [10, 90, 120]
    assert spread_labels([], 30, 0, 200) == []


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0.0123, "12.3 µs"),
        (0.25, "0.25 ms"),
        (4.567, "4.57 ms"),
        (10, "10 ms"),
        (123.4, "123 ms"),
        (999.9, "1,000 ms"),
        (1500, "1.5 s"),
        (0, "0 ms"),
    ],
)
def test_a_time_has_the_unit_that_fits_it(milliseconds: float, text: str) -> None:
    assert write_ms(milliseconds) == text


def test_a_text_that_is_cut_off_is_marked_and_fits() -> None:
    assert fit("short", 100) == "short"
    assert fit("a name that is too long", 100).endswith("…")
    assert text_width(fit("a name that is too long", 100)) <= 100


def contrast(colour: str, panel: str) -> float:
    """Return the ratio of WCAG 2: 4.5 is asked of text and 3 of lines."""

    def luminance(text: str) -> float:
        parts = [int(text[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(colour), luminance(panel)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("palette", [svg._LIGHT, svg._DARK])
def test_texts_and_lines_can_be_read_on_the_panel(palette: svg._Palette) -> None:
    assert min(contrast(text, palette.panel) for text in (palette.ink, palette.muted)) >= 4.5
    assert min(contrast(line, palette.panel) for line in palette.series) >= 3


# The command


def run(*arguments: str) -> tuple[int, str, str]:
    app = typer.Typer()
    app.command()(plot)
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.stdout, result.stderr


def stored(path: Path, made: Report) -> str:
    path.parent.mkdir(exist_ok=True)
    write_json(made, path)
    return str(path)


def test_the_command_writes_charts_and_names_them(tmp_path: Path) -> None:
    output = tmp_path / "new" / "figures"
    code, out, _ = run(stored(tmp_path / "a.json", beside_peers()), "--output", str(output))
    assert code == 0
    assert [Path(line) for line in out.splitlines()] == [
        output / name for name in ("append-rate.svg", "append-latency.svg", "append-beside.svg")
    ]
    assert (output / "append-rate.svg").read_text() == draw_charts({"a": beside_peers()})[
        "append-rate.svg"
    ]


def test_reports_with_one_file_name_are_told_apart_by_their_path(tmp_path: Path) -> None:
    paths = [stored(tmp_path / name / "append.json", report()) for name in ("a", "b")]
    run(*paths, "--output", str(tmp_path))
    description = elements((tmp_path / "append-rate.svg").read_text(), "desc")[0].text or ""
    assert all(f"{path}: median" in description for path in paths)


def test_the_command_says_what_it_cannot_do_in_a_line(tmp_path: Path) -> None:
    good = stored(tmp_path / "a.json", report())
    failed = stored(tmp_path / "b.json", report(verdict={"lost": 1, "ok": False}))
    (tmp_path / "file").touch()
    for arguments, complaint in (
        ((str(tmp_path / "none.json"),), "give a file that --json wrote"),
        ((failed, "--output", str(tmp_path)), "nothing to draw"),
        ((good, "--output", str(tmp_path / "file")), "give another --output"),
    ):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert complaint in err.splitlines()[-1]
    assert "b: a verdict failed" in run(good, failed, "--output", str(tmp_path))[2]


def test_a_report_that_was_stored_is_drawn_as_the_one_that_was_made() -> None:
    made = beside_peers()
    again = msgspec.json.decode(msgspec.json.encode(made), type=Report)
    assert draw_charts({"a": again}) == draw_charts({"a": made})
