"""What `compare.json` promises to its readers, as a JSON schema: fields may be added, none taken away."""

from typing import Any

NUMBER, TEXT, FLAG, WHOLE = {"type": "number"}, {"type": "string"}, {"type": "boolean"}, {"type": "integer"}
NUMBER_OR_NONE = {"type": ["number", "null"]}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _by_name(values: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": values}


def _or_none(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


LATENCY = _object(p50=NUMBER, p90=NUMBER, p95=NUMBER, p99=NUMBER, max=NUMBER, mean=NUMBER)
FIGURE = _object(
    slug=TEXT,
    title=TEXT,
    unit=TEXT,
    better={"enum": ["lower", "higher"]},
    a=TEXT,
    b=TEXT,
    a_value=NUMBER_OR_NONE,
    b_value=NUMBER_OR_NONE,
    ratio=_or_none(_object(point=NUMBER, low=NUMBER, high=NUMBER, pairs=WHOLE, confidence=NUMBER)),
    verdict=TEXT,
    smallest=NUMBER_OR_NONE,
    sentence=TEXT,
)
WINDOW = _object(
    arm=TEXT,
    round=WHOLE,
    offered_rate=NUMBER,
    due=WHOLE,
    accepted=WHOLE,
    turned_away=WHOLE,
    errors=_by_name(WHOLE),
    handed_in=WHOLE,
    completed=WHOLE,
    unfinished=WHOLE,
    ack_ms=LATENCY,
    completion_ms=LATENCY,
    cpu_ms=_by_name(NUMBER),
    system_cpu_ms=NUMBER_OR_NONE,
    memory_mb=_by_name(NUMBER),
    calls_per_order=NUMBER_OR_NONE,
    messages_per_order=NUMBER_OR_NONE,
    deliveries_per_order=NUMBER_OR_NONE,
    generator_lag_ms=_object(p50=NUMBER, p99=NUMBER, max=NUMBER),
    others_cpu_share=NUMBER,
    ledger=_object(balances=FLAG, accepted=WHOLE),
    histograms=_object(ack=TEXT, completion=TEXT),
    trouble={"type": ["string", "null"]},
)
SCENARIO = _object(
    name=TEXT,
    title=TEXT,
    what=TEXT,
    arms=_list(TEXT),
    rate=NUMBER,
    service_time=_by_name(TEXT),
    error_rate=_by_name(TEXT),
    fresh_systems=FLAG,
    pairs=WHOLE,
    window_s=NUMBER,
    warm_up_s=NUMBER,
    windows=_list(WINDOW),
    figures=_list(FIGURE),
)
STEP = _object(
    rate=NUMBER,
    met=FLAG,
    why=TEXT,
    completed_rate=NUMBER,
    ack_p99_ms=NUMBER_OR_NONE,
    completion_p50_ms=NUMBER_OR_NONE,
    completion_p99_ms=NUMBER_OR_NONE,
    system_cpu_ms=NUMBER_OR_NONE,
    errors=_by_name(WHOLE),
    ledger=_object(balances=FLAG, accepted=WHOLE),
    histograms=_object(ack=TEXT, completion=TEXT),
)
CAPACITY = _object(
    objective=_object(completion_p99_ms=NUMBER, errors=WHOLE),
    searches=_list(_object(arm=TEXT, round=WHOLE, capacity_per_s=NUMBER_OR_NONE, steps=_list(STEP))),
    figure=FIGURE,
)
ABLATION = _object(
    name=TEXT,
    title=TEXT,
    what=TEXT,
    settings=_by_name(TEXT),
    style=TEXT,
    rate=NUMBER,
    windows=_list(WINDOW),
    figures=_list(FIGURE),
)
CLAIM = _object(
    name=TEXT,
    source=TEXT,
    claim=TEXT,
    found=TEXT,
    holds={"enum": ["yes", "no", "partly", "not decided"]},
    clock=TEXT,
    why=TEXT,
)
COMPARE = _object(
    kind={"const": "compare"},
    version={"const": 1},
    shape={"enum": ["quick", "full"]},
    made_at=TEXT,
    command=TEXT,
    setting=_object(cores=WHOLE, fsync_ms=_object(p50=NUMBER, p99=NUMBER), versions=_by_name(TEXT)),
    seed=WHOLE,
    generator_priority={"enum": ["real-time", "normal"]},
    arms=_list(_object(name=TEXT, style=TEXT, ack_means=TEXT, completion_means=TEXT)),
    scenarios=_list(SCENARIO),
    aa=_or_none(SCENARIO),
    capacity=_or_none(CAPACITY),
    extra=_list(SCENARIO),
    ablations=_list(ABLATION),
    claims=_list(CLAIM),
    troubles=_list(TEXT),
    balanced=FLAG,
    passed=FLAG,
)
