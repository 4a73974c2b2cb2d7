//! A journal as years of upgrades leave it: jobs, log lines and events of the history, written
//! by the product's own writer.

use std::path::Path;

use payram_updater::journal::{Ending, Journal, NewEvent, Settlement};
use payram_updater::machine::{Outcome, Step};

use crate::Failure;
use crate::support::facts;

/// Of one job, so that it has about 200 rows.
const LINES: usize = 140;
const EVENTS: usize = 60;

/// Writes at least so many rows; answers the bytes of the file.
pub fn build(path: &Path, rows: usize) -> Result<u64, Failure> {
    let journal = Journal::open(path)?;
    let body = facts::job_to("1.9.6");
    let ending = Ending { failure_code: None, message: "upgraded to 1.9.6 and verified".into() };
    let outcome = Outcome::Done { fact: facts::fact(Step::BackUp, "1.9.6") };
    let line = "pull: layer 7f1c is there, 12 of 31 done, 184 of 402 MB so far";
    let lines = Settlement { log: vec![line.to_owned(); LINES], ..Settlement::default() };
    let mut written = 0;
    while written < rows {
        let job = journal.begin(&body, &[event()], Some(&ending))?;
        journal.settle(&job, 1, Step::BackUp, &outcome, &lines)?;
        journal.note(&vec![event(); EVENTS])?;
        written += 3 + 1 + LINES + EVENTS;
    }
    // The last one is what status shows: it has no outcome without a hop.
    journal.begin(&body, &[event()], Some(&ending))?;
    drop(journal);
    Ok(std::fs::metadata(path)?.len())
}

fn event() -> NewEvent {
    let data = [
        ("mode", "DASHBOARD"),
        ("resolvedTarget", "1.9.6"),
        ("digest", "sha256:6f1d3a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f607"),
        ("backupPath", "/var/lib/payram/backups/payram-1.9.5-1.9.6-20260101T000000Z.dump"),
    ];
    NewEvent {
        kind: "upgrade",
        status: "succeeded",
        message: "payram was upgraded to 1.9.6 and verified".into(),
        data: data.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
    }
}
