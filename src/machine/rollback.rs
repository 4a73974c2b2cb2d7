//! The way back: which steps it takes, and the states that it goes through.
//!
//! It is the compensations of what was begun, in reverse, with three differences. The database
//! is assessed before a started version is stopped, because that decides whether the
//! containers may be swapped back at all. The next container is removed last, when the old
//! version is seen to serve: until then it is evidence. And once the old container was
//! disarmed, a reboot of the host has left it down, whichever step was pending: it is armed
//! first, so that a reboot on the way back does not do that again, and then started and
//! verified, also where the upgrade itself never stopped it.
//!
//! Where the restore point came back, the rows that the failed version wrote are exported once
//! the old version is seen to serve: that adds no downtime, and no failure of it is a reason to
//! call a person, because nothing depends on it and the failed version's database is kept.

use super::assessed::Assessed;
use super::facts::{Assessment, Copy, Export, FilesRestored, Restored, RollbackDatabase, Verdict};
use super::failure::{Failure, FailureCode};
use super::sequences::Sequence;
use super::state::State;
use super::step::Step;

/// Going back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollingBack {
    /// Where the way forward ended.
    pub interrupted: State,
    /// Why.
    pub failure: Failure,
    /// What is still to do, the next one first.
    pub remaining: Vec<Step>,
    /// What the failed version did to the database; none when it was never started or not yet
    /// looked at.
    pub assessment: Option<Assessment>,
    /// Where the failed version's sequences stand; none where that was not read, or where what was
    /// read may have been the database that came back.
    pub sequences: Option<Vec<Sequence>>,
    /// Why the old version may not be put back without a person's word; none when it may.
    pub hold: Option<Failure>,
    /// What this attempt or one before it has begun, once for all.
    pub begun: Begun,
    /// What a person said to the return of the restore point, until the database is assessed.
    pub consent: Consent,
    /// Whether that person wants the rows that the failed version inserted carried over into the
    /// restore point.
    pub carries_rows: bool,
    /// What that person was shown of what the failed version did to the database, until then.
    pub shown: Option<Assessment>,
    /// The database that was put back, when one was.
    pub restored: Option<Restored>,
    /// What became of the files beside the database; none when nothing was to be put back.
    pub files: Option<FilesRestored>,
    /// What became of the failed version's rows, once that is known.
    pub export: Option<Export>,
    /// The old version's verdict, once it was given.
    pub verdict: Option<Verdict>,
    /// Why the old version did not pass its gate on the database that was kept, once the restore
    /// point is tried for it.
    pub tried: Option<Failure>,
}

/// The old version serves, as before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolledBack {
    /// Where the way forward ended.
    pub interrupted: State,
    /// Why.
    pub failure: Failure,
    /// What the failed version did to the database, when it was started.
    pub assessment: Option<Assessment>,
    /// The database that was put back, when one was.
    pub restored: Option<Restored>,
    /// What became of the files beside the database; none when nothing was to be put back.
    pub files: Option<FilesRestored>,
    /// What became of the failed version's rows, where its database was replaced.
    pub export: Option<Export>,
    /// The old version's verdict; none when it was never silent.
    pub verdict: Option<Verdict>,
}

/// Stopped; a person must decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeedsOperator {
    /// Where the way forward ended.
    pub interrupted: State,
    /// Why the upgrade failed.
    pub failure: Failure,
    /// What was found that no rule covers.
    pub reason: Failure,
    /// What the way back had begun.
    pub begun: Begun,
    /// What the failed version did to the database, when it was started.
    pub assessment: Option<Assessment>,
    /// The database that was put back, when one was.
    pub restored: Option<Restored>,
    /// What became of the files beside the database; none when nothing was to be put back.
    pub files: Option<FilesRestored>,
    /// What became of the failed version's rows, once that is known.
    pub export: Option<Export>,
}

/// What a person said to the return of the restore point over rows that it forgets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consent {
    /// Nothing.
    #[default]
    None,
    /// Yes, where the rows are those that were shown.
    AsShown,
    /// Yes, whatever rows they are.
    Whatever,
}

/// What a way back has begun that a further attempt at it may not judge anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Begun {
    /// Nothing such.
    #[default]
    Nothing,
    /// The restore point's return: the database's directory may be nowhere until it is brought
    /// to its end.
    Restore,
    /// The old version's return: it may have run and written since, so that the database is its
    /// own and is neither assessed nor replaced any more.
    Return,
}

