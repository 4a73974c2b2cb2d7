//! One connection, request after request: the head and the body within their bounds, then
//! access, then the endpoint. Called by [`super::listen`], which has found a place for it.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::{Service, service_fn};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use warp::Filter;

use super::access::{self, Caller, Refusal};
use super::asked::Asked;
use super::deadline::WriteDeadline;
use super::places::{Busy, Place};
use super::{Api, answers, endpoints};

/// The largest body that a request may have.
const BODY_LIMIT: usize = 64 * 1024;

/// What a connection may keep of what it reads, and of what it has to write.
const BUFFER: usize = 64 * 1024;

/// What a connection that is to end may take over its goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// Serves one connection to its end.
pub(super) async fn serve<S>(api: Arc<Api>, stream: S, caller: Caller, place: Place)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (stop, limits, place) = (api.stop.clone(), api.limits, Arc::new(place));
    let leave = place.leave().clone();
    let service = service_fn(move |request| {
        let (api, place) = (Arc::clone(&api), Arc::clone(&place));
        async move {
            let busy = place.busy();
            let response = answer(api, caller, request, place).await;
            Ok::<_, Infallible>(response.map(|body| Answered { body, _busy: busy }))
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.request)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(WriteDeadline::new(stream, limits.write)), service);
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = async { tokio::select! { () = stop.cancelled() => {}, () = leave.cancelled() => {} } } => {
            served.as_mut().graceful_shutdown();
            // What the client does with a goodbye is its own affair.
            tokio::time::timeout(GOODBYE, served).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended
        && is_timed_out(&error)
    {
        tracing::info!(?caller, "a client that did not read its answer was cut off");
    }
}

/// Whether the connection ended because its peer did not read.
fn is_timed_out(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        let found = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if found == Some(io::ErrorKind::TimedOut) {
            return true;
        }
        source = error.source();
    }
    false
}

/// A body that keeps its connection's place from giving way until it was given.
struct Answered<B> {
    body: B,
    _busy: Busy,
}

impl<B: Body + Unpin> Body for Answered<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// One request: access, body, endpoint.
async fn answer(
    api: Arc<Api>,
    caller: Caller,
    request: Request<Incoming>,
    place: Arc<Place>,
) -> warp::reply::Response {
    if let Err(refusal) = may_call(&api, caller, &request).await {
        return answers::refusal(&refusal);
    }
    let (head, body) = request.into_parts();
    let patience = api.limits.request;
    let collected = tokio::time::timeout(patience, Limited::new(body, BODY_LIMIT).collect());
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
            let message = format!("the body did not arrive within {} s", patience.as_secs());
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
            let (api, place) = (Arc::clone(&api), Arc::clone(&place));
            async move {
                let asked = Asked { caller, query, headers, body, place };
                endpoints::answer(api, &method, path.as_str(), asked).await
            }
        });
    match TowerToHyperService::new(warp::service(filter)).call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// This machine, or the PayRam container.
pub(super) async fn is_known(api: &Api, peer: IpAddr) -> bool {
    if peer.is_loopback() {
        return true;
    }
    let container = endpoints::container_name(api);
    api.neighbours.knows(peer, &api.settings, api.engine.as_ref(), container).await
}

async fn may_call(api: &Api, caller: Caller, request: &Request<Incoming>) -> Result<(), Refusal> {
    match caller {
        Caller::Operator => return Ok(()),
        // A connection may outlive the container that opened it.
        Caller::Tcp(peer) if !is_known(api, peer).await => {
            return Err(Refusal::stranger(peer));
        }
        Caller::Tcp(_) => {}
    }
    let mut hosts = api.settings.allowed_hosts.clone();
    hosts.push("host.docker.internal".to_owned());
    hosts.extend(api.neighbours.gateways());
    access::check(request.method(), request.headers(), request.uri().host(), &hosts)
}
