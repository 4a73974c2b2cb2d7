//! `pre_copy`: the database's directory is copied while the application serves. Where this host can't
//! reach the directory, or the database is elsewhere, a dump is taken after the last write instead.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::database::{self, Access, Runner, ServerFacts};
use crate::driver::Progress;
use crate::driver::context::StepContext;
use crate::engine::mounts::{self, Home};
use crate::error::{Trouble, fail};
use crate::machine::Fact;
use crate::machine::facts::{Copy, NextContainer, Server};
use crate::machine::failure::FailureCode;
use crate::restore_point::{self, PassReport};

/// What a person reads while it is under way.
pub(in crate::driver) const ACTIVITY: &str =
    "Copying the database's directory; the application serves";

/// A first pass that took longer is followed by another while the application still serves.
const LONG_PASS: Duration = Duration::from_secs(3);

pub(in crate::driver) async fn act(
    cx: &StepContext<'_>,
    next: &NextContainer,
) -> Result<Fact, Trouble> {
    let target = cx.database()?;
    let dump = |reason: String| {
        let name = format!("{}-{}.dump", cx.at.job.id, cx.at.hop);
        let path = cx.settings.state_dir.join("restore").join(name);
        let path = path.to_string_lossy().into_owned();
        let is_elsewhere = target.access == Access::OnHost;
        Ok(Fact::Copy(Copy::Dump { path, reason, is_elsewhere }))
    };
    if target.access == Access::OnHost {
        return dump(format!("the database is at {}, outside of the container", target.host));
    }
    let old = cx.old_id();
    let facts = database::server_facts(cx.engine, old, target.port).await?;
    let container = cx.inspect_present(cx.old_id(), "old").await?;
    let source = match mounts::home(&container, Path::new(&facts.data_directory)) {
        Home::Host(source) => source,
        Home::WhileMounted => {
            return dump(format!(
                "{} is reached from this host only while a container runs with its volume",
                facts.data_directory
            ));
        }
        Home::InContainer => {
            return fail(
                FailureCode::DatabaseNotPersistent,
                format!(
                    "the database's directory {} lies on no mount of {}, or in memory: it would go with the container",
                    facts.data_directory, cx.hop.old.name
                ),
            );
        }
    };
    // By whatever links the container's mount was named, the directory itself is renamed.
    let source = source.canonicalize().unwrap_or(source);
    if !source.join("PG_VERSION").is_file() {
        return dump(format!("{} can't be reached from this host", source.display()));
    }
    let works = cx.works_nowhere_but_in(&container, &source).await?;
    works.or_else(|unseen| fail(FailureCode::RuntimeInspectionFailed, unseen))?;
    // What the server would write to its files in the next minutes is in the first pass then,
    // and not in the one that is downtime.
    cx.checkpoint(&Runner::new(cx.engine, old, &target)).await;
    let copy = copy_path(cx, next, &container, &source).await?;
    let progress = cx.progress.clone();
    let (from, to) = (source.clone(), copy.clone());
    let copied = cx
        .blocking(move |cancel| {
            let total = restore_point::survey(&from)?.bytes;
            let mut told = |done_bytes| {
                progress.send_replace(Progress { done_bytes, total_bytes: total });
            };
            let first = restore_point::pre_copy(&from, &to, &mut told, cancel)?;
            if first.took < LONG_PASS {
                return Ok(first);
            }
            // The server wrote on meanwhile: what a second pass takes is not downtime.
            let second = restore_point::pre_copy(&from, &to, &mut told, cancel)?;
            Ok(PassReport { bytes_copied: first.bytes_copied + second.bytes_copied, ..second })
        })
        .await;
    let report = cx.making_room(copied, &copy).await?;
    // What it does not copy the pass after the stop tells.
    cx.keep_files(Some(&source), true).await?;
    Ok(Fact::Copy(Copy::Directory {
        source: source.to_string_lossy().into_owned(),
        copy: copy.to_string_lossy().into_owned(),
        files: report.files,
        bytes: report.bytes_copied,
        server: server(facts),
    }))
}

/// Where it comes back from by a rename, and no container reaches it.
async fn copy_path(
    cx: &StepContext<'_>,
    next: &NextContainer,
    old: &Value,
    source: &Path,
) -> Result<PathBuf, Trouble> {
    let mut reached = mounts::sources(old);
    if let Some(next) = cx.inspect(&next.id).await? {
        reached.extend(mounts::sources(&next));
    }
    let from = source.to_owned();
    let place = cx.blocking(move |_| restore_point::place(&from, &reached)).await?;
    if let Some(mount) = &place.reached_by {
        let (directory, mount) = (place.directory.display(), mount.display());
        cx.say(&format!(
            "the copy lies in {directory}, which the container reaches through its mount {mount}"
        ))
        .await;
    }
    Ok(place.directory.join(cx.copy_name(source)))
}

fn server(facts: ServerFacts) -> Server {
    Server {
        program: facts.program,
        arguments: facts.arguments,
        owner: facts.owner,
        major: facts.major,
    }
}