impl NeedsOperator {
    /// Whether a person may go on with the new version: it was started, and the database and the
    /// files beside it are as it left them.
    pub fn may_keep_new(&self) -> bool {
        matches!(self.interrupted, State::Swapped(_))
            && self.restored.is_none()
            && self.files.as_ref().is_none_or(FilesRestored::touched_nothing)
            && self.begun == Begun::Nothing
            && !self.is_damaged()
    }

    /// Whether two servers worked on the directory that is the database's now, whatever else was
    /// found since.
    pub fn is_damaged(&self) -> bool {
        let is_damage = |failure: &Failure| failure.code == FailureCode::DatabaseDamaged;
        let was_damaged =
            is_damage(&self.failure) || matches!(self.assessment, Some(Assessment::Damaged { .. }));
        is_damage(&self.reason) || (self.restored.is_none() && was_damaged)
    }
}

impl RollingBack {
    /// Turns round: `pending` is the step that did not come to its end, and may have done any
    /// part of its work.
    ///
    /// Where two servers worked on the directory before the new version was due, the old one was
    /// stopped for it, and is not started on what may be damaged: that is assessed first.
    pub(super) fn from(interrupted: State, pending: Option<Step>, failure: Failure) -> Self {
        let mut remaining = way_back(pending);
        let has_files =
            interrupted.known().restore_point.is_some_and(|point| !point.files.is_empty());
        if let Some(place) = remaining.iter().position(|step| *step == Step::RestoreDatabase)
            && has_files
        {
            remaining.insert(place + 1, Step::RestoreFiles);
        }
        if failure.code == FailureCode::DatabaseDamaged {
            assess_first(&mut remaining);
        }
        Self {
            interrupted,
            failure,
            remaining,
            assessment: None,
            sequences: None,
            hold: None,
            begun: Begun::Nothing,
            consent: Consent::None,
            carries_rows: false,
            shown: None,
            restored: None,
            files: None,
            export: None,
            verdict: None,
            tried: None,
        }
    }

    /// Whether the restore point may be tried by itself for an old version that did not pass its
    /// gate on a database that nobody had changed, as far as it was seen: once, where there is one.
    pub(super) fn may_try_restore_point(&self, failure: &Failure) -> bool {
        let known = self.interrupted.known();
        matches!(failure.code, FailureCode::HealthcheckFailed | FailureCode::MigrationTimeout)
            && matches!(self.interrupted, State::Swapped(_))
            && self.tried.is_none()
            // Taken again after it had run, its database is its own.
            && self.begun == Begun::Nothing
            && self.restored.is_none()
            && self.assessment == Some(Assessment::Unchanged)
            && known.hop.rollback_database != RollbackDatabase::Manual
            && matches!(known.copy, Some(Copy::Directory { .. }))
    }

    /// Whether the files beside the database may be put back for an old version that did not pass
    /// its gate with them as the failed one left them, because rows stayed that may be about them:
    /// once.
    pub(super) fn may_try_files(&self, failure: &Failure) -> bool {
        matches!(failure.code, FailureCode::HealthcheckFailed | FailureCode::MigrationTimeout)
            && matches!(self.interrupted, State::Swapped(_))
            && self.tried.is_none()
            && self.begun == Begun::Nothing
            && self.restored.is_none()
            && matches!(self.assessment, Some(Assessment::WorkersWrote { .. }))
            && self.files.as_ref().is_some_and(FilesRestored::touched_nothing)
    }

    /// The old version is silenced and the database assessed once more, before anything is put
    /// back. Until that is known the database counts as the old version's own.
    ///
    /// `step` is what is tried: the restore point, or the files beside the database.
    pub(super) fn trying(mut self, step: Step, failure: Failure) -> Self {
        let rest = self.remaining.split_off(1);
        self.remaining = vec![Step::AssessAgain, step];
        self.remaining.extend([Step::RearmOld, Step::StartOld]);
        self.remaining.extend([Step::ResumePrograms, Step::VerifyOld]);
        self.remaining.extend(rest);
        self.begun = Begun::Return;
        self.tried = Some(failure);
        self
    }

