"""What the options of `duet bench` come to, and which of them do not go together."""

import pytest
import typer
from typer.testing import CliRunner

from lab.bench import against, choices, comparison, curve, growth, recovery, register, steps, styles_run
from lab.bench.choices import (
    ConductorOptions,
    StylesOptions,
    conductor_shape,
    parse_rates,
    parse_revisions,
    parse_sizes,
    styles_shape,
)
from lab.bench.goals import CHOREOGRAPHY, ORCHESTRATION
from lab.errors import LabError


def test_without_options_the_conductors_are_compared_with_few_clients_and_many() -> None:
    shape = conductor_shape(ConductorOptions())
    assert isinstance(shape, comparison.Shape)
    assert (shape.clients, shape.pairs) == ((1, 16, 64, 256), 12)
    assert shape.steps == 12 * 4 * 4 + 4


def test_a_growth_curve_has_at_least_six_rounds_and_reaches_a_million_orders() -> None:
    shape = conductor_shape(ConductorOptions(growth=True))
    assert isinstance(shape, growth.Shape)
    assert (shape.sizes, shape.clients) == ((1_000, 100_000, 1_000_000), 64)
    assert shape.pairs >= 6
    quick = conductor_shape(ConductorOptions(growth=True, quick=True))
    assert isinstance(quick, growth.Shape)
    assert quick.sizes == (1_000, 10_000, 100_000)
    assert quick.pairs < 6


def test_a_recovery_is_of_ten_thousand_orders_unless_told_otherwise() -> None:
    asked = [
        conductor_shape(ConductorOptions(recovery=True)),
        conductor_shape(ConductorOptions(recovery=True, quick=True)),
        conductor_shape(ConductorOptions(recovery=True, quick=True, orders=50, pairs=2)),
    ]
    assert asked == [recovery.Shape(10_000, 3), recovery.Shape(1_000, 1), recovery.Shape(50, 2)]


def test_revisions_are_compared_in_the_order_given_and_this_tree_after_them() -> None:
    shape = conductor_shape(ConductorOptions(against="v1, HEAD~2", pairs=3))
    assert isinstance(shape, steps.Shape)
    assert (shape.revisions, shape.clients) == (("v1", "HEAD~2"), (1, 16, 64))
    assert shape.steps == 3 * 3 * 3 + 1
    quick = conductor_shape(ConductorOptions(against="v1", clients="64", quick=True))
    assert isinstance(quick, steps.Shape)
    assert quick.clients == (64,)


@pytest.mark.parametrize("given", ["", "v1,", "v1,v1", ",".join(f"v{number}" for number in range(10))])
def test_revisions_that_cannot_be_compared_are_refused(given: str) -> None:
    with pytest.raises(LabError, match="--against wants"):
        parse_revisions(given)


def test_each_style_is_offered_four_percent_more_than_its_goal() -> None:
    shape = styles_shape(StylesOptions())
    assert isinstance(shape, styles_run.Shape)
    assert shape.rates == pytest.approx({ORCHESTRATION: 936, CHOREOGRAPHY: 936})
    assert (shape.mails, shape.judged) == (("null", "smtp"), True)
    alone = styles_shape(StylesOptions(quick=True, style=CHOREOGRAPHY, rate=70.0))
    assert isinstance(alone, styles_run.Shape)
    assert (alone.mails, alone.rates, alone.judged) == (("null",), {CHOREOGRAPHY: 70.0}, False)


def test_a_curve_has_one_window_for_each_rate_style_and_round() -> None:
    shape = styles_shape(StylesOptions(rates="200,50,100", rounds=3))
    assert isinstance(shape, curve.Shape)
    assert shape.rates == (50, 100, 200)
    assert shape.steps == 3 * 3 * 2 + 1


def test_both_trees_are_offered_the_rate_that_is_asked_for() -> None:
    shape = styles_shape(StylesOptions(against="HEAD~3", rate=120.0, pairs=4, seconds=5.0))
    assert isinstance(shape, against.Shape)
    assert shape.rates == {ORCHESTRATION: 120.0, CHOREOGRAPHY: 120.0}
    assert (shape.revision, shape.pairs, shape.measured_s, shape.judged) == ("HEAD~3", 4, 5.0, True)
    usual = styles_shape(StylesOptions(against="HEAD", quick=True))
    assert isinstance(usual, against.Shape)
    assert (set(usual.rates.values()), usual.judged) == ({40.0}, False)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (ConductorOptions(growth=True, recovery=True), "--recovery"),
        (ConductorOptions(growth=True, against="v1"), "--against"),
        (ConductorOptions(recovery=True, against="v1"), "--against"),
        (ConductorOptions(growth=True, clients="1"), "--clients"),
        (ConductorOptions(recovery=True, clients="1"), "--clients"),
        (ConductorOptions(sizes="1,2"), "--sizes"),
        (ConductorOptions(orders=5), "--orders"),
        (ConductorOptions(recovery=True, seconds=1.0), "--seconds"),
        (ConductorOptions(growth=True, sizes="1000"), "--sizes"),
        (ConductorOptions(clients="many"), "--clients"),
    ],
)
def test_options_of_two_conductor_benches_are_refused_together(given: ConductorOptions, named: str) -> None:
    with pytest.raises(LabError, match=named):
        conductor_shape(given)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (StylesOptions(rates="50", against="HEAD"), "--against"),
        (StylesOptions(rates="50", mail="smtp"), "--mail"),
        (StylesOptions(against="HEAD", mail="both"), "--mail"),
        (StylesOptions(pairs=3), "--pairs"),
        (StylesOptions(rates="50", pairs=3), "--pairs"),
        (StylesOptions(against="HEAD", rounds=2), "--rounds"),
        (StylesOptions(rates="50", rate=60.0), "--rate"),
        (StylesOptions(rates="fast"), "--rates"),
    ],
)
def test_options_of_two_styles_benches_are_refused_together(given: StylesOptions, named: str) -> None:
    with pytest.raises(LabError, match=named):
        styles_shape(given)


def test_sizes_and_rates_rise_and_are_there_once() -> None:
    assert parse_sizes("1000,10,1000") == (10, 1000)
    assert parse_rates("200,12.5,200") == (12.5, 200)


@pytest.mark.parametrize("given", ["", "5", "5,5", "0,5", "1,x", "1,10000001", "1,2,3,4,5,6,7", "1.5,2"])
def test_sizes_that_make_no_sense_are_refused(given: str) -> None:
    with pytest.raises(LabError, match="--sizes"):
        parse_sizes(given)


@pytest.mark.parametrize(
    "given", ["", "0", "-1", "nan", "inf", "10001", "50,,100", ",".join(map(str, range(1, 30)))]
)
def test_rates_that_make_no_sense_are_refused(given: str) -> None:
    with pytest.raises(LabError, match="--rates"):
        parse_rates(given)


def test_a_refusal_is_one_line_and_exit_code_2() -> None:
    app = typer.Typer()
    register(app)
    app.callback()(lambda: None)
    for asked in (["conductor", "--growth", "--recovery"], ["styles", "--rates", "no"]):
        refused = CliRunner().invoke(app, ["bench", *asked])
        assert refused.exit_code == 2
        assert refused.output.startswith("duet: --")
        assert len(refused.output.splitlines()) == 1


def test_the_usual_options_are_readable_themselves() -> None:
    assert parse_sizes(choices.GROWTH_SIZES)
    assert parse_sizes(choices.QUICK_GROWTH_SIZES)
