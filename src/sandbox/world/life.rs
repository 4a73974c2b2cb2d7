//! A container's life: its start, its end by a stop or by itself, and its start again where its
//! restart policy says so.

use std::fs;
use std::io;
use std::net::TcpListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    Answer, Refusal, Running, World, ended, find, gone, starts_with_the_engine, stopped_mark,
};
use crate::clock::Timestamp;
use crate::engine::mounts;
use crate::sandbox::cluster::{Cluster, NotStarted, Place};
use crate::sandbox::inspection::{DATA_DIRECTORY, SERVER, VERSION_LABEL};
use crate::sandbox::scenario::Release;
use crate::sandbox::shop::{POSTGRES, Programs, Shop, State, TOO_QUICKLY};

/// The grace of a container that states none (Engine API v1.41, `StopTimeout`).
const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// Before a container that ended by itself is started again.
const RESTART_PAUSE: Duration = Duration::from_millis(200);

/// The exit code of what SIGKILL ended.
const KILLED: i64 = 137;

/// Why a container ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reason {
    Stopped,
    Killed,
    ByItself,
}

impl World {
    /// Starts a container; false when it runs already. Restarts are counted from here anew.
    pub fn start(self: &Arc<Self>, id_or_name: &str) -> Answer<bool> {
        self.begin(id_or_name, |inspection| inspection["RestartCount"] = json!(0))
    }

    /// Starts a container as its restart policy says.
    pub(super) fn start_again(self: &Arc<Self>, id: &str) -> Answer<bool> {
        self.begin(id, |_| {})
    }

    fn begin(self: &Arc<Self>, id_or_name: &str, change: impl FnOnce(&mut Value)) -> Answer<bool> {
        let mut inner = self.inner();
        let id = find(&inner, id_or_name)?;
        let Some(container) = inner.containers.get(&id) else { return Err(gone(id_or_name)) };
        if container.running.is_some() {
            return Ok(false);
        }
        let mut inspection = container.inspection.clone();
        let listeners = self.publish(&mut inspection)?;
        let directory = self.data_directory(&inspection);
        let taken = inner.containers.values().any(|other| {
            other.running.as_ref().is_some_and(|running| running.directory == directory)
        });
        if taken {
            // The real server refuses by its lock; the note is for whoever watches I2.
            self.note_two_at_once(&id);
        }
        let (shop, lives) = self.furnish(&inspection, &directory, taken)?;
        let running = Running {
            shop: Arc::clone(&shop),
            directory,
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
            grace_ms: Arc::new(AtomicU64::new(grace_ms(&inspection))),
            ended: CancellationToken::new(),
        };
        change(&mut inspection);
        let state = &mut inspection["State"];
        state["Status"] = json!("running");
        state["Running"] = json!(true);
        state["Restarting"] = json!(false);
        state["Pid"] = json!(shop.programs.first);
        state["ExitCode"] = json!(0);
        state["StartedAt"] = json!(Timestamp::now().rfc3339());
        self.mark_stopped(&id, false)?;
        self.keep(&inspection)?;
        if let Some(container) = inner.containers.get_mut(&id) {
            container.inspection = inspection;
            container.was_stopped = false;
            container.running = Some(running.clone());
        }
        drop(inner);
        let closed = CancellationToken::new();
        let ports = listeners
            .into_iter()
            .map(|listener| tokio::spawn(Arc::clone(&shop).accept(listener, closed.clone())))
            .collect();
        self.tell(&id, "start", &[]);
        if !lives {
            shop.ends.cancel();
        } else if !shop.is_alone {
            shop.start_core();
            shop.start_workers();
        }
        tokio::spawn(Arc::clone(self).live(id.clone(), running, (closed, ports)));
        Ok(true)
    }

