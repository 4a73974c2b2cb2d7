//! The listeners: loopback, the bridge's gateways, the root-owned Unix socket (I9).
//!
//! Never `0.0.0.0`. A gateway may come and go with the engine, so the set is looked at again
//! and followed; loopback and the socket must be there from the start, or the daemon is not.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use warp::Filter;
use warp::reply::Response;

use super::access::{self, Caller, Refusal};
use super::{Api, answers, endpoints};

/// The largest body that a request may have.
const BODY_LIMIT: usize = 64 * 1024;

/// How long a client may take over its request's head, and over its body.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two looks at which gateways there are.
const FOLLOW_EVERY: Duration = Duration::from_secs(5);

/// Connections that one TCP listener serves at once; more are closed unanswered. The bridge is
/// shared with other containers, and a file for each of their connections would be missing to
/// an upgrade.
const MOST_CONNECTIONS: usize = 64;

/// How long a stranger's connection is kept to tell it that it is one.
const STRANGER_TIMEOUT: Duration = Duration::from_secs(1);

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
    let on_loopback = tokio::spawn(accept_tcp(Arc::clone(&api), tcp));
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

async fn accept_tcp(api: Arc<Api>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = api.stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                let (api, peer) = (Arc::clone(&api), peer.ip().to_canonical());
                tokio::spawn(async move {
                    if is_known(&api, peer).await {
                        connection(api, stream, Caller::Tcp(peer)).await;
                    } else {
                        turn_away(stream, peer).await;
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept_socket(api: Arc<Api>, listener: UnixListener) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = api.stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) if is_operator(&stream) => {
                tokio::spawn(connection(Arc::clone(&api), stream, Caller::Operator));
            }
            Ok(_) => tracing::warn!("a caller on the socket was neither root nor this user"),
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// This machine, or the PayRam container.
async fn is_known(api: &Api, peer: IpAddr) -> bool {
    if peer.is_loopback() {
        return true;
    }
    let container = endpoints::container_name(api).await;
    let engine = api.engine.as_ref();
    api.neighbours.knows(peer, &api.settings, engine, container.as_deref()).await
}

/// 403 without reading a byte of what a stranger sends.
async fn turn_away(mut stream: TcpStream, peer: IpAddr) {
    let refusal = Refusal::stranger(peer);
    let body = answers::error_body(refusal.code, &refusal.message).to_string();
    let answer = format!(
        "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    // Whether it hears it is its own affair.
    let _ = tokio::time::timeout(STRANGER_TIMEOUT, async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        // Until it has closed too: a close with unread bytes would take the answer back.
        let mut unread = [0; 1024];
        while stream.read(&mut unread).await? > 0 {}
        Ok::<(), io::Error>(())
    })
    .await;
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
                    bound.insert(gateway, tokio::spawn(accept_tcp(Arc::clone(&api), listener)));
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

/// One connection, request after request.
async fn connection<S>(api: Arc<Api>, stream: S, caller: Caller)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stop = api.stop.clone();
    let service = service_fn(move |request| {
        let api = Arc::clone(&api);
        async move { Ok::<_, Infallible>(answer(api, caller, request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    tokio::select! {
        _ = served.as_mut() => {}
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            // What the client does with a goodbye is its own affair.
            let _ = tokio::time::timeout(Duration::from_secs(1), served).await;
        }
    }
}

/// One request: access, body, endpoint.
async fn answer(api: Arc<Api>, caller: Caller, request: Request<Incoming>) -> Response {
    if let Err(refusal) = may_call(&api, caller, &request).await {
        return answers::refusal(&refusal);
    }
    let (head, body) = request.into_parts();
    let collected = tokio::time::timeout(REQUEST_TIMEOUT, Limited::new(body, BODY_LIMIT).collect());
    let body = match collected.await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => {
            let message = format!("a body may have at most {BODY_LIMIT} bytes");
            return answers::error(StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE", &message);
        }
        Ok(Err(error)) => {
            let message = format!("the body could not be read: {error}");
            return answers::error(StatusCode::BAD_REQUEST, "INVALID_BODY", &message);
        }
        Err(_) => {
            let message = format!("the body did not arrive within {} s", REQUEST_TIMEOUT.as_secs());
            return answers::error(StatusCode::REQUEST_TIMEOUT, "REQUEST_TIMEOUT", &message);
        }
    };
    let request = Request::from_parts(head, Full::<Bytes>::new(body));
    let filter = warp::method()
        .and(warp::path::full())
        .and(warp::query::raw().or(warp::any().map(String::new)).unify())
        .and(warp::header::headers_cloned())
        .and(warp::body::bytes())
        .then(move |method, path: warp::path::FullPath, query: String, headers, body| {
            let api = Arc::clone(&api);
            async move {
                let asked = endpoints::Asked { caller, query, headers, body };
                endpoints::answer(api, &method, path.as_str(), asked).await
            }
        });
    match TowerToHyperService::new(warp::service(filter)).call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

async fn may_call(api: &Api, caller: Caller, request: &Request<Incoming>) -> Result<(), Refusal> {
    match caller {
        Caller::Operator => return Ok(()),
        // A connection may outlive the container that opened it.
        Caller::Tcp(peer) if !is_known(api, peer).await => return Err(Refusal::stranger(peer)),
        Caller::Tcp(_) => {}
    }
    let mut hosts = api.settings.allowed_hosts.clone();
    hosts.push("host.docker.internal".to_owned());
    hosts.extend(api.neighbours.gateways());
    access::check(request.method(), request.headers(), request.uri().host(), &hosts)
}
