//! `create_next`: the new container, stopped, under a temporary name, proved to be like the old one.

use std::path::Path;

use serde_json::Value;

use crate::database::{self, Access};
use crate::driver::context::StepContext;
use crate::driver::prepare::SavedSpec;
use crate::engine::mounts;
use crate::error::{Trouble, fail};
use crate::machine::Fact;
use crate::machine::facts::{NextContainer, PulledImage};
use crate::machine::failure::{Failure, FailureCode};
use crate::names::HOP_LABEL;
use crate::spec::parity;
use crate::spec::{self, SpecInputs};

/// What a person reads while it is under way.
pub(in crate::driver) const ACTIVITY: &str = "Creating the new container beside the old one";

/// The majors of PostgreSQL that are looked for in a new image.
const OLDEST_MAJOR: u32 = 9;
const NEWEST_MAJOR: u32 = 30;

pub(in crate::driver) async fn act(
    cx: &StepContext<'_>,
    image: &PulledImage,
) -> Result<Fact, Trouble> {
    let hop = cx.hop;
    cx.remove_labelled().await?;
    cx.keep_unmounted_files().await?;
    let saved = SavedSpec::read(&hop.old.spec_file)?;
    let Some(new_image) = cx.engine.inspect_image(&image.id).await? else {
        return fail(
            FailureCode::DockerRunBuildFailed,
            format!("the pulled image {} is not on this host any more", image.id),
        );
    };
    let reference = format!("{}:{}", hop.target.repo, hop.target.tag);
    let labels = [(HOP_LABEL.to_owned(), cx.hop_label())];
    let facts = cx.engine.facts().await?;
    let inputs = SpecInputs {
        old: &saved.container,
        old_image: &saved.image,
        new_image: &new_image,
        image_reference: &reference,
        overlay: cx.at.job.body.overlay_of(cx.at.hop),
        labels: &labels,
        api_version: &facts.api_version,
    };
    let next = spec::next(&inputs)
        .map_err(|error| Failure::new(FailureCode::DockerRunBuildFailed, error.to_string()))?;
    for note in &next.notes {
        cx.say(&format!("specification: {note}")).await;
    }
    let temporary_name = cx.temporary_name();
    let created = cx.create(&temporary_name, &next.create_body).await;
    let id = created.map_err(|trouble| match trouble {
        Trouble::Failed(failure) => {
            Trouble::Failed(Failure::new(FailureCode::DockerRunBuildFailed, failure.message))
        }
        unknown @ Trouble::Unknown(_) => unknown,
    })?;
    for (network, endpoint) in &next.further_networks {
        cx.engine.connect_network(network, &id, endpoint).await?;
    }
    let container = cx.inspect_present(&id, "new").await?;
    if container["Image"].as_str() != Some(image.id.as_str()) {
        return fail(
            FailureCode::SpecParityFailed,
            format!("the new container runs image {}, pulled was {}", container["Image"], image.id),
        );
    }
    let differences = parity::differences(&container, &inputs);
    if !differences.is_empty() {
        let fields: Vec<String> = differences.iter().map(ToString::to_string).collect();
        return fail(
            FailureCode::SpecParityFailed,
            format!(
                "the new container would differ from {} in {}",
                hop.old.name,
                fields.join("; ")
            ),
        );
    }
    must_not_cover_the_database(cx, &container).await?;
    Ok(Fact::Next(NextContainer { id, temporary_name }))
}

/// Refuses a new container that would have something else mounted where the old one has its
/// database: an image's `VOLUME` between the mount and the directory, or below it, hides it,
/// and a fresh cluster would be served (I13).
async fn must_not_cover_the_database(cx: &StepContext<'_>, next: &Value) -> Result<(), Trouble> {
    let target = cx.database()?;
    if target.access == Access::OnHost {
        return Ok(());
    }
    let old = cx.inspect_present(cx.old_id(), "old").await?;
    let facts = database::server_facts(cx.engine, cx.old_id(), target.port).await?;
    must_have_the_servers_major(cx, next, &facts).await?;
    match mounts::covering(&old, next, Path::new(&facts.data_directory)) {
        None => Ok(()),
        Some(found) => fail(
            FailureCode::DatabaseMismatch,
            format!(
                "the new container would not have the shop's database in {}: {found}",
                facts.data_directory
            ),
        ),
    }
}

/// Refuses a new container with the programs of another major version of PostgreSQL alone, which
/// would not start on the database. Of Debian's packages, whose directories tell; where the
/// server's program is not one of those, nothing is known.
async fn must_have_the_servers_major(
    cx: &StepContext<'_>,
    next: &Value,
    server: &database::ServerFacts,
) -> Result<(), Trouble> {
    let place = format!("/usr/lib/postgresql/{}/bin/postgres", server.major);
    let id = next["Id"].as_str().unwrap_or_default();
    if server.program != place || has_file(cx, id, &place).await? {
        return Ok(());
    }
    for major in OLDEST_MAJOR..=NEWEST_MAJOR {
        let other = format!("/usr/lib/postgresql/{major}/bin/postgres");
        if has_file(cx, id, &other).await? {
            return fail(
                FailureCode::PostgresMajorChange,
                format!(
                    "the database was made by PostgreSQL {}, and the new image has PostgreSQL {major}, which does not start on it",
                    server.major
                ),
            );
        }
    }
    Ok(())
}

async fn has_file(cx: &StepContext<'_>, id: &str, path: &str) -> Result<bool, Trouble> {
    match cx.engine.archive(id, path).await {
        Ok(_) => Ok(true),
        Err(error) if error.status() == Some(404) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