    /// Takes in whether a row was written since the cut-over, by whichever version. If so, the old
    /// one goes on as it was, and a person decides.
    pub(super) fn assessed_again(mut self, found: Assessed) -> Self {
        let Assessed { assessment, sequences } = found;
        // Either version may have drawn from them.
        self.sequences = sequences.or(self.sequences);
        let failure = self.tried.clone();
        let failure =
            failure.unwrap_or_else(|| Failure::new(FailureCode::Unknown, "it did not pass"));
        let is_for_files = self.remaining.first() == Some(&Step::RestoreFiles);
        match &assessment {
            // The old version has written nothing: the files are not its own.
            found if is_for_files && self.assessment.as_ref() == Some(found) => {}
            Assessment::Unchanged => self.begun = Begun::Nothing,
            // Both are stopped, and nothing starts on it.
            Assessment::Damaged { by } => {
                let message = format!("the database's directory may be damaged: {by}");
                self.hold = Some(Failure::new(FailureCode::DatabaseDamaged, message));
                self.remaining.clear();
            }
            found => {
                let why = match found {
                    Assessment::RowsChanged { tables } | Assessment::WorkersWrote { tables } => {
                        format!("rows were written since the cut-over ({})", tables.join("; "))
                    }
                    Assessment::SchemaChanged { what } => format!("the database changed ({what})"),
                    Assessment::Unreadable { reason } => format!("it can't be told ({reason})"),
                    Assessment::Damaged { .. }
                    | Assessment::Serves { .. }
                    | Assessment::Unchanged => "it was not asked".to_owned(),
                };
                let what = if is_for_files {
                    "files beside the database were"
                } else {
                    "restore point was"
                };
                let message = format!("{failure}; the {what} not put back: {why}");
                self.hold = Some(Failure::new(failure.code, message));
                self.remaining = vec![Step::RearmOld, Step::StartOld, Step::ResumePrograms];
            }
        }
        self
    }

    /// Goes back again after `needs`, from the first step; what was begun once for all stays so.
    pub(super) fn again(needs: NeedsOperator, pending: Option<Step>, consent: Consent) -> Self {
        let is_damaged = needs.is_damaged();
        let mut back = Self::from(needs.interrupted, pending, needs.failure);
        back.restored = needs.restored;
        back.begun = needs.begun;
        back.files = needs.files;
        if is_damaged && consent != Consent::None && back.restored.is_none() {
            // Two servers made the database nobody's: on a person's word it is replaced after all.
            assess_first(&mut back.remaining);
            back.begun = back.begun.min(Begun::Restore);
        }
        // What failed is tried again; what was written stays.
        back.export = needs.export.filter(|export| !matches!(export, Export::Missing { .. }));
        back.plan_export();
        if back.begun == Begun::Return {
            back.assessment = needs.assessment.clone();
            back.remaining.retain(|step| {
                !matches!(step, Step::AssessDatabase | Step::RestoreDatabase | Step::RestoreFiles)
            });
        } else if consent != Consent::None {
            back.consent = consent;
            back.shown = needs.assessment;
        }
        back
    }

    /// Takes in what became of the files beside the database, with what an attempt before this one
    /// had told.
    pub(super) fn with_files(mut self, found: FilesRestored) -> Self {
        self.files = (!found.is_nothing()).then_some(found);
        self
    }

    /// A database that was replaced is exported from, once the old version serves again.
    pub(super) fn plan_export(&mut self) {
        if self.restored.is_none()
            || self.export.is_some()
            || self.remaining.contains(&Step::ExportRows)
        {
            return;
        }
        if let Some(gate) = self.remaining.iter().position(|step| *step == Step::VerifyOld) {
            self.remaining.insert(gate + 1, Step::ExportRows);
        }
    }

    /// What is begun when the first remaining step was tried. Armed, the old container comes
    /// back with the engine: from there on it may have run.
    pub(super) fn begun_by_now(&self) -> Begun {
        let is_rearmed = !self.remaining.iter().skip(1).any(|step| *step == Step::RearmOld);
        if self.hold.is_none() && is_rearmed {
            Begun::Return
        } else if self.remaining.first() == Some(&Step::RestoreDatabase) {
            self.begun.max(Begun::Restore)
        } else {
            self.begun
        }
    }