    /// Stops a container and waits for its end; false when it does not run.
    pub async fn stop(&self, id_or_name: &str, grace: Option<Duration>) -> Answer<bool> {
        let running = {
            let mut inner = self.inner();
            let id = find(&inner, id_or_name)?;
            let Some(container) = inner.containers.get_mut(&id) else { return Ok(false) };
            if container.running.is_some() {
                self.mark_stopped(&id, true)?;
                container.was_stopped = true;
            }
            container.running.clone()
        };
        let Some(running) = running else { return Ok(false) };
        if let Some(grace) = grace {
            running.grace_ms.store(grace.as_millis() as u64, Ordering::SeqCst);
        }
        running.stop.cancel();
        running.ended.cancelled().await;
        Ok(true)
    }

    /// Kills a container without grace and waits for its end; refused when it does not run.
    pub async fn kill(&self, id_or_name: &str) -> Answer<()> {
        let running = {
            let mut inner = self.inner();
            let id = find(&inner, id_or_name)?;
            let container = inner.containers.get_mut(&id);
            let Some(container) = container.filter(|one| one.running.is_some()) else {
                let message =
                    format!("Cannot kill container: {id_or_name}: Container {id} is not running");
                return Err(Refusal::new(409, message));
            };
            self.mark_stopped(&id, true)?;
            container.was_stopped = true;
            container.running.clone()
        };
        if let Some(running) = running {
            running.kill.cancel();
            running.ended.cancelled().await;
        }
        Ok(())
    }

    /// Stops a container, if it runs, and starts it.
    pub async fn restart(
        self: &Arc<Self>,
        id_or_name: &str,
        grace: Option<Duration>,
    ) -> Answer<()> {
        // Its name may be another's by the time of the start.
        let id = find(&self.inner(), id_or_name)?;
        self.stop(&id, grace).await?;
        self.start(&id)?;
        self.tell(&id, "restart", &[]);
        Ok(())
    }

    /// Lives a container's life to its end, and starts it again where its policy says so.
    async fn live(
        self: Arc<Self>,
        id: String,
        running: Running,
        (closed, ports): (CancellationToken, Vec<JoinHandle<()>>),
    ) {
        let reason = tokio::select! {
            () = running.kill.cancelled() => Reason::Killed,
            () = running.stop.cancelled() => Reason::Stopped,
            () = running.shop.ends.cancelled() => Reason::ByItself,
        };
        let code = self.wind_up(&id, &running, reason).await;
        // Free for the next one before anybody is told that this one has ended.
        closed.cancel();
        for port in ports {
            // One whose task panicked is free, too.
            let _ = port.await;
        }
        let is_again = self.end(&id, code);
        self.tell(&id, "die", &[("exitCode", code.to_string())]);
        if reason == Reason::Stopped {
            self.tell(&id, "stop", &[]);
        }
        running.ended.cancel();
        if is_again && reason == Reason::ByItself && !self.is_closing.load(Ordering::SeqCst) {
            tokio::time::sleep(RESTART_PAUSE).await;
            let count = |one: &mut Value| {
                one["RestartCount"] = json!(one["RestartCount"].as_i64().unwrap_or(0) + 1);
            };
            let counted = self.change(&mut self.inner(), &id, count);
            if let Err(refusal) = counted.and_then(|()| self.start_again(&id)) {
                tracing::warn!(container = id, "not started again: {}", refusal.message);
            }
        }
    }

