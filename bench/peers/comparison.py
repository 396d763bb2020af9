"""All peers and Ringlog in turn, round by round, so that what changes on the machine meets all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from bench.environment import read_environment
from bench.peers.catalogue import PEERS, Peer, Ringlog
from bench.peers.measurement import PeersOptions, count_syncs, measure_peer, reason_of
from bench.peers.program import NotInstalledError
from bench.peers.tracer import INSTALL_COMMAND, Tracer
from bench.report import RATE, Better, Metric, Report, Round, make_report, progress
from bench.scenarios.run import OptionsError, prepare, resolved

SCENARIO = "peers"

SYNCS = "syncs per ack"
RATIO = "ringlog over it"
"""The rate of Ringlog over that of the peer, in the same round."""

VERSION = "version"
"""Where a report names the version of the peer."""

NOT_INSTALLED = "not installed: "
NOT_APPLICABLE = "n/a: "
"""Begin the warnings about peers that were not measured, after their names."""

_RINGLOG = Ringlog()


async def run_peers(options: PeersOptions, peers: Sequence[Peer] = PEERS) -> Report:
    """Measure Ringlog and every peer that is here; those that are not are warnings with a command.

    Raises:
        OptionsError: There is no such peer.
    """
    chosen = _choose(options, peers)
    prepare(options)
    environment = read_environment(options.directory)
    present, absent = _sort(chosen, options)
    config = resolved(options)
    versions = {peer.name: version for peer, version in present.items()}
    progress(f"peers: {', '.join(f'{name} {version}' for name, version in versions.items())}")
    progress(f"on {', '.join(f'{name} {value}' for name, value in asdict(environment).items())}")
    contenders = (_RINGLOG, *present)
    rounds: dict[str, list[Round]] = {peer.name: [] for peer in contenders}
    for number in range(1, options.rounds + 1):
        # None is always the first, or always after the same one.
        shift = number % len(contenders)
        for peer in (*contenders[shift:], *contenders[:shift]):
            progress(f"round {number} of {options.rounds}: {peer.name}")
            rounds[peer.name].append(await measure_peer(peer, options))
    reports = {
        name: make_report(
            SCENARIO if name == _RINGLOG.name else name,
            each,
            config=config | {VERSION: versions.get(name, _RINGLOG.version())},
            environment=environment,
        )
        for name, each in rounds.items()
    }
    for peer in contenders:
        await _add_syncs(reports[peer.name], peer, options)
    report = reports.pop(_RINGLOG.name)
    for other in reports.values():
        _add_ratio(report, other)
    report.beside.extend(reports.values())
    report.warnings.extend(f"{name}: {reason}" for name, reason in absent.items())
    return report


def report_absent(report: Report) -> dict[str, str]:
    """Return the peers that were not measured, and why: the warnings say so."""
    pairs = (warning.partition(": ") for warning in report.warnings)
    return {
        name: reason
        for name, _, reason in pairs
        if reason.startswith((NOT_INSTALLED, NOT_APPLICABLE))
    }


def _choose(options: PeersOptions, peers: Sequence[Peer]) -> list[Peer]:
    if options.only is None:
        return list(peers)
    names = [name.strip() for name in options.only.split(",")]
    known = {peer.name: peer for peer in peers}
    if unknown := sorted(set(names) - set(known)):
        raise OptionsError(
            f"--only: there is no {', '.join(unknown)}; there are {', '.join(known)}"
        )
    return [known[name] for name in names]


def _sort(
    chosen: Sequence[Peer], options: PeersOptions
) -> tuple[dict[Peer, str], Mapping[str, str]]:
    """Return the version of each peer that can be measured, and why the others cannot be."""
    present: dict[Peer, str] = {}
    absent: dict[str, str] = {}
    for peer in chosen:
        if options.in_flight > 1 and not peer.pipelines:
            absent[peer.name] = f"{NOT_APPLICABLE}HTTP, one at a time"
            continue
        try:
            present[peer] = peer.version()
        except NotInstalledError as error:
            absent[peer.name] = f"{NOT_INSTALLED}{error}"
    return present, absent


async def _add_syncs(report: Report, peer: Peer, options: PeersOptions) -> None:
    """Count the syncs of a peer that kept its word, if they can be counted."""
    if not report.ok:
        return
    if not Tracer.is_installed():
        report.warnings.append(f"syncs not counted: {INSTALL_COMMAND}")
        return
    progress(f"counting syncs: {peer.name}")
    try:
        syncs = await count_syncs(peer, options)
    except Exception as error:  # noqa: BLE001  # whatever it was, what was measured is as good
        report.warnings.append(f"syncs not counted: {reason_of(error)}")
        return
    per_ack = round(syncs.per_ack, 4)
    report.metrics.append(Metric(name=SYNCS, unit="", better=Better.NEITHER, values=[per_ack]))
    if syncs.opened_for_sync:
        names = ", ".join(sorted(syncs.opened_for_sync))
        report.warnings.append(f"writes to {names} sync as well (O_DSYNC), and are not counted")


def _add_ratio(report: Report, other: Report) -> None:
    ours, theirs = report.metric(RATE), other.metric(RATE)
    if ours is None or theirs is None:
        return
    our, their = ours.by_round(), theirs.by_round()
    both = [number for number in our if number in their]
    if both:
        ratio = Metric(
            name=RATIO,
            unit="",
            better=Better.HIGHER,
            values=[round(our[number] / max(1.0, their[number]), 3) for number in both],
            missing=sorted({*ours.missing, *theirs.missing}),
        )
        other.metrics.append(ratio)
