//! What runs inside a make-believe container: a database server, a core that listens on the
//! published ports and takes payments, and a supervisor over them.
//!
//! Started by `world` with the container and ended by it. A payment is in the database first
//! and acknowledged afterwards by a line outside of it (`/ack/acked.log`), so that a lost one
//! can be told.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::cluster::Cluster;
use super::scenario::Release;
use crate::clock::Timestamp;

/// Between two payments.
const PAYMENT_EVERY: Duration = Duration::from_millis(50);

/// The programs besides the database and the core, which do nothing.
const OTHERS: [&str; 2] = ["payram-webhooks", "payram-worker"];

/// The inside of one running container.
pub(super) struct Shop {
    pub version: String,
    pub release: Release,
    /// The database's server; none in a container whose data directory is nowhere.
    pub cluster: Option<Cluster>,
    /// Where payments are acknowledged, on this host.
    pub ack: Option<PathBuf>,
    /// What the container prints, on this host.
    pub log: PathBuf,
    /// Cancelled when the container ends by itself.
    pub ends: CancellationToken,
    serves: AtomicBool,
    is_fatal: AtomicBool,
    asked_health: AtomicUsize,
    /// Of [`OTHERS`], those that were stopped.
    idle: Mutex<BTreeSet<String>>,
    core: Mutex<Option<Core>>,
}

/// The core's process.
struct Core {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Shop {
    /// A shop in which only the database's server runs.
    pub fn new(
        version: String,
        release: Release,
        cluster: Option<Cluster>,
        ack: Option<PathBuf>,
        log: PathBuf,
    ) -> Arc<Self> {
        Arc::new(Self {
            version,
            release,
            cluster,
            ack,
            log,
            ends: CancellationToken::new(),
            serves: AtomicBool::new(false),
            is_fatal: AtomicBool::new(false),
            asked_health: AtomicUsize::new(0),
            idle: Mutex::default(),
            core: Mutex::new(None),
        })
    }

    /// Starts the core; fine when it runs.
    pub fn start_core(self: &Arc<Self>) {
        let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        if core.as_ref().is_some_and(|core| !core.task.is_finished()) {
            return;
        }
        self.is_fatal.store(false, Ordering::SeqCst);
        let stop = CancellationToken::new();
        let shop = Arc::clone(self);
        let until = stop.clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                () = shop.run_core() => {}
                () = until.cancelled() => {}
            }
            shop.serves.store(false, Ordering::SeqCst);
        });
        *core = Some(Core { stop, task });
    }

    /// Stops the core; after it nothing is written any more.
    pub async fn stop_core(&self) {
        let core = self.core.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(core) = core {
            core.stop.cancel();
            // A core that panicked is as stopped as any other.
            let _ = core.task.await;
        }
        self.is_fatal.store(false, Ordering::SeqCst);
    }

    /// `NAME STATE` of every program, as its supervisor says it.
    pub fn programs(&self) -> Vec<(String, &'static str)> {
        let core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        let state = match core.is_some() {
            _ if self.is_fatal.load(Ordering::SeqCst) => "FATAL",
            true => "RUNNING",
            false => "STOPPED",
        };
        let mut programs = vec![("payram-core".to_owned(), state)];
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let state = |name| if idle.contains(name) { "STOPPED" } else { "RUNNING" };
        programs.extend(OTHERS.map(|name| (name.to_owned(), state(name))));
        let database = if self.cluster.is_some() { "RUNNING" } else { "STOPPED" };
        programs.push(("postgres".to_owned(), database));
        programs
    }

    /// Takes so many payments at once.
    pub fn take(&self, count: usize) -> io::Result<()> {
        let Some(cluster) = &self.cluster else { return Ok(()) };
        (0..count).try_for_each(|_| self.acknowledge(&cluster.pay(&self.version)?))
    }

    /// Stops or starts one of the programs that do nothing.
    pub fn set_idle(&self, name: &str, is_idle: bool) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if is_idle {
            idle.insert(name.to_owned());
        } else {
            idle.remove(name);
        }
    }

    /// A line of the container's log.
    pub fn say(&self, line: &str) {
        let text = format!("{} payram-core {}: {line}\n", Timestamp::now().rfc3339(), self.version);
        if let Err(error) = append(&self.log, &text) {
            tracing::warn!(%error, log = %self.log.display(), "a container's line is lost");
        }
    }

    async fn run_core(&self) {
        self.say("starts");
        tokio::time::sleep(Duration::from_millis(self.release.boot_ms)).await;
        match self.migrate() {
            Ok(()) => {}
            Err(why) => {
                self.say(&why);
                self.is_fatal.store(true, Ordering::SeqCst);
                // Its supervisor gave it up; it stays in the list.
                return;
            }
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
        self.say("exits");
        self.ends.cancel();
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
        let Some(cluster) = self.cluster.as_ref().filter(|_| self.release.takes_payments) else {
            return std::future::pending().await;
        };
        let mut every = tokio::time::interval(PAYMENT_EVERY);
        loop {
            every.tick().await;
            let taken = cluster.pay(&self.version).and_then(|id| self.acknowledge(&id));
            if let Err(error) = taken {
                self.say(&format!("payment not taken: {error}"));
            }
        }
    }

    fn acknowledge(&self, id: &str) -> io::Result<()> {
        match &self.ack {
            Some(ack) => append(ack, &format!("{id} {}\n", self.version)),
            None => Ok(()),
        }
    }

    /// Accepts on a published port until the container ends. Before the core listens, a
    /// connection is closed again, as the engine's own proxy does.
    pub async fn accept(self: Arc<Self>, listener: TcpListener, until: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = until.cancelled() => return,
            };
            if let Ok((stream, _)) = accepted
                && self.serves.load(Ordering::SeqCst)
            {
                let (shop, until) = (Arc::clone(&self), until.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = shop.serve(stream) => {}
                        () = until.cancelled() => {}
                    }
                });
            }
        }
    }

    async fn serve(&self, stream: TcpStream) {
        if self.release.hangs {
            return std::future::pending().await;
        }
        let service = service_fn(|request: Request<Incoming>| {
            let answer = self.answer(request.uri().path());
            async move { Ok::<_, std::convert::Infallible>(answer) }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        // A client that goes away is no concern of the shop.
        let _ = served.await;
    }

    fn answer(&self, path: &str) -> Response<Full<Bytes>> {
        let (status, text) = match path {
            _ if !self.serves.load(Ordering::SeqCst) => (503, "stopping\n".to_owned()),
            "/" => (200, "Welcome to Payram Core (make-believe)\n".to_owned()),
            "/api/v1/health" => self.health(),
            "/api/v1/version" => {
                let version = self.release.reports.as_ref().unwrap_or(&self.version);
                (200, serde_json::json!({"version": version}).to_string())
            }
            _ => (404, r#"{"error":"not found"}"#.to_owned()),
        };
        let mut response = Response::new(Full::from(text));
        *response.status_mut() =
            StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response
    }

    fn health(&self) -> (u16, String) {
        let asked = self.asked_health.fetch_add(1, Ordering::SeqCst);
        let statuses = &self.release.health;
        let status = statuses.get(asked).or(statuses.last()).copied().unwrap_or(200);
        let word = if status == 200 { "ok" } else { "error" };
        (status, serde_json::json!({"status": word, "db": "ok"}).to_string())
    }
}

fn append(path: &std::path::Path, text: &str) -> io::Result<()> {
    OpenOptions::new().append(true).create(true).open(path)?.write_all(text.as_bytes())
}
