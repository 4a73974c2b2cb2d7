//! The sequences of a database that came back: whatever the failed version drew from them is not
//! handed out again, be it the index of an address that a customer was shown.
//!
//! Called by `restore_database` once the restore point is in its place and before the old version
//! may start. Where the journal says that no sequence is behind, nothing is started for it.

use std::path::Path;

use super::failed_directory as export;
use super::standalone_postgres as lone;
use crate::database::{self, Runner, SequencesBehind};
use crate::driver::context::StepContext;
use crate::driver::prepare::SavedSpec;
use crate::error::Trouble;
use crate::error::fail;
use crate::machine::Restore;
use crate::machine::Sequence;
use crate::machine::facts::Server;
use crate::machine::failure::{Failure, FailureCode};
use crate::spec;

impl StepContext<'_> {
    /// Sets every sequence of the database in `source` to the further one of its own value and
    /// that of the failed version, whose database is kept in `failed`. Run again it finds what was
    /// set and answers the same.
    ///
    /// # Errors
    /// `RESTORE_POINT_FAILED` when a sequence is behind and its server can't be asked: a person is
    /// called then. When that person has it tried again and it fails again, the answer says what is
    /// to be looked at, and the old version may start.
    pub(in crate::driver) async fn bring_sequences_up(
        &self,
        work: Restore<'_>,
        server: &Server,
        source: &Path,
        failed: &Path,
    ) -> Result<SequencesBehind, Trouble> {
        let kept;
        let reached = match work.sequences {
            Some(reached) => reached,
            None => match self.sequences_of_kept(server, source, failed).await {
                Ok(read) => {
                    kept = read;
                    &kept
                }
                Err(Trouble::Failed(failure)) => return Ok(unread(failed, &failure)),
                Err(unknown @ Trouble::Unknown(_)) => return Err(unknown),
            },
        };
        let noted = self.quiesced.and_then(|quiesced| quiesced.fingerprint.as_ref());
        let noted = noted.and_then(|fingerprint| fingerprint.sequences.as_ref());
        // The restore point holds what was noted, or what the old version wrote after that.
        let at_cut_over = noted.map(|noted| database::compare(noted, reached));
        if let Some(behind) = at_cut_over.as_ref().filter(|behind| behind.moves.is_empty()) {
            return Ok(behind.clone());
        }
        match self.set_on(server, source, reached).await {
            Ok(set) => Ok(set.told(at_cut_over)),
            Err(Trouble::Failed(failure)) => {
                let behind = not_set(at_cut_over, failed, &failure);
                if work.is_begun {
                    return Ok(behind);
                }
                fail(
                    FailureCode::RestorePointFailed,
                    format!(
                        "the database is as it was, and what the new version handed out may be handed out again: {}",
                        behind.unclear.join("; ")
                    ),
                )
            }
            Err(unknown @ Trouble::Unknown(_)) => Err(unknown),
        }
    }

    /// Those of the failed version's database, which was moved aside.
    async fn sequences_of_kept(
        &self,
        server: &Server,
        source: &Path,
        failed: &Path,
    ) -> Result<Vec<Sequence>, Trouble> {
        let unreadable =
            |reason: String| Trouble::failed(FailureCode::RuntimeInspectionFailed, reason);
        lone::must_be_readable_by(server, failed).await.map_err(unreadable)?;
        let saved = SavedSpec::read(&self.hop.old.spec_file)?;
        let mounts = export::mounts_for(&saved.container, source, failed).ok_or_else(|| {
            unreadable(format!("where {} lies in the container is not known", source.display()))
        })?;
        let asked = match self.start_lone_server((server, failed), mounts, &export::MODEST).await {
            Ok(lone) => {
                database::sequences(&Runner::new(self.engine, &lone.id, &lone.database)).await
            }
            Err(trouble) => Err(trouble),
        };
        self.remove_lone_server().await?;
        asked
    }

    /// Compares what the database that came back has, and sets those that are behind. Its server
    /// is stopped in order, so that they are on disk.
    async fn set_on(
        &self,
        server: &Server,
        source: &Path,
        reached: &[Sequence],
    ) -> Result<Set, Trouble> {
        let mounts = spec::mounts_of(&SavedSpec::read(&self.hop.old.spec_file)?.container);
        let asked = match self.start_lone_server((server, source), mounts, &[]).await {
            Ok(lone) => set(&Runner::new(self.engine, &lone.id, &lone.database), reached).await,
            Err(trouble) => Err(trouble),
        };
        self.remove_lone_server().await?;
        asked
    }
}

