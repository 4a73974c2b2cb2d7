//! What upgrades of this shop have cost in downtime, by the journal: what a plan expects of the
//! next one, and what the metrics show. Reads only.

use super::narrate::downtime_seconds;
use crate::clock::Timestamp;
use crate::journal::{JournalError, LastJob, Reader};
use crate::machine::Phase;

/// Jobs that are looked through, the newest first, for a hop that was measured.
const LOOKED_THROUGH: u32 = 20;

/// The downtime of one hop, seen from outside.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// From the last good answer before to the first good answer after.
    pub seconds: f64,
    /// The container's name.
    pub container: String,
    /// The version that the hop went to.
    pub version: String,
    /// When its upgrade came to its end.
    pub at: Timestamp,
}

impl Measured {
    /// `the upgrade to 1.9.7 on 2026-01-31 was down for 4.2 s here`
    pub fn sentence(&self) -> String {
        let day = self.at.rfc3339();
        let day = day.get(..10).unwrap_or_default();
        format!("the upgrade to {} on {day} was down for {:.1} s here", self.version, self.seconds)
    }
}

/// The newest hop that was verified and whose downtime is known. One that went back says nothing
/// about one that does not.
///
/// # Errors
/// When the journal can't be read.
pub fn last_downtime(reader: &Reader) -> Result<Option<Measured>, JournalError> {
    for id in reader.job_ids(LOOKED_THROUGH, None)? {
        // One that a program of another age wrote hides none of the others.
        let Ok(Some(LastJob::Upgrade(job))) = reader.job(&id) else { continue };
        let verified = job.hops.iter().rev().filter(|hop| hop.machine.phase() == Phase::Verified);
        let mut measured = verified.filter_map(|hop| {
            let seconds = downtime_seconds(&hop.machine)?;
            let version = hop.machine.state().known().hop.version.clone();
            let container = job.body.container_name.clone();
            Some(Measured { seconds, container, version, at: job.updated })
        });
        if let Some(found) = measured.next() {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
