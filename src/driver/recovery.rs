//! `recover`: what the journal and the world say, and the safe thing to do about it.
//!
//! [`decide`] is pure: a table over the last job's state and what was seen of the world. The
//! driver looks ([`look`]) and does what was decided. It never stops what serves, and where rows
//! are at stake it refuses until a person has said so (contract section 8). Whatever is refused
//! is refused with the command that goes on from there.

mod good;
mod later;
mod look;
mod neighbours;
mod rest;
#[cfg(test)]
mod tests;
mod unfinished;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::steps::activity;
use super::waits::may_turn;
use crate::config::Resume;
use crate::journal::{HopRecord, JobRecord};
use crate::machine::failure::FailureCode;
use crate::machine::{Event, Phase, State};

pub(super) use look::old_container;
pub use look::{Hand, look};
pub(super) use neighbours::rival;

/// How a stranger is called that is no container: this, its number, and the rest.
const PROCESS: &str = "process ";
const OF_THIS_HOST: &str = " of this host";

/// What the operator asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Consent {
    /// The restore point may come back, whatever rows of the failed version it forgets.
    pub restore_database: bool,
    /// With it, the rows that the failed version inserted are carried over into it.
    pub carry_rows: bool,
    /// The new version is kept after all, on the database as it is.
    pub keep_new: bool,
}

/// A container as it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    /// There is none of this id.
    Gone,
    /// It was never started.
    Created,
    /// It has ended.
    Stopped,
    /// It runs.
    Running,
}

/// Whose application answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serving {
    /// No one's.
    Nobody,
    /// That of the container that served before the hop.
    Old,
    /// That of the new version's container.
    Next,
    /// That of a container which is neither.
    Stranger,
}

/// A container that is neither of the two and stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// There is none.
    None,
    /// It has the shop's name.
    HoldsName,
    /// It runs PayRam on the shop's database.
    OnDatabase,
    /// It is a server that works in the database's directory, of no matter what.
    Server,
}

/// The copy of the database that the way back may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopySeen {
    /// None was made, or it is no directory.
    NotMade,
    /// It is there, or it has taken the database's place already.
    There,
    /// It was made and is not there.
    Missing,
    /// It is there, and so is something in the place where the failed database would be kept.
    InTheWay,
}

/// The world, as far as a decision depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct World {
    /// The container that served before the hop.
    pub old: Seen,
    /// The container of the new version.
    pub next: Seen,
    /// Whose application answers.
    pub serving: Serving,
    /// Who stands in the way.
    pub stranger: Stranger,
    /// The copy of the database.
    pub copy: CopySeen,
    /// Whether the driver is at work on the job, without being asked.
    pub is_driven: bool,
    /// What an unfinished job that was found at the start does (`RESUME`).
    pub resume: Resume,
    /// Whether a daemon holds it and waits for a word, so that it can be cancelled instead.
    pub is_held: bool,
}

/// What things are called in the world, for sentences and commands; empty where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The shop's own name, which each of the containers wants.
    pub shop: String,
    /// The old container's name now.
    pub old: String,
    /// The new container's name now.
    pub next: String,
    /// The stranger's name.
    pub stranger: String,
    /// Where the copy of the database lies.
    pub copy: String,
    /// Where the failed version's database would be kept.
    pub failed: String,
    /// The command of the container engine.
    pub docker: String,
}

/// What was seen, with the names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// What counts.
    pub world: World,
    /// What it is called.
    pub names: Names,
    /// What was good last, where that is no part of the last upgrade: it takes the place of the
    /// old container then, and there is no new one.
    pub good: Option<Good>,
    /// What ran on the database after what would be started, and is newer for all one knows.
    pub later: Option<Later>,
}

impl Sight {
    /// The stranger, for a sentence.
    fn stranger_called(&self) -> String {
        match self.names.stranger.contains(' ') {
            // No container's name has a space in it.
            true => self.names.stranger.clone(),
            false => format!("container {}", self.names.stranger),
        }
    }
}

/// What was good last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Good {
    /// The version.
    pub version: String,
    /// How it is known: `was recorded as good last (sync)`.
    pub how: &'static str,
    /// The container's id; empty when it is gone.
    pub id: String,
    /// The image's id; empty when it is not known.
    pub image: String,
}

