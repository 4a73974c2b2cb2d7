//! How a world is described before it is started: `World::build("1.9.6").rows(1000).start()`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::json;

use super::container::Mounts;
use super::disk::SmallDisk;
use super::fixture::Fixture;
use super::free_port;
use super::private_engine::PrivateEngine;
use super::watch::{self, Watcher};
use super::world::{LABEL, World};

/// What a world is to be like.
pub struct WorldBuilder {
    tag: String,
    run_args: Vec<String>,
    command: Vec<String>,
    environment: BTreeMap<String, String>,
    settings: BTreeMap<String, String>,
    rows: u32,
    await_health: bool,
    is_published: bool,
    engine: PathBuf,
    disk: Option<String>,
    mounts: Mounts,
    has_postgres_17: bool,
    below: PathBuf,
}

impl WorldBuilder {
    /// A container of a tag, with nothing unusual about it.
    pub fn new(tag: &str) -> Self {
        Self {
            tag: tag.into(),
            run_args: Vec::new(),
            command: Vec::new(),
            environment: BTreeMap::new(),
            settings: BTreeMap::new(),
            rows: 0,
            await_health: true,
            is_published: true,
            engine: watch::engine(),
            disk: None,
            mounts: Mounts::One,
            has_postgres_17: false,
            below: std::env::temp_dir(),
        }
    }

    /// Further arguments of `docker run`, before the image.
    pub fn run_args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.run_args.extend(args.into_iter().map(Into::into));
        self
    }

    /// What the container runs instead of the image's command.
    pub fn command<S: Into<String>>(mut self, command: impl IntoIterator<Item = S>) -> Self {
        self.command = command.into_iter().map(Into::into).collect();
        self
    }

    /// An environment variable of the container.
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.environment.insert(key.into(), value.into());
        self
    }

    /// A setting of the updater.
    pub fn setting(mut self, key: &str, value: &str) -> Self {
        self.settings.insert(key.into(), value.into());
        self
    }

    /// An updater with little patience.
    pub fn impatient(self) -> Self {
        self.setting("HEALTH_TIMEOUT_SECONDS", "6").setting("START_TIMEOUT_SECONDS", "25")
    }

    /// Payments that are there, acknowledged, before the test begins.
    pub fn rows(mut self, rows: u32) -> Self {
        self.rows = rows;
        self
    }

    /// On an engine of the test's own.
    pub fn on(mut self, engine: &PrivateEngine) -> Self {
        self.engine = engine.socket();
        let endpoint = format!("unix://{}", self.engine.display());
        self.setting("DOCKER_HOST", &endpoint)
    }

    /// The database on a file system of its own, of this size (`600m`).
    pub fn disk(mut self, size: &str) -> Self {
        self.disk = Some(size.into());
        self
    }

    /// The core on no port of the host.
    pub fn unpublished(mut self) -> Self {
        self.is_published = false;
        self
    }

    /// Mounts as PayRam's own start command has them, one inside of the other.
    pub fn nested_mounts(mut self) -> Self {
        self.mounts = Mounts::Nested;
        self
    }

    /// The images that have PostgreSQL 17 inside, not 15.
    pub fn postgres_17(mut self) -> Self {
        self.has_postgres_17 = true;
        self
    }

    /// Everything of it in a directory below this one, and not where temporary files are.
    pub fn below(mut self, directory: &str) -> Self {
        self.below = directory.into();
        self
    }

    /// Doesn't wait until the container is healthy.
    pub fn unattended(mut self) -> Self {
        self.await_health = false;
        self
    }

    /// Starts the container, and waits until it is healthy.
    pub fn start(self) -> World {
        let fixture = Fixture::get();
        let repo = if self.has_postgres_17 { fixture.repo_17() } else { fixture.repo() };
        let uuid = uuid::Uuid::now_v7().simple().to_string();
        let id = uuid[uuid.len() - 12..].to_owned();
        let name = format!("{LABEL}-{id}");
        let world = World {
            port: free_port(),
            is_published: self.is_published,
            updater_port: free_port(),
            root: tempfile::Builder::new()
                .prefix(&name)
                .tempdir_in(&self.below)
                .expect("a directory"),
            name,
            id,
            run_args: self.run_args,
            command: self.command,
            environment: self.environment,
            settings: RefCell::default(),
            watcher: RefCell::default(),
            engine: self.engine,
            repo: repo.to_owned(),
            mounts: self.mounts,
            disk: RefCell::default(),
        };
        for directory in ["data", "ack", "log", "state", "run", "backups", "home"] {
            fs::create_dir(world.path(directory)).expect("a directory");
        }
        if let Some(size) = &self.disk {
            *world.disk.borrow_mut() = Some(SmallDisk::mount(world.data_dir(), size));
        }
        *world.settings.borrow_mut() = world.default_settings(repo);
        world.settings.borrow_mut().extend(self.settings);
        world.write_policy(&json!({
            "schema_version": 1, "latest": "2.0.0", "updater_api_init_version": "1.9.6",
            "releases": ["2.0.0", "1.9.8", "1.9.7", "1.9.6"],
        }));
        world.write_manifest(&json!({
            "image": {"repo": repo},
            "defaults": {"container_name": world.name},
            "health_check": {"endpoint": "/api/v1/health"},
        }));
        world.run_container(&self.tag);
        *world.watcher.borrow_mut() = Some(Watcher::start(&world.data_dir(), &world.engine));
        if self.await_health {
            world.wait_healthy();
        }
        if self.rows > 0 {
            world.add_payments(self.rows);
        }
        world
    }
}
