//! The line between the daemon and its engine: a socket that passes everything on.
//!
//! It is for two things. The daemon can be killed at a known moment: a start of a container is
//! held back, the engine never sees it. And when everybody who asked is dead, it says when the
//! engine has dealt with all that it was asked: only then is a list of what is there complete.
//! Laid by `stage`.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, sink};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The longest head of a request that is looked at.
const HEAD_BYTES: usize = 4096;

/// How long the engine may take over a request whose sender is dead.
const QUIET_WITHIN: Duration = Duration::from_secs(30);

/// A line that is open until it is hung up or dropped.
pub(super) struct Line {
    accepting: JoinHandle<()>,
    /// Asked for the next start of a container, and told when it is held back.
    trap: Trap,
    /// Ends when the last exchange has.
    exchanges: mpsc::Receiver<Infallible>,
}

type Trap = Arc<Mutex<Option<oneshot::Sender<()>>>>;

impl Line {
    /// From a socket that is made here to the engine's, which need not be there yet.
    pub fn lay(socket: &Path, engine: PathBuf) -> io::Result<Self> {
        let listener = UnixListener::bind(socket)?;
        let trap = Trap::default();
        let (open, exchanges) = mpsc::channel(1);
        let passing = Arc::clone(&trap);
        let accepting = tokio::spawn(async move {
            // What can't be accepted is answered like an engine that is down: by nothing.
            while let Ok((client, _)) = listener.accept().await {
                let (trap, engine, open) = (Arc::clone(&passing), engine.clone(), open.clone());
                tokio::spawn(async move {
                    // A broken connection is the askers' to report.
                    let _ = pass_on(client, &engine, &trap).await;
                    drop(open);
                });
            }
        });
        Ok(Self { accepting, trap, exchanges })
    }

    /// Holds back the next start of a container, until whoever asks for it is dead. Resolves
    /// when it is held.
    pub fn hold_next_start(&self) -> oneshot::Receiver<()> {
        let (held, is_held) = oneshot::channel();
        *self.trap.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
        is_held
    }

    /// Takes no further request, and waits until those that were sent are dealt with; whether
    /// they are. Everybody who asked must be dead.
    pub async fn hang_up(mut self) -> bool {
        self.accepting.abort();
        timeout(QUIET_WITHIN, self.exchanges.recv()).await.is_ok()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// One connection, which is one request.
async fn pass_on(mut client: UnixStream, engine: &Path, trap: &Trap) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.contains(&b'\n') && head.len() < HEAD_BYTES {
        if client.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    if is_start(&head) {
        let held = trap.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(held) = held {
            // Nobody waits for it any more when the demo was interrupted.
            let _ = held.send(());
            copy(&mut client, &mut sink()).await?;
            return Ok(());
        }
    }
    let mut engine = UnixStream::connect(engine).await?;
    engine.write_all(&head).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_engine, mut to_engine) = engine.into_split();
    let asking = async {
        // Cut off or ended, the engine hears that nothing more comes.
        let _ = copy(&mut from_client, &mut to_engine).await;
        let _ = to_engine.shutdown().await;
    };
    let answering = async {
        let _ = copy(&mut from_engine, &mut to_client).await;
        // Also when nobody listens any more: its end says that the request is dealt with.
        let _ = copy(&mut from_engine, &mut sink()).await;
        let _ = to_client.shutdown().await;
    };
    tokio::join!(asking, answering);
    Ok(())
}

/// Whether this is the head of `POST /vX.Y/containers/ID/start`.
fn is_start(head: &[u8]) -> bool {
    let head = String::from_utf8_lossy(head);
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    let (method, target) = (words.next(), words.next().unwrap_or_default());
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    method == Some("POST") && path.contains("/containers/") && path.ends_with("/start")
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &[u8] = b"POST /v1.41/containers/3f2a/start HTTP/1.1\r\n\r\n";
    const STOP: &[u8] = b"POST /v1.41/containers/3f2a/stop?t=10 HTTP/1.1\r\n\r\n";

    /// An engine that answers each request by its own bytes, once it is let go.
    async fn engine(
        listener: UnixListener,
        got_it: oneshot::Sender<()>,
        go: oneshot::Receiver<()>,
    ) -> Vec<u8> {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut asked = vec![0; STOP.len()];
        stream.read_exact(&mut asked).await.expect("a request");
        got_it.send(()).expect("the test waits for it");
        go.await.expect("told to go on");
        // Whoever asked may be gone.
        let _ = stream.write_all(&asked).await;
        asked
    }

    #[test]
    fn only_the_start_of_a_container_is_one() {
        assert!(is_start(START));
        assert!(is_start(b"POST /containers/a/start?detachKeys=x HTTP/1.1\r\n"));
        for other in [STOP, b"POST /v1.41/exec/3f2a/start HTTP/1.1\r\n", b"GET /containers/a/start"]
        {
            assert!(!is_start(other));
        }
    }

    #[tokio::test]
    async fn a_held_start_never_reaches_the_engine_and_the_line_is_quiet_when_its_sender_is_gone() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        // There is no engine: a request that is passed on would end the connection at once.
        let line = Line::lay(&at("line"), at("engine")).expect("a line");
        let held = line.hold_next_start();
        let mut client = UnixStream::connect(at("line")).await.expect("connected");
        client.write_all(START).await.expect("sent");
        held.await.expect("it is held");
        drop(client);
        assert!(line.hang_up().await);
    }

    #[tokio::test]
    async fn the_line_is_quiet_only_when_the_engine_has_dealt_with_what_a_dead_client_asked() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        let ((got_it, has_it), (go, told)) = (oneshot::channel(), oneshot::channel());
        let listener = UnixListener::bind(at("engine")).expect("a socket");
        let engine = tokio::spawn(engine(listener, got_it, told));
        let line = Line::lay(&at("line"), at("engine")).expect("a line");
        let mut client = UnixStream::connect(at("line")).await.expect("connected");
        client.write_all(STOP).await.expect("sent");
        has_it.await.expect("the engine has it");
        drop(client);
        let mut quiet = std::pin::pin!(line.hang_up());
        let early = timeout(Duration::from_millis(200), quiet.as_mut()).await;
        assert!(early.is_err(), "quiet while the engine is at work");
        go.send(()).expect("the engine goes on");
        assert!(quiet.await);
        assert_eq!(engine.await.expect("an engine"), STOP);
    }
}