/// A container that ran on the shop's database after the one that would be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Later {
    /// Its name.
    pub name: String,
    /// Its version; none when nothing says it, so that it may be newer.
    pub version: Option<String>,
    /// Whether it runs.
    pub is_running: bool,
    /// Whether another container has the shop's name.
    pub is_shop_taken: bool,
    /// The version of the container that would be started, for a sentence.
    pub due_version: String,
    /// Its name; none where an operator may not simply start it.
    pub due_name: Option<String>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Nothing.
    Nothing,
    /// The unfinished job goes on, forward or back.
    GoOn,
    /// The unfinished job is called off, and what it began is taken back.
    TurnBack,
    /// The way back is taken again.
    TakeWayBack(Event),
    /// The container that should serve is started again.
    StartOld,
    /// The same, of the new version.
    StartNext,
    /// The same, of what was good last where that is no part of the last upgrade.
    StartGood,
    /// What an ended upgrade left over is cleared.
    Tidy,
}

/// The answer of `recover` (contract section 8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// Whether it can be done, or nothing need be.
    pub success: bool,
    /// What will be done, and why.
    pub message: String,
    /// `none`, `wait`, `resume`, `retry`, `rollback`, `restore_database`, `keep_new`, `start`, `tidy`,
    /// `sync`, `changed`, `clear_quarantine`, `dismiss_rows`, `refused`; `failed` when nothing could be seen.
    pub action: &'static str,
    /// The last job's failure code; empty when it has none.
    pub code: String,
    /// What is seen, a sentence for each thing.
    pub seen: Vec<String>,
    /// Why not, with the command that would.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<String>,
    /// What a restore of the database forgets, a line for each table.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub found: Vec<String>,
    /// Names exactly this decision, where rows are at stake: a consent to it is given back with
    /// it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub shown: String,
    /// What the driver does.
    #[serde(skip)]
    pub remedy: Remedy,
}

impl Decision {
    pub(super) fn will(action: &'static str, remedy: Remedy, message: impl Into<String>) -> Self {
        Self {
            success: true,
            message: message.into(),
            action,
            code: String::new(),
            seen: Vec::new(),
            refusals: Vec::new(),
            found: Vec::new(),
            shown: String::new(),
            remedy,
        }
    }

    /// Not done, because it is not what was shown.
    pub(super) fn changed(self) -> Self {
        Self {
            success: false,
            action: "changed",
            message: format!(
                "what was found has changed since it was shown; now: {}",
                self.message
            ),
            refusals: vec!["nothing was done; look at it again: payram-updater recover".into()],
            remedy: Remedy::Nothing,
            ..self
        }
    }

    pub(super) fn refused(message: impl Into<String>, refusal: impl Into<String>) -> Self {
        Self {
            success: false,
            refusals: vec![refusal.into()],
            ..Self::will("refused", Remedy::Nothing, message)
        }
    }

    /// A further way out of a refusal.
    pub(super) fn or(mut self, refusal: impl Into<String>) -> Self {
        self.refusals.push(refusal.into());
        self
    }

    /// The same, where there is one.
    pub(super) fn or_some(self, refusal: Option<String>) -> Self {
        match refusal {
            Some(refusal) => self.or(refusal),
            None => self,
        }
    }

    /// What could not even be looked at, or could not be done.
    pub(super) fn failed(
        code: FailureCode,
        seen: impl Into<String>,
        message: impl Into<String>,
        refusal: impl Into<String>,
    ) -> Self {
        Self {
            action: "failed",
            code: code.to_string(),
            seen: vec![seen.into()],
            ..Self::refused(message, refusal)
        }
    }
}

/// What is to be done about the last job in this world. Pure.
pub fn decide(job: Option<&JobRecord>, sight: &Sight, consent: Consent) -> Decision {
    let mut decision = match (job, &sight.good) {
        (Some(job), _) if job.is_active() => or_back(unfinished::decide(job, sight), job, sight),
        (_, Some(good)) => good::decide(good, sight),
        (None, None) => never_asked(sight, "no upgrade was ever run"),
        (Some(job), None) => rest::decide(job, sight, consent),
    };
    decision.seen = seen(job, sight);
    let code = job.and_then(|job| job.ending.as_ref()).and_then(|ending| ending.failure_code);
    decision.code = code.map(|code| code.to_string()).unwrap_or_default();
    if let Some(job) = job
        && matches!(
            decision.remedy,
            Remedy::TakeWayBack(Event::RecoverRestoring | Event::RecoverCarrying)
        )
    {
        decision.shown = name_of(job, &decision);
    }
    decision
}

