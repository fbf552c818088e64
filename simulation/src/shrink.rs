//! Makes a failing world smaller, as long as it breaks the same promise: fewer faults, calls, nodes, and simpler calls.

use std::sync::Arc;

use crate::campaign::Tier;
use crate::judge::Violation;
use crate::kind::Kind;
use crate::params::{CallParams, Params};

/// Tries per world; each runs it once.
const TRIES_MAX: usize = 600;

/// The smallest world found that breaks the promise that `params` breaks; also how many were tried.
pub fn shrink(tier: Tier, params: &Params, promise: &str) -> (Params, usize) {
    let breaks = |candidate: &Params| tier.run_caught(candidate, false).violation;
    smallest(params, promise, breaks, size, |best, fails| {
        let best = fewer(best, |params| &mut params.faults, fails);
        let best = fewer(best, |params| &mut params.calls, fails);
        let best = fewer_nodes(best, fails);
        simpler_calls(best, fails)
    })
}

/// As [`shrink`], for worlds that are no clusters of links.
pub fn shrink_kind<K: Kind>(params: &K::Params, promise: &str) -> (K::Params, usize) {
    smallest(params, promise, |candidate| K::run_caught(candidate, false).violation, K::size, K::smaller)
}

/// Makes a world smaller, as long as what it breaks is `promise` and it does get smaller.
fn smallest<P: Clone>(
    params: &P,
    promise: &str,
    breaks: impl Fn(&P) -> Option<Violation>,
    size: impl Fn(&P) -> usize,
    smaller: impl Fn(P, &mut dyn FnMut(&P) -> bool) -> P,
) -> (P, usize) {
    let mut best = params.clone();
    let mut tries = 0;
    let mut fails = |candidate: &P| {
        tries += 1;
        tries <= TRIES_MAX && breaks(candidate).is_some_and(|found| found.promise == promise)
    };
    loop {
        let before = size(&best);
        best = smaller(best, &mut fails);
        if size(&best) >= before {
            return (best, tries);
        }
    }
}

fn size(params: &Params) -> usize {
    let calls: usize = params.calls.iter().map(weight).sum();
    usize::from(params.nodes) + params.faults.len() + calls + params.actors.len()
}

fn weight(call: &CallParams) -> usize {
    usize::from(call.burst) + call.nested.iter().map(|call| weight(call)).sum::<usize>()
}

/// Leaves out half of a list, then smaller parts, down to single ones (Zeller's ddmin, without its complements).
pub(crate) fn fewer<P: Clone, T>(
    mut best: P,
    list: impl Fn(&mut P) -> &mut Vec<T>,
    fails: &mut (impl FnMut(&P) -> bool + ?Sized),
) -> P {
    let mut part = list(&mut best).len().div_ceil(2);
    while part > 0 {
        let mut from = 0;
        while from < list(&mut best).len() {
            let mut candidate = best.clone();
            let items = list(&mut candidate);
            let to = (from + part).min(items.len());
            items.drain(from..to);
            if fails(&candidate) {
                best = candidate;
            } else {
                from += part;
            }
        }
        part /= 2;
    }
    best
}

/// The world after a change, if it still fails.
pub(crate) fn change<P: Clone>(
    best: P,
    change: impl FnOnce(&mut P),
    fails: &mut (impl FnMut(&P) -> bool + ?Sized),
) -> P {
    let mut candidate = best.clone();
    change(&mut candidate);
    if fails(&candidate) { candidate } else { best }
}

fn fewer_nodes(mut best: Params, fails: &mut dyn FnMut(&Params) -> bool) -> Params {
    while best.nodes > 1 {
        let last = best.nodes - 1;
        let mut candidate = Params { nodes: last, ..best.clone() };
        candidate.faults.retain(|fault| !fault.fault.touches(last));
        candidate.calls.retain(|call| !call.touches(last));
        if !fails(&candidate) {
            break;
        }
        best = candidate;
    }
    best
}

fn simpler_calls(mut best: Params, fails: &mut dyn FnMut(&Params) -> bool) -> Params {
    let simpler: [fn(&mut CallParams); 5] = [
        |call| call.burst = call.burst.div_ceil(2),
        |call| call.nested = Vec::<Arc<CallParams>>::new(),
        |call| call.padding = 0,
        |call| call.work = 0,
        |call| call.cancel_after = None,
    ];
    for at in 0..best.calls.len() {
        for simplify in simpler {
            loop {
                let mut candidate = best.clone();
                simplify(&mut candidate.calls[at]);
                if format!("{:?}", candidate.calls[at]) == format!("{:?}", best.calls[at]) || !fails(&candidate) {
                    break;
                }
                best = candidate;
            }
        }
    }
    best
}
