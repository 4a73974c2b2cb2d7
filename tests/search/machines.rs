//! The product's own machines, each met once: [`Machine::apply`] and [`Machine::recover`] are
//! asked once for each machine and outcome, and their answer is kept.
//!
//! Two machines count as the same when they differ in nothing but the sentences of their
//! failures, which no decision of the machine looks into.

use std::collections::HashMap;

use payram_updater::machine::facts::{
    Assessment, Backup, Copy, CoreRules, Export, FilesRestored, Fingerprint, KeptMount,
    NextContainer, OldContainer, Probation, ProbationEnd, Programs, Proof, PulledImage, Quiesced,
    RestorePoint, Restored, RollbackDatabase, Server, TargetImage, Verdict,
};
use payram_updater::machine::failure::{Failure, FailureCode};
use payram_updater::machine::transition::TRANSITIONS;
use payram_updater::machine::{
    Assessed, Begun, Consent, Event, Fact, Hop, Machine, Outcome, Phase, State, Step, Transition,
};

use super::effects::{Answer, Found, Known};
use super::world::Stage;

/// What comes to a machine.
#[derive(Clone, Copy, Debug)]
pub enum Input {
    Answered(Answer),
    Unknown,
    Interrupted,
    Left,
    Cancelled,
    Recover,
    RecoverRestoring,
    RecoverRestoringShown,
    RecoverCarrying,
    RecoverKeeping,
}

impl Input {
    const SLOTS: usize = 40;

    fn slot(self) -> usize {
        match self {
            Input::Unknown => 0,
            Input::Interrupted => 1,
            Input::Left => 2,
            Input::Cancelled => 3,
            Input::Recover => 4,
            Input::RecoverRestoring => 5,
            Input::Answered(Answer::Done) => 6,
            Input::Answered(Answer::Refused) => 7,
            Input::Answered(Answer::Backup) => 8,
            Input::Answered(Answer::Proof) => 9,
            Input::Answered(Answer::Image) => 10,
            Input::Answered(Answer::Next) => 11,
            Input::Answered(Answer::Copy) => 12,
            Input::Answered(Answer::Programs) => 13,
            Input::Answered(Answer::Quiesced { has_fingerprint: true }) => 14,
            Input::Answered(Answer::Quiesced { has_fingerprint: false }) => 15,
            Input::Answered(Answer::RestorePoint) => 16,
            Input::Answered(Answer::Verdict) => 17,
            Input::Answered(Answer::Restored) => 18,
            Input::Answered(Answer::Files) => 37,
            Input::Answered(Answer::FilesLeft) => 38,
            Input::Answered(Answer::Assessment(Found::Unchanged)) => 19,
            Input::Answered(Answer::Assessment(Found::Schema)) => 20,
            Input::Answered(Answer::Assessment(Found::Rows)) => 21,
            Input::Answered(Answer::Assessment(Found::Unreadable)) => 22,
            Input::Answered(Answer::Export) => 23,
            Input::RecoverRestoringShown => 24,
            Input::RecoverCarrying => 39,
            Input::Answered(Answer::Assessment(Found::Serves)) => 25,
            Input::Answered(Answer::Assessment(Found::Damaged)) => 26,
            Input::Answered(Answer::Assessment(Found::Workers)) => 34,
            Input::RecoverKeeping => 35,
            Input::Answered(Answer::Unhealthy) => 36,
            Input::Answered(Answer::Mismatch) => 27,
            Input::Answered(Answer::Damaged) => 28,
            Input::Answered(Answer::Probation(ProbationEnd::Passed)) => 29,
            Input::Answered(Answer::Probation(ProbationEnd::NextUpgrade)) => 30,
            Input::Answered(Answer::Probation(ProbationEnd::Troubled)) => 31,
            Input::Answered(Answer::Probation(ProbationEnd::Damaged)) => 32,
            Input::Answered(Answer::Probation(ProbationEnd::ToConfirm)) => 33,
        }
    }
}

