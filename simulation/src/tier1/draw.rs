//! Worlds for real nodes: those things drawn that they can do, and those faults that their network knows.

use crate::params::{ActorParams, CallParams, Ending, Fault, FaultParams, Kind, MS, Params, SECOND, Time};
use crate::random::Random;
use mobula_core::limits;
use mobula_transport::preface::VERSIONS;
use std::sync::Arc;

/// The work of all calls together.
const WORK_MAX: Time = 12 * SECOND;
/// By then nodes know each other.
const BEGIN: Time = SECOND;

/// The world of `seed`.
pub fn draw(seed: u64) -> Params {
    let mut random = Random::new(seed ^ 0x7165_7231);
    let r = &mut random;
    let nodes = r.pick(&[2, 2, 3, 3, 4, 5]);
    let duration = r.between(1, 6) * SECOND + r.pick(&[0, 0, 0, 15]) * SECOND;
    let actor = |r: &mut Random| ActorParams { serial: true, capacity: r.pick(&[1, 2, 16, 1024]) };
    let actors = (0..r.between(1, 3)).map(|_| actor(r)).collect();
    let mut params = Params {
        seed: r.bits(),
        nodes,
        versions: vec![VERSIONS.max; usize::from(nodes)],
        actors,
        calls: Vec::new(),
        faults: Vec::new(),
        latency: r.pick(&[MS, 2 * MS, 10 * MS]),
        jitter: r.pick(&[0, 3 * MS, 40 * MS]),
        credit_messages: limits::CREDIT_MESSAGES,
        send_window_bytes: limits::SEND_WINDOW_BYTES,
        fragment_bytes: limits::FRAGMENT_BYTES,
        socket_bytes: 65_536,
        heartbeat: limits::HEARTBEAT_INTERVAL.as_micros() as Time,
        down_after: limits::DOWN_AFTER.as_micros() as Time,
        handshake: limits::HANDSHAKE_DEADLINE.as_micros() as Time,
        restarts_max: r.pick(&[0, 1, 3, 5]),
        watched: false,
        services: false,
        stream_window: limits::STREAM_WINDOW_ITEMS,
        supervised: None,
        lease: 8 * SECOND,
        resume_bytes: limits::RESUME_BYTES_MAX,
        blind: false,
        clocks_ppm: vec![0; usize::from(nodes)],
    };
    params.services = r.one_in(3);
    if r.one_in(3) {
        params.supervised = Some(params.draw_supervised(r));
    }
    let linked = params.supervised.is_none() && r.one_in(3);
    let mut work_left = WORK_MAX;
    let theme = r.below(6);
    for _ in 0..r.pick(&[5, 10, 30, 60, 120]) {
        let mut call = real(params.draw_call(r, duration, theme, 0));
        call.at += BEGIN;
        match r.below(10) {
            0 => stream(r, &mut call),
            1 if linked => single(&mut call, Kind::Link),
            2 if linked && r.one_in(3) => single(&mut call, Kind::Unlink),
            3 if params.services => single(&mut call, Kind::Claim),
            4 if params.services && call.kind == Kind::Ask => single(&mut call, Kind::Named),
            _ => {}
        }
        // What ends a child is to be its supervisor, or itself.
        if call.kind == Kind::Stop && params.supervised.is_some() {
            (call.kind, call.ending) = (Kind::Tell, Ending::Stop);
        }
        if call.work * Time::from(call.burst) > work_left {
            call.work = 0;
        }
        work_left -= call.work * Time::from(call.burst);
        params.calls.push(call);
    }
    params.calls.sort_by_key(|call| call.at);
    for _ in 0..r.pick(&[0, 1, 1, 2, 3, 5]) {
        params.faults.push(draw_fault(r, nodes, duration));
    }
    if r.one_in(4) {
        let (node, at) = (r.below(nodes.into()) as u8, BEGIN + r.below(duration));
        // Half of the time nothing else goes wrong.
        if r.one_in(2) {
            params.faults.clear();
        }
        let until = at + r.between(SECOND, 6 * SECOND);
        params.faults.push(FaultParams { at, until, fault: Fault::Drain { node } });
    }
    if params.services && r.one_in(2) {
        params.faults.push(cut_off(r, nodes, duration));
    }
    params.faults.sort_by_key(|fault| fault.at);
    params.claim_what_is_cut_off(r);
    if linked {
        link_what_ends(r, &mut params);
    }
    params.calls.sort_by_key(|call| call.at);
    params
}