    /// Ends what runs in a container; answers its exit code.
    async fn wind_up(&self, id: &str, running: &Running, reason: Reason) -> i64 {
        let shop = &running.shop;
        let signalled = |signal: i32| self.tell(id, "kill", &[("signal", signal.to_string())]);
        // False when it was killed before that.
        let pass = async |ms: u64| {
            tokio::select! {
                biased;
                () = running.kill.cancelled() => false,
                () = tokio::time::sleep(Duration::from_millis(ms)) => true,
            }
        };
        let mut is_killed = reason == Reason::Killed;
        match reason {
            Reason::Killed => signalled(9),
            Reason::Stopped => signalled(15),
            Reason::ByItself => {}
        }
        if reason == Reason::Stopped && shop.release.ignores_term {
            // Its grace, or a kill in it.
            pass(running.grace_ms.load(Ordering::SeqCst)).await;
            signalled(9);
            is_killed = true;
        }
        shop.stop_programs().await;
        if let Some(cluster) = shop.cluster.as_ref().filter(|_| !is_killed) {
            if pass(self.scenario.stop_ms).await {
                if let Err(error) = cluster.stop(shop.release.leaves_stale_pid) {
                    shop.say(&format!("the database did not stop cleanly: {error}"));
                }
            } else {
                signalled(9);
                is_killed = true;
            }
        }
        match reason {
            _ if is_killed => KILLED,
            Reason::Stopped | Reason::Killed => 0,
            Reason::ByItself => 1,
        }
    }