/// What the search needs to know of a machine.
#[derive(Clone, Copy, Debug)]
pub struct View {
    pub phase: Phase,
    pub step: Option<Step>,
    pub known: Known,
    /// What a changed database leads to by itself.
    pub setting: RollbackDatabase,
    /// The version that is to serve has still to pass its gate.
    pub is_gate_ahead: bool,
    /// It goes back, and nothing that was found holds it.
    pub goes_back: bool,
    /// On the way back the database has still to be assessed.
    pub is_to_be_assessed: bool,
    /// A database was put back, and the failed version's rows are neither in a file nor said to
    /// be missing from it.
    pub owes_export: bool,
    /// The file of the failed version's rows is journaled.
    pub claims_export: bool,
    /// Files are not as they were, and the journal says so.
    pub is_told_of_files: bool,
    /// It is at rest without a verdict: the old version was never silent, and not looked at.
    pub is_unseen: bool,
    /// The new version has passed its gate.
    pub has_verdict: bool,
    /// How the watch after it ended.
    pub probation: Option<ProbationEnd>,
    /// All that the way back needs must be there, though the new version is verified.
    pub keeps_the_way_back: bool,
    /// What a second server that comes now comes in the middle of.
    pub stage: Option<Stage>,
    /// A person may go on with the new version.
    pub may_keep: bool,
}

pub struct Machines {
    all: Vec<(Machine, View)>,
    by_text: HashMap<String, u32>,
    /// For each machine where each input leads, by [`Input::slot`].
    led: Vec<[Option<u32>; Input::SLOTS]>,
    has_supervisor: bool,
    /// Files beside the database were copied.
    pub has_files: bool,
}