/// A member is cut off from the head for about its lease.
fn cut_off(r: &mut Random, nodes: u8, duration: Time) -> FaultParams {
    let (a, at) = (r.between(1, u64::from(nodes) - 1) as u8, BEGIN + SECOND + r.below(duration));
    let fault = Fault::Cut { a, b: 0, one_way: false, lossy: false };
    FaultParams { at, until: at + r.between(8 * SECOND, 14 * SECOND), fault }
}

/// The call asks for a stream instead.
fn stream(r: &mut Random, call: &mut CallParams) {
    single(call, Kind::Stream);
    call.items = r.pick(&[0, 1, 5, 40, 150, 400]);
    call.ending = r.pick(&[
        Ending::Reply,
        Ending::Reply,
        Ending::Reply,
        Ending::Error,
        Ending::Panic,
        Ending::Stop,
        Ending::Late,
    ]);
    call.deadline = match call.ending {
        Ending::Late => Some(r.between(10, 900) * MS),
        _ if r.one_in(2) => None,
        _ => call.deadline,
    };
}

/// The call is about something else than a message.
fn single(call: &mut CallParams, kind: Kind) {
    call.kind = kind;
    call.nested = Vec::new();
    call.burst = call.burst.min(3);
}

/// Workers of several nodes are linked with those of a node that is about to be lost.
fn link_what_ends(r: &mut Random, params: &mut Params) {
    let lost = |fault: &FaultParams| match fault.fault {
        Fault::Crash { node, .. } | Fault::Drain { node } => Some((fault.at, node)),
        Fault::Cut { a, .. } if fault.until - fault.at > 10 * SECOND => Some((fault.at, a)),
        _ => None,
    };
    for (at, target) in params.faults.iter().filter_map(lost).collect::<Vec<_>>() {
        let at = at.saturating_sub(r.between(20 * MS, 900 * MS)).max(BEGIN);
        for actor in 0..params.actors.len() as u8 {
            let caller = (target + r.between(1, u64::from(params.nodes) - 1) as u8) % params.nodes;
            let link = CallParams { at, caller, target, actor, message: actor, ..CallParams::plain(Kind::Link) };
            params.calls.push(link);
        }
    }
}

/// The call as real nodes can make it. Every ask has a deadline: handlers that have their actor to themselves may ask
/// each other in a circle, which only that ends.
fn real(mut call: CallParams) -> CallParams {
    if call.kind == Kind::Spawn {
        call.kind = Kind::Monitor;
    }
    if call.kind == Kind::Ask {
        call.deadline = call.deadline.or(Some(5 * SECOND));
    }
    call.nested = call.nested.iter().map(|nested| Arc::new(real(CallParams::clone(nested)))).collect();
    call
}

fn draw_fault(r: &mut Random, nodes: u8, duration: Time) -> FaultParams {
    let a = r.below(nodes.into()) as u8;
    let b = (a + r.between(1, u64::from(nodes) - 1) as u8) % nodes;
    let long = r.pick(&[50 * MS, 500 * MS, 1900 * MS, 4 * SECOND, 14 * SECOND]);
    let long = r.between(long / 2, long);
    let fault = match r.below(8) {
        0..=2 => Fault::Crash { node: a, silent: r.one_in(3) },
        3..=6 => {
            // The network holds back both directions or none; what it loses it may lose in one.
            let lossy = r.one_in(2);
            Fault::Cut { a, b, one_way: lossy && r.one_in(2), lossy }
        }
        _ => Fault::Delay { a, b, by: r.pick(&[10 * MS, 400 * MS, 3 * SECOND]) },
    };
    let at = BEGIN + r.below(duration);
    FaultParams { at, until: at + long, fault }
}
