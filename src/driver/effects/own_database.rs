//! Whether a version serves the shop's own database and no other (I13): the server works in the
//! directory that the restore point was made of, it is the same cluster, not less far on than at
//! the cut-over, and the application uses it as the old version did.
//!
//! Called by the gate at each look, and before anything is tidied away. Reads only.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::clock;
use crate::database::{self, Access, Control, Database, Runner, UsageWatch, Use, Workplace};
use crate::driver::context::{StepContext, Which};
use crate::error::Trouble;
use crate::error::fail;
use crate::machine::facts::{Cluster, Copy, Habits};
use crate::machine::failure::FailureCode;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long the server may take to say which one it is, at least, and by how many times the
/// deadline of an answer: the command is the updater's own, and a busy host is slow to begin it.
const ASK_WITHIN: (Duration, u32) = (Duration::from_secs(30), 3);

/// So many looks of a version are enough to say how it uses its database.
const LOOKS_ENOUGH: u32 = 4;

/// What breaks the watch: what was found, its code, and whether waiting is in vain.
pub(in crate::driver) type Found = (String, FailureCode, bool);

/// The database of one version at the gate.
pub(in crate::driver) struct OwnDatabase<'t> {
    cx: &'t StepContext<'t>,
    which: Which<'t>,
    target: Database,
    /// The cluster at the cut-over.
    expected: Option<Cluster>,
    /// The directory that the restore point was made of; none where the database is elsewhere.
    source: Option<&'t Path>,
    /// The identifier of the cluster in the restore point, where nothing better was noted.
    identifier: Option<u64>,
    looked: Option<Instant>,
    usage: UsageWatch,
    /// Why the last question had no answer, which is not the version's fault.
    unanswered: Option<String>,
    notes: Vec<String>,
    to_confirm: Option<String>,
}

impl<'t> OwnDatabase<'t> {
    /// What was noted of it for this hop.
    ///
    /// # Errors
    /// When the saved specification does not name a database.
    pub fn new(cx: &'t StepContext<'t>, which: Which<'t>) -> Result<Self, Trouble> {
        let target = cx.database()?;
        let noted = cx.quiesced.and_then(|quiesced| quiesced.cluster.clone());
        let anew = cx.restored.and_then(|restored| restored.database_oid);
        let expected = noted.map(|noted| match anew {
            Some(database_oid) => Cluster { database_oid, ..noted },
            None => noted,
        });
        let (source, copy) = match cx.copy {
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
            cx,
            which,
            target,
            expected,
            source,
            identifier,
            looked: None,
            usage: UsageWatch::default(),
            unanswered: None,
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
        self.looked = (found.is_ok() && self.unanswered.is_none()).then(Instant::now);
        Ok(found)
    }

    async fn look_now(
        &mut self,
        container: &Value,
        habits: Option<&Habits>,
    ) -> Result<Result<(), Found>, Trouble> {
        if let Some(source) = self.source {
            let (engine, port) = (self.cx.engine, self.target.port);
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
        let runner = Runner::new(self.cx.engine, self.which.id, &self.target);
        self.unanswered = None;
        let now = match database::identity(&runner, self.cx.ask_within()).await {
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
            Err(Trouble::Unknown(failure)) if failure.code != FailureCode::DockerDaemonDown => {
                // It is asked again; nothing was seen, and nothing speaks against it.
                self.unanswered = Some(failure.message);
                return Ok(Ok(()));
            }
            Err(unknown @ Trouble::Unknown(_)) => return Err(unknown),
        };
        if let Some(other) = self.is_another(&now.cluster) {
            return Ok(Err((other, FailureCode::DatabaseMismatch, true)));
        }
        let is_used = self.usage.look(now_ms(), now);
        let always = habits.is_some_and(|h| h.looks > 0 && h.looks_with_sessions == h.looks);
        if always && is_used == Some(false) {
            let (found, code) = self.unused("nothing of it is seen there");
            return Ok(Err((found, code, false)));
        }
        Ok(Ok(()))
    }

    /// A watch begins anew, and with it what is seen of the application.
    pub fn begin_anew(&mut self) {
        self.looked = None;
        self.usage.begin_anew();
    }

    /// Why the server could not be asked the last time, where the version is not at fault.
    pub fn unanswered(&self) -> Option<&str> {
        self.unanswered.as_deref()
    }

    /// Whether it was looked at often enough to say that it is not used.
    pub fn was_watched_enough(&self) -> bool {
        let looks = self.usage.usage().looks;
        // None: it can't be asked.
        looks == 0 || looks >= LOOKS_ENOUGH
    }

    /// How the cluster is not the one of the cut-over; none when it is.
    fn is_another(&mut self, now: &Cluster) -> Option<String> {
        let Some(then) = &self.expected else {
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

    /// Whether the application used it while it was watched, as the old version did.
    ///
    /// # Errors
    /// Why not, so far.
    pub fn is_used_enough(&mut self, habits: Option<&Habits>) -> Result<(), String> {
        let Some(habits) = habits else { return Ok(()) };
        // What can't be asked at all is a note already.
        if self.usage.usage().looks == 0 && self.unanswered.is_none() {
            return Ok(());
        }
        match self.usage.compare(habits) {
            Use::Same => Ok(()),
            Use::NotYet(found) => Err(found),
            Use::Unsure(why) => {
                self.to_confirm.get_or_insert(why);
                Ok(())
            }
        }
    }

    /// What is said when the application is not in it.
    pub fn unused(&self, found: &str) -> (String, FailureCode) {
        let found = format!(
            "it answers, and it does not use the shop's database {} as the old version did all the time it was watched: {found}",
            self.target.name
        );
        (found, FailureCode::DatabaseMismatch)
    }
}

/// Milliseconds of a clock that goes on, for the time between two looks.
pub(in crate::driver) fn now_ms() -> u64 {
    let up = clock::uptime().map_or_else(|| clock::Timestamp::now().millis(), |up| up.millis);
    u64::try_from(up).unwrap_or_default()
}

impl StepContext<'_> {
    /// How long the server may take to say which one it is.
    pub(in crate::driver) fn ask_within(&self) -> Duration {
        let (least, times) = ASK_WITHIN;
        least.max(self.settings.answer_timeout.saturating_mul(times))
    }

    /// Sees that the server in this container works in this directory of the host and in no other.
    /// Answers whether it was seen at all.
    pub(in crate::driver) async fn works_nowhere_but_in(
        &self,
        container: &Value,
        source: &Path,
    ) -> Result<Result<(), String>, Trouble> {
        let port = self.database()?.port;
        match database::server_works_in(self.engine, container, port, source).await? {
            Workplace::There => Ok(Ok(())),
            Workplace::Elsewhere(found) => fail(FailureCode::DatabaseMismatch, found),
            Workplace::Unseen(found) => Ok(Err(found)),
        }
    }

    /// Sees that the database's directory holds the cluster that was noted at the cut-over, as
    /// far on as it was.
    pub(in crate::driver) async fn must_be_as_noted(&self) -> Result<(), Trouble> {
        let cluster = self.quiesced.and_then(|quiesced| quiesced.cluster.as_ref());
        let (Some(cluster), Some(Copy::Directory { source, .. })) = (cluster, self.copy) else {
            return Ok(());
        };
        match database::directory_difference(cluster, Path::new(source)) {
            None => Ok(()),
            Some(found) => fail(FailureCode::DatabaseMismatch, found),
        }
    }
}
