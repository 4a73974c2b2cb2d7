//! The make-believe engine's voice: the part of the Docker Engine API that the product speaks.
//!
//! What each request means is in `route`. Every request is one connection's; each is counted
//! first and may meet a fault. What was asked is done in a task of its own: a client that goes
//! away does not undo it, as with the real engine.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::answer::{self, Answer, Refusal, Reply};
use super::exec;
use super::faults;
use super::scenario::{Act, Fault};
use super::world::World;

/// The engine's face: the world, and the commands that were created and not run yet.
pub(super) struct Face {
    pub world: Arc<World>,
    execs: Mutex<HashMap<String, Exec>>,
    numbered: AtomicU64,
}

#[derive(Clone)]
struct Exec {
    container: String,
    argv: Vec<String>,
    was_started: bool,
    /// None until it has ended.
    code: Option<i64>,
}

/// A request, taken apart.
pub(super) struct Asked {
    pub method: Method,
    pub path: Vec<String>,
    pub query: HashMap<String, String>,
    pub body: Value,
    pub upgrade: Option<OnUpgrade>,
}

/// The connection is closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("a fault of the scenario")]
struct Dropped;

impl Face {
    pub fn new(world: Arc<World>) -> Arc<Self> {
        Arc::new(Self { world, execs: Mutex::default(), numbered: AtomicU64::new(1) })
    }

    /// Serves on a socket until told to stop.
    pub async fn serve(self: Arc<Self>, socket: UnixListener, stop: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                () = stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    tokio::spawn(Arc::clone(&self).connection(stream));
                }
                Err(error) => tracing::warn!(%error, "accept failed"),
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: UnixStream) {
        let peer = stream.peer_cred().ok().and_then(|peer| peer.pid());
        let service = service_fn(move |request| Arc::clone(&self).answer(request, peer));
        let served = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        // A dropped connection is what a fault is; nobody is left to be told.
        let _ = served.await;
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: Option<i32>,
    ) -> Result<Reply, Dropped> {
        let asked = match take_apart(request).await {
            Ok(asked) => asked,
            Err(refusal) => return Ok(answer::refused(&refusal)),
        };
        let path: Vec<&str> = asked.path.iter().map(String::as_str).collect();
        let fault = match faults::kind(asked.method.as_str(), &path) {
            Some(kind) => self.world.faults.meet(kind, peer),
            None if path.first() == Some(&"sandbox") => None,
            None => self.world.faults.observe(asked.path.join("/"), peer),
        };
        if asked.method == Method::POST && path == ["sandbox", "faults"] {
            return Ok(self.set_faults(asked.body, peer));
        }
        let Some(Fault { act, ms, .. }) = fault else { return Ok(self.carry_out(asked).await) };
        match act {
            Act::Late => tokio::time::sleep(Duration::from_millis(ms)).await,
            Act::KillLate => {
                // In a task of its own: with its client this connection goes, too.
                let face = Arc::clone(&self);
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                    let _ = face.carry_out(asked).await.into_body().collect().await;
                });
                kill(peer);
                return Err(Dropped);
            }
            Act::DropBefore => return Err(Dropped),
            Act::KillBefore => {
                kill(peer);
                return Err(Dropped);
            }
            Act::Refuse => {
                return Ok(answer::refused(&Refusal::new(500, "a fault of the scenario")));
            }
            Act::DropAfter | Act::KillAfter => {}
        }
        let reply = self.carry_out(asked).await;
        match act {
            Act::Late | Act::DropBefore | Act::KillBefore | Act::KillLate | Act::Refuse => {
                Ok(reply)
            }
            Act::DropAfter => {
                // To the end of the answer: a pull is done only then.
                let _ = reply.into_body().collect().await;
                Err(Dropped)
            }
            Act::KillAfter => {
                let _ = reply.into_body().collect().await;
                kill(peer);
                Err(Dropped)
            }
        }
    }

    fn set_faults(&self, body: Value, watcher: Option<i32>) -> Reply {
        match serde_json::from_value(body) {
            Ok(faults) => {
                self.world.faults.replace(faults, watcher);
                answer::done(true)
            }
            Err(error) => answer::refused(&Refusal::new(400, format!("the faults: {error}"))),
        }
    }

    async fn carry_out(self: &Arc<Self>, asked: Asked) -> Reply {
        let face = Arc::clone(self);
        let done = tokio::spawn(async move { face.route(asked).await }).await;
        match done {
            Ok(Ok(reply)) => reply,
            Ok(Err(refusal)) => answer::refused(&refusal),
            Err(panicked) => answer::refused(&Refusal::new(500, panicked.to_string())),
        }
    }

    pub(super) fn create_exec(&self, container: &str, body: &Value) -> Answer<Reply> {
        self.world.shop(container)?;
        // By its id: in mid-swap the name is soon another's.
        let container =
            self.world.inspect(container)?["Id"].as_str().unwrap_or_default().to_owned();
        let argv = body["Cmd"].as_array().into_iter().flatten();
        let argv: Vec<String> = argv.filter_map(Value::as_str).map(str::to_owned).collect();
        let number = self.numbered.fetch_add(1, Ordering::SeqCst);
        let id = super::inspection::digest(&format!("exec {number}"));
        let action = format!("exec_create: {}", argv.join(" "));
        self.world.tell(&container, &action, &[("execID", id.clone())]);
        let exec = Exec { container, argv, was_started: false, code: None };
        self.execs.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), exec);
        Ok(answer::json(201, &json!({"Id": id})))
    }

    pub(super) async fn start_exec(
        self: &Arc<Self>,
        id: &str,
        upgrade: Option<OnUpgrade>,
    ) -> Answer<Reply> {
        let exec = self.exec(id)?;
        let shop = self.world.shop(&exec.container)?;
        self.begin_exec(id)?;
        let action = format!("exec_start: {}", exec.argv.join(" "));
        self.world.tell(&exec.container, &action, &[("execID", id.to_owned())]);
        let Some(upgrade) = upgrade else {
            let ended = exec::run(&shop, &exec.argv, b"").await;
            self.note_end(id, ended.code);
            return Ok(answer::frames(&ended.out, ended.err.as_bytes()));
        };
        let (face, id) = (Arc::clone(self), id.to_owned());
        tokio::spawn(async move {
            let hijacked = async {
                let mut connection = TokioIo::new(upgrade.await.map_err(io::Error::other)?);
                let input = answer::read_to_end(&mut connection).await?;
                let ended = exec::run(&shop, &exec.argv, &input).await;
                face.note_end(&id, ended.code);
                answer::write_frames(&mut connection, &ended.out, ended.err.as_bytes()).await
            };
            if let Err(error) = hijacked.await {
                face.note_end(&id, 137);
                tracing::debug!(%error, "a command's connection broke");
            }
        });
        Ok(answer::switching())
    }

    pub(super) fn exec_state(&self, id: &str) -> Answer<Value> {
        let exec = self.exec(id)?;
        Ok(json!({
            "ID": id, "Running": exec.was_started && exec.code.is_none(),
            "ExitCode": exec.code,
        }))
    }

    fn exec(&self, id: &str) -> Answer<Exec> {
        let execs = self.execs.lock().unwrap_or_else(PoisonError::into_inner);
        execs.get(id).cloned().ok_or_else(|| Refusal::new(404, format!("No such exec: {id}")))
    }

    /// A command runs once.
    fn begin_exec(&self, id: &str) -> Answer<()> {
        let mut execs = self.execs.lock().unwrap_or_else(PoisonError::into_inner);
        match execs.get_mut(id) {
            Some(exec) if exec.was_started => {
                Err(Refusal::new(409, format!("exec {id} has already run")))
            }
            Some(exec) => {
                exec.was_started = true;
                Ok(())
            }
            None => Err(Refusal::new(404, format!("No such exec: {id}"))),
        }
    }

    fn note_end(&self, id: &str, code: i64) {
        let mut execs = self.execs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(exec) = execs.get_mut(id) {
            exec.code = Some(code);
            let more = [("execID", id.to_owned()), ("exitCode", code.to_string())];
            self.world.tell(&exec.container, "exec_die", &more);
        }
    }
}

