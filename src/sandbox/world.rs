//! The make-believe engine's world: containers and images, kept on disk, and what runs.
//!
//! Each verb does what the real engine's does, by the same rules and with the same refusals.
//! Called by `http`, which speaks for it. Everything but what runs is in the state directory,
//! so that it can be killed and started again; then each container starts again whose restart
//! policy says so, and every other one has exited, as after a restart of the real engine.

mod life;
mod look;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::SandboxError;
use super::answer::{Answer, Refusal};
use super::cluster::replace;
use super::events::Events;
use super::faults::Faults;
use super::inspection;
use super::scenario::{Release, Scenario};
use super::shop::Shop;
use crate::clock::Timestamp;

/// Everything that there is.
pub(super) struct World {
    root: PathBuf,
    pub scenario: Scenario,
    /// The images' repository.
    pub repo: String,
    pub faults: Faults,
    pub events: Events,
    inner: Mutex<Inner>,
    is_closing: AtomicBool,
}

#[derive(Default)]
struct Inner {
    containers: BTreeMap<String, Container>,
    images: Vec<Value>,
}

struct Container {
    inspection: Value,
    /// Stopped by a request: `unless-stopped` heeds it.
    was_stopped: bool,
    running: Option<Running>,
}

/// A container that runs.
#[derive(Clone)]
struct Running {
    shop: Arc<Shop>,
    /// The database's directory that it mounts, on this host.
    directory: PathBuf,
    stop: CancellationToken,
    /// Without grace.
    kill: CancellationToken,
    grace_ms: Arc<AtomicU64>,
    ended: CancellationToken,
}

impl World {
    /// Opens the state directory; what ran under a restart policy starts again.
    pub fn open(root: &Path, scenario: Scenario, repo: String) -> Result<Arc<Self>, SandboxError> {
        let failed = |error: io::Error| {
            SandboxError::new(format!("read the sandbox's state {}: {error}", root.display()))
        };
        for below in ["containers", "images", "volumes"] {
            fs::create_dir_all(root.join(below)).map_err(failed)?;
        }
        let mut inner =
            Inner { images: read_all(&root.join("images")).map_err(failed)?, ..Inner::default() };
        let mut again = Vec::new();
        for mut inspection in read_all(&root.join("containers")).map_err(failed)? {
            let id = inspection["Id"].as_str().unwrap_or_default().to_owned();
            if inspection["State"]["Running"] == true {
                ended(&mut inspection, 137);
            }
            let was_stopped = stopped_mark(root, &id).exists();
            if starts_with_the_engine(&inspection, was_stopped) {
                again.push(id.clone());
            }
            inner.containers.insert(id, Container { inspection, was_stopped, running: None });
        }
        let world = Arc::new(Self {
            root: root.to_owned(),
            faults: Faults::new(scenario.faults.clone()),
            scenario,
            repo,
            events: Events::new(),
            inner: Mutex::new(inner),
            is_closing: AtomicBool::new(false),
        });
        for id in again {
            if let Err(refusal) = world.start_again(&id) {
                tracing::warn!(container = id, "not started again: {}", refusal.message);
            }
        }
        Ok(world)
    }

    /// Whether nothing was ever created here.
    pub fn is_empty(&self) -> bool {
        self.inner().containers.is_empty()
    }

    /// Where everything lies.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Ends every container cleanly; on disk they run, so that they run again after this.
    pub async fn close(&self) {
        self.is_closing.store(true, Ordering::SeqCst);
        let running: Vec<Running> =
            self.inner().containers.values().filter_map(|one| one.running.clone()).collect();
        for one in &running {
            one.grace_ms.store(0, Ordering::SeqCst);
            one.stop.cancel();
        }
        for one in &running {
            one.ended.cancelled().await;
        }
    }

    /// The release behind `repo:tag`, which a registry would have.
    pub fn release(&self, repo: &str, tag: &str) -> Answer<Release> {
        let found = self.scenario.tags.get(tag).filter(|_| repo == self.repo);
        found.cloned().ok_or_else(|| {
            Refusal::new(404, format!("manifest for {repo}:{tag} not found: manifest unknown"))
        })
    }

