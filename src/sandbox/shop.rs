//! What runs inside a make-believe container: a database server, a core that listens on the
//! published ports and takes payments, workers, and a supervisor over them.
//!
//! Started by `world` with the container and ended by it. A payment is in the database first
//! and acknowledged afterwards by a line outside of it (`/ack/acked.log`), so that a lost one
//! can be told.

mod port;
mod programs;

use std::fs::OpenOptions;
use std::future::Future;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(super) use self::programs::{CORE, POSTGRES, Programs, State, TOO_QUICKLY, WEBHOOKS, WORKER};
use super::cluster::Cluster;
use super::scenario::Release;
use crate::clock::Timestamp;

/// Between two payments.
const PAYMENT_EVERY: Duration = Duration::from_millis(50);

/// Whoever ends earlier did not start (supervisord's `startsecs`).
const START_TAKES: Duration = Duration::from_secs(1);

/// How often a start is tried again (supervisord's `startretries`).
const START_RETRIES: u32 = 3;

/// From the end of a program to its next start.
const RESPAWN: Duration = Duration::from_millis(100);

/// What the core keeps open to the database.
const CORE_SESSIONS: usize = 2;

/// The inside of one running container.
pub(super) struct Shop {
    pub version: String,
    pub release: Release,
    /// The database's server; none in a container in which it did not start.
    pub cluster: Option<Cluster>,
    pub programs: Programs,
    /// Whether there is the database's server and nothing else.
    pub is_alone: bool,
    /// Where payments are acknowledged, on this host.
    pub ack: Option<PathBuf>,
    /// The file without which it is unhealthy, on this host.
    needs: Option<PathBuf>,
    /// What the container prints, on this host.
    pub log: PathBuf,
    /// Cancelled when the container ends by itself.
    pub ends: CancellationToken,
    serves: AtomicBool,
    asked_health: AtomicUsize,
    core: Mutex<Option<Task>>,
    workers: Mutex<Option<Task>>,
}

/// A program's process.
struct Task {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Task {
    fn begin(work: impl Future<Output = ()> + Send + 'static) -> Self {
        let stop = CancellationToken::new();
        let until = stop.clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                () = work => {}
                () = until.cancelled() => {}
            }
        });
        Self { stop, task }
    }

    async fn end(self) {
        self.stop.cancel();
        // One that panicked is as stopped as any other.
        let _ = self.task.await;
    }
}

/// How a core's process ends.
enum End {
    /// Its migration fails however often it is tried.
    GivenUp,
    /// It takes the container with it.
    WithContainer,
    /// By itself; the supervisor starts it again.
    Died,
}

impl Shop {
    /// A shop in which only the database's server runs.
    pub fn new(
        (version, release): (String, Release),
        (cluster, programs): (Option<Cluster>, Programs),
        is_alone: bool,
        (ack, needs): (Option<PathBuf>, Option<PathBuf>),
        log: PathBuf,
    ) -> Arc<Self> {
        Arc::new(Self {
            version,
            release,
            cluster,
            programs,
            is_alone,
            ack,
            needs,
            log,
            ends: CancellationToken::new(),
            serves: AtomicBool::new(false),
            asked_health: AtomicUsize::new(0),
            core: Mutex::new(None),
            workers: Mutex::new(None),
        })
    }

    /// Starts the core; false when it runs already.
    pub fn start_core(self: &Arc<Self>) -> bool {
        let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        if core.as_ref().is_some_and(|core| !core.task.is_finished()) {
            return false;
        }
        self.programs.begin(CORE, false);
        let shop = Arc::clone(self);
        *core = Some(Task::begin(async move { shop.supervise_core().await }));
        true
    }

    /// Stops the core; after it the core writes nothing any more. False when it did not run.
    pub async fn stop_core(&self) -> bool {
        let core = self.core.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(core) = core {
            core.end().await;
        }
        self.serves.store(false, Ordering::SeqCst);
        self.programs.stop(CORE)
    }