/// Binds the socket; one that a killed sandbox left behind is replaced.
pub(super) fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    UnixListener::bind(path)
}

async fn take_apart(mut request: Request<Incoming>) -> Answer<Asked> {
    let is_upgrade = request.headers().contains_key(hyper::header::UPGRADE);
    let upgrade = is_upgrade.then(|| hyper::upgrade::on(&mut request));
    let (head, body) = request.into_parts();
    let url = url::Url::parse(&format!("http://sandbox{}", head.uri))
        .map_err(|error| Refusal::new(400, error.to_string()))?;
    let mut path: Vec<String> = url
        .path_segments()
        .into_iter()
        .flatten()
        .map(|part| {
            url::form_urlencoded::parse(part.replace('+', "%2B").as_bytes())
                .map(|(key, _)| key.into_owned())
                .collect()
        })
        .collect();
    let is_version = |part: &String| {
        part.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    if path.first().is_some_and(is_version) {
        path.remove(0);
    }
    let bytes = body.collect().await.map_err(|error| Refusal::new(400, error.to_string()))?;
    let bytes = bytes.to_bytes();
    let body = match bytes.is_empty() {
        true => Value::Null,
        false => serde_json::from_slice(&bytes)
            .map_err(|error| Refusal::new(400, format!("the body: {error}")))?,
    };
    let query = url.query_pairs().into_owned().collect();
    Ok(Asked { method: head.method, path, query, body, upgrade })
}

/// A power cut for whoever asks.
fn kill(peer: Option<i32>) {
    let pid = peer.and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid
        && let Err(error) = rustix::process::kill_process(pid, rustix::process::Signal::KILL)
    {
        tracing::warn!(%error, "the scenario's kill did not reach the client");
    }
}