    /// Puts a pulled image there. One that had its tag stays, without it.
    pub fn add_image(&self, tag: &str, release: &Release) -> Answer<()> {
        let image = inspection::image(&self.repo, tag, release);
        let mut inner = self.inner();
        inner.images.retain(|one| one["Id"] != image["Id"]);
        for one in inner.images.iter_mut().filter(|one| one["RepoTags"] == image["RepoTags"]) {
            one["RepoTags"] = json!([]);
            self.keep_image(one)?;
        }
        self.keep_image(&image)?;
        inner.images.push(image);
        Ok(())
    }

    fn keep_image(&self, image: &Value) -> Answer<()> {
        let id = image["Id"].as_str().unwrap_or_default();
        let name = id.rsplit(':').next().unwrap_or(id);
        let path = self.root.join("images").join(format!("{name}.json"));
        write(&path, image).map_err(|error| Refusal::disk("keep the image", &error))
    }

    /// Creates a container.
    pub fn create(&self, name: &str, body: &Value) -> Answer<String> {
        let image = self.image(body["Image"].as_str().unwrap_or_default())?;
        let mut inner = self.inner();
        name_is_free(&inner, name)?;
        let id = inspection::digest(&format!("{name} {}", uuid::Uuid::now_v7()));
        let inspection = inspection::container(&id, name, body, &image, &self.root.join("volumes"));
        self.keep(&inspection)?;
        let created = Container { inspection, was_stopped: false, running: None };
        inner.containers.insert(id.clone(), created);
        drop(inner);
        self.tell(&id, "create", &[]);
        Ok(id)
    }

    /// Gives a container another name.
    pub fn rename(&self, id_or_name: &str, name: &str) -> Answer<()> {
        let mut inner = self.inner();
        let id = find(&inner, id_or_name)?;
        if inner
            .containers
            .get(&id)
            .is_some_and(|one| one.inspection["Name"] == *format!("/{name}"))
        {
            let message = "Renaming a container with the same name as its current name";
            return Err(Refusal::new(400, message));
        }
        name_is_free(&inner, name)?;
        let old = inner.containers.get(&id).map(|one| one.inspection["Name"].clone());
        let old = old.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
        self.change(&mut inner, &id, |one| one["Name"] = json!(format!("/{name}")))?;
        drop(inner);
        self.tell(&id, "rename", &[("oldName", old)]);
        Ok(())
    }

    /// Replaces the restart policy.
    pub fn set_policy(&self, id_or_name: &str, policy: &Value) -> Answer<()> {
        let mut inner = self.inner();
        let id = find(&inner, id_or_name)?;
        self.change(&mut inner, &id, |one| {
            one["HostConfig"]["RestartPolicy"] = policy.clone();
        })
    }

