//! A counter-example as a person reads it: one step a line, with what it changed.

use std::fmt;

use payram_updater::machine::Phase;

use super::effects::Answer;
use super::explore::{Move, Node, Search};
use super::world::World;

/// Lines, the oldest first.
pub struct Trace(Vec<String>);

impl Trace {
    /// From the start to this node, then a last move that was not finished, then what is wrong.
    pub fn to(search: &Search, node: u32, last: Option<(Move, World)>, what: String) -> Self {
        let mut way = vec![node];
        let mut at = node;
        while at != 0 {
            at = search.parents[at as usize].0;
            way.push(at);
        }
        way.reverse();
        let mut lines: Vec<String> = way
            .windows(2)
            .map(|pair| {
                let (before, after) = (pair[0] as usize, pair[1] as usize);
                line(search, search.nodes[before], search.parents[after].1, search.nodes[after])
            })
            .collect();
        if let Some((by, world)) = last {
            let before = search.nodes[node as usize];
            lines.push(line(search, before, by, Node { world, ..before }));
        }
        lines.push(format!("=> {what}"));
        Trace(lines)
    }

    /// What follows from this node when nothing goes wrong; it may lead back to itself.
    pub fn honest(search: &Search, start: u32, end: u32) -> Self {
        let mut lines = Vec::new();
        let mut at = start;
        loop {
            let to = search.honest(at);
            let (before, after) = (search.nodes[at as usize], search.nodes[to as usize]);
            let view = search.machines.view(before.machine);
            let by = match view.step {
                Some(step) if before.is_pending => Move::Resumed(step),
                Some(step) if search.machines.view(after.machine).phase == Phase::NeedsOperator => {
                    Move::Honest(step, Answer::Refused)
                }
                Some(step) => Move::Honest(step, Answer::Done),
                None => Move::RecoveredRestoring,
            };
            lines.push(line(search, before, by, after));
            at = to;
            if at == end {
                return Trace(lines);
            }
        }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, line) in self.0.iter().enumerate() {
            writeln!(f, "{:>4}  {line}", number + 1)?;
        }
        Ok(())
    }
}

fn line(search: &Search, before: Node, by: Move, after: Node) -> String {
    let mut line = by.to_string();
    let changes = before.world.changes(&after.world);
    if !changes.is_empty() {
        line.push_str(&format!(" | {}", changes.join("; ")));
    }
    let phase = |node: Node| -> Phase { search.machines.view(node.machine).phase };
    if phase(before) != phase(after) {
        line.push_str(&format!(" | {} -> {}", phase(before), phase(after)));
    }
    line
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Move::Start => f.write_str("start"),
            Move::Honest(step, Answer::Refused) => write!(f, "{step}: it can't be done"),
            Move::Honest(step, Answer::Mismatch) => write!(f, "{step}: another database is served"),
            Move::Honest(step, Answer::Damaged) => write!(f, "{step}: there was a second server"),
            Move::Honest(step, Answer::Probation(end)) => write!(f, "{step}: {end:?}"),
            Move::Honest(step, Answer::Assessment(found)) => write!(f, "{step}: {found:?}"),
            Move::Honest(step, Answer::Quiesced { has_fingerprint: false }) => {
                write!(f, "{step}: done, without a fingerprint")
            }
            Move::Honest(step, _) => write!(f, "{step}: done"),
            Move::Refused(step, 0) => write!(f, "{step}: refused before it did anything"),
            Move::Refused(step, at) => write!(f, "{step}: refused after {at} of its changes"),
            Move::Unanswered(step, at) => {
                write!(f, "{step}: no answer, {at} of its changes are made")
            }
            Move::EngineRestarted(step, at, how) => {
                write!(f, "{step}: the engine restarts ({how:?}) after {at} of its changes")
            }
            Move::Died(step, at) => write!(f, "{step}: the updater dies after {at} of its changes"),
            Move::Left(step, at) => write!(f, "{step}: left after {at} of its changes"),
            Move::Cancelled(step, at) => write!(f, "{step}: called off after {at} of its changes"),
            Move::Resumed(step) => write!(f, "the updater starts and finds {step} unfinished"),
            Move::Rebooted(how) => write!(f, "the host reboots ({how:?})"),
            Move::OldWrote => f.write_str("the old version acknowledges a row"),
            Move::NextWrote(touch) => write!(f, "the new version writes ({touch:?})"),
            Move::NextExited => f.write_str("the new version ends by itself"),
            Move::NextStoppedByHand => f.write_str("the operator stops the next container"),
            Move::Recovered => f.write_str("recover"),
            Move::RecoveredRestoring => f.write_str("recover --restore-database --yes"),
            Move::RecoveredKeeping => f.write_str("recover --keep-new"),
            Move::RecoveredCarrying => f.write_str("recover --restore-database --carry-rows --yes"),
            Move::RecoveredRestoringShown => f.write_str("recover --restore-database, and a yes"),
            Move::NextStartedByHand => f.write_str("somebody starts the next container by hand"),
            Move::StrangerStopped => f.write_str("the operator stops the stranger's server"),
            Move::Covered(served) => write!(f, "behind the new version's mount is {served:?}"),
            Move::Intruded(stranger) => write!(f, "a stranger: {stranger:?}"),
        }
    }
}
