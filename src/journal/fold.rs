//! From rows back to a machine: the same `apply` that ran live, over the outcomes that were
//! journaled. What the rows claim and the machine forbids is an error, never a guess.

use std::collections::VecDeque;
use std::path::Path;

use serde::de::DeserializeOwned;

use super::JournalError;
use super::record::{Ending, JobBody, JobId, Row, RowKind, Seq};
use crate::clock::Timestamp;
use crate::machine::{Event, Hop, JobState, Machine, Outcome, Phase, Step, Transition};

/// A job as its rows tell it.
#[derive(Clone, Debug)]
pub struct JobRecord {
    /// Its id.
    pub id: JobId,
    /// What was asked.
    pub body: JobBody,
    /// The number of its first row.
    pub seq: Seq,
    /// When it was accepted.
    pub created: Timestamp,
    /// When its newest row was written.
    pub updated: Timestamp,
    /// The hops that have begun, in order.
    pub hops: Vec<HopRecord>,
    /// How it came to rest, when it has.
    pub ending: Option<Ending>,
}

/// A hop as its rows tell it.
#[derive(Clone, Debug)]
pub struct HopRecord {
    /// Where its machine is.
    pub machine: Machine,
    /// The step that was begun and has no outcome: it runs, or the program ended in it.
    pub pending: Option<Step>,
    /// Whether any step was begun.
    pub has_begun: bool,
    /// The transitions, with their times.
    pub transitions: Vec<(Timestamp, Transition)>,
    /// When the hop began.
    pub began: Timestamp,
    /// Transitions that the last outcome made and whose rows are still to come.
    owed: VecDeque<Transition>,
}

impl JobRecord {
    /// The hop that runs or ran last.
    pub fn hop(&self) -> Option<&HopRecord> {
        self.hops.last()
    }

    /// The machine's state, as the API's `phase`.
    pub fn phase(&self) -> Phase {
        self.hop().map_or(Phase::Planned, |hop| hop.machine.phase())
    }

    /// Whether the job is under way.
    pub fn is_active(&self) -> bool {
        self.ending.is_none()
    }

    /// The state of contract section 1.
    pub fn state(&self) -> JobState {
        match (&self.ending, self.hop()) {
            (Some(Ending { failure_code: Some(_), .. }), _) => JobState::Failed,
            (Some(_), _) | (None, None) => JobState::Ready,
            (None, Some(hop)) => {
                hop.machine.job_state(hop.has_begun, self.hops.len() < self.body.hops.len())
            }
        }
    }
}

/// Folds the rows of one job, oldest first.
pub(super) fn fold(id: JobId, rows: &[Row], path: &Path) -> Result<JobRecord, JournalError> {
    let mut job: Option<JobRecord> = None;
    for row in rows {
        let bad =
            |reason: String| JournalError::Row { path: path.to_owned(), seq: row.seq, reason };
        let Some(record) = job.as_mut() else {
            if row.kind != RowKind::Job {
                return Err(bad(format!("a job begins with its job row, found {:?}", row.kind)));
            }
            job = Some(JobRecord {
                id: id.clone(),
                body: parse(row, path)?,
                seq: row.seq,
                created: row.timestamp(),
                updated: row.timestamp(),
                hops: Vec::new(),
                ending: None,
            });
            continue;
        };
        record.updated = row.timestamp();
        match row.kind {
            RowKind::Hop => {
                let hop: Hop = parse(row, path)?;
                record.hops.push(HopRecord {
                    machine: Machine::new(hop),
                    pending: None,
                    has_begun: false,
                    transitions: Vec::new(),
                    began: row.timestamp(),
                    owed: VecDeque::new(),
                });
            }
            RowKind::Intent | RowKind::Outcome | RowKind::Transition => {
                let is_recovery = Event::RECOVERIES
                    .iter()
                    .any(|event| row.name.as_deref() == Some(event.as_str()));
                if is_recovery {
                    record.ending = None;
                }
                let Some(hop) = record.hops.last_mut() else {
                    return Err(bad("it belongs to a hop that was never begun".into()));
                };
                hop.take(row, path)?;
            }
            RowKind::End => record.ending = Some(parse(row, path)?),
            RowKind::Job | RowKind::Log | RowKind::Event => {
                return Err(bad(format!("unexpected row {:?}", row.kind)));
            }
        }
    }
    if let Some(owed) = job.iter().flat_map(|job| &job.hops).find_map(|hop| hop.owed.front()) {
        return Err(JournalError::Row {
            path: path.to_owned(),
            seq: rows.last().map_or(0, |row| row.seq),
            reason: format!("after it the row of {owed:?} is missing"),
        });
    }
    job.ok_or_else(|| JournalError::Row {
        path: path.to_owned(),
        seq: 0,
        reason: format!("job {id} has no rows"),
    })
}

impl HopRecord {
    /// One whose machine is where a test wants it.
    #[cfg(test)]
    pub(crate) fn at(machine: Machine) -> Self {
        Self {
            machine,
            pending: None,
            has_begun: true,
            transitions: Vec::new(),
            began: Timestamp::from_millis(0),
            owed: VecDeque::new(),
        }
    }

    /// Reads one more row of this hop.
    fn take(&mut self, row: &Row, path: &Path) -> Result<(), JournalError> {
        let bad =
            |reason: String| JournalError::Row { path: path.to_owned(), seq: row.seq, reason };
        let forbidden =
            |source| JournalError::Forbidden { path: path.to_owned(), seq: row.seq, source };
        match row.kind {
            RowKind::Intent | RowKind::Outcome => {
                let expected = self.machine.step();
                let name = row.name.as_deref();
                if expected.map(Step::as_str) != name {
                    let expected = expected.map_or("no step", Step::as_str);
                    return Err(bad(format!("expected {expected}, found {name:?}")));
                }
                if row.kind == RowKind::Intent {
                    self.pending = expected;
                    self.has_begun = true;
                    return Ok(());
                }
                let outcome: Outcome = parse(row, path)?;
                let (machine, made) = self.machine.clone().apply(outcome).map_err(forbidden)?;
                self.machine = machine;
                self.owed.extend(made);
                self.pending = None;
            }
            RowKind::Transition => {
                let transition: Transition = parse(row, path)?;
                if transition.event.is_recovery() {
                    let recovered = self.machine.clone().recover(transition.event);
                    let (machine, made) = recovered.map_err(forbidden)?;
                    self.machine = machine;
                    self.owed.push_back(made);
                }
                let owed = self.owed.pop_front();
                if owed != Some(transition) {
                    return Err(bad(format!(
                        "it claims {transition:?}, the machine made {owed:?}"
                    )));
                }
                self.transitions.push((row.timestamp(), transition));
            }
            RowKind::Job | RowKind::Hop | RowKind::End | RowKind::Log | RowKind::Event => {}
        }
        Ok(())
    }
}

fn parse<T: DeserializeOwned>(row: &Row, path: &Path) -> Result<T, JournalError> {
    row.read().map_err(|reason| JournalError::Row { path: path.to_owned(), seq: row.seq, reason })
}
