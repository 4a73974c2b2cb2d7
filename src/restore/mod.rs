//! What a restore does, step by step, and what follows from each outcome. Pure: no I/O, no clock;
//! the driver runs it and `journal` folds it from the rows, by the same [`Restore::apply`].
//!
//! The backup is loaded into a new database beside the live one while the application serves. Only
//! when it is there and compared are the application's programs stopped, and both databases
//! renamed in one transaction: at every instant the old data serves or the new, whole. What was
//! there before stays under a name of its own.
//!
//! ```text
//! load → note_programs → silence → swap → start_programs → verify → done
//!   └ failed ┴───────────→ discard        └ failed ───────┴→ silence_again → swap_back
//!              silence or swap failed → start_programs → verify → discard
//! ```

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::machine::failure::{Failure, FailureCode};

/// Attempts at a step while the application serves whose outcome stays unknown. Later ones are
/// made until they are known: nobody else starts the programs again.
const ATTEMPTS: u32 = 5;

/// The format of a backup's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// An archive of `pg_dump -Fc`.
    Dump,
    /// Statements for `psql`, as the earlier tool wrote them.
    Sql,
}

impl Format {
    /// As file names end.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Dump => "dump",
            Format::Sql => "sql",
        }
    }
}

/// What was asked: which file, and over which database. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreBody {
    /// Tells it from an upgrade in the table of jobs.
    pub kind: Kind,
    /// The backup's file.
    pub file: String,
    /// Its format.
    pub format: Format,
    /// Its size in bytes when it was asked for.
    pub size_bytes: u64,
    /// Hex sha256 of it then.
    pub sha256: String,
    /// Rows in it, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// When it was made, RFC 3339, as far as known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_at: Option<String>,
    /// The application's version when it was made, as far as known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_version: Option<String>,
    /// The application's version when it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving_version: Option<String>,
    /// The container; none where the database is elsewhere and there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerName>,
    /// The database's host, as the application calls it.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Its name.
    pub database: String,
    /// The role that is used.
    pub user: String,
    /// What the present database is called once the backup has taken its place.
    pub aside: String,
    /// What the backup's database is called if it has to give the place back.
    pub failed: String,
}

/// The one kind of job that is no upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `restore`
    Restore,
}

/// A container by id and name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerName {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestoreStep {
    /// The backup into a database of its own, beside the live one, and compared.
    Load,
    /// Note which of the application's programs run, and whether it answers.
    NotePrograms,
    /// Stop them. Downtime begins.
    Silence,
    /// Both databases renamed in one transaction.
    Swap,
    /// Start what was stopped.
    StartPrograms,
    /// The application is as well as it was before. Downtime ends at its first answer.
    Verify,
    /// Back: the programs stopped once more.
    SilenceAgain,
    /// Back: both databases renamed back in one transaction.
    SwapBack,
    /// Back: the half-made database dropped.
    Discard,
}

impl RestoreStep {
    /// All of them.
    pub const ALL: [RestoreStep; 9] = [
        RestoreStep::Load,
        RestoreStep::NotePrograms,
        RestoreStep::Silence,
        RestoreStep::Swap,
        RestoreStep::StartPrograms,
        RestoreStep::Verify,
        RestoreStep::SilenceAgain,
        RestoreStep::SwapBack,
        RestoreStep::Discard,
    ];

    /// As the journal names it.
    pub fn as_str(self) -> &'static str {
        match self {
            RestoreStep::Load => "load",
            RestoreStep::NotePrograms => "note_programs",
            RestoreStep::Silence => "silence",
            RestoreStep::Swap => "swap",
            RestoreStep::StartPrograms => "start_programs",
            RestoreStep::Verify => "verify",
            RestoreStep::SilenceAgain => "silence_again",
            RestoreStep::SwapBack => "swap_back",
            RestoreStep::Discard => "discard",
        }
    }

    /// What it does, as a sentence.
    pub fn activity(self) -> &'static str {
        match self {
            RestoreStep::Load => "Loading the backup into a database of its own",
            RestoreStep::NotePrograms => "Noting which programs run",
            RestoreStep::Silence => "Stopping the application's programs",
            RestoreStep::Swap => "Putting the backup's database in the place of the present one",
            RestoreStep::StartPrograms => "Starting the application's programs",
            RestoreStep::Verify => "Waiting until the application answers",
            RestoreStep::SilenceAgain => "Going back: stopping the application's programs",
            RestoreStep::SwapBack => "Going back: putting the database from before in its place",
            RestoreStep::Discard => "Dropping the database that was made for it",
        }
    }

    /// Whether the application serves meanwhile, so that it may be called off.
    pub fn may_be_called_off(self) -> bool {
        matches!(self, RestoreStep::Load | RestoreStep::NotePrograms)
    }
}