    /// Removes a stopped container.
    pub fn remove(&self, id_or_name: &str) -> Answer<()> {
        let mut inner = self.inner();
        let id = find(&inner, id_or_name)?;
        if inner.containers.get(&id).is_some_and(|one| one.running.is_some()) {
            let message = format!(
                "You cannot remove a running container {id}. Stop the container before attempting removal"
            );
            return Err(Refusal::new(409, message));
        }
        for file in [self.file(&id), self.log(&id), stopped_mark(&self.root, &id)] {
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Refusal::disk("remove the container", &error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        match fs::remove_dir_all(self.layer(&id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Refusal::disk("remove the container", &error));
            }
            Ok(()) | Err(_) => {}
        }
        let removed = inner.containers.remove(&id);
        drop(inner);
        if let Some(removed) = removed {
            self.events.tell(&removed.inspection, "destroy", &[]);
        }
        Ok(())
    }

    /// The inside of a running container, for commands in it.
    pub fn shop(&self, id_or_name: &str) -> Answer<Arc<Shop>> {
        let inner = self.inner();
        let id = find(&inner, id_or_name)?;
        let running = inner.containers.get(&id).and_then(|one| one.running.as_ref());
        running
            .map(|running| Arc::clone(&running.shop))
            .ok_or_else(|| Refusal::new(409, format!("Container {id} is not running")))
    }

    /// Changes a container, on disk first.
    fn change(&self, inner: &mut Inner, id: &str, change: impl FnOnce(&mut Value)) -> Answer<()> {
        let Some(container) = inner.containers.get_mut(id) else { return Err(gone(id)) };
        let mut changed = container.inspection.clone();
        change(&mut changed);
        self.keep(&changed)?;
        container.inspection = changed;
        Ok(())
    }

    fn keep(&self, inspection: &Value) -> Answer<()> {
        let path = self.file(inspection["Id"].as_str().unwrap_or_default());
        write(&path, inspection).map_err(|error| Refusal::disk("keep the container", &error))
    }

    fn file(&self, id: &str) -> PathBuf {
        self.root.join("containers").join(format!("{id}.json"))
    }

    fn log(&self, id: &str) -> PathBuf {
        self.root.join("containers").join(format!("{id}.log"))
    }

    /// What a container has of its own, in no mount.
    fn layer(&self, id: &str) -> PathBuf {
        self.root.join("layers").join(id)
    }

    /// Tells whoever listens what happened to a container; `more` belongs to it.
    pub fn tell(&self, id: &str, action: &str, more: &[(&str, String)]) {
        if let Some(container) = self.inner().containers.get(id) {
            self.events.tell(&container.inspection, action, more);
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn gone(id_or_name: &str) -> Refusal {
    Refusal::new(404, format!("No such container: {id_or_name}"))
}

/// The full id of what is named by id, its beginning, or name.
fn find(inner: &Inner, id_or_name: &str) -> Answer<String> {
    let name = format!("/{}", id_or_name.trim_start_matches('/'));
    let by_name = inner.containers.iter().find(|(_, one)| one.inspection["Name"] == name.as_str());
    let found = by_name
        .or_else(|| inner.containers.iter().find(|(id, _)| id.starts_with(id_or_name)))
        .filter(|_| !id_or_name.is_empty());
    found.map(|(id, _)| id.clone()).ok_or_else(|| gone(id_or_name))
}

fn name_is_free(inner: &Inner, name: &str) -> Answer<()> {
    let slashed = format!("/{name}");
    match inner.containers.iter().find(|(_, one)| one.inspection["Name"] == slashed.as_str()) {
        None => Ok(()),
        Some((id, _)) => Err(Refusal::new(
            409,
            format!(
                "Conflict. The container name \"{slashed}\" is already in use by container \"{id}\""
            ),
        )),
    }
}

/// A file that is there while a container rests because a request stopped it.
fn stopped_mark(root: &Path, id: &str) -> PathBuf {
    root.join("containers").join(format!("{id}.stopped"))
}

/// Whether a restart of the engine starts a container that does not run (Docker's `always`,
/// `unless-stopped` and `on-failure`).
fn starts_with_the_engine(inspection: &Value, was_stopped: bool) -> bool {
    match inspection["HostConfig"]["RestartPolicy"]["Name"].as_str() {
        Some("always") => true,
        Some("unless-stopped") => !was_stopped,
        Some("on-failure") => !was_stopped && inspection["State"]["ExitCode"] != 0,
        Some(_) | None => false,
    }
}

fn ended(inspection: &mut Value, code: i64) {
    let state = &mut inspection["State"];
    state["Status"] = json!("exited");
    state["Running"] = json!(false);
    state["Pid"] = json!(0);
    state["ExitCode"] = json!(code);
    state["FinishedAt"] = json!(Timestamp::now().rfc3339());
    inspection["NetworkSettings"]["Ports"] = json!({});
}

fn write(path: &Path, value: &Value) -> io::Result<()> {
    replace(path, &serde_json::to_vec_pretty(value)?)
}

/// Every JSON file of a directory.
fn read_all(directory: &Path) -> io::Result<Vec<Value>> {
    let mut values = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            values.push(serde_json::from_slice(&fs::read(&path)?)?);
        }
    }
    Ok(values)
}
