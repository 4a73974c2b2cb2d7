//! The names that are given to containers while an upgrade is under way, and the labels by which
//! containers and images are told apart. Nobody else spells them.
//!
//! Used by the driver, which gives them, and by everything that looks for them.

/// Label of the containers that this product creates: `JOB/HOP`.
pub(crate) const HOP_LABEL: &str = "io.payram.updater.hop";

/// Label of an old container that was made again: `JOB/HOP`.
pub(crate) const REMADE_LABEL: &str = "io.payram.updater.old";

/// Label of an image that says its version (OCI image specification, "Annotations").
pub(crate) const VERSION_LABEL: &str = "org.opencontainers.image.version";

/// Label of every container of a rehearsal, by which it is swept up: the job's id.
pub(crate) const REHEARSAL_LABEL: &str = "io.payram.updater.rehearsal";

/// What the names of a rehearsal's containers and of its directory begin with; the job's short id
/// follows.
pub(crate) const REHEARSAL: &str = "payram-rehearsal-";

const NEXT: &str = "-next-";
const PREVIOUS: &str = "-previous-";
const DATABASE: &str = "-database-";

/// What the new container of a hop is called until it takes the application's name.
pub(crate) fn next(name: &str, hop: &str) -> String {
    format!("{name}{NEXT}{hop}")
}

/// What the old container of a hop is called once it has given that name up.
pub(crate) fn previous(name: &str, hop: &str) -> String {
    format!("{name}{PREVIOUS}{hop}")
}

/// What the database's server is called that runs without its application.
pub(crate) fn database(name: &str, job: &str) -> String {
    format!("{name}{DATABASE}{job}")
}

/// Whether a container has a name of one of these kinds.
pub(crate) fn is_of_an_upgrade(name: &str) -> bool {
    [PREVIOUS, NEXT, DATABASE, REHEARSAL].iter().any(|part| name.contains(part))
}

/// The same, as the rest of a name that begins with the application's.
pub(crate) fn continues_as_of_an_upgrade(rest: &str) -> bool {
    [NEXT, PREVIOUS, DATABASE].iter().any(|part| rest.starts_with(part))
}