    /// Takes in what the failed version did to the database, and decides: an untouched one, and
    /// one to which only workers wrote, stays as it is, so that no write is lost; a changed one is replaced by the restore point where
    /// the setting or a person allows it; otherwise the failed version is stopped and a person
    /// decides. A database that was put back already is the old version's again.
    pub(super) fn assessed(mut self, found: impl Into<Assessed>) -> Self {
        let Assessed { assessment, sequences } = found.into();
        let known = self.interrupted.known();
        let setting = known.hop.rollback_database;
        // Others may write to a database that is outside of the container.
        let is_elsewhere = matches!(known.copy, Some(Copy::Dump { is_elsewhere: true, .. }));
        let is_restored = self.restored.is_some();
        // A person who was shown less than there is now has not consented to losing it.
        let is_consented = match self.consent {
            Consent::None => false,
            Consent::AsShown => {
                self.shown.as_ref().is_some_and(|shown| shown.forgets_the_same(&assessment))
            }
            Consent::Whatever => true,
        };
        let may_restore = |lossless: bool| {
            is_consented
                || match setting {
                    RollbackDatabase::Lossless => lossless && !is_elsewhere,
                    RollbackDatabase::Manual => false,
                    RollbackDatabase::Always => true,
                }
        };
        let since_shown = match self.consent {
            Consent::AsShown => "; this is not what was shown, so nothing was put back",
            Consent::None | Consent::Whatever => "",
        };
        let held = |message: String| {
            Some(Failure::new(FailureCode::MigrationFailed, message + since_shown))
        };
        let (restores, hold) = match &assessment {
            // It is never stopped by what is not its doing.
            Assessment::Serves { version } => (
                false,
                Some(Failure::new(
                    self.failure.code,
                    format!("{version} serves and is left running; what failed is not its doing"),
                )),
            ),
            // A return of the restore point that was begun is brought to its end.
            Assessment::Unchanged => (self.begun == Begun::Restore, None),
            // A person may still want the restore point; nobody else gives up these rows.
            Assessment::WorkersWrote { .. } if is_consented && !is_restored => (true, None),
            Assessment::WorkersWrote { tables }
                if setting == RollbackDatabase::Manual && !is_restored =>
            {
                let said = "the new version wrote rows as its workers do, and no schema";
                (false, held(format!("{said}: {}", tables.join("; "))))
            }
            Assessment::WorkersWrote { .. } => (false, None),
            Assessment::SchemaChanged { .. }
            | Assessment::RowsChanged { .. }
            | Assessment::Unreadable { .. }
            | Assessment::Damaged { .. }
                if is_restored =>
            {
                (false, None)
            }
            Assessment::SchemaChanged { .. } if may_restore(true) => (true, None),
            Assessment::SchemaChanged { what } => (
                false,
                held(format!(
                    "the new version changed the database's schema and no row of the tables it found: {what}"
                )),
            ),
            Assessment::RowsChanged { .. } | Assessment::Unreadable { .. }
                if may_restore(false) =>
            {
                (true, None)
            }
            Assessment::RowsChanged { tables } => (
                false,
                held(format!(
                    "the new version changed rows since the cut-over: {}",
                    tables.join("; ")
                )),
            ),
            // Whatever the setting says: nobody but a person chooses between the two.
            Assessment::Damaged { .. } if is_consented => (true, None),
            Assessment::Damaged { by } => {
                let message = format!("the database's directory may be damaged: {by}");
                (false, Some(Failure::new(FailureCode::DatabaseDamaged, message + since_shown)))
            }
            Assessment::Unreadable { reason } => (
                false,
                held(format!("what the new version did to the database can't be told: {reason}")),
            ),
        };
        if !restores {
            self.remaining.retain(|step| *step != Step::RestoreDatabase);
        }
        if matches!(assessment, Assessment::WorkersWrote { .. }) && !restores && !is_restored {
            // Whoever doubts that it were the workers has the database as it was before them.
            self.remaining.retain(|step| *step != Step::DiscardCopy);
        }
        if hold.is_some() {
            let stops = !matches!(assessment, Assessment::Serves { .. });
            self.remaining.retain(|step| *step == Step::StopNext && stops);
        }
        self.hold = hold;
        self.sequences = sequences.filter(|_| self.begun == Begun::Nothing);
        self.assessment = Some(assessment);
        // A consent is to one assessment, and this was it.
        self.consent = Consent::None;
        self.shown = None;
        self
    }
}

/// Has the database assessed, and replaced where a person says so, before anything else.
fn assess_first(remaining: &mut Vec<Step>) {
    if !remaining.contains(&Step::AssessDatabase) {
        remaining.splice(0..0, [Step::AssessDatabase, Step::StopNext, Step::RestoreDatabase]);
    }
}

