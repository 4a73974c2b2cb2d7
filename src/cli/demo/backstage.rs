//! What the two engines do differently, and nothing else: the walk knows neither.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::Fault;
use super::paper::Paper;

/// Where a demo is: names and paths that no other one has.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Tells this demo from all others.
    pub id: String,
    /// Everything that it writes is below it.
    pub directory: PathBuf,
}

impl Place {
    /// Below a directory for temporary files.
    pub fn below(base: &Path) -> Self {
        let uuid = uuid::Uuid::now_v7().simple().to_string();
        let id = uuid.get(20..).unwrap_or(&uuid).to_owned();
        let directory = base.join(format!("payram-demo-{id}"));
        Self { id, directory }
    }

    /// A file or directory of it.
    pub fn at(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// `DOCKER_HOST` of everybody here: the line to the engine.
    pub fn docker_host(&self) -> String {
        format!("unix://{}", self.line().display())
    }

    /// The socket of the line.
    pub fn line(&self) -> PathBuf {
        self.at("docker.sock")
    }
}

/// An open shop, as the updater and the walk need to know it.
#[derive(Clone, Debug)]
pub(super) struct Shop {
    /// `TARGET_CONTAINER_NAME`
    pub container: String,
    /// What all containers of this demo are labelled with; without one, all of the engine's
    /// are.
    pub label: Option<String>,
    /// `IMAGE_REPO_OVERRIDE`
    pub repo: String,
    /// `POLICY_URL`
    pub policy: PathBuf,
    /// `RUNTIME_MANIFEST_URL`
    pub manifest: PathBuf,
    /// `CORE_BASE_URL`
    pub core: String,
    /// One line for each payment that a customer was told is taken, beginning with its id.
    pub acknowledged: PathBuf,
    /// `START_TIMEOUT_SECONDS`
    pub start_timeout_seconds: u32,
}

/// An engine with a shop on it.
#[async_trait(?Send)]
pub(super) trait Backstage {
    /// What is real and what is not, and what stays.
    fn introduction(&self) -> String;

    /// Where temporary directories are made.
    fn temporary(&self) -> PathBuf;

    /// The engine's own socket; it need not be there before the shop is open.
    fn socket(&self, place: &Place) -> PathBuf;

    /// Opens the shop on 1.9.6, and says how it goes.
    async fn open(&mut self, place: &Place, paper: &Paper) -> Result<Shop, Fault>;

    /// The ids of the payments in the shop's database.
    async fn payments(&self, shop: &Shop) -> Result<BTreeSet<String>, Fault>;

    /// Removes everything of this demo that is not below its directory. Called again when
    /// something may have been made since.
    async fn clear(&mut self, place: &Place) -> Result<(), Fault>;
}