impl Machines {
    /// Number 0 is a machine that has done nothing yet.
    pub fn new(
        setting: RollbackDatabase,
        has_supervisor: bool,
        probation_seconds: Option<u64>,
    ) -> Self {
        let mut machines = Machines {
            all: Vec::new(),
            by_text: HashMap::new(),
            led: Vec::new(),
            has_supervisor,
            has_files: false,
        };
        machines.intern(Machine::new(Hop { probation_seconds, ..hop(setting) }));
        machines
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn view(&self, machine: u32) -> View {
        self.all[machine as usize].1
    }

    /// Where this leads.
    ///
    /// # Errors
    /// When the machine forbids it, or makes a transition that the table does not have (I3).
    pub fn lead(&mut self, machine: u32, input: Input) -> Result<u32, String> {
        if let Some(led) = self.led[machine as usize][input.slot()] {
            return Ok(led);
        }
        let before = self.all[machine as usize].0.clone();
        let asked = before.state().clone();
        let from = before.phase();
        let made = match self.outcome(input) {
            Ok(outcome) => before.apply(outcome),
            Err(event) => before.recover(event).map(|(machine, made)| (machine, vec![made])),
        };
        let (after, made) = made.map_err(|forbidden| format!("{input:?}: {forbidden}"))?;
        is_a_way(from, &made, after.phase())?;
        is_consented(&asked, after.state())?;
        let led = self.intern(after);
        self.led[machine as usize][input.slot()] = Some(led);
        Ok(led)
    }

    fn intern(&mut self, machine: Machine) -> u32 {
        let text = without_sentences(&format!("{machine:?}"));
        // A sentence that is no failure's.
        let text =
            text.replace("the updater ended 3 times in the middle of restore_files", "it broke");
        let next = u32::try_from(self.all.len()).expect("fewer machines than that");
        let number = *self.by_text.entry(text).or_insert(next);
        if number == next {
            let view = View::of(&machine);
            self.all.push((machine, view));
            self.led.push([None; Input::SLOTS]);
        }
        number
    }

    fn outcome(&self, input: Input) -> Result<Outcome, Event> {
        let failure = Failure::new(FailureCode::Unknown, "it broke");
        let coded = |code| Outcome::Failed { failure: Failure::new(code, "it broke") };
        Ok(match input {
            Input::Answered(Answer::Refused) => Outcome::Failed { failure },
            Input::Answered(Answer::Unhealthy) => coded(FailureCode::HealthcheckFailed),
            Input::Answered(Answer::Mismatch) => coded(FailureCode::DatabaseMismatch),
            Input::Answered(Answer::Damaged) => coded(FailureCode::DatabaseDamaged),
            Input::Answered(answer) => Outcome::Done { fact: self.fact(answer) },
            Input::Unknown => Outcome::Unknown { failure },
            Input::Interrupted => Outcome::Interrupted,
            Input::Left => Outcome::Left,
            Input::Cancelled => Outcome::Cancelled { failure },
            Input::Recover => return Err(Event::Recover),
            Input::RecoverRestoring => return Err(Event::RecoverRestoring),
            Input::RecoverRestoringShown => return Err(Event::RecoverRestoringShown),
            Input::RecoverCarrying => return Err(Event::RecoverCarrying),
            Input::RecoverKeeping => return Err(Event::RecoverKeeping),
        })
    }

    fn fact(&self, answer: Answer) -> Fact {
        let running = if self.has_supervisor { vec!["payram-core".into()] } else { Vec::new() };
        let programs = Programs { running, last_answer_ms: Some(1), habits: None };
        match answer {
            Answer::Done
            | Answer::Refused
            | Answer::Unhealthy
            | Answer::Mismatch
            | Answer::Damaged => Fact::Done,
            Answer::Backup => Fact::Backup(Backup {
                path: "/b.dump".into(),
                size_bytes: 1,
                sha256: "00".into(),
                database_host: "localhost".into(),
                database_port: 5432,
                database_name: "payram".into(),
            }),
            Answer::Proof => Fact::Proof(Proof { toc_entries: 1, tables: 1 }),
            Answer::Image => Fact::Image(PulledImage { id: "sha256:2".into(), digest: None }),
            Answer::Next => {
                Fact::Next(NextContainer { id: "n".into(), temporary_name: "payram-next".into() })
            }
            Answer::Copy => Fact::Copy(Copy::Directory {
                source: "/db".into(),
                copy: "/.db.payram-restore-1".into(),
                files: 1,
                bytes: 1,
                server: Server {
                    program: "/postgres".into(),
                    arguments: vec!["-D".into(), "/db".into()],
                    owner: "70:70".into(),
                    major: 15,
                },
            }),
            Answer::Programs => Fact::Programs(programs),
            Answer::Quiesced { has_fingerprint } => Fact::Quiesced(Box::new(Quiesced {
                programs,
                fingerprint: has_fingerprint.then(|| Fingerprint {
                    schema: "00".into(),
                    counters_since: String::new(),
                    unsettled_sessions: 0,
                    next_transaction: Some(1),
                    tables: Vec::new(),
                    objects: Vec::new(),
                    cluster: None,
                    databases: Vec::new(),
                    sequences: None,
                }),
                last_answer_ms: Some(1),
                last_answer_up: None,
                cluster: None,
                lock_file: None,
            })),
            Answer::RestorePoint => {
                let one = KeptMount {
                    destination: "/root/payram".into(),
                    source: "/W".into(),
                    copy: "/kept".into(),
                    sha256: "00".into(),
                    files: 1,
                    bytes: 1,
                    left: 0,
                };
                let files = if self.has_files { vec![one] } else { Vec::new() };
                Fact::RestorePoint(RestorePoint { files, ..RestorePoint::of_database("00", 1, 1) })
            }
            Answer::Verdict => Fact::Verdict(Verdict {
                version: "1.9.7".into(),
                answers: 6,
                first_answer_ms: 2,
                first_answer_up: None,
                notes: Vec::new(),
                to_confirm: None,
                waits_for_a_person: false,
            }),
            Answer::Probation(end) => {
                Fact::Probation(Probation { end, findings: Vec::new(), seconds: 900 })
            }
            Answer::Assessment(found) => Fact::Assessment(Assessed::from(match found {
                Found::Unchanged => Assessment::Unchanged,
                Found::Schema => Assessment::SchemaChanged { what: "a column".into() },
                Found::Workers => Assessment::WorkersWrote { tables: vec!["jobs: 1 row".into()] },
                Found::Rows => Assessment::RowsChanged { tables: vec!["payments: 1 row".into()] },
                Found::Unreadable => Assessment::Unreadable { reason: "no answer".into() },
                Found::Damaged => Assessment::Damaged { by: "another".into() },
                Found::Serves => Assessment::Serves { version: "1.9.7".into() },
            })),
            Answer::Export => Fact::Export(Export::Nothing),
            Answer::Files => Fact::Files(FilesRestored::default()),
            Answer::FilesLeft => Fact::Files(FilesRestored {
                left: vec!["/root/payram/key".into()],
                ..FilesRestored::default()
            }),
            Answer::Restored => Fact::Restored(Restored::kept_in("/db.failed-1")),
        }
    }
}

impl View {
    /// # Panics
    /// Where a machine that can be met lacks what its own next step needs.
    fn of(machine: &Machine) -> Self {
        let work = machine.work().unwrap_or_else(|lacks| panic!("{lacks}"));
        assert_eq!(work.map(|work| work.step()), machine.step(), "work of another step");
        let state = machine.state();
        let known = state.known();
        let failed_with = |code| known.failure.is_some_and(|failure| failure.code == code);
        let end = known.probation.map(|probation| probation.end);
        View {
            phase: machine.phase(),
            step: machine.step(),
            known: Known {
                has_fingerprint: known.quiesced.is_some_and(|q| q.fingerprint.is_some()),
                has_programs: known.programs.is_some(),
                is_tried: known.is_tried,
                rows_stay: known.restored.is_none()
                    && matches!(known.assessment, Some(Assessment::WorkersWrote { .. })),
                has_files: known.restore_point.is_some_and(|point| !point.files.is_empty()),
                is_restored: known.restored.is_some(),
                is_mismatch: failed_with(FailureCode::DatabaseMismatch),
                is_damaged: failed_with(FailureCode::DatabaseDamaged),
            },
            setting: known.hop.rollback_database,
            is_gate_ahead: match state {
                State::Planned(_) | State::BackedUp(_) | State::Pulled(_) => true,
                State::Swapped(swapped) => swapped.verdict.is_none(),
                State::RollingBack(back) => back.remaining.contains(&Step::VerifyOld),
                State::Verified(_) | State::RolledBack(_) | State::NeedsOperator(_) => false,
            },
            // An old version that was ill on the database that was kept is no way back by itself.
            goes_back: matches!(state, State::RollingBack(back)
                if back.hold.is_none() && back.tried.is_none()),
            is_to_be_assessed: matches!(
                state,
                State::RollingBack(back) if back.remaining.contains(&Step::AssessDatabase)
            ),
            owes_export: known.restored.is_some() && known.export.is_none(),
            claims_export: matches!(known.export, Some(Export::Nothing | Export::Written { .. })),
            is_told_of_files: known
                .files
                .is_some_and(|files| !files.failed.is_empty() || !files.left.is_empty()),
            is_unseen: matches!(state, State::RolledBack(back) if back.verdict.is_none()),
            has_verdict: match state {
                State::Swapped(swapped) => swapped.verdict.is_some(),
                State::Verified(_) => true,
                State::Planned(_)
                | State::BackedUp(_)
                | State::Pulled(_)
                | State::RollingBack(_)
                | State::RolledBack(_)
                | State::NeedsOperator(_) => false,
            },
            probation: end,
            keeps_the_way_back: matches!(state, State::Verified(_))
                && match end {
                    None => known.hop.probation_seconds.is_some(),
                    Some(ProbationEnd::Passed | ProbationEnd::NextUpgrade) => false,
                    Some(
                        ProbationEnd::Troubled | ProbationEnd::Damaged | ProbationEnd::ToConfirm,
                    ) => true,
                },
            stage: stage(state),
            may_keep: matches!(state, State::NeedsOperator(needs) if needs.may_keep_new()),
        }
    }
}

fn stage(state: &State) -> Option<Stage> {
    match state {
        State::Planned(_) | State::BackedUp(_) | State::Pulled(_) | State::RolledBack(_) => None,
        State::Swapped(swapped) if swapped.verdict.is_none() => Some(Stage::Gate),
        State::Swapped(swapped) => Some(match swapped.backed_up.hop.probation_seconds {
            Some(_) => Stage::Probation,
            None => Stage::Tidy,
        }),
        State::Verified(verified) => match &verified.probation {
            None if verified.swapped.backed_up.hop.probation_seconds.is_some() => {
                Some(Stage::Probation)
            }
            Some(probation) if probation.keeps_the_way_back() => None,
            None | Some(_) => (!verified.is_tidy).then_some(Stage::Tidy),
        },
        State::RollingBack(back) if back.remaining.contains(&Step::AssessDatabase) => {
            Some(Stage::Gate)
        }
        State::RollingBack(back) => {
            back.remaining.contains(&Step::VerifyOld).then_some(Stage::Return)
        }
        // What comes while a person is asked is the person's.
        State::NeedsOperator(_) => None,
    }
}

/// The transitions lead from one phase to the other, and the table has them all.
fn is_a_way(from: Phase, made: &[Transition], to: Phase) -> Result<(), String> {
    let mut at = from;
    for transition in made {
        if transition.from != at || !TRANSITIONS.contains(transition) {
            return Err(format!("from {at} it claims {transition:?}"));
        }
        at = transition.to;
    }
    if at == to { Ok(()) } else { Err(format!("it went to {to}, its transitions lead to {at}")) }
}

/// A consent to the loss of what was shown is none to the loss of what was not.
fn is_consented(asked: &State, after: &State) -> Result<(), String> {
    let (State::RollingBack(asked), State::RollingBack(after)) = (asked, after) else {
        return Ok(());
    };
    let is_damaged = matches!(after.assessment, Some(Assessment::Damaged { .. }));
    if is_damaged
        && asked.assessment.is_none()
        && asked.restored.is_none()
        && asked.consent == Consent::None
        && after.hold.is_none()
    {
        return Err("nobody but a person decides over a damaged directory".into());
    }
    let is_asked = asked.consent == Consent::AsShown
        && asked.interrupted.known().hop.rollback_database == RollbackDatabase::Manual
        && asked.begun == Begun::Nothing
        && asked.restored.is_none();
    let restores = after.assessment.is_some() && after.remaining.contains(&Step::RestoreDatabase);
    let is_shown = asked.shown.as_ref().zip(after.assessment.as_ref());
    match is_shown.is_some_and(|(shown, found)| shown.forgets_the_same(found)) {
        false if is_asked && restores => Err(format!(
            "{:?} was shown, and {:?} is to be forgotten",
            asked.shown, after.assessment
        )),
        true | false => Ok(()),
    }
}

/// The text with every failure's sentence taken out, and its code unless a step goes by it.
fn without_sentences(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut parts = text.split("Failure {");
    kept.push_str(parts.next().unwrap_or_default());
    for part in parts {
        // Why the upgrade failed, which its steps back look at.
        let is_its_own = kept.ends_with("failure: ");
        kept.push_str("Failure");
        for code in ["DatabaseMismatch", "DatabaseDamaged"] {
            if is_its_own && part.trim_start().starts_with(&format!("code: {code},")) {
                kept.push_str(code);
            }
        }
        kept.push_str(part.split_once('}').map_or("", |(_, after)| after));
    }
    kept
}

fn hop(rollback_database: RollbackDatabase) -> Hop {
    Hop {
        old: OldContainer {
            id: "o".into(),
            name: "payram".into(),
            image_id: "sha256:1".into(),
            restart_policy: serde_json::json!({"Name": "always"}),
            spec_file: "/spec.json".into(),
        },
        from: Some("1.9.6".into()),
        from_rules: CoreRules::Legacy,
        version: "1.9.7".into(),
        target: TargetImage { repo: "payramapp/payram".into(), tag: "1.9.7".into() },
        rules: CoreRules::Api { health_path: "/api/v1/health".into() },
        rollback_database,
        probation_seconds: None,
    }
}