/// The steps back from a way that was followed up to and including `pending`.
pub(super) fn way_back(pending: Option<Step>) -> Vec<Step> {
    let begun: Vec<Step> = match pending {
        Some(pending) => {
            let end = Step::FORWARD.iter().position(|step| *step == pending);
            Step::FORWARD.iter().take(end.map_or(0, |end| end + 1)).copied().collect()
        }
        None => Vec::new(),
    };
    let mut back: Vec<Step> = Vec::new();
    let mut last: Vec<Step> = Vec::new();
    for step in begun.iter().rev() {
        match step.compensation() {
            // What is evidence until the old version is seen to serve goes last.
            Some(removal @ (Step::RemoveNext | Step::DiscardCopy)) => last.insert(0, removal),
            Some(Step::StopNext) => {
                back.extend([Step::AssessDatabase, Step::StopNext, Step::RestoreDatabase]);
            }
            // The old container is brought back as one, below.
            Some(Step::RearmOld | Step::StartOld | Step::ResumePrograms) | None => {}
            Some(undo) => back.push(undo),
        }
    }
    if begun.contains(&Step::DisarmOld) {
        back.extend([Step::RearmOld, Step::StartOld]);
        if begun.contains(&Step::Quiesce) {
            back.push(Step::ResumePrograms);
        }
        back.push(Step::VerifyOld);
    }
    back.extend(last);
    back
}

#[cfg(test)]
mod tests {
    use super::super::Planned;
    use super::*;

    #[test]
    fn a_failed_pull_needs_nothing_undone() {
        assert_eq!(way_back(Some(Step::Pull)), []);
    }

    #[test]
    fn a_refused_parity_only_removes_the_next_container() {
        assert_eq!(way_back(Some(Step::CreateNext)), [Step::RemoveNext]);
    }

    #[test]
    fn a_failed_verification_undoes_the_whole_cut_over_and_removes_the_evidence_last() {
        assert_eq!(
            way_back(Some(Step::Verify)),
            [
                Step::AssessDatabase,
                Step::StopNext,
                Step::RestoreDatabase,
                Step::RestoreNextName,
                Step::RestoreOldName,
                Step::RearmOld,
                Step::StartOld,
                Step::ResumePrograms,
                Step::VerifyOld,
                Step::RemoveNext,
                Step::DiscardCopy,
            ]
        );
    }

    #[test]
    fn an_old_container_that_a_reboot_may_have_left_down_is_started_and_verified() {
        assert_eq!(
            way_back(Some(Step::DisarmOld)),
            [Step::RearmOld, Step::StartOld, Step::VerifyOld, Step::RemoveNext, Step::DiscardCopy]
        );
    }

    /// A hop that has done nothing yet.
    fn planned() -> State {
        let hop = serde_json::from_value(serde_json::json!({
            "old": {"id": "o", "name": "payram", "imageId": "i", "restartPolicy": {}, "specFile": ""},
            "from": null,
            "fromRules": {"kind": "legacy"},
            "version": "1.9.7",
            "target": {"repo": "payramapp/payram", "tag": "1.9.7"},
            "rules": {"kind": "legacy"},
        }));
        State::Planned(Planned { hop: hop.expect("a hop"), backup: None })
    }

    /// Failed for this reason at this step of the whole way back.
    fn needs_after(failed: Step, begun: Begun, reason: FailureCode) -> NeedsOperator {
        let failure = Failure::new(FailureCode::Unknown, "it broke");
        let mut back = RollingBack::from(planned(), Some(Step::Verify), failure.clone());
        back.begun = begun;
        back.remaining.drain(..back.remaining.iter().position(|step| *step == failed).unwrap());
        NeedsOperator {
            begun: back.begun_by_now(),
            interrupted: back.interrupted,
            failure,
            reason: Failure::new(reason, "it broke"),
            assessment: Some(Assessment::Unchanged),
            restored: None,
            files: None,
            export: None,
        }
    }

    /// The same, then taken again.
    fn again_after(failed: Step, begun: Begun) -> RollingBack {
        let needs = needs_after(failed, begun, FailureCode::Unknown);
        RollingBack::again(needs, Some(Step::Verify), Consent::None)
    }