impl std::fmt::Display for RestoreStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The database that was made of the backup, and the one that it stands beside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Loaded {
    /// The server's number of the present database.
    pub present: u32,
    /// And of the backup's: by these, and not by their names, they are told apart.
    pub made: u32,
    /// Tables in it.
    pub tables: u64,
    /// Rows in it; none when the time was over before all were counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
}

/// How the application was before anything was stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Noted {
    /// The programs to stop and to start again.
    pub running: Vec<String>,
    /// How it answered.
    pub served: Served,
}

/// How the application answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Served {
    /// Not at all.
    No,
    /// Its first page, and its health not.
    Answers,
    /// It says that it is well.
    Healthy,
}

/// What a finished step found or made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fact", content = "value", rename_all = "camelCase")]
pub enum RestoreFact {
    /// Of `load`.
    Loaded(Loaded),
    /// Of `note_programs`.
    Noted(Noted),
    /// Of `silence`, `start_programs` and `verify`: the last answer before and the first after,
    /// milliseconds since the epoch.
    Answer {
        /// None when there was none.
        at_ms: Option<i64>,
    },
    /// Of every other step.
    Done,
}

/// The end of one attempt at a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "camelCase")]
pub enum RestoreOutcome {
    /// The effect is there, seen.
    Done {
        /// What it found or made.
        fact: RestoreFact,
    },
    /// It can't be done, and it is certain that it was not.
    Failed {
        /// Why.
        failure: Failure,
    },
    /// No answer: it may have been done. The step runs again and looks first.
    Unknown {
        /// What was met.
        failure: Failure,
    },
    /// The program ended in the middle of it; found at the next start.
    Interrupted,
    /// Called off, by a person or by `RESUME` at a restart, while the application served.
    CalledOff {
        /// By whom.
        failure: Failure,
    },
}

/// Which database serves under the application's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The one that was there before.
    Present,
    /// The backup's.
    Backup,
    /// The one that was there before, again; the backup's is aside.
    PresentAgain,
}

/// A restore that is under way, or has come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restore {
    /// The step in hand or due; none at the end.
    step: Option<RestoreStep>,
    /// What `load` made.
    pub loaded: Option<Loaded>,
    /// What `note_programs` found.
    pub noted: Option<Noted>,
    /// What serves.
    pub place: Place,
    /// Why it did not come to a good end.
    pub failure: Option<Failure>,
    /// What kept it from putting everything back: a person's.
    pub stuck: Option<Failure>,
    /// The half-made database could not be dropped.
    pub left: Option<Failure>,
    /// The last answer before and the first after, milliseconds since the epoch.
    pub last_answer_ms: Option<i64>,
    /// See there.
    pub first_answer_ms: Option<i64>,
    /// How often the step in hand had no certain outcome, and the last reason.
    unknowns: u32,
    unknown: Option<Failure>,
}

/// An outcome that fits nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a restore can't take {outcome:?} at {step:?}")]
pub struct Misplaced {
    step: Option<RestoreStep>,
    outcome: RestoreOutcome,
}

impl Restore {
    /// At its beginning.
    pub fn new() -> Self {
        Self {
            step: Some(RestoreStep::Load),
            loaded: None,
            noted: None,
            place: Place::Present,
            failure: None,
            stuck: None,
            left: None,
            last_answer_ms: None,
            first_answer_ms: None,
            unknowns: 0,
            unknown: None,
        }
    }

    /// The step in hand or due; none at the end.
    pub fn step(&self) -> Option<RestoreStep> {
        self.step
    }

    /// Why the step in hand comes to no end, once it was tried so often that a person should look.
    pub fn hindered_by(&self) -> Option<&Failure> {
        self.unknown.as_ref().filter(|_| self.unknowns >= ATTEMPTS)
    }

    /// Whether it came to a good end.
    pub fn is_done(&self) -> bool {
        self.step.is_none() && self.failure.is_none()
    }

    /// How the application answered before.
    pub fn served(&self) -> Served {
        self.noted.as_ref().map_or(Served::No, |noted| noted.served)
    }

    /// Takes the outcome of the step in hand.
    ///
    /// # Errors
    /// When it fits nowhere; nothing is changed then.
    pub fn apply(mut self, outcome: RestoreOutcome) -> Result<Self, Misplaced> {
        let Some(step) = self.step else {
            return Err(Misplaced { step: None, outcome });
        };
        match outcome {
            RestoreOutcome::Interrupted => {}
            RestoreOutcome::Unknown { failure } => {
                self.unknowns += 1;
                match step.may_be_called_off() && self.unknowns >= ATTEMPTS {
                    true => self.fail(step, failure),
                    false => self.unknown = Some(failure),
                }
            }
            RestoreOutcome::CalledOff { failure } if step.may_be_called_off() => {
                self.fail(step, failure);
            }
            RestoreOutcome::Failed { failure } => self.fail(step, failure),
            RestoreOutcome::Done { fact } => self.done(step, fact)?,
            outcome @ RestoreOutcome::CalledOff { .. } => {
                return Err(Misplaced { step: Some(step), outcome });
            }
        }
        Ok(self)
    }