/// Where a daemon waits for a word, it may be the other one too.
fn or_back(mut decision: Decision, job: &JobRecord, sight: &Sight) -> Decision {
    let World { is_held, serving, .. } = sight.world;
    let serves = job.phase() == Phase::Swapped && serving == Serving::Next;
    if decision.action == "resume" && is_held && may_turn(job.phase()) && !serves {
        decision.message.push_str(" (to go back instead: payram-updater cancel)");
    }
    decision
}

/// Another one whenever the journal of the job goes on or the sentence is another.
fn name_of(job: &JobRecord, decision: &Decision) -> String {
    let mut name = Sha256::new();
    for part in [job.id.to_string(), job.updated.rfc3339(), decision.message.clone()] {
        name.update((part.len() as u64).to_be_bytes());
        name.update(part.as_bytes());
    }
    name.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Nothing was changed by this program; what it sees of the shop it says.
fn never_asked(sight: &Sight, why: &str) -> Decision {
    let (shop, docker) = (&sight.names.shop, &sight.names.docker);
    let then = match (sight.world.old, sight.world.serving) {
        (Seen::Running, Serving::Old) => "the shop serves; nothing to recover".to_owned(),
        (Seen::Running, _) => format!(
            "nothing to recover; {shop} runs and does not answer, which no upgrade caused (see {docker} logs {shop})"
        ),
        (Seen::Created | Seen::Stopped, _) => format!(
            "nothing to recover; {shop} does not run, which no upgrade caused (to start it: {docker} start {shop})"
        ),
        (Seen::Gone, _) => {
            "nothing to recover (payram-updater inspect looks at the shop itself)".to_owned()
        }
    };
    Decision::will("none", Remedy::Nothing, format!("{why}; {then}"))
}

/// What is seen, a sentence for each thing.
fn seen(job: Option<&JobRecord>, sight: &Sight) -> Vec<String> {
    let (world, names) = (&sight.world, &sight.names);
    let mut seen = Vec::new();
    match job {
        None => seen.push("journal: no upgrade was ever run".to_owned()),
        Some(job) => seen.push(format!("journal: {}", journal_says(job))),
    }
    let of_hop = |hop: &HopRecord| hop.machine.state().known().next.is_some();
    let has_next = sight.good.is_none() && job.and_then(JobRecord::hop).is_some_and(of_hop);
    let state = |seen: Seen, answers: bool| match (seen, answers) {
        (Seen::Gone, _) => "is gone",
        (Seen::Created, _) => "was never started",
        (Seen::Stopped, _) => "is stopped",
        (Seen::Running, true) => "runs and answers",
        (Seen::Running, false) => "runs and does not answer",
    };
    let called = |name: &str| match name {
        "" => String::new(),
        name => format!(" {name}"),
    };
    let is = |who: Serving| world.serving == who;
    let old = match has_next {
        true => "old container",
        false => "container",
    };
    let name = if names.old.is_empty() { &names.shop } else { &names.old };
    if !name.is_empty() {
        seen.push(format!("{old}{}: {}", called(name), state(world.old, is(Serving::Old))));
    }
    if has_next {
        let next = state(world.next, is(Serving::Next));
        seen.push(format!("new container{}: {next}", called(&names.next)));
    }
    if let Some(good) = &sight.good {
        seen.push(format!("{} {}", good.version, good.how));
    }
    let neither = if sight.good.is_some() { "another one" } else { "neither of the two" };
    let stranger = called(&names.stranger);
    match world.stranger {
        Stranger::None => {}
        Stranger::HoldsName => {
            seen.push(format!("container{stranger}: {neither}, and it has the name"));
        }
        Stranger::OnDatabase => {
            let answers = if is(Serving::Stranger) { " and answers" } else { "" };
            seen.push(format!(
                "container{stranger}: {neither}; it runs on the shop's database{answers}"
            ));
        }
        Stranger::Server => seen.push(format!(
            "{}: {neither}; its PostgreSQL server works in the shop's database",
            sight.stranger_called()
        )),
    }
    match world.copy {
        CopySeen::NotMade | CopySeen::There => {}
        CopySeen::Missing => seen.push(format!("copy of the database {}: missing", names.copy)),
        CopySeen::InTheWay => seen.push(format!("{}: in the way", names.failed)),
    }
    if let Some(later) = sight.later.as_ref().filter(|later| !later.is_running) {
        seen.push(format!("container {}: ran on the shop's database since then", later.called()));
    }
    seen
}

fn journal_says(job: &JobRecord) -> String {
    let target = &job.body.resolved_target;
    let way = match &job.body.from_version {
        Some(from) => format!("the upgrade from {from} to {target}"),
        None => format!("the upgrade to {target}"),
    };
    match (&job.ending, job.hop()) {
        (Some(ending), _) => format!("{way} ended in {}: {}", job.phase(), ending.message),
        (None, None) => format!("{way} was accepted and has not begun"),
        (None, Some(hop)) => {
            let next = hop.machine.step().filter(|_| hop.machine.phase() != Phase::Verified);
            let next = next.map_or("the next hop", activity);
            let why = match hop.machine.state() {
                State::RollingBack(back) => format!(" because of {}", back.failure),
                State::Planned(_)
                | State::BackedUp(_)
                | State::Pulled(_)
                | State::Swapped(_)
                | State::Verified(_)
                | State::RolledBack(_)
                | State::NeedsOperator(_) => String::new(),
            };
            format!("{way} is unfinished in {}{why}; due is: {next}", job.phase())
        }
    }
}

/// A stranger on the database, or with the name: it is never touched. None when there is none.
fn stranger_in_the_way(sight: &Sight) -> Option<Decision> {
    let Names { shop, stranger, docker, .. } = &sight.names;
    if sight.world.stranger == Stranger::HoldsName
        && let Some(refused) = later::in_the_way("nothing that is due serves", sight)
    {
        // Its name would be freed, and an older version started on what it wrote.
        return Some(refused);
    }
    match sight.world.stranger {
        Stranger::None => None,
        Stranger::HoldsName => Some(Decision::refused(
            format!(
                "a container that is no part of this upgrade has the name {shop}, so that neither version could take it"
            ),
            format!("{docker} rename {stranger} {shop}-other && payram-updater recover"),
        )),
        Stranger::Server => {
            let end = match stranger.strip_prefix(PROCESS) {
                Some(rest) => format!("kill -INT {}", rest.trim_end_matches(OF_THIS_HOST)),
                None => format!("{docker} stop {stranger}"),
            };
            Some(Decision::refused(
                format!(
                    "CRITICAL: a PostgreSQL server that is no part of this upgrade works in the shop's database directory, of {}; it is not stopped, and nothing is started, copied or renamed beside it",
                    sight.stranger_called()
                ),
                format!("end it in good order, then go on: {end} && payram-updater recover"),
            ))
        }
        Stranger::OnDatabase => {
            let keeps = if stranger == shop {
                "payram-updater sync".to_owned()
            } else {
                format!(
                    "{docker} rename {stranger} {shop} (free the name first if it is taken), then payram-updater sync"
                )
            };
            let found = format!(
                "container {stranger}, which is no part of this upgrade, runs on the shop's database; it is not stopped, and nothing else may run there"
            );
            let keeps = format!("to keep it: {keeps}");
            Some(match sight.later {
                // What is older would not be started in its place.
                Some(_) => Decision::refused(found, keeps),
                None => Decision::refused(
                    found,
                    format!(
                        "to go on without it: {docker} stop {stranger} && payram-updater recover"
                    ),
                )
                .or(keeps),
            })
        }
    }
}

/// How to make what runs in this container the shop's, and tell the journal.
fn keep(sight: &Sight, name: &str) -> String {
    let Names { shop, old, next, docker, .. } = &sight.names;
    if name == shop {
        return "to keep it: payram-updater sync".to_owned();
    }
    let other = if name == old { next } else { old };
    let free = match other == shop {
        true => format!("{docker} rename {shop} {shop}-other && "),
        false => String::new(),
    };
    format!("to keep it: {free}{docker} rename {name} {shop} && payram-updater sync")
}