    #[test]
    fn two_servers_before_the_start_leave_both_versions_stopped_for_a_person() {
        for step in [Step::PreCopy, Step::NotePrograms, Step::StopOld, Step::RestorePoint] {
            let failure = Failure::new(FailureCode::DatabaseDamaged, "two servers");
            let mut back = RollingBack::from(planned(), Some(step), failure);
            assert_eq!(back.remaining.remove(0), Step::AssessDatabase, "{step}");
            let back = back.assessed(Assessment::Damaged { by: "two servers".into() });
            assert_eq!(back.remaining, [Step::StopNext], "{step}");
            assert_eq!(back.hold.expect("a person").code, FailureCode::DatabaseDamaged, "{step}");
        }
    }

    #[test]
    fn what_two_servers_worked_on_is_replaced_on_a_persons_word_alone() {
        let needs = || needs_after(Step::VerifyOld, Begun::Nothing, FailureCode::DatabaseDamaged);
        assert_eq!(needs().begun, Begun::Return);
        assert!(needs().is_damaged());
        let plain = RollingBack::again(needs(), Some(Step::Verify), Consent::None);
        assert!(!plain.remaining.contains(&Step::RestoreDatabase));
        for pending in [Step::StartNext, Step::RenameNext, Step::RestorePoint] {
            let mut back = RollingBack::again(needs(), Some(pending), Consent::Whatever);
            assert_eq!(back.remaining.remove(0), Step::AssessDatabase, "{pending}");
            let back = back.assessed(Assessment::Damaged { by: "two servers".into() });
            assert!(back.hold.is_none() && back.remaining.contains(&Step::RestoreDatabase));
        }
    }

    #[test]
    fn a_database_that_the_old_version_may_have_written_to_since_is_never_replaced() {
        for step in [Step::RearmOld, Step::StartOld, Step::VerifyOld, Step::DiscardCopy] {
            let back = again_after(step, Begun::Nothing);
            assert!(!back.remaining.contains(&Step::AssessDatabase), "{step}");
            assert!(!back.remaining.contains(&Step::RestoreDatabase), "{step}");
        }
        let back = again_after(Step::StopNext, Begun::Return);
        assert!(!back.remaining.contains(&Step::RestoreDatabase), "it stays its own");
    }

    #[test]
    fn consent_to_what_was_shown_is_none_to_rows_that_were_written_since() {
        let rows = |rows: &str| Assessment::RowsChanged { tables: vec![rows.into()] };
        let taken = |consent: Consent, found: Assessment| {
            let mut back = again_after(Step::StopNext, Begun::Nothing);
            (back.consent, back.shown) = (consent, Some(rows("10 rows updated")));
            back.remaining.insert(0, Step::AssessDatabase);
            back.assessed(found)
        };
        let same = taken(Consent::AsShown, rows("10 rows updated"));
        assert!(same.hold.is_none() && same.remaining.contains(&Step::RestoreDatabase));
        let more = taken(Consent::AsShown, rows("20 rows updated"));
        let hold = more.hold.expect("a person is asked again");
        assert!(hold.message.contains("20 rows updated"), "{hold}");
        assert!(hold.message.contains("not what was shown"), "{hold}");
        assert!(!more.remaining.contains(&Step::RestoreDatabase));
        let whatever = taken(Consent::Whatever, rows("20 rows updated"));
        assert!(whatever.hold.is_none() && whatever.remaining.contains(&Step::RestoreDatabase));
    }

    #[test]
    fn rows_are_exported_once_the_old_version_serves_and_only_where_a_database_was_replaced() {
        let mut back = again_after(Step::StopNext, Begun::Nothing);
        back.plan_export();
        assert!(!back.remaining.contains(&Step::ExportRows), "nothing was replaced");
        back.restored = Some(Restored::kept_in("/db.failed"));
        back.plan_export();
        back.plan_export();
        let place = |step| back.remaining.iter().position(|found| *found == step).unwrap();
        assert_eq!(place(Step::ExportRows), place(Step::VerifyOld) + 1);
        assert!(place(Step::ExportRows) < place(Step::RemoveNext));
        assert_eq!(back.remaining.iter().filter(|step| **step == Step::ExportRows).count(), 1);
    }

    #[test]
    fn a_restore_that_was_begun_is_brought_to_its_end_also_when_nothing_was_changed() {
        let back = again_after(Step::RestoreDatabase, Begun::Nothing);
        let back = back.assessed(Assessment::Unchanged);
        assert!(back.remaining.contains(&Step::RestoreDatabase));
        let back = again_after(Step::StopNext, Begun::Nothing).assessed(Assessment::Unchanged);
        assert!(!back.remaining.contains(&Step::RestoreDatabase));
    }
}