    /// Starts the programs besides the core.
    pub fn start_workers(self: &Arc<Self>) {
        [WEBHOOKS, WORKER].into_iter().for_each(|name| {
            self.start_worker(name);
        });
        let shop = Arc::clone(self);
        let task = Task::begin(async move { shop.work().await });
        *self.workers.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    /// Starts one of the programs besides the core; false when it can't be started.
    pub fn start_worker(&self, name: &'static str) -> bool {
        if name == WEBHOOKS && self.release.bystander_fatal {
            self.programs.end(name, State::Fatal(TOO_QUICKLY));
            return false;
        }
        self.programs.begin(name, false);
        true
    }

    /// Ends everything but the database's server; after it nothing is written any more.
    pub async fn stop_programs(&self) {
        self.stop_core().await;
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(workers) = workers {
            workers.end().await;
        }
    }

    /// How many connections of the application the database has.
    pub fn sessions(&self) -> usize {
        let runs = |name| self.programs.state(name) == Some(State::Running);
        match runs(CORE) {
            true => CORE_SESSIONS + usize::from(self.release.writes_rows && runs(WORKER)),
            false => 0,
        }
    }

    /// Takes so many payments at once.
    pub fn take(&self, count: usize) -> io::Result<()> {
        (0..count).try_for_each(|_| self.pay())
    }

    fn pay(&self) -> io::Result<()> {
        let Some(cluster) = &self.cluster else { return Ok(()) };
        self.acknowledge(&cluster.pay(&self.version)?)
    }

    fn pay_or_say(&self) {
        if let Err(error) = self.pay() {
            self.say(&format!("payment not taken: {error}"));
        }
    }

    /// A line of the container's log.
    pub fn say(&self, line: &str) {
        let text = format!("{} payram-core {}: {line}\n", Timestamp::now().rfc3339(), self.version);
        if let Err(error) = append(&self.log, &text) {
            tracing::warn!(%error, log = %self.log.display(), "a container's line is lost");
        }
    }

    /// The core's lives, one after the other.
    async fn supervise_core(&self) {
        let mut failed_starts = 0;
        loop {
            let began = Instant::now();
            let end = tokio::select! {
                end = self.run_core() => end,
                end = self.die_young() => end,
            };
            self.serves.store(false, Ordering::SeqCst);
            match end {
                End::GivenUp => {
                    self.programs.end(CORE, State::Fatal(TOO_QUICKLY));
                    return;
                }
                End::WithContainer => {
                    self.say("exits");
                    self.ends.cancel();
                    return;
                }
                End::Died => {}
            }
            self.say(&format!("exits with {}", self.release.core_exit_code));
            let is_start = began.elapsed() < START_TAKES;
            failed_starts = if is_start { failed_starts + 1 } else { 0 };
            if failed_starts > START_RETRIES {
                self.programs.end(CORE, State::Fatal(TOO_QUICKLY));
                return;
            }
            self.programs.end(CORE, if is_start { State::Backoff } else { State::Exited });
            tokio::time::sleep(RESPAWN).await;
            self.programs.again(CORE);
        }
    }

    async fn die_young(&self) -> End {
        match self.release.core_dies_every_ms {
            Some(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            None => std::future::pending().await,
        }
        End::Died
    }

    /// One life of the core.
    async fn run_core(&self) -> End {
        self.say("starts");
        tokio::time::sleep(Duration::from_millis(self.release.boot_ms)).await;
        if let Err(why) = self.migrate() {
            self.say(&why);
            return End::GivenUp;
        }
        self.say("listens on port 80");
        self.serves.store(true, Ordering::SeqCst);
        let life = async {
            match self.release.exits_after_ms {
                Some(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.take_payments() => {}
            () = life => {}
        }
        End::WithContainer
    }

    /// What the worker does: rows, whatever the core's health is, and lives by design.
    async fn work(&self) {
        let rows = async {
            if !self.release.writes_rows {
                return std::future::pending().await;
            }
            tokio::time::sleep(Duration::from_millis(self.release.boot_ms)).await;
            let mut every = tokio::time::interval(PAYMENT_EVERY);
            loop {
                every.tick().await;
                self.programs.while_running(WORKER, || self.pay_or_say());
            }
        };
        let lives = async {
            let Some(ms) = self.release.restless_program else {
                return std::future::pending().await;
            };
            loop {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                if self.programs.while_running(WORKER, || ()).is_some() {
                    self.programs.end(WORKER, State::Exited);
                    tokio::time::sleep(RESPAWN).await;
                    self.programs.again(WORKER);
                }
            }
        };
        tokio::select! {
            () = rows => {}
            () = lives => {}
        }
    }

    fn migrate(&self) -> Result<(), String> {
        let Some(cluster) = &self.cluster else {
            return Err("the database does not answer".into());
        };
        match cluster.migrate(&self.version, self.release.migration) {
            Ok(outcome) => outcome,
            Err(error) => Err(format!("the database can't be migrated: {error}")),
        }
    }

    async fn take_payments(&self) {
        if self.cluster.is_none() || !self.release.takes_payments {
            return std::future::pending().await;
        }
        let mut every = tokio::time::interval(PAYMENT_EVERY);
        loop {
            every.tick().await;
            if !self.lacks_its_file() {
                self.pay_or_say();
            }
        }
    }

    fn lacks_its_file(&self) -> bool {
        self.needs.as_ref().is_some_and(|file| !file.exists())
    }

    fn acknowledge(&self, id: &str) -> io::Result<()> {
        match &self.ack {
            Some(ack) => append(ack, &format!("{id} {}\n", self.version)),
            None => Ok(()),
        }
    }
}

fn append(path: &std::path::Path, text: &str) -> io::Result<()> {
    OpenOptions::new().append(true).create(true).open(path)?.write_all(text.as_bytes())
}
