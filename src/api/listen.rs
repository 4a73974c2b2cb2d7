//! The listeners: loopback, the bridge's gateways, the root-owned Unix socket (I9).
//!
//! Never `0.0.0.0`. A gateway may come and go with the engine, so the set is looked at again
//! and followed; loopback and the socket must be there from the start, or the daemon is not.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::access::{Caller, Refusal};
use super::neighbours::Recall;
use super::places::Places;
use super::seldom::Seldom;
use super::{Api, answers, connection, endpoints};

/// Between two looks at which gateways there are.
const FOLLOW_EVERY: Duration = Duration::from_secs(5);

/// After a failed accept (out of file descriptors), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the API can't be served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The loopback port.
    #[error("listen on {address}: {source}; UPDATER_PORT names another port")]
    Tcp {
        /// Which address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The Unix socket.
    #[error("listen on {}: {source}; RUN_DIR names another directory", path.display())]
    Socket {
        /// Which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Serves until told to stop.
pub(super) async fn serve(api: Arc<Api>, ready: impl FnOnce()) -> Result<(), ListenError> {
    let loopback = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), api.settings.port);
    let tcp = TcpListener::bind(loopback)
        .await
        .map_err(|source| ListenError::Tcp { address: loopback, source })?;
    let path = api.settings.socket_path();
    let socket =
        bind_socket(&path).map_err(|source| ListenError::Socket { path: path.clone(), source })?;
    tracing::info!(address = %loopback, socket = %path.display(), "listening");
    ready();
    let gateways = tokio::spawn(follow_gateways(Arc::clone(&api)));
    let door = Arc::new(Door::new(Arc::clone(&api)));
    let on_loopback = tokio::spawn(accept_tcp(door, tcp));
    accept_socket(Arc::clone(&api), socket).await;
    on_loopback.abort();
    gateways.abort();
    let _ = std::fs::remove_file(&path);
    Ok(())
}

/// The socket is made under another name with its mode set before it can be found.
fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    }
    let fresh = path.with_extension("new");
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&fresh)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&fresh, path)?;
    Ok(listener)
}

pub(super) async fn accept_tcp(door: Arc<Door>, listener: TcpListener) {
    let api = Arc::clone(&door.api);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = api.stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => admit(&door, stream, peer.ip().to_canonical()),
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Who calls is known before a place is taken: a stranger takes none of those that are for the
/// container, nor any time of whoever accepts.
pub(super) fn admit(door: &Arc<Door>, stream: TcpStream, peer: IpAddr) {
    if peer.is_loopback() {
        return door.let_in(stream, Caller::Tcp(peer));
    }
    match door.api.neighbours.recall(peer) {
        Recall::Known => door.let_in(stream, Caller::Tcp(peer)),
        Recall::Stranger => door.refuse_stranger(stream, peer),
        Recall::Unsure => {
            let Ok(judging) = Arc::clone(&door.judging).try_acquire_owned() else {
                door.say_unanswered();
                return;
            };
            let door = Arc::clone(door);
            tokio::spawn(async move {
                let is_known = connection::is_known(&door.api, peer).await;
                drop(judging);
                match is_known {
                    true => door.let_in(stream, Caller::Tcp(peer)),
                    false => door.refuse_stranger(stream, peer),
                }
            });
        }
    }
}

async fn accept_socket(api: Arc<Api>, listener: UnixListener) {
    let door = Door::new(Arc::clone(&api));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = api.stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) if is_operator(&stream) => door.let_in(stream, Caller::Operator),
            Ok(_) => tracing::warn!("a caller on the socket was neither root nor this user"),
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The door of one listener: whoever comes through it takes one of its places.
pub(super) struct Door {
    api: Arc<Api>,
    places: Arc<Places>,
    judging: Arc<Semaphore>,
    /// For strangers, and for those for whom there is no place: neither takes the other's.
    farewells: [Arc<Semaphore>; 2],
    full: Seldom,
    unanswered: Seldom,
}

impl Door {
    pub fn new(api: Arc<Api>) -> Self {
        let limits = api.limits;
        Self {
            places: Places::new(limits),
            judging: Arc::new(Semaphore::new(limits.judged)),
            farewells: std::array::from_fn(|_| Arc::new(Semaphore::new(limits.farewells))),
            full: Seldom::default(),
            unanswered: Seldom::default(),
            api,
        }
    }

    /// Serves it when there is a place.
    fn let_in<S>(&self, stream: S, caller: Caller)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match self.places.enter() {
            Some(place) => {
                tokio::spawn(connection::serve(Arc::clone(&self.api), stream, caller, place));
            }
            None => {
                if let Some(times) = self.full.count() {
                    let most = self.api.limits.connections;
                    tracing::warn!(
                        ?caller,
                        times,
                        "all {most} connections are being answered; further ones were told so"
                    );
                }
                let [_, farewells] = &self.farewells;
                self.turn_away(stream, &Refusal::too_many_connections(), farewells);
            }
        }
    }

    fn refuse_stranger(&self, stream: TcpStream, peer: IpAddr) {
        let [farewells, _] = &self.farewells;
        self.turn_away(stream, &Refusal::stranger(peer), farewells);
    }

    /// Says so without reading a byte of what the peer sends.
    fn turn_away<S>(&self, stream: S, refusal: &Refusal, farewells: &Arc<Semaphore>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Ok(place) = Arc::clone(farewells).try_acquire_owned() else {
            self.say_unanswered();
            return;
        };
        let (answer, patience) = (answers::raw(refusal), self.api.limits.farewell);
        tokio::spawn(async move {
            // Whether it hears it is its own affair.
            let _ = tokio::time::timeout(patience, farewell(stream, answer)).await;
            drop(place);
        });
    }

    #[cfg(test)]
    pub fn places(&self) -> &Places {
        &self.places
    }

    fn say_unanswered(&self) {
        if let Some(times) = self.unanswered.count() {
            tracing::warn!(
                times,
                "connections were closed unanswered: too many come at once that are refused"
            );
        }
    }
}

async fn farewell<S>(mut stream: S, answer: String) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    // Until it has closed too: a close with unread bytes would take the answer back.
    let mut unread = [0; 1024];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}

/// Root, or the user that the daemon itself runs as.
fn is_operator(stream: &UnixStream) -> bool {
    stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == 0 || peer.uid() == rustix::process::geteuid().as_raw())
}

/// Binds each gateway that appears and lets go of each that is gone.
async fn follow_gateways(api: Arc<Api>) {
    let mut bound: BTreeMap<IpAddr, JoinHandle<()>> = BTreeMap::new();
    loop {
        let container = endpoints::container_name(&api).await;
        let found =
            api.neighbours.look(&api.settings, api.engine.as_ref(), container.as_deref()).await;
        bound.retain(|address, listener| {
            let stays = found.gateways.contains(address);
            if !stays {
                listener.abort();
            }
            stays
        });
        for gateway in found.gateways {
            if bound.contains_key(&gateway) || gateway.is_loopback() {
                continue;
            }
            let address = SocketAddr::new(gateway, api.settings.port);
            match TcpListener::bind(address).await {
                Ok(listener) => {
                    tracing::info!(%address, "listening for the container");
                    let door = Arc::new(Door::new(Arc::clone(&api)));
                    bound.insert(gateway, tokio::spawn(accept_tcp(door, listener)));
                }
                Err(error) => tracing::debug!(%address, %error, "the gateway is not bound"),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(FOLLOW_EVERY) => {}
            () = api.stop.cancelled() => break,
        }
    }
    bound.values().for_each(JoinHandle::abort);
}