    /// Keeps in mind, also for the next engine, whether a request stopped a container.
    fn mark_stopped(&self, id: &str, is_stopped: bool) -> Answer<()> {
        let mark = stopped_mark(&self.root, id);
        let made = if is_stopped { fs::write(&mark, "") } else { fs::remove_file(&mark) };
        match made {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Refusal::disk("keep the container", &error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Notes that a container has ended; answers whether its policy starts it again.
    fn end(&self, id: &str, code: i64) -> bool {
        let mut inner = self.inner();
        let Some(container) = inner.containers.get_mut(id) else { return false };
        container.running = None;
        ended(&mut container.inspection, code);
        if !self.is_closing.load(Ordering::SeqCst)
            && let Err(refusal) = self.keep(&container.inspection)
        {
            tracing::warn!(container = id, "its end is not on disk: {}", refusal.message);
        }
        starts_with_the_engine(&container.inspection, container.was_stopped)
    }

    /// Binds the published ports, which is when a conflict shows.
    fn publish(&self, inspection: &mut Value) -> Answer<Vec<TcpListener>> {
        let mut listeners = Vec::new();
        let mut published = serde_json::Map::new();
        let bindings = inspection["HostConfig"]["PortBindings"].as_object().cloned();
        for (port, bindings) in bindings.unwrap_or_default() {
            let mut bound = Vec::new();
            for binding in bindings.as_array().into_iter().flatten() {
                let ip = match binding["HostIp"].as_str().unwrap_or_default() {
                    "" => "0.0.0.0",
                    ip => ip,
                };
                let wanted = binding["HostPort"].as_str().unwrap_or_default();
                let at = format!("{ip}:{}", if wanted.is_empty() { "0" } else { wanted });
                let taken = |error: io::Error| {
                    let message = format!(
                        "driver failed programming external connectivity: Bind for {at} failed: port is already allocated ({error})"
                    );
                    Refusal::new(500, message)
                };
                let listener = StdListener::bind(&at).map_err(taken)?;
                listener.set_nonblocking(true).map_err(taken)?;
                let number = listener.local_addr().map_err(taken)?.port();
                bound.push(json!({"HostIp": ip, "HostPort": number.to_string()}));
                listeners.push(TcpListener::from_std(listener).map_err(taken)?);
            }
            published.insert(port, Value::Array(bound));
        }
        inspection["NetworkSettings"]["Ports"] = Value::Object(published);
        Ok(listeners)
    }

    /// The inside of a container, and whether it lives at all.
    fn furnish(
        &self,
        inspection: &Value,
        directory: &Path,
        is_taken: bool,
    ) -> Answer<(Arc<Shop>, bool)> {
        let config = &inspection["Config"];
        let id = inspection["Id"].as_str().unwrap_or_default();
        let is_alone = config["Entrypoint"][0] == SERVER;
        let version = config["Labels"][VERSION_LABEL].as_str().unwrap_or_default().to_owned();
        let release = if is_alone { Release::default() } else { self.release_of(inspection) };
        let lives = !is_taken && !release.exits_at_start;
        let on_host = |path: &String| mounts::host_path(inspection, Path::new(path));
        if lives {
            change_files(&version, &release, on_host)?;
        }
        let needs = release.needs.as_ref().and_then(on_host);
        let programs = Programs::new(is_alone);
        let elsewhere = self.layer(id).join("cluster");
        let directory = if release.serves_elsewhere { &elsewhere } else { directory };
        let started = match lives {
            true => Some(self.start_server(directory, &release, &programs)?),
            false => None,
        };
        let refused = match &started {
            Some(Err(refused)) => Some(refused.clone()),
            None if is_taken => Some("another server has the data directory".to_owned()),
            None => Some("exits at start".to_owned()),
            Some(Ok(_)) => None,
        };
        let ack = mounts::host_path(inspection, Path::new("/ack/acked.log"));
        let furniture = (started.and_then(Result::ok), programs);
        let files = (ack, needs);
        let shop = Shop::new((version, release), furniture, is_alone, files, self.log(id));
        if let Some(refused) = refused {
            shop.say(&refused);
        }
        Ok((shop, lives))
    }

    /// Starts the database's server under its supervisor, or says what the server says.
    fn start_server(
        &self,
        directory: &Path,
        release: &Release,
        programs: &Programs,
    ) -> Answer<Result<Cluster, String>> {
        let others = programs.inside();
        let pid = programs.begin(POSTGRES, release.leaves_stale_pid);
        let others: Vec<u32> = others.into_iter().filter(|other| *other != pid).collect();
        let place = Place { inside: DATA_DIRECTORY, port: 5432, pid, others: &others };
        match Cluster::start(directory, &place) {
            Ok(cluster) => Ok(Ok(cluster)),
            Err(NotStarted::Locked { pid }) => {
                programs.end(POSTGRES, State::Fatal(TOO_QUICKLY));
                Ok(Err(format!(
                    "FATAL:  lock file \"postmaster.pid\" already exists; is another postmaster (PID {pid}) running in data directory \"{DATA_DIRECTORY}\"?"
                )))
            }
            Err(NotStarted::Disk(error)) => {
                Err(Refusal::disk("start the make-believe database", &error))
            }
        }
    }

    /// On this host; below the state directory when it lies on no mount.
    fn data_directory(&self, inspection: &Value) -> PathBuf {
        mounts::host_path(inspection, Path::new(DATA_DIRECTORY)).unwrap_or_else(|| {
            let id = inspection["Id"].as_str().unwrap_or_default();
            self.layer(id)
        })
    }

    fn note_two_at_once(&self, id: &str) {
        use std::io::Write;

        let path = self.root.join("two-at-once.log");
        let file = fs::OpenOptions::new().append(true).create(true).open(path);
        if let Err(error) = file.and_then(|mut file| writeln!(file, "{id}")) {
            tracing::error!(%error, container = id, "two containers run on one data directory");
        }
    }
}

fn grace_ms(inspection: &Value) -> u64 {
    let seconds = inspection["Config"]["StopTimeout"].as_u64();
    seconds.map_or(DEFAULT_GRACE.as_millis() as u64, |seconds| seconds.saturating_mul(1000))
}

/// What a release does to files on a mount before it starts anything.
fn change_files(
    version: &str,
    release: &Release,
    on_host: impl Fn(&String) -> Option<PathBuf>,
) -> Answer<()> {
    let disk = |error: io::Error| Refusal::disk("change a file", &error);
    if let Some(path) = release.removes.as_ref().and_then(&on_host) {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(disk(error)),
            Ok(()) | Err(_) => {}
        }
    }
    match release.rewrites.as_ref().and_then(on_host) {
        Some(path) => fs::write(path, format!("of {version}\n")).map_err(disk),
        None => Ok(()),
    }
}
