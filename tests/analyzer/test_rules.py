"""Every rule by hand: a trace in which it must fire, with its time at stake, and near misses that it must leave alone.

Most traces here have the window [1000, 11000): 10 000 ns, so that 1 % is 100 ns.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest

from builders import call, gpu, kernel, memory_event, nvtx_range, on_thread, operation, sample, scheduled, thread, trace
from nitro.analyzer import Source, Trace, analyze
from nitro.analyzer.analysis import Analysis, all_rules
from nitro.analyzer.power_events import DRIVER_LIMITS
from nitro.analyzer.power_log import PowerLog
from nitro.analyzer.rule import Finding, severity_of

LOW, HIGH = 1_000, 11_000
Rows = list[dict[str, Any]]


class Fires(NamedTuple):
    """A trace in which the rule fires once, with this time at stake."""

    why: str
    built: Trace
    stake_ns: int
    window: str = "all"
    evidence: tuple[PowerLog, ...] = ()


class Silent(NamedTuple):
    """A trace in which the rule finds nothing."""

    why: str
    built: Trace
    window: str = "all"
    evidence: tuple[PowerLog, ...] = ()


class Cases(NamedTuple):
    """The positive tests and the near misses of one rule."""

    fires: tuple[Fires, ...]
    silent: tuple[Silent, ...]


def launched(*calls: dict[str, Any], gap_end: int, launch: tuple[int, int], **tables: Any) -> Trace:
    """Two kernels around the gap [5000, `gap_end`), the second launched by `launch`, other calls beside it."""
    return trace(
        kernels=[kernel(LOW, 5_000, correlation_id=1), kernel(gap_end, HIGH, correlation_id=2)],
        api_calls=[call(500, 510, correlation_id=1), *calls, call(*launch, correlation_id=2)],
        **tables,
    )


CAP, HEAT = DRIVER_LIMITS[0x4], DRIVER_LIMITS[0x40]


def power_log(*, mhz: float, limited: int, reason: str | None = CAP, cores: int = 6, changed: int = 10_000) -> PowerLog:
    """A record every 100 ns over [0, 12000), on the clock of the trace.

    The GPU clock is 1000 MHz, and `mhz` in so many records from the 20th one on, for a reason that the
    driver gives, or gives not. From record `changed` on, so many CPU cores are online, before 6.
    """
    times = np.arange(0, 12_000, 100, dtype=np.int64)
    number = np.arange(len(times))
    held = (number >= 20) & (number < 20 + limited)
    return PowerLog(
        source=Source("power.log", "power"),
        records=len(times),
        times_ns=times,
        rails=(),
        total_w=np.full(len(times), 10.0),
        total_source="the board",
        has_total=True,
        loads={"gpu": np.where((times >= LOW) & (times < HIGH), 1.0, 0.0)},
        clocks_hz={"gpu": np.where(held, mhz * 1e6, 1e9)},
        temperatures_c={"gpu": np.full(len(times), 71.5)},
        online_cpus=np.where(number >= changed, float(cores), 6.0),
        limits={} if reason is None else {reason: held.astype(np.float64)},
    )


BUSY = trace(kernels=[kernel(LOW, HIGH, correlation_id=1)], api_calls=[call(500, 510, correlation_id=1)])


def allocation(start: int, end: int, name: str = "cudaMalloc_v3020") -> Trace:
    return launched(call(start, end, name), gap_end=5_150, launch=(5_120, 5_130))


def copy(end: int, *, beside_kernel: bool = False) -> Trace:
    """The GPU idles for 60 ns inside cudaMemcpy, then copies until `end` while its caller is held."""
    other = [kernel(5_060, end, correlation_id=1, stream_id=8)] if beside_kernel else []
    return trace(
        kernels=[kernel(LOW, 5_000, correlation_id=1), *other, kernel(end, HIGH, correlation_id=3)],
        memcpys=[operation(5_060, end, correlation_id=2)],
        api_calls=[
            call(500, 510, correlation_id=1),
            call(520, 530, correlation_id=3),
            call(4_900, end, "cudaMemcpy_v3020", correlation_id=2),
        ],
    )


def graph_time(time: int) -> Trace:
    return trace(kernels=[(LOW + time, HIGH)], graph_launches=[(LOW, LOW + time)])


def two_kernels(gap: int, **tables: Any) -> Trace:
    """Two kernels with a gap of this length between them, without launches."""
    return trace(kernels=[(LOW, 5_000), (5_000 + gap, HIGH)], **tables)


def overhead(time: int) -> Trace:
    """The profiler holds the launching thread for this part of a gap of 600 ns."""
    return launched(gap_end=5_600, launch=(5_590, 5_600), profiler_overheads=[on_thread(5_000, 5_000 + time)])


def host(launch_start: int) -> Trace:
    """A gap with 100 ns in an OS call, 100 ns off the CPU, host code, and a launch."""
    return launched(
        gap_end=5_600,
        launch=(launch_start, 5_600),
        os_calls=[on_thread(5_000, 5_100)],
        sched_events=[scheduled(time, is_in) for time, is_in in ((400, True), (5_200, False), (5_300, True))],
    )


def sampled(**values: int | list[int]) -> Rows:
    """Samples of the ten periods of 1000 ns in the window; the partial one before them is dropped."""
    rows: Rows = []
    for metric, value in values.items():
        by_period = value if isinstance(value, list) else [value] * 10
        rows.append(sample(LOW, metric, 0))
        rows += [sample(LOW + 1_000 * number, metric, v) for number, v in enumerate(by_period, start=1)]
    return rows


def whole_window(samples: Rows | None) -> Trace:
    return trace(kernels=[(LOW, HIGH)], gpu_metric_samples=samples)


def foreign(before: list[int], during: int = 0) -> Trace:
    """SM activity sampled every 100 ns, from 1200 ns before a lone kernel to its end."""
    times = range(-200, HIGH + 1, 100)
    values = [0, *before, *[during] * len(times)]
    return trace(
        kernels=[(LOW, HIGH)],
        gpu_metric_samples=[sample(time, "sm_active", value) for time, value in zip(times, values, strict=False)],
    )


def held(between: list[int], *, gap: int = 1_200, elsewhere: int = 1, sms: int | None = 2) -> Trace:
    """GR active in the periods of 100 ns from 5200 on, and elsewhere; two kernels around a gap from 5000 on."""
    times = range(-200, HIGH + 1, 100)
    by_time = dict(zip(range(5_300, HIGH, 100), between, strict=False))
    rows = [sample(time, "gr_active", by_time.get(time, elsewhere)) for time in times]
    rows += [] if sms is None else [sample(time, "sm_active", sms) for time in times]
    return two_kernels(gap, gpu_metric_samples=rows)


def phases(
    first: int, second: int, *, together: int = 0, iterations: int = 4, use: tuple[int, int] | None = None
) -> Trace:
    """Steps every 10 000 ns with two phases, one kernel each; the window holds all steps but the last.

    Args:
        first, second: lengths of the phases; the second follows the first at once.
        together: by how much the second begins before the end of the first.
        iterations: number of steps.
        use: SM activity in the first and in the second phase, sampled every 1000 ns.
    """
    kernels, calls, ranges = [], [], []
    samples = [sample(0, "sm_active", 0)]
    for number in range(iterations):
        at = 10_000 * (number + 1)
        middle = at + first - together
        kernels.append(kernel(at, at + first, "one", correlation_id=2 * number + 1))
        kernels.append(kernel(middle, middle + second, "two", correlation_id=2 * number + 2, stream_id=8))
        calls.append(call(at - 100, at - 90, correlation_id=2 * number + 1))
        calls.append(call(at - 80, at - 70, correlation_id=2 * number + 2))
        ranges += [
            nvtx_range(at - 200, at - 50, "step"),
            nvtx_range(at - 110, at - 85, "vision"),
            nvtx_range(at - 84, at - 60, "language"),
        ]
        if use:
            for end in range(at - 9_000, at + 1, 1_000):
                into = end - (at - 10_000)
                value = use[0] if into <= first else use[1] if into <= first + second else 0
                samples.append(sample(end, "sm_active", value if number else 0))
    return trace(kernels=kernels, api_calls=calls, nvtx=ranges, gpu_metric_samples=samples if use else None)


def busy_kernels(time: int, samples: Rows | None) -> Trace:
    """Kernels at both ends of the window that run for `time` in all."""
    return trace(kernels=[(LOW, LOW + 2_500), (HIGH - (time - 2_500), HIGH)], gpu_metric_samples=samples)


def grids(time: int, blocks: int = 5, sm_count: int | None = 10) -> Trace:
    """A kernel with few blocks for `time`, one that fills the GPU for the rest."""
    return trace(
        kernels=[kernel(LOW, LOW + time, "small", **shape(blocks)), kernel(LOW + time, HIGH, "large", **shape(10))],
        devices=[gpu(sm_count=sm_count)],
    )


def shape(blocks: int) -> dict[str, int]:
    return {"grid_x": blocks, "grid_y": 1, "grid_z": 1}


def synchronized(start: int, end: int, gap_end: int = 5_200, name: str = "cudaStreamSynchronize_v3020") -> Trace:
    return launched(call(start, end, name), gap_end=gap_end, launch=(5_100, 5_150))


def matrix(time: int, name: str = "ampere_fp16_s16816gemm_fp16_64x64", samples: Rows | None = None) -> Trace:
    return trace(
        kernels=[kernel(LOW, LOW + time, name), kernel(LOW + time, HIGH)],
        gpu_metric_samples=samples,
    )


def clock(last: int, *, gr_active: int = 50, with_clock: bool = True) -> Trace:
    """A kernel of 24 000 ns: ten periods of 24 bins each, in the last two of which the clock is at `last` Hz."""
    rows = [sample(2_400 * number, "gr_active", gr_active) for number in range(11)]
    if with_clock:
        rows += [sample(2_400 * number, "gpc_clock", 1_000 if number < 9 else last) for number in range(11)]
    return trace(kernels=[(0, 24_000)], gpu_metric_samples=rows)


def short_load(bins: int) -> Trace:
    """A kernel of 24 000 ns, each bin a sample: GR active in the first bins only, the last two of them at 900 Hz."""
    times = range(0, 24_001, 100)
    rows = [sample(time, "gr_active", 90 if time <= 100 * bins else 0) for time in times]
    rows += [sample(time, "gpc_clock", 1_000 if time <= 100 * (bins - 2) else 900) for time in times]
    return trace(kernels=[(0, 24_000)], gpu_metric_samples=rows)


def chain(time: int, second: str = "elementwise_relu", stream_id: int = 7, **tables: Any) -> Trace:
    """A kernel, an element-wise one, and 200 ns after it a second one for `time` at the end of the window."""
    return trace(
        kernels=[
            kernel(LOW, 5_000, "gemm"),
            kernel(5_000, HIGH - time - 200, "elementwise_add"),
            kernel(HIGH - time, HIGH, second, stream_id=stream_id),
        ],
        **tables,
    )


TENSOR_IDLE = sampled(tensor_active=0)

CASES: dict[str, Cases] = {
    "allocation_in_loop": Cases(
        (
            Fires("idle for 1 % inside cudaMalloc", allocation(4_900, 5_100), 100),
            Fires("idle for 1 % inside cudaFree", allocation(4_900, 5_100, "cudaFree_v3020"), 100),
        ),
        (
            Silent("idle for 99 ns inside cudaMalloc", allocation(4_900, 5_099)),
            Silent("the GPU worked during cudaMalloc", allocation(1_000, 5_000)),
            Silent("the call manages no memory", allocation(4_900, 5_100, "cudaEventRecord_v3020")),
            Silent("calls were not recorded", two_kernels(150, memory_events=[memory_event(5_050, 64)])),
        ),
    ),
    "blocking_copies": Cases(
        (Fires("idle for 60 ns, then 40 ns of copy alone", copy(5_100), 60 + 40),),
        (
            Silent("99 ns", copy(5_099)),
            Silent("a kernel runs beside the copy", copy(5_100, beside_kernel=True)),
            Silent("calls were not recorded", two_kernels(100, memcpys=[(5_000, 5_100)])),
        ),
    ),
    "capture_limits": Cases(
        (
            Fires("graphs for 20 % of the window", graph_time(2_000), 0),
            Fires("5 % idle before an operation without call", two_kernels(500), 0),
            Fires("5 % idle in profiler overhead", overhead(500), 0),
            Fires("no iterations", trace(kernels=[(LOW, HIGH)]), 0, "auto"),
        ),
        (
            Silent("graphs for 1999 ns", graph_time(1_999)),
            Silent("499 ns idle before an operation without call", two_kernels(499)),
            Silent("499 ns idle in profiler overhead", overhead(499)),
            Silent("the whole capture was asked for", trace(kernels=[(LOW, HIGH)])),
            Silent("iterations were found", phases(5_000, 3_000), "auto"),
        ),
    ),
    "gpu_bound": Cases(
        (Fires("busy for 90 %", two_kernels(1_000), 0),),
        (Silent("busy for 8999 ns", two_kernels(1_001)),),
    ),
    "host_bound": Cases(
        (Fires("OS call, off the CPU and host code: 5 %", host(5_500), 500),),
        (
            Silent("499 ns before the launch", host(5_499)),
            Silent(
                "a CUDA call instead of host code",
                launched(call(4_990, 5_500, "cudaEventRecord_v3020"), gap_end=5_600, launch=(5_500, 5_600)),
            ),
            Silent("calls were not recorded", two_kernels(600, os_calls=[on_thread(5_000, 5_600)])),
        ),
    ),
    "interference": Cases(
        # The engine counts with the half point that samples may be off: 1200 x (0.5 + 0.005).
        (
            Fires("SMs active for 5 % before the first operation", foreign([5] * 12), 500),
            Fires("the engine active for half of the gap, SMs for 2 %", held([50] * 8), 606),
            Fires("SMs not sampled", held([50] * 8, sms=None), 606),
            Fires("more than all is not at stake", held([100] * 8), 1_200),
            Fires("SMs active too, for a part of the window that is less than the gap", held([100] * 8, sms=5), 1_200),
            Fires("SMs active too, for a part of the window that is more than the gap", held([100] * 8, sms=20), 2_000),
            Fires("a gap too short to sample: what was before counts", held([], gap=200, elsewhere=50), 101),
        ),
        (
            Silent("engine one sample lower", held([50] * 7 + [49])),
            Silent("engine held before and after, not between", held([1] * 8, elsewhere=100)),
            Silent("a quiet engine", held([2] * 8)),
            Silent("one sample lower", foreign([5] * 9 + [4] * 3)),
            Silent("SMs are active during the kernel only", foreign([0] * 12, during=90)),
            Silent("two sampling periods before the kernel do not count", foreign([0] * 10 + [90] * 2)),
            Silent("samples in the kernel only", whole_window(sampled(sm_active=90))),
            Silent("no samples", whole_window(None)),
        ),
    ),
    "issue_low": Cases(
        # 30 % active, a tenth of the slots used: 10 000 x 0.3 x (1 - 0.1 / 0.15).
        (
            Fires("active for 30 %, issue in a tenth of it", whole_window(sampled(sm_active=30, sm_issue=3)), 1_000),
            Fires(
                "tensor pipes busy for just under a quarter of it",
                whole_window(sampled(sm_active=30, sm_issue=3, tensor_active=[7] * 6 + [8] * 4)),
                1_000,
            ),
        ),
        (
            Silent("active for 29.9 %", whole_window(sampled(sm_active=[29] + [30] * 9, sm_issue=2))),
            Silent("issue in 15 % of it", whole_window(sampled(sm_active=40, sm_issue=6))),
            Silent(
                "tensor pipes busy for a quarter of it",
                whole_window(sampled(sm_active=40, sm_issue=4, tensor_active=10)),
            ),
            Silent("issue not sampled", whole_window(sampled(sm_active=30))),
            Silent("four samples", whole_window([*sampled(sm_active=[30] * 4), *sampled(sm_issue=[3] * 4)])),
            Silent("no samples", whole_window(None)),
        ),
    ),
    "launch_bound": Cases(
        (
            Fires(
                "100 ns each of another launch, its own launch, and latency",
                launched(call(4_990, 5_100), gap_end=5_300, launch=(5_100, 5_200)),
                300,
            ),
        ),
        (
            Silent("299 ns", launched(call(4_990, 5_100), gap_end=5_299, launch=(5_100, 5_200))),
            Silent("launched before the gap", launched(gap_end=5_300, launch=(4_000, 5_000))),
            Silent("calls were not recorded", two_kernels(300)),
        ),
    ),
    "module_load": Cases(
        (
            Fires("idle for 1 % while a module loads", allocation(4_900, 5_100, "cuModuleLoadData"), 100),
            Fires("idle for 1 % while a library loads", allocation(4_900, 5_100, "cuLibraryLoadData"), 100),
        ),
        (
            Silent("idle for 99 ns", allocation(4_900, 5_099, "cuModuleLoadData")),
            Silent("the GPU worked meanwhile", allocation(1_000, 5_000, "cuModuleLoadData")),
            Silent("calls were not recorded", two_kernels(150)),
        ),
    ),
    "serialized_phases": Cases(
        # Three steps lie in the window.
        (
            Fires("the shorter phase could hide behind the longer", phases(5_000, 3_000), 3 * 3_000, "auto"),
            Fires("just under 10 % together", phases(5_000, 3_000, together=299), 3 * (3_000 - 299), "auto"),
            Fires("5 % of the window saved", phases(1_000, 500), 3 * 500, "auto"),
            Fires("bound of 1.25", phases(4_000, 1_000), 3 * 1_000, "auto"),
            # Room: both need 80 % of the SMs, 3 x 0.8 x 8000 = 19 200 of 24 000 ns.
            Fires("SMs leave some room", phases(5_000, 3_000, use=(80, 80)), 24_000 - 19_200, "auto"),
        ),
        (
            Silent("10 % together", phases(5_000, 3_000, together=300), "auto"),
            Silent("1497 ns of 30 000 saved", phases(1_000, 499), "auto"),
            Silent("bound below 1.25", phases(4_000, 999), "auto"),
            Silent("SMs leave no room", phases(5_000, 3_000, use=(100, 100)), "auto"),
            Silent("no iterations: they are not looked for", phases(5_000, 3_000)),
            Silent("no iterations: only two steps", phases(5_000, 3_000, iterations=2), "auto"),
        ),
    ),
    "sm_underused": Cases(
        # SMs are active for 24.9 % of the window, 49.8 % of the kernels' half of it.
        (Fires("active for 49.8 % of it", busy_kernels(5_000, sampled(sm_active=[24] + [25] * 9)), 2_510),),
        (
            Silent("active for half of it", busy_kernels(5_000, sampled(sm_active=25))),
            Silent("kernels run for 4999 ns", busy_kernels(4_999, sampled(sm_active=24))),
            Silent(
                "copies instead of kernels",
                trace(memcpys=[(LOW, HIGH)], gpu_metric_samples=sampled(sm_active=0)),
            ),
            Silent("no samples", busy_kernels(5_000, None)),
        ),
    ),
    "small_grids": Cases(
        (Fires("600 ns with half of the SMs empty", grids(600), 300),),
        (
            Silent("598 ns", grids(598)),
            Silent("a block for every SM", grids(600, blocks=10)),
            Silent("number of SMs not known", grids(600, sm_count=None)),
        ),
    ),
    "synchronization_bound": Cases(
        (
            Fires("the gap begins inside the call and lasts beyond it", synchronized(4_900, 5_050), 200),
            Fires("the gap ends with the call's thread launching", synchronized(4_900, 5_001), 200),
        ),
        (
            Silent("199 ns", synchronized(4_900, 5_050, gap_end=5_199)),
            Silent("the call ends when the gap begins", synchronized(4_900, 5_000)),
            Silent("the call begins inside the gap", synchronized(5_001, 5_050)),
            Silent("the call does not synchronise", synchronized(4_900, 5_050, name="cudaEventQuery_v3020")),
            Silent(
                "another thread waits",
                launched(
                    call(4_900, 5_050, "cudaStreamSynchronize_v3020", tid=thread(2)),
                    gap_end=5_200,
                    launch=(5_100, 5_150),
                ),
            ),
            Silent("calls were not recorded", two_kernels(200)),
        ),
    ),
    "tensor_unused": Cases(
        (
            Fires("half-precision gemm for 10 %, tensor pipes idle", matrix(1_000, samples=TENSOR_IDLE), 1_000),
            Fires(
                "tensor pipes busy for 0.4 %",
                matrix(1_000, samples=sampled(tensor_active=[4] + [0] * 9)),
                1_000,
            ),
        ),
        (
            Silent("999 ns", matrix(999, samples=TENSOR_IDLE)),
            Silent("tensor pipes busy for 0.5 %", matrix(1_000, samples=sampled(tensor_active=[5] + [0] * 9))),
            Silent("single precision", matrix(1_000, "ampere_sgemm_64x64", TENSOR_IDLE)),
            Silent("no matrix kernel", matrix(1_000, "fp16_softmax", TENSOR_IDLE)),
            Silent("tensor pipes not sampled", matrix(1_000, samples=sampled(sm_active=50))),
            Silent("no samples", matrix(1_000)),
        ),
    ),
    "clocks_held_down": Cases(
        (
            Fires("5 % of the window, a fifth below", BUSY, 100, evidence=(power_log(mhz=800, limited=5),)),
            Fires("1 % below in half of it", BUSY, 50, evidence=(power_log(mhz=990, limited=50, reason=HEAT),)),
            # Nobody says why, so that only a clock that holds at less than 90 % of its level counts.
            Fires("the clock alone", BUSY, 800, evidence=(power_log(mhz=800, limited=40, reason=None),)),
        ),
        (
            Silent("in 4 % of the window", BUSY, evidence=(power_log(mhz=800, limited=4),)),
            Silent("0.9 % below", BUSY, evidence=(power_log(mhz=991, limited=50),)),
            Silent("a clock alone at 91 %", BUSY, evidence=(power_log(mhz=910, limited=50, reason=None),)),
            Silent("no log", BUSY),
        ),
    ),
    "power_mode_changed": Cases(
        (
            Fires(
                "cores go inside the window", BUSY, 0, evidence=(power_log(mhz=1e3, limited=0, cores=4, changed=50),)
            ),
            Fires("at its very start", BUSY, 0, evidence=(power_log(mhz=1e3, limited=0, cores=4, changed=10),)),
        ),
        (
            Silent("before it", BUSY, evidence=(power_log(mhz=1e3, limited=0, cores=4, changed=9),)),
            Silent("after it", BUSY, evidence=(power_log(mhz=1e3, limited=0, cores=4, changed=110),)),
            Silent("never", BUSY, evidence=(power_log(mhz=1e3, limited=0),)),
            Silent("no log", BUSY),
        ),
    ),
    "throttling": Cases(
        # The mean clock is 990 Hz of 1000: 1 % of 24 000 ns.
        (
            Fires("5 % lower in the last fifth", clock(950), 240),
            Fires("ten busy bins, 900 Hz in the last two", short_load(10), 480),
        ),
        (
            Silent("nine busy bins", short_load(9)),
            Silent("4.9 % lower", clock(951)),
            Silent("the clock rises", clock(1_100)),
            Silent("GR active for 49 %", clock(900, gr_active=49)),
            Silent("clock not sampled", clock(900, with_clock=False)),
            Silent("no samples", trace(kernels=[(0, 24_000)])),
        ),
    ),
    "unfused_chains": Cases(
        (Fires("an element-wise kernel for 5 % after another one", chain(500), 500),),
        (
            Silent("499 ns", chain(499)),
            Silent("the second is no element-wise kernel", chain(500, "fp16_gemm")),
            Silent("on another stream", chain(500, stream_id=8)),
            Silent("a copy between them", chain(500, memcpys=[(HIGH - 650, HIGH - 550)])),
            Silent("no kernels", trace(memcpys=[(LOW, HIGH)])),
        ),
    ),
}

FIRES = [pytest.param(rule, case, id=f"{rule}: {case.why}") for rule, cases in CASES.items() for case in cases.fires]
SILENT = [pytest.param(rule, case, id=f"{rule}: {case.why}") for rule, cases in CASES.items() for case in cases.silent]


def found(analysis: Analysis, rule: str) -> list[Finding]:
    return [finding for finding in analysis.findings if finding.rule == rule]


@pytest.mark.parametrize(("rule", "case"), FIRES)
def test_the_rule_fires_with_its_time_at_stake(rule: str, case: Fires) -> None:
    analysis = analyze(case.built, *case.evidence, window=case.window)
    assert [finding.time_at_stake_ns for finding in found(analysis, rule)] == [case.stake_ns]


@pytest.mark.parametrize(("rule", "case"), SILENT)
def test_the_rule_is_silent_just_below(rule: str, case: Silent) -> None:
    analysis = analyze(case.built, *case.evidence, window=case.window)
    assert analysis.value("window")
    assert found(analysis, rule) == []


def test_every_rule_has_a_positive_test_and_a_near_miss() -> None:
    assert set(CASES) == {rule.id for rule in all_rules()}
    assert [rule for rule, cases in CASES.items() if not (cases.fires and cases.silent)] == []


@pytest.mark.parametrize(("rule", "case"), FIRES)
def test_findings_say_what_they_rest_on_and_what_to_do(rule: str, case: Fires) -> None:
    analysis = analyze(case.built, *case.evidence, window=case.window)
    assert rule in [finding.rule for finding in analysis.findings]
    for finding in analysis.findings:
        assert finding.evidence
        assert all(entry.metric and entry.text for entry in finding.evidence)
        assert finding.title
        assert finding.remedy
        assert finding.limits
        assert 0 <= finding.time_at_stake_ns <= window_of(analysis, finding)
        assert finding.severity == "info" or finding.time_at_stake_ns > 0
        assert finding.severity in ("info", severity_of(finding.time_at_stake_ns, window_of(analysis, finding)))


def window_of(analysis: Analysis, finding: Finding) -> int:
    if finding.device_id is None:
        return analysis.window.end_ns - analysis.window.start_ns
    start, end = analysis.window.of_device(finding.device_id)
    return end - start


@pytest.mark.parametrize(
    ("stake", "severity"), [(1_000, "high"), (200, "high"), (199, "medium"), (50, "medium"), (49, "low"), (0, "low")]
)
def test_the_severity_is_that_of_the_share(stake: int, severity: str) -> None:
    assert severity_of(stake, 1_000) == severity


def test_room_that_was_sampled_makes_a_finding_more_certain() -> None:
    lengths_only, with_samples = (
        found(analyze(phases(5_000, 3_000, use=use)), "serialized_phases")[0] for use in (None, (80, 80))
    )
    assert (lengths_only.confidence, with_samples.confidence) == ("low", "medium")


def test_findings_are_ordered_by_time_at_stake_and_info_comes_last() -> None:
    built = trace(
        kernels=[
            kernel(1_000, 3_000, correlation_id=1),
            kernel(3_310, 6_000, correlation_id=2),
            kernel(6_610, 11_000, correlation_id=3),
        ],
        api_calls=[
            call(500, 510, correlation_id=1),
            call(2_900, 3_300, "cudaMalloc_v3020"),
            call(3_300, 3_310, correlation_id=2),
            call(6_600, 6_610, correlation_id=3),
        ],
    )
    assert [(f.rule, f.severity, f.time_at_stake_ns) for f in analyze(built).findings] == [
        ("host_bound", "medium", 600),
        ("allocation_in_loop", "low", 300),
        ("capture_limits", "info", 0),
        ("gpu_bound", "info", 0),
    ]


def test_each_device_has_findings_of_its_own() -> None:
    # GPU 1 works for 2000 ns with a gap of 500 ns, GPU 0 without any.
    built = trace(
        kernels=[
            kernel(LOW, HIGH, correlation_id=1),
            kernel(2_000, 3_000, correlation_id=2, device_id=1),
            kernel(3_500, 4_000, correlation_id=3, device_id=1),
        ],
        api_calls=[
            call(500, 510, correlation_id=1),
            call(600, 610, correlation_id=2),
            call(3_490, 3_500, correlation_id=3),
        ],
    )
    assert [(f.rule, f.device_id, f.severity, f.time_at_stake_ns) for f in analyze(built, window="all").findings] == [
        ("host_bound", 1, "high", 490),
        ("gpu_bound", 0, "info", 0),
    ]


def clean() -> Trace:
    """Ten iterations of 10 000 ns: two large kernels, each queued long before it runs, with 50 ns between kernels."""
    starts = range(10_000, 110_000, 10_000)
    kernels = [
        (at + begin, at + end, name)
        for at in starts
        for begin, end, name in ((0, 5_950, "fp16_gemm"), (6_000, 9_950, "fp16_attention"))
    ]
    values = {"gr_active": 99, "sm_active": 95, "sm_issue": 40, "tensor_active": 30, "gpc_clock": 1_000_000_000}
    times = range(0, 130_001, 1_000)
    return trace(
        kernels=[
            kernel(start, end, name, correlation_id=number, **shape(100))
            for number, (start, end, name) in enumerate(kernels, start=1)
        ],
        api_calls=[call(100 * number, 100 * number + 10, correlation_id=number) for number in range(1, 21)],
        gpu_metric_samples=[
            sample(time, metric, value if 10_000 < time <= 110_000 or metric == "gpc_clock" else 0)
            for metric, value in values.items()
            for time in times
        ],
        devices=[gpu(sm_count=10)],
    )


def test_a_clean_gpu_bound_trace_has_no_finding_above_info() -> None:
    analysis = analyze(clean())
    assert [(f.rule, f.severity) for f in analysis.findings] == [("gpu_bound", "info")]


def test_a_clean_trace_is_judged_on_all_that_rules_need() -> None:
    analysis = analyze(clean())
    measured = {m.metric for m in analysis.measurements} | {table.name for table in analysis.tables}
    needed = {name for rule in all_rules() for name in rule.needs}
    # What needs a power log is tested with one.
    assert needed - measured == {"phase_pairs", "limited_time", "limited_clock", "power_events"}


def test_a_trace_without_operations_has_no_finding() -> None:
    assert analyze(trace(kernels=[], api_calls=[call(0, 10)])).findings == ()


def both_streams(name: str, *, samples: Rows | None = None, **columns: Any) -> Trace:
    """The same kernel over the whole window on two streams."""
    streams = [kernel(LOW, HIGH, name, stream_id=stream, **columns) for stream in (7, 8)]
    return trace(kernels=streams, devices=[gpu(0, sm_count=10)], gpu_metric_samples=samples)


@pytest.mark.parametrize(
    ("rule", "built"),
    [
        ("tensor_unused", both_streams("hgemm_fp16", samples=sampled(tensor_active=0))),
        ("small_grids", both_streams("kernel", grid_x=1, grid_y=1, grid_z=1)),
        (
            "unfused_chains",
            trace(
                kernels=[
                    kernel(start, end, "relu", stream_id=stream)
                    for stream in (7, 8, 9)
                    for start, end in ((LOW, LOW + 1), (LOW + 1, HIGH))
                ]
            ),
        ),
    ],
)
def test_kernels_side_by_side_are_not_at_stake_twice(rule: str, built: Trace) -> None:
    (finding,) = found(analyze(built, window="all"), rule)
    assert finding.time_at_stake_ns <= HIGH - LOW


def test_concurrent_kernels_and_copies_do_not_pass_for_busy_sms() -> None:
    built = trace(
        kernels=[kernel(LOW, 4_000, stream_id=stream) for stream in (7, 8)],
        memcpys=[operation(4_000, 7_000), operation(10_990, HIGH)],
        gpu_metric_samples=sampled(sm_active=10),
    )
    assert found(analyze(built, window="all"), "sm_underused") == []


def test_converting_kernels_are_no_matrix_work() -> None:
    built = both_streams("cuConvertFp32ToFp16Kernel", samples=sampled(tensor_active=0))
    assert found(analyze(built, window="all"), "tensor_unused") == []


def test_interference_always_shows_where_it_was_seen() -> None:
    rows = [sample(time, "sm_active", 50) for time in range(-100, 1_300, 100)]
    (finding,) = found(analyze(trace(kernels=[(500, 600)], gpu_metric_samples=rows), window="all"), "interference")
    assert finding.evidence


def test_interference_says_whether_it_saw_the_engine_or_the_sms() -> None:
    def told(built: Trace) -> tuple[str, dict[str, float]]:
        (finding,) = found(analyze(built, window="all"), "interference")
        return finding.title, {entry.text: entry.value for entry in finding.evidence}

    title, evidence = told(held([75] * 8))
    assert title.endswith("the engine is active for 75.0% of the time, SMs for 2.0%")
    assert evidence["GR active between (8 samples)"] == pytest.approx(0.75)
    assert evidence["SM active between (8 samples)"] == pytest.approx(0.02)
    assert told(held([75] * 8, sms=None))[0].endswith("the engine is active for 75.0% of the time")
    for built in (held([75] * 8, sms=5), foreign([5] * 12)):
        assert told(built)[0].startswith("The GPU is busy")


def test_a_power_log_says_more_than_the_sampled_clock() -> None:
    """Where the log says what holds the clock down, the rule that only sees it fall stays silent."""
    built = clock(800)
    assert found(analyze(built, window="all"), "throttling")
    log = power_log(mhz=800, limited=60)
    analysis = analyze(built, log, window="all")
    assert not found(analysis, "throttling")
    (finding,) = found(analysis, "clocks_held_down")
    assert finding.confidence == "high"
    assert str(CAP) in finding.title
    told = {(entry.metric, entry.text): entry.value for entry in finding.evidence}
    assert told["limited_clock", "mean GPU clock in that time"] == pytest.approx(800e6)
    assert told["limited_clock", "highest GPU clock of the log"] == pytest.approx(1e9)
    assert told["logged_temperature", "highest of sensor gpu"] == 71.5


def test_a_clock_that_falls_for_no_reason_given_is_less_certain() -> None:
    (finding,) = found(analyze(BUSY, power_log(mhz=800, limited=40, reason=None), window="all"), "clocks_held_down")
    assert finding.confidence == "medium"
    assert "GPU clock below its level under load" in finding.title


def test_a_clock_of_0_is_not_held_down() -> None:
    log = power_log(mhz=0, limited=60)
    stopped = replace(log, clocks_hz={"gpu": np.zeros(len(log.times_ns))})
    assert not found(analyze(BUSY, stopped, window="all"), "clocks_held_down")


def test_the_change_of_the_power_mode_is_told_with_its_numbers() -> None:
    (finding,) = found(
        analyze(BUSY, power_log(mhz=1e3, limited=0, cores=4, changed=50), window="all"), "power_mode_changed"
    )
    assert finding.severity == "info"
    assert finding.evidence[0].value == 5_000
    assert finding.evidence[0].text == "number of CPU cores online changed: 6 to 4"