/// What was found in the database that came back, and done about it.
struct Set {
    now: Vec<Sequence>,
    behind: SequencesBehind,
    refused: Vec<(u32, String)>,
}

async fn set(runner: &Runner<'_>, reached: &[Sequence]) -> Result<Set, Trouble> {
    let now = database::sequences(runner).await?;
    let behind = database::compare(&now, reached);
    let refused = match behind.moves.as_slice() {
        [] => Vec::new(),
        moves => database::move_sequences(runner, moves).await?,
    };
    Ok(Set { now, behind, refused })
}

impl Set {
    /// What a person is told: an attempt that was interrupted may have set some already.
    fn told(self, at_cut_over: Option<SequencesBehind>) -> SequencesBehind {
        let Self { now, behind, refused } = self;
        let mut told = behind;
        let before = at_cut_over.unwrap_or_default().moves.into_iter().filter(|one| {
            let is = (Some(one.to), one.is_called);
            now.iter().any(|now| now.id == one.id && (now.last, now.is_called) == is)
        });
        told.moves.extend(before);
        told.moves.retain(|one| refused.iter().all(|(id, _)| *id != one.id));
        told.unclear.extend(refused.into_iter().map(|(_, said)| said));
        told
    }
}

/// Where the failed version's sequences stand is not known.
fn unread(failed: &Path, failure: &Failure) -> SequencesBehind {
    let said = format!(
        "how far the failed version drew from the sequences could not be read in {}: {failure}; set them past the highest number that it handed out",
        failed.display()
    );
    SequencesBehind { moves: Vec::new(), unclear: vec![said] }
}

/// They are known, and could not be set.
fn not_set(behind: Option<SequencesBehind>, failed: &Path, failure: &Failure) -> SequencesBehind {
    let behind = behind.unwrap_or_default();
    let mut unclear = behind.unclear;
    for one in behind.moves {
        unclear.push(format!(
            "sequence {} is at {} and has to be set to {}",
            one.name, one.from, one.to
        ));
    }
    unclear.push(format!(
        "the sequences could not be compared with those in {} and set: {failure}",
        failed.display()
    ));
    SequencesBehind { moves: Vec::new(), unclear }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::SequenceMove;

    fn sequence(id: u32, last: i64) -> Sequence {
        let (name, last) = (format!("public.s{id}"), Some(last));
        Sequence { name, id, last, is_called: true, increment: 1, cycles: false }
    }

    #[test]
    fn an_attempt_that_was_interrupted_after_it_set_them_is_told_as_if_it_were_not() {
        let reached = [sequence(1, 143), sequence(2, 9), sequence(3, 7)];
        let noted = [sequence(1, 120), sequence(2, 8), sequence(3, 6)];
        // The first was set before; the third the old version moved on by itself after the note.
        let now = vec![sequence(1, 143), sequence(2, 8), sequence(3, 50)];
        let at_cut_over = || Some(database::compare(&noted, &reached));
        let set =
            |refused| Set { behind: database::compare(&now, &reached), now: now.clone(), refused };
        let said = |told: &SequencesBehind| -> Vec<(u32, i64, i64)> {
            let of = |one: &SequenceMove| (one.id, one.from, one.to);
            told.moves.iter().map(of).collect()
        };
        let told = set(Vec::new()).told(at_cut_over());
        assert_eq!(said(&told), [(2, 8, 9), (1, 120, 143)]);
        let told = set(vec![(2, "refused".into())]).told(at_cut_over());
        assert_eq!(said(&told), [(1, 120, 143)]);
        assert_eq!(told.unclear, ["refused"]);
    }
}
