//! `export_rows`: the rows that a failed version wrote, exported from its directory after the restore
//! point has taken its place and the old version serves again.
//!
//! Its server runs once more, alone and read-only, on what was moved aside and on nothing that the
//! old version uses: no other mount of it covers the database in use (I2).

use std::path::{Path, PathBuf};

use crate::clock::Timestamp;
use crate::database::{self, Heading, Log, Runner, said_of_table};
use crate::driver::context::StepContext;
use crate::driver::effects::carry::LogPlace;
use crate::driver::effects::failed_directory::{MODEST, mounts_for};
use crate::driver::effects::standalone_postgres as lone;
use crate::driver::prepare::SavedSpec;
use crate::error::{Trouble, fail};
use crate::machine::Fact;
use crate::machine::facts::{Copy, Export, Fingerprint, Restored, Server};
use crate::machine::failure::FailureCode;

/// What a person reads while it is under way.
pub(in crate::driver) const ACTIVITY: &str =
    "The old version serves; exporting the rows that the failed one wrote";

/// Exports what the failed version wrote to a file beside its directory. Written anew when it
/// is run again.
pub(in crate::driver) async fn act(
    cx: &StepContext<'_>,
    restored: &Restored,
    copy: &Copy,
) -> Result<Fact, Trouble> {
    cx.remove_lone_server().await?;
    let unknown = |what: &str| fail(FailureCode::RuntimeInspectionFailed, what);
    let Copy::Directory { source, server, .. } = copy else {
        return unknown("no database was moved aside");
    };
    let Some(before) = cx.quiesced.and_then(|quiesced| quiesced.fingerprint.as_ref()) else {
        return unknown("the database was not fingerprinted at the cut-over");
    };
    let failed = PathBuf::from(&restored.failed);
    if let Err(reason) = lone::must_be_readable_by(server, &failed).await {
        return unknown(&reason);
    }
    let exported = export_from(cx, restored, Path::new(source), server, before).await;
    if let Err(trouble) = cx.remove_lone_server().await {
        // It goes with the new container, two steps on.
        cx.say(&format!("the export's server is not removed yet: {trouble}")).await;
    }
    let export = exported?;
    if let Export::Written { tables, .. } = &export {
        for table in tables {
            cx.say(&format!("written by the failed version: {}", said_of_table(table))).await;
            for refused in &table.refused {
                let said = database::said_of_refused(refused);
                cx.say(&format!("export of {}: {said}", table.name)).await;
            }
        }
    }
    Ok(Fact::Export(export))
}

async fn export_from(
    cx: &StepContext<'_>,
    restored: &Restored,
    source: &Path,
    server: &Server,
    before: &Fingerprint,
) -> Result<Export, Trouble> {
    let saved = SavedSpec::read(&cx.hop.old.spec_file)?;
    let failed = Path::new(&restored.failed);
    let Some(mounts) = mounts_for(&saved.container, source, failed) else {
        return fail(
            FailureCode::RuntimeInspectionFailed,
            format!("where {} lies inside the container is not known", source.display()),
        );
    };
    let alone = cx.start_lone_server((server, failed), mounts, &MODEST).await?;
    let target = cx.database()?;
    let (lone, old) = (
        Runner::new(cx.engine, &alone.id, &alone.database),
        Runner::new(cx.engine, cx.old_id(), &target),
    );
    let path = crate::driver::export_path(&failed.to_string_lossy());
    let container = &cx.hop.old.name;
    let docker = &cx.settings.docker_bin;
    let heading = Heading {
        upgrade: format!("{} hop {}", cx.at.job.id, cx.at.hop),
        version: &cx.hop.version,
        old_version: cx.hop.from.as_deref().unwrap_or("the old version"),
        written_at: Timestamp::now().rfc3339(),
        directory: failed,
        load_command: load_command(docker, container, &target),
    };
    let within = cx.settings.backup_timeout;
    let is_carried = restored.carried.is_some();
    let at = LogPlace::of(&saved.container, server, source);
    let log = match (is_carried, at.cut_over(cx.quiesced)) {
        (true, cut_over) => Log::CarriedSince(cut_over?),
        (false, Ok(cut_over)) => Log::Since(cut_over),
        (false, Err(_)) => Log::Unknown,
    };
    let file = (Path::new(&path), &heading);
    database::export_rows(&lone, &old, before, &log, file, within).await
}

/// A command that loads a file from its standard input as the application's role. The password
/// stays inside the container.
fn load_command(docker: &str, container: &str, target: &database::Database) -> String {
    let word = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let inside = format!(
        "PGPASSWORD=$POSTGRES_PASSWORD psql -X -h {} -p {} -U {} -d {}",
        word(&target.host),
        target.port,
        word(&target.user),
        word(&target.name),
    );
    format!("{docker} exec -i {} sh -c {}", word(container), word(&inside))
}
