//! Whether a version serves the shop's own database and no other (I13): the server works in the
//! directory that the restore point was made of, it is the same cluster, not less far on than at
//! the cut-over, and the application has sessions in it.
//!
//! Called by the gate at each look, and before anything is tidied away. Reads only.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::containers::Which;
use super::{Effects, fail};
use crate::database::{self, Access, Control, Database, Runner, Workplace};
use crate::error::Trouble;
use crate::machine::Known;
use crate::machine::facts::{Cluster, Copy, Habits};
use crate::machine::failure::FailureCode;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What breaks the watch: what was found, its code, and whether waiting is in vain.
pub(super) type Found = (String, FailureCode, bool);

/// The database of one version at the gate.
pub(super) struct OwnDatabase<'t, 'k> {
    effects: &'t Effects<'t>,
    which: Which<'t>,
    target: Database,
    /// The cluster at the cut-over.
    expected: Option<&'k Cluster>,
    /// The directory that the restore point was made of; none where the database is elsewhere.
    source: Option<&'k Path>,
    /// The identifier of the cluster in the restore point, where nothing better was noted.
    identifier: Option<u64>,
    looked: Option<Instant>,
    looks_with_sessions: u32,
    notes: Vec<String>,
    to_confirm: Option<String>,
}

impl<'t, 'k> OwnDatabase<'t, 'k> {
    /// What was noted of it for this hop.
    ///
    /// # Errors
    /// When the saved specification does not name a database.
    pub fn new(
        effects: &'t Effects<'t>,
        known: &Known<'k>,
        which: Which<'t>,
    ) -> Result<Self, Trouble> {
        let target = effects.database(known)?;
        let expected = known.quiesced.and_then(|quiesced| quiesced.cluster.as_ref());
        let (source, copy) = match known.copy {
            Some(Copy::Directory { source, copy, .. }) if target.access == Access::InContainer => {
                (Some(Path::new(source)), Some(Path::new(copy)))
            }
            Some(Copy::Directory { .. } | Copy::Dump { .. }) | None => (None, None),
        };
        let identifier = copy
            .filter(|_| expected.is_none())
            .and_then(|copy| Control::read(copy).ok().flatten())
            .map(|control| control.system_identifier);
        Ok(Self {
            effects,
            which,
            target,
            expected,
            source,
            identifier,
            looked: None,
            looks_with_sessions: 0,
            notes: Vec::new(),
            to_confirm: None,
        })
    }

    /// Leaves out where this host's path leads: of a version that has run since before the upgrade
    /// began, and works where it always did, whatever was moved or mounted over since.
    pub fn works_where_it_did(&mut self) {
        self.source = None;
    }

    /// What a person should know.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Why a person has to confirm it.
    pub fn to_confirm(&self) -> Option<&str> {
        self.to_confirm.as_deref()
    }

    /// Looks, unless it did so a moment ago.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn look(
        &mut self,
        container: &Value,
        habits: Option<&Habits>,
    ) -> Result<Result<(), Found>, Trouble> {
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            return Ok(Ok(()));
        }
        let found = self.look_now(container, habits).await?;
        self.looked = found.is_ok().then(Instant::now);
        Ok(found)
    }

    async fn look_now(
        &mut self,
        container: &Value,
        habits: Option<&Habits>,
    ) -> Result<Result<(), Found>, Trouble> {
        if let Some(source) = self.source {
            let (engine, port) = (self.effects.engine, self.target.port);
            match database::server_works_in(engine, container, port, source).await? {
                Workplace::There => {}
                Workplace::Elsewhere(found) => {
                    return Ok(Err((found, FailureCode::DatabaseMismatch, true)));
                }
                // It may be starting.
                Workplace::Unseen(found) => {
                    return Ok(Err((found, FailureCode::HealthcheckFailed, false)));
                }
            }
        }
        let runner = Runner::new(self.effects.engine, self.which.id, &self.target);
        let now = match database::identity(&runner).await {
            Ok(now) => now,
            Err(Trouble::Failed(failure)) if self.expected.is_some() => {
                return Ok(Err((failure.message, FailureCode::HealthcheckFailed, false)));
            }
            Err(Trouble::Failed(failure)) => {
                let note = format!("which cluster is served was not asked: {failure}");
                if !self.notes.contains(&note) {
                    self.notes.push(note);
                }
                return Ok(Ok(()));
            }
            Err(unknown @ Trouble::Unknown(_)) => return Err(unknown),
        };
        if let Some(other) = self.is_another(&now.cluster) {
            return Ok(Err((other, FailureCode::DatabaseMismatch, true)));
        }
        self.looks_with_sessions += u32::from(now.sessions > 0);
        let always = habits.is_some_and(|h| h.looks > 0 && h.looks_with_sessions == h.looks);
        if always && now.sessions == 0 {
            let (found, code) = self.unused();
            return Ok(Err((found, code, false)));
        }
        Ok(Ok(()))
    }

    /// How the cluster is not the one of the cut-over; none when it is.
    fn is_another(&mut self, now: &Cluster) -> Option<String> {
        let Some(then) = self.expected else {
            let expected = self.identifier?.to_string();
            return (expected != now.system_identifier).then(|| {
                format!(
                    "another cluster is served: system identifier {}, the restore point has {expected}",
                    now.system_identifier
                )
            });
        };
        let difference = database::difference(then, now)?;
        // A conversion to a newer major version makes a new identifier: there the directory alone
        // decides, and a person has the last word.
        if self.source.is_some() && then.major > 0 && now.major > then.major {
            self.to_confirm = Some(format!(
                "the database was converted from PostgreSQL {} to {}, so only its directory says that it is the same",
                then.major, now.major
            ));
            return None;
        }
        Some(difference)
    }

    /// Whether the application had a session in it while it was watched, where the old one had.
    pub fn is_used_enough(&self, habits: Option<&Habits>) -> bool {
        let was_used = habits.is_some_and(|habits| habits.looks_with_sessions > 0);
        !was_used || self.looks_with_sessions > 0
    }

    /// What is said when nobody uses it.
    pub fn unused(&self) -> (String, FailureCode) {
        let found = format!(
            "it answers, and has no session in the shop's database {}, in which the old version had some all the time it was watched",
            self.target.name
        );
        (found, FailureCode::DatabaseMismatch)
    }
}

impl Effects<'_> {
    /// Sees that the server in this container works in this directory of the host and in no other.
    /// Answers whether it was seen at all.
    pub(super) async fn works_nowhere_but_in(
        &self,
        known: &Known<'_>,
        container: &Value,
        source: &Path,
    ) -> Result<Result<(), String>, Trouble> {
        let port = self.database(known)?.port;
        match database::server_works_in(self.engine, container, port, source).await? {
            Workplace::There => Ok(Ok(())),
            Workplace::Elsewhere(found) => fail(FailureCode::DatabaseMismatch, found),
            Workplace::Unseen(found) => Ok(Err(found)),
        }
    }
}