    fn go(&mut self, step: Option<RestoreStep>) {
        self.step = step;
        self.unknowns = 0;
        self.unknown = None;
    }

    fn done(&mut self, step: RestoreStep, fact: RestoreFact) -> Result<(), Misplaced> {
        let next = match (step, fact) {
            (RestoreStep::Load, RestoreFact::Loaded(loaded)) => {
                self.loaded = Some(loaded);
                Some(RestoreStep::NotePrograms)
            }
            (RestoreStep::NotePrograms, RestoreFact::Noted(noted)) => {
                self.noted = Some(noted);
                Some(RestoreStep::Silence)
            }
            (RestoreStep::Silence, RestoreFact::Answer { at_ms }) => {
                self.last_answer_ms = at_ms;
                Some(RestoreStep::Swap)
            }
            (RestoreStep::Swap, RestoreFact::Done) => {
                self.place = Place::Backup;
                Some(RestoreStep::StartPrograms)
            }
            (RestoreStep::StartPrograms, RestoreFact::Done) => Some(RestoreStep::Verify),
            // One of them answers before the last is there: from then on the shop is up.
            (RestoreStep::StartPrograms, RestoreFact::Answer { at_ms }) => {
                self.first_answer_ms = at_ms;
                Some(RestoreStep::Verify)
            }
            (RestoreStep::Verify, RestoreFact::Answer { at_ms }) => {
                self.first_answer_ms = self.first_answer_ms.or(at_ms);
                self.after_verify()
            }
            (RestoreStep::SilenceAgain, RestoreFact::Done) => {
                self.first_answer_ms = None;
                Some(RestoreStep::SwapBack)
            }
            (RestoreStep::SwapBack, RestoreFact::Done) => {
                self.place = Place::PresentAgain;
                Some(RestoreStep::StartPrograms)
            }
            (RestoreStep::Discard, RestoreFact::Done) => None,
            (step, fact) => {
                let outcome = RestoreOutcome::Done { fact };
                return Err(Misplaced { step: Some(step), outcome });
            }
        };
        self.go(next);
        Ok(())
    }

    /// Nothing is left to drop once the backup's database has had the place.
    fn after_verify(&self) -> Option<RestoreStep> {
        (self.place == Place::Present).then_some(RestoreStep::Discard)
    }

    fn fail(&mut self, step: RestoreStep, failure: Failure) {
        let goes_back = self.failure.is_some();
        let next = match step {
            RestoreStep::Load | RestoreStep::NotePrograms => {
                self.failure = Some(failure);
                Some(RestoreStep::Discard)
            }
            // Some of the programs may be stopped.
            RestoreStep::Silence | RestoreStep::Swap => {
                self.failure = Some(failure);
                Some(RestoreStep::StartPrograms)
            }
            RestoreStep::StartPrograms | RestoreStep::Verify if goes_back => {
                self.stuck.get_or_insert(failure);
                // What does start may answer all the same.
                let is_unasked = step == RestoreStep::StartPrograms;
                is_unasked.then_some(RestoreStep::Verify).or_else(|| self.after_verify())
            }
            RestoreStep::StartPrograms | RestoreStep::Verify => {
                self.failure = Some(failure);
                match self.served() {
                    // It did not serve before either: the backup's data stays, as was asked.
                    Served::No => None,
                    Served::Answers | Served::Healthy => Some(RestoreStep::SilenceAgain),
                }
            }
            RestoreStep::SilenceAgain | RestoreStep::SwapBack => {
                self.stuck.get_or_insert(failure);
                Some(RestoreStep::StartPrograms)
            }
            RestoreStep::Discard => {
                self.left = Some(failure);
                None
            }
        };
        self.go(next);
    }

    /// The code of an end that is not good.
    pub fn failure_code(&self) -> Option<FailureCode> {
        self.failure.as_ref().map(|failure| failure.code)
    }

    /// From the last answer before to the first one after.
    pub fn downtime_seconds(&self) -> Option<f64> {
        let millis = self.first_answer_ms?.checked_sub(self.last_answer_ms?)?;
        (millis >= 0).then_some(millis as f64 / 1000.0)
    }
}

impl Default for Restore {
    fn default() -> Self {
        Self::new()
    }
}

/// What a restore's database is called while it is made: of its job, so that it is certainly ours.
pub fn temporary_name(job_short: &str) -> String {
    format!("payram_updater_restore_{job_short}")
}
